// What every bench of the register flow stands on: a clock that stands still, a stream on which nothing comes, a
// request as the transaction layer hands it over, and the parts around the flow in the order in which the gateway
// builds them. Knows no test framework.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "daemon/agreement/register_flow.h"
#include "tests/support/fake_kernel.h"
#include "tests/support/still_clock.h"

namespace gmgate::test {

/// Stands for a TLS connection.
class IdleStream final : public sip::ByteStream {
public:
    explicit IdleStream(const asio::any_io_executor& executor)
        : end_(executor, asio::steady_timer::time_point::max()) {}
    Task<Result<std::size_t>> read(std::string&) override {
        asio::error_code cancelled;
        co_await end_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
        co_return failure(Reaction::broken, "closed");
    }
    Task<Result<void>> write(std::string_view) override { co_return Result<void>{}; }
    void close(bool) override { end_.cancel(); }

private:
    asio::steady_timer end_;
};

/// Keeps what is answered, where the answer goes, and whether the transaction was to be forgotten.
class RecordedTransaction final : public sip::ServerTransaction {
public:
    RecordedTransaction(sip::OwnedMessage message, const sip::Flow& flow)
        : message_(std::move(message)), flow_(flow), reply_flow_(flow) {}
    const sip::Message& request() const override { return *message_; }
    const sip::Flow& flow() const override { return flow_; }
    void set_reply_flow(const sip::Flow& flow) override { reply_flow_ = flow; }
    const sip::Flow& reply_flow() const override { return reply_flow_; }
    Result<void> respond(std::string response) override {
        if (on_respond) on_respond(*this);
        responses.push_back(std::move(response));
        return {};
    }
    bool is_completed() const override { return !responses.empty(); }
    std::string tag() const override { return "gateway"; }
    void forget() override { is_forgotten = true; }
    void forget_when_crowded() override { is_forgettable = true; }
    void on_cancel(std::function<void(std::string)>) override {}

    std::vector<std::string> responses;
    std::function<void(RecordedTransaction&)> on_respond;  ///< before the response is kept: what holds at that moment
    bool is_done = false;                                  ///< the flow has finished with it
    bool is_forgotten = false, is_forgettable = false;

private:
    sip::OwnedMessage message_;
    sip::Flow flow_, reply_flow_;
};

/// `config`, `kernel`, `clock`, `loop` and `budget` outlive it; no budget: no bound. Transactions towards the core are
/// given up after 64·t1.
struct RegisterTestParts {
    RegisterTestParts(asio::io_context& loop, const daemon::Config& config, FakeKernel& kernel, const Clock& clock,
                      std::chrono::milliseconds t1, daemon::AuthenticationBudget* budget = nullptr)
        : accesses(config),
          trace(16, 100),
          transports(loop.get_executor(), {}),
          transactions(loop.get_executor(), transports, {},
                       [t1](const sip::Flow&) {
                           return sip::Timers{t1, 4 * t1, 5 * t1};
                       }),
          core(config.core, transports, transactions),
          sets(config, table, kernel, spis, transports, counters, clock),
          expiry(config, table, sets, transports, counters, clock),
          tls_agreements(100, clock),
          flow({config, accesses, table, sets, expiry, tls_agreements, transports, core, trace, counters, clock,
                nullptr, nullptr, budget}) {}
    daemon::Counters counters;
    daemon::AccessMap accesses;
    daemon::Trace trace;
    daemon::Table table;
    xfrm::SpiPool spis;
    sip::Transports transports;
    sip::Transactions transactions;
    daemon::CoreLink core;
    daemon::SaSets sets;
    daemon::Expiry expiry;
    daemon::TlsAgreements tls_agreements;
    daemon::RegisterFlow flow;
};

}  // namespace gmgate::test
