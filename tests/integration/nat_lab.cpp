#include "tests/integration/nat_lab.h"

#include <algorithm>
#include <regex>

#include <fmt/format.h>

namespace gmgate::test {

Nat::Nat(Lab& lab, int number)
    : lab_(lab),
      net_(fmt::format("198.51.{}.", 100 + number)),
      address_(net_ + "2"),
      link_(fmt::format("nat{}", number)) {
    auto& router = lab.network.ue;
    router.set_sysctl("net/ipv4/ip_forward", "1");
    router.ip_batch(
        fmt::format("link add {0} type veth peer name wan netns {1}\naddress add {2}1/24 dev {0}\n"
                    "link set {0} up\n",
                    link_, box_.path(), net_));
    lab.network.gw.ip_batch(fmt::format("route add {}0/24 via {}\n", net_, Network::kUe4));
    box_.ip_batch(
        fmt::format("address add {}/24 dev wan\nlink set wan up\nroute add default via {}1\nlink add lan type bridge\n"
                    "address add 192.168.1.1/24 dev lan\nlink set lan up\n",
                    address_, net_));
    box_.set_sysctl("net/ipv4/ip_forward", "1");
    box_.run(
        "modprobe -q -a iptable_nat xt_MASQUERADE nf_conntrack 2>/dev/null; "
        "iptables-legacy -t nat -A POSTROUTING -o wan -j MASQUERADE");
}

std::unique_ptr<Namespace> Nat::plug(int host) {
    auto phone = std::make_unique<Namespace>("phone");
    const auto port = fmt::format("p{}", host);
    box_.ip_batch(
        fmt::format("link add {0} type veth peer name eth0 netns {1}\nlink set {0} master lan\nlink set {0} up\n", port,
                    phone->path()));
    phone->ip_batch(fmt::format(
        "address add 192.168.1.{}/24 dev eth0\nlink set eth0 up\nroute add default via 192.168.1.1\n", host));
    return phone;
}

// A masquerading rule's mappings end with the link.
void Nat::forget_mappings() {
    box_.ip_batch(
        fmt::format("link set wan down\naddress flush dev wan\naddress add {}/24 dev wan\nlink set wan up\n"
                    "route add default via {}1\n",
                    address_, net_));
    box_.run(
        fmt::format("iptables-legacy -t nat -R POSTROUTING 1 -o wan -p udp -j MASQUERADE --to-ports {}", port_range_));
    // The other side has the old address' MAC still, and the link its carrier a little later.
    box_.run(fmt::format("for i in $(seq 100); do ping -c1 -W1 {}1 >/dev/null 2>&1 && exit 0; done; exit 1", net_));
}

void Nat::rebind(const std::string& ports) {
    port_range_ = ports;
    forget_mappings();
}

void Nat::move(const std::string& address) {
    address_ = address;
    forget_mappings();
}

LabOptions nat_lab() {
    auto options = plain_lab();
    options.profile_lines = "nat-traversal = \"on\"\nstart-nat-protected-port = 6208\nend-nat-protected-port = 6223\n";
    return options;
}

PhoneOptions behind_nat(std::size_t user, const Namespace& phone_network, std::vector<std::string> more) {
    PhoneOptions options{.user = user, .network = &phone_network};
    options.arguments = {"--nat", "--port-us", "5100", "--port-uc", "5101"};
    options.arguments.insert(options.arguments.end(), more.begin(), more.end());
    return options;
}

std::size_t count_nat_policies(const Lab& lab) {
    const auto policies = list_policies(lab.network.gw);
    return static_cast<std::size_t>(std::ranges::count_if(policies, [](const std::string& policy) {
        return policy.find("tmpl src 10.1.0.1 dst 198.51.") != policy.npos;
    }));
}

std::vector<int> outer_ports(const Lab& lab, const std::string& nat) {
    const auto printed = lab.network.gw.run("ip xfrm state list nokeys dst " + nat);
    static const std::regex encap("encap type espinudp sport 4500 dport ([0-9]+)");
    std::vector<int> ports;
    for (std::sregex_iterator at(printed.begin(), printed.end(), encap), end; at != end; ++at)
        ports.push_back(std::stoi((*at)[1]));
    return ports;
}

}  // namespace gmgate::test
