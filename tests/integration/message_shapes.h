// The table of tests/cases/shapes: messages as handsets write them, one file each (README.md there), for cases whose
// core is not a test's own.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace gmgate::test {

struct MessageShape {
    std::string name;
    std::map<std::string, std::string> head;  ///< key: value, in front of ---
    std::string text;                         ///< the message with its placeholders

    /// A request of a phone outside of dialogs that is to pass, to `{peer}`, and that every core reads.
    bool is_request_to_peer() const;
    bool goes_over(const std::string& way) const;
    std::string method() const { return text.substr(0, text.find(' ')); }
    /// The octets; throws when a placeholder has no value.
    std::string render(std::map<std::string, std::string> values) const;
    /// Header fields, whole, that the file promises octet for octet, but for those in `except` (lower case).
    std::vector<std::string> kept_fields(const std::string& octets, const std::set<std::string>& except) const;
};

/// All files of the folder, by name.
std::vector<MessageShape> read_message_shapes(const std::string& folder);
/// What stands behind the blank line.
std::string body_of(const std::string& octets);

}  // namespace gmgate::test
