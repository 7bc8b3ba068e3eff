#include "gmctl/configure/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>

namespace gmgate::daemon::configure {
namespace {

class Fd {
public:
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&&) = delete;
    ~Fd() {
        if (fd_ >= 0) close(fd_);
    }
    int get() const { return fd_; }

private:
    int fd_;
};

// The whole text; nothing when there is no such file.
Result<std::pair<std::string, bool>> read_all(const std::string& path) {
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd.get() < 0) {
        if (errno == ENOENT) return std::pair{std::string{}, false};
        return system_failure(Reaction::broken, fmt::format("{}: cannot be read", path), errno);
    }
    std::string text;
    char part[16384];
    for (;;) {
        const auto got = read(fd.get(), part, sizeof part);
        if (got == 0) return std::pair{std::move(text), true};
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return system_failure(Reaction::broken, fmt::format("{}: cannot be read", path), errno);
        text.append(part, static_cast<std::size_t>(got));
    }
}

Result<void> write_all(int fd, std::string_view text, const std::string& path) {
    while (!text.empty()) {
        const auto put = write(fd, text.data(), text.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return system_failure(Reaction::broken, fmt::format("{}: cannot be written", path), errno);
        text.remove_prefix(static_cast<std::size_t>(put));
    }
    if (fsync(fd) != 0) return system_failure(Reaction::broken, fmt::format("{}: cannot be flushed", path), errno);
    return {};
}

}  // namespace

Result<File> File::open(const std::string& path) {
    File file;
    char real[PATH_MAX];
    file.path_ = realpath(path.c_str(), real) ? real : path;
    auto read = read_all(file.path_);
    if (!read) return std::unexpected(read.error());
    file.text_ = std::move(read->first);
    file.exists_ = read->second;
    return file;
}

Result<void> File::replace(const std::string& text) {
    const auto now = read_all(path_);
    if (!now) return std::unexpected(now.error());
    if (now->first != text_ || now->second != exists_)
        return failure(
            Reaction::refused,
            fmt::format("{} was changed by somebody else meanwhile; leave, and begin again with the file as it is now",
                        path_));
    auto beside = path_ + ".XXXXXX";
    const Fd fd(mkostemp(beside.data(), O_CLOEXEC));
    if (fd.get() < 0)
        return system_failure(Reaction::broken, fmt::format("{}: no file can be made beside it", path_), errno);
    const auto give_up = [&](const std::unexpected<Error>& error) -> Result<void> {
        unlink(beside.c_str());
        return error;
    };
    struct stat old {};
    const bool had_one = exists_ && stat(path_.c_str(), &old) == 0;
    if (fchmod(fd.get(), had_one ? old.st_mode & 07777 : 0640) != 0)
        return give_up(system_failure(Reaction::broken, fmt::format("{}: cannot get its mode", beside), errno));
    if (had_one && fchown(fd.get(), old.st_uid, old.st_gid) != 0)
        return give_up(system_failure(Reaction::broken, fmt::format("{}: cannot get its owner", beside), errno));
    if (const auto ok = write_all(fd.get(), text, beside); !ok) return give_up(std::unexpected(ok.error()));
    if (rename(beside.c_str(), path_.c_str()) != 0)
        return give_up(system_failure(Reaction::broken, fmt::format("{}: cannot be replaced", path_), errno));
    const auto slash = path_.find_last_of('/');
    const Fd folder(::open(slash == std::string::npos ? "." : path_.substr(0, slash + 1).c_str(),
                           O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder.get() >= 0) fsync(folder.get());
    text_ = text;
    exists_ = true;
    return {};
}

}  // namespace gmgate::daemon::configure
