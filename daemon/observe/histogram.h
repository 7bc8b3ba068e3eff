// How long something took, for Prometheus: fixed bounds, plain numbers, one loop.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>

namespace gmgate::daemon {

class Histogram {
public:
    /// Upper bounds of the buckets in seconds; a last one without bound follows.
    static constexpr std::array kBounds{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 32.0};

    /// What lies before its beginning (a clock that was set back) counts as nothing.
    void add(std::chrono::nanoseconds took) {
        const double seconds = std::max(0.0, std::chrono::duration<double>(took).count());
        std::size_t bucket = 0;
        while (bucket < kBounds.size() && seconds > kBounds[bucket]) ++bucket;
        ++counts_[bucket];
        sum_ += seconds;
    }
    std::uint64_t count() const {
        std::uint64_t all = 0;
        for (const auto one : counts_) all += one;
        return all;
    }
    double sum() const { return sum_; }
    /// Of one bucket, without those below; the last one is that without bound.
    std::uint64_t in_bucket(std::size_t bucket) const { return counts_[bucket]; }

private:
    std::array<std::uint64_t, kBounds.size() + 1> counts_{};
    double sum_ = 0;
};

}  // namespace gmgate::daemon
