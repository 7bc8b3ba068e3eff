// Conformance cases as Markdown: every "## " heading starts a case, its fenced blocks are the steps. README.md tells
// what they say.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace gmgate::test {

/// One fenced block: "```INFO", its lines, "```".
struct Block {
    std::string info;
    std::string text;      ///< lines with LF
    std::size_t line = 0;  ///< of the opening fence

    std::string word() const;  ///< first word of the info string
};

struct Case {
    std::filesystem::path file;
    std::string title;
    std::vector<Block> blocks;
    std::size_t line = 0;
};

/// The cases of a file in order. Throws std::runtime_error naming file and line when a fence is not closed or a block
/// precedes the first heading.
std::vector<Case> read_cases(const std::filesystem::path& file);
/// All .md files under a folder in order of their names, README.md and the folders `given` and `known` below it left
/// out.
std::vector<std::filesystem::path> case_files(const std::filesystem::path& folder);

std::vector<std::string> lines_of(const std::string& text);

}  // namespace gmgate::test
