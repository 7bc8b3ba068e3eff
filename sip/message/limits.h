// Every limit of the SIP layer in one place. Reaching one is an error with a reason, never a crash or a silent cut.
#pragma once

#include <cstddef>

namespace gmgate::sip {

inline constexpr std::size_t kMaxMessage =
    65535;  ///< octets of one message on any transport (one UDP datagram's worth)
inline constexpr std::size_t kMaxHeaderFields = 128;   ///< header field lines of one message
inline constexpr std::size_t kMaxParameters = 32;      ///< parameters of one sec-mechanism or one URI
inline constexpr std::size_t kMaxMechanisms = 32;      ///< entries of one Security-* list
inline constexpr std::size_t kMaxSecurityList = 8192;  ///< octets of one joined Security-* list
inline constexpr std::size_t kMaxKeepAlive =
    1024;  ///< line ends in one burst between two messages of a stream; octets of a keep-alive datagram

/// How much one message may be, for whoever sent it. Neither is ever more than kMaxMessage.
struct MessageLimit {
    std::size_t message = kMaxMessage;  ///< octets in all
    std::size_t body = kMaxMessage;     ///< octets of the body
};

}  // namespace gmgate::sip
