// What the gateway writes into messages to know it again: the token in its Path and Record-Route, and the loop mark in
// its branches. Both carry a hash with a key of this process, so nobody else can make one (RFC 5626 §5.2, RFC 5393
// §4.2).
#pragma once

#include <string>
#include <string_view>

#include "base/siphash.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

enum class TokenVerdict {
    genuine,   ///< made by this process
    tampered,  ///< looks like one of this process, but its hash is wrong
    foreign,   ///< anything else, tokens of an earlier run included
};

class OwnMarks {
public:
    OwnMarks();  ///< a fresh key

    /// A token for a new registration: 128 random bits between the run's name and a hash over both.
    std::string new_token() const;
    /// What a token is that belongs to no registration (C-71).
    TokenVerdict judge(std::string_view token) const;

    /// Follows our branch: a hash of where the request goes (`way`: direction and token) and of all in it that decides
    /// about its way (RFC 5393 §4.2.2). A spiral has another Request-URI, Route or way and so another mark.
    std::string loop_mark(const sip::Message& request, std::string_view way) const;
    /// True when a Via of the request carries this very mark: it has been here, unchanged (RFC 3261 §16.3 step 4).
    static bool has_looped(const sip::Message& request, std::string_view mark);

private:
    SipHashKey key_{};
    std::string run_;  ///< names this run of the process in its tokens
};

}  // namespace gmgate::daemon
