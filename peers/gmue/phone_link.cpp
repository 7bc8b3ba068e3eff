#include "phone_link.h"

#include "../common/text.h"

#include <algorithm>
#include <utility>

namespace gmgate::peers {
namespace {

// Below the usual range of ephemeral ports, unless a family of phones has other habits.
std::uint16_t any_port(const PortHabit& habit) {
    const std::uint32_t steps = static_cast<std::uint32_t>(habit.highest - habit.lowest) / habit.step + 1;
    return static_cast<std::uint16_t>(habit.lowest + random_u32() % steps * habit.step);
}

}  // namespace

SpiPair SpiPool::take(SpiPair wanted, const SpiHabit& habit) {
    constexpr int kTries = 1000;  // in a small range; then any will do
    SpiPair chosen{};
    for (int i = 0; i == 0 || used_.contains(chosen.spi_c) || used_.contains(chosen.spi_s); ++i)
        chosen = choose_spis(i < kTries ? habit : SpiHabit{}, random_u32(), random_u32());
    const SpiPair out{wanted.spi_c != 0 ? wanted.spi_c : chosen.spi_c, wanted.spi_s != 0 ? wanted.spi_s : chosen.spi_s};
    used_.insert({out.spi_c, out.spi_s});
    return out;
}

PhoneLink::PhoneLink(Loop& loop, SaProgrammer* sas, SpiPool& spis, MessageLog& log, const PhoneConfig& config,
                     Owner owner)
    : loop_(loop), sas_(sas), spis_(spis), log_(log), config_(config), owner_(std::move(owner)) {}

PhoneLink::~PhoneLink() {
    connections_.clear();  // their resets still go out through the SAs
    for (const SetId id : sets()) remove_set(id);
}

Result<void> PhoneLink::open() {
    if (config_.tls != TlsUse::none) {
        port_us_ = config_.port_us != 0 ? config_.port_us : any_port(config_.habits.ports);
        return {};
    }
    if (!config_.ipsec) return open_clear();
    if (config_.port_us != 0) return open_server_port(config_.port_us);
    Result<void> last = fail("no free port");
    for (int attempt = 0; attempt < 20; ++attempt) {
        last = open_server_port(any_port(config_.habits.ports));
        if (last) return last;
    }
    return last;
}

Result<void> PhoneLink::open_server_port(std::uint16_t port) {
    const Endpoint local = protected_address().with_port(port);
    auto udp = UdpPort::open(loop_, local,
                             [this](const std::string& text, const Endpoint& from) { on_datagram_us(text, from); });
    if (!udp) return std::unexpected(udp.error());
    auto listener =
        TcpListener::open(loop_, local, [this](Fd fd, const Endpoint& from) { on_accept(std::move(fd), from); });
    if (!listener) return std::unexpected(listener.error());
    udp_us_ = std::move(*udp);
    listener_us_ = std::move(*listener);
    if (std::exchange(port_us_, port) == port) return {};
    first_port_uc_ = next_port_uc_ = choose_port_uc();
    return {};
}

std::uint16_t PhoneLink::choose_port_uc() const {
    const PortHabit& habit = config_.habits.ports;
    if (config_.port_uc != 0) return config_.port_uc;
    if (habit.first_client != 0) return static_cast<std::uint16_t>(port_us_ + habit.first_client);
    return any_port(habit);
}

Result<void> PhoneLink::open_clear() {
    if (clear_udp_) return {};
    auto udp = UdpPort::open(loop_, config_.local, [this](const std::string& text, const Endpoint& from) {
        deliver(text, {kClear, false}, 0, clear_udp_->local(), from);
    });
    if (!udp) return std::unexpected(udp.error());
    clear_udp_ = std::move(*udp);
    if (config_.ipsec || config_.tls != TlsUse::none) return {};
    auto listener = TcpListener::open(loop_, clear_udp_->local(), [this](Fd fd, const Endpoint&) {
        const std::uint64_t id = next_connection_++;
        if (auto tcp = TcpConnection::adopt(loop_, std::move(fd), events_for(id, {kClear, true})))
            connections_[id] = {kClear, std::move(*tcp)};
    });
    if (!listener) return std::unexpected(listener.error());
    clear_listener_ = std::move(*listener);
    return {};
}

Result<SetId> PhoneLink::prepare_set() {
    SecuritySet set;
    set.id = next_set_;
    // The client port changes with every set (B-17); the block comes round after port_block - 1 of them.
    const std::uint16_t first = first_port_uc_;
    Error last{"no free client port"};
    for (int attempt = 0; attempt + 1 < config_.port_block; ++attempt) {
        const std::uint16_t port = next_port_uc_;
        next_port_uc_ = static_cast<std::uint16_t>(port + 1 < first + config_.port_block - 1 ? port + 1 : first);
        if (port == port_us_) continue;
        auto udp = UdpPort::open(loop_, protected_address().with_port(port),
                                 [this](const std::string&, const Endpoint& from) { drop("udp-on-port-uc", from); });
        if (!udp) {
            last = udp.error();
            continue;
        }
        set.udp = std::move(*udp);
        const SpiPair wanted = next_set_ == 1 ? SpiPair{config_.spi_uc, config_.spi_us} : SpiPair{};
        const SpiPair spis = spis_.take(wanted, config_.habits.spis);
        set.ue = {spis.spi_c, spis.spi_s, port, port_us_};
        ++next_set_;
        const SetId id = set.id;
        sets_.emplace(id, std::move(set));
        return id;
    }
    return std::unexpected(last);
}

void PhoneLink::forget_nat() {
    const auto before = std::exchange(nat_, nullptr);
    if (!before || before->public_address().same_address(config_.local)) return;
    // Ports at an address that is no more. What fails is told when something is sent.
    if (auto ok = open_server_port(port_us_); !ok) owner_.error(ok.error().text);
}

Result<void> PhoneLink::open_behind_nat(SecuritySet& set, const Endpoint& known) {
    set.is_behind_nat = true;
    if (nat_ && nat_->public_address().same_address(known)) return {};
    auto nat = NatTraversal::open(loop_, config_.local, config_.gateway, known, config_.nat_keep_alive);
    if (!nat) return std::unexpected(nat.error());
    nat_ = std::move(*nat);
    if (known.same_address(config_.local)) return {};  // its ports are where they were
    if (auto ok = open_server_port(port_us_); !ok) return ok;
    auto udp = UdpPort::open(loop_, known.with_port(set.ue.port_c),
                             [this](const std::string&, const Endpoint& from) { drop("udp-on-port-uc", from); });
    if (!udp) return std::unexpected(udp.error());
    set.udp = std::move(*udp);
    return {};
}

Result<void> PhoneLink::install(SetId id, const Key<16>& ck, const Key<16>& ik, const std::optional<Endpoint>& known) {
    SecuritySet* set = find(id);
    if (!set || !sas_) return fail("no such set");
    if (known)
        if (auto ok = open_behind_nat(*set, *known); !ok) return ok;
    const SaSetSpec spec{.ue = config_.local,
                         .network = config_.gateway,
                         .inner = known,
                         .ue_end = set->ue,
                         .network_end = set->network,
                         .pair = set->pair,
                         .reqid = spis_.next_reqid(),
                         .ck = ck.clone(),
                         .ik = ik.clone()};
    auto kernel = sas_->install(spec);
    if (!kernel) return std::unexpected(kernel.error());
    set->kernel = std::move(*kernel);
    return {};
}

void PhoneLink::remove_set(SetId id) {
    const auto it = sets_.find(id);
    if (it == sets_.end()) return;
    std::erase_if(connections_, [id](const auto& entry) { return entry.second.set == id; });
    spis_.give_back(it->second.ue.spi_c);
    spis_.give_back(it->second.ue.spi_s);
    sets_.erase(it);
}

SecuritySet* PhoneLink::find(SetId id) {
    const auto it = sets_.find(id);
    return it == sets_.end() ? nullptr : &it->second;
}

const SecuritySet* PhoneLink::find(SetId id) const {
    const auto it = sets_.find(id);
    return it == sets_.end() ? nullptr : &it->second;
}

std::vector<SetId> PhoneLink::sets() const {
    std::vector<SetId> out;
    for (const auto& [id, set] : sets_) out.push_back(id);
    return out;
}

std::string PhoneLink::sent_by(const Path& path) const {
    const bool clear = !path.is_protected();
    const std::uint16_t port = !clear ? port_us_ : clear_udp_ ? clear_udp_->local().port() : config_.local.port();
    return fmt::format("{}:{}", (clear ? config_.local : protected_address()).host(), port);
}

SetId PhoneLink::set_of_port_pc(const Endpoint& from) const {
    if (!from.same_address(config_.gateway)) return kClear;
    const auto it =
        std::ranges::find_if(sets_, [&](const auto& entry) { return entry.second.network.port_c == from.port(); });
    return it == sets_.end() ? kClear : it->first;
}

void PhoneLink::drop(std::string why, const Endpoint& from) {
    ++dropped_;
    owner_.dropped(std::move(why), from);
}

void PhoneLink::on_datagram_us(const std::string& text, const Endpoint& from) {
    const SetId set = set_of_port_pc(from);
    if (set == kClear) return drop("udp-not-from-port-pc", from);
    deliver(text, {set, false}, 0, udp_us_->local(), from);
}

void PhoneLink::on_accept(Fd fd, const Endpoint& from) {
    const SetId set = set_of_port_pc(from);
    if (set == kClear) return drop("tcp-not-from-port-pc", from);
    const std::uint64_t id = next_connection_++;
    if (auto tcp = TcpConnection::adopt(loop_, std::move(fd), events_for(id, {set, true})))
        connections_[id] = {set, std::move(*tcp)};
}

TcpConnection::Events PhoneLink::events_for(std::uint64_t id, Path path) {
    return {
        [this, id, path](TcpConnection& c, const std::string& text) { deliver(text, path, id, c.local(), c.remote()); },
        [this, id, path](TcpConnection& c, const std::string& reason) {
            owner_.error(fmt::format("{} {} -> {}: {}", path.tls ? "TLS" : "TCP", c.local().to_string(),
                                     c.remote().to_string(), reason));
            if (path.tls) owner_.tls_lost(reason);
            dead_.push_back(id);
            sweep_ = loop_.after(Duration::zero(), [this] {
                for (const std::uint64_t dead : std::exchange(dead_, {})) connections_.erase(dead);
            });
        }};
}

void PhoneLink::deliver(const std::string& text, const Path& path, std::uint64_t connection, const Endpoint& local,
                        const Endpoint& remote) {
    if (trim(text).empty()) return;
    log_.message({true, path.tls ? "tls" : path.tcp ? "tcp" : "udp", local, remote}, text);
    auto message = SipMessage::parse(text);
    if (!message) return drop("malformed: " + message.error().text, remote);
    owner_.receive(Incoming{std::move(*message), path, connection, local, remote});
}

void PhoneLink::transmit(TcpConnection& connection, const Path& path, const std::string& text) {
    log_.message({false, path.tls ? "tls" : "tcp", connection.local(), connection.remote()}, text);
    connection.send(text);
}

std::uint64_t& PhoneLink::slot_for(const Path& path) {
    if (path.tls) return tls_connection_;
    SecuritySet* set = find(path.set);
    return set ? set->connection : clear_connection_;
}

std::string PhoneLink::tls_protection() const {
    const auto it = connections_.find(tls_connection_);
    return it == connections_.end() ? std::string() : it->second.tcp->protection();
}

Result<std::uint64_t> PhoneLink::connection_for(const Path& path) {
    SecuritySet* set = find(path.set);
    std::uint64_t& slot = slot_for(path);
    const auto known = connections_.find(slot);
    if (known != connections_.end() && known->second.tcp->is_open()) return slot;
    const Endpoint local = (set ? protected_address() : config_.local).with_port(set ? set->ue.port_c : 0);
    const Endpoint remote = set        ? config_.gateway.with_port(set->network.port_s)
                            : path.tls ? config_.gateway.with_port(config_.tls_port)
                                       : config_.gateway;
    const std::uint64_t id = next_connection_++;
    auto tcp =
        TcpConnection::connect(loop_, local, remote, events_for(id, path), path.tls ? config_.tls_context : nullptr);
    if (!tcp) return std::unexpected(tcp.error());
    connections_[id] = {path.set, std::move(*tcp)};
    slot = id;
    return id;
}

Result<void> PhoneLink::send(const std::string& text, const Path& path) {
    SecuritySet* set = find(path.set);
    if (path.set != kClear && !set) return fail("the SA set is gone");
    if (path.tcp) {
        const auto id = connection_for(path);
        if (!id) return std::unexpected(id.error());
        transmit(*connections_.at(*id).tcp, path, text);
        return {};
    }
    if (!set)
        if (auto ok = open_clear(); !ok) return ok;
    UdpPort& port = set ? *set->udp : *clear_udp_;
    const Endpoint to = set ? config_.gateway.with_port(set->network.port_s) : config_.gateway;
    log_.message({false, "udp", port.local(), to}, text);
    return port.send(text, to);
}

Result<void> PhoneLink::reply(const std::string& text, const Incoming& request) {
    if (request.path.tcp) {
        const auto it = connections_.find(request.connection);
        if (it != connections_.end() && it->second.tcp->is_open()) {
            transmit(*it->second.tcp, request.path, text);
            return {};
        }
    }
    if (request.path.tls) return send(text, kTlsPath);
    if (request.path.set == kClear && clear_udp_) {
        log_.message({false, "udp", clear_udp_->local(), request.remote}, text);
        return clear_udp_->send(text, request.remote);
    }
    return send(text, {request.path.set, false});
}

}  // namespace gmgate::peers
