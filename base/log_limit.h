// How many lines of one id are written: peers and strangers cause most of them, and a disk is finite.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace gmgate::log {

/// A bucket for each id. Ids are constant texts of the program, so there are as many buckets as ids.
class LineLimit {
public:
    static constexpr std::uint64_t kBurst = 500;     ///< lines of one id at once
    static constexpr std::uint64_t kPerSecond = 10;  ///< and from then on
    static constexpr seconds kTellAfter{5};

    /// One more line of this id: false when it is held back, and counted.
    bool may_write(std::string_view id, TimePoint now);
    struct Held {
        std::string id;
        std::uint64_t lines;
    };
    /// How many lines of which ids were held back since the last call that told of any, at most every kTellAfter.
    std::vector<Held> held(TimePoint now);

private:
    struct Bucket {
        TimePoint full_at{};
        std::uint64_t held = 0;
    };
    std::map<std::string, Bucket, std::less<>> buckets_;
    std::uint64_t held_ = 0;  ///< in all
    TimePoint told_{};
};

/// Writes what was held back ("ID more=N"), when it is time to; call it now and then, for the flood may have ended.
void tell_held_lines();

}  // namespace gmgate::log
