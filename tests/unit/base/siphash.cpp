// The vectors of the SipHash paper and of its authors' reference program.
#include <doctest/doctest.h>

#include <string>

#include "base/siphash.h"

using namespace gmgate;

TEST_CASE("SipHash-2-4: published vectors") {
    SipHashKey key;
    for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(i);
    std::string text;
    CHECK(siphash(key, text) == 0x726fdb47dd0e0e31);
    for (int i = 0; i < 8; ++i) text += static_cast<char>(i);
    CHECK(siphash(key, text) == 0x93f5f5799a932462);
    for (int i = 8; i < 15; ++i) text += static_cast<char>(i);
    CHECK(siphash(key, text) == 0xa129ca6149be45e5);  // appendix A of the paper
}
