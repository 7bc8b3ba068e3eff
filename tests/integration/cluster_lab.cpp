#include "tests/integration/cluster_lab.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include <doctest/doctest.h>

namespace gmgate::test {

std::string file_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

Store::Store(std::vector<std::string> arguments) : more_arguments(std::move(arguments)) {
    write_text(folder + "/secret", "1:" + std::string(64, 'a') + "\n");
    start();
}

Store::~Store() {
    server.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
}

void Store::start() {
    std::vector<std::string> command{
        "redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder, "--rdbcompression", "no"};
    command.insert(command.end(), more_arguments.begin(), more_arguments.end());
    server = std::make_unique<Program>(ProgramOptions{.command = command, .name = "redis-server"});
    server->wait_for_text("ready to accept connections");
}

std::string Store::ask(const std::vector<std::string>& words) const {
    std::vector<std::string> command{"redis-cli", "-s", socket};
    command.insert(command.end(), words.begin(), words.end());
    return run_program({.command = command});
}

std::string Store::lines(int node, const std::string& secret, const std::string& url) const {
    return "[cluster]\nname = \"test\"\nnode-id = " + std::to_string(node) +
           "\nurl = " + (url.empty() ? "\"unix:" + socket + "\"" : url) + "\nsecret-file = \"" +
           (secret.empty() ? folder + "/secret" : secret) + "\"\n";
}

void move_addresses(const Namespace& from, const Namespace& to) {
    from.run("ip link set access down; ip link set core down");
    from.run("ip link set access netns " + to.path() + "; ip link set core netns " + to.path());
    to.ip_batch(
        "address add 10.1.0.1/16 dev access\naddress add fd01::1/64 dev access nodad\nlink set access up\n"
        "address add 10.2.0.1/24 dev core\naddress add fd02::1/64 dev core nodad\nlink set core up\n");
}

SecondNode::SecondNode(Lab& lab, const Store& store, const std::string& secret)
    : lab_(lab), folder_(make_temporary_folder()) {
    auto text = file_text(lab.config_path());
    for (std::size_t at; (at = text.find(lab.folder())) != std::string::npos;)
        text.replace(at, lab.folder().size(), folder_);
    text.erase(text.find("[cluster]"));
    write_text(folder_ + "/gmgate.toml", text + store.lines(2, secret));
}

SecondNode::~SecondNode() {
    gateway.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
}

void SecondNode::start(const std::string& until) {
    gateway = std::make_unique<Program>(
        ProgramOptions{.command = {lab_.programs().gmgated, "--config", folder_ + "/gmgate.toml"},
                       .name = "gmgated 2",
                       .network = &network});
    gateway->wait_for_text(until);
}

LabOptions cluster_lab(const Store& store) {
    auto options = plain_lab();
    options.more_sections = store.lines(1);
    return options;
}

nlohmann::json cluster_status(const Lab& lab, const std::string& socket) {
    return nlohmann::json::parse(
        run_program({.command = {lab.programs().gmctl, "--socket", socket, "--json", "cluster"}}));
}

bool holds_ready(const Lab& lab, const SecondNode& node, std::size_t sets) {
    return eventually([&] {
        const auto status = cluster_status(lab, node.control_socket());
        return status.value("is_level", false) && status.value("ready_sets", std::size_t{0}) == sets &&
               count_sas(node.network) == 4 * sets;
    });
}

std::int64_t talk(Phone& a, Phone& b) {
    const auto begun = std::chrono::steady_clock::now();
    const auto from_a = unique_word("from-a-"), from_b = unique_word("from-b-");
    CHECK(a.message(b.impu(), from_a) == 200);
    const auto time = std::chrono::steady_clock::now() - begun;
    b.await_message(from_a);
    CHECK(b.message(a.impu(), from_b) == 200);
    a.await_message(from_b);
    return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

}  // namespace gmgate::test
