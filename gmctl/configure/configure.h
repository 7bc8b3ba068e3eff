// `gmctl configure`.
#pragma once

#include <string>

namespace gmgate::daemon::configure {

struct Options {
    std::string config = "/etc/gmgate/gmgate.toml";
    std::string prompt = "gmgate";  ///< the word before # in the prompt
};

/// Runs the shell on standard input and output: with line editing, completion (Tab) and help (?) on a terminal, line by
/// line otherwise. Gives the exit status: 0; 1 when something was typed but is not in the file at the end; 2 when the
/// file cannot be read or is not TOML.
int run(const Options& options);

}  // namespace gmgate::daemon::configure
