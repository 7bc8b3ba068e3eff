// Rows of registrations as the store would hold them, for the tests of the store and of the adoption.
#pragma once

#include <filesystem>
#include <string>

#include <fmt/format.h>

#include "daemon/registrations/stored.h"
#include "tests/support/lab.h"

namespace gmgate::test {

struct TemporaryFolder {
    TemporaryFolder() : path(make_temporary_folder()) {}
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    std::string path;
};

/// Set `number` of phone `phone`, whose address, ports and SPIs follow from its number.
inline daemon::StoredSet stored_set(std::uint32_t number, unsigned phone, bool is_v6) {
    daemon::StoredSet set;
    set.number = SetNumber{number};
    set.in_use = true;
    set.expires = std::chrono::steady_clock::now() + std::chrono::hours{1};
    const auto address =
        is_v6 ? Address::parse(fmt::format("fd01::{:x}:{:x}", 1 + (phone >> 16), phone & 0xffff))
              : Address::parse(fmt::format("10.{}.{}.{}", 16 + (phone >> 16), (phone >> 8) & 255, phone & 255));
    set.parameters = {.ue = *address,
                      .gateway = *Address::parse(is_v6 ? "fd01::1" : "127.0.0.1"),
                      .port_uc = Port{5062},
                      .port_us = Port{5063},
                      .port_pc = Port{6200},
                      .port_ps = Port{6100},
                      .spi_uc = Spi{1000000 + number * 4},
                      .spi_us = Spi{1000001 + number * 4},
                      .spi_pc = Spi{0x10000000 + number * 4},
                      .spi_ps = Spi{0x10000001 + number * 4},
                      .algorithms = {Alg::hmac_sha_1_96, Ealg::aes_cbc}};
    set.security_server =
        fmt::format("ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c={};spi-s={};port-c=6200;port-s=6100",
                    set.parameters.spi_pc.value, set.parameters.spi_ps.value);
    set.security_client =
        fmt::format("ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c={};spi-s={};port-c=5062;port-s=5063",
                    set.parameters.spi_uc.value, set.parameters.spi_us.value);
    return set;
}

inline daemon::StoredRegistration stored_registration(unsigned phone, bool is_v6) {
    daemon::StoredRegistration row;
    row.key = {Impi{fmt::format("{:015}@ims.example", phone)}, fmt::format("<urn:uuid:{}>", phone), "1"};
    row.token = fmt::format("token{:026x}", phone);
    row.contact_uri = fmt::format("sip:{:015}@[{}]:5063", phone, phone);
    row.realm_id = "access";
    row.expires = std::chrono::steady_clock::now() + std::chrono::minutes{59};
    row.impus = {Impu{fmt::format("sip:{:015}@ims.example", phone)}, Impu{fmt::format("tel:+49{}", phone)}};
    row.service_route = {"<sip:orig@scscf1.ims.example:5060;lr>", "<sip:second@scscf1.ims.example;lr>"};
    row.authorized_as = {.realm = "ims.example", .uri = "sip:ims.example", .algorithm = {}};
    row.identities = {
        {.aor = row.impus[0], .impus = row.impus, .service_route = row.service_route, .expires = row.expires}};
    row.sets = {stored_set(phone, phone, is_v6)};
    return row;
}

inline bool same(const daemon::StoredSet& a, const daemon::StoredSet& b) {
    return a.number == b.number && a.state == b.state && a.parameters == b.parameters &&
           a.security_server == b.security_server && a.security_client == b.security_client &&
           a.expires - b.expires < std::chrono::seconds{30} && a.in_use == b.in_use;
}

/// All but the times, which a test in another process cannot know.
inline bool same(const daemon::StoredRegistration& a, const daemon::StoredRegistration& b) {
    if (a.sets.size() != b.sets.size() || a.tls.has_value() != b.tls.has_value()) return false;
    for (std::size_t i = 0; i < a.sets.size(); ++i)
        if (!same(a.sets[i], b.sets[i])) return false;
    if (a.tls && (a.tls->connection != b.tls->connection || a.tls->security_client != b.tls->security_client ||
                  a.tls->security_verify != b.tls->security_verify))
        return false;
    if (a.identities.size() != b.identities.size()) return false;
    for (std::size_t i = 0; i < a.identities.size(); ++i) {
        const auto &x = a.identities[i], &y = b.identities[i];
        if (x.aor != y.aor || x.impus != y.impus || x.service_route != y.service_route) return false;
    }
    const auto same_authorization = a.authorized_as.realm == b.authorized_as.realm &&
                                    a.authorized_as.uri == b.authorized_as.uri &&
                                    a.authorized_as.algorithm == b.authorized_as.algorithm;
    return same_authorization && a.key == b.key && a.token == b.token && a.contact_uri == b.contact_uri &&
           a.realm_id == b.realm_id && a.transport == b.transport && a.impus == b.impus &&
           a.service_route == b.service_route;
}

}  // namespace gmgate::test
