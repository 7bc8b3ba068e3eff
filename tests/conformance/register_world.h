// A register flow with everything around it replaced or at hand: fake kernel, a clock that stands still, a core that is a UDP socket on
// loopback and answers what it is told. Used by the conformance cases and by the fuzz target; knows no test framework.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/udp.hpp>

#include "daemon/agreement/register_flow.h"
#include "sip/transactions.h"
#include "tests/support/fake_kernel.h"

namespace gmgate::test {

class WorldClock final : public Clock {
public:
    TimePoint now() const override { return now_; }
    std::chrono::system_clock::time_point wall() const override { return std::chrono::system_clock::time_point{now_.time_since_epoch()}; }
    void advance(std::chrono::seconds by) { now_ += by; }

private:
    TimePoint now_{std::chrono::hours{1000}};
};

/// A request as the transaction layer hands it over; keeps what is answered and where the answer goes.
class WorldTransaction final : public sip::ServerTransaction {
public:
    WorldTransaction(sip::OwnedMessage message, const sip::Flow& flow) : message_(std::move(message)), flow_(flow), reply_flow_(flow) {}
    const sip::Message& request() const override { return *message_; }
    const sip::Flow& flow() const override { return flow_; }
    void set_reply_flow(const sip::Flow& flow) override { reply_flow_ = flow; }
    const sip::Flow& reply_flow() const override { return reply_flow_; }
    Result<void> respond(std::string response) override;
    bool is_completed() const override { return !responses.empty(); }
    void on_cancel(std::function<void()>) override {}

    std::vector<std::string> responses;
    std::function<void(WorldTransaction&)> on_respond;  ///< before the response is kept: what holds at that moment
    bool is_done = false;                               ///< the flow has finished with it

private:
    sip::OwnedMessage message_;
    sip::Flow flow_, reply_flow_;
};

class RegisterWorld {
public:
    /// `config` without its core endpoints, which this fills in. `t1` of the core side: a silent core is given up after 64·t1.
    explicit RegisterWorld(daemon::Config config, std::chrono::milliseconds t1 = std::chrono::milliseconds{8});
    ~RegisterWorld();

    /// A configuration with one sip-interface and one profile on 127.0.0.1: UDP and TCP 5060, TLS 5061.
    static daemon::Config usual_config();

    /// Starts a REGISTER; nullptr when the bytes are no SIP message.
    std::shared_ptr<WorldTransaction> start(std::string_view text, const sip::Flow& flow);
    /// Runs until every REGISTER is done, or each that is not waits for a held kernel call.
    void settle();
    std::shared_ptr<WorldTransaction> send(std::string_view text, const sip::Flow& flow);
    /// Lets time pass and ends what has run out.
    void wait(std::chrono::seconds time);

    /// All live sets with their owners, oldest first.
    std::vector<daemon::FlowOwner> owners();
    /// A TLS connection of a phone that is through with its handshake and stays open.
    sip::Flow tls_connection(const Endpoint& phone);
    /// The flow that the kernel would report for a message over this set: UDP, port_uc → port_ps.
    static sip::Flow over(const daemon::SaSet& set);

    /// What the core answers, in order: start line and header lines. An empty text or an empty queue: nothing.
    std::deque<std::string> core_answers;
    std::vector<std::string> core_saw;
    std::function<void(const std::string&)> on_core_request;

    asio::io_context loop;
    WorldClock clock;
    FakeKernel kernel{&clock};
    daemon::Config config;

    struct Parts {
        Parts(RegisterWorld& world, std::chrono::milliseconds t1);
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
    Parts& parts() { return *parts_; }

private:
    void screen(const sip::Flow& flow);
    void connection_ended(const sip::Flow& flow);
    void serve_core();
    void answer_as_core(const std::string& bytes);

    asio::ip::udp::socket core_{loop};
    asio::ip::udp::endpoint from_;
    std::array<char, 65536> buffer_{};
    std::set<std::string> branches_;  ///< of requests that the core has had: retransmissions are not answered twice
    std::unique_ptr<Parts> parts_;
    std::vector<std::shared_ptr<WorldTransaction>> running_;
    std::size_t sweeps_ = 0;
};

}  // namespace gmgate::test
