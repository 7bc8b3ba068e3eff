// Two gateways and one set of addresses: the node that serves is killed, the addresses move, and no phone registers
// again. Redis is the real one; each node is a network namespace.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <net/if.h>
#include <netpacket/packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

const std::string kSecret = "1:" + std::string(64, 'a') + "\n";

std::string file_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

/// redis-server on a Unix socket, as a namespace of its own would have it.
struct Store {
    std::string folder = make_temporary_folder();
    std::string socket = folder + "/redis.sock";
    std::unique_ptr<Program> server;

    Store() {
        write_text(folder + "/secret", kSecret);
        start();
    }
    ~Store() {
        server.reset();
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }
    void start() {
        server = std::make_unique<Program>(
            ProgramOptions{.command = {"redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir",
                                       folder, "--rdbcompression", "no"},
                           .name = "redis-server"});
        server->wait_for_text("ready to accept connections");
    }
    std::string ask(const std::vector<std::string>& words) const {
        std::vector<std::string> command{"redis-cli", "-s", socket};
        command.insert(command.end(), words.begin(), words.end());
        return run_program({.command = command});
    }
    std::size_t records() const { return std::stoul(ask({"HLEN", "gmgate:{test}:records"})); }
    std::string lines(int node, const std::string& secret = {}) const {
        return "[cluster]\nname = \"test\"\nnode-id = " + std::to_string(node) + "\nurl = \"unix:" + socket +
               "\"\nsecret-file = \"" + (secret.empty() ? folder + "/secret" : secret) + "\"\n";
    }
};

/// The second node: the lab's configuration with a folder and a node id of its own.
class SecondNode {
public:
    SecondNode(Lab& lab, const Store& store, const std::string& secret = {})
        : lab_(lab), folder_(make_temporary_folder()) {
        auto text = file_text(lab.config_path());
        for (std::size_t at; (at = text.find(lab.folder())) != std::string::npos;)
            text.replace(at, lab.folder().size(), folder_);
        text.erase(text.find("[cluster]"));
        write_text(folder_ + "/gmgate.toml", text + store.lines(2, secret));
    }
    ~SecondNode() {
        gateway.reset();
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    void start(const std::string& until) {
        gateway = std::make_unique<Program>(
            ProgramOptions{.command = {lab_.programs().gmgated, "--config", folder_ + "/gmgate.toml"},
                           .name = "gmgated 2",
                           .network = &network});
        gateway->wait_for_text(until);
    }
    /// As keepalived does it, but with the whole links: whatever the other machine holds, it is reached no more.
    void get_addresses() {
        lab_.network.gw.run("ip link set access down; ip link set core down");
        lab_.network.gw.run("ip link set access netns " + network.path() + "; ip link set core netns " +
                            network.path());
        network.ip_batch(
            "address add 10.1.0.1/16 dev access\naddress add fd01::1/64 dev access nodad\nlink set access up\n"
            "address add 10.2.0.1/24 dev core\naddress add fd02::1/64 dev core nodad\nlink set core up\n");
    }
    std::string control_socket() const { return folder_ + "/control.sock"; }

    Namespace network{"gw2"};
    std::unique_ptr<Program> gateway;

private:
    Lab& lab_;
    std::string folder_;
};

LabOptions cluster_lab(const Store& store) {
    auto options = plain_lab();
    options.more_sections = store.lines(1);
    return options;
}

nlohmann::json cluster_status(const Lab& lab, const std::string& socket) {
    return nlohmann::json::parse(
        run_program({.command = {lab.programs().gmctl, "--socket", socket, "--json", "cluster"}}));
}

/// A MESSAGE each way between two phones arrives.
void talk(Phone& a, Phone& b) {
    const auto from_a = unique_word("from-a-"), from_b = unique_word("from-b-");
    CHECK(a.message(b.impu(), from_a) == 200);
    b.await_message(from_a);
    CHECK(b.message(a.impu(), from_b) == 200);
    a.await_message(from_b);
}

/// Keys of all SAs, as octets.
std::vector<std::string> keys_in_kernel(const Namespace& network) {
    std::vector<std::string> keys;
    std::istringstream words(network.run("ip xfrm state"));
    for (std::string word, before, last; words >> word; before = std::exchange(last, word)) {
        const bool is_key = word.starts_with("0x") && word.size() >= 34 &&
                            (before == "auth-trunc" || before == "enc" || before == "aead");
        if (!is_key) continue;
        std::string octets;
        for (std::size_t i = 2; i + 1 < word.size(); i += 2)
            octets += static_cast<char>(std::stoul(word.substr(i, 2), nullptr, 16));
        keys.push_back(octets.substr(0, 16));
    }
    return keys;
}

void send_frames(const Namespace& network, const std::string& link, const std::vector<Frame>& frames) {
    network.enter([&] {
        const int socket = ::socket(AF_PACKET, SOCK_RAW, 0);
        REQUIRE(socket >= 0);
        sockaddr_ll to{};
        to.sll_family = AF_PACKET;
        to.sll_ifindex = static_cast<int>(if_nametoindex(link.c_str()));
        for (const auto& frame : frames)
            CHECK(sendto(socket, frame.bytes.data(), frame.bytes.size(), 0, reinterpret_cast<sockaddr*>(&to),
                         sizeof to) == static_cast<ssize_t>(frame.bytes.size()));
        close(socket);
    });
}

std::uint64_t replays(const Namespace& network) { return xfrm_counters(network).at("XfrmInStateSeqError"); }

}  // namespace

TEST_SUITE("cluster") {
    TEST_CASE("the node that serves is killed and its addresses move: nobody registers again, nothing replays") {
        Store store;
        Lab lab(cluster_lab(store));
        SecondNode second(lab, store);
        second.start("cluster-stands-by");
        Capture capture(lab.network.ue, Network::kUeLink);
        Phone v4(lab, {.user = 0});
        Phone v6(lab, {.user = 1, .is_v6 = true, .offer = "null/aes-gcm"});
        v4.demand_registered();
        v6.demand_registered();
        CHECK(store.records() == 2);  // both 200 have come, so both are there
        talk(v4, v6);
        const auto old = capture.frames();
        // What came until now is told within a second; then the capture replays nothing.
        CHECK(eventually([&] { return cluster_status(lab, lab.control_socket()).value("records_waiting", 1) == 0; }));
        store.ask({"SAVE"});
        const auto dump = file_text(store.folder + "/dump.rdb");
        const auto keys = keys_in_kernel(lab.network.gw);
        REQUIRE(keys.size() >= 8);
        CHECK(dump.find(impi_of_user(0)) != std::string::npos);
        for (const auto& key : keys) CHECK(dump.find(key) == std::string::npos);
        CHECK(cluster_status(lab, second.control_socket()).value("state", "") == "standby");
        CHECK(count_sas(second.network) == 0);

        lab.kill_gateway();
        const auto mark = lab.core_mark();
        second.get_addresses();
        second.gateway->wait_for_text("gateway-ready");
        CHECK(count_sas(second.network) == 8);
        const auto status = cluster_status(lab, second.control_socket());
        CHECK(status.value("state", "") == "owner");
        CHECK(status.value("epoch", 0) == 2);
        talk(v4, v6);
        talk(v6, v4);
        CHECK(lab.core_received(mark, "REGISTER").empty());

        // Whatever an eavesdropper has of the time before the move.
        std::vector<Frame> from_phones;
        for (const auto& frame : old)
            if (frame.is_esp() && (frame.source() == Network::kUe4 || frame.source() == Network::kUe6))
                from_phones.push_back(frame);
        REQUIRE(from_phones.size() >= 4);
        const auto messages = lab.core_received(0, "MESSAGE").size();
        const auto dropped = replays(second.network);
        send_frames(lab.network.ue, Network::kUeLink, from_phones);
        // The kernel counts datagrams; a REGISTER that does not fit into one frame is two of them.
        const auto pieces = static_cast<std::size_t>(
            std::ranges::count_if(from_phones, [](const Frame& frame) { return frame.is_fragment(); }));
        const auto datagrams = from_phones.size() - pieces / 2;
        CHECK(eventually([&] { return replays(second.network) == dropped + datagrams; }));
        talk(v4, v6);
        CHECK(lab.core_received(0, "MESSAGE").size() == messages + 2);

        v4.reregister(false);
        v6.reregister(true);
        talk(v4, v6);
        CHECK(store.records() == 2);
        v4.deregister();
        v6.deregister();
        CHECK(eventually([&] { return store.records() == 0; }));
    }

    TEST_CASE("a call outlives its node: re-INVITEs and BYE of both ends go on in a dialog that the next node knows") {
        Store store;
        Lab lab(cluster_lab(store));
        SecondNode second(lab, store);
        second.start("cluster-stands-by");
        Phone a(lab, {.user = 0}), b(lab, {.user = 1, .is_v6 = true});
        a.demand_registered();
        b.demand_registered();
        const auto named = [](const char* name) {
            return [name](const nlohmann::json& event) { return event.value("event", "") == name; };
        };
        a.program().write_line("call " + b.impu() + " 600");
        a.await_event(named("call_established"), "the answer");
        b.await_event(named("call_established"), "the ACK");
        lab.kill_gateway();
        second.get_addresses();
        second.gateway->wait_for_text("gateway-ready");
        const auto mark = lab.core_mark();
        for (Phone* phone : {&a, &b}) CHECK(phone->command("hold", named("reinvite_sent")).value("ok", false));
        CHECK(b.command("hangup", named("call_ended")).value("ok", false));
        a.await_event(named("call_ended"), "the BYE");
        for (const char* method : {"INVITE", "ACK", "BYE"}) {
            const auto passed = lab.core_received(mark, method);
            CHECK(!passed.empty());
            // An unknown dialog is treated as a new one: its requests get an asserted identity.
            for (const auto& raw : passed) CHECK(raw.find("P-Asserted-Identity") == std::string::npos);
        }
    }

    TEST_CASE("another secret opens nothing, rubbish is passed over, and both are said; the records stay") {
        Store store;
        Lab lab(cluster_lab(store));
        Phone phone(lab, {.user = 0});
        phone.demand_registered();
        store.ask({"HSET", "gmgate:{test}:records", "rubbish\nx\n", "\1\1no record"});
        store.ask({"HSET", "gmgate:{test}:records", impi_of_user(3) + "\n\n", "short"});
        write_text(store.folder + "/other", "1:" + std::string(64, 'b') + "\n");
        SecondNode second(lab, store, store.folder + "/other");
        second.start("cluster-stands-by");
        lab.kill_gateway();
        second.get_addresses();
        second.gateway->wait_for_text("gateway-ready");
        CHECK(second.gateway->has_text("they do not open"));
        CHECK(second.gateway->has_text("not a record of this cluster's nodes"));
        CHECK(cluster_status(lab, second.control_socket()).value("records_refused", 0) == 3);
        CHECK(count_sas(second.network) == 0);
        CHECK(store.records() == 3);
        Phone other(lab, {.user = 1});  // whom it can serve, it does
        other.demand_registered();
    }

    TEST_CASE("the shared store dies while phones register: they are served, it is said, and later it is level again") {
        Store store;
        Lab lab(cluster_lab(store));
        Phone before(lab, {.user = 0});
        before.demand_registered();
        store.server->kill();
        Phone meanwhile(lab, {.user = 1, .is_v6 = true});
        meanwhile.demand_registered();
        talk(before, meanwhile);
        lab.gateway().wait_for_text("cluster-store-down");
        const auto status = cluster_status(lab, lab.control_socket());
        CHECK(status.value("degraded", false));
        CHECK(status.value("unreplicated", 0) >= 1);
        store.start();  // empty: it kept nothing
        CHECK(eventually([&] { return store.records() == 2; }));
        CHECK(!cluster_status(lab, lab.control_socket()).value("degraded", true));
        CHECK(store.ask({"HGET", "gmgate:{test}:owner", "epoch"}) == "1\n");
    }

    TEST_CASE("a node that comes back while another one serves waits; the one that lost its epoch ends") {
        Store store;
        Lab lab(cluster_lab(store));
        Phone phone(lab, {.user = 0});
        phone.demand_registered();
        // As if another node, which is alive, had taken the addresses as well.
        store.ask({"HSET", "gmgate:{test}:owner", "epoch", "2", "node", "2", "boot", "x"});
        store.ask({"SET", "gmgate:{test}:alive", "2"});
        CHECK(lab.gateway().wait() == 1);
        CHECK(lab.gateway().has_text("cluster-lost"));
        Program again({.command = {lab.programs().gmgated, "--config", lab.config_path()},
                       .name = "gmgated again",
                       .network = &lab.network.gw});
        again.wait_for_text("another node serves and is alive");
        CHECK(!again.has_text("gateway-ready"));
        store.ask({"DEL", "gmgate:{test}:alive"});
        again.wait_for_text("gateway-ready");
        CHECK(store.ask({"HGET", "gmgate:{test}:owner", "epoch"}) == "3\n");
        const auto mark = lab.core_mark();
        CHECK(phone.message(phone.impu(), unique_word("self-")) == 200);
        CHECK(lab.core_received(mark, "REGISTER").empty());
    }
}
