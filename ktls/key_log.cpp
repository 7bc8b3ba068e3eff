#include "ktls/key_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "base/secret.h"

namespace gmgate::ktls {
namespace {

constexpr off_t kLargest = 64 << 20;

std::atomic<int> g_file{-1};  // lives as long as the process

}  // namespace

Result<void> log_keys_to(const std::string& path) {
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0) return system_failure(Reaction::reject, path + ": no file for TLS secrets can be made there", errno);
    struct stat status {};
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || fchmod(file, 0600) != 0) {
        close(file);
        return failure(Reaction::reject, path + " is no file of ours for TLS secrets: name another one");
    }
    if (const int before = g_file.exchange(file); before >= 0) close(before);
    return {};
}

// One write for a line, so that threads and a second process do not mix theirs.
void log_key_line(std::string_view line) {
    const int file = g_file;
    if (file < 0) return;
    struct stat status {};
    if (fstat(file, &status) != 0 || status.st_size > kLargest) return;
    std::string whole(line);
    whole += '\n';
    [[maybe_unused]] const auto written = write(file, whole.data(), whole.size());
    wipe(whole.data(), whole.size());
}

}  // namespace gmgate::ktls
