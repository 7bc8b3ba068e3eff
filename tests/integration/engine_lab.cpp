#include "tests/integration/engine_lab.h"

#include <algorithm>
#include <cstdlib>

#include <doctest/doctest.h>

#include "xfrm/netlink_kernel.h"

namespace gmgate::test {
namespace {

constexpr std::chrono::seconds kEnginePatience{60};

xfrm::Ownership ownership() { return {.reqid = xfrm::Ownership{}.reqid, .mark_mask = kEngineMarkMask}; }

}  // namespace

std::string_view to_string(EngineKind kind) {
    switch (kind) {
        case EngineKind::in_process: return "in-process";
        case EngineKind::process: return "process";
        case EngineKind::libcharon: return "libcharon";
    }
    return "";
}

std::vector<EngineKind> engines() {
    std::vector<EngineKind> all{EngineKind::in_process};
    if (const char* only = std::getenv("GMGATE_ENGINE")) std::erase_if(all, [&](EngineKind kind) { return to_string(kind) != only; });
    REQUIRE_FALSE(all.empty());
    return all;
}

struct Engine::Host {
    std::unique_ptr<xfrm::Kernel> kernel;
    std::unique_ptr<xfrm::Monitor> monitor;
};

Engine::Engine(Lab& lab, EngineKind kind) : lab_(lab), kind_(kind) { start(); }
Engine::~Engine() = default;

void Engine::start() {
    host_ = std::make_unique<Host>();
    const auto take = [this](const xfrm::KernelEvent& event) { events.push_back(event); };
    host_->monitor = std::make_unique<xfrm::Monitor>(lab_.io().get_executor(), ownership(), take);
    REQUIRE(host_->monitor->start());
    host_->kernel = std::make_unique<xfrm::NetlinkKernel>(lab_.io().get_executor(), lab_.clock(), xfrm::NetlinkSettings{.owner = ownership()});
    kernel_ = host_->kernel.get();
}

void Engine::restart() { start(); }

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
