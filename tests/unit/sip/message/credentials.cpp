// Credentials have one reading: what is refused, what is tolerated, and how they are written anew.
#include "tests/unit/sip/message/support.h"

#include "sip/message/credentials.h"

using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

struct Read {
    Credentials::Kind kind;
    std::string why, username, text;
};

Read read(std::string_view lines) {
    const std::string bytes = message_with(lines);
    const auto message = Message::parse(std::string_view(bytes));
    REQUIRE(message);
    const auto credentials = Credentials::read(*message, HeaderId::authorization);
    return {credentials.kind(), std::string(credentials.why()), std::string(credentials.username()),
            credentials.to_string()};
}

Read read_value(std::string_view value) { return read("Authorization: " + std::string(value) + "\n"); }

}  // namespace

TEST_CASE("credentials are written anew: each parameter once, quoted as RFC 3261 has it, in the order of the phone") {
    const auto got = read_value(
        "dIgEsT username = \"a@b\" "
        ",realm=r,NONCE=Ms8l2xeF3l4/+b0VO==,uri=\"sip:b;x=1,2\",response=\"\",algorithm=\"AKAv1-MD5\",nc=\"00000001\","
        "qop=\"auth\", cnonce=0a4f, opaque=, auts=\"5PYxMuX2NOT2NeQ=\", x=token, y=\"a b\",,");
    CHECK(got.kind == Credentials::Kind::digest);
    CHECK(got.username == "a@b");
    CHECK(got.text ==
          "Digest username=\"a@b\", realm=\"r\", nonce=\"Ms8l2xeF3l4/+b0VO==\", uri=\"sip:b;x=1,2\", response=\"\", "
          "algorithm=AKAv1-MD5, nc=00000001, "
          "qop=auth, cnonce=\"0a4f\", opaque=\"\", auts=\"5PYxMuX2NOT2NeQ=\", x=token, y=\"a b\"");
}

TEST_CASE("E-1: the credentials of RFC 3310 section 4, folds and all, and those of a resynchronisation") {
    const auto got = read(
        "Authorization: Digest\n        username=\"jon.dough@mobile.biz\",\n        "
        "realm=\"RoamingUsers@mobile.biz\",\n        uri=\"sip:home.mobile.biz\",\n"
        "        qop=auth-int, nc=00000001, auts=\"5PYxMuX2NOT2NeQ=\", response=\"66\"\n");
    CHECK(got.kind == Credentials::Kind::digest);
    CHECK(got.text ==
          "Digest username=\"jon.dough@mobile.biz\", realm=\"RoamingUsers@mobile.biz\", uri=\"sip:home.mobile.biz\", "
          "qop=auth-int, nc=00000001, "
          "auts=\"5PYxMuX2NOT2NeQ=\", response=\"66\"");
}

TEST_CASE("a Pixel's qop=auth,auth-int is one value, and gets its quotes") {
    CHECK(read_value("Digest username=\"a\",qop=auth , auth-int,nc=00000001").text ==
          "Digest username=\"a\", qop=\"auth,auth-int\", nc=00000001");
    CHECK(read_value("Digest username=\"a\",qop=auth,username=\"b\"").kind == Credentials::Kind::ambiguous);
    CHECK(read_value("Digest qop=auth,integrity-protected=yes,auth-int").kind == Credentials::Kind::ambiguous);
    CHECK(read_value("Digest username=\"a\",realm=r,stale").kind == Credentials::Kind::ambiguous);
}

TEST_CASE("C-17, B-110: no copy of a phone's integrity-protected is kept, and ours is said last") {
    for (const std::string_view value :
         {R"(Digest integrity-protected="yes",username="a")", R"(Digest username="a",Integrity-Protected = tls-yes)",
          R"(Digest username="a",integrity-protected="yes",INTEGRITY-PROTECTED=no)"})
        CHECK_MESSAGE(read_value(value).text == R"(Digest username="a")", value);
    const std::string bytes = message_with("Authorization: Digest integrity-protected=\"yes\",username=\"a\"\n");
    const auto message = Message::parse(std::string_view(bytes));
    const auto credentials = Credentials::read(*message, HeaderId::authorization);
    CHECK(credentials.to_string("integrity-protected=\"no\"") == R"(Digest username="a", integrity-protected="no")");
}

TEST_CASE("none, another scheme, and an empty response") {
    CHECK(read("").kind == Credentials::Kind::none);
    CHECK(read("").text.empty());
    const auto other = read_value("NoOneKnowsThisScheme opaque-data=here");  // RFC 4475 §3.3.7
    CHECK(other.kind == Credentials::Kind::other);
    CHECK(other.text == "NoOneKnowsThisScheme opaque-data=here");
    CHECK(read_value("Digest username=\"a\", response=").text == "Digest username=\"a\", response=\"\"");
}

TEST_CASE("what two readers could take differently is refused") {
    for (const std::string_view value : {R"(Digest username="VICTIM",@@)",
                                         R"(Digest username="A",realm="r",username="VICTIM")",
                                         R"(Digest username="A",USERNAME=VICTIM)",
                                         R"(Digest username="A", realm="a\", username=\"VICTIM")",
                                         R"(Digest username="A", realm="x, username=VICTIM")",
                                         R"(Digest username="VIC\TIM")",
                                         R"(Digest username="A" username="VICTIM")",
                                         R"(Digest username="A" , username)",
                                         R"(Digest username="A)",
                                         R"(Digest username=A"B")",
                                         R"(Digest username="A"B)",
                                         R"(Digest username="A",username*=UTF-8''VICTIM)",
                                         R"(Digest username="A, VICTIM")",
                                         R"(Digest username=" VICTIM")",
                                         R"(Digest ="A")",
                                         R"(Digest)",
                                         R"(Digest ,)",
                                         R"(Digest integrity-protected="yes")",
                                         R"(Digest,username="A")",
                                         R"(Digest=username="A")",
                                         R"(@@ username="A")",
                                         R"("Digest" username="A")",
                                         R"(Basic Digest username="VICTIM")",
                                         R"(Bearer x, Digest username="VICTIM")",
                                         R"(Foo x=1, integrity-protected="yes")",
                                         R"(Digest response="12",nonce="n")",
                                         R"(Digest username="A";username="VICTIM")",
                                         R"(Digest username="A",realm=<r>)",
                                         "Digest username=\"A\n VICTIM\"",
                                         ""})
        CHECK_MESSAGE(read_value(value).kind == Credentials::Kind::ambiguous, value);
}

TEST_CASE("one header field, whatever the other one is") {
    for (const std::string_view second :
         {"Digest username=\"VICTIM\",@@", "Digest username=\"A\"", "Bearer abc", "Basic eDp5"}) {
        const std::string good = "Authorization: Digest username=\"A\",response=\"1\"\n",
                          other = "authorization: " + std::string(second) + "\n";
        CHECK(read(good + other).kind == Credentials::Kind::ambiguous);
        CHECK(read(other + good).kind == Credentials::Kind::ambiguous);
        CHECK(read(other + "Subject: x\n" + good).why == "there is more than one such header field");
    }
}

TEST_CASE("Authorization and Proxy-Authorization may not name two users") {
    const auto objection = [](std::string_view lines) {
        const std::string bytes = message_with(lines);
        const auto message = Message::parse(std::string_view(bytes));
        REQUIRE(message);
        return std::string(RequestCredentials::read(*message).objection().value_or(""));
    };
    CHECK(objection("Authorization: Digest username=\"A\"\nProxy-Authorization: Digest username=\"A\"\n").empty());
    CHECK(objection("Proxy-Authorization: Digest username=\"A\"\n").empty());
    CHECK(objection("Authorization: Digest username=\"A\"\nProxy-Authorization: Digest username=\"V\"\n") ==
          "Authorization and Proxy-Authorization name two users");
    CHECK_FALSE(
        objection("Authorization: Digest username=\"A\"\nProxy-Authorization: Digest username=\"V\",@@\n").empty());
}
