#include "behaviour.h"

#include "../common/text.h"

namespace gmgate::peers {

Result<void> Behaviour::apply(std::string_view word) {
    const auto equals = word.find('=');
    const auto name = trim(word.substr(0, equals));
    const bool has_value = equals != std::string_view::npos;
    const auto number = to_number<std::uint32_t>(has_value ? trim(word.substr(equals + 1)) : "").value_or(0);
    if (name == "challenge") challenge_refresh = true;
    else if (name == "no-challenge") challenge_refresh = false;
    else if (name == "omit-keys") omit_keys = true;
    else if (name == "stale") stale_challenge = true;
    else if (name == "silent") silent = true;
    else if (name == "refuse" && number >= 300 && number < 700) refuse = static_cast<int>(number);
    else if (name == "delay" && has_value) delay = std::chrono::milliseconds(number);
    else if (name == "expires" && has_value) expires = number;
    else return fail("'{}' is not something that gmcore can do", word);
    return {};
}

}  // namespace gmgate::peers
