// The event loop and the coroutines that the peers' flows stand on.
#include "peers/common/task.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace gmgate::peers;
using namespace std::chrono_literals;

namespace {

struct Noted {
    std::vector<std::string>& notes;
    ~Noted() { notes.emplace_back("destroyed"); }
};

Task<int> sum(Mailbox<int>& box, int count) {
    int total = 0;
    for (int i = 0; i < count; ++i) {
        const auto item = co_await box.take(Clock::now() + 5s);
        if (!item) co_return -1;
        total += *item;
    }
    co_return total;
}

Task<void> add_up(Loop& loop, Mailbox<int>& box, int& result) {
    result = co_await sum(box, 3);
    loop.stop();
}

Task<void> wait_for_ever(Mailbox<int>& box, std::vector<std::string>& notes) {
    const Noted noted{notes};
    (void)co_await box.take(Clock::now() + 1h);
    notes.emplace_back("resumed");
}

Task<void> time_out(Loop& loop, Mailbox<int>& box, bool& timed_out) {
    timed_out = !co_await box.take(Clock::now() + 1ms);
    loop.stop();
}

}  // namespace

TEST_CASE("a mailbox hands over what came before and after the wait") {
    Loop loop;
    Mailbox<int> box(loop);
    Tasks tasks;
    int result = 0;
    box.put(1);
    tasks.spawn(add_up(loop, box, result));
    const Timer late = loop.after(1ms, [&] {
        box.put(2);
        box.put(3);
    });
    loop.run();
    CHECK(result == 6);
}

TEST_CASE("a wait ends at its deadline") {
    Loop loop;
    Mailbox<int> box(loop);
    Tasks tasks;
    bool timed_out = false;
    tasks.spawn(time_out(loop, box, timed_out));
    loop.run();
    CHECK(timed_out);
}

TEST_CASE("destroying a set of tasks destroys a suspended flow, also one that is about to be resumed") {
    std::vector<std::string> notes;
    Loop loop;
    Mailbox<int> box(loop);
    {
        Tasks tasks;
        tasks.spawn(wait_for_ever(box, notes));
        box.put(1);
    }
    const Timer stop = loop.after(2ms, [&] { loop.stop(); });
    loop.run();
    CHECK(notes == std::vector<std::string>{"destroyed"});
}

TEST_CASE("a timer that is destroyed does not fire") {
    Loop loop;
    bool fired = false;
    {
        const Timer timer = loop.after(0ms, [&] { fired = true; });
    }
    const Timer stop = loop.after(2ms, [&] { loop.stop(); });
    loop.run();
    CHECK_FALSE(fired);
}
