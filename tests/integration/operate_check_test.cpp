// Truth before start: gmgated --check on a machine with faults, exit codes, and what is said about mistyped words.
#include <doctest/doctest.h>

#include <fstream>

#include "tests/integration/operator.h"

using namespace gmgate::test;

namespace {

struct Ended {
    int status = -1;
    std::string output;
};

Ended ended(const Lab& lab, std::vector<std::string> command) {
    Program program({.command = std::move(command), .name = "checked", .network = &lab.network.gw});
    Ended end{.status = program.wait(), .output = {}};
    end.output = program.output();
    return end;
}

LabOptions small_lab() {
    LabOptions options = plain_lab();
    options.users = 2;
    return options;
}

}  // namespace

TEST_SUITE("operate") {
    TEST_CASE(
        "gmgated --check: all is well beside the running gateway; each fault of the machine is one line with its fix") {
        Lab lab(small_lab());
        const auto check = [&](const std::string& what = "--check") {
            return ended(lab, {lab.programs().gmgated, what, "--config", lab.config_path()});
        };
        auto found = check();
        INFO(found.output);
        CHECK(found.status == 0);
        CHECK(found.output.find("all well") != std::string::npos);
        // Faults, one after the other; the gateway goes on.
        lab.network.gw.set_sysctl("net/ipv4/ip_local_port_range", "6000 6300");
        lab.network.gw.set_sysctl("net/ipv4/ip_local_reserved_ports", "6100");
        lab.network.gw.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
        found = check();
        CHECK(found.status == 0);  // warnings
        CHECK(found.output.find("ports 6101,6200,6201,6202,6203 lie in ip_local_port_range (6000-6300)") !=
              std::string::npos);
        CHECK(found.output.find("sysctl -w net.ipv4.ip_local_reserved_ports=6100,6101,6200") != std::string::npos);
        CHECK(found.output.find("warning: rp_filter is strict on ") != std::string::npos);
        lab.network.gw.set_sysctl("net/ipv4/conf/all/rp_filter", "0");
        lab.core().terminate();
        found = check();
        CHECK(found.status == 1);
        CHECK(found.output.find(":5060 did not answer OPTIONS within 2000 ms; fix: ") != std::string::npos);
        CHECK(lab.stop_gateway() == 0);
        Program thief({.command = {"python3", "-c",
                                   "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
                                   "s.bind(('10.1.0.1',6100))\nprint('here',flush=True)\nsys.stdin.read()"},
                       .name = "thief",
                       .network = &lab.network.gw});
        thief.wait_for_text("here");
        found = check();
        CHECK(found.status == 1);
        CHECK(found.output.find("error: 10.1.0.1:6100/udp is in use by python3 (pid ") != std::string::npos);
        std::ofstream(lab.config_path(), std::ios::app) << "[timers]\nold-sett = 5\n";
        found = check("--check-config");
        CHECK(found.status == 2);
        CHECK(found.output.find("unknown key \"old-sett\"; did you mean \"old-set\"?") != std::string::npos);
    }

    TEST_CASE("exit codes: 0 well, 1 refused, 2 mistyped, with what was meant; --json has errors as JSON") {
        Lab lab(small_lab());
        const auto gmctl = [&](const std::vector<std::string>& words) { return ended(lab, gmctl_command(lab, words)); };
        CHECK(gmctl({"status"}).status == 0);
        auto wrong = gmctl({"statsu"});
        CHECK(wrong.status == 2);
        CHECK(wrong.output.find("there is no command \"statsu\"; did you mean \"status\"?") != std::string::npos);
        wrong = gmctl({"registrations", "--folow"});
        CHECK(wrong.status == 2);
        CHECK(wrong.output.find("did you mean \"--follow\"?") != std::string::npos);
        CHECK(gmctl({}).status == 2);
        CHECK(gmctl({"help", "why"}).output.find("why a phone does not register") != std::string::npos);
        CHECK(gmctl({"help", "why"}).status == 0);
        CHECK(gmctl({"help", "wyh"}).status == 2);
        CHECK(gmctl({"--help"}).status == 0);
        wrong = gmctl({"show", "nobody"});
        CHECK(wrong.status == 1);
        for (const auto& words :
             {std::vector<std::string>{"--json", "show", "nobody"}, std::vector<std::string>{"--json", "statsu"}}) {
            const auto error = nlohmann::json::parse(gmctl(words).output);
            CHECK(error["ok"] == false);
            CHECK_FALSE(error["error"]["text"].get<std::string>().empty());
        }
        CHECK(ended(lab, {lab.programs().gmgated, "--nonsense"}).status == 2);
        CHECK(ended(lab, {lab.programs().gmgated, "--config", "/no/such/file"}).status == 2);
        // A start that cannot succeed ends with 2, so that systemd does not try again: here a group that is not there.
        CHECK(lab.stop_gateway() == 0);
        std::string text;
        {
            std::ifstream file(lab.config_path());
            text.assign(std::istreambuf_iterator<char>(file), {});
        }
        std::ofstream(lab.config_path()) << "control-group = \"no-such-group\"\n" << text;
        const auto group = ended(lab, {lab.programs().gmgated, "--config", lab.config_path()});
        CHECK(group.status == 2);
        CHECK(group.output.find("no-such-group") != std::string::npos);
    }
}
