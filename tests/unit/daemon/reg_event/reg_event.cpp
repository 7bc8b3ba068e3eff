// The reg event package: documents read and limited, what they mean for a contact, and the subscription on real sockets
// with an S-CSCF played by the test.
#include <fmt/format.h>

#include "base/spawn.h"
#include "daemon/reg_event/reg_event.h"
#include "sip/message/edit.h"
#include "tests/support/fake_kernel.h"
#include "tests/unit/daemon/proxy/support.h"
#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;
using gmgate::sip::test::Loop;
using gmgate::sip::test::Peer;

namespace {

std::string document(std::string_view inside, int version = 0, std::string_view state = "full") {
    return fmt::format(
        "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"{}\" state=\"{}\">{}</reginfo>\n",
        version, state, inside);
}
std::string registration(std::string_view contact_state, std::string_view event, std::string_view more = "",
                         std::string_view state = "active") {
    return fmt::format(
        "<registration aor=\"sip:alice@home.example\" id=\"a\" state=\"{}\"><contact id=\"1\" state=\"{}\" event=\"{}\"{}>"
        "<uri>sip:alice@192.0.2.7:1357</uri><unknown-param name=\"+sip.instance\">\"&lt;urn:uuid:1&gt;\"</unknown-param></contact></registration>",
        state, contact_state, event, more);
}
RegInfo parsed(const std::string& text) {
    const auto info = parse_reginfo(text);
    REQUIRE_MESSAGE(info.has_value(), info.error().text);
    return *info;
}
std::string why(std::string_view text, const RegInfoLimits& limits = {}) {
    const auto info = parse_reginfo(text, limits);
    return info ? "" : info.error().text;
}

}  // namespace

TEST_CASE("reginfo: a document of RFC 3680 with the GRUU extension and things of other namespaces") {
    const RegInfo info = parsed(document(registration("active", "shortened", " expires=\"60\"") +
                                             "<other xmlns=\"urn:x\"><contact state=\"?\"/></other>",
                                         7, "partial"));
    CHECK(info.version == 7);
    CHECK_FALSE(info.is_full);
    REQUIRE(info.registrations.size() == 1);
    CHECK(info.registrations[0].aor == "sip:alice@home.example");
    const auto& contact = info.registrations[0].contacts.at(0);
    CHECK(contact.uri == "sip:alice@192.0.2.7:1357");
    CHECK(contact.instance == "<urn:uuid:1>");
    CHECK(contact.is_active);
    CHECK(contact.event == "shortened");
    CHECK(contact.expires == seconds{60});
}

TEST_CASE("reginfo: hostile documents end with a reason") {
    CHECK(contains(why("<reginfo"), "line 1"));
    CHECK(contains(why("<presence xmlns=\"urn:ietf:params:xml:ns:pidf\"/>"), "not reginfo"));
    CHECK(contains(why("<!DOCTYPE reginfo [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>" + document("&b;")),
                   "DTD"));
    CHECK(contains(why("<!DOCTYPE reginfo SYSTEM \"file:///etc/passwd\">" + document("")), "DTD"));
    std::string deep;
    for (int i = 0; i < 40; ++i) deep += "<a>";
    CHECK(contains(why(document(deep)), "too deeply"));
    std::string many;
    for (int i = 0; i < 5000; ++i) many += "<a/>";
    CHECK(contains(why(document(many)), "too many elements"));
    CHECK(contains(why(document(std::string(70000, ' '))), "octets, more than"));
    CHECK(contains(why(document("", 0, "half")), "neither full nor partial"));
    CHECK(contains(why(document(registration("gone", "expired"))), "neither active nor terminated"));
    CHECK(contains(why(document(registration("active", "registered", " expires=\"x\""))), "no number"));
    CHECK_FALSE(why("").empty());
}

TEST_CASE("C-52: a contact has ended when nothing holds it active; it is known by its instance, else by its URI") {
    constexpr auto kUri = "sip:alice@192.0.2.7:1357";
    const auto news = [&](const std::string& inside, std::string_view uri, std::string_view instance) {
        return news_of(parsed(document(inside)), uri, instance);
    };
    CHECK(news(registration("terminated", "deactivated"), kUri, "")->is_terminated);
    CHECK(news(registration("terminated", "deactivated"), "sip:x@192.0.2.9", "<urn:uuid:1>")->is_terminated);
    CHECK_FALSE(news(registration("terminated", "deactivated"), kUri, "<urn:uuid:2>").has_value());
    CHECK_FALSE(news(registration("terminated", "deactivated"), "sip:alice@192.0.2.7:1358", "").has_value());
    CHECK(news("<registration aor=\"sip:a@b\" id=\"a\" state=\"terminated\"/>", kUri, "")->is_terminated);
    CHECK_FALSE(news("<registration aor=\"sip:a@b\" id=\"a\" state=\"init\"/>", kUri, "").has_value());
    CHECK_FALSE(news(registration("terminated", "deactivated") + registration("active", "registered"), kUri, "")
                    ->is_terminated);  // another identity holds it
    CHECK(news(registration("active", "shortened", " expires=\"60\""), kUri, "")->expires == seconds{60});
}

TEST_CASE("C-51: a subscription is refreshed 600 s before its end, or half-way") {
    CHECK(refresh_after(seconds{600000}) == seconds{599400});
    CHECK(refresh_after(seconds{1201}) == seconds{601});
    CHECK(refresh_after(seconds{1200}) == seconds{600});
    CHECK(refresh_after(seconds{1}) == seconds{1});
}

namespace {

struct MovedClock : Clock {
    TimePoint at = std::chrono::steady_clock::now();
    TimePoint now() const override { return at; }
};

struct Core2 {
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
    ContactKey key{Impi("alice_private@home.example"), "<urn:uuid:1>", ""};

    Core2() {
        REQUIRE(transports.listen(core_side, {}).has_value());
        transactions.on_request([this](std::shared_ptr<sip::ServerTransaction> transaction) {
            if (events.is_ours(transaction->request()))
                spawn(loop.io.get_executor(), events.notify(std::move(transaction)), "test");
            else (void)transaction->respond(sip::make_response(transaction->request(), 404, "Not Found", "t"));
        });
        auto made = std::make_unique<Registration>();
        made->key = key;
        made->token = "tok1";
        made->impus = {Impu("sip:alice@home.example")};
        made->contact_uri = "sip:alice@192.0.2.7:1357";
        made->realm_id = "access";
        made->expires = clock.now() + seconds{3600};
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
    ~Core2() { transports.shutdown(); }
    Config make_config() const {
        Config c;
        c.core.listen = core_side;
        c.core.next_hops = {NextHop{.endpoint = scscf.endpoint()}};
        c.core.visited_network_id = "visited.example";
        c.core.reg_event = true;
        return c;
    }
    Registration& alice() { return *table.find(key); }
    seconds left() { return std::chrono::duration_cast<seconds>(alice().expires - clock.now()); }

    /// Answers a SUBSCRIBE as an S-CSCF and returns it.
    std::string accept(int expires, int status = 200) {
        const std::string subscribe = scscf.receive();
        std::string answer = sip::test::response_text(subscribe, status, "notifier");
        answer.insert(answer.find("Content-Length"),
                      fmt::format("Expires: {}\r\nContact: <sip:scscf@{}>\r\n", expires, scscf.endpoint().to_string()));
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

}  // namespace

TEST_CASE(
    "C-51: the first registration of a user subscribes at the S-CSCF, a second contact does not; the subscription is refreshed in its dialog and ends with the user") {
    Core2 core;
    core.events.registered(core.alice());
    core.events.registered(core.alice());
    const std::string subscribe = core.accept(3600);
    CHECK(subscribe.starts_with("SUBSCRIBE sip:alice@home.example SIP/2.0\r\n"));
    CHECK(contains(subscribe, "To: <sip:alice@home.example>\r\n"));
    CHECK(contains(subscribe, "P-Asserted-Identity: <sip:" + core.core_side.to_string() + ">\r\n"));
    CHECK(contains(subscribe, "Event: reg\r\n"));
    const std::string tag(sip::tag_of(*parse(subscribe), sip::HeaderId::from));
    CHECK(
        contains(subscribe, "Contact: <sip:reg-event-" + tag + "@"));  // of its own, for notifiers that compare no more
    CHECK(contains(subscribe, "Expires: 600000\r\n"));
    CHECK(core.loop.until([&] { return core.counters.get(Counter::reg_event_subscribed) == 1; }));
    CHECK(core.events.size() == 1);

    core.clock.at += seconds{3001};  // 600 s before the end
    core.events.sweep();
    const std::string refresh = core.accept(3600);
    CHECK(refresh.starts_with("SUBSCRIBE sip:scscf@" + core.scscf.endpoint().to_string() + " SIP/2.0\r\n"));
    CHECK(contains(refresh, ";tag=notifier\r\n"));
    CHECK(contains(refresh, "CSeq: 2 SUBSCRIBE"));
    core.loop.drain(std::chrono::milliseconds{20});

    core.table.take(core.key);
    core.clock.at += seconds{3001};
    core.events.sweep();
    CHECK(contains(core.accept(0), "Expires: 0\r\n"));
    CHECK(core.loop.until([&] { return core.events.size() == 0; }));
}

TEST_CASE("C-52: the network ends a registration: 64·T1 are left to it and its SAs; a shorter expiry is followed") {
    Core2 core;
    core.events.registered(core.alice());
    const std::string subscribe = core.accept(600000);
    CHECK(core.notify(subscribe, document(registration("active", "registered", " expires=\"3600\""), 0)) ==
          "SIP/2.0 200 OK");
    CHECK(core.left() == seconds{3600});
    CHECK(core.notify(subscribe, document(registration("active", "shortened", " expires=\"600\""), 1, "partial")) ==
          "SIP/2.0 200 OK");
    CHECK(core.left() == seconds{600});
    CHECK(core.notify(subscribe, document(registration("active", "refreshed", " expires=\"60\""), 1, "partial")) ==
          "SIP/2.0 200 OK");  // an old version
    CHECK(core.left() == seconds{600});
    CHECK(core.notify(subscribe, document(registration("terminated", "deactivated", "", "terminated"), 2, "partial")) ==
          "SIP/2.0 200 OK");
    CHECK(core.left() == core.config.timers.old_set);
    CHECK(core.alice().sets.front()->expires == core.alice().expires);
    CHECK(core.counters.get(Counter::network_deregistered) == 1);
    core.clock.at += core.config.timers.old_set;
    (void)core.loop.get([](Expiry& expiry) -> Task<int> {
        co_await expiry.sweep();
        co_return 0;
    }(core.expiry));
    CHECK(core.table.find(core.key) == nullptr);
}

TEST_CASE("a NOTIFY that is not of the dialog, of another package or no reginfo is refused and changes nothing") {
    Core2 core;
    core.events.registered(core.alice());
    const std::string subscribe = core.accept(600000);
    const std::string ended = document(registration("terminated", "deactivated"));
    CHECK(core.notify(subscribe, ended, "active", "reg", "guess") == "SIP/2.0 481 Subscription Does Not Exist");
    CHECK(core.notify(subscribe, ended, "active", "presence") == "SIP/2.0 489 Bad Event");
    CHECK(core.notify(subscribe, "<reginfo>") == "SIP/2.0 400 Bad reginfo");
    CHECK(core.left() == seconds{3600});
}

TEST_CASE(
    "a subscription that fails is tried again later; one that the S-CSCF has forgotten begins anew; a terminated one as long as the user is there") {
    Core2 core;
    core.events.registered(core.alice());
    (void)core.accept(0, 500);
    CHECK(core.loop.until([&] { return core.counters.get(Counter::reg_event_failed) == 1; }));
    core.clock.at += seconds{61};
    core.events.sweep();
    const std::string second = core.accept(600);
    CHECK(core.loop.until([&] { return core.counters.get(Counter::reg_event_subscribed) == 1; }));
    core.clock.at += seconds{301};
    core.events.sweep();
    (void)core.accept(0, 481);
    const std::string third = core.accept(600000);
    CHECK(contains(third, "CSeq: 1 SUBSCRIBE"));
    CHECK(parse(third)->value(sip::HeaderId::call_id) != parse(second)->value(sip::HeaderId::call_id));
    CHECK(core.loop.until([&] { return core.counters.get(Counter::reg_event_subscribed) == 2; }));
    (void)core.notify(third, document(registration("active", "registered")), "terminated;reason=timeout");
    CHECK(core.events.size() == 1);
    CHECK(contains(core.accept(600000), "CSeq: 1 SUBSCRIBE"));
}
