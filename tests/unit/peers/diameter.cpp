// gmhss: Diameter octets both ways, and what the HSS decides over Cx (TS 29.228).
#include "peers/gmhss/cx.h"
#include "peers/gmhss/node.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <sys/socket.h>

using namespace gmgate::peers;
using namespace gmgate::peers::diameter;

namespace {

Bytes octets(std::string_view hex) { return *from_hex(hex); }

constexpr std::string_view kRealm = "home.example";
const std::string kImpi = "001010000000001@home.example";
const std::string kImpu = "sip:001010000000001@home.example";
const std::string kServer = "sip:scscf.home.example:6060";

constexpr std::array<std::uint8_t, 16> kK{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
constexpr std::array<std::uint8_t, 16> kOpc{16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1};

/// An HSS with two generated users.
struct Hss {
    UserStore users{std::string(kRealm)};
    MessageLog log;
    CxServer cx{users, log, {}};
    Hss() { users.add_range({"001010000000001", 2, kK, kOpc}, "auth", DigestAlgorithm::akav1_md5); }

    Message request(std::uint32_t command, const std::string& impi = kImpi, const std::string& impu = kImpu) const {
        Message out;
        out.is_request = true;
        out.command = command;
        out.application = kCxApplication;
        out.avps.add(avp::kSessionId, "scscf;1;2");
        out.avps.add(avp::kOriginHost, "scscf.home.example");
        if (!impi.empty()) out.avps.add(avp::kUserName, impi);
        if (!impu.empty()) out.avps.add(avp::kPublicIdentity, impu);
        return out;
    }
    Message uar(std::optional<AuthorizationType> type = {}, const std::string& impi = kImpi,
                const std::string& impu = kImpu) {
        Message out = request(command::kUserAuthorization, impi, impu);
        out.avps.add(avp::kVisitedNetworkIdentifier, "visited.example");
        if (type) out.avps.add_number(avp::kUserAuthorizationType, static_cast<std::uint32_t>(*type));
        return cx.handle(out);
    }
    Message mar(const std::string& scheme, const Bytes& authorization = {}, const std::string& impi = kImpi,
                const std::string& impu = kImpu) {
        Message out = request(command::kMultimediaAuth, impi, impu);
        AvpList item;
        item.add(avp::kSipAuthenticationScheme, scheme);
        if (!authorization.empty()) item.add(avp::kSipAuthorization, authorization);
        out.avps.add_group(avp::kSipAuthDataItem, item);
        out.avps.add(avp::kServerName, kServer);
        return cx.handle(out);
    }
    Message sar(AssignmentType type, const std::string& server = kServer, const std::string& impi = kImpi) {
        Message out = request(command::kServerAssignment, impi);
        out.avps.add(avp::kServerName, server);
        out.avps.add_number(avp::kServerAssignmentType, static_cast<std::uint32_t>(type));
        return cx.handle(out);
    }
    Message lir(const std::string& impu = kImpu) { return cx.handle(request(command::kLocationInfo, "", impu)); }
};

std::uint32_t code(const Message& answer) { return answer.avps.number(avp::kResultCode).value_or(0); }
std::uint32_t experimental(const Message& answer) {
    const auto group = answer.avps.group(avp::kExperimentalResult);
    REQUIRE(group);
    return group->number(avp::kExperimentalResultCode).value_or(0);
}

AvpList first_item(const Message& answer) {
    const auto item = answer.avps.group(avp::kSipAuthDataItem);
    REQUIRE(item);
    return *item;
}

template <std::size_t N>
std::array<std::uint8_t, N> part(const Bytes& data, std::size_t from) {
    std::array<std::uint8_t, N> out{};
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(from), N, out.begin());
    return out;
}

}  // namespace

TEST_CASE(
    "diameter: a message has the octets of RFC 6733 §3 and §4.1, with padding that the AVP's length does not count") {
    Message message;
    message.is_request = true;
    message.is_proxiable = true;
    message.command = command::kUserAuthorization;
    message.application = kCxApplication;
    message.hop_by_hop = 0x01020304;
    message.end_to_end = 0x0a0b0c0d;
    message.avps.add(avp::kUserName, "abcde");
    message.avps.add_number(avp::kUserAuthorizationType, 2);
    const Bytes expected = octets(
        "01000034"
        "c000012c"
        "01000000"
        "01020304"
        "0a0b0c0d"  // 52 octets, R and P, 300, 16777216
        "00000001"
        "4000000d"
        "6162636465000000"  // User-Name, M, 13 octets
        "0000026f"
        "c0000010"
        "000028af"
        "00000002");  // 623, V and M, 16 octets, 10415
    CHECK(message.encode() == expected);
    const auto back = Message::decode(expected);
    REQUIRE(back);
    CHECK(back->is_request);
    CHECK(back->is_proxiable);
    CHECK_FALSE(back->is_error);
    CHECK(back->command == 300);
    CHECK(back->avps.text(avp::kUserName) == "abcde");
    CHECK(back->avps.number(avp::kUserAuthorizationType) == 2);
    CHECK(back->encode() == expected);
}

TEST_CASE("diameter: an answer repeats identifiers, Session-Id and every Proxy-Info in order, and is no request") {
    Message request;
    request.is_request = true;
    request.is_proxiable = true;
    request.command = 300;
    request.hop_by_hop = 7;
    request.end_to_end = 8;
    request.avps.add(avp::kUserName, "x");
    request.avps.add(avp::kSessionId, "s");
    request.avps.add(avp::kProxyInfo, "one");
    request.avps.add(avp::kProxyInfo, "two");
    const Message answer = request.answer();
    CHECK_FALSE(answer.is_request);
    CHECK(answer.is_proxiable);
    CHECK(answer.hop_by_hop == 7);
    CHECK(answer.end_to_end == 8);
    CHECK(answer.avps.text(avp::kSessionId) == "s");
    CHECK(answer.avps.all(avp::kProxyInfo).size() == 2);
    CHECK(answer.avps.find(avp::kUserName) == nullptr);
}

TEST_CASE("diameter: lengths that lie are refused, in the message, in an AVP and in a group") {
    CHECK_FALSE(Message::decode(octets("01000014")));
    CHECK_FALSE(Message::decode(octets("0200001480000118000000000000000100000002")));  // version 2
    CHECK_FALSE(Message::decode(octets("0100001880000118000000000000000100000002")));  // says 24, has 20
    CHECK(Message::decode(octets("0100001480000118000000000000000100000002")));
    CHECK_FALSE(AvpList::decode(octets("0000000140000007")));                // shorter than its header
    CHECK_FALSE(AvpList::decode(octets("00000001c000000b00000000")));        // the same with a vendor
    CHECK(AvpList::decode(octets("000000014000000961")));                    // padding may be missing at the end
    CHECK_FALSE(AvpList::decode(octets("000000014000000c61")));              // longer than what is left
    CHECK_FALSE(AvpList::decode(octets("000000014000000961000000000000")));  // a piece of an AVP after it
    AvpList list;
    list.add(avp::kSipAuthDataItem, octets("00000001"));
    CHECK_FALSE(list.group(avp::kSipAuthDataItem));
    list.add(avp::kResultCode, octets("000007"));
    CHECK_FALSE(list.number(avp::kResultCode));
}

TEST_CASE(
    "diameter: messages come out of a stream whatever the pieces are, and what is too long or no Diameter ends it") {
    const Bytes one = octets("0100001480000118000000000000000100000002");
    Bytes both = one;
    both.insert(both.end(), one.begin(), one.end());
    for (std::size_t piece = 1; piece <= both.size(); ++piece) {
        diameter::MessageFramer framer;
        std::size_t seen = 0;
        for (std::size_t at = 0; at < both.size(); at += piece) {
            framer.feed(ByteView(both).subspan(at, std::min(piece, both.size() - at)));
            for (auto message = framer.next(); message && *message; message = framer.next()) ++seen;
        }
        CHECK(seen == 2);
    }
    diameter::MessageFramer sip;
    sip.feed(as_bytes("OPTIONS sip:x SIP/2.0\r\n"));
    CHECK_FALSE(sip.next());
    diameter::MessageFramer large;
    large.feed(octets("01ffffff"));
    CHECK_FALSE(large.next());
}

TEST_CASE(
    "hss: the first registration has no S-CSCF yet, the next one the S-CSCF that took it (TS 29.228 "
    "§6.1.1.1)") {
    Hss hss;
    Message answer = hss.uar();
    CHECK(experimental(answer) == 2001);
    CHECK(answer.avps.find(avp::kServerName) == nullptr);
    CHECK(experimental(hss.uar(AuthorizationType::deregistration)) == 5003);
    CHECK(code(hss.sar(AssignmentType::registration)) == 2001);
    answer = hss.uar();
    CHECK(experimental(answer) == 2002);
    CHECK(answer.avps.text(avp::kServerName) == kServer);
    CHECK(code(hss.uar(AuthorizationType::deregistration)) == 2001);
    CHECK(experimental(hss.uar(AuthorizationType::registration_and_capabilities)) == 2001);
}

TEST_CASE("hss: identities that are unknown or do not belong together are refused with the codes of TS 29.229 §6.2.2") {
    Hss hss;
    CHECK(experimental(hss.uar({}, "nobody@home.example")) == 5001);
    CHECK(experimental(hss.uar({}, kImpi, "sip:nobody@home.example")) == 5001);
    CHECK(experimental(hss.uar({}, kImpi, "sip:001010000000002@home.example")) == 5002);
    CHECK(experimental(hss.mar("Digest-AKAv1-MD5", {}, kImpi, "sip:001010000000002@home.example")) == 5002);
    CHECK(experimental(hss.lir("sip:nobody@home.example")) == 5001);
    const Message missing = hss.cx.handle(hss.request(command::kUserAuthorization));
    CHECK(code(missing) == 5005);
    CHECK(missing.avps.group(avp::kFailedAvp)->find(avp::kVisitedNetworkIdentifier) != nullptr);
    const Message unknown = hss.cx.handle(hss.request(399));
    CHECK(unknown.is_error);
    CHECK(code(unknown) == 3001);
}

TEST_CASE("hss: the vector of a MAA is one that the user's USIM accepts, with the keys of that USIM") {
    Hss hss;
    const Message answer = hss.mar("Digest-AKAv1-MD5");
    CHECK(code(answer) == 2001);
    const AvpList item = first_item(answer);
    CHECK(item.text(avp::kSipAuthenticationScheme) == "Digest-AKAv1-MD5");
    const Bytes& nonce = item.find(avp::kSipAuthenticate)->data;
    REQUIRE(nonce.size() == 32);
    const AkaSecrets& secrets = *hss.users.by_impi(kImpi)->aka;
    const AkaOutcome outcome = usim_authenticate(secrets, part<16>(nonce, 0), part<16>(nonce, 16), Sqn{});
    const auto* success = std::get_if<AkaSuccess>(&outcome);
    REQUIRE(success != nullptr);
    CHECK(equal_secret(success->res.expose(), item.find(avp::kSipAuthorization)->data));
    CHECK(equal_secret(success->ck.expose(), item.find(avp::kConfidentialityKey)->data));
    CHECK(equal_secret(success->ik.expose(), item.find(avp::kIntegrityKey)->data));
}

TEST_CASE("hss: AUTS moves the sequence number to the USIM's, a forged one does not (TS 33.102 §6.3.5)") {
    Hss hss;
    const Bytes nonce = first_item(hss.mar("Digest-AKAv1-MD5")).find(avp::kSipAuthenticate)->data;
    const AkaSecrets& secrets = *hss.users.by_impi(kImpi)->aka;
    const Auts auts = make_auts(secrets, part<16>(nonce, 0), Sqn{0x123456});
    Bytes authorization(nonce.begin(), nonce.begin() + 16);
    authorization.insert(authorization.end(), auts.begin(), auts.end());
    Bytes forged = authorization;
    forged.back() ^= 1;
    CHECK(code(hss.mar("Digest-AKAv1-MD5", forged)) == 5012);
    CHECK(hss.users.by_impi(kImpi)->sqn.value < 0x1000);
    forged.pop_back();
    CHECK(code(hss.mar("Digest-AKAv1-MD5", forged)) == 5012);
    const Message answer = hss.mar("Digest-AKAv1-MD5", authorization);
    CHECK(code(answer) == 2001);
    const Bytes fresh = first_item(answer).find(avp::kSipAuthenticate)->data;
    const AkaOutcome outcome = usim_authenticate(secrets, part<16>(fresh, 0), part<16>(fresh, 16), Sqn{0x123456});
    CHECK(std::holds_alternative<AkaSuccess>(outcome));
}

TEST_CASE("hss: an unknown scheme is the HSS's choice, another one than the user's is refused") {
    Hss hss;
    CHECK(first_item(hss.mar("unknown")).text(avp::kSipAuthenticationScheme) == "Digest-AKAv1-MD5");
    CHECK(experimental(hss.mar("SIP Digest")) == 5006);
}

TEST_CASE("hss: SAR gives the profile when it is wanted, keeps to one S-CSCF, and takes the user off it") {
    Hss hss;
    CHECK(hss.sar(AssignmentType::registration).avps.text(avp::kUserData).find("<Identity>" + kImpu + "</Identity>") !=
          std::string::npos);
    CHECK(code(hss.lir()) == 2001);
    CHECK(hss.lir().avps.text(avp::kServerName) == kServer);
    CHECK(experimental(hss.sar(AssignmentType::registration, "sip:other.home.example")) == 5005);
    CHECK(code(hss.sar(AssignmentType::authentication_failure)) == 2001);
    CHECK(code(hss.lir()) == 2001);  // an earlier registration goes on
    CHECK(code(hss.sar(AssignmentType::user_deregistration)) == 2001);
    CHECK(experimental(hss.lir()) == 5003);
    CHECK(code(hss.sar(AssignmentType::unregistered_user)) == 2001);
    CHECK(code(hss.lir()) == 2001);
}

TEST_CASE(
    "hss: RTR goes to the S-CSCF that serves the user and names all public identities; nobody is left to serve "
    "afterwards") {
    Hss hss;
    CHECK_FALSE(hss.cx.terminate(kImpi, 0));
    CHECK_FALSE(hss.cx.terminate("nobody@home.example", 0));
    (void)hss.sar(AssignmentType::registration);
    const auto rtr = hss.cx.terminate(kImpi, 2);
    REQUIRE(rtr);
    CHECK(rtr->host == "scscf.home.example");
    CHECK(rtr->message.command == command::kRegistrationTermination);
    CHECK(rtr->message.avps.text(avp::kPublicIdentity) == kImpu);
    CHECK(rtr->message.avps.group(avp::kDeregistrationReason)->number(avp::kReasonCode) == 2);
    hss.cx.terminated(kImpi);
    CHECK(experimental(hss.lir()) == 5003);
}

TEST_CASE(
    "hss: two private identities with one public identity are one subscription, registered while one of them is") {
    const std::string file = std::string(GMGATE_TEST_DATA) + "/two_devices.toml";
    UserStore alone{std::string(kRealm)};
    CHECK_FALSE(alone.load(file));
    UserStore users(std::string(kRealm), UserStore::Sharing::allowed);
    REQUIRE(users.load(file));
    MessageLog log;
    CxServer cx(users, log, {"sip:as.home.example:5070;transport=udp"});
    const auto assign = [&](const std::string& impi, AssignmentType type) {
        Message out;
        out.command = command::kServerAssignment;
        out.avps.add(avp::kUserName, impi);
        out.avps.add(avp::kPublicIdentity, "sip:family@home.example");
        out.avps.add(avp::kServerName, kServer);
        out.avps.add_number(avp::kServerAssignmentType, static_cast<std::uint32_t>(type));
        return cx.handle(out);
    };
    const std::string profile = assign("phone@home.example", AssignmentType::registration).avps.text(avp::kUserData);
    CHECK(profile.find("<PrivateID>phone@home.example</PrivateID>") != std::string::npos);
    CHECK(profile.find("<Identity>tel:+15550100</Identity>") != std::string::npos);
    CHECK(profile.find("<ServerName>sip:as.home.example:5070;transport=udp</ServerName>") != std::string::npos);
    (void)assign("tablet@home.example", AssignmentType::registration);
    (void)assign("phone@home.example", AssignmentType::user_deregistration);
    CHECK(cx.subscription_of(*users.by_impi("phone@home.example")).registered ==
          std::set<std::string>{"tablet@home.example"});
    (void)assign("tablet@home.example", AssignmentType::user_deregistration);
    CHECK(cx.subscription_of(*users.by_impi("phone@home.example")).server_name.empty());
}

TEST_CASE("hss: a digest user's MAA has H(username:realm:password) for the S-CSCF to check with (TS 29.229 §6.3.41)") {
    UserStore users(std::string(kRealm), UserStore::Sharing::allowed);
    REQUIRE(users.load(std::string(GMGATE_TEST_DATA) + "/two_devices.toml"));
    MessageLog log;
    CxServer cx(users, log, {});
    Message request;
    request.command = command::kMultimediaAuth;
    request.avps.add(avp::kUserName, "desk@home.example");
    request.avps.add(avp::kPublicIdentity, "sip:desk@home.example");
    request.avps.add(avp::kServerName, kServer);
    AvpList item;
    item.add(avp::kSipAuthenticationScheme, "SIP Digest");
    request.avps.add_group(avp::kSipAuthDataItem, item);
    const auto digest = first_item(cx.handle(request)).group(avp::kSipDigestAuthenticate);
    REQUIRE(digest);
    CHECK(digest->text(avp::kDigestHa1) == hash_hex(Hash::md5, {as_bytes("desk@home.example:home.example:secret")}));
}

TEST_CASE("hss: profile text is escaped") {
    CHECK(profile_document("a&b", {"sip:<x>@y"}, "").find("<PrivateID>a&amp;b</PrivateID>") != std::string::npos);
    CHECK(profile_document("a", {"sip:<x>@y"}, "").find("<Identity>sip:&lt;x&gt;@y</Identity>") != std::string::npos);
}

namespace {

Message base_request(std::uint32_t command, std::uint32_t application, const std::string& host = {}) {
    Message out;
    out.is_request = true;
    out.command = command;
    out.application = application;
    if (!host.empty()) out.avps.add(avp::kOriginHost, host);
    return out;
}

/// Sends these to a node one after the other, each when the one before has been answered; ends with the last answer or
/// with the connection.
struct Dialogue {
    Loop loop;
    MessageLog log;
    Node node{loop, {"hss.home.example", "home.example"}, log, [](const Message& request) { return request.answer(); }};
    std::vector<Message> requests, answers;
    std::string closed;
    std::unique_ptr<Connection> client;

    explicit Dialogue(std::vector<Message> what) : requests(std::move(what)) {
        const auto to = node.listen(Endpoint::parse("127.0.0.1", 0).value());
        REQUIRE(to);
        Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        REQUIRE(::connect(fd.get(), to->raw(), to->raw_size()) == 0);
        fcntl(fd.get(), F_SETFL, O_NONBLOCK);
        Connection::Events events{[this](Connection&, Message m) { receive(std::move(m)); },
                                  [this](Connection&, std::string why) { closed = std::move(why), loop.stop(); }};
        client = std::make_unique<Connection>(loop, std::move(fd), *to, std::move(events));
        const Timer limit = loop.after(std::chrono::seconds(10), [this] { loop.stop(); });
        client->send(requests.front());
        loop.run();
    }
    void receive(Message answer) {
        answers.push_back(std::move(answer));
        if (answers.size() < requests.size()) client->send(requests[answers.size()]);
    }
};

}  // namespace

TEST_CASE(
    "diameter: a node exchanges capabilities, answers watchdogs, refuses other applications and lets peers go (RFC "
    "6733 §5)") {
    const Dialogue talk({base_request(command::kCapabilitiesExchange, 0, "scscf.home.example"),
                         base_request(command::kDeviceWatchdog, 0), base_request(command::kUserAuthorization, 4),
                         base_request(command::kUserAuthorization, kCxApplication),
                         base_request(command::kDisconnectPeer, 0)});
    REQUIRE(talk.answers.size() == 5);
    CHECK(code(talk.answers[0]) == 2001);
    CHECK(talk.answers[0].avps.group(avp::kVendorSpecificApplicationId)->number(avp::kAuthApplicationId) ==
          kCxApplication);
    CHECK(talk.answers[0].avps.find(avp::kHostIpAddress)->data == octets("00017f000001"));
    CHECK(code(talk.answers[1]) == 2001);
    CHECK(talk.answers[2].is_error);
    CHECK(code(talk.answers[2]) == 3007);
    for (const Message& answer : talk.answers) CHECK(answer.avps.text(avp::kOriginHost) == "hss.home.example");
    CHECK(code(talk.answers[4]) == 2001);
    CHECK_FALSE(talk.closed.empty());
}

TEST_CASE("diameter: whoever does not begin with CER is hung up on") {
    const Dialogue talk({base_request(command::kUserAuthorization, kCxApplication)});
    CHECK(talk.answers.empty());
    CHECK_FALSE(talk.closed.empty());
}
