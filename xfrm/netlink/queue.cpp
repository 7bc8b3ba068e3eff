#include "xfrm/netlink/queue.h"

#include <cerrno>

#include <asio/async_result.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>

#include "base/secret.h"

namespace gmgate::xfrm {
namespace {

// The kernel builds dump answers of at most 32 kB (net/netlink/af_netlink.c, netlink_dump).
constexpr std::size_t kReceiveSize = 32768;
// A dump of 200,000 SAs keeps the loop for 0.2 s: let others in between datagrams.
constexpr int kDatagramsPerTurn = 16;

}  // namespace

NetlinkQueue::NetlinkQueue(asio::any_io_executor executor, std::unique_ptr<NetlinkSocket> socket, Settings settings)
    : executor_(std::move(executor)), socket_(std::move(socket)), settings_(settings) {}

NetlinkQueue::~NetlinkQueue() { close(); }

Task<Result<Answer>> NetlinkQueue::exchange(MessageBuffer messages, Place place, Look look) {
    if (messages.count() == 0) co_return Answer{};
    if (messages.count() > kBatchLimit)
        co_return failure(Reaction::internal, "a netlink request has too many messages");
    std::function<void(Reply&)> nothing;
    co_return co_await submit(std::move(messages), std::move(nothing), place, std::move(look));
}

Task<Result<Answer>> NetlinkQueue::dump(MessageBuffer message, std::function<void(Reply&)> take) {
    Look nothing;
    co_return co_await submit(std::move(message), std::move(take), Place::back, std::move(nothing));
}

Task<Result<Answer>> NetlinkQueue::submit(MessageBuffer messages, std::function<void(Reply&)> take, Place place,
                                          Look look) {
    if (is_closed_) co_return failure(Reaction::broken, "the netlink queue is closed");
    auto start = [this, place](auto handler, MessageBuffer buffer, std::function<void(Reply&)> visitor, Look looks) {
        Entry entry{.messages = std::move(buffer),
                    .take = std::move(visitor),
                    .look = std::move(looks),
                    .answer = {},
                    .complete = {}};
        entry.answer.outcomes.resize(entry.messages.count());
        entry.complete = [executor = executor_, resume = std::move(handler)](Result<Answer> answer) mutable {
            asio::post(executor,
                       [then = std::move(resume), result = std::move(answer)]() mutable { then(std::move(result)); });
        };
        if (place == Place::front) queue_.push_front(std::move(entry));
        else queue_.push_back(std::move(entry));
        start_if_idle();
    };
    co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(Result<Answer>)>(
        std::move(start), asio::use_awaitable, std::move(messages), std::move(take), std::move(look));
}

void NetlinkQueue::start_if_idle() {
    if (is_running_ || is_closed_) return;
    is_running_ = true;
    // The writer shares ownership: it may be suspended in a receive when the last other owner goes.
    asio::co_spawn(
        executor_, [self = shared_from_this()]() -> Task<void> { co_await self->run(); }, asio::detached);
}

Task<void> NetlinkQueue::run() {
    while (!is_closed_ && !queue_.empty()) {
        Batch batch = take_batch();
        const auto result = co_await perform(batch);
        finish(batch, result);
        // Handlers are posted before this, so every caller has run, and put its roll-back in front, when we go on.
        co_await asio::post(executor_, asio::use_awaitable);
    }
    is_running_ = false;
}

NetlinkQueue::Batch NetlinkQueue::take_batch() {
    Batch batch;
    std::size_t messages = 0;
    while (!queue_.empty()) {
        auto& next = queue_.front();
        messages += next.messages.count();
        if (!batch.empty() && (next.is_dump() || messages > kBatchLimit)) break;
        batch.push_back(std::move(next));
        queue_.pop_front();
        if (batch.back().is_dump()) break;
    }
    return batch;
}

void NetlinkQueue::number(Batch& batch) {
    for (auto& entry : batch) {
        entry.first_sequence = next_sequence_;
        for (std::size_t i = 0; i < entry.messages.count(); ++i)
            set_sequence(entry.messages.message(i), next_sequence_++);
        messages_sent_ += entry.messages.count();
    }
    auto& last = batch.back();
    if (!last.is_dump()) request_ack(last.messages.message(last.messages.count() - 1));
}

Task<Result<void>> NetlinkQueue::perform(Batch& batch) {
    if (!socket_->is_open()) {
        if (auto opened = socket_->open(); !opened) {
            opened.error().reaction = Reaction::retry;  // nothing was sent
            co_return opened;
        }
    }
    number(batch);
    const std::uint32_t fence = next_sequence_ - 1;
    std::vector<std::span<const std::uint8_t>> parts;
    parts.reserve(batch.size());
    for (const auto& entry : batch) parts.push_back(entry.messages.bytes());
    auto result = co_await socket_->send(parts);
    for (auto& entry : batch) entry.messages.wipe();
    if (result) result = co_await receive_until_fence(batch, fence);
    // Answers that come late must not meet the next batch.
    if (!result && result.error().reaction == Reaction::broken) socket_->close();
    co_return result;
}

Task<Result<void>> NetlinkQueue::receive_until_fence(Batch& batch, std::uint32_t fence) {
    if (!replies_) replies_.emplace(kReceiveSize, settings_.memory);
    const auto buffer = replies_->all();
    bool is_finished = false;
    for (int datagrams = 1; !is_finished; ++datagrams) {
        const auto size = co_await socket_->receive(buffer, settings_.patience);
        if (!size) co_return std::unexpected(size.error());
        const auto datagram = buffer.first(*size);
        const bool is_well_formed =
            decode(datagram, [&](Reply& reply) { is_finished = route(batch, reply, fence) || is_finished; });
        wipe(datagram);  // a told SA carries its keys
        if (!is_well_formed) co_return failure(Reaction::broken, "the kernel's answer is malformed", EBADMSG);
        if (datagrams % kDatagramsPerTurn == 0) co_await asio::post(executor_, asio::use_awaitable);
    }
    co_return Result<void>{};
}

bool NetlinkQueue::route(Batch& batch, Reply& reply, std::uint32_t fence) {
    for (auto& entry : batch) {
        const std::uint32_t index = reply.sequence - entry.first_sequence;  // modulo 2^32, like the sequence numbers
        if (index >= entry.answer.outcomes.size()) continue;
        auto& outcome = entry.answer.outcomes[index];
        if (entry.is_dump() && (reply.sa || reply.policy)) {
            entry.take(reply);
        } else if (reply.sa) {
            if (entry.look) entry.look(index, reply.message);
            outcome.sa = std::move(reply.sa);
        } else if (reply.policy) {
            outcome.policy = std::move(reply.policy);
        }
        if (reply.is_interrupted) outcome.code = EAGAIN;
        const bool is_verdict = reply.kind == Reply::Kind::status || reply.kind == Reply::Kind::done;
        if (is_verdict && reply.code != 0) {
            outcome.code = reply.code;
            outcome.text = std::move(reply.text);
        }
        return is_verdict && reply.sequence == fence;
    }
    return false;  // an answer to a request that was given up: its socket is gone, so this is another's
}

void NetlinkQueue::finish(Batch& batch, const Result<void>& result) {
    for (auto& entry : batch) {
        if (result) entry.complete(std::move(entry.answer));
        else entry.complete(std::unexpected(result.error()));
    }
}

void NetlinkQueue::close() {
    is_closed_ = true;
    socket_->close();
    for (auto& entry : queue_) entry.complete(failure(Reaction::broken, "the netlink queue is closed"));
    queue_.clear();
}

}  // namespace gmgate::xfrm
