// The flight recorder: what it keeps and forgets, its limits per source and in all, and that no secret lies in it.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include "daemon/observe/recorder.h"

using namespace gmgate;
using namespace gmgate::daemon;

// Names of its own: several tests are compiled as one file.
namespace recorder_test {

namespace {

const Impi kAlice{"001010000000001@ims.example"}, kBob{"001010000000002@ims.example"};
const Endpoint kPcscf{*Address::parse("10.1.0.1"), Port{5060}}, kProtected{*Address::parse("10.1.0.1"), Port{6100}},
    kInside{*Address::parse("10.2.0.1"), Port{5060}}, kCore{*Address::parse("10.2.0.2"), Port{5060}};

class HandClock : public Clock {
public:
    std::chrono::system_clock::time_point wall() const override { return time; }
    std::chrono::system_clock::time_point time{std::chrono::seconds{1'700'000'000}};
};

sip::Flow flow(const Endpoint& local, const Endpoint& remote) { return {sip::Transport::udp, local, remote, {}, {}}; }
Endpoint phone(int number, std::uint16_t port = 5062) {
    return {*Address::parse(fmt::format("10.1.{}.{}", number / 200, number % 200 + 2)), Port{port}};
}

std::string fields(const std::string& call_id, const std::string& cseq, const std::string& extra = {}) {
    return "Via: SIP/2.0/UDP 10.1.0.2:5062;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=1\r\nTo: <sip:x@y>\r\ncall-id : " +
           call_id + "\r\nCSeq: " + cseq + "\r\n" + extra + "Content-Length: 0\r\n\r\n";
}
std::string request(const std::string& method, const std::string& call_id, int cseq = 1,
                    const std::string& extra = {}) {
    return method + " sip:ims.example SIP/2.0\r\n" + fields(call_id, std::to_string(cseq) + " " + method, extra);
}
std::string answer(int status, const std::string& method, const std::string& call_id, int cseq = 1,
                   const std::string& extra = {}) {
    return fmt::format("SIP/2.0 {} Word\r\n", status) + fields(call_id, std::to_string(cseq) + " " + method, extra);
}
std::string authorization(const Impi& impi) {
    return "Authorization: Digest username=\"" + impi.value +
           "\",realm=\"ims\",nonce=\"n\",uri=\"sip:x\",response=\"6629fae49393a05397450978507c4ef1\"\r\n";
}

/// A gateway's recorder: 10.1.x is the access, behind port 6100 everything is Alice's at 10.1.0.2, else Bob's.
struct World {
    HandClock clock;
    FlightRecorder recorder;
    std::size_t asked = 0;

    explicit World(RecorderLimits limits = {})
        : recorder(clock, limits, [this](bool, const sip::Flow& way) {
              ++asked;
              MessageTrace::Context who;
              who.core_side = way.local == kInside;
              who.protection = way.local == kProtected ? "ESP set 7" : "clear";
              if (way.local == kProtected) who.owner = way.remote.address == phone(0).address ? kAlice : kBob;
              return who;
          }) {}
    void in(const Endpoint& local, const Endpoint& remote, const std::string& bytes) {
        recorder.see(false, flow(local, remote), bytes);
    }
    void out(const Endpoint& local, const Endpoint& remote, const std::string& bytes) {
        recorder.see(true, flow(local, remote), bytes);
    }
    std::size_t kept() const { return recorder.numbers().attempts; }
};

}  // namespace

TEST_CASE("recorder: a registration that fails is there with both legs, and one that succeeds leaves nothing") {
    World world;
    const auto from = phone(0);
    world.in(kPcscf, from, request("REGISTER", "r1", 1, authorization(kAlice)));
    world.out(kInside, kCore, request("REGISTER", "r1", 1, authorization(kAlice)));
    world.in(kInside, kCore,
             answer(401, "REGISTER", "r1", 1, "WWW-Authenticate: Digest ck=\"0011\",ik=\"2233\",nonce=\"n\"\r\n"));
    world.out(kPcscf, from, answer(401, "REGISTER", "r1"));
    CHECK(world.recorder.failures(10).empty());  // a challenge is none
    world.in(kProtected, from, request("REGISTER", "r1", 2, authorization(kAlice)));
    world.out(kProtected, from, answer(403, "REGISTER", "r1", 2));
    const auto kept = world.recorder.of(kAlice);
    REQUIRE(kept.size() == 6);
    CHECK_FALSE(kept[0].outward);
    CHECK(kept[1].core_side);
    CHECK(kept[4].protection == "ESP set 7");
    CHECK(kept[5].destination == from);
    for (const auto& message : kept)
        for (const auto* secret : {"0011", "2233", "6629fae4"}) CHECK(message.bytes.find(secret) == std::string::npos);
    CHECK(kept[2].bytes.find("ck=\"xxxx\"") != std::string::npos);
    CHECK(world.recorder.of(kBob).empty());
    const auto failures = world.recorder.failures(10);
    REQUIRE(failures.size() == 1);
    CHECK(failures[0].status == 403);
    CHECK(failures[0].who == kAlice.value);
    CHECK(failures[0].call_id == "r1");
    CHECK(failures[0].messages == 6);
    CHECK(world.recorder.of_call("r1").size() == 6);

    // The next try of the same Call-ID is a new one, and its 200 ends it.
    world.in(kPcscf, from, request("REGISTER", "r1", 3));
    CHECK(world.recorder.of_call("r1").size() == 1);
    world.out(kPcscf, from, answer(200, "REGISTER", "r1", 3));
    CHECK(world.kept() == 0);
    CHECK(world.recorder.numbers().octets == 0);
    CHECK(world.recorder.numbers().succeeded == 1);
}

TEST_CASE("recorder: a call has the legs of both phones until the caller's 200; of other methods nothing is kept") {
    World world;
    const auto alice = phone(0), bob = phone(1);
    const auto begin = [&](const std::string& id) {
        world.in(kProtected, alice, request("INVITE", id));
        world.out(kInside, kCore, request("INVITE", id));
        world.in(kInside, kCore, request("INVITE", id));
        world.out(kProtected, bob, request("INVITE", id));
        world.in(kProtected, bob, answer(180, "INVITE", id));
    };
    begin("c1");
    world.in(kProtected, bob, request("PRACK", "c1", 2));
    world.out(kProtected, bob, answer(200, "PRACK", "c1", 2));  // is not the call's
    world.in(kProtected, bob, answer(200, "INVITE", "c1"));
    world.out(kInside, kCore, answer(200, "INVITE", "c1"));  // nor is it with its caller
    CHECK(world.kept() == 1);
    world.out(kProtected, alice, answer(200, "INVITE", "c1"));
    CHECK(world.kept() == 0);
    world.in(kProtected, alice, request("ACK", "c1"));
    world.in(kProtected, alice, request("MESSAGE", "m1"));
    world.in(kProtected, alice, request("BYE", "c1", 3));
    CHECK(world.kept() == 0);

    begin("c2");
    world.out(kProtected, alice, answer(486, "INVITE", "c2"));
    world.in(kProtected, alice, request("ACK", "c2"));
    CHECK(world.recorder.of(kAlice).size() == 7);
    CHECK(world.recorder.of(kBob).size() == 7);
    CHECK(world.recorder.failures(10).at(0).is_call);

    // Nobody answers: a failure after some seconds.
    begin("c3");
    CHECK(world.recorder.failures(10).size() == 1);
    world.clock.time += FlightRecorder::kPatience + std::chrono::seconds{1};
    const auto failures = world.recorder.failures(10);
    REQUIRE(failures.size() == 2);
    CHECK(failures[0].status == 0);
}

TEST_CASE("recorder: the core's call is charged to the phone that it is for") {
    World world({.octets = 1 << 20, .octets_per_source = 65536});
    const auto flood = [&](int number) {
        const auto id = fmt::format("c{}", number);
        world.in(kInside, kCore, request("INVITE", id));
        world.out(kProtected, phone(number), request("INVITE", id));
    };
    for (int i = 0; i < 100; ++i) flood(i);
    CHECK(world.kept() == 100);
    CHECK(world.recorder.numbers().gave_way_source == 0);
}

TEST_CASE("recorder: a source that fails without end pushes out its own, not another's") {
    World world({.octets = 1 << 20, .octets_per_source = 65536});
    world.in(kPcscf, phone(0), request("REGISTER", "mine", 1, authorization(kAlice)));
    world.out(kPcscf, phone(0), answer(403, "REGISTER", "mine"));
    for (int i = 0; i < 1000; ++i) world.in(kPcscf, phone(1), request("INVITE", fmt::format("flood-{}", i)));
    CHECK(world.kept() == 1 + 65536 / OctetStore::kBlock);
    CHECK(world.recorder.numbers().gave_way_source == 1000 - 65536 / OctetStore::kBlock);
    CHECK(world.recorder.of(kAlice).size() == 2);
    // One attempt that does not end fills its source's share and is then cut.
    for (int i = 0; i < 200; ++i)
        world.in(kPcscf, phone(2), request("INVITE", "long", 1, "X: " + std::string(1000, 'x') + "\r\n"));
    CHECK(world.recorder.numbers().messages_left_out > 100);
    CHECK(world.recorder.of_call("long").size() > 40);
}

TEST_CASE("recorder: in all, the oldest of the source that has most gives way, and the limit holds") {
    const RecorderLimits limits{.octets = 1 << 20, .octets_per_source = 65536};
    World world(limits);
    world.in(kPcscf, phone(0), request("REGISTER", "mine", 1, authorization(kAlice)));
    for (int source = 1; source <= 40; ++source)
        for (int i = 0; i < 40; ++i)
            world.in(kPcscf, phone(source), request("INVITE", fmt::format("flood-{}-{}", source, i)));
    const auto numbers = world.recorder.numbers();
    CHECK(numbers.octets <= limits.octets);
    CHECK(numbers.octets > limits.octets - 2 * OctetStore::kBlock);
    CHECK(numbers.gave_way_in_all > 500);
    CHECK(world.recorder.of(kAlice).size() == 1);
}

TEST_CASE("recorder: whoever guesses a Call-ID adds nothing to it and ends nothing") {
    World world;
    world.in(kPcscf, phone(0), request("REGISTER", "r1", 1, authorization(kAlice)));
    world.out(kPcscf, phone(0), answer(403, "REGISTER", "r1"));
    world.in(kPcscf, phone(7), request("REGISTER", "r1", 2));
    world.out(kPcscf, phone(7), answer(200, "REGISTER", "r1", 2));
    world.in(kPcscf, phone(8), request("BYE", "r1", 3));
    CHECK(world.recorder.of_call("r1").size() >= 2);
    world.out(kPcscf, phone(7), answer(200, "REGISTER", "r1", 1));
    CHECK(world.recorder.failures(1).at(0).status == 403);
    CHECK(world.recorder.of_call("r1")[0].source == phone(0));
}

TEST_CASE("recorder: what is no SIP, has no Call-ID or no end of line does not disturb it; 0 octets keep nothing") {
    World world;
    world.in(kPcscf, phone(0), "REGISTER ");
    world.in(kPcscf, phone(0), "INVITE sip:x SIP/2.0\r\nCall-ID:\r\nCSeq: 1 INVITE\r\n\r\n");
    world.in(kPcscf, phone(0), "INVITE sip:x SIP/2.0\r\nCall-ID: a\r\nCSeq: INVITE");
    world.in(kPcscf, phone(0), "INVITE sip:x SIP/2.0\r\n\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\n");
    CHECK(world.kept() == 0);
    World off({.octets = 0});
    off.in(kPcscf, phone(0), request("REGISTER", "r1"));
    CHECK(off.kept() == 0);
}

}  // namespace recorder_test
