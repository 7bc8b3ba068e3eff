// Properties that hold for any input: every prefix and every changed octet of real messages (run under sanitizers too).
#include "tests/unit/sip/message/support.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "tests/fuzz/invariants.h"

using namespace gmgate::sip;
using namespace gmgate::sip::test;

namespace {

/// Checks an exact copy on the heap, so that AddressSanitizer sees a read beyond the end.
void check(std::string_view text) {
    const auto copy = std::make_unique<char[]>(text.size());
    std::copy(text.begin(), text.end(), copy.get());
    invariants::check_message({copy.get(), text.size()});
}

constexpr std::string_view kOctets("\0\r\n\t \",;:=<>\\/@?[]a0\x7f\xff", 23);

}  // namespace

TEST_CASE("H: every prefix of a message is handled within its octets") {
    const std::string text = handset_register();
    for (std::size_t length = 0; length <= text.size(); ++length) check(std::string_view(text).substr(0, length));
}

TEST_CASE("H: a prefix of a datagram never parses, unless only the body is cut and its length unknown") {
    const std::string text = handset_register();
    for (std::size_t length = 0; length < text.size(); ++length)
        REQUIRE_FALSE(reason_of(text.substr(0, length)).empty());
}

TEST_CASE("H: every octet changed, removed or doubled is handled within the octets") {
    const std::string text = handset_register();
    for (std::size_t i = 0; i < text.size(); ++i) {
        std::string changed = text;
        for (const char c : kOctets) {
            changed[i] = c;
            check(changed);
        }
        changed = text;
        check(changed.erase(i, 1));
        changed = text;
        check(changed.insert(i, 1, text[i]));
    }
}

TEST_CASE("H: every octet of a security list changed keeps both readers in agreement") {
    const std::string list =
        "ipsec-3gpp; alg=hmac-sha-1-96;spi-c=0000001111;port-s=5060;q=0.5, digest;d-note=\"a\\\"b\",tls;q=0.1";
    for (std::size_t i = 0; i < list.size(); ++i) {
        invariants::check_list(std::string_view(list).substr(0, i));
        for (const char c : kOctets) {
            std::string changed = list;
            changed[i] = c;
            invariants::check_list(changed);
        }
    }
}

TEST_CASE("E-7: RFC 4475 3.1.1.1, the tortuous message, is read") {
    const std::string text = crlf(
        "INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\nTO :\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\n"
        "from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>\n  ;\n  tag = 98asjd8\nMaX-fOrWaRdS: 0068\n"
        "Call-ID: wsinv.ndaksdj@192.0.2.1\nContent-Length   : 150\ncseq: 0009\n  INVITE\nVia  : SIP  /   2.0\n /UDP\n    192.0.2.2;branch=390skdjuw\n"
        "s :\nNewFangledHeader:   newfangled value\n continued newfangled value\nUnknownHeaderWithUnusualValue: ;;,,;;,;\n"
        "Content-Type: application/sdp\nRoute:\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\n"
        "v:  SIP  / 2.0  / TCP     spindle.example.com   ;\n  branch  =   z9hG4bK9ikj8  ,\n SIP  /    2.0   / UDP  192.168.255.111   ; branch=\n"
        " z9hG4bK30239\nm:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\n      newvalue ;\n  secondparam ; q = 0.33\n\n");
    const std::string bytes = text + std::string(150, 's');
    const auto message = Message::parse(bytes);
    REQUIRE(message);
    CHECK(message->cseq() == 9);
    CHECK(message->method() == Method::invite);
    CHECK(message->body().size() == 150);
    CHECK(tag_of(*message, HeaderId::to) == "1918181833n");
    CHECK(tag_of(*message, HeaderId::from) == "98asjd8");
    CHECK(via_count(*message) == 3);
    CHECK(top_via(*message)->branch() == "390skdjuw");
    CHECK(NameAddr::parse(message->value(HeaderId::contact))->parameter("newparam") == "newvalue");
    check(bytes);
}
