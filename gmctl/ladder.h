// The ladder diagram of what a phone, the gateway and the core said to each other: for a terminal, and as one
// self-contained HTML page.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace gmgate::gmctl {

/// A message as `trace` tells it.
struct LadderMessage {
    std::uint64_t number = 0;
    std::int64_t microseconds = 0;  ///< since 1970
    std::string time, transport, source, destination, protection, bytes;
    std::string owner;  ///< private identity of the phone at the access side's end, as far as its SAs or TLS tell
    bool outward = false, core_side = false;
};
/// Events or list elements of `trace`; what lacks a field gets an empty one.
LadderMessage ladder_message(const nlohmann::json& json);

/// "REGISTER", "200 OK", "SIP?" for what is neither.
std::string label_of(const LadderMessage& message);
/// Who stands where. The other phone of a call between two phones of this gateway has a column of its own.
struct LadderPlan {
    std::string phone;       ///< private identity whose column is the first; empty: the first one that is known
    bool has_other = false;  ///< there is another phone's leg
    std::size_t width = 0;   ///< of the terminal; 0: 110, with another phone 140
};
/// For messages that are all known already.
LadderPlan ladder_plan(const std::string& phone, const std::vector<LadderMessage>& messages, std::size_t width);
/// Whether it is of the other phone's leg.
bool is_other(const LadderPlan& plan, const LadderMessage& message);

/// The line with the names, and one for each message. `since`: of the message before, for the time between them, 0:
/// none. A terminal of less than 100 columns shows either the time or, within a second, the difference.
std::string ladder_head(const LadderPlan& plan);
std::string ladder_line(const LadderPlan& plan, const LadderMessage& message, std::int64_t since);
/// The whole message under a line that tells its way.
std::string ladder_text(const LadderPlan& plan, const LadderMessage& message, std::int64_t since);
/// A sequence diagram for Mermaid, as documents and tickets draw it: its head, and a line for each message.
std::string ladder_mermaid_head(const LadderPlan& plan);
std::string ladder_mermaid(const LadderPlan& plan, const LadderMessage& message, std::int64_t since);
/// The page: a picture, each arrow of which leads to its message, and every message to unfold, which leads back. No
/// script, nothing from elsewhere; all text escaped.
std::string ladder_html(const std::string& title, const LadderPlan& plan, const std::vector<LadderMessage>& messages);

}  // namespace gmgate::gmctl
