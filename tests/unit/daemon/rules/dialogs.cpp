// Dialogs are known by the marks in our Record-Route: what a phone makes up, replays or sends in another's name is
// outside every dialog.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "daemon/restart/dialog_key.h"
#include "tests/unit/daemon/proxy/network.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::daemon::test;

namespace {

const std::vector<std::string> kOwnHosts{"192.0.2.1:7531", "10.0.0.1:5060"};
const ContactKey kAlice{Impi("alice@home.example"), "urn:a", "1"}, kBob{Impi("bob@home.example"), "urn:b", "1"};

std::string message(std::string_view first, std::string_view from_tag, std::string_view to_tag, std::string_view lines,
                    std::string_view call_id = "c1") {
    const std::string_view method = first.starts_with("SIP/2.0") ? "INVITE" : first.substr(0, first.find(' '));
    const auto tag = [](std::string_view value) {
        return value.empty() ? std::string() : fmt::format(";tag={}", value);
    };
    return crlf(fmt::format(
        "{}\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKx\nFrom: <sip:a@x>{}\nTo: <sip:b@x>{}\nCall-ID: {}\nCSeq: 1 {}\n{}Content-Length: 0\n\n",
        first, tag(from_tag), tag(to_tag), call_id, method, lines));
}

std::string pair_of(std::string_view user, bool core_first) {
    const std::string core = fmt::format("<sip:{}@10.0.0.1:5060;lr>", user),
                      ue = fmt::format("<sip:{}@192.0.2.1:7531;lr>", user);
    return core_first ? core + ", " + ue : ue + ", " + core;
}

/// A dialog that the phone began; `route` is what it got: the Route of its further requests.
struct Begun {
    DialogMarks marks;
    std::string user, route;

    explicit Begun(
        std::string_view proxies = "<sip:Scscf.home.example;lr>, <sip:proxy@[2001:db8::9]:5080;transport=tcp;lr>") {
        user = marks.user_towards_core("TOKEN", kAlice, *parse(message("INVITE sip:b@x SIP/2.0", "a1", "", "")));
        const auto answer =
            parse(message("SIP/2.0 200 OK", "a1", "b1",
                          fmt::format("Record-Route: {}\nRecord-Route: {}\n", proxies, pair_of(user, true))));
        sip::Edit edit(*answer);
        marks.mark_response(edit, *answer, "TOKEN", kAlice, kOwnHosts);
        const auto marked = parse(edit.to_string());
        auto values = values_of(*marked, sip::HeaderId::record_route);
        std::ranges::reverse(values);
        route = fmt::format("{}", fmt::join(values, ", "));
    }
    bool knows(std::string_view its_route, const ContactKey& owner = kAlice, std::string_view to_tag = "b1",
               std::string_view call_id = "c1") const {
        const auto request =
            parse(message("BYE sip:b@x SIP/2.0", "a1", to_tag, fmt::format("Route: {}\n", its_route), call_id));
        return marks.knows_from_ue(owner, *request, split_route(*request, kOwnHosts));
    }
    std::string with(std::string_view old, std::string_view now) const {
        std::string text = route;
        return text.replace(text.find(old), old.size(), now);
    }
};

}  // namespace

TEST_CASE("a dialog that the phone began is known by its Route, with parameters lost, reordered and case changed") {
    const Begun call;
    CHECK(call.knows(call.route));
    CHECK(call.knows(call.with(";transport=tcp;lr", ";lr;transport=TCP")));
    CHECK(call.knows(call.with(";transport=tcp;lr", "")));
    CHECK(call.knows(call.with("<sip:Scscf.home.example;lr>", "\"S\" <sip:scscf.home.EXAMPLE:5060;lr=on>")));
    CHECK(call.knows(call.route.substr(call.route.find(", ") + 2)));  // one of our pair is enough
}

TEST_CASE(
    "what is made up or replayed is in no dialog: tag, Call-ID, another phone's mark, another route, no mark at all") {
    const Begun call;
    CHECK_FALSE(call.knows(call.route, kAlice, "b2"));
    CHECK_FALSE(call.knows(call.route, kAlice, ""));
    CHECK_FALSE(call.knows(call.route, kAlice, "b1", "c2"));
    CHECK_FALSE(call.knows(call.route, kBob));
    CHECK_FALSE(call.knows(call.route, {kAlice.impi, kAlice.instance, "sos:1"}));
    CHECK_FALSE(call.knows(call.with("Scscf.home.example", "evil.example")));
    CHECK_FALSE(
        call.knows(call.with("<sip:Scscf.home.example;lr>", "<sip:Scscf.home.example;lr>, <sip:more.example;lr>")));
    CHECK_FALSE(call.knows(call.route.substr(0, call.route.rfind(", "))));
    CHECK_FALSE(call.knows(pair_of("TOKEN", false)));
    CHECK_FALSE(call.knows(pair_of(call.user, false)));  // the core's mark is none of the phone's
    CHECK_FALSE(call.knows("<sip:192.0.2.1:7531;lr>"));
    CHECK_FALSE(call.knows("<sip:evil.example;lr>, " + call.route));
    const Begun another_process;
    CHECK_FALSE(another_process.knows(call.route));
}

TEST_CASE("a dialog that came to the phone is known from both sides") {
    const DialogMarks marks;
    const auto invite =
        parse(message("INVITE sip:a@x SIP/2.0", "b1", "", "Record-Route: <sip:s1;lr>\nRecord-Route: <sip:s2;lr>\n"));
    const std::string user = marks.user_towards_ue("TOKEN", kAlice, *invite);
    const auto from_ue = [&](std::string_view rest, std::string_view to_tag = "b1") {
        const auto bye = parse(
            message("BYE sip:b@x SIP/2.0", "a1", to_tag, fmt::format("Route: {}{}\n", pair_of(user, false), rest)));
        return marks.knows_from_ue(kAlice, *bye, split_route(*bye, kOwnHosts));
    };
    CHECK(from_ue(", <sip:s1;lr>, <sip:s2;lr>"));
    CHECK_FALSE(from_ue(", <sip:s2;lr>, <sip:s1;lr>"));
    CHECK_FALSE(from_ue(""));
    CHECK_FALSE(from_ue(", <sip:s1;lr>, <sip:s2;lr>", "b2"));
    const auto from_core = [&](const std::string& marked, std::string_view from_tag, std::string_view to_tag,
                               const ContactKey& owner = kAlice) {
        return marks.knows_from_core(owner, *parse(message("BYE sip:a@x SIP/2.0", from_tag, to_tag, "")), marked);
    };
    CHECK(from_core(user, "b1", "a1"));
    CHECK_FALSE(from_core(user, "b2", "a1"));
    CHECK_FALSE(from_core(user, "b1", ""));
    CHECK_FALSE(from_core(user, "b1", "a1", kBob));
    CHECK_FALSE(from_core("TOKEN", "b1", "a1"));
    const std::string began =
        marks.user_towards_core("TOKEN", kAlice, *parse(message("SUBSCRIBE sip:a@x SIP/2.0", "a1", "", "")));
    CHECK(from_core(began, "n1", "a1"));  // NOTIFY of the phone's own subscription
    CHECK_FALSE(from_core(began, "n1", "a2"));
    CHECK(token_in(user) == "TOKEN");
}

TEST_CASE("a call to oneself: the caller's pair is marked, the callee's stays, and each end's requests are known") {
    const DialogMarks marks;
    const std::string caller =
        marks.user_towards_core("TOKEN", kAlice, *parse(message("INVITE sip:a@x SIP/2.0", "a1", "", "")));
    const auto arriving =
        parse(message("INVITE sip:a@x SIP/2.0", "a1", "", fmt::format("Record-Route: {}\n", pair_of(caller, true))));
    const std::string callee = marks.user_towards_ue("TOKEN", kAlice, *arriving);
    const auto answer =
        parse(message("SIP/2.0 200 OK", "a1", "b1",
                      fmt::format("Record-Route: {}, {}\n", pair_of(callee, false), pair_of(caller, true))));
    sip::Edit edit(*answer);
    marks.mark_response(edit, *answer, "TOKEN", kAlice, kOwnHosts);
    const auto marked = parse(edit.to_string());
    auto route = values_of(*marked, sip::HeaderId::record_route);
    CHECK(contains(route[0], callee));
    CHECK_FALSE(contains(route[3], caller));
    std::ranges::reverse(route);
    const auto bye =
        parse(message("BYE sip:a@x SIP/2.0", "a1", "b1", fmt::format("Route: {}\n", fmt::join(route, ", "))));
    CHECK(split_route(*bye, kOwnHosts).rest.size() == 2);
    CHECK(marks.knows_from_ue(kAlice, *bye, split_route(*bye, kOwnHosts)));
}

TEST_CASE("the key is kept, in a file for us alone; what is no key, or open to others, is replaced") {
    const std::string folder =
        fmt::format("{}/gm-dialog-key-{}", std::filesystem::temp_directory_path().string(), ::getpid());
    std::filesystem::create_directory(folder);
    const std::string file = folder + "/key";
    bool is_new = false;
    const auto first = kept_dialog_key(file, is_new);
    REQUIRE(first.has_value());
    CHECK(is_new);
    struct stat status {};
    REQUIRE(::stat(file.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    CHECK(kept_dialog_key(file, is_new).value() == *first);
    CHECK_FALSE(is_new);

    ::chmod(file.c_str(), 0644);
    const auto second = kept_dialog_key(file, is_new);
    CHECK((second.has_value() && *second != *first && is_new));
    std::ofstream(file) << "no key";
    const auto third = kept_dialog_key(file, is_new);
    CHECK((third.has_value() && *third != *second && is_new));
    CHECK_FALSE(kept_dialog_key(folder + "/nowhere/key", is_new).has_value());
    std::filesystem::remove_all(folder);

    Begun before;
    before.marks.use_key(*third);
    DialogMarks after;
    after.use_key(*third);
    const auto invite = parse(message("INVITE sip:b@x SIP/2.0", "a1", "", ""));
    CHECK(before.marks.user_towards_core("TOKEN", kAlice, *invite) ==
          after.user_towards_core("TOKEN", kAlice, *invite));
}

TEST_CASE(
    "a made-up To tag frees nobody of Service-Route and asserted identity; a request of the dialog keeps its route and asserts nobody") {
    ProxyNetwork net;
    const std::string answer = net.established();
    for (const char* method : {"BYE", "INVITE", "MESSAGE", "SUBSCRIBE", "REFER", "UPDATE", "INFO", "PRACK", "NOTIFY",
                               "OPTIONS", "PUBLISH", "FOO"}) {
        INFO(method);
        net.ue_client.send(
            net.from_ue(method, "sip:premium@home.example",
                        "X-In-Dialog: 1\nRoute: <sip:tok1@" + net.ps.to_string() + ";lr>, <sip:other.example;lr>\n",
                        std::string("z9hG4bKm") + method),
            net.ps);
        const std::string forged = net.core_peer.receive();
        CHECK(header(forged, "Route") == "<sip:orig@scscf.home.example;lr>");
        CHECK(header(forged, "P-Asserted-Identity") == "<sip:alice@home.example>");
        net.core_peer.send(response_text(forged, 481), net.core_side);
        CHECK(first_line(ProxyNetwork::final_of(net.ue_server)) == "SIP/2.0 481 Text");
        if (std::string_view(method) == "INVITE") CHECK(first_line(net.core_peer.receive()).starts_with("ACK "));
    }
    CHECK(net.counters.get(Counter::unknown_dialog) == 12);
    CHECK(net.counters.get(Counter::route_replaced) == 13);  // the call's own INVITE came without Route
    net.ue_client.send(net.from_ue("BYE", "sip:bob@10.0.0.9",
                                   ProxyNetwork::dialog_route(answer, ProxyNetwork::End::caller), "z9hG4bKbye"),
                       net.ps);
    const std::string bye = net.core_peer.receive();
    CHECK(header(bye, "Route") == "<sip:scscf.home.example;lr>");
    CHECK(header(bye, "P-Asserted-Identity").empty());
    CHECK(net.counters.get(Counter::unknown_dialog) == 12);
}

TEST_CASE(
    "the dialog of a contact that registered again under another token, and whose gateway is another process, is known") {
    ProxyNetwork net;
    SipHashKey key{};
    key.fill(7);
    net.router.use_dialog_key(key);
    const std::string answer = net.established();
    auto registration = net.table.take(net.key);
    registration->token = "tok2";
    net.table.add(std::move(registration));
    Router another(net.loop.io.get_executor(), net.config, net.table, net.link, net.transports, net.transactions,
                   net.counters);
    another.use_dialog_key(key);
    net.transactions.on_request([&](std::shared_ptr<sip::ServerTransaction> transaction) {
        auto marked = std::make_shared<Marked>(std::move(transaction), Mark{kSet});
        spawn(net.loop.io.get_executor(), another.from_ue(marked), "test");
    });
    net.ue_client.send(net.from_ue("BYE", "sip:bob@10.0.0.9",
                                   ProxyNetwork::dialog_route(answer, ProxyNetwork::End::caller), "z9hG4bKbye"),
                       net.ps);
    const std::string bye = net.core_peer.receive();
    CHECK(header(bye, "Route") == "<sip:scscf.home.example;lr>");
    CHECK(net.counters.get(Counter::unknown_dialog) == 0);
}

TEST_CASE(
    "C-82: over an emergency registration neither a made-up To tag nor the real dialog of an emergency call carries anything but that call") {
    ProxyNetwork net;
    auto registration = net.table.take(net.key);
    net.key.reg_id = "sos:1";
    registration->key = net.key;
    net.table.add(std::move(registration));
    const auto refused = [&](std::string_view method, const std::string& lines, std::string_view branch) {
        net.ue_client.send(net.from_ue(method, "sip:bob@home.example", lines, branch), net.ps);
        return first_line(ProxyNetwork::final_of(net.ue_server)) == "SIP/2.0 403 Forbidden";
    };
    const std::string made_up = "X-In-Dialog: 1\nRoute: <sip:tok1@" + net.ps.to_string() + ";lr>\n";
    CHECK(refused("MESSAGE", made_up, "z9hG4bKm1"));
    CHECK(refused("INVITE", made_up, "z9hG4bKm2"));
    CHECK(refused("BYE", made_up, "z9hG4bKm3"));
    net.ue_client.send(net.from_ue("ACK", "sip:bob@home.example", made_up, "z9hG4bKm4"), net.ps);
    CHECK(net.loop.until([&] { return net.counters.get(Counter::unknown_dialog) == 4; }));

    net.ue_client.send(net.from_ue("INVITE", "urn:service:sos", "", "z9hG4bKsos"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 100 Trying");
    net.core_peer.send(ProxyNetwork::answer_by_way_of("ecscf.home.example", net.core_peer.receive(), 200),
                       net.core_side);
    const std::string lines = ProxyNetwork::dialog_route(net.ue_server.receive(), ProxyNetwork::End::caller);
    CHECK(refused("MESSAGE", lines, "z9hG4bKm5"));
    net.ue_client.send(net.from_ue("BYE", "sip:psap@10.0.0.9", lines, "z9hG4bKbye"), net.ps);
    CHECK(header(net.core_peer.receive(), "Route") == "<sip:ecscf.home.example;lr>");
}

TEST_CASE(
    "a phone asks the gateway itself: OPTIONS is answered, other methods get 405; a user at our host is still the core's") {
    ProxyNetwork net;
    net.ue_client.send(net.from_ue("OPTIONS", "sip:" + net.ps.to_string(), "", "z9hG4bKo1"), net.ps);
    const std::string alive = net.ue_server.receive();
    CHECK(first_line(alive) == "SIP/2.0 200 OK");
    CHECK(header(alive, "Allow") == "OPTIONS, REGISTER");
    net.ue_client.send(net.from_ue("OPTIONS", "sip:" + net.ps.to_string(),
                                   "Route: <sip:" + net.ps.to_string() + ";lr>\n", "z9hG4bKo2"),
                       net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 200 OK");
    net.ue_client.send(net.from_ue("MESSAGE", "sip:" + net.ps.to_string(), "", "z9hG4bKo3"), net.ps);
    CHECK(first_line(net.ue_server.receive()) == "SIP/2.0 405 Method Not Allowed");
    CHECK_FALSE(net.core_peer.try_receive().has_value());
    net.ue_client.send(net.from_ue("OPTIONS", "sip:bob@" + net.ps.to_string(), "", "z9hG4bKo4"), net.ps);
    CHECK(first_line(net.core_peer.receive()).starts_with("OPTIONS sip:bob@"));
}
