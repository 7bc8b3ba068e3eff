// READ THIS FIRST: the way of a REGISTER through the gateway, as the specification tells it.
//   parse → check → choose → forward → take ck/ik out → install SAs → answer        (TS 33.203 §7.2, TS 24.229 §5.2.2)
//
// register_flow.cpp is the way itself; register_checks.cpp holds what may stop a REGISTER before the core sees it,
// register_ipsec.cpp and register_tls.cpp what the two mechanisms do with the core's answer, register_same_spis.cpp
// what is different for a phone that comes back with the SPIs that it had before, register_budget.cpp how many
// REGISTERs of strangers the core is asked about.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/keyed_lock.h"
#include "base/task.h"
#include "daemon/agreement/authentication_budget.h"
#include "daemon/agreement/checks.h"
#include "daemon/agreement/mechanism.h"
#include "daemon/config/access.h"
#include "daemon/config/operator_state.h"
#include "daemon/core/core_link.h"
#include "daemon/observe/counters.h"
#include "daemon/observe/trace.h"
#include "daemon/registrations/expiry.h"
#include "daemon/registrations/keeper.h"
#include "daemon/registrations/known_addresses.h"
#include "daemon/registrations/sa_sets.h"
#include "daemon/registrations/table.h"
#include "daemon/registrations/tls_agreements.h"
#include "daemon/rules/own_hosts.h"
#include "daemon/rules/own_names.h"
#include "sip/transaction/transactions.h"

namespace gmgate::daemon {

/// What the flow works with; all outlive it.
struct RegisterParts {
    const Config& config;
    const AccessMap& accesses;
    Table& table;
    SaSets& sets;
    Expiry& expiry;
    TlsAgreements& tls_agreements;
    sip::Transports& transports;
    CoreLink& core;
    Trace& trace;
    Counters& counters;
    const Clock& clock;
    Keeper* keeper = nullptr;                  ///< null: registrations live in memory only
    const OperatorState* operating = nullptr;  ///< null: nothing is drained
    AuthenticationBudget* budget = nullptr;    ///< null: no bound
    const KnownAddresses* known = nullptr;     ///< null: nobody is known
};

/// One coroutine per REGISTER. Two REGISTERs of one phone may interleave at every co_await: what is committed
/// afterwards is looked up again and compared; work on one UE address (401) and on one IMPI (200) is serialised.
class RegisterFlow {
public:
    explicit RegisterFlow(RegisterParts parts) : p_(parts), own_hosts_(own_hosts(parts.config)) {}

    /// Told of each contact that a 200 has made or kept registered.
    void on_registered(std::function<void(const Registration&)> handler) { registered_ = std::move(handler); }

    /// Handles one REGISTER from the access side to its final answer. Never throws.
    Task<void> handle(std::shared_ptr<sip::ServerTransaction> transaction);

private:
    enum class Over { unprotected, temporary, established, tls };

    /// Everything known of one REGISTER while it is handled.
    struct Exchange {
        std::shared_ptr<sip::ServerTransaction> transaction;
        const Access* access = nullptr;
        std::uint64_t arrival = 0;   ///< which of all REGISTERs it is, in the order of their arrival
        bool is_overtaken = false;   ///< a later REGISTER has ended what this one registers, and is answered already
        bool is_superseded = false;  ///< a newer REGISTER of this contact has been challenged meanwhile
        Over over = Over::unprotected;
        SetNumber set;  ///< that carried it, 0: none
        std::optional<xfrm::SetParameters> carried_by;
        std::string sent_security_server;     ///< what its Security-Verify is compared with, if anything
        sip::RequestCredentials credentials;  ///< the one reading of them: what is checked, and what the core gets
        Impi impi;
        Impi sender;  ///< whose SAs or connection carried it, when `impi` is another
        ContactKey contact;
        sip::SecurityList client, verify;
        Policy policy;
        Choice choice;
        bool has_response = false;
        bool has_ended = false;    ///< the set that carried it only waits for retransmissions
        bool is_bound = false;     ///< over the TLS connection bound to its contact
        bool agrees = false;       ///< it mirrors the list of our 494 on a bound connection without an agreement
        bool is_disliked = false;  ///< CoreAttempts::is_disliked()
        std::optional<std::string_view> integrity_protected;
        std::optional<AuthenticationCharge> charge;  ///< by spare_core(); its challenge has it from then on
        std::string token;
        DecisionRecord record;
        std::uint64_t asked = 0;  ///< Trace::core_asked()

        const sip::Message& request() const { return transaction->request(); }
        bool names_impi() const { return !credentials.authorization.username().empty(); }
        const sip::Flow& flow() const { return transaction->flow(); }
        /// The phone's address as its SAs have it outside: behind NAT it may have another one inside.
        Address ue() const { return carried_by ? carried_by->ue : flow().remote.address; }
        ChallengeKey challenge_key() const { return {impi, ue(), is_emergency_contact(contact)}; }
    };

    // ---- register_flow.cpp, in the order of the flow
    Task<void> serve(Exchange& x);
    void fail(Exchange& x, const char* why);
    bool arrive(Exchange& x);
    std::optional<Objection> read(Exchange& x);
    void recognise_contact(Exchange& x);
    const Registration* same_phone(const Exchange& x);
    std::optional<Objection> read_credentials(Exchange& x);
    Task<void> drop_failed_challenge(const Exchange& x);
    Task<Result<sip::OwnedMessage>> ask_core(Exchange& x);
    Task<void> challenge(Exchange& x, sip::OwnedMessage response);
    Task<void> accept(Exchange& x, sip::OwnedMessage response);
    std::chrono::seconds time_granted(const Exchange& x, const sip::Message& response) const;
    void learn(Registration& registration, const Exchange& x, const sip::Message& response,
               std::chrono::seconds expires);
    Registration& registration_for(const Exchange& x);
    Task<void> keep(ContactKey key);
    Task<void> deregister(Exchange& x, const sip::OwnedMessage& response);
    Task<void> serve_what_is_left(Exchange& x, const sip::OwnedMessage& response);
    std::size_t end_identity(Registration& registration, const Exchange& x);
    void overtake_earlier(const Exchange& x);
    void end(Registration& registration);
    void decline(Exchange& x, const sip::OwnedMessage& response);
    void aim_failure(const Exchange& x);
    void object(Exchange& x, const Objection& objection);
    void pass(Exchange& x, const sip::OwnedMessage& response, std::string_view why,
              const std::optional<std::string>& security_server = std::nullopt);
    void answer(Exchange& x, std::string response, int status, std::string_view why);

    // ---- register_checks.cpp
    std::optional<Objection> check(Exchange& x);
    xfrm::Mode mode_for(const Exchange& x) const;
    std::optional<Objection> check_address(const Exchange& x) const;
    std::optional<Objection> check_unprotected(Exchange& x);
    std::optional<Objection> check_without_offer(Exchange& x);
    std::optional<Objection> check_protected(Exchange& x);
    std::optional<Objection> check_proxy_require(const Exchange& x) const;
    Registration* bound_contact(const Exchange& x);
    std::optional<Objection> check_bound_tls(Exchange& x);
    std::optional<Objection> check_bound_lists(Exchange& x, const TlsBinding& binding);
    std::optional<Objection> check_without_agreement(Exchange& x, const TlsBinding& binding);
    std::optional<Objection> check_unbound_tls(Exchange& x);
    std::optional<Objection> check_agreed_lists(Exchange& x, const TlsAgreement& agreement);
    std::optional<Objection> check_after_refusal(Exchange& x);
    std::optional<Objection> check_limits(const Exchange& x) const;
    std::optional<std::string_view> integrity_over_tls(const Exchange& x) const;

    // ---- register_budget.cpp
    std::optional<Objection> spare_core(Exchange& x);
    AuthenticationBudget::Asker asker_of(const Exchange& x) const;
    void give_back_authentication(Exchange& x);

    // ---- register_ipsec.cpp
    Task<void> install_and_challenge(Exchange& x, sip::OwnedMessage response, ChallengeKeys keys);
    const Challenge* first_to_give_way() const;
    Task<void> give_way(const Challenge& oldest, const Exchange& to, const std::string& why);
    Task<std::unique_ptr<SaSet>> make_set(Exchange& x, ChallengeKeys keys);
    void put_challenge(Exchange& x, std::unique_ptr<SaSet> set, const sip::Message& response);
    /// What the contact's new set leaves behind: sets to be removed, and whether an older one stays beside it.
    struct Adopted {
        std::vector<std::unique_ptr<SaSet>> leaving;
        bool is_kept = false;
    };
    Task<bool> settle_spis(Exchange& x);
    Task<std::optional<Adopted>> adopt_set(Exchange& x, TimePoint until);
    Task<void> answer_over(Exchange& x, const sip::OwnedMessage& response, Adopted adopted, std::string_view why);
    Task<void> establish(Exchange& x, const sip::OwnedMessage& response, std::chrono::seconds expires);
    std::vector<std::unique_ptr<SaSet>> settle_sets(Registration& registration, std::unique_ptr<SaSet> fresh,
                                                    std::optional<SetNumber> kept, TimePoint expires);
    std::vector<std::unique_ptr<SaSet>> displace_others(const Registration& registration, const Exchange& x);
    Task<void> refresh(Exchange& x, const sip::OwnedMessage& response, std::chrono::seconds expires);
    void finish_challenge(const Exchange& x);

    // ---- register_same_spis.cpp
    bool is_of(const Impi& impi, SetNumber number) const;
    Task<Result<std::unique_ptr<SaSet>>> install_beside(const Exchange& x, SetWish wish, const ChallengeKeys& keys,
                                                        Error refusal);
    Task<Result<void>> take_spis(SetNumber number);
    std::vector<std::unique_ptr<SaSet>> end_holders(SetNumber newcomer);
    Task<void> await_connection(SetNumber number);

    // ---- register_tls.cpp
    void challenge_tls(Exchange& x, const sip::OwnedMessage& response);
    static TlsBinding refreshed(const TlsBinding& before, const Exchange& x);
    Task<void> bind_tls(Exchange& x, const sip::OwnedMessage& response, std::chrono::seconds expires);
    std::optional<Objection> check_binding(const Exchange& x);
    std::vector<std::unique_ptr<SaSet>> give_up_others(Registration& registration, const Exchange& x);

    RegisterParts p_;
    OwnHosts own_hosts_;
    std::function<void(const Registration&)> registered_;
    std::multimap<std::pair<Impi, Address>, Exchange*> asking_;  ///< the core is being asked; oldest first
    std::uint64_t arrivals_ = 0;
    KeyedLock<Address> address_lock_;
    KeyedLock<Impi> impi_lock_;
};

}  // namespace gmgate::daemon
