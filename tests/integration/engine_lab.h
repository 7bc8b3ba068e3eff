// The engines of this build, each as an xfrm::Kernel in the lab's gateway namespace, with its events.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/integration/xfrm_lab.h"
#include "xfrm/kernel.h"
#include "xfrm/netlink/monitor.h"

namespace gmgate::test {

enum class EngineKind { in_process, process, libcharon };
std::string_view to_string(EngineKind kind);
/// All that are built, in-process, the reference, first; GMGATE_ENGINE=NAME leaves one beside it (to look into a
/// failure by hand).
std::vector<EngineKind> engines();

/// Marks are of these bits, the UE's own kernel object aside.
inline constexpr std::uint32_t kEngineMarkMask = 0x00ffffff;

/// Runs in the network namespace of the moment of its construction. One loop, the lab's.
class Engine {
public:
    Engine(Lab& lab, EngineKind kind);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    EngineKind kind() const { return kind_; }
    xfrm::Kernel& kernel() { return *kernel_; }
    /// Runs a task to its end; what else the loop has to do goes on beside it.
    template <class T>
    T run(Task<T> task) {
        std::optional<T> out;
        asio::co_spawn(lab_.io(), std::move(task), [&out](std::exception_ptr, T value) { out = std::move(value); });
        run_until([&out] { return out.has_value(); });
        return std::move(*out);
    }
    /// Waits for so many events that `wanted` accepts; false when they do not come within a minute.
    bool hears(const std::function<bool(const xfrm::KernelEvent&)>& wanted, std::size_t times = 1);
    std::vector<xfrm::KernelEvent> events;

    /// What a death of the engine is like: kill -9 of a process of its own, another object in-process. Serves again
    /// when this returns.
    void restart();

private:
    struct Host;
    void run_until(const std::function<bool()>& is_done);
    void start();

    Lab& lab_;
    EngineKind kind_;
    std::unique_ptr<Host> host_;
    xfrm::Kernel* kernel_ = nullptr;
};

}  // namespace gmgate::test
