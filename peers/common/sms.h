// SMS over IP (TS 24.341): what stands in the body of a MESSAGE with Content-Type application/vnd.3gpp.sms, RP messages
// (TS 24.011 §7.3) with short messages in them (TS 23.040 §9.2.2).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gmgate::peers {

inline constexpr std::string_view kSmsType = "application/vnd.3gpp.sms";

/// RP-DATA of a phone with an SMS-SUBMIT in the GSM alphabet. `service_centre`, `to`: digits of a number, "+" in front
/// is left out. Nullopt: something else than digits, or a text of more than 160 characters or others than letters,
/// digits and the signs that ASCII and that alphabet have in common.
std::optional<std::string> rp_data(std::uint8_t reference, std::string_view service_centre, std::string_view to,
                                   std::string_view text);
/// RP-ACK of a phone.
std::string rp_ack(std::uint8_t reference);

struct RpMessage {
    enum class Kind { data, ack, error } kind = Kind::data;
    bool from_network = false;
    std::uint8_t reference = 0;
    std::string number;  ///< of data: whom it is for (SMS-SUBMIT) or from (SMS-DELIVER)
    std::string text;    ///< of data, when it is in the GSM alphabet
    int cause = 0;       ///< of an error
};
/// Nullopt: broken, or nothing that is known here.
std::optional<RpMessage> read_rp(std::string_view body);

}  // namespace gmgate::peers
