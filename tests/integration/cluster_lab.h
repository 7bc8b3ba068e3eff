// Two gateways in two network namespaces, a real Redis, and what the cases about them have in common.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/integration/scene.h"

namespace gmgate::test {

std::string file_text(const std::string& path);
void write_text(const std::string& path, const std::string& text);

/// redis-server on a Unix socket, which no namespace keeps anybody from.
struct Store {
    /// `arguments`: more of redis-server. It is named "test" in the nodes' configurations.
    explicit Store(std::vector<std::string> arguments = {});
    ~Store();
    void start();
    std::string ask(const std::vector<std::string>& words) const;
    std::size_t records() const { return std::stoul(ask({"HLEN", "gmgate:{test}:records"})); }
    /// [cluster] of that node; `url`: another value of that setting, with more lines behind it.
    std::string lines(int node, const std::string& secret = {}, const std::string& url = {}) const;

    std::string folder = make_temporary_folder();
    std::string socket = folder + "/redis.sock";
    std::vector<std::string> more_arguments;
    std::unique_ptr<Program> server;
};

/// As keepalived does it, but with the whole links: whatever the other machine holds, it is reached no more.
void move_addresses(const Namespace& from, const Namespace& to);

/// The second node: the lab's configuration with a folder and a node id of its own.
class SecondNode {
public:
    SecondNode(Lab& lab, const Store& store, const std::string& secret = {});
    ~SecondNode();
    void start(const std::string& until);
    void get_addresses() { move_addresses(lab_.network.gw, network); }
    void give_addresses_back() { move_addresses(network, lab_.network.gw); }
    std::string control_socket() const { return folder_ + "/control.sock"; }

    Namespace network{"gw2"};
    std::unique_ptr<Program> gateway;

private:
    Lab& lab_;
    std::string folder_;
};

LabOptions cluster_lab(const Store& store);
nlohmann::json cluster_status(const Lab& lab, const std::string& socket);

/// The node that stands by has these sets in its kernel, and knows of nothing more to come.
bool holds_ready(const Lab& lab, const SecondNode& node, std::size_t sets);

/// A MESSAGE each way between two phones arrives; milliseconds until the first one was answered.
std::int64_t talk(Phone& a, Phone& b);

}  // namespace gmgate::test
