// The event sockets on a real kernel: what others do to our SAs and policies, and what happens to our addresses. Run as
// root in a guest.
#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <vector>

#include <doctest/doctest.h>

#include "tests/integration/xfrm_lab.h"
#include "xfrm/netlink/address_watch.h"
#include "xfrm/netlink/monitor.h"

using namespace gmgate;
using namespace gmgate::test;
using namespace gmgate::xfrm;

namespace {

constexpr AlgorithmPair kUsual{Alg::hmac_sha_1_96, Ealg::aes_cbc};
constexpr Mark kMark{0x1001};
using Kind = KernelEvent::Kind;

/// A monitor on a loop of its own, and what it told.
struct Listener {
    explicit Listener(int receive_buffer = 0) { REQUIRE(monitor.start(receive_buffer)); }
    asio::io_context io;
    std::vector<KernelEvent> events;
    Monitor monitor{io.get_executor(), Ownership{}, [this](const KernelEvent& event) { events.push_back(event); }};

    void poll() {
        io.restart();
        io.poll();
    }
    std::size_t count(Kind kind) const {
        return static_cast<std::size_t>(std::ranges::count(events, kind, &KernelEvent::kind));
    }
    bool hears(Kind kind, std::size_t times = 1) {
        return eventually([&] {
            poll();
            return count(kind) >= times;
        });
    }
};

void install(Lab& lab, const SetParameters& set, std::chrono::seconds lifetime = std::chrono::seconds{600}) {
    auto request = request_for(set, kMark, lifetime);
    REQUIRE(finish(lab.io(), lab.gateway().install_set(std::move(request))));
}

std::string id_words(const Sa& sa) {
    return "src " + sa.source.address.to_string() + " dst " + sa.destination.address.to_string() + " proto esp spi " +
           std::to_string(sa.id.spi.value);
}

void add_foreign(const std::string& reqid) {
    shell("ip xfrm state add src 203.0.113.1 dst 192.0.2.1 proto esp spi 0x9999 reqid " + reqid +
          " mode transport aead 'rfc4106(gcm(aes))' 0x0102030405060708090a0b0c0d0e0f1011121314 128");
}

/// Moves the wall clock of the guest and puts it back.
struct ClockStep {
    explicit ClockStep(std::chrono::seconds by) : by_(by) {
        REQUIRE_MESSAGE(std::getenv("GMGATE_KERNEL_RELEASE") != nullptr,
                        "this moves the machine's clock: run it in a guest, scripts/kernel --on uml");
        move(by_);
    }
    ~ClockStep() { move(-by_); }
    static void move(std::chrono::seconds by) {
        timespec now{};
        REQUIRE(clock_gettime(CLOCK_REALTIME, &now) == 0);
        now.tv_sec += by.count();
        REQUIRE(clock_settime(CLOCK_REALTIME, &now) == 0);
    }
    std::chrono::seconds by_;
};

}  // namespace

TEST_CASE(
    "Monitor: an SA that is deleted is told with its set's mark; additions and updates, which carry keys, never arrive") {
    for (const auto family : {Family::v4, Family::v6}) {
        Lab lab;
        Listener listener;
        const auto set = lab_set(lab, family, kUsual);
        install(lab, set);
        REQUIRE(finish(lab.io(), lab.gateway().extend_set(set, std::chrono::seconds{900})));
        add_foreign("7");
        listener.poll();
        CHECK(listener.monitor.datagrams() == 0);
        const auto sas = four_sas(set);
        shell("ip xfrm state delete " + id_words(sas[1]));
        REQUIRE(listener.hears(Kind::sa_deleted));
        CHECK(listener.events.front().sa == sas[1].id);
        CHECK(listener.events.front().mark == kMark);
        // Another's SA is no event of ours; what we delete ourselves comes back, too, and the owner tells it apart.
        shell("ip xfrm state delete src 203.0.113.1 dst 192.0.2.1 proto esp spi 0x9999");
        REQUIRE(finish(lab.io(), lab.gateway().remove_set(set)));
        REQUIRE(listener.hears(Kind::sa_deleted, 4));
        CHECK(listener.events.size() == 4);
        for (const auto& event : listener.events) CHECK(event.mark == kMark);
    }
}

TEST_CASE("Monitor: hard and soft expiry of an SA") {
    Lab lab;
    Listener listener;
    const auto set = lab_set(lab, Family::v4, kUsual);
    install(lab, set, std::chrono::seconds{2});
    REQUIRE(listener.hears(Kind::hard_expired, 4));
    CHECK(listener.events.front().mark == kMark);
    const auto other = lab_set(lab, Family::v6, kUsual);
    install(lab, other);
    const auto sas = four_sas(other);
    shell("ip xfrm state update " + id_words(sas[0]) +
          " reqid 21321 mode transport auth-trunc 'hmac(sha1)' 0x0102030405060708090a0b0c0d0e0f1011121314 96 "
          "enc 'cbc(aes)' 0x0102030405060708090a0b0c0d0e0f10 limit time-soft 1 limit time-hard 500");
    REQUIRE(listener.hears(Kind::soft_expired));
    CHECK(finish(lab.io(), lab.gateway().dump())->size() == 4);
}

TEST_CASE("Monitor: flushes, deleted and replaced policies") {
    Lab lab;
    Listener listener;
    const auto set = lab_set(lab, Family::v4, kUsual);
    install(lab, set);
    GuardRequest guards{set.gateway, {set.port_ps}};
    REQUIRE(finish(lab.io(), lab.gateway().install_guards(std::move(guards))));
    listener.poll();
    CHECK(listener.monitor.datagrams() == 0);
    const GuardPolicy out{Direction::out, {set.gateway, set.port_ps}}, in{Direction::in, {set.gateway, set.port_ps}};
    shell("ip xfrm policy update src 192.0.2.1/32 dst 0.0.0.0/0 sport 6101 dir out action block priority 2000");
    REQUIRE(listener.hears(Kind::policy_replaced));
    CHECK(listener.events.back().guard == out);
    shell("ip xfrm policy delete src 0.0.0.0/0 dst 192.0.2.1/32 dport 6101 dir in");
    REQUIRE(listener.hears(Kind::policy_deleted));
    CHECK(listener.events.back().guard == in);
    shell("ip xfrm policy flush");
    REQUIRE(listener.hears(Kind::policies_flushed));
    shell("ip xfrm state flush proto ah");
    shell("ip xfrm state flush");
    REQUIRE(listener.hears(Kind::sas_flushed));
    CHECK(listener.count(Kind::sas_flushed) == 1);
}

TEST_CASE("Monitor: more events than its socket holds are told as lost, and it goes on") {
    Lab lab;
    Listener listener(1);  // the kernel's minimum
    auto set = lab_set(lab, Family::v4, kUsual);
    for (std::uint32_t n = 0; n < 60; ++n) {
        install(lab, set);
        REQUIRE(finish(lab.io(), lab.gateway().remove_set(set)));
    }
    REQUIRE(listener.hears(Kind::events_lost));
    CHECK(listener.count(Kind::sa_deleted) < 240);
    listener.events.clear();
    install(lab, set);
    shell("ip xfrm state delete " + id_words(four_sas(set)[0]));
    REQUIRE(listener.hears(Kind::sa_deleted));
}

TEST_CASE("read_event: cut and odd datagrams are no event") {
    std::vector<std::uint8_t> datagram(200, 0);
    for (std::size_t size = 0; size <= datagram.size(); ++size)
        CHECK_FALSE(read_event({datagram.data(), size}, Ownership{}));
    for (const int type : {0x11, 0x14, 0x18, 0x19, 0x1c}) {  // DELSA, DELPOLICY, EXPIRE, UPDPOLICY, FLUSHSA
        datagram.assign(200, 0xff);
        datagram[4] = static_cast<std::uint8_t>(type);
        datagram[5] = 0;
        for (std::uint32_t length = 0; length < 24; ++length) {
            datagram[0] = static_cast<std::uint8_t>(length);
            datagram[1] = datagram[2] = datagram[3] = 0;
            const auto event = read_event(datagram, Ownership{});
            CHECK((!event || event->kind == Kind::sas_flushed));
        }
    }
}

TEST_CASE("AddressWatch: an address that goes, a link that goes down or loses its carrier, and their return") {
    Lab lab;
    asio::io_context io;
    std::vector<AddressWatch::Change> changes;
    const auto v4 = lab.gateway_address(Family::v4), v6 = lab.gateway_address(Family::v6);
    AddressWatch watch(io.get_executor(), {v4, v6},
                       [&](const AddressWatch::Change& change) { changes.push_back(change); });
    REQUIRE(watch.start());
    CHECK(changes.empty());
    const auto told = [&](const Address& address, bool is_usable) {
        return eventually([&] {
            io.restart();
            io.poll();
            const auto last =
                std::find_if(changes.rbegin(), changes.rend(), [&](const auto& c) { return c.address == address; });
            return last != changes.rend() && last->is_usable == is_usable;
        });
    };
    const auto words = shell("ip -o -4 addr show to 192.0.2.1");  // "2: NAME    inet 192.0.2.1/24 …"
    std::string name = words.substr(words.find(": ") + 2);
    name = name.substr(0, name.find(' '));
    const auto prefix =
        words.substr(words.find("192.0.2.1"), words.find(' ', words.find("192.0.2.1")) - words.find("192.0.2.1"));
    shell("ip addr del " + prefix + " dev " + name);
    CHECK(told(v4, false));
    CHECK(changes.size() == 1);
    CHECK(changes.back().why == "no link has it");
    shell("ip addr add " + prefix + " dev " + name);
    CHECK(told(v4, true));
    shell("ip link set " + name + " down");
    CHECK(told(v4, false));
    CHECK(told(v6, false));
    shell("ip link set " + name + " up");
    CHECK(told(v4, true));
    // The other end of the veth pair goes down: no carrier.
    lab.enter_ue();
    const auto there = shell("ip -o -4 addr show to 192.0.2.9");
    std::string other = there.substr(there.find(": ") + 2);
    other = other.substr(0, other.find(' '));
    shell("ip link set " + other + " down");
    CHECK(told(v4, false));
    shell("ip link set " + other + " up");
    CHECK(told(v4, true));
    lab.enter_gateway();
}

TEST_CASE(
    "B-52: a lifetime that is extended after the clock was stepped counts from now, whichever way the step went") {
    for (const auto step : {std::chrono::seconds{7200}, std::chrono::seconds{-7200}}) {
        CAPTURE(step.count());
        Lab lab;
        const auto set = lab_set(lab, Family::v4, kUsual);
        install(lab, set, std::chrono::seconds{60000});
        const ClockStep stepped(step);
        REQUIRE(finish(lab.io(), lab.gateway().extend_set(set, std::chrono::seconds{9000})));
        const auto told = finish(lab.io(), lab.gateway().dump());
        REQUIRE(told);
        for (const auto& report : *told) {
            const auto ends = report.added + report.hard_lifetime;
            const auto left = std::chrono::duration_cast<std::chrono::seconds>(ends - lab.clock().wall());
            CHECK(left >= std::chrono::seconds{8900});
            CHECK(left <= std::chrono::seconds{9001});
        }
        // The kernel's timers have run since, as the end of a short-lived set shows: nothing of the other has expired.
        auto brief = lab_set(lab, Family::v6, kUsual);
        auto request = request_for(brief, Mark{0x2002}, std::chrono::seconds{2});
        REQUIRE(finish(lab.io(), lab.gateway().install_set(std::move(request))));
        CHECK(eventually([&] { return finish(lab.io(), lab.gateway().dump())->size() == 4; }));
        CHECK(finish(lab.io(), lab.gateway().dump())->size() == 4);
    }
}
