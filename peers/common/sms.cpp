#include "sms.h"

#include <algorithm>

namespace gmgate::peers {
namespace {

// TS 24.011 §8.2.2: message types, even ones from a phone and odd ones from the network.
constexpr std::uint8_t kData = 0, kAck = 2, kError = 4;
constexpr std::uint8_t kUserData = 0x41;  ///< RP-User-Data where it is optional (§8.2.5.3)
constexpr std::uint8_t kInternational = 0x91;
constexpr std::size_t kMostSeptets = 160;

// TS 23.038 §6.2.1: where the alphabet and ASCII are one.
bool is_common(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '\n' || c == '\r' ||
           std::string_view(" !\"#%&'()*+,-./:;<=>?").find(c) != std::string_view::npos;
}

std::string_view digits_of(std::string_view number) {
    if (number.starts_with('+')) number.remove_prefix(1);
    const bool ok = !number.empty() && number.size() <= 20 &&
                    std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; });
    return ok ? number : std::string_view{};
}

// Two digits an octet, the first one in the lower half; an odd end is filled with ones.
std::string packed_digits(std::string_view digits) {
    std::string out;
    for (std::size_t i = 0; i < digits.size(); i += 2) {
        const int low = digits[i] - '0', high = i + 1 < digits.size() ? digits[i + 1] - '0' : 0xf;
        out += static_cast<char>(high << 4 | low);
    }
    return out;
}

// TS 23.038 §6.1.2.1.1: seven bits each, without a gap.
std::string packed_septets(std::string_view text) {
    std::string out((text.size() * 7 + 7) / 8, '\0');
    for (std::size_t i = 0; i < text.size(); ++i)
        for (std::size_t bit = 0; bit < 7; ++bit)
            if (((static_cast<unsigned char>(text[i]) >> bit) & 1U) != 0)
                out[(i * 7 + bit) / 8] =
                    static_cast<char>(static_cast<unsigned char>(out[(i * 7 + bit) / 8]) | 1U << ((i * 7 + bit) % 8));
    return out;
}

std::string unpacked_septets(std::string_view octets, std::size_t count) {
    std::string out(count, '\0');
    for (std::size_t i = 0; i < count; ++i)
        for (std::size_t bit = 0; bit < 7; ++bit)
            if (((static_cast<unsigned char>(octets[(i * 7 + bit) / 8]) >> ((i * 7 + bit) % 8)) & 1U) != 0)
                out[i] = static_cast<char>(out[i] | 1 << bit);
    return out;
}

/// Takes octets from the front; once something is missing everything is.
class Reader {
public:
    explicit Reader(std::string_view bytes) : rest_(bytes) {}
    std::string_view take(std::size_t count) {
        is_good_ = is_good_ && count <= rest_.size();
        if (!is_good_) return {};
        const auto out = rest_.substr(0, count);
        rest_.remove_prefix(count);
        return out;
    }
    std::uint8_t octet() {
        const auto one = take(1);
        return one.empty() ? std::uint8_t{0} : static_cast<std::uint8_t>(one[0]);
    }
    bool is_good() const { return is_good_; }
    bool is_empty() const { return rest_.empty(); }

private:
    std::string_view rest_;
    bool is_good_ = true;
};

std::string read_digits(Reader& reader, std::size_t count) {
    std::string out;
    for (const char c : reader.take((count + 1) / 2)) {
        const auto octet = static_cast<unsigned char>(c);
        for (const unsigned half : {octet & 0xfU, static_cast<unsigned>(octet >> 4)})
            if (half < 10 && out.size() < count) out += static_cast<char>('0' + half);
    }
    return out;
}

// SMS-SUBMIT from a phone, SMS-DELIVER from the network (TS 23.040 §9.2.2).
bool read_tpdu(std::string_view bytes, RpMessage& message) {
    Reader reader(bytes);
    const auto first = reader.octet();
    const bool is_submit = (first & 3) == 1;
    if ((first & 3) > 1 || (first & 0x40) != 0) return false;  // with a header in the text: not known here
    if (is_submit) (void)reader.octet();                       // TP-MR
    const auto digits = reader.octet();
    (void)reader.octet();
    message.number = read_digits(reader, digits);
    (void)reader.octet();  // TP-PID
    const auto coding = reader.octet();
    if (!is_submit) (void)reader.take(7);                                             // TP-SCTS
    else if ((first & 0x18) != 0) (void)reader.take((first & 0x18) == 0x10 ? 1 : 7);  // TP-VP
    const std::size_t count = reader.octet();
    if (coding != 0 || count > kMostSeptets) return reader.is_good() && count <= kMostSeptets;
    const auto octets = reader.take((count * 7 + 7) / 8);
    if (!reader.is_good()) return false;
    message.text = unpacked_septets(octets, count);
    return true;
}

}  // namespace

std::optional<std::string> rp_data(std::uint8_t reference, std::string_view service_centre, std::string_view to,
                                   std::string_view text) {
    const auto centre = digits_of(service_centre), called = digits_of(to);
    if (centre.empty() || called.empty() || text.size() > kMostSeptets || !std::ranges::all_of(text, is_common))
        return std::nullopt;
    std::string submit{0x01, static_cast<char>(reference), static_cast<char>(called.size()),
                       static_cast<char>(kInternational)};
    submit += packed_digits(called);
    submit += std::string{0x00, 0x00, static_cast<char>(text.size())};  // TP-PID, TP-DCS, TP-UDL
    submit += packed_septets(text);
    const auto address = packed_digits(centre);
    std::string out{static_cast<char>(kData), static_cast<char>(reference), 0x00,  // no originator
                    static_cast<char>(address.size() + 1), static_cast<char>(kInternational)};
    out += address;
    out += static_cast<char>(submit.size());
    return out + submit;
}

std::string rp_ack(std::uint8_t reference) { return {static_cast<char>(kAck), static_cast<char>(reference)}; }

std::optional<RpMessage> read_rp(std::string_view body) {
    Reader reader(body);
    const auto type = reader.octet();
    RpMessage message;
    message.from_network = (type & 1) != 0;
    message.reference = reader.octet();
    switch (type & 0xfe) {
        case kData: {
            (void)reader.take(reader.octet());  // originator
            (void)reader.take(reader.octet());  // destination
            const auto tpdu = reader.take(reader.octet());
            if (!reader.is_good() || !read_tpdu(tpdu, message)) return std::nullopt;
            break;
        }
        case kAck:
            message.kind = RpMessage::Kind::ack;
            if (!reader.is_empty() && reader.octet() != kUserData) return std::nullopt;
            break;
        case kError: {
            message.kind = RpMessage::Kind::error;
            const auto cause = reader.take(reader.octet());
            if (cause.empty()) return std::nullopt;
            message.cause = static_cast<unsigned char>(cause[0]) & 0x7f;
            break;
        }
        default:
            return std::nullopt;
    }
    return reader.is_good() ? std::optional(message) : std::nullopt;
}

}  // namespace gmgate::peers
