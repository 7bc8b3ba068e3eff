// What one registration costs in the kernel: xfrm::NetlinkKernel::install_set (four SAs, no policy) against a
// re-creation of sixteen separate sends (see separate_sends.h), in one run. Needs root and a kernel with ESP:
// scripts/kernel. Ratios are printed, never asserted; an installation that fails is an error. Usage: gm_bench_kernel
// [--smoke] [--sets N] [--rounds N]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "tests/bench/separate_sends.h"
#include "tests/bench/sets.h"
#include "tests/bench/system_calls.h"
#include "xfrm/netlink/kernel.h"

namespace gmgate::bench {
namespace {

struct Options {
    std::size_t sets = 100, rounds = 12;
};

Task<void> install_all(xfrm::NetlinkKernel& kernel, std::vector<xfrm::SetRequest>& sets) {
    for (xfrm::SetRequest& set : sets) {
        const auto result = co_await kernel.install_set(std::move(set));
        if (!result) throw std::runtime_error("install_set: " + result.error().text);
    }
}

/// A loop with our kernel interface in it, its socket open.
class Gateway {
public:
    Gateway() {
        run([](xfrm::NetlinkKernel& kernel) -> Task<void> {
            if (const auto dump = co_await kernel.dump(); !dump) throw std::runtime_error(dump.error().text);
        }(kernel_));
    }
    void install(std::vector<xfrm::SetRequest>& sets) { run(install_all(kernel_, sets)); }
    const xfrm::KernelCounters& counters() const { return kernel_.counters(); }

private:
    void run(Task<void> task) {
        asio::co_spawn(io_, std::move(task), [](std::exception_ptr failure) {
            if (failure) std::rethrow_exception(failure);
        });
        io_.restart();
        io_.run();
    }

    Clock clock_;
    asio::io_context io_;
    xfrm::NetlinkKernel kernel_{io_.get_executor(), clock_};
};

void install_separately(const std::vector<xfrm::SetParameters>& sets, const xfrm::EspKeys& keys) {
    for (const xfrm::SetParameters& set : sets) install_with_separate_sends(set, keys);
}

std::vector<xfrm::SetParameters> parameters(std::size_t n) {
    std::vector<xfrm::SetParameters> out;
    for (std::size_t i = 0; i < n; ++i) out.push_back(set_of(i));
    return out;
}

/// Empties the kernel; what it frees later, in the background, is not to fall into the next measurement.
void clean() {
    flush_kernel();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
}

/// What was measured of one way to do it; per registration.
struct Cost {
    const char* name;
    std::vector<double> microseconds{};  ///< of each round
    double user_microseconds =
        0;  ///< mean of all rounds: the part spent in user mode, as the kernel's clock tick sees it
    std::map<std::string, std::uint64_t> calls{};
    std::uint64_t counted_sets = 0;
    double messages = 0;
    KernelContents left{};  ///< after one registration

    double calls_per_set() const {
        std::uint64_t sum = 0;
        for (const auto& [name_of_call, count] : calls) sum += count;
        return static_cast<double>(sum) / static_cast<double>(counted_sets);
    }
    double per_set(const char* call) const {
        const auto found = calls.find(call);
        return found == calls.end() ? 0 : static_cast<double>(found->second) / static_cast<double>(counted_sets);
    }
    double median() const {
        auto sorted = microseconds;
        std::ranges::sort(sorted);
        return sorted[sorted.size() / 2];
    }
    double best() const { return *std::ranges::min_element(microseconds); }
};

template <class F>
double microseconds_per_set(std::size_t sets, F&& work) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - begin;
    return taken.count() / static_cast<double>(sets);
}

double user_microseconds_so_far() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec) * 1e6 + static_cast<double>(usage.ru_utime.tv_usec);
}

void measure_time(const Options& options, Cost& ours, Cost& theirs) {
    Gateway gateway;
    const auto keys = example_keys();
    const auto sets = parameters(options.sets);
    // Round 0 is not counted: it loads modules and fills the kernel's caches.
    for (std::size_t round = 0; round <= options.rounds; ++round) {
        for (const bool is_ours : {round % 2 == 0, round % 2 != 0}) {
            auto batch = requests(is_ours ? options.sets : 0);
            const double user_before = user_microseconds_so_far();
            const double taken = is_ours ? microseconds_per_set(options.sets, [&] { gateway.install(batch); })
                                         : microseconds_per_set(options.sets, [&] { install_separately(sets, keys); });
            const double user = user_microseconds_so_far() - user_before;
            const auto left = kernel_contents();
            if (left.sas != 4 * options.sets)
                throw std::runtime_error("there are " + std::to_string(left.sas) + " SAs after a round");
            if (round > 0) {
                Cost& cost = is_ours ? ours : theirs;
                cost.microseconds.push_back(taken);
                cost.user_microseconds += user / static_cast<double>(options.sets * options.rounds);
            }
            clean();
        }
    }
}

void count_work(Cost& ours, Cost& theirs) {
    constexpr std::size_t kCounted = 50;
    const auto keys = example_keys();
    {
        Gateway gateway;
        auto one = requests(1);
        const auto before = gateway.counters().requests;
        gateway.install(one);
        ours.messages = static_cast<double>(gateway.counters().requests - before);
        ours.left = kernel_contents();
        clean();
        install_with_separate_sends(set_of(0), keys);
        theirs.messages = kSeparateSends;
        theirs.left = kernel_contents();
        clean();
    }
    ours.counted_sets = theirs.counted_sets = kCounted;
    std::unique_ptr<Gateway> gateway;
    auto batch = requests(kCounted);
    ours.calls = system_calls_of([&] { gateway = std::make_unique<Gateway>(); }, [&] { gateway->install(batch); });
    clean();
    const auto sets = parameters(kCounted);
    theirs.calls = system_calls_of([] {}, [&] { install_separately(sets, keys); });
    clean();
}

void print_calls(const Cost& cost) {
    std::printf("  %-22s", cost.name);
    for (const auto& [name, count] : cost.calls)
        std::printf(" %s %.2g,", name.c_str(), static_cast<double>(count) / static_cast<double>(cost.counted_sets));
    std::printf("\n");
}

void print_aim(const char* aim, bool is_met, double ours) {
    std::printf("  %-58s %8.2f  %s\n", aim, ours, is_met ? "met" : "NOT MET");
}

void print(const Options& options, const Cost& ours, const Cost& theirs) {
    utsname name{};
    uname(&name);
    const char* runner = std::getenv("GMGATE_KERNEL");
    std::printf(
        "Kernel work per registration, Linux %s (%s), hmac-sha-1-96 with aes-cbc, IPv4; %zu rounds of %zu registrations each\n",
        name.release, runner ? runner : "host", options.rounds, options.sets);
    std::printf("  %-42s %16s %16s %8s\n", "", "gmgate", "16 sends (*)", "ratio");
    const auto line = [](const char* what, double a, double b) {
        std::printf("  %-42s %16.1f %16.1f %8.2f\n", what, a, b, b > 0 ? a / b : 0);
    };
    line("time, median of the rounds (us)", ours.median(), theirs.median());
    line("time, best round (us)", ours.best(), theirs.best());
    // The clock tick of User Mode Linux takes much of the kernel's time for the program's.
    if (!runner || std::strcmp(runner, "uml") != 0)
        line("of it in user mode, mean (us)", ours.user_microseconds, theirs.user_microseconds);
    line("system calls, all", ours.calls_per_set(), theirs.calls_per_set());
    line("system calls on the netlink socket", ours.per_set("sendmsg") + ours.per_set("recvmsg"),
         theirs.calls_per_set());
    line("netlink messages to the kernel", ours.messages, theirs.messages);
    line("SAs that remain", ours.left.sas, theirs.left.sas);
    line("policies that remain", ours.left.policies, theirs.left.policies);
    std::printf(
        "  (*) a re-creation of the way of a widespread P-CSCF module: new socket, 8 SAs + 8 policies, no answer read\n");
    std::printf("System calls per registration, counted by tracing\n");
    print_calls(ours);
    print_calls(theirs);
    std::printf("Aims%54s %8s\n", "", "gmgate");
    print_aim("one send", ours.per_set("sendmsg") == 1 && ours.per_set("sendto") == 0,
              ours.per_set("sendmsg") + ours.per_set("sendto"));
    print_aim("one receive", ours.per_set("recvmsg") == 1 && ours.per_set("recvfrom") == 0,
              ours.per_set("recvmsg") + ours.per_set("recvfrom"));
    print_aim("no policy", ours.left.policies == 0, ours.left.policies);
    const double share = ours.median() / theirs.median();
    print_aim("a third of the time (median)", share <= 1.0 / 3, share);
    const double best_share = ours.best() / theirs.best();
    print_aim("a third of the time (best round)", best_share <= 1.0 / 3, best_share);
}

int run(const Options& options) {
    if (unshare(CLONE_NEWNET) != 0) throw std::runtime_error("a network namespace of its own: run this as root");
    Cost ours{.name = "gmgate"}, theirs{.name = "16 sends"};
    measure_time(options, ours, theirs);
    count_work(ours, theirs);
    print(options, ours, theirs);
    return 0;
}

Options options_of(int argc, char** argv) {
    Options out;
    for (int i = 1; i < argc; ++i) {
        const auto number = [&] {
            return i + 1 < argc ? std::max(1UL, std::strtoul(argv[++i], nullptr, 10))
                                : throw std::runtime_error("a number is missing");
        };
        if (std::strcmp(argv[i], "--smoke") == 0) out = {.sets = 20, .rounds = 2};
        else if (std::strcmp(argv[i], "--sets") == 0) out.sets = std::min(number(), 50000UL);
        else if (std::strcmp(argv[i], "--rounds") == 0) out.rounds = number();
        else throw std::runtime_error("usage: gm_bench_kernel [--smoke] [--sets N] [--rounds N]");
    }
    return out;
}

}  // namespace
}  // namespace gmgate::bench

int main(int argc, char** argv) {
    try {
        return gmgate::bench::run(gmgate::bench::options_of(argc, argv));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "gm_bench_kernel: %s\n", e.what());
        return 1;
    }
}
