// Nobody becomes somebody else: a registered phone that registers for another user with credentials which two readers
// take differently.
#include <doctest/doctest.h>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

constexpr std::size_t kVictim = 1;

struct Attacker {
    const char* over;
    std::size_t user;
    bool is_v6;
    bool is_tcp;
    const char* tls_version;  ///< null: over SAs
};
constexpr Attacker kAttackers[] = {
    {"SAs, UDP, IPv4", 2, false, false, nullptr}, {"SAs, TCP, IPv4", 3, false, true, nullptr},
    {"SAs, UDP, IPv6", 4, true, false, nullptr},  {"SAs, TCP, IPv6", 5, true, true, nullptr},
    {"TLS, IPv4", 6, false, true, "1.3"},         {"TLS, IPv6", 7, true, true, "1.2"}};

PhoneOptions options_of(const TlsLab& tls, const Attacker& attacker) {
    PhoneOptions options{.user = attacker.user, .is_v6 = attacker.is_v6, .is_tcp = attacker.is_tcp};
    if (attacker.tls_version != nullptr) options.arguments = tls.phone_arguments("tls", attacker.tls_version);
    return options;
}

bool is_registration_outcome(const nlohmann::json& event) {
    const auto name = event.value("event", "");
    return name == "register_failed" || name == "reregistered";
}

/// The status with which the gateway refuses a re-registration as the victim, 0 when it does not.
int try_takeover(Phone& attacker, const std::string& how) {
    attacker.program().write_line("forge " + how + " " + impi_of_user(kVictim) + " " + impu_of_user(kVictim));
    const auto outcome = attacker.command("reregister", is_registration_outcome);
    attacker.program().write_line("forge");
    return outcome.value("event", "") == "register_failed" ? outcome.value("status", 0) : 0;
}

/// What a MESSAGE of this phone asserts towards the core.
std::string asserted_by(Lab& lab, Phone& sender, Phone& receiver) {
    const auto mark = lab.core_mark();
    const auto text = unique_word("still-");
    CHECK(sender.message(receiver.impu(), text) == 200);
    receiver.await_message(text);
    const std::string request = lab.core_received(mark, "MESSAGE").at(0);
    const auto at = request.find("P-Asserted-Identity: ");
    return at == std::string::npos ? "" : request.substr(at + 21, request.find("\r\n", at) - at - 21);
}

}  // namespace

TEST_SUITE("identity") {
    TEST_CASE("the account takeover over SAs and TLS, UDP and TCP, both families: 400, nothing to the core") {
        TlsLab tls;
        auto& lab = *tls.lab;
        Phone victim(lab, {.user = kVictim});
        victim.demand_registered();
        for (const Attacker& way : kAttackers) {
            CAPTURE(way.over);
            Phone attacker(lab, options_of(tls, way));
            attacker.demand_registered();
            for (const auto* how : {"first", "last", "double"}) {
                CAPTURE(how);
                const auto mark = lab.core_mark();
                CHECK(try_takeover(attacker, how) == 400);
                CHECK(lab.core_received(mark, "REGISTER").empty());
            }
            // Each is still who he was: the victim gets his messages, and the attacker speaks for himself alone.
            CHECK(asserted_by(lab, attacker, victim) == "<" + impu_of_user(way.user) + ">");
            attacker.reregister(false);  // an honest one goes through
            attacker.deregister();
        }
        CHECK(asserted_by(lab, victim, victim) == "<" + impu_of_user(kVictim) + ">");
        victim.reregister(true);
    }

    TEST_CASE("the same in clear: 400 that says why, no SA, and the core hears nothing") {
        Lab lab(plain_lab());
        for (const bool is_v6 : {false, true})
            for (const bool is_tcp : {false, true}) {
                RawRegister request;
                request.access = {is_v6, is_tcp};
                request.security_client = SecurityClient{}.text();
                request.more_headers = "Authorization: Digest username=\"" + impi_of_user(kVictim) + "\",@@\r\n";
                const auto mark = lab.core_mark();
                const auto answer = ask(lab, request);
                INFO(answer);
                CHECK(status_of(answer) == 400);
                CHECK(answer.find("Warning: 399 gmgate \"credentials: there is more than one such header field\"") !=
                      std::string::npos);
                CHECK(lab.core_received(mark).empty());
                RawRegister bare_lf = request;
                bare_lf.port = request.port + 1;
                bare_lf.more_headers = "X: 1\nAuthorization: Digest username=\"" + impi_of_user(kVictim) + "\"\r\n";
                CHECK(status_of(ask(lab, bare_lf)) == 400);
                CHECK(lab.core_received(mark).empty());
            }
        CHECK(count_sas(lab.network.gw) == 0);
    }
}
