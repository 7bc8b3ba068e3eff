#include "lab/recorder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <utility>

#include "lab/esp_sa.h"
#include "lab/pcapng.h"

namespace gmgate::lab {
namespace {

// SPIs that nobody knows, from whomever, cost one look at the kernel in this time and no more.
constexpr std::chrono::milliseconds kBetweenLooks{20};
constexpr std::size_t kLongestBlock = 1 << 20;
constexpr std::chrono::seconds kWait{2};
constexpr std::size_t kMostWaiting = 256 << 20;  // octets; beyond them the oldest do not wait

constexpr std::string_view kComment =
    "Recorded on a gateway with [lab] export-keys = true. The file holds secrets of TLS sessions; the table esp_sa, beside "
    "it, opens its ESP: Preferences, Protocols, ESP, attempt to decode encrypted payloads.";
constexpr std::string_view kWithoutIv =
    "AES-GMAC: the eight octets of IV are left out here, because Wireshark does not know the algorithm; the payload is "
    "clear, the tag cannot be checked";

}  // namespace

SecretFile::SecretFile(SecretFile&& other) noexcept
    : file_(std::exchange(other.file_, -1)), path_(std::move(other.path_)) {}

SecretFile::~SecretFile() {
    if (file_ >= 0) close(file_);
}

Result<SecretFile> SecretFile::open(const std::string& path) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0) return system_failure(Reaction::refused, path + ": cannot be written", errno);
    if (fchmod(file, 0600) != 0) {
        const int why = errno;
        close(file);
        return system_failure(Reaction::refused, path + ": cannot be kept from others", why);
    }
    return SecretFile(file, path);
}

Result<void> SecretFile::write(std::string_view bytes) {
    while (!bytes.empty()) {
        const auto put = ::write(file_, bytes.data(), bytes.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return system_failure(Reaction::broken, path_ + ": cannot be written", errno);
        bytes.remove_prefix(static_cast<std::size_t>(put));
    }
    return {};
}

Result<Recorder> Recorder::begin(Settings settings, SecretFile table, SecretFile capture) {
    Recorder recorder(std::move(settings), std::move(table), std::move(capture));
    if (auto ok = recorder.capture_.write(pcapng_begin("gmgate-export-keys " GMGATE_VERSION, kComment)); !ok)
        return std::unexpected(ok.error());
    if (auto ok = recorder.look(); !ok) return std::unexpected(ok.error());
    return recorder;
}

Result<void> Recorder::look() {
    looked_ = std::chrono::steady_clock::now();
    const auto all = xfrm::read_sa_keys(settings_.reqid);
    if (!all) return std::unexpected(all.error());
    for (const auto& keys : *all) {
        auto line = esp_sa_line(keys);
        known_.insert_or_assign(keys.id, keys.pair);
        if (std::ranges::find(lines_, line) != lines_.end()) continue;
        if (auto ok = table_.write(line); !ok) return ok;
        lines_.push_back(std::move(line));
    }
    return {};
}

// An SA is in the kernel before its first packet; one that is still not known is somebody else's.
Result<void> Recorder::look_for(const xfrm::SaId& sa) {
    if (known_.contains(sa) || std::chrono::steady_clock::now() - looked_ < kBetweenLooks) return {};
    return look();
}

Result<void> Recorder::copy_tls_secrets() {
    struct stat status {};
    if (stat(settings_.tls_key_log.c_str(), &status) != 0) return {};
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size < tls_read_) tls_read_ = 0;  // begun anew
    if (size == tls_read_) return {};
    std::ifstream file(settings_.tls_key_log, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(tls_read_));
    std::string lines(std::min<std::size_t>(size - tls_read_, kLongestBlock), '\0');
    file.read(lines.data(), static_cast<std::streamsize>(lines.size()));
    lines.resize(static_cast<std::size_t>(file.gcount()));
    lines.resize(lines.rfind('\n') + 1);  // npos + 1: there is no whole line yet
    tls_read_ += lines.size();
    return lines.empty() ? Result<void>{} : capture_.write(pcapng_tls_secrets(lines));
}

Result<void> Recorder::take(const AccessCapture::Packet& packet) {
    if (packet.ip.esp)
        if (auto ok = look_for(packet.ip.sa); !ok) return ok;
    const auto known = packet.ip.esp ? known_.find(packet.ip.sa) : known_.end();
    const bool is_gmac = known != known_.end() && known->second.alg == Alg::aes_gmac;
    const auto bytes = is_gmac ? without_gmac_iv(packet.ip, packet.bytes) : packet.bytes;
    ++packets_;
    auto block =
        pcapng_packet({packet.nanoseconds, packet.is_outward, bytes, is_gmac ? kWithoutIv : std::string_view{}});
    octets_ += block.size();
    waiting_.push_back({std::chrono::steady_clock::now(), std::move(block)});
    return write_due();
}

Result<void> Recorder::write_due(bool all) {
    const auto now = std::chrono::steady_clock::now();
    const auto is_due = [&] {
        return !waiting_.empty() && (all || octets_ > kMostWaiting || now - waiting_.front().since >= kWait);
    };
    if (!is_due()) return {};
    if (auto ok = copy_tls_secrets(); !ok) return ok;
    while (is_due()) {
        if (auto ok = capture_.write(waiting_.front().block); !ok) return ok;
        octets_ -= waiting_.front().block.size();
        waiting_.pop_front();
    }
    return {};
}

}  // namespace gmgate::lab
