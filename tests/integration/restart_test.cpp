// The gateway ends, by SIGTERM or kill -9, and comes back: no phone registers again, no SA is lost, none is left over.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

enum class End { sigterm, kill_9, take_over };

void restart(Lab& lab, End end) {
    if (end == End::take_over) return lab.take_over();
    if (end == End::sigterm) CHECK(lab.stop_gateway() == 0);
    else lab.kill_gateway();
    lab.start_gateway();
}

std::set<std::uint32_t> spis_of(const Lab& lab) {
    std::set<std::uint32_t> spis;
    for (const auto& sa : list_sas(lab.network.gw)) spis.insert(sa.spi);
    return spis;
}

/// The protected stream connections of the phones, as the kernel tells them: "10.1.0.2:40000 10.1.0.1:6100".
std::set<std::string> connections_of(const Lab& lab) {
    std::set<std::string> found;
    std::istringstream lines(lab.network.ue.run("ss -Htn state established"));
    std::string received, sent, local, peer;
    while (lines >> received >> sent >> local >> peer)
        if (!peer.ends_with(":5060")) found.insert(local + " " + peer);
    return found;
}

std::string show(const std::set<std::string>& words) {
    std::string all;
    for (const auto& word : words) all += word + "\n";
    return all;
}

/// A MESSAGE each way between two phones arrives.
void talk(Phone& a, Phone& b) {
    const auto from_a = unique_word("from-a-"), from_b = unique_word("from-b-");
    CHECK(a.message(b.impu(), from_a) == 200);
    b.await_message(from_a);
    CHECK(b.message(a.impu(), from_b) == 200);
    a.await_message(from_b);
}

void check_restart(End end, const Access& first, const Access& second) {
    Lab lab(plain_lab());
    Phone a(lab, {.user = 0, .is_v6 = first.is_v6, .is_tcp = first.is_tcp});
    Phone b(lab, {.user = 1, .is_v6 = second.is_v6, .is_tcp = second.is_tcp});
    a.demand_registered();
    b.demand_registered();
    talk(a, b);
    const auto spis = spis_of(lab);
    REQUIRE(spis.size() == 8);
    for (int round = 0; round < 2; ++round) {  // what was adopted can be adopted again
        const auto mark = lab.core_mark();
        restart(lab, end);
        CHECK(spis_of(lab) == spis);
        CHECK(lab.gateway().has_text("registrations-adopted"));
        talk(a, b);
        CHECK(lab.core_received(mark, "REGISTER").empty());
    }
    // The registration goes on as if nothing had been: refreshed, re-authenticated, ended.
    a.reregister(false);
    a.reregister(true);
    talk(a, b);
    restart(lab, end);
    talk(a, b);
    a.deregister();
    b.deregister();
    CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
    restart(lab, end);
    CHECK(count_sas(lab.network.gw) == 0);
    CHECK_FALSE(lab.gateway().has_text("registrations-adopted"));
}

/// A call that stands while the gateway goes and comes back: re-INVITEs and BYE of both ends go on in a dialog that is
/// known.
void check_call_over_restarts(std::initializer_list<End> ends, const Access& from, const Access& to) {
    Lab lab(plain_lab());
    Phone a(lab, {.user = 0, .is_v6 = from.is_v6, .is_tcp = from.is_tcp}),
        b(lab, {.user = 1, .is_v6 = to.is_v6, .is_tcp = to.is_tcp});
    a.demand_registered();
    b.demand_registered();
    const auto named = [](const char* name) {
        return [name](const nlohmann::json& event) { return event.value("event", "") == name; };
    };
    a.program().write_line("call " + b.impu() + " 600");
    a.await_event(named("call_established"), "the answer");
    b.await_event(named("call_established"), "the ACK");
    for (const End end : ends) {
        restart(lab, end);
        const auto mark = lab.core_mark();
        for (Phone* phone : {&a, &b})
            for (const char* what : {"hold", "resume"})
                CHECK(phone->command(what, named("reinvite_sent")).value("ok", false));
        a.reregister(true);
        CHECK(b.command("hold", named("reinvite_sent")).value("ok", false));
        for (const char* method : {"INVITE", "ACK"})
            for (const auto& raw : lab.core_received(mark, method))
                CHECK(raw.find("P-Asserted-Identity") == std::string::npos);
    }
    const auto mark = lab.core_mark();
    CHECK(b.command("hangup", named("call_ended")).value("ok", false));
    a.await_event(named("call_ended"), "the BYE");
    for (const auto& raw : lab.core_received(mark, "BYE")) CHECK(raw.find("P-Asserted-Identity") == std::string::npos);
}

}  // namespace

TEST_SUITE("restart") {
    TEST_CASE("a call outlives kill -9, SIGTERM and take-over, and its dialog stays known: UDP") {
        check_call_over_restarts({End::kill_9, End::sigterm, End::take_over}, {false, false}, {true, false});
    }
    TEST_CASE("a call outlives take-over and kill -9, and its dialog stays known: TCP") {
        check_call_over_restarts({End::take_over, End::kill_9}, {true, true}, {false, true});
    }
    TEST_CASE("--take-over: UDP phones over IPv4 and IPv6 notice nothing") {
        check_restart(End::take_over, {false, false}, {true, false});
    }
    TEST_CASE("--take-over: the TCP connections of phones over IPv4 and IPv6 live on") {
        Lab lab(plain_lab());
        Phone a(lab, {.user = 0, .is_tcp = true}), b(lab, {.user = 1, .is_v6 = true, .is_tcp = true});
        a.demand_registered();
        b.demand_registered();
        talk(a, b);
        const auto connections = connections_of(lab);
        REQUIRE(connections.size() >= 2);
        const auto spis = spis_of(lab);
        for (int round = 0; round < 3; ++round) {
            const auto mark = lab.core_mark();
            lab.take_over();
            CHECK(lab.gateway().has_text("connections-resumed"));
            CHECK(lab.gateway().has_text("closed=0"));
            talk(a, b);
            CHECK(show(connections_of(lab)) == show(connections));
            CHECK(spis_of(lab) == spis);
            CHECK(lab.core_received(mark, "REGISTER").empty());
        }
        a.reregister(true);
        talk(a, b);
        a.deregister();
        b.deregister();
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
    }

    TEST_CASE("--take-over: TLS connections that the kernel carries live on, TLS 1.3 over IPv4 and TLS 1.2 over IPv6") {
        TlsLab tls;
        auto& lab = *tls.lab;
        Phone a(lab, {.user = 0, .arguments = tls.phone_arguments("tls", "1.3")});
        Phone b(lab, {.user = 1, .is_v6 = true, .arguments = tls.phone_arguments("tls", "1.2")});
        a.demand_registered();
        b.demand_registered();
        talk(a, b);
        REQUIRE(tls.in_kernel(2));
        const auto connections = connections_of(lab);
        for (int round = 0; round < 3; ++round) {
            const auto mark = lab.core_mark();
            lab.take_over();
            CHECK(lab.gateway().has_text("connections-resumed resumed=2 closed=0"));
            talk(a, b);
            CHECK(show(connections_of(lab)) == show(connections));
            CHECK(tls.in_kernel(2));
            CHECK(lab.core_received(mark, "REGISTER").empty());
        }
        a.reregister(false);
        a.deregister();
        b.deregister();
        CHECK(tls.in_kernel(0));
    }

    TEST_CASE("--take-over with half a message read: that connection is closed, never resumed out of step") {
        TlsLab tls;
        auto& lab = *tls.lab;
        Phone bound(lab, {.user = 0, .arguments = tls.phone_arguments("tls", "1.3")}), other(lab, {.user = 1});
        bound.demand_registered();
        const auto half = tls.connect({false, false}, "-tls1_3");
        // One record with a whole request and half of another: once the whole one is answered, the half is held.
        const std::string request =
            "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TLS 10.1.0.2:40000;branch=z9hG4bKhalf\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\n"
            "To: <sip:a@b>\r\nCall-ID: half\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n";
        half->write(request + request.substr(0, request.size() / 2));
        half->wait_for_text("SIP/2.0 403");
        lab.take_over();
        CHECK(lab.gateway().has_text("connection-out-of-step"));
        CHECK(lab.gateway().has_text("connections-resumed resumed=1 closed=1"));
        half->wait();
        talk(bound, other);
    }

    TEST_CASE("--take-over that fails: the running gateway goes on as if nothing had been") {
        Lab lab(plain_lab());
        Phone a(lab, {.user = 0, .is_tcp = true}), b(lab, {.user = 1, .is_v6 = true});
        a.demand_registered();
        b.demand_registered();
        talk(a, b);
        const auto connections = connections_of(lab);
        // A taker that goes as soon as it has everything, and one that says nothing.
        const auto taker = lab.folder() + "/taker.py";
        std::ofstream(taker)
            << "import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\ns.connect(sys.argv[1])\n"
               "s.send(sys.argv[2].encode())\nn = 0\nwhile True:\n  data = s.recv(256)\n  n += 1\n  if not data or data == b'end': break\nprint('got', n)\n";
        const auto socket = lab.folder() + "/take-over.sock";
        CHECK(run_program({.command = {"python3", taker, socket, "gmgate take-over 1"}}).find("got") !=
              std::string::npos);
        lab.gateway().wait_for_text("take-over-failed");
        run_program({.command = {"python3", taker, socket, "something else"}});
        talk(a, b);
        CHECK(show(connections_of(lab)) == show(connections));
        lab.take_over();
        talk(a, b);
    }

    TEST_CASE("SIGTERM and start: UDP phones over IPv4 and IPv6 go on with the next message") {
        check_restart(End::sigterm, {false, false}, {true, false});
    }
    TEST_CASE("kill -9 and start: UDP phones over IPv4 and IPv6 go on with the next message") {
        check_restart(End::kill_9, {false, false}, {true, false});
    }
    TEST_CASE("kill -9 and start: phones over TCP connect again and go on, their SAs untouched") {
        check_restart(End::kill_9, {false, true}, {true, true});
    }

    TEST_CASE(
        "SAs that vanished while the gateway was away end the registration, and no message to the phone leaves in clear") {
        Lab lab(plain_lab());
        Phone a(lab, {.user = 0}), b(lab, {.user = 1, .is_v6 = true});
        a.demand_registered();
        b.demand_registered();
        lab.kill_gateway();
        Capture link(lab.network.ue, Network::kUeLink);
        lab.network.gw.run("ip xfrm state deleteall src 10.1.0.1 && ip xfrm state deleteall src 10.1.0.2");
        lab.start_gateway();
        CHECK(lab.gateway().has_text("registration-not-adopted"));
        CHECK(count_sas(lab.network.gw) == 4);
        const auto word = unique_word("nobody-hears-");
        const int status = b.message(a.impu(), word);
        CHECK((status == 480 || status == 430 || status == 404 || status == 504));
        CHECK(link.find(word).empty());
    }

    TEST_CASE("a temporary set dies with its process, and its phone starts anew without harm to anybody") {
        Lab lab(plain_lab());
        Phone b(lab, {.user = 1, .is_v6 = true});
        b.demand_registered();
        const auto answer = ask(lab, {.user = 0, .security_client = SecurityClient{}.text()});
        REQUIRE(status_of(answer) == 401);
        REQUIRE(count_sas(lab.network.gw) == 8);
        restart(lab, End::kill_9);
        CHECK(count_sas(lab.network.gw) == 4);
        CHECK(lab.gateway().has_text("stale-sas-removed=4"));
        Phone a(lab, {.user = 0});
        a.demand_registered();
        talk(a, b);
    }

    TEST_CASE(
        "another boot_id, an unreadable file: the SAs that nobody can explain are removed, and the phones register anew") {
        Lab lab(plain_lab());
        {
            Phone a(lab, {.user = 0});
            a.demand_registered();
            lab.kill_gateway();
            std::filesystem::resize_file(lab.folder() + "/registrations.db", 0);
            std::filesystem::remove(lab.folder() + "/registrations.db-wal");
            std::ofstream(lab.folder() + "/registrations.db") << "not a database, whatever it was before\n"
                                                              << std::string(4096, '?');
            lab.start_gateway();
            CHECK(lab.gateway().has_text("store-set-aside"));
            CHECK(count_sas(lab.network.gw) == 0);
        }
        Phone again(lab, {.user = 0});
        again.demand_registered();
        restart(lab, End::kill_9);
        CHECK(count_sas(lab.network.gw) == 4);
    }

    TEST_CASE("kill -9 as soon as a phone has the 200 to its de-REGISTER: nothing brings the registration back") {
        Lab lab(plain_lab());
        std::size_t user = 0;
        for (const Access access : {Access{false, false}, Access{true, true}}) {
            Phone phone(lab, {.user = user++, .is_v6 = access.is_v6, .is_tcp = access.is_tcp});
            phone.demand_registered();
            phone.deregister();
            restart(lab, End::kill_9);
            const auto line =
                lab.gateway().wait_for_text("registrations-adopted").text;  // its SAs outlived it a little
            CHECK_MESSAGE(line.find("registrations=0 sets=0 not-adopted=0 ") != std::string::npos, line);
            CHECK(count_sas(lab.network.gw) == 0);
        }
    }
}
