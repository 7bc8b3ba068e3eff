// `gmctl configure`.
#pragma once

#include <functional>
#include <string>

#include "base/error.h"

namespace gmgate::daemon::configure {

struct Options {
    std::string config = "/etc/gmgate/gmgate.toml";
    std::string prompt = "gmgate";  ///< the word before # in the prompt
    bool is_dry_run = false;        ///< nothing is written; at the end the difference is printed
    /// What `activate-config` does: has the running gateway read the file, and tells in lines what came of it.
    std::function<Result<std::string>()> activate{};
};

/// Runs the shell on standard input and output: with line editing, completion (Tab) and help (?) on a terminal, line by
/// line otherwise. Lines that come from a pipe or a file are one change: the first that is refused ends it, and nothing
/// is written. Gives the exit status: 0; 1 for that, and when something was typed but is not in the file at the end; 2
/// when the file cannot be read or is not TOML.
int run(const Options& options);

}  // namespace gmgate::daemon::configure
