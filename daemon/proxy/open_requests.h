// Requests under way, and what may end one besides its answer: a CANCEL, Timer C, or the end of the phone's
// registration.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include <asio/any_io_executor.hpp>

#include "daemon/registrations/table.h"
#include "daemon/rules/from_ue_checks.h"
#include "sip/transaction/transactions.h"

namespace gmgate::daemon {

/// Shared by the coroutine that handles a request, the server transaction's CANCEL handler, and OpenRequests.
class RequestWatch {
public:
    /// The try that is under way now, nullptr between tries; what has been decided meanwhile is done to it.
    void attach(sip::ClientTransaction* client);
    /// The sender does not want it any more. `fields`: what its CANCEL says besides (sip::ClientTransaction::cancel()).
    void cancel(std::string fields);
    /// The sender cannot want it any more: it has gone. The CANCEL says so.
    void sender_gone();
    /// We do not want it any more, and the sender gets `answer` once the other side has given up (RFC 3261 §16.8).
    /// The other side is told by the Reason of the CANCEL.
    void give_up(Answer answer);
    /// We do not want it any more and wait for nobody: the sender gets `answer` now; the other side gets a CANCEL when
    /// it has given a provisional response.
    void drop(Answer answer);
    /// The other side cannot answer any more: the sender gets `answer` now.
    void lose(Answer answer);

    bool is_cancelled() const { return is_cancelled_; }  ///< by anybody
    /// What the sender gets instead of a 487, or when nothing comes; nullopt when it has cancelled by itself.
    const std::optional<Answer>& instead() const { return instead_; }

private:
    sip::ClientTransaction* client_ = nullptr;
    std::optional<Answer> instead_;
    std::string fields_;  // for the CANCEL
    bool is_cancelled_ = false, is_lost_ = false;
};

/// Knows which requests wait for a phone or come from one. One loop, one thread.
class OpenRequests {
    struct State;

public:
    enum class Side { from_phone, to_phone };
    /// Destroying it takes the request out; may outlive the OpenRequests.
    class Entry {
    public:
        Entry(std::weak_ptr<State> state, std::uint64_t id) : state_(std::move(state)), id_(id) {}
        Entry(Entry&& other) noexcept : state_(std::move(other.state_)), id_(other.id_) {}
        Entry& operator=(Entry&&) = delete;
        ~Entry();

    private:
        std::weak_ptr<State> state_;
        std::uint64_t id_;
    };

    /// Hears of the table's changes from now on; `table` outlives it.
    OpenRequests(asio::any_io_executor executor, Table& table);
    [[nodiscard]] Entry add(const Registration& registration, Side side, std::shared_ptr<RequestWatch> watch);

private:
    std::shared_ptr<State>
        state_;  ///< shared with what is posted to the loop, and (weakly) with the entries in coroutines
};

}  // namespace gmgate::daemon
