#include "framer.h"

#include "text.h"

#include <utility>

namespace gmgate::peers {
namespace {

constexpr std::size_t kMaxHead = 64 * 1024;
constexpr std::size_t kMaxBody = 1024 * 1024;

std::optional<std::size_t> content_length(std::string_view head) {
    while (!head.empty()) {
        const auto end = head.find("\r\n");
        const std::string_view line = head.substr(0, end);
        const auto colon = line.find(':');
        if (colon != std::string_view::npos) {
            const auto name = trim(line.substr(0, colon));
            if (iequals(name, "Content-Length") || iequals(name, "l"))
                return to_number<std::size_t>(trim(line.substr(colon + 1)));
        }
        if (end == std::string_view::npos) break;
        head.remove_prefix(end + 2);
    }
    return std::nullopt;
}

}  // namespace

Result<std::optional<std::string>> StreamFramer::next() {
    while (buffer_.starts_with("\r\n")) {
        const bool ping = buffer_.starts_with("\r\n\r\n");
        if (ping) ++pings_;
        buffer_.erase(0, ping ? 4 : 2);
    }
    const auto head_end = buffer_.find("\r\n\r\n");
    if (head_end == std::string::npos) {
        if (buffer_.size() > kMaxHead) return fail("header section larger than {} octets", kMaxHead);
        return std::optional<std::string>();
    }
    const auto length = content_length(std::string_view(buffer_).substr(0, head_end));
    if (!length) return fail("no Content-Length on a stream");
    if (*length > kMaxBody) return fail("Content-Length {} is too large", *length);
    const std::size_t total = head_end + 4 + *length;
    if (buffer_.size() < total) return std::optional<std::string>();
    std::optional<std::string> out = buffer_.substr(0, total);
    buffer_.erase(0, total);
    return out;
}

int StreamFramer::take_pings() { return std::exchange(pings_, 0); }

}  // namespace gmgate::peers
