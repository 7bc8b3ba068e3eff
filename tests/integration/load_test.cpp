// A thousand phones: four SAs each, and not one policy more than for the first.
#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

TEST_SUITE("load") {
    TEST_CASE("1,000 phones make 4,000 SAs and no policy; after they deregister there is none") {
        constexpr std::size_t kPhones = 1000;
        auto options = plain_lab();
        options.users = kPhones;
        options.more_sections = "[limits]\nchallenges-per-address = 256\n";
        Lab lab(options);
        std::string addresses;
        for (int i = 3; i < 2 + 16; ++i) addresses += "address add 10.1.0." + std::to_string(i) + "/16 dev access0\n";
        lab.network.ue.ip_batch(addresses);
        const auto policies = list_policies(lab.network.gw);
        {
            Phone one(lab, {});
            one.demand_registered();
            CHECK(list_policies(lab.network.gw) == policies);
            one.deregister();
            CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
        }
        Program phones({.command = {lab.programs().gmue, "register", "--gateway", Network::kAccess4, "--addresses", "10.1.0.2+16", "--count",
                                    std::to_string(kPhones), "--rate", "100", "--hold", "20", "--json"},
                        .name = "gmue",
                        .network = &lab.network.ue});
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
}
