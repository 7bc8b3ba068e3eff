// Client and server transactions of the phone (RFC 3261 §17), over whatever path the link offers.
#pragma once

#include "../common/task.h"
#include "phone_link.h"

namespace gmgate::peers {

/// How a client transaction ended.
struct Reply {
    std::optional<SipMessage> response;  ///< the final one
    std::string failure;                 ///< "timeout" or what hindered sending, when there is no response
    SipMessage request;                  ///< as sent, with Via
};

class Transactions {
public:
    using OnProvisional = std::function<void(const SipMessage&)>;
    Transactions(Loop& loop, PhoneLink& link, const PhoneConfig& config) : loop_(loop), link_(link), config_(config) {}

    /// Puts a Via with a new branch on top: for who has to know the branch before request() sends.
    void add_via(SipMessage& request, const Path& path) const;
    /// Adds a Via unless there is one, sends, retransmits over UDP, waits for the final response; acknowledges a failed
    /// INVITE.
    [[nodiscard]] Task<Reply> request(SipMessage request, Path path, OnProvisional on_provisional);
    /// Sends an ACK for a 2xx: no transaction, a branch of its own.
    void send_ack(SipMessage ack, Path path);
    /// Gives a response to the transaction that waits for it; false when there is none.
    [[nodiscard]] bool on_response(const SipMessage& response);
    /// The TLS connection ended or never stood: what waits for an answer over it has failed.
    void on_tls_lost(const std::string& why);
    /// Answers a retransmitted request from memory; false when the request is new.
    [[nodiscard]] bool absorb(const Incoming& request);
    /// Sends a response and remembers it for retransmissions.
    void respond(const Incoming& request, const SipMessage& response);
    /// Number of client transactions under way over a set.
    [[nodiscard]] std::size_t pending_on(SetId set) const;

private:
    struct Outcome {
        std::optional<SipMessage> response;
        std::string lost;  ///< why no response can come any more
    };
    struct Waiting {
        Mailbox<Outcome>* box;
        Path path;
    };
    struct Answered {
        std::string text;
        Clock::time_point forget;
    };

    Loop& loop_;
    PhoneLink& link_;
    const PhoneConfig& config_;
    std::map<std::string, Waiting> waiting_;
    std::map<std::string, Answered> answered_;
};

}  // namespace gmgate::peers
