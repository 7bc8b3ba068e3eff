// A phone that refreshes for years costs no more than one that has just registered.
#include <malloc.h>

#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;
using Bench = RegisterBench;

namespace {

constexpr int kWarm = 1000, kLast = 10000;
constexpr std::size_t kSlack = 32 * 1024;  // octets: under four a refresh

/// The refreshes from..to over one set, five minutes apart, each with its pass over what is due.
void refresh(Bench& bench, Say& say, const sip::Flow& flow, int from, int to) {
    for (int n = from; n <= to; ++n) {
        say.cseq = 2 + n;
        bench.clock.advance(std::chrono::seconds{300});
        REQUIRE(Bench::status_of(*bench.send(say, flow)) == 200);
        bench.sweep();
        bench.core_saw.clear();
        // What the doubles themselves keep is not the gateway's.
        const_cast<std::vector<FakeKernel::Call>&>(bench.kernel.calls()).clear();
    }
}

/// Octets that are allocated, once no transaction towards the core is left.
std::size_t octets_in_use(Bench& bench) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{30};
    while (bench.parts().transactions.client_count() > 0 && std::chrono::steady_clock::now() < deadline)
        bench.loop.run_one_for(std::chrono::milliseconds{10});
    REQUIRE(bench.parts().transactions.client_count() == 0);
    return mallinfo2().uordblks;
}

}  // namespace

TEST_CASE("Memory is flat over 10,000 refreshes of one phone") {
    if (mallinfo2().uordblks == 0) return;  // a sanitizer's allocator counts nothing
    Bench bench;
    auto& set = *bench.registered().sets.front();
    auto say = bench.answer_to(set);
    const auto flow = bench.over(set);
    bench.core_status = 200;
    refresh(bench, say, flow, 1, kWarm);
    const auto before = octets_in_use(bench);
    refresh(bench, say, flow, kWarm + 1, kLast);
    const auto after = octets_in_use(bench);
    INFO("octets in use after refresh 1,000: ", before, ", after refresh 10,000: ", after);
    CHECK(after < before + kSlack);
    REQUIRE(bench.registration());
    CHECK(bench.registration()->sets.size() == 1);
    CHECK(bench.kernel.sas().size() == 4);
}
