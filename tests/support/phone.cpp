#include "tests/support/phone.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

namespace gmgate::test {

namespace {

constexpr std::uint64_t kFirstImsi = 1010000000001;  // 001010000000001

bool is_registration_event(const nlohmann::json& event) {
    const auto name = event.value("event", "");
    return name == "registered" || name == "reregistered" || name == "deregistered" || name == "register_failed";
}

void demand(const nlohmann::json& event, const std::string& wanted) {
    if (event.value("event", "") != wanted)
        throw std::runtime_error("the phone was to be " + wanted + ", but: " + event.dump());
}

}  // namespace

std::string impi_of_user(std::size_t user) {
    char imsi[24];
    std::snprintf(imsi, sizeof imsi, "%015llu", static_cast<unsigned long long>(kFirstImsi + user));
    return std::string(imsi) + "@" + kHomeDomain;
}

std::string impu_of_user(std::size_t user) { return "sip:" + impi_of_user(user); }

std::string Phone::impu() const { return impu_of_user(options_.user); }

ProgramOptions Phone::start_options(Lab& lab, const PhoneOptions& options) {
    std::vector<std::string> command{
        lab.programs().gmue, "run",
        "--gateway",         options.is_v6 ? std::string(Network::kAccess6) : std::string(Network::kAccess4),
        "--index",           std::to_string(options.user)};
    const bool has_habits = std::ranges::find(options.arguments, "--profile") != options.arguments.end();
    if (options.is_tcp || !has_habits)
        command.insert(command.end(), {"--register-over", options.is_tcp ? "tcp" : "udp"});
    if (!options.offer.empty()) command.insert(command.end(), {"--offer", options.offer});
    command.insert(command.end(), options.arguments.begin(), options.arguments.end());
    return {.command = command,
            .name = "gmue " + std::to_string(options.user),
            .network = options.network ? options.network : &lab.network.ue};
}

Phone::Phone(Lab& lab, PhoneOptions options) : options_(std::move(options)), program_(start_options(lab, options_)) {
    first_ = await_event(is_registration_event, "the outcome of its registration");
}

nlohmann::json Phone::command(const std::string& line, const std::function<bool(const nlohmann::json&)>& ends,
                              std::chrono::seconds patience) {
    const auto from = mark();
    program_.write_line(line);
    return await_event(ends, "the outcome of \"" + line.substr(0, 40) + "\"", from, patience);
}

void Phone::demand_registered() const { demand(first_, "registered"); }

nlohmann::json Phone::reregister(bool challenged) {
    auto event = command(challenged ? "reregister challenge" : "reregister", is_registration_event);
    demand(event, "reregistered");
    return event;
}

void Phone::deregister() { demand(command("deregister", is_registration_event), "deregistered"); }

int Phone::message(const std::string& to, const std::string& text) {
    return command("message " + to + " " + text,
                   [](const nlohmann::json& event) { return event.value("event", "") == "message_sent"; })
        .value("status", 0);
}

void Phone::start_message(const std::string& to, const std::string& text) {
    program_.write_line("message " + to + " " + text);
}

void Phone::await_message(const std::string& text) {
    await_event(
        [&](const nlohmann::json& event) {
            return event.value("event", "") == "message_received" && event.value("body", "") == text;
        },
        "MESSAGE \"" + text + "\"");
}

nlohmann::json Phone::call(const std::string& to) {
    return command("call " + to + " 0.2", [](const nlohmann::json& event) {
        const auto name = event.value("event", "");
        return name == "call_ended" || name == "call_failed";
    });
}

std::vector<nlohmann::json> Phone::events(const std::string& name, std::size_t from) const {
    std::vector<nlohmann::json> found;
    for (const auto& line : program_.lines(from)) {
        if (!line.starts_with('{')) continue;
        auto event = nlohmann::json::parse(line);
        if (event.value("event", "") == name) found.push_back(std::move(event));
    }
    return found;
}

nlohmann::json Phone::await_event(const std::function<bool(const nlohmann::json&)>& wanted,
                                  const std::string& description, std::size_t from, std::chrono::seconds patience) {
    const auto matches = [&](const std::string& line) {
        return line.starts_with('{') && wanted(nlohmann::json::parse(line));
    };
    return nlohmann::json::parse(program_.wait_for_line(matches, description, from, patience).text);
}

}  // namespace gmgate::test
