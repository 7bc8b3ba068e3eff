// The S-CSCF as the tests of reg_event play it: SUBSCRIBE and NOTIFY on real sockets, a clock that the test moves.
#pragma once

#include <fmt/format.h>

#include "base/spawn.h"
#include "daemon/reg_event/reg_event.h"
#include "sip/message/edit.h"
#include "tests/support/fake_kernel.h"
#include "tests/unit/daemon/proxy/support.h"
#include "tests/unit/sip/transport/net_support.h"

namespace gmgate::daemon::test {

using gmgate::sip::test::Loop;
using gmgate::sip::test::Peer;

inline std::string document(std::string_view inside, int version = 0, std::string_view state = "full") {
    return fmt::format(
        "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"{}\" state=\"{}\">{}</reginfo>\n",
        version, state, inside);
}
inline std::string registration(std::string_view contact_state, std::string_view event, std::string_view more = "",
                                std::string_view state = "active") {
    return fmt::format(
        "<registration aor=\"sip:alice@home.example\" id=\"a\" state=\"{}\"><contact id=\"1\" state=\"{}\" event=\"{}\"{}>"
        "<uri>sip:alice@192.0.2.7:1357</uri><unknown-param name=\"+sip.instance\">\"&lt;urn:uuid:1&gt;\"</unknown-param></contact></registration>",
        state, contact_state, event, more);
}
struct MovedClock : Clock {
    TimePoint at = std::chrono::steady_clock::now();
    TimePoint now() const override { return at; }
};

struct Scscf {
    Loop loop;
    Peer scscf = Peer::udp(loop, Family::v4);
    Endpoint core_side = sip::test::free_endpoint(Family::v4);
    MovedClock clock;
    Config config = make_config();
    sip::Transports transports{loop.io.get_executor(), {}};
    sip::Transactions transactions{
        loop.io.get_executor(), transports, {}, [](const sip::Flow&) { return sip::kCoreTimers; }};
    gmgate::test::FakeKernel kernel;
    Table table;
    Counters counters;
    xfrm::SpiPool spis{Spi{0x10000000}, Spi{0x10001000}};
    SaSets sets{config, table, kernel, spis, transports, counters, clock};
    Expiry expiry{config, table, sets, transports, counters, clock};
    CoreLink link{config.core, transports, transactions};
    RegEvents events{loop.io.get_executor(), config, table, expiry, link, counters, clock};
    std::uint64_t subscribed = 0;  ///< what the test has seen of the counter
    ContactKey key{Impi("alice_private@home.example"), "<urn:uuid:1>", ""};

    Scscf() {
        REQUIRE(transports.listen(core_side, {}).has_value());
        transactions.on_request([this](std::shared_ptr<sip::ServerTransaction> transaction) {
            if (events.is_ours(transaction->request()))
                spawn(loop.io.get_executor(), events.notify(std::move(transaction)), "test");
            else (void)transaction->respond(sip::make_response(transaction->request(), 404, "Not Found", "t"));
        });
        auto made = std::make_unique<Registration>();
        made->key = key;
        made->token = "tok1";
        made->contact_uri = "sip:alice@192.0.2.7:1357";
        made->realm_id = "access";
        made->identities.push_back({.aor = Impu("sip:alice@home.example"),
                                    .impus = {Impu("sip:alice@home.example")},
                                    .service_route = {},
                                    .expires = clock.now() + seconds{3600}});
        made->summarise();
        auto set = std::make_unique<SaSet>();
        set->number = SetNumber{7};
        set->state = SetState::established;
        set->in_use = true;
        set->parameters.ue = *Address::parse("192.0.2.7");
        set->parameters.gateway = *Address::parse("192.0.2.1");
        set->expires = clock.now() + seconds{3630};
        made->sets.push_back(std::move(set));
        table.add(std::move(made));
    }
    ~Scscf() { transports.shutdown(); }
    Config make_config() const {
        Config c;
        c.core.listen = {core_side};
        c.core.next_hops = {NextHop{.endpoint = scscf.endpoint()}};
        c.core.visited_network_id = "visited.example";
        c.core.reg_event = true;
        return c;
    }
    Registration& alice() { return *table.find(key); }
    seconds left() { return std::chrono::duration_cast<seconds>(alice().expires - clock.now()); }

    /// Answers a SUBSCRIBE as an S-CSCF and returns it.
    std::string accept(int expires, int status = 200, std::string_view more = {}) {
        std::string subscribe = scscf.receive();
        while (!subscribe.starts_with("SUBSCRIBE")) subscribe = scscf.receive();
        std::string answer = sip::test::response_text(subscribe, status, "notifier");
        answer.insert(answer.find("Content-Length"), fmt::format("Expires: {}\r\nContact: <sip:scscf@{}>\r\n{}",
                                                                 expires, scscf.endpoint().to_string(), more));
        scscf.send(answer, core_side);
        return subscribe;
    }
    /// Sends a NOTIFY in the dialog of that SUBSCRIBE and returns the answer's first line.
    std::string notify(const std::string& subscribe, const std::string& body, std::string_view state = "active",
                       std::string_view event = "reg", std::string_view tag = {}) {
        const auto message = parse(subscribe);
        const std::string ours(sip::tag_of(*message, sip::HeaderId::from));
        static int cseq = 0;
        scscf.send(
            crlf(fmt::format(
                "NOTIFY sip:reg-event@{} SIP/2.0\nVia: SIP/2.0/UDP {};branch=z9hG4bKn{}\nMax-Forwards: 70\nFrom: <sip:alice@home.example>;tag=notifier\n"
                "To: <sip:x>;tag={}\nCall-ID: {}\nCSeq: {} NOTIFY\nEvent: {}\nSubscription-State: {}\nContent-Type: application/reginfo+xml\nContent-Length: {}\n\n",
                core_side.to_string(), scscf.endpoint().to_string(), ++cseq, tag.empty() ? ours : std::string(tag),
                message->value(sip::HeaderId::call_id), cseq, event, state, body.size())) +
                body,
            core_side);
        std::string answer = scscf.receive();
        while (!answer.starts_with("SIP/2.0")) answer = scscf.receive();  // past SUBSCRIBEs that come meanwhile
        return answer.substr(0, answer.find("\r\n"));
    }
};

}  // namespace gmgate::daemon::test
