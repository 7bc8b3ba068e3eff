// What happens at each limit of SPIs, SAs and temporary sets: a clear answer and reason, and live registrations that
// notice nothing.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

LabOptions with(const std::string& sections) {
    auto options = plain_lab();
    options.more_sections = sections;
    return options;
}

/// A first REGISTER of user `n` from the phones' address, with SPIs and ports of its own.
RawRegister first_register(int n) {
    RawRegister request;
    request.user = static_cast<std::size_t>(n);
    request.port = 5100 + n;
    SecurityClient offer;
    offer.spi_c = 50000 + 2 * static_cast<std::uint32_t>(n);
    offer.spi_s = 50001 + 2 * static_cast<std::uint32_t>(n);
    offer.port_c = 7000 + 2 * n;
    offer.port_s = 7001 + 2 * n;
    request.security_client = offer.text();
    return request;
}

void check_refused(Lab& lab, const RawRegister& request, const std::string& words) {
    const auto sas = count_sas(lab.network.gw);
    const auto response = ask(lab, request);
    INFO(response);
    INFO(lab.gateway().tail());
    CHECK(status_of(response) == 503);
    CHECK(response.find("Retry-After") != std::string::npos);
    CHECK(response.find("Security-Server") == std::string::npos);
    CHECK(
        eventually([&] { return lab.gateway_log().find(words) != std::string::npos; }));  // the line follows the answer
    CHECK(count_sas(lab.network.gw) == sas);
}

void talk(Phone& from, Phone& to) {
    for (auto [a, b] : {std::pair{&from, &to}, std::pair{&to, &from}}) {
        const auto word = unique_word("limit-");
        CHECK(a->message(b->impu(), word) == 200);
        b->await_message(word);
    }
}

}  // namespace

TEST_SUITE("limits") {
    TEST_CASE("SPI space exhausted: 503 with the reason; who leaves makes room") {
        Lab lab(
            with("[xfrm]\nspi-start = 0x10000000\nspi-end = 0x10000005\n[timers]\nfinal-answer = 1\n"));  // six SPIs:
                                                                                                          // three sets
        Phone one(lab, {}), two(lab, {.user = 1});
        one.demand_registered();
        two.demand_registered();
        Phone three(lab, {.user = 2});
        three.demand_registered();
        check_refused(lab, first_register(3), "no two free SPIs are left");
        talk(one, two);
        // A re-authentication needs two as well: it is refused, and the registration goes on.
        const auto again = one.command("reregister challenge", [](const nlohmann::json& e) {
            return e.value("event", "") == "register_failed" || e.value("event", "") == "reregistered";
        });
        CHECK(again.value("status", 0) == 503);
        talk(one, two);
        three.deregister();
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 8; }));
        one.reregister(true);
        talk(one, two);
    }

    TEST_CASE("sets per address: 503 for one more, the others go on") {
        Lab lab(with("[limits]\nsets-per-address = 3\n"));
        Phone one(lab, {}), two(lab, {.user = 1}), three(lab, {.user = 2});
        one.demand_registered();
        two.demand_registered();
        three.demand_registered();
        check_refused(lab, first_register(3), "too many sets of SAs for this UE address");
        talk(one, two);
        Phone elsewhere(lab, {.user = 4, .is_v6 = true});  // another address is not concerned
        elsewhere.demand_registered();
    }

    TEST_CASE(
        "temporary sets per address and in total: the oldest gives way, and a registered phone re-authenticates") {
        Lab lab(with("[limits]\nchallenges = 3\nchallenges-per-address = 2\n"));
        Phone one(lab, {}), two(lab, {.user = 1, .is_v6 = true});
        one.demand_registered();
        two.demand_registered();
        CHECK(status_of(ask(lab, first_register(2))) == 401);
        CHECK(status_of(ask(lab, first_register(3))) == 401);
        const auto before = count_sas(lab.network.gw);
        CHECK(status_of(ask(lab, first_register(4))) == 401);
        CHECK(lab.gateway().wait_for_text("challenge-gives-way").text.find("too many challenges") != std::string::npos);
        CHECK(count_sas(lab.network.gw) == before);
        auto six = first_register(4);
        six.access = {true, false};
        CHECK(status_of(ask(lab, six)) == 401);
        auto more = first_register(5);
        more.access = {true, false};
        const auto full = count_sas(lab.network.gw);
        CHECK(status_of(ask(lab, more)) == 401);
        lab.gateway().wait_for_text("challenge-gives-way impi=" + impi_of_user(3));  // of the address that has most
        CHECK(gateway_status(lab)["counters"]["challenge_gave_way"].get<int>() == 2);
        CHECK(count_sas(lab.network.gw) == full);
        talk(one, two);
        one.reregister(true);
        talk(one, two);
    }

    TEST_CASE("registrations: 503 beyond the limit") {
        Lab lab(with("[limits]\nregistrations = 2\n"));
        Phone one(lab, {}), two(lab, {.user = 1});
        one.demand_registered();
        two.demand_registered();
        check_refused(lab, first_register(2), "the limit of registrations is reached");
        talk(one, two);
    }

    TEST_CASE(
        "protected client ports of one phone's address and server port all wait for an answer: the oldest gives way") {
        Lab lab(plain_lab());
        Phone one(lab, {}), two(lab, {.user = 1});
        one.demand_registered();
        two.demand_registered();
        const int ports = Lab::kLastClientPort - Lab::kFirstClientPort + 1;
        auto request = [](int n) {
            auto made = first_register(n);
            const auto at = made.security_client.find("port-s=");
            made.security_client = made.security_client.substr(0, at) + "port-s=7999";
            return made;
        };
        for (int n = 2; n < 2 + ports; ++n) CHECK(status_of(ask(lab, request(n))) == 401);
        CHECK(status_of(ask(lab, request(2 + ports))) == 401);
        lab.gateway().wait_for_text("challenge-gives-way impi=" + impi_of_user(2));
        talk(one, two);
    }

    TEST_CASE(
        "strangers fill no log: of thousands of refusals some hundred lines are written, and how many more there were") {
        Lab lab(plain_lab());
        RawPeer stranger(lab.network.ue, RawPeer::Kind::udp, std::string(Network::kUe4) + ":5070",
                         std::string(Network::kAccess4) + ":5060");
        constexpr int kSent = 2000;
        for (int i = 0; i < kSent; ++i) {
            RawRegister request;
            request.port = 5070;
            request.more_headers = "X-Long: " + std::string(500, 'x') + "\r\n";
            stranger.send(request.text());
            stranger.receive_until("SIP/2.0 4");
        }
        lab.gateway().wait_for_text("register more=");
        const std::string log = lab.gateway_log();
        std::size_t lines = 0;
        for (auto at = log.find(" register impi="); at != std::string::npos; at = log.find(" register impi=", at + 1))
            ++lines;
        INFO(lines);
        CHECK(lines >= 500);
        CHECK(lines < kSent * 3 / 4);
        Phone phone(lab, {});
        phone.demand_registered();
        CHECK(phone.message(phone.impu(), unique_word("quiet-")) == 200);
    }

    TEST_CASE(
        "strangers take every connection and are never silent: a phone over TCP registers, and each of them ends in time") {
        Lab lab(with("[limits]\nconnections = 16\n[timers]\nstranger-connection = 5\n"));
        const std::string options =
            "OPTIONS sip:10.1.0.1:5060;transport=tcp SIP/2.0\r\nVia: SIP/2.0/TCP 10.1.0.2;branch=z9hG4bK{}\r\n"
            "Max-Forwards: 70\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: stay{}\r\nCSeq: 1 OPTIONS\r\n"
            "Content-Length: 0\r\n\r\n";
        std::vector<std::unique_ptr<RawPeer>> held;
        for (int i = 0; i < 16; ++i) {
            const Access access{.is_v6 = i % 2 == 1, .is_tcp = true};
            held.push_back(std::make_unique<RawPeer>(lab.network.ue, RawPeer::Kind::tcp, access.ue_port(43000 + i),
                                                     access.gateway_port(5060)));
            REQUIRE(held.back()->connects(kPatience));
            held.back()->send(fmt::format(fmt::runtime(options), i, i));
            held.back()->receive_until("SIP/2.0 ");
        }
        Phone four(lab, {.is_tcp = true}), six(lab, {.user = 1, .is_v6 = true, .is_tcp = true});
        four.demand_registered();
        six.demand_registered();
        talk(four, six);
        CHECK(gateway_status(lab)["connections"]["gave_way"].get<int>() > 0);
        int asked = 0;
        const bool has_ended = eventually([&] {  // the youngest, which goes on asking
            try {
                held.back()->send(fmt::format(fmt::runtime(options), 100 + asked, 100 + asked));
                ++asked;
                return gateway_status(lab)["connections"]["outlived"].get<int>() > 0;
            } catch (const std::exception&) {
                return true;  // it is closed already
            }
        });
        CHECK(has_ended);
        talk(four, six);
    }

    TEST_CASE(
        "REGISTERs in clear with one user's name, and many from one address: the core is spared, and that user's phone registers") {
        Lab lab(with("[limits]\nauthentications = 0\nauthentications-per-source = 4\nauthentications-per-impi = 1\n"));
        Phone victim(lab, {.is_v6 = true});
        victim.demand_registered();
        int challenged = 0, refused = 0;
        const auto flood = [&](const std::function<std::size_t(int)>& user_of, int count) {
            challenged = refused = 0;
            for (int i = 0; i < count; ++i) {
                auto request = first_register(i % 50);
                request.user = user_of(i);
                const auto response = ask(lab, request);
                if (status_of(response) == 503) {
                    ++refused;
                    CHECK(response.find("Retry-After") != std::string::npos);
                } else {
                    ++challenged;
                }
            }
        };
        flood([](int) { return 0; }, 60);  // over IPv4: another source than the victim's
        CHECK(challenged >= 30);           // thirty seconds' worth, and what these seconds bring
        CHECK(refused >= 10);
        flood([](int i) { return static_cast<std::size_t>(1 + i % 7); }, 60);
        CHECK(refused >= 10);
        const auto status = gateway_status(lab);
        CHECK(status["counters"]["core_spared"].get<int>() >= 20);
        const auto line = lab.gateway().wait_for_text("core-spared").text;
        CHECK(line.find("limit=authentications-per-") != std::string::npos);
        const auto word = unique_word("unharmed-");
        CHECK(victim.message(victim.impu(), word) == 200);
        victim.await_message(word);
        Phone again(lab,
                    {.is_v6 = true});  // the victim's phone has lost its memory: it asks in clear, from its address
        again.demand_registered();
    }

    TEST_CASE(
        "overload: what is new gets 503 with Retry-After; dialogs, refreshes over SAs and emergency calls are served") {
        auto options = with("[limits]\nloop-lag = 2000\n");
        options.interface_lines = "anonymous-emergency = true\n";
        Lab lab(options);
        Phone one(lab, {}), two(lab, {.user = 1}), three(lab, {.user = 2});
        for (Phone* phone : {&one, &two, &three}) phone->demand_registered();
        const auto named = [](const char* name) {
            return [name](const nlohmann::json& e) { return e.value("event", "") == name; };
        };
        one.command("call " + two.impu() + " 600", named("call_established"));
        two.await_event(named("call_established"), "the ACK");
        RawPeer caller(lab.network.ue, RawPeer::Kind::udp, std::string(Network::kUe4) + ":5070",
                       std::string(Network::kAccess4) + ":5060");
        const auto mark = lab.core_mark();
        {
            // It stands still for longer than that, and wakes up to all this at once.
            Capture link(lab.network.ue, Network::kUeLink);
            ::kill(lab.gateway().pid(), SIGSTOP);
            const auto stopped = std::chrono::steady_clock::now();
            const auto sent = [&](const std::function<void()>& what) {
                const auto before = link.frames().size();
                what();
                CHECK(eventually([&] { return link.frames().size() > before; }));
            };
            sent([&] { three.start_message(one.impu(), "not-now"); });
            sent([&] { two.program().write_line("reregister"); });
            sent([&] { one.program().write_line("hangup"); });
            sent([&] {
                caller.send(fmt::format(
                    "INVITE urn:service:sos SIP/2.0\r\nVia: SIP/2.0/UDP {0}:5070;branch=z9hG4bKsos\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <urn:service:sos>\r\n"
                    "Call-ID: sos-now\r\nCSeq: 1 INVITE\r\nContact: <sip:{0}:5070>\r\nContent-Length: 0\r\n\r\n",
                    Network::kUe4));
            });
            CHECK(eventually(
                [&] { return std::chrono::steady_clock::now() - stopped > std::chrono::milliseconds(4600); }));
            ::kill(lab.gateway().pid(), SIGCONT);
        }
        CHECK(three.await_event(named("message_sent"), "503 for the new MESSAGE").value("status", 0) == 503);
        two.await_event(named("reregistered"), "the refresh");
        CHECK(one.await_event(named("call_ended"), "the BYE").value("ok", false));
        CHECK(eventually([&] {
            const auto invites = lab.core_received(mark, "INVITE");
            return std::ranges::any_of(invites,
                                       [](const std::string& raw) { return raw.find("sos-now") != std::string::npos; });
        }));
        lab.gateway().wait_for_text("overload-begins");
        lab.gateway().wait_for_text("overload-ends");
        CHECK(eventually([&] { return three.message(one.impu(), "at-ease") == 200; }));
        one.await_message("at-ease");
    }
}
