// One OpenSSL connection on a non-blocking socket, without any waiting: steps that say what they wait for.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "ktls/context_state.h"
#include "ktls/key_schedule.h"
#include "ktls/types.h"

namespace gmgate::ktls {

/// What a call left to wait for.
enum class Progress : std::uint8_t {
    done,
    want_read,
    want_write,
    ended,   ///< close_notify, or end of the TCP stream (see truncated())
    failed,  ///< see failure_reason(), failure_text()
};

/// Used by one thread at a time; it may move between threads.
class Session {
public:
    /// `fd` is connected and non-blocking and stays the caller's. `kernel`: OpenSSL shall install in the kernel what it
    /// can.
    static Result<std::unique_ptr<Session>> make(std::shared_ptr<const Context::State> state, int fd, Role role,
                                                 bool kernel);

    Progress handshake();
    /// Reads up to `size` bytes; `count` is how many (0 unless done).
    Progress read(char* to, std::size_t size, std::size_t& count);
    /// Writes some; after want_… the same bytes (more may follow them) must be offered again.
    Progress write(std::string_view bytes, std::size_t& count);
    /// Sends close_notify as far as the socket takes it.
    void shut_down();
    /// Makes the session free-able without its resumption being lost: nothing is sent (ssl_sess.c:
    /// ssl_clear_bad_session).
    void retire();

    bool has_pending() const;
    bool truncated() const { return truncated_; }
    bool decrypt_failed() const { return decrypt_failed_; }
    HandshakeFailure failure_reason() const { return reason_; }
    const std::string& failure_text() const { return text_; }
    SessionInfo info() const;
    /// The suite's OpenSSL name, and the name the client asked for ("" without SNI).
    std::string suite() const;
    std::string server_name() const;
    /// The traffic secrets, TLS 1.3 with the kernel only; taken out and gone from here.
    TrafficSecrets take_secrets() { return std::move(kept_.secrets); }
    ssl_st* native() const { return ssl_.get(); }
    Role role() const { return kept_.role; }

private:
    Progress judge(int result);
    void explain();
    bool peer_is_right();

    std::shared_ptr<const Context::State> state_;
    SslPtr ssl_;
    KeptSecret kept_;
    HandshakeFailure reason_ = HandshakeFailure::internal;
    bool truncated_ = false;
    bool decrypt_failed_ = false;
    std::string text_;
};

}  // namespace gmgate::ktls
