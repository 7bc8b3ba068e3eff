// Started under a careless umask: the real gateway.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "tests/integration/scene.h"

using namespace gmgate::test;

TEST_SUITE("limits") {
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
