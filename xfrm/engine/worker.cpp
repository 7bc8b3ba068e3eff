#include "xfrm/engine/worker.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <optional>

#include <linux/capability.h>
#include <openssl/crypto.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "base/confine.h"
#include "base/log.h"
#include "base/secret.h"
#include "xfrm/engine/server.h"
#include "xfrm/engine/system_calls.h"
#include "xfrm/netlink/kernel.h"
#include "xfrm/netlink/monitor.h"
#include "xfrm/netlink/probe.h"

namespace gmgate::xfrm {
namespace {

std::optional<EngineConfiguration> take_configuration() {
    EngineConfiguration configuration;
    for (bool is_first = true;; is_first = false) {
        Frame frame(GM_FRAME_LIMIT);
        const auto size = recv(GM_WORK_FD, frame.data(), frame.size(), 0);
        if (size < 0 && errno == EINTR) continue;
        if (size <= 0) return std::nullopt;
        const auto is_last =
            add_configuration(configuration, std::span(frame).first(static_cast<std::size_t>(size)), is_first);
        if (!is_last) {
            log::error("xfrmd-configuration-refused", {{"why", is_last.error().text}});
            return std::nullopt;
        }
        if (*is_last) return configuration;
    }
}

// What libraries read at their first use is read now: behind the filter there are no files.
void read_files() {
    tzset();  // the log's time of day
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG,
                        nullptr);  // keys of the probe come from libcrypto, whatever openssl.cnf may load
    for (const auto pair : kDefaultPreference) static_cast<void>(probe_request(pair, Family::v4));
}

class Worker {
public:
    Worker(const EngineConfiguration& configuration, std::unique_ptr<Sealer> sealer)
        : sealer_(std::move(sealer)),
          kernel_(loop_.get_executor(), clock_, settings(configuration)),
          monitor_(loop_.get_executor(), configuration.owner, [this](const KernelEvent& event) { take(event); }),
          server_(loop_.get_executor(), GM_WORK_FD, EngineRules(configuration), kernel_,
                  {.on_refused =
                       [](const char* request, const std::string& why) {
                           log::warning("xfrmd-request-refused", {{"request", request}, {"why", why}});
                       },
                   .on_closed = [this](std::string) { loop_.stop(); }}) {
        if (sealer_) server_.seal_with(*sealer_, kernel_);
    }

    int run() {
        if (const auto ok = monitor_.start(); !ok) return failed(ok.error().text);
        if (const auto ok = confine(); !ok) return failed(ok.error().text);
        int status = 0;
        asio::co_spawn(loop_, learn(), [&](const std::exception_ptr& exception, const Result<void>& learnt) {
            if (!exception && learnt) return server_.start("netlink");
            status = failed(exception ? "an exception was thrown" : learnt.error().text);
            loop_.stop();
        });
        loop_.run();
        return status;
    }

private:
    static NetlinkSettings settings(const EngineConfiguration& configuration) {
        NetlinkSettings settings;
        settings.owner = configuration.owner;
        settings.deletes_only_own = true;
        settings.sa_limit = configuration.sa_limit;
        for (const auto& range : configuration.ports)
            if (const auto block = range.nat_block()) settings.nat_blocks.push_back({range.gateway, *block});
        return settings;
    }

    static int failed(const std::string& why) {
        log::error("xfrmd-not-started", {{"why", why}});
        return 1;
    }

    static Result<void> confine() {
        constexpr std::array keep{CAP_NET_ADMIN};
        if (auto ok = keep_capabilities({.capabilities = keep}); !ok) return ok;
        if (auto ok = no_new_privileges(); !ok) return ok;
        return allow_system_calls(worker_system_calls(), Otherwise::kill);
    }

    // What a worker before us left: known from the beginning, so that nothing has to be asked for when it is to be
    // deleted.
    Task<Result<void>> learn() {
        std::function<void(SaReport)> each = [](const SaReport&) {};
        std::function<void()> again = [this] { kernel_.forget_all(); };
        auto told = co_await kernel_.dump_each(std::move(each), std::move(again));
        // Without XFRM in the kernel there is nothing to learn; the probe has better words for it.
        if (!told && told.error().code == EPROTONOSUPPORT) co_return Result<void>{};
        co_return told;
    }

    void take(const KernelEvent& event) {
        kernel_.heard(event);
        if (event.kind != KernelEvent::Kind::nat_policy_deleted)
            server_.event(event);  // the kernel object's own affair
    }

    const Clock clock_;
    asio::io_context loop_{1};
    const std::unique_ptr<Sealer> sealer_;  ///< null: no cluster
    NetlinkKernel kernel_;
    Monitor monitor_;
    EngineServer server_;
};

}  // namespace

int work() {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // never without a guardian
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) std::signal(signal, SIG_IGN);
    hide_memory();
    read_files();
    const auto configuration = take_configuration();
    if (!configuration) return 1;
    auto sealer = sealer_of_environment();
    if (!sealer) {
        log::error("xfrmd-not-started", {{"why", sealer.error().text}});
        return 1;
    }
    return Worker(*configuration, std::move(*sealer)).run();
}

}  // namespace gmgate::xfrm
