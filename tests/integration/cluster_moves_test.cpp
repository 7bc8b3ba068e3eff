// What an operator runs beside gmgate: keepalived moves the addresses, Redis speaks TLS, a Sentinel makes another
// server the master. The configurations are those of packaging/cluster.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/integration/cluster_lab.h"
#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

std::string packaged(const std::string& name) { return file_text(std::string(GMGATE_PACKAGING_CLUSTER) + "/" + name); }

void replace_all(std::string& text, const std::string& before, const std::string& now) {
    REQUIRE(text.find(before) != std::string::npos);
    for (std::size_t at = 0; (at = text.find(before, at)) != std::string::npos; at += now.size())
        text.replace(at, before.size(), now);
}

/// Both nodes on the phones' and on the core's link at once, each with an address of its own towards the core.
class SharedLinks {
public:
    SharedLinks(const Network& network, const Namespace& second) {
        network.gw.run("ip link set access netns " + lan_.path() + " name ue");
        network.gw.run("ip link set core netns " + lan_.path() + " name core");
        lan_.ip_batch(
            "link add bra type bridge mcast_snooping 0\nlink add brc type bridge mcast_snooping 0\n"
            "link set ue master bra up\nlink set core master brc up\nlink set bra up\nlink set brc up\n");
        connect(network.gw, "1");
        connect(second, "2");
    }

private:
    void connect(const Namespace& node, const std::string& number) {
        node.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
        lan_.ip_batch("link add a" + number + " master bra type veth peer name access netns " + node.path() +
                      "\nlink add c" + number + " master brc type veth peer name core netns " + node.path() +
                      "\nlink set a" + number + " up\nlink set c" + number + " up\n");
        node.ip_batch("link set access up\nlink set core up\naddress add 10.2.0.1" + number + "/24 dev core\n");
    }
    Namespace lan_{"lan"};
};

/// keepalived with the packaged configuration, its addresses and paths those of the lab.
class Keepalived {
public:
    Keepalived(const Lab& lab, const Namespace& node, const std::string& control) : node_(node) {
        auto text = packaged("keepalived.conf");
        replace_all(text, "/usr/bin/gmctl cluster", lab.programs().gmctl + " --socket " + control + " cluster");
        // A test machine may have other things to do for a second.
        replace_all(text, "timeout 5", "timeout 30");
        replace_all(text, "advert_int 0.2", "advert_int 2");
        replace_all(text, "192.0.2.1/24 dev eth0", "10.2.0.1/24 dev core");
        replace_all(text, "198.51.100.1/24 dev eth1", "10.1.0.1/16 dev access");
        replace_all(text, "2001:db8:1::1/64 dev eth0", "fd02::1/64 dev core");
        replace_all(text, "2001:db8:2::1/64 dev eth1", "fd01::1/64 dev access");
        replace_all(text, "interface eth0", "interface core");
        replace_all(text, "        eth1\n", "        access\n");
        write_text(folder_ + "/keepalived.conf", text);
        std::filesystem::permissions(folder_ + "/keepalived.conf", std::filesystem::perms::owner_read);
        program = std::make_unique<Program>(
            ProgramOptions{.command = {"keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp",
                                       "--use-file", folder_ + "/keepalived.conf", "--pid", folder_ + "/keepalived.pid",
                                       "--vrrp_pid", folder_ + "/vrrp.pid"},
                           .name = "keepalived " + node.role(),
                           .network = &node_});
    }
    ~Keepalived() {
        program.reset();
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    std::unique_ptr<Program> program;

private:
    const Namespace& node_;
    std::string folder_ = make_temporary_folder();
};

}  // namespace

TEST_SUITE("cluster") {
    TEST_CASE("keepalived moves the addresses: the machine dies, and later gmgated alone, and nobody registers again") {
        Store store;
        auto options = cluster_lab(store);
        options.is_gateway_started = false;
        Lab lab(options);
        SecondNode second(lab, store);
        const SharedLinks links(lab.network, second.network);
        const ProgramOptions start_first{.command = {lab.programs().gmgated, "--config", lab.config_path()},
                                         .name = "gmgated 1",
                                         .network = &lab.network.gw};
        auto first = std::make_unique<Program>(start_first);
        first->wait_for_text("cluster-stands-by");
        auto first_mover = std::make_unique<Keepalived>(lab, lab.network.gw, lab.control_socket());
        first_mover->program->wait_for_text("MASTER STATE");
        first->wait_for_text("gateway-ready");
        second.start("cluster-stands-by");
        Keepalived second_mover(lab, second.network, second.control_socket());
        second_mover.program->wait_for_text("BACKUP STATE");
        REQUIRE_MESSAGE(!first->has_text("cluster-lost"), first_mover->program->output());
        Phone v4(lab, {.user = 0}), v6(lab, {.user = 1, .is_v6 = true});
        v4.demand_registered();
        v6.demand_registered();
        CHECK(holds_ready(lab, second, 2));

        const auto mark = lab.core_mark();
        const auto died = std::chrono::steady_clock::now();
        first->kill();
        first_mover->program->kill();
        lab.network.gw.run("ip link set access down; ip link set core down");
        second.gateway->wait_for_text("gateway-ready");
        const auto ready = std::chrono::steady_clock::now() - died;
        talk(v4, v6);
        MESSAGE("the machine died, and the other one served after ",
                std::chrono::duration_cast<std::chrono::milliseconds>(ready).count(), " ms");
        CHECK(lab.core_received(mark, "REGISTER").empty());

        // It comes back, without the addresses, and gets them when the other gmgated dies.
        first_mover.reset();
        lab.network.gw.run("ip address flush dev access; ip address flush dev core");
        lab.network.gw.ip_batch("address add 10.2.0.11/24 dev core\nlink set access up\nlink set core up\n");
        first = std::make_unique<Program>(start_first);
        first->wait_for_text("cluster-standby-level");
        first_mover = std::make_unique<Keepalived>(lab, lab.network.gw, lab.control_socket());
        first_mover->program->wait_for_text("BACKUP STATE");
        const auto killed = std::chrono::steady_clock::now();
        second.gateway->kill();
        first->wait_for_text("gateway-ready");
        MESSAGE(
            "gmgated died, and the other one served after ",
            std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - killed).count(),
            " ms");
        talk(v6, v4);
        CHECK(lab.core_received(mark, "REGISTER").empty());
    }

    TEST_CASE("the store over TLS as the packaged configuration has it; one with another name is not spoken to") {
        Store store;  // its folder, and the secret in it
        std::unique_ptr<Program> secure;
        auto options = cluster_lab(store);
        options.more_sections = store.lines(1, {},
                                            "\"rediss://gmgate:change-me@127.0.0.1:6379\"\nca-file = \"" +
                                                store.folder + "/store.pem\"\ntls-name = \"store.example\"");
        make_certificate(store.folder, "store", {.host = "store.example"});
        auto text = packaged("redis.conf");
        replace_all(text, "bind 192.0.2.60", "bind 127.0.0.1");
        replace_all(text, "/etc/redis/store-ca.pem", store.folder + "/store.pem");
        replace_all(text, "/etc/redis/store", store.folder + "/store");
        write_text(store.folder + "/redis.conf", text);
        options.prepare = [&](const Network& network) {
            secure = std::make_unique<Program>(ProgramOptions{
                .command = {"redis-server", store.folder + "/redis.conf"}, .name = "redis", .network = &network.gw});
            secure->wait_for_text("Ready to accept connections");
        };
        Lab lab(options);
        Phone phone(lab, {.user = 0});
        phone.demand_registered();
        const auto status = cluster_status(lab, lab.control_socket());
        CHECK(status.value("state", "") == "owner");
        CHECK(status.value("records_written", 0) >= 1);
        CHECK(lab.stop_gateway() == 0);

        auto config = file_text(lab.config_path());
        replace_all(config, "\"store.example\"", "\"other.example\"");
        write_text(lab.config_path(), config);
        lab.start_gateway();  // alone, after three seconds
        CHECK(cluster_status(lab, lab.control_socket()).value("state", "") == "alone");
        CHECK(lab.gateway().has_text("certificate"));
        CHECK(phone.message(phone.impu(), unique_word("self-")) == 200);
    }

    TEST_CASE("the master of the store dies, a Sentinel makes the replica the master, and the gateway finds it") {
        Store one({"--port", "7101", "--bind", "127.0.0.1"});
        Store two({"--port", "7102", "--bind", "127.0.0.1", "--replicaof", "127.0.0.1", "7101"});
        write_text(two.folder + "/sentinel.conf",
                   "port 7103\nbind 127.0.0.1\ndir " + two.folder +
                       "\nsentinel monitor test 127.0.0.1 7101 1\nsentinel down-after-milliseconds test 500\n"
                       "sentinel failover-timeout test 3000\n");
        CHECK(eventually([&] {
            return two.ask({"INFO", "replication"}).find("master_link_status:up") != std::string::npos;
        }));
        Program sentinel(
            {.command = {"redis-server", two.folder + "/sentinel.conf", "--sentinel"}, .name = "sentinel"});
        sentinel.wait_for_text("+slave slave");
        auto options = cluster_lab(one);
        options.more_sections = one.lines(1, {}, "[\"unix:" + two.socket + "\", \"unix:" + one.socket + "\"]");
        Lab lab(options);
        Phone before(lab, {.user = 0});
        before.demand_registered();
        CHECK(one.records() == 1);
        CHECK(eventually([&] { return two.records() == 1; }));
        one.server->kill();
        CHECK(eventually([&] { return two.ask({"ROLE"}).starts_with("master"); }));
        Phone after(lab, {.user = 1});
        after.demand_registered();
        CHECK(eventually([&] { return two.records() == 2; }));
        CHECK(eventually([&] { return !cluster_status(lab, lab.control_socket()).value("degraded", true); }));
        CHECK(two.ask({"HGET", "gmgate:{test}:owner", "epoch"}) == "1\n");
    }

    // By hand: GMGATE_CLUSTER_PHONES=10000. A node that holds everything ready, and one that starts with nothing.
    TEST_CASE("many phones: what a take-over costs a node that holds them ready, and one that has nothing") {
        const char* wish = std::getenv("GMGATE_CLUSTER_PHONES");
        const std::size_t count = wish != nullptr ? std::stoul(wish) : 100;
        Store store;
        auto options = cluster_lab(store);
        options.users = count;
        options.more_sections += "[limits]\nchallenges-per-address = 256\nsets-per-address = 100000\n";
        options.log_level = "info";
        Lab lab(options);
        std::string addresses;
        for (int i = 3; i < 2 + 16; ++i) addresses += "address add 10.1.0." + std::to_string(i) + "/16 dev access0\n";
        lab.network.ue.ip_batch(addresses);
        SecondNode second(lab, store);
        second.start("cluster-stands-by");
        const auto resident = [](pid_t process) {
            std::ifstream file("/proc/" + std::to_string(process) + "/status");
            for (std::string line; std::getline(file, line);)
                if (line.starts_with("VmRSS:")) return line.substr(6);
            return std::string("?");
        };
        const auto empty = resident(second.gateway->pid());
        Program phones({.command = {lab.programs().gmue, "register", "--gateway", Network::kAccess4, "--addresses",
                                    "10.1.0.2+16", "--count", std::to_string(count), "--rate", "150", "--hold", "3600"},
                        .name = "gmue",
                        .network = &lab.network.ue});
        const auto all_are_there = [&] { return store.records() == count; };
        CHECK(eventually(all_are_there, std::chrono::minutes(8)));
        CHECK(eventually([&] { return count_sas(second.network) == 4 * count; }, std::chrono::minutes(1)));
        const auto full = resident(second.gateway->pid());
        MESSAGE(cluster_status(lab, second.control_socket()).dump(), "\nresident without and with them:", empty, ",",
                full, "\n", store.ask({"INFO", "memory"}).substr(0, 60),
                cluster_status(lab, lab.control_socket()).dump());
        lab.kill_gateway();
        second.get_addresses();
        const auto begun = std::chrono::steady_clock::now();
        const auto ready = second.gateway->wait_for_text("gateway-ready", 0, std::chrono::minutes(1)).text;
        const auto time = std::chrono::steady_clock::now() - begun;
        MESSAGE("ready: ", second.gateway->wait_for_text("cluster-records-installed").text, "\nserving after ",
                std::chrono::duration_cast<std::chrono::milliseconds>(time).count(), " ms; ",
                second.gateway->wait_for_text("registrations-adopted").text);
        CHECK(second.gateway->has_text("kernel-work=0"));
        // The same node again, with nothing: its kernel is emptied by it, and filled anew.
        second.gateway->kill();
        store.ask({"HSET", "gmgate:{test}:owner", "boot", "another"});
        const auto cold = std::chrono::steady_clock::now();
        second.start("gateway-ready");
        MESSAGE("cold: ", second.gateway->wait_for_text("cluster-records-installed").text, "\nserving after ",
                std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - cold).count(),
                " ms");
        CHECK(count_sas(second.network) == 4 * count);
    }
}
