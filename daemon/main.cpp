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

log::Level level_of(const std::string& word) {
    if (word == "debug") return log::Level::debug;
    if (word == "notice") return log::Level::notice;
    if (word == "warning") return log::Level::warning;
    if (word == "error") return log::Level::error;
    return log::Level::info;
}

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

int run(const daemon::Config& config, bool only_remove_guards, bool take_over) {
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
    asio::signal_set signals(loop, SIGINT, SIGTERM);
    signals.async_wait([&](const asio::error_code& error, int signal) {
        if (error) return;
        log::notice("gateway-stopping", {{"signal", signal}, {"why", "SAs and guard policies stay in the kernel"}});
        gateway.stop();
        loop.stop();
    });
    asio::signal_set reload(loop, SIGHUP);
    const std::function<void()> await_reload = [&] {
        reload.async_wait([&](const asio::error_code& error, int) {
            if (error) return;
            (void)gateway.reload_certificates();  // says itself what came of it
            await_reload();
        });
    };
    await_reload();
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

    const auto config = daemon::load_config(options.config);
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
    log::set_level(level_of(config->log_level));
    harden();
    return run(*config, options.remove_guards, options.take_over);
}
