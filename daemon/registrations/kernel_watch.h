// Keeps the table true to the kernel: SAs that expired or that somebody else deleted, policies that are gone, access
// addresses that come and go. The events come from xfrm::Monitor and xfrm::AddressWatch in main; a test calls the same
// functions.
#pragma once

#include <functional>
#include <string>
#include <unordered_set>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>

#include "base/task.h"
#include "daemon/config/access.h"
#include "daemon/observe/counters.h"
#include "daemon/registrations/sa_sets.h"
#include "daemon/registrations/table.h"
#include "xfrm/kernel.h"
#include "xfrm/netlink/monitor.h"

namespace gmgate::daemon {

/// A set is ours and wanted as long as it is in the table: SaSets removes SAs only of sets that have left it, so an
/// event about a set in the table is somebody else's doing. Its keys are gone and a re-added SA would replay, so the
/// set ends, and with its last one the registration. All functions run on the loop; what has to ask the kernel goes on
/// in a coroutine of its own.
class KernelWatch {
public:
    KernelWatch(asio::any_io_executor executor, const AccessMap& accesses, Table& table, SaSets& sets,
                xfrm::Kernel& kernel, Counters& counters);

    void event(const xfrm::KernelEvent& event);
    /// Called for each set that ends because its phone's NAT has another address (`now`), with whose it was.
    void on_nat_moved(std::function<void(const Impi&, const SaSet&, const Endpoint& now)> handler) {
        nat_moved_ = std::move(handler);
    }
    /// An access address has gone or come back: its registrations are suspended (Table::suspend) until it is back.
    void address_changed(const Address& address, bool is_usable, const std::string& why);
    /// False from the moment that a guard policy is known to be missing until it stands again: nothing may leave a
    /// protected port then.
    bool guards_stand() const { return !guards_missing_; }
    /// Compares every set that is in the table now with a dump, and ends those of which an SA is missing. Also from
    /// outside, as an audit.
    Task<Result<void>> audit();
    /// The same, soon.
    void look();
    /// True while something is still being put right.
    bool is_busy() const { return is_running_; }

private:
    bool is_guard(const xfrm::GuardPolicy& policy) const;
    void want_audit(const char* why);
    void guards_gone(const char* why);
    void start_if_idle();
    Task<void> run();
    Task<Result<void>> restore_guards();
    Task<void> extend(SetNumber number);
    void mapping_changed(const xfrm::KernelEvent& event);
    Task<void> follow_nat(SetNumber number, Port port_uenc);
    void nat_moved(SetNumber number, const Endpoint& now);
    Task<void> set_lost(SetNumber number, std::string why);
    Task<void> tell_address(Address address, bool is_usable, std::string why);

    asio::any_io_executor executor_;
    const AccessMap& accesses_;
    Table& table_;
    SaSets& sets_;
    xfrm::Kernel& kernel_;
    Counters& counters_;
    std::function<void(const Impi&, const SaSet&, const Endpoint&)> nat_moved_;
    bool audit_wanted_ = false, guards_wanted_ = false, guards_missing_ = false, is_running_ = false;
};

}  // namespace gmgate::daemon
