// Security lists as sofia-sip reads them (libsofia-sip-ua, sip_security): the second opinion.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::differential {

struct Parameter {
    std::string name;
    std::string value;  ///< as written, quotes kept; "" when absent
    bool has_value = false;
};

struct Entry {
    std::string name;
    std::vector<Parameter> parameters;
    std::optional<std::string> q;  ///< what sofia-sip itself took for the preference

    /// Values of the parameters of that name, in order; names compare without regard to case.
    std::vector<std::string> values(std::string_view parameter_name) const;
};

/// One Security-Client value; nullopt when sofia-sip refuses it.
std::optional<std::vector<Entry>> read_with_sofia(const std::string& value);
/// All Security-Client fields of a message; nullopt when sofia-sip refuses one of them or the message.
std::optional<std::vector<Entry>> read_message_with_sofia(const std::string& message);

bool equal_names(std::string_view a, std::string_view b);

}  // namespace gmgate::differential
