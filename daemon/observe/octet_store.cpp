#include "daemon/observe/octet_store.h"

#include <algorithm>
#include <cstring>

namespace gmgate::daemon {

std::size_t OctetStore::blocks_for(const Chain& chain, std::size_t octets) {
    const std::size_t room = chain.last == 0 ? 0 : kRoom - chain.used;
    return octets <= room ? 0 : (octets - room + kRoom - 1) / kRoom;
}

std::uint32_t OctetStore::take() {
    if (free_ == 0) {
        // Not wiped: a block's pages become memory when it is written to.
        slabs_.push_back(std::make_unique_for_overwrite<Block[]>(kSlab));
        const auto begin = static_cast<std::uint32_t>((slabs_.size() - 1) * kSlab + 1);
        for (auto number = begin + kSlab; number-- > begin;) {
            block(static_cast<std::uint32_t>(number)).next = free_;
            free_ = static_cast<std::uint32_t>(number);
        }
    }
    const auto number = free_;
    free_ = block(number).next;
    block(number).next = 0;
    ++in_use_;
    return number;
}

void OctetStore::append(Chain& chain, std::string_view octets) {
    chain.octets += octets.size();
    while (!octets.empty()) {
        if (chain.last == 0 || chain.used == kRoom) {
            const auto number = take();
            if (chain.last == 0) chain.first = number;
            else block(chain.last).next = number;
            chain.last = number;
            chain.used = 0;
            ++chain.blocks;
        }
        const auto part = std::min(octets.size(), kRoom - chain.used);
        std::memcpy(block(chain.last).octets + chain.used, octets.data(), part);
        chain.used += part;
        octets.remove_prefix(part);
    }
}

void OctetStore::release(Chain& chain) {
    if (chain.last != 0) {
        block(chain.last).next = free_;
        free_ = chain.first;
        in_use_ -= chain.blocks;
    }
    chain = {};
}

std::string OctetStore::text(const Chain& chain) const {
    std::string out;
    out.reserve(chain.octets);
    for (auto number = chain.first; number != 0; number = block(number).next)
        out.append(block(number).octets, number == chain.last ? chain.used : kRoom);
    return out;
}

}  // namespace gmgate::daemon
