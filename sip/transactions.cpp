#include "sip/transactions.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/random.h"
#include "sip/client_transaction.h"
#include "sip/edit.h"
#include "sip/headers.h"
#include "sip/server_transaction.h"
#include "sip/spawn.h"

namespace gmgate::sip {
namespace {

constexpr std::string_view kMagicCookie = "z9hG4bK";
constexpr int kRetryAfterSeconds = 10;

std::string lower(std::string_view text) {
    std::string out(text);
    std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return out;
}

/// The method that names the transaction: an ACK belongs to its INVITE.
std::string_view transaction_method(const Message& request) { return request.method() == Method::ack ? "INVITE" : request.method_name(); }

}  // namespace

// --- what both kinds share

void TransactionTimer::retransmit_in(std::chrono::milliseconds delay) {
    retransmit_at_ = std::chrono::steady_clock::now() + delay;
    rearm();
}

void TransactionTimer::end_in(std::chrono::milliseconds delay) {
    end_at_ = std::chrono::steady_clock::now() + delay;
    rearm();
}

void TransactionTimer::stop_retransmission() {
    retransmit_at_ = TimePoint::max();
    rearm();
}

void TransactionTimer::stop_timers() {
    retransmit_at_ = end_at_ = TimePoint::max();
    disarm();
}

void TransactionTimer::rearm() {
    const TimePoint at = std::min(retransmit_at_, end_at_);
    if (at == TimePoint::max())
        disarm();
    else
        arm(at);
}

void TransactionTimer::on_timer() {
    const auto held = hold();
    const TimePoint now = std::chrono::steady_clock::now();
    if (end_at_ <= now) {
        end_at_ = retransmit_at_ = TimePoint::max();
        on_end();
    } else if (retransmit_at_ <= now) {
        retransmit_at_ = TimePoint::max();
        rearm();
        on_retransmit();
    } else {
        rearm();
    }
}

std::string TransactionCore::tag_for(std::string_view key) const { return fmt::format("{:016x}", siphash(tag_key, key)); }

std::optional<std::string> server_key(const Message& request, const Flow& flow, std::string_view method) {
    const auto via = top_via(request);
    if (!via) return std::nullopt;
    std::string key = flow.remote.address.to_string();
    const auto add = [&key](std::string_view part) {
        key += '\n';
        key += part;
    };
    const std::string_view branch = via->branch();
    if (branch.size() > kMagicCookie.size() && branch.starts_with(kMagicCookie)) {
        add(branch);
        add(lower(via->host));
        add(std::to_string(via->port.value == 0 ? 5060 : via->port.value));
    } else {
        add(request.request_uri());
        add(tag_of(request, HeaderId::from));
        add(request.value(HeaderId::call_id));
        add(std::to_string(request.cseq()));
        add(via->text);
    }
    add(method);
    return key;
}

std::string client_key(std::string_view branch, std::string_view method) {
    if (branch.empty()) return {};
    std::string key(branch);
    key += '\n';
    key += method;
    return key;
}

int status_of(std::string_view response) {
    constexpr std::string_view kVersion = "SIP/2.0 ";
    if (!response.starts_with(kVersion) || response.size() < kVersion.size() + 4) return 0;
    const auto status = parse_u32(response.substr(kVersion.size(), 3));
    return status && *status >= 100 && *status < 700 ? static_cast<int>(*status) : 0;
}

std::string derived_request(const Message& invite, std::string_view method, std::string_view to) {
    const auto via = top_via(invite);
    std::string out;
    out.reserve(invite.fields_end());
    const auto line = [&out](std::string_view name, std::string_view value) {
        out += name;
        out += ": ";
        out += value;
        out += "\r\n";
    };
    out += method;
    out += ' ';
    out += invite.request_uri();
    out += " SIP/2.0\r\n";
    line("Via", via ? via->text : std::string_view());
    invite.for_each(HeaderId::route, [&](const HeaderField& route) { line("Route", route.value); });
    line("Max-Forwards", "70");
    line("From", invite.value(HeaderId::from));
    line("To", to);
    line("Call-ID", invite.value(HeaderId::call_id));
    line("CSeq", std::to_string(invite.cseq()) + " " + std::string(method));
    line("Content-Length", "0");
    out += "\r\n";
    return out;
}

std::chrono::milliseconds time_until_t2(const Timers& timers) {
    std::chrono::milliseconds sum{0};
    for (auto interval = timers.t1; interval.count() > 0 && interval < timers.t2; interval *= 2) sum += interval;
    return std::max(sum, timers.t1);
}

// --- the layer

struct Transactions::Impl : TransactionCore, std::enable_shared_from_this<Transactions::Impl> {
    using TransactionCore::TransactionCore;

    void receive(OwnedMessage message, const Flow& flow);
    void receive_response(OwnedMessage response, const Flow& flow);
    void receive_request(OwnedMessage request, const Flow& flow);
    void receive_ack(OwnedMessage ack, const Flow& flow);
    void receive_cancel(OwnedMessage cancel, const Flow& flow);
    void begin(std::string key, OwnedMessage request, const Flow& flow);
    void refuse(const Message& request, const Flow& flow, std::string_view key);
    void stray(OwnedMessage message, const Flow& flow);
    std::shared_ptr<ServerFlow> find_server(const Message& request, const Flow& flow, std::string_view method) const;
    void connection_lost(const Flow& flow);
    std::unique_ptr<ClientTransaction> send(std::string_view request, const Flow& flow, SendOptions options);
    bool has_room(const Message& request, const Flow& flow);
    void stop();

    RequestHandler request_handler;
    StrayHandler stray_handler;
    std::function<bool(const Message&, const Flow&)> screen, is_urgent, must_shed;
};

void Transactions::Impl::receive(OwnedMessage message, const Flow& flow) {
    const auto self = shared_from_this();  // a handler may destroy the Transactions
    if (screen) {
        bool pass = false;
        guarded("screen", [&] { pass = screen(*message, flow); });
        if (!pass) return;
    }
    if (message->is_response())
        receive_response(std::move(message), flow);
    else if (message->method() == Method::ack)
        receive_ack(std::move(message), flow);
    else if (message->method() == Method::cancel)
        receive_cancel(std::move(message), flow);
    else
        receive_request(std::move(message), flow);
}

void Transactions::Impl::receive_response(OwnedMessage response, const Flow& flow) {
    const auto via = top_via(*response);
    const auto found = via ? clients.find(client_key(via->branch(), response->method_name())) : clients.end();
    if (found == clients.end()) {
        ++counters.stray_responses;
        stray(std::move(response), flow);
        return;
    }
    const auto client = found->second;
    client->receive(std::move(response));
}

std::shared_ptr<ServerFlow> Transactions::Impl::find_server(const Message& request, const Flow& flow, std::string_view method) const {
    const auto key = server_key(request, flow, method);
    const auto found = key ? servers.find(*key) : servers.end();
    return found == servers.end() ? nullptr : found->second;
}

void Transactions::Impl::receive_ack(OwnedMessage ack, const Flow& flow) {
    const auto key = server_key(*ack, flow, "INVITE");
    const auto found = key ? servers.find(*key) : servers.end();
    if (found != servers.end()) {
        const auto server = found->second;
        if (!server->receive_ack()) stray(std::move(ack), flow);
    } else if (!key || tag_of(*ack, HeaderId::to) != tag_for(*key)) {  // else to a refusal that left no transaction: absorbed
        stray(std::move(ack), flow);
    }
}

void Transactions::Impl::receive_cancel(OwnedMessage cancel, const Flow& flow) {
    if (const auto server = find_server(*cancel, flow, "INVITE"))
        server->receive_cancel(*cancel, flow);
    else
        stray(std::move(cancel), flow);
}

void Transactions::Impl::receive_request(OwnedMessage request, const Flow& flow) {
    auto key = server_key(*request, flow, transaction_method(*request));
    if (!key) return;  // the parser has seen a Via field, but its value is none: there is no way to answer
    if (const auto found = servers.find(*key); found != servers.end()) {
        const auto server = found->second;
        server->receive_retransmission();
    } else if (!has_room(*request, flow)) {
        ++counters.refused_limit;
        refuse(*request, flow, *key);
    } else if (must_shed && must_shed(*request, flow)) {
        ++counters.shed;
        refuse(*request, flow, *key);
    } else {
        begin(std::move(*key), std::move(request), flow);
    }
}

void Transactions::Impl::begin(std::string key, OwnedMessage request, const Flow& flow) {
    const auto server = std::make_shared<ServerFlow>(shared_from_this(), key, std::move(request), flow);
    servers.emplace(std::move(key), server);
    server->start();
    const bool done = request_handler && guarded("request handler", [&] { request_handler(server); });
    if (!done && !server->is_completed())
        (void)server->respond(make_response(server->request(), 500, "Server Internal Error", server->tag()));
}

bool Transactions::Impl::has_room(const Message& request, const Flow& flow) {
    const std::size_t in_use = servers.size();
    if (in_use + limits.urgent_reserve < limits.server_transactions) return true;
    return in_use < limits.server_transactions && is_urgent && is_urgent(request, flow);
}

/// Without a transaction, for there is no room for one: a retransmission gets another 503.
void Transactions::Impl::refuse(const Message& request, const Flow& flow, std::string_view key) {
    const auto route = transports.reply_route(flow);
    if (!route) return;
    const std::vector<std::string> extra{"Retry-After: " + std::to_string(kRetryAfterSeconds)};
    (void)transports.send(*route, make_response(request, 503, "Service Unavailable", tag_for(key), extra));
}

void Transactions::Impl::stray(OwnedMessage message, const Flow& flow) {
    if (stray_handler) guarded("stray handler", [&] { stray_handler(std::move(message), flow); });
}

void Transactions::Impl::connection_lost(const Flow& flow) {
    const auto found = clients_of.find(flow.connection);
    if (found == clients_of.end()) return;
    std::vector<std::shared_ptr<ClientFlow>> held;  // failing takes them out of the tables
    for (ClientFlow* client : found->second) held.push_back(client->shared_from_this());
    for (const auto& client : held) client->connection_lost();
}

std::unique_ptr<ClientTransaction> Transactions::Impl::send(std::string_view request, const Flow& flow, SendOptions options) {
    const auto failed = [](Reaction reaction, std::string text) { return std::make_unique<FailedClient>(Error{reaction, 0, std::move(text)}); };
    if (clients.size() + (options.is_urgent ? 0 : limits.urgent_reserve) >= limits.client_transactions) {
        ++counters.refused_limit;
        return failed(Reaction::exhausted, "the limit of client transactions is reached");
    }
    auto message = OwnedMessage::parse(request);
    if (!message) return failed(Reaction::internal, "a request of our own does not parse: " + std::string(message.error().reason));
    const auto via = top_via(**message);
    if (!(*message)->is_request() || (*message)->method() == Method::ack || !via || via->branch().empty())
        return failed(Reaction::internal, "a request of our own needs a Via with a branch, and ACK is sent without a transaction");
    auto key = client_key(via->branch(), (*message)->method_name());
    const auto client = std::make_shared<ClientFlow>(shared_from_this(), key, std::move(*message), flow);
    if (!clients.emplace(std::move(key), client).second) return failed(Reaction::internal, "the branch of a request of our own is in use");
    auto handle = std::make_unique<ClientHandle>(client);
    client->start(options.patience);
    return handle;
}

void Transactions::Impl::stop() {
    request_handler = nullptr;
    stray_handler = nullptr;
    screen = is_urgent = must_shed = nullptr;
    for (const auto& [key, server] : std::exchange(servers, {})) server->terminate();
    for (const auto& [key, client] : std::exchange(clients, {}))
        client->fail({Reaction::broken, 0, "the transaction layer is shut down"});
    timers->stop();
}

// --- the public face

Transactions::Transactions(asio::any_io_executor executor, Transports& transports, TransactionLimits limits,
                           std::function<Timers(const Flow&)> timers_for)
    : impl_(std::make_shared<Impl>(std::move(executor), transports, limits, std::move(timers_for))) {
    std::weak_ptr<Impl> weak = impl_;
    transports.on_message([weak](OwnedMessage message, const Flow& flow) {
        if (const auto self = weak.lock()) self->receive(std::move(message), flow);
    });
    transports.watch_closed([weak](const Flow& flow) {
        if (const auto self = weak.lock()) self->connection_lost(flow);
    });
}

Transactions::~Transactions() {
    impl_->transports.on_message(nullptr);
    impl_->transports.watch_closed(nullptr);
    impl_->stop();
}

void Transactions::on_request(RequestHandler handler) { impl_->request_handler = std::move(handler); }
void Transactions::on_stray(StrayHandler handler) { impl_->stray_handler = std::move(handler); }
void Transactions::set_screen(std::function<bool(const Message&, const Flow&)> screen) { impl_->screen = std::move(screen); }

void Transactions::set_urgent(std::function<bool(const Message&, const Flow&)> is_urgent) { impl_->is_urgent = std::move(is_urgent); }
void Transactions::set_shed(std::function<bool(const Message&, const Flow&)> must_shed) { impl_->must_shed = std::move(must_shed); }

std::unique_ptr<ClientTransaction> Transactions::send(std::string request, const Flow& flow, SendOptions options) {
    return impl_->send(request, flow, options);
}
Result<void> Transactions::send_stateless(std::string bytes, const Flow& flow) { return impl_->transports.send(flow, std::move(bytes)); }

std::string Transactions::new_branch() { return std::string(kMagicCookie) + random_hex(16); }

std::size_t Transactions::server_count() const { return impl_->servers.size(); }
std::size_t Transactions::client_count() const { return impl_->clients.size(); }
const TransactionCounters& Transactions::counters() const { return impl_->counters; }

}  // namespace gmgate::sip
