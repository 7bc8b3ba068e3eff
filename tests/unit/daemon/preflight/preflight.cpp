// What `gmgated --check-config` and `--check` find before anything is started. Sockets are real, in the test's own
// network.
#include <doctest/doctest.h>

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>

#include "daemon/preflight/core_check.h"
#include "daemon/preflight/finding.h"
#include "sip/transport/socket.h"

using namespace gmgate;
using namespace gmgate::daemon;

namespace {

Config config_with(const std::string& top, const std::string& core_lines = {}, const std::string& host = "127.0.0.1") {
    const auto at = [&](const char* port) {
        return host.find(':') == std::string::npos ? host + port : "[" + host + "]" + port;
    };
    const auto config = parse_config(top + "[core]\nlisten = \"" + at(":25060") + "\"\nvisited-network-id = \"v\"\n" +
                                         (core_lines.empty() ? "next-hop = \"" + at(":25070") + "\"\n" : core_lines) +
                                         "[[ims-aka-profile]]\nname = \"p\"\nprotected-server-port = [26100, 26101]\n"
                                         "start-protected-client-port = 26200\nend-protected-client-port = 26202\n"
                                         "[[sip-interface]]\nrealm-id = \"access\"\nsec-agree-feature = \"enabled\"\n"
                                         "[[sip-interface.sip-ports]]\naddress = \"" +
                                         host + "\"\nport = 25080\nims-aka-profile = \"p\"\n",
                                     "test.toml");
    REQUIRE_MESSAGE(config.has_value(), (config ? "" : config.error().text));
    return *config;
}

/// A socket of somebody else's.
struct Taken {
    Taken(const std::string& end, bool is_udp) {
        const auto local = *Endpoint::parse(end);
        socket = sip::FileDescriptor(::socket(local.address.af(), is_udp ? SOCK_DGRAM : SOCK_STREAM, 0));
        sockaddr_storage address{};
        const auto length = local.to_sockaddr(address);
        REQUIRE(bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0);
        if (!is_udp) REQUIRE(listen(socket.get(), 4) == 0);
    }
    sip::FileDescriptor socket;
};

std::vector<Finding> next_hops_of(const Config& config, std::chrono::milliseconds patience) {
    asio::io_context loop(1);
    std::vector<Finding> found;
    const auto look = [&]() -> Task<void> { found = co_await check_next_hops(config, patience); };
    asio::co_spawn(loop, look, asio::detached);
    loop.run();
    return found;
}

bool has(const std::vector<Finding>& findings, const std::string& text) {
    return std::ranges::any_of(findings, [&](const Finding& f) { return line_of(f).find(text) != std::string::npos; });
}

}  // namespace

TEST_CASE("A kernel without any ESP is one sentence, a missing algorithm names its module once") {
    CHECK(kernel_lacks({}).empty());
    CHECK(kernel_lacks({{"a, IPv4", true, "", ""}, {"a, IPv6", true, "", ""}}).empty());
    CHECK(kernel_lacks({{"a, IPv4", false, "x", "esp4"}, {"a, IPv6", false, "x", "esp6"}}) ==
          "the kernel has no ESP at all: modprobe -a esp4 esp6 xfrm_user, or boot a kernel that has it");
    CHECK(kernel_lacks({{"a, IPv4", true, "", ""}, {"b, IPv4", false, "x", "des"}, {"b, IPv6", false, "x", "des"}}) ==
          "the kernel lacks: b, IPv4; b, IPv6; modprobe -a des; or take the algorithms out of the ims-aka-profile");
}

TEST_CASE("Reserved ports are read as the kernel writes them, and nonsense reserves nothing") {
    CHECK(is_port_in_list("8080,9148-9150", Port{9149}));
    CHECK(is_port_in_list("8080", Port{8080}));
    for (const char* list : {"", "8080", "8081-", "-", "x-y", ",,", "9150-9148"})
        CHECK_FALSE(is_port_in_list(list, Port{9149}));
}

TEST_CASE("A port that somebody else has is named with who has it, IPv4 and IPv6, UDP and TCP") {
    for (const std::string host : {"127.0.0.1", "::1"}) {
        const auto config = config_with("", "", host);
        CHECK(check_ports(config).empty());
        const auto bracketed = host == "::1" ? "[::1]" : host;
        {
            const Taken udp(bracketed + ":26100", true), tcp(bracketed + ":25080", false);
            const auto findings = check_ports(config);
            REQUIRE(findings.size() == 2);
            const auto pid = "(pid " + std::to_string(getpid()) + ")";
            CHECK(has(findings, bracketed + ":26100/udp is in use by"));
            CHECK(has(findings, bracketed + ":25080/tcp is in use by"));
            CHECK(has(findings, pid));
        }
        CHECK(check_ports(config).empty());
    }
}

TEST_CASE("A wildcard of somebody else's is in the way, too") {
    const auto config = config_with("");
    const Taken all("0.0.0.0:25060", true);
    CHECK(has(check_ports(config), "127.0.0.1:25060/udp is in use by"));
}

TEST_CASE("What --check-config sees without rights: a group and folders that are not there") {
    CHECK(check_installation(config_with("")).empty());
    const auto findings =
        check_installation(config_with("control-group = \"no-such-group\"\ncontrol-socket = \"/no/such/folder/s\"\n"));
    REQUIRE(findings.size() == 2);
    CHECK(line_of(findings[0]).starts_with("error: control-group \"no-such-group\" does not exist; fix: addgroup"));
    CHECK(has(findings, "there is no folder /no/such; fix: mkdir -p /no/such/folder"));
}

TEST_CASE(
    "A next hop that answers is no finding; one that is silent, refuses or cannot be reached is, in bounded time") {
    using namespace std::chrono_literals;
    for (const std::string host : {"127.0.0.1", "[::1]"}) {
        const auto plain = host == "127.0.0.1" ? host : "::1";
        const Taken core(host + ":25070", true), stream(host + ":25071", false);
        std::thread answers([&] {  // whoever asks gets something back, though it is no good answer
            char bytes[2048];
            sockaddr_storage peer{};
            socklen_t length = sizeof peer;
            const auto got =
                recvfrom(core.socket.get(), bytes, sizeof bytes, 0, reinterpret_cast<sockaddr*>(&peer), &length);
            CHECK(std::string(bytes, got > 0 ? static_cast<std::size_t>(got) : 0).starts_with("OPTIONS sip:"));
            sendto(core.socket.get(), "SIP/2.0 404 No\r\n\r\n", 18, 0, reinterpret_cast<sockaddr*>(&peer), length);
        });
        const auto hops = [&](const std::string& lines) { return next_hops_of(config_with("", lines, plain), 600ms); };
        CHECK(hops("next-hop = \"" + host + ":25070\"\n").empty());
        answers.join();
        CHECK(hops("next-hop = \"" + host + ":25071\"\ntransport = \"tcp\"\n").empty());
        const Taken silent(host + ":25072", true);
        CHECK(has(hops("next-hop = \"" + host + ":25072\"\n"), ":25072 did not answer OPTIONS within 600 ms"));
        CHECK(has(hops("next-hop = \"" + host + ":25073\"\ntransport = \"tcp\"\n"), ":25073 took no connection"));
    }
    CHECK(has(next_hops_of(config_with("", "next-hop = \"192.0.2.77:5060\"\n"), 100ms),
              "no way from 127.0.0.1 to next hop 192.0.2.77:5060: Network is unreachable"));
}
