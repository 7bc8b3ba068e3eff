// Registrations as operators count them, and what is kept of each element of the core.
#include <doctest/doctest.h>

#include "daemon/core/hop_history.h"
#include "daemon/operate/registration_statistics.h"
#include "tests/support/still_clock.h"

using namespace gmgate;
using namespace gmgate::daemon;
using gmgate::test::StillClock;
using namespace std::chrono_literals;

namespace {

DecisionRecord challenge(const Clock& clock, std::uint32_t set) {
    DecisionRecord record;
    record.time = clock.wall();
    record.realm_id = "access";
    record.over = "unprotected";
    record.answer = record.core_status = 401;
    record.set = SetNumber{set};
    return record;
}

DecisionRecord answer(const Clock& clock, std::uint32_t set, int status, const std::string& why) {
    DecisionRecord record;
    record.time = clock.wall();
    record.realm_id = "access";
    record.over = "temporary set " + std::to_string(set);
    record.answer = record.core_status = status;
    record.why = why;
    return record;
}

}  // namespace

TEST_CASE("Attempts, successes and failures by reason are counted for each interface, now and ever") {
    StillClock clock;
    RegistrationStatistics statistics(clock);
    statistics.record(challenge(clock, 7), 0);
    statistics.record(answer(clock, 7, 200, "registered"), 1);
    statistics.record(challenge(clock, 8), 1);
    statistics.record(answer(clock, 8, 403, "the core refused"), 1);
    statistics.record(challenge(clock, 9), 1);
    statistics.unanswered(SetNumber{9}, "access");
    DecisionRecord refused;
    refused.realm_id = "access";
    refused.over = "unprotected";
    refused.answer = 494;
    refused.checks.push_back({"security-client", false, "nothing usable"});
    statistics.record(refused, 1);
    const auto& tally = statistics.by_realm().at("access");
    CHECK(tally.attempts.lifetime == 4);
    CHECK(tally.successes.lifetime == 1);
    CHECK(tally.failures.lifetime == 3);
    for (const char* reason : {"core 403", "unanswered", "security-client"})
        CHECK(tally.reasons.at(reason).lifetime == 1);
    CHECK(statistics.registered().period == 1);
    CHECK(statistics.challenged().lifetime == 3);
    CHECK(statistics.refused().lifetime == 2);
    CHECK(statistics.most_active() == 1);

    clock.advance(16min);
    statistics.look(0);
    CHECK(tally.attempts.period == 0);
    CHECK(tally.attempts.lifetime == 4);
    CHECK(tally.attempts.most == 4);
    CHECK(statistics.most_active_in_period() == 0);
    CHECK(statistics.most_active() == 1);
    CHECK(statistics.in_period() == 1min);
    // Whatever a stranger provokes, the table of reasons is bounded.
    for (int i = 0; i < 1000; ++i) statistics.record(answer(clock, 0, 400 + i, ""), 0);
    CHECK(tally.reasons.size() <= RegistrationStatistics::kReasons + 1);
}

TEST_CASE("Durations by phase: the core's and ours, the phone's, and the whole") {
    StillClock clock;
    RegistrationStatistics statistics(clock);
    auto first = challenge(clock, 7);
    clock.advance(200ms);
    statistics.record(first, 0);
    clock.advance(3s);
    auto second = answer(clock, 7, 200, "registered");
    clock.advance(40ms);
    statistics.record(second, 1);
    const auto& durations = statistics.durations();
    CHECK(durations.at("challenge").sum() == doctest::Approx(0.2));
    CHECK(durations.at("phone").sum() == doctest::Approx(3.0));
    CHECK(durations.at("answer").sum() == doctest::Approx(0.04));
    CHECK(durations.at("whole").sum() == doctest::Approx(3.24));
    CHECK(durations.at("whole").count() == 1);
    CHECK(temporary_set_of("temporary set 12").value == 12);
    for (const char* other : {"established set 12", "unprotected", "temporary set ", ""})
        CHECK(temporary_set_of(other).value == 0);
}

TEST_CASE("An element of the core: up and down since when, the last trouble stays, disabled by address or name") {
    StillClock clock;
    HopHistory history(clock, 2);
    const auto a = *Endpoint::parse("10.2.0.2:5060"), b = *Endpoint::parse("[fd02::2]:5060"),
               c = *Endpoint::parse("10.2.0.4:5060");
    CHECK(history.find(a) == nullptr);
    history.answered_ping(a, 3ms);
    const auto up_at = clock.wall();
    clock.advance(10s);
    history.answered(a, 20ms);
    CHECK(history.find(a)->since == up_at);
    CHECK(history.find(a)->round_trip == 3ms);
    CHECK(history.find(a)->responses.count() == 1);
    history.went_down(a, "no answer");
    CHECK_FALSE(history.find(a)->is_up);
    CHECK(history.find(a)->since == clock.wall());
    clock.advance(10s);
    history.went_down(a, "still none");
    CHECK(history.find(a)->since == clock.wall() - 10s);
    history.came_up(a);
    CHECK(history.find(a)->is_up);
    CHECK(history.find(a)->reason == "still none");
    history.came_up(b);
    history.came_up(c);  // no room
    CHECK(history.all().size() == 2);

    Target target;
    target.endpoint = a;
    target.host = "icscf.example";
    CHECK_FALSE(history.is_disabled(target));
    history.disable("icscf.example");
    CHECK(history.is_disabled(target));
    CHECK(history.enable("icscf.example"));
    CHECK_FALSE(history.enable("icscf.example"));
    history.disable("10.2.0.2:5060");
    CHECK(history.is_disabled(target));
}
