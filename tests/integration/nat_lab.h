// Two NATs between phones and gateway, with the same private network behind each.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/integration/scene.h"

namespace gmgate::test {

/// A masquerading router of its own namespace, wired to the lab's ue, which routes.
class Nat {
public:
    /// Its public addresses are 198.51.(100 + number).2 and 2001:db8:(100 + number)::2.
    Nat(Lab& lab, int number);

    /// A namespace behind it with the private addresses 192.168.1.`host` and fd19::`host`.
    std::unique_ptr<Namespace> plug(int host);
    const std::string& address() const { return address_; }
    const std::string& address6() const { return address6_; }
    /// Forgets every mapping; new ones get UDP ports from this range.
    void rebind(const std::string& ports);
    /// The same, and another public address.
    void move(const std::string& address);

private:
    void forget_mappings();

    Lab& lab_;
    std::string net_, address_, net6_, address6_, port_range_, link_;
    Namespace box_{"nat"};
};

/// A gateway that serves phones behind NAT beside others; with `inner` (nat-inner-addresses) "any" also those that have
/// their private address inside.
LabOptions nat_lab(const std::string& inner = "public");
/// gmue's options: behind `phone_network`, with the same ports as every other phone of these tests.
PhoneOptions behind_nat(std::size_t user, const Namespace& phone_network, std::vector<std::string> more = {});

/// Policies of the gateway for NAT addresses.
std::size_t count_nat_policies(const Lab& lab);
/// The same of IPv6.
std::size_t count_nat_policies6(const Lab& lab);
/// Destination ports of the encapsulation around outbound SAs to this address.
std::vector<int> outer_ports(const Lab& lab, const std::string& nat);

}  // namespace gmgate::test
