#include "daemon/observe/trace.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"

namespace gmgate::daemon {
namespace {
constexpr std::size_t kUnansweredPerUe = 4;
constexpr std::size_t kUeOctets = 256;  // of a UE's places in the tables, about

// Between the texts of a record, its checks, and a check's parts. What is shown instead of them is nobody's loss.
constexpr char kField = '\x1c', kCheck = '\x1d', kPart = '\x1e';

void append(std::string& words, std::string_view text) {
    const auto from = static_cast<std::ptrdiff_t>(words.size());
    words += text;
    std::replace_if(
        words.begin() + from, words.end(), [](char c) { return c >= kField && c <= kPart; }, '?');
}

std::vector<std::string> split(std::string_view text, char mark) {
    std::vector<std::string> parts;
    for (;;) {
        const auto end = text.find(mark);
        parts.emplace_back(text.substr(0, end));
        if (end == std::string_view::npos) return parts;
        text.remove_prefix(end + 1);
    }
}

// The texts that are kept as they are, in their order.
constexpr std::array kTexts{&DecisionRecord::realm_id,
                            &DecisionRecord::over,
                            &DecisionRecord::offer,
                            &DecisionRecord::policy,
                            &DecisionRecord::choice,
                            &DecisionRecord::rule,
                            &DecisionRecord::integrity_protected,
                            &DecisionRecord::security_associations,
                            &DecisionRecord::why};

/// "192.0.2.7:5060/UDP" as its endpoint and the rest; no endpoint when it is not written so.
std::pair<Endpoint, std::string> end_and_rest(const std::string& ue) {
    const auto slash = std::min(ue.rfind('/'), ue.size());
    const auto end = Endpoint::parse(std::string_view(ue).substr(0, slash));
    if (!end || end->port == Port{} || end->to_string() != ue.substr(0, slash)) return {{}, ue};
    return {*end, ue.substr(slash)};
}

std::string words_of(const DecisionRecord& record, const std::string& rest_of_ue) {
    std::size_t size = rest_of_ue.size();
    for (const auto text : kTexts) size += 1 + (record.*text).size();
    for (const auto& check : record.checks) size += 3 + check.check.size() + check.detail.size();
    std::string words;
    words.reserve(size);
    append(words, rest_of_ue);
    for (const auto text : kTexts) {
        words += kField;
        append(words, record.*text);
    }
    for (const auto& check : record.checks) {
        words += kCheck;
        words += check.passed ? '+' : '-';
        append(words, check.check);
        words += kPart;
        append(words, check.detail);
    }
    return words;
}

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

std::size_t octets_of(const UnansweredSet& set) { return sizeof set + set.sas.capacity() * sizeof(xfrm::SaReport); }

}  // namespace

KeptRecord::KeptRecord(const DecisionRecord& record, TextPatterns& patterns)
    : time_(record.time),
      set_(record.set),
      own_spis_(record.own_spis),
      core_status_(static_cast<std::int16_t>(record.core_status)),
      answer_(static_cast<std::int16_t>(record.answer)) {
    auto [end, rest] = end_and_rest(record.ue);
    end_ = end;
    words_ = PatternedText(words_of(record, rest), patterns);
}

DecisionRecord KeptRecord::record() const {
    DecisionRecord record;
    record.time = time_;
    record.set = set_;
    record.own_spis = own_spis_;
    record.core_status = core_status_;
    record.answer = answer_;
    const auto checks = split(words_.text(), kCheck);
    auto fields = split(checks.front(), kField);
    record.ue = (end_.port == Port{} ? "" : end_.to_string()) + fields[0];
    for (std::size_t i = 0; i < kTexts.size(); ++i) record.*kTexts[i] = std::move(fields[i + 1]);
    for (std::size_t i = 1; i < checks.size(); ++i) {
        const auto parts = split(std::string_view(checks[i]).substr(1), kPart);
        record.checks.push_back({parts[0], checks[i].starts_with('+'), parts[1]});
    }
    return record;
}

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
        keep(copy);
    }
    keep(record);
}

Trace::Ring& Trace::ring_of(const Impi& impi) {
    const auto at = by_impi_.find(impi.value);
    if (at != by_impi_.end()) {
        rings_.splice(rings_.begin(), rings_, at->second);
        return *at->second;
    }
    if (rings_.size() >= ues_) forget_oldest_ue();
    Rings fresh;
    fresh.push_front({impi, {}, {}});
    auto& ring = fresh.front();
    by_impi_.emplace(ring.impi.value, fresh.begin());
    rings_.splice(rings_.begin(), fresh);
    octets_ += kUeOctets + ring.impi.value.capacity();
    return ring;
}

const Trace::Ring* Trace::find(const Impi& impi) const {
    const auto at = by_impi_.find(cut(impi).value);
    return at == by_impi_.end() ? nullptr : &*at->second;
}

void Trace::keep(const DecisionRecord& record) {
    auto& ring = ring_of(record.impi);
    if (ring.records.size() >= records_per_ue_) {
        forget(ring, ring.records.front());
        ring.records.erase(ring.records.begin());
    }
    ring.records.emplace_back(record, patterns_);
    octets_ += ring.records.back().octets();
    for (const auto spi : {record.own_spis.spi_pc, record.own_spis.spi_ps})
        if (spi != Spi{}) spis_[spi] = &ring;
    while (octets() > octet_limit_ && rings_.size() > 1) forget_oldest_ue();
}

void Trace::forget(const Ring& ring, const KeptRecord& record) {
    octets_ -= record.octets();
    for (const auto spi : {record.own_spis().spi_pc, record.own_spis().spi_ps}) {
        const auto at = spis_.find(spi);
        if (at != spis_.end() && at->second == &ring) spis_.erase(at);
    }
}

void Trace::forget_oldest_ue() {
    if (rings_.empty()) return;
    const auto& ring = rings_.back();
    for (const auto& record : ring.records) forget(ring, record);
    for (const auto& old : ring.unanswered) octets_ -= octets_of(old);
    octets_ -= kUeOctets + ring.impi.value.capacity();
    by_impi_.erase(ring.impi.value);
    rings_.pop_back();
}

std::optional<Impi> Trace::whose_spi(Spi spi) const {
    const auto at = spis_.find(spi);
    return at == spis_.end() ? std::nullopt : std::optional(at->second->impi);
}

void Trace::add(UnansweredSet set) {
    const auto whose = spis_.find(set.parameters.spi_pc);
    if (whose == spis_.end()) return;
    auto& kept = whose->second->unanswered;
    if (kept.size() >= kUnansweredPerUe) {
        octets_ -= octets_of(kept.front());
        kept.erase(kept.begin());
    }
    kept.push_back(std::move(set));
    octets_ += octets_of(kept.back());
}

std::vector<UnansweredSet> Trace::unanswered(const Impi& impi) const {
    const auto* ring = find(impi);
    return ring ? ring->unanswered : std::vector<UnansweredSet>{};
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
    std::vector<DecisionRecord> records;
    const auto* ring = find(impi);
    if (!ring) return records;
    for (const auto& kept : ring->records) {
        records.push_back(kept.record());
        records.back().impi = ring->impi;
    }
    return records;
}

}  // namespace gmgate::daemon
