// Where somebody is or was registered: preferred when strangers have taken every place.
#pragma once

#include <list>
#include <unordered_map>

#include "base/source.h"

namespace gmgate::daemon {

/// By source prefix (IPv4 address, IPv6 /64). Bounded; the one heard of least recently gives way.
class KnownAddresses {
public:
    explicit KnownAddresses(std::size_t limit) : limit_(limit) {}
    void add(const Address& of) {
        const Address address = source_prefix(of);
        const auto known = places_.find(address);
        if (known != places_.end()) return order_.splice(order_.begin(), order_, known->second);
        if (places_.size() >= limit_) {
            places_.erase(order_.back());
            order_.pop_back();
        }
        order_.push_front(address);
        places_.emplace(address, order_.begin());
    }
    bool contains(const Address& address) const { return places_.contains(source_prefix(address)); }
    std::size_t size() const { return places_.size(); }

private:
    std::size_t limit_;
    std::list<Address> order_;  ///< most recently heard of first
    std::unordered_map<Address, std::list<Address>::iterator> places_;
};

}  // namespace gmgate::daemon
