// The subscription to reg on real sockets, with an S-CSCF played by the test.
#include "tests/unit/daemon/reg_event/scscf.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

TEST_CASE(
    "C-51: the first registration of a user subscribes at the S-CSCF, a second contact does not; the subscription is refreshed in its dialog and ends with the user") {
    Scscf core;
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
    Scscf core;
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

TEST_CASE(
    "C-52: what the network says of one identity of a contact ends or shortens that one, and the last ends the SAs") {
    Scscf core;
    Registration& alice = core.alice();
    alice.identities.push_back({.aor = Impu("sip:work@home.example"),
                                .impus = {Impu("sip:work@home.example"), Impu("tel:+4930123")},
                                .service_route = {},
                                .expires = core.clock.now() + seconds{3000}});
    alice.summarise();
    core.events.registered(alice);
    const std::string subscribe = core.accept(600000);
    const auto of_work = [](std::string text) {
        const std::string first = "sip:alice@home.example";
        for (auto at = text.find("aor=\"" + first); at != std::string::npos; at = text.find("aor=\"" + first))
            text.replace(at + 5, first.size(), "tel:+4930123");
        return text;
    };
    CHECK(core.notify(subscribe, document(of_work(registration("active", "shortened", " expires=\"600\"")), 0)) ==
          "SIP/2.0 200 OK");
    CHECK(core.left() == seconds{3600});
    CHECK(alice.identities.back().expires == core.clock.now() + seconds{600});
    CHECK(alice.sets.front()->expires > alice.expires);
    const auto end = registration("terminated", "deactivated", "", "terminated");
    SUBCASE("the second first") {
        CHECK(core.notify(subscribe, document(of_work(end), 1, "partial")) == "SIP/2.0 200 OK");
        CHECK(core.left() == seconds{3600});
        CHECK(alice.impus == std::vector{Impu("sip:alice@home.example")});
        CHECK(core.notify(subscribe, document(end, 2, "partial")) == "SIP/2.0 200 OK");
    }
    SUBCASE("the first first") {
        CHECK(core.notify(subscribe, document(end, 1, "partial")) == "SIP/2.0 200 OK");
        CHECK(core.left() == seconds{600});
        CHECK(alice.impus.front() == Impu("sip:work@home.example"));
        CHECK(core.notify(subscribe, document(of_work(end), 2, "partial")) == "SIP/2.0 200 OK");
    }
    CHECK(core.left() == core.config.timers.old_set);
    CHECK(alice.sets.front()->expires == alice.expires);
    CHECK(core.counters.get(Counter::network_deregistered) == 2);
}

TEST_CASE("a NOTIFY that is not of the dialog, of another package or no reginfo is refused and changes nothing") {
    Scscf core;
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
    Scscf core;
    core.events.registered(core.alice());
    (void)core.accept(0, 500);
    CHECK(core.loop.until([&] { return core.counters.get(Counter::reg_event_failed) == 1; }));
    core.clock.at += seconds{76};  // a minute and a quarter of it at most
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
    core.clock.at += seconds{301};  // it stood for a while
    (void)core.notify(third, document(registration("active", "registered")), "terminated;reason=timeout");
    CHECK(core.events.size() == 1);
    CHECK(contains(core.accept(600000), "CSeq: 1 SUBSCRIBE"));
}
