// A register flow with everything around it replaced or at hand: fake kernel, a clock that stands still, a core that is
// a UDP socket on loopback and answers what it is told. Used by the conformance cases and by the fuzz target; knows no
// test framework.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/ip/udp.hpp>

#include "tests/support/register_parts.h"

namespace gmgate::test {

class RegisterWorld {
public:
    /// `config` without its core endpoints, which this fills in. `t1` of the core side: a silent core is given up after
    /// 64·t1.
    explicit RegisterWorld(daemon::Config config, std::chrono::milliseconds t1 = std::chrono::milliseconds{8});
    ~RegisterWorld();

    /// A configuration with one sip-interface and one profile on 127.0.0.1: UDP and TCP 5060, TLS 5061.
    static daemon::Config usual_config();

    /// Starts a REGISTER; nullptr when the bytes are no SIP message.
    std::shared_ptr<RecordedTransaction> start(std::string_view text, const sip::Flow& flow);
    /// Runs until every REGISTER is done, or each that is not waits for a held kernel call.
    void settle();
    std::shared_ptr<RecordedTransaction> send(std::string_view text, const sip::Flow& flow);
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
    StillClock clock;
    FakeKernel kernel{&clock};
    daemon::Config config;

    using Parts = RegisterTestParts;
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
    std::vector<std::shared_ptr<RecordedTransaction>> running_;
    std::size_t sweeps_ = 0;
};

}  // namespace gmgate::test
