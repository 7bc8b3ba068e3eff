#include "proxy.h"

#include "../common/crypto.h"
#include "../common/text.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace gmgate::peers {
namespace {

constexpr std::string_view kConnectionParameter = "gm-conn";

std::string uri_in(const std::string& route) {
    const auto value = NameAddr::parse(route);
    return value ? value->uri : std::string();
}

Result<ViaTarget> next_hop(const SipMessage& request) {
    const auto routes = request.list("Route");
    const auto uri = SipUri::parse(routes.empty() ? request.uri() : uri_in(routes.front()));
    if (!uri) return std::unexpected(uri.error());
    auto to = Endpoint::parse(uri->host, 5060);
    if (!to) return fail("next hop {}: gmcore resolves no names", uri->to_string());
    const std::string* transport = uri->parameters.find("transport");
    return ViaTarget{transport && (iequals(*transport, "tcp") || iequals(*transport, "tls")),
                     to->with_port(uri->port != 0 ? uri->port : 5060)};
}

// The same for a request and its retransmission, and for an INVITE and its CANCEL (RFC 3261 §16.11); another for each
// copy of a fork.
std::string stateless_branch(const SipMessage& request, std::size_t copy) {
    const std::string seed =
        request.branch() + '|' + request.call_id() + '|' + std::to_string(request.cseq()) + '|' + std::to_string(copy);
    return "z9hG4bK" + hash_hex(Hash::md5, {as_bytes(seed)}).substr(0, 20);
}

void aim_at(SipMessage& request, const Binding& binding) {
    request.set("P-Called-Party-ID", '<' + request.uri() + '>');  // RFC 7315 §4.2
    request.set_uri(binding.contact);
    request.set_list("Route", binding.path);
}

}  // namespace

void note_source(SipMessage& request, const Endpoint& from) {
    auto vias = request.list("Via");
    if (vias.empty()) return;
    auto via = Via::parse(vias.front());
    if (!via) return;
    if (via->host != from.host()) via->parameters.set("received", from.address());
    if (via->parameters.has("rport")) {
        via->parameters.set("received", from.address());
        via->parameters.set("rport", std::to_string(from.port()));
    }
    vias.front() = via->to_string();
    request.set_list("Via", vias);
}

bool Proxy::is_own_uri(const std::string& uri) const {
    const auto parsed = SipUri::parse(uri);
    const auto address = parsed ? Endpoint::parse(parsed->host, 5060) : fail("no URI");
    return address && link_.is_own(address->with_port(parsed->port != 0 ? parsed->port : 5060));
}

void Proxy::strip_own_routes(SipMessage& request) const {
    auto routes = request.list("Route");
    while (!routes.empty() && is_own_uri(uri_in(routes.front()))) routes.erase(routes.begin());
    request.set_list("Route", routes);
}

int Proxy::resolve_target(SipMessage& request) {
    if (User* user = users_.by_aor(request.uri())) {
        auto& bindings = user->live_bindings();
        if (bindings.empty()) return 480;
        aim_at(request, bindings.back());
        return 0;
    }
    const auto uri = SipUri::parse(request.uri());
    const bool in_dialog = !request.tag("To").empty();
    return in_dialog && uri && Endpoint::parse(uri->host, 5060) && !is_own_uri(request.uri()) ? 0 : 404;
}

void Proxy::refuse(const SipMessage& request, int status, const Origin& origin) {
    if (request.is("ACK")) return;
    link_.respond(SipMessage::response_to(request, status, "", random_token()), origin);
}

void Proxy::handle_request(SipMessage request, const Origin& origin) {
    note_source(request, origin.remote);
    const auto hops = to_number<unsigned>(request.get("Max-Forwards")).value_or(70);
    if (hops == 0) return refuse(request, 483, origin);
    request.set("Max-Forwards", std::to_string(hops - 1));
    strip_own_routes(request);
    if (forker_.take_request(request, origin)) return;
    if (request.list("Route").empty()) {
        const auto uri = SipUri::parse(request.uri());
        if (uri && uri->user == RegNotifier::kUser && is_own_uri(request.uri()) && request.is("SUBSCRIBE"))
            return notifier_.subscribe(request, origin);
        const bool to_core =
            uri && uri->user.empty() && (is_own_uri(request.uri()) || iequals(uri->host, users_.realm()));
        if (to_core) return refuse(request, request.is("OPTIONS") ? 200 : 405, origin);
        if (request.is("SUBSCRIBE") && iequals(trim(std::string_view(request.get("Event")).substr(0, 3)), "reg"))
            return notifier_.subscribe(request, origin);
        User* user = request.is("INVITE") && request.tag("To").empty() ? users_.by_aor(request.uri()) : nullptr;
        if (user != nullptr && user->live_bindings().size() > 1) return fork(request, origin, *user);
        if (const int status = resolve_target(request); status != 0) return refuse(request, status, origin);
    }
    const bool initial = request.tag("To").empty();
    const bool makes_dialog = request.is("INVITE") || request.is("SUBSCRIBE") || request.is("REFER");
    forward(std::move(request), origin, initial && makes_dialog);
}

void Proxy::fork(const SipMessage& request, const Origin& origin, const User& user) {
    std::vector<Forker::Branch> branches;
    for (const Binding& binding : user.bindings) {
        SipMessage copy = request;
        aim_at(copy, binding);
        auto branch = prepare(std::move(copy), origin, true, branches.size());
        if (!branch) return refuse(request, branch.error(), origin);
        branches.push_back(std::move(*branch));
    }
    forker_.start(request, std::move(branches));
}

void Proxy::forward(SipMessage request, const Origin& origin, bool record_route) {
    auto prepared = prepare(request, origin, record_route, 0);
    if (!prepared) return refuse(request, prepared.error(), origin);
    link_.send(prepared->request, prepared->tcp, prepared->to);
}

std::expected<Forker::Branch, int> Proxy::prepare(SipMessage request, const Origin& origin, bool record_route,
                                                  std::size_t copy) const {
    const auto hop = next_hop(request);
    const auto local = hop ? link_.address_towards(hop->to) : std::nullopt;
    if (!hop || !local) {
        log_.write({{"event", "error"}, {"text", hop ? "no address of that family" : hop.error().text}});
        return std::unexpected(500);
    }
    if (record_route) {
        // Two entries when the request changes address or transport here (RFC 5658), so that each side sees what it can
        // reach.
        if (origin.local != *local || origin.tcp != hop->tcp)
            request.add_front("Record-Route",
                              fmt::format("<sip:{}{};lr>", origin.local.to_string(), link_.uri_transport(origin.tcp)));
        request.add_front("Record-Route",
                          fmt::format("<sip:{}{};lr>", local->to_string(), link_.uri_transport(hop->tcp)));
    }
    Via via{std::string(hop->tcp ? link_.stream_name() : "UDP"), local->host(), local->port(), {}};
    via.parameters.set("branch", stateless_branch(request, copy));
    if (origin.tcp) via.parameters.set(kConnectionParameter, std::to_string(origin.connection));
    request.add_front("Via", via.to_string());
    return Forker::Branch{std::move(request), hop->tcp, hop->to};
}

void Proxy::handle_response(SipMessage received) {
    auto passed = forker_.take_response(std::move(received));
    if (!passed || notifier_.take_response(*passed)) return;
    SipMessage response = std::move(*passed);
    auto vias = response.list("Via");
    const auto own = vias.empty() ? fail("no Via") : Via::parse(vias.front());
    const auto address = own ? Endpoint::parse(own->host, 5060) : fail("no Via");
    if (!address || !link_.is_own(address->with_port(own->port)) || vias.size() < 2) return;  // not ours: dropped
    vias.erase(vias.begin());
    response.set_list("Via", vias);
    const std::string* connection = own->parameters.find(kConnectionParameter);
    if (connection && link_.send_on(to_number<std::uint64_t>(*connection).value_or(0), response)) return;
    if (const auto target = via_target(response)) link_.send(response, target->tcp, target->to);
}

}  // namespace gmgate::peers
