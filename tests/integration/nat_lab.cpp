#include "tests/integration/nat_lab.h"

#include <algorithm>
#include <regex>

#include <fmt/format.h>

namespace gmgate::test {

Nat::Nat(Lab& lab, int number)
    : lab_(lab),
      net_(fmt::format("198.51.{}.", 100 + number)),
      address_(net_ + "2"),
      net6_(fmt::format("2001:db8:{}::", 100 + number)),
      address6_(net6_ + "2"),
      link_(fmt::format("nat{}", number)) {
    auto& router = lab.network.ue;
    router.set_sysctl("net/ipv4/ip_forward", "1");
    router.ip_batch(
        fmt::format("link add {0} type veth peer name wan netns {1}\naddress add {2}1/24 dev {0}\n"
                    "link set {0} up\n",
                    link_, box_.path(), net_));
    router.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    router.ip_batch(fmt::format("address add {}1/64 dev {} nodad\n", net6_, link_));
    // The way to what phones have inside is the way to their NATs.
    lab.network.gw.ip_batch(
        fmt::format("route add {0}0/24 via {1}\nroute replace 192.168.1.0/24 via {1}\nroute add {2}/64 via {3}\n"
                    "route replace fd19::/64 via {3}\n",
                    net_, Network::kUe4, net6_, Network::kUe6));
    box_.ip_batch(
        fmt::format("address add {}/24 dev wan\nlink set wan up\nroute add default via {}1\nlink add lan type bridge\n"
                    "address add 192.168.1.1/24 dev lan\nlink set lan up\n",
                    address_, net_));
    box_.ip_batch(
        fmt::format("address add {}/64 dev wan nodad\nroute add ::/0 via {}1\naddress add fd19::1/64 dev lan nodad\n",
                    address6_, net6_));
    box_.set_sysctl("net/ipv4/ip_forward", "1");
    box_.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    box_.run(
        "modprobe -q -a iptable_nat ip6table_nat xt_MASQUERADE nf_conntrack 2>/dev/null; "
        "iptables-legacy -t nat -A POSTROUTING -o wan -j MASQUERADE && "
        "ip6tables-legacy -t nat -A POSTROUTING -o wan -j MASQUERADE");
}

std::unique_ptr<Namespace> Nat::plug(int host) {
    auto phone = std::make_unique<Namespace>("phone");
    const auto port = fmt::format("p{}", host);
    box_.ip_batch(
        fmt::format("link add {0} type veth peer name eth0 netns {1}\nlink set {0} master lan\nlink set {0} up\n", port,
                    phone->path()));
    phone->ip_batch(
        fmt::format("address add 192.168.1.{0}/24 dev eth0\naddress add fd19::{0}/64 dev eth0 nodad\nlink set eth0 up\n"
                    "route add default via 192.168.1.1\nroute add ::/0 via fd19::1\n",
                    host));
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

LabOptions nat_lab(const std::string& inner) {
    auto options = plain_lab();
    options.profile_lines = "nat-traversal = \"on\"\nstart-nat-protected-port = 6208\nend-nat-protected-port = 6223\n";
    if (inner != "public") options.profile_lines += "nat-inner-addresses = \"" + inner + "\"\n";
    return options;
}

PhoneOptions behind_nat(std::size_t user, const Namespace& phone_network, std::vector<std::string> more) {
    PhoneOptions options{.user = user, .network = &phone_network};
    options.arguments = {"--nat", "--port-us", "5100", "--port-uc", "5101"};
    options.arguments.insert(options.arguments.end(), more.begin(), more.end());
    return options;
}

namespace {

std::size_t count_policies_with(const Lab& lab, const std::string& text) {
    const auto policies = list_policies(lab.network.gw);
    return static_cast<std::size_t>(
        std::ranges::count_if(policies, [&](const std::string& policy) { return policy.find(text) != policy.npos; }));
}

}  // namespace

std::size_t count_nat_policies(const Lab& lab) { return count_policies_with(lab, "tmpl src 10.1.0.1 dst 198.51."); }
std::size_t count_nat_policies6(const Lab& lab) { return count_policies_with(lab, "tmpl src fd01::1 dst 2001:db8:"); }

std::vector<int> outer_ports(const Lab& lab, const std::string& nat) {
    const auto printed = lab.network.gw.run("ip xfrm state list nokeys dst " + nat);
    static const std::regex encap("encap type espinudp sport 4500 dport ([0-9]+)");
    std::vector<int> ports;
    for (std::sregex_iterator at(printed.begin(), printed.end(), encap), end; at != end; ++at)
        ports.push_back(std::stoi((*at)[1]));
    return ports;
}

}  // namespace gmgate::test
