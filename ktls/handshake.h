// Handshakes off the main loop: OpenSSL computes on a few threads, waiting is done on the loop, so half a handshake
// held open costs no thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "ktls/connection.h"
#include "ktls/context.h"
#include "ktls/types.h"

namespace gmgate::ktls {

struct HandshakerOptions {
    KernelTls kernel = KernelTls::preferred;
    unsigned threads = 2;
    /// Follow KeyUpdate on kernel connections of TLS 1.3 where the kernel can (6.14 and later). Both traffic secrets of
    /// such a connection then stay in this process, each in a Secret.
    bool rekey = false;
    std::chrono::milliseconds user_timeout{10000};  ///< TCP_USER_TIMEOUT: how long a peer may be gone unnoticed
};

struct Established {
    std::unique_ptr<Connection> connection;
    SessionInfo info;
    std::string suite;        ///< OpenSSL's name, "TLS_AES_128_GCM_SHA256"
    std::string server_name;  ///< SNI; empty without. From the peer: escape before use.
};

/// Limits per address and in total are the caller's: ask before accept(). Lives on the loop's thread, and ends before
/// the loop does.
class Handshaker {
public:
    /// Tries the kernel once (ktls_available). With KernelTls::required and a kernel that cannot: Reaction::refused
    /// with the fix.
    static Result<Handshaker> make(asio::any_io_executor loop, HandshakerOptions options);
    Handshaker(Handshaker&&) noexcept;
    Handshaker& operator=(Handshaker&&) = delete;
    ~Handshaker();

    /// Server side of a handshake on a connected socket. `limit` is for all of it. The socket is closed on failure; the
    /// error's text begins with the HandshakeFailure and suits a log line.
    Task<Result<Established>> accept(OwnedFd socket, Context context, std::chrono::milliseconds limit);
    /// Client side, with a client context.
    Task<Result<Established>> connect(OwnedFd socket, Context context, std::chrono::milliseconds limit);

    /// Whether finished handshakes go to the kernel; when not, why: the mode is off, or what the kernel lacks.
    bool uses_kernel() const;
    const std::string& no_kernel_reason() const;
    /// Whether KeyUpdate is followed; when not although it was asked for, why.
    bool can_rekey() const;
    const std::string& no_rekey_reason() const;
    /// Handshakes under way, for the caller's limits and metrics.
    std::size_t in_progress() const;
    const Counters& counters() const;
    /// Shared with connections, which may outlive the Handshaker.
    std::shared_ptr<Counters> shared_counters() const;

private:
    struct Impl;
    explicit Handshaker(std::shared_ptr<Impl> impl);
    static Task<Result<Established>> run(std::shared_ptr<Impl> impl, OwnedFd socket, Context context, Role role,
                                         std::chrono::milliseconds limit);
    std::shared_ptr<Impl> impl_;  // shared with handshakes under way, which a shutdown may overtake
};

}  // namespace gmgate::ktls
