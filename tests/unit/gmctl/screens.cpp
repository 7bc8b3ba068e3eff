// What people see on a terminal of 80 columns and 24 lines, with twenty phones: whole screens, compared letter by
// letter.
#include <doctest/doctest.h>

#include <algorithm>
#include <sstream>

#include <fmt/format.h>

#include "gmctl/table.h"
#include "gmctl/views.h"

using namespace gmgate::gmctl;
using Json = nlohmann::json;

namespace {

constexpr std::size_t kWidth = 80, kHeight = 24;

std::vector<std::string> lines_of(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

// "…" is one column of three octets.
std::size_t columns_of(const std::string& line) {
    return static_cast<std::size_t>(
        std::ranges::count_if(line, [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }));
}

void check_fits(const std::string& screen) {
    CHECK(lines_of(screen).size() < kHeight);  // the prompt wants one
    for (const auto& line : lines_of(screen)) CHECK_MESSAGE(columns_of(line) <= kWidth, line);
}

Json phone(int number, const std::string& ue = {}) {
    return {{"impi", fmt::format("0010100000000{:02}@ims.mnc001.mcc001.3gppnetwork.org", number)},
            {"ue", ue.empty() ? fmt::format("10.1.0.{}:{}", number + 1, 25000 + number) : ue},
            {"mechanism", "ipsec-3gpp"},
            {"algorithms", "null/aes-gcm"},
            {"transport", "UDP"},
            {"sets", 1},
            {"expires_in", 600000 - number},
            {"realm", "access"}};
}

Json twenty_phones() {
    Json page{{"registrations", Json::array()}, {"total", 20}};
    for (int i = 1; i <= 20; ++i) page["registrations"].push_back(phone(i));
    return page;
}

}  // namespace

TEST_CASE("Twenty phones on 80x24: every identity whole, what all have named once") {
    const auto screen = registrations_view(twenty_phones(), kWidth);
    check_fits(screen);
    const auto lines = lines_of(screen);
    REQUIRE(lines.size() == 23);
    CHECK(lines[0] == "all: @ims.mnc001.mcc001.3gppnetwork.org, ipsec-3gpp, null/aes-gcm, UDP, 1 set,");
    CHECK(lines[1] == "access");
}

TEST_CASE("Twenty phones that differ: the identity and the port are whole, the rest gives way") {
    auto page = twenty_phones();
    page["registrations"][3]["algorithms"] = "hmac-sha-1-96/des-ede3-cbc";
    page["registrations"][4]["ue"] = "[2001:db8:1234:5678:9abc:def0:1234:5678]:25004";
    page["registrations"][5]["realm"] = "roaming-partners";
    page["registrations"][6]["mechanism"] = "tls";
    const auto screen = registrations_view(page, kWidth);
    for (const auto& line : lines_of(screen)) CHECK_MESSAGE(columns_of(line) <= kWidth, line);
    for (int i = 1; i <= 20; ++i) {
        CHECK(screen.find(fmt::format("\n0010100000000{:02}  ", i)) != std::string::npos);
        CHECK(screen.find(fmt::format(":{}", 25000 + i - (i == 5 ? 1 : 0))) != std::string::npos);
    }
}

TEST_CASE("Without a terminal the table is whole, for grep and awk") {
    const auto text = registrations_view(twenty_phones(), 0);
    CHECK(lines_of(text).size() == 21);
    CHECK(text.find("001010000000007@ims.mnc001.mcc001.3gppnetwork.org  10.1.0.8:25007   ipsec-3gpp  null/aes-gcm") !=
          std::string::npos);
}

TEST_CASE("The ends of SAs keep their ports, and troubles that nobody has take no column") {
    Json set{{"set", 7},          {"state", "established"}, {"alg", "null"},
             {"ealg", "aes-gcm"}, {"expires_in", 60},       {"sas", Json::array()}};
    const auto sa = [&](int failures) {
        return Json{{"direction", "in"},
                    {"spi", 0x6a29a73b},
                    {"source", "[2001:db8:1234:5678:9abc:def0:1234:5678]:30585"},
                    {"destination", "[2001:db8:ffff::1]:6100"},
                    {"packets", 123456},
                    {"bytes", 98765432},
                    {"integrity_failures", failures},
                    {"replay_drops", 0},
                    {"replay_window_drops", 0}};
    };
    set["sas"].push_back(sa(0));
    Json shown{{"contacts", {{{"impi", "i"}, {"sets", {set}}}}}};
    auto screen = show_view(shown, kWidth);
    CHECK(screen.find(":30585  ") != std::string::npos);
    CHECK(screen.find(":6100  ") != std::string::npos);
    CHECK(screen.find("no integrity failures, replays or late packets") != std::string::npos);
    shown["contacts"][0]["sets"][0]["sas"].push_back(sa(3));
    screen = show_view(shown, kWidth);
    CHECK(screen.find("integrity  replay  late") != std::string::npos);
    for (const auto& line : lines_of(screen)) CHECK_MESSAGE(columns_of(line) <= kWidth, line);
}

TEST_CASE("why begins with the identity and ends with the verdict; the evidence is asked for") {
    const Json verdict{{"impi", "001010000000001@ims.example"},
                       {"verdict", "no-answer"},
                       {"packet_tap", true},
                       {"paragraph", "The 401 left and nothing came."},
                       {"evidence", {"a fact"}}};
    CHECK(why_view(verdict, kWidth) ==
          "001010000000001@ims.example\n\nThe 401 left and nothing came.\n\n001010000000001@ims.example: no-answer\n");
    CHECK(why_view_with_evidence(verdict, kWidth) == "Evidence:\n  a fact\n\n" + why_view(verdict, kWidth));
}

TEST_CASE("The core's elements on one screen") {
    const Json core{{"ping_interval", 30},
                    {"hops",
                     {{{"hop", "10.2.0.2:5060"},
                       {"address", "10.2.0.2:5060"},
                       {"transport", "UDP"},
                       {"state", "up"},
                       {"disabled", false},
                       {"for", 11000},
                       {"round_trip_ms", 0.61},
                       {"mean_answer_ms", 12.34},
                       {"reason", ""}},
                      {{"hop", "backup.home.example"},
                       {"address", "10.2.0.3:5060"},
                       {"transport", "UDP"},
                       {"state", "down"},
                       {"disabled", false},
                       {"for", 70},
                       {"reason", "no answer within 8000 ms and then some more text"}}}}};
    const auto screen = core_view(core, kWidth);
    check_fits(screen);
    CHECK(screen ==
          "next hop             over  state         for  round trip  answers in\n"
          "10.2.0.2:5060        UDP   up      3 h 3 min      0.6 ms     12.3 ms\n"
          "backup.home.example  UDP   down   1 min 10 s\n"
          "  10.2.0.3:5060, last trouble: no answer within 8000 ms and then some more text\n");
}

TEST_CASE("Agreements by interface and reason, and registrations in numbers") {
    const Json tally{{"period", 3}, {"lifetime", 41}, {"most_in_a_period", 20}};
    auto reason = tally;
    reason["reason"] = "core 403";
    const Json stats{{"period_seconds", 420},
                     {"interfaces",
                      {{{"realm", "access"},
                        {"attempts", tally},
                        {"successes", tally},
                        {"failures", tally},
                        {"reasons", {reason}}}}}};
    CHECK(sa_stats_view(stats, kWidth) ==
          "interface  ipsec-3gpp  in these 7 min 0 s  since start  most in 15 min\n"
          "access     attempts                     3           41              20\n"
          "           successes                    3           41              20\n"
          "           failures                     3           41              20\n"
          "             core 403                   3           41              20\n");
    const Json page{{"numbers",
                     {{"period_seconds", 420},
                      {"active", {{"now", 20}, {"period_high", 21}, {"lifetime_high", 40}, {"limit", 100000}}},
                      {"registered", tally},
                      {"refreshed", tally},
                      {"challenged", tally},
                      {"refused", tally}}}};
    check_fits(registration_numbers_view(page, kWidth));
    CHECK(lines_of(registration_numbers_view(page, kWidth))[1].starts_with("active          20"));
}

TEST_CASE("top shows the busiest counters first and no more than the terminal has lines for") {
    Json before{{"counters", Json::object()}}, now{{"time", "2026-11-25T23:06:36.454Z"}, {"counters", Json::object()}};
    for (int i = 0; i < 60; ++i) {
        before["counters"][fmt::format("c{:02}", i)] = 100;
        now["counters"][fmt::format("c{:02}", i)] = 100 + i;
    }
    const auto screen = top_view(before, now, 1, kWidth, kHeight);
    check_fits(screen);
    const auto lines = lines_of(screen);
    CHECK(std::ranges::find_if(lines, [](const auto& l) { return l.starts_with("c59 "); }) != lines.end());
    CHECK(std::ranges::find_if(lines, [](const auto& l) { return l.starts_with("c01 "); }) == lines.end());
    CHECK(lines_of(top_view(before, now, 1, kWidth)).size() > 60);
}

TEST_CASE("A REGISTER that is followed fits one line, identity and answer first, and carries no escape sequence") {
    const Json record{{"time", "2026-11-25T23:06:36.454Z"},
                      {"impi", "001010000000001@ims.mnc001.mcc001.3gppnetwork.org"},
                      {"ue", "[2001:db8:1234:5678:9abc:def0:1234:5678]:25004/UDP"},
                      {"answer", 403},
                      {"why", "it is \x1b[2J behind a NAT and this sentence goes on and on"}};
    const auto line = record_line(record, kWidth);
    CHECK(columns_of(line) <= kWidth + 1);
    CHECK(line.starts_with("001010000000001  23:06:36  [2001:"));
    CHECK(line.find('\x1b') == std::string::npos);
}

TEST_CASE("Colour only when it was asked for, and it does not move a column") {
    const Json kernel{{"guards",
                       {{{"address", "10.1.0.1"}, {"port", 6100}, {"direction", "in"}, {"in_kernel", true}},
                        {{"address", "10.1.0.1"}, {"port", 6100}, {"direction", "out"}, {"in_kernel", false}}}}};
    const auto plain = kernel_view(kernel, kWidth);
    CHECK(plain.find('\x1b') == std::string::npos);
    use_colour(true);
    auto coloured = kernel_view(kernel, kWidth);
    use_colour(false);
    CHECK(coloured.find("\x1b[31mMISSING") != std::string::npos);
    CHECK(coloured.find("\x1b[32mstands") != std::string::npos);
    for (const std::string code : {"\x1b[31m", "\x1b[32m", "\x1b[0m"})
        for (auto at = coloured.find(code); at != std::string::npos; at = coloured.find(code))
            coloured.erase(at, code.size());
    CHECK(coloured == plain);
    setenv("NO_COLOR", "1", 1);
    CHECK_FALSE(terminal_has_colour());
    unsetenv("NO_COLOR");
}
