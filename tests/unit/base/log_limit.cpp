// Lines that strangers cause are held back, and counted.
#include "base/log_limit.h"

#include <doctest/doctest.h>

using namespace gmgate;
using gmgate::log::LineLimit;

TEST_CASE(
    "of one id a burst of lines is written, then ten a second; what is held back is told, and no other id suffers") {
    LineLimit limit;
    TimePoint now = std::chrono::steady_clock::now();
    std::uint64_t written = 0;
    for (int i = 0; i < 3000; ++i) written += limit.may_write("refused", now) ? 1 : 0;
    CHECK(written == LineLimit::kBurst);
    CHECK(limit.may_write("other", now));
    CHECK(limit.held(now).empty());
    for (int tenth = 0; tenth < 100; ++tenth, now += std::chrono::milliseconds{100})
        for (int i = 0; i < 30; ++i) written += limit.may_write("refused", now) ? 1 : 0;
    CHECK(written >= LineLimit::kBurst + 99);
    CHECK(written <= LineLimit::kBurst + 100);
    const auto held = limit.held(now);
    REQUIRE(held.size() == 1);
    CHECK(held[0].id == "refused");
    CHECK(held[0].lines == 6000 - written);
    CHECK(limit.held(now + LineLimit::kTellAfter).empty());
    now += std::chrono::seconds{60};
    written = 0;
    for (int i = 0; i < 3000; ++i) written += limit.may_write("refused", now) ? 1 : 0;
    CHECK(written == LineLimit::kBurst);
}
