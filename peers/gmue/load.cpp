// Load: many phones in one process.
#include "scenarios.h"

#include "../common/line_input.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
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
    ~Load() {
        if (csv_ != nullptr) std::fclose(csv_);
    }
    Load(const Load&) = delete;
    Load& operator=(const Load&) = delete;

    Result<void> make_phones() {
        if (!options_.csv.empty()) {
            csv_ = std::fopen(options_.csv.c_str(), "we");
            if (csv_ == nullptr) return fail("--csv {}: {}", options_.csv, std::strerror(errno));
            fmt::print(csv_, "seconds,phase,started,ok,failed,per_second\n");
        }
        for (std::size_t i = 0; i < options_.count; ++i) {
            auto config = make_config(options_, i);
            if (!config) return std::unexpected(config.error());
            phones_.push_back(std::make_unique<Phone>(env_, std::move(*config)));
            if (auto ok = phones_.back()->open(); !ok) return ok;
        }
        return {};
    }

    Task<Exit> run(std::string subcommand) {
        const auto start = begun_ = Clock::now();
        co_await phase("registered", RegisterKind::initial, {}, registered_);
        const double took = std::chrono::duration<double>(Clock::now() - start).count();
        const auto up =
            static_cast<std::size_t>(std::ranges::count_if(phones_, [](const auto& p) { return p->is_registered(); }));
        report("register", registered_,
               fmt::format("{} phones in {:.2f} s ({:.0f} per second)", phones_.size(), took,
                           static_cast<double>(up) / took));
        Tally said;
        if (subcommand == "message" || subcommand == "call") co_await talk(subcommand, said);
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
        for (const Tally* tally : std::initializer_list<const Tally*>{&deregistered_, &said, &registered_})
            if (!tally->failures.empty()) verdict.reason = tally->failures.begin()->first;
        if (said.done != 0)
            co_return reporter_.verdict(verdict, subcommand == "call" ? "called" : "delivered",
                                        fmt::format("{} of {}, {}", said.ms.size(), said.done, said.times()));
        co_return reporter_.verdict(verdict, "registered",
                                    fmt::format("{} phones, {}", registered_.ms.size(), registered_.times()));
    }

private:
    using Act = std::function<Task<Verdict>(Phone&, std::size_t number)>;

    Task<void> phase(std::string word, RegisterKind kind, std::vector<Header> headers, Tally& tally) {
        Act act = [kind, headers](Phone& phone, std::size_t) { return phone.register_now(kind, headers); };
        co_await each(std::move(word), kind != RegisterKind::initial, std::move(act), tally);
    }

    // Messages go from each phone to the next one. Of two phones one calls, so that nobody is called who is calling.
    Task<void> talk(std::string what, Tally& tally) {
        const bool is_call = what == "call";
        const auto seconds = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options_.seconds));
        Act act = [this, is_call, seconds](Phone& phone, std::size_t number) {
            const auto& next = *phones_[(number + 1) % phones_.size()];
            const std::string to = options_.to.empty() ? next.config().impu : options_.to;
            return is_call ? phone.call(to, seconds) : phone.message(to, options_.text);
        };
        const std::size_t step = is_call && options_.to.empty() ? 2 : 1;
        co_await each(is_call ? "called" : "said something", true, std::move(act), tally, step, options_.times);
        report(what, tally, fmt::format("{} {}s", tally.done, what));
        failed_ = failed_ || !tally.failures.empty();
    }

    // Starts one phone after the other at the rate, each `step`-th of them, all of them `times` times, then waits.
    Task<void> each(std::string word, bool only_registered, Act act, Tally& tally, std::size_t step = 1,
                    std::size_t times = 1) {
        const auto start = Clock::now();
        std::size_t started = 0;
        Progress progress{word, start, start, 0};
        for (std::size_t n = 0; n < times * phones_.size(); n += step) {
            const std::size_t i = n % phones_.size();
            tell(progress, started, tally, false);
            if (only_registered && !phones_[i]->is_registered()) continue;
            const auto due = start + std::chrono::duration_cast<Duration>(
                                         std::chrono::duration<double>(static_cast<double>(started) / options_.rate));
            if (due > Clock::now()) co_await sleep_for(env_.loop, due - Clock::now());
            ++started;
            flows_.spawn(one(act(*phones_[i], i), tally));
        }
        for (std::size_t got = 0; got < started;) {
            if (co_await finished_.take(Clock::now() + std::chrono::seconds(1))) ++got;
            tell(progress, started, tally, got == started);
        }
        if (!options_.quiet) fmt::print(stderr, "\n");
    }

    /// What was told of a phase last.
    struct Progress {
        std::string word;
        Clock::time_point start, told;
        std::size_t done = 0;
    };

    // Once a second, and at the end: to people on standard error, to programs as CSV.
    void tell(Progress& progress, std::size_t started, const Tally& tally, bool is_end) {
        const auto now = Clock::now();
        const double passed = std::chrono::duration<double>(now - progress.told).count();
        if (passed < 1 && !is_end) return;
        const double rate = static_cast<double>(tally.done - progress.done) / std::max(passed, 0.001);
        if (!options_.quiet)
            fmt::print(stderr, "\r{} of {} {}, {} failed, {:.0f} a second   ", tally.done, started, progress.word,
                       tally.done - tally.ms.size(), rate);
        if (csv_ != nullptr) {
            fmt::print(csv_, "{:.1f},{},{},{},{},{:.1f}\n", std::chrono::duration<double>(now - begun_).count(),
                       progress.word, started, tally.ms.size(), tally.done - tally.ms.size(), rate);
            std::fflush(csv_);
        }
        progress.told = now;
        progress.done = tally.done;
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
    std::FILE* csv_ = nullptr;
    Clock::time_point begun_{};
};

}  // namespace

Task<Exit> run_load(const Options& options, PhoneEnvironment& environment, const Reporter& reporter,
                    std::string subcommand) {
    Load load(options, environment, reporter);
    if (auto ok = load.make_phones(); !ok) {
        const Verdict verdict{false, 0, "local", ok.error().text, {}};
        co_return reporter.verdict(verdict, "", "");
    }
    co_return co_await load.run(std::move(subcommand));
}

}  // namespace gmgate::peers
