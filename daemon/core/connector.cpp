#include "daemon/core/connector.h"

#include <cerrno>

#include <asio/redirect_error.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "daemon/tls/connector.h"

namespace gmgate::daemon {

namespace {
constexpr std::chrono::milliseconds kConnectTimeout{
    4000};  // long enough for one lost SYN, short enough to try UDP in time
}

Task<Result<sip::Flow>> Connector::connect(Endpoint local, Endpoint remote, sip::Transport transport,
                                           std::string tls_name, unsigned lane) {
    const std::tuple ends(local, remote, tls_name, lane);
    if (const auto under_way = attempts_.find(ends); under_way != attempts_.end()) {
        const std::shared_ptr<Attempt> attempt = under_way->second;
        std::error_code cancelled;
        while (!attempt->outcome)
            co_await attempt->done.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
        co_return *attempt->outcome;
    }
    const auto attempt = std::make_shared<Attempt>(co_await asio::this_coro::executor);
    attempts_[ends] = attempt;
    Result<sip::Flow> flow = co_await connect_alone(local, remote, transport, std::move(tls_name));
    attempts_.erase(ends);
    attempt->outcome = flow;
    attempt->done.cancel();
    co_return flow;
}

Task<Result<sip::Flow>> Connector::connect_alone(Endpoint local, Endpoint remote, sip::Transport transport,
                                                 std::string tls_name) {
    const SilentPeers::Ends ends{local, remote};
    if (!silent_.may_try(ends))
        co_return failure(Reaction::broken, "no connection: " + remote.to_string() + " did not answer lately",
                          ETIMEDOUT);
    Result<sip::Flow> flow = co_await open(local, remote, transport, std::move(tls_name));
    const int code = flow ? 0 : flow.error().code;
    if (code == ETIMEDOUT || code == EHOSTUNREACH) silent_.silent(ends);
    else if (flow || code == ECONNREFUSED) silent_.heard(ends);
    co_return flow;
}

Task<Result<sip::Flow>> Connector::open(Endpoint local, Endpoint remote, sip::Transport transport,
                                        std::string tls_name) {
    if (transport == sip::Transport::tls) {
        if (!tls_) co_return failure(Reaction::broken, "TLS is not set up");
        co_return co_await tls_->connect(local, remote, std::move(tls_name), kConnectTimeout);
    }
    Result<sip::Flow> flow = co_await transports_.connect_tcp(local, remote, kConnectTimeout);
    if (flow) {
        transports_.keep_open(flow->connection, true);
    } else {
        log::info("tcp-connect-failed",
                  {{"local", local.to_string()}, {"remote", remote.to_string()}, {"reason", flow.error().text}});
        if (flow.error().reaction != Reaction::exhausted) flow.error().reaction = Reaction::broken;
    }
    co_return flow;
}

}  // namespace gmgate::daemon
