#include "daemon/core/core_link.h"

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/random.h"
#include "base/spawn.h"
#include "daemon/core/possible_hop.h"
#include "daemon/registrations/table.h"
#include "sip/transport/way_back.h"

namespace gmgate::daemon {

namespace {

constexpr std::size_t kDatagramLimit = 1300;  // RFC 3261 §18.1.1: path MTU unknown
constexpr std::size_t kCoreAddresses = 4096;  // learnt; an operator's core has tens
constexpr std::chrono::milliseconds kPingPatience{8000};
constexpr std::chrono::seconds kLookAgain{30};  // after names, without pings
constexpr std::size_t kAlone = 64;              // connections for one request each; they end with its answer

std::uint64_t draw(std::uint64_t most) { return random_u64() % (most + 1); }

}  // namespace

sip::Transport to_sip(CoreTransport transport) {
    switch (transport) {
        case CoreTransport::udp:
            return sip::Transport::udp;
        case CoreTransport::tcp:
            return sip::Transport::tcp;
        case CoreTransport::tls:
            return sip::Transport::tls;
    }
    return sip::Transport::udp;
}

CoreTransport transport_for(std::size_t octets, CoreTransport wanted) {
    return wanted == CoreTransport::udp && octets > kDatagramLimit ? CoreTransport::tcp : wanted;
}

CoreLink::CoreLink(const Core& core, sip::Transports& transports, sip::Transactions& transactions)
    : core_(core),
      transports_(transports),
      transactions_(transactions),
      connector_(transports),
      health_(clock_),
      hops_(clock_),
      busy_(clock_),
      overload_control_(clock_, draw) {
    for (const Endpoint& local : core.listen) {
        if (core.listen_for(local.address.family()) != &local) continue;
        const std::string host = local.to_string();
        sides_.push_back({local, host, host + std::string(uri_transport(core.transport))});
    }
    note_next_hops();
}

void CoreLink::note_next_hops(const std::vector<Target>& resolved) {
    hops_.forget_current();
    for (const auto* hops : {&core_.next_hops, &core_.emergency_next_hops})
        for (const NextHop& hop : *hops) {
            if (!hop.host.empty()) continue;
            note_target(hop.endpoint, hop.transport.value_or(core_.transport));
            hops_.note_current(hop.endpoint);
        }
    for (const Target& target : resolved) hops_.note_current(target.endpoint);
}

bool CoreLink::is_core_side(const sip::Flow& flow) const {
    if (core_.listens_at(flow.local)) return true;
    return sip::is_reliable(flow.transport) &&
           (alone_.contains(flow.connection) || std::ranges::any_of(connections_, [&](const auto& known) {
                return known.second.connection == flow.connection;
            }));
}

const CoreSide& CoreLink::side_for(Family family) const {
    const auto at = std::ranges::find(sides_, family, [](const CoreSide& side) { return side.local.address.family(); });
    return at == sides_.end() ? sides_.front() : *at;
}

sip::Door CoreLink::door_of(const sip::Flow& flow) {
    return {.owner = kCoreOwner,
            .transport = flow.transport,
            .local = {flow.local.address, Port{}},
            .remote = flow.remote.address};
}

bool CoreLink::is_core_address(const Address& address) const { return core_addresses_.contains(address); }

void CoreLink::note_request(const sip::Flow& came, const sip::Message& request) {
    if (core_addresses_.size() < kCoreAddresses) core_addresses_.insert(came.remote.address);
    const auto via = sip::top_via(request);
    if (!via) return;
    Endpoint to = sip::answer_way(came, *via).remote;
    if (sip::is_reliable(came.transport))  // should its connection end meanwhile (RFC 3261 §18.2.2)
        to.port = via->port.value != 0 ? via->port : sip::default_port(came.transport);
    note_answers(came.transport, to);
}

void CoreLink::note_target(const Endpoint& endpoint, CoreTransport transport) {
    if (core_addresses_.size() < kCoreAddresses) core_addresses_.insert(endpoint.address);
    note_answers(to_sip(transport), endpoint);
}

void CoreLink::note_answers(sip::Transport transport, const Endpoint& at) {
    if (answer_places_.size() < kCoreAddresses) answer_places_.emplace(transport, at);
}

bool CoreLink::takes_answers(sip::Transport transport, const Endpoint& at) const {
    return answer_places_.contains({transport, at});
}

// ------------------------------------------------------------------------------------------------------------------
// targets

Target CoreLink::at(const Endpoint& endpoint, CoreTransport transport) const {
    Target target;
    target.endpoint = endpoint;
    target.transport = transport;
    return target;
}

Target CoreLink::target_at(const NextHop& hop) const {
    Target target = at(hop.endpoint, hop.transport.value_or(core_.transport));
    target.priority = std::uint32_t{hop.priority} << 16;
    target.weight = hop.weight;
    target.tls_name = hop.tls_name;
    return target;
}

// The addresses of one next hop.
Task<Result<std::vector<Target>>> CoreLink::targets_of(NextHop hop) {
    if (hop.host.empty()) co_return std::vector<Target>{target_at(hop)};
    if (!resolver_)
        resolver_ = std::make_unique<Resolver>(
            co_await asio::this_coro::executor, clock_, core_.name_servers,
            sides_.size() == 1 ? std::optional(core_.listen.front().address.family()) : std::nullopt, ResolverLimits{},
            [this](const Endpoint& answer) { return may_be_core(core_, transports_, answer); });
    Result<std::vector<Target>> found = co_await resolver_->resolve(hop, core_.transport);
    if (!found) co_return found;
    for (Target& target : *found) {
        note_target(target.endpoint, target.transport);
        target.tls_name = hop.tls_name;
    }
    co_return found;
}

Task<Result<std::vector<Target>>> CoreLink::resolve(std::vector<NextHop> hops, Disabled disabled) {
    std::vector<Target> all;
    std::string why = "no next hop is configured";
    for (const NextHop& hop : hops) {
        Result<std::vector<Target>> found;
        if (hop.host.empty()) {
            found->push_back(target_at(hop));
        } else {
            NextHop one = hop;
            found = co_await targets_of(std::move(one));
        }
        if (!found) {
            why = found.error().text;
            continue;
        }
        if (disabled == Disabled::left_out &&
            std::erase_if(*found, [this](const Target& t) { return hops_.is_disabled(t); }) != 0)
            why = "every next hop that is known is disabled by the operator";
        std::ranges::move(*found, std::back_inserter(all));
    }
    if (all.empty()) co_return failure(Reaction::retry, why);
    // Those that answer, those that are busy, those that do not answer.
    all = order_targets(
        std::move(all), [this](const Target& t) { return busy_.is_resting(t.endpoint); }, draw);
    std::ranges::stable_partition(all, [this](const Target& t) { return !health_.is_down(t.endpoint); });
    co_return all;
}

Task<Result<std::vector<Target>>> CoreLink::next_hops() { return resolve(core_.next_hops); }

Task<Result<std::vector<Target>>> CoreLink::emergency_next_hops() {
    return resolve(core_.emergency_next_hops.empty() ? core_.next_hops : core_.emergency_next_hops);
}

// A dialog goes on at an element that is disabled, one of the first `own`; what has to go elsewhere goes to none of
// those, unless there is no other.
void CoreLink::leave_out_disabled(std::vector<Target>& targets, std::ptrdiff_t own) const {
    const auto rest =
        std::remove_if(targets.begin() + own, targets.end(), [this](const Target& t) { return hops_.is_disabled(t); });
    if (rest != targets.begin()) targets.erase(rest, targets.end());
}

Task<Result<std::vector<Target>>> CoreLink::targets_for(std::string route_uri, std::vector<std::string> service_route) {
    const auto uri = sip::Uri::parse(route_uri);
    if (!uri || !uri->is_sip()) co_return co_await next_hops();
    NextHop hop;
    const bool over_tls = core_.transport == CoreTransport::tls;  // then nothing goes in clear, whatever the URI says
    if (over_tls) hop.transport = CoreTransport::tls;
    else if (const auto parameter = uri->parameter("transport"); parameter && sip::same_token(*parameter, "tcp"))
        hop.transport = CoreTransport::tcp;
    else if (parameter && sip::same_token(*parameter, "udp")) hop.transport = CoreTransport::udp;
    const auto is_service_route = [&](const std::string& element) {
        const auto address = sip::NameAddr::parse(element);
        const auto known = address ? sip::Uri::parse(address->uri) : std::nullopt;
        return known && sip::same_token(known->host, uri->host) && known->port == uri->port;
    };
    const bool is_trusted = core_.follow_route && std::ranges::any_of(service_route, is_service_route);

    Result<std::vector<Target>> hops = co_await resolve(core_.next_hops, Disabled::kept);
    if (const auto address = Address::parse(uri->host)) {
        const sip::Transport over = over_tls ? sip::Transport::tls : sip::Transport::udp;
        const Endpoint endpoint{*address, uri->port.value != 0 ? uri->port : sip::default_port(over)};
        if (hops) {  // the dialog stays with the next hop that took it; the others stand in when it is dead
            const auto at_it =
                std::ranges::stable_partition(*hops, [&](const Target& t) { return t.endpoint == endpoint; });
            const auto own = at_it.begin() - hops->begin();
            leave_out_disabled(*hops, own);
            if (own != 0) {
                if (health_.is_down(endpoint)) std::rotate(hops->begin(), hops->begin() + own, hops->end());
                co_return hops;
            }
        }
        if (!core_.emergency_next_hops.empty()) {  // an emergency call goes on at its E-CSCF
            Result<std::vector<Target>> urgent = co_await emergency_next_hops();
            if (urgent) std::erase_if(*urgent, [&](const Target& t) { return t.endpoint != endpoint; });
            if (urgent && !urgent->empty()) co_return urgent;
        }
        const auto transport = hop.transport.value_or(core_.transport);
        // The far end of a call writes of the route set, too: at an element of the core it may name what the core
        // itself uses, and no other port.
        const bool may_follow = core_.follow_route && core_.listen_for(address->family()) != nullptr &&
                                (is_trusted || takes_answers(to_sip(transport), endpoint));
        if (!may_follow) co_return hops;
        note_target(endpoint, transport);
        co_return std::vector<Target>{at(endpoint, transport)};
    }
    if (hops) leave_out_disabled(*hops, 0);
    if (!is_trusted) co_return hops;
    hop.host = std::string(uri->host);
    hop.endpoint.port = uri->port;
    std::vector<NextHop> only{std::move(hop)};
    Result<std::vector<Target>> found = co_await resolve(std::move(only));
    co_return found ? found : hops;
}

// ------------------------------------------------------------------------------------------------------------------
// sending

Task<Result<CoreLink::Way>> CoreLink::way_to(Endpoint to, CoreTransport transport, std::string tls_name,
                                             Traffic traffic) {
    Way way;
    if (transport == CoreTransport::udp) {
        way.flow.transport = sip::Transport::udp;
        way.flow.local = side_for(to.address.family()).local;
        way.flow.remote = to;
        co_return way;
    }
    const std::tuple key(to, transport, tls_name, traffic);
    if (const auto known = connections_.find(key); known != connections_.end()) {
        if (transports_.is_open(known->second.connection)) {
            way.flow = known->second;
            way.is_old = true;
            co_return way;
        }
        connections_.erase(known);
    }
    const Endpoint from{side_for(to.address.family()).local.address, Port{0}};
    const Result<sip::Flow> opened =
        co_await connector_.connect(from, to, to_sip(transport), std::move(tls_name), static_cast<unsigned>(traffic));
    if (!opened) co_return std::unexpected(opened.error());
    connections_[key] = *opened;
    way.flow = *opened;
    co_return way;
}

Task<Result<CoreLink::Way>> CoreLink::way_alone(Endpoint to, CoreTransport transport, std::string tls_name) {
    std::erase_if(alone_, [this](sip::ConnectionId connection) { return !transports_.is_open(connection); });
    if (transport == CoreTransport::udp || alone_.size() >= kAlone)
        co_return co_await way_to(to, transport, std::move(tls_name), Traffic::strangers);
    const Endpoint from{side_for(to.address.family()).local.address, Port{0}};
    const Result<sip::Flow> opened =
        co_await connector_.connect_alone(from, to, to_sip(transport), std::move(tls_name));
    if (!opened) co_return std::unexpected(opened.error());
    alone_.insert(opened->connection);
    transports_.keep_open(opened->connection, false);  // when nobody closes it
    Way way;
    way.flow = *opened;
    co_return way;
}

Task<Result<void>> CoreLink::send_stateless(CoreAttempts::Build build, std::vector<Target> targets, Traffic traffic) {
    if (targets.empty()) co_return failure(Reaction::broken, "no element of the core is known");
    const Target target = targets.front();
    const CoreSide& side = side_for(target.endpoint.address.family());
    std::string text = build(to_sip(target.transport), side);
    const CoreTransport transport = transport_for(text.size(), target.transport);
    if (transport != target.transport) text = build(to_sip(transport), side);
    Result<Way> way = co_await way_to(target.endpoint, transport, target.tls_name, traffic);
    if (!way && target.transport == CoreTransport::udp) {
        text = build(sip::Transport::udp, side);
        way = co_await way_to(target.endpoint, CoreTransport::udp);
    }
    if (!way) co_return std::unexpected(way.error());
    co_return transactions_.send_stateless(std::move(text), way->flow);
}

Task<Result<void>> CoreLink::send_stateless(std::string bytes, sip::Transport transport, Endpoint to) {
    const CoreTransport over = core_.transport == CoreTransport::tls ? CoreTransport::tls
                               : sip::is_reliable(transport)         ? CoreTransport::tcp
                                                                     : CoreTransport::udp;
    std::string tls_name;  // that of a connection to it which stands already
    for (const auto& [key, flow] : connections_)
        if (std::get<Endpoint>(key) == to && std::get<CoreTransport>(key) == over &&
            transports_.is_open(flow.connection))
            tls_name = std::get<std::string>(key);
    const Result<Way> way = co_await way_to(to, over, std::move(tls_name));
    if (!way) co_return std::unexpected(way.error());
    co_return transactions_.send_stateless(std::move(bytes), way->flow);
}

// -------------------------------------------------------------------------------------------------------------------
// health

void CoreLink::took(const Target& target, TimePoint sent_at) {
    hops_.answered(target.endpoint, clock_.now() - sent_at);
}

void CoreLink::answered(const Target& target) {
    hops_.came_up(target.endpoint);
    if (busy_.answered(target.endpoint))
        log::notice("next-hop-ready", {{"next-hop", target.endpoint.to_string()}, {"name", target.host}});
    if (health_.answered(target.endpoint))
        log::notice("next-hop-up", {{"next-hop", target.endpoint.to_string()}, {"name", target.host}});
}

void CoreLink::log_down(const Target& target, std::string_view why) {
    hops_.went_down(target.endpoint, why);
    log::warning("next-hop-down", {{"next-hop", target.endpoint.to_string()}, {"name", target.host}, {"reason", why}});
}

void CoreLink::log_busy(const Target& target, std::string_view why) {
    log::warning("next-hop-busy", {{"next-hop", target.endpoint.to_string()}, {"name", target.host}, {"reason", why}});
}

void CoreLink::failed(const Target& target, std::string_view why) {
    if (health_.failed(target.endpoint)) log_down(target, why);
}

void CoreLink::silent(const Target& target, TimePoint since, std::string_view why) {
    if (health_.silent(target.endpoint, since)) log_down(target, why);
}

void CoreLink::doubt(const Target& target, TimePoint since, std::string_view why) {
    if (!pinging_on_ || health_.is_down(target.endpoint)) return silent(target, since, why);
    if (doubted_.insert(target.endpoint).second) spawn(*pinging_on_, ask_about(target), "ping");
}

Task<void> CoreLink::ask_about(Target target) {
    co_await ping(target);
    doubted_.erase(target.endpoint);
}

Task<void> CoreLink::ping(Target target) {
    const std::string to = fmt::format("sip:{}", target.endpoint.to_string());
    const auto build = [&](sip::Transport transport) {
        return fmt::format(
            "OPTIONS {0} SIP/2.0\r\nVia: SIP/2.0/{1} {2};branch={3}\r\nMax-Forwards: 0\r\nFrom: <sip:{2}>;tag={4}\r\nTo: <{0}>\r\n"
            "Call-ID: {5}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
            to, sip::to_string(transport), side_for(target.endpoint.address.family()).via_host,
            sip::Transactions::new_branch(), random_hex(8), random_hex(16));
    };
    Result<Way> way = co_await way_to(target.endpoint, target.transport, target.tls_name);
    if (!way) co_return failed(target, way.error().text);
    sip::SendOptions options;
    options.patience = kPingPatience;
    const TimePoint sent_at = clock_.now();
    busy_.sending(target.endpoint);
    const auto client = transactions_.send(with_overload_offer(build(to_sip(target.transport))), way->flow, options);
    const Result<sip::OwnedMessage> response = co_await client->next();
    judge_ping(target, sent_at, response);
}

void CoreLink::judge_ping(const Target& target, TimePoint sent_at, const Result<sip::OwnedMessage>& response) {
    if (!response && response.error().reaction == Reaction::exhausted)
        return;  // our own limit says nothing of the element
    if (!response && response.error().reaction == Reaction::retry)
        return silent(target, sent_at, response.error().text);
    if (!response) return failed(target, response.error().text);
    overload_control_.learn(target.endpoint, **response);
    hops_.answered_ping(target.endpoint, clock_.now() - sent_at);
    if ((*response)->status() != 503) return answered(target);  // 483 and 404 are signs of life, too
    if (busy_.refused_ping(target.endpoint, retry_after_of((*response)->value(sip::HeaderId::retry_after))))
        log_busy(target, "503 to OPTIONS");
}

Task<void> CoreLink::watch_next_hops() {
    const auto executor = co_await asio::this_coro::executor;
    asio::steady_timer timer(executor);
    const bool pings = core_.ping_interval.count() != 0;
    if (pings) pinging_on_ = executor;
    for (;;) {  // a reload may have changed them
        std::vector<NextHop> hops = core_.next_hops;
        hops.insert(hops.end(), core_.emergency_next_hops.begin(), core_.emergency_next_hops.end());
        const bool has_names = std::ranges::any_of(hops, [](const NextHop& hop) { return !hop.host.empty(); });
        Result<std::vector<Target>> targets = std::vector<Target>{};
        if (pings || has_names) targets = co_await resolve(std::move(hops), Disabled::kept);
        if (targets) note_next_hops(*targets);
        if (targets && pings)
            for (const Target& target : *targets)
                if (!busy_.asked_for_rest(target.endpoint)) spawn(executor, ping(target), "ping");
        timer.expires_after(pings ? core_.ping_interval : kLookAgain);
        asio::error_code stopped;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, stopped));
        if (stopped) co_return;
    }
}

}  // namespace gmgate::daemon
