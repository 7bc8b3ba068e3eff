// Some work takes its share of each turn of the loop, and other work goes on beside it.
#include "sip/transport/fair_turns.h"

#include <doctest/doctest.h>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>

using namespace gmgate;
using namespace gmgate::sip;

namespace {

Task<void> work_in_turns(FairTurns& turns, int times, int& done) {
    for (int i = 0; i < times; ++i) {
        co_await turns.wait();
        ++done;
    }
}

Task<void> other_work(asio::any_io_executor executor, int turns, const int& done, int& done_meanwhile) {
    for (int i = 0; i < turns; ++i) co_await asio::post(executor, asio::use_awaitable);
    done_meanwhile = done;
}

}  // namespace

TEST_CASE("however many wait, other work waits for no more than a turn's worth of them") {
    asio::io_context loop;
    FairTurns turns(loop.get_executor(), 4);
    int done = 0, done_meanwhile = -1;
    for (int i = 0; i < 50; ++i) asio::co_spawn(loop, work_in_turns(turns, 20, done), asio::detached);
    asio::co_spawn(loop, other_work(loop.get_executor(), 10, done, done_meanwhile), asio::detached);
    loop.run();
    CHECK(done == 1000);  // all of it is done at last
    CHECK(done_meanwhile >= 0);
    CHECK(done_meanwhile <= 12 * 4);
}

TEST_CASE("whoever gave up while he waited takes nobody's turn") {
    FairTurns* kept = nullptr;
    int done = 0;
    {
        asio::io_context loop;
        FairTurns turns(loop.get_executor(), 1);
        kept = &turns;
        for (int i = 0; i < 10; ++i) asio::co_spawn(loop, work_in_turns(*kept, 1, done), asio::detached);
        loop.poll_one();
    }  // the loop ends while some wait
    CHECK(done <= 10);
}
