#include "ktls/handshake.h"

#include <algorithm>
#include <csignal>
#include <optional>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/thread_pool.hpp>
#include <asio/use_awaitable.hpp>

#include "ktls/handoff.h"
#include "ktls/session.h"

namespace gmgate::ktls {
namespace {

/// One turn of a handshake on a pool thread. It stands in the coroutine's frame, which nobody else touches meanwhile.
struct Step {
    Session* session = nullptr;
    int fd = -1;
    bool try_kernel = false;
    bool keep_secrets = false;
    TrafficSecrets secrets;
    Progress progress = Progress::failed;
    Result<bool> in_kernel = false;

    void run() {
        progress = session->handshake();
        if (progress == Progress::done && try_kernel)
            in_kernel = hand_off(*session, fd, keep_secrets ? &secrets : nullptr);
    }
};

/// Runs the step on the pool and resumes the caller on its own executor.
template <class Token>
auto async_run(asio::thread_pool& pool, Step& step, Token&& token) {
    return asio::async_initiate<Token, void()>(
        [&pool, &step](auto handler) {
            auto loop = asio::prefer(asio::get_associated_executor(handler), asio::execution::outstanding_work.tracked);
            asio::post(pool, [&step, handler = std::move(handler), loop = std::move(loop)]() mutable {
                step.run();
                asio::post(loop, std::move(handler));
            });
        },
        token);
}

/// Ends the wait of a handshake when its time is up. Shared with the timer's handler, which may run late.
struct Deadline {
    explicit Deadline(asio::posix::stream_descriptor* d) : descriptor(d) {}
    asio::posix::stream_descriptor* descriptor;  // null once the handshake is over
    bool expired = false;
};

void tune(int fd, std::chrono::milliseconds user_timeout) {
    const int on = 1;
    // Before the handshake: with kernel TLS OpenSSL 3.0 flushes before ChangeCipherSpec, and Nagle's algorithm would
    // cost 50 ms.
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const auto timeout = static_cast<unsigned>(user_timeout.count());
    ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

Reaction reaction_to(HandshakeFailure failure) {
    switch (failure) {
        case HandshakeFailure::kernel:
            return Reaction::refused;
        case HandshakeFailure::internal:
            return Reaction::internal;
        case HandshakeFailure::timed_out:
        case HandshakeFailure::peer_closed:
            return Reaction::broken;
        default:
            return Reaction::reject;
    }
}

}  // namespace

struct Handshaker::Impl {
    asio::any_io_executor loop;
    KernelTls mode = KernelTls::preferred;
    bool use_kernel = false;
    std::chrono::milliseconds user_timeout{};
    std::string no_kernel_reason;
    bool rekey = false;
    std::string no_rekey_reason;
    std::size_t in_progress = 0;
    std::shared_ptr<Counters> counters = std::make_shared<Counters>();
    std::unique_ptr<asio::thread_pool> pool;

    std::unexpected<Error> fail(HandshakeFailure reason, const std::string& text) {
        ++counters->handshakes_failed[static_cast<std::size_t>(reason)];
        return failure(reaction_to(reason), std::string(to_string(reason)) + ": " + text);
    }
    Result<Established> establish(asio::posix::stream_descriptor& descriptor, std::unique_ptr<Session> session,
                                  Step& step);
};

// What comes of a handshake that is done: a connection that the kernel carries, or this process.
Result<Established> Handshaker::Impl::establish(asio::posix::stream_descriptor& descriptor,
                                                std::unique_ptr<Session> session, Step& step) {
    if (!step.in_kernel) return fail(HandshakeFailure::kernel, step.in_kernel.error().text);
    if (!*step.in_kernel && mode == KernelTls::required)
        return fail(HandshakeFailure::kernel,
                    "the kernel cannot carry this connection (max_fragment_length?), and kernel TLS is required");
    Established out;
    out.info = session->info();
    out.suite = session->suite();
    out.server_name = session->server_name();
    auto connection =
        *step.in_kernel
            ? make_kernel_connection(
                  loop, OwnedFd(descriptor.release()), out.info, counters,
                  step.secrets.send.empty() ? nullptr : std::make_unique<TrafficSecrets>(std::move(step.secrets)))
            : make_user_connection(loop, OwnedFd(descriptor.release()), std::move(session), counters);
    if (!connection) return fail(HandshakeFailure::internal, connection.error().text);
    out.connection = std::move(*connection);
    ++counters->handshakes_ok;
    if (out.info.resumed) ++counters->resumed;
    if (*step.in_kernel) ++counters->handed_to_kernel;
    else if (mode != KernelTls::off) ++counters->fallback;
    return out;
}

Result<Handshaker> Handshaker::make(asio::any_io_executor loop, HandshakerOptions options) {
    auto impl = std::make_shared<Impl>();
    impl->loop = std::move(loop);
    impl->mode = options.kernel;
    impl->user_timeout = options.user_timeout;
    if (options.kernel == KernelTls::off) {
        impl->no_kernel_reason = "kernel TLS is off";
    } else if (auto available = ktls_available(); available) {
        impl->use_kernel = true;
    } else if (options.kernel == KernelTls::required) {
        return std::unexpected(std::move(available.error()));
    } else {
        impl->no_kernel_reason = std::move(available.error().text);
    }
    if (options.rekey && impl->use_kernel) {
        auto possible = rekey_available();
        impl->rekey = possible.has_value();
        if (!possible) impl->no_rekey_reason = std::move(possible.error().text);
    }
    // OpenSSL writes with write(2): a peer that is gone would end the process.
    struct sigaction current {};
    if (::sigaction(SIGPIPE, nullptr, &current) == 0 && current.sa_handler == SIG_DFL) std::signal(SIGPIPE, SIG_IGN);
    impl->pool = std::make_unique<asio::thread_pool>(std::max(1U, options.threads));
    return Handshaker(std::move(impl));
}

Handshaker::Handshaker(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Handshaker::Handshaker(Handshaker&&) noexcept = default;

Handshaker::~Handshaker() {
    if (!impl_) return;
    impl_->pool->stop();
    impl_->pool->join();
    const auto pool =
        std::move(impl_->pool);  // steps that were still queued, and their coroutines, go with it, on this thread
}

bool Handshaker::uses_kernel() const { return impl_->use_kernel; }
const std::string& Handshaker::no_kernel_reason() const { return impl_->no_kernel_reason; }
bool Handshaker::can_rekey() const { return impl_->rekey; }
const std::string& Handshaker::no_rekey_reason() const { return impl_->no_rekey_reason; }
std::size_t Handshaker::in_progress() const { return impl_->in_progress; }
const Counters& Handshaker::counters() const { return *impl_->counters; }
std::shared_ptr<Counters> Handshaker::shared_counters() const { return impl_->counters; }

Task<Result<Established>> Handshaker::accept(OwnedFd socket, Context context, std::chrono::milliseconds limit) {
    return run(impl_, std::move(socket), std::move(context), Role::server, limit);
}

Task<Result<Established>> Handshaker::connect(OwnedFd socket, Context context, std::chrono::milliseconds limit) {
    return run(impl_, std::move(socket), std::move(context), Role::client, limit);
}

Task<Result<Established>> Handshaker::run(std::shared_ptr<Impl> impl, OwnedFd socket, Context context, Role role,
                                          std::chrono::milliseconds limit) {
    struct InProgress {
        explicit InProgress(Impl* i) : impl(i) { ++impl->in_progress; }
        InProgress(const InProgress&) = delete;
        ~InProgress() { --impl->in_progress; }
        Impl* impl;
    } const counted(impl.get());

    tune(socket.get(), impl->user_timeout);
    asio::posix::stream_descriptor descriptor(impl->loop);
    asio::error_code error;
    descriptor.assign(socket.get(), error);
    if (error) co_return impl->fail(HandshakeFailure::internal, "cannot watch the socket: " + error.message());
    const int fd = socket.release();
    auto made = Session::make(context.state(), fd, role, impl->use_kernel);
    if (!made) co_return impl->fail(HandshakeFailure::internal, made.error().text);
    auto session = std::move(*made);

    const auto deadline = std::make_shared<Deadline>(&descriptor);
    asio::steady_timer timer(impl->loop, limit);
    timer.async_wait([deadline](const asio::error_code& stopped) {
        if (stopped) return;
        deadline->expired = true;
        asio::error_code ignored;
        if (deadline->descriptor != nullptr) deadline->descriptor->cancel(ignored);
    });
    struct Over {
        ~Over() { deadline->descriptor = nullptr; }
        Deadline* deadline;
    } const over{deadline.get()};

    Step step;
    step.session = session.get();
    step.fd = fd;
    step.try_kernel = impl->use_kernel;
    step.keep_secrets = impl->rekey;
    for (;;) {
        if (!impl->pool) co_return impl->fail(HandshakeFailure::internal, "TLS is shutting down");
        co_await async_run(*impl->pool, step, asio::use_awaitable);
        if (step.progress != Progress::want_read && step.progress != Progress::want_write) break;
        const auto what = step.progress == Progress::want_read ? asio::posix::descriptor_base::wait_read
                                                               : asio::posix::descriptor_base::wait_write;
        if (!deadline->expired) co_await descriptor.async_wait(what, asio::redirect_error(asio::use_awaitable, error));
        if (deadline->expired)
            co_return impl->fail(HandshakeFailure::timed_out,
                                 "no handshake within " + std::to_string(limit.count()) + " ms");
        if (error) co_return impl->fail(HandshakeFailure::peer_closed, error.message());
    }
    if (step.progress != Progress::done) co_return impl->fail(session->failure_reason(), session->failure_text());
    deadline->descriptor = nullptr;
    co_return impl->establish(descriptor, std::move(session), step);
}

}  // namespace gmgate::ktls
