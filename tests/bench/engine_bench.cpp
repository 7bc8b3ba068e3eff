// What a registration costs by the place where it is put into the kernel: in this process, or in gmgate-xfrmd, one at a
// time (the hop shows) and many at once (batching makes up for it). Needs root and a kernel with ESP: scripts/kernel.
// Numbers are printed, never asserted. Usage: gm_bench_engine XFRMD [--engine PROGRAM] [--sets N] [--rounds N];
// --engine adds rows of another engine (gmgate-xfrmd-charon).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "tests/bench/separate_sends.h"
#include "tests/bench/sets.h"
#include "tests/support/guardian.h"
#include "xfrm/engine/client.h"
#include "xfrm/netlink/kernel.h"
#include "xfrm/netlink/monitor.h"

namespace gmgate::bench {
namespace {

struct Options {
    std::string program, engine;
    std::size_t sets = 200, rounds = 8;
};

/// One way to the kernel: a loop and an xfrm::Kernel on it.
struct Way {
    std::string name;
    asio::io_context io;
    Clock clock;
    test::Guardian guardian;
    std::unique_ptr<xfrm::Monitor>
        monitor;  ///< in-process; the others have theirs. The kernel makes an event of each SA for whoever listens
    std::unique_ptr<xfrm::Kernel> kernel;
    double start = 0;  ///< milliseconds until it had answered for the first time

    explicit Way(std::string n) : name(std::move(n)) {}
    ~Way() {
        kernel.reset();
        if (guardian.process > 0) waitpid(guardian.process, nullptr, 0);
    }

    void install(std::vector<xfrm::SetRequest> sets, bool at_once) {
        std::size_t left = at_once ? sets.size() : 1;
        const auto done = [&left](const std::exception_ptr& failure) {
            if (failure) std::rethrow_exception(failure);
            --left;
        };
        const auto one = [this](xfrm::SetRequest set) -> Task<void> {
            const auto result = co_await kernel->install_set(std::move(set));
            if (!result) throw std::runtime_error(name + ": " + result.error().text);
        };
        const auto in_turn = [&]() -> Task<void> {
            for (auto& set : sets) co_await one(std::move(set));
        };
        if (at_once)
            for (auto& set : sets) asio::co_spawn(io, one(std::move(set)), done);
        else asio::co_spawn(io, in_turn(), done);
        io.restart();
        while (left != 0) io.run_one();
    }
};

/// Asks it something and takes the time since `begin`.
void await_start(Way& way, std::chrono::steady_clock::time_point begin) {
    bool answered = false;
    asio::co_spawn(way.io, way.kernel->dump(),
                   [&](const std::exception_ptr&, const Result<std::vector<xfrm::SaReport>>& told) {
                       if (!told) throw std::runtime_error(way.name + ": " + told.error().text);
                       answered = true;
                   });
    while (!answered) way.io.run_one();
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - begin;
    way.start = taken.count();
}

std::unique_ptr<Way> in_process() {
    const auto begin = std::chrono::steady_clock::now();
    auto way = std::make_unique<Way>("in-process");
    way->kernel = std::make_unique<xfrm::NetlinkKernel>(way->io.get_executor(), way->clock);
    way->monitor =
        std::make_unique<xfrm::Monitor>(way->io.get_executor(), xfrm::Ownership{}, [](const xfrm::KernelEvent&) {});
    if (const auto ok = way->monitor->start(); !ok) throw std::runtime_error(ok.error().text);
    await_start(*way, begin);
    return way;
}

std::unique_ptr<Way> process(const Options& options, const std::string& engine) {
    const auto begin = std::chrono::steady_clock::now();
    auto way = std::make_unique<Way>(engine.empty() ? "process" : "process, " + engine.substr(engine.rfind('/') + 1));
    xfrm::EngineConfiguration configuration;
    configuration.ports = {{set_of(0).gateway, Port{6100}, Port{6101}}};
    way->guardian = test::start_guardian(options.program, engine, configuration);
    way->kernel = std::make_unique<xfrm::EngineClient>(way->io.get_executor(), way->guardian.socket,
                                                       configuration.owner.reqid, xfrm::EngineClient::Handlers{});
    await_start(*way, begin);
    return way;
}

double microseconds(Way& way, const Options& options, bool at_once) {
    std::vector<double> rounds;
    for (std::size_t round = 0; round <= options.rounds; ++round) {  // round 0 loads modules and starts the engine
        auto sets = requests(options.sets);
        const auto begin = std::chrono::steady_clock::now();
        way.install(std::move(sets), at_once);
        const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - begin;
        if (round > 0) rounds.push_back(taken.count() / static_cast<double>(options.sets));
        const auto left = kernel_contents();
        if (left.sas != 4 * options.sets)
            throw std::runtime_error("there are " + std::to_string(left.sas) + " SAs after a round");
        flush_kernel();
    }
    std::ranges::sort(rounds);
    return rounds[rounds.size() / 2];
}

int run(const Options& options) {
    if (unshare(CLONE_NEWNET) != 0) throw std::runtime_error("a network namespace of its own: run this as root");
    // Frames that a unix socket holds: 10 in a fresh namespace, 512 where systemd was the first process, as on any
    // machine that is served.
    std::ofstream("/proc/sys/net/unix/max_dgram_qlen") << 512;
    std::printf(
        "Kernel work per registration by engine, %zu rounds of %zu registrations, median, us\n  %-34s %14s %14s %14s %14s\n",
        options.rounds, options.sets, "", "one at a time", "all at once", "system calls*", "start, ms");
    std::vector<std::string> engines{"-", ""};
    if (!options.engine.empty()) engines.push_back(options.engine);
    for (const auto& engine : engines) {
        const auto make = [&] { return engine == "-" ? in_process() : process(options, engine); };
        auto way = make();
        std::vector<double> starts{way->start};
        for (std::size_t i = 1; i < options.rounds; ++i) {
            way.reset();
            way = make();
            starts.push_back(way->start);
        }
        std::ranges::sort(starts);
        const double alone = microseconds(*way, options, false);
        const auto before = way->kernel->counters().system_calls;
        const double together = microseconds(*way, options, true);
        const auto calls = static_cast<double>(way->kernel->counters().system_calls - before) /
                           static_cast<double>(options.sets * (options.rounds + 1));
        std::printf("  %-34s %14.1f %14.1f %14.2f %14.1f\n", way->name.c_str(), alone, together, calls,
                    starts[starts.size() / 2]);
        std::fflush(stdout);
    }
    std::printf("  (*) on the netlink socket for each registration, all at once\n");
    return 0;
}

Options options_of(int argc, char** argv) {
    Options out;
    for (int i = 1; i < argc; ++i) {
        const auto word = [&] { return i + 1 < argc ? argv[++i] : throw std::runtime_error("a value is missing"); };
        if (std::strcmp(argv[i], "--sets") == 0) out.sets = std::strtoul(word(), nullptr, 10);
        else if (std::strcmp(argv[i], "--rounds") == 0) out.rounds = std::strtoul(word(), nullptr, 10);
        else if (std::strcmp(argv[i], "--engine") == 0) out.engine = word();
        else out.program = argv[i];
    }
    if (out.program.empty() || out.sets == 0 || out.rounds == 0)
        throw std::runtime_error("usage: gm_bench_engine XFRMD [--engine PROGRAM] [--sets N] [--rounds N]");
    return out;
}

}  // namespace
}  // namespace gmgate::bench

int main(int argc, char** argv) {
    try {
        return gmgate::bench::run(gmgate::bench::options_of(argc, argv));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "gm_bench_engine: %s\n", e.what());
        return 1;
    }
}
