#include "base/turn.h"

#include <utility>
#include <vector>

#include <asio/post.hpp>

#include "base/spawn.h"

namespace gmgate {
namespace {

struct Left {
    bool is_running = false;
    std::vector<Turn::Work> going_on, finishing;
};

thread_local Left left_to_turn;

void run_all(std::vector<Turn::Work>& works) {
    for (std::size_t i = 0; i < works.size(); ++i) {  // it may leave more
        auto work = std::move(works[i]);
        guarded("turn", work);
    }
    works.clear();
}

void leave(std::vector<Turn::Work>& works, const asio::any_io_executor& executor, Turn::Work work) {
    if (left_to_turn.is_running) works.push_back(std::move(work));
    else asio::post(executor, [work = std::move(work)]() mutable { work(); });
}

}  // namespace

Turn::Turn() {
    if (left_to_turn.is_running) is_outermost_ = false;
    left_to_turn.is_running = true;
}

Turn::~Turn() {
    if (!is_outermost_) return;
    while (!left_to_turn.going_on.empty() || !left_to_turn.finishing.empty()) {
        run_all(left_to_turn.going_on);
        run_all(left_to_turn.finishing);
    }
    left_to_turn.is_running = false;
}

void Turn::go_on(const asio::any_io_executor& executor, Work work) {
    leave(left_to_turn.going_on, executor, std::move(work));
}

void Turn::finish(const asio::any_io_executor& executor, Work work) {
    leave(left_to_turn.finishing, executor, std::move(work));
}

}  // namespace gmgate
