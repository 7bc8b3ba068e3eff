// The coroutine type of every asynchronous function: one loop, one thread, straight-line flows.
// Rules that no compiler checks (see README.md): name aggregates before co_await f(std::move(x)); no reference into a
// table or a receive buffer survives a co_await.
#pragma once

#include <asio/awaitable.hpp>

namespace gmgate {

template <class T = void>
using Task = asio::awaitable<T>;

}  // namespace gmgate
