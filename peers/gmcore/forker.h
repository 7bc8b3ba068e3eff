// Parallel forking of an INVITE to a user with several contacts (RFC 3261 §16.6, §16.7): all ring, the first 2xx wins,
// the others are cancelled and their final responses acknowledged and swallowed. This is all the state that gmcore's
// proxy has; the ends and the gateway retransmit.
#pragma once

#include "core_link.h"

#include <map>
#include <optional>
#include <vector>

namespace gmgate::peers {

class Forker {
public:
    /// One copy of the INVITE, complete with our Via, and where it goes.
    struct Branch {
        SipMessage request;
        bool tcp = false;
        Endpoint to;
        int final = 0;  ///< status of its final response, 0 while there is none
    };

    explicit Forker(CoreLink& link) : link_(link) {}
    /// Sends an INVITE on its branches; a retransmission sends them again.
    void start(const SipMessage& invite, std::vector<Branch> branches);
    /// A CANCEL of a forked INVITE, or the ACK to its non-2xx final response: dealt with, and true.
    [[nodiscard]] bool take_request(const SipMessage& request, const Origin& origin);
    /// What goes upstream when this response has come, the response itself or another one; nothing: it is swallowed.
    /// Responses that belong to no fork come back as they are.
    [[nodiscard]] std::optional<SipMessage> take_response(SipMessage response);

private:
    struct Fork {
        std::vector<Branch> branches;
        std::optional<SipMessage> best;  ///< of the final responses that are no 2xx
        bool answered = false;           ///< a 2xx has gone upstream
        Clock::time_point forgotten;
    };
    [[nodiscard]] static std::string key_of(const SipMessage& request) {
        return request.branch() + '|' + request.call_id();
    }
    void send_in(const Branch& branch, std::string method, const SipMessage* response);
    void cancel_open(Fork& fork);

    CoreLink& link_;
    std::map<std::string, Fork> forks_;  ///< by the INVITE as it came
    std::map<std::string, std::pair<std::string, std::size_t>, std::less<>>
        by_branch_;  ///< our branch → fork and number
};

}  // namespace gmgate::peers
