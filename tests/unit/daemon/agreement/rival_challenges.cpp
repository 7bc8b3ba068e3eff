// Authentications at one address that are in each other's way: those of strangers who send from the address of a phone.
#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;

namespace {

/// What somebody sends from the phone's address, for another user of the network.
Say spoofed(int number, int port_c, int port_s) {
    Say say;
    say.impi = fmt::format("victim{}@example", number);
    say.client = fmt::format(
        "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c={};spi-s={};port-c={};port-s={}",
        40000 + 2 * number, 40001 + 2 * number, port_c, port_s);
    return say;
}

/// The phone's answer to its challenge; 0: its set is gone.
int answered(RegisterBench& bench) {
    auto* set = bench.temporary_set();
    if (!set) return 0;
    bench.core_status = 200;
    const auto status = RegisterBench::status_of(*bench.send(bench.answer_to(*set), bench.over(*set)));
    bench.core_status = 401;
    return status;
}

}  // namespace

TEST_CASE(
    "Datagrams from the address of a phone, as many as it may have challenges: the oldest gives way to the phone") {
    RegisterBench bench([](daemon::Config& config) { config.limits.challenges_per_address = 3; });
    for (int i = 0; i < 3; ++i) REQUIRE(RegisterBench::status_of(*bench.send(spoofed(i, 7600 + i, 1400 + i))) == 401);
    bench.challenge();
    CHECK(bench.kernel.sas().size() == 12);
    CHECK(bench.parts().spis.in_use() == 6);
    for (int i = 3; i < 5; ++i) bench.send(spoofed(i, 7600 + i, 1400 + i));  // the phone's own is the newest but two
    CHECK(answered(bench) == 200);
    CHECK(bench.registration() != nullptr);
}

TEST_CASE(
    "B-22: who knows the client port of a phone takes every server port that it could have: the oldest gives way") {
    RegisterBench bench;
    for (int i = 0; i < 2; ++i) REQUIRE(RegisterBench::status_of(*bench.send(spoofed(i, 7524, 1400 + i))) == 401);
    const auto elsewhere = spoofed(2, 7700, 1410);
    REQUIRE(RegisterBench::status_of(*bench.send(elsewhere)) == 401);
    bench.challenge();
    CHECK(bench.parts().table.find_challenge({Impi{elsewhere.impi}, bench.ue, false}) !=
          nullptr);  // was not in the way
    CHECK(bench.parts().table.challenge_count() == 3);
    CHECK(answered(bench) == 200);
}

TEST_CASE("A registered phone that comes back is safe from strangers at its address, however many they send") {
    RegisterBench bench([](daemon::Config& config) { config.limits.challenges_per_address = 2; });
    bench.registered();
    bench.challenge();
    for (int i = 0; i < 5; ++i) CHECK(RegisterBench::status_of(*bench.send(spoofed(i, 7600 + i, 1400 + i))) == 401);
    CHECK(bench.parts().table.challenge_count() == 2);
    CHECK(answered(bench) == 200);
}

TEST_CASE("A REGISTER in clear does not take away the challenge whose answer the core has") {
    RegisterBench bench([](daemon::Config& config) { config.limits.challenges_per_address = 1; });
    auto& set = bench.challenge();
    const auto number = set.number;
    Say rival;
    int wanted = 480;
    SUBCASE("in the name of the same user") {}
    SUBCASE("in another's") {
        rival = spoofed(1, 7600, 1400);
        wanted = 503;
    }
    const auto statuses = bench.crossed(bench.answer_to(set), bench.over(set), rival, bench.unprotected());
    CHECK(statuses == std::pair{401, wanted});  // the phone is challenged again over its set
    REQUIRE(bench.temporary_set());
    CHECK(bench.temporary_set()->number == number);
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE("An IPv6 /64 is one source: with a new address for each REGISTER it has no more challenges than with one") {
    const Address gateway = *Address::parse("::1");
    RegisterBench bench([&](daemon::Config& config) {
        config.limits.challenges_per_address = 3;
        config.sip_interfaces[0].sip_ports.push_back({.address = gateway, .ims_aka_profile = "volte"});
    });
    const auto challenged = [&](const std::string& address, int number) {
        Say say = spoofed(number, 7600 + number, 1400 + number);
        say.host = "[" + address + "]";
        const sip::Flow flow{
            sip::Transport::udp, {gateway, Port{5060}}, {*Address::parse(address), Port{5060}}, {}, {}};
        return RegisterBench::status_of(*bench.send(say, flow)) == 401;
    };
    const auto& table = bench.parts().table;
    for (int i = 1; i <= 20; ++i) CHECK(challenged(fmt::format("2001:db8::{}", i), i));
    CHECK(table.challenge_count() == 3);
    CHECK(table.challenges_at(*Address::parse("2001:db8::ffff")) == 3);
    CHECK(bench.parts().table.find_challenge({Impi{"victim20@example"}, *Address::parse("2001:db8::20"), false}) !=
          nullptr);
    CHECK(challenged("2001:db8:0:1::1", 21));  // another /64
    CHECK(table.challenge_count() == 4);
    CHECK(table.challenges_at(*Address::parse("2001:db8:0:1::2")) == 1);
    CHECK(bench.kernel.sas().size() == 16);
}

TEST_CASE("At the limit of all challenges the oldest of the source that has most gives way to a phone from elsewhere") {
    const Address gateway = *Address::parse("::1");
    RegisterBench bench([&](daemon::Config& config) {
        config.limits.challenges = 4;
        config.sip_interfaces[0].sip_ports.push_back({.address = gateway, .ims_aka_profile = "volte"});
    });
    const auto status = [&](const std::string& address, int number) {
        Say say = spoofed(number, 7600 + number, 1400 + number);
        say.host = "[" + address + "]";
        const sip::Flow flow{
            sip::Transport::udp, {gateway, Port{5060}}, {*Address::parse(address), Port{5060}}, {}, {}};
        return RegisterBench::status_of(*bench.send(say, flow));
    };
    const auto stands = [&](const std::string& address, int number) {
        return bench.parts().table.find_challenge(
                   {Impi{fmt::format("victim{}@example", number)}, *Address::parse(address), false}) != nullptr;
    };
    CHECK(status("2001:db8:0:1::1", 1) == 401);
    for (int i = 2; i <= 4; ++i) CHECK(status("2001:db8::1", i) == 401);
    CHECK(status("2001:db8:0:2::1", 5) == 401);
    CHECK(stands("2001:db8:0:1::1", 1));  // older, but its source has one
    CHECK_FALSE(stands("2001:db8::1", 2));
    CHECK(stands("2001:db8::1", 3));
    for (int i = 10; i < 20; ++i) CHECK(status("2001:db8::2", i) == 401);  // the same /64: among themselves
    CHECK(stands("2001:db8:0:1::1", 1));
    CHECK(stands("2001:db8:0:2::1", 5));
    CHECK(bench.parts().table.challenge_count() == 4);
    CHECK(bench.kernel.sas().size() == 16);
    CHECK(bench.parts().counters.get(daemon::Counter::challenge_gave_way) == 11);
}

TEST_CASE("At the limit of all challenges a registered phone that comes back is safe from strangers at its address") {
    RegisterBench bench([](daemon::Config& config) { config.limits.challenges = 2; });
    bench.registered();
    bench.challenge();
    for (int i = 0; i < 5; ++i) CHECK(RegisterBench::status_of(*bench.send(spoofed(i, 7600 + i, 1400 + i))) == 401);
    CHECK(bench.parts().table.challenge_count() == 2);
    CHECK(answered(bench) == 200);
}

TEST_CASE("At the limit of all challenges one whose answer the core has does not give way: 503") {
    RegisterBench bench([](daemon::Config& config) { config.limits.challenges = 1; });
    auto& set = bench.challenge();
    const auto number = set.number;
    const auto statuses =
        bench.crossed(bench.answer_to(set), bench.over(set), spoofed(1, 7600, 1400), bench.unprotected());
    CHECK(statuses == std::pair{401, 503});
    REQUIRE(bench.temporary_set());
    CHECK(bench.temporary_set()->number == number);
}
