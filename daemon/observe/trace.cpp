#include "daemon/observe/trace.h"

#include <algorithm>

#include "base/log.h"

namespace gmgate::daemon {
namespace {
constexpr std::size_t kUnansweredPerUe = 4;
}

void Trace::add(DecisionRecord record, const Impi& also) {
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
        if (rings_.size() >= ues_ && !recency_.empty()) {
            for (const auto& old : rings_.at(recency_.back()).records) forget_set(old);
            rings_.erase(recency_.back());
            recency_.pop_back();
        }
        recency_.push_front(record.impi);
        at = rings_.emplace(record.impi, Ring{{}, {}, recency_.begin()}).first;
    } else {
        recency_.splice(recency_.begin(), recency_, at->second.recency);
    }
    auto& records = at->second.records;
    if (records.size() >= records_per_ue_) {
        forget_set(records.front());
        records.pop_front();
    }
    if (record.set.value != 0) challenged_[record.set] = record.impi;
    if (record.parameters)
        for (const auto spi : {record.parameters->spi_pc, record.parameters->spi_ps}) spis_[spi] = record.impi;
    records.push_back(std::move(record));
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
    if (kept.size() >= kUnansweredPerUe) kept.pop_front();
    kept.push_back(std::move(set));
}

std::vector<UnansweredSet> Trace::unanswered(const Impi& impi) const {
    const auto at = rings_.find(impi);
    if (at == rings_.end()) return {};
    return {at->second.unanswered.begin(), at->second.unanswered.end()};
}

Trace::Subscription Trace::on_record(RecordHandler handler) {
    auto subscription = std::make_shared<RecordHandler>(std::move(handler));
    handlers_.push_back(subscription);
    return subscription;
}

std::uint64_t Trace::core_asked(PendingRegister pending) {
    pending_.emplace(++last_pending_, std::move(pending));
    return last_pending_;
}

std::vector<PendingRegister> Trace::pending(const Impi& impi) const {
    std::vector<PendingRegister> found;
    for (const auto& [number, pending] : pending_)
        if (pending.impi == impi) found.push_back(pending);
    return found;
}

std::vector<DecisionRecord> Trace::of(const Impi& impi) const {
    const auto at = rings_.find(impi);
    if (at == rings_.end()) return {};
    return {at->second.records.begin(), at->second.records.end()};
}

}  // namespace gmgate::daemon
