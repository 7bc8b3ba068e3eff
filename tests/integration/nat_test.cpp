// Phones behind NAT (TS 33.203 Annex M): mode UDP-enc-tun through real NATs, on the real kernel.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <sstream>
#include <thread>

#include <fmt/format.h>

#include "tests/integration/nat_lab.h"
#include "tests/integration/operator.h"

using namespace gmgate::test;

namespace {

/// A MESSAGE each way between two phones arrives.
void talk(Phone& a, Phone& b, std::size_t octets = 20) {
    const auto from_a = unique_word("from-a-") + std::string(octets, 'a');
    const auto from_b = unique_word("from-b-") + std::string(octets, 'b');
    CHECK(a.message(b.impu(), from_a) == 200);
    b.await_message(from_a);
    CHECK(b.message(a.impu(), from_b) == 200);
    a.await_message(from_b);
}

bool comes_true(const std::function<bool()>& condition, std::chrono::seconds patience = std::chrono::seconds{20}) {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > until) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds{20});
    }
    return true;
}

std::uint64_t drops(const Lab& lab, const std::string& name) { return xfrm_counters(lab.network.gw)[name]; }

std::uint64_t counter(const Lab& lab, const std::string& name) {
    const auto page = monitoring_page(lab, "/metrics");
    const auto at = page.find("\ngmgate_" + name + " ");
    return at == page.npos ? 0 : std::stoull(page.substr(page.find(' ', at) + 1));
}

/// Many phones in one process, behind one NAT, that do the same at once.
class Crowd {
public:
    Crowd(Lab& lab, const Namespace& home, std::size_t first_user, std::size_t count, bool is_tcp)
        : count_(count),
          program_({.command = command(lab, first_user, count, is_tcp), .name = "crowd", .network = &home}) {}

    void say(const std::string& word) {
        from_ = program_.line_count();
        program_.write_line(word);
    }
    void await(const std::string& phase) {
        const auto line = program_.wait_for_text("\"phase\":\"" + phase + "\"", from_);
        INFO(line.text);
        CHECK(nlohmann::json::parse(line.text).value("ok", std::size_t{0}) == count_);
    }
    void leave() {
        from_ = program_.line_count();
        program_.close_input();
        await("deregister");
    }

private:
    static std::vector<std::string> command(Lab& lab, std::size_t first_user, std::size_t count, bool is_tcp) {
        return {lab.programs().gmue,
                "register",
                "--gateway",
                std::string(Network::kAccess4),
                "--nat",
                "--index",
                std::to_string(first_user),
                "--count",
                std::to_string(count),
                "--rate",
                "50",
                "--commands",
                "--json",
                "--quiet",
                "--t1",
                "0.5",
                "--register-over",
                is_tcp ? "tcp" : "udp"};
    }
    std::size_t count_, from_ = 0;
    Program program_;
};

/// What the phone's SA needs to be written again without a selector: a phone whose kernel obeys nobody.
void forget_selector(const Namespace& phone, const std::string& source, const nlohmann::json& set) {
    const auto spi = fmt::format("{:#010x}", set.value("spi_ps", 0U));
    const auto state =
        phone.run(fmt::format("ip xfrm state get src {} dst {} proto esp spi {}", source, Network::kAccess4, spi));
    const auto after = [&](const std::string& word, int skip) {
        std::istringstream in(state.substr(state.find(word)));
        std::string out;
        for (int i = 0; i <= skip; ++i) in >> out;
        return out;
    };
    phone.run(
        fmt::format("ip xfrm state delete src {0} dst {1} proto esp spi {2} && ip xfrm state add src {0} dst {1} "
                    "proto esp spi {2} mode tunnel reqid {3} replay-window 32 replay-oseq 0x1000 auth-trunc "
                    "'hmac(sha1)' {4} 96 enc 'cbc(aes)' {5} encap espinudp 4500 4500 0.0.0.0",
                    source, Network::kAccess4, spi, after("reqid", 1), after("auth-trunc", 2), after("enc ", 2)));
}

/// An outbound policy through that SA, for packets from another inner endpoint.
void send_from(const Namespace& phone, const std::string& source, const std::string& inner, int port,
               const nlohmann::json& set, const std::string& text) {
    const auto reqid =
        phone.run(fmt::format("ip xfrm state get src {} dst {} proto esp spi {:#010x} | grep -o 'reqid [0-9]*'", source,
                              Network::kAccess4, set.value("spi_ps", 0U)));
    phone.run(
        fmt::format("ip address replace {0}/32 dev lo; ip xfrm policy add src {0}/32 dst {1}/32 proto udp sport {2} "
                    "dport {3} dir out priority 10 tmpl src {4} dst {1} proto esp mode tunnel {5}",
                    inner, Network::kAccess4, port, set.value("port_ps", 0), source, reqid));
    RawPeer raw(phone, RawPeer::Kind::udp, fmt::format("{}:{}", inner, port),
                fmt::format("{}:{}", Network::kAccess4, set.value("port_ps", 0)));
    raw.send(text);
}

}  // namespace

TEST_SUITE("nat") {
    TEST_CASE(
        "phones behind NAT register, talk both ways and leave nothing behind, while a transport-mode phone goes on") {
        Lab lab(nat_lab());
        Nat one(lab, 0), two(lab, 1);
        const auto home_a = one.plug(10), home_b = one.plug(11), home_c = two.plug(10);
        Capture wire(lab.network.ue, Network::kUeLink);
        const auto policies_before = list_policies(lab.network.gw).size();
        Phone open_road(lab, {.user = 3});
        open_road.demand_registered();
        // a and c: the same private address, ports and SPIs. a and b: the same ports behind one NAT.
        Phone a(lab, behind_nat(0, *home_a, {"--spi-uc", "1001", "--spi-us", "1002"}));
        a.demand_registered();
        auto b_options = behind_nat(1, *home_b);
        b_options.is_tcp = true;
        Phone b(lab, b_options);
        b.demand_registered();
        Phone c(lab, behind_nat(2, *home_c, {"--spi-uc", "1001", "--spi-us", "1002"}));
        c.demand_registered();
        CHECK(a.first()["port_ps"] != b.first()["port_ps"]);
        CHECK(count_sas(lab.network.gw) == 16);
        CHECK(count_nat_policies(lab) == 2);  // one for each NAT, not for each phone
        talk(a, b);
        talk(b, c, 2000);
        talk(c, a);
        talk(open_road, b);
        // B-84: new SAs are of the same mode, port_us and port_ps stay; B-17: the client ports change.
        for (auto* phone : {&a, &b}) phone->reregister(true);
        talk(a, b);
        for (const auto* word : {"from-a-", "from-b-"}) CHECK(wire.find(word).empty());
        CHECK(wire.count([](const Frame& frame) { return frame.is_esp(); }) > 0);  // of the phone without NAT
        const auto shown = ask_gmctl(lab, {"show", impi_of_user(0)});
        CHECK(shown.dump().find("\"mod\":\"UDP-enc-tun\"") != std::string::npos);
        CHECK(lab.gateway_log().find("sa-lost") == std::string::npos);
        for (auto* phone : {&a, &c, &b}) phone->deregister();
        CHECK(comes_true([&] { return count_sas(lab.network.gw) == 4; }));
        CHECK(comes_true([&] { return count_nat_policies(lab) == 0; }));
        CHECK(list_policies(lab.network.gw).size() == policies_before);
        open_road.reregister(true);
    }

    TEST_CASE("a phone behind NAT that does not offer UDP-enc-tun is told what to do, and so is the operator") {
        Lab lab(nat_lab());
        Nat nat(lab, 0);
        const auto home = nat.plug(10);
        Phone plain(lab, {.user = 0, .network = home.get()});
        CHECK(plain.first().value("status", 0) == 403);
        const auto verdict = why(lab, 0);
        CHECK(verdict["verdict"] == "nat");
        CHECK(verdict["paragraph"].get<std::string>().find("does not offer mod=UDP-enc-tun") != std::string::npos);
        CHECK(count_sas(lab.network.gw) == 0);
        // And without NAT a phone that offers both gets transport mode.
        Phone both(lab, {.user = 1, .arguments = {"--nat"}});
        both.demand_registered();
        CHECK(list_sas(lab.network.gw).front().mode == "transport");
    }

    TEST_CASE("SPIs that another phone behind the NAT has are refused, the next try succeeds, and the other goes on") {
        Lab lab(nat_lab());
        Nat nat(lab, 0);
        const auto home_a = nat.plug(10), home_b = nat.plug(11);
        Phone a(lab, behind_nat(0, *home_a, {"--spi-uc", "1001", "--spi-us", "1002"}));
        a.demand_registered();
        Phone refused(lab, behind_nat(1, *home_b, {"--spi-uc", "1002", "--spi-us", "1003"}));
        CHECK(refused.first().value("status", 0) == 480);
        CHECK(refused.first().value("detail", "").find("its next try has others") != std::string::npos);
        Phone b(lab, behind_nat(1, *home_b));
        b.demand_registered();
        talk(a, b);
        // a is switched off and on: its SPIs and ports are its own.
        a.program().kill();
        home_a->run("ip xfrm state deleteall; ip xfrm policy deleteall; ip address flush dev lo");
        Phone back(lab, behind_nat(0, *home_a, {"--spi-uc", "1001", "--spi-us", "1002"}));
        back.demand_registered();
        talk(back, b);
        CHECK(count_nat_policies(lab) == 1);
    }

    TEST_CASE("nothing passes in clear, nor from another phone's inner address or port") {
        Lab lab(nat_lab());
        Nat one(lab, 0), two(lab, 1);
        const auto home_a = one.plug(10), home_b = one.plug(11), home_c = two.plug(10);
        Phone a(lab, behind_nat(0, *home_a, {"--offer", "hmac-sha-1-96/aes-cbc"}));
        Phone b(lab, behind_nat(1, *home_b));
        Phone c(lab, behind_nat(2, *home_c));
        for (const auto* phone : {&a, &b, &c}) phone->demand_registered();
        const auto clear = drops(lab, "XfrmInTmplMismatch");
        for (const int port : {6208, 6215, 6216, 6223}) {
            RawPeer stranger(lab.network.ue, RawPeer::Kind::udp, "10.1.0.2:7000", fmt::format("10.1.0.1:{}", port));
            stranger.send("OPTIONS sip:x SIP/2.0\r\n\r\n");
        }
        CHECK(comes_true([&] { return drops(lab, "XfrmInTmplMismatch") == clear + 4; }));
        // A phone that lets its kernel send whatever it likes through its own SA.
        const auto& set = a.first();
        const auto foreign = drops(lab, "XfrmInStateMismatch");
        forget_selector(*home_a, "192.168.1.10", set);
        send_from(*home_a, "192.168.1.10", one.address(), 5777, set, "another port");
        send_from(*home_a, "192.168.1.10", two.address(), set.value("port_uc", 0), set, "another address");
        CHECK(comes_true([&] { return drops(lab, "XfrmInStateMismatch") == foreign + 2; }));
        talk(b, c);
        // What is no ESP at the port of the encapsulation disturbs nobody.
        RawPeer stranger(lab.network.ue, RawPeer::Kind::udp, "10.1.0.2:7001", "10.1.0.1:4500");
        for (int i = 0; i < 50; ++i) stranger.send(std::string("\0\0\0\0IKE?", 8));
        stranger.send("\xff");
        talk(b, c);
        CHECK(count_nat_policies(lab) == 2);
    }

    TEST_CASE("a NAT that gives a phone another port is followed; one with another address ends its set") {
        Lab lab(nat_lab());
        Nat nat(lab, 0);
        const auto home = nat.plug(10);
        Phone open_road(lab, {.user = 1});
        Phone a(lab, behind_nat(0, *home, {"--nat-keep-alive", "0"}));
        a.demand_registered();
        talk(a, open_road);
        CHECK(outer_ports(lab, nat.address()) == std::vector{4500, 4500});
        nat.rebind("30000-30100");
        const auto word = unique_word("rebound-");
        CHECK(a.message(open_road.impu(), word) == 200);
        CHECK(comes_true([&] {
            return std::ranges::all_of(outer_ports(lab, nat.address()), [](int port) { return port >= 30000; });
        }));
        talk(open_road, a);
        // Annex M has no procedure for another address.
        const auto before = nat.address();
        nat.move("198.51.100.3");
        a.start_message(open_road.impu(), unique_word("moved-"));
        CHECK(comes_true([&] { return count_sas(lab.network.gw) == 4; }));
        CHECK(count_nat_policies(lab) == 0);
        CHECK(lab.gateway_log().find("nat-moved") != std::string::npos);
        const auto verdict = why(lab, 0);
        CHECK(verdict["verdict"] == "nat-moved");
        CHECK(verdict["paragraph"].get<std::string>().find(before) != std::string::npos);
    }

    TEST_CASE("phones that have their private address inside: two with the same one behind two NATs, two behind one") {
        Lab lab(nat_lab("any"));
        Nat one(lab, 0), two(lab, 1);
        const auto home_a = one.plug(10), home_b = one.plug(11), home_c = two.plug(10), home_d = two.plug(11);
        Phone a(lab, behind_nat(0, *home_a, {"--nat-private", "--offer", "hmac-sha-1-96/aes-cbc"}));
        auto b_options = behind_nat(1, *home_b, {"--nat-private"});
        b_options.is_tcp = true;
        Phone b(lab, b_options);
        auto c_options = behind_nat(2, *home_c, {"--nat-private"});
        c_options.is_tcp = true;
        Phone c(lab, c_options);
        Phone d(lab, behind_nat(3, *home_d));  // as the standard says, in the same gateway
        for (auto* phone : {&a, &b, &c, &d}) phone->demand_registered();
        CHECK(count_nat_policies(lab) == 2 + 2 * 4);
        const auto told = [&](std::size_t user) { return ask_gmctl(lab, {"show", impi_of_user(user)}).dump(); };
        CHECK(told(0).find("\"inner\":\"192.168.1.10\"") != std::string::npos);
        CHECK(told(3).find("\"inner\":\"" + two.address() + "\"") != std::string::npos);
        talk(a, c);
        talk(b, d, 2000);
        talk(c, b);
        for (auto* phone : {&a, &b, &c}) phone->reregister(true);
        talk(c, a);
        talk(d, b);
        lab.kill_gateway();
        lab.start_gateway();  // it learns which address each has from its store
        talk(a, c);
        talk(b, d);
        for (auto* phone : {&a, &b, &c, &d}) phone->deregister();
        CHECK(comes_true([&] { return count_sas(lab.network.gw) == 0 && count_nat_policies(lab) == 0; }));
    }

    TEST_CASE("a phone that has its private address inside cannot have another one as well") {
        auto options = nat_lab("any");
        options.top_lines = "metrics-listen = \"127.0.0.1:9464\"\n";
        Lab lab(options);
        Nat nat(lab, 0);
        const auto home = nat.plug(10);
        Phone a(lab, behind_nat(0, *home, {"--nat-private", "--offer", "hmac-sha-1-96/aes-cbc"}));
        a.demand_registered();
        const auto& set = a.first();
        forget_selector(*home, "192.168.1.10", set);
        for (const auto& other : {nat.address(), std::string("192.168.1.99")}) {
            CAPTURE(other);
            const auto before = counter(lab, "nat_other_inner_total");
            send_from(
                *home, "192.168.1.10", other, set.value("port_uc", 0), set,
                "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP " + other + ":" + std::to_string(set.value("port_us", 0)) +
                    ";branch=z9hG4bKx\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: " + unique_word("other-") +
                    "\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
            CHECK(comes_true([&] { return counter(lab, "nat_other_inner_total") == before + 1; }));
        }
        CHECK(lab.core_received(0, "OPTIONS").empty());
    }

    TEST_CASE("fifty phones behind each of two NATs register, re-register and talk, with new ports of their NAT, too") {
        auto options = nat_lab();
        options.users = 102;
        options.log_level = "notice";
        Lab lab(options);
        Nat one(lab, 0), two(lab, 1);
        const auto a = one.plug(10), b = one.plug(11), c = two.plug(10), d = two.plug(11);
        Phone open_road(lab, {.user = 100});
        open_road.demand_registered();
        const auto policies = list_policies(lab.network.gw).size();
        std::vector<std::unique_ptr<Crowd>> crowds;
        std::size_t user = 0;
        for (const auto* home : {a.get(), b.get(), c.get(), d.get()}) {
            crowds.push_back(std::make_unique<Crowd>(lab, *home, user, 25, user % 50 == 25));
            user += 25;
        }
        for (auto& crowd : crowds) crowd->await("register");
        CHECK(count_sas(lab.network.gw) == 4 * 101);
        CHECK(list_policies(lab.network.gw).size() == policies + 2);  // one for each NAT
        const auto all = [&](const std::string& word) {
            for (auto& crowd : crowds) crowd->say(word);
            for (auto& crowd : crowds) crowd->await(word);
        };
        all("challenge");
        all("message");
        one.rebind("30000-30100");
        all("reregister");
        all("message");
        for (const std::size_t of : {0U, 40U, 60U, 99U}) CHECK(open_road.message(impu_of_user(of), "hello") == 200);
        open_road.reregister(true);
        for (auto& crowd : crowds) crowd->leave();
        CHECK(comes_true([&] { return count_nat_policies(lab) == 0 && count_sas(lab.network.gw) <= 8; }));
    }

    TEST_CASE("over IPv6, where NATs are as well, and with long messages") {
        Lab lab(nat_lab());
        Nat nat(lab, 0);
        const auto home_a = nat.plug(10), home_b = nat.plug(11), home_c = nat.plug(12);
        auto a_options = behind_nat(0, *home_a), b_options = behind_nat(1, *home_b);
        a_options.is_v6 = b_options.is_v6 = b_options.is_tcp = true;
        Phone a(lab, a_options), b(lab, b_options);
        for (auto* phone : {&a, &b}) phone->demand_registered();
        CHECK(list_sas(lab.network.gw).front().mode == "tunnel");
        CHECK(count_nat_policies6(lab) == 1);
        Phone c(lab, behind_nat(2, *home_c));
        c.demand_registered();
        talk(a, b);
        talk(b, c, 8000);
        talk(c, a, 8000);
        a.reregister(true);
        talk(a, b, 3000);
        for (auto* phone : {&a, &b, &c}) phone->deregister();
        CHECK(comes_true([&] { return count_sas(lab.network.gw) == 0 && count_nat_policies6(lab) == 0; }));
    }

    TEST_CASE("a gateway that is killed, or taken over, finds the phones behind NAT again") {
        Lab lab(nat_lab());
        Nat nat(lab, 0);
        const auto home = nat.plug(10);
        nat.rebind("30000-30100");
        Phone open_road(lab, {.user = 1});
        Phone a(lab, behind_nat(0, *home));
        a.demand_registered();
        talk(a, open_road);
        lab.kill_gateway();
        lab.start_gateway();
        talk(open_road, a);
        CHECK(ask_gmctl(lab, {"show", impi_of_user(0)}).dump().find("\"port_uenc\":30") != std::string::npos);
        lab.take_over();
        talk(open_road, a);
        a.reregister(true);
        nat.rebind("31000-31100");  // whose event the engine of the new process hears
        CHECK(a.message(open_road.impu(), unique_word("rebound-")) == 200);
        talk(open_road, a);
        a.deregister();
        CHECK(comes_true([&] { return count_sas(lab.network.gw) == 4 && count_nat_policies(lab) == 0; }));
    }
}
