#include "transactions.h"

#include "../common/compact_names.h"

#include <algorithm>

namespace gmgate::peers {
namespace {

// Keeps a transaction in the table as long as its coroutine lives, destroyed half-way included.
template <class Map>
class Entry {
public:
    Entry(Map& map, std::string key, typename Map::mapped_type value) : map_(map), key_(std::move(key)) {
        map_.insert_or_assign(key_, value);
    }
    ~Entry() { map_.erase(key_); }
    Entry(const Entry&) = delete;

private:
    Map& map_;
    std::string key_;
};

std::string key_of(const SipMessage& message) { return message.branch() + '|' + message.method(); }

// RFC 3261 §17.1.1.3: the ACK of a failed INVITE belongs to its transaction.
SipMessage ack_for(const SipMessage& invite, const SipMessage& response) {
    SipMessage ack = SipMessage::request("ACK", invite.uri());
    ack.add("Via", invite.get("Via"));
    for (const std::string& route : invite.list("Route")) ack.add("Route", route);
    ack.add("From", invite.get("From"));
    ack.add("To", response.get("To"));
    ack.add("Call-ID", invite.call_id());
    ack.add("CSeq", fmt::format("{} ACK", invite.cseq()));
    ack.add("Max-Forwards", "70");
    return ack;
}

// The octets, with the header names that this phone writes.
std::string written(const SipMessage& message, const PhoneConfig& config) {
    std::string text = message.to_string();
    return config.habits.compact_names ? with_compact_names(text) : text;
}

}  // namespace

void Transactions::add_via(SipMessage& request, const Path& path) const {
    const std::string branch = "z9hG4bK" + random_token(20);
    const bool rport = !path.is_protected() || config_.rport;
    request.add_front("Via", fmt::format("SIP/2.0/{} {};branch={}{}",
                                         path.tls   ? "TLS"
                                         : path.tcp ? "TCP"
                                                    : "UDP",
                                         link_.sent_by(path), branch, rport ? ";rport" : ""));
}

Task<Reply> Transactions::request(SipMessage request, Path path, OnProvisional on_provisional) {
    if (!path.is_protected())
        if (auto ok = link_.open_clear(); !ok) co_return Reply{std::nullopt, ok.error().text, std::move(request)};
    if (!request.find("Via")) add_via(request, path);
    const bool invite = request.is("INVITE");
    Mailbox<Outcome> box(loop_);
    const Entry entry(waiting_, key_of(request), Waiting{&box, path});
    const std::string text = written(request, config_);
    if (auto ok = link_.send(text, path); !ok) co_return Reply{std::nullopt, ok.error().text, std::move(request)};
    const bool storms = !path.tcp && !request.is("REGISTER");
    for (unsigned copy = 1; storms && copy < config_.copies; ++copy) (void)link_.send(text, path);
    // An INVITE may ring for long once a provisional response came; everything else ends with the timeout.
    Clock::time_point deadline = Clock::now() + config_.timeout;
    Duration interval = config_.t1;
    bool proceeding = false;
    for (;;) {
        const bool retransmits = !path.tcp && !(invite && proceeding);
        const auto wake = retransmits ? std::min(deadline, Clock::now() + interval) : deadline;
        std::optional<Outcome> outcome = co_await box.take(wake);
        if (outcome && !outcome->response) co_return Reply{std::nullopt, outcome->lost, std::move(request)};
        std::optional<SipMessage> response = outcome ? std::move(outcome->response) : std::nullopt;
        if (!response) {
            if (Clock::now() >= deadline) co_return Reply{std::nullopt, "timeout", std::move(request)};
            (void)link_.send(text, path);
            interval = invite ? interval * 2 : proceeding ? config_.t2 : std::min(interval * 2, config_.t2);
            continue;
        }
        if (response->status() < 200) {
            if (invite && !proceeding) deadline = Clock::now() + config_.timeout * 4;
            proceeding = true;
            if (on_provisional) on_provisional(*response);
            continue;
        }
        if (invite && response->status() >= 300) (void)link_.send(written(ack_for(request, *response), config_), path);
        co_return Reply{std::move(response), {}, std::move(request)};
    }
}

void Transactions::send_ack(SipMessage ack, Path path) {
    add_via(ack, path);
    (void)link_.send(written(ack, config_), path);
}

bool Transactions::on_response(const SipMessage& response) {
    const auto it = waiting_.find(key_of(response));
    if (it == waiting_.end()) return false;
    it->second.box->put({response, {}});
    return true;
}

void Transactions::on_tls_lost(const std::string& why) {
    for (const auto& [key, waiting] : waiting_)
        if (waiting.path.tls) waiting.box->put({std::nullopt, why});
}

bool Transactions::absorb(const Incoming& request) {
    const auto now = Clock::now();
    std::erase_if(answered_, [now](const auto& entry) { return entry.second.forget < now; });
    const auto it = answered_.find(key_of(request.message));
    if (it == answered_.end()) return false;
    (void)link_.reply(it->second.text, request);
    return true;
}

void Transactions::respond(const Incoming& request, const SipMessage& response) {
    std::string text = written(response, config_);
    (void)link_.reply(text, request);
    answered_.insert_or_assign(key_of(request.message), Answered{std::move(text), Clock::now() + 64 * config_.t1});
}

std::size_t Transactions::pending_on(SetId set) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        waiting_, [set](const auto& entry) { return entry.second.path.set == set && !entry.second.path.tls; }));
}

}  // namespace gmgate::peers
