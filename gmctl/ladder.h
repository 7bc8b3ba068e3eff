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
    bool outward = false, core_side = false;
};
/// Events or list elements of `trace`; what lacks a field gets an empty one.
LadderMessage ladder_message(const nlohmann::json& json);

/// "REGISTER", "200 OK", "SIP?" for what is neither.
std::string label_of(const LadderMessage& message);
/// The line with the three names, and one for each message.
std::string ladder_head(std::size_t width);
std::string ladder_line(const LadderMessage& message, std::size_t width);
/// The whole message under a line that tells its way; `since`: of the one before, for the time between them, 0: none.
std::string ladder_text(const LadderMessage& message, std::int64_t since);
/// A sequence diagram for Mermaid, as documents and tickets draw it: its head, and a line for each message.
std::string ladder_mermaid_head();
std::string ladder_mermaid(const LadderMessage& message, std::int64_t since);
/// The page: a picture, and every message to unfold. No script, nothing from elsewhere; all text escaped.
std::string ladder_html(const std::string& title, const std::vector<LadderMessage>& messages);

}  // namespace gmgate::gmctl
