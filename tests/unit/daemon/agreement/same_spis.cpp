// A phone that comes back with the SPIs that it had before, and what becomes of the set that has them.
#include <algorithm>

#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;
using Bench = RegisterBench;

namespace {

constexpr Spi kSpiUc{8765423}, kSpiUs{1234563};

/// Whose set the outbound SA with this SPI is of, by its mark; 0: there is none.
std::uint32_t holder(const Bench& bench, Spi spi) {
    const auto at = bench.kernel.sas().find({bench.ue, spi});
    return at == bench.kernel.sas().end() ? 0 : at->second.mark.value;
}

std::uint32_t holder_of_both(const Bench& bench) {
    const auto mark = holder(bench, kSpiUc);
    CHECK(holder(bench, kSpiUs) == mark);
    return mark;
}

}  // namespace

TEST_CASE("B-11, G-25: same SPIs and ports after a reboot: registered at once, the old set stays until the 200") {
    Bench bench;
    const auto before = bench.registered().sets.back()->number;
    const auto token = bench.registration()->token;
    auto& set = bench.challenge();
    const auto number = set.number;
    CHECK(bench.kernel.sas().size() == 8);
    CHECK(holder_of_both(bench) == before.value);
    CHECK(bench.registration()->find(before));
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(bench.answer_to(set), bench.over(set))) == 200);
    REQUIRE(bench.registration());
    CHECK(bench.registration()->token == token);
    REQUIRE(bench.registration()->sets.size() == 1);
    CHECK(bench.registration()->sets.back()->number == number);
    CHECK(bench.registration()->sets.back()->parameters.spi_uc == kSpiUc);
    CHECK(bench.registration()->sets.back()->parameters.spi_us == kSpiUs);
    CHECK(holder_of_both(bench) == number.value);
    CHECK(bench.kernel.sas().size() == 4);
    CHECK(bench.parts().spis.in_use() == 2);
    CHECK(bench.parts().sets.leftovers() == 0);
}

TEST_CASE("B-5, B-11: a newcomer with a live phone's SPIs that proves nothing does not touch its set") {
    Bench bench;
    const auto before = bench.registered().sets.back()->number;
    auto& set = bench.challenge();
    SUBCASE("it is never heard of again") {}
    SUBCASE("the core refuses it") {
        bench.core_status = 403;
        bench.send(bench.answer_to(set), bench.over(set));
    }
    SUBCASE("its Security-Verify is wrong") {
        auto say = bench.answer_to(set);
        say.verify = "tls";
        bench.send(say, bench.over(set));
    }
    CHECK(holder_of_both(bench) == before.value);
    bench.let_pass(bench.config.timers.reg_await_auth + std::chrono::seconds{1});
    CHECK(bench.kernel.sas().size() == 4);
    CHECK(holder_of_both(bench) == before.value);
    REQUIRE(bench.registration());
    CHECK(bench.registration()->find(before));
    CHECK(bench.parts().spis.in_use() == 2);
}

TEST_CASE(
    "B-11: a phone back with its SPIs hears an answer after which it may try again, and its next try registers it") {
    for (const int status : {302, 423, 500, 503, 0}) {
        INFO("the core says ", status);
        Bench bench;
        const auto before = bench.registered().sets.back()->number;
        auto& set = bench.challenge();
        const auto number = set.number;
        const auto say = bench.answer_to(set);
        const auto flow = bench.over(set);
        bench.core_status = status;
        CHECK(Bench::status_of(*bench.send(say, flow)) == (status == 0 ? 504 : status == 503 ? 500 : status));
        CHECK(holder_of_both(bench) == number.value);
        CHECK_FALSE(bench.parts().table.find_set(before).set);
        CHECK(bench.kernel.sas().size() == 4);
        bench.core_status = 200;
        CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
        REQUIRE(bench.registration());
        CHECK(bench.registration()->sets.back()->number == number);
        CHECK(bench.kernel.sas().size() == 4);
        CHECK(bench.parts().spis.in_use() == 2);
    }
}

TEST_CASE("B-11: the SYN of a phone with the same SPIs is its proof, for nothing can be answered before") {
    Bench bench;
    const auto before = bench.registered().sets.back()->number;
    auto& set = bench.challenge();
    const auto number = set.number;
    const auto inbound = xfrm::four_sas(set.parameters)[0].id;
    bench.kernel.report_of(inbound)->packets = 1;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{10};
    while (holder(bench, kSpiUc) != number.value && std::chrono::steady_clock::now() < deadline)
        bench.loop.run_one_for(std::chrono::milliseconds{50});
    bench.loop.poll();
    CHECK(holder_of_both(bench) == number.value);
    CHECK_FALSE(bench.parts().table.find_set(before).set);
    CHECK(bench.kernel.sas().size() == 4);
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(bench.answer_to(set), bench.over(set))) == 200);
    CHECK(bench.kernel.sas().size() == 4);
    CHECK(bench.parts().spis.in_use() == 2);
}

TEST_CASE("B-11: an order that the kernel refuses while the SPIs change hands leaves no SA behind") {
    for (std::uint64_t n = 1; n <= 12; ++n) {
        INFO("message ", n);
        Bench bench;
        bench.registered();
        auto& set = bench.challenge();
        bench.core_status = 200;
        bench.kernel.fail_message(bench.kernel.messages() + n, EPERM);
        const auto status = Bench::status_of(*bench.send(bench.answer_to(set), bench.over(set)));
        CHECK((status == 200 || status == 480));
        bench.kernel.clear_failures();
        asio::co_spawn(bench.loop, bench.parts().sets.remove_leftovers(), asio::detached);
        bench.loop.poll();
        bench.let_pass(std::chrono::hours{24 * 365});
        CHECK(bench.kernel.sas().empty());
        CHECK(bench.parts().spis.in_use() == 0);
    }
}

TEST_CASE("the limit of registrations does not keep out a registered phone that is back with the same SPIs") {
    Bench bench([](daemon::Config& config) { config.limits.registrations = 1; });
    bench.registered();
    CHECK(Bench::status_of(*bench.send({})) == 401);
}
