// deregister, reload, drain, log-level.
#include "base/log.h"
#include "daemon/operate/operations.h"

namespace gmgate::daemon {

void Operations::add_admin_commands() {
    server_.add("deregister", {Rights::admin, "ends all contacts of an IMPI here: SAs and connections are removed",
                               [this](const Json& arguments, ControlClient&) { return deregister(arguments); }});
    server_.add("drain",
                {Rights::admin, "refuses new registrations, or (off) takes them again",
                 [this](const Json& arguments, ControlClient&) -> Task<Result<Json>> { co_return drain(arguments); }});
    server_.add("log-level", {Rights::admin, "tells or sets from which level on lines are logged",
                              [this](const Json& arguments, ControlClient&) -> Task<Result<Json>> {
                                  co_return log_level(arguments);
                              }});
    server_.add("reload", {Rights::admin,
                           "reads the configuration again and applies what can change without touching registrations",
                           [this](const Json&, ControlClient&) -> Task<Result<Json>> {
                               if (!reload_) co_return failure(Reaction::internal, "this process cannot reload");
                               co_return reload_();
                           }});
}

// The phone and the core are not told: a de-registration by the network is the S-CSCF's (NOTIFY of the reg event). The
// phone learns of it when nothing answers over its SAs, and registers anew.
Task<Result<nlohmann::json>> Operations::deregister(Json arguments) {
    const auto impi = text_argument(arguments, "impi");
    if (!impi) co_return std::unexpected(impi.error());
    std::vector<ChallengeKey> waiting;
    std::function<void(Challenge&)> look = [&waiting, &impi](Challenge& challenge) {
        if (challenge.impi.value == *impi) waiting.push_back(challenge.key());
    };
    co_await p_.table.walk_challenges(std::move(look));
    std::vector<ContactKey> keys;
    for (const auto* registration : p_.table.find_by_impi(Impi{*impi})) keys.push_back(registration->key);
    if (keys.empty() && waiting.empty())
        co_return failure(Reaction::reject, *impi + " is neither registered nor being challenged");
    // Out of the table first, without an await between: from here on nothing is served for them.
    std::vector<std::unique_ptr<SaSet>> leaving;
    std::size_t contacts = 0;
    for (const auto& key : keys) {
        auto registration = p_.table.take(key);
        if (!registration) continue;
        ++contacts;
        if (registration->tls) p_.transports.close(registration->tls->flow.connection, false);
        for (auto& set : registration->sets) leaving.push_back(std::move(set));
    }
    for (const auto& key : waiting)
        if (auto challenge = p_.table.take_challenge(key)) leaving.push_back(std::move(challenge->set));
    const auto sets = leaving.size();
    log::notice("deregistered-by-operator", {{"impi", *impi}, {"contacts", contacts}, {"sets", sets}});
    for (auto& set : leaving) co_await p_.sets.remove(std::move(set));
    co_return Json{{"impi", *impi}, {"contacts", contacts}, {"sets", sets}};
}

Result<nlohmann::json> Operations::drain(const Json& arguments) {
    const auto off = flag_argument(arguments, "off");
    if (!off) return std::unexpected(off.error());
    p_.operating.draining = !*off;
    log::notice("drain", {{"state", *off ? "off" : "on"}, {"why", "asked for at the control socket"}});
    return Json{{"state", *off ? "serving" : "draining"}, {"registrations", p_.table.registration_count()}};
}

Result<nlohmann::json> Operations::log_level(const Json& arguments) {
    const auto level = text_argument(arguments, "level");
    if (!level) return std::unexpected(level.error());
    const auto before = p_.operating.log_level;
    if (!level->empty()) {
        if (!log::parse_level(*level))
            return failure(Reaction::reject, "the level must be debug, info, notice, warning or error");
        set_log_level(*level);
    }
    return Json{{"level", p_.operating.log_level}, {"before", before}};
}

}  // namespace gmgate::daemon
