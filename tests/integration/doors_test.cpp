// Every message belongs to the door that it came through: a call between two phones, and somebody who knows all of its
// identifiers tries to answer and to cancel it while it rings, and to ask for whatever a dialog can carry once it
// stands: in clear, over the SAs or the TLS connection of another phone, on a TLS connection of his own, and at the
// core's port. Nothing of it may have any effect.
#include <deque>
#include <functional>
#include <memory>

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "tests/integration/ringing.h"
#include "tests/integration/tls_lab.h"
#include "tests/support/raw_peer.h"
#include "tests/support/tls_client.h"

using namespace gmgate::test;

namespace {

constexpr const char* kElement4 = "10.2.0.99";  ///< of the core, but nobody who was asked
constexpr const char* kElement6 = "fd02::99";
constexpr const char* kMethods[] = {"INVITE", "ACK",       "BYE",     "CANCEL",  "PRACK", "REFER",
                                    "NOTIFY", "SUBSCRIBE", "MESSAGE", "OPTIONS", "INFO",  "UPDATE"};

/// One way in: how something is sent there, and what comes back.
struct Door {
    std::string name;
    std::string sent_by;  ///< "UDP 10.1.0.2:5071"
    std::function<void(const std::string&)> send;
    std::function<std::string()> answer{};  ///< empty: nobody who speaks here is answered
};

/// Whoever is at the doors; they stay open as long as this lives.
class Strangers {
public:
    explicit Strangers(Lab& lab) : lab_(lab) {}

    /// The ports in clear, both families and transports.
    std::vector<Door> in_clear() {
        std::vector<Door> doors;
        for (const bool is_v6 : {false, true})
            for (const bool is_tcp : {false, true}) {
                const Access access{is_v6, is_tcp};
                doors.push_back(
                    at("in clear", lab_.network.ue, access.ue_port(++port_), access.gateway_port(5060), is_tcp));
            }
        return doors;
    }
    /// TLS connections of nobody.
    std::vector<Door> over_tls() {
        std::vector<Door> doors;
        for (const bool is_v6 : {false, true}) {
            const Access access{is_v6, true};
            connections_.push_back(client_.connect(lab_.network.ue, access.gateway_port(5061)));
            auto* connection = connections_.back().get();
            REQUIRE(connection->handshake());
            doors.push_back({is_v6 ? "another TLS connection, IPv6" : "another TLS connection, IPv4",
                             "TLS " + access.ue_port(++port_),
                             [connection](const std::string& text) { connection->write(text); },
                             [connection] { return connection->read_until("\r\n\r\n"); }});
        }
        return doors;
    }
    /// The core's port from an element of the core that was asked for nothing.
    std::vector<Door> of_the_core() {
        lab_.network.core.ip_batch(
            fmt::format("address add {}/16 dev core0\naddress add {}/64 dev core0 nodad\n", kElement4, kElement6));
        std::vector<Door> doors;
        for (const bool is_v6 : {false, true})
            for (const bool is_tcp : {false, true})
                doors.push_back(at("the core's port", lab_.network.core, core_address(is_v6, kElement4, kElement6),
                                   core_address(is_v6, Network::kGwCore4, Network::kGwCore6, 5060), is_tcp));
        return doors;
    }
    /// The core's port from the access side; over TCP nobody gets as far as a word.
    std::vector<Door> at_the_cores_port() {
        lab_.network.ue.ip_batch(fmt::format("route add 10.2.0.0/16 via {}\nroute add fd02::/64 via {}\n",
                                             Network::kAccess4, Network::kAccess6));
        std::vector<Door> doors;
        for (const bool is_v6 : {false, true}) {
            auto door =
                at("the core's port from the access side", lab_.network.ue, Access{is_v6, false}.ue_port(++port_),
                   core_address(is_v6, Network::kGwCore4, Network::kGwCore6, 5060), false);
            door.answer = nullptr;
            doors.push_back(std::move(door));
        }
        return doors;
    }

private:
    std::string core_address(bool is_v6, const char* four, const char* six, int port = 0) {
        if (port == 0) port = ++port_;
        return is_v6 ? fmt::format("[{}]:{}", six, port) : fmt::format("{}:{}", four, port);
    }
    Door at(const std::string& name, const Namespace& network, const std::string& own, const std::string& gateway,
            bool is_tcp) {
        RawPeer& peer = peers_.emplace_back(network, is_tcp ? RawPeer::Kind::tcp : RawPeer::Kind::udp, own, gateway);
        if (is_tcp) REQUIRE(peer.connects(kPatience));
        const std::string sent_by = (is_tcp ? "TCP " : "UDP ") + own;
        return {name + ", " + sent_by, sent_by, [&peer](const std::string& text) { peer.send(text); },
                [&peer] { return peer.receive_until("\r\n\r\n"); }};
    }

    Lab& lab_;
    int port_ = 5070;
    std::deque<RawPeer> peers_;
    TlsClient client_{0x0304};
    std::vector<std::unique_ptr<TlsClient::Connection>> connections_;
};

/// Answers and CANCELs while it rings.
void check_ringing_doors(Ringing& call, const std::vector<Door>& doors) {
    for (const Door& door : doors) {
        CAPTURE(door.name);
        call.answer_both(door.send);
        for (const auto& cancel : call.cancels()) {
            door.send(cancel);
            const auto answer = door.answer();
            CHECK_MESSAGE(answer.find("SIP/2.0 481") != std::string::npos, answer);
        }
        call.check_ringing();
    }
}

/// The same by phones that are registered: another one, and the callee, who answers our request to the core.
void check_ringing_phones(Ringing& call) {
    const auto inject = [&](const std::string& text) { call.inject(call.eve, text); };
    call.answer_both(inject);
    for (const auto& cancel : call.cancels()) inject(cancel);
    call.settle(call.eve, call.caller);
    call.check_ringing();

    const auto before = count_in_log(call.lab, "response-wrong-door");
    call.inject(call.callee, answer_to(call.at_core, "486 Busy Here"));
    CHECK(eventually([&] { return count_in_log(call.lab, "response-wrong-door") == before + 1; }));
    call.inject(call.callee, call.cancels().front());
    call.settle(call.callee, call.eve);
    call.check_ringing();
}

int forwarded(const Lab& lab) { return gateway_status(lab)["counters"]["requests_to_ue"].get<int>(); }

/// All that a dialog can carry, as either end would write it, at doors that belong to nobody.
void check_dialog_doors(Ringing& call, const std::vector<Door>& doors) {
    const auto ends = call.ends();
    const auto start = call.lab.core_mark();
    const int before = forwarded(call.lab);
    for (const Door& door : doors)
        for (const char* method : kMethods)
            for (const DialogEnd& end : ends) {
                CAPTURE(door.name);
                CAPTURE(method);
                door.send(end.request(method, door.sent_by));
                if (!door.answer || std::string_view(method) == "ACK") continue;
                const auto answer = door.answer();
                const auto wanted = std::string_view(method) == "CANCEL" ? "SIP/2.0 481" : "SIP/2.0 403";
                CHECK_MESSAGE(answer.find(wanted) != std::string::npos, answer);
            }
    call.settle(call.eve, call.eve);
    CHECK(forwarded(call.lab) == before + 1);  // what eve sent to herself
    for (const auto& raw : call.lab.core_received(start)) CHECK(raw.find(kStrangersWord) == std::string::npos);
}

/// The same over the SAs or the TLS connection of another phone: whatever passes is hers, asserted and routed so, in no
/// dialog; ACK and CANCEL do not pass.
void check_dialog_of_another(Ringing& call) {
    const auto ends = call.ends();
    const auto start = call.lab.core_mark();
    const int before = forwarded(call.lab);
    const auto of_eve = call.eve.first().at("service_route").get<std::vector<std::string>>();
    REQUIRE_FALSE(of_eve.empty());
    for (const char* method : kMethods)
        for (const DialogEnd& end : ends) call.inject(call.eve, end.request(method, "UDP 10.1.0.66:5080"));
    call.settle(call.eve, call.eve);
    CHECK(forwarded(call.lab) == before + 1);
    for (const char* method : kMethods) {
        CAPTURE(method);
        std::size_t passed = 0;
        for (const auto& raw : call.lab.core_received(start, method)) {
            if (raw.find(kStrangersWord) == std::string::npos) continue;
            ++passed;
            CAPTURE(raw);
            CHECK(header_values(raw, "P-Asserted-Identity") == std::vector<std::string>{"<" + call.eve.impu() + ">"});
            CHECK(header_values(raw, "Route") == of_eve);
        }
        const std::string_view word = method;
        CHECK((passed > 0) == (word != "ACK" && word != "CANCEL"));
    }
}

/// Of all that, the two phones noticed nothing, and the call goes on and ends.
void check_undisturbed(Ringing& call) {
    for (Phone* phone : {&call.caller, &call.callee})
        for (const char* event : {"call_ended", "call_failed", "request_received", "prack_received", "update_received",
                                  "reinvite_received", "dropped"})
            CHECK_MESSAGE(phone->events(event).empty(), std::string(event));
    call.hang_up();
}

/// Everything, with phones over SAs; the core over IPv4 or IPv6.
void check_doors(const Access& access) {
    auto options = plain_lab();
    options.core_lines = fmt::format("peers = [\"{}\", \"{}\"]\n", kElement4, kElement6);
    options.core_side = fmt::format("[\"{}:5060\", \"[{}]:5060\"]", Network::kGwCore4, Network::kGwCore6);
    if (access.is_v6) {
        options.core_listen = fmt::format("[{}]:5060", Network::kCore6);
        options.next_hops = fmt::format("[[core.next-hops]]\nhost = \"{}\"\n", options.core_listen);
    }
    Lab lab(options);
    Ringing call(lab, {.access = access});
    INFO(lab.gateway_log());
    Strangers strangers(lab);
    const auto clear = strangers.in_clear();
    check_ringing_doors(call, clear);
    check_ringing_doors(call, strangers.of_the_core());
    check_ringing_phones(call);
    call.establish();
    check_dialog_doors(call, clear);
    check_dialog_doors(call, strangers.at_the_cores_port());
    check_dialog_of_another(call);
    check_undisturbed(call);
}

enum class Protection { sas, tls };

/// Everything, with one phone on TLS or both; the third one is on TLS.
void check_tls_doors(const Access& access, Protection caller, Protection callee) {
    TlsLab tls;
    Lab& lab = *tls.lab;
    const auto arguments = [&](Protection protection) {
        return protection == Protection::tls ? tls.phone_arguments("tls-prior", "1.3") : std::vector<std::string>{};
    };
    Ringing call(lab, {.access = access,
                       .caller = arguments(caller),
                       .callee = arguments(callee),
                       .other = arguments(Protection::tls)});
    INFO(lab.gateway_log());
    Strangers strangers(lab);
    auto doors = strangers.over_tls();
    for (auto& door : strangers.in_clear()) doors.push_back(std::move(door));
    check_ringing_doors(call, doors);
    check_ringing_phones(call);
    call.establish();
    check_dialog_doors(call, doors);
    check_dialog_of_another(call);
    check_undisturbed(call);
}

}  // namespace

TEST_SUITE("doors") {
    TEST_CASE(
        "a call over SAs, IPv4 and UDP: no other door answers or cancels it, or asks for anything in its dialog") {
        check_doors({false, false});
    }
    TEST_CASE(
        "a call over SAs, IPv6 and TCP, and a core over IPv6: no other door answers or cancels it, or asks for anything in its dialog") {
        check_doors({true, true});
    }
    TEST_CASE(
        "a call of a phone on TLS: no other TLS connection, nor the ports in clear, answers or cancels it, or asks for anything in its dialog") {
        check_tls_doors({false, false}, Protection::tls, Protection::sas);
    }
    TEST_CASE("a call to a phone on TLS: the same") {
        check_tls_doors({false, true}, Protection::sas, Protection::tls);
    }
    TEST_CASE("a call between phones on TLS over IPv6: the same") {
        check_tls_doors({true, false}, Protection::tls, Protection::tls);
    }
}
