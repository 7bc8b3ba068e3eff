#include "gmctl/configure/difference.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include <fmt/format.h>

namespace gmgate::daemon::configure {
namespace {

constexpr std::size_t kAround = 3;

struct Line {
    char mark;  // ' ', '-', '+'
    std::string_view text;
};

std::vector<std::string_view> views_of_lines(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        lines.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
}

// By the longest common subsequence; a configuration has some hundred lines.
std::vector<Line> compared(const std::vector<std::string_view>& before, const std::vector<std::string_view>& after) {
    const auto width = after.size() + 1;
    std::vector<std::uint32_t> common((before.size() + 1) * width, 0);
    for (auto i = before.size(); i-- > 0;)
        for (auto j = after.size(); j-- > 0;)
            common[i * width + j] = before[i] == after[j]
                                        ? common[(i + 1) * width + j + 1] + 1
                                        : std::max(common[(i + 1) * width + j], common[i * width + j + 1]);
    std::vector<Line> out;
    std::size_t i = 0, j = 0;
    while (i < before.size() || j < after.size()) {
        if (i < before.size() && j < after.size() && before[i] == after[j]) {
            out.push_back({' ', before[i++]});
            ++j;
        } else if (j == after.size() ||
                   (i < before.size() && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
            out.push_back({'-', before[i++]});
        } else {
            out.push_back({'+', after[j++]});
        }
    }
    return out;
}

}  // namespace

std::string difference(std::string_view before, std::string_view after, std::string_view name) {
    const auto lines = compared(views_of_lines(before), views_of_lines(after));
    std::string out;
    std::size_t old_line = 1, new_line = 1, at = 0;
    const auto pass = [&](std::size_t to) {
        for (; at < to; ++at) {
            old_line += lines[at].mark != '+';
            new_line += lines[at].mark != '-';
        }
    };
    while (at < lines.size()) {
        auto first = at;
        while (first < lines.size() && lines[first].mark == ' ') ++first;
        if (first == lines.size()) break;
        auto end = first + 1;  // behind the last change that has the one before it within reach
        for (auto next = end; next < lines.size() && next <= end + 2 * kAround; ++next)
            if (lines[next].mark != ' ') end = next + 1;
        const auto begin = std::max(at, first - std::min(first, kAround));
        const auto last = std::min(lines.size(), end + kAround);
        pass(begin);
        const auto old_begin = old_line, new_begin = new_line;
        std::string body;
        for (auto one = begin; one < last; ++one) body += fmt::format("{}{}\n", lines[one].mark, lines[one].text);
        pass(last);
        if (out.empty()) out = fmt::format("--- {0}\n+++ {0}\n", name);
        const auto olds = old_line - old_begin, news = new_line - new_begin;
        // Where there are no lines, the line before is named.
        out +=
            fmt::format("@@ -{},{} +{},{} @@\n{}", old_begin - (olds == 0), olds, new_begin - (news == 0), news, body);
    }
    return out;
}

}  // namespace gmgate::daemon::configure
