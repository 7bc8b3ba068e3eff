// xfrm::Kernel over the socket to an engine in a process of its own (engine_protocol.h), its worker's death and return
// included.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <asio/any_io_executor.hpp>

#include "xfrm/engine/frames.h"
#include "xfrm/kernel.h"
#include "xfrm/netlink/monitor.h"
#include "xfrm/sealing.h"

namespace gmgate::xfrm {

/// One loop. When the worker dies, the guardian starts another one, and what was under way is done by it:
///  - a set that was being installed is removed first, as far as the dead one had got, and installed again; a second
///  death is an Error, and
///    then none of its SAs is left, as after any failed install_set;
///  - everything else may be repeated without harm; a list is begun again;
///  - `on_event` gets events_lost, since nobody knows what happened in between.
/// Without a worker for `patience` (the first one may take four times as long to start), or without a word from one,
/// requests fail with Reaction::retry or broken.
class EngineClient final : public Kernel, public Sealing {
public:
    struct Handlers {
        std::function<void(const KernelEvent&)> on_event;
        /// A worker serves: EngineStatus tells which.
        std::function<void()> on_up;
        /// It is gone, and how it ended ("killed by signal 9").
        std::function<void(std::string why)> on_down;
        /// The guardian is gone: nobody starts another worker. The process should end.
        std::function<void(std::string why)> on_guardian_gone;
    };

    /// Owns `guard`, the socket to the guardian, which has its configuration. `reqid` is that of the configuration.
    EngineClient(asio::any_io_executor executor, int guard, ReqId reqid, Handlers handlers,
                 std::chrono::milliseconds patience = std::chrono::seconds{15});
    ~EngineClient() override;

    Task<Result<void>> install_set(SetRequest request) override;
    Task<Result<void>> remove_set(SetParameters parameters) override;
    Task<Result<void>> extend_set(SetParameters parameters, std::chrono::seconds lifetime) override;
    Task<Result<void>> follow_nat(SetParameters parameters, Port port_uenc) override;
    Task<Result<void>> install_guards(GuardRequest request) override;
    Task<Result<void>> remove_guards(GuardRequest request) override;
    Task<Result<std::vector<GuardPolicy>>> report_guards(GuardRequest request) override;
    Task<Result<void>> dump_each(std::function<void(SaReport)> each, std::function<void()> again) override;
    Task<Result<std::vector<SaReport>>> report_set(SetParameters parameters) override;
    Task<Result<void>> remove_sas(std::vector<SaId> ids) override;
    Task<Result<std::vector<ProbeFinding>>> probe(std::vector<AlgorithmPair> allowed) override;
    Task<Result<SealedKeys>> seal_set(SealOrder order) override;
    Task<Result<void>> install_sealed(SealedInstall order) override;
    Task<Result<void>> move_sealed(SealedInstall order) override;
    Task<Result<SipHashKey>> dialog_key() override;
    const KernelCounters& counters() const override;
    EngineStatus status() const override;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with handlers that wait on the loop
};

}  // namespace gmgate::xfrm
