// Mode UDP-enc-tun: SAs in a tunnel inside UDP, the policies of NAT addresses, ports that NATs give anew.
#include <algorithm>

#include <doctest/doctest.h>

#include "tests/unit/xfrm/netlink/mini_kernel.h"
#include "xfrm/netlink/nat_policies.h"

using namespace gmgate;
using namespace gmgate::test;
using namespace gmgate::xfrm;

namespace {

constexpr std::array<std::uint8_t, 16> kKey{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
const auto kGateway = *Address::parse("203.0.113.10");
constexpr PortBlock kBlock{Port{6208}, 16};

SetParameters nat_set(std::uint32_t n, const char* nat = "198.51.100.2") {
    const auto port = static_cast<std::uint16_t>(5000 + 2 * n);
    return {.ue = *Address::parse(nat),
            .gateway = kGateway,
            .port_uc = Port{port},
            .port_us = Port{static_cast<std::uint16_t>(port + 1)},
            .port_pc = Port{6216},
            .port_ps = Port{6208},
            .spi_uc = Spi{1000 + 2 * n},
            .spi_us = Spi{1001 + 2 * n},
            .spi_pc = Spi{0x20000000 + 2 * n},
            .spi_ps = Spi{0x20000001 + 2 * n},
            .algorithms = {Alg::hmac_sha_1_96, Ealg::aes_cbc},
            .mode = Mode::udp_enc_tun};
}

SetRequest nat_request(const SetParameters& p) {
    auto keys = derive_esp_keys(p.algorithms, Key128(kKey), Key128(kKey));
    return {.parameters = p,
            .keys = std::move(*keys),
            .mark = Mark{p.spi_pc.value & 0xffff},
            .lifetime = std::chrono::seconds{240}};
}

struct NatBench {
    Clock clock;
    asio::io_context io;
    MiniKernel::State state;
    NetlinkKernel kernel;
    NatBench() : kernel(io.get_executor(), clock, settings(), std::make_unique<MiniKernel>(state)) {}
    static NetlinkSettings settings() {
        NetlinkSettings s;
        s.nat_blocks = {{kGateway, kBlock}};
        return s;
    }
    Result<void> install(const SetParameters& p) { return finish(io, kernel.install_set(nat_request(p))); }
    Result<void> remove(const SetParameters& p) { return finish(io, kernel.remove_set(p)); }
    std::vector<std::uint16_t> outbound_ports() const {
        std::vector<std::uint16_t> ports;
        for (const auto& [key, sa] : state.sas)
            if (sa.encap && ntohs(sa.encap->encap_sport) == 4500) ports.push_back(ntohs(sa.encap->encap_dport));
        return ports;
    }
};

}  // namespace

TEST_CASE(
    "B-82: a set behind NAT is four tunnel SAs inside UDP; the policy of its NAT comes with the first set and goes with the last") {
    NatBench bench;
    REQUIRE(bench.install(nat_set(1)).has_value());
    CHECK(bench.state.sas.size() == 4);
    for (const auto& [key, sa] : bench.state.sas) {
        CHECK(sa.info.mode == XFRM_MODE_TUNNEL);
        REQUIRE(sa.encap.has_value());
        CHECK(ntohs(sa.encap->encap_sport) == 4500);
    }
    REQUIRE(bench.state.policies.size() == 1);
    const auto& policy = bench.state.policies.begin()->second;
    CHECK(policy.dir == XFRM_POLICY_OUT);
    CHECK(policy.priority < kGuardPriority);
    CHECK(ntohs(policy.sel.sport) == 6208);
    CHECK(ntohs(policy.sel.sport_mask) == 0xfff0);
    REQUIRE(bench.install(nat_set(2)).has_value());
    REQUIRE(bench.install(nat_set(3, "198.51.101.2")).has_value());
    CHECK(bench.state.policies.size() == 2);
    CHECK(bench.remove(nat_set(1)).has_value());
    CHECK(bench.state.policies.size() == 2);
    CHECK(bench.remove(nat_set(2)).has_value());
    CHECK(bench.state.policies.size() == 1);
    CHECK(bench.remove(nat_set(3, "198.51.101.2")).has_value());
    CHECK(bench.state.policies.empty());
    CHECK(bench.state.sas.empty());
}

TEST_CASE("whichever of the five messages the kernel refuses, nothing of the set is left") {
    for (std::uint64_t refused = 1; refused <= 5; ++refused) {
        CAPTURE(refused);
        NatBench bench;
        bench.state.failures[refused] = EINVAL;
        CHECK_FALSE(bench.install(nat_set(1)).has_value());
        CHECK(bench.state.sas.empty());
        CHECK(bench.state.policies.empty());
        CHECK(bench.install(nat_set(1)).has_value());
        CHECK(bench.state.policies.size() == 1);
    }
}

TEST_CASE("a set that is refused behind a NAT with phones leaves their policy alone") {
    NatBench bench;
    REQUIRE(bench.install(nat_set(1)).has_value());
    auto same_spi = nat_set(2);
    same_spi.spi_us = nat_set(1).spi_us;
    const auto refused = bench.install(same_spi);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == EEXIST);
    CHECK(bench.state.sas.size() == 4);
    CHECK(bench.state.policies.size() == 1);
    CHECK(bench.remove(nat_set(1)).has_value());
    CHECK(bench.state.policies.empty());
}

TEST_CASE("another port of the NAT is set on all four SAs, and a new lifetime keeps it") {
    NatBench bench;
    REQUIRE(bench.install(nat_set(1)).has_value());
    REQUIRE(finish(bench.io, bench.kernel.follow_nat(nat_set(1), Port{31000})).has_value());
    CHECK(bench.outbound_ports() == std::vector<std::uint16_t>{31000, 31000});
    CHECK(std::ranges::count_if(bench.state.sas,
                                [](const auto& one) { return ntohs(one.second.encap->encap_sport) == 31000; }) == 2);
    REQUIRE(finish(bench.io, bench.kernel.extend_set(nat_set(1), std::chrono::seconds{9000})).has_value());
    CHECK(bench.outbound_ports() == std::vector<std::uint16_t>{31000, 31000});
    const auto reports = finish(bench.io, bench.kernel.report_set(nat_set(1)));
    REQUIRE(reports.has_value());
    REQUIRE(reports->size() == 4);
    CHECK(reports->at(1).sa.encapsulation == Encapsulation{Port{4500}, Port{31000}});
    auto elsewhere = nat_set(1);
    elsewhere.mode = Mode::transport;  // another kind of set: not this one's SAs
    CHECK(finish(bench.io, bench.kernel.report_set(elsewhere))->empty());
}

TEST_CASE("a new port of the NAT and a new lifetime that come at once are both set, whichever is first") {
    for (const bool is_port_first : {true, false}) {
        CAPTURE(is_port_first);
        NatBench bench;
        REQUIRE(bench.install(nat_set(1)).has_value());
        int done = 0;
        const auto count = [&done](std::exception_ptr, const Result<void>& result) { done += result ? 1 : 0; };
        const auto follow = [&] { asio::co_spawn(bench.io, bench.kernel.follow_nat(nat_set(1), Port{31000}), count); };
        if (is_port_first) follow();
        asio::co_spawn(bench.io, bench.kernel.extend_set(nat_set(1), std::chrono::seconds{9000}), count);
        if (!is_port_first) follow();
        bench.io.restart();
        bench.io.run();
        REQUIRE(done == 2);
        CHECK(bench.outbound_ports() == std::vector<std::uint16_t>{31000, 31000});
        for (const auto& [key, sa] : bench.state.sas) CHECK(sa.info.lft.hard_add_expires_seconds >= 9000);
    }
}

TEST_CASE("a list of SAs mends the policies: one that nobody needs goes, one that is missing comes") {
    NatBench earlier;
    REQUIRE(earlier.install(nat_set(1)).has_value());
    REQUIRE(earlier.install(nat_set(2, "198.51.101.2")).has_value());
    NatBench bench;  // a process that comes after one that died
    bench.state.sas = earlier.state.sas;
    bench.state.policies = earlier.state.policies;
    bench.state.templates = earlier.state.templates;
    std::erase_if(bench.state.sas, [](const auto& one) {  // the second phone's ran out meanwhile
        return one.second.info.saddr.a4 == inet_addr("198.51.101.2") ||
               one.second.info.id.daddr.a4 == inet_addr("198.51.101.2");
    });
    CHECK(finish(bench.io, bench.kernel.dump())->size() == 4);
    CHECK(bench.state.policies.size() == 1);
    bench.state.policies.clear();
    CHECK(finish(bench.io, bench.kernel.dump())->size() == 4);
    CHECK(bench.state.policies.size() == 1);
    CHECK(bench.remove(nat_set(1)).has_value());
    CHECK(bench.state.policies.empty());
}

TEST_CASE("a policy that somebody else deletes comes back, and one whose SAs the kernel ended goes") {
    NatBench bench;
    REQUIRE(bench.install(nat_set(1)).has_value());
    bench.state.policies.clear();
    KernelEvent event;
    event.kind = KernelEvent::Kind::nat_policy_deleted;
    event.nat_policy = {kGateway, kBlock, nat_set(1).ue};
    bench.kernel.heard(event);
    bench.io.restart();
    bench.io.run();
    CHECK(bench.state.policies.size() == 1);
    event.kind = KernelEvent::Kind::hard_expired;
    event.mark = nat_request(nat_set(1)).mark;
    for (const auto& sa : four_sas(nat_set(1))) {
        event.sa = sa.id;
        bench.kernel.heard(event);
    }
    bench.io.restart();
    bench.io.run();
    CHECK(bench.state.policies.empty());
}

TEST_CASE("a policy that somebody replaces is written anew") {
    NatBench bench;
    REQUIRE(bench.install(nat_set(1)).has_value());
    bench.state.policies.begin()->second.action = XFRM_POLICY_BLOCK;
    KernelEvent event;
    event.kind = KernelEvent::Kind::nat_policy_deleted;
    event.nat_policy = {kGateway, kBlock, nat_set(1).ue};
    event.is_replaced = true;
    bench.kernel.heard(event);
    bench.io.restart();
    bench.io.run();
    REQUIRE(bench.state.policies.size() == 1);
    CHECK(bench.state.policies.begin()->second.action == XFRM_POLICY_ALLOW);
}

TEST_CASE("a phone that may have a private address inside has SAs without its address and two policies with it") {
    const auto with_inner = [](std::uint32_t n, const char* nat) {
        auto p = nat_set(n, nat);
        p.inner = *Address::parse("192.168.1.10");
        return p;
    };
    NatBench bench;
    REQUIRE(bench.install(with_inner(1, "198.51.100.2")).has_value());
    CHECK(bench.state.policies.size() == 3);
    for (const auto& [key, sa] : bench.state.sas) CHECK(sa.info.sel.prefixlen_s + sa.info.sel.prefixlen_d == 32);
    CHECK(finish(bench.io, bench.kernel.report_set(with_inner(1, "198.51.100.2")))->size() == 4);
    CHECK(finish(bench.io, bench.kernel.report_set(nat_set(1)))->empty());  // another kind of set
    REQUIRE(bench.install(with_inner(2, "198.51.101.2")).has_value());
    CHECK(bench.state.policies.size() == 6);
    // The same address and ports behind another NAT: the packets to the two could not be told apart.
    auto same = with_inner(3, "198.51.102.2");
    same.port_uc = nat_set(1).port_uc;
    const auto refused = bench.install(same);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == EBUSY);
    CHECK(bench.state.sas.size() == 8);
    CHECK(bench.state.policies.size() == 6);
    CHECK(bench.remove(with_inner(1, "198.51.100.2")).has_value());
    CHECK(bench.state.policies.size() == 3);

    NatBench later;  // a process that comes after: it learns from the kernel whose they are
    later.state.sas = bench.state.sas;
    later.state.policies = bench.state.policies;
    later.state.templates = bench.state.templates;
    CHECK(finish(later.io, later.kernel.dump())->size() == 4);
    CHECK(later.state.policies.size() == 3);
    CHECK(later.remove(with_inner(2, "198.51.101.2")).has_value());
    CHECK(later.state.policies.empty());
    CHECK(later.state.sas.empty());
}

TEST_CASE("a policy of an inner address that somebody deletes comes back, whatever its NAT") {
    NatBench bench;
    auto p = nat_set(1);
    p.inner = *Address::parse("192.168.1.10");
    REQUIRE(bench.install(p).has_value());
    bench.state.policies.clear();
    KernelEvent event;
    event.kind = KernelEvent::Kind::nat_policy_deleted;
    event.nat_policy = {kGateway, {p.port_ps, 1}, Address{}, {*p.inner, p.port_uc}};
    bench.kernel.heard(event);
    bench.io.restart();
    bench.io.run();
    REQUIRE(bench.state.policies.size() == 1);
    CHECK(ntohs(bench.state.policies.begin()->second.sel.dport) == p.port_uc.value);
}

TEST_CASE("B-13: the guards of a block are one policy each way; out, nothing may leave without a policy of its NAT") {
    NatBench bench;
    const GuardRequest wanted{kGateway, {Port{6100}}, kBlock};
    auto first = wanted;
    REQUIRE(finish(bench.io, bench.kernel.install_guards(std::move(first))).has_value());
    CHECK(bench.state.policies.size() == 4);
    const auto blocking = std::ranges::count_if(bench.state.policies, [](const auto& one) {
        return one.second.action == XFRM_POLICY_BLOCK && one.second.dir == XFRM_POLICY_OUT;
    });
    CHECK(blocking == 1);
    auto asked = wanted;
    CHECK(*finish(bench.io, bench.kernel.report_guards(std::move(asked))) == guard_policies(wanted));
    // One that lets everything out in its place is not taken for it.
    for (auto& [key, policy] : bench.state.policies) policy.action = XFRM_POLICY_ALLOW;
    auto again = wanted;
    const auto refused = finish(bench.io, bench.kernel.install_guards(std::move(again)));
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().text.find("another policy stands in the place of the guard policy out") != std::string::npos);
}
