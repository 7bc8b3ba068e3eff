// Flows that throw: the loop goes on, and what the process cannot do without is begun again.
#include "base/spawn.h"

#include <new>

#include <doctest/doctest.h>
#include <asio/io_context.hpp>
#include <asio/post.hpp>

using namespace gmgate;

TEST_CASE("a lasting flow that throws is begun again, and one that ends by itself is not") {
    asio::io_context loop;
    int begun = 0;
    const auto begin = [&begun]() -> Task<> {
        if (++begun < 3) throw std::bad_alloc();
        co_return;
    };
    spawn_lasting(loop.get_executor(), begin, "test");
    loop.run();
    CHECK(begun == 3);
}

TEST_CASE("a handler that throws where nobody catches it ends itself and not the loop") {
    asio::io_context loop;
    int handled = 0;
    for (int i = 0; i < 3; ++i)
        asio::post(loop, [&handled] {
            ++handled;
            throw std::bad_alloc();
        });
    run_guarded(loop);
    CHECK(handled == 3);
}
