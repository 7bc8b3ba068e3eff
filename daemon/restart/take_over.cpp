#include "daemon/restart/take_over.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include <asio/posix/stream_descriptor.hpp>

#include "base/log.h"
#include "base/rights.h"
#include "base/umask.h"

namespace gmgate::daemon {
namespace {

constexpr std::string_view kAsk = "gmgate take-over 1", kEnd = "end", kDone = "done", kNo = "no ";
constexpr std::size_t kNameLimit = 256;

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return failure(Reaction::refused, path + " is too long for a unix socket");
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

void limit_waiting(int fd, std::chrono::milliseconds patience) {
    const timeval time{patience.count() / 1000, (patience.count() % 1000) * 1000};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

/// Only root and our own user may have the sockets.
Result<void> check_peer(int fd) {
    ucred peer{};
    socklen_t length = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return system_failure(Reaction::refused, "the other process does not say who it is", errno);
    if (peer.uid != 0 && peer.uid != ::geteuid())
        return failure(Reaction::refused,
                       "process " + std::to_string(peer.pid) + " belongs to user " + std::to_string(peer.uid));
    return {};
}

/// One packet: a text, and with it a descriptor or none.
Result<void> send_packet(int channel, std::string_view text, int descriptor) {
    if (const int why = send_with_descriptor(channel, text, descriptor); why != 0)
        return system_failure(Reaction::broken, "the other process takes nothing", why);
    return {};
}

struct Packet {
    std::string text;
    sip::FileDescriptor descriptor;
};

Result<Packet> receive_packet(int channel) {
    Packet packet;
    packet.text.resize(kNameLimit);
    const auto got = receive_with_descriptor(channel, packet.text.data(), packet.text.size());
    if (got.size < 0) return system_failure(Reaction::broken, "the other process says nothing", errno);
    packet.descriptor = sip::FileDescriptor(got.descriptor);
    if (got.size == 0) return failure(Reaction::broken, "the other process ended");
    packet.text.resize(static_cast<std::size_t>(got.size));
    return packet;
}

}  // namespace

struct TakeOverServer::State : std::enable_shared_from_this<TakeOverServer::State> {
    State(const asio::any_io_executor& executor, std::string p, std::chrono::milliseconds t, Parts r)
        : listener(executor), path(std::move(p)), patience(t), parts(std::move(r)) {}

    void wait() {
        listener.async_wait(
            asio::posix::descriptor_base::wait_read, [self = shared_from_this()](const asio::error_code& error) {
                if (error || !self->listener.is_open()) return;
                const sip::FileDescriptor channel(
                    ::accept4(self->listener.native_handle(), nullptr, nullptr, SOCK_CLOEXEC));
                if (channel.is_open()) {
                    const auto given = self->give(channel.get());
                    if (given) return self->parts.handed_over();
                    log::warning("take-over-failed", {{"reason", given.error().text}, {"why", "this process goes on"}});
                }
                self->wait();
            });
    }

    Result<void> give(int channel) {
        // A process that only connects must not hold up the loop: the one word that begins it comes with the
        // connection.
        limit_waiting(channel, std::chrono::milliseconds{500});
        if (auto ok = check_peer(channel); !ok) return ok;
        const auto asked = receive_packet(channel);
        if (!asked) return std::unexpected(asked.error());
        if (asked->text != kAsk) return failure(Reaction::reject, "it does not speak our version of the take-over");
        limit_waiting(channel, patience);
        log::notice("take-over-begins", {{"why", "another gmgated asked for our sockets"}});
        if (auto ok = parts.prepare(); !ok) {
            static_cast<void>(
                send_packet(channel, std::string(kNo) + ok.error().text.substr(0, kNameLimit - kNo.size()), -1));
            return ok;
        }
        for (const auto& one : parts.holdings())
            if (auto ok = send_packet(channel, one.name, one.descriptor); !ok) return ok;
        if (auto ok = send_packet(channel, kEnd, -1); !ok) return ok;
        const auto answer = receive_packet(channel);
        if (!answer) return std::unexpected(answer.error());
        if (answer->text != kDone) return failure(Reaction::reject, "it said neither that it serves nor why not");
        return {};
    }

    asio::posix::stream_descriptor listener;
    std::string path;
    std::chrono::milliseconds patience;
    Parts parts;
};

TakeOverServer::TakeOverServer(asio::any_io_executor executor, std::string path, std::chrono::milliseconds patience,
                               Parts parts)
    : state_(std::make_shared<State>(executor, std::move(path), patience, std::move(parts))) {}

TakeOverServer::~TakeOverServer() {
    asio::error_code ignored;
    state_->listener.close(ignored);  // the path stays: the next process may have bound it already
}

Result<void> TakeOverServer::open() {
    const auto address = address_of(state_->path);
    if (!address) return std::unexpected(address.error());
    std::error_code ignored;
    const auto folder = std::filesystem::path(state_->path).parent_path();
    if (!std::filesystem::exists(folder, ignored)) {
        std::filesystem::create_directories(folder, ignored);
        std::filesystem::permissions(folder, std::filesystem::perms::owner_all, ignored);
    }
    sip::FileDescriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    ::unlink(state_->path.c_str());
    const auto bind_as_owner = [&] {  // nobody else can connect before the mode is right
        const Umask only_owner(0177);
        return ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0;
    };
    if (!socket.is_open() || !bind_as_owner() || ::chmod(state_->path.c_str(), 0600) != 0 ||
        ::listen(socket.get(), 1) != 0)
        return system_failure(Reaction::refused, "cannot listen at [restart] take-over-socket " + state_->path, errno);
    asio::error_code error;
    state_->listener.assign(socket.release(), error);
    if (error) return system_failure(Reaction::refused, "cannot watch " + state_->path, error.value());
    state_->wait();
    return {};
}

Result<TakeOver> TakeOver::ask(const std::string& path, std::chrono::milliseconds patience) {
    const auto address = address_of(path);
    if (!address) return std::unexpected(address.error());
    TakeOver taken;
    taken.channel_ = sip::FileDescriptor(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const int channel = taken.channel_.get();
    limit_waiting(channel, patience);
    if (::connect(channel, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
        return system_failure(Reaction::broken, "no gmgated answers at " + path, errno);
    if (auto ok = check_peer(channel); !ok) return std::unexpected(ok.error());
    if (auto ok = send_packet(channel, kAsk, -1); !ok) return std::unexpected(ok.error());
    for (;;) {
        auto packet = receive_packet(channel);
        if (!packet) return std::unexpected(packet.error());
        if (packet->text == kEnd) return taken;
        if (packet->text.starts_with(kNo))
            return failure(Reaction::refused, "the running gmgated refuses: " + packet->text.substr(kNo.size()));
        taken.inheritance.take(packet->text, std::move(packet->descriptor));
    }
}

Result<void> TakeOver::done() { return send_packet(channel_.get(), kDone, -1); }

}  // namespace gmgate::daemon
