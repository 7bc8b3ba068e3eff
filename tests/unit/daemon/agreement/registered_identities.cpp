// A registration is a contact with a list of public identities: each has its implicit set, its route and its end (TS
// 24.229 §5.2.2.1, §5.2.5.1).
#include "daemon/agreement/contact.h"
#include "daemon/rules/from_ue_checks.h"
#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;
using Bench = RegisterBench;
using std::chrono::seconds;

namespace {

constexpr const char* kSecondRoute = "<sip:orig@scscf2.example;lr>";

/// One more identity over the same set: the core tells its own implicit set and route.
void register_second(Bench& bench, const std::string& expires = "600000") {
    auto& set = *bench.registration()->sets.front();
    auto say = bench.answer_to(set);
    say.to = "sip:work@example";
    say.expires = expires;
    bench.core_status = 200;
    bench.core_identities = "<sip:work@example>, <tel:+4930123>";
    bench.core_route = kSecondRoute;
    REQUIRE(Bench::status_of(*bench.send(say, bench.over(set))) == 200);
    bench.core_identities = "<sip:user@example>";
    bench.core_route = "<sip:orig@scscf.example;lr>";
}

int say_for(Bench& bench, const std::string& to, const std::string& expires) {
    auto& set = *bench.registration()->sets.front();
    auto say = bench.answer_to(set);
    say.to = to;
    say.expires = expires;
    return Bench::status_of(*bench.send(say, bench.over(set)));
}

/// The same over TLS: a registration of one identity, then of another on the connection.
sip::Flow registered_with_two_over_tls(Bench& bench) {
    REQUIRE(Bench::status_of(*bench.send({})) == 401);
    const auto flow = bench.tls_connection();
    Say say{.verify = "tls", .response = "3779ff40a057f999a2f8288bbfafc10d", .nonce = bench.nonce};
    bench.core_status = 200;
    REQUIRE(Bench::status_of(*bench.send(say, flow)) == 200);
    say.to = "sip:work@example";
    bench.core_identities = "<sip:work@example>";
    bench.core_route = kSecondRoute;
    REQUIRE(Bench::status_of(*bench.send(say, flow)) == 200);
    return flow;
}

std::vector<std::string> identities_of(const daemon::Registration& registration) {
    std::vector<std::string> impus;
    for (const auto& impu : registration.impus) impus.push_back(impu.value);
    return impus;
}

}  // namespace

TEST_CASE("A second identity on a contact stands beside the first: both are the phone's, each with its own route") {
    Bench bench;
    bench.registered();
    register_second(bench);
    auto& registration = *bench.registration();
    CHECK(bench.parts().table.registration_count() == 1);
    CHECK(identities_of(registration) ==
          std::vector<std::string>{"sip:user@example", "sip:work@example", "tel:+4930123"});
    CHECK(registration.service_route == std::vector<std::string>{"<sip:orig@scscf.example;lr>"});
    CHECK(daemon::route_for(registration, "tel:+4930123") == std::vector<std::string>{kSecondRoute});
    CHECK(daemon::route_for(registration, "sip:user@example") == registration.service_route);
    CHECK(daemon::route_for(registration, std::nullopt) == registration.service_route);
}

TEST_CASE("TS 24.229 5.2.5.1: a de-REGISTER ends the identity of its To; the SAs end with the last one") {
    Bench bench;
    bench.registered();
    register_second(bench);
    std::string first = "sip:work@example", last = "sip:user@example";
    SUBCASE("the second first") {}
    SUBCASE("the first first") { std::swap(first, last); }
    SUBCASE("named by a member of its implicit set") { first = "tel:+49-30-123"; }
    CHECK(say_for(bench, first, "0") == 200);
    bench.let_pass(bench.config.timers.final_answer + seconds{1});
    REQUIRE(bench.registration());
    CHECK_FALSE(bench.registration()->ended);
    REQUIRE(bench.registration()->identities.size() == 1);
    CHECK(bench.registration()->identities.front().aor.value == last);
    CHECK(bench.registration()->service_route == bench.registration()->identities.front().service_route);
    CHECK(bench.kernel.sas().size() == 4);
    CHECK(say_for(bench, "sip:nobody@example", "0") == 200);  // not registered on this contact: nothing ends
    CHECK_FALSE(bench.registration()->ended);
    CHECK(say_for(bench, last, "0") == 200);
    bench.let_pass(bench.config.timers.final_answer + seconds{1});
    CHECK(bench.registration() == nullptr);
    CHECK(bench.kernel.sas().empty());
}

TEST_CASE("TS 33.203 7.4: a challenged de-REGISTER of one identity: the others are served over the set that it made") {
    Bench bench;
    bench.registered();
    register_second(bench);
    const auto before = bench.registration()->sets.front()->number;
    auto& old_set = *bench.registration()->sets.front();
    auto say = bench.answer_to(old_set);
    say.to = "sip:work@example";
    say.expires = "0";
    say.client = kSecondClient;
    bench.core_status = 401;
    REQUIRE(Bench::status_of(*bench.send(say, bench.over(old_set))) == 401);
    auto& fresh = *bench.temporary_set();
    const auto number = fresh.number;
    auto answer = bench.answer_to(fresh, kSecondClient);
    answer.to = say.to;
    answer.expires = "0";
    SUBCASE("one identity") {}
    SUBCASE("by a star") { answer.contact = "*"; }
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(answer, bench.over(fresh))) == 200);
    bench.let_pass(bench.config.timers.final_answer + seconds{1});
    REQUIRE(bench.registration());
    CHECK_FALSE(bench.registration()->ended);
    CHECK(identities_of(*bench.registration()) == std::vector<std::string>{"sip:user@example"});
    REQUIRE(bench.registration()->find(number));
    CHECK(bench.registration()->find(number)->state == daemon::SetState::established);
    CHECK(bench.registration()->find(before)->state == daemon::SetState::old);
    CHECK(bench.parts().table.challenge_count() == 0);
}

TEST_CASE("A name by which an identity was registered before, and which its set does not tell, still ends it") {
    Bench bench;
    bench.registered();  // To sip:user@example
    bench.core_status = 200;
    bench.core_identities = "<sip:real@example>, <tel:+4930999>";
    CHECK(say_for(bench, "sip:user@example", "600000") == 200);
    CHECK(say_for(bench, "sip:real@example", "600000") == 200);
    CHECK(identities_of(*bench.registration()) == std::vector<std::string>{"sip:real@example", "tel:+4930999"});
    CHECK(say_for(bench, "sip:user@example", "0") == 200);
    bench.let_pass(bench.config.timers.final_answer + seconds{1});
    CHECK(bench.registration() == nullptr);
    CHECK(bench.kernel.sas().empty());
}

TEST_CASE("An identity that runs out leaves the others; a refresh of one does not prolong another") {
    Bench bench;
    bench.registered();
    register_second(bench, "600");
    CHECK(say_for(bench, "sip:user@example", "600000") == 200);
    bench.let_pass(seconds{601} + bench.config.timers.lifetime_margin);
    REQUIRE(bench.registration());
    CHECK(identities_of(*bench.registration()) == std::vector<std::string>{"sip:user@example"});
    CHECK(bench.kernel.sas().size() == 4);
    bench.let_pass(seconds{600000});
    CHECK(bench.registration() == nullptr);
    CHECK(bench.parts().expiry.watched() == 0);
}

TEST_CASE("A refresh of an identity replaces its own set and route, in its place; sets that share a member are one") {
    Bench bench;
    bench.registered();
    register_second(bench);
    bench.core_identities = "<sip:user@example>, <tel:+4940555>";
    bench.core_route = "<sip:orig@scscf3.example;lr>";
    SUBCASE("by the name that it was registered by") { CHECK(say_for(bench, "sip:user@example", "600000") == 200); }
    SUBCASE("by another name of its set") { CHECK(say_for(bench, "tel:+4940555", "600000") == 200); }
    const auto& registration = *bench.registration();
    REQUIRE(registration.identities.size() == 2);
    CHECK(identities_of(registration) ==
          std::vector<std::string>{"sip:user@example", "tel:+4940555", "sip:work@example", "tel:+4930123"});
    CHECK(registration.service_route == std::vector<std::string>{"<sip:orig@scscf3.example;lr>"});
    CHECK(registration.identities.back().service_route == std::vector<std::string>{kSecondRoute});
}

TEST_CASE("RFC 3261 10.2.2: `Contact: *` ends the identity in To on every contact, and a contact that has no other") {
    Bench bench;
    bench.registered();
    register_second(bench);
    auto& set = *bench.registration()->sets.front();
    auto say = bench.answer_to(set);
    say.contact = "*";
    say.extra = "Expires: 0\r\n";
    REQUIRE(Bench::status_of(*bench.send(say, bench.over(set))) == 200);
    CHECK_FALSE(bench.registration()->ended);
    CHECK(identities_of(*bench.registration()) == std::vector<std::string>{"sip:work@example", "tel:+4930123"});
    say.to = "tel:+4930123";
    REQUIRE(Bench::status_of(*bench.send(say, bench.over(set))) == 200);
    CHECK(bench.registration()->ended);
}

TEST_CASE("Over TLS, too, the connection is closed with the last identity and not before") {
    Bench bench([](daemon::Config& config) {
        config.sip_interfaces.front().sec_agree_pref = daemon::SecAgreePref::tls_ipsec3gpp;
    });
    const auto flow = registered_with_two_over_tls(bench);
    CHECK(identities_of(*bench.registration()) == std::vector<std::string>{"sip:user@example", "sip:work@example"});
    Say say{.verify = "tls", .response = "3779ff40a057f999a2f8288bbfafc10d", .nonce = bench.nonce, .expires = "0"};
    REQUIRE(Bench::status_of(*bench.send(say, flow)) == 200);
    REQUIRE(bench.registration());
    CHECK(identities_of(*bench.registration()) == std::vector<std::string>{"sip:work@example"});
    CHECK(bench.registration()->service_route == std::vector<std::string>{kSecondRoute});
    CHECK(bench.parts().transports.is_open(flow.connection));
    say.to = "sip:work@example";
    REQUIRE(Bench::status_of(*bench.send(say, flow)) == 200);
    CHECK(bench.registration() == nullptr);
    CHECK_FALSE(bench.parts().transports.is_open(flow.connection));
}

TEST_CASE("A registrar that accepts whatever a phone calls itself: a contact has 64 identities, the nearest end goes") {
    Bench bench;
    bench.registered();
    bench.core_status = 200;
    bench.core_identities = "";
    for (int i = 0; i < 70; ++i)
        REQUIRE(say_for(bench, fmt::format("sip:other{}@example", i), std::to_string(600 + i)) == 200);
    const auto& registration = *bench.registration();
    CHECK(registration.identities.size() == daemon::kMostIdentities);
    CHECK(registration.impus.size() == daemon::kMostIdentities);
    CHECK(registration.impus.front().value == "sip:user@example");
    CHECK(registration.impus[1].value == "sip:other7@example");
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE("A registration that an older version kept has identities without To: its phone refreshes and ends them") {
    Bench bench;
    auto& registration = bench.registered();
    registration.identities.front().aor = {};
    bench.core_status = 200;
    SUBCASE("another identity stands beside it") {
        register_second(bench);
        CHECK(registration.identities.size() == 2);
    }
    SUBCASE("a refresh makes it known") {
        CHECK(say_for(bench, "sip:user@example", "600000") == 200);
        REQUIRE(registration.identities.size() == 1);
        CHECK(registration.identities.front().aor.value == "sip:user@example");
    }
    SUBCASE("a de-REGISTER by a barred name ends it") {
        CHECK(say_for(bench, "sip:001010000000001@ims.example", "0") == 200);
        CHECK(registration.ended);
    }
}
