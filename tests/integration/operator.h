// The operator of a lab: gmctl against its gateway.
#pragma once

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/integration/scene.h"

namespace gmgate::test {

inline std::vector<std::string> gmctl_command(const Lab& lab, const std::vector<std::string>& words) {
    std::vector<std::string> command{lab.programs().gmctl, "--socket", lab.control_socket()};
    command.insert(command.end(), words.begin(), words.end());
    return command;
}

/// What people see; with GMGATE_SCREENS also kept in that folder.
inline std::string screen(const Lab& lab, const std::vector<std::string>& words) {
    auto text = run_program({.command = gmctl_command(lab, words), .name = "gmctl"});
    if (const char* folder = std::getenv("GMGATE_SCREENS"))
        std::ofstream(std::string(folder) + "/" + words.front() + (words.size() > 1 ? "-" + words[1] : "") + ".txt")
            << text;
    return text;
}

inline nlohmann::json ask_gmctl(const Lab& lab, std::vector<std::string> words) {
    words.insert(words.begin(), "--json");
    return nlohmann::json::parse(run_program({.command = gmctl_command(lab, words), .name = "gmctl"}));
}

/// A page of the monitoring port at 127.0.0.1:9464: "200 ok". Throws when none comes within ten seconds.
inline std::string monitoring_page(const Lab& lab, const std::string& path) {
    const auto answer = run_program(
        {.command = {"timeout", "10", "bash", "-c",
                     "exec 3<>/dev/tcp/127.0.0.1/9464; printf 'GET " + path + " HTTP/1.1\\r\\n\\r\\n' >&3; cat <&3"},
         .name = "bash",
         .network = &lab.network.gw});
    const auto body = answer.find("\r\n\r\n");
    return answer.substr(0, 9) == "HTTP/1.1 " && body != std::string::npos
               ? answer.substr(9, 3) + " " + answer.substr(body + 4)
               : answer;
}

inline nlohmann::json why(const Lab& lab, std::size_t user) { return ask_gmctl(lab, {"why", impi_of_user(user)}); }

}  // namespace gmgate::test
