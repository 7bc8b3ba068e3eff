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

    TEST_CASE(
        "gmue in numbers: calls and messages at a rate, each second a line of CSV; who is called in vain is told") {
        Lab lab(plain_lab());
        const auto csv = lab.folder() + "/load.csv";
        const auto run = [&](std::vector<std::string> what, int status) {
            std::vector<std::string> command{lab.programs().gmue,
                                             what.front(),
                                             "--gateway",
                                             Network::kAccess4,
                                             "--count",
                                             "6",
                                             "--rate",
                                             "50",
                                             "--csv",
                                             csv};
            command.insert(command.end(), what.begin() + 1, what.end());
            Program program({.command = command, .name = "gmue", .network = &lab.network.ue});
            CHECK(program.wait(std::chrono::minutes(2)) == status);
            std::string all;
            for (const auto& line : program.lines()) all += line + '\n';
            std::ifstream file(csv);
            return all + std::string(std::istreambuf_iterator<char>(file), {});
        };
        const auto calls = run({"call", "--times", "2", "--seconds", "0.2"}, 0);
        INFO(calls);
        CHECK(calls.find("called: 6 of 6") != std::string::npos);  // three phones call twice
        CHECK(calls.find("seconds,phase,started,ok,failed,per_second\n") != std::string::npos);
        CHECK(calls.find(",called,6,6,0,") != std::string::npos);
        const auto messages = run({"message", "--times", "3"}, 0);
        INFO(messages);
        CHECK(messages.find(",said something,18,18,0,") != std::string::npos);
        const auto in_vain = run({"message", "--to", "sip:nobody@" + std::string(kHomeDomain)}, 1);
        INFO(in_vain);
        CHECK(in_vain.find("6 status-404") != std::string::npos);
        CHECK(in_vain.find(",said something,6,0,6,") != std::string::npos);
    }

    TEST_CASE(
        "gmue subscribes to its own reg event and prints the document that the core sends; a short message is acknowledged") {
        Lab lab(plain_lab());
        Phone phone(lab, {});
        phone.demand_registered();
        const auto answer = phone.command(
            "subscribe", [](const nlohmann::json& event) { return event.value("event", "") == "subscribed"; });
        CHECK(answer["status"] == 200);
        // A short message over IP: gmcore has no service centre, so that the other phone is it, and acknowledges.
        Phone centre(lab, {.user = 1});
        centre.demand_registered();
        const auto sent =
            phone.command("sms " + centre.impu() + " 46708251358 hello, hello",
                          [](const nlohmann::json& event) { return event.value("event", "") == "sms_sent"; });
        CHECK(sent["status"] == 200);
        const auto has = [](const Phone& at, const std::string& kind, const std::string& text) {
            return eventually([&] {
                for (const auto& event : at.events("sms_received"))
                    if (event.value("kind", "") == kind && event.value("text", "") == text) return true;
                return false;
            });
        };
        CHECK(has(centre, "data", "hello, hello"));
        CHECK(has(phone, "ack", ""));
        CHECK(eventually([&] {
            for (const auto& event : phone.events("request_received"))
                if (event.value("method", "") == "NOTIFY" &&
                    event.value("body", "").find("reginfo") != std::string::npos)
                    return true;
            return false;
        }));
    }
}
