// A call that rings between two phones, a third phone that is not part of it, and what a stranger who knows all of the
// call's identifiers (Via, branch, tags, as the far end of a call does) can make of them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "tests/integration/operator.h"

namespace gmgate::test {

inline constexpr const char* kStrangersTag = "tag=stranger";    ///< in everything that the stranger answers
inline constexpr const char* kStrangersWord = "X-Stranger: 1";  ///< in everything that he asks for inside the dialog

/// The values of a header field, one a line, as they stand in a message.
inline std::vector<std::string> header_values(const std::string& raw, const std::string& name) {
    std::vector<std::string> found;
    for (std::size_t at = raw.find("\r\n" + name + ": "); at != std::string::npos;
         at = raw.find("\r\n" + name + ": ", at + 1)) {
        const std::size_t begin = at + name.size() + 4;
        found.push_back(raw.substr(begin, raw.find("\r\n", begin) - begin));
    }
    return found;
}

inline std::string hex_of(const std::string& bytes) {
    std::string out;
    for (const unsigned char c : bytes) out += fmt::format("{:02x}", c);
    return out;
}

inline auto event_named(const std::string& name) {
    return [name](const nlohmann::json& event) { return event.value("event", "") == name; };
}

inline std::size_t count_in_log(const Lab& lab, const std::string& id) {
    const auto log = lab.gateway_log();
    std::size_t count = 0;
    for (auto at = log.find(id); at != std::string::npos; at = log.find(id, at + 1)) ++count;
    return count;
}

/// What answers that INVITE as the far end could.
inline std::string answer_to(const std::string& invite, const std::string& status) {
    std::string out = "SIP/2.0 " + status + "\r\n";
    for (const char* name : {"Via", "Record-Route", "From", "Call-ID", "CSeq"})
        for (const auto& value : header_values(invite, name)) out += std::string(name) + ": " + value + "\r\n";
    return out + "To: " + header_values(invite, "To").at(0) + ";" + kStrangersTag +
           "\r\nContact: <sip:stranger@10.1.0.66:5080>\r\nContent-Length: 0\r\n\r\n";
}

/// The CANCEL or ACK that belongs to the INVITE with the Via `via` and whatever else it had.
inline std::string after_invite(const std::string& invite, const std::string& method, const std::string& via) {
    const auto uri = invite.substr(7, invite.find(' ', 7) - 7);
    const auto cseq = header_values(invite, "CSeq").at(0);
    return method + " " + uri + " SIP/2.0\r\nVia: " + via +
           "\r\nMax-Forwards: 70\r\nFrom: " + header_values(invite, "From").at(0) +
           "\r\nTo: " + header_values(invite, "To").at(0) + "\r\nCall-ID: " + header_values(invite, "Call-ID").at(0) +
           "\r\nCSeq: " + cseq.substr(0, cseq.find(' ')) + " " + method + "\r\nContent-Length: 0\r\n\r\n";
}

/// What one end of a dialog writes into each of its requests.
struct DialogEnd {
    std::string uri, from, to, call_id;
    std::vector<std::string> route;

    /// That request, inside the dialog; `sent_by`: "UDP 10.1.0.2:5071", who wants the answer.
    std::string request(const std::string& method, const std::string& sent_by) const {
        std::string text =
            fmt::format("{} {} SIP/2.0\r\nVia: SIP/2.0/{};branch=z9hG4bK{};rport\r\nMax-Forwards: 70\r\n", method, uri,
                        sent_by, unique_word("door-"));
        for (const auto& value : route) text += "Route: " + value + "\r\n";
        text += fmt::format("From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {}\r\nContact: <sip:stranger@10.1.0.66>\r\n",
                            from, to, call_id, method == "ACK" ? 1 : 77, method);
        for (const auto& [of, field] :
             {std::pair("PRACK", "RAck: 1 1 INVITE"), std::pair("NOTIFY", "Event: refer"),
              std::pair("NOTIFY", "Subscription-State: active"), std::pair("SUBSCRIBE", "Event: presence"),
              std::pair("REFER", "Refer-To: <sip:stranger@10.1.0.66>")})
            if (method == of) text += std::string(field) + "\r\n";
        return text + kStrangersWord + "\r\nContent-Length: 0\r\n\r\n";
    }
};

/// The phones of a call; user 0 calls user 1, user 2 is another one.
struct CallOptions {
    Access access{};
    std::vector<std::string> caller{}, callee{}, other{};  ///< arguments of gmue
};

/// Caller and callee with a call that rings, another phone, and what the stranger knows of the call.
struct Ringing {
    Ringing(Lab& of, const CallOptions& options)
        : lab(of),
          caller(lab, phone(0, options.access, options.caller)),
          callee(lab, phone(1, options.access, options.callee, {"--answer-after", "600"})),
          eve(lab, phone(2, options.access, options.other)),
          link(lab.network.ue, Network::kUeLink) {
        for (Phone* one : {&caller, &callee, &eve}) one->demand_registered();
        for (const std::size_t user : {0, 1}) (void)ask_gmctl(lab, {"trace", impi_of_user(user)});
        const auto start = lab.core_mark();
        caller.program().write_line("call " + callee.impu() + " 600");
        caller.await_event(event_named("call_ringing"), "ringing");
        at_core = lab.core_received(start, "INVITE").at(0);
        at_callee = traced(1, "INVITE ", true);
        REQUIRE_FALSE(at_callee.empty());
        vias = header_values(at_callee, "Via");
        REQUIRE(vias.size() >= 3);  // ours, the core's, ours, the caller's
    }

    static PhoneOptions phone(std::size_t user, const Access& access, std::vector<std::string> arguments,
                              const std::vector<std::string>& more = {}) {
        arguments.insert(arguments.end(), more.begin(), more.end());
        return {.user = user, .is_v6 = access.is_v6, .is_tcp = access.is_tcp, .arguments = std::move(arguments)};
    }
    /// The newest message that begins so, as it crossed the access side for that user; "" when there is none.
    std::string traced(std::size_t user, const std::string& begin, bool is_outward) const {
        std::string found;
        const auto trace = ask_gmctl(lab, {"trace", impi_of_user(user)});
        for (const auto& message : trace.at("messages"))
            if (const auto bytes = message.value("bytes", ""); message.value("outward", !is_outward) == is_outward &&
                                                               !message.value("core_side", true) &&
                                                               bytes.starts_with(begin))
                found = bytes;
        return found;
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
    /// The caller's INVITE and the core's cancelled. Whoever wants to see the answer asks for it at the port that he
    /// has (RFC 3581); else it goes where Via says.
    std::vector<std::string> cancels() const {
        return {after_invite(at_core, "CANCEL", vias.back() + ";rport"),
                after_invite(at_callee, "CANCEL", vias.at(1) + ";rport")};
    }
    void inject(Phone& from, const std::string& text) {
        CHECK(from.command("inject " + hex_of(text), event_named("injected")).value("ok", false));
    }
    /// What a phone has sent before has been dealt with.
    void settle(Phone& from, Phone& to) { CHECK(from.message(to.impu(), unique_word("settled-")) == 200); }

    void check_ringing() {
        CHECK(caller.events("call_established").empty());
        CHECK(caller.events("call_failed").empty());
        CHECK(callee.events("call_ended").empty());
    }
    /// The real answer still makes the call, acknowledged by the caller to the callee and to nobody else.
    void establish() {
        callee.program().write_line("answer");
        CHECK(caller.await_event(event_named("call_established"), "the call").value("tag", "").find("stranger") ==
              std::string::npos);
        callee.await_event(event_named("call_established"), "the ACK");
    }
    /// What each end writes into its requests; the call stands.
    std::vector<DialogEnd> ends() const {
        const std::string ack = traced(0, "ACK ", false);
        REQUIRE_FALSE(ack.empty());
        const auto contact = header_values(at_callee, "Contact").at(0);
        const auto begin = contact.find('<') + 1;
        DialogEnd ends[2];
        ends[0] = {ack.substr(4, ack.find(' ', 4) - 4), header_values(ack, "From").at(0),
                   header_values(ack, "To").at(0), header_values(ack, "Call-ID").at(0), header_values(ack, "Route")};
        ends[1] = {contact.substr(begin, contact.find('>') - begin), ends[0].to, ends[0].from, ends[0].call_id,
                   header_values(at_callee, "Record-Route")};
        for (const auto& end : ends) REQUIRE_FALSE(end.route.empty());
        return {ends[0], ends[1]};
    }
    /// It ends as it should, and nothing of it was readable on the access link or reached anybody else.
    void hang_up() {
        CHECK(caller.command("hangup", event_named("call_ended")).value("ok", false));
        CHECK(callee.await_event(event_named("call_ended"), "the BYE").value("by", "") == "remote");
        for (const auto& frame : link.frames())
            if (!frame.contains(kStrangersWord))
                for (const char* word : {"ACK sip:", "BYE sip:", "INVITE sip:"}) CHECK_FALSE(frame.contains(word));
        for (const auto& raw : lab.core_received(0)) CHECK(raw.find(kStrangersTag) == std::string::npos);
    }

    Lab& lab;
    Phone caller, callee, eve;
    Capture link;
    std::string at_core, at_callee;  ///< our two INVITEs
    std::vector<std::string> vias;   ///< of the one to the callee, ours first
};

}  // namespace gmgate::test
