// NetlinkKernel against a kernel played message by message: each message refused in turn, answers lost, keys wiped.
#include <algorithm>
#include <memory_resource>

#include <doctest/doctest.h>

#include "tests/unit/xfrm/netlink/mini_kernel.h"

using namespace gmgate;
using namespace gmgate::test;
using namespace gmgate::xfrm;

namespace {

constexpr AlgorithmPair kUsual{Alg::hmac_sha_1_96, Ealg::aes_cbc};
constexpr Mark kMark{0x1001};
constexpr std::array<std::uint8_t, 16> kCk{0xb4, 0x0b, 0xa9, 0xa3, 0xc5, 0x8b, 0x2a, 0x05,
                                           0xbb, 0xf0, 0xd9, 0x87, 0xb2, 0x1b, 0xf8, 0xcb};
constexpr std::array<std::uint8_t, 16> kIk{0xf7, 0x69, 0xbc, 0xd7, 0x51, 0x04, 0x46, 0x04,
                                           0x12, 0x76, 0x72, 0x71, 0x1c, 0x6d, 0x34, 0x41};

SetParameters set_number(std::uint32_t n) {
    SetParameters p{};
    p.ue = *Address::parse("2001:db8::9");
    p.gateway = *Address::parse("2001:db8::1");
    p.port_uc = Port{5064};
    p.port_us = Port{5066};
    p.port_pc = Port{6100};
    p.port_ps = Port{6101};
    p.spi_uc = Spi{1000 + 2 * n};
    p.spi_us = Spi{1001 + 2 * n};
    p.spi_pc = Spi{0x20000000 + 2 * n};
    p.spi_ps = Spi{0x20000001 + 2 * n};
    p.algorithms = kUsual;
    return p;
}

SetRequest request(const SetParameters& p) {
    auto keys = derive_esp_keys(p.algorithms, Key128(kCk), Key128(kIk));
    return {.parameters = p, .keys = std::move(*keys), .mark = kMark, .lifetime = std::chrono::seconds{240}};
}

// Memory that looks for CK, IK and the keys of MiniKernel's answers in whatever is given back.
class Watcher final : public std::pmr::memory_resource {
public:
    std::size_t freed = 0, leaks = 0;
    std::map<void*, std::size_t> live;

    static bool has_key(const void* memory, std::size_t size) {
        const std::span bytes(static_cast<const std::uint8_t*>(memory), size);
        const std::array<std::uint8_t, 8> told{0xA5, 0xA5, 0xA5, 0xA5, 0xA5, 0xA5, 0xA5, 0xA5};
        const auto holds = [&](auto key) { return !std::ranges::search(bytes, key).empty(); };
        return holds(std::span(kCk).first(8)) || holds(std::span(kIk).first(8)) || holds(std::span(told));
    }

private:
    void* do_allocate(std::size_t size, std::size_t alignment) override {
        void* memory = std::pmr::new_delete_resource()->allocate(size, alignment);
        live[memory] = size;
        return memory;
    }
    void do_deallocate(void* memory, std::size_t size, std::size_t alignment) override {
        ++freed;
        leaks += has_key(memory, size);
        live.erase(memory);
        std::pmr::new_delete_resource()->deallocate(memory, size, alignment);
    }
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }
};

struct Bench {
    Clock clock;
    asio::io_context io;
    MiniKernel::State state;
    Watcher memory;
    NetlinkKernel kernel;

    Bench() : kernel(io.get_executor(), clock, settings(), std::make_unique<MiniKernel>(state)) {}
    NetlinkSettings settings() {
        NetlinkSettings s;
        s.memory = &memory;
        return s;
    }
    Result<void> install(std::uint32_t n = 0) {
        auto r = request(set_number(n));
        return finish(io, kernel.install_set(std::move(r)));
    }
    ~Bench() {
        CHECK(memory.leaks == 0);
        for (const auto& [where, size] : memory.live) CHECK_FALSE(Watcher::has_key(where, size));
    }
};

}  // namespace

TEST_CASE("A set is one send and one receive, four SAs, no key left in any buffer") {
    Bench bench;
    REQUIRE(bench.install());
    CHECK(bench.state.sas.size() == 4);
    CHECK(bench.state.sends == 1);
    CHECK(bench.state.receives == 1);
    CHECK(bench.memory.freed >= 1);  // the requests; what holds answers is kept, and clean (~Bench looks)
    CHECK(Watcher::has_key(bench.state.sent[0].data(),
                           bench.state.sent[0].size()));  // the watcher knows a key when it sees one
    CHECK(bench.kernel.counters().sets_installed == 1);
    CHECK(bench.kernel.counters().requests == 4);
    CHECK(bench.kernel.counters().system_calls == 2);
}

TEST_CASE(
    "install_set: message n refused, for every n: an error, zero SAs, and the same set can be installed afterwards") {
    for (std::uint64_t n = 1; n <= 4; ++n) {
        CAPTURE(n);
        Bench bench;
        bench.state.failures[n] = EPERM;
        const auto refused = bench.install();
        REQUIRE_FALSE(refused);
        CHECK(refused.error().reaction == Reaction::refused);
        CHECK(refused.error().code == EPERM);
        CHECK(refused.error().text.find("made to fail by the test") != std::string::npos);
        CHECK(bench.state.sas.empty());
        CHECK(bench.kernel.counters().rollbacks == 3);
        CHECK(bench.install());
        CHECK(bench.state.sas.size() == 4);
    }
}

TEST_CASE("install_set: two messages refused, the second during set-up, roll-back or questions: still zero SAs") {
    for (std::uint64_t first = 1; first <= 4; ++first) {
        for (std::uint64_t second = first + 1; second <= 12; ++second) {
            CAPTURE(first);
            CAPTURE(second);
            Bench bench;
            bench.state.failures[first] = ENOMEM;
            bench.state.failures[second] = EPERM;
            const auto refused = bench.install();
            REQUIRE_FALSE(refused);
            // What could not be deleted at once is settled before the next operation.
            if (!bench.install(7)) REQUIRE(bench.install(7));  // the fault may have been meant for this one
            CHECK(bench.state.sas.size() == 4);
        }
    }
}

TEST_CASE(
    "install_set: an answer that never comes, or is lost, leaves no half set, whether or not the kernel saw the request") {
    for (const int silence : {1, 2}) {
        CAPTURE(silence);
        Bench bench;
        bench.state.silent_sends[1] = silence;
        const auto broken = bench.install();
        REQUIRE_FALSE(broken);
        CHECK(broken.error().reaction == Reaction::broken);
        CHECK(broken.error().code == ETIMEDOUT);
        CHECK(bench.state.sas.empty());
        CHECK(bench.state.opens == 2);  // the socket was opened again
        CHECK(bench.install());
    }
    Bench bench;
    bench.state.receive_errors[1] = ENOBUFS;
    const auto lost = bench.install();
    REQUIRE_FALSE(lost);
    CHECK(lost.error().code == ENOBUFS);
    CHECK(bench.state.sas.empty());
}

TEST_CASE(
    "Each send of a refused or unanswered set goes silent in turn: after the next operation nothing of it is left") {
    for (std::uint64_t silent = 1; silent <= 4; ++silent) {
        for (const int silence : {1, 2}) {
            CAPTURE(silent);
            CAPTURE(silence);
            Bench bench;
            bench.state.failures[3] = EPERM;
            bench.state.silent_sends[1] = 1;
            bench.state.silent_sends[silent] = silence;
            REQUIRE_FALSE(bench.install());
            if (!bench.install(7)) REQUIRE(bench.install(7));  // the fault may have been meant for this one
            CHECK(bench.state.sas.size() == 4);
            CHECK(bench.memory.leaks == 0);
        }
    }
}

TEST_CASE("Questions after a lost answer never delete another's SA under the same id") {
    Bench bench;
    auto theirs = set_number(0);
    auto r = request(theirs);  // another phone behind the same address chose the same SPIs, and even the same ports
    r.mark = Mark{0x2002};
    REQUIRE(finish(bench.io, bench.kernel.install_set(std::move(r))));
    bench.state.silent_sends[2] = 1;
    auto mine = set_number(0);
    mine.spi_pc = Spi{0x30000000};
    mine.spi_ps = Spi{0x30000001};
    auto m = request(mine);
    REQUIRE_FALSE(finish(bench.io, bench.kernel.install_set(std::move(m))));
    CHECK(bench.state.sas.size() == 4);
    for (const auto& [key, sa] : bench.state.sas) CHECK(sa.info.seq == 0x2002);
}

TEST_CASE("A kernel without memory has seen nothing: retry, no questions") {
    Bench bench;
    bench.state.send_error = ENOBUFS;
    const auto failed = bench.install();
    REQUIRE_FALSE(failed);
    CHECK(failed.error().reaction == Reaction::retry);
    CHECK(bench.state.sends == 1);
    bench.state.send_error = 0;
    CHECK(bench.install());
}

TEST_CASE("No socket: an error for each call, and the next call tries again") {
    Bench bench;
    bench.state.refuse_open = true;
    REQUIRE_FALSE(bench.install());
    bench.state.refuse_open = false;
    CHECK(bench.install());
}

TEST_CASE(
    "remove_set: gone SAs are no error, a refusal is one and the others are deleted, a lost answer is asked again") {
    for (std::uint64_t n = 0; n <= 4; ++n) {
        CAPTURE(n);
        Bench bench;
        REQUIRE(bench.install());
        if (n) bench.state.failures[4 + n] = EPERM;
        CHECK(finish(bench.io, bench.kernel.remove_set(set_number(0))).has_value() == (n == 0));
        CHECK(bench.state.sas.size() == (n ? 1 : 0));
        CHECK(finish(bench.io, bench.kernel.remove_set(set_number(0))));
        CHECK(bench.state.sas.empty());
    }
    Bench bench;
    REQUIRE(bench.install());
    bench.state.silent_sends[2] = 1;
    CHECK(finish(bench.io, bench.kernel.remove_set(set_number(0))));
    CHECK(bench.state.sas.empty());
}

TEST_CASE("extend_set: message n refused, for every n: all four keep the limit they had") {
    for (std::uint64_t n = 0; n <= 8; ++n) {
        CAPTURE(n);
        Bench bench;
        REQUIRE(bench.install());
        if (n) bench.state.failures[4 + n] = EPERM;
        const auto extended = finish(bench.io, bench.kernel.extend_set(set_number(0), std::chrono::seconds{3600}));
        CHECK(extended.has_value() == (n == 0));
        CHECK(bench.state.sas.size() == 4);
        for (const auto& [key, sa] : bench.state.sas) {
            const auto limit = sa.info.lft.hard_add_expires_seconds;
            CHECK((n == 0 ? limit >= 3600 && limit <= 3605 : limit == 240));
        }
    }
}

TEST_CASE("install_guards: policy n refused, for every n: none is left; existing ones are kept") {
    const auto address = *Address::parse("192.0.2.1");
    for (std::uint64_t n = 1; n <= 4; ++n) {
        Bench bench;
        bench.state.failures[n] = EPERM;
        GuardRequest guards{address, {Port{6100}, Port{6101}}};
        auto again = guards, third = guards, more = guards;
        REQUIRE_FALSE(finish(bench.io, bench.kernel.install_guards(std::move(guards))));
        CHECK(bench.state.policies.empty());
        REQUIRE(finish(bench.io, bench.kernel.install_guards(std::move(again))));
        CHECK(bench.state.policies.size() == 4);
        REQUIRE(finish(bench.io, bench.kernel.install_guards(std::move(third))));
        CHECK(bench.state.policies.size() == 4);
        // with one old and two new policies a refusal takes back the new ones only
        more.ports.push_back(Port{6102});
        bench.state.failures[bench.state.messages + 5] = EPERM;
        REQUIRE_FALSE(finish(bench.io, bench.kernel.install_guards(std::move(more))));
        CHECK(bench.state.policies.size() == 4);
    }
}

TEST_CASE("An existing policy without XFRM_POLICY_ICMP does not pass for a guard") {
    Bench bench;
    GuardRequest guards{*Address::parse("192.0.2.1"), {Port{6100}}};
    auto again = guards;
    REQUIRE(finish(bench.io, bench.kernel.install_guards(std::move(guards))));
    for (auto& [key, policy] : bench.state.policies) policy.flags = 0;
    const auto refused = finish(bench.io, bench.kernel.install_guards(std::move(again)));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == EEXIST);
}

TEST_CASE(
    "Sets that wait together share a send of at most 64 messages; a refused one takes none of its neighbours along") {
    Bench bench;
    bench.state.failures[6] = EPERM;  // in the second set
    std::vector<int> results(40, -1);
    for (std::uint32_t n = 0; n < results.size(); ++n) {
        auto r = request(set_number(n));
        asio::co_spawn(bench.io, bench.kernel.install_set(std::move(r)),
                       [&results, n](std::exception_ptr, const Result<void>& result) { results[n] = result ? 1 : 0; });
    }
    bench.io.run();
    CHECK(std::ranges::count(results, 1) == 39);
    CHECK(results[1] == 0);
    CHECK(bench.state.sas.size() == 4 * 39);
    CHECK(bench.state.largest_batch == 64);
    CHECK(bench.state.sends <= 5);
}

TEST_CASE("dump: ours with their marks and directions, keys wiped from the answers") {
    Bench bench;
    REQUIRE(bench.install(0));
    REQUIRE(bench.install(1));
    bench.state.sas.begin()->second.info.reqid = 7;
    const auto told = finish(bench.io, bench.kernel.dump());
    REQUIRE(told);
    CHECK(told->size() == 7);
    for (const auto& report : *told) CHECK(report.mark == kMark);
    CHECK(std::ranges::count(*told, Direction::in, [](const SaReport& r) { return r.sa.direction; }) >= 3);
}

TEST_CASE("What is not a set is refused before anything is sent") {
    Bench bench;
    const auto refuse = [&](auto change) {
        auto r = request(set_number(0));
        change(r);
        const auto result = finish(bench.io, bench.kernel.install_set(std::move(r)));
        CHECK_FALSE(result);
        CHECK(result.error().reaction == Reaction::internal);
    };
    refuse([](SetRequest& r) { r.parameters.ue = *Address::parse("192.0.2.9"); });
    refuse([](SetRequest& r) { r.parameters.port_uc = Port{}; });
    refuse([](SetRequest& r) { r.parameters.spi_us = r.parameters.spi_uc; });
    refuse([](SetRequest& r) { r.parameters.algorithms = {Alg::null, Ealg::aes_gcm}; });
    refuse([](SetRequest& r) { r.mark = Mark{}; });
    refuse([](SetRequest& r) { r.lifetime = std::chrono::seconds{0}; });
    CHECK(bench.state.sends == 0);
}

TEST_CASE("probe: names what is missing and the module that would bring it") {
    Bench bench;
    bench.state.failures[1] = EPROTONOSUPPORT;
    const auto found = finish(bench.io, bench.kernel.probe({kUsual}));
    REQUIRE(found);
    REQUIRE(found->size() == 2);
    CHECK_FALSE(found->at(0).present);
    CHECK(found->at(0).module == "esp4");
    CHECK(found->at(0).feature == "hmac-sha-1-96 with aes-cbc, IPv4");
    CHECK(bench.state.sas.empty());
}
