// Netlink requests under construction: our own memory, wiped on every path because NEWSA carries keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <vector>

namespace gmgate::xfrm {

/// Bytes that are wiped before they are given back. Move-only.
class WipedBytes {
public:
    WipedBytes(std::size_t size, std::pmr::memory_resource* memory);
    WipedBytes(WipedBytes&& other) noexcept;
    WipedBytes& operator=(WipedBytes&&) = delete;
    ~WipedBytes();

    std::span<std::uint8_t> all() const { return {data_, size_}; }

private:
    std::pmr::memory_resource* memory_;
    std::uint8_t* data_;
    std::size_t size_;
};

/// A fixed number of netlink messages in one piece, in the order in which the kernel is to see them. The memory is
/// allocated once, never grows (growing would leave a copy behind), and comes from `memory` so that a test can look at
/// it.
class MessageBuffer {
public:
    /// The largest message of ours is NEWSA with two keys inside UDP, 524 octets.
    static constexpr std::size_t kMessageLimit = 576;

    explicit MessageBuffer(std::size_t messages, std::pmr::memory_resource* memory = std::pmr::get_default_resource());

    /// Zeroed room for the next message; empty when the buffer is full.
    std::span<std::uint8_t> begin_message();
    /// Closes the message begun last; `size` is a multiple of 4 (NLMSG_ALIGNTO).
    void end_message(std::size_t size);

    std::size_t count() const { return starts_.size(); }
    std::span<std::uint8_t> message(std::size_t index) const;
    /// All messages, ready for sendmsg.
    std::span<const std::uint8_t> bytes() const { return bytes_.all().first(used_); }
    /// Overwrites the content; count() stays, since answers are still to be matched.
    void wipe() noexcept;

private:
    WipedBytes bytes_;
    std::size_t used_ = 0;
    std::vector<std::size_t> starts_;
};

}  // namespace gmgate::xfrm
