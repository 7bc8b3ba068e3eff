// A set of SAs exists whole or not at all, and a 401 never promises what the kernel has refused.
#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

/// Somebody else's SA in the gateway's kernel, at the very address and SPI that the phone asks for.
void occupy(Lab& lab, const Access& access, std::uint32_t spi) {
    lab.network.gw.ip_batch("xfrm state add src " + std::string(access.gateway()) + " dst " + std::string(access.ue()) +
                            " proto esp spi " + std::to_string(spi) +
                            " reqid 77 mode transport auth-trunc hmac(md5) 0x000102030405060708090a0b0c0d0e0f 96 "
                            "enc ecb(cipher_null) \"\"\n");
}

void check_refused(const Access& access, bool client_spi) {
    Lab lab(plain_lab());
    SecurityClient offer;
    occupy(lab, access, client_spi ? offer.spi_c : offer.spi_s);
    const auto policies = list_policies(lab.network.gw);
    RawRegister request;
    request.access = access;
    request.security_client = offer.text();
    const auto response = ask(lab, request);
    INFO(response);
    INFO(lab.gateway().tail());
    CHECK(status_of(response) >= 400);
    CHECK(status_of(response) != 401);
    CHECK(response.find("Security-Server") == std::string::npos);
    CHECK(count_sas(lab.network.gw) == 1);  // only the stranger's
    CHECK(list_policies(lab.network.gw) == policies);

    // Other SPIs work at once, so nothing stayed reserved.
    RawRegister again;
    again.access = access;
    again.port = request.port + 1;
    SecurityClient other;
    other.spi_c = 22221;
    other.spi_s = 22222;
    again.security_client = other.text();
    const auto challenge = ask(lab, again);
    INFO(challenge);
    CHECK(status_of(challenge) == 401);
    CHECK(challenge.find("Security-Server: ipsec-3gpp") != std::string::npos);
    CHECK(count_sas(lab.network.gw) == 1 + 4);
}

}  // namespace

TEST_SUITE("refusals") {
    TEST_CASE("an SPI that the kernel has already, spi-c, leaves no SA and no 401") {
        check_refused({false, false}, true);
    }
    TEST_CASE("an SPI that the kernel has already, spi-s, leaves no SA and no 401") {
        check_refused({false, false}, false);
    }
    TEST_CASE("the same over IPv6 and TCP") { check_refused({true, true}, false); }
    TEST_CASE("two phones behind one address with one SPI: while the second has proved nothing the first goes on") {
        Lab lab(plain_lab());
        PhoneOptions options;
        options.arguments = {"--spi-uc", "33331", "--spi-us", "33332"};
        Phone first(lab, options);
        first.demand_registered();
        RawRegister request;
        request.user = 1;
        SecurityClient offer;
        offer.spi_c = 44441;
        offer.spi_s = 33332;
        offer.port_c = 7001;
        offer.port_s = 7002;
        request.security_client = offer.text();
        const auto response = ask(lab, request);
        INFO(response);
        CHECK(status_of(response) == 401);  // it may be that phone after a reboot
        CHECK(count_sas(lab.network.gw) == 8);
        const auto word = unique_word("still-there-");
        CHECK(first.message(first.impu(), word) == 200);
        first.await_message(word);
    }
}

TEST_SUITE("essentials") {
    TEST_CASE("a set that the kernel refuses leaves no SA and no 401") { check_refused({false, false}, false); }
}
