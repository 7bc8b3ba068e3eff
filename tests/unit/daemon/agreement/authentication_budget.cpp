// What strangers may cost the home network.
#include "daemon/agreement/authentication_budget.h"

#include <doctest/doctest.h>

#include "tests/support/still_clock.h"

using namespace gmgate;
using daemon::AuthenticationBudget;
using daemon::AuthenticationLimits;
using gmgate::test::StillClock;
using Asker = AuthenticationBudget::Asker;

namespace {

Asker from(const std::string& address, const std::string& impi) {
    return {.address = *Address::parse(address), .impi = Impi{impi}};
}

/// The same asker as an emergency contact, which anybody may write.
Asker in_need(Asker asker) {
    asker.is_emergency = true;
    return asker;
}
Asker at_home(Asker asker) {
    asker.is_own_address = asker.is_known_address = true;
    return asker;
}
Asker known(Asker asker) {
    asker.is_known_address = true;
    return asker;
}
Asker from_host(int number, const std::string& impi) {
    return from("10.1." + std::to_string(number / 250) + "." + std::to_string(number % 250), impi);
}

/// How many of `tries` pass.
int passed(AuthenticationBudget& budget, const Asker& asker, int tries = 1000) {
    int count = 0;
    for (int i = 0; i < tries; ++i) count += budget.take(asker).empty() ? 1 : 0;
    return count;
}

}  // namespace

TEST_CASE("authentications: seconds' worth at once and the rate from then on, for a source, a name and in all") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 100, .per_source = 20, .per_impi = 2};
    AuthenticationBudget budget(limits, clock);
    CHECK(passed(budget, from("192.0.2.1", "a")) == 60);
    CHECK(budget.take(from("192.0.2.1", "a")) == "authentications-per-impi");
    CHECK(budget.take(from("2001:db8::1", "a")).empty());  // from elsewhere: a share of its own
    for (int i = 0; i < 140; ++i) CHECK(budget.take(from("192.0.2.1", "b" + std::to_string(i))).empty());
    CHECK(budget.take(from("192.0.2.1", "c")) == "authentications-per-source");
    CHECK(budget.take(from("2001:db8::7", "c")).empty());  // another source

    clock.advance(std::chrono::seconds{1});
    CHECK(passed(budget, from("192.0.2.1", "a")) == 2);
    for (int i = 0; i < 18; ++i) CHECK(budget.take(from("192.0.2.1", "d" + std::to_string(i))).empty());
    CHECK(budget.take(from("192.0.2.1", "e")) == "authentications-per-source");

    // An IPv6 /64 is one source; many of them meet the limit of all, which those of known addresses do not.
    for (int i = 0; i < 200; ++i)
        CHECK(budget.take(from("2001:db8:1::" + std::to_string(i), "f" + std::to_string(i))).empty());
    CHECK(budget.take(from("2001:db8:1::ffff", "g")) == "authentications-per-source");
    int all = 0;
    for (int i = 0; i < 1000; ++i)
        all += budget.take(from("10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250),
                                "h" + std::to_string(i)))
                       .empty()
                   ? 1
                   : 0;
    CHECK(all > 500);
    CHECK(all < 700);
    CHECK(budget.take(from("10.9.9.9", "i")) == "authentications");
    CHECK(budget.take(known(from("10.9.9.9", "i"))).empty());
}

TEST_CASE(
    "authentications: who registers is not bounded by his name; a user at his own address is not kept out by others") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 0, .per_source = 0, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    const auto phone = from("192.0.2.1", "a");
    for (int i = 0; i < 100; ++i) {
        daemon::AuthenticationCharge charge;
        REQUIRE(budget.take(phone, &charge).empty());
        budget.give_back(charge);
    }
    for (int i = 0; i < 4; ++i) CHECK(passed(budget, from_host(i, "a")) == 30);
    CHECK(passed(budget, phone) == 2);  // the first two come before those who have had much of this name
    CHECK(budget.take(phone) == "authentications-per-impi");
    CHECK(passed(budget, at_home(phone)) == 30);  // as much as anybody; what others did with its name does not count
    CHECK(passed(budget, in_need(phone)) == 1000);
}

TEST_CASE("authentications: places are bounded; who finds none shares a bucket with the others, and time makes room") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 0, .per_source = 0, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    for (std::size_t i = 0; i < AuthenticationBudget::kPlaces; ++i)
        REQUIRE(budget.take(from("192.0.2.1", std::to_string(i))).empty());
    CHECK(passed(budget, from("192.0.2.1", "late")) == 30);
    CHECK(budget.take(from("192.0.2.1", "later")) == "authentications-per-impi");
    clock.advance(std::chrono::seconds{31});
    CHECK(passed(budget, from("192.0.2.1", "later")) == 30);
    CHECK(passed(budget, from("192.0.2.1", "late")) == 30);
}

TEST_CASE("authentications: without limits nothing is bounded") {
    StillClock clock;
    AuthenticationLimits limits{.in_all = 0, .per_source = 0, .per_impi = 0};
    AuthenticationBudget budget(limits, clock);
    CHECK(passed(budget, from("192.0.2.1", "a"), 100'000) == 100'000);
    limits.per_impi = 1;  // a reload
    CHECK(passed(budget, from("192.0.2.1", "a")) == 30);
}

TEST_CASE("authentications: a flood from a phone's own address with other names does not keep that phone out") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 10, .per_source = 5, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    int spoofed = 0;
    for (int i = 0; i < 1000; ++i) spoofed += budget.take(from("192.0.2.1", "x" + std::to_string(i))).empty() ? 1 : 0;
    CHECK(spoofed == 50);
    CHECK(budget.take(from("192.0.2.1", "a")) == "authentications-per-source");
    CHECK(budget.take(at_home(from("192.0.2.1", "a"))).empty());
}

TEST_CASE("authentications: emergency registrations have a share of their own, and no more than that") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 10, .per_source = 5, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    const auto flood = [&](bool is_emergency) {
        int count = 0;
        for (int i = 0; i < 1000; ++i) {
            auto asker = from_host(i, "y" + std::to_string(i));
            asker.is_emergency = is_emergency;
            count += budget.take(asker).empty() ? 1 : 0;
        }
        return count;
    };
    CHECK(flood(false) == 100);
    CHECK(flood(false) == 0);
    CHECK(flood(true) == 100);
    CHECK(flood(true) == 0);
}

TEST_CASE("authentications: emergency registrations in a user's name, or at its address, cost that user nothing") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 100, .per_source = 20, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    const auto phone = from("192.0.2.1", "a");
    passed(budget, in_need(from("192.0.2.66", "a")));
    passed(budget, in_need(from("192.0.2.1", "a")));
    for (int i = 0; i < 1000; ++i) static_cast<void>(budget.take(in_need(from_host(i, "a"))));
    CHECK(passed(budget, phone) == 30);
    CHECK(budget.take(from("192.0.2.1", "b")).empty());
    CHECK(budget.take(from("192.0.2.2", "c")).empty());
    CHECK(passed(budget, at_home(phone)) == 30);
}

TEST_CASE("authentications: who is not held to a bound does not use it up for those who are") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 10, .per_source = 5, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    SUBCASE("emergencies of users at their own addresses: each has a bucket of its own, then what strangers have") {
        CHECK(passed(budget, in_need(at_home(from("192.0.2.1", "a")))) == 30 + 50);
        for (int i = 0; i < 500; ++i)
            CHECK(budget.take(in_need(at_home(from_host(i, "y" + std::to_string(i))))).empty());
    }
    SUBCASE("users at their own addresses") {
        for (int i = 0; i < 500; ++i) CHECK(budget.take(at_home(from_host(i, "y" + std::to_string(i)))).empty());
    }
    SUBCASE("known addresses") {
        for (int i = 0; i < 500; ++i) {
            CHECK(budget.take(known(from_host(i, "y" + std::to_string(i)))).empty());
            CHECK(budget.take(in_need(known(from_host(i, "y" + std::to_string(i))))).empty());
        }
        CHECK(budget.take(known(from_host(0, "z"))).empty());  // one of five at once and fifty in all
    }
    CHECK(budget.take(in_need(from("192.0.2.7", "b"))).empty());
    CHECK(budget.take(from("192.0.2.7", "b")).empty());
}

TEST_CASE(
    "authentications: a flood in a phone's name from elsewhere, few sources or many, leaves room for that phone") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 0, .per_source = 0, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    int sources = 0;
    SUBCASE("one") { sources = 1; }
    SUBCASE("as many as have a share") { sources = static_cast<int>(AuthenticationBudget::kSharesOfName); }
    SUBCASE("more") { sources = 40; }
    int flooded = 0, refused = 0;
    for (int second = 0; second < 120; ++second) {
        for (int i = 0; i < 20 * sources; ++i) flooded += budget.take(from_host(i % sources, "a")).empty() ? 1 : 0;
        const int asks = second % 20 != 19 ? 0 : second == 19 ? 2 : 1;  // once out of step: two of them
        for (int i = 0; i < asks; ++i) refused += budget.take(from("192.0.2.1", "a")).empty() ? 0 : 1;
        clock.advance(std::chrono::seconds{1});
    }
    CHECK(refused == 0);
    constexpr int most = static_cast<int>(AuthenticationBudget::kSharesOfName) * (30 + 120);
    CHECK(flooded <= most);  // the home network is spared whatever the number of sources
    CHECK(flooded <= sources * (30 + 120));
}

TEST_CASE("authentications: who is refused takes no place") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 0, .per_source = 1, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    for (std::size_t i = 0; i < 3 * AuthenticationBudget::kPlaces; ++i)
        static_cast<void>(budget.take(from("192.0.2.1", std::to_string(i))));
    CHECK(passed(budget, from("192.0.2.2", "a")) == 10);
    CHECK(passed(budget, from("192.0.2.3", "b")) == 10);
    CHECK(passed(budget, from("192.0.2.4", "a")) == 10);
    CHECK(passed(budget, from("192.0.2.5", "b")) == 10);
}
