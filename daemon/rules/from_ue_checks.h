// What is checked on a request from a phone before it may go on: pure functions, no I/O.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "daemon/config/config.h"
#include "daemon/observe/counters.h"
#include "daemon/registrations/registration.h"
#include "sip/message/message.h"

namespace gmgate::daemon {

/// A final response that the gateway gives itself.
struct Answer {
    int status = 0;
    std::string phrase;
    std::vector<std::string> extra;      ///< header lines
    std::string why;                     ///< for the log
    std::optional<Counter> counter;      ///< the reason's own counter, beside that of the status
    std::string content_type{}, body{};  ///< of the response; empty: it has none

    std::optional<Counter> status_counter() const;  ///< reject_403, …
};
Answer make_answer(int status, std::string phrase, std::string why, std::optional<Counter> counter = {});

/// Who sent a request. What a phone writes is judged strictly: the core must read what was checked here, and nobody
/// vouches for a phone. What the core passes on was written by somebody far away, in another network or a PSTN gateway,
/// and the core has answered for it: only what this gateway itself goes by must be read in one way (the Request-URI,
/// the topmost Via, Route, the tags and URIs of From and To), and the rest passes as it came, for the phone to judge.
enum class Sender { phone, core };

/// Why a clear port with sec-agree-feature and ims-aka-feature off serves nobody: REGISTER and other requests alike.
inline constexpr std::string_view kNoClearService =
    "neither sec-agree-feature nor ims-aka-feature is enabled on this interface: there is no service in clear";

/// Option tags in Proxy-Require that are not known here, as Unsupported names them: "foo, bar"; empty: none.
/// `refuse_mediasec`: mediasec counts as unknown (G-30).
std::string unknown_proxy_options(const sip::Message& request, bool refuse_mediasec);

/// RFC 3261 §16.3 for a proxy: syntax and URI scheme (request_syntax.h: 400, 416), Max-Forwards (483), Proxy-Require
/// (420). nullopt: all is well.
std::optional<Answer> check_proxyable(const sip::Message& request, bool refuse_mediasec, Sender sender = Sender::phone);

/// RFC 3261 §16.3 step 4: 482 for a request that has passed here before on the same way, `mark` being
/// OwnMarks::loop_mark.
std::optional<Answer> check_loop(const sip::Message& request, std::string_view mark);

/// What nearly every phone sends in nearly every request: the list that was sent, octet for octet, in one field. It
/// needs no reading: a list equals itself, and this one is our own.
bool mirrors_to_the_letter(const sip::Message& request, const PatternedText& sent);

/// C-64, A-16, A-17: a Security-Verify must equal the Security-Server of the set (null: the one of the TLS association)
/// or of another live set of the registration; absent is accepted, and ACK and CANCEL are never asked (A-15a).
std::optional<Answer> check_security_verify(const sip::Message& request, const SaSet* carried_by,
                                            const Registration& registration, bool ignore_q);

/// C-60: the Route values that are not ours (split_route), compared with the stored Service-Route. In-dialog requests
/// have the dialog's own route set and are not compared.
enum class RouteVerdict { same, differs };
RouteVerdict compare_route(const std::vector<std::string_view>& remaining,
                           const std::vector<std::string>& service_route);

/// URI text of the first of these name-addr values; "" when there is none.
std::string first_route_uri(const std::vector<std::string>& route);
std::string first_route_uri(const std::vector<std::string_view>& route);

/// Service-Route of an initial request for which this identity is asserted (C-60): the one that was told with the
/// registration of that identity, for another identity of the contact may be served by another S-CSCF. Of the default
/// identity when none is asserted.
const std::vector<std::string>& route_for(const Registration& registration, const std::optional<std::string>& asserted);

/// True for a request without To tag. One with a To tag is inside a dialog only when the dialog is known (DialogMarks,
/// EmergencyDialogs).
bool has_no_to_tag(const sip::Message& request);

}  // namespace gmgate::daemon
