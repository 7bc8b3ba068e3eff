#include "base/journal.h"

#include <sys/stat.h>

#include <charconv>
#include <cstdint>
#include <string_view>

namespace gmgate {

bool is_journal_stream(const char* variable, int descriptor) {
    if (variable == nullptr) return false;
    const std::string_view text = variable;
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) return false;
    std::uint64_t device = 0, inode = 0;
    const auto read = [](std::string_view digits, std::uint64_t& out) {
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
        return error == std::errc{} && end == digits.data() + digits.size();
    };
    if (!read(text.substr(0, colon), device) || !read(text.substr(colon + 1), inode)) return false;
    struct stat found {};
    return fstat(descriptor, &found) == 0 && found.st_dev == device && found.st_ino == inode;
}

}  // namespace gmgate
