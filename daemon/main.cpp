// gmgated: reads the configuration, builds the gateway, runs the loop until a signal.
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>

#include <CLI/CLI.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/signal_set.hpp>

#include "base/log.h"
#include "daemon/gateway.h"
#include "daemon/operate/reload.h"
#include "xfrm/address_watch.h"
#include "xfrm/codec.h"
#include "xfrm/monitor.h"
#include "xfrm/netlink_kernel.h"

namespace {

using namespace gmgate;

struct Options {
    std::string config = "/etc/gmgate/gmgate.toml";
    bool check_config = false;
    bool remove_guards = false;
    bool take_over = false;
};

enum Exit { kOk = 0, kFailed = 1, kBadConfig = 2 };

// Keys pass through this process: no core dumps, no ptrace by others.
void harden() {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
    rlimit files{};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

xfrm::NetlinkSettings netlink_settings(const daemon::XfrmConfig& config) {
    xfrm::NetlinkSettings settings;
    settings.owner.reqid = ReqId{config.reqid};
    settings.owner.mark_mask = config.mark_mask;
    return settings;
}

Task<Result<void>> remove_guards(const daemon::Config& config, xfrm::Kernel& kernel) {
    const daemon::AccessMap accesses(config);
    for (const auto& access : accesses.all()) {
        if (!access.profile) continue;
        xfrm::GuardRequest request{access.address, access.profile->all_ports()};
        if (auto ok = co_await kernel.remove_guards(std::move(request)); !ok) co_return ok;
    }
    const auto found = co_await kernel.dump();
    if (!found) co_return std::unexpected(found.error());
    std::vector<xfrm::SaId> ids;
    for (const auto& report : *found) ids.push_back(report.sa.id);
    co_return co_await kernel.remove_sas(std::move(ids));
}

// The event sockets first: from here on nothing that happens in the kernel is missed.
Task<Result<void>> start(daemon::Gateway& gateway, xfrm::Monitor& monitor, xfrm::AddressWatch& addresses, bool take_over, std::function<void()> left) {
    if (auto ok = monitor.start(); !ok) co_return ok;
    if (auto ok = addresses.start(); !ok) co_return ok;
    co_return co_await gateway.start(take_over, std::move(left));
}

// SIGHUP and `gmctl reload`: one path.
Result<nlohmann::json> reload(daemon::Config& config) {
    const auto fresh = daemon::load_config(config.path);
    if (!fresh) {
        log::error("reload-refused", {{"why", fresh.error().text}, {"now", "everything stays as it was"}});
        return std::unexpected(fresh.error());
    }
    const auto report = daemon::apply_reload(config, *fresh);
    for (const auto& change : report.applied) log::notice("reload-applied", {{"key", change.key}, {"before", change.before}, {"now", change.now}});
    for (const auto& change : report.refused) log::warning("reload-not-applied", {{"key", change.key}, {"in-force", change.before}, {"in-file", change.now}, {"why", change.why}});
    log::notice("reloaded", {{"applied", report.applied.size()}, {"not-applied", report.refused.size()}});
    return report.json();
}

int run(daemon::Config& config, bool only_remove_guards, bool take_over) {
    const Clock clock;
    asio::io_context loop(1);
    xfrm::NetlinkKernel kernel(loop.get_executor(), clock, netlink_settings(config.xfrm));
    daemon::Gateway gateway(loop, config, kernel, clock);
    xfrm::Monitor monitor(loop.get_executor(), netlink_settings(config.xfrm).owner, [&](const xfrm::KernelEvent& event) { gateway.kernel_watch().event(event); });
    xfrm::AddressWatch addresses(loop.get_executor(), gateway.access_addresses(),
                                 [&](const auto& change) { gateway.kernel_watch().address_changed(change.address, change.is_usable, change.why); });
    int status = kOk;
    const auto finish = [&](const std::exception_ptr& exception, const Result<void>& result) {
        if (exception || !result) {
            log::error("start-failed", {{"why", exception ? "an exception was thrown" : result.error().text}});
            status = kFailed;
            loop.stop();
        } else if (only_remove_guards) {
            log::notice("guards-removed", {{"why", "asked for; SAs of this gateway are gone, too"}});
            loop.stop();
        }
    };
    const auto reload_all = [&]() -> Result<nlohmann::json> {
        const auto level_before = config.log_level;
        auto report = reload(config);
        if (report && config.log_level != level_before) gateway.operations().set_log_level(config.log_level);
        // A file with mistakes does not keep new certificates from being taken: they are told apart.
        const auto certificates = gateway.reload_certificates();
        if (report) (*report)["notes"].push_back(certificates ? "Certificates and keys were read again." : "Certificates stay as they were: " + certificates.error().text);
        return report;
    };
    gateway.operations().set_reload(reload_all);
    asio::signal_set hang_up(loop, SIGHUP);
    const std::function<void()> await_reload = [&] {
        hang_up.async_wait([&](const asio::error_code& error, int) {
            if (error) return;
            static_cast<void>(reload_all());  // it has logged what came of it
            await_reload();
        });
    };
    await_reload();
    asio::signal_set signals(loop, SIGINT, SIGTERM);
    signals.async_wait([&](const asio::error_code& error, int signal) {
        if (error) return;
        log::notice("gateway-stopping", {{"signal", signal}, {"why", "SAs and guard policies stay in the kernel"}});
        gateway.stop();
        loop.stop();
    });
    if (only_remove_guards) asio::co_spawn(loop, remove_guards(config, kernel), finish);
    else asio::co_spawn(loop, start(gateway, monitor, addresses, take_over, [&loop] { loop.stop(); }), finish);
    loop.run();
    return status;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"gmgated: IMS access security gateway. Phones register with ipsec-3gpp; the kernel protects, the core gets clear SIP."};
    Options options;
    app.add_option("-c,--config", options.config, "configuration file")->capture_default_str();
    app.add_flag("--check-config", options.check_config, "read and check the configuration, say what is wrong with line and column, and end");
    app.add_flag("--remove-guards", options.remove_guards, "remove the guard policies and all SAs of this gateway from the kernel, and end");
    app.add_flag("--take-over", options.take_over, "take sockets, connections and registrations over from the running gmgated, which then ends: an upgrade that no phone notices");
    app.set_version_flag("--version", GMGATE_VERSION);
    CLI11_PARSE(app, argc, argv);

    auto config = daemon::load_config(options.config);
    if (!config) {
        std::fprintf(stderr, "%s\n", config.error().text.c_str());
        return kBadConfig;
    }
    const auto problems = daemon::check_addresses(*config);
    for (const auto& problem : problems) std::fprintf(stderr, "%s\n", problem.c_str());
    if (!problems.empty() && !options.remove_guards) return kBadConfig;
    if (options.check_config) {
        std::printf("%s: all well\n", options.config.c_str());
        return kOk;
    }
    log::start(std::getenv("JOURNAL_STREAM") != nullptr);
    log::set_level(log::parse_level(config->log_level).value_or(log::Level::info));
    harden();
    return run(*config, options.remove_guards, options.take_over);
}
