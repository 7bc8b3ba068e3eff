// TLS towards the core: the kernel carries it, the core must be who it should be (RFC 5922), and nothing crosses the
// link in clear.
#include <memory>

#include <doctest/doctest.h>

#include "tests/integration/ringing.h"
#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

constexpr const char* kCoreDomain = "core.example";

/// Gateway and core with a certificate each, each verifying the other; `core_names` is the subjectAltName of the
/// core's.
struct CoreTlsLab {
    explicit CoreTlsLab(const std::string& core_names, const std::string& next_hops = {},
                        const std::string& core_lines = {}) {
        make_certificate(folder, "gateway");
        make_certificate(folder, "core", {.host = "core-host.example", .alternative = core_names});
        auto options = plain_lab();
        options.core_transport = "tls";
        options.next_hops = next_hops;
        options.core_lines = std::string("tls-name = \"") + kCoreDomain + "\"\ntls-ca = \"" + folder +
                             "/core.pem\"\ntls-profile = \"core\"\n" + core_lines;
        options.more_sections = "[[tls-profile]]\nname = \"core\"\nend-entity-cert = [\"" + folder +
                                "/gateway.pem\"]\nprivate-key = [\"" + folder + "/gateway.key\"]\n";
        options.core_arguments = {"--tls-cert",         folder + "/core.pem", "--tls-key",
                                  folder + "/core.key", "--tls-ca",           folder + "/gateway.pem"};
        lab = std::make_unique<Lab>(options);
    }
    ~CoreTlsLab() {
        lab.reset();
        run_program({.command = {"rm", "-rf", folder}});
    }
    long tls_stat(const std::string& name) const {
        const auto text = lab->network.gw.run("cat /proc/net/tls_stat");
        return std::stol(text.substr(text.find(name) + name.size()));
    }
    std::string folder = make_temporary_folder();
    std::unique_ptr<Lab> lab;
};

}  // namespace

TEST_SUITE("tls-core") {
    TEST_CASE(
        "F-5: phones behind a core that is spoken to by TLS: both directions in the kernel, nothing of it readable on the link") {
        CoreTlsLab tls(std::string("URI:sip:") + kCoreDomain + ",DNS:core-host.example");
        auto& lab = *tls.lab;
        Capture core_link(lab.network.core, "core0");
        Phone a(lab, {.user = 0}), b(lab, {.user = 1, .is_v6 = true, .is_tcp = true});
        a.demand_registered();
        b.demand_registered();
        const auto text = unique_word("core-tls-");
        CHECK(a.message(b.impu(), text) == 200);
        b.await_message(text);
        CHECK(b.message(a.impu(), text + "-back") == 200);
        a.await_message(text + "-back");
        CHECK(a.call(b.impu()).value("event", "") == "call_ended");
        for (const auto& event : lab.core_log())
            if (event.value("event", "") == "message") CHECK(event.value("transport", "") == "tls");
        // One connection that we opened and one that the core opened for requests to the phones.
        CHECK(tls.tls_stat("TlsCurrTxSw") >= 2);
        CHECK(tls.tls_stat("TlsCurrTxSw") == tls.tls_stat("TlsCurrRxSw"));
        const auto frames = core_link.frames();
        CHECK(frames.size() > 10);
        for (const auto& frame : frames) {
            CHECK_FALSE(frame.contains("SIP/2.0"));
            CHECK_FALSE(frame.contains(text));
        }
        a.deregister();
        b.deregister();
    }

    TEST_CASE(
        "F-5, RFC 5922: a core with a certificate for another domain gets not a single request; the log says whose it is") {
        CoreTlsLab tls("URI:sip:elsewhere.example,DNS:core.example");
        auto& lab = *tls.lab;
        Phone phone(lab, {.user = 0});
        CHECK(phone.first().value("event", "") == "register_failed");
        CHECK(phone.first().value("status", 0) >= 500);
        const auto line = lab.gateway().wait_for_text("tls-connect-failed").text;
        CHECK(line.find("not for core.example") != std::string::npos);
        CHECK(line.find("elsewhere.example") != std::string::npos);
        CHECK(lab.core_received(0).empty());
    }

    TEST_CASE("F-5, RFC 5922: a next hop with a certificate and a tls-name of its own is spoken to, and listened to") {
        const std::string hop = std::string("[[core.next-hops]]\nhost = \"") + Network::kCore4 +
                                ":5060\"\ntls-name = \"elsewhere.example\"\n";
        CoreTlsLab tls("URI:sip:elsewhere.example", hop);
        auto& lab = *tls.lab;
        Phone a(lab, {.user = 0}), b(lab, {.user = 1, .is_tcp = true});
        a.demand_registered();
        b.demand_registered();
        const auto text = unique_word("own-name-");
        CHECK(a.message(b.impu(), text) == 200);  // the core's requests come over a connection that it opened
        b.await_message(text);
        CHECK(tls.tls_stat("TlsCurrTxSw") >= 2);
    }

    TEST_CASE("the TLS port on the core side is closed to whoever is none of the core's, before any handshake") {
        CoreTlsLab tls(std::string("URI:sip:") + kCoreDomain);
        auto& lab = *tls.lab;
        lab.network.core.ip_batch("address add 10.2.0.99/16 dev core0\n");
        Program stranger({.command = {"openssl", "s_client", "-connect", std::string(Network::kGwCore4) + ":5060",
                                      "-bind", "10.2.0.99", "-tls1_3"},
                          .name = "s_client",
                          .network = &lab.network.core});
        CHECK(lab.gateway().wait_for_text("core-stranger").text.find("10.2.0.99:") != std::string::npos);
        CHECK(stranger.wait() != 0);
        CHECK(stranger.output().find("BEGIN CERTIFICATE") == std::string::npos);
        Phone phone(lab, {});
        phone.demand_registered();
    }

    TEST_CASE(
        "an element of the core that was asked for nothing, with the core's certificate and all that a call shows, neither answers nor cancels it over TLS") {
        constexpr const char* kElement = "10.2.0.99";
        CoreTlsLab tls(std::string("URI:sip:") + kCoreDomain, {}, fmt::format("peers = \"{}\"\n", kElement));
        auto& lab = *tls.lab;
        Ringing call(lab, {});
        INFO(lab.gateway_log());
        lab.network.core.ip_batch(fmt::format("address add {}/16 dev core0\n", kElement));
        Program element(
            {.command = {"openssl", "s_client", "-connect", std::string(Network::kGwCore4) + ":5060", "-bind", kElement,
                         "-cert", tls.folder + "/core.pem", "-key", tls.folder + "/core.key", "-quiet", "-tls1_3"},
             .name = "s_client",
             .network = &lab.network.core});
        const auto send = [&](const std::string& text) { element.write(text); };
        call.answer_both(send);
        for (const auto& cancel : call.cancels()) {
            const auto mark = element.line_count();
            send(cancel);
            element.wait_for_text("SIP/2.0 481", mark);
        }
        call.check_ringing();
        call.establish();
        call.hang_up();
    }

    TEST_CASE("F-5: nobody without the core's certificate gets through the gateway's TLS port on the core side") {
        CoreTlsLab tls(std::string("URI:sip:") + kCoreDomain);
        auto& lab = *tls.lab;
        make_certificate(tls.folder, "stranger", {.host = kCoreDomain});
        for (const std::vector<std::string>& own :
             {std::vector<std::string>{},
              std::vector<std::string>{"-cert", tls.folder + "/stranger.pem", "-key", tls.folder + "/stranger.key"}}) {
            std::vector<std::string> command{
                "openssl", "s_client", "-connect", std::string(Network::kGwCore4) + ":5060", "-quiet", "-tls1_3"};
            command.insert(command.end(), own.begin(), own.end());
            const auto mark = lab.gateway().line_count();
            Program stranger({.command = command, .name = "s_client", .network = &lab.network.core});
            lab.gateway().wait_for_text("tls-handshake-failed", mark);
            CHECK(stranger.wait() != 0);
        }
    }
}
