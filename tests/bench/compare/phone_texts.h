// What the phones of the comparison say: requests as a VoLTE phone writes them, each of the same length for each
// gateway.
#pragma once

#include <string>
#include <string_view>

#include "tests/bench/compare/security.h"

namespace gmgate::bench {

inline constexpr std::string_view kRealm = "ims.example.org";
/// Protected ports of every phone: each has an address of its own. A new challenge takes the other client port.
inline constexpr std::uint16_t kUeClient[2] = {31000, 31002};
inline constexpr std::uint16_t kUeServer = 31001;
inline constexpr long kExpires = 600000;  ///< seconds

/// One agreement (TS 33.203 §7): the phone's part, and what the gateway answered.
struct Agreement {
    std::uint32_t spi_uc = 0, spi_us = 0, spi_pc = 0, spi_ps = 0;
    std::uint16_t port_uc = kUeClient[0], port_pc = 0, port_ps = 0;
    std::string security_server;
};

struct Phone {
    std::uint32_t number = 0;
    Host host;
    Agreement agreed, offered;
    std::string service_route;
    int cseq = 0;
    int clear_stream = -1, stream = -1;  ///< TCP connections to the gateway
};

/// What goes with a request besides its phone.
struct Saying {
    std::string branch, call_id, from_tag, to, route, body, content_type;
    int cseq = 1;
};

/// The user part of a phone's identity.
std::string user_of(std::uint32_t number);

enum class Credentials { none, empty_response, response };
/// `over`: the agreement whose Security-Server is repeated; nullptr for a REGISTER in clear.
std::string register_text(const Phone& phone, std::string_view transport, const std::string& branch,
                          const Agreement* over, Credentials credentials, long expires);
std::string request_text(const Phone& phone, std::string_view transport, std::string_view method,
                         const std::string& uri, const Saying& saying);
/// 200 to a request.
std::string answer_text(std::string_view request);
/// The Route lines of a dialog's caller, made of the Record-Routes of a response (RFC 3261 §12.1.2).
std::string dialog_route(std::string_view response);
std::string_view session_description();

}  // namespace gmgate::bench
