// Fuzz target: a datagram that may be STUN. An answer is a binding answer to that request, tells the address that it
// came from, is not worth an amplifier's while and is never answered itself.
#include <string>

#include "sip/message/message.h"
#include "sip/transport/stun.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate;
    using namespace gmgate::fuzz;
    const auto bytes = text_of(data, size);
    for (const char* source : {"198.51.100.7:40000", "[2001:db8::7]:40000"}) {
        const auto from = *Endpoint::parse(source);
        const auto answer = sip::answer_stun(bytes, from);
        if (!sip::is_stun(bytes)) require(!answer, "only STUN is answered");
        else require(!sip::Message::parse(bytes), "what is STUN is no SIP");
        if (!answer) continue;
        const auto octet = [&](std::size_t i) { return static_cast<unsigned char>(answer->at(i)); };
        require(sip::is_stun(*answer) && octet(0) == 1 && (octet(1) == 0x01 || octet(1) == 0x11),
                "an answer is a binding response or a binding error");
        require(answer->substr(4, 16) == bytes.substr(4, 16), "it has the request's transaction id");
        require(answer->size() <= bytes.size() + 64, "it is no amplifier");
        require(!sip::answer_stun(*answer, from), "an answer is not answered");
        if (octet(1) != 0x01) continue;
        require(answer->size() == 28 + from.address.size() && octet(20) == 0 && octet(21) == 0x20,
                "one XOR-MAPPED-ADDRESS");
        require((octet(26) << 8 | octet(27)) == (from.port.value ^ 0x2112), "the port is the source's");
        for (std::size_t i = 0; i < from.address.size(); ++i)
            require((octet(28 + i) ^ octet(4 + i)) == from.address.bytes()[i], "the address is the source's");
    }
    return 0;
}
