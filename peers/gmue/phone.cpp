#include "phone.h"

#include "calls.h"

#include "../common/sip_uri.h"
#include "../common/sms.h"
#include "../common/text.h"

#include <algorithm>

namespace gmgate::peers {

Phone::Phone(PhoneEnvironment environment, PhoneConfig config)
    : env_(std::move(environment)),
      config_(std::move(config)),
      link_(env_.loop, env_.sas, env_.spis, env_.log, config_,
            {[this](Incoming incoming) { on_incoming(std::move(incoming)); },
             [this](std::string why, const Endpoint& from) {
                 emit({{"event", "dropped"},
                       {"why", std::move(why)},
                       {"from", from.to_string()},
                       {"count", link_.dropped_count()}});
             },
             [this](std::string text) {
                 emit({{"event", "transport"}, {"text", std::move(text)}});
             },
             [this](const std::string& why) { transactions_.on_tls_lost(why); }}),
      transactions_(env_.loop, link_, config_),
      calls_(std::make_unique<Calls>(*this)) {}

Phone::~Phone() {
    calls_.reset();
    background_.clear();
}

void Phone::emit(nlohmann::json event) const {
    event["phone"] = config_.impi;
    env_.emit(std::move(event));
}

std::string Phone::contact() const {
    const auto uri = SipUri::parse(config_.impu);
    const std::string user = uri && !uri->user.empty() ? uri->user : "gmue";
    const bool tls = config_.tls != TlsUse::none;
    const Path server = tls ? kTlsPath : Path{config_.ipsec ? SetId{1} : kClear, false};
    return fmt::format("<sip:{}@{}{}{}>", user, link_.sent_by(server),
                       tls                         ? ";transport=tls"
                       : config_.register_over_tcp ? ";transport=tcp"
                                                   : "",
                       config_.emergency ? ";sos" : "");
}

nlohmann::json Phone::status() const {
    nlohmann::json out{{"event", "status"},
                       {"registered", registered_},
                       {"impu", config_.impu},
                       {"expires", granted_},
                       {"dropped", link_.dropped_count()}};
    out["service_route"] = service_route_;
    out["associated_uris"] = associated_uris_;
    out["local"] = config_.local.address();
    nlohmann::json sets = nlohmann::json::array();
    for (const SetId id : link_.sets()) {
        const SecuritySet& set = *link_.find(id);
        if (!set.kernel) continue;
        nlohmann::json entry{
            {"alg", name(set.pair.alg)},     {"ealg", name(set.pair.ealg)}, {"spi_uc", set.ue.spi_c},
            {"spi_us", set.ue.spi_s},        {"spi_pc", set.network.spi_c}, {"spi_ps", set.network.spi_s},
            {"port_uc", set.ue.port_c},      {"port_us", set.ue.port_s},    {"port_pc", set.network.port_c},
            {"port_ps", set.network.port_s}, {"in_use", id == current_}};
        if (id == current_) out.update(entry);
        sets.push_back(std::move(entry));
    }
    out["sets"] = std::move(sets);
    if (config_.tls != TlsUse::none) out["tls"] = link_.tls_protection();
    return out;
}

std::string Phone::registered_text() const {
    const nlohmann::json s = status();
    if (config_.tls != TlsUse::none)
        return fmt::format("{} by tls, {}, {}, expires {}", config_.impu, link_.tls_protection(), config_.local.host(),
                           granted_);
    if (!config_.ipsec) return fmt::format("{} without security, expires {}", config_.impu, granted_);
    return fmt::format("{} by ipsec-3gpp {}/{}, {}, {}:{},{} -> port_ps {} port_pc {}, expires {}", config_.impu,
                       s.value("alg", "?"), s.value("ealg", "?"), config_.register_over_tcp ? "TCP" : "UDP",
                       config_.local.host(), s.value("port_uc", 0), s.value("port_us", 0), s.value("port_ps", 0),
                       s.value("port_pc", 0), granted_);
}

void Phone::on_incoming(Incoming incoming) {
    if (config_.faults.lose_200 && !incoming.message.is_request() && incoming.message.method() == "REGISTER" &&
        incoming.message.status() == 200)
        return;
    note_use(incoming);
    if (incoming.message.is_request()) return on_request(incoming);
    if (transactions_.on_response(incoming.message)) return;
    calls_->on_stray_response(incoming.message);
}

// A message over the new set, other than the 200 that created it, tells that the network uses it: the old one can go.
void Phone::note_use(const Incoming& incoming) {
    if (old_ == kClear || incoming.path.set != current_) return;
    if (!incoming.message.is_request() && incoming.message.method() == "REGISTER") return;
    if (transactions_.pending_on(old_) != 0) return;
    remove_set(std::exchange(old_, kClear), "new-set-in-use");
}

Task<void> Phone::drop_set_later(SetId id) {
    co_await sleep_for(env_.loop, config_.old_set_grace);
    if (old_ != id) co_return;
    old_ = kClear;
    remove_set(id, "grace-over");
}

void Phone::on_request(const Incoming& incoming) {
    if (transactions_.absorb(incoming)) return;
    const SipMessage& request = incoming.message;
    for (const char* method : {"INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE"})
        if (request.is(method)) return calls_->on_request(incoming);
    const bool known = request.is("MESSAGE") || request.is("OPTIONS") || request.is("INFO") || request.is("NOTIFY");
    emit({{"event", request.is("MESSAGE") ? "message_received" : "request_received"},
          {"method", request.method()},
          {"from", request.uri_of("From")},
          {"body", request.body},
          {"transport", incoming.path.tls   ? "tls"
                        : incoming.path.tcp ? "tcp"
                                            : "udp"},
          {"local", incoming.local.to_string()},
          {"remote", incoming.remote.to_string()},
          {"protected", incoming.path.is_protected()},
          {"call_id", request.call_id()}});
    transactions_.respond(incoming, SipMessage::response_to(request, known ? 200 : 405, "", random_token()));
    if (request.is("MESSAGE") && iequals(request.get("Content-Type"), kSmsType)) on_sms(request);
}

void Phone::on_sms(const SipMessage& request) {
    const auto rp = read_rp(request.body);
    const auto kind = !rp                                 ? "broken"
                      : rp->kind == RpMessage::Kind::data ? "data"
                      : rp->kind == RpMessage::Kind::ack  ? "ack"
                                                          : "error";
    emit({{"event", "sms_received"},
          {"kind", kind},
          {"reference", rp ? rp->reference : 0},
          {"number", rp ? rp->number : ""},
          {"text", rp ? rp->text : ""},
          {"cause", rp ? rp->cause : 0},
          {"in_reply_to", std::string(request.get("In-Reply-To"))}});
    if (rp && rp->kind == RpMessage::Kind::data) background_.spawn(acknowledge_sms(request, rp->reference));
}

// TS 24.341 §5.3.2.4: to the IP-SM-GW, which P-Asserted-Identity names, with the Call-ID of what is acknowledged.
Task<void> Phone::acknowledge_sms(SipMessage request, std::uint8_t reference) {
    const std::string asserted = request.uri_of("P-Asserted-Identity");
    SipMessage answer = out_of_dialog("MESSAGE", asserted.empty() ? request.uri_of("From") : asserted);
    answer.add("In-Reply-To", std::string(request.call_id()));
    answer.add("Content-Type", std::string(kSmsType));
    answer.body = rp_ack(reference);
    (void)co_await simple_request(std::move(answer), "sms_acknowledged");
}

std::vector<std::string> Phone::route_set() const {
    std::vector<std::string> out;
    if (const SecuritySet* set = link_.find(current_))
        out.push_back(fmt::format("<sip:{}:{};lr>", config_.gateway.host(), set->network.port_s));
    else if (config_.tls != TlsUse::none)
        out.push_back(fmt::format("<sip:{}:{};transport=tls;lr>", config_.gateway.host(), config_.tls_port));
    else out.push_back(fmt::format("<sip:{};lr>", config_.gateway.to_string()));
    out.insert(out.end(), service_route_.begin(), service_route_.end());
    // Straight at a core its Service-Route is the next hop already.
    if (!config_.ipsec && config_.tls == TlsUse::none && service_route_.size() == 1 &&
        service_route_[0].find(config_.gateway.to_string()) != std::string::npos)
        out.erase(out.begin());
    return out;
}

// RFC 3329 §2.3.1: every later request mirrors Security-Server; ACK and CANCEL never carry Require (requirements
// A-15a).
void Phone::add_sec_agree(SipMessage& request) const {
    const std::vector<std::string>* list = agreed_list();
    if (!list || !config_.security_verify) return;
    request.add("Require", "sec-agree");
    request.add("Proxy-Require", "sec-agree");
    request.add("Security-Verify", join(*list, ", "));
}

const std::vector<std::string>* Phone::agreed_list() const {
    if (config_.tls == TlsUse::during_registration) return tls_server_list_.empty() ? nullptr : &tls_server_list_;
    const SecuritySet* set = link_.find(current_);
    return set ? &set->server_list : nullptr;
}

SipMessage Phone::out_of_dialog(std::string method, const std::string& uri) {
    SipMessage out = SipMessage::request(method, uri);
    out.add("Max-Forwards", "70");
    const bool pretends = config_.faults.made_up_tag;
    auto routes = route_set();
    if (pretends) routes.resize(std::min<std::size_t>(routes.size(), 1));
    for (const std::string& route : routes) out.add("Route", route);
    out.add("From", fmt::format("<{}>;tag={}", config_.impu, random_token()));
    out.add("To", pretends ? fmt::format("<{}>;tag={}", uri, random_token()) : fmt::format("<{}>", uri));
    out.add("Call-ID", random_token(20) + '@' + config_.local.host());
    out.add("CSeq", "1 " + method);
    out.add("P-Preferred-Identity", fmt::format("<{}>", config_.impu));
    out.add("P-Access-Network-Info", "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=0010100010000101");
    add_sec_agree(out);
    for (const Header& header : config_.extra_headers) out.add(header.name, header.value);
    return out;
}

Task<Verdict> Phone::simple_request(SipMessage request, std::string event) {
    const auto start = Clock::now();
    const std::string to = request.uri();
    const Reply reply = co_await transactions_.request(std::move(request), path(config_.message_over_tcp), nullptr);
    Verdict out;
    out.took = Clock::now() - start;
    if (reply.response) {
        out.status = reply.response->status();
        out.ok = out.status < 300;
        out.reason = out.ok ? "ok" : fmt::format("status-{}", out.status);
        out.detail = fmt::format("{} {}", out.status, reply.response->reason());
    } else {
        out.reason = reply.failure == "timeout" ? "timeout" : "send-failed";
        out.detail = reply.failure;
    }
    emit({{"event", std::move(event)},
          {"to", to},
          {"ok", out.ok},
          {"status", out.status},
          {"reason", out.reason},
          {"call_id", reply.request.call_id()},
          {"ms", std::chrono::duration<double, std::milli>(out.took).count()}});
    co_return out;
}

Task<Verdict> Phone::message(std::string to, std::string text) {
    SipMessage request = out_of_dialog("MESSAGE", to);
    request.add("Content-Type", "text/plain");
    request.body = std::move(text);
    co_return co_await simple_request(std::move(request), "message_sent");
}

Task<Verdict> Phone::sms(std::string centre, std::string number, std::string text) {
    const auto uri = SipUri::parse(centre);
    const auto digits = uri ? std::string(uri->user) : std::string();
    auto body = rp_data(++sms_reference_, digits, number, text);
    if (!body) body = rp_data(sms_reference_, number, number, text);  // the centre's URI has no number in it
    if (!body) {
        const Verdict out{false, 0, "local", "the number or the text does not fit one short message", {}};
        emit({{"event", "sms_sent"}, {"to", centre}, {"ok", false}, {"status", 0}, {"reason", out.reason}});
        co_return out;
    }
    SipMessage request = out_of_dialog("MESSAGE", centre);
    request.add("Content-Type", std::string(kSmsType));
    request.body = std::move(*body);
    co_return co_await simple_request(std::move(request), "sms_sent");
}

Task<Verdict> Phone::options(std::string to) {
    SipMessage request = out_of_dialog("OPTIONS", to);
    co_return co_await simple_request(std::move(request), "options_sent");
}

Task<Verdict> Phone::subscribe() {
    SipMessage request = out_of_dialog("SUBSCRIBE", config_.impu);
    request.add("Contact", contact());
    request.add("Event", "reg");
    request.add("Accept", "application/reginfo+xml");
    request.add("Expires", std::to_string(config_.expires));
    co_return co_await simple_request(std::move(request), "subscribed");
}

void Phone::inject(const std::string& bytes) {
    const auto sent = link_.send(bytes, path(config_.message_over_tcp));
    emit({{"event", "injected"}, {"ok", sent.has_value()}, {"detail", sent ? "" : sent.error().text}});
}

Task<Verdict> Phone::call(std::string to, Duration talk) { return calls_->call(std::move(to), talk); }
void Phone::hang_up() { calls_->hang_up(); }
void Phone::pick_up() { calls_->pick_up(); }
Task<void> Phone::cancel_calls() { return calls_->cancel(); }
Task<void> Phone::renegotiate(std::string method, std::string direction) {
    return calls_->renegotiate(std::move(method), std::move(direction));
}

}  // namespace gmgate::peers
