#include "sip/transport/fair_turns.h"

#include <utility>

#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

namespace gmgate::sip {

Task<void> FairTurns::wait() {
    const auto state = state_;
    count(state);
    if (state->used < state->a_turn && state->waiting.empty()) {
        ++state->used;
        co_return;
    }
    // A timer that never fires is Asio's plainest one-shot event; begin_turn() cancels it.
    const auto turn = std::make_shared<asio::steady_timer>(state->executor, asio::steady_timer::time_point::max());
    state->waiting.push_back(turn);
    asio::error_code cancelled;
    co_await turn->async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
}

// What is posted runs behind all that is ready now: the loop has looked at every socket in between.
void FairTurns::count(const std::shared_ptr<State>& state) {
    if (!std::exchange(state->is_counting, true)) asio::post(state->executor, [state] { begin_turn(state); });
}

void FairTurns::begin_turn(const std::shared_ptr<State>& state) {
    state->used = 0;
    state->is_counting = false;
    while (!state->waiting.empty() && state->used < state->a_turn) {
        if (const auto turn = state->waiting.front().lock()) {
            turn->cancel();
            ++state->used;
        }
        state->waiting.pop_front();
    }
    if (state->used != 0) count(state);
}

}  // namespace gmgate::sip
