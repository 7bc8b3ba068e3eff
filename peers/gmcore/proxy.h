// Routes requests between registered users as a stateless record-routing proxy (RFC 3261 §16.11): retransmission is
// left to the ends and to the gateway. Terminating requests follow the stored Path (RFC 3327 §5.3); an INVITE to a user
// with several contacts forks.
#pragma once

#include "core_link.h"
#include "forker.h"
#include "reg_notifier.h"
#include "users.h"

#include <expected>

namespace gmgate::peers {

class Proxy {
public:
    Proxy(UserStore& users, CoreLink& link, MessageLog& log)
        : users_(users), link_(link), log_(log), notifier_(users, link, log), forker_(link) {}
    RegNotifier& notifier() { return notifier_; }
    void handle_request(SipMessage request, const Origin& origin);
    void handle_response(SipMessage received);

private:
    /// Takes our own URIs off the top of Route.
    void strip_own_routes(SipMessage& request) const;
    /// Chooses where a request without Route goes; returns a status to refuse it with, 0 to go on.
    [[nodiscard]] int resolve_target(SipMessage& request);
    /// To every contact of the user.
    void fork(const SipMessage& request, const Origin& origin, const User& user);
    void forward(SipMessage request, const Origin& origin, bool record_route);
    /// The request as it leaves (Record-Route, Via with a branch of its own for each copy) and its next hop; a
    /// refusal's status when it has none.
    [[nodiscard]] std::expected<Forker::Branch, int> prepare(SipMessage request, const Origin& origin,
                                                             bool record_route, std::size_t copy) const;
    void refuse(const SipMessage& request, int status, const Origin& origin);
    [[nodiscard]] bool is_own_uri(const std::string& uri) const;

    UserStore& users_;
    CoreLink& link_;
    MessageLog& log_;
    RegNotifier notifier_;
    Forker forker_;
};

/// Completes the topmost Via of a request with received and rport (RFC 3261 §18.2.1, RFC 3581 §4).
void note_source(SipMessage& request, const Endpoint& from);

}  // namespace gmgate::peers
