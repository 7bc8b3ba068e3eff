// Room for one more connection: strangers give way, so that nobody keeps others out by keeping connections open.
#include <algorithm>

#include "base/source.h"
#include "sip/transport/transport_impl.h"

namespace gmgate::sip {

bool Transports::Impl::is_full(const Address& source) const {
    const auto held = per_source.find(source);
    return held != per_source.end() && held->second >= limits.connections_per_address;
}

bool Transports::Impl::has_room_for(const Address& remote) const {
    return places + connecting < limits.connections && !is_full(source_prefix(remote));
}

bool Transports::Impl::make_room_for(const Address& remote) {
    if (has_room_for(remote)) return true;
    if (!standing_of) return false;
    const Address source = source_prefix(remote);
    give_way(is_full(source) ? std::optional(source) : std::nullopt);
    return has_room_for(remote);
}

Standing Transports::Impl::standing(const Connection& connection) const {
    return connection.kept || !standing_of ? Standing::known : standing_of(connection.flow);
}

// A little later when an answer is due there.
bool Transports::Impl::has_outlived(const Connection& connection, TimePoint now) const {
    const auto age = now - connection.begun;
    if (limits.stranger_lifetime.count() == 0 || age < limits.stranger_lifetime ||
        standing(connection) == Standing::known)
        return false;
    return age >= limits.stranger_lifetime + limits.half_closed || !answers_due ||
           !answers_due(connection.flow.connection);
}

// A sixteenth of the strangers at once, so that a flood of connections does not make this walk for each of them: those
// where nobody is known, of the source that has most, and of its connections those longest without a message. `only`:
// of this source alone.
void Transports::Impl::give_way(std::optional<Address> only) {
    struct Candidate {
        Standing standing;
        Address source;
        std::size_t of_source;
        std::shared_ptr<Connection> connection;
    };
    std::vector<Candidate> strangers;
    std::unordered_map<Address, std::size_t> held;
    for (const auto& [id, connection] : connections) {
        if (connection->closing || (only && source_prefix(connection->flow.remote.address) != *only)) continue;
        if (!connection->has_place) continue;
        const Standing standing_there = standing(*connection);
        if (standing_there == Standing::known) continue;
        const Address source = source_prefix(connection->flow.remote.address);
        ++held[source];
        strangers.push_back({standing_there, source, 0, connection});
    }
    if (strangers.empty()) return;
    for (auto& one : strangers) one.of_source = held[one.source];
    const auto count = std::max<std::size_t>(1, strangers.size() / 16);
    std::ranges::nth_element(strangers, strangers.begin() + static_cast<std::ptrdiff_t>(count - 1),
                             [](const Candidate& a, const Candidate& b) {
                                 if (a.standing != b.standing) return a.standing == Standing::unknown;
                                 if (a.of_source != b.of_source) return a.of_source > b.of_source;
                                 return a.connection->last_message < b.connection->last_message;
                             });
    strangers.resize(count);
    for (const auto& one : strangers) {
        ++counters->connections_gave_way;
        leave_place(*one.connection);
        begin_close(one.connection, true);
    }
}

void Transports::Impl::leave_place(Connection& connection) {
    if (!std::exchange(connection.has_place, false)) return;
    --places;
    const auto held = per_source.find(source_prefix(connection.flow.remote.address));
    if (held != per_source.end() && --held->second == 0) per_source.erase(held);
}

}  // namespace gmgate::sip
