#include "tests/conformance/case_file.h"

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace gmgate::test {

std::string Block::word() const { return info.substr(0, info.find(' ')); }

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const auto end = std::min(text.find('\n', at), text.size());
        lines.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return lines;
}

std::vector<Case> read_cases(const std::filesystem::path& file) {
    std::ifstream in(file);
    if (!in) throw std::runtime_error(file.string() + ": cannot be read");
    std::vector<Case> cases;
    Block block;
    bool is_inside = false;
    std::string line;
    for (std::size_t number = 1; std::getline(in, line); ++number) {
        const auto here = file.string() + ":" + std::to_string(number) + ": ";
        if (is_inside && line == "```") {
            cases.back().blocks.push_back(block);
            is_inside = false;
        } else if (is_inside) {
            block.text += line + "\n";
        } else if (line.starts_with("```")) {
            if (cases.empty()) throw std::runtime_error(here + "a block before the first \"## \" heading");
            block = {line.substr(3), "", number};
            is_inside = true;
        } else if (line.starts_with("## ")) {
            cases.push_back({file, line.substr(3), {}, number});
        }
    }
    if (is_inside)
        throw std::runtime_error(file.string() + ":" + std::to_string(block.line) + ": the block is not closed");
    return cases;
}

std::vector<std::filesystem::path> case_files(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
        const auto& path = entry.path();
        const auto room = path.parent_path() == folder ? std::filesystem::path{} : path.parent_path().filename();
        if (path.extension() == ".md" && path.filename() != "README.md" && room != "given" && room != "known")
            files.push_back(path);
    }
    std::ranges::sort(files);
    return files;
}

}  // namespace gmgate::test
