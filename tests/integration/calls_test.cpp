// Calls between two phones, each behind its own SAs, through the gateway and the core: what RFC 3261 (and 3262, 3264,
// 3311) demands of them on the core's side and at the phones, and that nothing of it crosses the access link in clear.
#include <algorithm>
#include <memory>
#include <set>

#include <doctest/doctest.h>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

using Event = nlohmann::json;

auto named(const std::string& name) {
    return [name](const Event& event) { return event.value("event", "") == name; };
}

/// How a phone is protected: ipsec-3gpp unless `tls` names gmue's mechanism, "tls" or "tls-prior".
struct End {
    Access access{};
    std::string tls{};
};

std::vector<std::string> lines_of(const std::string& raw, const std::string& name) {
    std::vector<std::string> found;
    for (std::size_t at = raw.find("\r\n" + name + ": "); at != std::string::npos;
         at = raw.find("\r\n" + name + ": ", at + 1)) {
        const std::size_t begin = at + name.size() + 4;
        found.push_back(raw.substr(begin, raw.find("\r\n", begin) - begin));
    }
    return found;
}

/// Two registered phones, the caller and the callee, and a capture of the access link.
struct Scene {
    Scene(const Access& from, const Access& to, std::vector<std::string> caller_arguments = {},
          std::vector<std::string> callee_arguments = {})
        : Scene(End{from, {}}, End{to, {}}, std::move(caller_arguments), std::move(callee_arguments)) {}
    Scene(const End& from, const End& to, std::vector<std::string> caller_arguments = {},
          std::vector<std::string> callee_arguments = {})
        : tls(from.tls.empty() && to.tls.empty() ? nullptr : std::make_unique<TlsLab>()),
          own(tls ? nullptr : std::make_unique<Lab>(plain_lab())),
          lab(tls ? *tls->lab : *own),
          link(lab.network.ue, Network::kUeLink),
          caller(lab, phone_options(0, from, std::move(caller_arguments))),
          callee(lab, phone_options(1, to, std::move(callee_arguments))),
          sas(4u * (from.tls.empty() + to.tls.empty())) {
        caller.demand_registered();
        callee.demand_registered();
        start = lab.core_mark();
    }

    PhoneOptions phone_options(std::size_t user, const End& end, std::vector<std::string> arguments) const {
        PhoneOptions options;
        options.user = user;
        options.is_v6 = end.access.is_v6;
        options.is_tcp = end.access.is_tcp;
        options.arguments = std::move(arguments);
        if (end.tls.empty()) return options;
        const auto more = tls->phone_arguments(end.tls, "1.3");
        options.arguments.insert(options.arguments.end(), more.begin(), more.end());
        return options;
    }

    /// Starts a call that stands until someone hangs up.
    void dial() { caller.program().write_line("call " + callee.impu() + " 600"); }
    Event await(Phone& phone, const std::string& event, std::size_t from = 0) {
        return phone.await_event(named(event), event, from);
    }
    Event tell(Phone& phone, const std::string& command, const std::string& event) {
        return phone.command(command, named(event));
    }
    /// Both ends know that the call stands.
    void establish() {
        dial();
        await(caller, "call_established");
        await(callee, "call_established");  // the callee says so when the ACK came
    }
    /// Ends it from one side and checks both.
    void hang_up(Phone& who, Phone& other) {
        const auto at_other = other.mark();
        const auto ended = tell(who, "hangup", "call_ended");
        CHECK(ended.value("ok", false));
        CHECK(ended.value("by", "") == "local");
        CHECK(await(other, "call_ended", at_other).value("by", "") == "remote");
    }

    /// Requests of that method as the core got them, from whichever phone.
    std::vector<std::string> at_core(const std::string& method) { return lab.core_received(start, method); }

    /// Nothing of a call was readable on the access link, nobody was answered in clear, and the SAs are what they were.
    void check_protected() {
        for (const char* word : {"INVITE sip:", "ACK sip:", "BYE sip:", "PRACK sip:", "UPDATE sip:", "CANCEL sip:",
                                 "m=audio", "SIP/2.0 180", "SIP/2.0 183"}) {
            INFO(word);
            CHECK(link.find(word).empty());
        }
        CHECK(count_sas(lab.network.gw) == sas);
        if (tls) CHECK(tls->in_kernel(1));
        for (Phone* phone : {&caller, &callee})
            CHECK_FALSE(phone->program().has_text("\"event\":\"dropped\""));  // B-15: nothing on a wrong port
    }

    /// What the core must see of every request that goes on inside or outside a dialog.
    void check_requests_at_core() {
        for (const char* method : {"INVITE", "ACK", "BYE", "PRACK", "UPDATE"})
            for (const auto& raw : at_core(method)) {
                INFO(raw);
                CHECK(raw.find("Security-Verify") == std::string::npos);
                CHECK(raw.find("sec-agree") == std::string::npos);
                const auto vias = lines_of(raw, "Via");
                REQUIRE(vias.size() >= 2);  // the gateway's on top of the phone's
                CHECK(vias.front().find(std::string(Network::kGwCore4) + ":5060;branch=z9hG4bK") != std::string::npos);
                const auto to = lines_of(raw, "To");
                REQUIRE(to.size() == 1);
                const bool initial = to.front().find(";tag=") == std::string::npos;
                if (!initial)
                    CHECK(lines_of(raw, "P-Asserted-Identity")
                              .empty());  // its dialog is known: nobody is asserted, and no Service-Route given
                if (std::string_view(method) != "INVITE" || !initial) continue;
                CHECK(lines_of(raw, "P-Asserted-Identity").size() == 1);
                const auto record_route = lines_of(raw, "Record-Route");
                REQUIRE_FALSE(record_route.empty());  // both our sides, core side on top (RFC 5658)
                CHECK(record_route.front().find(std::string(Network::kGwCore4)) != std::string::npos);
            }
    }

    std::unique_ptr<TlsLab> tls;  ///< null: nobody speaks TLS, and the lab is `own`
    std::unique_ptr<Lab> own;
    Lab& lab;
    Capture link;
    Phone caller, callee;
    std::size_t sas;  ///< in the gateway's kernel while both are registered
    std::size_t start = 0;
};

void check_call(const Access& from, const Access& to) {
    Scene scene(from, to);
    const auto outcome = scene.caller.call(scene.callee.impu());
    INFO(outcome.dump());
    CHECK(outcome.value("event", "") == "call_ended");
    CHECK(outcome.value("ok", false));
    for (const char* method : {"INVITE", "ACK", "BYE"}) CHECK(scene.at_core(method).size() >= 1);
    scene.check_requests_at_core();
    scene.check_protected();
}

/// Everything that a VoLTE call does: reliable ringing, UPDATE before and in the call, hold and resume, from both
/// sides.
void check_whole_call(const End& from, const End& to) {
    Scene scene(from, to, {"--100rel", "--early-update"}, {"--100rel", "--answer-after", "1"});
    INFO(scene.lab.gateway_log());
    scene.dial();
    const auto ringing = scene.await(scene.caller, "call_ringing");
    CHECK(ringing.value("status", 0) == 183);
    CHECK(ringing.value("reliable", false));
    CHECK(scene.await(scene.caller, "prack_sent").value("ok", false));
    CHECK(scene.await(scene.callee, "prack_received").value("protected", false));
    const auto early = scene.await(scene.caller, "update_sent");
    CHECK(early.value("ok", false));
    CHECK(early.value("early", false));
    CHECK(scene.await(scene.callee, "update_received").value("protected", false));
    const auto established = scene.await(scene.caller, "call_established");
    CHECK(established.value("tag", "a") == ringing.value("tag", "b"));
    scene.await(scene.callee, "call_established");

    const auto held = scene.tell(scene.caller, "hold", "reinvite_sent");
    CHECK(held.value("ok", false));
    CHECK(held.value("direction", "") == "recvonly");
    CHECK(scene.await(scene.callee, "reinvite_received").value("direction", "") == "sendonly");
    scene.await(scene.callee, "reinvite_acknowledged");
    CHECK(scene.tell(scene.caller, "resume", "reinvite_sent").value("direction", "") == "sendrecv");
    // The other way round: the callee's route set is the other half of the record-routes.
    CHECK(scene.tell(scene.callee, "hold", "reinvite_sent").value("direction", "") == "recvonly");
    scene.await(scene.caller, "reinvite_acknowledged");
    CHECK(scene.tell(scene.callee, "resume", "reinvite_sent").value("ok", false));
    CHECK(scene.tell(scene.callee, "update", "update_sent").value("ok", false));
    CHECK(scene.tell(scene.caller, "update", "update_sent").value("ok", false));
    scene.hang_up(scene.caller, scene.callee);
    scene.check_requests_at_core();
    scene.check_protected();
}

bool is_call_event(const nlohmann::json& event, const char* name) { return event.value("event", "") == name; }

/// A dialog that lives through two re-authentications of both ends, with old sets that end meanwhile.
void check_long_call(const Access& from, const Access& to) {
    auto lab_options = plain_lab();
    lab_options.more_sections = "[timers]\nold-set = 2\n";
    Lab lab(lab_options);
    Capture link(lab.network.ue, Network::kUeLink);
    Phone caller(lab, {.is_v6 = from.is_v6, .is_tcp = from.is_tcp});
    Phone callee(lab, {.user = 1, .is_v6 = to.is_v6, .is_tcp = to.is_tcp});
    caller.demand_registered();
    callee.demand_registered();
    const auto call = caller.command("call " + callee.impu() + " 600", [](const nlohmann::json& e) {
        return is_call_event(e, "call_established") || is_call_event(e, "call_failed");
    });
    INFO(call.dump());
    REQUIRE(call.value("event", "") == "call_established");
    callee.await_event([](const nlohmann::json& e) { return is_call_event(e, "call_established"); }, "the ACK");
    for (int i = 0; i < 2; ++i) {
        for (Phone* phone : {&caller, &callee}) {
            phone->reregister(true);
            const auto word = unique_word("in-call-");
            CHECK(phone->message((phone == &caller ? callee : caller).impu(), word) == 200);
            (phone == &caller ? callee : caller).await_message(word);
            CHECK(link.find(word).empty());
        }
        CHECK(eventually([&] { return count_sas(lab.network.gw) == 8; }));  // the old sets are gone
    }
    // The end of it in either direction: the BYE finds the other end over sets that did not exist when the call began.
    Phone& hanging_up = from.is_tcp ? callee : caller;
    const auto ended =
        hanging_up.command("hangup", [](const nlohmann::json& e) { return is_call_event(e, "call_ended"); });
    INFO(ended.dump());
    CHECK(ended.value("ok", false));
    Phone& other = from.is_tcp ? caller : callee;
    const auto heard =
        other.await_event([](const nlohmann::json& e) { return is_call_event(e, "call_ended"); }, "the BYE");
    CHECK(heard.value("by", "") == "remote");
    CHECK(link.find("BYE sip:").empty());
    CHECK(link.find("INVITE sip:").empty());
    for (const auto& raw : lab.core_received(0, "BYE"))
        CHECK(lines_of(raw, "P-Asserted-Identity").empty());  // the dialog is still known
}

/// A MESSAGE that pretends to be inside a dialog, with a Route of its own: asserted and routed like any other.
void check_made_up_tag(const End& from, const End& to) {
    Scene scene(from, to);
    const auto registered = scene.caller.first().at("service_route").get<std::vector<std::string>>();
    REQUIRE(registered.size() == 1);
    scene.caller.program().write_line("fault made-up-tag");
    scene.caller.start_message(scene.callee.impu(), "forged");
    REQUIRE(eventually([&] { return scene.at_core("MESSAGE").size() >= 1; }));
    const auto raw = scene.at_core("MESSAGE").front();
    INFO(raw);
    CHECK(lines_of(raw, "To").front().find(";tag=") != std::string::npos);
    CHECK(lines_of(raw, "P-Asserted-Identity") == std::vector<std::string>{"<" + scene.caller.impu() + ">"});
    CHECK(lines_of(raw, "Route") == registered);
}

/// The same over an emergency registration: it does not leave the gateway.
void check_emergency_only(const Access& access, const std::string& tls) {
    std::unique_ptr<TlsLab> tls_lab = tls.empty() ? nullptr : std::make_unique<TlsLab>();
    std::unique_ptr<Lab> own = tls.empty() ? std::make_unique<Lab>(plain_lab()) : nullptr;
    Lab& lab = tls_lab ? *tls_lab->lab : *own;
    PhoneOptions options{.is_v6 = access.is_v6, .is_tcp = access.is_tcp, .arguments = {"--emergency"}};
    if (tls_lab) std::ranges::copy(tls_lab->phone_arguments(tls, "1.3"), std::back_inserter(options.arguments));
    Phone phone(lab, options);
    phone.demand_registered();
    const auto start = lab.core_mark();
    CHECK(phone.message(impu_of_user(1), "no emergency") == 403);
    phone.program().write_line("fault made-up-tag");
    CHECK(phone.message(impu_of_user(1), "no dialog") == 403);
    CHECK(lab.core_received(start, "MESSAGE").empty());
}

}  // namespace

TEST_SUITE("calls") {
    TEST_CASE("a call over UDP lives through two re-authentications of both phones") {
        check_long_call({false, false}, {true, false});
    }
    TEST_CASE("a call over TCP lives through two re-authentications of both phones") {
        check_long_call({true, true}, {false, true});
    }
    TEST_CASE("two phones over IPv4 and UDP call each other") { check_call({false, false}, {false, false}); }
    TEST_CASE("a phone over IPv4 and TCP calls one over IPv6 and UDP") { check_call({false, true}, {true, false}); }
    TEST_CASE("a phone over IPv6 and UDP calls one over IPv6 and TCP") { check_call({true, false}, {true, true}); }

    TEST_CASE("RFC 3262, 3311, 3264: 100rel, UPDATE, re-INVITE and hold from both sides, IPv4 and UDP") {
        check_whole_call({{false, false}, {}}, {{false, false}, {}});
    }
    TEST_CASE(
        "RFC 3262, 3311, 3264: 100rel, UPDATE, re-INVITE and hold from both sides, TCP and IPv4 to UDP and IPv6") {
        check_whole_call({{false, true}, {}}, {{true, false}, {}});
    }
    TEST_CASE(
        "RFC 3262, 3311, 3264: 100rel, UPDATE, re-INVITE and hold from both sides, UDP and IPv6 to TCP and IPv4") {
        check_whole_call({{true, false}, {}}, {{false, true}, {}});
    }

    TEST_CASE("RFC 3262, 3311, 3264: the same from a phone with SAs over UDP to one on TLS") {
        check_whole_call({{false, false}, {}}, {{false, false}, "tls-prior"});
    }
    TEST_CASE("RFC 3262, 3311, 3264: the same from a phone on TLS over IPv6 to one with SAs over TCP") {
        check_whole_call({{true, false}, "tls"}, {{false, true}, {}});
    }

    TEST_CASE("a made-up To tag frees no phone of Service-Route and asserted identity: SAs over UDP and IPv4") {
        check_made_up_tag({{false, false}, {}}, {{true, false}, {}});
    }
    TEST_CASE("a made-up To tag frees no phone of Service-Route and asserted identity: SAs over TCP and IPv6") {
        check_made_up_tag({{true, true}, {}}, {{false, false}, {}});
    }
    TEST_CASE("a made-up To tag frees no phone of Service-Route and asserted identity: TLS") {
        check_made_up_tag({{false, false}, "tls"}, {{false, false}, {}});
    }
    TEST_CASE("C-82: an emergency registration with a made-up To tag: UDP and IPv6") {
        check_emergency_only({true, false}, {});
    }
    TEST_CASE("C-82: an emergency registration with a made-up To tag: TCP and IPv4") {
        check_emergency_only({false, true}, {});
    }
    TEST_CASE("C-82: an emergency registration with a made-up To tag: TLS and IPv6") {
        check_emergency_only({true, false}, "tls-prior");
    }

    TEST_CASE("a BYE of a stranger in clear, with all that stands in the dialog's own, passes neither port") {
        Scene scene(Access{}, Access{true, true});
        scene.establish();
        const auto invites = scene.at_core("INVITE");
        REQUIRE_FALSE(invites.empty());
        const auto acks = scene.at_core("ACK");
        REQUIRE_FALSE(acks.empty());
        std::string bye = acks.front();  // as the caller sent it, but for our Via
        for (std::size_t at = bye.find("ACK"); at != std::string::npos; at = bye.find("ACK", at))
            bye.replace(at, 3, "BYE");
        bye.erase(bye.find("Via: "), bye.find("Via: ", bye.find("Via: ") + 1) - bye.find("Via: "));
        for (const auto& [local, remote] :
             {std::pair(std::string(Network::kUe4) + ":5999", std::string(Network::kAccess4) + ":5060"),
              std::pair("[" + std::string(Network::kUe6) + "]:5999",
                        "[" + std::string(Network::kAccess6) + "]:5060")}) {
            RawPeer stranger(scene.lab.network.ue, RawPeer::Kind::udp, local, remote);
            std::string own = bye;
            const auto via = own.find("Via: ");
            own.replace(via, own.find("\r\n", via) - via, "Via: SIP/2.0/UDP " + local + ";branch=z9hG4bKforged");
            stranger.send(own);
            CHECK(stranger.receive_until("\r\n\r\n").starts_with("SIP/2.0 403"));
        }
        CHECK(scene.at_core("BYE").empty());
        scene.hang_up(scene.callee, scene.caller);
        scene.check_requests_at_core();
    }

    TEST_CASE("a phone on TLS calls one with SAs, which hangs up") {
        Scene scene(End{{}, "tls"}, End{});
        scene.establish();
        scene.hang_up(scene.callee, scene.caller);
        scene.check_requests_at_core();
        scene.check_protected();
    }

    TEST_CASE("the callee hangs up") {
        Scene scene(Access{}, Access{true, false});
        scene.establish();
        scene.hang_up(scene.callee, scene.caller);
        scene.check_requests_at_core();
        scene.check_protected();
    }

    TEST_CASE("RFC 3261 §16.10: the caller gives up; CANCEL, 487 and its ACK, hop by hop") {
        Scene scene(Access{}, Access{true, true}, {}, {"--answer-after", "600"});
        scene.dial();
        scene.await(scene.caller, "call_ringing");
        CHECK(scene.tell(scene.caller, "cancel", "cancel_sent").value("status", 0) == 200);
        CHECK(scene.await(scene.caller, "call_failed").value("status", 0) == 487);
        CHECK(scene.await(scene.callee, "call_ended").value("by", "") == "cancel");
        scene.await(scene.callee, "failure_acknowledged");
        scene.check_protected();
    }

    TEST_CASE("the callee is busy: 486, and its ACK comes from the gateway") {
        Scene scene(Access{}, Access{}, {}, {"--reject", "486", "--answer-after", "0", "--no-ring"});
        scene.dial();
        CHECK(scene.await(scene.caller, "call_failed").value("status", 0) == 486);
        scene.await(scene.callee, "failure_acknowledged");
        scene.check_protected();
    }

    TEST_CASE("nobody answers: the callee ends the ringing with 480") {
        Scene scene(Access{false, true}, Access{}, {}, {"--reject", "480", "--answer-after", "1"});
        scene.dial();
        CHECK(scene.await(scene.caller, "call_ringing").value("status", 0) == 180);
        CHECK(scene.await(scene.caller, "call_failed").value("status", 0) == 480);
        scene.await(scene.callee, "failure_acknowledged");
        scene.check_protected();
    }

    TEST_CASE(
        "RFC 3261 §16.7: the core forks to two phones of one user; both ring reliably, the one that answers wins, the other is cancelled") {
        // The fixture's callee is the loser: it rings for ever.
        Scene scene(Access{}, Access{true, false}, {"--100rel", "--early-update"},
                    {"--100rel", "--answer-after", "600", "--instance", "urn:gsma:imei:35245510-000000-0"});
        Phone winner(scene.lab, {.user = 1,
                                 .is_tcp = true,
                                 .arguments = {"--100rel", "--answer-after", "600", "--instance",
                                               "urn:gsma:imei:35245510-000001-0"}});
        winner.demand_registered();
        scene.sas += 4;
        scene.dial();
        CHECK(eventually([&] { return scene.caller.events("update_sent").size() == 2; }));
        winner.program().write_line("answer");
        const auto established = scene.await(scene.caller, "call_established");
        scene.await(winner, "call_established");
        CHECK(scene.await(scene.callee, "call_ended").value("by", "") == "cancel");
        scene.await(scene.callee, "failure_acknowledged");
        std::set<std::string> rang, acknowledged, updated;
        for (const auto& event : scene.caller.events("call_ringing"))
            if (event.value("reliable", false)) rang.insert(event.value("tag", ""));
        for (const auto& event : scene.caller.events("prack_sent"))
            if (event.value("ok", false)) acknowledged.insert(event.value("tag", ""));
        for (const auto& event : scene.caller.events("update_sent"))
            if (event.value("ok", false)) updated.insert(event.value("tag", ""));
        CHECK(rang.size() == 2);
        CHECK(acknowledged == rang);
        CHECK(updated == rang);
        CHECK(rang.contains(established.value("tag", "")));
        CHECK(scene.caller.events("call_failed").empty());  // the loser's 487 went nowhere
        scene.hang_up(scene.caller, winner);
        scene.check_requests_at_core();
        scene.check_protected();
    }

    TEST_CASE(
        "RFC 3261 §16.7: the core forks to two phones, and the caller gives up: both are cancelled, and one 487 comes back") {
        Scene scene(Access{}, Access{true, false}, {},
                    {"--answer-after", "600", "--instance", "urn:gsma:imei:35245510-000000-0"});
        Phone other(scene.lab,
                    {.user = 1,
                     .is_tcp = true,
                     .arguments = {"--answer-after", "600", "--instance", "urn:gsma:imei:35245510-000001-0"}});
        other.demand_registered();
        scene.sas += 4;
        scene.dial();
        scene.await(scene.callee, "call_incoming");
        scene.await(other, "call_incoming");
        scene.await(scene.caller, "call_ringing");
        CHECK(scene.tell(scene.caller, "cancel", "cancel_sent").value("status", 0) == 200);
        CHECK(scene.await(scene.caller, "call_failed").value("status", 0) == 487);
        for (Phone* phone : {&scene.callee, &other}) {
            CHECK(scene.await(*phone, "call_ended").value("by", "") == "cancel");
            scene.await(*phone, "failure_acknowledged");
        }
        scene.check_protected();
    }

    TEST_CASE("RFC 3261 §13.2.2.4: three early dialogs, each with reliable ringing and UPDATE; the last one answers") {
        Scene scene(Access{}, Access{true, false}, {"--100rel", "--early-update"},
                    {"--100rel", "--early-dialogs", "3", "--answer-after", "1"});
        scene.dial();
        const auto established = scene.await(scene.caller, "call_established");
        scene.await(scene.callee, "call_established");
        std::set<std::string> rang, acknowledged;
        for (const auto& line : scene.caller.program().lines()) {
            if (!line.starts_with('{')) continue;
            const auto event = Event::parse(line);
            if (event.value("event", "") == "call_ringing" && event.value("reliable", false))
                rang.insert(event.value("tag", ""));
            if (event.value("event", "") == "prack_sent" && event.value("ok", false))
                acknowledged.insert(event.value("tag", ""));
        }
        CHECK(rang.size() == 3);
        CHECK(acknowledged == rang);
        CHECK(rang.contains(established.value("tag", "")));
        scene.hang_up(scene.caller, scene.callee);
        scene.check_requests_at_core();
        scene.check_protected();
    }
}
