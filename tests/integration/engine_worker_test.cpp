// The contract of a worker program (xfrm/engine/protocol.h), the same for every one of them: what it serves, and that
// what it refuses changes nothing in the kernel. Run as root in a guest.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>

#include <doctest/doctest.h>
#include <sys/wait.h>

#include "tests/integration/engine_worker.h"

using namespace gmgate;
using namespace gmgate::test;
using namespace gmgate::xfrm;

namespace {

constexpr AlgorithmPair kUsual{Alg::hmac_sha_1_96, Ealg::aes_cbc};
constexpr Mark kMark{0x1001};

gm_install usual_install(const Lab& lab, Family family = Family::v4) {
    return install_frame(request_for(lab_set(lab, family, kUsual), kMark));
}

std::string kernel_state() { return shell("ip -d xfrm state; ip -d xfrm policy"); }

void add_foreign() {
    shell(
        "ip xfrm state add src 203.0.113.1 dst 192.0.2.1 proto esp spi 0x10009999 reqid 7 mode transport "
        "aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128");
    shell(
        "ip xfrm policy add src 0.0.0.0/0 dst 192.0.2.1/32 dport 6101 dir in priority 2000 tmpl proto esp mode transport reqid 7");
}

bool contains(const Bytes& all, std::span<const std::uint8_t> part) { return !std::ranges::search(all, part).empty(); }

}  // namespace

TEST_CASE("worker: starts from its configuration, says what it is, and ends in order when gmgated's end is closed") {
    for (const auto& program : worker_programs()) {
        Lab lab;
        Worker worker(lab, program.path);
        CHECK(worker.engine() == program.engine);
        const auto status = worker.close_and_wait();
        CHECK(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 0);
    }
}

TEST_CASE("worker: is deaf to SIGTERM, SIGINT and SIGHUP, has no new privileges and a filter of system calls") {
    for (const auto& program : worker_programs()) {
        CAPTURE(program.engine);
        Lab lab;
        Worker worker(lab, program.path);
        for (const int signal : {SIGTERM, SIGINT, SIGHUP}) REQUIRE(kill(worker.pid(), signal) == 0);
        CHECK(worker.ask(GM_DUMP).done.outcome == GM_OK);
        const auto status = shell("cat /proc/" + std::to_string(worker.pid()) + "/status");
        CAPTURE(status);
        CHECK(status.find("NoNewPrivs:\t1") != std::string::npos);
        CHECK(status.find("Seccomp:\t2") != std::string::npos);
        CHECK(status.find("Threads:\t1\n") != std::string::npos);
    }
}

TEST_CASE("worker: what breaks the protocol is refused whole with EBADMSG, counted, and changes nothing") {
    for (const auto& program : worker_programs()) {
        CAPTURE(program.engine);
        Lab lab;
        add_foreign();
        Worker worker(lab, program.path);
        const auto install = usual_install(lab);
        const auto header_of = [](gm_kind kind, std::uint32_t count = 0) {
            return gm_header{.version = GM_PROTOCOL_VERSION,
                             .kind = static_cast<std::uint16_t>(kind),
                             .sequence = 77,
                             .count = count,
                             .flags = 0};
        };
        const auto altered = [&](const std::function<void(gm_install&)>& alter) {
            auto one = install;
            alter(one);
            return bytes_of(header_of(GM_INSTALL_SET), one);
        };
        const auto with_header = [&](const std::function<void(gm_header&)>& alter) {
            auto header = header_of(GM_INSTALL_SET);
            alter(header);
            return bytes_of(header, install);
        };
        auto cut = bytes_of(header_of(GM_INSTALL_SET), install);
        cut.pop_back();
        auto longer = bytes_of(header_of(GM_INSTALL_SET), install);
        longer.push_back(0);
        const std::vector<Bytes> frames{
            Bytes{1, 2, 3},
            cut,
            longer,
            Bytes(GM_FRAME_LIMIT + 1, 0),
            with_header([](gm_header& h) { h.version = GM_PROTOCOL_VERSION + 1; }),
            with_header([](gm_header& h) { h.flags = 1; }),
            with_header([](gm_header& h) { h.count = 1; }),
            with_header([](gm_header& h) { h.kind = 0; }),
            with_header([](gm_header& h) { h.kind = GM_DONE; }),
            with_header([](gm_header& h) { h.kind = 999; }),
            altered([](gm_install& i) { i.reserved = 1; }),
            altered([](gm_install& i) { i.lifetime = 0; }),
            altered([](gm_install& i) { i.reserved_too = 1; }),
            altered([](gm_install& i) { i.set.mode = 2; }),
            altered([](gm_install& i) { i.set.reserved = 1; }),
            altered([](gm_install& i) { i.port_uenc = 4500; }),
            altered([](gm_install& i) { i.set.mode = GM_UDP_ENC_TUN; }),
            altered([](gm_install& i) { i.set.pair.reserved[0] = 1; }),
            altered([](gm_install& i) {
                i.set.pair = {3, 3, {}};
            }),
            altered([](gm_install& i) { i.set.pair.alg = 9; }),
            altered([](gm_install& i) { i.set.ue.family = 5; }),
            altered([](gm_install& i) { i.set.ue.octets[4] = 1; }),
            altered([](gm_install& i) { i.set.ue.family = 6; }),
            altered([](gm_install& i) { i.set.port_uc = 0; }),
            altered([](gm_install& i) { i.set.spi_us = 0; }),
            altered([](gm_install& i) { i.set.spi_us = i.set.spi_uc; }),
            altered([](gm_install& i) { i.set.spi_pc = i.set.spi_ps; }),
            altered([](gm_install& i) { i.integrity_size = 16; }),
            altered([](gm_install& i) { i.integrity_size = 255; }),
            altered([](gm_install& i) { i.confidentiality_size = 24; }),
            altered([](gm_install& i) { i.confidentiality[16] = 1; }),
            altered([](gm_install& i) { i.combined[0] = 1; }),
            altered([](gm_install& i) { i.combined_size = 20; }),
            bytes_of(header_of(GM_EXTEND_SET), gm_extend{.set = install.set, .lifetime = 0}),
            bytes_of(header_of(GM_REMOVE_SET)),
            bytes_of(header_of(GM_REMOVE_SAS)),
            bytes_of(header_of(GM_REMOVE_SAS, 2), gm_sa_id{.destination = install.set.ue, .spi = 1}),
            bytes_of(header_of(GM_REMOVE_SAS, 1), gm_sa_id{.destination = install.set.ue, .spi = 0}),
            bytes_of(header_of(GM_REMOVE_SAS, 0x20000000), gm_sa_id{.destination = install.set.ue, .spi = 1}),
            bytes_of(header_of(GM_DUMP), std::uint32_t{0}),
            bytes_of(header_of(GM_INSTALL_GUARDS),
                     gm_guards{.gateway = install.set.gateway, .nat_first = 0, .nat_size = 0}),
            bytes_of(header_of(GM_INSTALL_GUARDS, 2),
                     gm_guards{.gateway = install.set.gateway, .nat_first = 0, .nat_size = 0}, std::uint16_t{6100}),
            bytes_of(header_of(GM_INSTALL_GUARDS, 0xffffffff),
                     gm_guards{.gateway = install.set.gateway, .nat_first = 0, .nat_size = 0}, std::uint16_t{6100}),
            bytes_of(header_of(GM_PROBE)),
            bytes_of(header_of(GM_PROBE, 1), gm_pair{3, 3, {}}),
            bytes_of(header_of(GM_PROBE, 9), std::array<gm_pair, 9>{}),
        };
        const auto before = kernel_state();
        for (std::size_t i = 0; i < frames.size(); ++i) {
            CAPTURE(i);
            const auto answer = worker.ask_raw(frames[i]);
            CAPTURE(answer.done.text);
            CHECK(answer.done.outcome == GM_REFUSED);
            CHECK(answer.done.code == EBADMSG);
            CHECK(answer.done.counters.malformed == i + 1);
        }
        CHECK(kernel_state() == before);
        CHECK(worker.ask(GM_INSTALL_SET, bytes_of(install)).done.outcome == GM_OK);  // and it still works
    }
}

TEST_CASE("worker: what the configuration does not name is refused with EPERM, counted, and changes nothing") {
    for (const auto& program : worker_programs()) {
        CAPTURE(program.engine);
        Lab lab;
        add_foreign();
        Worker worker(lab, program.path);
        const auto install = usual_install(lab);
        const auto altered = [&](const std::function<void(gm_install&)>& alter) {
            auto one = install;
            alter(one);
            return bytes_of(one);
        };
        const auto moved = [&](const std::function<void(gm_set&)>& alter) {
            auto one = install.set;
            alter(one);
            return bytes_of(one);
        };
        const gm_address elsewhere = frame_of(*Address::parse("203.0.113.7")),
                         multicast = frame_of(*Address::parse("224.0.0.1"));
        struct Forged {
            gm_kind kind;
            Bytes body;
            std::uint32_t count = 0;
        };
        const std::vector<Forged> requests{
            {GM_INSTALL_SET, altered([](gm_install& i) { i.reqid = 7; })},
            {GM_INSTALL_SET, altered([](gm_install& i) { i.mark = 0; })},
            {GM_INSTALL_SET, altered([](gm_install& i) {  // no ports of this configuration are for phones behind NAT
                 i.set.mode = GM_UDP_ENC_TUN;
                 i.port_uenc = 4500;
             })},
            {GM_INSTALL_SET, altered([](gm_install& i) { i.mark = 0x01000000; })},
            {GM_INSTALL_SET, altered([](gm_install& i) { i.set.spi_pc = 0x0fffffff; })},
            {GM_INSTALL_SET, altered([](gm_install& i) { i.set.spi_ps = 0xc0000000; })},
            {GM_INSTALL_SET, altered([&](gm_install& i) { i.set.gateway = elsewhere; })},
            {GM_INSTALL_SET, altered([](gm_install& i) { i.set.port_ps = 5060; })},
            {GM_INSTALL_SET, altered([](gm_install& i) { i.set.port_pc = 6102; })},
            {GM_INSTALL_SET, altered([&](gm_install& i) { i.set.ue = i.set.gateway; })},
            {GM_INSTALL_SET, altered([&](gm_install& i) { i.set.ue = multicast; })},
            {GM_INSTALL_SET, altered([](gm_install& i) { std::ranges::fill(i.set.ue.octets, std::uint8_t{0}); })},
            {GM_EXTEND_SET, bytes_of(gm_extend{.set =
                                                   [&] {
                                                       auto s = install.set;
                                                       s.gateway = elsewhere;
                                                       return s;
                                                   }(),
                                               .lifetime = 60})},
            {GM_REMOVE_SET, moved([&](gm_set& s) { s.gateway = elsewhere; })},
            {GM_REMOVE_SET, moved([](gm_set& s) { s.port_ps = 5060; })},
            {GM_REPORT_SET, moved([&](gm_set& s) { s.gateway = elsewhere; })},
            {GM_INSTALL_GUARDS,
             bytes_of(gm_guards{.gateway = elsewhere, .nat_first = 0, .nat_size = 0}, std::uint16_t{6100}), 1},
            {GM_INSTALL_GUARDS,
             bytes_of(gm_guards{.gateway = install.set.gateway, .nat_first = 0, .nat_size = 0}, std::uint16_t{6100},
                      std::uint16_t{22}),
             2},
            {GM_REMOVE_SAS, bytes_of(gm_sa_id{.destination = install.set.gateway, .spi = 0x10009999}), 1},  // another's
            {GM_CONFIGURE, bytes_of(gm_configuration{.reqid = 7,
                                                     .mark_mask = 0xffffffff,
                                                     .spi_first = 256,
                                                     .spi_last = 0xffffffff,
                                                     .sa_limit = 0,
                                                     .reserved = 0})},
        };
        const auto before = kernel_state();
        for (std::size_t i = 0; i < requests.size(); ++i) {
            CAPTURE(i);
            const auto answer = worker.ask(requests[i].kind, requests[i].body, requests[i].count);
            CAPTURE(answer.done.text);
            CHECK(answer.done.outcome == GM_REFUSED);
            CHECK(answer.done.code == EPERM);
            CHECK(answer.done.counters.forbidden == i + 1);
        }
        CHECK(kernel_state() == before);
        // To remove guards is no request: who has taken gmgated over cannot open a port.
        constexpr auto kRemoveGuards = static_cast<gm_kind>(9);  // in an earlier version of the protocol
        const auto opened = worker.ask(
            kRemoveGuards,
            bytes_of(gm_guards{.gateway = install.set.gateway, .nat_first = 0, .nat_size = 0}, std::uint16_t{6101}), 1);
        CHECK(opened.done.outcome == GM_REFUSED);
        CHECK(opened.done.code == EBADMSG);
        CHECK(kernel_state() == before);
    }
}

TEST_CASE("worker: no answer and no event carries a key") {
    for (const auto& program : worker_programs()) {
        CAPTURE(program.engine);
        Lab lab;
        Worker worker(lab, program.path);
        for (const auto pair : {kUsual, AlgorithmPair{Alg::null, Ealg::aes_gcm}}) {
            const auto set = lab_set(lab, Family::v6, pair);
            const auto request = request_for(set, kMark);
            const std::span<const std::uint8_t> key =
                pair == kUsual ? request.keys.confidentiality.expose() : request.keys.combined.expose();
            CHECK(contains(bytes_of(install_frame(request)), key));  // what is looked for can be found
            Bytes all;
            const auto keep = [&](const WorkerAnswer& answer) {
                CHECK(answer.done.outcome == GM_OK);
                all.insert(all.end(), answer.all.begin(), answer.all.end());
                return answer;
            };
            keep(worker.ask(GM_INSTALL_SET, bytes_of(install_frame(request))));
            CHECK(keep(worker.ask(GM_DUMP)).reports.size() == 4);
            CHECK(keep(worker.ask(GM_REPORT_SET, bytes_of(frame_of(set)))).reports.size() == 4);
            worker.events.clear();
            shell("ip xfrm state delete src 2001:db8:1::9 dst 2001:db8:1::1 proto esp spi 0x10002222");
            const auto deleted = worker.hears(GM_SA_DELETED, 0x10002222);
            REQUIRE(deleted);
            CHECK(deleted->mark == kMark.value);
            append(all, *deleted);
            keep(worker.ask(GM_REMOVE_SET, bytes_of(frame_of(set))));
            CHECK_FALSE(contains(all, key.first(8)));
        }
    }
}

TEST_CASE("worker: no more SAs than its configuration allows") {
    for (const auto& program : worker_programs()) {
        CAPTURE(program.engine);
        Lab lab;
        Worker worker(lab, program.path, 4);
        auto second = usual_install(lab, Family::v6);
        CHECK(worker.ask(GM_INSTALL_SET, bytes_of(usual_install(lab))).done.outcome == GM_OK);
        CHECK(worker.ask(GM_INSTALL_SET, bytes_of(second)).done.outcome == GM_EXHAUSTED);
        CHECK(worker.ask(GM_DUMP).reports.size() == 4);
        shell("ip xfrm state flush");
        REQUIRE(worker.hears(GM_SAS_FLUSHED));
        CHECK(worker.ask(GM_INSTALL_SET, bytes_of(second)).done.outcome == GM_OK);
    }
}
