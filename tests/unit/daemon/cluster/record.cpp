// The record of a registration: what is written is read again, and what somebody else wrote is not believed.
#include <doctest/doctest.h>

#include "daemon/cluster/record.h"
#include "tests/support/still_clock.h"

using namespace gmgate;
using namespace gmgate::daemon;

namespace {

StoredRegistration a_row(const Clock& clock) {
    StoredRegistration row;
    row.key = {Impi{"001010000000001@ims.example"}, "<urn:gsma:imei:1>", "1"};
    row.token = "token";
    row.contact_uri = "sip:1@10.1.0.2:5063";
    row.realm_id = "access";
    row.transport = sip::Transport::tcp;
    row.expires = clock.now() + std::chrono::seconds{600};
    row.impus = {Impu{"sip:1@ims.example"}, Impu{"tel:+1"}};
    row.service_route = {"<sip:orig@10.2.0.2;lr>"};
    row.authorized_as = {"ims.example", "sip:ims.example", "AKAv1-MD5"};
    row.identities.push_back({Impu{"sip:1@ims.example"}, row.impus, row.service_route, row.expires});
    StoredSet set;
    set.number = SetNumber{17};
    set.parameters = {.ue = *Address::parse("fd01::2"),
                      .gateway = *Address::parse("fd01::1"),
                      .port_uc = Port{5062},
                      .port_us = Port{5063},
                      .port_pc = Port{6200},
                      .port_ps = Port{6100},
                      .spi_uc = Spi{1001},
                      .spi_us = Spi{1002},
                      .spi_pc = Spi{0x10000001},
                      .spi_ps = Spi{0xbffffffe},
                      .algorithms = {Alg::null, Ealg::aes_gcm}};
    set.security_server = "ipsec-3gpp;q=0.1";
    set.security_client = "ipsec-3gpp;alg=null";
    set.expires = clock.now() + std::chrono::seconds{630};
    set.in_use = true;
    row.sets.push_back(set);
    return row;
}

std::string a_record(const Clock& clock) {
    xfrm::SealedKeys seal{};
    seal.fill(0x5a);
    return encode_record(encode_row(a_row(clock), clock), {seal});
}

}  // namespace

TEST_CASE("a record is read as it was written, its times by the reader's own clock") {
    const Clock clock;
    const auto row = a_row(clock);
    const auto read = decode_record(a_record(clock), clock);
    REQUIRE_MESSAGE(read, read.error().text);
    CHECK(read->row.key == row.key);
    CHECK(read->row.transport == row.transport);
    CHECK(read->row.impus == row.impus);
    CHECK(read->row.service_route == row.service_route);
    CHECK(read->row.authorized_as.algorithm == row.authorized_as.algorithm);
    REQUIRE(read->row.identities.size() == 1);
    REQUIRE(read->row.sets.size() == 1);
    CHECK(read->row.sets[0].parameters == row.sets[0].parameters);
    CHECK(read->row.sets[0].number == row.sets[0].number);
    CHECK(read->row.sets[0].in_use);
    CHECK(std::chrono::abs(read->row.expires - row.expires) < std::chrono::milliseconds{500});
    CHECK(read->seals.at(0)[5] == 0x5a);
    CHECK(record_field(row.key) == "001010000000001@ims.example\n<urn:gsma:imei:1>\n1");
}

TEST_CASE("a set behind NAT stays one, with the port of its NAT") {
    const Clock clock;
    auto row = a_row(clock);
    row.sets[0].parameters.mode = xfrm::Mode::udp_enc_tun;
    row.sets[0].port_uenc = Port{31007};
    row.sets[0].parameters.inner = Address::parse("fd00::7");
    row.sets[0].inner = row.sets[0].parameters.inner;
    const auto read = decode_record(encode_record(encode_row(row, clock), {xfrm::SealedKeys{}}), clock);
    REQUIRE_MESSAGE(read, read.error().text);
    CHECK(read->row.sets.at(0).parameters == row.sets[0].parameters);
    CHECK(read->row.sets[0].port_uenc == Port{31007});
    CHECK(read->row.sets[0].inner == row.sets[0].inner);
}

TEST_CASE("a challenge is filed beside its contact, and only a challenge has a temporary set") {
    const Clock clock;
    auto row = a_row(clock);
    row.sets[0].state = SetState::temporary;
    CHECK(!decode_record(encode_record(encode_row(row, clock), {xfrm::SealedKeys{}}), clock));
    const HandedChallenge challenge{.nonce = "bm9uY2U=", .came_over = SetNumber{9}};
    const auto read = decode_record(encode_record(encode_row(row, clock, &challenge), {xfrm::SealedKeys{}}), clock);
    REQUIRE_MESSAGE(read, read.error().text);
    REQUIRE(read->challenge);
    CHECK(read->challenge->nonce == challenge.nonce);
    CHECK(read->challenge->came_over == challenge.came_over);
    const ChallengeKey key{row.key.impi, row.sets[0].parameters.ue, false};
    CHECK(read->field() == record_field(challenge_place(key)));
    CHECK(challenge_at(challenge_place(key)) == key);
    CHECK(!challenge_at(row.key));
    CHECK(challenge_place({row.key.impi, key.ue, true}) != challenge_place(key));
    row.sets[0].state = SetState::established;
    CHECK(!decode_record(encode_record(encode_row(row, clock, &challenge), {xfrm::SealedKeys{}}), clock));
}

TEST_CASE("what is cut, altered or no record at all is refused or has another digest") {
    const Clock clock;
    const auto whole = a_record(clock);
    const auto digest = decode_record(whole, clock)->digest;
    for (std::size_t size = 0; size < whole.size(); ++size) CHECK(!decode_record(whole.substr(0, size), clock));
    for (std::size_t i = 0; i < whole.size(); ++i)
        for (const int bit : {1, 64}) {
            auto altered = whole;
            altered[i] = static_cast<char>(altered[i] ^ bit);
            const auto read = decode_record(altered, clock);
            if (!read || i < 2) continue;
            const bool is_of_seals = i < 2 + std::tuple_size_v<xfrm::SealedKeys>;
            CHECK((read->digest == digest) == is_of_seals);
        }
    for (const std::string& rubbish : {std::string{}, std::string("\1\0", 2), std::string("\1\1"),
                                       std::string(5000, '\x9f'), std::string("\1\0\xf6", 3), std::string("hello")})
        CHECK(!decode_record(rubbish, clock));
}

TEST_CASE("a record that lies deep in itself, or says that it is longer than it is, is refused and ends nothing") {
    const Clock clock;
    const std::string head("\x01\x00", 2);
    for (const std::string& row :
         {std::string(200'000, '\x81'), std::string("\x9b\xff\xff\xff\xff\xff\xff\xff\xff", 9),
          std::string("\xbb\x80\0\0\0\0\0\0\0", 9), std::string("\x5b\xff\xff\xff\xff\xff\xff\xff\xff", 9),
          std::string("\x9f\x9f\x9f"), std::string("\xc1\x01"), std::string("\x1c"), std::string("\x19\x01")})
        CHECK_FALSE(decode_record(head + row, clock));
}
