#include "daemon/restart/dialog_key.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <optional>

#include "base/random.h"
#include "sip/transport/socket.h"

namespace gmgate::daemon {

namespace {

std::optional<std::uint8_t> nibble(char c) {
    if (c >= '0' && c <= '9') return static_cast<std::uint8_t>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<std::uint8_t>(c - 'a' + 10);
    return std::nullopt;
}

std::optional<SipHashKey> key_of(std::string_view digits) {
    SipHashKey key{};
    if (digits.size() < 2 * key.size()) return std::nullopt;
    for (std::size_t i = 0; i < key.size(); ++i) {
        const auto high = nibble(digits[2 * i]), low = nibble(digits[2 * i + 1]);
        if (!high || !low) return std::nullopt;
        key[i] = static_cast<std::uint8_t>(*high << 4 | *low);
    }
    return key;
}

std::optional<SipHashKey> read_key(const std::string& path) {
    const sip::FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    struct stat status {};
    if (!file.is_open() || ::fstat(file.get(), &status) != 0) return std::nullopt;
    if (!S_ISREG(status.st_mode) || (status.st_mode & 077) != 0)
        return std::nullopt;  // others may know or have written it
    std::array<char, 64> digits{};
    const ssize_t size = ::read(file.get(), digits.data(), digits.size());
    return size > 0 ? key_of({digits.data(), static_cast<std::size_t>(size)}) : std::nullopt;
}

}  // namespace

Result<SipHashKey> kept_dialog_key(const std::string& path, bool& is_new) {
    is_new = false;
    if (const auto known = read_key(path)) return *known;
    is_new = true;
    const std::string digits = random_hex(SipHashKey{}.size()) + "\n";
    const std::string fresh = path + ".new";  // complete, or not there: a process may be killed at any moment
    ::unlink(fresh.c_str());
    const sip::FileDescriptor file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file.is_open()) return system_failure(Reaction::refused, "cannot make " + fresh, errno);
    if (::write(file.get(), digits.data(), digits.size()) != static_cast<ssize_t>(digits.size()))
        return system_failure(Reaction::refused, "cannot write " + fresh, errno);
    if (::rename(fresh.c_str(), path.c_str()) != 0)
        return system_failure(Reaction::refused, "cannot make " + path, errno);
    return *key_of(digits);
}

}  // namespace gmgate::daemon
