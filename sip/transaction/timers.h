// Deadlines of many transactions on one asio timer.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include <asio/any_io_executor.hpp>
#include <asio/steady_timer.hpp>

#include "base/clock.h"

namespace gmgate::sip {

/// A binary heap of nodes that know their place in it: arming and disarming cost O(log n), no allocation, and no look
/// at the reactor unless the earliest deadline moves forward. The asio timer waits only while something is armed. Loop
/// thread only. shared_ptr because the wait in flight and nodes in foreign hands may outlive the owner.
class TimerHeap : public std::enable_shared_from_this<TimerHeap> {
public:
    class Node {
    public:
        explicit Node(std::shared_ptr<TimerHeap> heap) : heap_(std::move(heap)) {}
        Node(const Node&) = delete;
        Node& operator=(const Node&) = delete;
        virtual ~Node() { disarm(); }  ///< ends the registration

    protected:
        /// Called from the loop once the deadline has passed, with the node disarmed. It may arm and destroy nodes,
        /// itself included.
        virtual void on_timer() = 0;
        /// Replaces an earlier deadline.
        void arm(TimePoint at) { heap_->arm(*this, at); }
        void disarm() { heap_->disarm(*this); }

    private:
        friend class TimerHeap;
        static constexpr std::size_t kNotArmed = static_cast<std::size_t>(-1);
        std::shared_ptr<TimerHeap> heap_;
        std::size_t index_ = kNotArmed;
    };

    explicit TimerHeap(const asio::any_io_executor& executor) : timer_(executor) {}
    /// Disarms everything for good: later arming is ignored.
    void stop();
    std::size_t size() const { return heap_.size(); }

private:
    struct Entry {
        TimePoint at;
        Node* node;
    };
    void arm(Node& node, TimePoint at);
    void disarm(Node& node);
    void place(std::size_t index, Entry entry);
    void sift_up(std::size_t index);
    void sift_down(std::size_t index);
    void remove(std::size_t index);
    /// Makes the asio timer wait for the earliest deadline.
    void schedule();
    void run_due();

    asio::steady_timer timer_;
    std::vector<Entry> heap_;
    TimePoint scheduled_ = TimePoint::max();
    bool stopped_ = false;
};

}  // namespace gmgate::sip
