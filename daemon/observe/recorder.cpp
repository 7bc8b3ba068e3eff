#include "daemon/observe/recorder.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/random.h"
#include "base/source.h"
#include "daemon/observe/header_lines.h"
#include "sip/message/credentials.h"
#include "sip/message/headers.h"
#include "sip/message/message.h"

namespace gmgate::daemon {
namespace {

constexpr std::size_t kLegs = 16;    ///< flows of one attempt; a call that forks to more phones is not kept whole
constexpr std::size_t kSpare = 256;  ///< attempts that keep their memory for the next ones

// The fields whose parameters blotted() looks at.
bool has_secrets(std::string_view bytes) {
    bool has = false;
    for_each_header_line(bytes, [&](std::string_view line) {
        const char c = lower_case(line.front());
        if (c != 'a' && c != 'p' && c != 'w') return true;
        for (const auto* name :
             {"authorization", "www-authenticate", "proxy-authorization", "proxy-authenticate", "authentication-info"})
            has = has || field_value(line, name).has_value();
        return !has;
    });
    return has;
}

std::int64_t microseconds_of(std::chrono::system_clock::time_point time) {
    return std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
}

std::chrono::system_clock::time_point time_of(std::int64_t microseconds) {
    return std::chrono::system_clock::time_point{std::chrono::microseconds{microseconds}};
}

SipHashKey random_key() {
    SipHashKey key{};
    random_bytes(key);
    return key;
}

/// Whether it may be of an attempt that something else has begun: an answer, or a request of a call that is set up.
bool may_follow(std::string_view bytes) {
    for (const std::string_view begin : {"SIP/2.0 ", "ACK ", "PRACK ", "CANCEL ", "UPDATE ", "BYE "})
        if (bytes.starts_with(begin)) return true;
    return false;
}

bool is_challenge(int status) { return status == 401 || status == 407; }

}  // namespace

/// What is looked for in every message; views into it.
struct FlightRecorder::Outline {
    std::string_view call_id;
    std::uint32_t cseq = 0;
    int status = 0;                               ///< of a response, 0: a request
    bool is_register = false, is_invite = false;  ///< by the CSeq
    /// A request that may begin an attempt.
    bool opens() const { return status == 0 && (is_register || is_invite); }
};

FlightRecorder::Outline FlightRecorder::outline_of(std::string_view bytes) {
    Outline outline;
    if (bytes.starts_with("SIP/2.0 ") && bytes.size() > 11)
        std::from_chars(bytes.data() + 8, bytes.data() + 11, outline.status);
    bool has_cseq = false;
    for_each_header_line(bytes, [&](std::string_view line) {
        const char c = lower_case(line.front());
        if (c != 'c' && c != 'i') return true;
        if (outline.call_id.empty()) {
            auto id = field_value(line, "call-id");
            if (!id) id = field_value(line, "i");
            outline.call_id = id.value_or("");
        }
        if (const auto cseq = field_value(line, "cseq"); cseq && !has_cseq) {
            has_cseq = true;
            std::from_chars(cseq->data(), cseq->data() + cseq->size(), outline.cseq);
            outline.is_register = cseq->ends_with(" REGISTER");
            outline.is_invite = cseq->ends_with(" INVITE");
        }
        return outline.call_id.empty() || !has_cseq;
    });
    return outline;
}

FlightRecorder::FlightRecorder(const Clock& clock, RecorderLimits limits, WhoseFlow whose)
    : clock_(clock),
      limit_blocks_(limits.octets / OctetStore::kBlock),
      source_blocks_(limits.octets_per_source / OctetStore::kBlock),
      whose_(std::move(whose)),
      hash_key_(random_key()),
      by_blocks_(source_blocks_ + 1) {}

void FlightRecorder::keep(bool outward, const sip::Flow& flow, std::string_view bytes) {
    const bool begins = bytes.starts_with("REGISTER ") || bytes.starts_with("INVITE ");
    if (!begins && (attempts_.empty() || !may_follow(bytes))) return;  // most traffic ends here
    const auto outline = outline_of(bytes);
    if (outline.call_id.empty()) return;
    const auto key = siphash(hash_key_, outline.call_id);
    const auto known = attempts_.find(key);
    if (known == attempts_.end() && (outward || !begins || !outline.opens())) return;
    Attempt& attempt = known == attempts_.end() ? *open(key, outline, flow) : known->second;
    // The same phone tries once more: the last attempt is what counts.
    if (attempt.failed && !outward && outline.opens() && outline.cseq != attempt.cseq &&
        attempt.legs.front().flow.remote.address == flow.remote.address)
        clear(attempt);
    const auto leg = leg_of(attempt, outward, outline.status == 0, flow);
    if (!leg) return;
    const bool is_beginners = attempt.legs[*leg].who.core_side == attempt.from_core;
    if (!outward && outline.opens() && is_beginners) attempt.cseq = outline.cseq;
    add(attempt, *leg, bytes);
    judge(attempt, outline, outward && is_beginners);
}

FlightRecorder::Attempt* FlightRecorder::open(std::uint64_t key, const Outline& outline, const sip::Flow& flow) {
    Attempts::iterator at;
    if (spare_.empty()) {
        at = attempts_.try_emplace(key).first;
    } else {
        auto node = std::move(spare_.back());
        spare_.pop_back();
        node.key() = key;
        at = attempts_.insert(std::move(node)).position;
    }
    Attempt& attempt = at->second;
    attempt.key = key;
    attempt.is_call = outline.is_invite;
    attempt.failed = false;
    attempt.cseq = outline.cseq;
    attempt.status = 0;
    attempt.messages = attempt.leg_count = 0;
    attempt.source = source_prefix(flow.remote.address);
    Source& source = source_of(attempt.source);
    attempt.place = source.attempts.insert(source.attempts.end(), &attempt);
    (void)leg_of(attempt, false, true, flow);
    attempt.from_core = attempt.legs.front().who.core_side;
    return &attempt;
}

// A stranger who has heard of a Call-ID adds nothing to it: on the access side only the one who began says something,
// and those who were sent a request of it.
std::optional<std::size_t> FlightRecorder::leg_of(Attempt& attempt, bool outward, bool is_request,
                                                  const sip::Flow& flow) {
    bool is_met = attempt.leg_count == 0 || (outward && is_request && attempt.is_call);
    for (std::size_t i = 0; i < attempt.leg_count; ++i) {
        const Leg& leg = attempt.legs[i];
        if (leg.outward == outward && leg.flow == flow) return i;
        is_met = is_met || leg.flow.remote.address == flow.remote.address;
    }
    if (attempt.leg_count == kLegs) {
        ++numbers_.messages_left_out;
        return std::nullopt;
    }
    auto who = whose_(outward, flow);
    if (!is_met && !who.core_side && source_prefix(flow.remote.address) != attempt.source) return std::nullopt;
    if (attempt.leg_count != 0 && attempt.from_core && !who.core_side) move_to(attempt, flow.remote.address);
    if (attempt.legs.size() == attempt.leg_count) attempt.legs.emplace_back();
    attempt.legs[attempt.leg_count] = {flow, outward, std::move(who)};
    return attempt.leg_count++;
}

void FlightRecorder::add(Attempt& attempt, std::size_t leg, std::string_view bytes) {
    std::string hidden;
    if (has_secrets(bytes)) bytes = hidden = blotted(bytes);
    const Head head{microseconds_of(clock_.wall()), static_cast<std::uint32_t>(bytes.size()),
                    static_cast<std::uint32_t>(leg)};
    const auto blocks = OctetStore::blocks_for(attempt.octets, sizeof head + bytes.size());
    if (blocks != 0 && !make_room(attempt, blocks)) {
        ++numbers_.messages_left_out;
        return;
    }
    store_.append(attempt.octets, {reinterpret_cast<const char*>(&head), sizeof head});
    store_.append(attempt.octets, bytes);
    if (blocks != 0) charge(sources_.at(attempt.source), blocks, true);
    attempt.last = head.microseconds;
    ++attempt.messages;
    ++numbers_.kept;
}

// The oldest of the same source gives way, or the oldest of the source that has most; never the attempt itself.
bool FlightRecorder::make_room(Attempt& attempt, std::size_t blocks) {
    const auto victim_of = [&](const Source& source) {
        for (Attempt* oldest : source.attempts)
            if (oldest != &attempt) return oldest;
        return static_cast<Attempt*>(nullptr);
    };
    const Source& own = sources_.at(attempt.source);
    while (own.blocks + blocks > source_blocks_) {
        Attempt* victim = victim_of(own);
        if (!victim) return false;
        ++numbers_.gave_way_source;
        forget(*victim);
    }
    while (store_.blocks_in_use() + blocks > limit_blocks_) {
        const auto fullest = std::ranges::find_if(by_blocks_.rbegin(), by_blocks_.rend(),
                                                  [](const auto& sources) { return !sources.empty(); });
        Attempt* victim = fullest == by_blocks_.rend() ? nullptr : victim_of(*fullest->front());
        if (!victim) return false;
        ++numbers_.gave_way_in_all;
        forget(*victim);
    }
    return true;
}

void FlightRecorder::judge(Attempt& attempt, const Outline& outline, bool to_beginner) {
    const bool is_its_answer = attempt.is_call ? outline.is_invite : outline.is_register;
    if (outline.status < 200 || !to_beginner || !is_its_answer || outline.cseq != attempt.cseq) return;
    if (outline.status < 300) {
        ++numbers_.succeeded;
        forget(attempt);
    } else if (!is_challenge(outline.status)) {
        attempt.failed = true;
        attempt.status = outline.status;
    }
}

void FlightRecorder::clear(Attempt& attempt) {
    charge(sources_.at(attempt.source), attempt.octets.blocks, false);
    store_.release(attempt.octets);
    attempt.messages = attempt.leg_count = 0;
    attempt.failed = false;
    attempt.status = 0;
}

void FlightRecorder::forget(Attempt& attempt) {
    clear(attempt);
    Source& source = sources_.at(attempt.source);
    source.attempts.erase(attempt.place);
    drop_if_empty(source);
    auto node = attempts_.extract(attempt.key);
    if (spare_.size() < kSpare) spare_.push_back(std::move(node));
}

FlightRecorder::Source& FlightRecorder::source_of(const Address& address) {
    const auto [at, is_new] = sources_.try_emplace(address);
    if (is_new) {
        at->second.address = address;
        at->second.place = by_blocks_[0].insert(by_blocks_[0].end(), &at->second);
    }
    return at->second;
}

// A call from the core is its own until it is known for whom it is.
void FlightRecorder::move_to(Attempt& attempt, const Address& address) {
    const auto prefix = source_prefix(address);
    Source& from = sources_.at(attempt.source);
    if (prefix == attempt.source ||
        !std::ranges::none_of(attempt.legs.begin(),
                              attempt.legs.begin() + static_cast<std::ptrdiff_t>(attempt.leg_count),
                              [](const Leg& leg) { return !leg.who.core_side; }))
        return;
    Source& to = source_of(prefix);
    while (to.blocks + attempt.octets.blocks > source_blocks_) {
        ++numbers_.gave_way_source;
        Attempt& victim = *to.attempts.front();
        if (to.attempts.size() == 1) {  // `to` stays
            clear(victim);
            break;
        }
        forget(victim);
    }
    to.attempts.splice(to.attempts.end(), from.attempts, attempt.place);
    charge(to, attempt.octets.blocks, true);
    charge(from, attempt.octets.blocks, false);
    attempt.source = prefix;
    drop_if_empty(from);
}

void FlightRecorder::charge(Source& source, std::size_t blocks, bool is_more) {
    if (blocks == 0) return;
    const auto before = source.blocks;
    source.blocks = is_more ? before + blocks : before - blocks;
    auto& to = by_blocks_[source.blocks];
    to.splice(to.end(), by_blocks_[before], source.place);
}

void FlightRecorder::drop_if_empty(Source& source) {
    if (!source.attempts.empty()) return;
    by_blocks_[source.blocks].erase(source.place);
    sources_.erase(Address(source.address));
}

std::vector<TracedMessage> FlightRecorder::messages_of(const Attempt& attempt) const {
    std::vector<TracedMessage> messages;
    const auto octets = store_.text(attempt.octets);
    for (std::size_t at = 0; at + sizeof(Head) <= octets.size();) {
        Head head{};
        std::memcpy(&head, octets.data() + at, sizeof head);
        at += sizeof head;
        const Leg& leg = attempt.legs[head.leg];
        TracedMessage message;
        message.time = time_of(head.microseconds);
        message.impi = message.owner = leg.who.owner.value_or(Impi{});
        message.outward = leg.outward;
        message.core_side = leg.who.core_side;
        message.transport = leg.flow.transport;
        message.source = leg.outward ? leg.flow.local : leg.flow.remote;
        message.destination = leg.outward ? leg.flow.remote : leg.flow.local;
        message.protection = leg.who.protection;
        message.bytes = octets.substr(at, head.size);
        at += head.size;
        messages.push_back(std::move(message));
    }
    return messages;
}

// Who registers says so; a call is the phone's that its first leg belongs to.
std::string FlightRecorder::user_of(const Attempt& attempt) const {
    for (std::size_t i = 0; i < attempt.leg_count; ++i)
        if (const auto& owner = attempt.legs[i].who.owner; owner && !owner->empty()) return owner->value;
    std::string from;
    for (const auto& traced : messages_of(attempt)) {
        const auto message = sip::OwnedMessage::parse(traced.bytes);
        if (!message) continue;
        const auto credentials = sip::Credentials::read(**message, sip::HeaderId::authorization);
        if (!credentials.username().empty()) return std::string(credentials.username());
        if (from.empty()) from = (*message)->value(sip::HeaderId::from);
    }
    const auto begin = from.find('<');
    const auto end = from.find('>');
    return begin != std::string::npos && end != std::string::npos && end > begin
               ? from.substr(begin + 1, end - begin - 1)
               : from.substr(0, from.find(';'));
}

std::vector<TracedMessage> FlightRecorder::of(const Impi& impi) const {
    std::vector<TracedMessage> all;
    for (const auto& [key, attempt] : attempts_) {
        bool is_its = false, has_owner = false;
        for (std::size_t i = 0; i < attempt.leg_count; ++i) {
            const auto& owner = attempt.legs[i].who.owner;
            is_its = is_its || owner == impi;
            has_owner = has_owner || owner.has_value();
        }
        if (!is_its && !has_owner) {
            const auto user = user_of(attempt);
            is_its = user == impi.value || user == "sip:" + impi.value;
        }
        if (!is_its) continue;
        for (auto& message : messages_of(attempt)) {
            message.impi = impi;
            all.push_back(std::move(message));
        }
    }
    std::ranges::stable_sort(all, {}, &TracedMessage::time);
    return all;
}

std::vector<TracedMessage> FlightRecorder::of_call(std::string_view call_id) const {
    const auto at = attempts_.find(siphash(hash_key_, call_id));
    return at == attempts_.end() ? std::vector<TracedMessage>{} : messages_of(at->second);
}

std::vector<RecordedFailure> FlightRecorder::failures(std::size_t most) const {
    const auto too_long = microseconds_of(clock_.wall() - kPatience);
    std::vector<const Attempt*> attempts;
    for (const auto& [key, attempt] : attempts_)
        if (attempt.messages != 0 && (attempt.failed || attempt.last < too_long)) attempts.push_back(&attempt);
    std::ranges::sort(attempts, std::greater{}, &Attempt::last);
    if (attempts.size() > most) attempts.resize(most);
    std::vector<RecordedFailure> found;
    for (const Attempt* attempt : attempts) {
        RecordedFailure failure{.time = time_of(attempt->last),
                                .is_call = attempt->is_call,
                                .status = attempt->status,
                                .call_id = {},
                                .who = user_of(*attempt),
                                .messages = attempt->messages};
        const auto octets = store_.text(attempt->octets);
        failure.call_id = outline_of(std::string_view(octets).substr(sizeof(Head))).call_id;
        found.push_back(std::move(failure));
    }
    return found;
}

RecorderNumbers FlightRecorder::numbers() const {
    auto numbers = numbers_;
    numbers.attempts = attempts_.size();
    numbers.octets = store_.blocks_in_use() * OctetStore::kBlock;
    return numbers;
}

}  // namespace gmgate::daemon
