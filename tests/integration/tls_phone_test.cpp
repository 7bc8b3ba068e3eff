// Mechanism tls with gmue as the phone: both call flows, AKA and digest users, both directions, many phones; kernel TLS
// underneath.
#include <doctest/doctest.h>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

PhoneOptions tls_phone(const TlsLab& tls, std::size_t user, bool is_v6, const std::string& security,
                       const std::string& version) {
    return {.user = user, .is_v6 = is_v6, .arguments = tls.phone_arguments(security, version)};
}

/// Two AKA phones over TLS in one way each: everything that a registered phone does, in the kernel's hands.
void check_two_phones(bool is_v6, const std::string& caller_security, const std::string& version) {
    TlsLab tls;
    auto& lab = *tls.lab;
    const auto mark = lab.core_mark();
    Phone a(lab, tls_phone(tls, 0, is_v6, caller_security, version));
    a.demand_registered();
    CHECK(a.first().value("challenged", false));
    CHECK(a.first().value("tls", "").find(version == "1.3" ? "TLSv1.3 TLS_" : "TLSv1.2 ECDHE-ECDSA-") !=
          std::string::npos);
    const auto registers = lab.core_registers(mark);
    REQUIRE(registers.size() == 2);
    CHECK(registers[0].value("integrity_protected", "?") == "");
    CHECK(registers[1].value("integrity_protected", "") == "tls-pending");
    for (const auto& event : registers) CHECK(event["sec_agree_leftovers"].empty());

    Phone b(lab, tls_phone(tls, 1, is_v6, "tls-prior", version));
    b.demand_registered();
    CHECK(tls.in_kernel(2));

    const auto text = unique_word("over-tls-");
    CHECK(a.message(b.impu(), text) == 200);
    b.await_message(text);
    const auto event = b.await_event(
        [&](const nlohmann::json& e) {
            return e.value("event", "") == "message_received" && e.value("body", "") == text;
        },
        "it");
    CHECK(event.value("transport", "") == "tls");
    CHECK(b.message(a.impu(), text + "-back") == 200);
    a.await_message(text + "-back");
    CHECK(a.call(b.impu()).value("event", "") == "call_ended");

    a.reregister(false);
    CHECK(lab.core_registers().back().value("integrity_protected", "") == "tls-yes");
    a.reregister(true);
    CHECK(tls.in_kernel(2));  // terminating requests and re-registrations opened no further connection
    a.deregister();
    CHECK(tls.in_kernel(1));
}

}  // namespace

TEST_SUITE("tls-phone") {
    TEST_CASE("SEED, B-94, B-95: two AKA phones, TLS during and prior to registration, TLS 1.3, IPv4") {
        check_two_phones(false, "tls", "1.3");
    }
    TEST_CASE("SEED, B-94, B-95: two AKA phones, TLS during and prior to registration, TLS 1.2, IPv6") {
        check_two_phones(true, "tls", "1.2");
    }

    TEST_CASE("A digest user over TLS sends to a phone with SAs and gets an answer") {
        TlsLab tls;
        auto options = tls_phone(tls, 0, false, "tls", "1.3");
        options.arguments.insert(options.arguments.end(), {"--impi", kDigestUser, "--password", kDigestPassword});
        Phone digest(*tls.lab, options);
        digest.demand_registered();
        Phone ipsec(*tls.lab, {.user = 1});
        ipsec.demand_registered();
        const auto text = unique_word("tls-to-esp-");
        CHECK(digest.message(ipsec.impu(), text) == 200);
        ipsec.await_message(text);
        CHECK(ipsec.message(std::string("sip:") + kDigestUser, text + "-back") == 200);
        digest.await_message(text + "-back");
        digest.reregister(false);
    }

    TEST_CASE("A phone that gets a certificate it does not trust, or that names another server, sends nothing") {
        TlsLab tls;
        make_certificate(tls.folder, "stranger");
        auto& lab = *tls.lab;
        const auto mark = lab.core_mark();
        for (const std::vector<std::string>& arguments :
             {std::vector<std::string>{"--tls-ca", tls.folder + "/stranger.pem", "--tls-name", kTlsName},
              std::vector<std::string>{"--tls-ca", tls.folder + "/ecdsa.pem", "--tls-name",
                                       "pcscf.elsewhere.example"}}) {
            std::vector<std::string> command{
                lab.programs().gmue, "register",    "--gateway", std::string(Network::kAccess4),
                "--security",        "tls-prior",   "--timeout", "2",
                "--expect",          "send-failed", "--json"};
            command.insert(command.end(), arguments.begin(), arguments.end());
            const auto output = run_program({.command = command, .name = "gmue", .network = &lab.network.ue});
            INFO(output);
            CHECK(output.find("verify failed") != std::string::npos);
        }
        CHECK(lab.core_received(mark).empty());
    }

    TEST_CASE("Bidding down over TLS: a Security-Verify that is not what was sent gets 494") {
        TlsLab tls;
        auto options = tls_phone(tls, 0, false, "tls", "1.3");
        options.arguments.insert(options.arguments.end(), {"--security-verify", "digest"});
        Phone phone(*tls.lab, options);
        CHECK(phone.first().value("status", 0) == 494);
    }

    TEST_CASE("Many phones over TLS register, stay and leave; every connection is the kernel's") {
        TlsLab tls({.users = 40});
        auto& lab = *tls.lab;
        const auto tx = tls.tls_stat("TlsTxSw"),
                   rx = tls.tls_stat("TlsRxSw");  // the gateway's probe at start counts as well
        std::vector<std::string> command{lab.programs().gmue,
                                         "register",
                                         "--gateway",
                                         std::string(Network::kAccess4),
                                         "--count",
                                         "40",
                                         "--rate",
                                         "20",
                                         "--hold",
                                         "1",
                                         "--quiet"};
        for (auto& argument : tls.phone_arguments("tls", "1.3")) command.push_back(argument);
        run_program({.command = command, .name = "gmue", .network = &lab.network.ue});
        CHECK(tls.tls_stat("TlsTxSw") - tx == 40);
        CHECK(tls.tls_stat("TlsRxSw") - rx == 40);
        CHECK(tls.in_kernel(0));
    }
}
