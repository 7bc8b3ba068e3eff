// A TLS connection after its handshake, in the shape that the SIP layer wants of a byte stream.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/step_mark.h"
#include "base/task.h"
#include "ktls/key_schedule.h"
#include "ktls/types.h"

namespace gmgate::ktls {

class Session;

/// Two backends: the kernel does the TLS and this is little more than a socket, or OpenSSL does. One read and one write
/// may be pending at a time; the owner keeps the connection alive until both have ended. One thread, that of the
/// executor.
class Connection {
public:
    virtual ~Connection() = default;
    /// Appends some bytes to `out`; 0 bytes = the peer has ended (close_notify, or TCP's end, which is counted as
    /// truncated). Never 0 for another reason. Errors are Reaction::broken.
    virtual Task<Result<std::size_t>> read(std::string& out) = 0;
    virtual Task<Result<void>> write(std::string_view bytes) = 0;
    /// Writes what can be written without waiting and tells how much that was. What is left must be what the next write
    /// begins with. Never called while a write() is pending.
    virtual std::size_t write_now(std::string_view bytes) = 0;
    /// Ends our sending side: close_notify, then FIN. False: the connection is closed.
    virtual bool half_close() = 0;
    /// Ends pending reads and writes with an error, which they see in a later turn of the loop. `reset`: RST at once
    /// and nothing else; otherwise close_notify (if none was sent) and FIN.
    virtual void close(bool reset) = 0;
    /// Whether the kernel encrypts and decrypts.
    virtual bool is_kernel() const = 0;
    virtual SessionInfo info() const = 0;
    /// To look at (SO_MARK, tls_info) or to hand to the next process; stays the connection's.
    virtual int native_handle() const = 0;
    /// Set before bytes are taken from the socket; only for a connection in the kernel, which is the only kind that can
    /// be handed over.
    virtual void set_step_mark(StepMark) {}
};

/// A socket whose TLS is in the kernel in both directions, of this process or inherited from the one before. Counters
/// are shared with the connections, which may outlive whoever made them. With the secrets a KeyUpdate is followed,
/// without them (after a restart) it ends the connection in order.
Result<std::unique_ptr<Connection>> make_kernel_connection(const asio::any_io_executor& executor, OwnedFd socket,
                                                           SessionInfo info, std::shared_ptr<Counters> counters,
                                                           std::unique_ptr<TrafficSecrets> for_rekey = nullptr);
/// A finished handshake that OpenSSL carries on.
Result<std::unique_ptr<Connection>> make_user_connection(const asio::any_io_executor& executor, OwnedFd socket,
                                                         std::unique_ptr<Session> session,
                                                         std::shared_ptr<Counters> counters);

}  // namespace gmgate::ktls
