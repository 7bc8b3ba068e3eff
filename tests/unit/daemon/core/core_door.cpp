// Who may talk to [core] listen.
#include "daemon/core/core_door.h"

#include <doctest/doctest.h>

#include "daemon/core/possible_hop.h"

#include "tests/support/register_parts.h"
#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using gmgate::test::StillClock;

namespace {

Endpoint end(const char* text) { return *Endpoint::parse(text); }

struct DoorOfCore {
    sip::test::Loop loop;
    sip::Transports transports{loop.io.get_executor(), {}};
    sip::Transactions transactions{
        loop.io.get_executor(), transports, {}, [](const sip::Flow&) { return sip::kCoreTimers; }};
    StillClock clock;
    Counters counters;
    Core core = make_core();
    CoreLink link{core, transports, transactions};
    CoreDoor door{core, link, counters, clock};

    ~DoorOfCore() { transports.shutdown(); }
    static Core make_core() {
        Core core;
        core.listen = {end("10.2.0.1:5060"), end("[fd02::1]:5060")};
        core.next_hops = {NextHop{.endpoint = end("10.2.0.2:5060")}};
        core.emergency_next_hops = {NextHop{.endpoint = end("[fd02::9]:5070")}};
        return core;
    }
    bool admits(const char* remote) { return door.admits(end(remote), core.listen.front()); }
};

}  // namespace

TEST_CASE("the core's door: next hops by address, at whatever port; nobody else, and each of them counts") {
    DoorOfCore at;
    CHECK(at.admits("10.2.0.2:5060"));
    CHECK(at.admits("10.2.0.2:40000"));
    CHECK(at.admits("[fd02::9]:5060"));
    CHECK(at.counters.get(Counter::core_stranger) == 0);
    CHECK_FALSE(at.admits("10.2.0.3:5060"));
    CHECK_FALSE(at.admits("[fd02::2]:5060"));
    CHECK_FALSE(at.admits("10.1.0.2:5060"));
    CHECK(at.counters.get(Counter::core_stranger) == 3);
}

TEST_CASE("the core's door: [core] peers, from the moment at which they are configured") {
    DoorOfCore at;
    CHECK_FALSE(at.admits("10.3.0.7:5060"));
    at.core.peers = {*AddressRange::parse("10.3.0.0/24"), *AddressRange::parse("fd03::/64")};
    CHECK(at.admits("10.3.0.7:5060"));
    CHECK(at.admits("[fd03::7]:5060"));
    CHECK_FALSE(at.admits("10.3.1.7:5060"));
}

TEST_CASE("where the core takes answers: next hops, and where its requests asked for them; a port beside is none") {
    DoorOfCore at;
    CHECK(at.link.takes_answers(sip::Transport::udp, end("10.2.0.2:5060")));
    CHECK_FALSE(at.link.takes_answers(sip::Transport::tcp, end("10.2.0.2:5060")));
    CHECK_FALSE(at.link.takes_answers(sip::Transport::udp, end("10.2.0.2:22")));
    const auto came = [&](sip::Transport transport, const char* remote, const std::string& via) {
        const auto request = sip::OwnedMessage::parse(
            "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/" + via +
            ";branch=z9hG4bKx\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\n"
            "CSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n");
        REQUIRE(request.has_value());
        at.link.note_request({transport, at.core.listen.front(), end(remote), {}, {}}, **request);
    };
    came(sip::Transport::udp, "10.2.0.2:6000", "UDP 10.2.0.2:6060");
    CHECK(at.link.takes_answers(sip::Transport::udp, end("10.2.0.2:6060")));
    CHECK_FALSE(at.link.takes_answers(sip::Transport::udp, end("10.2.0.2:6000")));
    came(sip::Transport::udp, "10.2.0.2:6001", "UDP scscf.example;rport");
    CHECK(at.link.takes_answers(sip::Transport::udp, end("10.2.0.2:6001")));
    came(sip::Transport::tcp, "10.2.0.2:45000", "TCP 10.2.0.2:5066");
    CHECK(at.link.takes_answers(sip::Transport::tcp, end("10.2.0.2:5066")));
    CHECK_FALSE(at.link.takes_answers(sip::Transport::tcp, end("10.2.0.2:45000")));
}

TEST_CASE("what DNS says is no element of the core: the gateway itself, its machine, what is nobody's") {
    DoorOfCore at;
    const auto may = [&](const char* answer) { return may_be_core(at.core, at.transports, end(answer)); };
    CHECK(may("10.2.0.2:5060"));
    CHECK(may("[fd02::2]:5060"));
    CHECK(may("10.2.0.1:5070"));  // a proxy beside the gateway, at another port
    for (const char* lie : {"10.2.0.1:5060", "[fd02::1]:5060", "127.0.0.1:5060", "127.1.2.3:6000", "[::1]:5060",
                            "0.0.0.0:5060", "0.1.2.3:5060", "224.0.0.1:5060", "255.255.255.255:5060", "[::]:5060",
                            "[ff02::1]:5060", "10.2.0.9:0", "[::ffff:127.0.0.1]:5060"})
        CHECK_MESSAGE(!may(lie), lie);

    // An address at which somebody else than the core is heard, as the access side.
    REQUIRE(at.transports.listen(end("127.0.0.7:15060"), {}));
    at.core.listen.push_back(end("127.0.0.1:15062"));  // a core on this machine: the loopback is in use
    CHECK(may("127.0.0.2:5060"));
    CHECK(may("127.0.0.1:5060"));
    CHECK_FALSE(may("127.0.0.7:15060"));
    CHECK_FALSE(may("127.0.0.7:5070"));
    CHECK_FALSE(may("127.0.0.1:15062"));
}
