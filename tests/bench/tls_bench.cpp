// What TLS costs: memory of idle registered phones with TLS in the kernel and in OpenSSL, and handshakes beside
// `openssl s_server` with the same certificate, each pair in one run. GMGATE_TLS_CONNECTIONS (5000 in scripts/bench)
// and GMGATE_TLS_SECONDS are the sizes.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <doctest/doctest.h>
#include <unistd.h>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

long from_environment(const char* name, long otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atol(text) : otherwise;
}

/// A value in KiB of a file such as /proc/meminfo.
long kib(const std::string& path, const std::string& key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(key + ":")) return std::stol(line.substr(key.size() + 1));
    return 0;
}

struct Memory {
    long resident = 0;  ///< of gmgated
    long slab = 0;      ///< of the whole guest
    static Memory now(pid_t gateway) {
        return {kib("/proc/" + std::to_string(gateway) + "/status", "VmRSS"), kib("/proc/meminfo", "Slab")};
    }
};

double per(long kibibytes, long count) { return static_cast<double>(kibibytes) * 1024.0 / static_cast<double>(count); }

struct Idle {
    double resident = 0, slab = 0;  ///< octets per phone
};

/// Registers phones over TLS, leaves them idle, and tells what each costs.
Idle measure(const std::string& ktls, long phones) {
    TlsLab tls({.pref = "tls-ipsec3gpp",
                .more_sections =
                    "[limits]\nconnections-per-address = 20000\ntls-handshakes-per-address = 1024\nloop-lag = 60000\n",
                .top_lines = "ktls = \"" + ktls + "\"\n",
                .log_level = "notice",
                .users = static_cast<std::size_t>(phones) + 200});
    auto& lab = *tls.lab;
    const auto command = [&](long count, long first, const char* hold) {
        std::vector<std::string> words{lab.programs().gmue,
                                       "register",
                                       "--gateway",
                                       std::string(Network::kAccess4),
                                       "--index",
                                       std::to_string(first),
                                       "--count",
                                       std::to_string(count),
                                       "--rate",
                                       std::getenv("GMGATE_TLS_RATE") ? std::getenv("GMGATE_TLS_RATE") : "60",
                                       "--hold",
                                       hold,
                                       "--json",
                                       "--timeout",
                                       "120"};
        for (auto& argument : tls.phone_arguments("tls-prior", "1.3")) words.push_back(argument);
        return words;
    };
    // Pools, caches and the handshakes' own memory are there already when the measurement begins.
    run_program({.command = command(std::min(phones, 200L), phones, "0"), .name = "gmue", .network = &lab.network.ue},
                {}, std::chrono::seconds(300));
    const auto pid = lab.gateway().pid();
    const auto before = Memory::now(pid);
    const long in_kernel_before = tls.tls_stat("TlsCurrTxSw");
    Program gmue({.command = command(phones, 0, "100000"), .name = "gmue", .network = &lab.network.ue});
    const auto summary = gmue.wait_for_text("load_summary", 0, std::chrono::seconds(120 + phones / 5)).text;
    CHECK_MESSAGE(summary.find("\"failed\":0,") != std::string::npos, summary);
    const long in_kernel = tls.tls_stat("TlsCurrTxSw") - in_kernel_before;
    CHECK(in_kernel == (ktls == "off" ? 0 : phones));
    const auto after = Memory::now(pid);
    gmue.kill();
    return {per(after.resident - before.resident, phones), per(after.slab - before.slab, phones)};
}

long ticks_of(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::istringstream words(text.substr(text.rfind(')') + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) words >> skipped;
    long user = 0, system = 0;
    words >> user >> system;
    return user + system;
}

struct Rate {
    double per_second = 0, server_ms = 0;  ///< whole handshakes; CPU time of the server for each
};

/// Two clients (`openssl s_time`, new sessions only) against one server for some seconds.
Rate handshakes(const TlsLab& tls, const std::string& port, pid_t server, const std::string& version, long seconds) {
    const auto ticks = ticks_of(server);
    const auto output =
        run_program({.command = {"sh", "-c",
                                 "for i in 1 2; do openssl s_time -connect 10.1.0.1:" + port + " -new -time " +
                                     std::to_string(seconds) + " " + version + " 2>&1 & done; wait"},
                     .name = "s_time",
                     .network = &tls.lab->network.ue},
                    {}, std::chrono::seconds(60 + seconds * 4));
    long connections = 0;
    for (auto at = output.find(" connections in "); at != std::string::npos;
         at = output.find(" connections in ", at + 1))
        if (output.find("real seconds", at) < output.find('\n', at))
            connections += std::stol(output.substr(output.rfind('\n', at) + 1));
    CHECK_MESSAGE(connections > 0, output);
    const double used =
        static_cast<double>(ticks_of(server) - ticks) * 1000.0 / static_cast<double>(sysconf(_SC_CLK_TCK));
    return {static_cast<double>(connections) / static_cast<double>(seconds), used / static_cast<double>(connections)};
}

}  // namespace

TEST_SUITE("tls-bench") {
    TEST_CASE("memory of idle registered phones over TLS, in the kernel and in OpenSSL") {
        const long phones = from_environment("GMGATE_TLS_CONNECTIONS", 50);
        const auto kernel = measure("required", phones);
        const auto openssl = measure("off", phones);
        std::printf("%ld idle registered phones over TLS 1.3, octets per phone:\n", phones);
        std::printf(
            "  gmgated (RSS): %.0f with TLS in the kernel, %.0f in OpenSSL; TLS itself costs %.0f more in OpenSSL\n",
            kernel.resident, openssl.resident, openssl.resident - kernel.resident);
        std::printf(
            "  kernel (slab of the guest, both ends of each connection): %.0f and %.0f; the kernel's share of TLS is %.0f\n",
            kernel.slab, openssl.slab, kernel.slab - openssl.slab);
    }

    TEST_CASE("handshakes beside openssl s_server with the same certificate") {
        const long seconds = from_environment("GMGATE_TLS_SECONDS", 1);
        TlsLab tls(
            {.more_sections = "[limits]\nconnections-per-address = 60000\nloop-lag = 60000\n", .log_level = "notice"});
        Program s_server(
            {.command = {"openssl", "s_server", "-accept", "10.1.0.1:5071", "-cert", tls.folder + "/ecdsa.pem", "-key",
                         tls.folder + "/ecdsa.key", "-quiet", "-num_tickets", "1", "-no_ign_eof"},
             .name = "s_server",
             .network = &tls.lab->network.gw});
        CHECK(eventually([&] { return tls.lab->network.gw.run("ss -tln").find(":5071") != std::string::npos; }));
        for (const std::string version : {"-tls1_3", "-tls1_2"}) {
            Rate ours, theirs;
            for (int round = 0; round < 2; ++round) {  // the better of two, alternating
                const auto a = handshakes(tls, "5061", tls.lab->gateway().pid(), version, seconds);
                const auto b = handshakes(tls, "5071", s_server.pid(), version, seconds);
                if (a.per_second > ours.per_second) ours = a;
                if (b.per_second > theirs.per_second) theirs = b;
            }
            std::printf(
                "handshakes %s, ECDSA P-256: gmgated %.0f per second, %.2f ms CPU each (hand-off to the kernel included); s_server %.0f, %.2f ms; ratio %.2f\n",
                version.c_str() + 1, ours.per_second, ours.server_ms, theirs.per_second, theirs.server_ms,
                ours.per_second / theirs.per_second);
        }
    }
}
