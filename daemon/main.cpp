// gmgated: reads the configuration, builds the gateway, runs the loop until a signal.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/signal_set.hpp>
#include <asio/this_coro.hpp>
#include <CLI/CLI.hpp>

#include "base/confine.h"
#include "base/journal.h"
#include "base/log.h"
#include "base/log_format.h"
#include "base/spawn.h"
#include "daemon/config/lab.h"
#include "daemon/config/observation.h"
#include "daemon/engine.h"
#include "daemon/gateway.h"
#include "daemon/operate/reload.h"
#include "daemon/preflight/core_check.h"
#include "daemon/preflight/finding.h"
#include "daemon/tls/check.h"
#include "ktls/freed_memory.h"
#include "ktls/key_log.h"
#include "xfrm/engine/client.h"
#include "xfrm/netlink/address_watch.h"
#include "xfrm/netlink/codec.h"
#include "xfrm/netlink/kernel.h"
#include "xfrm/netlink/monitor.h"

namespace {

using namespace gmgate;

struct Options {
    std::string config = "/etc/gmgate/gmgate.toml";
    bool check_config = false;
    bool check_machine = false;
    bool remove_guards = false;
    bool take_over = false;
};

/// kWrong: the command line, the configuration, or what it asks of this machine that cannot be had: another start would
/// end the same way (RestartPreventExitStatus= of the unit). kFailed: everything else that goes wrong.
enum Exit { kOk = 0, kFailed = 1, kWrong = 2 };

// Keys pass through this process: no core dumps, no ptrace by others.
void harden() {
    hide_memory();
    rlimit files{};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

xfrm::NetlinkSettings netlink_settings(const daemon::Config& config) {
    xfrm::NetlinkSettings settings;
    settings.owner.reqid = ReqId{config.xfrm.reqid};
    settings.owner.mark_mask = config.xfrm.mark_mask;
    settings.nat_blocks = daemon::nat_blocks(config);
    return settings;
}

Task<Result<void>> remove_guards(const daemon::Config& config, xfrm::Kernel& kernel) {
    const daemon::AccessMap accesses(config);
    auto requests = accesses.guard_requests();
    for (auto& request : requests)
        if (auto ok = co_await kernel.remove_guards(std::move(request)); !ok) co_return ok;
    const auto found = co_await kernel.dump();
    if (!found) co_return std::unexpected(found.error());
    std::vector<xfrm::SaId> ids;
    for (const auto& report : *found) ids.push_back(report.sa.id);
    co_return co_await kernel.remove_sas(std::move(ids));
}

// The event sockets first: from here on nothing that happens in the kernel is missed.
Task<Result<void>> start(daemon::Gateway& gateway, std::function<Result<void>()> start_monitor,
                         xfrm::AddressWatch& addresses, bool take_over, std::function<void()> left) {
    if (auto ok = start_monitor(); !ok) co_return ok;
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
    for (const auto& change : report.applied)
        log::notice("reload-applied", {{"key", change.key}, {"before", change.before}, {"now", change.now}});
    for (const auto& change : report.refused)
        log::warning("reload-not-applied",
                     {{"key", change.key}, {"in-force", change.before}, {"in-file", change.now}, {"why", change.why}});
    log::notice("reloaded", {{"applied", report.applied.size()}, {"not-applied", report.refused.size()}});
    return report.json();
}

// The kernel's side: in this process, or behind the socket to the guardian of a process of its own.
class Engine {
public:
    using Events = std::function<void(const xfrm::KernelEvent&)>;
    /// `guard`: of start_engine(), not open for in-process. `on_lost`: nobody programs the kernel any more.
    Engine(const asio::any_io_executor& executor, const daemon::Config& config, const Clock& clock,
           sip::FileDescriptor guard, Events events, std::function<void()> on_lost) {
        const auto settings = netlink_settings(config);
        if (!guard.is_open()) {
            auto kernel = std::make_unique<xfrm::NetlinkKernel>(executor, clock, settings);
            auto hear = [own = kernel.get(), then = std::move(events)](const xfrm::KernelEvent& event) {
                own->heard(event);
                then(event);
            };
            monitor_ = std::make_unique<xfrm::Monitor>(executor, settings.owner, std::move(hear));
            kernel_ = std::move(kernel);
            return;
        }
        auto client = std::make_unique<xfrm::EngineClient>(executor, guard.release(), settings.owner.reqid,
                                                           handlers(std::move(events), std::move(on_lost)));
        client_ = client.get();
        kernel_ = std::move(client);
    }
    xfrm::Kernel& kernel() { return *kernel_; }
    /// Null: in-process.
    xfrm::Sealing* sealing() { return client_; }
    /// From here on nothing that happens in the kernel is missed; an engine of its own listens from its own start on.
    Result<void> start_monitor() { return monitor_ ? monitor_->start() : Result<void>{}; }

private:
    xfrm::EngineClient::Handlers handlers(Events events, std::function<void()> on_lost) {
        xfrm::EngineClient::Handlers handlers;
        handlers.on_event = std::move(events);
        handlers.on_up = [this] {
            const auto status = client_->status();
            if (status.starts > 1)
                log::warning(
                    "xfrmd-restarted",
                    {{"engine", status.engine},
                     {"pid", status.pid},
                     {"starts", status.starts},
                     {"why", "what was under way is done by this one; the SAs are compared with the kernel's"}});
            else log::notice("xfrmd-started", {{"engine", status.engine}, {"pid", status.pid}});
        };
        handlers.on_down = [](const std::string& how) {
            log::error("xfrmd-ended",
                       {{"how", how}, {"now", "its guardian starts another one; SAs and guards stay in the kernel"}});
        };
        handlers.on_guardian_gone = [lost = std::move(on_lost)](const std::string& why) {
            log::error(
                "xfrmd-guardian-gone",
                {{"why", why},
                 {"now", "gmgated ends, to be started again with an engine; SAs and guards stay in the kernel"}});
            lost();
        };
        return handlers;
    }

    std::unique_ptr<xfrm::Kernel> kernel_;
    xfrm::EngineClient* client_ = nullptr;
    std::unique_ptr<xfrm::Monitor> monitor_;
};

// A file with mistakes does not keep new certificates from being taken: they are told apart.
Result<nlohmann::json> reload_with_certificates(daemon::Config& config, daemon::Gateway& gateway) {
    const auto level_before = config.log_level;
    auto report = reload(config);
    if (report && config.log_level != level_before) gateway.operations().set_log_level(config.log_level);
    if (report) gateway.configuration_changed();
    const auto certificates = gateway.reload_certificates();
    gateway.operations().note_reload(report.has_value() && certificates.has_value());
    if (report)
        (*report)["notes"].push_back(certificates
                                         ? "Certificates and keys were read again."
                                         : "Not all certificates were read again: " + certificates.error().text);
    return report;
}

/// Both outlive the loop.
void with_each(asio::signal_set& signals, const std::function<void()>& what) {
    signals.async_wait([&](const asio::error_code& error, int) {
        if (error) return;
        what();
        with_each(signals, what);
    });
}

int run(daemon::Config& config, const daemon::ClusterConfig* cluster, bool only_remove_guards, bool take_over,
        sip::FileDescriptor guard, daemon::Prepared prepared) {
    const Clock clock;
    asio::io_context loop(1);
    int status = kOk;
    daemon::Gateway* running = nullptr;
    Engine engine(
        loop.get_executor(), config, clock, std::move(guard),
        [&](const xfrm::KernelEvent& event) {
            if (running) running->kernel_event(event);
        },
        [&] {
            status = kFailed;
            if (running) running->stop();
            loop.stop();
        });
    auto& kernel = engine.kernel();
    daemon::Gateway gateway(loop, config, kernel, clock, cluster);
    running = &gateway;
    gateway.use(std::move(prepared));
    if (cluster && engine.sealing())
        gateway.join(*cluster, *engine.sealing(), [&] {
            status = kFailed;
            gateway.stop();
            loop.stop();
        });
    xfrm::AddressWatch addresses(loop.get_executor(), gateway.access_addresses(), [&](const auto& change) {
        gateway.kernel_watch().address_changed(change.address, change.is_usable, change.why);
    });
    const auto finish = [&](const std::exception_ptr& exception, const Result<void>& result) {
        if (exception || !result) {
            log::error("start-failed", {{"why", exception ? "an exception was thrown" : result.error().text}});
            status = !exception && result.error().reaction == Reaction::reject ? kWrong : kFailed;
            loop.stop();
        } else if (only_remove_guards) {
            log::notice("guards-removed", {{"why", "asked for; SAs of this gateway are gone, too"}});
            loop.stop();
        }
    };
    const auto reload_all = [&] { return reload_with_certificates(config, gateway); };
    gateway.operations().set_reload(reload_all);
    asio::signal_set hang_up(loop, SIGHUP);
    const std::function<void()> on_hang_up = [&] { static_cast<void>(reload_all()); };  // it has logged what came of it
    with_each(hang_up, on_hang_up);
    asio::signal_set signals(loop, SIGINT, SIGTERM);
    signals.async_wait([&](const asio::error_code& error, int signal) {
        if (error) return;
        log::notice("gateway-stopping", {{"signal", signal}, {"why", "SAs and guard policies stay in the kernel"}});
        gateway.stop();
        loop.stop();
    });
    if (only_remove_guards) asio::co_spawn(loop, remove_guards(config, kernel), finish);
    else
        asio::co_spawn(
            loop,
            start(
                gateway, [&engine] { return engine.start_monitor(); }, addresses, take_over, [&loop] { loop.stop(); }),
            finish);
    run_guarded(loop);
    return status;
}

// While this process still has its capabilities, and then no more.
Result<void> separate(const daemon::Config& config, const daemon::ClusterConfig* cluster, sip::FileDescriptor& guard,
                      daemon::Prepared& prepared) {
    auto engine = daemon::start_engine(config, cluster);
    if (!engine) return std::unexpected(engine.error());
    guard = std::move(*engine);
    auto opened = daemon::prepare(config);
    if (!opened) return std::unexpected(opened.error());
    prepared = std::move(*opened);
    return daemon::give_up_privileges();
}

// [lab]: the kernel's keys are for gmgate-export-keys to read; those of TLS are nowhere but here.
Result<void> export_keys(const daemon::Config& config) {
    const auto lab = daemon::lab_of(config.settings);
    if (!lab.export_keys) return {};
    if (!config.tls_profiles.empty())
        if (auto ok = ktls::log_keys_to(lab.tls_key_log); !ok) return ok;
    log::warning("keys-exported",
                 {{"tls-key-log", config.tls_profiles.empty() ? "none" : lab.tls_key_log},
                  {"why", "[lab] export-keys is on: whoever is root here reads all that phones say"},
                  {"fix", "in a network with subscribers take it out of the file and restart gmgated"}});
    return {};
}

// ------------------------------------------------------------------------------------------
// --check-config, --check

std::vector<daemon::Finding> look_without_rights(const daemon::Config& config) {
    auto findings = daemon::check_installation(config);
    if (const auto engine = daemon::check_engine(config); !engine)
        findings.push_back({.what = engine.error().text, .fix = "install package gmgate again"});
    return findings;
}

/// The kernel is asked as a start would ask it; that also loads its modules.
Task<void> look_at_kernel(const daemon::Config& config, std::vector<daemon::Finding>& findings) {
    const auto pairs = daemon::all_allowed_pairs(config);
    if (!pairs.empty()) {
        const Clock clock;
        xfrm::NetlinkKernel kernel(co_await asio::this_coro::executor, clock, netlink_settings(config));
        const auto probed = co_await kernel.probe(pairs);
        const auto lacking = probed ? daemon::kernel_lacks(*probed) : probed.error().text;
        if (!lacking.empty()) findings.push_back({.what = lacking, .fix = "see kernel.md in /usr/share/doc/gmgate"});
    }
    if (!config.tls_profiles.empty() && config.ktls != daemon::Ktls::off && access("/proc/net/tls_stat", R_OK) != 0)
        findings.push_back({.is_error = config.ktls == daemon::Ktls::required,
                            .what = "the kernel has no TLS yet; sessions would stay in gmgated",
                            .fix = "modprobe tls"});
}

std::vector<daemon::Finding> look_at_machine(const daemon::Config& config) {
    constexpr std::chrono::milliseconds patience{2000};
    std::vector<daemon::Finding> findings;
    if (geteuid() != 0)
        findings.push_back({.what = "not root: the kernel and who has which port cannot be seen", .fix = "sudo"});
    const auto add = [&](std::vector<daemon::Finding> more) { std::ranges::move(more, std::back_inserter(findings)); };
    asio::io_context loop(1);
    std::vector<daemon::Finding> of_core;
    const auto look = [&]() -> Task<void> {
        if (geteuid() == 0) co_await look_at_kernel(config, findings);
        of_core = co_await daemon::check_next_hops(config, patience);
        loop.stop();
    };
    asio::co_spawn(loop, look, asio::detached);
    loop.run();
    add(daemon::check_ports(config));
    add(daemon::check_sysctls(config));
    add(std::move(of_core));
    return findings;
}

/// One line for each finding. kWrong: the file or its installation is; kFailed: only the machine does not fit.
int check(const daemon::Config& config, const std::vector<std::string>& addresses, bool with_machine) {
    bool is_wrong = false, is_unfit = false;
    for (const auto& warning : config.warnings) std::fprintf(stderr, "warning: %s\n", warning.c_str());
    auto problems = addresses;
    std::ranges::move(daemon::check_certificates(config), std::back_inserter(problems));
    for (const auto& problem : problems) std::fprintf(stderr, "%s\n", problem.c_str());
    const auto tell = [](const std::vector<daemon::Finding>& findings) {
        for (const auto& finding : findings) std::fprintf(stderr, "%s\n", daemon::line_of(finding).c_str());
        return std::ranges::any_of(findings, &daemon::Finding::is_error);
    };
    is_wrong = tell(look_without_rights(config)) || !problems.empty();
    if (with_machine) is_unfit = tell(look_at_machine(config));
    if (is_wrong || is_unfit) return is_wrong ? kWrong : kFailed;
    std::printf("%s: all well\n", config.path.c_str());
    return kOk;
}

void add_options(CLI::App& app, Options& options) {
    app.add_option("-c,--config", options.config, "configuration file")->capture_default_str();
    app.add_flag("--check-config", options.check_config,
                 "read and check the configuration, with certificates, groups and folders; say what is wrong, and end");
    app.add_flag("--check", options.check_machine,
                 "as root, the same and this machine: kernel, ports in use, routes, whether next hops answer, sysctls");
    app.add_flag("--remove-guards", options.remove_guards,
                 "remove the guard policies and all SAs of this gateway from the kernel, and end");
    app.add_flag(
        "--take-over", options.take_over,
        "take sockets, connections and registrations over from the running gmgated, which then ends: an upgrade that no phone notices");
    app.set_version_flag("--version", GMGATE_VERSION);
}

// Under systemd the journal gets each key as a field; in JSON a line stands for itself, wherever it goes.
void start_log(const daemon::Config& config) {
    const bool is_journal = is_journal_stream(std::getenv("JOURNAL_STREAM"), STDERR_FILENO);
    log::start(is_journal);
    log::set_level(log::parse_level(config.log_level).value_or(log::Level::info));
    if (daemon::observation_of(config.settings).log_format == daemon::LogFormat::json)
        log::set_format(log::Format::json);
    else if (is_journal) log::use_journal();
}

}  // namespace

int main(int argc, char** argv) {
    // A log pipe that nobody reads any more, or a peer's end, fails one write and nothing else.
    std::signal(SIGPIPE, SIG_IGN);
    if (!ktls::wipe_what_openssl_frees())
        std::fputs("gmgated: OpenSSL was in use before it could be told to wipe\n", stderr);
    CLI::App app{
        "gmgated: IMS access security gateway. Phones register with ipsec-3gpp; the kernel protects, the core gets clear SIP."};
    Options options;
    add_options(app, options);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? kOk : kWrong;
    }

    auto config = daemon::load_config(options.config);
    if (!config) {
        std::fprintf(stderr, "%s\n", config.error().text.c_str());
        return kWrong;
    }
    const auto cluster = daemon::load_cluster(*config);
    if (!cluster) {
        std::fprintf(stderr, "%s\n", cluster.error().text.c_str());
        return kWrong;
    }
    const auto* node = *cluster ? &**cluster : nullptr;
    const auto problems = daemon::check_addresses(*config);
    if (options.check_config || options.check_machine) return check(*config, problems, options.check_machine);
    for (const auto& problem : problems) std::fprintf(stderr, "%s\n", problem.c_str());
    if (!problems.empty() && !options.remove_guards) return kFailed;  // an address may still come
    start_log(*config);
    for (const auto& warning : config->warnings) log::warning("config-warning", {{"why", warning}});
    harden();
    if (const auto ok = export_keys(*config); !ok) {
        log::error("start-failed", {{"why", ok.error().text}});
        return kWrong;
    }
    sip::FileDescriptor guard;
    daemon::Prepared prepared;
    // An order at the command line needs no other process: nobody else's bytes are read.
    if (config->xfrm.sa_engine != daemon::SaEngine::in_process && !options.remove_guards) {
        if (const auto ok = separate(*config, node, guard, prepared); !ok) {
            log::error("start-failed", {{"why", ok.error().text}});
            return kFailed;
        }
    }
    return run(*config, options.remove_guards ? nullptr : node, options.remove_guards, options.take_over,
               std::move(guard), std::move(prepared));
}
