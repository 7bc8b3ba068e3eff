// Families of phones, held against header values that were published.
#include <doctest/doctest.h>

#include <set>
#include <string>

#include "peers/common/compact_names.h"
#include "peers/common/profiles.h"

using namespace gmgate::peers;

namespace {

std::string client_of(std::string_view name, const SecEnd& ue) {
    const Profile* profile = find_profile(name);
    REQUIRE(profile != nullptr);
    return security_client(parse_offer(profile->offer, false).value(), ue, false, profile->habits.offer_style);
}

}  // namespace

TEST_CASE("an iPhone's list, octet for octet") {
    CHECK(
        client_of("iphone", {200418294, 12070439, 63193, 61008}) ==
        "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;mod=trans;port-c=63193;port-s=61008;prot=esp;spi-c=200418294;spi-s=12070439,"
        "ipsec-3gpp;alg=hmac-md5-96;ealg=null;mod=trans;port-c=63193;port-s=61008;prot=esp;spi-c=200418294;spi-s=12070439,"
        "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;mod=trans;port-c=63193;port-s=61008;prot=esp;spi-c=200418294;spi-s=12070439,"
        "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;mod=trans;port-c=63193;port-s=61008;prot=esp;spi-c=200418294;spi-s=12070439");
}

TEST_CASE("a Samsung of a network without encryption, octet for octet") {
    CHECK(client_of("samsung-two", {45597, 45598, 6101, 6100}) ==
          "ipsec-3gpp;prot=esp;mod=trans;spi-c=45597;spi-s=45598;port-c=6101;port-s=6100;alg=hmac-md5-96;ealg=null, "
          "ipsec-3gpp;prot=esp;mod=trans;spi-c=45597;spi-s=45598;port-c=6101;port-s=6100;alg=hmac-sha-1-96;ealg=null");
}

TEST_CASE("a Qualcomm modem's list has six offers, the first one octet for octet, and the OMA's ends with tls") {
    const std::string list = client_of("cmcc", {1028536224, 455113919, 8034, 8904});
    CHECK(
        list.starts_with("ipsec-3gpp; alg=hmac-md5-96; ealg=des-ede3-cbc; spi-c=1028536224; spi-s=455113919; "
                         "port-c=8034; port-s=8904,ipsec-3gpp; alg="));
    CHECK(
        list.ends_with("; alg=hmac-sha-1-96; ealg=null; spi-c=1028536224; spi-s=455113919; port-c=8034; port-s=8904"));
    CHECK(client_of("oma", {4294967295, 67890, 61676, 61662}) ==
          "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;prot=esp;mod=trans;port-c=61676;port-s=61662;spi-c=4294967295;"
          "spi-s=67890,tls;q=0.2");
}

TEST_CASE("where a style has no place for the mode, transport goes without saying and UDP-enc-tun is added") {
    const OfferStyle style{"ipsec-3gpp;alg={alg};spi-c={spi-c}", ", ", ""};
    CHECK(security_client({{Alg::hmac_md5_96, Ealg::null}}, {1, 2, 3, 4}, true, style) ==
          "ipsec-3gpp;alg=hmac-md5-96;spi-c=1, ipsec-3gpp;alg=hmac-md5-96;spi-c=1;mod=UDP-enc-tun");
}

TEST_CASE("SPIs are two, within the range, and next to each other where that is the habit") {
    for (const std::uint32_t one : {0U, 1U, 7U, 4294967295U})
        for (const std::uint32_t other : {0U, 1U, 7U, 4294967295U}) {
            for (const Profile& profile : profiles()) {
                const SpiHabit& habit = profile.habits.spis;
                const SpiPair spis = choose_spis(habit, one, other);
                CHECK(spis.spi_c != spis.spi_s);
                for (const std::uint32_t spi : {spis.spi_c, spis.spi_s}) {
                    CHECK(spi >= habit.lowest);
                    CHECK(spi <= habit.highest);
                }
                if (habit.consecutive && spis.spi_c != habit.highest) CHECK(spis.spi_s == spis.spi_c + 1);
            }
        }
}

TEST_CASE("profiles have names of their own and valid offers") {
    std::set<std::string_view> names;
    for (const Profile& profile : profiles()) {
        CHECK(names.insert(profile.name).second);
        CHECK(parse_offer(profile.offer, false).has_value());
        CHECK(profile_list().find(std::string(profile.name) + " ") != std::string::npos);
    }
    CHECK(find_profile("list") == nullptr);
    CHECK(find_profile("") == nullptr);
}

TEST_CASE("compact names: what has one gets it, start line, folds and body stay") {
    CHECK(with_compact_names("MESSAGE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>\r\n To: c\r\nX-To: d\r\n"
                             "Content-Length: 9\r\n\r\nFrom: x\r\n") ==
          "MESSAGE sip:x SIP/2.0\r\nv: SIP/2.0/UDP h\r\nf: <sip:a@b>\r\n To: c\r\nX-To: d\r\nl: 9\r\n\r\nFrom: x\r\n");
}
