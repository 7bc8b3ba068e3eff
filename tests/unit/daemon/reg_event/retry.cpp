// What a notifier's words mean for the next try; an S-CSCF that misbehaves, and a hundred thousand users at once.
#include <malloc.h>

#include <set>

#include "tests/unit/daemon/reg_event/scscf.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

TEST_CASE("C-51: a subscription is refreshed 600 s before its end, or half-way") {
    CHECK(refresh_after(seconds{600000}) == seconds{599400});
    CHECK(refresh_after(seconds{1201}) == seconds{601});
    CHECK(refresh_after(seconds{1200}) == seconds{600});
    CHECK(refresh_after(seconds{1}) == seconds{1});
}

TEST_CASE("RFC 6665 §8.2.3: Subscription-State is read leniently") {
    const auto state = parse_subscription_state("Terminated ; reason=probation;retry-after= 120 (later)");
    CHECK(state.is_terminated);
    CHECK(state.reason == "probation");
    CHECK(state.retry_after == seconds{120});
    CHECK_FALSE(parse_subscription_state("active;expires=60").is_terminated);
    CHECK(parse_subscription_state("active;expires=60").expires == seconds{60});
    CHECK_FALSE(parse_subscription_state("pending;reason=noresource").is_terminated);
    CHECK_FALSE(parse_subscription_state("").is_terminated);
    CHECK_FALSE(parse_subscription_state("terminated;retry-after=99999999999").retry_after.has_value());
}

TEST_CASE(
    "waits double from a minute to half an hour, never less than the notifier asked for, a quarter more at most") {
    const Ending later{.wish = Wish::later};
    CHECK(wait_before_retry(later, 0, 0) == seconds{60});
    CHECK(wait_before_retry(later, 1, 0) == seconds{120});
    CHECK(wait_before_retry(later, 100, 0) == seconds{1800});
    CHECK(wait_before_retry(later, 0, 15) == seconds{75});
    CHECK(wait_before_retry(later, 0, 16) == seconds{60});
    CHECK(wait_before_retry({.wish = Wish::at_once}, 0, 7) == seconds{0});
    CHECK(wait_before_retry({.wish = Wish::at_once}, 1, 0) == seconds{60});
    CHECK(wait_before_retry({.wish = Wish::much_later}, 0, 0) == seconds{1800});
    CHECK(wait_before_retry({.wish = Wish::later, .at_least = seconds{7200}}, 0, 0) == seconds{7200});
    const auto forever = after_termination({.is_terminated = true, .retry_after = seconds{4000000000}});
    CHECK(wait_before_retry(forever, 0, 0) == seconds{86400});
}

namespace {

using Answer = std::function<void(Scscf&)>;

/// SUBSCRIBEs within that time of an S-CSCF that answers each in its way.
int subscribes_within(Scscf& core, seconds time, const Answer& answer) {
    int count = 0;
    const auto end = core.clock.at + time;
    for (; core.clock.at < end; core.clock.at += seconds{10}) {
        core.events.sweep();
        while (core.events.under_way() != 0) {
            ++count;
            REQUIRE(count < 1000);
            const auto before =
                core.counters.get(Counter::reg_event_failed) + core.counters.get(Counter::reg_event_subscribed);
            answer(core);
            CHECK(core.loop.until([&] {
                return core.counters.get(Counter::reg_event_failed) +
                           core.counters.get(Counter::reg_event_subscribed) !=
                       before;
            }));
        }
        core.alice().expires = core.clock.at + seconds{3600};
    }
    return count;
}

Answer ends_with(std::string state) {
    return [state = std::move(state)](Scscf& core) {
        const std::string subscribe = core.accept(600000);
        CHECK(core.loop.until([&] { return core.counters.get(Counter::reg_event_subscribed) != core.subscribed; }));
        core.subscribed = core.counters.get(Counter::reg_event_subscribed);
        CHECK(core.notify(subscribe, document(registration("active", "registered")), "terminated" + state) ==
              "SIP/2.0 200 OK");
    };
}

}  // namespace

TEST_CASE(
    "C-51: an S-CSCF that ends each subscription at once gets a few in an hour; one that wants none gets none until the user registers again") {
    const auto count = [](const std::string& state) {
        Scscf core;
        core.events.registered(core.alice());
        return subscribes_within(core, seconds{3600}, ends_with(state));
    };
    for (const char* state : {";reason=deactivated", ";reason=timeout"}) {
        INFO(std::string(state));
        const int seen = count(state);
        CHECK(seen >= 3);  // the second at once
        CHECK(seen <= 8);
    }
    for (const char* state : {"", ";reason=probation", ";reason=giveup", ";reason=unheard-of"}) {
        INFO(std::string(state));
        const int seen = count(state);
        CHECK(seen >= 3);
        CHECK(seen <= 7);
    }
    CHECK(count(";reason=probation;retry-after=1800") == 2);
    CHECK(count(";reason=giveup;retry-after=4000000000") == 1);
    for (const char* state : {";reason=rejected", ";reason=noresource", ";reason=invariant"}) {
        INFO(std::string(state));
        Scscf core;
        core.events.registered(core.alice());
        CHECK(subscribes_within(core, seconds{7200}, ends_with(state)) == 1);
        CHECK(core.events.size() == 1);
        core.events.registered(core.alice());
        CHECK(subscribes_within(core, seconds{60}, ends_with(state)) == 1);
        core.events.registered(core.alice());  // and another at once: not before two minutes
        core.events.registered(core.alice());
        CHECK(subscribes_within(core, seconds{50}, ends_with(state)) == 0);
        CHECK(subscribes_within(core, seconds{600}, ends_with(state)) == 1);
    }
}

TEST_CASE("C-51: an S-CSCF that refuses each SUBSCRIBE gets a few in an hour, none before its Retry-After") {
    const auto count = [](int status, std::string_view more = {}) {
        Scscf core;
        core.events.registered(core.alice());
        return subscribes_within(core, seconds{3600}, [&](Scscf& s) { (void)s.accept(0, status, more); });
    };
    for (const int status : {403, 404, 489, 603}) {
        INFO(status);
        CHECK(count(status) == 2);
    }
    for (const int status : {423, 480, 481, 500}) {
        INFO(status);
        const int seen = count(status);
        CHECK(seen >= 3);
        CHECK(seen <= 8);
    }
    CHECK(count(503, "Retry-After: 7200\r\n") == 1);
    CHECK(count(200) >= 3);  // accepted for no time at all
    CHECK(count(200) <= 7);
}

TEST_CASE("C-51: an S-CSCF that grants a second, or shortens to one, is asked every half a minute, not every second") {
    Scscf core;
    core.events.registered(core.alice());
    const std::string subscribe = core.accept(1);
    CHECK(core.loop.until([&] { return core.events.under_way() == 0; }));
    core.clock.at += seconds{29};
    core.events.sweep();
    CHECK(core.events.under_way() == 0);
    core.clock.at += seconds{2};
    core.events.sweep();
    (void)core.accept(600000);
    CHECK(core.loop.until([&] { return core.events.under_way() == 0; }));
    (void)core.notify(subscribe, document(registration("active", "registered")), "active;expires=1");
    core.clock.at += seconds{29};
    core.events.sweep();
    CHECK(core.events.under_way() == 0);
    core.clock.at += seconds{2};
    core.events.sweep();
    CHECK(contains(core.accept(600000), "CSeq: 3 SUBSCRIBE"));
}

TEST_CASE(
    "C-51: documents that do not follow each other make the whole state asked for, at once and then ever later; a notifier that counts anew is believed") {
    Scscf core;
    core.events.registered(core.alice());
    const std::string subscribe = core.accept(600000);
    CHECK(core.loop.until([&] { return core.events.under_way() == 0; }));
    const std::string active = registration("active", "registered");
    (void)core.notify(subscribe, document(active, 5));
    (void)core.notify(subscribe, document(active, 6, "partial"));
    CHECK(core.events.under_way() == 0);
    (void)core.notify(subscribe, document(active, 8, "partial"));
    (void)core.accept(600000);
    CHECK(core.loop.until([&] { return core.events.under_way() == 0; }));
    (void)core.notify(subscribe, document(registration("terminated", "deactivated"), 0, "partial"));  // older: ignored
    CHECK(core.left() == seconds{3600});
    (void)core.notify(subscribe, document(registration("active", "shortened", " expires=\"600\""), 0));
    CHECK(core.left() == seconds{600});  // whole, and asked for
    int asked = 0;
    std::uint32_t version = 1;
    for (int i = 0; i < 360; ++i, core.clock.at += seconds{10}) {
        core.alice().expires = core.clock.at + seconds{3600};
        version += 5;
        (void)core.notify(subscribe, document(active, static_cast<int>(version), "partial"));
        if (core.events.under_way() == 0) continue;
        ++asked;
        (void)core.accept(600000);
        CHECK(core.loop.until([&] { return core.events.under_way() == 0; }));
        (void)core.notify(subscribe, document(active, static_cast<int>(++version)));
    }
    CHECK(asked >= 2);
    CHECK(asked <= 8);
}

TEST_CASE(
    "C-51: a NOTIFY for a dialog of an earlier process gets 481; one of another phone's is not ours; one out of order gets 500") {
    Scscf core;
    core.events.registered(core.alice());
    const std::string subscribe = core.accept(600000);
    CHECK(core.loop.until([&] { return core.events.under_way() == 0; }));
    const std::string contact(sip::NameAddr::parse(parse(subscribe)->value(sip::HeaderId::contact))->uri);
    const auto notify = [&](const std::string& uri, std::string_view call_id) {
        core.scscf.send(
            crlf(fmt::format("NOTIFY {} SIP/2.0\nVia: SIP/2.0/UDP {};branch=z9hG4bKo{}\nMax-Forwards: 70\n"
                             "From: <sip:alice@home.example>;tag=notifier\nTo: <sip:x>;tag={}\nCall-ID: {}\n"
                             "CSeq: 0 NOTIFY\nEvent: reg\nSubscription-State: active\nContent-Length: 0\n\n",
                             uri, core.scscf.endpoint().to_string(), call_id,
                             sip::tag_of(*parse(subscribe), sip::HeaderId::from), call_id)),
            core.core_side);
        return core.scscf.receive().substr(0, 11);
    };
    CHECK(notify(contact, "earlier") == "SIP/2.0 481");
    CHECK(notify("sip:reg-event-0000000000000000@" + core.core_side.to_string(), "earlier2") == "SIP/2.0 481");
    CHECK(notify("sip:reg-event-1@192.0.2.7", "phone") == "SIP/2.0 404");  // the router's
    CHECK(notify("sip:term@" + core.core_side.to_string(), "phone2") == "SIP/2.0 404");
    CHECK(core.notify(subscribe, document(registration("active", "registered"))) == "SIP/2.0 200 OK");
    CHECK(notify(contact, parse(subscribe)->value(sip::HeaderId::call_id)) == "SIP/2.0 500");
}

TEST_CASE(
    "C-51: a user who comes back while the subscription is being ended gets another one; an emergency registration gets none") {
    Scscf core;
    core.events.registered(core.alice());
    (void)core.accept(600000);
    CHECK(core.loop.until([&] { return core.events.under_way() == 0; }));
    auto away = core.table.take(core.key);
    core.clock.at += seconds{4300};
    core.events.sweep();
    CHECK(core.events.under_way() == 1);
    away->expires = core.clock.at + seconds{3600};
    core.events.registered(core.table.add(std::move(away)));
    CHECK(contains(core.accept(0), "Expires: 0\r\n"));
    CHECK(contains(core.accept(600000), "CSeq: 1 SUBSCRIBE"));
    auto urgent = std::make_unique<Registration>();
    urgent->key = {Impi("bob"), "", "sos:"};
    urgent->impus = {Impu("sip:bob@home.example")};
    urgent->expires = core.clock.at + seconds{3600};
    core.events.registered(core.table.add(std::move(urgent)));
    CHECK(core.events.size() == 1);
}

TEST_CASE(
    "C-51: 100,000 users that are there at once are subscribed at a pace, so many wait for an answer at most, and each costs less than a kilobyte") {
    Scscf core;
    constexpr int kUsers = 100000;
    std::vector<Registration*> users;
    for (int i = 0; i < kUsers; ++i) {
        auto made = std::make_unique<Registration>();
        made->key = {Impi(fmt::format("00101{:010}@ims.mnc001.mcc001.3gppnetwork.org", i)), "", ""};
        made->token = fmt::format("token{}", i);
        made->impus = {Impu(fmt::format("sip:00101{:010}@ims.mnc001.mcc001.3gppnetwork.org", i))};
        made->expires = core.clock.now() + seconds{3600};
        users.push_back(&core.table.add(std::move(made)));
    }
    const auto before = mallinfo2().uordblks;
    for (const Registration* user : users) core.events.registered(*user);
    const auto each = (mallinfo2().uordblks - before) / kUsers;
    MESSAGE("octets per subscription: " << each);
    CHECK(each < 1024);
    CHECK(core.events.size() == kUsers);
    constexpr std::size_t kBurst = RegEvents::kPerSecond / 10;
    std::set<std::string> subscribed;
    const auto answer_all = [&] {
        while (core.events.under_way() != 0) {
            const auto left = core.events.under_way();
            subscribed.emplace(parse(core.accept(600000))->value(sip::HeaderId::call_id));
            CHECK(core.loop.until([&] { return core.events.under_way() < left; }));
        }
    };
    CHECK(core.events.under_way() == kBurst);
    answer_all();
    for (std::size_t tenth = 1; tenth <= 20; ++tenth) {
        core.clock.at += std::chrono::milliseconds{100};
        core.events.sweep();
        CHECK(core.events.under_way() <= kBurst);
        answer_all();
        CHECK(subscribed.size() == (tenth + 1) * kBurst);
    }
    for (int tenth = 0; tenth < 40; ++tenth) {  // the S-CSCF falls silent
        core.clock.at += std::chrono::milliseconds{100};
        core.events.sweep();
    }
    CHECK(core.events.under_way() == RegEvents::kAtOnce);
}
