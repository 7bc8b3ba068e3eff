// A thousand phones: four SAs each, and not one policy more than for the first.
#include <cstdlib>
#include <fstream>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

/// More source addresses for the phones: an address may hold a limited number of sets.
void add_addresses(Lab& lab) {
    std::string addresses;
    for (int i = 3; i < 2 + 16; ++i) addresses += "address add 10.1.0." + std::to_string(i) + "/16 dev access0\n";
    lab.network.ue.ip_batch(addresses);
}

Program start_phones(Lab& lab, std::size_t count, const std::string& hold) {
    return Program(
        {.command = {lab.programs().gmue, "register", "--gateway", Network::kAccess4, "--addresses", "10.1.0.2+16",
                     "--count", std::to_string(count), "--rate", "100", "--hold", hold, "--json"},
         .name = "gmue",
         .network = &lab.network.ue});
}

/// Kilobytes that a process has in memory.
std::string resident(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/status");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with("VmRSS:")) return line.substr(6);
    return "?";
}

}  // namespace

TEST_SUITE("load") {
    TEST_CASE("1,000 phones make 4,000 SAs and no policy; after they deregister there is none") {
        constexpr std::size_t kPhones = 1000;
        auto options = plain_lab();
        options.users = kPhones;
        options.more_sections = "[limits]\nchallenges-per-address = 256\n";
        Lab lab(options);
        add_addresses(lab);
        const auto policies = list_policies(lab.network.gw);
        {
            Phone one(lab, {});
            one.demand_registered();
            CHECK(list_policies(lab.network.gw) == policies);
            one.deregister();
            CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
        }
        auto phones = start_phones(lab, kPhones, "20");
        const auto summary = phones.wait_for_text("\"phase\":\"register\"", 0, std::chrono::minutes(5)).text;
        INFO(summary);
        CHECK(summary.find("\"ok\":1000") != std::string::npos);
        CHECK(count_sas(lab.network.gw) == 4 * kPhones);
        CHECK(list_policies(lab.network.gw) == policies);
        CHECK(phones.wait(std::chrono::minutes(5)) == 0);
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
        CHECK(list_policies(lab.network.gw) == policies);
        CHECK(lab.stop_gateway() == 0);
    }

    // GMGATE_ADOPT_PHONES: as many as the guest's memory allows, by hand.
    TEST_CASE("kill -9 with many phones: all are adopted, with their SAs, and leave by them") {
        const char* wish = std::getenv("GMGATE_ADOPT_PHONES");
        const std::size_t count = wish != nullptr ? std::stoul(wish) : 200;
        auto options = plain_lab();
        options.users = count;
        options.more_sections = "[limits]\nchallenges-per-address = 256\nsets-per-address = 100000\n";
        Lab lab(options);
        add_addresses(lab);
        auto phones = start_phones(lab, count, "30");
        const auto summary = phones.wait_for_text("\"phase\":\"register\"", 0, std::chrono::minutes(20)).text;
        INFO(summary);
        REQUIRE(summary.find("\"ok\":" + std::to_string(count)) != std::string::npos);
        const auto before = resident(lab.gateway().pid());
        lab.kill_gateway();
        CHECK(count_sas(lab.network.gw) == 4 * count);
        lab.start_gateway();
        const auto adopted = lab.gateway().wait_for_text("registrations-adopted").text;
        MESSAGE(adopted, "; resident before and after:", before, ",", resident(lab.gateway().pid()));
        CHECK(adopted.find("registrations=" + std::to_string(count) + " ") != std::string::npos);
        CHECK(count_sas(lab.network.gw) == 4 * count);
        CHECK(phones.wait(std::chrono::minutes(20)) == 0);
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
    }
}
