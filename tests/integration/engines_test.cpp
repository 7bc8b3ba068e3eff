// One conformance suite for the engines behind xfrm::Kernel: the same request does the same, whoever programs the
// kernel, and iproute2 is the judge. What an engine cannot do stands here by name. Run as root in a guest.
#include <algorithm>
#include <cerrno>
#include <regex>

#include <doctest/doctest.h>
#include <sys/socket.h>

#include "tests/integration/engine_lab.h"

using namespace gmgate;
using namespace gmgate::test;
using namespace gmgate::xfrm;

namespace {

constexpr AlgorithmPair kUsual{Alg::hmac_sha_1_96, Ealg::aes_cbc};
constexpr Mark kMark{0x1001};
constexpr Family kFamilies[] = {Family::v4, Family::v6};
using Kind = KernelEvent::Kind;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// `ip -d xfrm state` without what differs from second to second: when it was added, and by how much a limit was moved.
std::string state_now() {
    auto text = shell("ip -d -s xfrm state");
    text = std::regex_replace(text, std::regex("add [0-9-]+ [0-9:]+"), "add TIME");
    return text;
}

std::vector<std::string> blocks_of(const std::string& text) {
    std::vector<std::string> blocks;
    for (std::size_t at = 0; at < text.size();) {
        const auto next = text.find("\nsrc ", at);
        blocks.push_back(text.substr(at, next == std::string::npos ? next : next + 1 - at));
        at = next == std::string::npos ? text.size() : next + 1;
    }
    std::ranges::sort(blocks);
    return blocks;
}

// What libcharon cannot do is set usersa_info.seq, where the other engines keep the mark of the set: it stands in the
// output-mark of all four, with mask 0 where none is to be applied. That is the whole difference.
std::string as_libcharon(std::string block) {
    const auto at = block.find("seq 0x00004097");  // 0x1001; iproute2 6.1 prints it in decimal behind 0x
    REQUIRE(at != std::string::npos);
    block.replace(at, 14, "seq 0x00000000");
    if (!has(block, "output-mark")) block.insert(block.find('\n', at) + 1, "\toutput-mark 0x1001/0x0\n");
    return block;
}

std::size_t count_sas() { return blocks_of(shell("ip xfrm state list nokeys")).size(); }

Result<void> install(Engine& engine, const SetParameters& set,
                     std::chrono::seconds lifetime = std::chrono::seconds{600}, Mark mark = kMark) {
    auto request = request_for(set, mark, lifetime);
    return engine.run(engine.kernel().install_set(std::move(request)));
}

void require(const Result<void>& result) {
    INFO((result ? "" : result.error().text));
    REQUIRE(result);
}

void add_foreign(const SaId& id, const std::string& reqid = "7") {
    shell("ip xfrm state add src " + std::string(id.destination.is_v6() ? "2001:db8:f::1" : "203.0.113.1") + " dst " +
          id.destination.to_string() + " proto esp spi " + std::to_string(id.spi.value) + " reqid " + reqid +
          " mode transport aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128");
}

std::string words_of(const Sa& sa) {
    return "src " + sa.source.address.to_string() + " dst " + sa.destination.address.to_string() + " proto esp spi " +
           std::to_string(sa.id.spi.value);
}

/// All engines side by side in one namespace: starting one is what takes time.
std::vector<std::unique_ptr<Engine>> all_engines(Lab& lab) {
    std::vector<std::unique_ptr<Engine>> all;
    for (const auto kind : engines()) all.push_back(std::make_unique<Engine>(lab, kind));
    return all;
}

SetParameters nth_set(const Lab& lab, std::uint32_t n) {
    auto p = lab_set(lab, Family::v4, kUsual);
    p.port_uc = Port{static_cast<std::uint16_t>(20000 + 2 * n)};
    p.port_us = Port{static_cast<std::uint16_t>(20001 + 2 * n)};
    p.spi_uc = Spi{1000 + 2 * n};
    p.spi_us = Spi{1001 + 2 * n};
    p.spi_pc = Spi{0x20000000 + 2 * n};
    p.spi_ps = Spi{0x20000001 + 2 * n};
    return p;
}

}  // namespace

TEST_CASE("engines: every algorithm pair in both families reads the same in ip -d xfrm state, whoever wrote it") {
    for (const auto family : kFamilies) {
        Lab lab;
        const auto all = all_engines(lab);
        for (const auto pair : kDefaultPreference) {
            CAPTURE(to_string(pair.alg));
            CAPTURE(to_string(pair.ealg));
            const auto set = lab_set(lab, family, pair);
            std::vector<std::string> reference;
            for (const auto& one : all) {
                auto& engine = *one;
                const auto kind = engine.kind();
                CAPTURE(test::to_string(kind));
                require(install(engine, set));
                auto blocks = blocks_of(state_now());
                REQUIRE(blocks.size() == 4);
                if (reference.empty()) reference = blocks;
                for (std::size_t i = 0; i < 4; ++i)
                    CHECK(blocks[i] == (kind == EngineKind::libcharon ? as_libcharon(reference[i]) : reference[i]));

                const auto told = engine.run(engine.kernel().report_set(set));
                REQUIRE(told);
                REQUIRE(told->size() == 4);
                const auto sas = four_sas(set);
                for (std::size_t i = 0; i < 4; ++i) {
                    const auto& report = (*told)[i];
                    CHECK(report.sa.id == sas[i].id);
                    CHECK(report.sa.source == sas[i].source);
                    CHECK(report.sa.destination == sas[i].destination);
                    CHECK(report.sa.direction == sas[i].direction);
                    CHECK(report.mark == kMark);
                    CHECK(report.algorithms == pair);
                    CHECK(report.hard_lifetime == std::chrono::seconds{600});
                    CHECK(std::chrono::abs(report.added - lab.clock().wall()) < std::chrono::seconds{60});
                }
                require(engine.run(engine.kernel().remove_set(set)));
                CHECK(count_sas() == 0);
                require(engine.run(engine.kernel().remove_set(set)));  // gone already is no error
                CHECK(engine.run(engine.kernel().report_set(set))->empty());
            }
        }
    }
}

TEST_CASE("engines: guards read the same, equal ones are kept, another's policy in their place is refused and stays") {
    for (const auto family : kFamilies) {
        Lab lab;
        const auto all = all_engines(lab);
        const GuardRequest wanted{lab.gateway_address(family), {Port{6100}, Port{6101}}};
        std::string reference;
        for (const auto& one : all) {
            auto& engine = *one;
            CAPTURE(test::to_string(engine.kind()));
            const auto order = [&](auto call) {
                auto request = wanted;
                return engine.run((engine.kernel().*call)(std::move(request)));
            };
            require(order(&Kernel::install_guards));
            const auto index = std::regex("index [0-9]+");  // the kernel's own number of a policy
            const auto lifetime = std::regex("add [0-9-]+ [0-9:]+");
            const auto text = [&] {
                return std::regex_replace(std::regex_replace(shell("ip -d xfrm policy"), index, "index N"), lifetime,
                                          "add TIME");
            };
            const auto first = text();
            if (reference.empty()) reference = first;
            CHECK(first == reference);
            CHECK(has(first, "flag icmp"));
            require(order(&Kernel::install_guards));
            CHECK(text() == reference);
            if (engine.kind() == test::EngineKind::in_process) {
                require(order(&Kernel::remove_guards));
                CHECK(shell("ip xfrm policy").empty());
                require(order(&Kernel::remove_guards));
            } else {  // a process that only serves never opens a port
                const auto opened = order(&Kernel::remove_guards);
                REQUIRE_FALSE(opened);
                CHECK(opened.error().code == EPERM);
                CHECK(text() == reference);
                shell("ip xfrm policy flush");
            }

            shell("ip xfrm policy add src " +
                  std::string(family == Family::v6 ? "2001:db8:1::1/128 dst ::/0" : "192.0.2.1/32 dst 0.0.0.0/0") +
                  " sport 6101 dir out priority 2000 tmpl proto esp mode transport reqid 21321");  // ours but for the
                                                                                                   // ICMP flag
            const auto theirs = text();
            const auto refused = order(&Kernel::install_guards);
            REQUIRE_FALSE(refused);
            CHECK(refused.error().reaction == Reaction::refused);
            CHECK(refused.error().code == EEXIST);
            CHECK(has(refused.error().text, "another policy stands in the place of the guard policy out"));
            CHECK(text() == theirs);
            shell("ip xfrm policy flush");
        }
    }
}

TEST_CASE("engines: a set carries messages in both directions, and its mark tells which one carried them") {
    for (const auto family : kFamilies) {
        Lab lab;
        const auto all = all_engines(lab);
        const auto set = lab_set(lab, family, kUsual);
        GuardRequest here{set.gateway, {set.port_pc, set.port_ps}}, there{set.ue, {set.port_uc, set.port_us}};
        require(all[0]->run(all[0]->kernel().install_guards(std::move(here))));
        require(all[0]->run(lab.ue().install_guards(std::move(there))));
        const Endpoint ps{set.gateway, set.port_ps}, pc{set.gateway, set.port_pc}, uc{set.ue, set.port_uc},
            us{set.ue, set.port_us};
        const auto gw_ps = bound_socket(SOCK_DGRAM, ps), gw_pc = bound_socket(SOCK_DGRAM, pc);
        lab.enter_ue();
        const auto ue_uc = bound_socket(SOCK_DGRAM, uc), ue_us = bound_socket(SOCK_DGRAM, us);
        lab.enter_gateway();
        for (const auto& one : all) {
            auto& engine = *one;
            CAPTURE(test::to_string(engine.kind()));
            require(install(engine, set));
            auto mirror = request_for(mirrored(set), kMark);
            require(engine.run(lab.ue().install_set(std::move(mirror))));
            const auto exchange = [](const Fd& from, const Fd& at, const Endpoint& to, const char* text) {
                REQUIRE(send_to(from, to, text));
                const auto got = receive(at);
                REQUIRE(got);
                CHECK(got->text == text);
                return got->mark;
            };
            CHECK(Mark{exchange(ue_uc, gw_ps, ps, "sa1")} == kMark);
            CHECK(Mark{exchange(ue_us, gw_pc, pc, "sa3")} == kMark);
            exchange(gw_pc, ue_us, us, "sa2");
            exchange(gw_ps, ue_uc, uc, "sa4");
            const auto told = engine.run(engine.kernel().report_set(set));
            REQUIRE(told);
            REQUIRE(told->size() == 4);
            for (const auto& report : *told) CHECK(report.packets == 1);
            require(engine.run(engine.kernel().remove_set(set)));
            require(engine.run(lab.ue().remove_set(mirrored(set))));
        }
        CHECK(xfrm_stat("XfrmInTmplMismatch") == 0);
        CHECK(xfrm_stat("XfrmOutNoStates") == 0);
    }
}

TEST_CASE("engines: an SPI that is taken refuses the set and leaves none of the four, whichever of them it is") {
    for (const auto kind : engines()) {
        Lab lab;
        Engine engine(lab, kind);
        for (std::size_t taken = 0; taken < 4; ++taken) {
            CAPTURE(test::to_string(kind));
            CAPTURE(taken);
            const auto set = lab_set(lab, taken % 2 == 0 ? Family::v4 : Family::v6, kUsual);
            add_foreign(four_sas(set)[taken].id);
            const auto before = state_now();
            const auto refused = install(engine, set);
            REQUIRE_FALSE(refused);
            CHECK(refused.error().reaction == Reaction::refused);
            CHECK(refused.error().code == EEXIST);
            CHECK(has(refused.error().text, "the kernel refused the SA"));
            CHECK(state_now() == before);  // the other's stays
            CHECK(engine.run(engine.kernel().dump())->empty());
            CHECK(engine.kernel().counters().sets_refused == taken + 1);
            // The next one is not hurt by it.
            shell("ip xfrm state flush");
            require(install(engine, set));
            CHECK(count_sas() == 4);
            require(engine.run(engine.kernel().remove_set(set)));
            CHECK(engine.kernel().counters().sets_installed == taken + 1);
        }
    }
}

TEST_CASE("engines: what is no set is refused before the kernel hears of it") {
    for (const auto kind : engines()) {
        CAPTURE(test::to_string(kind));
        Lab lab;
        Engine engine(lab, kind);
        const auto good = lab_set(lab, Family::v4, kUsual);
        const auto refused = [&](const std::function<void(SetRequest&)>& alter) {
            auto request = request_for(good, kMark);
            alter(request);
            const auto result = engine.run(engine.kernel().install_set(std::move(request)));
            CHECK_FALSE(result);
            CHECK(count_sas() == 0);
        };
        refused([](SetRequest& r) { r.mark = Mark{}; });
        refused([](SetRequest& r) { r.mark = Mark{0x01000000}; });
        refused([](SetRequest& r) { r.lifetime = std::chrono::seconds{0}; });
        refused([](SetRequest& r) { r.parameters.spi_us = r.parameters.spi_uc; });
        refused([](SetRequest& r) { r.parameters.spi_pc = Spi{}; });
        refused([](SetRequest& r) { r.parameters.port_us = Port{}; });
        refused([](SetRequest& r) {
            r.parameters.algorithms = {Alg::hmac_md5_96, Ealg::aes_cbc};
        });  // the keys do not fit
        refused([](SetRequest& r) { r.parameters.ue = *Address::parse("2001:db8:1::9"); });
        require(install(engine, good));
    }
}

TEST_CASE("engines: extend_set moves the hard limit and nothing else, and what is gone cannot be extended") {
    for (const auto kind : engines()) {
        CAPTURE(test::to_string(kind));
        Lab lab;
        Engine engine(lab, kind);
        const auto set = lab_set(lab, Family::v4, kUsual);
        require(install(engine, set, std::chrono::seconds{60}));
        const auto without_limit = [] {
            return std::regex_replace(state_now(), std::regex("hard [0-9]+\\(sec\\)"), "hard N(sec)");
        };
        const auto before = without_limit();
        require(engine.run(engine.kernel().extend_set(set, std::chrono::seconds{900})));
        CHECK(without_limit() == before);
        const auto told = engine.run(engine.kernel().report_set(set));
        REQUIRE(told);
        for (const auto& report : *told) {
            const auto left = std::chrono::duration_cast<std::chrono::seconds>(report.added + report.hard_lifetime -
                                                                               lab.clock().wall());
            CHECK(left > std::chrono::seconds{800});
            CHECK(left <= std::chrono::seconds{901});
        }
        // One of them gone: refused, and the other three keep the limit that they have. libcharon would add an SA
        // instead of saying so.
        const auto limits = [&] {
            std::vector<std::chrono::seconds> out;
            const auto reports = engine.run(engine.kernel().report_set(set));
            REQUIRE(reports);
            for (const auto& report : *reports) out.push_back(report.hard_lifetime);
            return out;
        };
        const auto limits_before = limits();
        shell("ip xfrm state delete " + words_of(four_sas(set)[3]));
        const auto refused = engine.run(engine.kernel().extend_set(set, std::chrono::seconds{3000}));
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == ESRCH);
        const auto limits_after = limits();
        CHECK(limits_after == std::vector(limits_before.begin(), limits_before.begin() + 3));
        CHECK(count_sas() == 3);
        // Another's under the same SPI is not touched.
        add_foreign(four_sas(set)[3].id);
        const auto foreign =
            shell("ip -d xfrm state get " +
                  words_of({four_sas(set)[3].id, {}, {*Address::parse("203.0.113.1"), {}}, {set.ue, {}}}));
        CHECK_FALSE(engine.run(engine.kernel().extend_set(set, std::chrono::seconds{3000})));
        CHECK(has(foreign, "reqid 7"));
        // Removing goes by address and SPI in-process, where the caller is trusted (xfrm/README.md); the others ask
        // whose it is.
        require(engine.run(engine.kernel().remove_set(set)));
        CHECK(count_sas() == (kind == EngineKind::in_process ? 0 : 1));
    }
}

TEST_CASE("engines: SAs expire at their limit, and their end is told with the mark of their set") {
    for (const auto kind : engines()) {
        CAPTURE(test::to_string(kind));
        Lab lab;
        Engine engine(lab, kind);
        const auto set = lab_set(lab, Family::v6, kUsual);
        require(install(engine, set, std::chrono::seconds{2}));
        const auto expired = [&](const KernelEvent& event) {
            return event.kind == Kind::hard_expired && event.mark == kMark;
        };
        REQUIRE(engine.hears(expired, 4));
        for (const auto& sa : four_sas(set))
            CHECK(std::ranges::count_if(engine.events, [&](const KernelEvent& event) {
                      return expired(event) && event.sa == sa.id;
                  }) == 1);
        CHECK(count_sas() == 0);
    }
}

TEST_CASE("engines: what others do to our SAs and policies is told, and nothing of others' SAs") {
    for (const auto kind : engines()) {
        CAPTURE(test::to_string(kind));
        Lab lab;
        Engine engine(lab, kind);
        const auto set = lab_set(lab, Family::v4, kUsual);
        require(install(engine, set));
        GuardRequest guards{set.gateway, {Port{6101}}};
        require(engine.run(engine.kernel().install_guards(std::move(guards))));
        const SaId foreign{lab.gateway_address(Family::v4), Spi{0x10009999}};
        add_foreign(foreign);
        shell("ip xfrm state delete src 203.0.113.1 dst 192.0.2.1 proto esp spi 0x10009999");
        for (const auto& sa : {four_sas(set)[0], four_sas(set)[1]}) {  // inbound and outbound
            shell("ip xfrm state delete " + words_of(sa));
            REQUIRE(engine.hears([&](const KernelEvent& event) {
                return event.kind == Kind::sa_deleted && event.sa == sa.id && event.mark == kMark;
            }));
        }
        CHECK(std::ranges::none_of(engine.events, [&](const KernelEvent& event) { return event.sa == foreign; }));
        shell(
            "ip xfrm policy update src 0.0.0.0/0 dst 192.0.2.1/32 dport 6101 dir in priority 2000 tmpl proto esp mode transport reqid 7");
        const GuardPolicy in{Direction::in, {set.gateway, Port{6101}}}, out{Direction::out, {set.gateway, Port{6101}}};
        REQUIRE(engine.hears(
            [&](const KernelEvent& event) { return event.kind == Kind::policy_replaced && event.guard == in; }));
        shell("ip xfrm policy delete src 192.0.2.1/32 dst 0.0.0.0/0 sport 6101 dir out");
        REQUIRE(engine.hears(
            [&](const KernelEvent& event) { return event.kind == Kind::policy_deleted && event.guard == out; }));
        shell("ip xfrm policy flush");
        REQUIRE(engine.hears([](const KernelEvent& event) { return event.kind == Kind::policies_flushed; }));
        shell("ip xfrm state flush");
        REQUIRE(engine.hears([](const KernelEvent& event) { return event.kind == Kind::sas_flushed; }));
    }
}

TEST_CASE("engines: a list tells our SAs, all of them and only ours, and they can be deleted by it") {
    for (const auto kind : engines()) {
        CAPTURE(test::to_string(kind));
        Lab lab;
        Engine engine(lab, kind);
        constexpr std::uint32_t kSets = 60;  // more than one frame of reports
        for (std::uint32_t n = 0; n < kSets; ++n)
            require(install(engine, nth_set(lab, n), std::chrono::seconds{600}, Mark{0x2000 + n}));
        add_foreign({lab.gateway_address(Family::v4), Spi{0x10009999}});
        const auto told = engine.run(engine.kernel().dump());
        REQUIRE(told);
        CHECK(told->size() == 4 * kSets);
        std::vector<SaId> ids;
        for (std::uint32_t n = 0; n < kSets; ++n) {
            for (const auto& sa : four_sas(nth_set(lab, n))) {
                const auto found =
                    std::ranges::find_if(*told, [&](const SaReport& report) { return report.sa.id == sa.id; });
                REQUIRE(found != told->end());
                CHECK(found->mark == Mark{0x2000 + n});
                CHECK(found->sa.direction == sa.direction);
                CHECK(found->sa.source == sa.source);
                ids.push_back(sa.id);
            }
        }
        require(engine.run(engine.kernel().remove_sas(std::move(ids))));
        CHECK(count_sas() == 1);
        CHECK(engine.run(engine.kernel().dump())->empty());
    }
}

TEST_CASE("engines: after the engine's death its SAs are there, told with their marks, and go on being ours") {
    for (const auto kind : engines()) {
        CAPTURE(test::to_string(kind));
        Lab lab;
        Engine engine(lab, kind);
        const auto set = lab_set(lab, Family::v4, kUsual);
        require(install(engine, set, std::chrono::seconds{600}));
        const auto before = state_now();
        engine.restart();
        CHECK(state_now() == before);
        const auto told = engine.run(engine.kernel().dump());
        REQUIRE(told);
        CHECK(told->size() == 4);
        for (const auto& report : *told) CHECK(report.mark == kMark);
        // Its events, too: an EXPIRE does not tell where libcharon's engine keeps the mark, so it looks around when it
        // starts.
        require(engine.run(engine.kernel().extend_set(set, std::chrono::seconds{2})));
        REQUIRE(engine.hears(
            [&](const KernelEvent& event) { return event.kind == Kind::hard_expired && event.mark == kMark; }, 4));
        CHECK(count_sas() == 0);
        require(install(engine, lab_set(lab, Family::v6, kUsual)));
    }
}

TEST_CASE("engines: the SAs of one are read, extended and removed by another") {
    for (const auto before : engines()) {
        for (const auto after : engines()) {
            if (before == after) continue;
            CAPTURE(test::to_string(before));
            CAPTURE(test::to_string(after));
            Lab lab;
            const auto set = lab_set(lab, Family::v6, kUsual);
            {
                Engine first(lab, before);
                require(install(first, set));
            }
            Engine second(lab, after);
            const auto told = second.run(second.kernel().dump());
            REQUIRE(told);
            CHECK(told->size() == 4);
            for (const auto& report : *told) {
                CHECK(report.mark == kMark);
                const bool is_inbound = report.sa.id.destination == set.gateway;
                CHECK(report.sa.direction == (is_inbound ? Direction::in : Direction::out));
            }
            require(second.run(second.kernel().extend_set(set, std::chrono::seconds{900})));
            require(second.run(second.kernel().remove_set(set)));
            CHECK(count_sas() == 0);
        }
    }
}

TEST_CASE("engines: the probe finds every algorithm in both families, in the same words, and leaves nothing behind") {
    std::vector<std::string> reference;
    for (const auto kind : engines()) {
        CAPTURE(test::to_string(kind));
        Lab lab;
        Engine engine(lab, kind);
        const auto found = engine.run(engine.kernel().probe({kDefaultPreference.begin(), kDefaultPreference.end()}));
        REQUIRE(found);
        std::vector<std::string> features;
        for (const auto& finding : *found) {
            CAPTURE(finding.feature);
            CAPTURE(finding.reason);
            CHECK(finding.present);
            features.push_back(finding.feature);
        }
        CHECK(features.size() == 2 * kDefaultPreference.size());
        if (reference.empty()) reference = features;
        CHECK(features == reference);
        CHECK(count_sas() == 0);
    }
}
