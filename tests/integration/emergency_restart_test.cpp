// Anonymous emergency calls while the gateway is killed or taken over: what belongs to the call goes on from both ends,
// by what stands in our Record-Route alone, and nobody gets in by the Call-ID.
#include <algorithm>
#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "tests/integration/ringing.h"
#include "tests/support/raw_peer.h"

using namespace gmgate::test;

namespace {

std::string ecscf_address(int which) { return fmt::format("{}:{}", Network::kCore4, 5081 + which); }

/// "<sip:a>, <sip:b>" over any number of lines, one by one.
std::vector<std::string> elements(const std::string& raw, const std::string& name) {
    std::vector<std::string> found;
    for (std::string line : header_values(raw, name)) {
        for (auto comma = line.find(", <"); comma != std::string::npos; comma = line.find(", <")) {
            found.push_back(line.substr(0, comma));
            line.erase(0, comma + 2);
        }
        found.push_back(line);
    }
    return found;
}

struct SosCall {
    int at = -1;            ///< the E-CSCF that has it
    DialogEnd phone, psap;  ///< what each writes
};

/// Two equal E-CSCFs, and an anonymous caller in clear.
struct SosScene {
    explicit SosScene(const Access& by) : access(by), lab(options()) { connect(); }
    static LabOptions options() {
        auto options = plain_lab();
        options.core_lines = "ping-interval = 0\n";
        for (const int which : {0, 1})
            options.core_lines += fmt::format("[[core.emergency-next-hops]]\nhost = \"{}\"\n", ecscf_address(which));
        return options;
    }
    RawPeer::Kind kind() const { return access.is_tcp ? RawPeer::Kind::tcp : RawPeer::Kind::udp; }
    std::string sent_by() const { return (access.is_tcp ? "TCP " : "UDP ") + own; }
    /// The caller's socket; over TCP again after a restart, from another port.
    void connect() {
        if (caller && !access.is_tcp) return;
        own = access.ue_port(++port);
        caller = std::make_unique<RawPeer>(lab.network.ue, kind(), own, access.gateway_port(5060));
        if (access.is_tcp) REQUIRE(caller->connects(kPatience));
    }

    /// The next request at either E-CSCF that is no copy, and at which.
    std::pair<int, std::string> next(std::chrono::seconds patience = kPatience) {
        std::pair<int, std::string> found{-1, {}};
        (void)eventually(
            [&] {
                for (int which : {0, 1})
                    if (auto text = hops[which].receive(std::chrono::milliseconds(1));
                        text && !text->starts_with("SIP/2.0") && seen.insert(header_values(*text, "Via").at(0)).second)
                        found = {which, *text};
                return found.first >= 0;
            },
            patience);
        return found;
    }
    /// Provisional responses may come in one read with the final one.
    std::string final() {
        std::string text;
        for (;;) {
            if (text.empty()) text = caller->receive_until("\r\n\r\n");
            if (!text.starts_with("SIP/2.0 1")) return text;
            text.erase(0, text.find("\r\n\r\n") + 4);
        }
    }
    static std::string answer(const std::string& request, const std::string& more = {}) {
        std::string text = "SIP/2.0 200 OK\r\n";
        for (const char* name : {"Via", "From", "Call-ID", "CSeq"})
            for (const auto& value : header_values(request, name)) text += std::string(name) + ": " + value + "\r\n";
        auto to = header_values(request, "To").at(0);
        if (to.find(";tag=") == std::string::npos) to += ";tag=psap";
        return text + "To: " + to + "\r\n" + more + "Content-Length: 0\r\n\r\n";
    }

    SosCall begin() {
        const auto word = unique_word("sos-");
        caller->send(fmt::format(
            "INVITE urn:service:sos SIP/2.0\r\nVia: SIP/2.0/{0};branch=z9hG4bK{1}\r\nMax-Forwards: 70\r\nFrom: <sip:anonymous@anonymous.invalid>;tag={1}\r\n"
            "To: <urn:service:sos>\r\nCall-ID: {1}\r\nCSeq: 1 INVITE\r\nContact: <sip:{2}>\r\nContent-Length: 0\r\n\r\n",
            sent_by(), word, own));
        SosCall call;
        std::string invite;
        std::tie(call.at, invite) = next();
        REQUIRE(call.at >= 0);
        const auto ours = elements(invite, "Record-Route");
        std::string more = fmt::format("Record-Route: <sip:{}>\r\n", ecscf_address(call.at) + ";lr");
        for (const auto& element : ours) more += "Record-Route: " + element + "\r\n";
        hops[call.at].send(answer(invite, more + fmt::format("Contact: <sip:psap@{}>\r\n", ecscf_address(call.at))));
        const auto ok = final();
        REQUIRE(status_of(ok) == 200);
        auto route = elements(ok, "Record-Route");
        std::ranges::reverse(route);
        call.phone = {"sip:psap@" + ecscf_address(call.at), header_values(ok, "From").at(0),
                      header_values(ok, "To").at(0), word, route};
        call.psap = {"sip:" + own, call.phone.to, call.phone.from, word, ours};
        caller->send(call.phone.request("ACK", sent_by()));
        CHECK(next().second.starts_with("ACK "));
        return call;
    }

    /// Nobody of the core hears of it.
    void check_refused(const DialogEnd& end, const std::string& method = "BYE") {
        caller->send(end.request(method, sent_by()));
        const auto refused = final();
        CHECK_MESSAGE(status_of(refused) == 403, refused);
    }
    void check_adversaries(const SosCall& call);
    void check_adversaries_of_the_core(const SosCall& call);
    void phone_hangs_up(const SosCall& call) {
        caller->send(call.phone.request("BYE", sent_by()));
        const auto [at, bye] = next();
        CHECK(at == call.at);
        CHECK(bye.starts_with("BYE " + call.phone.uri));
        CHECK(header_values(bye, "Route") == std::vector<std::string>{"<sip:" + ecscf_address(call.at) + ";lr>"});
        REQUIRE(at >= 0);
        hops[at].send(answer(bye));
        CHECK(status_of(final()) == 200);
    }
    Access access;
    Lab lab;
    RawPeer hops[2] = {
        {lab.network.core, RawPeer::Kind::udp, ecscf_address(0), std::string(Network::kGwCore4) + ":5060"},
        {lab.network.core, RawPeer::Kind::udp, ecscf_address(1), std::string(Network::kGwCore4) + ":5060"}};
    int port = 5070;
    std::string own{};
    std::unique_ptr<RawPeer> caller{};
    std::set<std::string> seen{};
};

std::string bent(std::string text, const std::string& before) {
    auto& digit = text.at(text.find(before) - 1);
    digit = digit == '0' ? '1' : '0';
    return text;
}

/// Everything but the very dialog, from the caller's own address, and the very dialog from another one.
void SosScene::check_adversaries(const SosCall& call) {
    DialogEnd end = call.phone;
    end.route.clear();
    check_refused(end);  // the Call-ID and the tags alone
    end = call.phone;
    for (auto& element : end.route) {
        if (element.find("sos") == std::string::npos) continue;
        element = bent(element, "@");
    }
    check_refused(end);  // a mark made up
    end = call.phone;
    end.from = bent(end.from + ";", ";");
    check_refused(end);
    end = call.phone;
    end.to = bent(end.to + ";", ";");
    check_refused(end);
    end = call.phone;
    end.call_id += "x";
    check_refused(end);
    end = call.phone;
    end.uri = "sip:premium@home.example";
    check_refused(end);
    check_refused(end, "INVITE");
    end = call.phone;
    end.route.back() = "<sip:elsewhere.example;lr>";
    check_refused(end);
    check_refused(call.phone, "MESSAGE");

    lab.network.ue.ip_batch("address add 10.1.0.66/16 dev access0\naddress add fd01::66/64 dev access0 nodad\n");
    const auto other = access.is_v6 ? fmt::format("[fd01::66]:{}", ++port) : fmt::format("10.1.0.66:{}", ++port);
    RawPeer stranger(lab.network.ue, kind(), other, access.gateway_port(5060));
    if (access.is_tcp) REQUIRE(stranger.connects(kPatience));
    stranger.send(call.phone.request("BYE", (access.is_tcp ? "TCP " : "UDP ") + other));
    CHECK(status_of(stranger.receive_until("\r\n\r\n")) == 403);
    CHECK(next(std::chrono::seconds(0)).first < 0);
}

void SosScene::check_adversaries_of_the_core(const SosCall& call) {
    DialogEnd end = call.psap;
    for (auto& element : end.route) element = bent(element, "@");
    hops[call.at].send(end.request("BYE", "UDP " + ecscf_address(call.at)));
    CHECK(status_of(hops[call.at].receive_until("\r\n\r\n")) / 100 == 4);
    end = call.psap;
    end.to = bent(end.to + ";", ";");  // another phone's tag
    hops[call.at].send(end.request("BYE", "UDP " + ecscf_address(call.at)));
    CHECK(status_of(hops[call.at].receive_until("\r\n\r\n")) / 100 == 4);
    CHECK_FALSE(caller->receive(std::chrono::milliseconds(1)).has_value());
}

void check_over_restart(const Access& access, bool is_taken_over) {
    SosScene scene(access);
    INFO(scene.lab.gateway_log());
    const auto mine = scene.begin(), theirs = scene.begin();
    if (is_taken_over) {
        scene.lab.take_over();
    } else {
        scene.lab.kill_gateway();
        scene.lab.start_gateway();
    }
    scene.connect();
    scene.check_adversaries(mine);
    scene.check_adversaries_of_the_core(theirs);
    scene.phone_hangs_up(mine);
    CHECK(scene.lab.gateway_log().find("emergency-known-again") != std::string::npos);

    auto& element = scene.hops[theirs.at];
    element.send(theirs.psap.request("BYE", "UDP " + ecscf_address(theirs.at)));
    if (access.is_tcp) {  // its connection went with the gateway, and it has not spoken since
        CHECK(status_of(element.receive_until("\r\n\r\n")) == 480);
        return scene.phone_hangs_up(theirs);
    }
    const auto bye = scene.caller->receive_until("\r\n\r\n");
    CHECK(bye.starts_with("BYE sip:" + scene.own));
    scene.caller->send(SosScene::answer(bye));
    CHECK(status_of(element.receive_until("\r\n\r\n")) == 200);
}

}  // namespace

TEST_SUITE("doors") {
    TEST_CASE("kill -9 in anonymous emergency calls, UDP and IPv4: each end hangs up, and strangers get nowhere") {
        check_over_restart({false, false}, false);
    }
    TEST_CASE("kill -9 in anonymous emergency calls, TCP and IPv6: the phone hangs up over a new connection") {
        check_over_restart({true, true}, false);
    }
    TEST_CASE("a take-over in anonymous emergency calls, UDP and IPv6: each end hangs up, and strangers get nowhere") {
        check_over_restart({true, false}, true);
    }
}
