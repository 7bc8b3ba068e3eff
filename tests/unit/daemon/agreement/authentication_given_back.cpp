// What a registration has cost the home network is given back: once, and only what was charged.
#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;
using Bench = RegisterBench;

namespace {

/// One REGISTER in a second and ten at once from one address: what was charged shows in how many more pass.
void bound_sources(daemon::Config& config) { config.limits.authentications.per_source = 1; }

/// How many of `tries` in another's name pass from the phone's address.
int passed(Bench& bench, const std::string& impi, int tries = 30) {
    int count = 0;
    for (int i = 0; i < tries; ++i)
        count += bench.budget().take({.address = bench.ue, .impi = Impi{impi}}).empty() ? 1 : 0;
    return count;
}

}  // namespace

TEST_CASE("authentications: what becomes a registration is given back once, whatever else comes over its set") {
    Bench bench(bound_sources);
    REQUIRE(passed(bench, "before", 5) == 5);
    auto& set = bench.challenge();
    const auto flow = bench.over(set);
    auto say = bench.answer_to(set);
    bench.core_status = 200;
    SUBCASE("registered") { CHECK(Bench::status_of(*bench.send(say, flow)) == 200); }
    SUBCASE("queried before, again and again") {
        for (; say.cseq < 6; ++say.cseq) {
            auto query = say;
            query.contact = "";
            CHECK(Bench::status_of(*bench.send(query, flow)) == 200);
        }
        CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
    }
    CHECK(passed(bench, "after") == 5);
}

TEST_CASE("authentications: a challenge that came over the phone's own SAs was not charged: nothing is given back") {
    Bench bench(bound_sources);
    auto& registration = bench.registered();
    REQUIRE(passed(bench, "before", 5) == 5);
    auto again = bench.answer_to(*registration.sets.back());
    again.client = kSecondClient;
    REQUIRE(Bench::status_of(*bench.send(again, bench.over(*registration.sets.back()))) == 401);
    auto* fresh = bench.temporary_set();
    REQUIRE(fresh);
    auto say = bench.answer_to(*fresh, kSecondClient);
    ++say.cseq;
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(say, bench.over(*fresh))) == 200);
    CHECK(passed(bench, "after") == 5);
}

TEST_CASE(
    "authentications: over TLS both REGISTERs of a registration are given back, the one in clear and its answer") {
    Bench bench([](daemon::Config& config) {
        bound_sources(config);
        config.sip_interfaces.front().sec_agree_pref = daemon::SecAgreePref::tls_ipsec3gpp;
    });
    REQUIRE(passed(bench, "before", 5) == 5);
    REQUIRE(Bench::status_of(*bench.send({})) == 401);
    Say say;
    say.verify = "tls";
    say.response = "3779ff40a057f999a2f8288bbfafc10d";
    say.nonce = bench.nonce;
    bench.core_status = 200;
    const auto flow = bench.tls_connection();
    CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
    CHECK(Bench::status_of(*bench.send(say, flow)) == 200);  // a refresh costs nothing and brings nothing
    CHECK(passed(bench, "after") == 5);
}
