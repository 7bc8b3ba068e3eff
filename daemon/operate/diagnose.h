// Why does this phone not register? A pure function from evidence to one paragraph in plain words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "daemon/operate/evidence.h"

namespace gmgate::daemon {

enum class Cause {
    unknown_phone,       ///< no REGISTER of it has arrived
    registered,          ///< it is registered and nothing is wrong
    no_answer,           ///< 401 left, no ESP packet came
    waiting,             ///< 401 left a moment ago
    integrity,           ///< ESP came and failed the integrity check: other keys
    replay,              ///< ESP came and was replayed or too late
    stale_sa,            ///< ESP for an SPI that is not ours any more
    clear_to_protected,  ///< it sends in clear to a protected port
    nat,                 ///< Via and source differ
    nat_moved,           ///< its NAT has another address: its SAs ended
    algorithms,          ///< nothing usable is offered
    no_offer,            ///< no Security-Client although one is demanded
    option_refused,      ///< 420
    verify_mismatch,     ///< Security-Verify is not what was sent: bidding down, or a phone that rewrites it
    client_mismatch,
    identity_mismatch,
    core_pending,  ///< the core has still to answer a REGISTER
    core_unreachable,
    no_keys,      ///< 401 without ck and ik
    wrong_res,    ///< the core does not believe the answer
    declined,     ///< the core declines the user
    limit,        ///< a configured limit, or draining
    kernel,       ///< the kernel refused the SAs
    bad_request,  ///< the REGISTER itself
    undecided,    ///< records exist and none of the above fits
};
std::string_view to_string(Cause cause);

struct Verdict {
    Cause cause{};
    std::string paragraph;              ///< for people, without line breaks
    std::vector<std::string> evidence;  ///< one fact a line, newest last
};

Verdict diagnose(const Evidence& evidence);

/// How long a phone may take to answer a challenge before its silence is a finding.
inline constexpr std::chrono::seconds kAnswerPatience{10};
/// How long the core may take to answer a REGISTER before that is the finding about a phone of which more is known.
inline constexpr std::chrono::seconds kCorePatience{5};

}  // namespace gmgate::daemon
