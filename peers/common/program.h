// What the main() of every test peer does.
#pragma once

#include <exception>
#include <iostream>

namespace gmgate::peers {

/// Runs the program; what it throws is said on standard error, after its name. Returns its exit code, 2 for what was
/// thrown.
inline int run_program(const char* name, int (*run)(int, char**), int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << name << ": " << error.what() << '\n';
        return 2;
    }
}

}  // namespace gmgate::peers
