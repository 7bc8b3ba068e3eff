// Routes requests between registered users as a stateless record-routing proxy (RFC 3261 §16.11): retransmission is left to the
// ends and to the gateway. Terminating requests follow the stored Path (RFC 3327 §5.3).
#pragma once

#include "core_link.h"
#include "reg_notifier.h"
#include "users.h"

namespace gmgate::peers {

class Proxy {
 public:
  Proxy(UserStore& users, CoreLink& link, MessageLog& log) : users_(users), link_(link), log_(log), notifier_(users, link, log) {}
  RegNotifier& notifier() { return notifier_; }
  void handle_request(SipMessage request, const Origin& origin);
  void handle_response(SipMessage response);

 private:
  /// Takes our own URIs off the top of Route.
  void strip_own_routes(SipMessage& request) const;
  /// Chooses where a request without Route goes; returns a status to refuse it with, 0 to go on.
  [[nodiscard]] int resolve_target(SipMessage& request);
  void forward(SipMessage request, const Origin& origin, bool record_route);
  void refuse(const SipMessage& request, int status, const Origin& origin);
  [[nodiscard]] bool is_own_uri(const std::string& uri) const;

  UserStore& users_;
  CoreLink& link_;
  MessageLog& log_;
  RegNotifier notifier_;
};

/// Completes the topmost Via of a request with received and rport (RFC 3261 §18.2.1, RFC 3581 §4).
void note_source(SipMessage& request, const Endpoint& from);

}  // namespace gmgate::peers
