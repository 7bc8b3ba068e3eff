// Two gateways and one set of addresses: the node that serves is killed, the addresses move, and no phone registers
// again. Redis is the real one; each node is a network namespace.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <sstream>

#include <net/if.h>
#include <netpacket/packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/integration/cluster_lab.h"

using namespace gmgate::test;

namespace {

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
        CHECK(holds_ready(lab, second, 2));

        lab.kill_gateway();
        const auto mark = lab.core_mark();
        second.get_addresses();
        const auto first = talk(v4, v6);  // nobody waits for the node to be ready
        MESSAGE("first message after the addresses were there: ", first, " ms");
        CHECK(second.gateway->has_text("kernel-work=0"));
        CHECK(count_sas(second.network) == 8);
        second.gateway->wait_for_text("kernel-audited");
        CHECK(!second.gateway->has_text("sa-lost"));
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
        CHECK(eventually([&] { return count_sas(second.network) == 0; }));
    }

    TEST_CASE("the standby follows: sets that begin, change and end, a store that forgets, and the way back") {
        Store store;
        Lab lab(cluster_lab(store));
        SecondNode second(lab, store);
        second.start("cluster-stands-by");
        Phone stays(lab, {.user = 0}), leaves(lab, {.user = 1, .is_v6 = true}), tcp(lab, {.user = 2, .is_tcp = true});
        for (Phone* phone : {&stays, &leaves, &tcp}) phone->demand_registered();
        CHECK(holds_ready(lab, second, 3));
        leaves.deregister();
        CHECK(holds_ready(lab, second, 2));
        second.network.run("ip xfrm state flush");  // somebody else
        second.gateway->wait_for_text("cluster-sets-missing");
        CHECK(holds_ready(lab, second, 2));

        store.server->kill();
        second.gateway->wait_for_text("cluster-store-down");
        CHECK(count_sas(second.network) == 8);
        store.start();  // empty
        CHECK(eventually([&] { return store.records() == 2; }));
        CHECK(holds_ready(lab, second, 2));
        CHECK(count_sas(second.network) == 8);

        // Challenged when the node dies: one answers at the next node, and is served; one never does, and leaves
        // nothing.
        const auto challenged = ask(lab, {.user = 3, .security_client = SecurityClient{}.text()});
        CHECK(status_of(challenged) == 401);
        lab.network.gw.run("iptables-legacy -A INPUT -p esp -j DROP");
        Program answers({.command = {lab.programs().gmue, "register", "--gateway", Network::kAccess4, "--index", "4",
                                     "--t1", "0.5", "--hold", "1", "--json"},
                         .name = "gmue",
                         .network = &lab.network.ue});
        CHECK(holds_ready(lab, second, 4));
        lab.kill_gateway();
        second.get_addresses();
        lab.network.gw.run("iptables-legacy -D INPUT -p esp -j DROP");
        MESSAGE("first message after the addresses were there: ", talk(stays, tcp), " ms");
        answers.wait_for_text("\"registered\"");
        CHECK(answers.wait() == 0);
        Phone anew(lab, {.user = 3});  // its first challenge ends with this one
        anew.demand_registered();
        CHECK(eventually([&] { return count_sas(second.network) == 12; }));

        // The first node comes back, stands by, and has the phones again.
        Program again({.command = {lab.programs().gmgated, "--config", lab.config_path()},
                       .name = "gmgated again",
                       .network = &lab.network.gw});
        again.wait_for_text("cluster-standby-level");
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 12; }));
        stays.reregister(true);  // a set more, beside the old one
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 16; }));
        const auto second_mark = lab.core_mark();
        second.gateway->kill();
        second.give_addresses_back();
        MESSAGE("first message at the first node again: ", talk(stays, anew), " ms");
        CHECK(tcp.message(stays.impu(), unique_word("tcp-")) == 200);
        CHECK(again.has_text("kernel-work=0"));
        CHECK(lab.core_received(second_mark, "REGISTER").empty());
        for (Phone* phone : {&stays, &tcp, &anew}) phone->deregister();
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
    }

    TEST_CASE("no node sees the store: the one that gets the addresses serves with what it holds, and settles later") {
        Store store;
        Lab lab(cluster_lab(store));
        SecondNode second(lab, store);
        second.start("cluster-stands-by");
        Phone v4(lab, {.user = 0}), v6(lab, {.user = 1, .is_v6 = true});
        v4.demand_registered();
        v6.demand_registered();
        CHECK(holds_ready(lab, second, 2));
        store.server->kill();
        lab.kill_gateway();
        const auto mark = lab.core_mark();
        second.get_addresses();
        second.gateway->wait_for_text("gateway-ready");
        CHECK(cluster_status(lab, second.control_socket()).value("state", "") == "alone");
        talk(v4, v6);
        CHECK(lab.core_received(mark, "REGISTER").empty());
        store.start();
        CHECK(eventually([&] { return store.records() == 2; }));
        CHECK(store.ask({"HGET", "gmgate:{test}:owner", "epoch"}) == "2\n");
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
