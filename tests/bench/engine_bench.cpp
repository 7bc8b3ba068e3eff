// What one registration costs in the kernel with each engine behind xfrm::Kernel: in-process, in a process of its own, and libcharon; one set
// after the other, and as many at once as a busy gateway has. Needs root and a kernel with ESP: scripts/kernel. Times are printed, never
// asserted. GMGATE_BENCH_SETS and GMGATE_BENCH_ROUNDS; without them a smoke test.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <doctest/doctest.h>

#include "tests/integration/engine_lab.h"

using namespace gmgate;
using namespace gmgate::test;

namespace {

constexpr AlgorithmPair kPair{Alg::hmac_sha_1_96, Ealg::aes_cbc};
constexpr std::uint32_t kAtOnce = 64;

std::uint32_t setting(const char* name, std::uint32_t otherwise) {
    const char* value = std::getenv(name);
    return value ? static_cast<std::uint32_t>(std::strtoul(value, nullptr, 10)) : otherwise;
}

xfrm::SetRequest nth_request(const Lab& lab, std::uint32_t n) {
    auto p = lab_set(lab, Family::v4, kPair);
    p.ue = Address::v4({10, 46, static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)});
    p.spi_uc = Spi{0x20000 + 2 * n};
    p.spi_us = Spi{0x20001 + 2 * n};
    p.spi_pc = Spi{0x20000000 + 2 * n};
    p.spi_ps = Spi{0x20000001 + 2 * n};
    return request_for(p, Mark{n + 1});
}

// `lanes` sets are under way at any moment.
Task<void> install_some(xfrm::Kernel& kernel, std::vector<xfrm::SetRequest>& requests, std::size_t& next, std::size_t& done) {
    while (next < requests.size()) {
        auto request = std::move(requests[next++]);
        const auto result = co_await kernel.install_set(std::move(request));
        CHECK_MESSAGE(result, (result ? std::string() : result.error().text));
        ++done;
    }
}

double microseconds_per_set(Lab& lab, Engine& engine, std::uint32_t sets, std::uint32_t lanes) {
    std::vector<xfrm::SetRequest> requests;
    for (std::uint32_t n = 0; n < sets; ++n) requests.push_back(nth_request(lab, n));
    std::size_t next = 0, done = 0;
    const auto begin = std::chrono::steady_clock::now();
    for (std::uint32_t lane = 0; lane < lanes; ++lane) asio::co_spawn(lab.io(), install_some(engine.kernel(), requests, next, done), asio::detached);
    while (done < sets) {
        lab.io().restart();
        REQUIRE(lab.io().run_one_for(std::chrono::seconds{60}) > 0);
    }
    const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - begin;
    return taken.count() / sets;
}

/// Empties the kernel; what it frees later, in the background, is not to fall into the next measurement.
void clean() {
    shell("ip xfrm state flush");
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

}  // namespace

TEST_CASE("kernel work per registration, by engine") {
    const auto sets = setting("GMGATE_BENCH_SETS", 20), rounds = setting("GMGATE_BENCH_ROUNDS", 1);
    struct Cost {
        std::vector<double> one, many, start;
        xfrm::KernelCounters counters;
    };
    std::map<EngineKind, Cost> costs;
    Lab lab;
    // Round 0 is not counted: it loads modules and fills caches. The order changes from round to round.
    for (std::uint32_t round = 0; round <= rounds; ++round) {
        auto order = engines();
        std::ranges::rotate(order, order.begin() + round % static_cast<std::uint32_t>(order.size()));
        for (const auto kind : order) {
            const auto begin = std::chrono::steady_clock::now();
            Engine engine(lab, kind);
            const std::chrono::duration<double, std::milli> start = std::chrono::steady_clock::now() - begin;
            const auto one = microseconds_per_set(lab, engine, sets, 1);
            const auto alone = engine.kernel().counters();
            clean();
            const auto many = microseconds_per_set(lab, engine, sets, kAtOnce);
            clean();
            if (round == 0) continue;
            auto& cost = costs[kind];
            cost.start.push_back(start.count());
            cost.one.push_back(one);
            cost.many.push_back(many);
            cost.counters = alone;
        }
    }
    std::printf("%u sets, median of %u rounds, hmac-sha-1-96 with aes-cbc, IPv4\n", sets, rounds);
    std::printf("%-12s %18s %18s %22s %12s\n", "engine", "one by one, us", "64 at once, us", "netlink calls per set", "start, ms");
    for (const auto& [kind, cost] : costs)
        std::printf("%-12s %18.0f %18.0f %22.1f %12.1f\n", std::string(test::to_string(kind)).c_str(), median(cost.one), median(cost.many),
                    static_cast<double>(cost.counters.system_calls) / sets, median(cost.start));
    std::fflush(stdout);
}
