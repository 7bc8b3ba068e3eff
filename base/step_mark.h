// Says, to a process that comes after this one, whether a byte stream is in step.
#pragma once

#include <atomic>
#include <cstdint>

namespace gmgate {

/// One octet, usually in memory that outlives the process. It is set before bytes are taken from a socket or given to
/// it, and cleared when no part of a message is held on either side: who finds it set must not read or write that
/// socket, only close it. An empty mark does nothing. The memory must outlive the mark.
class StepMark {
public:
    StepMark() = default;
    explicit StepMark(std::atomic<std::uint8_t>* octet) : octet_(octet) {}
    void set() const {
        if (octet_) octet_->store(1, std::memory_order_seq_cst);
    }
    void clear() const {
        if (octet_) octet_->store(0, std::memory_order_seq_cst);
    }
    bool is_set() const { return octet_ && octet_->load(std::memory_order_seq_cst) != 0; }

private:
    std::atomic<std::uint8_t>* octet_ = nullptr;
};

}  // namespace gmgate
