// So much of some work in each turn of the loop, so that other work goes on beside it whatever waits.
#pragma once

#include <deque>
#include <memory>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>

#include "base/task.h"

namespace gmgate::sip {

/// One loop, one thread. Copies share nothing.
class FairTurns {
public:
    FairTurns(const asio::any_io_executor& executor, unsigned a_turn)
        : state_(std::make_shared<State>(State{executor, a_turn})) {}
    FairTurns(const FairTurns&) = delete;
    FairTurns& operator=(const FairTurns&) = delete;

    /// At once while fewer than `a_turn` have been let through in this turn; else in a later one, first come, first
    /// served. A caller that is destroyed while it waits takes nobody's place.
    Task<void> wait();

private:
    struct State {
        asio::any_io_executor executor;
        unsigned a_turn;
        unsigned used = 0;
        bool is_counting = false;  ///< the end of this turn has been posted
        std::deque<std::weak_ptr<asio::steady_timer>> waiting{};
    };
    static void count(const std::shared_ptr<State>& state);
    static void begin_turn(const std::shared_ptr<State>& state);

    std::shared_ptr<State> state_;  // shared with what is posted
};

}  // namespace gmgate::sip
