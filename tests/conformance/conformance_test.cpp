// Runs the conformance cases: every .md file of this folder. GMGATE_CASE=TEXT runs only cases whose file or title holds TEXT,
// GMGATE_KNOWN=1 those in known/ instead.
#include <doctest/doctest.h>

#include <cstdlib>

#include "tests/conformance/runner.h"

TEST_CASE("The conformance cases hold") {
    using namespace gmgate::test;
    const std::filesystem::path folder = GMGATE_CONFORMANCE;
    const bool is_known = std::getenv("GMGATE_KNOWN") != nullptr;
    const char* const wanted = std::getenv("GMGATE_CASE");
    std::size_t count = 0;
    Runner runner(folder);
    for (const auto& file : case_files(is_known ? folder / "known" : folder)) {
        for (const auto& c : read_cases(file)) {
            if (wanted && c.title.find(wanted) == std::string::npos && file.filename().string().find(wanted) == std::string::npos) continue;
            ++count;
            std::string report;
            for (const auto& problem : runner.run(c)) report += "\n  " + problem;
            CHECK_MESSAGE(report.empty(), file.filename().string(), ": ", c.title, report);
        }
    }
    MESSAGE(count, " cases");
    CHECK(count > 0);
}
