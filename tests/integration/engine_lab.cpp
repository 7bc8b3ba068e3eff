#include "tests/integration/engine_lab.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include <doctest/doctest.h>
#include <sys/wait.h>

#include "tests/support/guardian.h"
#include "xfrm/engine/client.h"
#include "xfrm/netlink/kernel.h"

namespace gmgate::test {
namespace {

constexpr std::chrono::seconds kEnginePatience{60};

xfrm::Ownership ownership() { return {.reqid = xfrm::Ownership{}.reqid, .mark_mask = kEngineMarkMask}; }

// Null for an engine that is not of this build.
const char* worker_of(EngineKind kind) {
    switch (kind) {
        case EngineKind::in_process:
            break;
        case EngineKind::process:
            return GMGATE_XFRMD;
        case EngineKind::libcharon:
#ifdef GMGATE_XFRMD_CHARON
            return GMGATE_XFRMD_CHARON;
#else
            break;
#endif
    }
    return nullptr;
}

}  // namespace

std::string_view to_string(EngineKind kind) {
    switch (kind) {
        case EngineKind::in_process:
            return "in-process";
        case EngineKind::process:
            return "process";
        case EngineKind::libcharon:
            return "libcharon";
    }
    return "";
}

std::vector<EngineKind> engines() {
    std::vector<EngineKind> all{EngineKind::in_process, EngineKind::process};
    if (worker_of(EngineKind::libcharon)) all.push_back(EngineKind::libcharon);
    if (const char* only = std::getenv("GMGATE_ENGINE"))
        std::erase_if(all, [&](EngineKind kind) { return kind != EngineKind::in_process && to_string(kind) != only; });
    REQUIRE_FALSE(all.empty());
    return all;
}

struct Engine::Host {
    ~Host() {
        kernel.reset();  // closes the guardian's socket, which ends by that, and so does its worker
        if (guardian > 0) waitpid(guardian, nullptr, 0);
    }
    std::unique_ptr<xfrm::Kernel> kernel;
    std::unique_ptr<xfrm::Monitor> monitor;
    pid_t guardian = -1;
};

Engine::Engine(Lab& lab, EngineKind kind) : lab_(lab), kind_(kind) { start(); }
Engine::~Engine() = default;

void Engine::start() {
    host_ = std::make_unique<Host>();
    const auto take = [this](const xfrm::KernelEvent& event) { events.push_back(event); };
    if (kind_ == EngineKind::in_process) {
        host_->monitor = std::make_unique<xfrm::Monitor>(lab_.io().get_executor(), ownership(), take);
        REQUIRE(host_->monitor->start());
        host_->kernel = std::make_unique<xfrm::NetlinkKernel>(lab_.io().get_executor(), lab_.clock(),
                                                              xfrm::NetlinkSettings{.owner = ownership()});
        kernel_ = host_->kernel.get();
        return;
    }
    xfrm::EngineConfiguration configuration;
    configuration.owner = ownership();
    for (const auto family : {Family::v4, Family::v6})
        configuration.ports.push_back({lab_.gateway_address(family), Port{6100}, Port{6101}});
    const auto guardian = start_guardian(GMGATE_XFRMD, worker_of(kind_), configuration);
    host_->guardian = guardian.process;
    xfrm::EngineClient::Handlers handlers;
    handlers.on_event = take;
    handlers.on_up = [] {};
    handlers.on_down = [](const std::string& how) { MESSAGE("the worker ended: ", how); };
    handlers.on_guardian_gone = [](const std::string& why) { FAIL_CHECK("the guardian is gone: ", why); };
    host_->kernel = std::make_unique<xfrm::EngineClient>(lab_.io().get_executor(), guardian.socket, ownership().reqid,
                                                         std::move(handlers), kEnginePatience);
    kernel_ = host_->kernel.get();
    run_until([this] { return kernel_->status().is_up; });
}

void Engine::restart() {
    if (kind_ == EngineKind::in_process) return start();
    const auto before = kernel_->status();
    REQUIRE(kill(static_cast<pid_t>(before.pid), SIGKILL) == 0);
    run_until([&] { return kernel_->status().is_up && kernel_->status().starts > before.starts; });
}

void Engine::run_until(const std::function<bool()>& is_done) {
    const auto deadline = std::chrono::steady_clock::now() + kEnginePatience;
    lab_.io().restart();
    while (!is_done()) {
        REQUIRE_MESSAGE(std::chrono::steady_clock::now() < deadline, "the engine does not answer");
        lab_.io().run_one_for(std::chrono::milliseconds{200});
        if (lab_.io().stopped()) lab_.io().restart();
    }
}

bool Engine::hears(const std::function<bool(const xfrm::KernelEvent&)>& wanted, std::size_t times) {
    const auto deadline = std::chrono::steady_clock::now() + kEnginePatience;
    while (static_cast<std::size_t>(std::ranges::count_if(events, wanted)) < times) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        lab_.io().restart();
        lab_.io().run_one_for(std::chrono::milliseconds{200});
    }
    return true;
}

}  // namespace gmgate::test
