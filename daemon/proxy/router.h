// Requests other than REGISTER: from a phone over its SAs to the core, and from the core to a phone over its SAs.
//
// Where to read: from_ue.cpp and to_ue.cpp hold one straight-line coroutine each (receive → check → edit → forward →
// answers back); ue_path.cpp says how a phone is reached (B-15), stray.cpp forwards what belongs to no transaction,
// emergency_calls.cpp is the one way through an unprotected port, router.cpp has what they share.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "daemon/config/config.h"
#include "daemon/core/core_link.h"
#include "daemon/observe/counters.h"
#include "daemon/proxy/emergency.h"
#include "daemon/proxy/open_requests.h"
#include "daemon/registrations/table.h"
#include "daemon/rules/call_rules.h"
#include "daemon/rules/dialogs.h"
#include "daemon/rules/from_ue_checks.h"
#include "daemon/rules/own_hosts.h"
#include "sip/message/edit.h"
#include "sip/transaction/transactions.h"

namespace gmgate::daemon {

/// `rules` with our names on the side from which the request leaves.
inline const ToCore& named(ToCore& rules, const CoreSide& side) {
    rules.via_host = side.via_host;
    rules.core_uri = token_uri(rules.core_user, side.uri_host);
    return rules;
}

/// How to reach a phone over one of its sets: UDP port_pc → port_us, or a TCP connection (B-15).
struct UePath {
    sip::Flow flow;
    std::string via_host;  ///< our sent-by on this leg: the protected server port
    SetNumber set;         ///< the set that it goes over
};

class Router {
public:
    Router(asio::any_io_executor executor, const Config& config, Table& table, CoreLink& core,
           sip::Transports& transports, sip::Transactions& transactions, Counters& counters);

    /// A request over an established or old set. Checks that the user of the set is the user asserted (B-23),
    /// C-60…C-66.
    Task<void> from_ue(std::shared_ptr<sip::ServerTransaction> transaction);
    /// A request from the core: the topmost Route (or Request-URI) carries a token of ours (C-70, C-71).
    Task<void> from_core(std::shared_ptr<sip::ServerTransaction> transaction);
    /// A request other than REGISTER on an unprotected port: rejected, unless it has to do with an emergency (B-19,
    /// G-9, C-80).
    Task<void> unprotected(std::shared_ptr<sip::ServerTransaction> transaction, const SipInterface& interface,
                           std::string security_server);
    /// An emergency request from an unprotected port, on its way to the E-CSCF (C-80…C-84).
    Task<void> emergency(std::shared_ptr<sip::ServerTransaction> transaction);
    /// ACK to 2xx, responses that match no transaction.
    void stray(sip::OwnedMessage message, sip::Flow flow);

    /// The key of the process before, for the marks in Record-Route: its dialogs are known. Before the first request.
    void use_dialog_key(const SipHashKey& key) { dialogs_.use_key(key); }
    /// True for a request with a To tag that belongs to a dialog which passed here: overload lets it through.
    bool is_in_dialog(const sip::Message& request, const sip::Flow& flow) const;
    /// True for a request on a connection that carries an emergency call to which it belongs, whoever has registered
    /// over that connection meanwhile: it goes where its call goes.
    bool is_of_emergency_call(const sip::Message& request, const sip::Flow& flow) const {
        return emergency_.permits_on(request, flow);
    }
    EmergencyDialogs& emergency_dialogs() { return emergency_; }
    const EmergencyDialogs& emergency_dialogs() const { return emergency_; }

private:
    using ResponseEdit = std::function<std::string(const sip::Message&)>;
    /// Points the transaction's reply flow at the phone as it can be reached now; false when it cannot: then nothing
    /// may be sent.
    using Aim = std::function<Task<bool>()>;

    // ---- router.cpp: shared by all directions
    Task<void> guarded(Task<void> work, std::shared_ptr<sip::ServerTransaction> transaction, const char* what);
    /// Answers here; the second form where the request came (the core, an unprotected port), the first over the SAs.
    Task<void> answer(std::shared_ptr<sip::ServerTransaction> transaction, Answer answer, Aim aim);
    Task<void> answer(std::shared_ptr<sip::ServerTransaction> transaction, Answer answer);
    /// Answers on an unprotected port and leaves nothing behind: whoever can send there could fill the table of
    /// transactions otherwise.
    Task<void> refuse_stranger(std::shared_ptr<sip::ServerTransaction> transaction, Answer refusal);
    /// From now on a CANCEL is noticed, also before there is anything to cancel. What a phone may not say in a request
    /// (Resource-Priority) it may not say in a CANCEL.
    static std::shared_ptr<RequestWatch> watch_cancel(sip::ServerTransaction& transaction, Sender sender);
    /// Passes every response back until the transaction has ended; CANCEL and timer C end it early.
    struct Relay {
        std::shared_ptr<sip::ServerTransaction> transaction;
        std::unique_ptr<sip::ClientTransaction> client;
        std::shared_ptr<RequestWatch> watch;
        ResponseEdit edit;
        Aim aim;
        /// Told the first outcome of a try (a response, or why there is none). Gives another try, within the same
        /// server transaction, or nullptr: the outcome stands. Not asked any more when the request has been cancelled.
        std::function<Task<std::unique_ptr<sip::ClientTransaction>>(const Result<sip::OwnedMessage>&)> again;
        bool towards_core = false;  ///< the request went to the core
        std::string
            restoration{};  ///< our URI in the phone's Path, when a 504 is to make it register anew (restoration.h)
        /// Asked when the connection of the request has ended after a provisional response: how the other side can be
        /// reached by now; nullopt: not at all, so no answer will come.
        std::function<Task<std::optional<sip::Flow>>()> other_way;
    };
    Task<void> relay(Relay relay);
    /// What becomes of an outcome: it stands, or the transaction goes on another way, or another one takes its place.
    enum class Outcome { stands, moved, another_try };
    static Task<Outcome> judge(Relay& leg, const Result<sip::OwnedMessage>& outcome, bool& is_first_outcome);
    /// What the other side gets when none of its tries gave a response.
    Task<void> answer_for_silence(Relay& leg, const Error& error);
    /// Passes one response back. Errors are logged: the sender has gone.
    Task<void> pass_back(Relay& leg, const sip::Message& response);
    /// What the other side gets when this leg gave no answer.
    static Answer no_answer(const Error& error, bool towards_core, const RequestWatch& watch);
    /// The relay's `again` for a request to the core: the next target when the last one gave nothing.
    static std::function<Task<std::unique_ptr<sip::ClientTransaction>>(const Result<sip::OwnedMessage>&)> next_target(
        std::shared_ptr<CoreAttempts> attempts);

    // ---- from_ue.cpp
    /// A request from a phone on its way to the core: all of it that is needed once the table may have changed.
    struct FromUe {
        std::shared_ptr<sip::ServerTransaction> transaction;
        std::string token;  ///< of the registration that carried it
        ContactKey key;
        Aim aim{};
        std::shared_ptr<RequestWatch> watch{};
        std::optional<OpenRequests::Entry> entry{};  ///< the phone gone: what it called is cancelled
        ToCore rules{};
        bool is_urgent = false;                    ///< an emergency request: to the E-CSCF
        std::vector<std::string> service_route{};  ///< the stored one
        std::string top_route{};                   ///< where it goes first; empty: to a next hop
    };
    Task<void> handle_from_ue(std::shared_ptr<sip::ServerTransaction> transaction);
    std::optional<Answer> objection_from_ue(const sip::Message& request, const FlowOwner& owner,
                                            const SipInterface* interface, const ToCore& rules) const;
    std::optional<Answer> choose_route(FromUe& way, const Registration& registration, const SipInterface* interface,
                                       const OwnRoute& route);
    /// `way` stands in the frame that waits for it.
    Task<void> forward_from_ue(FromUe& way);
    ToCore rules_from_ue(const sip::Message& request, const sip::Flow& flow, const FlowOwner& owner) const;
    void note_unknown_dialog(const sip::Message& request, const Registration& registration);
    /// OPTIONS is how a phone sees whether we live; nothing else is done here.
    Task<void> answer_for_gateway(std::shared_ptr<sip::ServerTransaction> transaction, Aim aim);

    // ---- to_ue.cpp
    Task<void> handle_from_core(std::shared_ptr<sip::ServerTransaction> transaction);
    Task<void> forward_to_ue(std::shared_ptr<sip::ServerTransaction> transaction, std::string token, std::string user);
    /// How a request of the core is written for that phone, and the answers to it for the core.
    ToUe rules_to_ue(const sip::ServerTransaction& transaction, const Registration& registration,
                     std::string_view token, const UePath& path) const;
    ResponseToCore rules_back(const sip::Message& request, const Registration& registration,
                              std::string_view user) const;

    // ---- ue_path.cpp: looks the registration up anew, before and after every await
    Task<Result<UePath>> path_to_ue(std::string token, std::size_t octets, bool udp_only = false);
    /// Another way to a phone whose connection has ended while it was to answer: its new connection, one of ours that
    /// it accepts, or UDP when it is not known to have gone. nullopt: nobody is there any more.
    Task<std::optional<sip::Flow>> other_way_to_ue(std::string token);
    Task<bool> aim_at_ue(std::shared_ptr<sip::ServerTransaction> transaction, std::string token);

    // ---- stray.cpp
    Task<void> handle_stray(sip::OwnedMessage message, sip::Flow flow);
    /// Counts and logs what came through a door that it may not come through; nobody gets it.
    void drop_stray(const sip::Message& message, const sip::Flow& flow, std::string_view why);
    // Each holds the message itself: it must outlive the awaits.
    Task<void> stray_ack_from_ue(sip::OwnedMessage ack, std::string token);
    Task<void> stray_ack_from_core(sip::OwnedMessage ack, sip::Flow flow);
    Task<void> stray_response_from_ue(sip::OwnedMessage response, sip::Flow flow);
    Task<void> stray_response_from_core(sip::OwnedMessage response, sip::Flow flow);

    // ---- emergency_calls.cpp
    Task<void> handle_emergency(std::shared_ptr<sip::ServerTransaction> transaction);
    std::optional<Answer> admit_emergency(const sip::ServerTransaction& transaction, std::string& token, ToCore& rules);
    std::optional<Answer> enter_emergency(const sip::ServerTransaction& transaction, std::string& token);
    Task<Result<std::vector<Target>>> emergency_targets(std::string token, std::vector<std::string> route);
    void learn_of_emergency(const std::string& token, const sip::Message& response, const std::optional<Target>& from,
                            bool initial);
    ToCore emergency_rules(const sip::Message& request, const sip::Flow& flow, const std::string& token) const;
    Task<void> emergency_from_core(std::shared_ptr<sip::ServerTransaction> transaction, std::string token);
    Task<void> stray_emergency(sip::OwnedMessage message, sip::Flow flow);

    // ---- emergency_revival.cpp
    /// A request of the phone with the mark of its call makes that call known again; nothing else comes of it.
    void revive_from_phone(const sip::Message& request, const sip::Flow& flow);
    /// True when `user`, of our URI on top of a request of the core, names an emergency call: a known one, or one that
    /// its mark makes known again.
    bool is_for_emergency_call(const sip::Message& request, std::string_view user);
    /// A response as the caller gets it, with our Record-Route marked for that.
    std::string emergency_response(const std::string& token, const sip::Message& response) const;

    asio::any_io_executor executor_;
    const Config& config_;
    Table& table_;
    CoreLink& core_;
    sip::Transports& transports_;
    sip::Transactions& transactions_;
    Counters& counters_;
    Clock clock_;
    Connector connector_;
    OwnHosts own_hosts_;
    DialogMarks dialogs_;
    EmergencyDialogs emergency_;
    OpenRequests open_requests_;
};

}  // namespace gmgate::daemon
