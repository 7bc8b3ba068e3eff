// The protected ports take and give nothing without ESP, with the daemon and without it: the kernel sees to that.
// Ref: TS 33.203 §7.1; the guards' out policies carry XFRM_POLICY_ICMP because an ICMP error quotes the decrypted
// packet.
#include <chrono>
#include <memory>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

constexpr int kStrangerPort = 7777;

std::uint64_t template_mismatches(const Lab& lab) { return xfrm_counters(lab.network.gw).at("XfrmInTmplMismatch"); }

/// Sends SIP in clear to a protected port and expects the kernel to drop it: the counter rises, nothing comes back.
void check_clear_is_dropped(Lab& lab, const Access& access, int port) {
    INFO("to " << access.gateway_port(port) << (access.is_tcp ? " over TCP" : " over UDP"));
    const auto core_before = lab.core_mark();
    const auto before = template_mismatches(lab);
    RawRegister request;
    request.access = access;
    request.port = kStrangerPort;
    request.security_client = SecurityClient{}.text();
    RawPeer stranger(lab.network.ue, access.is_tcp ? RawPeer::Kind::tcp : RawPeer::Kind::udp,
                     access.ue_port(kStrangerPort), access.gateway_port(port));
    if (!access.is_tcp) stranger.send(request.text());  // TCP: its SYN is on the way already
    CHECK(eventually([&] { return template_mismatches(lab) > before; }));
    if (access.is_tcp) CHECK_FALSE(stranger.connects(std::chrono::milliseconds(300)));
    else CHECK_FALSE(stranger.receive(std::chrono::milliseconds(300)).has_value());
    CHECK(lab.core_received(core_before).empty());
}

void check_all_ports_are_guarded(Lab& lab) {
    for (const bool is_v6 : {false, true})
        for (const bool is_tcp : {false, true})
            for (const int port : {Lab::kProtectedServerPorts[0], Lab::kProtectedServerPorts[1], Lab::kFirstClientPort,
                                   Lab::kLastClientPort})
                check_clear_is_dropped(lab, {is_v6, is_tcp}, port);
}

/// A phone says something over its SA after the daemon was killed: the kernel decrypts it, nobody listens, and nothing
/// of it may come back in clear, by whatever protocol.
void check_nothing_leaks(Lab& lab, const Access& access, std::size_t size) {
    INFO((access.is_v6 ? "IPv6" : "IPv4") << (access.is_tcp ? " TCP, " : " UDP, ") << size << " octets");
    PhoneOptions options;
    options.is_v6 = access.is_v6;
    options.is_tcp = access.is_tcp;
    Phone phone(lab, options);
    phone.demand_registered();
    lab.kill_gateway();
    const auto sas = list_sas(lab.network.gw);
    INFO(show(sas));
    REQUIRE(sas.size() == 4);  // the kernel goes on without the daemon
    const auto before = find_sa(sas, true, true).packets;

    Capture link(lab.network.ue, Network::kUeLink);
    const auto marker = unique_word("marker-");
    phone.start_message(impu_of_user(1), repeated(marker, size));
    CHECK(eventually([&] { return find_sa(list_sas(lab.network.gw), true, true).packets > before; }));
    // TCP: the segment meets no connection and is answered by RST; UDP: by an ICMP error. Either goes through ESP.
    CHECK(eventually([&] {
        return link.count([&](const Frame& frame) { return frame.is_esp() && frame.source() == access.gateway(); }) > 0;
    }));
    for (const auto& found : link.find(marker)) FAIL_CHECK("the marker left in clear: " << found);
    for (const auto& found : link.find("SIP/2.0")) FAIL_CHECK("SIP left in clear: " << found);
    CHECK(link.count([](const Frame& frame) { return frame.is_icmp() && frame.contains("sip:"); }) == 0);

    // The search itself works: the same words in clear, to a port without a guard, are found, and so is the ICMP error
    // about them.
    const auto control = unique_word("control-");
    RawPeer stranger(lab.network.ue, RawPeer::Kind::udp, access.ue_port(kStrangerPort), access.gateway_port(9));
    stranger.send(repeated(control, size));
    CHECK(eventually([&] { return link.find(control).size() >= 2; }));
}

/// A program on the gateway's own machine: over the loopback policies do not see IPv4, so it reaches the daemon. It has
/// no mark and no phone's address: nobody, whatever it says. IPv6 the kernel drops there, too.
void check_loopback_is_nobody(Lab& lab, const Access& access) {
    INFO((access.is_v6 ? "IPv6" : "IPv4") << (access.is_tcp ? " TCP" : " UDP"));
    const auto refused = [&] { return gateway_status(lab)["counters"]["wrong_sa"].get<int>(); };
    const auto before = refused();
    const auto dropped_before = template_mismatches(lab);
    const auto core_before = lab.core_mark();
    RawRegister request;
    request.access = access;
    request.port = kStrangerPort;
    request.security_client = SecurityClient{}.text();
    RawPeer local(lab.network.gw, access.is_tcp ? RawPeer::Kind::tcp : RawPeer::Kind::udp,
                  access.is_v6 ? "[fd01::1]:7777" : "10.1.0.1:7777",
                  access.gateway_port(Lab::kProtectedServerPorts[0]));
    if (!access.is_tcp || local.connects(std::chrono::milliseconds(2000))) local.send(request.text());
    CHECK(eventually([&] { return refused() > before || template_mismatches(lab) > dropped_before; }));
    CHECK_FALSE(local.receive(std::chrono::milliseconds(300)).has_value());
    CHECK(lab.core_received(core_before).empty());
}

std::unique_ptr<Lab> fresh_lab() { return std::make_unique<Lab>(plain_lab()); }

}  // namespace

TEST_SUITE("guards") {
    TEST_CASE("over the loopback, where no policy looks, a local program speaks to protected ports and is nobody") {
        Lab lab(plain_lab());
        Phone phone(lab, {});
        phone.demand_registered();
        for (const bool is_v6 : {false, true})
            for (const bool is_tcp : {false, true}) check_loopback_is_nobody(lab, {is_v6, is_tcp});
        phone.reregister(false);
    }

    TEST_CASE("clear SIP to any protected port is dropped by the kernel, with the daemon and after kill -9") {
        const auto lab = fresh_lab();
        check_all_ports_are_guarded(*lab);
        const auto policies = list_policies(lab->network.gw);
        lab->kill_gateway();
        CHECK(list_policies(lab->network.gw) == policies);
        check_all_ports_are_guarded(*lab);
        // The next process takes the guards over as they are.
        lab->start_gateway();
        CHECK(list_policies(lab->network.gw) == policies);
        check_clear_is_dropped(*lab, {false, false}, Lab::kProtectedServerPorts[0]);
    }

    TEST_CASE("the guards stay after an orderly end and go only when the operator says so") {
        const auto lab = fresh_lab();
        const auto policies = list_policies(lab->network.gw);
        CHECK(policies.size() > 0);
        CHECK(lab->stop_gateway() == 0);
        CHECK(list_policies(lab->network.gw) == policies);
        run_program({.command = {lab->programs().gmgated, "--remove-guards", "--config", lab->config_path()},
                     .network = &lab->network.gw});
        CHECK(list_policies(lab->network.gw).empty());
    }

    TEST_CASE("IPv4, UDP: after kill -9 nothing of a protected message leaves in clear") {
        check_nothing_leaks(*fresh_lab(), {false, false}, 200);
    }
    TEST_CASE("IPv6, UDP: after kill -9 nothing of a protected message leaves in clear") {
        check_nothing_leaks(*fresh_lab(), {true, false}, 200);
    }
    TEST_CASE("IPv4, UDP: nor of a message in fragments") { check_nothing_leaks(*fresh_lab(), {false, false}, 4000); }
    TEST_CASE("IPv6, UDP: nor of a message in fragments") { check_nothing_leaks(*fresh_lab(), {true, false}, 4000); }
    TEST_CASE("IPv4, TCP: nor of a message on a connection") { check_nothing_leaks(*fresh_lab(), {false, true}, 4000); }
    TEST_CASE("IPv6, TCP: nor of a message on a connection") { check_nothing_leaks(*fresh_lab(), {true, true}, 4000); }

    TEST_CASE("ESP that the phone's SA does not cover is dropped, and a valid SA gives no way to the clear port") {
        const auto lab = fresh_lab();
        PhoneOptions options;
        options.offer = kSha1AesCbc.offer();
        Phone phone(*lab, options);
        phone.demand_registered();
        const auto core_before = lab->core_mark();
        const auto sas = list_sas(lab->network.gw);
        REQUIRE(sas.size() == 4);
        // Wrong keys: the phone's SA replaced in the phone's own kernel by one that fails the integrity check.
        const auto& inbound = find_sa(sas, true, true);
        const auto text = "xfrm state delete src " + inbound.source + " dst " + inbound.destination +
                          " proto esp spi " + std::to_string(inbound.spi) + "\n";
        const auto reqid = [&] {
            for (const auto& sa : list_sas(lab->network.ue))
                if (sa.spi == inbound.spi) return sa.reqid;
            throw std::runtime_error("the phone has no such SA");
        }();
        lab->network.ue.ip_batch(
            text + "xfrm state add src " + inbound.source + " dst " + inbound.destination + " proto esp spi " +
            std::to_string(inbound.spi) + " reqid " + std::to_string(reqid) +
            " mode transport auth-trunc hmac(sha1) 0x000102030405060708090a0b0c0d0e0f10111213 96 enc cbc(aes) "
            "0x000102030405060708090a0b0c0d0e0f\n");
        phone.start_message(impu_of_user(1), unique_word("forged-"));
        CHECK(eventually([&] { return xfrm_counters(lab->network.gw).at("XfrmInStateProtoError") > 0; }));
        CHECK(lab->core_received(core_before).empty());
    }
}

TEST_SUITE("essentials") {
    TEST_CASE("clear SIP to a protected port is dropped by the kernel, also after kill -9") {
        const auto lab = fresh_lab();
        check_clear_is_dropped(*lab, {false, false}, Lab::kProtectedServerPorts[0]);
        check_clear_is_dropped(*lab, {true, true}, Lab::kProtectedServerPorts[1]);
        lab->kill_gateway();
        check_clear_is_dropped(*lab, {false, true}, Lab::kProtectedServerPorts[0]);
        check_clear_is_dropped(*lab, {true, false}, Lab::kFirstClientPort);
    }
    TEST_CASE("after kill -9 nothing of a protected message leaves in clear, ICMP errors included") {
        check_nothing_leaks(*fresh_lab(), {false, false}, 200);
        check_nothing_leaks(*fresh_lab(), {true, false}, 4000);
    }
}
