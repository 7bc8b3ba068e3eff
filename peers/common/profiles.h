// Families of phones: how each writes its offers, which SPIs and ports it takes, which transport it uses. After
// published traces and reports; what those do not show is as gmue does it.
#pragma once

#include "sec_agree.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace gmgate::peers {

/// Which SPIs a phone takes for a set.
struct SpiHabit {
    std::uint32_t lowest = 256;  ///< 1…255 are reserved (RFC 4303 §2.1)
    std::uint32_t highest = 0xffff'ffff;
    bool consecutive = false;  ///< spi_us is spi_uc + 1
};

/// Where a phone's protected ports are.
struct PortHabit {
    std::uint16_t lowest = 20000;  ///< of port_us
    std::uint16_t highest = 31999;
    std::uint16_t step = 8;  ///< port_us is `lowest` and so many steps
    int first_client = 1;    ///< the first port_uc, counted from port_us; 0: anywhere between `lowest` and `highest`
};

/// Habits of one phone.
struct Habits {
    OfferStyle offer_style;
    SpiHabit spis;
    PortHabit ports;
    bool compact_names = false;      ///< f: t: m: … in all that it sends (RFC 3261 §7.3.3)
    bool expires_last = false;       ///< Expires behind Authorization
    bool two_qops_unquoted = false;  ///< `qop=auth,auth-int` in the first Authorization
};

struct Profile {
    std::string_view name;
    std::string_view about;          ///< one line
    std::string_view offer;          ///< algorithms in order, as parse_offer() reads them
    std::string_view register_over;  ///< "udp", "tcp"
    std::string_view message_over;   ///< everything but REGISTER
    std::string_view instance;       ///< +sip.instance; empty: none
    Habits habits;
};

[[nodiscard]] std::span<const Profile> profiles();
/// nullptr when there is none of that name.
[[nodiscard]] const Profile* find_profile(std::string_view name);
/// Names and what they are, a line each.
[[nodiscard]] std::string profile_list();

/// Two SPIs after that habit, from two random numbers; different from each other.
struct SpiPair {
    std::uint32_t spi_c;
    std::uint32_t spi_s;
};
[[nodiscard]] SpiPair choose_spis(const SpiHabit& habit, std::uint32_t one, std::uint32_t other);

}  // namespace gmgate::peers
