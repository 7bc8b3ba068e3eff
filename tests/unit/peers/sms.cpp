// SMS over IP as gmue says it: known octets, read back, and bytes from the network that are anything.
#include <doctest/doctest.h>

#include "peers/common/bytes.h"
#include "peers/common/sms.h"

using namespace gmgate::peers;

namespace {

std::string hex_of_text(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) {
        out += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
        out += "0123456789abcdef"[static_cast<unsigned char>(c) & 15];
    }
    return out;
}

std::string text_of_hex(std::string_view text) {
    const auto bytes = *from_hex(text);
    return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("sms: RP-DATA with SMS-SUBMIT, octet by octet; \"hellohello\" is the one of every textbook") {
    const auto data = rp_data(0x2a, "+491710760000", "+46708251358", "hellohello");
    REQUIRE(data.has_value());
    CHECK(hex_of_text(*data) ==
          "002a00"
          "07"
          "91947101670000"
          "16"
          "012a0b916407281553f8"
          "0000"
          "0a"
          "e8329bfd4697d9ec37");
    const auto read = read_rp(*data);
    REQUIRE(read.has_value());
    CHECK_FALSE(read->from_network);
    CHECK(read->reference == 0x2a);
    CHECK(read->number == "46708251358");
    CHECK(read->text == "hellohello");
    for (const std::size_t size : {0U, 1U, 7U, 8U, 9U, 160U}) {
        const std::string text(size, 'z');
        CHECK(read_rp(*rp_data(1, "1", "22", text))->text == text);
    }
}

TEST_CASE("sms: what the network sends: SMS-DELIVER, RP-ACK, RP-ERROR") {
    // RP-DATA from the network: originator 491710760000, no destination; SMS-DELIVER from 27838890001, "hellohello".
    const auto deliver =
        read_rp(text_of_hex("0107"
                            "07"
                            "91947101670000"
                            "00"
                            "1c"
                            "040b917238880900f10000"
                            "99309251619580"
                            "0ae8329bfd4697d9ec37"));
    REQUIRE(deliver.has_value());
    CHECK(deliver->from_network);
    CHECK(deliver->reference == 7);
    CHECK(deliver->number == "27838890001");
    CHECK(deliver->text == "hellohello");
    CHECK(hex_of_text(rp_ack(7)) == "0207");
    CHECK(read_rp(text_of_hex("032a"))->kind == RpMessage::Kind::ack);
    const auto error = read_rp(text_of_hex("052a0126"));
    REQUIRE(error.has_value());
    CHECK(error->kind == RpMessage::Kind::error);
    CHECK(error->cause == 38);
}

TEST_CASE("sms: what cannot be said is refused, and no bytes of a peer are read beyond their end") {
    CHECK_FALSE(rp_data(1, "", "22", "x"));
    CHECK_FALSE(rp_data(1, "1", "2a", "x"));
    CHECK_FALSE(rp_data(1, "1", "22", std::string(161, 'x')));
    CHECK_FALSE(rp_data(1, "1", "22", "@"));  // another place in that alphabet
    const auto whole = *rp_data(0x2a, "+491710760000", "+46708251358", "hellohello");
    for (std::size_t size = 0; size < whole.size(); ++size) CHECK_FALSE(read_rp(whole.substr(0, size)));
    for (std::size_t at = 0; at < whole.size(); ++at)
        for (const int value : {0, 1, 0x7f, 0xff}) {
            auto changed = whole;
            changed[at] = static_cast<char>(value);
            (void)read_rp(changed);
        }
    CHECK_FALSE(read_rp(""));
}
