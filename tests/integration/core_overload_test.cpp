// Overload between gateway and core on the real daemon: 503 and Retry-After, and the feedback of RFC 7339 in both
// directions.
#include <chrono>
#include <csignal>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "tests/integration/ringing.h"
#include "tests/support/raw_peer.h"

using namespace gmgate::test;

namespace {

constexpr const char* kOffer = ";oc;oc-algo=\"loss\"";

std::string hop_address(int port) { return fmt::format("{}:{}", Network::kCore4, port); }

/// An element of the core that answers as it is told.
struct Element {
    Element(Lab& lab, int port)
        : peer(lab.network.core, RawPeer::Kind::udp, hop_address(port), std::string(Network::kGwCore4) + ":5060") {}

    /// The next request of that method that is no copy of an earlier one; "" when none comes.
    std::string next(const std::string& method, std::chrono::milliseconds patience = kPatience) {
        for (;;) {
            auto text = peer.receive(patience).value_or("");
            if (text.empty()) return text;
            if (text.starts_with(method + " ") && seen.insert(header_values(text, "Via").at(0)).second) return text;
        }
    }
    /// Answers it; `said` takes the place of the offer in our Via.
    void answer(const std::string& request, const std::string& status, const std::string& said = {},
                const std::string& more = {}) {
        std::string text = "SIP/2.0 " + status + "\r\n";
        for (const char* name : {"Via", "From", "Call-ID", "CSeq"})
            for (const auto& value : header_values(request, name)) text += std::string(name) + ": " + value + "\r\n";
        text += "To: " + header_values(request, "To").at(0) + ";tag=core\r\n" + more + "Content-Length: 0\r\n\r\n";
        if (!said.empty()) text.replace(text.find(kOffer), std::string_view(kOffer).size(), said);
        peer.send(text);
    }

    RawPeer peer;
    std::set<std::string> seen{};
};

/// gmcore is somewhere else, and the next hops are the test's own.
LabOptions own_core(int hops, const std::string& limits = {}) {
    auto options = plain_lab();
    options.core_listen = hop_address(5099);
    options.core_lines = "ping-interval = 0\n";
    for (int i = 0; i < hops; ++i)
        options.next_hops +=
            fmt::format("[[core.next-hops]]\nhost = \"{}\"\npriority = {}\n", hop_address(5060 + i), i + 1);
    options.more_sections = limits;
    return options;
}

/// Somebody in clear, whose REGISTERs begin something and whose emergency calls must not wait.
struct Caller {
    explicit Caller(Lab& lab)
        : peer(lab.network.ue, RawPeer::Kind::udp, std::string(Network::kUe4) + ":5070",
               std::string(Network::kAccess4) + ":5060") {}

    void send(const std::string& method, const std::string& uri) {
        word = unique_word("busy-");
        peer.send(fmt::format(
            "{0} {1} SIP/2.0\r\nVia: SIP/2.0/UDP {2}:5070;branch=z9hG4bK{3}\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <{1}>\r\n"
            "Call-ID: {3}\r\nCSeq: 1 {0}\r\nContact: <sip:{2}:5070>\r\nSecurity-Client: {4}\r\nContent-Length: 0\r\n\r\n",
            method, uri, Network::kUe4, word, SecurityClient{}.text()));
    }
    void begin() { send("REGISTER", "sip:x"); }
    void call_for_help() { send("INVITE", "urn:service:sos"); }
    /// The final answer to what was sent last; the refusal of a call, which nobody acknowledges here, comes again.
    std::string final() {
        for (;;) {
            auto text = peer.receive().value_or("");
            const bool is_of_this = text.find("Call-ID: " + word + "\r\n") != text.npos;
            if (text.empty() || (is_of_this && !text.starts_with("SIP/2.0 1"))) return text;
        }
    }

    RawPeer peer;
    std::string word{};  ///< Call-ID of the last request
};

bool is_503_with_retry_after(const std::string& answer) {
    return status_of(answer) == 503 && !header_values(answer, "Retry-After").empty();
}

}  // namespace

TEST_SUITE("core-side") {
    TEST_CASE(
        "RFC 7339: what the core asks to hold back is held back and answered 503 here; emergency calls go on, and so does all when it takes it back") {
        Lab lab(own_core(1));
        Element core(lab, 5060);
        Caller caller(lab);
        caller.begin();
        auto request = core.next("REGISTER");
        INFO(request);
        REQUIRE(header_values(request, "Via").at(0).find(kOffer) != std::string::npos);
        core.answer(request, "403 Forbidden", ";oc=100;oc-algo=\"loss\";oc-validity=600000;oc-seq=7.1");
        const auto refused = caller.final();
        CHECK(status_of(refused) == 403);
        CHECK(refused.find("oc=") == std::string::npos);  // between us and the core
        for (int i = 0; i < 3; ++i) {
            caller.begin();
            CHECK(is_503_with_retry_after(caller.final()));
        }
        caller.call_for_help();
        request = core.next("INVITE");  // and no REGISTER before it
        REQUIRE_FALSE(request.empty());
        CHECK(core.seen.size() == 2);
        // An older word does not count; the next one ends it.
        core.answer(request, "404 Not Found", ";oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=7.0");
        CHECK(status_of(caller.final()) == 404);
        caller.begin();
        CHECK(is_503_with_retry_after(caller.final()));
        caller.call_for_help();
        core.answer(core.next("INVITE"), "404 Not Found", ";oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=8.0");
        CHECK(status_of(caller.final()) == 404);
        caller.begin();
        core.answer(core.next("REGISTER"), "403 Forbidden");
        CHECK(status_of(caller.final()) == 403);
    }

    TEST_CASE("RFC 7339: while gmgated is overloaded, a core that offers oc is told so in its Via, and no other is") {
        Lab lab(own_core(1, "[limits]\nloop-lag = 1000\n"));
        Element core(lab, 5060);
        const auto ask = [&](const std::string& offer) {
            core.peer.send(fmt::format(
                "OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP {1};branch={2}{3}\r\nMax-Forwards: 70\r\nFrom: <sip:core@{1}>;tag=1\r\n"
                "To: <sip:{0}>\r\nCall-ID: {2}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
                Network::kGwCore4, hop_address(5060), unique_word("z9hG4bK"), offer));
        };
        const auto via_of = [](const std::string& answer) {
            return answer.starts_with("SIP/2.0 ") ? header_values(answer, "Via").at(0) : "no answer: " + answer;
        };
        ::kill(lab.gateway().pid(), SIGSTOP);
        ask(kOffer);
        ask("");
        CHECK_FALSE(core.peer.receive(std::chrono::milliseconds(3000)).has_value());  // its loop is that late
        ::kill(lab.gateway().pid(), SIGCONT);
        const auto told = via_of(core.peer.receive().value_or(""));
        CHECK_MESSAGE(told.find(";oc=90;oc-algo=\"loss\";oc-validity=1000;oc-seq=") != std::string::npos, told);
        const auto untold = via_of(core.peer.receive().value_or(""));
        CHECK_MESSAGE(untold.find("oc=") == std::string::npos, untold);
        std::string answer;
        CHECK(eventually([&] {  // it is over
            ask(kOffer);
            answer = core.peer.receive().value_or("");
            return status_of(answer) == 200 && via_of(answer).find("oc=") == std::string::npos;
        }));
        CHECK_MESSAGE(status_of(answer) == 200, answer);
    }

    TEST_CASE(
        "RFC 3261 §16.7: one element's 503 brings the request to the other, two busy ones do not play ping-pong, the phone gets 500, and one request finds out when it is over") {
        Lab lab(own_core(2));
        Element first(lab, 5060), second(lab, 5061);
        Caller caller(lab);
        const auto heard_by = [](Element& element) { return element.next("REGISTER", std::chrono::milliseconds(1)); };
        caller.begin();
        first.answer(first.next("REGISTER"), "503 Service Unavailable", {}, "Retry-After: 600\r\n");
        second.answer(second.next("REGISTER"), "403 Forbidden");
        CHECK(status_of(caller.final()) == 403);
        lab.gateway().wait_for_text("next-hop-busy");
        caller.begin();  // the first one rests
        second.answer(second.next("REGISTER"), "503 Service Unavailable", {}, "Retry-After: 2\r\n");
        const auto softened = caller.final();
        CHECK(status_of(softened) == 500);
        CHECK(header_values(softened, "Retry-After") == std::vector<std::string>{"2"});
        CHECK(heard_by(first).empty());
        caller.begin();
        CHECK(is_503_with_retry_after(caller.final()));
        caller.call_for_help();  // goes out, whoever rests
        std::string help;
        CHECK(eventually([&] {
            for (Element* element : {&first, &second})
                if (help = element->next("INVITE", std::chrono::milliseconds(1)); !help.empty()) {
                    element->answer(help, "404 Not Found");
                    return true;
                }
            return false;
        }));
        CHECK(status_of(caller.final()) == 404);
        CHECK(heard_by(first).empty());
        CHECK(heard_by(second).empty());
        std::string probe;
        CHECK(eventually([&] {  // half-open: a request goes through when its time is over
            caller.begin();
            probe = second.next("REGISTER", std::chrono::milliseconds(200));
            return !probe.empty() || !is_503_with_retry_after(caller.final());
        }));
        REQUIRE_FALSE(probe.empty());
        second.answer(probe, "403 Forbidden");
        CHECK(status_of(caller.final()) == 403);
        lab.gateway().wait_for_text("next-hop-ready");
    }

    TEST_CASE(
        "RFC 3261 §16.7: one 503 without Retry-After condemns nobody: the next request goes to the same element") {
        Lab lab(own_core(1));
        Element core(lab, 5060);
        Caller caller(lab);
        for (int i = 0; i < 3; ++i) {
            caller.begin();
            const auto request = core.next("REGISTER");
            REQUIRE_FALSE(request.empty());
            core.answer(request, "503 Service Unavailable");
            CHECK(status_of(caller.final()) == 500);
        }
        CHECK(lab.gateway_log().find("next-hop-busy") == std::string::npos);
        CHECK(lab.gateway_log().find("next-hop-down") == std::string::npos);
    }
}
