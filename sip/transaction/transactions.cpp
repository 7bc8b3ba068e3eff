#include "sip/transaction/transactions.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/random.h"
#include "base/spawn.h"
#include "sip/message/edit.h"
#include "sip/message/headers.h"
#include "sip/transaction/client.h"
#include "sip/transaction/server.h"
#include "sip/transport/transport_impl.h"

namespace gmgate::sip {
namespace {

constexpr std::string_view kMagicCookie = "z9hG4bK";
constexpr int kRetryAfterSeconds = 10;

constexpr std::uint32_t kSipPort = 5060;
constexpr std::uint64_t kMix = 0x100000001b3;  // FNV-1's prime

constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

/// RFC 3841: they are the same in the CANCEL and the ACK to a non-2xx final response as in their INVITE.
bool is_caller_preference(const HeaderField& field) {
    if (field.id == HeaderId::accept_contact) return true;
    return field.id == HeaderId::other &&
           (same_token(field.name, "Reject-Contact") || same_token(field.name, "j") ||
            same_token(field.name, "Request-Disposition") || same_token(field.name, "d"));
}

/// The method that names the transaction: an ACK belongs to its INVITE.
std::string_view transaction_method(const Message& request) {
    return request.method() == Method::ack ? "INVITE" : request.method_name();
}

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
    if (at == TimePoint::max()) disarm();
    else arm(at);
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

std::string TransactionCore::tag_for(const ServerKey& key) const {
    return siphash_hex(tag_key, {reinterpret_cast<const char*>(&key.hash), sizeof key.hash});
}

void TransactionCore::answered(ConnectionId connection) {
    const auto found = answers_due.find(connection);
    if (found == answers_due.end() || --found->second != 0) return;
    answers_due.erase(found);
    transports.all_answered(connection);
}

bool TransactionCore::is_way_of(const Door& door, const Flow& of, const Flow& flow) const {
    if (door.owner.value != 0 || !is_reliable(flow.transport) || of.connection == flow.connection) return true;
    return !transports.is_open(of.connection);
}

std::optional<Flow> TransactionCore::way_back(const Message& request, const Flow& flow) const {
    const auto via = top_via(request);
    return transports.impl_->route_answer(flow, via ? &*via : nullptr);
}

bool TransactionCore::has_room_for_source(const ServerKey& key, bool is_urgent) const {
    if (key.door.owner != OwnerId{}) return true;
    const std::size_t part = limits.strangers + (is_urgent ? limits.urgent_reserve : 0);
    if (limits.strangers != 0 && strangers >= part) return false;
    const auto waiting = waiting_of.find(source_prefix(key.door.remote));
    const std::size_t of_source = limits.waiting_per_source * (is_urgent ? 2 : 1);
    return of_source == 0 || waiting == waiting_of.end() || waiting->second < of_source;
}

bool operator==(const ServerKey& a, const ServerKey& b) {
    return a.hash == b.hash && a.number == b.number && a.door == b.door && a.method == b.method &&
           a.branch == b.branch && same_token(a.sent_by, b.sent_by) && a.uri == b.uri && a.from_tag == b.from_tag &&
           a.call_id == b.call_id && a.via == b.via;
}

std::optional<ServerKey> TransactionCore::server_key(const Message& request, const Door& door,
                                                     std::string_view method) const {
    const auto via = top_via(request);
    if (!via) return std::nullopt;
    ServerKey key{.door = door, .method = method};
    const std::string_view branch = via->branch();
    if (branch.size() > kMagicCookie.size() && branch.starts_with(kMagicCookie)) {
        key.branch = branch;
        key.sent_by = via->host;
        key.number = via->port.value == 0 ? kSipPort : via->port.value;
        key.hash = siphash(tag_key, branch);
    } else {
        key.uri = request.request_uri();
        key.from_tag = tag_of(request, HeaderId::from);
        key.call_id = request.value(HeaderId::call_id);
        key.number = request.cseq();
        key.via = via->text;
        key.hash = siphash(tag_key, key.call_id) * kMix + siphash(tag_key, key.via);
    }
    for (const char c : key.sent_by) key.hash = key.hash * kMix + static_cast<unsigned char>(lower(c));
    for (const char c : key.method) key.hash = key.hash * kMix + static_cast<unsigned char>(c);
    key.hash = (key.hash + key.number) * kMix + std::hash<Door>{}(key.door);
    return key;
}

int status_of(std::string_view response) {
    constexpr std::string_view kVersion = "SIP/2.0 ";
    if (!response.starts_with(kVersion) || response.size() < kVersion.size() + 4) return 0;
    const auto status = parse_u32(response.substr(kVersion.size(), 3));
    return status && *status >= 100 && *status < 700 ? static_cast<int>(*status) : 0;
}

std::string derived_request(const Message& invite, std::string_view method, std::string_view to,
                            std::string_view fields) {
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
    for (std::size_t i = 0; i < invite.field_count(); ++i)
        if (const HeaderField preference = invite.field(i); is_caller_preference(preference))
            line(preference.name, preference.value);
    out += fields;
    line("Content-Length", "0");
    out += "\r\n";
    return out;
}

std::string kept_cancel_fields(const Message& cancel) {
    std::string out;
    for (const HeaderId id : {HeaderId::reason, HeaderId::privacy, HeaderId::resource_priority, HeaderId::user_agent})
        cancel.for_each(id, [&](const HeaderField& field) {
            out.append(field.name).append(": ").append(field.value).append("\r\n");
        });
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
    void receive_response(OwnedMessage&& response, const Flow& flow);  // leaves what nobody takes
    void receive_request(OwnedMessage request, const Flow& flow);
    void receive_ack(OwnedMessage ack, const Flow& flow);
    void receive_cancel(OwnedMessage cancel, const Flow& flow);
    void begin(const ServerKey& key, OwnedMessage request, const Flow& flow);
    void refuse(const Message& request, const Flow& flow, const ServerKey& key);
    void stray(OwnedMessage message, const Flow& flow);
    /// Of the INVITE that an ACK or CANCEL is about.
    std::shared_ptr<ServerFlow> find_server(const Message& message, const ServerKey& key, const Flow& flow) const;
    void connection_lost(const Flow& flow);
    std::unique_ptr<ClientTransaction> send(std::string request, const Flow& flow, SendOptions options);
    bool has_room(const Message& request, const ServerKey& key, const Flow& flow);
    void stop();

    RequestHandler request_handler;
    StrayHandler stray_handler;
    std::function<bool(const Message&, const Flow&)> screen, is_urgent, must_shed;
    std::function<void(const Message&, const Flow&, const Flow&)> wrong_door_handler;
};

void Transactions::Impl::receive(OwnedMessage message, const Flow& flow) {
    const auto self = shared_from_this();  // a handler may destroy the Transactions
    if (screen) {
        bool pass = false;
        guarded("screen", [&] { pass = screen(*message, flow); });
        if (!pass) return;
    }
    if (message->is_response()) {
        receive_response(std::move(message), flow);
        message.wipe();  // what nobody has taken may carry keys
    } else if (message->method() == Method::ack) receive_ack(std::move(message), flow);
    else if (message->method() == Method::cancel) receive_cancel(std::move(message), flow);
    else receive_request(std::move(message), flow);
}

void Transactions::Impl::receive_response(OwnedMessage&& response, const Flow& flow) {
    const auto via = top_via(*response);
    const auto found =
        via && !via->branch().empty() ? clients.find({via->branch(), response->method_name()}) : clients.end();
    if (found == clients.end()) {
        ++counters.stray_responses;
        stray(std::move(response), flow);
        return;
    }
    const auto client = found->second;
    if (client->may_answer(flow)) return client->receive(std::move(response));
    ++counters.responses_wrong_door;
    if (wrong_door_handler) guarded("wrong-door handler", [&] { wrong_door_handler(*response, flow, client->flow()); });
}

std::shared_ptr<ServerFlow> Transactions::Impl::find_server(const Message& message, const ServerKey& key,
                                                            const Flow& flow) const {
    const auto found = servers.find(key);
    if (found != servers.end() && is_way_of(key.door, found->second->flow(), flow)) return found->second;
    // A connection over which a phone has registered since the INVITE came: it is still the INVITE's.
    if (!is_reliable(flow.transport) || key.door.owner == OwnerId{}) return nullptr;
    const auto before = server_key(message, door_of_ends(flow), "INVITE");
    const auto unowned = before ? servers.find(*before) : servers.end();
    return unowned != servers.end() && unowned->second->flow().connection == flow.connection ? unowned->second
                                                                                             : nullptr;
}

void Transactions::Impl::receive_ack(OwnedMessage ack, const Flow& flow) {
    const auto key = server_key(*ack, flow, "INVITE");
    if (!key) return;  // no Via that can be read: it belongs to nothing
    if (const auto server = find_server(*ack, *key, flow)) {
        if (!server->receive_ack()) stray(std::move(ack), flow);
    } else if (tag_of(*ack, HeaderId::to) != tag_for(*key)) {  // else to a refusal that left no transaction: absorbed
        stray(std::move(ack), flow);
    }
}

void Transactions::Impl::receive_cancel(OwnedMessage cancel, const Flow& flow) {
    const auto key = server_key(*cancel, flow, "INVITE");
    if (!key) return;
    if (const auto server = find_server(*cancel, *key, flow)) return server->receive_cancel(*cancel, flow);
    // §9.2: without a transaction, whoever sends it (a stranger could fill the table); each copy gets another one.
    ++counters.cancels_unmatched;
    if (const auto route = way_back(*cancel, flow))
        (void)transports.send(*route,
                              make_response(*cancel, 481, "Call/Transaction Does Not Exist", tag_for(*key),
                                            {warning_line("no INVITE waits for an answer that this CANCEL is of")}));
}

void Transactions::Impl::receive_request(OwnedMessage request, const Flow& flow) {
    const auto key = server_key(*request, flow, transaction_method(*request));
    if (!key) return;  // the parser has seen a Via field, but its value is none: there is no way to answer
    if (const auto found = servers.find(*key); found != servers.end()) {
        const auto server = found->second;
        server->receive_retransmission();
    } else if (!has_room(*request, *key, flow)) {
        ++counters.refused_limit;
        refuse(*request, flow, *key);
    } else if (must_shed && must_shed(*request, flow)) {
        ++counters.shed;
        refuse(*request, flow, *key);
    } else {
        begin(*key, std::move(request), flow);
    }
}

namespace {

/// What the handler gets: with its last copy the request goes.
std::shared_ptr<ServerTransaction> held(const std::shared_ptr<ServerFlow>& server) {
    return {server.get(), [server](ServerTransaction*) { server->let_go(); }};
}

}  // namespace

void Transactions::Impl::begin(const ServerKey& key, OwnedMessage request, const Flow& flow) {
    // It keeps the bytes that the key shows.
    const auto server = std::make_shared<ServerFlow>(shared_from_this(), key, std::move(request), flow);
    servers.emplace(key, server);
    server->start();
    const bool done = request_handler && guarded("request handler", [&] { request_handler(held(server)); });
    if (!done && !server->is_completed())
        (void)server->respond(make_response(server->request(), 500, "Server Internal Error", server->tag()));
}

bool Transactions::Impl::has_room(const Message& request, const ServerKey& key, const Flow& flow) {
    const std::size_t in_use = servers.size();
    if (in_use >= limits.server_transactions) return false;
    const bool is_common =
        in_use + limits.urgent_reserve < limits.server_transactions && has_room_for_source(key, false);
    return is_common || (is_urgent && has_room_for_source(key, true) && is_urgent(request, flow));
}

/// Without a transaction, for there is no room for one: a retransmission gets another 503.
void Transactions::Impl::refuse(const Message& request, const Flow& flow, const ServerKey& key) {
    const auto route = way_back(request, flow);
    if (!route) return;
    const std::vector<std::string> extra{"Retry-After: " + std::to_string(kRetryAfterSeconds)};
    std::string refusal = make_response(request, 503, "Service Unavailable", tag_for(key), extra);
    (void)transports.send(*route, finished(std::move(refusal), *route));
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

std::unique_ptr<ClientTransaction> Transactions::Impl::send(std::string request, const Flow& flow,
                                                            SendOptions options) {
    const auto failed = [](Reaction reaction, std::string text) {
        return std::make_unique<FailedClient>(Error{reaction, 0, std::move(text)});
    };
    if (clients.size() + (options.is_urgent ? 0 : limits.urgent_reserve) >= limits.client_transactions) {
        ++counters.refused_limit;
        return failed(Reaction::exhausted, "the limit of client transactions is reached");
    }
    const auto message = Message::parse(std::string_view(request));
    if (!message)
        return failed(Reaction::internal,
                      "a request of our own does not parse: " + std::string(message.error().reason));
    // More than the message: line ends before it, octets behind its body.
    if (message->bytes().size() != request.size()) return send(std::string(message->bytes()), flow, options);
    const auto place = message->is_request() && message->method() != Method::ack ? key_place(*message) : std::nullopt;
    if (!place)
        return failed(Reaction::internal,
                      "a request of our own needs a Via with a branch, and ACK is sent without a transaction");
    const auto client = std::make_shared<ClientFlow>(shared_from_this(), std::move(request), *place, flow);
    if (!clients.emplace(client->key(), client).second)
        return failed(Reaction::internal, "the branch of a request of our own is in use");
    auto handle = std::make_unique<ClientHandle>(client);
    client->start(options.patience);
    return handle;
}

void Transactions::Impl::stop() {
    request_handler = nullptr;
    stray_handler = nullptr;
    screen = is_urgent = must_shed = nullptr;
    wrong_door_handler = nullptr;
    doors = nullptr;
    finish = nullptr;
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
    transports.set_answers_due([weak](ConnectionId connection) {
        const auto self = weak.lock();
        return self && self->answers_due.contains(connection);
    });
    transports.watch_closed([weak](const Flow& flow) {
        if (const auto self = weak.lock()) self->connection_lost(flow);
    });
}

Transactions::~Transactions() {
    impl_->transports.on_message(nullptr);
    impl_->transports.watch_closed(nullptr);
    impl_->transports.set_answers_due(nullptr);
    impl_->stop();
}

void Transactions::on_request(RequestHandler handler) { impl_->request_handler = std::move(handler); }
void Transactions::on_stray(StrayHandler handler) { impl_->stray_handler = std::move(handler); }
void Transactions::set_screen(std::function<bool(const Message&, const Flow&)> screen) {
    impl_->screen = std::move(screen);
}

void Transactions::set_finish(std::function<std::string(std::string, const Flow&)> finish) {
    impl_->finish = std::move(finish);
}
void Transactions::set_doors(DoorFinder doors) { impl_->doors = std::move(doors); }
void Transactions::on_wrong_door(std::function<void(const Message&, const Flow&, const Flow&)> handler) {
    impl_->wrong_door_handler = std::move(handler);
}
void Transactions::set_urgent(std::function<bool(const Message&, const Flow&)> is_urgent) {
    impl_->is_urgent = std::move(is_urgent);
}
void Transactions::set_shed(std::function<bool(const Message&, const Flow&)> must_shed) {
    impl_->must_shed = std::move(must_shed);
}

std::unique_ptr<ClientTransaction> Transactions::send(std::string request, const Flow& flow, SendOptions options) {
    return impl_->send(std::move(request), flow, options);
}
Result<void> Transactions::send_stateless(std::string bytes, const Flow& flow) {
    return impl_->transports.send(flow, std::move(bytes));
}

std::string Transactions::new_branch() { return std::string(kMagicCookie) + random_hex(16); }

std::size_t Transactions::server_count() const { return impl_->servers.size(); }
std::size_t Transactions::client_count() const { return impl_->clients.size(); }
const TransactionCounters& Transactions::counters() const { return impl_->counters; }

}  // namespace gmgate::sip
