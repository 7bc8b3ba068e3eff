// What gmgate-export-keys writes for Wireshark.
#include <doctest/doctest.h>

#include <set>

#include "lab/esp_sa.h"
#include "lab/packet.h"
#include "lab/pcapng.h"

using namespace gmgate;
using namespace gmgate::lab;

namespace {

std::string bytes(std::initializer_list<int> octets) {
    std::string out;
    for (const int octet : octets) out += static_cast<char>(octet);
    return out;
}

xfrm::SaKeys keys_of(AlgorithmPair pair, bool is_v6 = false) {
    xfrm::SaKeys keys;
    keys.id = {*Address::parse(is_v6 ? "fd01::1" : "10.1.0.1"), Spi{0x10000001}};
    keys.source = *Address::parse(is_v6 ? "fd01::2" : "10.1.0.2");
    keys.pair = pair;
    keys.encryption = {0x00, 0x01, 0xab};
    keys.integrity = {0xcd, 0xef};
    return keys;
}

std::string ipv4(int protocol, const std::string& payload, int fragment = 0) {
    const auto size = static_cast<int>(20 + payload.size());
    return bytes({0x45, 0, size >> 8, size & 255, 0, 1, fragment >> 8, fragment & 255, 64, protocol, 0, 0, 10, 1,
                  0,    2, 10,        1,          0, 1}) +
           payload;
}

std::string ipv6(int protocol, const std::string& payload) {
    return bytes({0x60, 0, 0, 0, 0, static_cast<int>(payload.size()), protocol, 64}) +
           bytes({0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}) +
           bytes({0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}) + payload;
}

/// SPI 0x10000001, sequence 1, then an IV, a payload and a tag.
std::string esp() { return bytes({0x10, 0, 0, 1, 0, 0, 0, 1}) + "IVIVIVIV" + "the payload." + std::string(16, 'T'); }
std::string esp_without_iv() { return bytes({0x10, 0, 0, 1, 0, 0, 0, 1}) + "the payload." + std::string(16, 'T'); }

/// RFC 1071 over the header of an IPv4 packet whose checksum stands in it: 0xffff.
std::uint32_t header_sum(const std::string& packet) {
    std::uint32_t sum = 0;
    for (std::size_t at = 0; at < 20; at += 2)
        sum += static_cast<unsigned char>(packet[at]) * 256U + static_cast<unsigned char>(packet[at + 1]);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

}  // namespace

TEST_CASE("A line of esp_sa has the eight columns of Wireshark 4 and its words for every pair") {
    CHECK(esp_sa_line(keys_of({Alg::hmac_sha_1_96, Ealg::aes_cbc})) ==
          "\"IPv4\",\"10.1.0.2\",\"10.1.0.1\",\"0x10000001\",\"AES-CBC [RFC3602]\",\"0x0001ab\",\"HMAC-SHA-1-96 "
          "[RFC2404]\",\"0xcdef\"\n");
    CHECK(esp_sa_line(keys_of({Alg::hmac_md5_96, Ealg::null}, true)) ==
          "\"IPv6\",\"fd01::2\",\"fd01::1\",\"0x10000001\",\"NULL\",\"\",\"HMAC-MD5-96 [RFC2403]\",\"0xcdef\"\n");
    std::set<std::string> lines;
    for (const auto& pair : kDefaultPreference) lines.insert(esp_sa_line(keys_of(pair)));
    CHECK(lines.size() == kDefaultPreference.size());
}

TEST_CASE("A packet is read as far as needed: ESP, ESP in UDP 4500, fragments; what is cut short is not read beyond") {
    const auto plain = read_packet(ipv4(50, esp()));
    REQUIRE(plain);
    CHECK(plain->esp == 20);
    CHECK(plain->sa == xfrm::SaId{*Address::parse("10.1.0.1"), Spi{0x10000001}});
    const auto six = read_packet(ipv6(50, esp()));
    REQUIRE(six);
    CHECK(six->esp == 40);
    CHECK(six->source == *Address::parse("fd01::2"));
    const auto udp = read_packet(ipv4(17, bytes({0x11, 0x94, 0x11, 0x94, 0, 52, 0, 0}) + esp()));
    REQUIRE(udp);
    CHECK(udp->esp == 28);
    const auto ike = read_packet(ipv4(17, bytes({0x11, 0x94, 0x11, 0x94, 0, 16, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4})));
    REQUIRE(ike);
    CHECK_FALSE(ike->esp);
    const auto clear = read_packet(ipv4(6, bytes({0x13, 0xc4, 0x13, 0xc5})));
    REQUIRE(clear);
    CHECK(clear->from == Port{5060});
    CHECK(clear->to == Port{5061});
    const auto fragment = read_packet(ipv4(50, esp(), 0x2000));
    REQUIRE(fragment);
    CHECK(fragment->is_fragment);
    CHECK_FALSE(fragment->esp);
    for (const auto& whole : {ipv4(50, esp()), ipv6(44, bytes({50, 0, 0, 1, 0, 0, 0, 1}) + esp()),
                              ipv4(17, bytes({0x11, 0x94, 0x11, 0x94, 0, 52, 0, 0}) + esp())})
        for (std::size_t size = 0; size <= whole.size(); ++size) {
            const auto read = read_packet(std::string_view(whole).substr(0, size));
            if (read && read->esp)
                CHECK(without_gmac_iv(*read, std::string_view(whole).substr(0, size)).size() <= size);
        }
}

TEST_CASE("AES-GMAC: the IV goes, lengths and checksum are made good, in IPv4, IPv6 and inside UDP") {
    const auto four = ipv4(50, esp());
    const auto shorter = without_gmac_iv(*read_packet(four), four);
    CHECK(shorter.substr(20) == esp_without_iv());
    CHECK(static_cast<unsigned char>(shorter[3]) == shorter.size());
    CHECK(header_sum(shorter) == 0xffff);
    const auto six = ipv6(50, esp());
    const auto shorter6 = without_gmac_iv(*read_packet(six), six);
    CHECK(shorter6 == ipv6(50, esp_without_iv()));
    const auto udp = ipv4(17, bytes({0x11, 0x94, 0x11, 0x94, 0, 52, 9, 9}) + esp());
    const auto shorter_udp = without_gmac_iv(*read_packet(udp), udp);
    CHECK(shorter_udp.substr(20) == bytes({0x11, 0x94, 0x11, 0x94, 0, 44, 0, 0}) + esp_without_iv());
    const auto too_short = ipv4(50, esp().substr(0, 20));
    CHECK(without_gmac_iv(*read_packet(too_short), too_short) == too_short);
}

TEST_CASE("pcapng: blocks are whole, of four octets each, and tell their length at both ends") {
    const auto file = pcapng_begin("p", "c") + pcapng_tls_secrets("CLIENT_RANDOM 00 11\n") +
                      pcapng_packet({0x0000000100000002, true, "12345", "why"});
    std::vector<std::uint32_t> types;
    const auto number = [&](std::size_t at) {
        std::uint32_t value = 0;
        for (int i = 3; i >= 0; --i)
            value = value << 8 | static_cast<unsigned char>(file[at + static_cast<std::size_t>(i)]);
        return value;
    };
    std::size_t at = 0;
    while (at < file.size()) {
        types.push_back(number(at));
        const auto length = number(at + 4);
        REQUIRE(length % 4 == 0);
        REQUIRE(at + length <= file.size());
        CHECK(number(at + length - 4) == length);
        at += length;
    }
    CHECK(types == std::vector<std::uint32_t>{0x0a0d0d0a, 1, 10, 6});
    CHECK(file.find("12345") != std::string::npos);
    CHECK(file.find("CLIENT_RANDOM") != std::string::npos);
}
