// Peers that this project did not write: baresip as a phone, sslscan as the auditor. Both are Debian's, unchanged.
#include <fstream>
#include <set>
#include <sstream>

#include <doctest/doctest.h>

#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

/// A folder with baresip's configuration for the lab's digest user over TLS.
std::string baresip_folder(const TlsLab& tls) {
    const auto folder = tls.folder + "/baresip";
    run_program({.command = {"mkdir", folder}});
    std::ofstream(folder + "/accounts")
        << "<sip:" << kDigestUser << ";transport=tls>;auth_user=" << kDigestUser << ";auth_pass=\"" << kDigestPassword
        << "\";outbound=\"sip:10.1.0.1:5061;transport=tls\";regint=600;audio_codecs=PCMU\n";
    std::ofstream(folder + "/contacts");
    std::ofstream(folder + "/config")
        << "sip_listen 10.1.0.2:0\nsip_cafile " << tls.folder
        << "/ecdsa.pem\nsip_verify_server yes\nnet_interface access0\n"
           "audio_source aubridge,none\naudio_player aubridge,none\naudio_alert aubridge,none\ncall_local_timeout 60\n"
           "module_path /usr/lib/baresip/modules\nmodule g711.so\nmodule aubridge.so\nmodule uuid.so\nmodule_tmp account.so\n"
           "module_app menu.so\nmodule_app contact.so\nmodule_app ctrl_tcp.so\nctrl_tcp_listen 10.1.0.2:4444\n";
    return folder;
}

/// baresip's ctrl_tcp module: commands as JSON objects in netstrings.
class Control {
public:
    explicit Control(const Namespace& network) : peer_(network, RawPeer::Kind::tcp, "10.1.0.2:42444", "10.1.0.2:4444") {
        REQUIRE(peer_.connects(kPatience));
    }
    void command(const std::string& name, const std::string& parameters = {}) {
        const auto text = "{\"command\":\"" + name + "\",\"params\":\"" + parameters + "\",\"token\":\"" + name + "\"}";
        peer_.send(std::to_string(text.size()) + ":" + text + ",");
    }

private:
    RawPeer peer_;
};

}  // namespace

TEST_SUITE("tls-baresip") {
    TEST_CASE(
        "SEED, B-93, B-95: baresip registers over TLS, gets a MESSAGE from a phone with SAs and calls it; the kernel carries its connection") {
        TlsLab tls;
        auto& lab = *tls.lab;
        const auto mark = lab.core_mark();
        Program baresip(
            {.command = {"baresip", "-f", baresip_folder(tls), "-v"}, .name = "baresip", .network = &lab.network.ue});
        baresip.wait_for_text("200 OK");
        CHECK(tls.in_kernel(1));
        const auto registers = lab.core_registers(mark);
        REQUIRE(registers.size() == 2);
        CHECK(registers[0].value("integrity_protected", "?") == "");
        CHECK(registers[1].value("integrity_protected", "") == "tls-pending");

        Control control(lab.network.ue);
        Phone phone(lab, {.user = 0});
        phone.demand_registered();
        const auto text = unique_word("to-baresip-");
        CHECK(phone.message(std::string("sip:") + kDigestUser, text) ==
              200);  // the 200 is baresip's: nobody else answers for it

        const auto called = phone.mark();
        control.command("dial", phone.impu());
        const auto event = [](const char* name) {
            return [name](const nlohmann::json& e) { return e.value("event", "") == name; };
        };
        phone.await_event(event("call_established"), "baresip's call", called);
        baresip.wait_for_text("Call established");
        CHECK(tls.in_kernel(1));  // in both directions over its one connection
        control.command("hangup");
        phone.await_event(event("call_ended"), "its end", called);
        CHECK(lab.core_received(mark, "INVITE").size() == 1);
        baresip.terminate();
        CHECK(tls.in_kernel(0));
    }
}

TEST_SUITE("tls-peers") {
    TEST_CASE(
        "F-1, F-2, F-3: sslscan finds TLS 1.2 and 1.3 with the suites that the kernel can carry, and nothing else") {
        TlsLab tls;
        auto& lab = *tls.lab;
        const auto report =
            run_program({.command = {"sslscan", "--no-colour", "--no-failed", "--show-certificate", "10.1.0.1:5061"},
                         .name = "sslscan",
                         .network = &lab.network.ue},
                        {}, std::chrono::seconds(240));
        INFO(report);
        for (const auto* line : {"SSLv2     disabled", "SSLv3     disabled", "TLSv1.0   disabled", "TLSv1.1   disabled",
                                 "TLSv1.2   enabled", "TLSv1.3   enabled", "Session renegotiation not supported"})
            CHECK(report.find(line) != std::string::npos);
        CHECK(report.find("vulnerable to heartbleed") == report.find("not vulnerable to heartbleed") + 4);
        std::set<std::string> found;
        std::istringstream lines(report);
        for (std::string line; std::getline(lines, line);) {
            std::istringstream words(line);
            std::string kind, version, bits, unit, suite;
            words >> kind >> version >> bits >> unit >> suite;
            if ((kind == "Preferred" || kind == "Accepted") && unit == "bits") found.insert(version + " " + suite);
        }
        const std::set<std::string> intended{
            "TLSv1.3 TLS_AES_128_GCM_SHA256",        "TLSv1.3 TLS_AES_256_GCM_SHA384",
            "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256",  "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256",
            "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305"};
        CHECK(found == intended);
        CHECK(lab.gateway().is_running());
    }
}
