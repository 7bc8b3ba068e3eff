// What an HSS decides over Cx (TS 29.228): who may register, at which S-CSCF, with which challenge and which profile.
#pragma once

#include "dictionary.h"

#include "../common/message_log.h"
#include "../gmcore/users.h"

#include <map>
#include <set>
#include <string>

namespace gmgate::peers {

/// Where an IMS subscription stands. Private identities with the same first public identity are one subscription.
struct Subscription {
    std::string server_name;           ///< SIP URI of the S-CSCF; empty: none is assigned
    std::string server_host;           ///< its Diameter identity, to which RTR and PPR go
    std::set<std::string> registered;  ///< private identities that are registered
    bool is_unregistered = false;      ///< an S-CSCF serves it although nobody is registered
    [[nodiscard]] bool is_registered() const { return !registered.empty(); }
};

class CxServer {
public:
    struct Options {
        std::string application_server;  ///< SIP URI: every profile has a filter that sends it a third-party REGISTER
    };

    /// `users` and `log` outlive it. No key and no vector is logged.
    CxServer(UserStore& users, MessageLog& log, Options options)
        : users_(users), log_(log), options_(std::move(options)) {}

    /// UAR, MAR, SAR or LIR; COMMAND_UNSUPPORTED for anything else.
    [[nodiscard]] diameter::Message handle(const diameter::Message& request);

    /// A request towards the S-CSCF, and to whom it goes.
    struct Outgoing {
        std::string host;
        diameter::Message message;
    };
    /// Registration-Termination-Request for all public identities of one private identity (TS 29.228 §6.1.3); an error
    /// when it is unknown or has no S-CSCF. `reason`: Reason-Code of TS 29.229 §6.3.17, 0 is PERMANENT_TERMINATION.
    [[nodiscard]] Result<Outgoing> terminate(const std::string& impi, std::uint32_t reason);
    /// The S-CSCF has taken the RTR: nobody of the subscription is registered there any more.
    void terminated(const std::string& impi);
    /// Push-Profile-Request with the user's profile as it is now (TS 29.228 §6.2.1).
    [[nodiscard]] Result<Outgoing> push(const std::string& impi);

    [[nodiscard]] const Subscription& subscription_of(const User& user) { return subscriptions_[user.impus.front()]; }

private:
    /// One request and what becomes of its answer.
    struct Case {
        const diameter::Message& request;
        diameter::Message answer;
        User* user;
        std::string impi;
        std::string impu;
        diameter::ResultCode result;
        std::string why;
    };
    void authorize(Case& c);
    void authenticate(Case& c);
    void assign(Case& c);
    void locate(Case& c);
    /// False, with the result set, when the identities are not known or do not belong together.
    [[nodiscard]] bool identify(Case& c);
    [[nodiscard]] bool identify_assigned(Case& c);
    /// False, with the result set, when one of these is missing.
    [[nodiscard]] bool demand(Case& c, std::initializer_list<diameter::AvpName> names);
    [[nodiscard]] bool resynchronise(Case& c, const diameter::AvpList& item);
    void add_aka_items(Case& c, std::uint32_t count);
    void add_digest_item(Case& c);
    void finish(Case& c, std::string_view command);
    [[nodiscard]] Result<Outgoing> to_server_of(const std::string& impi, std::uint32_t command);
    [[nodiscard]] Subscription& subscription(const User& user) { return subscriptions_[user.impus.front()]; }
    [[nodiscard]] std::string profile_of(const User& user) const;

    UserStore& users_;
    MessageLog& log_;
    Options options_;
    std::map<std::string, Subscription> subscriptions_;  ///< by first public identity
};

/// The IMSSubscription document of TS 29.228 Annex E: one service profile with these public identities, and a filter
/// that sends REGISTERs to `application_server` unless that is empty.
[[nodiscard]] std::string profile_document(const std::string& impi, const std::vector<std::string>& impus,
                                           const std::string& application_server);

}  // namespace gmgate::peers
