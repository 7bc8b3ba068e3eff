// Fuzz target: one datagram through Message::parse and everything that reads a message.
#include "tests/fuzz/invariants.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    gmgate::sip::invariants::check_message({reinterpret_cast<const char*>(data), size});
    return 0;
}
