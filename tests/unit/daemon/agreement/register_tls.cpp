// The register flow with mechanism tls: the two call flows of the feature text and what may go wrong in them.
#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;
using Bench = RegisterBench;

namespace {

void put_tls_first(daemon::Config& config) {
    config.sip_interfaces.front().sec_agree_pref = daemon::SecAgreePref::tls_ipsec3gpp;
}

/// Registers over TLS after an agreement in clear; returns the bound connection.
sip::Flow agreed_over_tls(Bench& bench) {
    REQUIRE(Bench::status_of(*bench.send({})) == 401);
    const auto flow = bench.tls_connection();
    Say say;
    say.verify = "tls";
    say.response = "3779ff40a057f999a2f8288bbfafc10d";
    say.nonce = bench.nonce;
    bench.core_status = 200;
    REQUIRE(Bench::status_of(*bench.send(say, flow)) == 200);
    REQUIRE(bench.registration());
    REQUIRE(bench.registration()->tls != nullptr);
    return flow;
}

}  // namespace

TEST_CASE(
    "SEED-TLS-1, B-94, G-3: TLS during registration: 401 with 'tls', no indicator, then tls-pending, then bound") {
    Bench bench(put_tls_first);
    const auto sm6 = bench.send({});
    REQUIRE(Bench::status_of(*sm6) == 401);
    CHECK(Bench::header(sm6->responses.back(), "Security-Server") == "tls");
    CHECK(sm6->responses.back().find(kCk) == std::string::npos);
    CHECK(bench.core_saw.front().find("integrity-protected") == std::string::npos);
    CHECK(bench.core_saw.front().find("Security-Client") == std::string::npos);
    CHECK(bench.kernel.sas().empty());

    const auto flow = bench.tls_connection();
    Say sm7;
    sm7.client = "";  // G-5: the flow shows Security-Verify alone
    sm7.verify = "tls";
    sm7.response = "3779ff40a057f999a2f8288bbfafc10d";
    sm7.nonce = bench.nonce;
    bench.core_status = 200;
    const auto sm12 = bench.send(sm7, flow);
    CHECK(Bench::status_of(*sm12) == 200);
    CHECK(bench.core_saw.back().find("integrity-protected=\"tls-pending\"") != std::string::npos);
    CHECK(bench.core_saw.back().find("Security-Verify") == std::string::npos);
    REQUIRE(bench.registration());
    CHECK(bench.registration()->tls->flow.connection == flow.connection);
    CHECK(bench.parts().table.owner_of(flow).registration == bench.registration());
}

TEST_CASE("B-95: TLS prior to registration: no sec-agree anywhere, no Security-Server, tls-pending with the response") {
    Bench bench(put_tls_first);
    const auto flow = bench.tls_connection();
    const auto sm6 = bench.send({.client = "", .sec_agree = false}, flow);
    REQUIRE(Bench::status_of(*sm6) == 401);
    CHECK(Bench::header(sm6->responses.back(), "Security-Server").empty());
    CHECK(bench.core_saw.back().find("integrity-protected") == std::string::npos);
    Say sm7{.client = "", .response = "3779ff40a057f999a2f8288bbfafc10d", .nonce = bench.nonce, .sec_agree = false};
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(sm7, flow)) == 200);
    CHECK(bench.core_saw.back().find("integrity-protected=\"tls-pending\"") != std::string::npos);
    SUBCASE("C-48, B-97: the refresh says tls-yes") {
        CHECK(Bench::status_of(*bench.send(sm7, flow)) == 200);
        CHECK(bench.core_saw.back().find("integrity-protected=\"tls-yes\"") != std::string::npos);
    }
    SUBCASE("C-21: bare where configured") {
        Bench bare([](daemon::Config& config) {
            put_tls_first(config);
            config.sip_interfaces.front().bare_integrity_protected = true;
        });
        bare.core_status = 200;
        bare.send(sm7, bare.tls_connection());
        CHECK(bare.core_saw.back().find("integrity-protected=tls-pending") != std::string::npos);
    }
}

TEST_CASE("G-16: a REGISTER over TLS with Security-Client gets tls, whatever else it offers, and must then mirror it") {
    Bench bench([](daemon::Config& config) {
        config.sip_interfaces.front().sec_agree_pref = daemon::SecAgreePref::ipsec3gpp_tls;
    });
    const auto flow = bench.tls_connection();
    const auto sm6 = bench.send({}, flow);
    CHECK(Bench::status_of(*sm6) == 401);
    CHECK(Bench::header(sm6->responses.back(), "Security-Server") == "tls");
    CHECK(bench.kernel.sas().empty());
    Say sm7{.response = "3779ff40a057f999a2f8288bbfafc10d", .nonce = bench.nonce};
    const auto forwarded = bench.core_saw.size();
    CHECK(Bench::status_of(*bench.send(sm7, flow)) == 494);
    CHECK(bench.core_saw.size() == forwarded);
    sm7.verify = "tls";
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(sm7, flow)) == 200);
}

TEST_CASE(
    "G-6, C-48: over the bound connection presence or change of Security-Client and Security-Verify gets 494, the binding stays") {
    Bench bench(put_tls_first);
    const auto flow = agreed_over_tls(bench);
    Say say{.verify = "tls", .response = "3779ff40a057f999a2f8288bbfafc10d", .nonce = bench.nonce};
    SUBCASE("Security-Verify missing") { say.verify = ""; }
    SUBCASE("Security-Verify changed") { say.verify = "ipsec-3gpp"; }
    SUBCASE("Security-Client missing") { say.client = ""; }
    SUBCASE("Security-Client changed") { say.client = "tls"; }
    const auto forwarded = bench.core_saw.size();
    CHECK(Bench::status_of(*bench.send(say, flow)) == 494);
    CHECK(bench.core_saw.size() == forwarded);
    CHECK(bench.registration()->tls->flow.connection == flow.connection);
}

TEST_CASE(
    "G-8, C-49: another private identity over the bound connection gets 403; none is forwarded without an indicator (B-97)") {
    Bench bench(put_tls_first);
    const auto flow = agreed_over_tls(bench);
    Say say{.verify = "tls", .response = "3779ff40a057f999a2f8288bbfafc10d", .nonce = bench.nonce};
    SUBCASE("another") {
        say.impi = "mallory@example";
        const auto forwarded = bench.core_saw.size();
        CHECK(Bench::status_of(*bench.send(say, flow)) == 403);
        CHECK(bench.core_saw.size() == forwarded);
    }
    SUBCASE("none") {
        say.impi = "";
        bench.send(say, flow);
        CHECK(bench.core_saw.back().find("integrity-protected") == std::string::npos);
    }
    CHECK(bench.registration()->tls->flow.connection == flow.connection);
}

TEST_CASE("G-22, G-23: a REGISTER over another connection is an initial one and moves the binding only with its 200") {
    Bench bench(put_tls_first);
    const auto first = agreed_over_tls(bench);
    const auto second = bench.tls_connection();
    Say say{.client = "", .response = "3779ff40a057f999a2f8288bbfafc10d", .nonce = bench.nonce, .sec_agree = false};
    bench.core_status = 403;
    CHECK(Bench::status_of(*bench.send(say, second)) == 403);
    CHECK(bench.registration()->tls->flow.connection == first.connection);
    CHECK_FALSE(bench.parts().transports.is_open(second.connection));  // B-98
    const auto third = bench.tls_connection();
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(say, third)) == 200);
    CHECK(bench.core_saw.back().find("integrity-protected=\"tls-pending\"") != std::string::npos);
    CHECK(bench.registration()->tls->flow.connection == third.connection);
    CHECK_FALSE(bench.parts().transports.is_open(first.connection));
}

TEST_CASE("C-50: de-registration over TLS ends the binding and the connection") {
    Bench bench(put_tls_first);
    const auto flow = agreed_over_tls(bench);
    Say say{.verify = "tls", .response = "3779ff40a057f999a2f8288bbfafc10d", .nonce = bench.nonce, .expires = "0"};
    CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
    CHECK(bench.registration() == nullptr);
    CHECK_FALSE(bench.parts().transports.is_open(flow.connection));
}

TEST_CASE("G-2: AKAv1 over TLS is let through by default and refused by aka-over-tls = reject-akav1") {
    Bench bench([](daemon::Config& config) {
        put_tls_first(config);
        config.sip_interfaces.front().reject_akav1_over_tls = true;
    });
    CHECK(Bench::status_of(*bench.send({.client = "", .sec_agree = false}, bench.tls_connection())) == 403);
}

TEST_CASE("G-13: the preference decides, not the order of the phone") {
    for (const auto& [pref, expected] :
         {std::pair{daemon::SecAgreePref::ipsec3gpp, "ipsec-3gpp"},
          std::pair{daemon::SecAgreePref::ipsec3gpp_tls, "ipsec-3gpp"}, std::pair{daemon::SecAgreePref::tls, "tls"},
          std::pair{daemon::SecAgreePref::tls_ipsec3gpp, "tls"}}) {
        Bench bench([p = pref](daemon::Config& config) { config.sip_interfaces.front().sec_agree_pref = p; });
        const auto sm6 = bench.send({});
        CHECK(Bench::header(sm6->responses.back(), "Security-Server").starts_with(expected));
    }
}
