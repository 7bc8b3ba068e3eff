// Server transactions for REGISTER (RFC 3261 §17.2.2): a retransmission gets the first answer again, not a second
// challenge.
#pragma once

#include "../common/loop.h"
#include "../common/sip_message.h"

#include <deque>
#include <map>
#include <optional>
#include <string>

namespace gmgate::peers {

class RegisterTransactions {
public:
    struct Seen {
        bool is_new = true;
        const SipMessage* answer = nullptr;  ///< of a retransmission, when there is one yet
    };
    /// Notes a request; what is older than 64·T1 is forgotten on the way.
    [[nodiscard]] Seen note(const SipMessage& request) {
        const auto now = Clock::now();
        while (!order_.empty() && order_.front().first < now) {
            answers_.erase(order_.front().second);
            order_.pop_front();
        }
        const std::string key = key_of(request);
        const auto [it, inserted] = answers_.try_emplace(key);
        if (inserted) order_.emplace_back(now + std::chrono::seconds(32), key);
        return {inserted, it->second ? &*it->second : nullptr};
    }
    void answer(const SipMessage& request, const SipMessage& response) {
        const auto it = answers_.find(key_of(request));
        if (it != answers_.end()) it->second = response;
    }

private:
    [[nodiscard]] static std::string key_of(const SipMessage& request) {
        return request.get("Via") + '|' + request.call_id() + '|' + request.get("CSeq");
    }
    std::map<std::string, std::optional<SipMessage>> answers_;
    std::deque<std::pair<Clock::time_point, std::string>> order_;
};

}  // namespace gmgate::peers
