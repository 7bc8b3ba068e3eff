// The life of an SA set in the register flow: table C-44, failures, collisions, moves. Real time is replaced by a still
// clock.
#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;

namespace {

constexpr std::string_view kSpiC = "spi-c=8765423", kSpiS = "spi-s=1234563", kPortC = "port-c=7524";

/// Security-Client with other SPIs and client port, number `n` of its kind: what a phone sends anew.
std::string client_number(int n) {
    std::string text = kClient;
    const auto replace = [&](std::string_view what, const std::string& with) {
        for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
            text.replace(at, what.size(), with);
    };
    replace(kSpiC, fmt::format("spi-c={}", 20000000 + n));
    replace(kSpiS, fmt::format("spi-s={}", 30000000 + n));
    replace(kPortC, fmt::format("port-c={}", 7600 + n));
    return text;
}

struct Life : RegisterBench {
    using RegisterBench::RegisterBench;

    daemon::SaSet& set_at(std::size_t index) { return *registration()->sets.at(index); }
    /// First REGISTER of a re-authentication over a set; the temporary set that it makes.
    daemon::SaSet& challenged_over(const daemon::SaSet& set, int n) {
        auto say = answer_to(set, client_number(n));
        core_status = 401;
        REQUIRE(status_of(*send(say, over(set))) == 401);
        REQUIRE(temporary_set());
        return *temporary_set();
    }
    /// A whole re-authentication over a set; the new set's number.
    SetNumber reauthenticated(const daemon::SaSet& set, int n) {
        auto& fresh = challenged_over(set, n);
        const auto number = fresh.number;
        core_status = 200;
        const auto say = answer_to(fresh, client_number(n));
        REQUIRE(status_of(*send(say, over(fresh))) == 200);
        return number;
    }
    void advance(std::chrono::seconds by) {
        clock.advance(by);
        sweep();
    }
    std::uint64_t counted(daemon::Counter counter) { return parts().counters.get(counter); }
    /// The kernel holds exactly four SAs for every set that the gateway knows.
    void check_kernel() {
        CHECK(kernel.sas().size() == 4 * parts().table.set_count());
        CHECK(parts().spis.in_use() == 2 * parts().table.set_count());
    }
};

}  // namespace

TEST_CASE(
    "C-44, B-51: with the 200 the lifetime is the longer of the old one and the registration's plus 30 s, in the kernel too") {
    Life bench;
    bench.registered();
    const auto long_life = bench.set_at(0).expires;
    auto& fresh = bench.challenged_over(bench.set_at(0), 1);
    bench.core_status = 200;
    auto say = bench.answer_to(fresh, client_number(1));
    say.expires = "600";  // shorter than the old one's 600000
    const auto number = fresh.number;
    REQUIRE(Life::status_of(*bench.send(say, bench.over(fresh))) == 200);
    CHECK(bench.registration()->find(number)->expires == long_life);
    for (const auto& [id, sa] : bench.kernel.sas()) CHECK(sa.hard_limit >= std::chrono::seconds{600000});
}

TEST_CASE("B-52: a refresh without a challenge extends the SAs in the kernel from their age, never shortens them") {
    Life bench;
    auto& set = bench.challenge();
    bench.clock.advance(bench.config.timers.reg_await_auth - std::chrono::seconds{1});
    bench.core_status = 200;
    REQUIRE(Life::status_of(*bench.send(bench.answer_to(set), bench.over(set))) == 200);
    CHECK(bench.kernel.count("extend_set") == 0);  // the SAs were made for the time that the phone asked for
    for (const auto& [id, sa] : bench.kernel.sas())
        CHECK(sa.added + sa.hard_limit >=
              bench.clock.wall() + (bench.set_at(0).expires - bench.clock.now()) + bench.config.timers.kernel_margin);
    const std::chrono::seconds step{300000}, granted{600000};
    const auto margins = bench.config.timers.lifetime_margin + bench.config.timers.kernel_margin;
    std::chrono::seconds age = bench.config.timers.reg_await_auth, limit{0};  // about
    const auto refreshed = [&](const std::string& expires) {
        auto say = bench.answer_to(bench.set_at(0));
        say.expires = expires;
        REQUIRE(Life::status_of(*bench.send(say, bench.over(bench.set_at(0)))) == 200);
        for (const auto& [id, sa] : bench.kernel.sas()) CHECK(sa.hard_limit >= limit);
        limit = bench.kernel.sas().begin()->second.hard_limit;
    };
    for (int i = 0; i < 12; ++i) {
        bench.clock.advance(step);
        age += step;
        refreshed("600000");
        for (const auto& [id, sa] : bench.kernel.sas())
            CHECK(sa.hard_limit >= age - std::chrono::seconds{1} + granted + margins);
    }
    // Not at each: the limit is far enough away. No further than thirty days, whoever asks.
    CHECK(bench.kernel.count("extend_set") == 2);
    CHECK(limit <= age + std::chrono::days{30} + bench.config.timers.kernel_margin);
    refreshed("60");
    CHECK(bench.kernel.count("extend_set") == 2);
}

TEST_CASE("B-51: the wall clock is set forth: a refresh asks the kernel, whose limit has come nearer with it") {
    Life bench;
    bench.registered();
    bench.core_status = 200;
    bench.clock.wall_ahead = std::chrono::seconds{400000};
    REQUIRE(Life::status_of(*bench.send(bench.answer_to(bench.set_at(0)), bench.over(bench.set_at(0)))) == 200);
    CHECK(bench.kernel.count("extend_set") == 1);
    const auto& sa = bench.kernel.sas().begin()->second;
    CHECK(sa.added + sa.hard_limit >= bench.clock.wall() + std::chrono::seconds{600000});
}

TEST_CASE("B-51: a core that grants more than the phone asked for has the SAs extended before the 200 leaves") {
    Life bench;
    auto& set = bench.challenge();
    bench.core_status = 200;
    bench.core_contact = "<sip:127.0.0.9:1358>;expires=900000";
    REQUIRE(Life::status_of(*bench.send(bench.answer_to(set), bench.over(set))) == 200);
    CHECK(bench.kernel.count("extend_set") == 1);
    for (const auto& [id, sa] : bench.kernel.sas()) CHECK(sa.hard_limit >= std::chrono::seconds{900000});
}

TEST_CASE(
    "C-44, B-54: the set that the first REGISTER came over is kept, also when it is the older one; the other goes") {
    Life bench;
    bench.registered();
    const auto first = bench.set_at(0).number;
    const auto lost = bench.reauthenticated(bench.set_at(0), 1);  // its 200 never reached the phone
    CHECK(bench.registration()->outbound()->number == first);
    const auto third = bench.reauthenticated(*bench.registration()->find(first), 2);
    REQUIRE(bench.registration()->sets.size() == 2);
    CHECK(bench.registration()->find(lost) == nullptr);
    CHECK(bench.registration()->outbound()->number == first);
    CHECK(bench.registration()->find(first)->state == daemon::SetState::old);
    CHECK(bench.registration()->find(third)->state == daemon::SetState::established);
    bench.check_kernel();
}

TEST_CASE("C-43, C-44: a REGISTER over the new set takes it into use and cuts the old one to 64*T1; it ends then") {
    Life bench;
    bench.registered();
    const auto first = bench.set_at(0).number;
    const auto second = bench.reauthenticated(bench.set_at(0), 1);
    const auto& fresh = *bench.registration()->find(second);
    bench.core_status = 200;
    const auto say = bench.answer_to(fresh, client_number(1));
    REQUIRE(Life::status_of(*bench.send(say, bench.over(fresh))) == 200);  // a refresh, without a challenge
    CHECK(bench.registration()->outbound()->number == second);
    CHECK(bench.registration()->find(first)->expires == bench.clock.now() + bench.config.timers.old_set);
    bench.advance(bench.config.timers.old_set - std::chrono::seconds{1});
    CHECK(bench.registration()->find(first) != nullptr);
    bench.advance(std::chrono::seconds{2});
    CHECK(bench.registration()->find(first) == nullptr);
    bench.check_kernel();
}

TEST_CASE("C-44: an old set in use with no more than 64*T1 left hands over to the new one, and lives out its time") {
    Life bench;
    bench.registered();
    const auto first = bench.set_at(0).number;
    const auto end = bench.set_at(0).expires;
    bench.advance(std::chrono::seconds{1000});
    const auto second = bench.reauthenticated(bench.set_at(0), 1);
    bench.advance(
        std::chrono::duration_cast<std::chrono::seconds>(end - bench.config.timers.old_set - bench.clock.now()) -
        std::chrono::seconds{1});
    CHECK(bench.registration()->outbound()->number == first);
    bench.advance(std::chrono::seconds{1});
    CHECK(bench.registration()->outbound()->number == second);
    CHECK(bench.registration()->find(first) != nullptr);
    bench.advance(bench.config.timers.old_set + std::chrono::seconds{1});
    CHECK(bench.registration()->find(first) == nullptr);
    REQUIRE(bench.registration());
    bench.check_kernel();
}

TEST_CASE("C-44, B-53: a 200 that ends an initial authentication deletes every other set of the contact") {
    Life bench;
    bench.registered();
    bench.reauthenticated(bench.set_at(0), 1);
    REQUIRE(bench.registration()->sets.size() == 2);
    Say sm1;
    sm1.client = client_number(5);
    bench.core_status = 401;
    REQUIRE(Life::status_of(*bench.send(sm1)) == 401);
    REQUIRE(bench.registration()->sets.size() == 2);  // B-58: nothing is disturbed before SM12
    auto& fresh = *bench.temporary_set();
    const auto number = fresh.number;
    bench.core_status = 200;
    REQUIRE(Life::status_of(*bench.send(bench.answer_to(fresh, client_number(5)), bench.over(fresh))) == 200);
    bench.loop.poll();
    REQUIRE(bench.registration()->sets.size() == 1);
    CHECK(bench.registration()->outbound()->number == number);
    CHECK(bench.registration()->outbound()->in_use);
    bench.check_kernel();
}

TEST_CASE("B-22: never more than three sets per contact, through re-authentications and moves") {
    Life bench;
    bench.registered();
    for (int n = 1; n <= 6; ++n) {
        if (n % 2 == 0) bench.ue = *Address::parse(fmt::format("127.0.0.{}", 50 + n));  // the phone moves
        Say sm1;
        sm1.instance = "";
        sm1.host = bench.ue.to_string();
        sm1.client = client_number(n);
        bench.core_status = 401;
        const bool moves = n % 2 == 0;
        const auto carrier = moves ? bench.unprotected() : bench.over(*bench.registration()->sets.back());
        if (!moves)
            sm1 = bench.answer_to(*bench.registration()->sets.back(), client_number(n)),
            sm1.host = bench.ue.to_string();
        REQUIRE(Life::status_of(*bench.send(sm1, carrier)) == 401);
        CHECK(bench.registration()->sets.size() <= 2);
        CHECK(bench.kernel.sas().size() <= 12);
        auto& fresh = *bench.temporary_set();
        auto sm7 = bench.answer_to(fresh, client_number(n));
        sm7.host = bench.ue.to_string();
        bench.core_status = 200;
        REQUIRE(Life::status_of(*bench.send(sm7, bench.over(fresh))) == 200);
        bench.loop.poll();
        CHECK(bench.registration()->sets.size() <= 2);
        bench.check_kernel();
    }
}

TEST_CASE(
    "A phone that changes its address registers anew as the same contact; the old set ends 64*T1 after the new 200") {
    Life bench;
    bench.registered();
    const auto first = bench.set_at(0).number;
    bench.ue = *Address::parse("127.0.0.77");
    Say sm1;
    sm1.host = "127.0.0.77";
    bench.core_status = 401;
    REQUIRE(Life::status_of(*bench.send(sm1)) == 401);
    CHECK(bench.registration()->outbound()->number == first);
    auto& fresh = *bench.temporary_set();
    const auto number = fresh.number;
    auto sm7 = bench.answer_to(fresh);
    sm7.host = "127.0.0.77";
    bench.core_status = 200;
    REQUIRE(Life::status_of(*bench.send(sm7, bench.over(fresh))) == 200);
    CHECK(bench.parts().table.registration_count() == 1);
    CHECK(bench.registration()->outbound()->number == number);
    CHECK(bench.registration()->find(first)->expires == bench.clock.now() + bench.config.timers.old_set);
    bench.advance(bench.config.timers.old_set + std::chrono::seconds{1});
    CHECK(bench.registration()->sets.size() == 1);
    bench.check_kernel();
}

TEST_CASE("B-41: after a re-authentication the core's refusal is told over the old set, which lives on") {
    Life bench;
    bench.registered();
    const auto old_port = bench.set_at(0).parameters.port_pc;
    auto& fresh = bench.challenged_over(bench.set_at(0), 1);
    const auto flow = bench.over(fresh);
    const auto say = bench.answer_to(fresh, client_number(1));
    SUBCASE("refused") { bench.core_status = 403; }
    SUBCASE("challenged again") { bench.core_status = 401; }
    const auto answer = bench.send(say, flow);
    CHECK(Life::status_of(*answer) == bench.core_status);
    CHECK(answer->reply_flow().local.port == old_port);
    bench.advance(bench.config.timers.final_answer + std::chrono::seconds{1});
    REQUIRE(bench.registration());
    CHECK(bench.registration()->sets.size() == 1);
    CHECK(bench.registration()->outbound()->in_use);
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE(
    "B-42: the phone's report that it refuses AUTN or SQN ends the temporary set at once; only the challenge's own nonce does") {
    Life bench;
    bench.challenge();
    bench.core_status = 403;
    Say report;
    report.client = client_number(1);
    report.nonce = bench.nonce;
    bool ends = true;
    SUBCASE("an empty response") {}
    SUBCASE("auts") { report.response = "00000000000000000000000000000000\", auts=\"AAAAAAAAAAAAAAAAAAA="; }
    SUBCASE("another nonce") {
        report.nonce = "AAAA";
        ends = false;
    }
    SUBCASE("no nonce: the first REGISTER again, which the core refuses") {
        report.nonce.clear();
        ends = false;
    }
    bench.send(report);
    CHECK(bench.parts().table.challenge_count() == (ends ? 0 : 1));
    bench.check_kernel();
}

TEST_CASE("B-42: a failure reported over the set that the phone had before leaves that set alone") {
    Life bench;
    bench.registered();
    bench.challenged_over(bench.set_at(0), 1);
    CHECK(bench.kernel.sas().size() == 8);
    auto report = bench.answer_to(bench.set_at(0), client_number(2));
    report.response.clear();
    bench.core_status = 403;
    CHECK(Life::status_of(*bench.send(report, bench.over(bench.set_at(0)))) == 403);
    CHECK(bench.parts().table.challenge_count() == 0);
    CHECK(bench.registration()->outbound()->in_use);
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE("G-25: a newcomer with the address and client port of a live registration ends it with its 200, not before") {
    Life bench;
    bench.registered();
    const auto first_token = bench.registration()->token;
    Say sm1;
    bool same_user = false;
    SUBCASE("another private identity: the address went to another phone") {
        sm1.impi = "other@ims.mnc001.mcc001.3gppnetwork.org";
    }
    SUBCASE("the same one under another contact: crashed and back") {
        sm1.instance = "<urn:gsma:imei:1>";
        same_user = true;
    }
    sm1.client = client_number(1);
    for (auto at = sm1.client.find("port-c=7601"); at != std::string::npos; at = sm1.client.find("port-c=7601"))
        sm1.client.replace(at, 11, kPortC);
    bench.core_status = 401;
    REQUIRE(Life::status_of(*bench.send(sm1)) == 401);
    CHECK(bench.counted(daemon::Counter::port_collision) == 1);
    auto* challenge = bench.parts().table.find_challenge({Impi{sm1.impi}, bench.ue, false});
    REQUIRE(challenge);
    auto& fresh = *challenge->set;
    CHECK(fresh.parameters.port_ps == Port{6101});
    auto sm7 = bench.answer_to(fresh, sm1.client);
    sm7.impi = sm1.impi;
    sm7.instance = sm1.instance;
    SUBCASE("its answer is wrong: nothing happens to the live one") {
        bench.core_status = 403;
        CHECK(Life::status_of(*bench.send(sm7, bench.over(fresh))) == 403);
        REQUIRE(bench.parts().table.find_by_token(first_token));
        CHECK(bench.parts().table.find_by_token(first_token)->outbound()->in_use);
        CHECK(bench.counted(daemon::Counter::displaced) == 0);
        bench.advance(bench.config.timers.final_answer + std::chrono::seconds{1});
        bench.check_kernel();
        return;
    }
    REQUIRE(bench.parts().table.find_by_token(first_token));
    bench.core_status = 200;
    REQUIRE(Life::status_of(*bench.send(sm7, bench.over(fresh))) == 200);
    bench.loop.poll();
    CHECK(bench.parts().table.find_by_token(first_token) == nullptr);
    CHECK(bench.parts().table.registration_count() == 1);
    CHECK(bench.parts().table.find_by_impi(Impi{kImpi}).size() == (same_user ? 1 : 0));
    CHECK(bench.counted(daemon::Counter::displaced) == 1);
    bench.check_kernel();
}

TEST_CASE("G-25, B-3: an emergency contact on the same client port stands beside its user's registration") {
    Life bench;
    bench.registered();
    Say sm1;
    sm1.client = client_number(1);
    for (auto at = sm1.client.find("port-c=7601"); at != std::string::npos; at = sm1.client.find("port-c=7601"))
        sm1.client.replace(at, 11, kPortC);
    sm1.contact_port = "1358;sos";
    bench.core_status = 401;
    REQUIRE(Life::status_of(*bench.send(sm1)) == 401);
    auto& fresh = *bench.temporary_set(true);
    auto sm7 = bench.answer_to(fresh, sm1.client);
    sm7.contact_port = sm1.contact_port;
    bench.core_status = 200;
    REQUIRE(Life::status_of(*bench.send(sm7, bench.over(fresh))) == 200);
    CHECK(bench.parts().table.registration_count() == 2);
    CHECK(bench.counted(daemon::Counter::displaced) == 0);
    bench.check_kernel();
}
