// Header names to ids and back: one multiplication, one comparison of the whole name.
#include <array>
#include <cstring>

#include "sip/message/message.h"

namespace gmgate::sip {
namespace {

constexpr std::size_t kCount = static_cast<std::size_t>(HeaderId::kCount_);
constexpr std::array<std::string_view, kCount> kNames{
    "",
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Max-Forwards",
    "Content-Length",
    "Content-Type",
    "Content-Encoding",
    "Expires",
    "Min-Expires",
    "Route",
    "Record-Route",
    "Path",
    "Service-Route",
    "Require",
    "Proxy-Require",
    "Supported",
    "Unsupported",
    "Allow",
    "Authorization",
    "WWW-Authenticate",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "Authentication-Info",
    "Security-Client",
    "Security-Server",
    "Security-Verify",
    "P-Access-Network-Info",
    "P-Asserted-Identity",
    "P-Preferred-Identity",
    "P-Associated-URI",
    "P-Called-Party-ID",
    "P-Visited-Network-ID",
    "P-Charging-Vector",
    "P-Charging-Function-Addresses",
    "P-Asserted-Service",
    "P-Preferred-Service",
    "P-Served-User",
    "P-Early-Media",
    "P-Private-Network-Indication",
    "Resource-Priority",
    "History-Info",
    "Privacy",
    "Event",
    "Subscription-State",
    "Retry-After",
    "Warning",
    "Date",
    "Server",
    "User-Agent",
    "Reason",
    "RAck",
    "RSeq",
    "Refer-To",
    "Session-Expires",
    "Min-SE",
    "Feature-Caps",
    "Geolocation",
    "Accept-Contact",
    "Subject",
    "Allow-Events",
};

constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

/// Length and three characters tell all known names apart; the multiplier spreads them over 256 slots without a
/// collision, which the compiler checks below. A new name that collides needs a new multiplier: try odd random numbers,
/// some ten thousand suffice.
constexpr std::uint32_t kMultiplier = 0xe8224e8f;
constexpr std::size_t slot_of(const char* name, std::size_t length) {
    const auto octet = [name](std::size_t i) {
        return static_cast<std::uint32_t>(static_cast<unsigned char>(name[i]) | 0x20U);
    };
    const std::uint32_t key =
        octet(0) | octet(length / 2) << 8 | octet(length - 1) << 16 | static_cast<std::uint32_t>(length) << 24;
    return (key * kMultiplier) >> 24;
}

/// A name in lower case, and a mask with 0x20 where it has a letter: (input | mask) == name compares without regard to
/// case, eight octets at a time, and nothing but a letter's other case is equal to it.
struct Entry {
    std::array<char, 32> name{};
    std::array<char, 32> mask{};
    std::uint8_t length = 0;
    HeaderId id = HeaderId::other;
};

struct Table {
    std::array<Entry, 256> entries{};
    bool is_perfect = true;
};
consteval Table make_table() {
    Table table;
    for (std::size_t i = 1; i < kCount; ++i) {
        Entry& entry = table.entries[slot_of(kNames[i].data(), kNames[i].size())];
        if (entry.length != 0 || kNames[i].size() > 32) table.is_perfect = false;
        entry.length = static_cast<std::uint8_t>(kNames[i].size());
        entry.id = static_cast<HeaderId>(i);
        for (std::size_t k = 0; k < kNames[i].size(); ++k) {
            entry.name[k] = lower(kNames[i][k]);
            entry.mask[k] = entry.name[k] >= 'a' && entry.name[k] <= 'z' ? 0x20 : 0;
        }
    }
    return table;
}
constexpr Table kTable = make_table();
static_assert(kTable.is_perfect, "two header names share a slot: choose another kMultiplier");
static_assert(kCount <= 64, "Message keeps the ids it has seen in 64 bits");

/// Compact forms: RFC 3261 §20, RFC 4028 (x), 3515 (r), 3841 (a), 6665 (o, u).
consteval std::array<HeaderId, 26> make_compact() {
    std::array<HeaderId, 26> table{};
    const auto set = [&table](char letter, HeaderId id) { table[static_cast<std::size_t>(letter - 'a')] = id; };
    set('a', HeaderId::accept_contact);
    set('c', HeaderId::content_type);
    set('e', HeaderId::content_encoding);
    set('f', HeaderId::from);
    set('i', HeaderId::call_id);
    set('k', HeaderId::supported);
    set('l', HeaderId::content_length);
    set('m', HeaderId::contact);
    set('o', HeaderId::event);
    set('r', HeaderId::refer_to);
    set('s', HeaderId::subject);
    set('t', HeaderId::to);
    set('u', HeaderId::allow_events);
    set('v', HeaderId::via);
    set('x', HeaderId::session_expires);
    return table;
}
constexpr std::array<HeaderId, 26> kCompact = make_compact();

template <class Word>
bool same_at(const char* name, const Entry& entry, std::size_t at) {
    Word octets, mask, wanted;
    std::memcpy(&octets, name + at, sizeof octets);
    std::memcpy(&mask, entry.mask.data() + at, sizeof mask);
    std::memcpy(&wanted, entry.name.data() + at, sizeof wanted);
    return static_cast<Word>(octets | mask) == wanted;
}

/// Words from the front, the last one overlapping, so that no octet beyond the name is read.
bool same_name(const char* name, const Entry& entry) {
    const std::size_t length = entry.length;
    if (length >= 8) {
        for (std::size_t at = 0; at + 8 < length; at += 8)
            if (!same_at<std::uint64_t>(name, entry, at)) return false;
        return same_at<std::uint64_t>(name, entry, length - 8);
    }
    if (length >= 4) return same_at<std::uint32_t>(name, entry, 0) && same_at<std::uint32_t>(name, entry, length - 4);
    return same_at<std::uint16_t>(name, entry, 0) && same_at<std::uint16_t>(name, entry, length - 2);
}

}  // namespace

HeaderId header_id(std::string_view name) {
    if (name.size() <= 1) {
        const char letter = name.empty() ? '\0' : lower(name.front());
        return letter >= 'a' && letter <= 'z' ? kCompact[static_cast<std::size_t>(letter - 'a')] : HeaderId::other;
    }
    const Entry& entry = kTable.entries[slot_of(name.data(), name.size())];
    return entry.length == name.size() && same_name(name.data(), entry) ? entry.id : HeaderId::other;
}

std::string_view to_string(HeaderId id) {
    const auto index = static_cast<std::size_t>(id);
    return index < kCount ? kNames[index] : std::string_view{};
}

}  // namespace gmgate::sip
