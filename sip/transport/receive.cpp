// Bytes to messages: what arrives on sockets is SIP, a keep-alive, or neither.
#include <algorithm>

#include "base/spawn.h"
#include "sip/message/edit.h"
#include "sip/message/headers.h"
#include "sip/message/scanner.h"
#include "sip/transport/stun.h"
#include "sip/transport/transport_impl.h"
#include "sip/transport/way_back.h"

namespace gmgate::sip {
namespace {

/// Octets of an answer to whoever sent too much; perhaps the address is not its own.
constexpr std::size_t kMaxEcho = 4096;
constexpr std::string_view kPing = "\r\n\r\n", kPong = "\r\n";

/// Datagrams that only keep a NAT binding: CRLFs, zero octets, nothing at all. No SIP message consists of these.
bool is_keep_alive(std::string_view bytes) {
    return bytes.size() <= kMaxKeepAlive &&
           std::ranges::all_of(bytes, [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
}

}  // namespace

bool RateLimit::allow(TimePoint now) {
    left_ = std::min(per_second_, left_ + per_second_ * std::chrono::duration<double>(now - last_).count());
    last_ = now;
    if (left_ < 1) return false;
    left_ -= 1;
    return true;
}

void Transports::Impl::receive_datagram(std::string_view bytes, const Flow& flow) {
    if (stopped) return;
    if (is_keep_alive(bytes)) {
        ++counters->keep_alives;
        if (bytes == kPing) (void)send(flow, std::string(kPong));  // as on a stream; many phones ping UDP like that
        return;
    }
    if (is_stun(bytes)) {
        ++counters->stun_requests;
        if (auto answer = answer_stun(bytes, flow.remote)) (void)send(flow, std::move(*answer));
        return;
    }
    receive_message(bytes, flow);
}

void Transports::Impl::receive_stream(const std::shared_ptr<Connection>& connection, std::string_view bytes) {
    if (limit_of) connection->framer.set_limit(limit_of(connection->flow));
    // The framer takes one read of at most a whole message beside an incomplete one: give it pieces, and a burst is no
    // overflow.
    while (!bytes.empty() && !connection->closing) {
        const std::size_t piece = std::min(bytes.size(), kMaxMessage);
        if (!connection->framer.feed(bytes.substr(0, piece))) {
            answer_malformed({}, {.reason = scan::kTooLarge, .offset = 0, .answerable = false}, connection->flow);
            begin_close(connection, false);
            return;
        }
        bytes.remove_prefix(piece);
        for (bool more = true; more && !connection->closing;) {
            const FrameResult frame = connection->framer.next();
            switch (frame.frame) {
                case Frame::need_more:
                    more = false;
                    break;
                case Frame::ping:
                    ++counters->keep_alives;
                    (void)queue_octets(
                        connection,
                        kPong);  // no use of the connection: who only pings holds none open that nobody keeps
                    break;
                case Frame::message:
                    connection->last_message = std::chrono::steady_clock::now();
                    receive_message(frame.bytes, connection->flow);
                    break;
                case Frame::error:
                    answer_malformed(frame.bytes, {.reason = frame.reason, .offset = 0, .answerable = true},
                                     connection->flow);
                    begin_close(connection, false);
                    break;
            }
        }
    }
}

void Transports::Impl::receive_message(std::string_view bytes, const Flow& flow) {
    // A datagram is measured before it is copied and parsed; on a stream the framer has done so.
    const MessageLimit limit = limit_of && !is_reliable(flow.transport) ? limit_of(flow) : MessageLimit{};
    if (bytes.size() > limit.message)
        return answer_malformed(bytes, {.reason = scan::kTooLarge, .offset = 0, .answerable = true}, flow);
    auto message = OwnedMessage::parse(bytes);
    if (message && (*message)->body().size() > limit.body)
        return answer_malformed(bytes, {.reason = scan::kTooLarge, .offset = 0, .answerable = true}, flow);
    if (!message) {
        answer_malformed(bytes, message.error(), flow);
        return;
    }
    ++counters->messages_in;
    if (traffic_watcher) guarded("traffic watcher", [&] { traffic_watcher(false, flow, bytes); });
    if (message_handler) guarded("message handler", [&] { message_handler(std::move(*message), flow); });
}

void Transports::Impl::answer_malformed(std::string_view bytes, const ParseError& error, const Flow& flow) {
    const bool is_too_large = error.reason == scan::kTooLarge || error.reason == scan::kHeadTooLarge;
    ++counters->malformed;
    if (is_too_large) ++counters->too_large;
    if (!error.answerable) return;
    auto answer = make_bad_request(bytes, error);
    if (answer && is_too_large && answer->size() > kMaxEcho) return;
    if (!answer || !bad_requests.allow(std::chrono::steady_clock::now())) return;
    const auto copied = OwnedMessage::parse(*answer);  // its Vias are those of the request
    const auto via = copied ? top_via(**copied) : std::nullopt;
    const auto route = route_answer(flow, via ? &*via : nullptr);
    if (route && send(*route, std::move(*answer))) ++counters->bad_requests_answered;
}

std::optional<Flow> Transports::Impl::route_reply(const Flow& received_on) const {
    return reply_route ? reply_route(received_on) : std::optional(received_on);
}

// Where nobody knows better, as on a bare transport, back to where it came from. A gateway that sends it there sends it
// in clear.
std::optional<Flow> Transports::Impl::route_answer(const Flow& received_on, const Via* via) const {
    auto route = route_reply(received_on);
    if (reply_route && route && *route == received_on && via != nullptr) route = answer_way(received_on, *via);
    return route;
}

}  // namespace gmgate::sip
