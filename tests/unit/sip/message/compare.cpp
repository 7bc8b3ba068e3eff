// Semantic comparison of security lists (A-16, G-26).
#include "tests/unit/sip/message/support.h"

#include "sip/message/sec_agree.h"

using namespace gmgate::sip;

namespace {

std::string differs(std::string_view expected, std::string_view received, CompareOptions options = {}) {
    const auto left = SecurityList::parse(expected);
    const auto right = SecurityList::parse(received);
    REQUIRE(left);
    REQUIRE(right);
    const auto text = difference(*left, *right, options);
    CHECK(difference(*right, *left, options).has_value() == text.has_value());
    return text.value_or("");
}

}  // namespace

TEST_CASE("A-16: names and tokens compare without case, parameters in any order, SPIs as numbers") {
    CHECK(differs("ipsec-3gpp;alg=HMAC-SHA-1-96;spi-c=1111", "IPSEC-3GPP;SPI-C=1111;Alg=hmac-sha-1-96").empty());
    CHECK(differs("ipsec-3gpp;spi-c=0000001111;port-c=05062", "ipsec-3gpp;spi-c=1111;port-c=5062").empty());
}

TEST_CASE("A-16: q compares as a number") {
    CHECK(differs("tls;q=0.1", "tls;q=0.100").empty());
    CHECK(differs("tls;q=1", "tls;q=1.0").empty());
    CHECK(differs("tls;q=0.1", "tls;q=0.2") == "entry 1: q is 0.2, expected 0.1");
}

TEST_CASE("A-16: any changed value, added or dropped mechanism or parameter is a difference, and is named") {
    CHECK(differs("ipsec-3gpp;spi-c=1111", "ipsec-3gpp;spi-c=1112") == "entry 1: spi-c is 1112, expected 1111");
    CHECK(differs("tls, ipsec-3gpp;alg=null", "tls, ipsec-3gpp") == "entry 2: alg is absent, expected null");
    CHECK(differs("tls", "tls;x=1") == "entry 1: x is 1, expected absent");
    CHECK(differs("tls;x", "tls;x=1") == "entry 1: x is 1, expected without a value");
    CHECK(differs("tls", "tls, digest") == "the list has 2 entries, expected 1");
    CHECK(differs("tls, digest", "tls") == "the list has 1 entries, expected 2");
    CHECK(differs("tls, digest", "digest, tls") == "entry 1: mechanism is digest, expected tls");
}

TEST_CASE("A-16: quoted values compare with case, and differ from tokens") {
    CHECK(differs("x;a=\"Ab\"", "x;a=\"Ab\"").empty());
    CHECK_FALSE(differs("x;a=\"Ab\"", "x;a=\"ab\"").empty());
    CHECK_FALSE(differs("x;a=\"ab\"", "x;a=ab").empty());
    CHECK(differs("x;a=Ab", "x;a=aB").empty());
}

TEST_CASE("G-26: Annex H's defaults are filled in for ipsec-3gpp and for nothing else") {
    CHECK(differs("ipsec-3gpp;alg=null", "ipsec-3gpp;alg=null;prot=ESP;mod=trans;ealg=null").empty());
    CHECK(differs("ipsec-3gpp;alg=null", "ipsec-3gpp;alg=null;prot=ah") == "entry 1: prot is ah, expected esp");
    CHECK(differs("ipsec-3gpp;ealg=aes-cbc", "ipsec-3gpp") == "entry 1: ealg is null, expected aes-cbc");
    CHECK_FALSE(differs("other;prot=esp", "other").empty());
}

TEST_CASE("G-26: q can be left out of the comparison by option") {
    CHECK_FALSE(differs("tls;q=0.1", "tls").empty());
    CHECK(differs("tls;q=0.1", "tls", {.ignore_q = true}).empty());
    CHECK(differs("tls", "tls;q=0.7", {.ignore_q = true}).empty());
}

TEST_CASE("an absent list differs from a list, two absent ones are equal") {
    const auto list = SecurityList::parse("tls");
    REQUIRE(list);
    CHECK(difference(*list, SecurityList{}) == "the list is absent");
    CHECK_FALSE(difference(SecurityList{}, SecurityList{}));
    CHECK(difference(SecurityList{}, *list) == "the list has 1 entries, expected 0");
}

TEST_CASE("what a peer sent is cut in the sentence about it") {
    const std::string text = differs("x;a=1", "x;a=" + std::string(500, 'y'));
    CHECK(text.size() < 120);
}
