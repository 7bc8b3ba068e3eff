// Small text helpers: SIP compares names and tokens without regard to case (RFC 3261 §7.3.1).
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::peers {

[[nodiscard]] std::string_view trim(std::string_view text);
[[nodiscard]] bool iequals(std::string_view a, std::string_view b);
[[nodiscard]] std::string lower(std::string_view text);
/// Splits at a separator that stands outside quotes and angle brackets; the parts are trimmed, empty ones dropped.
[[nodiscard]] std::vector<std::string> split_list(std::string_view text, char separator);
[[nodiscard]] std::string join(const std::vector<std::string>& parts, std::string_view separator);
/// Takes the quotes off a quoted-string and resolves its escapes; other text is returned as it is.
[[nodiscard]] std::string unquote(std::string_view text);

/// A whole decimal number that fits T; leading zeros allowed, sign and blanks not.
template <class T>
[[nodiscard]] std::optional<T> to_number(std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
    return value;
}

}  // namespace gmgate::peers
