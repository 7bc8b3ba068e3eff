// Every message belongs to the door that it came through: a call between two phones, and somebody who knows all of
// its identifiers (Via, branch, tags, as the far end of a call does) tries to answer, cancel and acknowledge it in
// clear, over the SAs of another phone, at the core's port, and on a connection of his own. Nothing of it may have
// any effect.
#include <memory>

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "tests/integration/operator.h"
#include "tests/integration/tls_lab.h"
#include "tests/support/raw_peer.h"
#include "tests/support/tls_client.h"

using namespace gmgate::test;

namespace {

constexpr const char* kStrangerAtCore = "10.2.0.99";
constexpr const char* kMark = "tag=stranger";  ///< in everything that the stranger answers

std::vector<std::string> values(const std::string& raw, const std::string& name) {
    std::vector<std::string> found;
    for (std::size_t at = raw.find("\r\n" + name + ": "); at != std::string::npos;
         at = raw.find("\r\n" + name + ": ", at + 1)) {
        const std::size_t begin = at + name.size() + 4;
        found.push_back(raw.substr(begin, raw.find("\r\n", begin) - begin));
    }
    return found;
}

/// What answers that INVITE as the far end could.
std::string answer_to(const std::string& invite, const std::string& status) {
    std::string out = "SIP/2.0 " + status + "\r\n";
    for (const char* name : {"Via", "Record-Route", "From", "Call-ID", "CSeq"})
        for (const auto& value : values(invite, name)) out += std::string(name) + ": " + value + "\r\n";
    return out + "To: " + values(invite, "To").at(0) + ";" + kMark +
           "\r\nContact: <sip:stranger@10.1.0.66:5080>\r\nContent-Length: 0\r\n\r\n";
}

/// The CANCEL or ACK that belongs to the INVITE with the Via `via` and whatever else it had.
std::string after(const std::string& invite, const std::string& method, const std::string& via,
                  const std::string& to_tag = {}) {
    const auto uri = invite.substr(7, invite.find(' ', 7) - 7);
    const auto cseq = values(invite, "CSeq").at(0);
    return method + " " + uri + " SIP/2.0\r\nVia: " + via +
           "\r\nMax-Forwards: 70\r\nFrom: " + values(invite, "From").at(0) + "\r\nTo: " + values(invite, "To").at(0) +
           to_tag + "\r\nCall-ID: " + values(invite, "Call-ID").at(0) + "\r\nCSeq: " + cseq.substr(0, cseq.find(' ')) +
           " " + method + "\r\nContent-Length: 0\r\n\r\n";
}

std::string hex(const std::string& bytes) {
    std::string out;
    for (const unsigned char c : bytes) {
        out += "0123456789abcdef"[c >> 4];
        out += "0123456789abcdef"[c & 15];
    }
    return out;
}

auto named(const std::string& name) {
    return [name](const nlohmann::json& event) { return event.value("event", "") == name; };
}

std::size_t count_in_log(const Lab& lab, const std::string& id) {
    const auto log = lab.gateway_log();
    std::size_t count = 0;
    for (auto at = log.find(id); at != std::string::npos; at = log.find(id, at + 1)) ++count;
    return count;
}

/// Caller and callee with a call that rings, another phone, and what the stranger knows of the call.
struct Ringing {
    Ringing(Lab& of, const Access& access, std::vector<std::string> caller_arguments = {})
        : lab(of),
          caller(lab, {.is_v6 = access.is_v6, .is_tcp = access.is_tcp, .arguments = std::move(caller_arguments)}),
          callee(lab,
                 {.user = 1, .is_v6 = access.is_v6, .is_tcp = access.is_tcp, .arguments = {"--answer-after", "600"}}),
          eve(lab, {.user = 2, .is_v6 = access.is_v6, .is_tcp = access.is_tcp}),
          link(lab.network.ue, Network::kUeLink) {
        for (Phone* phone : {&caller, &callee, &eve}) phone->demand_registered();
        lab.network.core.ip_batch(std::string("address add ") + kStrangerAtCore + "/16 dev core0\n");
        (void)ask_gmctl(lab, {"trace", impi_of_user(1)});
        const auto start = lab.core_mark();
        caller.program().write_line("call " + callee.impu() + " 600");
        caller.await_event(named("call_ringing"), "ringing");
        at_core = lab.core_received(start, "INVITE").at(0);
        const auto trace = ask_gmctl(lab, {"trace", impi_of_user(1)});
        for (const auto& message : trace.at("messages"))
            if (const auto bytes = message.value("bytes", "");
                message.value("outward", false) && !message.value("core_side", true) && bytes.starts_with("INVITE "))
                at_callee = bytes;
        REQUIRE_FALSE(at_callee.empty());
        vias = values(at_callee, "Via");
        REQUIRE(vias.size() >= 3);  // ours, the core's, ours, the caller's
    }

    /// Both of our requests answered with a 200 of the stranger's, by whatever `send` is; the gateway has seen and
    /// dropped both.
    template <class Send>
    void answer_both(Send send) {
        const auto before = count_in_log(lab, "response-wrong-door");
        send(answer_to(at_callee, "200 OK"));
        send(answer_to(at_core, "200 OK"));
        CHECK(eventually([&] { return count_in_log(lab, "response-wrong-door") == before + 2; }));
        check_ringing();
    }
    /// The caller's INVITE and the core's cancelled.
    std::vector<std::string> cancels() const {
        // Whoever wants to see the answer asks for it at the port that he has (RFC 3581); else it goes where Via says.
        return {after(at_core, "CANCEL", vias.back() + ";rport"), after(at_callee, "CANCEL", vias.at(1) + ";rport")};
    }

    void check_ringing() {
        CHECK(caller.events("call_established").empty());
        CHECK(caller.events("call_failed").empty());
        CHECK(callee.events("call_ended").empty());
    }
    /// The real answer still makes the call, acknowledged by the caller to the callee and to nobody else, and it ends
    /// as it should.
    void check_call_goes_on() {
        callee.program().write_line("answer");
        CHECK(caller.await_event(named("call_established"), "the call").value("tag", "").find("stranger") ==
              std::string::npos);
        callee.await_event(named("call_established"), "the ACK");
        const auto ended = caller.command("hangup", named("call_ended"));
        CHECK(ended.value("ok", false));
        CHECK(callee.await_event(named("call_ended"), "the BYE").value("by", "") == "remote");
        for (const char* word : {"ACK sip:", "BYE sip:", "INVITE sip:"}) CHECK(link.find(word).empty());
        for (const auto& raw : lab.core_received(0)) CHECK(raw.find(kMark) == std::string::npos);
    }

    Lab& lab;
    Phone caller, callee, eve;
    Capture link;
    std::string at_core, at_callee;  ///< our two INVITEs
    std::vector<std::string> vias;   ///< of the one to the callee, ours first
};

void check_doors(const Access& access) {
    auto options = plain_lab();
    options.core_lines = fmt::format("peers = \"{}\"\n", kStrangerAtCore);  // of the core, but not who was asked
    Lab lab(options);
    Ringing call(lab, access);
    INFO(lab.gateway_log());

    SUBCASE("in clear") {
        RawPeer datagrams(lab.network.ue, RawPeer::Kind::udp, access.ue_port(5071), access.gateway_port(5060));
        RawPeer stream(lab.network.ue, RawPeer::Kind::tcp, access.ue_port(5072), access.gateway_port(5060));
        REQUIRE(stream.connects(kPatience));
        for (RawPeer* stranger : {&datagrams, &stream}) {
            call.answer_both([&](const std::string& text) { stranger->send(text); });
            for (const auto& cancel : call.cancels()) {
                stranger->send(cancel);
                CHECK(stranger->receive_until("\r\n\r\n").starts_with("SIP/2.0 481"));
            }
            call.check_ringing();
        }
    }
    SUBCASE("over the SAs of another phone") {
        const auto inject = [&](const std::string& text) {
            CHECK(call.eve.command("inject " + hex(text), named("injected")).value("ok", false));
        };
        call.answer_both(inject);
        for (const auto& cancel : call.cancels()) inject(cancel);
        CHECK(call.eve.message(call.caller.impu(), unique_word("after-the-cancels-")) ==
              200);  // they have been dealt with
        call.check_ringing();
    }
    SUBCASE("at the core's port, from an address that is none of the core's") {
        const auto gateway = std::string(Network::kGwCore4) + ":5060";
        RawPeer datagrams(lab.network.core, RawPeer::Kind::udp, std::string(kStrangerAtCore) + ":5060", gateway);
        RawPeer stream(lab.network.core, RawPeer::Kind::tcp, std::string(kStrangerAtCore) + ":5062", gateway);
        REQUIRE(stream.connects(kPatience));
        for (RawPeer* stranger : {&datagrams, &stream}) {
            call.answer_both([&](const std::string& text) { stranger->send(text); });
            for (const auto& cancel : call.cancels()) {
                stranger->send(cancel);
                CHECK(stranger->receive_until("\r\n\r\n").starts_with("SIP/2.0 481"));
            }
            call.check_ringing();
        }
    }
    SUBCASE("by the callee itself, who answers our request to the core, and cancels the caller's") {
        const auto before = count_in_log(lab, "response-wrong-door");
        const auto inject = [&](const std::string& text) {
            CHECK(call.callee.command("inject " + hex(text), named("injected")).value("ok", false));
        };
        inject(answer_to(call.at_core, "486 Busy Here"));
        CHECK(eventually([&] { return count_in_log(lab, "response-wrong-door") == before + 1; }));
        inject(call.cancels().front());
        CHECK(call.callee.message(call.eve.impu(), unique_word("after-the-cancel-")) == 200);
        call.check_ringing();
    }
    call.check_call_goes_on();
}

}  // namespace

TEST_SUITE("doors") {
    TEST_CASE("a call over SAs, IPv4 and UDP, cannot be answered or cancelled through another door") {
        check_doors({false, false});
    }
    TEST_CASE("a call over SAs, IPv6 and TCP, cannot be answered or cancelled through another door") {
        check_doors({true, true});
    }

    TEST_CASE("a call of a phone on TLS cannot be answered or cancelled on another TLS connection or in clear") {
        TlsLab tls;
        Ringing call(*tls.lab, {}, tls.phone_arguments("tls", "1.3"));
        INFO(tls.lab->gateway_log());
        TlsClient clients(0x0304);
        const auto stranger = clients.connect(tls.lab->network.ue, Access{}.gateway_port(5061));
        REQUIRE(stranger->handshake());
        call.answer_both([&](const std::string& text) { stranger->write(text); });
        for (const auto& cancel : call.cancels()) {
            stranger->write(cancel);
            CHECK(stranger->read_until("\r\n\r\n").find("SIP/2.0 481") != std::string::npos);
        }
        RawPeer clear(tls.lab->network.ue, RawPeer::Kind::udp, Access{}.ue_port(5071), Access{}.gateway_port(5060));
        call.answer_both([&](const std::string& text) { clear.send(text); });
        for (const auto& cancel : call.cancels()) {
            clear.send(cancel);
            CHECK(clear.receive_until("\r\n\r\n").starts_with("SIP/2.0 481"));
        }
        call.check_ringing();
        call.check_call_goes_on();
    }
}
