// How a phone is reached over its SAs (TS 33.203 §7.1, B-15) — never in any other way (C-71, H-8).
#include <cerrno>

#include "base/log.h"
#include "daemon/proxy/router.h"

namespace gmgate::daemon {

namespace {

constexpr std::size_t kDatagramLimit = 1300;  // RFC 3261 §18.1.1; and fragmented ESP dies in radio networks

UePath datagram_path(const SaSet& set) {
    UePath path;
    path.flow.transport = sip::Transport::udp;
    path.flow.local = set.gateway_client();  // SA2: port_pc → port_us
    path.flow.remote = set.ue_server();
    path.via_host = set.gateway_server().to_string();
    path.set = set.number;
    return path;
}

UePath stream_path(const SaSet& set, const sip::Flow& connection) {
    UePath path = datagram_path(set);
    path.flow = connection;
    return path;
}

}  // namespace

Task<Result<UePath>> Router::path_to_ue(std::string token, std::size_t octets, bool udp_only) {
    constexpr int kRounds = 3;  // the set may change while a connection is being opened
    for (int round = 0; round < kRounds; ++round) {
        const Registration* registration = table_.find_by_token(token);
        if (registration != nullptr) {
            const auto ours = registration->reached_at();
            if (ours && table_.is_suspended(ours->address))
                co_return failure(Reaction::refused,
                                  "our address " + ours->address.to_string() + " is not there at the moment");
        }
        if (registration != nullptr && registration->tls) {  // B-93: the UE's own connection, and nothing else
            if (!transports_.is_open(registration->tls->flow.connection))
                co_return failure(Reaction::refused, "the TLS connection has ended");
            UePath path;
            path.flow = registration->tls->flow;
            path.via_host = path.flow.local.to_string();
            co_return path;
        }
        const SaSet* set = registration != nullptr ? registration->outbound() : nullptr;
        if (set == nullptr || set->state == SetState::temporary)
            co_return failure(Reaction::refused, "the registration has no set of SAs");
        const bool wants_stream =
            !udp_only && (registration->transport == sip::Transport::tcp || octets > kDatagramLimit);
        if (!wants_stream) co_return datagram_path(*set);

        // The phone's own connection, or one of ours from before.
        if (const auto theirs = transports_.find_connection(set->gateway_server(), set->ue_client()))
            co_return stream_path(*set, *theirs);
        if (const auto ours = transports_.find_connection(set->gateway_client(), set->ue_server()))
            co_return stream_path(*set, *ours);

        const SetNumber number = set->number;
        const Result<sip::Flow> opened = co_await connector_.connect(set->gateway_client(), set->ue_server());

        registration = table_.find_by_token(token);
        set = registration != nullptr ? registration->outbound() : nullptr;
        if (set != nullptr && set->number == number) {
            if (opened) co_return stream_path(*set, *opened);
            co_return datagram_path(*set);  // the phone does not answer the SYN: UDP, fragmented if need be
        }
        if (opened) transports_.close(opened->connection, true);  // its SAs are no longer the ones in use
    }
    co_return failure(Reaction::retry, "the set of SAs kept changing");
}

Task<std::optional<sip::Flow>> Router::other_way_to_ue(std::string token) {
    const Registration* registration = table_.find_by_token(token);
    const SaSet* set = registration != nullptr ? registration->outbound() : nullptr;
    if (set == nullptr) co_return std::nullopt;  // TLS: with the connection the registration has ended
    if (const auto theirs = transports_.find_connection(set->gateway_server(), set->ue_client())) co_return *theirs;
    if (const auto ours = transports_.find_connection(set->gateway_client(), set->ue_server())) co_return *ours;
    const Result<sip::Flow> opened = co_await connector_.connect(set->gateway_client(), set->ue_server());
    if (opened) co_return *opened;
    // A phone listens at port_us as long as it lives (B-15). Refused: it has gone. Anything else may be the radio's
    // fault, and it may come back.
    if (opened.error().code == ECONNREFUSED) co_return std::nullopt;
    registration = table_.find_by_token(token);
    set = registration != nullptr ? registration->outbound() : nullptr;
    if (set == nullptr) co_return std::nullopt;
    co_return datagram_path(*set).flow;
}

Task<bool> Router::aim_at_ue(std::shared_ptr<sip::ServerTransaction> transaction, std::string token) {
    const bool is_stream = sip::is_reliable(transaction->flow().transport);
    // B-15: on the same connection, while its set lives. A phone that has ended its sending side may have closed it
    // altogether: over SAs one of ours is the safer way (RFC 3261 §18.2.2), over TLS there is no other.
    const sip::Flow& came = transaction->flow();
    const bool is_there = came.transport == sip::Transport::tls ? transports_.can_answer(came.connection)
                                                                : transports_.is_open(came.connection);
    if (is_stream && is_there) {
        const FlowOwner owner = table_.owner_of(transaction->flow());
        if (owner.registration != nullptr && owner.registration->token == token) {
            transaction->set_reply_flow(transaction->flow());
            co_return true;
        }
    }
    const std::size_t octets =
        is_stream ? kDatagramLimit + 1 : 0;  // a lost connection is replaced by one of ours (RFC 3261 §18.2.2)
    const Result<UePath> path = co_await path_to_ue(token, octets, !is_stream);
    if (!path) {
        counters_.add(Counter::no_set);
        log::info("proxy-no-way-back",
                  {{"peer", transaction->flow().remote.to_string()}, {"reason", path.error().text}});
        co_return false;
    }
    transaction->set_reply_flow(path->flow);
    co_return true;
}

}  // namespace gmgate::daemon
