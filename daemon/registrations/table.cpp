#include "daemon/registrations/table.h"

#include <algorithm>

#include "base/random.h"
#include "base/slice.h"

namespace gmgate::daemon {
namespace {

template <class Map, class Value>
void remove_from(Map& lists, const Address& address, const Value& value) {
    const auto at = lists.find(address);
    if (at == lists.end()) return;
    std::erase(at->second, value);
    if (at->second.empty()) lists.erase(at);
}

template <class Map>
std::size_t count_at(const Map& lists, const Address& address) {
    const auto at = lists.find(address);
    return at == lists.end() ? 0 : at->second.size();
}

}  // namespace

Table::Table() { random_bytes(phone_key_); }

std::size_t Table::PairHash::operator()(const Pair& p) const noexcept {
    return std::hash<Endpoint>{}(p.first) * 1000003 + std::hash<Endpoint>{}(p.second);
}

// The two inbound SAs of a set, as (gateway end, UE end): SA1 port_ps–port_uc and SA3 port_pc–port_us.
std::vector<Table::Pair> Table::pairs_of(const SaSet& set) {
    const auto& p = set.parameters;
    std::vector<Pair> pairs;
    for (const auto& address : {p.ue, p.inner.value_or(p.ue)}) {
        pairs.emplace_back(set.gateway_server(), Endpoint{address, p.port_uc});
        pairs.emplace_back(set.gateway_client(), Endpoint{address, p.port_us});
        if (!p.inner) break;
    }
    return pairs;
}

void Table::index(SaSet& set, Registration* registration, Challenge* challenge) {
    owners_[set.number] = {&set, registration, challenge};
    for (auto& pair : pairs_of(set)) by_pair_[std::move(pair)] = set.number;
    sets_at_[set.parameters.ue].push_back(set.number);
}

void Table::unindex(const SaSet& set) {
    owners_.erase(set.number);
    for (const auto& pair : pairs_of(set)) {
        const auto at = by_pair_.find(pair);
        if (at != by_pair_.end() && at->second == set.number) by_pair_.erase(at);
    }
    remove_from(sets_at_, set.parameters.ue, set.number);
}

Challenge* Table::find_challenge(const ChallengeKey& key) {
    const auto at = challenges_.find(key);
    return at == challenges_.end() ? nullptr : at->second.get();
}

std::unique_ptr<Challenge> Table::put_challenge(std::unique_ptr<Challenge> challenge) {
    auto key = challenge->key();
    auto before = take_challenge(key);
    challenge->phone = phone_of(challenge->contact);
    index(*challenge->set, nullptr, challenge.get());
    challenge->turn = challenges_of_.add(challenge->ue, challenge.get());
    challenges_.emplace(std::move(key), std::move(challenge));
    return before;
}

std::unique_ptr<Challenge> Table::take_challenge(const ChallengeKey& key) {
    const auto at = challenges_.find(key);
    if (at == challenges_.end()) return nullptr;
    auto challenge = std::move(at->second);
    challenges_.erase(at);
    unindex(*challenge->set);
    challenges_of_.remove(challenge->ue, challenge->turn);
    return challenge;
}

std::size_t Table::challenges_at(const Address& ue) const {
    const auto* queue = challenges_of_.find(ue);
    return queue ? queue->size() : 0;
}

std::size_t Table::sets_at(const Address& ue) const { return count_at(sets_at_, ue); }

void Table::for_each_challenge_at(const Address& ue, const std::function<void(const Challenge&)>& f) const {
    const auto* queue = challenges_of_.find(ue);
    if (!queue) return;
    for (const auto& [turn, challenge] : *queue) f(*challenge);
}

void Table::for_each_challenge_of_fullest(const std::function<void(const Challenge&)>& f) const {
    constexpr std::size_t kSources = 16, kOfEach = 8;  // a flood at the limit asks this for each of its REGISTERs
    std::size_t sources = 0;
    challenges_of_.for_each_from_fullest([&](const auto& queue) {
        std::size_t told = 0;
        for (auto at = queue.begin(); at != queue.end() && told < kOfEach; ++at, ++told) f(*at->second);
        return ++sources < kSources;
    });
}

void Table::for_each_set_at(const Address& ue, const std::function<void(const SaSet&)>& f) const {
    const auto at = sets_at_.find(ue);
    if (at == sets_at_.end()) return;
    for (const auto number : at->second) f(*owners_.at(number).set);
}

Registration* Table::find(const ContactKey& key) {
    const auto at = registrations_.find(key);
    return at == registrations_.end() ? nullptr : at->get();
}

Registration* Table::find_by_token(std::string_view token) {
    const auto at = by_token_.find(token);
    return at == by_token_.end() || at->second->ended ? nullptr : at->second;
}

Registration* Table::find(RegistrationNumber number) {
    const auto at = by_number_.find(number);
    return at == by_number_.end() ? nullptr : at->second;
}

std::vector<Registration*> Table::find_by_impi(const Impi& impi) {
    std::vector<Registration*> found;
    for (auto at = registrations_.lower_bound(ContactKey{impi, "", ""});
         at != registrations_.end() && (*at)->key.impi == impi; ++at)
        found.push_back(at->get());
    return found;
}

Registration& Table::add(std::unique_ptr<Registration> registration) {
    auto& added = *registration;
    added.phone = phone_of(added.key);
    for (const auto& set : added.sets) index(*set, &added, nullptr);
    added.number = RegistrationNumber{++last_registration_};
    by_number_.emplace(added.number, &added);
    registrations_.insert(std::move(registration));
    by_token_.emplace(added.token, &added);  // a second one with that token: a store that was tampered with
    return added;
}

std::unique_ptr<Registration> Table::take(const ContactKey& key) {
    const auto at = registrations_.find(key);
    if (at == registrations_.end()) return nullptr;
    auto registration = std::move(registrations_.extract(at).value());
    const auto named = by_token_.find(registration->token);
    if (named != by_token_.end() && named->second == registration.get()) by_token_.erase(named);
    by_number_.erase(registration->number);
    unbind(*registration);
    for (const auto& set : registration->sets) unindex(*set);
    for (const auto& handler : taken_handlers_) handler(*registration);
    changed(key);
    return registration;
}

void Table::for_each(const std::function<void(Registration&)>& f) {
    for (const auto& registration : registrations_) f(*registration);
}

namespace {

const ContactKey& key_of(const std::unique_ptr<Registration>& one) { return one->key; }
const ChallengeKey& key_of(const std::pair<const ChallengeKey, std::unique_ptr<Challenge>>& one) { return one.first; }
Registration& told(const std::unique_ptr<Registration>& one) { return *one; }
Challenge& told(const std::pair<const ChallengeKey, std::unique_ptr<Challenge>>& one) { return *one.second; }

/// From one to the next; a pause finds its place again by the key.
template <class Ordered, class F>
Task<void> walk_all(Ordered& all, F f) {
    Slice slice;
    for (auto at = all.begin(); at != all.end();) {
        f(told(*at));
        if (slice.is_over()) {
            const auto key = key_of(*at);
            co_await slice.pause();
            at = all.upper_bound(key);
        } else {
            ++at;
        }
    }
}

}  // namespace

Task<void> Table::walk(std::function<void(Registration&)> f) { return walk_all(registrations_, std::move(f)); }
Task<void> Table::walk_challenges(std::function<void(Challenge&)> f) { return walk_all(challenges_, std::move(f)); }

Task<TableCounts> Table::count() {
    TableCounts counts;
    std::function<void(Registration&)> one = [&counts](Registration& registration) {
        ++(registration.ended ? counts.ended : registration.tls ? counts.over_tls : counts.over_ipsec);
        for (const auto& set : registration.sets)
            ++(set->state == SetState::old ? counts.old_sets : counts.established);
    };
    co_await walk(std::move(one));
    counts.temporary = challenges_.size();  // one each
    co_return counts;
}

SetNumber Table::next_number(std::uint32_t mask) {
    do {
        last_number_ = (last_number_ + 1) & mask;
    } while (last_number_ == 0 || owners_.contains(SetNumber{last_number_}));
    return SetNumber{last_number_};
}

SaSet& Table::add_set(Registration& registration, std::unique_ptr<SaSet> set) {
    auto& added = *set;
    registration.sets.push_back(std::move(set));
    index(added, &registration, nullptr);
    return added;
}

std::unique_ptr<SaSet> Table::take_set(Registration& registration, SetNumber number) {
    const auto at = std::ranges::find_if(registration.sets, [&](const auto& set) { return set->number == number; });
    if (at == registration.sets.end()) return nullptr;
    auto set = std::move(*at);
    registration.sets.erase(at);
    unindex(*set);
    changed(registration.key);
    return set;
}

FlowOwner Table::find_set(SetNumber number) {
    const auto at = owners_.find(number);
    return at == owners_.end() ? FlowOwner{} : FlowOwner{at->second.set, at->second.registration, at->second.challenge};
}

std::optional<sip::Flow> Table::bind(Registration& registration, TlsBinding binding) {
    std::optional<sip::Flow> before;
    if (registration.tls && registration.tls->flow.connection != binding.flow.connection)
        before = registration.tls->flow;
    unbind(registration);
    by_connection_.emplace(binding.flow.connection, &registration);
    registration.tls = std::make_unique<TlsBinding>(std::move(binding));
    changed(registration.key);
    return before;
}

void Table::unbind(Registration& registration) {
    if (!registration.tls) return;
    const auto [first, last] = by_connection_.equal_range(registration.tls->flow.connection);
    const auto at = std::find_if(first, last, [&](const auto& entry) { return entry.second == &registration; });
    if (at != last) by_connection_.erase(at);
    registration.tls.reset();
    changed(registration.key);
}

std::vector<Registration*> Table::bound_to(sip::ConnectionId connection) {
    std::vector<Registration*> found;
    const auto [first, last] = by_connection_.equal_range(connection);
    for (auto at = first; at != last; ++at) found.push_back(at->second);
    return found;
}

// The kernel let it in by the SA's ports, whatever address it has inside.
void Table::learn_inner(const FlowOwner& owner, const sip::Flow& flow) {
    auto& set = *owner.set;
    const auto& p = set.parameters;
    if (!p.inner || set.inner || (flow.remote.address != p.ue && flow.remote.address != *p.inner)) return;
    const bool server = set.gateway_server() == flow.local && p.port_uc == flow.remote.port;
    const bool client = set.gateway_client() == flow.local && p.port_us == flow.remote.port;
    if (!server && !client) return;
    set.inner = flow.remote.address;
    if (owner.registration) changed(owner.registration->key);
}

FlowOwner Table::owner_of(const sip::Flow& flow) {
    if (flow.transport == sip::Transport::tls) {
        // An emergency contact beside another of its user serves emergencies only: the other speaks for the connection.
        FlowOwner owner;
        for (auto* registration : bound_to(flow.connection))
            if (!owner.registration || is_emergency_contact(owner.registration->key)) owner.registration = registration;
        return owner;
    }
    FlowOwner owner;
    if (flow.mark.value != 0) {
        owner = find_set(SetNumber{flow.mark.value});
    } else if (sip::is_reliable(flow.transport)) {
        const auto at = by_pair_.find({flow.local, flow.remote});
        if (at != by_pair_.end()) owner = find_set(at->second);
    }
    if (!owner.set) return {};
    learn_inner(owner, flow);
    // The mark names the set, its selectors name the ends: both must agree, whatever a socket or a re-used number says.
    const bool server = owner.set->gateway_server() == flow.local && owner.set->ue_client() == flow.remote;
    const bool client = owner.set->gateway_client() == flow.local && owner.set->ue_server() == flow.remote;
    return server || client ? owner : FlowOwner{};
}

sip::OwnerId Table::phone_of(const ContactKey& contact) const {
    const std::uint64_t hash = siphash(phone_key_, contact.impi.value) * 31 + siphash(phone_key_, contact.instance);
    return sip::OwnerId{std::max(hash, kCoreOwner.value + 1)};
}

sip::OwnerId Table::phone_of(const sip::Flow& flow, sip::Direction direction) {
    FlowOwner owner;
    if (direction == sip::Direction::out && flow.transport == sip::Transport::udp) {
        const auto at = by_pair_.find({flow.local, flow.remote});
        if (at != by_pair_.end()) owner = find_set(at->second);
    } else {
        owner = owner_of(flow);
    }
    if (owner.registration != nullptr) return owner.registration->phone;
    return owner.challenge != nullptr ? owner.challenge->phone : sip::OwnerId{};
}

bool Table::uses_client_port(const Address& ue, Port port_uc, const Endpoint& gateway_server) const {
    return by_pair_.contains({gateway_server, Endpoint{ue, port_uc}});
}

std::vector<Registration*> Table::at_client_port(const Address& ue, Port port_uc, const Address& gateway,
                                                 const std::vector<Port>& server_ports) {
    std::vector<Registration*> found;
    for (const auto port : server_ports) {
        const auto at = by_pair_.find({Endpoint{gateway, port}, Endpoint{ue, port_uc}});
        if (at == by_pair_.end()) continue;
        auto* registration = find_set(at->second).registration;
        if (registration && std::ranges::find(found, registration) == found.end()) found.push_back(registration);
    }
    return found;
}

bool Table::uses_server_port(const Address& ue, Port port_us, const Endpoint& gateway_client) const {
    return by_pair_.contains({gateway_client, Endpoint{ue, port_us}});
}

}  // namespace gmgate::daemon
