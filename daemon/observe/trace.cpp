#include "daemon/observe/trace.h"

#include <algorithm>

#include "base/log.h"

namespace gmgate::daemon {
namespace {
constexpr std::size_t kUnansweredPerUe = 4;
constexpr std::size_t kUeOctets = 1024;  // of a UE's places in the tables, about

// What is cut once stays as it is when it is cut again: cut names are looked up by cut names.
void cut(std::string& text, std::size_t limit = Trace::kFieldLimit) {
    if (text.size() <= limit) return;
    text.resize(limit - 3);
    text += "...";
    text.shrink_to_fit();
}

Impi cut(Impi impi) {
    cut(impi.value);
    return impi;
}

void cut(DecisionRecord& record) {
    for (auto* text : {&record.impi.value, &record.ue, &record.realm_id, &record.over, &record.policy, &record.choice,
                       &record.rule, &record.integrity_protected, &record.security_associations, &record.why})
        cut(*text);
    for (auto& check : record.checks) cut(check.detail);
    cut(record.offer, Trace::kOfferLimit);
}

std::size_t octets_of(const DecisionRecord& record) {
    std::size_t octets = sizeof record + 2 * record.impi.value.capacity();  // two indexes may name it
    for (const auto* text :
         {&record.impi.value, &record.ue, &record.realm_id, &record.over, &record.offer, &record.policy, &record.choice,
          &record.rule, &record.integrity_protected, &record.security_associations, &record.why})
        octets += text->capacity();
    for (const auto& check : record.checks) octets += sizeof check + check.check.capacity() + check.detail.capacity();
    return octets;
}

std::size_t octets_of(const UnansweredSet& set) { return sizeof set + set.sas.capacity() * sizeof(xfrm::SaReport); }

}  // namespace

void Trace::add(DecisionRecord record, const Impi& sender) {
    cut(record);
    const Impi also = cut(sender);
    std::string failed;
    for (const auto& check : record.checks)
        if (!check.passed) failed += (failed.empty() ? "" : ",") + check.check;
    const auto level = record.answer >= 400 && record.answer != 401 ? log::Level::notice : log::Level::info;
    log::write(level, "register",
               {{"impi", record.impi.value},
                {"ue", record.ue},
                {"realm", record.realm_id},
                {"over", record.over},
                {"choice", record.choice},
                {"integrity-protected", record.integrity_protected},
                {"core", record.core_status},
                {"answer", record.answer},
                {"failed-checks", failed.empty() ? "none" : failed},
                {"why", record.why}});
    std::erase_if(handlers_, [](const auto& handler) { return handler.expired(); });
    for (const auto& weak : std::vector(handlers_))
        if (const auto handler = weak.lock()) (*handler)(record);
    if (!also.empty() && also != record.impi) {
        auto copy = record;
        copy.impi = also;
        keep(std::move(copy));
    }
    keep(std::move(record));
}

void Trace::keep(DecisionRecord record) {
    auto at = rings_.find(record.impi);
    if (at == rings_.end()) {
        if (rings_.size() >= ues_) forget_oldest_ue();
        recency_.push_front(record.impi);
        at = rings_.emplace(record.impi, Ring{{}, {}, recency_.begin()}).first;
        octets_ += kUeOctets;
    } else {
        recency_.splice(recency_.begin(), recency_, at->second.recency);
    }
    auto& records = at->second.records;
    if (records.size() >= records_per_ue_) {
        octets_ -= octets_of(records.front());
        forget_set(records.front());
        records.pop_front();
    }
    if (record.set.value != 0) challenged_[record.set] = record.impi;
    if (record.parameters)
        for (const auto spi : {record.parameters->spi_pc, record.parameters->spi_ps}) spis_[spi] = record.impi;
    records.push_back(std::move(record));
    octets_ += octets_of(records.back());
    while (octets_ > octet_limit_ && rings_.size() > 1) forget_oldest_ue();
}

void Trace::forget_oldest_ue() {
    if (recency_.empty()) return;
    const auto at = rings_.find(recency_.back());
    for (const auto& old : at->second.records) {
        octets_ -= octets_of(old);
        forget_set(old);
    }
    for (const auto& old : at->second.unanswered) octets_ -= octets_of(old);
    octets_ -= kUeOctets;
    rings_.erase(at);
    recency_.pop_back();
}

void Trace::forget_set(const DecisionRecord& record) {
    if (record.set.value != 0) challenged_.erase(record.set);
    if (record.parameters)
        for (const auto spi : {record.parameters->spi_pc, record.parameters->spi_ps}) spis_.erase(spi);
}

std::optional<Impi> Trace::whose_spi(Spi spi) const {
    const auto at = spis_.find(spi);
    return at == spis_.end() ? std::nullopt : std::optional(at->second);
}

void Trace::add(UnansweredSet set) {
    const auto whose = challenged_.find(set.number);
    if (whose == challenged_.end()) return;
    const auto at = rings_.find(whose->second);
    if (at == rings_.end()) return;
    auto& kept = at->second.unanswered;
    if (kept.size() >= kUnansweredPerUe) {
        octets_ -= octets_of(kept.front());
        kept.pop_front();
    }
    kept.push_back(std::move(set));
    octets_ += octets_of(kept.back());
}

std::vector<UnansweredSet> Trace::unanswered(const Impi& impi) const {
    const auto at = rings_.find(cut(impi));
    if (at == rings_.end()) return {};
    return {at->second.unanswered.begin(), at->second.unanswered.end()};
}

Trace::Subscription Trace::on_record(RecordHandler handler) {
    auto subscription = std::make_shared<RecordHandler>(std::move(handler));
    handlers_.push_back(subscription);
    return subscription;
}

std::uint64_t Trace::core_asked(PendingRegister pending) {
    cut(pending.impi.value);
    pending_.emplace(++last_pending_, std::move(pending));
    return last_pending_;
}

std::vector<PendingRegister> Trace::pending(const Impi& impi) const {
    const Impi name = cut(impi);
    std::vector<PendingRegister> found;
    for (const auto& [number, pending] : pending_)
        if (pending.impi == name) found.push_back(pending);
    return found;
}

std::vector<DecisionRecord> Trace::of(const Impi& impi) const {
    const auto at = rings_.find(cut(impi));
    if (at == rings_.end()) return {};
    return {at->second.records.begin(), at->second.records.end()};
}

}  // namespace gmgate::daemon
