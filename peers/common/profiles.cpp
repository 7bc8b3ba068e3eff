#include "profiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace gmgate::peers {
namespace {

constexpr std::string_view kSixOffers =
    "hmac-md5-96/des-ede3-cbc,hmac-md5-96/aes-cbc,hmac-md5-96/null,"
    "hmac-sha-1-96/des-ede3-cbc,hmac-sha-1-96/aes-cbc,hmac-sha-1-96/null";
constexpr std::string_view kOwnOffer = "null/aes-gcm,hmac-sha-1-96/aes-cbc,hmac-sha-1-96/null,hmac-md5-96/aes-cbc";

// Parameters in the order of the alphabet.
constexpr std::string_view kApple =
    "ipsec-3gpp;alg={alg};ealg={ealg};mod={mod};port-c={port-c};port-s={port-s};prot=esp;spi-c={spi-c};spi-s={spi-s}";
constexpr std::string_view kSamsung =
    "ipsec-3gpp;prot=esp;mod={mod};spi-c={spi-c};spi-s={spi-s};port-c={port-c};port-s={port-s};alg={alg};ealg={ealg}";
// Neither prot nor mod.
constexpr std::string_view kQualcomm =
    "ipsec-3gpp; alg={alg}; ealg={ealg}; spi-c={spi-c}; spi-s={spi-s}; port-c={port-c}; port-s={port-s}";
constexpr std::string_view kShort =
    "ipsec-3gpp;alg={alg};ealg={ealg};spi-c={spi-c};spi-s={spi-s};port-c={port-c};port-s={port-s}";
constexpr std::string_view kLateProtocol =
    "ipsec-3gpp;alg={alg};ealg={ealg};prot=esp;mod={mod};spi-c={spi-c};spi-s={spi-s};port-c={port-c};port-s={port-s}";
constexpr std::string_view kPortsFirst =
    "ipsec-3gpp;alg={alg};ealg={ealg};prot=esp;mod={mod};port-c={port-c};port-s={port-s};spi-c={spi-c};spi-s={spi-s}";

constexpr SpiHabit kAnySpi{};
constexpr SpiHabit kSmallSpis{10000, 99999, true};
constexpr PortHabit kHundreds{6100, 8000, 100, 1};
constexpr PortHabit kEphemeral{49152, 65500, 1, 0};

constexpr std::array<Profile, 10> kProfiles{{
    {"iphone",
     "four offers, parameters in the order of the alphabet; REGISTER over TCP, the rest over UDP; ephemeral ports",
     "hmac-md5-96/aes-cbc,hmac-md5-96/null,hmac-sha-1-96/aes-cbc,hmac-sha-1-96/null",
     "tcp",
     "udp",
     "",
     {.offer_style = {kApple, ",", ""}, .spis = {0x00800000, 0x0fffffff, false}, .ports = kEphemeral}},
    {"samsung",
     "six offers, algorithms last; five-digit SPIs and neighbouring ports, one after the other",
     kSixOffers,
     "udp",
     "udp",
     "urn:gsma:imei:35245510-000000-0",
     {.offer_style = {kSamsung, ", ", ""}, .spis = kSmallSpis, .ports = kHundreds}},
    {"samsung-two",
     "a Samsung of a network that wants no encryption: two offers with null",
     "hmac-md5-96/null,hmac-sha-1-96/null",
     "udp",
     "udp",
     "urn:gsma:imei:35245510-000000-0",
     {.offer_style = {kSamsung, ", ", ""}, .spis = kSmallSpis, .ports = kHundreds}},
    {"samsung-one",
     "Samsung IMS 5.0: one offer, hmac-md5-96 with null; SPIs and ports anywhere",
     "hmac-md5-96/null",
     "udp",
     "udp",
     "",
     {.offer_style = {kSamsung, ", ", ""}, .spis = {10000, 99999, false}, .ports = {10000, 21000, 1, 0}}},
    {"xiaomi",
     "Qualcomm modem: six offers, neither prot nor mod, blanks behind semicolons, SPIs above 2^31",
     kSixOffers,
     "udp",
     "udp",
     "",
     {.offer_style = {kQualcomm, ",", ""}, .spis = {0x80000000, 0xffffffff, false}, .ports = {42000, 45000, 1, 0}}},
    {"cmcc",
     "Qualcomm modem in China: as xiaomi, over TCP, compact header names, Expires behind Authorization",
     kSixOffers,
     "tcp",
     "tcp",
     "",
     {.offer_style = {kQualcomm, ",", ""},
      .spis = kAnySpi,
      .ports = {8000, 8990, 1, 0},
      .compact_names = true,
      .expires_last = true}},
    {"zte",
     "one offer, hmac-md5-96 with aes-cbc, neither prot nor mod",
     "hmac-md5-96/aes-cbc",
     "udp",
     "udp",
     "",
     {.offer_style = {kShort, ",", ""}, .spis = kAnySpi, .ports = {42000, 45000, 1, 0}}},
    {"nokia",
     "four-digit SPIs; the client port is the one below the server port",
     "hmac-md5-96/null,hmac-md5-96/aes-cbc,hmac-sha-1-96/null,hmac-sha-1-96/aes-cbc",
     "udp",
     "udp",
     "",
     {.offer_style = {kShort, ",", ""}, .spis = {1236, 9999, true}, .ports = {7005, 7995, 10, -1}}},
    {"pixel",
     "qop of two values without quotes in the first Authorization; its offers are not known, they are gmue's own",
     kOwnOffer,
     "udp",
     "tcp",
     "",
     {.offer_style = {kLateProtocol, ",", ""}, .spis = kAnySpi, .ports = {}, .two_qops_unquoted = true}},
    {"oma",
     "the example of the OMA: SPIs at the upper end, tls behind ipsec-3gpp",
     "hmac-md5-96/aes-cbc",
     "udp",
     "udp",
     "",
     {.offer_style = {kPortsFirst, ",", ",tls;q=0.2"},
      .spis = {0xffffff00, 0xffffffff, true},
      .ports = {61000, 61990, 1, 0}}},
}};

}  // namespace

std::span<const Profile> profiles() { return kProfiles; }

const Profile* find_profile(std::string_view name) {
    const auto it = std::ranges::find(kProfiles, name, &Profile::name);
    return it == kProfiles.end() ? nullptr : &*it;
}

std::string profile_list() {
    std::string out;
    for (const Profile& profile : kProfiles) out += fmt::format("{:<12} {}\n", profile.name, profile.about);
    return out;
}

SpiPair choose_spis(const SpiHabit& habit, std::uint32_t one, std::uint32_t other) {
    const std::uint64_t room = std::uint64_t{habit.highest} - habit.lowest + 1;
    const auto at = [&](std::uint64_t place) { return static_cast<std::uint32_t>(habit.lowest + place % room); };
    const SpiPair out{at(one), at(habit.consecutive ? std::uint64_t{one} + 1 : other)};
    return {out.spi_c, out.spi_s != out.spi_c ? out.spi_s : at(std::uint64_t{out.spi_c} - habit.lowest + 1)};
}

}  // namespace gmgate::peers
