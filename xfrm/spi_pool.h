// The gateway's own SPI allocator: large, random, never one that is in use. 0x10000000–0xbfffffff: away from those
// that charon takes, 0xc0000000 and up.
#pragma once

#include <cstddef>
#include <functional>
#include <unordered_set>

#include "base/error.h"
#include "base/types.h"

namespace gmgate::xfrm {

struct SpiPair {
    Spi spi_pc;
    Spi spi_ps;
};

/// Owner of every SPI of ours that is in use. A pair is taken before its set is installed and released when the kernel
/// has confirmed that the set is gone. Released SPIs come back only by chance (a re-used SPI restarts the sequence
/// numbers and the phone would drop them as replay). Not thread-safe: one loop.
class SpiPool {
public:
    /// Values are taken from [first, last], at least 65536; `random` is replaced in tests.
    explicit SpiPool(Spi first = Spi{0x10000000}, Spi last = Spi{0xbfffffff},
                     std::function<std::uint64_t()> random = {});

    /// Two fresh SPIs that differ from each other, from all in use and from the UE's two (B-11).
    /// Reaction::exhausted when the range holds no two free values.
    Result<SpiPair> take(Spi spi_uc, Spi spi_us);
    /// Marks a pair found in the kernel or the store as in use; false when one of them is taken already.
    bool adopt(SpiPair pair);
    void release(SpiPair pair);
    bool holds(Spi spi) const { return in_use_.contains(spi); }
    std::size_t in_use() const { return in_use_.size(); }

private:
    std::unordered_set<Spi> in_use_;
    Spi first_, last_;
    std::function<std::uint64_t()> random_;
};

}  // namespace gmgate::xfrm
