// Every row of table C-44 (TS 24.229 table 5.2.2-1) and every failure of TS 33.203 §7.3 on the real kernel, each time
// with a MESSAGE in both directions before, during and after, and with the access link under watch: nothing may cross
// it in clear.
#include <algorithm>
#include <optional>
#include <set>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

constexpr Access kUdp4{false, false}, kTcp6{true, true};

std::string timers(const std::string& lines) { return "[timers]\n" + lines; }

/// A lab with the phone under test (user 0), another one that it talks to (user 1), and a listener on the access link.
class Stage {
public:
    explicit Stage(const std::string& timer_lines = {}, Access access = kUdp4, std::vector<std::string> arguments = {},
                   const std::string& interface_lines = {})
        : access_(access),
          lab(options(timer_lines, interface_lines)),
          link(lab.network.ue, Network::kUeLink),
          peer(lab, {.user = 1, .is_v6 = access.is_v6, .is_tcp = access.is_tcp}) {
        peer.demand_registered();
        peer_sas_ = list_sas(lab.network.gw);
        phone.emplace(lab, phone_options(std::move(arguments)));
        phone->demand_registered();
    }

    PhoneOptions phone_options(std::vector<std::string> arguments = {}, std::size_t user = 0) const {
        return {.user = user, .is_v6 = access_.is_v6, .is_tcp = access_.is_tcp, .arguments = std::move(arguments)};
    }
    /// A MESSAGE each way; both must arrive.
    void talk(const std::string& when) {
        INFO(when);
        from_phone(*phone);
        to_phone(*phone);
    }
    void from_phone(Phone& from) {
        const auto word = marker();
        CHECK(from.message(peer.impu(), word) == 200);
        peer.await_message(word);
    }
    void to_phone(Phone& to) {
        const auto word = marker();
        CHECK(peer.message(to.impu(), word) == 200);
        to.await_message(word);
    }
    /// SAs that are not the peer's.
    std::vector<KernelSa> sas() const {
        auto all = list_sas(lab.network.gw);
        std::erase_if(all, [&](const KernelSa& sa) {
            return std::ranges::any_of(
                peer_sas_, [&](const KernelSa& p) { return p.spi == sa.spi && p.destination == sa.destination; });
        });
        return all;
    }
    std::set<std::uint32_t> spis() const {
        std::set<std::uint32_t> all;
        for (const auto& sa : sas()) all.insert(sa.spi);
        return all;
    }
    /// Packets that those of our SAs have carried whose SPI is in `of`.
    std::uint64_t packets(const std::set<std::uint32_t>& of) const {
        std::uint64_t sum = 0;
        for (const auto& sa : sas())
            if (of.contains(sa.spi)) sum += sa.packets;
        return sum;
    }
    bool sets_become(std::size_t count) const {
        return eventually([&] { return sas().size() == 4 * count; });
    }
    bool logged(const std::string& id, const std::string& words = {}) const {
        const auto log = lab.gateway_log();
        for (std::size_t at = log.find(id); at != std::string::npos; at = log.find(id, at + 1))
            if (words.empty() || log.substr(at, log.find('\n', at) - at).find(words) != std::string::npos) return true;
        return false;
    }
    /// Nothing of what was said crossed the link in clear; call it last.
    void check_link() {
        for (const auto& word : markers_) CHECK(link.find(word).empty());
        CHECK(link.find("SIP/2.0 200").empty());
        CHECK(link.count([](const Frame& frame) { return frame.is_esp(); }) > 0);
        CHECK(lab.stop_gateway() == 0);
    }
    nlohmann::json outcome_of_register(std::size_t from, std::chrono::seconds patience = kPatience) {
        return phone->await_event(
            [](const nlohmann::json& e) {
                const auto name = e.value("event", "");
                return name == "reregistered" || name == "register_failed" || name == "registered";
            },
            "the outcome of a REGISTER", from, patience);
    }
    std::string marker() { return markers_.emplace_back(unique_word("life-")); }

private:
    static LabOptions options(const std::string& timer_lines, const std::string& interface_lines) {
        auto made = plain_lab();
        made.interface_lines = interface_lines;
        if (!timer_lines.empty()) made.more_sections = timers(timer_lines);
        return made;
    }
    Access access_;
    std::vector<std::string> markers_;
    std::vector<KernelSa> peer_sas_;

public:
    Lab lab;
    Capture link;
    Phone peer;
    std::optional<Phone> phone;
};

/// Rows "sending 401", "200 that ends a re-authentication", "message over the not-yet-used set", "lifetime over" of the
/// old one.
void check_reauthentication(Access access) {
    Stage stage("old-set = 3\n", access);
    stage.talk("before");
    const auto first = stage.spis();
    REQUIRE(first.size() == 4);
    stage.phone->reregister(true);
    REQUIRE(stage.sas().size() == 8);
    auto second = stage.spis();
    for (const auto spi : first) REQUIRE(second.erase(spi) == 1);
    const auto& new_in = stage.phone->first();
    INFO(new_in.dump());
    // During: the network still uses the old set, for the phone has not used the new one.
    if (!access.is_tcp) {
        const auto old_before = stage.packets(first);
        stage.to_phone(*stage.phone);
        CHECK(stage.packets(first) > old_before);
    }
    CHECK_FALSE(stage.logged("set-taken-into-use"));
    stage.talk("the phone uses the new set");
    CHECK(stage.logged("set-taken-into-use", "the phone uses it"));
    const auto old_before = stage.packets(first), new_before = stage.packets(second);
    stage.to_phone(*stage.phone);
    CHECK(stage.packets(second) > new_before);
    CHECK(stage.packets(first) == old_before);
    CHECK(stage.sets_become(1));  // 64*T1 after
    CHECK(stage.spis() == second);
    stage.talk("after");
    stage.check_link();
}

/// A rebooted phone counts its SPIs from the beginning again: it registers at once, with one challenge, and has
/// service.
void check_reboot(Access access, bool keeps_ports, std::size_t user = 0) {
    const std::vector<std::string> spis{"--spi-uc", "1001", "--spi-us", "1002"};
    Stage stage({}, access, spis);
    stage.talk("before");
    const auto port = [&](const char* name) { return std::to_string(stage.phone->first().value(name, 0)); };
    auto arguments = spis;
    if (keeps_ports)
        for (const auto& more : {std::string("--port-uc"), port("port_uc"), std::string("--port-us"), port("port_us")})
            arguments.push_back(more);
    stage.phone->program().write_line("quit");  // no de-REGISTER
    CHECK(stage.phone->program().wait() == 0);
    CHECK(stage.sas().size() == 4);
    const auto mark = stage.lab.core_mark();
    Phone again(stage.lab, stage.phone_options(arguments, user));
    again.demand_registered();
    CHECK(stage.lab.core_registers(mark).size() == 2);
    CHECK(stage.sets_become(1));
    CHECK(stage.spis().contains(1001));
    CHECK(stage.spis().contains(1002));
    stage.from_phone(again);
    stage.to_phone(again);
    if (user != 0) CHECK(stage.peer.message(impu_of_user(0), stage.marker()) == 480);
    stage.check_link();
}

struct Failure {
    std::string fault, reason;
    std::size_t registers = 1;  ///< that reach the core
};

/// Failed authentications of a registered phone leave its registration alone (B-5, B-46).
void check_failures(const std::vector<Failure>& failures, Access access) {
    Stage stage("reg-await-auth = 6\nfinal-answer = 1\n", access, {"--timeout", "5"});
    stage.talk("before");
    const auto live = stage.spis();
    for (const auto& failure : failures) {
        INFO(failure.fault);
        const auto mark = stage.lab.core_mark();
        stage.phone->program().write_line("fault " + failure.fault);
        const auto from = stage.phone->mark();
        stage.phone->program().write_line("begin reregister challenge");
        CHECK(eventually([&] { return stage.lab.core_registers(mark).size() >= failure.registers; }));
        stage.talk("during");
        const auto outcome = stage.outcome_of_register(from);
        INFO(outcome.dump());
        CHECK(outcome.value("event", "") == "register_failed");
        CHECK(outcome.value("reason", "") == failure.reason);
        CHECK(stage.sets_become(1));
        CHECK(stage.spis() == live);
        stage.talk("after");
    }
    stage.phone->program().write_line("fault none");
    stage.phone->reregister(true);  // and a right one succeeds
    stage.talk("after the next one");
    stage.check_link();
}

}  // namespace

TEST_SUITE("sa-life") {
    TEST_CASE("C-44, B-54, B-55: a re-authentication over IPv4 and UDP, row by row") { check_reauthentication(kUdp4); }
    TEST_CASE("C-44, B-54: a re-authentication over IPv6 and TCP, row by row") { check_reauthentication(kTcp6); }

    TEST_CASE(
        "C-44: an old set in use with no more than 64*T1 left hands over to the new one, which the phone has not used") {
        Stage stage("old-set = 9\nlifetime-margin = 2\n", kUdp4, {"--expires", "12"});
        const auto first = stage.spis();
        stage.talk("before");
        stage.phone->program().write_line("expires 600");
        stage.phone->reregister(true);
        auto second = stage.spis();
        for (const auto spi : first) second.erase(spi);
        CHECK(second.size() == 4);
        CHECK(eventually([&] { return stage.logged("set-taken-into-use", "the old set is about to expire"); }));
        const auto before = stage.packets(second);
        stage.to_phone(*stage.phone);
        CHECK(stage.packets(second) > before);
        stage.talk("during");
        CHECK(stage.sets_become(1));
        CHECK(stage.spis() == second);
        stage.talk("after");
        stage.check_link();
    }

    TEST_CASE(
        "C-44, B-58: an initial REGISTER of a registered phone disturbs nothing before its 200, and ends every other set with it") {
        Stage stage;
        stage.phone->reregister(true);
        CHECK(stage.sas().size() == 8);
        stage.talk("before");
        const auto before = stage.spis();
        RawRegister strange;  // somebody at the same address claims to be the phone
        strange.security_client = SecurityClient{}.text();
        CHECK(status_of(ask(stage.lab, strange)) == 401);
        stage.talk("during");
        for (const auto spi : before) CHECK(stage.spis().contains(spi));
        const auto outcome = stage.phone->command("register", [](const nlohmann::json& e) {
            return e.value("event", "") == "registered" || e.value("event", "") == "register_failed";
        });
        INFO(outcome.dump());
        CHECK(outcome.value("event", "") == "registered");
        CHECK(stage.sets_become(1));
        for (const auto spi : before) CHECK_FALSE(stage.spis().contains(spi));
        stage.talk("after");
        stage.check_link();
    }

    TEST_CASE(
        "C-44, B-51, B-56: a registration that nobody refreshes ends, in the kernel too; the core gets 480 for it") {
        Stage stage("lifetime-margin = 2\nold-set = 1\n", kUdp4, {"--expires", "8"});
        stage.talk("before");
        CHECK(stage.sets_become(0));
        CHECK(stage.logged("registration-expired"));
        const auto mark = stage.lab.core_mark();
        CHECK(stage.peer.message(stage.phone->impu(), stage.marker()) == 480);
        CHECK(stage.lab.core_received(mark, "MESSAGE").size() >= 1);
        stage.phone->program().write_line("expires 600");
        stage.phone->command("register", [](const nlohmann::json& e) { return e.value("event", "") == "registered"; });
        stage.talk("after it registered again");
        stage.check_link();
    }

    TEST_CASE("B-52: refreshes without a challenge keep the SAs alive beyond their first lifetime") {
        // The kernel's first limit covers the challenge and what the phone asked for: 5 + 8 + 1 + 5 s, and no more.
        Stage stage("reg-await-auth = 5\nlifetime-margin = 1\nkernel-margin = 5\nold-set = 1\n", kUdp4,
                    {"--expires", "8"});
        const auto first = stage.spis();
        const auto hard = stage.sas().front().hard_seconds;
        CHECK(hard <= 20);
        for (int i = 0; i < 5; ++i) {
            stage.phone->program().write_line("wait 4");
            stage.phone->reregister(false);
            stage.talk("refreshed");
        }
        CHECK(stage.spis() == first);
        for (const auto& sa : stage.sas()) CHECK(sa.hard_seconds > hard);  // counts from when the SA was added
        stage.check_link();
    }

    TEST_CASE(
        "C-44: when the 200 of a re-authentication is lost the phone goes on over its old set, and its next one keeps that") {
        Stage stage("old-set = 3\n", kUdp4, {"--timeout", "5"});
        const auto first = stage.spis();
        stage.talk("before");
        stage.phone->program().write_line("fault lose-200");
        const auto from = stage.phone->mark();
        stage.phone->program().write_line("begin reregister challenge");
        CHECK(eventually([&] { return stage.sas().size() == 8; }));
        stage.to_phone(*stage.phone);  // during
        CHECK(stage.outcome_of_register(from).value("reason", "") == "timeout");
        CHECK_FALSE(stage.logged("set-taken-into-use"));  // a repeated REGISTER is no use of the new set
        stage.talk("the phone has given up the new set");
        stage.phone->program().write_line("fault none");
        stage.phone->reregister(true);
        CHECK(stage.sas().size() == 8);
        for (const auto spi : first) CHECK(stage.spis().contains(spi));
        stage.talk("after");
        CHECK(stage.sets_become(1));
        stage.talk("in the end");
        stage.check_link();
    }

    TEST_CASE(
        "B-22, B-56, C-50: through ten re-authentications never more than three sets; de-registered, none is left") {
        Stage stage;
        for (int i = 0; i < 10; ++i) {
            stage.phone->reregister(true);
            CHECK(stage.sas().size() <= 12);
            if (i % 3 == 0) stage.talk("between");
        }
        stage.phone->deregister();
        CHECK(stage.sets_become(0));
        CHECK(stage.peer.message(stage.phone->impu(), stage.marker()) >= 400);
        stage.check_link();
    }

    TEST_CASE(
        "B-57: a phone that moves to another address is the same contact; its old set ends 64*T1 after the new 200") {
        const std::vector<std::string> instance{"--instance", "urn:gsma:imei:35245510-000000-0"};
        Stage stage("old-set = 4\n", kUdp4, instance);
        stage.lab.network.ue.ip_batch("address add 10.1.0.3/16 dev access0\n");
        stage.talk("before");
        const auto first = stage.spis();
        auto arguments = instance;
        arguments.insert(arguments.end(), {"--local", "10.1.0.3"});
        Phone moved(stage.lab, stage.phone_options(arguments));
        moved.demand_registered();
        CHECK(stage.sas().size() == 8);
        stage.from_phone(moved);
        stage.to_phone(moved);
        CHECK(stage.sets_become(1));
        for (const auto spi : first) CHECK_FALSE(stage.spis().contains(spi));
        stage.from_phone(moved);
        stage.to_phone(moved);
        stage.check_link();
    }
}

TEST_SUITE("sa-failures") {
    TEST_CASE(
        "B-40, B-41, B-44, B-46: re-authentications with a wrong IK, a wrong RES and without an answer fail one after the other; the registration goes on") {
        check_failures({{"wrong-ik", "timeout"}, {"wrong-res", "status-403", 2}, {"no-esp", "no-esp"}}, kUdp4);
    }
    TEST_CASE("B-40, B-41, B-44, B-46: the same over IPv6 and TCP") {
        check_failures({{"wrong-ik", "timeout"}, {"wrong-res", "status-403", 2}}, kTcp6);
    }

    TEST_CASE(
        "B-41: the SA that carries the refusal: the old one after a protected first REGISTER, the new one after one in clear") {
        Stage stage("final-answer = 1\n");
        const auto live = stage.spis();
        const auto count = [&](bool wants_live) {
            std::uint64_t packets = 0;  // port_pc → port_us: responses over UDP
            for (const auto& sa : stage.sas())
                if (live.contains(sa.spi) == wants_live && sa.source == Network::kAccess4 &&
                    sa.source_port >= Lab::kFirstClientPort)
                    packets += sa.packets;
            return packets;
        };
        const auto before = count(true);
        stage.phone->program().write_line("fault wrong-res");
        stage.phone->command("reregister challenge",
                             [](const nlohmann::json& e) { return e.value("event", "") == "register_failed"; });
        CHECK(count(true) == before + 2);  // the 401 and the 403
        CHECK(count(false) == 0);
        CHECK(stage.sets_become(1));
        Phone stranger(stage.lab, stage.phone_options({"--wrong-res"}, 2));
        CHECK(stranger.first().value("status", 0) == 403);
        CHECK(stage.sets_become(1));
        stage.talk("after");
        stage.check_link();
    }

    TEST_CASE(
        "B-42, B-43: resynchronisation during a re-authentication: the set of the refused challenge goes, the next one is taken") {
        Stage stage;
        stage.talk("before");
        stage.phone->program().write_line("fault auts");
        const auto from = stage.phone->mark();
        stage.phone->program().write_line("begin reregister challenge");
        stage.to_phone(*stage.phone);
        CHECK(stage.outcome_of_register(from).value("event", "") == "reregistered");
        CHECK(stage.logged("challenge-refused-by-phone", "resynchronisation"));
        CHECK(stage.sas().size() == 8);
        stage.talk("after");
        stage.check_link();
    }

    TEST_CASE("B-42: a phone that does not believe the network says so, and the temporary set goes at once") {
        Stage stage;
        stage.talk("before");
        Phone doubter(stage.lab, stage.phone_options({"--k", "00112233445566778899aabbccddeeff"}, 2));
        CHECK(doubter.first().value("reason", "") == "autn-mac");
        CHECK(stage.logged("challenge-refused-by-phone", "AUTN"));
        const auto registers = stage.lab.core_registers();
        CHECK(registers.back()["has_response"] == false);
        CHECK(stage.sas().size() <= 8);  // what the core's answer to the report has made
        stage.talk("after");
        stage.check_link();
    }

    TEST_CASE("B-43: several challenges in a row: each its own set, only the last one stands") {
        Stage stage;
        stage.talk("before");
        std::set<std::uint32_t> seen = stage.spis();
        for (std::uint32_t i = 0; i < 3; ++i) {
            SecurityClient offer;
            offer.spi_c += 10 * i;
            offer.spi_s += 10 * i;
            RawRegister request;
            request.user = 2;
            request.port = 5070 + static_cast<int>(i);
            request.security_client = offer.text();
            CHECK(status_of(ask(stage.lab, request)) == 401);
            CHECK(stage.sas().size() == 8);
            for (const auto& sa : stage.sas())
                if (!seen.contains(sa.spi)) CHECK(sa.packets == 0);
        }
        stage.talk("after");
        stage.check_link();
    }

    TEST_CASE(
        "G-25: a spoofed REGISTER with a live phone's address and port gets the other server port, and goes by time") {
        Stage stage("reg-await-auth = 5\n");
        stage.talk("before");
        const auto live = stage.spis();
        RawRegister spoofed;
        spoofed.user = 2;
        SecurityClient offer;
        offer.port_c = stage.phone->first().value("port_uc", 0);
        offer.port_s = stage.phone->first().value("port_us", 0);
        spoofed.security_client = offer.text();
        const auto response = ask(stage.lab, spoofed);
        CHECK(status_of(response) == 401);
        CHECK(response.find("port-s=6101") != std::string::npos);
        stage.talk("during");
        CHECK(stage.sets_become(1));
        CHECK(stage.spis() == live);
        stage.talk("after");
        stage.check_link();
    }

    TEST_CASE("G-25: strict-collision refuses it") {
        Stage stage({}, kUdp4, {}, "strict-collision = true\n");
        RawRegister spoofed;
        spoofed.user = 2;
        SecurityClient offer;
        offer.port_c = stage.phone->first().value("port_uc", 0);
        spoofed.security_client = offer.text();
        const auto response = ask(stage.lab, spoofed);
        CHECK(status_of(response) == 480);
        CHECK(response.find("Security-Server") == std::string::npos);
        CHECK(stage.sas().size() == 4);
        stage.talk("after");
        stage.check_link();
    }

    TEST_CASE(
        "G-25: an address and port that went to another phone: the old registration ends when the newcomer has proved itself") {
        Stage stage;
        stage.talk("before");
        const auto port = [&](const char* name) { return std::to_string(stage.phone->first().value(name, 0)); };
        const auto port_uc = port("port_uc"), port_us = port("port_us");
        stage.phone->program().write_line("quit");  // crashed: no de-REGISTER
        CHECK(stage.phone->program().wait() == 0);
        CHECK(stage.sas().size() == 4);
        Phone newcomer(stage.lab, stage.phone_options({"--port-uc", port_uc, "--port-us", port_us}, 2));
        newcomer.demand_registered();
        CHECK(newcomer.first().value("port_ps", 0) == 6101);
        CHECK(stage.sets_become(1));
        CHECK(stage.logged("registration-ended", "another contact has proved"));
        stage.from_phone(newcomer);
        stage.to_phone(newcomer);
        CHECK(stage.peer.message(impu_of_user(0), stage.marker()) == 480);
        stage.check_link();
    }

    TEST_CASE("B-11, G-25: a phone is rebooted and back with the same SPIs and ports, over IPv4 and UDP") {
        check_reboot(kUdp4, true);
    }
    TEST_CASE("B-11, G-25: a phone is rebooted and back with the same SPIs and ports, over IPv6 and TCP") {
        check_reboot(kTcp6, true);
    }
    TEST_CASE("B-11, G-25: a phone is rebooted and back with the same SPIs on other ports, over IPv6 and UDP") {
        check_reboot({true, false}, false);
    }
    TEST_CASE("B-11, G-25: an address went to another user, whose phone counts its SPIs as the one before, over TCP") {
        check_reboot({false, true}, false, 2);
    }

    TEST_CASE("B-11, B-41: a phone back with its SPIs hears the core's 500 over UDP and registers at its next try") {
        auto options = plain_lab();
        options.core_arguments = {"--wrong-response", "500"};
        Lab lab(options);
        for (const bool is_v6 : {false, true}) {
            INFO("IPv6: ", is_v6);
            PhoneOptions known{.is_v6 = is_v6, .arguments = {"--spi-uc", "1001", "--spi-us", "1002"}};
            Phone before(lab, known);
            before.demand_registered();
            before.program().write_line("quit");  // no de-REGISTER
            CHECK(before.program().wait() == 0);
            auto refused = known;
            refused.arguments.emplace_back("--wrong-res");
            const Phone first_try(lab, refused);
            INFO(first_try.first().dump());
            CHECK(first_try.first().value("event", "") == "register_failed");
            CHECK(first_try.first().value("status", 0) == 500);
            CHECK(count_sas(lab.network.gw) == 4);  // those of before have ended
            Phone again(lab, known);
            again.demand_registered();
            again.deregister();
            CHECK(eventually([&] { return count_sas(lab.network.gw) == 0; }));
        }
    }

    TEST_CASE(
        "B-11, G-25: a stranger who asks for the SPIs of a phone harms neither its set nor the next one, whoever is first") {
        const std::vector<std::string> spis{"--spi-uc", "1001", "--spi-us", "1002"};
        Stage stage("reg-await-auth = 5\n", kUdp4, spis);
        stage.talk("before");
        const auto live = stage.spis();
        RawRegister spoofed;
        spoofed.user = 2;
        SecurityClient offer;
        offer.spi_c = 1001;
        offer.spi_s = 1002;
        offer.port_c = stage.phone->first().value("port_uc", 0);
        offer.port_s = stage.phone->first().value("port_us", 0);
        spoofed.security_client = offer.text();
        CHECK(status_of(ask(stage.lab, spoofed)) == 401);
        CHECK(stage.sas().size() == 8);
        stage.talk("during");
        CHECK(stage.sets_become(1));  // 5 s later
        CHECK(stage.spis() == live);
        stage.talk("after");
        offer.spi_c = 2001;
        offer.spi_s = 2002;
        spoofed.security_client = offer.text();
        spoofed.call_id = unique_word("raw-");
        CHECK(status_of(ask(stage.lab, spoofed)) == 401);  // before the phone whose SPIs these will be
        Phone second(stage.lab, stage.phone_options({"--spi-uc", "2001", "--spi-us", "2002"}, 3));
        second.demand_registered();
        CHECK(stage.sas().size() == 8);
        stage.from_phone(second);
        stage.to_phone(second);
        stage.talk("at the end");
        stage.check_link();
    }
}

TEST_SUITE("essentials") {
    TEST_CASE(
        "C-44, B-54: a re-authentication: the old set serves until the phone uses the new one, and ends 64*T1 after") {
        check_reauthentication(kUdp4);
    }
}
