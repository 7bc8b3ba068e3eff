// The loop's lateness: measured when it happens, and over when the loop is on time again.
#include "daemon/overload.h"
#include "base/spawn.h"
#include "tests/support/register_parts.h"
#include "tests/unit/sip/transport/net_support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using gmgate::sip::test::Loop;
using gmgate::test::StillClock;

TEST_CASE("a loop that is held up is overloaded at once, and no more when it is on time again") {
    Loop loop;
    StillClock clock;
    LoopWatch watch(clock, milliseconds{500});
    spawn(loop.io.get_executor(), watch.run(), "test");
    loop.io.poll();
    CHECK_FALSE(watch.is_overloaded());
    clock.advance(std::chrono::milliseconds{800});  // a handler that takes too long
    CHECK(watch.is_overloaded());                   // noticed before the timer's own turn
    CHECK_FALSE(watch.is_far_behind());             // strangers are refused, and phones are served
    clock.advance(std::chrono::seconds{1});
    CHECK(watch.is_far_behind());
    CHECK(loop.until([&] { return !watch.is_overloaded(); }));
}
