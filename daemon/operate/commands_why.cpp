// why: gathers the evidence about one phone and hands it to diagnose().
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "daemon/operate/diagnose.h"
#include "daemon/operate/operations.h"

namespace gmgate::daemon {

void Operations::add_why_command() {
    server_.add("why", {Rights::read, "why a phone does not register",
                        [this](const Json& arguments, ControlClient&) { return why(arguments); }});
}

// An IMPU will do, and a bare user part such as an IMSI.
Task<Impi> Operations::impi_named(std::string of) {
    Impi found{of};
    if (!p_.trace.of(found).empty() || !p_.trace.pending(found).empty() || !p_.table.find_by_impi(found).empty())
        co_return found;
    std::function<void(Registration&)> look = [&found, &of](Registration& registration) {
        if (names(registration, of)) found = registration.key.impi;
    };
    co_await p_.table.walk(std::move(look));
    if (found.value != of) co_return found;
    const auto plain = of.starts_with("sip:") ? of.substr(4) : of;
    for (const auto& impi : p_.trace.impis())
        if (impi.value == plain || impi.value.starts_with(plain + "@")) co_return impi;
    co_return found;
}

// What an interface's profile does not allow, in words.
std::string Operations::refused_algorithms(const std::string& realm) const {
    std::string refused;
    for (const auto& access : p_.accesses.all()) {
        if (access.interface->realm_id != realm || !access.profile) continue;
        std::set<std::string_view> all, allowed;
        for (const auto pair : kDefaultPreference)
            all.insert({to_string(pair.alg)}), all.insert({to_string(pair.ealg)});
        for (const auto pair : access.profile->preference)
            allowed.insert({to_string(pair.alg)}), allowed.insert({to_string(pair.ealg)});
        for (const auto& word : all)
            if (!allowed.contains(word)) refused += fmt::format("{}{}", refused.empty() ? "" : ", ", word);
        break;
    }
    return refused;
}

namespace {

/// A set that ended unanswered, with the kernel's last counters.
SetEvidence evidence_of(UnansweredSet ended) {
    SetEvidence set;
    set.number = ended.number;
    set.is_alive = false;
    set.ended = ended.ended;
    set.parameters = ended.parameters;
    set.sas = std::move(ended.sas);
    return set;
}

/// A set that stands; its counters are asked for afterwards.
SetEvidence evidence_of(const SaSet& standing) {
    SetEvidence set;
    set.number = standing.number;
    set.state = standing.state;
    set.in_use = standing.in_use;
    set.parameters = standing.parameters;
    return set;
}

}  // namespace

Task<Evidence> Operations::gather(Impi impi) {
    Evidence evidence;
    evidence.impi = impi;
    evidence.now = p_.clock.wall();
    evidence.records = p_.trace.of(impi);
    evidence.pending = p_.trace.pending(impi);
    std::set<Address> addresses;
    std::set<Spi> own_spis;
    for (const auto& record : evidence.records) {
        if (const auto slash = record.ue.rfind('/'); slash != std::string::npos)
            if (const auto end = Endpoint::parse(record.ue.substr(0, slash))) addresses.insert(end->address);
        if (record.set.value != 0) own_spis.insert({record.own_spis.spi_pc, record.own_spis.spi_ps});
    }
    for (auto& ended : p_.trace.unanswered(impi)) evidence.sets.push_back(evidence_of(std::move(ended)));
    std::vector<SetNumber> alive;
    for (const auto* registration : p_.table.find_by_impi(impi)) {
        if (registration->ended) continue;
        evidence.is_registered = true;
        evidence.registration_expires_in =
            std::max(evidence.registration_expires_in, std::chrono::seconds{seconds_left(registration->expires)});
        if (registration->tls) evidence.tls_remote = registration->tls->flow.remote;
        for (const auto& set : registration->sets) alive.push_back(set->number);
    }
    for (const auto& address : addresses)
        for (const bool is_emergency : {false, true})
            if (const auto* challenge = p_.table.find_challenge({impi, address, is_emergency}))
                alive.push_back(challenge->set->number);
    for (const auto number : alive) {
        const auto owner = p_.table.find_set(number);
        if (!owner.set) continue;
        SetEvidence set = evidence_of(*owner.set);
        addresses.insert(set.parameters.ue);
        if (auto reports = co_await p_.kernel.report_set(set.parameters)) set.sas = std::move(*reports);
        evidence.sets.push_back(std::move(set));
    }
    for (const auto& set : evidence.sets)
        if (set.is_alive) own_spis.erase(set.parameters.spi_pc), own_spis.erase(set.parameters.spi_ps);
    evidence.own_spis_before.assign(own_spis.begin(), own_spis.end());
    // A sighting that says whose it is counts for that phone alone; one that does not counts for every phone of its
    // address.
    evidence.sightings = p_.tap.find([&](const Sighting& s) {
        if (!s.impi.empty()) return s.impi == impi.value;
        if (s.kind == Sighting::Kind::unknown_spi) {
            if (own_spis.contains(s.spi)) return true;
            if (p_.trace.whose_spi(s.spi)) return false;
        }
        return addresses.contains(s.source.address);
    });
    evidence.xfrm = xfrm_statistics();
    if (!evidence.records.empty()) evidence.refused_algorithms = refused_algorithms(evidence.records.back().realm_id);
    co_return evidence;
}

Task<Result<nlohmann::json>> Operations::why(Json arguments) {
    const auto of = text_argument(arguments, "of");
    if (!of) co_return std::unexpected(of.error());
    if (of->empty())
        co_return failure(Reaction::reject, "\"of\" is missing: an IMPI, or an IMPU of a registered phone");
    const auto impi = co_await impi_named(*of);
    const auto evidence = co_await gather(impi);
    const auto verdict = diagnose(evidence);
    Json result{{"impi", impi.value},
                {"verdict", to_string(verdict.cause)},
                {"paragraph", verdict.paragraph},
                {"evidence", verdict.evidence},
                {"packet_tap", p_.tap.is_open()}};
    co_return result;
}

}  // namespace gmgate::daemon
