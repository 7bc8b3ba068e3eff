// Through the router: what a registered phone may say of the network and the network to a phone, whose identity is
// asserted, Security-Verify outside REGISTER, and what a temporary set carries.
#include "tests/unit/daemon/proxy/network.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

namespace {

const std::string kSent = "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;spi-c=11111;spi-s=22222;port-c=8642;port-s=7531";

/// The phone's request as the core gets it.
std::string at_core(ProxyNetwork& net, std::string_view lines, std::string_view branch = "z9hG4bKue1") {
    net.ue_client.send(net.from_ue("MESSAGE", "sip:bob@home.example", lines, branch), net.ps);
    return net.core_peer.receive();
}

}  // namespace

TEST_CASE("H-2, C-3, C-4, C-15: what only the network may say does not pass from a registered phone") {
    ProxyNetwork net;
    const std::string got = at_core(
        net,
        "Path: <sip:evil@192.0.2.66;lr>\nService-Route: <sip:evil@192.0.2.66;lr>\nP-Visited-Network-ID: \"evil\"\nP-Charging-Vector: icid-value=evil\n"
        "P-Charging-Function-Addresses: ccf=192.0.2.66\nP-Asserted-Identity: <sip:evil@home.example>\nP-Asserted-Service: urn:evil\n"
        "P-Served-User: <sip:evil@home.example>\nP-Private-Network-Indication: evil\nP-Called-Party-ID: <sip:evil@home.example>\n"
        "Resource-Priority: evil.0\nFeature-Caps: *;+evil\nAuthorization: Digest username=\"a\", integrity-protected=\"yes\"\n"
        "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1, IEEE-802.11;evil;network-provided\n");
    CHECK_FALSE(contains(lower(got), "evil"));
    CHECK_FALSE(contains(got, "192.0.2.66"));
    CHECK_FALSE(contains(got, "integrity-protected"));
    CHECK(header(got, "P-Access-Network-Info") == "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1");
    CHECK(header(got, "P-Asserted-Identity") == "<sip:alice@home.example>");
}

TEST_CASE("C-13, C-63: each initial request gets a P-Charging-Vector with an icid of its own and the visited network") {
    ProxyNetwork net;
    const std::string first = header(at_core(net, "", "z9hG4bKa"), "P-Charging-Vector"),
                      second = header(at_core(net, "", "z9hG4bKb"), "P-Charging-Vector");
    for (const std::string& vector : {first, second}) {
        CHECK(vector.starts_with("icid-value="));
        CHECK(vector.ends_with(";orig-ioi=visited.example"));
    }
    CHECK(first != second);
    // A made-up To tag makes no dialog: it is charged as well.
    CHECK_FALSE(header(at_core(net, "X-In-Dialog: 1\n", "z9hG4bKc"), "P-Charging-Vector").empty());
}

TEST_CASE("C-61: a preferred identity is asserted when it is registered, else the default one; From plays no part") {
    ProxyNetwork net;
    net.table.find(net.key)->impus.emplace_back("tel:+491701234567");
    const auto asserted = [&](const std::string& preferred, std::string_view branch) {
        const std::string got = at_core(net, preferred.empty() ? "" : "P-Preferred-Identity: " + preferred + "\n",
                                        branch);  // From is a@home.example
        CHECK(header(got, "P-Preferred-Identity").empty());
        return header(got, "P-Asserted-Identity");
    };
    CHECK(asserted("", "z9hG4bKa") == "<sip:alice@home.example>");
    CHECK(asserted("<tel:+49-170-1234567>", "z9hG4bKb") == "<tel:+491701234567>");
    CHECK(asserted("<sip:boss@home.example>", "z9hG4bKc") == "<sip:alice@home.example>");
}

TEST_CASE(
    "A-9, C-64: Security-Verify and Security-Client are read in any request and go no further; one that is not what was sent gets 494") {
    ProxyNetwork net;
    net.table.find(net.key)->sets.front()->security_server = kSent;
    int branch = 0;
    for (const char* method : {"MESSAGE", "PRACK", "UPDATE"}) {
        INFO(method);
        const auto send = [&](const std::string& verify) {
            const std::string lines =
                "X-In-Dialog: 1\nSecurity-Client: " + kSent + "\nSecurity-Verify: " + verify + "\n";
            net.ue_client.send(net.from_ue(method, "sip:bob@home.example", lines, "z9hG4bK" + std::to_string(++branch)),
                               net.ps);
        };
        send(kSent);
        const std::string got = net.core_peer.receive();
        CHECK(first_line(got).starts_with(method));
        CHECK_FALSE(contains(got, "Security-"));
        net.core_peer.send(response_text(got, 200), net.core_side);
        CHECK(first_line(ProxyNetwork::final_of(net.ue_server)) == "SIP/2.0 200 Text");
        send("ipsec-3gpp;alg=hmac-md5-96;spi-c=1;spi-s=2;port-c=3;port-s=4");
        const std::string refused = ProxyNetwork::final_of(net.ue_server);
        CHECK(first_line(refused) == "SIP/2.0 494 Security Agreement Required");
        CHECK(header(refused, "Security-Server") == kSent);
        CHECK_FALSE(net.core_peer.try_receive().has_value());
    }
}

TEST_CASE(
    "C-3, C-72: no charging header reaches a phone, and its answer asserts the identity that was called, not what it says itself") {
    ProxyNetwork net;
    net.table.find(net.key)->impus.emplace_back("sip:alias@home.example");
    net.core_peer.send(
        net.from_core("MESSAGE",
                      net.our_route() +
                          "P-Called-Party-ID: <sip:alias@home.example>\nP-Charging-Vector: icid-value=secret\n"
                          "P-Charging-Function-Addresses: ccf=192.0.2.9\nP-Served-User: <sip:x@y>\n"),
        net.core_side);
    const std::string got = net.ue_server.receive();
    CHECK_FALSE(contains(got, "P-Charging"));
    CHECK_FALSE(contains(got, "P-Served-User"));
    CHECK(header(got, "P-Called-Party-ID") == "<sip:alias@home.example>");
    std::string answer = response_text(got, 200);
    answer.insert(answer.find("Content-Length"),
                  "P-Asserted-Identity: <sip:boss@home.example>\r\nP-Charging-Vector: icid-value=mine\r\n");
    net.ue_client.send(answer, net.ps);
    const std::string back = net.core_peer.receive();
    CHECK(header(back, "P-Asserted-Identity") == "<sip:alias@home.example>");
    CHECK_FALSE(contains(back, "boss"));
    CHECK_FALSE(contains(back, "icid-value=mine"));
}

TEST_CASE("C-45, H-4: over a temporary set nothing but REGISTER goes to the core: it is dropped and counted") {
    ProxyNetwork net;
    auto set = net.table.take_set(*net.table.find(net.key), SetNumber{kSet});
    set->state = SetState::temporary;
    auto challenge = std::make_unique<Challenge>();
    challenge->impi = net.key.impi;
    challenge->ue = set->parameters.ue;
    challenge->contact = net.key;
    challenge->set = std::move(set);
    net.table.put_challenge(std::move(challenge));
    for (const char* method : {"MESSAGE", "INVITE", "OPTIONS", "SUBSCRIBE"})
        net.ue_client.send(net.from_ue(method, "sip:bob@home.example", "", std::string("z9hG4bK") + method), net.ps);
    CHECK(net.loop.until([&] { return net.counters.get(Counter::wrong_sa) == 4; }));
    CHECK_FALSE(net.core_peer.try_receive().has_value());
}
