#include "sip/transaction/timers.h"

#include "base/turn.h"

namespace gmgate::sip {

void TimerHeap::stop() {
    stopped_ = true;
    for (auto& entry : heap_) entry.node->index_ = Node::kNotArmed;
    heap_.clear();
    schedule();
}

void TimerHeap::arm(Node& node, TimePoint at) {
    if (stopped_) return;
    if (node.index_ != Node::kNotArmed) remove(node.index_);
    heap_.push_back({at, &node});
    node.index_ = heap_.size() - 1;
    sift_up(node.index_);
    if (heap_.front().at < scheduled_) schedule();
}

void TimerHeap::disarm(Node& node) {
    if (node.index_ == Node::kNotArmed) return;
    remove(node.index_);
    if (heap_.empty()) schedule();  // else the timer may wake once for nothing, which is cheaper than moving it
}

void TimerHeap::place(std::size_t index, Entry entry) {
    heap_[index] = entry;
    entry.node->index_ = index;
}

void TimerHeap::sift_up(std::size_t index) {
    const Entry entry = heap_[index];
    while (index > 0 && entry.at < heap_[(index - 1) / 2].at) {
        place(index, heap_[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    place(index, entry);
}

void TimerHeap::sift_down(std::size_t index) {
    const Entry entry = heap_[index];
    for (;;) {
        std::size_t child = 2 * index + 1;
        if (child >= heap_.size()) break;
        if (child + 1 < heap_.size() && heap_[child + 1].at < heap_[child].at) ++child;
        if (heap_[child].at >= entry.at) break;
        place(index, heap_[child]);
        index = child;
    }
    place(index, entry);
}

void TimerHeap::remove(std::size_t index) {
    heap_[index].node->index_ = Node::kNotArmed;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (index == heap_.size()) return;
    place(index, last);
    sift_up(index);
    sift_down(last.node->index_);
}

void TimerHeap::schedule() {
    if (heap_.empty()) {
        scheduled_ = TimePoint::max();
        timer_.cancel();
        return;
    }
    // Mostly the earliest deadline is a retransmission that an answer has made needless: the loop looks again at that
    // time, which is cheaper than to set the clock for each message.
    if (heap_.front().at >= scheduled_) return;
    scheduled_ = heap_.front().at;
    timer_.expires_at(scheduled_);
    timer_.async_wait([self = shared_from_this()](const asio::error_code& error) {
        if (!error) self->run_due();
    });
}

void TimerHeap::run_due() {
    const Turn turn;
    scheduled_ = TimePoint::max();
    const TimePoint now = std::chrono::steady_clock::now();
    while (!heap_.empty() && heap_.front().at <= now) {
        Node* node = heap_.front().node;
        remove(0);
        node->on_timer();
    }
    schedule();
}

}  // namespace gmgate::sip
