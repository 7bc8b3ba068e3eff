// Fuzz target: a byte stream, cut at once and octet by octet; what comes out as a message goes through the parser.
#include "tests/fuzz/invariants.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate::sip;
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    invariants::check_framing(bytes);
    Framer framer;
    if (!framer.feed(bytes)) return 0;
    for (FrameResult result = framer.next(); result.frame == Frame::message || result.frame == Frame::ping;
         result = framer.next()) {
        if (result.frame == Frame::ping) continue;
        const auto message = Message::parse(result.bytes);
        if (message)
            invariants::require(message->bytes() == result.bytes, "framer and parser agree where a message ends");
    }
    return 0;
}
