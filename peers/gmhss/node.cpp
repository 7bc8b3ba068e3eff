#include "node.h"

#include "dictionary.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>

#include <array>
#include <cerrno>
#include <cstring>

namespace gmgate::peers::diameter {
namespace {

constexpr std::chrono::seconds kAnswerTime{10};

/// The Address format of RFC 6733 §4.3.1: family of IANA's registry, then the octets.
Bytes address_of(const Endpoint& endpoint) {
    const auto* octets = static_cast<const std::uint8_t*>(endpoint.raw_address());
    Bytes out{0, static_cast<std::uint8_t>(endpoint.is_v6() ? 2 : 1)};
    out.insert(out.end(), octets, octets + endpoint.raw_address_size());
    return out;
}

Endpoint local_of(int fd) {
    sockaddr_storage storage{};
    socklen_t size = sizeof storage;
    getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size);
    return Endpoint::from(storage);
}

}  // namespace

Connection::Connection(Loop& loop, Fd fd, Endpoint remote, Events events)
    : fd_(std::move(fd)), remote_(remote), local_(local_of(fd_.get())), events_(std::move(events)) {
    const int on = 1;
    setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch_ = loop.watch(fd_.get(), [this](Loop::Ready ready) { on_ready(ready); });
}

void Connection::on_ready(Loop::Ready ready) {
    if (ready.writable) flush();
    if (ready.readable && open_) read_all();
}

void Connection::read_all() {
    std::array<std::uint8_t, 16384> buffer;
    while (open_) {
        const ssize_t got = recv(fd_.get(), buffer.data(), buffer.size(), 0);
        if (got == 0) return close("closed by the peer");
        if (got < 0) {
            if (errno != EAGAIN && errno != EINTR) close(std::strerror(errno));
            return;
        }
        framer_.feed({buffer.data(), static_cast<std::size_t>(got)});
        while (open_) {
            auto message = framer_.next();
            if (!message) return close(message.error().text);
            if (!*message) break;
            events_.message(*this, std::move(**message));
        }
    }
}

void Connection::send(const Message& message) {
    if (!open_) return;
    const Bytes octets = message.encode();
    out_.insert(out_.end(), octets.begin(), octets.end());
    flush();
}

void Connection::finish() {
    finishing_ = true;
    flush();
}

void Connection::flush() {
    while (open_ && !out_.empty()) {
        const ssize_t sent = ::send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR) return close(std::strerror(errno));
            break;
        }
        out_.erase(out_.begin(), out_.begin() + sent);
    }
    if (!open_) return;
    if (finishing_ && out_.empty()) return close("disconnected as the peer asked");
    watch_.want_write(!out_.empty());
}

void Connection::close(std::string reason) {
    if (!open_) return;
    open_ = false;
    watch_.stop();
    events_.closed(*this, std::move(reason));
}

Node::Node(Loop& loop, Identity self, MessageLog& log, Handler handler)
    : loop_(loop), self_(std::move(self)), log_(log), handler_(std::move(handler)), next_id_(random_u32()) {}

Result<Endpoint> Node::listen(const Endpoint& local) {
    auto listener =
        TcpListener::open(loop_, local, [this](Fd fd, const Endpoint& from) { accept(std::move(fd), from); });
    if (!listener) return std::unexpected(listener.error());
    const Endpoint out = (*listener)->local();
    listeners_.push_back(std::move(*listener));
    return out;
}

void Node::accept(Fd fd, const Endpoint& from) {
    Connection::Events events{[this](Connection& c, Message m) { on_message(c, std::move(m)); },
                              [this](Connection& c, std::string reason) { on_closed(c, reason); }};
    auto connection = std::make_unique<Connection>(loop_, std::move(fd), from, std::move(events));
    connections_.emplace(connection.get(), std::move(connection));
}

void Node::on_closed(Connection& connection, const std::string& reason) {
    log_.write({{"event", "peer"},
                {"state", "closed"},
                {"host", connection.host},
                {"remote", connection.remote().to_string()},
                {"why", reason}});
    std::vector<std::uint32_t> lost;
    for (const auto& [id, pending] : pending_)
        if (pending.connection == &connection) lost.push_back(id);
    for (const std::uint32_t id : lost) settle(id, fail("the connection to {} ended: {}", connection.host, reason));
    burials_[&connection] = loop_.after(Duration::zero(), [this, c = &connection] {
        connections_.erase(c);
        burials_.erase(c);
    });
}

void Node::on_message(Connection& connection, Message message) {
    if (!message.is_request) return settle(message.hop_by_hop, std::move(message));
    on_request(connection, message);
}

void Node::settle(std::uint32_t hop_by_hop, Result<Message> answer) {
    auto node = pending_.extract(hop_by_hop);
    if (node.empty()) return;  // later than its time, or never asked for
    node.mapped().answered(std::move(answer));
}

void Node::on_request(Connection& connection, const Message& request) {
    Message answer = request.answer();
    if (request.command == command::kCapabilitiesExchange) {
        answer = capabilities(connection, request);
    } else if (connection.host.empty()) {
        // RFC 6733 §5.6: nothing but a CER is expected on a new connection.
        return connection.finish();
    } else if (request.command == command::kDeviceWatchdog || request.command == command::kDisconnectPeer) {
        add_result(answer.avps, result::kSuccess);
    } else if (request.application != kCxApplication) {
        answer.is_error = true;
        add_result(answer.avps, result::kApplicationUnsupported);
    } else {
        answer = handler_(request);
    }
    add_origin(answer);
    connection.send(answer);
    if (request.command == command::kDisconnectPeer) connection.finish();
}

Message Node::capabilities(Connection& connection, const Message& request) const {
    connection.host = request.avps.text(avp::kOriginHost);
    connection.realm = request.avps.text(avp::kOriginRealm);
    Message answer = request.answer();
    if (connection.host.empty()) {
        add_result(answer.avps, result::kMissingAvp);
        return answer;
    }
    log_.write(
        {{"event", "peer"}, {"state", "open"}, {"host", connection.host}, {"remote", connection.remote().to_string()}});
    add_result(answer.avps, result::kSuccess);
    answer.avps.add(avp::kHostIpAddress, address_of(connection.local()));
    answer.avps.add_number(avp::kVendorId, 0);
    answer.avps.add(avp::kProductName, "gmhss");
    answer.avps.add_number(avp::kSupportedVendorId, kVendor3gpp);
    AvpList application;
    application.add_number(avp::kVendorId, kVendor3gpp);
    application.add_number(avp::kAuthApplicationId, kCxApplication);
    answer.avps.add_group(avp::kVendorSpecificApplicationId, application);
    return answer;
}

void Node::add_origin(Message& message) const {
    message.avps.add(avp::kOriginHost, self_.host);
    message.avps.add(avp::kOriginRealm, self_.realm);
}

void Node::request(const std::string& host, Message message, Answered answered) {
    const auto it = std::ranges::find_if(
        connections_, [&](const auto& entry) { return entry.second->is_open() && entry.second->host == host; });
    if (it == connections_.end()) return answered(fail("no peer of the name '{}' is connected", host));
    Connection& connection = *it->second;
    Message out;
    out.is_request = true;
    out.is_proxiable = true;
    out.command = message.command;
    out.application = message.application;
    out.hop_by_hop = next_id_++;
    out.end_to_end = out.hop_by_hop;
    // RFC 6733 §8.8: Session-Id comes right after the header.
    out.avps.add(avp::kSessionId, fmt::format("{};{};{}", self_.host, random_token(8), out.hop_by_hop));
    add_origin(out);
    out.avps.add(avp::kDestinationHost, connection.host);
    out.avps.add(avp::kDestinationRealm, connection.realm);
    out.avps.append(message.avps);
    Pending pending{&connection, std::move(answered), {}};
    pending.timer = loop_.after(
        kAnswerTime, [this, id = out.hop_by_hop] { settle(id, fail("no answer within {} s", kAnswerTime.count())); });
    pending_.emplace(out.hop_by_hop, std::move(pending));
    connection.send(out);
}

}  // namespace gmgate::peers::diameter
