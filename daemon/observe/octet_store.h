// Octets in blocks of equal size, which are taken and given back in chains: nothing is allocated for a message once the
// blocks are there, and those that were given back last, still in the processor's cache, are taken first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace gmgate::daemon {

class OctetStore {
public:
    static constexpr std::size_t kBlock = 2048;  ///< octets of one, with the number of the next

    /// Octets that were appended one after the other.
    struct Chain {
        std::uint32_t first = 0, last = 0;  ///< blocks, from 1 on; 0: none
        std::size_t blocks = 0, octets = 0;
        std::size_t used = 0;  ///< of the last block
    };

    /// How many more blocks so many octets would take.
    static std::size_t blocks_for(const Chain& chain, std::size_t octets);
    void append(Chain& chain, std::string_view octets);
    /// Gives its blocks back and makes it empty.
    void release(Chain& chain);
    std::string text(const Chain& chain) const;
    std::size_t blocks_in_use() const { return in_use_; }

private:
    struct Block {
        std::uint32_t next;
        char octets[kBlock - sizeof(std::uint32_t)];
    };
    static constexpr std::size_t kRoom = sizeof(Block::octets);
    static constexpr std::size_t kSlab = 64;  ///< blocks that are allocated at once
    Block& block(std::uint32_t number) const { return slabs_[(number - 1) / kSlab][(number - 1) % kSlab]; }
    std::uint32_t take();

    std::vector<std::unique_ptr<Block[]>> slabs_;
    std::uint32_t free_ = 0;  ///< the first one of a chain
    std::size_t in_use_ = 0;
};

}  // namespace gmgate::daemon
