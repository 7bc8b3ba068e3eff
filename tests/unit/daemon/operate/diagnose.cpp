// Why does this phone not register: from evidence to verdict, and what the packet tap reads.
#include <doctest/doctest.h>

#include <functional>

#include <asio/io_context.hpp>

#include "daemon/operate/diagnose.h"
#include "daemon/operate/packet_tap.h"

using namespace gmgate;
using namespace gmgate::daemon;

namespace {

const WallTime kNow{std::chrono::seconds{1'800'000'000}};
const Impi kPhone{"001010000000001@ims.example"};

xfrm::SetParameters parameters() {
    return {.ue = *Address::parse("10.1.0.2"),
            .gateway = *Address::parse("10.1.0.1"),
            .port_uc = Port{5062},
            .port_us = Port{5063},
            .port_pc = Port{6200},
            .port_ps = Port{6100},
            .spi_uc = Spi{1111},
            .spi_us = Spi{1112},
            .spi_pc = Spi{0x20000001},
            .spi_ps = Spi{0x20000002},
            .algorithms = kDefaultPreference[1]};
}

/// A phone that has been challenged a minute ago and has not answered.
Evidence challenged() {
    Evidence e;
    e.impi = kPhone;
    e.now = kNow;
    DecisionRecord r;
    r.time = kNow - std::chrono::seconds{60};
    r.impi = kPhone;
    r.ue = "10.1.0.2:5060/UDP";
    r.realm_id = "access";
    r.over = "unprotected";
    r.offer = "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc";
    r.choice = "ipsec-3gpp hmac-sha-1-96/aes-cbc";
    r.core_status = 401;
    r.answer = 401;
    r.set = SetNumber{7};
    r.own_spis = {parameters().spi_pc, parameters().spi_ps};
    r.why = "challenged; the SAs are installed";
    e.records.push_back(r);
    SetEvidence set;
    set.number = SetNumber{7};
    set.parameters = parameters();
    for (const auto& sa : xfrm::four_sas(parameters())) {
        xfrm::SaReport report;
        report.sa = sa;
        set.sas.push_back(report);
    }
    e.sets.push_back(set);
    return e;
}

/// A phone whose last REGISTER failed a check.
Evidence refused(const std::string& check, int answer, const std::string& detail,
                 const std::string& offer = "ipsec-3gpp;alg=hmac-sha-1-96") {
    Evidence e;
    e.impi = kPhone;
    e.now = kNow;
    DecisionRecord r;
    r.time = kNow;
    r.impi = kPhone;
    r.ue = "10.1.0.2:5060/UDP";
    r.over = "unprotected";
    r.offer = offer;
    r.answer = answer;
    r.why = detail;
    r.checks.push_back({check, false, detail});
    e.records.push_back(r);
    return e;
}

Sighting sighting(Sighting::Kind kind) {
    Sighting s;
    s.kind = kind;
    s.source = {*Address::parse("10.1.0.2"), Port{5062}};
    s.destination = {*Address::parse("10.1.0.1"), Port{6100}};
    s.spi = Spi{0xabcdef01};
    s.count = 3;
    s.first = s.last = kNow;
    return s;
}

Cause cause_of(const Evidence& e) { return diagnose(e).cause; }
bool says(const Evidence& e, std::string_view words) {
    const auto verdict = diagnose(e);
    INFO(verdict.paragraph);
    const bool found = verdict.paragraph.find(words) != std::string::npos;
    CHECK(found);
    return found;
}

void put_be(std::vector<std::uint8_t>& out, std::uint32_t value, int octets) {
    for (int i = octets - 1; i >= 0; --i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

/// An IP packet with that protocol and payload.
std::vector<std::uint8_t> packet(bool is_v6, std::uint8_t protocol, const std::vector<std::uint8_t>& payload) {
    std::vector<std::uint8_t> p;
    const auto from = *Address::parse(is_v6 ? "fd01::2" : "10.1.0.2"),
               to = *Address::parse(is_v6 ? "fd01::1" : "10.1.0.1");
    if (is_v6) {
        p = {0x60, 0, 0, 0};
        put_be(p, static_cast<std::uint32_t>(payload.size()), 2);
        p.push_back(protocol);
        p.push_back(64);
    } else {
        p = {0x45, 0};
        put_be(p, static_cast<std::uint32_t>(20 + payload.size()), 2);
        p.insert(p.end(), {0, 0, 0, 0, 64, protocol, 0, 0});
    }
    for (const auto& address : {from, to})
        p.insert(p.end(), address.bytes().begin(),
                 address.bytes().begin() + static_cast<std::ptrdiff_t>(address.size()));
    p.insert(p.end(), payload.begin(), payload.end());
    return p;
}

std::vector<std::uint8_t> udp(std::uint16_t from, std::uint16_t to, std::string_view text) {
    std::vector<std::uint8_t> p;
    put_be(p, from, 2);
    put_be(p, to, 2);
    put_be(p, static_cast<std::uint32_t>(8 + text.size()), 2);
    put_be(p, 0, 2);
    p.insert(p.end(), text.begin(), text.end());
    return p;
}

std::vector<std::uint8_t> esp(std::uint32_t spi) {
    std::vector<std::uint8_t> p;
    put_be(p, spi, 4);
    put_be(p, 1, 4);
    p.resize(64);
    return p;
}

}  // namespace

TEST_CASE("why: a 401 whose SAs carry no packet says that the phone sent no ESP, with SPI and count") {
    const auto e = challenged();
    CHECK(cause_of(e) == Cause::no_answer);
    CHECK(says(e, "the phone sent no ESP packet"));
    CHECK(says(e, "SA 0x20000002 has 0 packets"));
}

TEST_CASE("why: a moment after the 401 nothing is concluded yet") {
    auto e = challenged();
    e.records[0].time = e.now - std::chrono::seconds{2};
    CHECK(cause_of(e) == Cause::waiting);
}

TEST_CASE("why: integrity failures on this set's SAs mean other keys; also when the set has ended since") {
    auto e = challenged();
    e.sets[0].sas[0].integrity_failures = 14;
    CHECK(cause_of(e) == Cause::integrity);
    CHECK(says(e, "14 ESP packets failed the integrity check on these SAs: the phone derived other keys"));
    e.sets[0].is_alive = false;
    CHECK(cause_of(e) == Cause::integrity);
}

TEST_CASE("why: registered with the process before") {
    Evidence e;
    e.impi = kPhone;
    e.now = kNow;
    CHECK(cause_of(e) == Cause::unknown_phone);
    e.is_registered = true;
    CHECK(cause_of(e) == Cause::registered);
    CHECK(says(e, "since before this process of the gateway began"));
}

TEST_CASE("why: the core has still to answer") {
    Evidence e;
    e.impi = kPhone;
    e.now = kNow;
    e.pending.push_back({kNow - std::chrono::seconds{1}, kPhone, "10.1.0.2:5060/UDP", "unprotected"});
    CHECK(cause_of(e) == Cause::core_pending);  // nothing else is known
    CHECK(says(e, "has not answered for 1 s"));
    auto known = challenged();
    known.pending.push_back({kNow - std::chrono::seconds{1}, kPhone, "10.1.0.2:5060/UDP", "unprotected"});
    CHECK(cause_of(known) == Cause::no_answer);
    known.pending[0].since = kNow - std::chrono::seconds{6};
    CHECK(cause_of(known) == Cause::core_pending);
    auto silent = refused("core", 504, "the core gives no answer");
    silent.pending = known.pending;
    CHECK(cause_of(silent) == Cause::core_unreachable);
}

TEST_CASE("why: what does not parse is a bad request, whatever it is") {
    for (const auto* check : {"security-client", "security-verify", "via", "to"})
        CHECK(cause_of(refused(check, 400, "does not parse", "")) == Cause::bad_request);
}

TEST_CASE("why: replays; a few among many packets are the network's") {
    auto e = challenged();
    e.records[0].answer = 200;
    e.records[0].core_status = 200;
    e.is_registered = true;
    e.sets[0].state = SetState::established;
    e.sets[0].in_use = true;
    auto& sa = e.sets[0].sas[0];
    sa.packets = 20;
    sa.replay_drops = 2;
    CHECK(cause_of(e) == Cause::registered);
    sa.replay_window_drops = 1;
    CHECK(cause_of(e) == Cause::replay);
    CHECK(says(e, "3 ESP packets on its SAs were replays or came too late for the replay window, and 20 passed"));
    sa.packets = 31;
    CHECK(cause_of(e) == Cause::registered);
    sa.packets = 0;
    e.sets[0].in_use = false;  // an older set beside the one in use
    CHECK(cause_of(e) == Cause::registered);
}

TEST_CASE("why: ESP for an SPI that is not ours, with and without knowing that it was this phone's") {
    auto e = refused("x", 0, "");
    e.records[0].checks.clear();
    e.records[0].answer = 200;
    e.records[0].core_status = 200;
    e.sightings.push_back(sighting(Sighting::Kind::unknown_spi));
    CHECK(cause_of(e) == Cause::stale_sa);
    CHECK(says(e, "ESP arrived from 10.1.0.2 for SPI 0xabcdef01, which is not ours"));
    e.own_spis_before.push_back(Spi{0xabcdef01});
    CHECK(says(e, "a stale SA of this phone's earlier registration"));
    e.own_spis_before.clear();
    e.is_registered = true;  // the address may be shared: another phone's SPI is no finding about a healthy one
    CHECK(cause_of(e) == Cause::registered);
}

TEST_CASE("why: clear packets to the protected port, by name or by address") {
    auto e = challenged();
    auto s = sighting(Sighting::Kind::clear_protected);
    e.sightings.push_back(s);
    CHECK(cause_of(e) == Cause::clear_to_protected);
    CHECK(says(e, "3 UDP packets without ESP from 10.1.0.2:5062 to 10.1.0.1:6100"));
    e.sets[0].sas[0].integrity_failures =
        3;  // what is counted on its own SA weighs more than what came from its address
    CHECK(cause_of(e) == Cause::integrity);
}

TEST_CASE("why: what the decision record knows is told, each with its own cause") {
    const std::vector<std::tuple<std::string, int, Cause>> cases{
        {"via", 403, Cause::nat},
        {"nat-moved", 0, Cause::nat_moved},
        {"security-verify", 494, Cause::verify_mismatch},
        {"authorization", 403, Cause::identity_mismatch},
        {"refresh-authorization", 403, Cause::identity_mismatch},
        {"feature", 403, Cause::option_refused},
        {"core", 504, Cause::core_unreachable},
        {"ck-ik", 504, Cause::no_keys},
        {"limit", 503, Cause::limit},
        {"draining", 503, Cause::limit},
        {"kernel", 480, Cause::kernel},
        {"sec-agree", 420, Cause::option_refused},
        {"proxy-require", 420, Cause::option_refused},
        {"to", 400, Cause::bad_request}};
    for (const auto& [check, answer, cause] : cases) {
        CAPTURE(check);
        const auto e = refused(check, answer, "the detail of it");
        CHECK(cause_of(e) == cause);
        CHECK(says(e, "the detail of it"));
    }
    CHECK(cause_of(refused("security-client", 421, "missing", "")) == Cause::no_offer);
    auto changed = refused("security-client", 494, "spi-c differs");
    changed.records[0].over = "temporary set 7";
    CHECK(cause_of(changed) == Cause::client_mismatch);
}

TEST_CASE("why: an offer of hmac-md5-96 alone says which algorithms the profile refuses") {
    auto e = refused("security-client", 494, "nothing usable", "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc");
    e.refused_algorithms = "des-ede3-cbc, hmac-md5-96";
    CHECK(cause_of(e) == Cause::algorithms);
    CHECK(says(e, "it offers only what this interface does not allow: \"ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc\""));
    CHECK(says(e, "The profile refuses des-ede3-cbc, hmac-md5-96."));
}

TEST_CASE("why: the core refuses the answer: RES; it refuses the user: declined") {
    auto e = challenged();
    auto answer = e.records[0];
    answer.over = "temporary set 7";
    answer.set = {};
    answer.core_status = answer.answer = 403;
    e.records.push_back(answer);
    e.sets[0].sas[0].packets = 1;
    CHECK(cause_of(e) == Cause::wrong_res);
    e.records.pop_back();
    e.records[0].set = {};
    e.records[0].core_status = e.records[0].answer = 404;
    CHECK(cause_of(e) == Cause::declined);
}

TEST_CASE("why: registered, and a phone of which nothing is known") {
    auto e = challenged();
    e.records[0].answer = 200;
    e.records[0].core_status = 200;
    e.is_registered = true;
    e.registration_expires_in = std::chrono::seconds{3600};
    CHECK(cause_of(e) == Cause::registered);
    Evidence nothing;
    nothing.impi = kPhone;
    CHECK(cause_of(nothing) == Cause::unknown_phone);
    CHECK(says(nothing, "No REGISTER of 001010000000001@ims.example has arrived"));
}

TEST_CASE("why: text from the network reaches the paragraph without control characters") {
    const auto e = refused("security-client", 494, "x", "evil\x1b[31m\"\n;alg=x");
    const auto verdict = diagnose(e);
    CHECK(verdict.paragraph.find('\x1b') == std::string::npos);
    for (const auto& line : verdict.evidence) CHECK(line.find('\x1b') == std::string::npos);
}

TEST_CASE("why: every cause has a word") {
    for (int i = 0; i <= static_cast<int>(Cause::undecided); ++i) CHECK(to_string(static_cast<Cause>(i)) != "?");
}

TEST_CASE("packet tap: reads ESP, UDP and TCP of both families; anything cut short is nothing") {
    for (const bool is_v6 : {false, true}) {
        const auto e = packet(is_v6, 50, esp(0xabcdef01));
        const auto one = read_packet(e);
        REQUIRE(one.has_value());
        CHECK(one->is_esp);
        CHECK(one->spi == Spi{0xabcdef01});
        CHECK(one->source.address.to_string() == (is_v6 ? "fd01::2" : "10.1.0.2"));
        const auto u = packet(is_v6, 17, udp(5062, 6100, "REGISTER sip:x SIP/2.0\r\n"));
        const auto two = read_packet(u);
        REQUIRE(two.has_value());
        CHECK(two->destination.port == Port{6100});
        CHECK(two->text == "REGISTER sip:x SIP/2.0\r\n");
        for (std::size_t n = 0; n < u.size(); ++n)
            static_cast<void>(read_packet(std::span(u).first(n)));  // ASan watches
        CHECK_FALSE(read_packet(std::span(u).first(is_v6 ? 47 : 27)).has_value());
    }
    auto bad = packet(false, 17, udp(1, 2, "x"));
    bad[0] = 0x4f;  // options that are not there
    CHECK_FALSE(read_packet(std::span(bad).first(29)).has_value());
    bad[0] = 0x41;
    CHECK_FALSE(read_packet(bad).has_value());
    CHECK_FALSE(read_packet({}).has_value());
}

TEST_CASE("packet tap: the IMPI of a REGISTER in clear") {
    CHECK(impi_in_text("REGISTER sip:x SIP/2.0\r\nAuthorization: Digest username=\"a@b\",realm=\"x\"\r\n") == "a@b");
    CHECK(impi_in_text("username=\"a@b\"").empty());
    CHECK(impi_in_text("REGISTER sip:x SIP/2.0\r\nAuthorization: Digest username=\"a@b").empty());
    CHECK(impi_in_text("REGISTER sip:x SIP/2.0\r\nusername=\"" + std::string(300, 'a') + "\"").empty());
}

TEST_CASE(
    "packet tap: known SPIs and other ports are nothing; repeats are counted; the table and the rate have limits") {
    asio::io_context loop;
    Clock clock;
    TapSettings settings;
    settings.protected_ports = {{*Address::parse("10.1.0.1"), Port{6100}}};
    settings.sightings = 10;
    settings.packets_per_second = 100'000;
    PacketTap tap(loop.get_executor(), clock, settings, [](Spi spi) { return spi == Spi{42}; });
    const auto all = [](const Sighting&) { return true; };
    tap.take(packet(false, 50, esp(42)));
    tap.take(packet(false, 17, udp(5062, 5060, "x")));
    CHECK(tap.find(all).empty());
    for (int i = 0; i < 3; ++i)
        tap.take(
            packet(false, 17, udp(5062, 6100, "REGISTER sip:x SIP/2.0\r\nAuthorization: Digest username=\"a@b\"\r\n")));
    REQUIRE(tap.find(all).size() == 1);
    CHECK(tap.find(all)[0].count == 3);
    CHECK(tap.find(all)[0].impi == "a@b");
    for (std::uint32_t spi = 1000; spi < 1100; ++spi) tap.take(packet(false, 50, esp(spi)));
    CHECK(tap.find(all).size() == 10);
    CHECK(tap.counters().forgotten == 91);

    settings.packets_per_second = 5;
    PacketTap slow(loop.get_executor(), clock, settings, [](Spi) { return false; });
    for (int i = 0; i < 2000; ++i) slow.take(packet(false, 50, esp(7)));
    CHECK(slow.counters().over_rate > 0);
    CHECK(slow.counters().packets + slow.counters().over_rate == 2000);
}

TEST_CASE("why: the core was spared because of a flood of REGISTERs in clear") {
    const auto e = refused("limit", 503, "too many REGISTERs in clear: [limits] authentications-per-impi");
    CHECK(cause_of(e) == Cause::limit);
    CHECK(says(e, "[limits] authentications-per-impi"));
    CHECK(says(e, "somebody floods the gateway"));
}
