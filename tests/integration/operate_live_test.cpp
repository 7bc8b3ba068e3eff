// Settings that change in the running gateway, and the list of phones narrowed.
#include <doctest/doctest.h>

#include <fstream>

#include "tests/integration/operator.h"

using namespace gmgate::test;

namespace {

void replace_in(const std::string& path, const std::string& from, const std::string& to) {
    std::string text;
    {
        std::ifstream file(path);
        text.assign(std::istreambuf_iterator<char>(file), {});
    }
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    std::ofstream(path) << text.replace(at, from.size(), to);
}

}  // namespace

TEST_SUITE("operate") {
    TEST_CASE(
        "reload: next hops and the algorithms of newcomers change at once; a phone that stands keeps what it agreed") {
        Lab lab(plain_lab());
        Phone stays(lab, PhoneOptions{});
        stays.demand_registered();
        const auto before = list_sas(lab.network.gw).size();
        replace_in(lab.config_path(), "[[ims-aka-profile]]\n",
                   "[[ims-aka-profile]]\npreference = [\"hmac-sha-1-96/aes-cbc\"]\nmistake = 1\n");
        CHECK_THROWS(ask_gmctl(lab, {"reload"}));  // everything stays
        replace_in(lab.config_path(), "mistake = 1\n", "");
        replace_in(lab.config_path(), "[core]\n", "[core]\nemergency-next-hop = \"10.2.0.2:5060\"\n");
        const auto report = ask_gmctl(lab, {"reload"});
        INFO(report.dump(1));
        CHECK(report["refused"].empty());
        CHECK(report["applied"].size() == 2);
        CHECK(list_sas(lab.network.gw).size() == before);
        PhoneOptions second;
        second.user = 1;
        Phone comes(lab, second);
        comes.demand_registered();
        const auto list = [&](std::vector<std::string> words) {
            words.insert(words.begin(), "registrations");
            return ask_gmctl(lab, words)["registrations"];
        };
        const auto rows = list({"--sort", "impi"});
        REQUIRE(rows.size() == 2);
        CHECK(rows[0]["algorithms"] == "null/aes-gcm");
        CHECK(rows[1]["algorithms"] == "hmac-sha-1-96/aes-cbc");
        CHECK(list({"--algorithm", "aes-cbc"}).size() == 1);
        CHECK(list({"--mechanism", "tls"}).empty());
        CHECK(list({"--realm", "no-such-realm"}).empty());
        CHECK(list({"--address", std::string(Network::kUe4), "--state", "registered"}).size() == 2);
        stays.reregister(false);
        CHECK(stays.message(comes.impu(), "still-here") == 200);
        comes.await_message("still-here");
        CHECK(screen(lab, {"why", impi_of_user(1)}).ends_with(": registered\n"));
        RawRegister stranger;
        stranger.user = 2;
        stranger.security_client =
            "ipsec-3gpp;alg=hmac-sha-9;ealg=null;spi-c=70001;spi-s=70002;port-c=7901;port-s=7902";
        CHECK(status_of(ask(lab, stranger)) == 494);
        const auto stats = ask_gmctl(lab, {"sa-stats"})["interfaces"];
        INFO(stats.dump(1));
        REQUIRE(stats.size() == 1);
        CHECK(stats[0]["attempts"]["lifetime"] == 3);
        CHECK(stats[0]["successes"]["lifetime"] == 2);
        CHECK(stats[0]["failures"]["lifetime"] == 1);
        CHECK(screen(lab, {"sa-stats"}).find("security-client") != std::string::npos);
        const auto numbers = ask_gmctl(lab, {"registrations"})["numbers"];
        CHECK(numbers["active"]["now"] == 2);
        CHECK(numbers["registered"]["lifetime"] == 2);
        CHECK(screen(lab, {"registrations", "--numbers"}).find("refreshed") != std::string::npos);
        CHECK(screen(lab, {"why", "-v", impi_of_user(1)}).starts_with("Evidence:\n"));
    }
}
