#include "ktls/connection.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

#include "base/secret.h"
#include "ktls/kernel_keys.h"
#include "ktls/record_io.h"
#include "ktls/session.h"

namespace gmgate::ktls {
namespace {

using asio::posix::descriptor_base;

constexpr std::size_t kScratch = 65536;  // four records
constexpr std::size_t kRecord = 16384;   // the kernel cuts what is sent into records of this size
/// RFC 8446 §5.5: 2^24.5 full records for AES-GCM; the sender has to stop before.
constexpr std::uint64_t kRecordLimit = 1U << 24;
constexpr int kDiscardedReads = 4;
/// Records in a row that carry nothing for SIP (empty, warnings, tickets); OpenSSL draws its lines at 32 as well.
constexpr unsigned kIdleRecords = 32;

/// One per thread, not per connection: nothing in it survives the call that filled it.
std::array<char, kScratch>& scratch() {
    thread_local std::array<char, kScratch> buffer;
    return buffer;
}

std::unexpected<Error> closed() { return failure(Reaction::broken, "the connection was closed"); }

/// What both backends share: the watched socket, and how it is closed.
class SocketConnection : public Connection {
public:
    SocketConnection(const asio::any_io_executor& executor, SessionInfo info, std::shared_ptr<Counters> counters)
        : descriptor_(executor), info_(info), counters_(std::move(counters)) {}

    Result<void> watch(OwnedFd socket) {
        asio::error_code error;
        descriptor_.assign(socket.get(), error);
        if (error) return system_failure(Reaction::broken, "cannot watch a TLS connection", error.value());
        socket.release();
        return {};
    }
    SessionInfo info() const override { return info_; }
    int native_handle() const override {
        return const_cast<asio::posix::stream_descriptor&>(descriptor_).native_handle();
    }

    bool half_close() override {
        if (!descriptor_.is_open()) return false;
        end_sending();
        return true;
    }
    void close(bool reset) override {
        if (!descriptor_.is_open()) return;
        if (reset) {
            const linger at_once{1, 0};
            ::setsockopt(fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        } else {
            end_sending();
            discard_input();
        }
        asio::error_code ignored;
        descriptor_.close(ignored);
    }

protected:
    /// Sends close_notify as far as the socket takes it.
    virtual void say_goodbye() = 0;
    /// Closing a socket with unread bytes sends RST, which may overtake our last answer.
    virtual void discard_input() = 0;

    int fd() { return descriptor_.native_handle(); }
    bool is_open() const { return descriptor_.is_open(); }
    bool has_ended_sending() const { return sending_ended_; }
    Counters& counters() { return *counters_; }

    Task<bool> ready(descriptor_base::wait_type what) {
        asio::error_code error;
        co_await descriptor_.async_wait(what, asio::redirect_error(asio::use_awaitable, error));
        co_return !error && descriptor_.is_open();
    }
    void end_sending() {
        if (std::exchange(sending_ended_, true)) return;
        say_goodbye();
        finish();
    }
    /// The last word has been said, or there is none: close() sends nothing more.
    void give_up() {
        if (!std::exchange(sending_ended_, true)) finish();
    }

private:
    void finish() {
        // Kernel TLS may still hold records that TCP has no room for, and a FIN would lose them. A writable socket
        // holds none.
        pollfd state{fd(), POLLOUT, 0};
        if (::poll(&state, 1, 0) == 1 && (state.revents & POLLOUT) != 0) ::shutdown(fd(), SHUT_WR);
    }

    asio::posix::stream_descriptor descriptor_;
    SessionInfo info_;
    bool sending_ended_ = false;
    std::shared_ptr<Counters> counters_;
};

class KernelConnection final : public SocketConnection {
public:
    KernelConnection(const asio::any_io_executor& executor, SessionInfo info, std::shared_ptr<Counters> counters,
                     std::unique_ptr<TrafficSecrets> secrets)
        : SocketConnection(executor, info, std::move(counters)), secrets_(std::move(secrets)) {}
    bool is_kernel() const override { return true; }
    void set_step_mark(StepMark mark) override { mark_ = mark; }

    Task<Result<std::size_t>> read(std::string& out) override {
        while (is_open() && !peer_ended_) {
            if (!co_await ready(descriptor_base::wait_read)) co_return closed();
            auto& buffer = scratch();
            const bool was_set = mark_.is_set();
            mark_.set();
            const auto received = receive_records(fd(), buffer);
            if (received.kind == RecordKind::nothing) {  // half a record, if any, is the kernel's
                if (!was_set) mark_.clear();
                continue;
            }
            if (received.kind == RecordKind::data) {
                out.append(buffer.data(), received.size);
                wipe(buffer.data(), received.size);
                idle_records_ = 0;
                co_return received.size;
            }
            if (auto handled = take_control(received); !handled) co_return std::unexpected(std::move(handled.error()));
            if (!was_set && !peer_ended_) mark_.clear();
        }
        if (!is_open()) co_return closed();
        co_return std::size_t{0};
    }

    std::size_t write_now(std::string_view bytes) override {
        std::size_t done = 0;
        while (done < bytes.size() && is_open() && may_send_data()) {
            const auto count = send_data(fd(), bytes.substr(done));
            if (count <= 0) break;  // full, or broken: write() finds out which
            done += static_cast<std::size_t>(count);
            records_sent_ += static_cast<std::size_t>(count) / kRecord + 1;
        }
        return done;
    }

    Task<Result<void>> write(std::string_view bytes) override {
        if (bytes.empty()) co_return Result<void>{};
        while (is_open()) {
            if (!may_send_data()) {
                if (!is_open()) break;
                if (update_due_) {
                    if (!co_await ready(descriptor_base::wait_write)) break;
                    continue;
                }
                ++counters().record_limit;
                end_sending();
                co_return failure(Reaction::broken,
                                  "the TLS key has been used for as many records as it may (RFC 8446 §5.5)");
            }
            const auto count = send_data(fd(), bytes);
            if (count >= 0) {
                records_sent_ += static_cast<std::size_t>(count) / kRecord + 1;
                bytes.remove_prefix(static_cast<std::size_t>(count));
                if (bytes.empty()) co_return Result<void>{};
                continue;
            }
            if (count != -EAGAIN)
                co_return system_failure(Reaction::broken, "the connection failed", static_cast<int>(-count));
            if (!co_await ready(descriptor_base::wait_write)) break;
        }
        co_return closed();
    }

private:
    void say_goodbye() override { send_alert(fd(), Alert::close_notify); }
    void discard_input() override {
        auto& buffer = scratch();
        for (int i = 0; i < kDiscardedReads; ++i)
            if (receive_records(fd(), buffer).kind != RecordKind::data) break;
        wipe(buffer.data(), buffer.size());
    }
    /// RFC 8446 §4.6.3: a KeyUpdate that is due goes out before any further data. False: it could not yet, or the key
    /// is used up.
    bool may_send_data() {
        if (records_sent_ >= kRecordLimit && secrets_) update_due_ = true;
        if (update_due_) return update_sending_keys();
        return records_sent_ < kRecordLimit;
    }
    bool update_sending_keys() {
        if (!send_key_update(fd())) return false;
        update_due_ = false;
        records_sent_ = 0;
        if (rekey(fd(), Direction::send, info().cipher, secrets_->send)) return true;
        close(true);  // the peer expects keys that the kernel does not have: nothing we send could be read
        return false;
    }
    Result<void> follow(bool update_requested) {
        if (auto done = rekey(fd(), Direction::receive, info().cipher, secrets_->receive); !done)
            return refuse(Alert::internal_error, "KeyUpdate: " + done.error().text);
        ++counters().rekeyed;
        if (!update_requested || has_ended_sending()) return {};
        update_due_ = true;  // many requests before there was room for an answer get one answer
        update_sending_keys();
        return {};
    }
    std::unexpected<Error> refuse(Alert alert, std::string text) {
        // A record that does not authenticate leaves an error on the socket, and the kernel sends nothing until
        // somebody has read it (net/tls: tls_err_abort(); net/ipv4/tcp.c looks at sk_err).
        int pending = 0;
        socklen_t size = sizeof pending;
        (void)::getsockopt(fd(), SOL_SOCKET, SO_ERROR, &pending, &size);
        send_alert(fd(), alert);
        give_up();
        return failure(Reaction::broken, std::move(text));
    }

    /// Everything that is no data. An error ends the connection.
    Result<void> take_control(const Received& received) {
        switch (received.kind) {
            case RecordKind::data:
            case RecordKind::nothing:
                return {};
            case RecordKind::empty:
            case RecordKind::warning:
                if (++idle_records_ <= kIdleRecords) return {};
                break;
            case RecordKind::end:
                ++counters().truncated;
                peer_ended_ = true;
                return {};
            case RecordKind::close_notify:
                peer_ended_ = true;
                return {};
            case RecordKind::session_ticket:
                if (info().role == Role::client && ++idle_records_ <= kIdleRecords) return {};
                break;
            case RecordKind::renegotiation:
                // RFC 5246 §7.2.2: a warning is the polite answer; who insists is cut off.
                ++counters().renegotiations_refused;
                if (std::exchange(renegotiation_refused_, true))
                    return refuse(Alert::unexpected_message, "the peer insists on TLS renegotiation");
                send_alert(fd(), Alert::no_renegotiation);
                return {};
            case RecordKind::key_update:
                if (secrets_) {
                    if (++idle_records_ <= kIdleRecords) return follow(received.update_requested);
                    break;
                }
                // The kernel (before 6.14) has one key per direction for good. The peer learns of an orderly end and
                // connects again.
                ++counters().key_updates;
                return refuse(Alert::close_notify,
                              "the peer changed its TLS keys (KeyUpdate), which kernel TLS cannot follow");
            case RecordKind::alert:
                ++counters().alerts_received;
                give_up();
                return failure(Reaction::broken, "the peer ended TLS with alert " +
                                                     std::string(alert_name(received.alert)) + " (" +
                                                     std::to_string(received.alert) + ")");
            case RecordKind::failed:
                give_up();
                return system_failure(Reaction::broken, "the connection failed", received.error);
            case RecordKind::bad_tag:
            case RecordKind::oversized:
            case RecordKind::bad_version:
            case RecordKind::unexpected:
                break;
        }
        return refuse_record(received.kind);
    }

    /// A record that has no place here, with the alert of RFC 8446 §6.2.
    Result<void> refuse_record(RecordKind kind) {
        if (kind == RecordKind::bad_tag) {
            ++counters().decrypt_errors;
            return refuse(Alert::bad_record_mac, "a TLS record failed authentication");
        }
        ++counters().bad_records;
        if (kind == RecordKind::oversized) return refuse(Alert::record_overflow, "a TLS record is larger than 16 KiB");
        if (kind == RecordKind::bad_version)
            return refuse(Alert::protocol_version, "a TLS record has the wrong version or a bad length");
        return refuse(
            Alert::unexpected_message,
            "the peer sent a TLS message that has no place after the handshake, or too many that say nothing");
    }

    bool peer_ended_ = false;
    unsigned idle_records_ = 0;
    bool renegotiation_refused_ = false;
    std::uint64_t records_sent_ = 0;
    std::unique_ptr<TrafficSecrets> secrets_;  ///< with tls-rekey; null: keys are never changed
    bool update_due_ = false;                  ///< our KeyUpdate has to go out before the next data
    StepMark mark_;
};

class UserConnection final : public SocketConnection {
public:
    UserConnection(const asio::any_io_executor& executor, std::unique_ptr<Session> session,
                   std::shared_ptr<Counters> counters)
        : SocketConnection(executor, session->info(), std::move(counters)), session_(std::move(session)) {}
    bool is_kernel() const override { return false; }

    Task<Result<std::size_t>> read(std::string& out) override {
        bool wait = !session_->has_pending();
        auto what = descriptor_base::wait_read;
        while (is_open()) {
            if (wait && last_ != Progress::ended && last_ != Progress::failed && !co_await ready(what))
                co_return closed();
            auto& buffer = scratch();
            std::size_t total = 0, count = 0;
            while (last_ != Progress::ended && last_ != Progress::failed && total < buffer.size()) {
                last_ = session_->read(buffer.data() + total, buffer.size() - total, count);
                total += count;
                if (last_ != Progress::done) break;
            }
            if (total > 0) {
                out.append(buffer.data(), total);
                wipe(buffer.data(), total);
                co_return total;
            }
            if (last_ == Progress::ended) {
                if (session_->truncated() && !std::exchange(truncation_counted_, true)) ++counters().truncated;
                co_return std::size_t{0};
            }
            if (last_ == Progress::failed) co_return broken();
            wait = true;
            what = last_ == Progress::want_write ? descriptor_base::wait_write : descriptor_base::wait_read;
        }
        co_return closed();
    }

    std::size_t write_now(std::string_view bytes) override {
        std::size_t done = 0, count = 0;
        while (done < bytes.size() && is_open() && session_->write(bytes.substr(done), count) == Progress::done)
            done += count;
        return done;
    }

    Task<Result<void>> write(std::string_view bytes) override {
        if (bytes.empty()) co_return Result<void>{};
        while (is_open()) {
            std::size_t count = 0;
            const auto progress = session_->write(bytes, count);
            bytes.remove_prefix(count);
            if (bytes.empty()) co_return Result<void>{};
            if (progress == Progress::failed || progress == Progress::ended) co_return broken();
            if (progress == Progress::done) continue;
            if (!co_await ready(progress == Progress::want_read ? descriptor_base::wait_read
                                                                : descriptor_base::wait_write))
                break;
        }
        co_return closed();
    }

private:
    void say_goodbye() override { session_->shut_down(); }
    void discard_input() override {
        auto& buffer = scratch();
        for (int i = 0; i < kDiscardedReads; ++i)
            if (::recv(fd(), buffer.data(), buffer.size(), MSG_DONTWAIT) <= 0) break;
    }
    std::unexpected<Error> broken() {
        give_up();  // OpenSSL has sent its alert
        if (session_->decrypt_failed()) ++counters().decrypt_errors;
        else if (session_->failure_reason() == HandshakeFailure::peer_alert) ++counters().alerts_received;
        else if (session_->failure_reason() == HandshakeFailure::bad_message ||
                 session_->failure_reason() == HandshakeFailure::not_tls)
            ++counters().bad_records;
        return failure(Reaction::broken, "the TLS connection failed: " + session_->failure_text());
    }

    std::unique_ptr<Session> session_;
    Progress last_ = Progress::done;  ///< of the last read
    bool truncation_counted_ = false;
};

}  // namespace

Result<std::unique_ptr<Connection>> make_kernel_connection(const asio::any_io_executor& executor, OwnedFd socket,
                                                           SessionInfo info, std::shared_ptr<Counters> counters,
                                                           std::unique_ptr<TrafficSecrets> for_rekey) {
    auto connection = std::make_unique<KernelConnection>(executor, info, std::move(counters), std::move(for_rekey));
    if (auto watched = connection->watch(std::move(socket)); !watched)
        return std::unexpected(std::move(watched.error()));
    return connection;
}

Result<std::unique_ptr<Connection>> make_user_connection(const asio::any_io_executor& executor, OwnedFd socket,
                                                         std::unique_ptr<Session> session,
                                                         std::shared_ptr<Counters> counters) {
    auto connection = std::make_unique<UserConnection>(executor, std::move(session), std::move(counters));
    if (auto watched = connection->watch(std::move(socket)); !watched)
        return std::unexpected(std::move(watched.error()));
    return connection;
}

}  // namespace gmgate::ktls
