#include "line_input.h"

#include "text.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

namespace gmgate::peers {

LineInput::LineInput(Loop& loop, Line line, End end) : line_(std::move(line)), end_(std::move(end)) {
    try {
        watch_ = loop.watch(STDIN_FILENO, [this](Loop::Ready) {
            if (!read_some()) watch_.stop();
        });
    } catch (const std::system_error&) {  // a regular file cannot be watched, but it can be read at once
        while (read_some()) {}
    }
}

bool LineInput::read_some() {
    std::array<char, 4096> buffer{};
    const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (got <= 0) {
        end_();
        return false;
    }
    pending_.append(buffer.data(), static_cast<std::size_t>(got));
    for (auto at = pending_.find('\n'); at != std::string::npos; at = pending_.find('\n')) {
        std::string line(trim(std::string_view(pending_).substr(0, at)));
        pending_.erase(0, at + 1);
        line_(std::move(line));
    }
    return true;
}

}  // namespace gmgate::peers
