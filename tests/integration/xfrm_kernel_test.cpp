// NetlinkKernel on a real kernel: what it writes is read back by iproute2, and carries traffic. Run as root.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/integration/xfrm_lab.h"
#include "xfrm/algorithms.h"

using namespace gmgate;
using namespace gmgate::test;
using namespace gmgate::xfrm;

namespace {

constexpr AlgorithmPair kUsual{Alg::hmac_sha_1_96, Ealg::aes_cbc};
constexpr Mark kMark{0x1001}, kOtherMark{0x1002};
constexpr Family kFamilies[] = {Family::v4, Family::v6};

std::string hex(std::span<const std::uint8_t> bytes) {
    std::string out = bytes.empty() ? "" : "0x";
    for (const auto b : bytes) {
        out += "0123456789abcdef"[b >> 4];
        out += "0123456789abcdef"[b & 15];
    }
    return out;
}

// iproute2's words for one SA, from its own parts: an independent reading of what the codec wrote.
std::vector<std::string> expected_lines(const Sa& sa, const SetRequest& request) {
    const auto* names = find_algorithms(request.parameters.algorithms);
    const auto bits = sa.source.address.is_v6() ? "/128" : "/32";
    const auto from = sa.source.address.to_string(), to = sa.destination.address.to_string();
    std::vector<std::string> lines{
        "src " + from + " dst " + to,
        "reqid 21321(0x00005349) mode transport",
        "replay-window 0 seq 0x00004097 flag  (0x00000000)",  // the mark, 0x1001; iproute2 6.1 prints it in decimal
                                                              // behind 0x
        "replay_window 64, bitmap-length 2",
        "sel src " + from + bits + " dst " + to + bits + " sport " + std::to_string(sa.source.port.value) + " dport " +
            std::to_string(sa.destination.port.value),
        "expire add: soft 0(sec), hard 600(sec)",
        "limit: soft (INF)(bytes), hard (INF)(bytes)",
        "limit: soft (INF)(packets), hard (INF)(packets)",
    };
    if (!names->aead.empty()) {
        lines.push_back("aead " + std::string(names->aead) + " " + hex(request.keys.combined.expose()) +
                        " (160 bits) 128");
    } else {
        lines.push_back("auth-trunc " + std::string(names->auth) + " " + hex(request.keys.integrity.expose()) + " (" +
                        std::to_string(names->auth_key_bits) + " bits) 96");
        lines.push_back("enc " + std::string(names->crypt) + " " + hex(request.keys.confidentiality.expose()));
    }
    if (sa.direction == Direction::in) lines.push_back("output-mark 0x1001/0xffffffff");
    return lines;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// One text per SA of `ip xfrm state`.
std::vector<std::string> blocks_of(const std::string& text) {
    std::vector<std::string> blocks;
    for (std::size_t at = 0; at < text.size();) {
        const auto next = text.find("\nsrc ", at);
        blocks.push_back(text.substr(at, next == std::string::npos ? next : next + 1 - at));
        at = next == std::string::npos ? text.size() : next + 1;
    }
    return blocks;
}

std::size_t count_sas() {
    const auto text = shell("ip xfrm state list nokeys");
    std::size_t count = 0;
    for (std::size_t at = text.find("proto esp"); at != std::string::npos; at = text.find("proto esp", at + 1)) ++count;
    return count;
}

void install_both(Lab& lab, const SetParameters& set, Mark mark = kMark) {
    auto request = request_for(set, mark);
    const auto here = finish(lab.io(), lab.gateway().install_set(std::move(request)));
    INFO((here ? "" : here.error().text));
    REQUIRE(here);
    auto mirror = request_for(mirrored(set), mark);
    REQUIRE(finish(lab.io(), lab.ue().install_set(std::move(mirror))));
}

void guard_both(Lab& lab, const SetParameters& set) {
    GuardRequest here{set.gateway, {set.port_pc, set.port_ps}};
    REQUIRE(finish(lab.io(), lab.gateway().install_guards(std::move(here))));
    GuardRequest there{set.ue, {set.port_uc, set.port_us}};
    REQUIRE(finish(lab.io(), lab.ue().install_guards(std::move(there))));
}

std::map<std::uint32_t, std::uint64_t> packets_by_spi(Lab& lab) {
    std::map<std::uint32_t, std::uint64_t> out;
    const auto told = finish(lab.io(), lab.gateway().dump());
    REQUIRE(told);
    for (const auto& report : *told) out[report.sa.id.spi.value] = report.packets;
    return out;
}

// A second phone's set at the same address.
SetParameters second_set(const SetParameters& first) {
    auto set = first;
    set.port_uc = Port{5164};
    set.port_us = Port{5166};
    set.spi_uc = Spi{3333};
    set.spi_us = Spi{4444};
    set.spi_pc = Spi{0x10003333};
    set.spi_ps = Spi{0x10004444};
    return set;
}

// Begins a connection; who it comes from is what the socket is bound to.
void connect_to(const Fd& socket, const Endpoint& remote) {
    sockaddr_storage to{};
    const auto size = remote.to_sockaddr(to);
    connect(socket.get(), reinterpret_cast<sockaddr*>(&to), size);
}

std::optional<Fd> accepted_by(const Fd& listener) {
    int fd = -1;
    if (!eventually(
            [&] { return (fd = accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0; }))
        return std::nullopt;
    return std::optional<Fd>(std::in_place, fd);
}

Mark mark_of(const Fd& socket) {
    std::uint32_t mark = 0;
    socklen_t size = sizeof mark;
    REQUIRE(getsockopt(socket.get(), SOL_SOCKET, SO_MARK, &mark, &size) == 0);
    return Mark{mark};
}

}  // namespace

TEST_CASE("B-72: every algorithm pair in both families is what iproute2 and our dump read back") {
    for (const auto family : kFamilies) {
        Lab lab;
        for (const auto pair : kDefaultPreference) {
            const auto set = lab_set(lab, family, pair);
            auto request = request_for(set, kMark);
            const auto reference = request_for(set, kMark);
            CAPTURE(to_string(pair.alg));
            CAPTURE(to_string(pair.ealg));
            const auto installed = finish(lab.io(), lab.gateway().install_set(std::move(request)));
            INFO((installed ? "" : installed.error().text));
            REQUIRE(installed);
            const auto blocks = blocks_of(shell("ip -d -s xfrm state"));
            CHECK(blocks.size() == 4);
            for (const auto& sa : four_sas(set)) {
                const auto block = std::ranges::find_if(blocks, [&](const std::string& b) {
                    return has(b, "(" + std::to_string(sa.id.spi.value) + ") reqid");
                });
                REQUIRE(block != blocks.end());
                const auto& text = *block;
                CAPTURE(text);
                for (const auto& line : expected_lines(sa, reference)) CHECK_MESSAGE(has(text, line), line);
                CHECK(has(text, "output-mark") == (sa.direction == Direction::in));
            }
            const auto told = finish(lab.io(), lab.gateway().dump());
            REQUIRE(told);
            REQUIRE(told->size() == 4);
            for (const auto& sa : four_sas(set)) {
                const auto found = std::ranges::find_if(*told, [&](const SaReport& r) { return r.sa.id == sa.id; });
                REQUIRE(found != told->end());
                CHECK(found->sa.source == sa.source);
                CHECK(found->sa.destination == sa.destination);
                CHECK(found->sa.direction == sa.direction);
                CHECK(found->algorithms == pair);
                CHECK(found->mark == kMark);
                CHECK(found->hard_lifetime == std::chrono::seconds{600});
                CHECK(std::chrono::abs(found->added - lab.clock().wall()) < std::chrono::seconds{60});
            }
            REQUIRE(finish(lab.io(), lab.gateway().remove_set(set)));
            CHECK(count_sas() == 0);
            CHECK(finish(lab.io(), lab.gateway().remove_set(set)));  // gone already is no error
        }
    }
}

TEST_CASE("B-15, B-23: UDP and TCP run through the four SAs, and the mark says which set carried a datagram") {
    for (const auto family : kFamilies) {
        for (const auto pair : kDefaultPreference) {
            CAPTURE(to_string(pair.alg));
            CAPTURE(to_string(pair.ealg));
            Lab lab;
            const auto set = lab_set(lab, family, pair);
            guard_both(lab, set);
            install_both(lab, set);
            const Endpoint ps{set.gateway, set.port_ps}, pc{set.gateway, set.port_pc}, uc{set.ue, set.port_uc},
                us{set.ue, set.port_us};

            const auto gw_ps = bound_socket(SOCK_DGRAM, ps), gw_pc = bound_socket(SOCK_DGRAM, pc);
            const auto gw_listen = bound_socket(SOCK_STREAM, ps);
            REQUIRE(listen(gw_listen.get(), 4) == 0);
            lab.enter_ue();
            const auto ue_uc = bound_socket(SOCK_DGRAM, uc), ue_us = bound_socket(SOCK_DGRAM, us);
            const auto ue_stream = bound_socket(SOCK_STREAM, uc), ue_listen = bound_socket(SOCK_STREAM, us);
            REQUIRE(listen(ue_listen.get(), 4) == 0);

            // SA1 and SA2: UDP
            REQUIRE(send_to(ue_uc, ps, "REGISTER"));
            const auto request = receive(gw_ps);
            REQUIRE(request);
            CHECK(request->text == "REGISTER");
            CHECK(Mark{request->mark} == kMark);
            REQUIRE(send_to(gw_pc, us, "200"));
            const auto answer = receive(ue_us);
            REQUIRE(answer);
            CHECK(answer->text == "200");

            // SA1 and SA4: a TCP connection that the UE opens
            connect_to(ue_stream, ps);
            const auto gw_stream = accepted_by(gw_listen);
            REQUIRE(gw_stream);
            REQUIRE(eventually([&] { return send(ue_stream.get(), "INVITE", 6, MSG_NOSIGNAL) == 6; }));
            const auto invite = receive(*gw_stream);
            REQUIRE(invite);
            CHECK(invite->text == "INVITE");

            // SA2 and SA3: one that the gateway opens
            lab.enter_gateway();
            const auto gw_out = bound_socket(SOCK_STREAM, pc);
            connect_to(gw_out, us);
            const auto ue_in = accepted_by(ue_listen);
            REQUIRE(ue_in);
            REQUIRE(eventually([&] { return send(ue_in->get(), "MESSAGE", 7, MSG_NOSIGNAL) == 7; }));
            const auto message = receive(gw_out);
            REQUIRE(message);
            CHECK(message->text == "MESSAGE");

            for (const auto& [spi, packets] : packets_by_spi(lab)) CHECK_MESSAGE(packets > 0, spi);
            CHECK(xfrm_stat("XfrmInTmplMismatch") == 0);
            CHECK(xfrm_stat("XfrmOutNoStates") == 0);
        }
    }
}

// What the identity of a message over TCP rests on where no mark is told (Table::owner_of).
TEST_CASE(
    "TCP: a set is held to its own ports, so no connection from another phone's port comes up; net.ipv4.tcp_fwmark_accept adds the mark") {
    for (const auto family : kFamilies) {
        for (const bool tells_marks : {false, true}) {
            CAPTURE(tells_marks);
            Lab lab;
            if (tells_marks) shell("sysctl -qw net.ipv4.tcp_fwmark_accept=1");
            const auto mine = lab_set(lab, family, kUsual), theirs = second_set(mine);
            guard_both(lab, mine);
            guard_both(lab, theirs);
            auto request = request_for(theirs, kOtherMark);
            REQUIRE(finish(lab.io(), lab.gateway().install_set(std::move(request))));
            install_both(lab, mine);
            const Endpoint ps{mine.gateway, mine.port_ps};
            const auto listener = bound_socket(SOCK_STREAM, ps);
            REQUIRE(listen(listener.get(), 4) == 0);
            lab.enter_ue();
            const auto stream = bound_socket(SOCK_STREAM, {mine.ue, mine.port_uc});
            connect_to(stream, ps);
            const auto accepted = accepted_by(listener);
            REQUIRE(accepted);
            CHECK(mark_of(*accepted) == (tells_marks ? kMark : Mark{}));

            // The same SAs from the other phone's port: only a phone whose own kernel was told wrong selectors gets
            // that far.
            REQUIRE(finish(lab.io(), lab.gateway().remove_set(mine)));
            REQUIRE(finish(lab.io(), lab.ue().remove_set(mirrored(mine))));
            auto lying = mine;
            lying.port_uc = theirs.port_uc;
            auto here = request_for(mine, kMark), there = request_for(mirrored(lying), kMark);
            REQUIRE(finish(lab.io(), lab.gateway().install_set(std::move(here))));
            REQUIRE(finish(lab.io(), lab.ue().install_set(std::move(there))));
            const auto thief = bound_socket(SOCK_STREAM, {theirs.ue, theirs.port_uc});
            connect_to(thief, ps);
            lab.enter_gateway();
            CHECK(eventually([] { return xfrm_stat("XfrmInStateMismatch") > 0; }));
            CHECK(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC) < 0);
        }
    }
}

TEST_CASE("B-13: guards drop clear text in both directions, and do so without any SA") {
    for (const auto family : kFamilies) {
        Lab lab;
        const auto set = lab_set(lab, family, kUsual);
        GuardRequest guards{set.gateway, {set.port_pc, set.port_ps}};
        REQUIRE(finish(lab.io(), lab.gateway().install_guards(std::move(guards))));
        const auto gw_ps = bound_socket(SOCK_DGRAM, {set.gateway, set.port_ps});
        const auto gw_open = bound_socket(SOCK_DGRAM, {set.gateway, Port{5060}});
        lab.enter_ue();
        const auto ue = bound_socket(SOCK_DGRAM, {set.ue, set.port_uc});
        REQUIRE(send_to(ue, {set.gateway, set.port_ps}, "clear"));
        REQUIRE(send_to(ue, {set.gateway, Port{5060}}, "unprotected"));
        REQUIRE(receive(gw_open));  // came behind the dropped one
        lab.enter_gateway();
        CHECK(xfrm_stat("XfrmInTmplMismatch") == 1);
        char byte = 0;
        CHECK(recv(gw_ps.get(), &byte, 1, MSG_DONTWAIT) < 0);

        const auto before = xfrm_stat("XfrmOutNoStates");
        send_to(gw_ps, {set.ue, set.port_uc}, "clear");  // succeeds or not, but never leaves
        REQUIRE(send_to(gw_open, {set.ue, set.port_uc}, "unprotected"));
        const auto got = receive(ue);
        REQUIRE(got);
        CHECK(got->text == "unprotected");
        CHECK(xfrm_stat("XfrmOutNoStates") == before + 1);
    }
}

TEST_CASE("XFRM_POLICY_ICMP: a port-unreachable about a protected datagram leaves as ESP, not in clear") {
    for (const auto family : kFamilies) {
        Lab lab;
        const auto set = lab_set(lab, family, kUsual);
        guard_both(lab, set);
        install_both(lab, set);
        lab.enter_ue();
        // A tap at the UE's interface, before any decryption: everything that came over the link.
        const Fd tap(::socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(0x0003)));
        REQUIRE(tap.get() >= 0);
        const auto ue = bound_socket(SOCK_DGRAM, {set.ue, set.port_uc});
        REQUIRE(send_to(ue, {set.gateway, set.port_ps}, "NOBODY-LISTENS"));
        // SA4 (port_ps to port_uc) carries the error, since its selector is the quoted datagram's, reversed.
        CHECK(eventually([&] { return packets_by_spi(lab)[set.spi_uc.value] == 1; }));
        bool saw_esp = false, saw_clear = false;
        REQUIRE(eventually([&] {
            char data[2048];
            ssize_t size = 0;
            while ((size = recv(tap.get(), data, sizeof data, MSG_DONTWAIT)) > 0) {
                const std::string_view packet(data, static_cast<std::size_t>(size));
                const auto protocol = static_cast<unsigned char>(packet[family == Family::v4 ? 9 : 6]);
                saw_esp |= protocol == IPPROTO_ESP;
                saw_clear |= packet.find("NOBODY-LISTENS") != std::string_view::npos;
            }
            return saw_esp;
        }));
        CHECK_FALSE(saw_clear);
    }
}

TEST_CASE("Kernel first: an SPI that is taken refuses the set and leaves none of the four, whichever of them it is") {
    for (std::size_t taken = 0; taken < 4; ++taken) {
        Lab lab;
        const auto set = lab_set(lab, Family::v4, kUsual);
        const auto id = four_sas(set)[taken].id;
        shell("ip xfrm state add src 203.0.113.1 dst " + id.destination.to_string() + " proto esp spi " +
              std::to_string(id.spi.value) +
              " reqid 7 mode transport aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128");
        auto request = request_for(set, kMark);
        const auto refused = finish(lab.io(), lab.gateway().install_set(std::move(request)));
        REQUIRE_FALSE(refused);
        CHECK(refused.error().reaction == Reaction::refused);
        CHECK(refused.error().code == EEXIST);
        CHECK(count_sas() == 1);  // the other's stays
        CHECK(finish(lab.io(), lab.gateway().dump())->empty());
        CHECK(lab.gateway().counters().rollbacks == 3);
        CHECK(lab.gateway().counters().sets_refused == 1);
    }
}

TEST_CASE("The kernel's own words about a refusal arrive through the extended acknowledgement") {
    Lab lab;
    auto socket = make_xfrm_socket(lab.io().get_executor());
    const auto queue =
        std::make_shared<NetlinkQueue>(lab.io().get_executor(), std::move(socket), NetlinkQueue::Settings{});
    const auto set = lab_set(lab, Family::v4, {Alg::null, Ealg::aes_gcm});
    const auto request = request_for(set, kMark);
    const auto sas = four_sas(set);
    MessageBuffer messages(2);
    for (std::size_t i = 0; i < 2; ++i)
        REQUIRE(append_new_sa(messages, {sas[i], set.algorithms, request.keys, kMark, request.lifetime}, {}));
    const auto first = messages.message(0);
    const std::string_view name = "rfc4106(gcm(aes))";
    const auto at = std::ranges::search(first, name, {}, [](std::uint8_t b) { return static_cast<char>(b); });
    REQUIRE_FALSE(at.empty());
    at.front() = 'x';
    const auto answer = finish(lab.io(), queue->exchange(std::move(messages), NetlinkQueue::Place::back));
    REQUIRE(answer);
    CHECK(answer->outcomes[0].code == ENOSYS);
    CHECK(answer->outcomes[0].text == "Requested AEAD algorithm not found");
    CHECK(answer->outcomes[1].code ==
          0);  // a failing message does not stop the rest: that is why we roll back ourselves
    queue->close();
}

TEST_CASE("B-51: extend_set moves the hard limit, keeps keys and replay state, and the SAs expire at it") {
    Lab lab;
    const auto set = lab_set(lab, Family::v4, kUsual);
    guard_both(lab, set);
    auto request = request_for(set, kMark, std::chrono::seconds{60});
    REQUIRE(finish(lab.io(), lab.gateway().install_set(std::move(request))));
    auto mirror = request_for(mirrored(set), kMark);
    REQUIRE(finish(lab.io(), lab.ue().install_set(std::move(mirror))));
    const auto keys_before = shell("ip xfrm state | grep -E 'auth-trunc|enc|sel'");

    REQUIRE(finish(lab.io(), lab.gateway().extend_set(set, std::chrono::seconds{900})));
    CHECK(shell("ip xfrm state | grep -E 'auth-trunc|enc|sel'") == keys_before);
    const auto told = finish(lab.io(), lab.gateway().dump());
    REQUIRE(told);
    for (const auto& report : *told) {
        CHECK(report.hard_lifetime >= std::chrono::seconds{900});
        CHECK(report.hard_lifetime <= std::chrono::seconds{960});
        CHECK(report.algorithms == kUsual);
    }
    // They carry traffic with the keys of the start.
    const auto gw = bound_socket(SOCK_DGRAM, {set.gateway, set.port_ps});
    lab.enter_ue();
    const auto ue = bound_socket(SOCK_DGRAM, {set.ue, set.port_uc});
    REQUIRE(send_to(ue, {set.gateway, set.port_ps}, "still"));
    const auto got = receive(gw);
    REQUIRE(got);
    CHECK(Mark{got->mark} == kMark);
    // At a new limit they are gone, within a few seconds of the kernel's timer, and not at once.
    lab.enter_gateway();
    const auto limited_at = std::chrono::steady_clock::now();
    REQUIRE(finish(lab.io(), lab.gateway().extend_set(set, std::chrono::seconds{3})));
    const auto gone = [&] { return finish(lab.io(), lab.gateway().dump())->empty(); };
    CHECK(eventually(gone));
    CHECK(std::chrono::steady_clock::now() >= limited_at + std::chrono::milliseconds{1500});
    // What is gone cannot be extended, and trying leaves nothing.
    const auto late = finish(lab.io(), lab.gateway().extend_set(set, std::chrono::seconds{5}));
    REQUIRE_FALSE(late);
    CHECK(late.error().code == ESRCH);
    CHECK(count_sas() == 0);
}

TEST_CASE("B-51: SAs whose limit was extended outlive the first limit") {
    Lab lab;
    const auto set = lab_set(lab, Family::v6, kUsual);
    auto request = request_for(set, kMark, std::chrono::seconds{5});
    REQUIRE(finish(lab.io(), lab.gateway().install_set(std::move(request))));
    REQUIRE(finish(lab.io(), lab.gateway().extend_set(set, std::chrono::seconds{600})));
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds{7500};
    const auto is_over = [&] { return std::chrono::steady_clock::now() > until; };
    while (!eventually(is_over, std::chrono::seconds{1})) CHECK(finish(lab.io(), lab.gateway().dump())->size() == 4);
    CHECK(finish(lab.io(), lab.gateway().dump())->size() == 4);
}

TEST_CASE("Guards: the few of one address, read back by iproute2; equal ones are kept") {
    Lab lab;
    const auto address = lab.gateway_address(Family::v6);
    const GuardRequest wanted{address, {Port{6100}, Port{6101}}};
    auto first = wanted, second = wanted, third = wanted;
    REQUIRE(finish(lab.io(), lab.gateway().install_guards(std::move(first))));
    const auto text = shell("ip -d xfrm policy");
    CAPTURE(text);
    CHECK(has(text, "src ::/0 dst 2001:db8:1::1/128 dport 6101"));
    CHECK(has(text, "src 2001:db8:1::1/128 dst ::/0 sport 6101"));
    CHECK(has(text, "dir out priority 2000 ptype main flag icmp"));
    CHECK(has(text, "dir in priority 2000 ptype main \n"));
    CHECK(has(text, "tmpl src :: dst ::\n\t\tproto esp reqid 21321 mode transport"));
    REQUIRE(finish(lab.io(), lab.gateway().install_guards(std::move(second))));
    CHECK(shell("ip -d xfrm policy | grep -c 'dir '") == "4\n");
    auto fourth = wanted, fifth = wanted;
    CHECK(*finish(lab.io(), lab.gateway().report_guards(std::move(fourth))) == guard_policies(wanted));
    shell(
        "ip xfrm policy delete src 2001:db8:1::1/128 dst ::/0 sport 6101 dir out; ip xfrm policy update src ::/0 dst 2001:db8:1::1/128 dport 6100 dir in action block priority 2000");
    const auto standing = *finish(
        lab.io(),
        lab.gateway().report_guards(std::move(fifth)));  // neither the missing one nor what stands in a guard's place
    CHECK(standing ==
          std::vector<GuardPolicy>{{Direction::out, {address, Port{6100}}}, {Direction::in, {address, Port{6101}}}});
    shell("ip xfrm policy delete src ::/0 dst 2001:db8:1::1/128 dport 6100 dir in");
    REQUIRE(finish(lab.io(), lab.gateway().remove_guards(std::move(third))));
    CHECK(shell("ip xfrm policy").empty());
}

TEST_CASE("Another policy in the place of a guard is refused, what was added is taken back, and theirs stays") {
    Lab lab;
    asio::io_context& io = lab.io();
    const auto address = lab.gateway_address(Family::v4);
    NetlinkSettings foreign;
    foreign.owner.reqid = ReqId{7};
    NetlinkKernel other(io.get_executor(), lab.clock(), foreign);
    GuardRequest theirs{address, {Port{6101}}};
    REQUIRE(finish(io, other.install_guards(std::move(theirs))));
    GuardRequest ours{address, {Port{6100}, Port{6101}}};
    const auto refused = finish(io, lab.gateway().install_guards(std::move(ours)));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == EEXIST);
    CHECK(has(refused.error().text, "reqid 7"));
    CHECK(shell("ip xfrm policy | grep -c 'dir '") == "2\n");
    // remove_guards takes ours only
    GuardRequest again{address, {Port{6100}, Port{6101}}};
    CHECK(finish(io, lab.gateway().remove_guards(std::move(again))));
    CHECK(shell("ip xfrm policy | grep -c 'dir '") == "2\n");
}

TEST_CASE("The probe finds every algorithm in both families and leaves nothing behind") {
    Lab lab;
    const auto found = finish(lab.io(), lab.gateway().probe({kDefaultPreference.begin(), kDefaultPreference.end()}));
    REQUIRE(found);
    CHECK(found->size() == 2 * kDefaultPreference.size());
    for (const auto& finding : *found) {
        CAPTURE(finding.feature);
        CAPTURE(finding.reason);
        CHECK(finding.present);
    }
    CHECK(count_sas() == 0);
}

TEST_CASE("One registration costs one send and one receive; sets that wait together share them") {
    Lab lab;
    const auto base = lab_set(lab, Family::v4, kUsual);
    const auto nth = [&](std::uint32_t n) {
        auto p = base;
        p.port_uc = Port{static_cast<std::uint16_t>(20000 + 2 * n)};
        p.port_us = Port{static_cast<std::uint16_t>(20001 + 2 * n)};
        p.spi_uc = Spi{1000 + 2 * n};
        p.spi_us = Spi{1001 + 2 * n};
        p.spi_pc = Spi{0x20000000 + 2 * n};
        p.spi_ps = Spi{0x20000001 + 2 * n};
        return p;
    };
    const auto start = lab.gateway().counters();
    auto one = request_for(nth(0), kMark);
    REQUIRE(finish(lab.io(), lab.gateway().install_set(std::move(one))));
    const auto after_one = lab.gateway().counters();
    CHECK(after_one.system_calls - start.system_calls == 2);
    CHECK(after_one.requests - start.requests == 4);

    constexpr std::uint32_t kMany = 250;
    std::size_t done = 0;
    for (std::uint32_t n = 1; n <= kMany; ++n) {
        auto request = request_for(nth(n), Mark{kMark.value + n});
        asio::co_spawn(lab.io(), lab.gateway().install_set(std::move(request)),
                       [&done](std::exception_ptr, const Result<void>& result) { done += result ? 1 : 0; });
    }
    lab.io().restart();
    lab.io().run();
    CHECK(done == kMany);
    const auto after_many = lab.gateway().counters();
    CHECK(after_many.requests - after_one.requests == 4 * kMany);
    CHECK(after_many.system_calls - after_one.system_calls <= 2 * (kMany / 16 + 2));
    const auto told = finish(lab.io(), lab.gateway().dump());
    REQUIRE(told);
    CHECK(told->size() == 4 * (kMany + 1));
    std::vector<SaId> ids;
    for (const auto& report : *told) ids.push_back(report.sa.id);
    REQUIRE(finish(lab.io(), lab.gateway().remove_sas(std::move(ids))));
    CHECK(count_sas() == 0);
}

TEST_CASE("dump tells our SAs only") {
    Lab lab;
    shell(
        "ip xfrm state add src 203.0.113.1 dst 192.0.2.1 proto esp spi 0x9999 reqid 7 mode transport "
        "aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128");
    shell(
        "ip xfrm state add src 203.0.113.1 dst 192.0.2.1 proto esp spi 0x999a reqid 21321 mode tunnel "
        "aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128");
    CHECK(finish(lab.io(), lab.gateway().dump())->empty());
    CHECK(count_sas() == 2);
}
