// The peers' own SIP code: golden texts in, values out.
#include "peers/common/digest.h"
#include "peers/common/endpoint.h"
#include "peers/common/framer.h"
#include "peers/common/load_identity.h"
#include "peers/common/sec_agree.h"
#include "peers/common/sip_message.h"

#include <doctest/doctest.h>

using namespace gmgate::peers;

namespace {

// TS 24.228 §6.2, with compact names as a real handset sends them.
const std::string kRegister =
    "REGISTER sip:registrar.home1.net SIP/2.0\r\n"
    "v: SIP/2.0/UDP [5555::aaa:bbb:ccc:ddd];comp=sigcomp;branch=z9hG4bKnashds7\r\n"
    "Max-Forwards: 70\r\n"
    "f: <sip:user1_public1@home1.net>;tag=4fa3\r\n"
    "t: <sip:user1_public1@home1.net>\r\n"
    "m: <sip:[5555::aaa:bbb:ccc:ddd];comp=sigcomp>;expires=600000\r\n"
    "i: apb03a0s09dkjdfglkj49111\r\n"
    "Security-Client: ipsec-3gpp; alg=hmac-sha-1-96; spi-c=23456789; spi-s=12345678;\r\n"
    "   port-c=2468; port-s=1357\r\n"
    "Require: sec-agree\r\n"
    "k: path, sec-agree\r\n"
    "CSeq: 1 REGISTER\r\n"
    "l: 0\r\n"
    "\r\n";

const SecEnd kUe{23456789, 12345678, 2468, 1357};
const std::vector<AlgPair> kOffer{{Alg::hmac_sha_1_96, Ealg::aes_cbc}, {Alg::hmac_sha_1_96, Ealg::null}};

}  // namespace

TEST_CASE("a REGISTER with compact names and folding is read whole") {
    const auto message = SipMessage::parse(kRegister);
    REQUIRE(message);
    CHECK(message->is("REGISTER"));
    CHECK(message->cseq() == 1);
    CHECK(message->call_id() == "apb03a0s09dkjdfglkj49111");
    CHECK(message->branch() == "z9hG4bKnashds7");
    CHECK(message->tag("From") == "4fa3");
    CHECK(message->uri_of("Contact") == "sip:[5555::aaa:bbb:ccc:ddd];comp=sigcomp");
    CHECK(message->list_has("Supported", "Path"));
    CHECK(message->get("Security-Client") ==
          "ipsec-3gpp; alg=hmac-sha-1-96; spi-c=23456789; spi-s=12345678; port-c=2468; port-s=1357");
}

TEST_CASE("a message that lacks what every message needs is refused") {
    CHECK_FALSE(SipMessage::parse("REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n\r\n"));
    CHECK_FALSE(SipMessage::parse("REGISTER sip:a\r\n\r\n"));
    CHECK_FALSE(SipMessage::parse("SIP/2.0 99 No\r\n\r\n"));
    std::string long_body = kRegister;
    long_body.replace(long_body.find("l: 0"), 4, "l: 9");
    CHECK_FALSE(SipMessage::parse(long_body));
}

TEST_CASE("a response copies what RFC 3261 8.2.6 says") {
    const auto request = SipMessage::parse(kRegister);
    REQUIRE(request);
    const SipMessage response = SipMessage::response_to(*request, 401, "", "abc");
    CHECK(response.status() == 401);
    CHECK(response.method() == "REGISTER");
    CHECK(response.tag("To") == "abc");
    CHECK(response.get("Via") == request->get("Via"));
    CHECK(response.to_string().starts_with("SIP/2.0 401 Unauthorized\r\n"));
}

TEST_CASE("an authentication header survives blanks, missing quotes and an unquoted qop list") {
    const auto header =
        AuthHeader::parse("Digest username=\"a,b\", qop=auth,auth-int , nonce = \"x=\", integrity-protected=yes");
    REQUIRE(header);
    CHECK(header->get("username") == "a,b");
    CHECK(header->get("NONCE") == "x=");
    CHECK(header->get("integrity-protected") == "yes");
    CHECK_FALSE(header->find("ck"));
}

TEST_CASE("the stream framer gives back messages however the octets arrive") {
    const std::string two = "\r\n\r\n" + kRegister + kRegister;
    StreamFramer framer;
    int messages = 0;
    int pings = 0;
    for (const char octet : two) {
        framer.feed(std::string_view(&octet, 1));
        const auto message = framer.next();
        REQUIRE(message);
        pings += framer.take_pings();
        if (*message) {
            CHECK(**message == kRegister);
            ++messages;
        }
    }
    CHECK(messages == 2);
    CHECK(pings <= 1);
}

TEST_CASE("a stream without Content-Length cannot be followed") {
    StreamFramer framer;
    framer.feed("MESSAGE sip:a SIP/2.0\r\nVia: SIP/2.0/TCP a\r\n\r\n");
    CHECK_FALSE(framer.next());
}

TEST_CASE("B-36: the phone takes the first of the server's list that it offered") {
    const std::vector<std::string> server{
        "tls;q=0.2", "ipsec-3gpp; q=0.1; alg=hmac-sha-1-96; spi-c=98765432; spi-s=87654321; port-c=8642; port-s=7531"};
    const auto choice = choose(server, kOffer, kUe);
    REQUIRE(choice);
    CHECK(choice->pair == AlgPair{Alg::hmac_sha_1_96, Ealg::null});
    CHECK(choice->network.spi_c == 98765432);
    CHECK(choice->network.spi_s == 87654321);
    CHECK(choice->network.port_c == 8642);
    CHECK(choice->network.port_s == 7531);
}

TEST_CASE("B-11, B-13: a Security-Server that no phone may accept is refused") {
    const auto with = [](const char* values) {
        return std::vector{std::string("ipsec-3gpp;alg=hmac-sha-1-96;") + values};
    };
    CHECK(choose(with("spi-c=1001;spi-s=1002;port-c=8642;port-s=7531"), kOffer, kUe));
    CHECK_FALSE(choose(with("spi-c=23456789;spi-s=1002;port-c=8642;port-s=7531"), kOffer, kUe));
    CHECK_FALSE(choose(with("spi-c=1001;spi-s=1001;port-c=8642;port-s=7531"), kOffer, kUe));
    CHECK_FALSE(choose(with("spi-c=255;spi-s=1002;port-c=8642;port-s=7531"), kOffer, kUe));
    CHECK_FALSE(choose(with("spi-c=1001;spi-s=1002;port-c=5060;port-s=7531"), kOffer, kUe));
    CHECK_FALSE(choose(with("spi-c=1001;spi-s=1002;port-c=8642;port-s=5061"), kOffer, kUe));
    CHECK_FALSE(choose(with("spi-c=1001;spi-s=1002;port-c=8642"), kOffer, kUe));
    CHECK_FALSE(choose({"ipsec-3gpp;alg=hmac-md5-96;spi-c=1001;spi-s=1002;port-c=8642;port-s=7531"}, kOffer, kUe));
    CHECK_FALSE(choose({}, kOffer, kUe));
}

TEST_CASE("Security-Client has one entry per pair with the same numbers") {
    CHECK(
        security_client(kOffer, kUe) ==
        "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=23456789;spi-s=12345678;port-c=2468;port-s=1357,"
        "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;prot=esp;mod=trans;spi-c=23456789;spi-s=12345678;port-c=2468;port-s=1357");
}

TEST_CASE("endpoints are read with and without brackets and ports") {
    CHECK(Endpoint::parse("10.0.0.1", 5060)->to_string() == "10.0.0.1:5060");
    CHECK(Endpoint::parse("[2001:db8::1]:7000", 5060)->to_string() == "[2001:db8::1]:7000");
    CHECK(Endpoint::parse("2001:db8::1", 5060)->to_string() == "[2001:db8::1]:5060");
    CHECK(Endpoint::parse("10.1.0.254", 0)->advanced(3).address() == "10.1.1.1");
    CHECK_FALSE(Endpoint::parse("gm.example.org", 5060));
    CHECK_FALSE(Endpoint::parse("10.0.0.1:99999", 5060));
}

TEST_CASE("generated users differ in IMSI and K") {
    CHECK(imsi_at("001010000000001", 0) == "001010000000001");
    CHECK(imsi_at("001010000000001", 1299) == "001010000001300");
    const Key<16> k{std::span<const std::uint8_t, 16>(*array_from_hex<16>(kDefaultK))};
    CHECK(to_hex(key_at(k, 0).expose()) == kDefaultK);
    CHECK(to_hex(key_at(k, 258).expose()) == "465b5ce8b199b49faa5f0a2ee238a7be");
}
