#include "xfrm/netlink/message_buffer.h"

#include <utility>

#include "base/secret.h"

namespace gmgate::xfrm {

WipedBytes::WipedBytes(std::size_t size, std::pmr::memory_resource* memory)
    : memory_(memory),
      data_(static_cast<std::uint8_t*>(memory->allocate(size, alignof(std::max_align_t)))),
      size_(size) {
    std::memset(data_, 0, size_);
}

WipedBytes::WipedBytes(WipedBytes&& other) noexcept
    : memory_(other.memory_), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

WipedBytes::~WipedBytes() {
    if (!data_) return;
    gmgate::wipe(data_, size_);
    memory_->deallocate(data_, size_, alignof(std::max_align_t));
}

MessageBuffer::MessageBuffer(std::size_t messages, std::pmr::memory_resource* memory)
    : bytes_(messages * kMessageLimit, memory) {
    starts_.reserve(messages);
}

std::span<std::uint8_t> MessageBuffer::begin_message() {
    const auto rest = bytes_.all().subspan(used_);
    return rest.size() < kMessageLimit ? std::span<std::uint8_t>{} : rest.first(kMessageLimit);
}

void MessageBuffer::end_message(std::size_t size) {
    starts_.push_back(used_);
    used_ += size;
}

std::span<std::uint8_t> MessageBuffer::message(std::size_t index) const {
    const std::size_t end = index + 1 < starts_.size() ? starts_[index + 1] : used_;
    return bytes_.all().subspan(starts_[index], end - starts_[index]);
}

void MessageBuffer::wipe() noexcept { gmgate::wipe(bytes_.all()); }

}  // namespace gmgate::xfrm
