#include "daemon/operate/hep.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <utility>

#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include <fmt/format.h>

#include "base/log.h"
#include "base/spawn.h"
#include "daemon/observe/header_lines.h"

namespace gmgate::daemon {
namespace {

// Chunk types of vendor 0 (HEP3 specification, table of generic chunks).
enum Chunk : std::uint16_t {
    kFamily = 1,
    kProtocol = 2,
    kSource4 = 3,
    kDestination4 = 4,
    kSource6 = 5,
    kDestination6 = 6,
    kSourcePort = 7,
    kDestinationPort = 8,
    kSeconds = 9,
    kMicroseconds = 10,
    kPayloadType = 11,
    kCaptureId = 12,
    kAuthKey = 14,
    kPayload = 15,
    kCorrelation = 17
};
constexpr std::uint8_t kSip = 1;

void put(std::string& out, std::uint64_t value, int octets) {
    for (int i = octets - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
}

void chunk(std::string& out, Chunk type, std::string_view value) {
    put(out, 0, 2);
    put(out, type, 2);
    put(out, 6 + value.size(), 2);
    out += value;
}

void number(std::string& out, Chunk type, std::uint64_t value, int octets) {
    std::string bytes;
    put(bytes, value, octets);
    chunk(out, type, bytes);
}

}  // namespace

std::string hep_packet(const TracedMessage& message, const HepLabels& labels, std::string_view correlation) {
    const bool is_v6 = message.source.address.is_v6();
    const auto address = [](const Endpoint& end) {
        return std::string_view(reinterpret_cast<const char*>(end.address.bytes().data()), end.address.size());
    };
    const auto since = std::chrono::duration_cast<std::chrono::microseconds>(message.time.time_since_epoch()).count();
    std::string body;
    number(body, kFamily, is_v6 ? AF_INET6 : AF_INET, 1);
    number(body, kProtocol, message.transport == sip::Transport::udp ? IPPROTO_UDP : IPPROTO_TCP, 1);
    chunk(body, is_v6 ? kSource6 : kSource4, address(message.source));
    chunk(body, is_v6 ? kDestination6 : kDestination4, address(message.destination));
    number(body, kSourcePort, message.source.port.value, 2);
    number(body, kDestinationPort, message.destination.port.value, 2);
    number(body, kSeconds, static_cast<std::uint64_t>(since / 1'000'000), 4);
    number(body, kMicroseconds, static_cast<std::uint64_t>(since % 1'000'000), 4);
    number(body, kPayloadType, kSip, 1);
    number(body, kCaptureId, labels.capture_id, 4);
    if (!labels.auth_key.empty()) chunk(body, kAuthKey, labels.auth_key);
    if (correlation.empty()) correlation = message.impi.value;
    if (!correlation.empty()) chunk(body, kCorrelation, correlation);
    constexpr std::size_t kMost = 65000;  // of a UDP datagram
    if (body.size() + message.bytes.size() + 12 > kMost) return {};
    chunk(body, kPayload, message.bytes);
    std::string packet = "HEP3";
    put(packet, 6 + body.size(), 2);
    return packet + body;
}

namespace {

/// The value of icid-value in a P-Charging-Vector, quoted or not; empty: it has none that makes sense.
std::string_view icid_in(std::string_view vector) {
    constexpr std::size_t kMost = 256;
    for (std::size_t at = 0; at < vector.size();) {
        auto end = std::min(vector.find(';', at), vector.size());
        auto parameter = vector.substr(at, end - at);
        at = end + 1;
        while (!parameter.empty() && parameter.front() == ' ') parameter.remove_prefix(1);
        constexpr std::string_view kName = "icid-value";
        if (parameter.size() <= kName.size() ||
            !std::ranges::equal(parameter.substr(0, kName.size()), kName, {}, lower_case))
            continue;
        auto value = parameter.substr(kName.size());
        while (!value.empty() && (value.front() == ' ' || value.front() == '=' || value.front() == '"'))
            value.remove_prefix(1);
        value = value.substr(0, value.find_first_of("\" "));
        return value.size() <= kMost ? value : std::string_view{};
    }
    return {};
}

}  // namespace

std::string_view IcidMap::of(std::string_view bytes) {
    std::string_view call_id, icid;
    for_each_header_line(bytes, [&](std::string_view line) {
        if (const auto id = field_value(line, "call-id")) call_id = *id;
        else if (const auto compact = field_value(line, "i")) call_id = *compact;
        else if (const auto vector = field_value(line, "p-charging-vector")) icid = icid_in(*vector);
        return true;
    });
    if (call_id.empty() || call_id.size() > 256) return icid;
    const auto known = icids_.find(std::string(call_id));
    if (known != icids_.end()) {
        if (!icid.empty()) known->second = icid;
        return known->second;
    }
    if (icid.empty()) return {};
    order_.emplace_back(call_id);
    if (order_.size() > most_) {
        icids_.erase(order_.front());
        order_.pop_front();
    }
    return icids_.emplace(call_id, icid).first->second;
}

Result<std::string> read_auth_key(const std::string& path) {
    std::ifstream file(path);
    if (!file) return system_failure(Reaction::refused, fmt::format("hep-auth-key-file {}", path), errno);
    std::string key;
    std::getline(file, key);
    while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.pop_back();
    if (key.empty() || key.size() > 256)
        return failure(Reaction::refused,
                       fmt::format("hep-auth-key-file {}: its first line must have 1 to 256 octets", path));
    return key;
}

/// What the coroutine that writes needs, and who gives it packets.
struct HepSender::Stream {
    Stream(const asio::any_io_executor& on, Connect how) : executor(on), connect(std::move(how)), wake(on) {}
    asio::any_io_executor executor;
    Connect connect;
    asio::steady_timer wake;
    std::deque<std::string> packets;
    std::size_t octets = 0;
    std::uint64_t sent = 0, dropped = 0;
    bool is_connected = false, is_over = false;

    bool put(std::string packet) {
        if (octets + packet.size() > kQueue) return false;
        octets += packet.size();
        packets.push_back(std::move(packet));
        if (packets.size() == 1) wake.cancel();
        return true;
    }
    /// So many packets at once that a system call is worth it.
    std::string take(std::uint64_t& count) {
        constexpr std::size_t kMost = 65536;
        std::string batch;
        for (count = 0; !packets.empty() && (count == 0 || batch.size() + packets.front().size() <= kMost); ++count) {
            octets -= packets.front().size();
            batch += packets.front();
            packets.pop_front();
        }
        return batch;
    }
    Task<void> pause(std::chrono::seconds time) {
        wake.expires_after(time);
        asio::error_code ignored;
        co_await wake.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
};

namespace {

/// A collector says nothing; what is read is the end of the stream.
struct Line {
    std::unique_ptr<sip::ByteStream> stream;
    bool has_ended = false;
};

Task<void> watch_end(std::shared_ptr<Line> line, std::function<void()> ended) {
    std::string ignored;
    for (;;) {
        ignored.clear();
        const auto count = co_await line->stream->read(ignored);
        if (!count || *count == 0) break;
    }
    line->has_ended = true;
    ended();
}

}  // namespace

Task<void> HepSender::run(std::shared_ptr<Stream> own) {
    constexpr std::chrono::seconds kSecond{1}, kLongest{30};
    std::chrono::seconds pause{1};
    while (!own->is_over) {
        auto stream = co_await own->connect();
        if (!stream) {
            log::warning("hep-not-connected", {{"why", stream.error().text}, {"again-in", pause.count()}});
            const auto until = std::chrono::steady_clock::now() + pause;
            while (!own->is_over && std::chrono::steady_clock::now() < until)  // each packet wakes
                co_await own->pause(kSecond);
            pause = std::min(2 * pause, kLongest);
            continue;
        }
        pause = std::chrono::seconds{1};
        log::notice("hep-connected", {{"waiting", own->packets.size()}});
        own->is_connected = true;
        auto line = std::make_shared<Line>();
        line->stream = std::move(*stream);
        spawn(own->executor, watch_end(line, [own] { own->wake.cancel(); }), "hep-read");
        while (!own->is_over && !line->has_ended) {
            if (own->packets.empty()) {
                co_await own->pause(kLongest);
                continue;
            }
            std::uint64_t count = 0;
            const std::string batch = own->take(count);
            const auto written = co_await line->stream->write(batch);
            (written ? own->sent : own->dropped) += count;
            if (!written) break;
        }
        own->is_connected = false;
        line->stream->close(false);
        if (!own->is_over) log::warning("hep-disconnected", {{"waiting", own->packets.size()}});
        if (!own->is_over) co_await own->pause(kSecond);
    }
}

Result<HepSender> HepSender::open(const Endpoint& collector, HepLabels labels) {
    HepSender sender(socket(collector.address.af(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), std::move(labels));
    sockaddr_storage to{};
    const auto length = collector.to_sockaddr(to);
    if (sender.fd_ < 0 || connect(sender.fd_, reinterpret_cast<const sockaddr*>(&to), length) != 0)
        return system_failure(Reaction::broken, fmt::format("hep-collector {}", collector.to_string()), errno);
    return sender;
}

HepSender HepSender::over(const asio::any_io_executor& executor, HepLabels labels, Connect connect) {
    HepSender sender(-1, std::move(labels));
    sender.stream_ = std::make_shared<Stream>(executor, std::move(connect));
    spawn(executor, run(sender.stream_), "hep");
    return sender;
}

HepSender::HepSender(HepSender&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      labels_(std::move(other.labels_)),
      icids_(std::move(other.icids_)),
      sent_(other.sent_),
      dropped_(other.dropped_),
      stream_(std::move(other.stream_)) {}

HepSender::~HepSender() {
    if (fd_ >= 0) close(fd_);
    if (!stream_) return;
    stream_->is_over = true;
    stream_->wake.cancel();
}

void HepSender::send(const TracedMessage& message) {
    auto packet = hep_packet(message, labels_, icids_.of(message.bytes));
    if (stream_) {
        if (packet.empty() || !stream_->put(std::move(packet))) ++dropped_;
        return;
    }
    const bool taken = !packet.empty() && ::send(fd_, packet.data(), packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
                                              static_cast<ssize_t>(packet.size());
    ++(taken ? sent_ : dropped_);
}

HepNumbers HepSender::numbers() const {
    if (!stream_) return {sent_, dropped_, true};
    return {stream_->sent, dropped_ + stream_->dropped, stream_->is_connected};
}

}  // namespace gmgate::daemon
