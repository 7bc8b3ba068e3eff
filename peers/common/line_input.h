// Standard input as lines, on the loop: commands to a program that runs.
#pragma once

#include "loop.h"

#include <functional>
#include <string>

namespace gmgate::peers {

class LineInput {
public:
    using Line = std::function<void(std::string)>;  ///< trimmed
    using End = std::function<void()>;

    /// Calls from the loop; for a regular file at once, while it is being made. Neither callback may destroy this.
    LineInput(Loop& loop, Line line, End end);

private:
    /// False at the end of input.
    bool read_some();

    Line line_;
    End end_;
    std::string pending_;
    Watch watch_;
};

}  // namespace gmgate::peers
