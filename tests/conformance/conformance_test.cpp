// Runs the conformance cases: every .md file of this folder. GMGATE_CASE=TEXT runs only cases whose file or title holds
// TEXT, GMGATE_KNOWN=1 those in known/ instead.
#include <doctest/doctest.h>

#include <cstdlib>

#include <fmt/format.h>

#include "base/log.h"
#include "daemon/rules/from_ue_checks.h"
#include "tests/conformance/runner.h"

TEST_CASE("A-15a: ACK and CANCEL are never asked for Security-Verify") {
    using namespace gmgate;
    daemon::SaSet set;
    set.security_server = "tls";
    const daemon::Registration registration;
    for (const char* method : {"ACK", "CANCEL", "MESSAGE"}) {
        const auto text = fmt::format(
            "{0} sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:u@x>;tag=1\r\nTo: <sip:u@x>\r\nCall-ID: 1\r\nCSeq: 1 {0}\r\n"
            "Security-Verify: digest\r\nContent-Length: 0\r\n\r\n",
            method);
        const auto message = sip::Message::parse(std::string_view(text));
        REQUIRE(message.has_value());
        const auto answer = daemon::check_security_verify(*message, &set, registration, false);
        CHECK(answer.has_value() == (std::string(method) == "MESSAGE"));
    }
}

TEST_CASE("The conformance cases hold") {
    using namespace gmgate::test;
    gmgate::log::set_level(gmgate::log::Level::error);
    const std::filesystem::path folder = GMGATE_CONFORMANCE;
    const bool is_known = std::getenv("GMGATE_KNOWN") != nullptr;
    const char* const wanted = std::getenv("GMGATE_CASE");
    std::size_t count = 0;
    Runner runner(folder);
    for (const auto& file : case_files(is_known ? folder / "known" : folder)) {
        for (const auto& c : read_cases(file)) {
            if (wanted && c.title.find(wanted) == std::string::npos &&
                file.filename().string().find(wanted) == std::string::npos)
                continue;
            ++count;
            std::string report;
            for (const auto& problem : runner.run(c)) report += "\n  " + problem;
            CHECK_MESSAGE(report.empty(), file.filename().string(), ": ", c.title, report);
        }
    }
    MESSAGE(count, " cases");
    CHECK((count > 0 || is_known));
}
