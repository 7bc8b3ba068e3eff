// What strangers may cost the home network.
#include "daemon/agreement/authentication_budget.h"

#include <doctest/doctest.h>

#include "tests/support/register_parts.h"

using namespace gmgate;
using daemon::AuthenticationBudget;
using daemon::AuthenticationLimits;
using gmgate::test::StillClock;
using Asker = AuthenticationBudget::Asker;

namespace {

Asker from(const std::string& address, const std::string& impi) {
    return {.address = *Address::parse(address), .impi = Impi{impi}};
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
    CHECK(budget.take(from("2001:db8::1", "a")) == "authentications-per-impi");  // from elsewhere
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
    auto known = from("10.9.9.9", "i");
    known.is_known_address = true;
    CHECK(budget.take(known).empty());
}

TEST_CASE(
    "authentications: who registers is not bounded by his name; a user at his own address is not kept out by others") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 0, .per_source = 0, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    const auto phone = from("192.0.2.1", "a");
    for (int i = 0; i < 100; ++i) {
        REQUIRE(budget.take(phone).empty());
        budget.give_back(phone.address, phone.impi, phone.is_emergency);
    }
    CHECK(passed(budget, from("192.0.2.66", "a")) == 30);
    CHECK(budget.take(phone) == "authentications-per-impi");
    auto at_home = phone;
    at_home.is_own_address = true;
    CHECK(passed(budget, at_home) == 30);  // as much as anybody; what others did with its name does not count
    auto in_need = phone;
    in_need.is_emergency = true;
    CHECK(passed(budget, in_need) == 1000);
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
    auto phone = from("192.0.2.1", "a");
    phone.is_own_address = true;
    CHECK(budget.take(phone).empty());
}

TEST_CASE("authentications: emergency registrations have a share of their own, and no more than that") {
    StillClock clock;
    const AuthenticationLimits limits{.in_all = 10, .per_source = 5, .per_impi = 1};
    AuthenticationBudget budget(limits, clock);
    const auto flood = [&](bool is_emergency) {
        int count = 0;
        for (int i = 0; i < 1000; ++i) {
            auto asker =
                from("10.1." + std::to_string(i / 250) + "." + std::to_string(i % 250), "y" + std::to_string(i));
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
