// Counts the system calls of a piece of code as the kernel sees them, whoever makes them (the event loop included).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace gmgate::bench {

/// Name of a system call → how often. Forks: `prepare` and `work` run in a child that is traced (ptrace), and only what
/// `work` does is counted. Throws when the child cannot be traced or does not end well. Call it without other threads.
std::map<std::string, std::uint64_t> system_calls_of(const std::function<void()>& prepare,
                                                     const std::function<void()>& work);

}  // namespace gmgate::bench
