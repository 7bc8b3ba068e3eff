// The TLS handshakes under way: how many there are, from where, and which gives way to a new one. Each costs a socket,
// an OpenSSL object and perhaps a signature, and whoever can open a connection can begin one and say nothing more.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <map>
#include <optional>

#include "base/endpoint.h"

namespace gmgate::daemon {

struct HandshakeLimits {
    std::size_t total = 1024;
    std::size_t per_source = 256;  ///< of one IPv4 address or IPv6 /64
};

/// An honest handshake takes a few round trips; one that is held open becomes the oldest. So the oldest of a source
/// gives way beyond `per_source`, and beyond `total` the oldest of the source that has most. That of an address where
/// somebody is or was registered gives way only to another such.
class Handshakes {
public:
    struct One {
        int socket;
        Address source;
        bool is_known = false;
        bool gave_way = false;
    };
    using Place = std::list<One>::iterator;

    /// `end` ends the handshake on a socket soon; end() is called for it all the same.
    Handshakes(HandshakeLimits limits, std::function<void(int socket)> end) : limits_(limits), end_(std::move(end)) {}

    /// A place for one more, which `socket` belongs to until end(); nullopt: none gives way to it.
    std::optional<Place> begin(const Address& remote, int socket, bool is_known);
    void end(Place place);
    std::size_t count() const { return count_; }
    /// Which limit the last begin() met: "tls-handshakes" or "tls-handshakes-per-address".
    const char* limit_met() const { return limit_met_; }

private:
    Place oldest_of(const Address& source, bool also_known);
    Place oldest_of_most(bool also_known);
    void leave(One& one);

    HandshakeLimits limits_;
    std::function<void(int)> end_;
    std::list<One> all_;                 ///< oldest first; with those that gave way and have not ended yet
    std::map<Address, std::size_t> of_;  ///< by source, without those
    std::size_t count_ = 0;              ///< without those
    const char* limit_met_ = "";
};

}  // namespace gmgate::daemon
