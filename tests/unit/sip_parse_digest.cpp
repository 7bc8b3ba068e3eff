// Digest challenges and credentials as phones, cores and attackers write them.
#include "tests/unit/sip_parse_support.h"

#include "sip/digest.h"

using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

/// The places of all parameters, checked against the value: "name=raw|name=raw|…".
std::string places(std::string_view value) {
    const auto digest = DigestParams::parse(value);
    if (!digest) return "unreadable";
    std::string out;
    for (const AuthParam& p : digest->all()) out.append(value.substr(p.begin, p.end - p.begin)).append("|");
    return out;
}

}  // namespace

TEST_CASE("E-1: the challenge of RFC 3310 section 4 is read, folds and all") {
    const std::string value = crlf(
        "Digest\n        realm=\"RoamingUsers@mobile.biz\",\n        nonce=\"CjPk9mRqNuT25eRkajM09uTl9nM09uTl9nMz5OX25PZz==\",\n"
        "        qop=\"auth,auth-int\",\n        opaque=\"5ccc069c403ebaf9f0171e9517f40e41\",\n        algorithm=AKAv1-MD5");
    const auto digest = DigestParams::parse(value);
    REQUIRE(digest);
    CHECK(digest->all().size() == 5);
    CHECK(digest->get("nonce") == "CjPk9mRqNuT25eRkajM09uTl9nM09uTl9nMz5OX25PZz==");
    CHECK(digest->get("QOP") == "auth,auth-int");
    CHECK(digest->get("algorithm") == "AKAv1-MD5");
    CHECK_FALSE(digest->get("ck"));
    CHECK_FALSE(digest->has_response());
}

TEST_CASE("E-1: the credentials of RFC 3310 section 4 are read, with and without auts") {
    const std::string value = crlf(
        "Digest\n        username=\"jon.dough@mobile.biz\",\n        realm=\"RoamingUsers@mobile.biz\",\n"
        "        nonce=\"CjPk9mRqNuT25eRkajM09uTl9nM09uTl9nMz5OX25PZz==\",\n        uri=\"sip:home.mobile.biz\",\n"
        "        qop=auth-int, nc=00000001, cnonce=\"0a4f113b\",\n        response=\"6629fae49393a05397450978507c4ef1\",\n"
        "        opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"");
    const auto digest = DigestParams::parse(value);
    REQUIRE(digest);
    CHECK(digest->get("username") == "jon.dough@mobile.biz");
    CHECK(digest->get("nc") == "00000001");
    CHECK(digest->has_response());
    const std::string resync = value + ", auts=\"5PYxMuX2NOT2NeQ=\"";
    CHECK(DigestParams::parse(resync)->get("auts") == "5PYxMuX2NOT2NeQ=");
}

TEST_CASE("G-17: an empty response counts as none") {
    CHECK_FALSE(DigestParams::parse("Digest username=\"a\", response=\"\"")->has_response());
    CHECK_FALSE(DigestParams::parse("Digest username=\"a\", response=")->has_response());
    CHECK(DigestParams::parse("Digest username=\"a\", response=\"1\"")->has_response());
}

TEST_CASE("C-17: every spelling and every copy of integrity-protected has its place") {
    CHECK(places("Digest username=\"u\", integrity-protected=tls-yes") == "username=\"u\"|integrity-protected=tls-yes|");
    CHECK(places("Digest Integrity-Protected = \"yes\" , username=\"u\"") == "Integrity-Protected = \"yes\"|username=\"u\"|");
    CHECK(places("Digest integrity-protected=\"yes\",INTEGRITY-PROTECTED=no, x=y") ==
          "integrity-protected=\"yes\"|INTEGRITY-PROTECTED=no|x=y|");
    CHECK(DigestParams::parse("Digest Integrity-Protected = \"yes\"")->get("integrity-protected") == "yes");
}

TEST_CASE("C-31: ck and ik have their place, quoted or not, first or last, in any case") {
    CHECK(places("Digest ck=\"00\",realm=\"r\",IK=11") == "ck=\"00\"|realm=\"r\"|IK=11|");
    CHECK(places("digest CK = aabb, ik=\"cc\"") == "CK = aabb|ik=\"cc\"|");
    CHECK(DigestParams::parse("Digest realm=\"r\", CK=\"0011\"")->get("ck") == "0011");
}

TEST_CASE("an unquoted list belongs to the parameter before it") {
    const auto digest = DigestParams::parse("Digest qop=auth,auth-int, nc=00000001");
    REQUIRE(digest);
    CHECK(digest->get("qop") == "auth,auth-int");
    CHECK(digest->get("nc") == "00000001");
    CHECK(places("Digest qop=auth , auth-int,nc=1") == "qop=auth , auth-int|nc=1|");
}

TEST_CASE("a lone word after a quoted value stands for itself") {
    CHECK(places("Digest realm=\"r\", stale, nonce=\"n\"") == "realm=\"r\"|stale|nonce=\"n\"|");
    CHECK(places("Digest stale") == "stale|");
}

TEST_CASE("quoted strings may hold commas, equal signs and escaped quotes") {
    const auto digest = DigestParams::parse(R"(Digest realm="a, ck=\"1\", b\\", nonce="n")");
    REQUIRE(digest);
    CHECK(digest->all().size() == 2);
    CHECK(digest->get("realm") == R"(a, ck=\"1\", b\\)");
    CHECK_FALSE(digest->get("ck"));
}

TEST_CASE("unquoted values may be odd: base64 with its padding, brackets, blanks") {
    CHECK(DigestParams::parse("Digest nonce=Ms8l2xeF3l4/+b0VO==, x=1")->get("nonce") == "Ms8l2xeF3l4/+b0VO==");
    CHECK(DigestParams::parse("Digest nonce=base64(RAND + AUTN + server specific data), algorithm=AKAv1-MD5")->get("nonce") ==
          "base64(RAND + AUTN + server specific data)");
}

TEST_CASE("empty elements are skipped and a bare scheme has no parameters") {
    CHECK(places("Digest ,a=1,, b=2,") == "a=1|b=2|");
    CHECK(DigestParams::parse("Digest")->all().empty());
    CHECK(DigestParams::parse("  Digest  ")->all().empty());
}

TEST_CASE("E-7: another scheme is no Digest (RFC 4475 3.3.7)") {
    CHECK_FALSE(DigestParams::parse("NoOneKnowsThisScheme opaque-data=here"));
    CHECK_FALSE(DigestParams::parse("Basic QWxhZGRpbg=="));
    CHECK_FALSE(DigestParams::parse("Digester a=1"));
    CHECK_FALSE(DigestParams::parse(""));
}

TEST_CASE("what two readers could take apart differently is unreadable") {
    for (const std::string_view value : {R"(Digest realm="open, ck=1)", R"(Digest realm="a"b, ck=1)", R"(Digest realm=a"b,c"d)", "Digest =1", "Digest a b=1",
                                         R"(Digest realm="a", Digest ck="1")", "Digest realm=\"a\\"})
        CHECK_MESSAGE(places(value) == "unreadable", value);
}
