#include "scenarios.h"

#include "../common/text.h"

#include <cstdio>

namespace gmgate::peers {

void Reporter::event(const nlohmann::json& event) const {
    if (!events_) return;
    const std::string line = to_line(event);
    std::fwrite(line.data(), 1, line.size(), stdout);
    std::fflush(stdout);
}

bool Reporter::as_wished(const Verdict& verdict) const {
    if (options_.expect.empty()) return verdict.ok;
    return options_.expect == verdict.reason ||
           (verdict.status != 0 && options_.expect == std::to_string(verdict.status));
}

Exit Reporter::verdict(const Verdict& verdict, const std::string& done, const std::string& what) const {
    const bool wished = as_wished(verdict);
    const double ms = std::chrono::duration<double, std::milli>(verdict.took).count();
    std::string line = verdict.ok ? fmt::format("{}: {} ({:.0f} ms)", done, what, ms)
                                  : fmt::format("failed: {}: {}", verdict.reason, verdict.detail);
    if (!options_.expect.empty())
        line += wished ? fmt::format(" - as expected ({})", options_.expect)
                       : fmt::format(" - expected {}", options_.expect);
    if (events_)
        event({{"event", "verdict"},
               {"ok", wished},
               {"text", line},
               {"reason", verdict.reason},
               {"status", verdict.status},
               {"ms", ms}});
    else fmt::print("{}\n", line);
    std::fflush(stdout);
    if (wished) return Exit::ok;
    return verdict.reason == "local" || verdict.reason == "kernel" ? Exit::local : Exit::failed;
}

namespace {

Result<std::unique_ptr<Phone>> make_phone(const Options& options, const PhoneEnvironment& environment,
                                          std::size_t number) {
    auto config = make_config(options, number);
    if (!config) return std::unexpected(config.error());
    auto phone = std::make_unique<Phone>(environment, std::move(*config));
    if (auto ok = phone->open(); !ok) return std::unexpected(ok.error());
    return phone;
}

Verdict local_trouble(const Error& error) { return {false, 0, "local", error.text, {}}; }

Task<Verdict> act(const Options& options, Phone& phone, std::string to, const std::string& subcommand) {
    if (subcommand == "message") co_return co_await phone.message(to, options.text);
    co_return co_await phone.call(to,
                                  std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options.seconds)));
}

std::string done_word(const std::string& subcommand) {
    if (subcommand == "message") return "delivered";
    if (subcommand == "call") return "called";
    return subcommand + (subcommand.ends_with("e") ? "d" : "ed");
}

}  // namespace

Task<Exit> run_once(const Options& options, PhoneEnvironment& environment, const Reporter& reporter,
                    std::string subcommand) {
    auto made = make_phone(options, environment, 0);
    if (!made) co_return reporter.verdict(local_trouble(made.error()), "", "");
    Phone& phone = **made;
    const Duration hold = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options.hold));
    Verdict verdict = co_await phone.register_now(RegisterKind::initial, {});
    std::string what = verdict.ok ? phone.registered_text() : "";
    if (!verdict.ok) co_return reporter.verdict(verdict, "", "");
    const bool sends = subcommand == "message" || subcommand == "call";
    std::unique_ptr<Phone> other;
    if (sends) {
        if (options.to.empty()) {
            auto second = make_phone(options, environment, 1);
            if (!second) co_return reporter.verdict(local_trouble(second.error()), "", "");
            other = std::move(*second);
            verdict = co_await other->register_now(RegisterKind::initial, {});
            if (!verdict.ok) co_return reporter.verdict(verdict, "", "");
        }
        const std::string to = other ? other->config().impu : options.to;
        verdict = co_await act(options, phone, to, subcommand);
        what = fmt::format("{} -> {}, {}", phone.config().impu, to, verdict.detail);
    }
    for (std::size_t i = 0; subcommand == "reregister" && i < options.times && verdict.ok; ++i) {
        verdict = co_await phone.register_now(RegisterKind::refresh, {});
        what = phone.registered_text();
    }
    if (hold.count() > 0 && verdict.ok) co_await sleep_for(environment.loop, hold);
    if (!options.no_deregister) {
        const Verdict left = co_await phone.register_now(RegisterKind::deregister, {});
        if (other) (void)co_await other->register_now(RegisterKind::deregister, {});
        if (subcommand == "deregister" || (verdict.ok && !left.ok)) verdict = left;
        if (subcommand == "deregister") what = phone.config().impu;
    }
    co_return reporter.verdict(verdict, done_word(subcommand), what);
}

}  // namespace gmgate::peers
