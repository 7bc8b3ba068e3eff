// SIPp's built-in UAC calls its built-in UAS through the gateway, over SAs; how that is done: sipp_lab.h.
#include <doctest/doctest.h>

#include "tests/integration/sipp_lab.h"

using namespace gmgate::test;

namespace {

void check_calls(const Access& access) {
    LabOptions options = plain_lab();
    options.core_arguments = sipp_users();
    Lab lab(options);
    check_sipp_calls(lab, access, sipp_calls({}));
}

}  // namespace

TEST_SUITE("sipp") {
    TEST_CASE("SIPp's UAC calls SIPp's UAS over TCP and IPv4") { check_calls({false, true}); }
    TEST_CASE("SIPp's UAC calls SIPp's UAS over TCP and IPv6") { check_calls({true, true}); }
    TEST_CASE("SIPp's UAC calls SIPp's UAS over UDP and IPv4, with the ports turned") { check_calls({false, false}); }
    TEST_CASE("SIPp's UAC calls SIPp's UAS over UDP and IPv6, with the ports turned") { check_calls({true, false}); }
}
