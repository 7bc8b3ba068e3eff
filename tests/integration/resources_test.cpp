// Short of descriptors, or started under a careless umask: the real gateway, and those who look after it.
#include <doctest/doctest.h>

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tests/integration/operator.h"

using namespace gmgate::test;

TEST_SUITE("limits") {
    TEST_CASE("Out of descriptors: the monitoring port and the control socket answer, and phones over UDP are served") {
        auto options = plain_lab();
        options.top_lines = "metrics-listen = \"127.0.0.1:9464\"\n";
        Lab lab(options);
        Phone before(lab, {});
        before.demand_registered();
        const auto pid = lab.gateway().pid();
        rlim_t highest = 0;  // the limit is one of numbers
        for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd"))
            highest = std::max<rlim_t>(highest, std::stoul(entry.path().filename().string()));
        rlimit usual{};
        REQUIRE(prlimit(pid, RLIMIT_NOFILE, nullptr, &usual) == 0);
        const rlimit none{highest + 1, usual.rlim_max};
        REQUIRE(prlimit(pid, RLIMIT_NOFILE, &none, nullptr) == 0);
        const Access tcp{.is_v6 = false, .is_tcp = true};
        std::vector<std::unique_ptr<RawPeer>> strangers;  // take what is free below it, and wait for more
        for (int i = 0; i < 40; ++i)
            strangers.push_back(std::make_unique<RawPeer>(lab.network.ue, RawPeer::Kind::tcp, tcp.ue_port(43000 + i),
                                                          tcp.gateway_port(5060)));
        for (int i = 0; i < 2; ++i) {
            CHECK(monitoring_page(lab, "/healthz").starts_with("200 ok"));
            CHECK(gateway_status(lab)["registrations"]["ipsec_3gpp"] == 1 + i);
            Phone phone(lab, {.user = static_cast<std::size_t>(1 + i), .is_v6 = i == 1});
            phone.demand_registered();
            CHECK(monitoring_page(lab, "/readyz").starts_with("200 ready"));
            if (i < 1) continue;
            REQUIRE(prlimit(pid, RLIMIT_NOFILE, &usual, nullptr) == 0);
            const auto word = unique_word("all-is-well-");
            CHECK(before.message(phone.impu(), word) == 200);
            phone.await_message(word);
        }
    }

    TEST_CASE("Under umask 0 nobody but the owner can read the store or reach a socket, control-group's excepted") {
        auto options = plain_lab();
        options.is_gateway_started = false;
        Lab lab(options);
        const std::string pid_file = make_temporary_folder() + "/pid";
        Program gateway({.command = {"sh", "-c",
                                     "umask 0; echo $$ >" + pid_file + "; exec " + lab.programs().gmgated +
                                         " --config " + lab.config_path()},
                         .name = "gmgated",
                         .network = &lab.network.gw});
        gateway.wait_for_text("gateway-ready");
        Phone phone(lab, {});
        phone.demand_registered();
        const auto folder = std::filesystem::path(lab.config_path()).parent_path();
        std::size_t looked_at = 0;
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            const auto name = entry.path().filename().string();
            const bool is_ours = name.starts_with("registrations.db") || name.ends_with(".sock");
            if (!is_ours) continue;
            ++looked_at;
            const auto others =
                entry.status().permissions() & (std::filesystem::perms::group_all | std::filesystem::perms::others_all);
            CHECK_MESSAGE(others == std::filesystem::perms::none, name);
        }
        CHECK(looked_at >= 4);  // the store with its log and lock, two sockets
        run_program({.command = {"sh", "-c", "kill $(cat " + pid_file + ")"}, .name = "kill"});
    }
}
