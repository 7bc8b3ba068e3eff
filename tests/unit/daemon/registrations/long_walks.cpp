// How long what looks at every phone holds the loop up, with 50,000 of them. By the CPU time of the loop's thread: the
// machine may be busy with something else.
#include <doctest/doctest.h>

#include <time.h>

#include <atomic>
#include <thread>

#include "daemon/operate/metrics.h"
#include "daemon/operate/operations.h"
#include "daemon/registrations/keeper.h"
#include "daemon/registrations/kernel_watch.h"
#include "gmctl/client.h"
#include "tests/unit/daemon/agreement/register_bench.h"
#include "tests/unit/daemon/registrations/store_support.h"

using namespace gmgate;
using namespace gmgate::test;

namespace {

constexpr unsigned kManyPhones = 50'000;
#if defined(__SANITIZE_ADDRESS__)
constexpr std::chrono::milliseconds kLongestHold{60};  // instrumented code is several times slower
#else
constexpr std::chrono::milliseconds kLongestHold{10};
#endif

std::chrono::nanoseconds thread_time() {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return std::chrono::seconds{t.tv_sec} + std::chrono::nanoseconds{t.tv_nsec};
}

/// Tells the SAs of a table a datagram's worth at a time, as netlink does.
class TellingKernel : public FakeKernel {
public:
    explicit TellingKernel(std::vector<xfrm::SetParameters> sets) : sets_(std::move(sets)) {}
    Task<Result<void>> dump_each(std::function<void(xfrm::SaReport)> each, std::function<void()>) override {
        for (std::size_t i = 0; i < sets_.size(); ++i) {
            for (const auto& sa : xfrm::four_sas(sets_[i])) {
                xfrm::SaReport report;
                report.sa = sa;
                each(report);
            }
            if (i % 16 == 0) co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
        }
        co_return Result<void>{};
    }

private:
    std::vector<xfrm::SetParameters> sets_;
};

struct ManyPhones : RegisterBench {
    ManyPhones() {
        std::vector<xfrm::SetParameters> all;
        for (unsigned phone = 1; phone <= kManyPhones; ++phone) {
            const auto row = stored_registration(phone, phone % 2 == 0);
            auto set = to_set(row.sets.front());
            REQUIRE(set.has_value());
            all.push_back((*set)->parameters);
            auto& registration = parts().table.add(daemon::to_registration(row));
            parts().table.add_set(registration, std::move(*set));
        }
        telling = std::make_unique<TellingKernel>(std::move(all));
    }
    /// The longest time that one turn of the loop took until `done`.
    std::chrono::nanoseconds longest_turn(const std::function<bool()>& done) {
        std::chrono::nanoseconds longest{0};
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes{2};
        while (!done() && std::chrono::steady_clock::now() < deadline) {
            loop.restart();
            const auto before = thread_time();
            if (loop.poll_one() == 0) std::this_thread::sleep_for(std::chrono::microseconds{200});  // a thread works
            longest = std::max(longest, thread_time() - before);
        }
        REQUIRE(done());
        return longest;
    }
    template <class T>
    std::chrono::nanoseconds longest_turn(Task<T> task) {
        bool is_done = false;
        asio::co_spawn(loop, std::move(task), [&is_done](const std::exception_ptr& failed, auto...) {
            if (failed) std::rethrow_exception(failed);
            is_done = true;
        });
        return longest_turn([&is_done] { return is_done; });
    }
    void tell(const char* what, std::chrono::nanoseconds longest) {
        MESSAGE(std::string(what) << ": at most " << static_cast<double>(longest.count()) / 1e6 << " ms at once");
        CHECK_MESSAGE(longest < kLongestHold, std::string(what));
    }

    std::unique_ptr<TellingKernel> telling;
};

}  // namespace

TEST_CASE(
    "Fifty thousand phones: the kernel's audit and the scrape of the metrics hold the loop up for less than 10 ms") {
    ManyPhones phones;
    auto& parts = phones.parts();
    daemon::KernelWatch watch(phones.loop.get_executor(), parts.accesses, parts.table, parts.sets, *phones.telling,
                              parts.counters);
    phones.tell("audit", phones.longest_turn(watch.audit()));
    CHECK(parts.table.registration_count() == kManyPhones);
    CHECK(parts.counters.get(daemon::Counter::sa_lost) == 0);

    daemon::PacketTap tap(phones.loop.get_executor(), phones.clock, {}, [](Spi) { return false; });
    std::string page;
    const auto scrape = [&]() -> Task<void> {
        daemon::MetricSources sources{
            phones.config,      parts.table, parts.counters,         phones.kernel,       parts.transports,
            parts.transactions, tap,         [] { return nullptr; }, [] { return true; }, [] { return false; }};
        page = co_await daemon::metrics_text(std::move(sources));
    };
    phones.tell("metrics", phones.longest_turn(scrape()));
    CHECK(page.find("gmgate_registrations{mechanism=\"ipsec-3gpp\"} 50000\n") != std::string::npos);
    CHECK(page.find("gmgate_sa_sets{state=\"established\"} 50000\n") != std::string::npos);

    watch.address_changed(*Address::parse("192.0.2.1"), false, "no link has it");  // counts its registrations
    phones.tell("address_changed", phones.longest_turn(parts.table.walk([](daemon::Registration&) {})));
}

TEST_CASE("Fifty thousand phones: all saved anew, each once, and the loop is held up for less than 10 ms") {
    ManyPhones phones;
    const TemporaryFolder folder;
    const daemon::StoreConfig config{.is_kept = true, .file = folder.path + "/registrations.db", .queue = 1000};
    daemon::Counters counters;
    daemon::Store store(phones.loop.get_executor(), config, counters);
    REQUIRE(store.open("boot").has_value());
    REQUIRE(store.load([](const daemon::StoredRegistration&) {}).has_value());
    daemon::Keeper keeper(phones.loop.get_executor(), phones.parts().table, store);
    phones.tell("save all", phones.longest_turn(keeper.save_all()));
    CHECK(store.flush(std::chrono::seconds{30}));
    phones.loop.restart();
    phones.loop.poll();
    CHECK(counters.get(daemon::Counter::store_written) == kManyPhones);
    CHECK(counters.get(daemon::Counter::store_overflow) == 0);
}

TEST_CASE("Fifty thousand phones: what gmctl asks holds the loop up for less than 10 ms, and no phone is left out") {
    ManyPhones phones;
    auto& parts = phones.parts();
    const TemporaryFolder folder;
    phones.config.control_socket = folder.path + "/control.sock";
    daemon::KernelWatch watch(phones.loop.get_executor(), parts.accesses, parts.table, parts.sets, *phones.telling,
                              parts.counters);
    daemon::PacketTap tap(phones.loop.get_executor(), phones.clock, {}, [](Spi) { return false; });
    daemon::MessageTrace messages(phones.clock, {});
    const daemon::FlightRecorder recorder(phones.clock, {},
                                          [](bool, const sip::Flow&) { return daemon::MessageTrace::Context{}; });
    daemon::OperatorState operating;
    daemon::CoreLink core(phones.config.core, parts.transports, parts.transactions);
    daemon::Operations operations({phones.loop.get_executor(), phones.config, parts.accesses, parts.table, parts.sets,
                                   watch, *phones.telling, parts.transports, parts.transactions, parts.trace,
                                   parts.counters, phones.clock, operating, tap, messages, [] { return nullptr; }, core,
                                   recorder});
    REQUIRE(operations.open().has_value());
    const auto last = stored_registration(kManyPhones, true);
    const std::vector<std::pair<const char*, nlohmann::json>> questions{
        {"status", nlohmann::json::object()},
        {"registrations", nlohmann::json::object()},
        {"registrations", {{"filter", "9@ims"}, {"skip", 4000}}},
        {"show", {{"of", last.impus.back().value}}},
        {"why", {{"of", last.impus.back().value}}},
        {"kernel", {{"audit", true}}}};
    for (const auto& [command, arguments] : questions) {
        CAPTURE(arguments.dump());
        Result<nlohmann::json> answer;
        std::atomic<bool> is_answered = false;
        std::thread asks([&, name = std::string(command)] {
            auto client = gmctl::Client::connect(phones.config.control_socket);
            if (client) answer = client->ask(name, arguments);
            is_answered = true;
        });
        const auto longest = phones.longest_turn([&] { return is_answered.load(); });
        asks.join();
        phones.tell(command, longest);
        REQUIRE_MESSAGE(answer.has_value(), (answer ? "" : answer.error().text));
        if (command == std::string("status")) CHECK((*answer)["registrations"]["ipsec_3gpp"] == kManyPhones);
        if (command == std::string("kernel")) CHECK((*answer)["audit"]["sas"] == kManyPhones * 4);
        if (command == std::string("show")) CHECK((*answer)["contacts"].size() == 1);
        if (arguments.contains("filter")) CHECK((*answer)["matches"] == kManyPhones / 10);
    }
    operations.close();
}
