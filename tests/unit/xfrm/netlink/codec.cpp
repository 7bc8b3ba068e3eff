// Golden bytes, written out by hand from linux/xfrm.h (little-endian machine; addresses, ports and SPIs are
// big-endian).
#include <algorithm>
#include <bit>
#include <climits>
#include <string>

#include <doctest/doctest.h>

#include "xfrm/netlink/codec.h"

using namespace gmgate;
using namespace gmgate::xfrm;

static_assert(std::endian::native == std::endian::little, "the golden bytes are those of a little-endian machine");

namespace {

std::vector<std::uint8_t> bytes(std::string_view hex) {
    std::vector<std::uint8_t> out;
    int high = -1;
    for (const char c : hex) {
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) continue;
        if (high < 0) {
            high = digit;
        } else {
            out.push_back(static_cast<std::uint8_t>(high * 16 + digit));
            high = -1;
        }
    }
    return out;
}

// `count` zero octets.
std::string zero(std::size_t count) { return std::string(2 * count, '0'); }

void check_equal(std::span<const std::uint8_t> got, const std::vector<std::uint8_t>& wanted) {
    REQUIRE(got.size() == wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK_MESSAGE(got[i] == wanted[i], i);
}

template <std::size_t N>
Secret<N> counting(std::uint8_t first, std::size_t size) {
    Secret<N> out;
    for (auto& b : out.expose_for_writing(size)) b = first++;
    return out;
}

const AlgorithmPair kSha1Aes{Alg::hmac_sha_1_96, Ealg::aes_cbc};
const AlgorithmPair kGcm{Alg::null, Ealg::aes_gcm};

Sa inbound_v4() {
    const auto gateway = *Address::parse("192.0.2.1");
    return {
        {gateway, Spi{0x10002222}}, Direction::in, {*Address::parse("192.0.2.9"), Port{5064}}, {gateway, Port{6101}}};
}
Sa outbound_v6() {
    const auto ue = *Address::parse("2001:db8::9");
    return {{ue, Spi{0x8ae}}, Direction::out, {*Address::parse("2001:db8::1"), Port{6100}}, {ue, Port{5066}}};
}

const std::string kInfinite = "ffffffffffffffff";

std::string new_sa_v4() {
    return "dc010000 1000 0100 00000000 00000000"  // nlmsghdr: 476 octets, XFRM_MSG_NEWSA, NLM_F_REQUEST
           "c0000201" +
           zero(12) + "c0000209" + zero(12) +        // sel.daddr, sel.saddr
           "17d5 ffff 13c8 ffff"                     // dport 6101, sport 5064, both exact
           "0200 20 20 00 000000 00000000 00000000"  // AF_INET, /32, /32, protocol any, no ifindex, no user
           "c0000201" +
           zero(12) +
           "10002222 32 000000"  // id: daddr, SPI, ESP
           "c0000209" +
           zero(12) +                                        // saddr
           kInfinite + kInfinite + kInfinite + kInfinite +   // bytes and packets: no limit
           zero(8) + "5802000000000000" + zero(16) +         // soft add 0, hard add 600, soft and hard use 0
           zero(32) + zero(12) +                             // curlft, stats
           "01100000 49530000 0200 00 00 00 00000000000000"  // seq = mark, reqid 21321, AF_INET, transport, window 0,
                                                             // flags, pad
           "6000 1400 686d616328736861312900" +
           zero(64 - 11) +                                               // XFRMA_ALG_AUTH_TRUNC "hmac(sha1)"
           "a0000000 60000000 101112131415161718191a1b1c1d1e1f00000000"  // 160 bits, cut to 96
           "5800 0200 636263286165732900" +
           zero(64 - 9) +                               // XFRMA_ALG_CRYPT "cbc(aes)"
           "80000000 303132333435363738393a3b3c3d3e3f"  // 128 bits
           "2400 1700 02000000" +
           zero(16) + "40000000" + zero(8) +         // XFRMA_REPLAY_ESN_VAL: 2 words, window 64
           "0800 1d00 01100000 0800 1e00 ffffffff";  // XFRMA_SET_MARK 0x1001, XFRMA_SET_MARK_MASK
}

std::string new_sa_v6() {
    const std::string ue = "20010db8" + zero(11) + "09", gateway = "20010db8" + zero(11) + "01";
    return "74010000 1000 0100 00000000 00000000" + ue + gateway +         // 372 octets
           "13ca ffff 17d4 ffff 0a00 80 80 00 000000 00000000 00000000" +  // dport 5066, sport 6100, AF_INET6, /128,
                                                                           // /128
           ue + "000008ae 32 000000" + gateway + kInfinite + kInfinite + kInfinite + kInfinite + zero(8) +
           "5802000000000000" + zero(16) + zero(32) + zero(12) +
           "01100000 49530000 0a00 00 00 00 00000000000000"
           "6000 1200 726663343130362867636d28616573292900" +
           zero(64 - 18) +                                               // XFRMA_ALG_AEAD "rfc4106(gcm(aes))"
           "a0000000 80000000 505152535455565758595a5b5c5d5e5f60616263"  // 160 bits with the salt, ICV 128
           "2400 1700 02000000" +
           zero(16) + "40000000" + zero(8);  // no mark on an outbound SA
}

Reply only_reply(const std::vector<std::uint8_t>& datagram) {
    std::vector<Reply> replies;
    CHECK(decode(datagram, [&](Reply& r) { replies.push_back(std::move(r)); }));
    REQUIRE(replies.size() == 1);
    return std::move(replies.front());
}

}  // namespace

TEST_CASE("NEWSA hmac-sha-1-96 with aes-cbc, IPv4, inbound: golden bytes out and back") {
    EspKeys keys;
    keys.integrity = counting<20>(0x10, 16);
    std::array<std::uint8_t, 20> padded{};
    std::ranges::copy(keys.integrity.expose(), padded.begin());
    keys.integrity.assign(padded);
    keys.confidentiality = counting<24>(0x30, 16);
    const auto sa = inbound_v4();
    MessageBuffer out(1);
    REQUIRE(append_new_sa(out, {sa, kSha1Aes, keys, Mark{0x1001}, std::chrono::seconds{600}}, {}));
    check_equal(out.bytes(), bytes(new_sa_v4()));
    CHECK_FALSE(append_new_sa(out, {sa, kSha1Aes, keys, Mark{0x1001}, std::chrono::seconds{600}}, {}));  // full

    const auto reply = only_reply(bytes(new_sa_v4()));
    CHECK(reply.kind == Reply::Kind::sa);
    REQUIRE(reply.sa);
    CHECK(reply.sa->is_known_kind);
    CHECK(reply.sa->reqid == ReqId{21321});
    const auto& told = reply.sa->report;
    CHECK(told.sa.id == sa.id);
    CHECK(told.sa.source == sa.source);
    CHECK(told.sa.destination == sa.destination);
    CHECK(told.sa.direction == Direction::in);
    CHECK(told.mark == Mark{0x1001});
    CHECK(told.algorithms == kSha1Aes);
    CHECK(told.hard_lifetime == std::chrono::seconds{600});
}

TEST_CASE("NEWSA aes-gcm, IPv6, outbound: golden bytes out and back") {
    EspKeys keys;
    keys.combined = counting<20>(0x50, 20);
    const auto sa = outbound_v6();
    MessageBuffer out(1);
    REQUIRE(append_new_sa(out, {sa, kGcm, keys, Mark{0x1001}, std::chrono::seconds{600}}, {}));
    check_equal(out.bytes(), bytes(new_sa_v6()));

    const auto reply = only_reply(bytes(new_sa_v6()));
    REQUIRE(reply.sa);
    CHECK(reply.sa->is_known_kind);
    CHECK(reply.sa->report.sa.id == sa.id);
    CHECK(reply.sa->report.sa.source == sa.source);
    CHECK(reply.sa->report.sa.direction == Direction::out);
    CHECK(reply.sa->report.algorithms == kGcm);
    CHECK(reply.sa->report.mark == Mark{0x1001});
}

TEST_CASE("An SA that libcharon wrote has its set's mark in XFRMA_SET_MARK alone, an outbound one with mask 0") {
    auto text = new_sa_v6();
    text.replace(text.find("01100000 49530000"), 8, "00000000");  // no seq
    text.replace(0, 8, "84010000");                               // 16 octets longer
    auto reply = only_reply(bytes(text + "0800 1d00 01100000 0800 1e00 00000000"));
    REQUIRE(reply.sa);
    CHECK(reply.sa->report.mark == Mark{0x1001});
    CHECK(reply.sa->report.sa.direction == Direction::out);
    reply = only_reply(bytes(text + "0800 1d00 01100000 0800 1e00 ffffff00"));  // 0x00ffffff: applied, so inbound
    REQUIRE(reply.sa);
    CHECK(reply.sa->report.mark == Mark{0x1001});
    CHECK(reply.sa->report.sa.direction == Direction::in);
}

TEST_CASE("Keys of a wrong length make no message") {
    EspKeys keys;
    keys.integrity = counting<20>(0x10, 16);  // hmac(sha1) wants 20, and the kernel would not say so
    keys.confidentiality = counting<24>(0x30, 16);
    const auto sa = inbound_v4();
    MessageBuffer out(1);
    CHECK_FALSE(append_new_sa(out, {sa, kSha1Aes, keys, Mark{1}, std::chrono::seconds{600}}, {}));
    CHECK(out.count() == 0);
}

TEST_CASE("NEWPOLICY: the out guard with XFRM_POLICY_ICMP, golden bytes out and back; the in guard has no flag") {
    const GuardPolicy guard{Direction::out, {*Address::parse("192.0.2.1"), Port{6101}}};
    const std::string golden =
        "fc000000 1300 0100 00000000 00000000" +                        // 252 octets, XFRM_MSG_NEWPOLICY
        zero(16) + "c0000201" + zero(12) +                              // any destination, source 192.0.2.1
        "0000 0000 17d5 ffff 0200 00 20 00 000000 00000000 00000000" +  // any dport, sport 6101, AF_INET, /0, /32,
                                                                        // protocol any
        kInfinite + kInfinite + kInfinite + kInfinite + zero(32) + zero(32) +  // lft, curlft
        "d0070000 00000000 01 00 02 00 00000000"  // priority 2000, index, XFRM_POLICY_OUT, ALLOW, ICMP, share any, pad
        "4400 0500" +
        zero(16) +
        "00000000 32 000000"  // XFRMA_TMPL: id: any destination, any SPI, ESP
        "0200 0000" +
        zero(16) +
        "49530000 00 00 00 00 ffffffff ffffffff ffffffff";  // AF_INET, saddr, reqid, transport, any algorithm
    MessageBuffer out(2);
    REQUIRE(append_new_guard(out, guard, {}));
    check_equal(out.message(0), bytes(golden));

    auto reply = only_reply(bytes(golden));
    REQUIRE(reply.policy);
    CHECK(reply.policy->is_guard_shaped);
    CHECK(reply.policy->guard == guard);
    CHECK(reply.policy->reqid == ReqId{21321});
    auto without_flag = bytes(golden);
    CHECK(without_flag[16 + 56 + 64 + 32 + 10] == 2);
    without_flag[16 + 56 + 64 + 32 + 10] = 0;
    reply = only_reply(without_flag);
    REQUIRE(reply.policy);
    CHECK_FALSE(reply.policy->is_guard_shaped);

    REQUIRE(append_new_guard(out, {Direction::in, {*Address::parse("2001:db8::1"), Port{6100}}}, {}));
    reply = only_reply({out.message(1).begin(), out.message(1).end()});
    REQUIRE(reply.policy);
    CHECK(reply.policy->is_guard_shaped);
    CHECK(reply.policy->guard == GuardPolicy{Direction::in, {*Address::parse("2001:db8::1"), Port{6100}}});
    CHECK(out.message(1)[16 + 56 + 64 + 32 + 10] == 0);
}

TEST_CASE("DELSA, GETSA, the dump and UPDSA: golden bytes") {
    const std::string id = "20010db8" + zero(11) + "09 000008ae 0a00 32 00";
    MessageBuffer out(4);
    REQUIRE(append_delete_sa(out, outbound_v6().id));
    check_equal(out.message(0), bytes("28000000 1100 0100 00000000 00000000" + id));
    REQUIRE(append_get_sa(out, outbound_v6().id));
    check_equal(out.message(1), bytes("28000000 1200 0100 00000000 00000000" + id));
    REQUIRE(append_dump_sas(out));  // NLM_F_DUMP 0x300; XFRMA_PROTO 50
    check_equal(out.message(2), bytes("30000000 1200 0103 00000000 00000000" + zero(24) + "0500 1900 32 000000"));
    REQUIRE(append_update_lifetime(out, inbound_v4(), std::chrono::seconds{700}, {}));
    const auto update = out.message(3);
    auto wanted = bytes(new_sa_v4().substr(0));
    wanted.resize(16 + 224);
    wanted[0] = 0x38;
    wanted[1] = 0x01;  // 312 octets
    wanted[4] = 0x1a;  // XFRM_MSG_UPDSA
    wanted[16 + 96 + 40] = 0xbc;
    wanted[16 + 96 + 41] = 0x02;  // hard add 700
    wanted[16 + 204] = 0;
    wanted[16 + 205] = 0;  // no seq
    const auto dummy =
        bytes("4800 0200 656362286369706865725f6e756c6c29" + zero(64 - 16) + "00000000");  // "ecb(cipher_null)", no key
    wanted.insert(wanted.end(), dummy.begin(), dummy.end());
    check_equal(update, wanted);
}

TEST_CASE("Sequence number and NLM_F_ACK are stamped into a finished message") {
    MessageBuffer out(1);
    REQUIRE(append_delete_sa(out, inbound_v4().id));
    set_sequence(out.message(0), 0x01020304);
    request_ack(out.message(0));
    check_equal(out.message(0).first(16), bytes("28000000 1100 0500 04030201 00000000"));
}

TEST_CASE(
    "An error with extended acknowledgement gives errno and the kernel's words; an acknowledgement gives neither") {
    const std::string text =
        "52657175657374656420414541442061 6c676f726974686d206e6f7420666f756e6400";  // "Requested AEAD algorithm not
                                                                                    // found"
    const auto error = bytes(
        "4c000000 0200 0003 07000000 39300000"           // NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, seq 7
        "daffffff dc010000 1000 0100 07000000 00000000"  // -38 and the header of the request
        "2700 0100" +
        text + "00");
    auto reply = only_reply(error);
    CHECK(reply.kind == Reply::Kind::status);
    CHECK(reply.sequence == 7);
    CHECK(reply.code == 38);
    CHECK(reply.text == "Requested AEAD algorithm not found");
    // The one number without a positive counterpart (found by fuzzing): the kernel does not send it, and nothing
    // overflows.
    reply = only_reply(bytes("24000000 0200 0001 08000000 39300000 00000080 dc010000 1000 0500 08000000 00000000"));
    CHECK(reply.code == INT_MAX);
    reply = only_reply(bytes("24000000 0200 0001 08000000 39300000 00000000 dc010000 1000 0500 08000000 00000000"));
    CHECK(reply.kind == Reply::Kind::status);
    CHECK(reply.code == 0);
    CHECK(reply.text.empty());
    reply = only_reply(bytes("14000000 0300 0200 09000000 39300000 00000000"));
    CHECK(reply.kind == Reply::Kind::done);
}

TEST_CASE("An error that echoes the request (no NETLINK_CAP_ACK) still gives its text") {
    // DELSA echoed: 24 octets of body between the header and the text
    const auto error = bytes("48000000 0200 0002 07000000 39300000 fdffffff 28000000 1100 0100 07000000 00000000" +
                             zero(24) + "0900 0100 676f6e6521 000000");
    const auto reply = only_reply(error);
    CHECK(reply.code == 3);
    CHECK(reply.text == "gone!");
}

TEST_CASE("Answers cut at any octet, and answers with any octet changed, are decoded without harm") {
    for (const auto& golden :
         {bytes(new_sa_v4()), bytes(new_sa_v6()),
          bytes("4c000000 0200 0003 07000000 39300000 daffffff dc010000 1000 0100 07000000 00000000 2700 0100" +
                zero(36))}) {
        for (std::size_t size = 0; size < golden.size(); ++size) {
            const std::vector<std::uint8_t> cut(golden.begin(), golden.begin() + static_cast<std::ptrdiff_t>(size));
            decode(cut, [](Reply&) {});
            auto lying = cut;  // a header that admits the cut
            if (size >= 4) {
                lying[0] = static_cast<std::uint8_t>(size);
                lying[1] = static_cast<std::uint8_t>(size >> 8);
                decode(lying, [](Reply&) {});
            }
            auto changed = golden;
            for (const int value : {0x00, 0x01, 0x7f, 0xff}) {
                changed[size] = static_cast<std::uint8_t>(value);
                decode(changed, [](Reply&) {});
            }
        }
    }
    CHECK_FALSE(decode(bytes("10000000 0200 0000"), [](Reply&) {}));
}
