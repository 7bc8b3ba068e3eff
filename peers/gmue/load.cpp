// Load: many phones in one process.
#include "scenarios.h"

#include <algorithm>
#include <cstdio>

namespace gmgate::peers {
namespace {

/// Times and outcomes of one phase.
struct Tally {
    std::vector<double> ms;
    std::map<std::string, std::size_t> failures;
    std::size_t done = 0;

    void add(const Verdict& verdict) {
        ++done;
        if (verdict.ok) ms.push_back(std::chrono::duration<double, std::milli>(verdict.took).count());
        else ++failures[verdict.reason];
    }
    [[nodiscard]] std::string times() {
        if (ms.empty()) return "no times";
        std::ranges::sort(ms);
        return fmt::format("min {:.1f} ms, median {:.1f} ms, max {:.1f} ms", ms.front(), ms[ms.size() / 2], ms.back());
    }
    [[nodiscard]] std::string summary() {
        std::string out = fmt::format("{} ok, {} failed", ms.size(), done - ms.size());
        for (const auto& [reason, count] : failures) out += fmt::format(", {} {}", count, reason);
        return out + ", " + times();
    }
    [[nodiscard]] nlohmann::json to_json() {
        std::ranges::sort(ms);
        nlohmann::json out{{"ok", ms.size()}, {"failed", done - ms.size()}, {"failures", failures}};
        if (!ms.empty()) out.update({{"min_ms", ms.front()}, {"median_ms", ms[ms.size() / 2]}, {"max_ms", ms.back()}});
        return out;
    }
};

class Load {
public:
    Load(const Options& options, PhoneEnvironment& environment, const Reporter& reporter)
        : options_(options), env_(environment), reporter_(reporter), finished_(environment.loop) {}

    Result<void> make_phones() {
        for (std::size_t i = 0; i < options_.count; ++i) {
            auto config = make_config(options_, i);
            if (!config) return std::unexpected(config.error());
            phones_.push_back(std::make_unique<Phone>(env_, std::move(*config)));
            if (auto ok = phones_.back()->open(); !ok) return ok;
        }
        return {};
    }

    Task<Exit> run() {
        const auto start = Clock::now();
        co_await phase("registered", RegisterKind::initial, registered_);
        const double took = std::chrono::duration<double>(Clock::now() - start).count();
        const auto up =
            static_cast<std::size_t>(std::ranges::count_if(phones_, [](const auto& p) { return p->is_registered(); }));
        report("register", registered_,
               fmt::format("{} phones in {:.2f} s ({:.0f} per second)", phones_.size(), took,
                           static_cast<double>(up) / took));
        if (options_.hold > 0)
            co_await sleep_for(env_.loop,
                               std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options_.hold)));
        if (!options_.no_deregister) {
            co_await phase("deregistered", RegisterKind::deregister, deregistered_);
            report("deregister", deregistered_, fmt::format("{} phones", up));
        }
        const bool ok = registered_.failures.empty() && deregistered_.failures.empty();
        Verdict verdict{ok, 0, ok ? "ok" : "load", registered_.summary(), Clock::now() - start};
        if (!registered_.failures.empty()) verdict.reason = registered_.failures.begin()->first;
        co_return reporter_.verdict(verdict, "registered",
                                    fmt::format("{} phones, {}", registered_.ms.size(), registered_.times()));
    }

private:
    // Starts one phone after the other at the rate, then waits for all.
    Task<void> phase(std::string word, RegisterKind kind, Tally& tally) {
        const auto start = Clock::now();
        std::size_t started = 0;
        for (std::size_t i = 0; i < phones_.size(); ++i) {
            if (kind != RegisterKind::initial && !phones_[i]->is_registered()) continue;
            const auto due = start + std::chrono::duration_cast<Duration>(
                                         std::chrono::duration<double>(static_cast<double>(started) / options_.rate));
            if (due > Clock::now()) co_await sleep_for(env_.loop, due - Clock::now());
            ++started;
            flows_.spawn(one(*phones_[i], kind, tally));
        }
        const auto progress = [&](std::size_t done) {
            if (!options_.quiet) fmt::print(stderr, "\r{} of {} {}", done, started, word);
        };
        for (std::size_t got = 0; got < started;) {
            if (co_await finished_.take(Clock::now() + std::chrono::seconds(1))) ++got;
            if (got % 50 == 0 || got == started) progress(got);
        }
        if (!options_.quiet) fmt::print(stderr, "\n");
    }

    Task<void> one(Phone& phone, RegisterKind kind, Tally& tally) {
        const Verdict verdict = co_await phone.register_now(kind, {});
        tally.add(verdict);
        finished_.put(1);
    }

    void report(std::string_view phase, Tally& tally, const std::string& head) const {
        nlohmann::json event = tally.to_json();
        event["event"] = "load_summary";
        event["phase"] = phase;
        reporter_.event(event);
        if (!options_.json && !options_.quiet) fmt::print("{}: {}: {}\n", phase, head, tally.summary());
        std::fflush(stdout);
    }

    const Options& options_;
    PhoneEnvironment& env_;
    const Reporter& reporter_;
    std::vector<std::unique_ptr<Phone>> phones_;
    Mailbox<int> finished_;
    Tasks flows_;
    Tally registered_;
    Tally deregistered_;
};

}  // namespace

Task<Exit> run_load(const Options& options, PhoneEnvironment& environment, const Reporter& reporter) {
    Load load(options, environment, reporter);
    if (auto ok = load.make_phones(); !ok) {
        const Verdict verdict{false, 0, "local", ok.error().text, {}};
        co_return reporter.verdict(verdict, "", "");
    }
    co_return co_await load.run();
}

}  // namespace gmgate::peers
