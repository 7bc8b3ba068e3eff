// What the next process must know of each connection, in memory that outlives this one: whose it is, what it is, and
// whether it is in step.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/step_mark.h"
#include "ktls/types.h"
#include "sip/transport/socket.h"
#include "sip/transport/transport.h"

namespace gmgate::daemon {

/// A memfd with one slot per connection. It is handed over with the connections (fd store, take-over), so that what it
/// says of a connection is true up to the last instruction of a process that was killed.
class Ledger {
public:
    struct Entry {
        sip::ConnectionId connection;
        sip::Transport transport = sip::Transport::tcp;
        ktls::SessionInfo session;  ///< of TLS
        bool is_in_step = false;
    };

    /// `inherited`: that of the process before; not open: a new one. Error: no memory, or what was inherited is none of
    /// ours.
    static Result<Ledger> open(sip::FileDescriptor inherited, std::size_t slots);
    Ledger(Ledger&& other) noexcept;
    Ledger& operator=(Ledger&&) = delete;
    ~Ledger();

    /// A slot for a connection that has just been opened, in step. An inherited connection keeps its own. nullopt: all
    /// slots are taken; such a connection ends with the process.
    std::optional<StepMark> enter(const Entry& entry);
    void leave(sip::ConnectionId connection);
    std::optional<Entry> find(sip::ConnectionId connection) const;
    bool holds(sip::ConnectionId connection) const { return places_.contains(connection); }
    /// Slots of connections that `keep` does not want are free again.
    void forget_all_but(const std::function<bool(sip::ConnectionId)>& keep);
    std::size_t size() const { return places_.size(); }
    int descriptor() const { return memory_.get(); }

private:
    struct Slot;
    struct Header;
    Ledger(sip::FileDescriptor memory, void* base, std::size_t slots);
    Slot& slot(std::size_t index) const;

    sip::FileDescriptor memory_;
    void* base_ = nullptr;
    std::size_t slots_ = 0;
    std::unordered_map<sip::ConnectionId, std::size_t> places_;
    std::vector<std::size_t> free_;
};

}  // namespace gmgate::daemon
