// The notifier side of the reg event package (RFC 3680), as much as a P-CSCF needs: one subscription per Call-ID, full
// documents only.
#pragma once

#include "core_link.h"
#include "users.h"

#include <map>

namespace gmgate::peers {

class RegNotifier {
public:
    static constexpr std::string_view kUser = "reg";  ///< user part of the Contact of our dialogs

    RegNotifier(UserStore& users, CoreLink& link, MessageLog& log) : users_(users), link_(link), log_(log) {}

    /// SUBSCRIBE outside or inside a dialog: answered, and the state told at once. 404 for an unknown user.
    void subscribe(const SipMessage& request, const Origin& origin);
    /// Network-initiated de-registration: drops all bindings of a user and tells its subscribers (TS 24.229 §5.4.1.5).
    void deregister(User& user);
    /// The same for all users.
    void deregister_all();
    /// Tells every subscriber that a former address of its user and an emergency contact have ended: neither is the
    /// binding that stands.
    void end_former_contacts();
    /// Every subscription is ended as soon as it is made, with these parameters of Subscription-State.
    void end_each(std::string state) { end_each_ = std::move(state); }
    /// True for the answer to a NOTIFY of ours; 481 ends its subscription (RFC 6665 §4.2.2).
    bool take_response(const SipMessage& response);

private:
    struct Subscription {
        User* user = nullptr;
        std::string aor, call_id, our_party, their_party, target;  ///< parties as From and To of our NOTIFY have them
        std::vector<std::string> route;
        unsigned version = 0, cseq = 0;
    };
    void notify(Subscription& subscription, const std::vector<Binding>& ended, std::string_view state = "active");
    void send(Subscription& subscription, std::string_view state, std::string_view kind, std::string registration);

    UserStore& users_;
    CoreLink& link_;
    MessageLog& log_;
    std::string end_each_;
    std::map<std::string, Subscription> subscriptions_;  ///< by Call-ID
};

}  // namespace gmgate::peers
