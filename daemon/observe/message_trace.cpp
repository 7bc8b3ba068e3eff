#include "daemon/observe/message_trace.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "sip/message/credentials.h"
#include "sip/message/headers.h"
#include "sip/message/message.h"

namespace gmgate::daemon {
namespace {

// Parameters whose values are secrets or proofs of them. `response` and `rspauth` let a listener guess passwords.
constexpr std::array<std::string_view, 6> kSecrets{"ck", "ik", "response", "rspauth", "password", "auts"};

bool same_word(std::string_view a, std::string_view b) {
    return std::ranges::equal(a, b, [](char x, char y) {
        return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
    });
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.'; }

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

void blot_line(std::string& text, std::size_t begin, std::size_t end) {
    for (std::size_t at = begin; at < end; ++at) {
        if (!is_word(text[at]) || (at > begin && is_word(text[at - 1]))) continue;
        auto stop = at;
        while (stop < end && is_word(text[stop])) ++stop;
        const std::string_view word(text.data() + at, stop - at);
        auto value = stop;
        while (value < end && is_blank(text[value])) ++value;
        if (value >= end || text[value] != '=' ||
            std::ranges::none_of(kSecrets, [&](std::string_view secret) { return same_word(secret, word); })) {
            at = stop - 1;
            continue;
        }
        ++value;
        while (value < end && is_blank(text[value])) ++value;
        const bool quoted = value < end && text[value] == '"';
        if (quoted) ++value;
        while (value < end &&
               (quoted ? text[value] != '"' : text[value] != ',' && text[value] != ';' && !is_blank(text[value]))) {
            if (quoted && text[value] == '\\' && value + 1 < end)
                text[value++] = 'x';  // an escaped quote does not end it
            text[value++] = 'x';
        }
        at = value;
    }
}

}  // namespace

std::string blotted(std::string_view bytes) {
    std::string text(bytes);
    // Headers only, each with its folded lines; what a body says is the users' own.
    const auto body = text.find("\r\n\r\n");
    const auto headers_end = body == std::string::npos ? text.size() : body;
    std::size_t at = 0;
    while (at < headers_end) {
        auto end = std::min(text.find('\n', at), headers_end);
        while (end + 1 < headers_end && (text[end + 1] == ' ' || text[end + 1] == '\t'))
            end = std::min(text.find('\n', end + 1), headers_end);  // folded
        const auto colon = std::string_view(text).substr(at, end - at).find(':');
        if (colon != std::string_view::npos) {
            auto name = std::string_view(text).substr(at, colon);
            while (!name.empty() && (name.back() == ' ' || name.back() == '\t')) name.remove_suffix(1);
            if (name.size() > 4 && (same_word(name, "Authorization") || same_word(name, "Proxy-Authorization") ||
                                    same_word(name, "WWW-Authenticate") || same_word(name, "Proxy-Authenticate") ||
                                    same_word(name, "Authentication-Info")))
                blot_line(text, at + colon + 1, end);
        }
        at = end + 1;
    }
    return text;
}

bool MessageTrace::start(const Impi& impi) {
    if (!users_.contains(impi) && users_.size() >= limits_.users) return false;
    users_.try_emplace(impi, clock_.wall());
    return true;
}

std::vector<Impi> MessageTrace::users() const {
    std::vector<Impi> users;
    for (const auto& [user, since] : users_) users.push_back(user);
    return users;
}

std::optional<std::chrono::system_clock::time_point> MessageTrace::since(const Impi& impi) const {
    const auto at = users_.find(impi);
    return at == users_.end() ? std::nullopt : std::optional(at->second);
}

void MessageTrace::stop(const Impi& impi) {
    users_.erase(impi);
    std::erase_if(messages_, [&](const TracedMessage& message) {
        if (message.impi != impi) return false;
        octets_ -= message.bytes.size();
        return true;
    });
    std::erase_if(calls_, [&](const auto& call) { return call.second == impi; });
    std::erase_if(call_order_, [&](const std::string& id) { return !calls_.contains(id); });
}

void MessageTrace::remember_call(const std::string& call_id, const Impi& impi) {
    if (call_id.empty() || call_id.size() > 256) return;
    if (!calls_.emplace(call_id, impi).second) return;
    call_order_.push_back(call_id);
    if (call_order_.size() > limits_.calls) {
        calls_.erase(call_order_.front());
        call_order_.pop_front();
    }
}

// Over its own flow; else of a call that has been its own before; else a REGISTER that names it, or a request for it
// from the core.
std::optional<Impi> MessageTrace::whose(std::string_view bytes, const Context& context) {
    const auto parsed = sip::OwnedMessage::parse(bytes);
    if (!parsed) return context.owner && users_.contains(*context.owner) ? context.owner : std::nullopt;
    const sip::Message& message = **parsed;
    const std::string call_id(message.value(sip::HeaderId::call_id));
    if (context.owner && users_.contains(*context.owner)) {
        remember_call(call_id, *context.owner);
        return context.owner;
    }
    // The other phone's leg of a traced user's call is part of it; what else that phone says is not.
    if (const auto known = calls_.find(call_id); known != calls_.end()) return known->second;
    if (context.owner) return std::nullopt;
    const auto credentials = sip::Credentials::read(message, sip::HeaderId::authorization);
    const std::string named(credentials.username());
    for (const auto& [user, since] : users_) {
        const bool is_it = !named.empty()
                               ? named == user.value
                               : message.is_request() && bytes.find("sip:" + user.value) != std::string_view::npos;
        if (!is_it) continue;
        remember_call(call_id, user);
        return user;
    }
    return std::nullopt;
}

void MessageTrace::see(bool outward, const sip::Flow& flow, std::string_view bytes, const Context& context) {
    const auto impi = whose(bytes, context);
    if (!impi && !sink_) return;
    TracedMessage message;
    message.time = clock_.wall();
    message.impi = impi.value_or(context.owner.value_or(Impi{}));
    message.owner = context.owner.value_or(Impi{});
    message.outward = outward;
    message.core_side = context.core_side;
    message.transport = flow.transport;
    message.source = outward ? flow.local : flow.remote;
    message.destination = outward ? flow.remote : flow.local;
    message.protection = context.protection;
    message.bytes = blotted(bytes);
    if (sink_) sink_(message);
    if (!impi) return;
    message.number = ++last_;
    ++counters_.kept;
    octets_ += message.bytes.size();
    messages_.push_back(message);
    while (messages_.size() > limits_.messages || octets_ > limits_.octets) {
        octets_ -= messages_.front().bytes.size();
        messages_.pop_front();
        ++counters_.forgotten;
    }
    std::erase_if(handlers_, [](const auto& handler) { return handler.expired(); });
    for (const auto& weak : std::vector(handlers_))
        if (const auto handler = weak.lock()) (*handler)(message);
}

std::vector<TracedMessage> MessageTrace::of(const Impi& impi, std::uint64_t after) const {
    std::vector<TracedMessage> found;
    for (const auto& message : messages_)
        if (message.number > after && message.impi == impi) found.push_back(message);
    return found;
}

MessageTrace::Subscription MessageTrace::on_message(Handler handler) {
    auto subscription = std::make_shared<Handler>(std::move(handler));
    handlers_.push_back(subscription);
    return subscription;
}

}  // namespace gmgate::daemon
