// Every valid combination of alg and ealg, both families, both transports: registration, a MESSAGE each way, SA
// counters, the end. Ref: TS 33.203 Annex H, Annex I.
#include <memory>

#include <doctest/doctest.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

constexpr std::size_t kPeerUser = 7;

/// One lab and one registered peer for the tests of a suite, made by the first of them.
struct Shared {
    Lab lab{plain_lab()};
    Phone peer;
    explicit Shared(const Access& access) : peer(lab, options(access)) { peer.demand_registered(); }

    static PhoneOptions options(const Access& access) {
        PhoneOptions options;
        options.user = kPeerUser;
        options.is_v6 = access.is_v6;
        options.is_tcp = access.is_tcp;
        return options;
    }
    static Shared& of(const Access& access) {
        static std::unique_ptr<Shared> shared;
        static Access made_for;
        if (!shared || made_for.is_v6 != access.is_v6 || made_for.is_tcp != access.is_tcp) {
            shared.reset();
            shared = std::make_unique<Shared>(access);
            made_for = access;
        }
        return *shared;
    }
};

void check(const Pair& pair, const Access& access) {
    auto& shared = Shared::of(access);
    check_combination(shared.lab, shared.peer, 0, pair, access);
}

}  // namespace

// clang-format off
#define COMBINATIONS(ACCESS_NAME, ACCESS)                                                              \
    TEST_CASE(ACCESS_NAME ": hmac-sha-1-96 with aes-cbc carries SIP both ways") { check(kSha1AesCbc, ACCESS); }         \
    TEST_CASE(ACCESS_NAME ": hmac-sha-1-96 with des-ede3-cbc carries SIP both ways") { check(kSha1TripleDes, ACCESS); } \
    TEST_CASE(ACCESS_NAME ": hmac-sha-1-96 with null carries SIP both ways") { check(kSha1Null, ACCESS); }              \
    TEST_CASE(ACCESS_NAME ": hmac-md5-96 with aes-cbc carries SIP both ways") { check(kMd5AesCbc, ACCESS); }            \
    TEST_CASE(ACCESS_NAME ": hmac-md5-96 with des-ede3-cbc carries SIP both ways") { check(kMd5TripleDes, ACCESS); }    \
    TEST_CASE(ACCESS_NAME ": hmac-md5-96 with null carries SIP both ways") { check(kMd5Null, ACCESS); }                 \
    TEST_CASE(ACCESS_NAME ": aes-gcm carries SIP both ways") { check(kAesGcm, ACCESS); }                                \
    TEST_CASE(ACCESS_NAME ": aes-gmac carries SIP both ways") { check(kAesGmac, ACCESS); }
// clang-format on

TEST_SUITE("combinations-v4-udp"){COMBINATIONS("IPv4, UDP", (Access{false, false}))} TEST_SUITE("combinations-v4-tcp"){
    COMBINATIONS("IPv4, TCP", (Access{false, true}))} TEST_SUITE("combinations-v6-udp"){
    COMBINATIONS("IPv6, UDP", (Access{true, false}))} TEST_SUITE("combinations-v6-tcp") {
    COMBINATIONS("IPv6, TCP", (Access{true, true}))
}
