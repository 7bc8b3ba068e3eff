// TCP as byte streams: connections that are accepted and connections that are opened from a fixed port.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <asio/any_io_executor.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>

#include "sip/transport/socket.h"
#include "sip/transport/transport.h"

namespace gmgate::sip {

/// A connected TCP socket. Idle it costs no buffer: bytes are read into one scratch area of the thread, which is wiped
/// after use. One read and one write may be pending at a time; the owner keeps the stream alive until both have ended.
class TcpStream final : public ByteStream {
public:
    /// Takes a connected, non-blocking socket.
    static Result<std::unique_ptr<TcpStream>> make(const asio::any_io_executor& executor, FileDescriptor socket);
    /// Connects from exactly `local` (port 0: any) to `remote`. broken: refused, timed out, four-tuple occupied.
    static Task<Result<std::unique_ptr<TcpStream>>> connect(asio::any_io_executor executor, Endpoint local,
                                                            Endpoint remote, std::chrono::milliseconds timeout,
                                                            std::chrono::milliseconds user_timeout);

    Task<Result<std::size_t>> read(std::string& out) override;
    Task<Result<void>> write(std::string_view bytes) override;
    std::size_t write_now(std::string_view bytes) override;
    bool half_close() override;
    void close(bool reset) override;
    int native_handle() const override {
        return const_cast<asio::posix::stream_descriptor&>(descriptor_).native_handle();
    }
    void set_step_mark(StepMark mark) override { mark_ = mark; }
    Endpoint local() const { return local_; }
    /// Gives the connected socket away, to be carried by somebody else (TLS). Nothing may be pending.
    FileDescriptor release() { return FileDescriptor(descriptor_.release()); }

    explicit TcpStream(const asio::any_io_executor& executor) : descriptor_(executor) {}

private:
    asio::posix::stream_descriptor descriptor_;
    Endpoint local_;
    StepMark mark_;
};

/// A listening socket. shared_ptr because a wait in flight must find it after everyone else let go of it.
class TcpListener : public std::enable_shared_from_this<TcpListener> {
public:
    /// `mark` is the mark of the SYN (tcp_fwmark_accept), 0 without.
    using AcceptHandler = std::function<void(FileDescriptor socket, const Endpoint& remote, Mark mark)>;

    /// `inherited`: a listening socket at `local` of the process before; not open: a new one is made.
    static Result<std::shared_ptr<TcpListener>> open(const asio::any_io_executor& executor, const Endpoint& local,
                                                     FileDescriptor inherited = {});
    /// Begins to accept; sockets are handed over non-blocking and close-on-exec.
    void start(AcceptHandler handler);
    void close();
    const Endpoint& local() const { return local_; }
    int native_handle() { return descriptor_.native_handle(); }

    explicit TcpListener(const asio::any_io_executor& executor) : descriptor_(executor), pause_(executor) {}

private:
    void wait_readable();
    /// False when the process or the system is out of descriptors or memory: pause, or the loop would spin.
    bool accept_some();

    asio::posix::stream_descriptor descriptor_;
    asio::steady_timer pause_;
    Endpoint local_;
    AcceptHandler handler_;
};

}  // namespace gmgate::sip
