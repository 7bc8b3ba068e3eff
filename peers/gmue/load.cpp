// Load: many phones in one process.
#include "scenarios.h"

#include "../common/line_input.h"

#include <algorithm>
#include <cstdio>
#include <functional>

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
        co_await phase("registered", RegisterKind::initial, {}, registered_);
        const double took = std::chrono::duration<double>(Clock::now() - start).count();
        const auto up =
            static_cast<std::size_t>(std::ranges::count_if(phones_, [](const auto& p) { return p->is_registered(); }));
        report("register", registered_,
               fmt::format("{} phones in {:.2f} s ({:.0f} per second)", phones_.size(), took,
                           static_cast<double>(up) / took));
        if (options_.commands) co_await obey();
        if (options_.hold > 0)
            co_await sleep_for(env_.loop,
                               std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options_.hold)));
        if (!options_.no_deregister) {
            co_await phase("deregistered", RegisterKind::deregister, {}, deregistered_);
            report("deregister", deregistered_, fmt::format("{} phones", up));
        }
        const bool ok = registered_.failures.empty() && deregistered_.failures.empty() && !failed_;
        Verdict verdict{ok, 0, ok ? "ok" : "load", registered_.summary(), Clock::now() - start};
        if (!registered_.failures.empty()) verdict.reason = registered_.failures.begin()->first;
        co_return reporter_.verdict(verdict, "registered",
                                    fmt::format("{} phones, {}", registered_.ms.size(), registered_.times()));
    }

private:
    using Act = std::function<Task<Verdict>(Phone&, std::size_t number)>;

    Task<void> phase(std::string word, RegisterKind kind, std::vector<Header> headers, Tally& tally) {
        Act act = [kind, headers](Phone& phone, std::size_t) { return phone.register_now(kind, headers); };
        co_await each(std::move(word), kind != RegisterKind::initial, std::move(act), tally);
    }

    // Starts one phone after the other at the rate, then waits for all.
    Task<void> each(std::string word, bool only_registered, Act act, Tally& tally) {
        const auto start = Clock::now();
        std::size_t started = 0;
        for (std::size_t i = 0; i < phones_.size(); ++i) {
            if (only_registered && !phones_[i]->is_registered()) continue;
            const auto due = start + std::chrono::duration_cast<Duration>(
                                         std::chrono::duration<double>(static_cast<double>(started) / options_.rate));
            if (due > Clock::now()) co_await sleep_for(env_.loop, due - Clock::now());
            ++started;
            flows_.spawn(one(act(*phones_[i], i), tally));
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

    // "reregister", "challenge" (the same, and gmcore --steer challenges it) and "message" (each phone to the next
    // one); the end of input is the end of it.
    Task<void> obey() {
        static constexpr std::string_view kEnd = "\x04";
        Mailbox<std::string> box(env_.loop);
        const LineInput input(
            env_.loop, [&box](std::string line) { box.put(std::move(line)); }, [&box] { box.put(std::string(kEnd)); });
        for (;;) {
            const std::optional<std::string> line = co_await box.take(Clock::now() + std::chrono::hours(1));
            if (line && *line == kEnd) co_return;
            if (!line || line->empty()) continue;
            Tally tally;
            if (*line == "message") {
                Act act = [this](Phone& phone, std::size_t number) {
                    return phone.message(phones_[(number + 1) % phones_.size()]->config().impu, options_.text);
                };
                co_await each("said something", true, std::move(act), tally);
            } else {
                std::vector<Header> headers;
                if (*line == "challenge") headers.push_back({"X-Gmcore-Do", "challenge"});
                co_await phase("re-registered", RegisterKind::refresh, std::move(headers), tally);
            }
            report(*line, tally, fmt::format("{} phones", tally.done));
            failed_ = failed_ || !tally.failures.empty();
        }
    }

    Task<void> one(Task<Verdict> act, Tally& tally) {
        const Verdict verdict = co_await std::move(act);
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
    bool failed_ = false;  ///< something that a command asked for
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
