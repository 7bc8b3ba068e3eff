// The one writer of the netlink socket: an in-order queue of requests, sent together, answered by sequence number.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "xfrm/kernel.h"
#include "xfrm/netlink/codec.h"
#include "xfrm/netlink/socket.h"

namespace gmgate::xfrm {

/// What the kernel said to one message of a request.
struct Outcome {
    int code = 0;      ///< positive errno; 0 = done
    std::string text;  ///< the kernel's words, may be empty
    std::optional<SaRecord> sa;
    std::optional<PolicyRecord> policy;
};

/// What the kernel said to a request: one outcome per message, in their order.
struct Answer {
    std::vector<Outcome> outcomes;
};

/// Requests of one exchange() travel in one sendmsg and in their order; several exchanges that wait at the same time
/// share a sendmsg up to kBatchLimit messages. Only the last message of a batch asks for an acknowledgement: errors
/// come anyway, and the kernel works through a batch in order, so that its acknowledgement (or its error) is the fence.
/// Threads: one loop. Memory: request and reply buffers are wiped, whatever happens.
class NetlinkQueue : public std::enable_shared_from_this<NetlinkQueue> {
public:
    /// Messages per sendmsg (600 NEWSA overflow the default send buffer, 64 bring nearly all of the gain).
    static constexpr std::size_t kBatchLimit = 64;

    struct Settings {
        std::chrono::milliseconds patience{5000};  ///< without an answer for so long the socket counts as broken
        std::pmr::memory_resource* memory = std::pmr::get_default_resource();
    };

    /// At the back: in order of arrival. At the front: what completes a request that is already under way (a
    /// roll-back), so that no other request sees the state in between.
    enum class Place { back, front };

    NetlinkQueue(asio::any_io_executor executor, std::unique_ptr<NetlinkSocket> socket, Settings settings);
    ~NetlinkQueue();

    /// At most kBatchLimit messages. An Error says that nothing is known (Reaction::broken: part of it may have been
    /// done) or that nothing was done (Reaction::retry).
    /// `look` is shown each SA that is told, by the place of its request, before the message is wiped.
    using Look = std::function<void(std::size_t, std::span<const std::uint8_t>)>;
    Task<Result<Answer>> exchange(MessageBuffer messages, Place place, Look look = {});
    /// One dump request; it travels alone. `take` gets each SA or policy as it comes.
    Task<Result<Answer>> dump(MessageBuffer message, std::function<void(Reply&)> take);
    /// Fails what is queued with Reaction::broken and closes the socket.
    void close();

    std::uint64_t messages_sent() const { return messages_sent_; }
    std::uint64_t system_calls() const { return socket_->system_calls(); }

private:
    struct Entry {
        MessageBuffer messages;
        std::function<void(Reply&)> take;  ///< of a dump
        Look look{};
        bool is_dump() const { return take != nullptr; }
        std::uint32_t first_sequence = 0;
        Answer answer;
        std::move_only_function<void(Result<Answer>)> complete;
    };
    using Batch = std::vector<Entry>;

    Task<Result<Answer>> submit(MessageBuffer messages, std::function<void(Reply&)> take, Place place, Look look);
    void start_if_idle();
    Task<void> run();
    Batch take_batch();
    Task<Result<void>> perform(Batch& batch);
    Task<Result<void>> receive_until_fence(Batch& batch, std::uint32_t fence);
    void number(Batch& batch);
    /// True when `reply` ends the batch.
    bool route(Batch& batch, Reply& reply, std::uint32_t fence);
    void finish(Batch& batch, const Result<void>& result);

    asio::any_io_executor executor_;
    std::unique_ptr<NetlinkSocket> socket_;
    Settings settings_;
    std::deque<Entry> queue_;
    std::optional<WipedBytes>
        replies_;  ///< kept from batch to batch; each datagram in it is wiped once it has been read
    std::uint32_t next_sequence_ = 1;
    std::uint64_t messages_sent_ = 0;
    bool is_running_ = false;
    bool is_closed_ = false;
};

}  // namespace gmgate::xfrm
