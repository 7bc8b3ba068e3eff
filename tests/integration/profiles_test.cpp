// Families of phones (gmue --profile): each registers, refreshes, is challenged anew, calls and is called.
#include <fstream>
#include <set>
#include <sstream>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

struct Family {
    std::string name;
    Pair chosen;               ///< by the gateway's default preference
    std::string offer_starts;  ///< Security-Client
    bool registers_over_tcp = false;
};

const std::vector<Family> kFamilies{
    {"iphone", kSha1AesCbc, "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;mod=trans;port-c=", true},
    {"samsung", kSha1AesCbc, "ipsec-3gpp;prot=esp;mod=trans;spi-c="},
    {"samsung-two", kSha1Null, "ipsec-3gpp;prot=esp;mod=trans;spi-c="},
    {"samsung-one", kMd5Null, "ipsec-3gpp;prot=esp;mod=trans;spi-c="},
    {"xiaomi", kSha1AesCbc, "ipsec-3gpp; alg=hmac-md5-96; ealg=des-ede3-cbc; spi-c="},
    {"cmcc", kSha1AesCbc, "ipsec-3gpp; alg=hmac-md5-96; ealg=des-ede3-cbc; spi-c=", true},
    {"zte", kMd5AesCbc, "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;spi-c="},
    {"nokia", kSha1AesCbc, "ipsec-3gpp;alg=hmac-md5-96;ealg=null;spi-c="},
    {"pixel", kAesGcm, "ipsec-3gpp;alg=null;ealg=aes-gcm;prot=esp;"},
    {"oma", kMd5AesCbc, "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;prot=esp;mod=trans;port-c="},
};

/// Names in the list that gmue prints.
std::set<std::string> names_of_gmue() {
    std::istringstream list(run_program({.command = {programs().gmue, "--profile", "list"}, .name = "gmue"}));
    std::set<std::string> names;
    for (std::string line; std::getline(list, line);)
        if (!line.empty()) names.insert(line.substr(0, line.find(' ')));
    return names;
}

/// The first REGISTER in clear that the phone wrote down, and how it went.
nlohmann::json first_register(const std::string& log) {
    std::ifstream file(log);
    for (std::string line; std::getline(file, line);) {
        auto event = nlohmann::json::parse(line, nullptr, false);
        if (!event.is_discarded() && event.value("method", "") == "REGISTER" && event.value("dir", "") == "out")
            return event;
    }
    return {};
}

void check_ports_and_spis(const std::string& name, const nlohmann::json& registered) {
    const auto number = [&](const char* key) { return registered.value(key, std::int64_t{0}); };
    const auto uc = number("port_uc"), us = number("port_us"), spi_uc = number("spi_uc"), spi_us = number("spi_us");
    if (name.starts_with("samsung")) CHECK((spi_uc >= 10000 && spi_uc < 100000));
    if (name == "samsung" || name == "samsung-two") CHECK((us % 100 == 0 && uc == us + 1));
    if (name == "xiaomi") CHECK((spi_uc >= 1LL << 31 && spi_us >= 1LL << 31));
    if (name == "iphone") CHECK((us >= 49152 && uc >= 49152));
    if (name == "nokia") CHECK((spi_uc < 10000 && uc == us - 1));
    if (name == "oma") CHECK(spi_uc >= 0xffffff00);
}

void check_family(Lab& lab, Phone& peer, const Family& family, bool is_v6) {
    const auto log = lab.folder() + "/" + family.name + ".jsonl";
    Phone phone(lab, {.is_v6 = is_v6, .arguments = {"--profile", family.name, "--log", log, "--answer-after", "0"}});
    phone.demand_registered();
    INFO(phone.first().dump());
    CHECK(phone.first().value("alg", "") == family.chosen.alg);
    CHECK(phone.first().value("ealg", "") == family.chosen.ealg);
    check_ports_and_spis(family.name, phone.first());
    const auto written = first_register(log);
    const auto text = written.value("raw", "");
    INFO(text);
    CHECK(written.value("transport", "") == (family.registers_over_tcp ? "tcp" : "udp"));
    CHECK(text.find("\r\nSecurity-Client: " + family.offer_starts) != std::string::npos);
    CHECK((text.find("\r\nf: ") != std::string::npos) == (family.name == "cmcc"));

    CHECK_FALSE(phone.reregister(false).value("challenged", true));
    CHECK(phone.reregister(true).value("challenged", false));
    CHECK(phone.call(peer.impu()).value("ok", false));
    CHECK(peer.call(phone.impu()).value("ok", false));
    const auto word = unique_word(family.name);
    CHECK(peer.message(phone.impu(), word) == 200);
    phone.await_message(word);
    phone.deregister();
}

}  // namespace

TEST_SUITE("registration") {
    TEST_CASE(
        "each family of phones registers, refreshes, is challenged anew, calls and is called, IPv4 and IPv6 in turn") {
        std::set<std::string> tried;
        Lab lab(plain_lab());
        Phone peer(lab, {.user = 1, .is_v6 = true, .arguments = {"--answer-after", "0"}});
        peer.demand_registered();
        bool is_v6 = false;
        for (const Family& family : kFamilies) {
            INFO(family.name);
            check_family(lab, peer, family, is_v6);
            is_v6 = !is_v6;
            tried.insert(family.name);
        }
        CHECK(tried == names_of_gmue());
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 4; }));  // the peer's
        // Somebody on the way wants weaker algorithms: the list of each style is compared as it was sent.
        for (const char* name : {"iphone", "xiaomi", "cmcc"})
            for (const char* attack : {"1", "4"}) {
                Phone bent(lab, {.user = 2, .arguments = {"--profile", name, "--bid-down", attack, "--expect", "494"}});
                CHECK(bent.first().value("status", 0) == 494);
            }
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 4; }));
    }
}
