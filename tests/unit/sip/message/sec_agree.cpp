// Security-Client, -Server and -Verify: what is read, what is malformed, what real phones send.
#include "tests/unit/sip/message/support.h"

#include <fstream>
#include <vector>

#include "sip/message/sec_agree.h"

using namespace gmgate;
using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

constexpr std::string_view kSeed =
    "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, "
    "ipsec-3gpp;alg= hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, tls";

/// The text of the error; "" when the list is in order.
std::string error_of(std::string_view value, bool is_server_list = false) {
    const auto list = SecurityList::parse(value, is_server_list);
    CHECK(count_mechanisms(value).has_value() ==
          (list.has_value() || list.error().text.find("same q") != std::string::npos));
    if (!list) CHECK(list.error().reaction == Reaction::reject);
    return list ? std::string() : list.error().text;
}

Ipsec3gpp typed(std::string_view value) {
    const auto list = SecurityList::parse(value);
    REQUIRE(list);
    const auto result = list->mechanisms().front().ipsec_3gpp();
    REQUIRE(result);
    return *result;
}

}  // namespace

TEST_CASE("A-1 A-2: the feature text's Security-Client has three mechanisms, blanks after = and all") {
    const auto list = SecurityList::parse(kSeed);
    REQUIRE(list);
    REQUIRE(list->mechanisms().size() == 3);
    const auto second = list->mechanisms()[1].ipsec_3gpp();
    REQUIRE(second);
    CHECK(second->alg == Alg::hmac_sha_1_96);
    CHECK(second->ealg == Ealg::aes_cbc);
    CHECK(second->spi_c == Spi(8765423));
    CHECK(second->spi_s == Spi(1234563));
    CHECK(second->port_c == Port(7524));
    CHECK(second->port_s == Port(1358));
    CHECK(list->mechanisms()[2].is("TLS"));
    CHECK_FALSE(list->mechanisms()[2].ipsec_3gpp());
    CHECK(count_mechanisms(kSeed) == 3);
}

TEST_CASE("A-4: one field, three fields, or two and one are the same ordered list") {
    const auto list_of = [](std::string_view lines) {
        const std::string bytes = message_with(lines);
        const auto message = Message::parse(bytes);
        REQUIRE(message);
        auto list = SecurityList::from(*message, HeaderId::security_client);
        REQUIRE(list);
        return *list;
    };
    const SecurityList one = list_of("Security-Client: ipsec-3gpp;alg=null, tls, digest\n");
    CHECK_FALSE(difference(
        one, list_of("Security-Client: ipsec-3gpp;alg=null\nX: 1\nSecurity-Client: tls\nsecurity-client:digest\n")));
    CHECK_FALSE(difference(one, list_of("Security-Client: ipsec-3gpp;alg=null, tls\nSecurity-Client: digest\n")));
    CHECK(difference(one, list_of("Security-Client: digest, tls, ipsec-3gpp;alg=null\n")));
    CHECK(list_of("Subject: none\n").empty());
}

TEST_CASE("A-4: the lists of RFC 3329 section 4 are read from several fields") {
    const std::string bytes = message_with("Security-Server: ipsec-ike;q=0.1\nSecurity-Server: tls;q=0.2\n",
                                           "SIP/2.0 494 Security Agreement Required");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    const auto list = SecurityList::from(*message, HeaderId::security_server);
    REQUIRE(list);
    REQUIRE(list->mechanisms().size() == 2);
    CHECK(list->mechanisms()[0].q == 100);
    CHECK(list->mechanisms()[1].q == 200);
    CHECK(list->to_string() == "ipsec-ike;q=0.1, tls;q=0.2");
}

TEST_CASE("A-2: q has at most three decimals and is at most 1") {
    const auto q_of = [](std::string_view q) {
        return SecurityList::parse("tls;q=" + std::string(q)).value().mechanisms()[0].q;
    };
    CHECK(q_of("0") == 0);
    CHECK(q_of("0.") == 0);
    CHECK(q_of("0.1") == 100);
    CHECK(q_of("0.100") == 100);
    CHECK(q_of("0.999") == 999);
    CHECK(q_of("1.000") == 1000);
    for (const std::string_view q : {"1.001", "0.1234", "2", "", "-0.1", ".5", "1.0000", "01", "\"0.1\""})
        CHECK_MESSAGE(!error_of("tls;q=" + std::string(q)).empty(), q);
    CHECK(error_of("tls;q") == "security list entry 1 parameter q: bad q value");
}

TEST_CASE("A-3: two equal q values are an error in a server's list and none in a client's") {
    CHECK(error_of("tls;q=0.1, digest;q=0.100", true) == "security list entry 2: two entries have the same q value");
    CHECK(error_of("tls;q=0.1, digest;q=0.100").empty());
    CHECK(error_of("tls, digest", true).empty());
    const std::string bytes = message_with("Security-Verify: tls;q=0.1\nSecurity-Verify: digest;q=0.1\n");
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(SecurityList::from(*message, HeaderId::security_verify).error().text ==
          "Security-Verify entry 2: two entries have the same q value");
}

TEST_CASE("A-5: a parameter twice in one mechanism is malformed") {
    CHECK(error_of("ipsec-3gpp;alg=null;ALG=null") == "security list entry 1 parameter ALG: parameter occurs twice");
    CHECK(error_of("tls, x;mediasec;mediasec") == "security list entry 2 parameter mediasec: parameter occurs twice");
    CHECK(error_of("x;a=1, x;a=1").empty());
}

TEST_CASE("A-6: unknown mechanisms and unknown parameters are kept") {
    const auto list = SecurityList::parse("foo;bar=baz;flag, ipsec-3gpp;alg=hmac-sha-256-128;x=\"a,b;c\"");
    REQUIRE(list);
    CHECK(list->mechanisms()[0].parameter("BAR") == "baz");
    CHECK(list->mechanisms()[0].parameter("flag") == "");
    CHECK_FALSE(list->mechanisms()[0].parameter("x"));
    CHECK(list->mechanisms()[1].parameter("x") == "a,b;c");
    CHECK_FALSE(list->mechanisms()[1].ipsec_3gpp()->alg);
}

TEST_CASE("A-7: the older syntax of RFC 3329 Appendix A is read but lacks SPIs and ports") {
    const Ipsec3gpp old =
        typed("ipsec-3gpp;alg=hmac-sha-1-96;prot=esp;mod=trans;ealg=des-ede3-cbc;spi=0000012345;port1=5062;port2=5063");
    CHECK(old.alg == Alg::hmac_sha_1_96);
    CHECK_FALSE(old.spi_c);
    CHECK_FALSE(old.spi_s);
    CHECK_FALSE(old.port_c);
    CHECK_FALSE(old.port_s);
}

TEST_CASE("A-8: d-ver is 32 lower-case hexadecimal digits in quotes and d-alg a token (RFC 3329 §2.2)") {
    for (const char* good : {"digest;d-ver=\"0123456789abcdef0123456789abcdef\"", "digest;D-ALG=SHA-256;d-qop=auth"})
        CHECK(SecurityList::parse(good).has_value());
    for (const char* bad :
         {"digest;d-ver=\"0123456789abcdef0123456789abcde\"", "digest;d-ver=\"0123456789abcdef0123456789abcdef0\"",
          "digest;d-ver=\"0123456789ABCDEF0123456789abcdef\"", "digest;d-ver=0123456789abcdef0123456789abcdef",
          "digest;d-ver", "digest;d-alg=\"MD5\"", "digest;d-alg", "tls;d-ver=\"\""}) {
        INFO(bad);
        CHECK_FALSE(SecurityList::parse(bad).has_value());
    }
    CHECK(SecurityList::parse("tls, digest;d-ver=\"0\"").error().text ==
          "security list entry 2 parameter d-ver: not 32 lower-case hexadecimal digits in quotes");
}

TEST_CASE("A-8: d-ver of mechanism digest is kept as it came") {
    const auto list = SecurityList::parse("digest;d-alg=MD5;d-qop=auth;d-ver=\"0123456789abcdef0123456789abcdef\"");
    REQUIRE(list);
    CHECK(list->mechanisms()[0].parameter("d-ver") == "0123456789abcdef0123456789abcdef");
    CHECK(list->to_string() == "digest;d-alg=MD5;d-qop=auth;d-ver=\"0123456789abcdef0123456789abcdef\"");
}

TEST_CASE("B-61: an SPI is 1 to 10 digits and 1 to 4294967295") {
    for (const std::string_view spi : {"1", "12345", "0000001111", "4294967295"})
        CHECK(error_of("ipsec-3gpp;spi-c=" + std::string(spi)).empty());
    for (const std::string_view spi :
         {"0", "0000000000", "4294967296", "9999999999", "00000001111", "0x11", "-1", "", "\"11\"", "1 1"})
        CHECK_MESSAGE(!error_of("ipsec-3gpp;spi-s=" + std::string(spi)).empty(), spi);
    CHECK(error_of("tls, ipsec-3gpp;spi-c=0") ==
          "security list entry 2 parameter spi-c: SPI is not 1 to 10 digits within 1..4294967295");
    CHECK(typed("ipsec-3gpp;spi-c=0000001111").spi_c == Spi(1111));
    CHECK(error_of("other;spi-c=zero").empty());
}

TEST_CASE("B-60: a port is 1 to 65535; 5060 is a port like any other here") {
    for (const std::string_view port : {"1", "5060", "65535", "0001358"})
        CHECK(error_of("ipsec-3gpp;port-c=" + std::string(port)).empty());
    for (const std::string_view port : {"0", "65536", "-1", "http", ""})
        CHECK_MESSAGE(!error_of("ipsec-3gpp;port-s=" + std::string(port)).empty(), port);
}

TEST_CASE("B-62: prot, mod and ealg have defaults, alg has none") {
    const Ipsec3gpp bare = typed("ipsec-3gpp");
    CHECK_FALSE(bare.alg);
    CHECK(bare.ealg == Ealg::null);
    CHECK(bare.prot_esp);
    CHECK(bare.mod_trans);
}

TEST_CASE("B-62: words we cannot use are read as such, never refused") {
    CHECK_FALSE(typed("ipsec-3gpp;prot=ah").prot_esp);
    CHECK_FALSE(typed("ipsec-3gpp;mod=tun").mod_trans);
    CHECK_FALSE(typed("ipsec-3gpp;mod=UDP-enc-tun").mod_trans);
    CHECK_FALSE(typed("ipsec-3gpp;ealg=rot13").ealg);
    CHECK(typed("ipsec-3gpp;alg=AES-GMAC;ealg=Null").alg == Alg::aes_gmac);
    CHECK(typed("ipsec-3gpp;PROT=ESP;Mod=Trans").prot_esp);
}

TEST_CASE("G-30: mediasec entries are recognised") {
    const auto list = SecurityList::parse("sdes-srtp;mediasec, msrp-tls;mediasec, tls");
    REQUIRE(list);
    CHECK(list->mechanisms()[0].is_mediasec());
    CHECK(list->mechanisms()[1].is_mediasec());
    CHECK_FALSE(list->mechanisms()[2].is_mediasec());
}

TEST_CASE("A-1: what the grammar does not allow is malformed, with its place") {
    CHECK(error_of("") == "security list entry 1: empty entry");
    CHECK(error_of("tls,") == "security list entry 2: empty entry");
    CHECK(error_of("tls,,digest") == "security list entry 2: empty entry");
    CHECK(error_of("tls digest") == "security list entry 1: mechanism name is no token");
    CHECK(error_of("tls;") == "security list entry 1: parameter name is no token");
    CHECK(error_of("tls;=1") == "security list entry 1: parameter name is no token");
    CHECK(error_of("tls;a=") == "security list entry 1 parameter a: bad parameter value");
    for (const std::string_view value :
         {"tls;a=b c", "tls;a=\"b", "tls;a=\"b\"c", "tls;a=b=c", "<tls>", "tls;a=<b,c>", "t\x01ls", "tls;a=\"b\\\""})
        CHECK_MESSAGE(!error_of(value).empty(), value);
}

TEST_CASE("limits: 32 mechanisms, 32 parameters, 8192 octets over all fields") {
    std::string many = "m";
    for (std::size_t i = 1; i < kMaxMechanisms; ++i) many += ",m";
    CHECK(error_of(many).empty());
    CHECK(error_of(many + ",m") == "security list entry 33: there are more than 32 entries");
    std::string wide = "m";
    for (std::size_t i = 0; i < kMaxParameters; ++i) wide += ";p" + std::to_string(i);
    CHECK(error_of(wide).empty());
    CHECK(error_of(wide + ";q=1") == "security list entry 1: too many parameters");
    CHECK(error_of("m;a=" + std::string(kMaxSecurityList, 'x')) ==
          "security list: the list is longer than 8192 octets");
    std::string lines;
    for (int i = 0; i < 3; ++i) lines += "Security-Client: m;a=" + std::string(3000, 'x') + "\n";
    const std::string bytes = message_with(lines);
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(SecurityList::from(*message, HeaderId::security_client).error().text ==
          "Security-Client entry 2: the list is longer than 8192 octets");
}

TEST_CASE("a list that is written and read again is the same") {
    const auto list = SecurityList::parse(kSeed);
    REQUIRE(list);
    const auto again = SecurityList::parse(list->to_string());
    REQUIRE(again);
    CHECK_FALSE(difference(*list, *again));
    CHECK(again->to_string() == list->to_string());
}

TEST_CASE("real phones' and networks' values are read with their numbers") {
    std::ifstream file(GMGATE_TEST_DATA "/handset_headers.txt");
    REQUIRE(file.is_open());
    std::size_t rows = 0;
    for (std::string line; std::getline(file, line);) {
        if (line.empty() || line.front() == '#') continue;
        std::vector<std::string_view> columns;
        Split split(line, '|');
        while (const auto column = split.next()) columns.push_back(*column);
        REQUIRE(columns.size() == 7);
        CAPTURE(columns[0]);
        const auto list = SecurityList::parse(columns[6]);
        REQUIRE(list);
        CHECK(list->mechanisms().size() == parse_u32(columns[1]));
        CHECK(SecurityList::parse(list->to_string())->to_string() == list->to_string());
        const auto first = list->mechanisms().front().ipsec_3gpp();
        if (columns[2] != "-") {
            REQUIRE(first);
            CHECK(first->spi_c == Spi(parse_u32(columns[2]).value_or(0)));
            CHECK(first->spi_s == Spi(parse_u32(columns[3]).value_or(0)));
            CHECK(first->port_c->value == parse_u32(columns[4]));
            CHECK(first->port_s->value == parse_u32(columns[5]));
            CHECK((first->alg && first->ealg && first->prot_esp && first->mod_trans));
        }
        ++rows;
    }
    CHECK(rows == 22);
}
