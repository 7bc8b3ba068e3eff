#include "xfrm/spi_pool.h"

#include "base/random.h"

namespace gmgate::xfrm {
namespace {

// Random draws before a nearly full range is walked through instead.
constexpr int kDraws = 64;

}  // namespace

SpiPool::SpiPool(Spi first, Spi last, std::function<std::uint64_t()> random)
    : first_(first), last_(last), random_(random ? std::move(random) : [] { return random_u64(); }) {
    // SPIs below 65536 are left to people who choose by hand, 0..255 are reserved (RFC 4303 §2.1).
    if (first_.value < 65536) first_ = Spi{65536};
    if (last_ < first_) last_ = first_;
}

Result<SpiPair> SpiPool::take(Spi spi_uc, Spi spi_us) {
    const std::uint64_t width = std::uint64_t{last_.value} - first_.value + 1;
    const auto is_free = [&](Spi spi, Spi other) {
        return spi != other && spi != spi_uc && spi != spi_us && !in_use_.contains(spi);
    };
    // nullopt-free search: 0 is no SPI, so it stands for "none".
    const auto draw = [&](Spi other) {
        std::uint64_t offset = 0;
        for (int i = 0; i < kDraws; ++i) {
            offset = random_() % width;
            const Spi candidate{static_cast<std::uint32_t>(first_.value + offset)};
            if (is_free(candidate, other)) return candidate;
        }
        for (std::uint64_t step = 1; step < width; ++step) {
            const Spi candidate{static_cast<std::uint32_t>(first_.value + (offset + step) % width)};
            if (is_free(candidate, other)) return candidate;
        }
        return Spi{0};
    };
    const Spi spi_pc = draw(Spi{0});
    const Spi spi_ps = spi_pc == Spi{0} ? Spi{0} : draw(spi_pc);
    if (spi_ps == Spi{0}) return failure(Reaction::exhausted, "no two free SPIs are left in the configured range");
    in_use_.insert(spi_pc);
    in_use_.insert(spi_ps);
    return SpiPair{spi_pc, spi_ps};
}

bool SpiPool::adopt(SpiPair pair) {
    if (pair.spi_pc == pair.spi_ps || in_use_.contains(pair.spi_pc) || in_use_.contains(pair.spi_ps)) return false;
    in_use_.insert(pair.spi_pc);
    in_use_.insert(pair.spi_ps);
    return true;
}

void SpiPool::release(SpiPair pair) {
    in_use_.erase(pair.spi_pc);
    in_use_.erase(pair.spi_ps);
}

}  // namespace gmgate::xfrm
