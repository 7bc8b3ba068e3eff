#include "daemon/operate/trace.h"

#include <algorithm>

#include "base/log.h"

namespace gmgate::daemon {

void Trace::add(DecisionRecord record) {
    std::string failed;
    for (const auto& check : record.checks)
        if (!check.passed) failed += (failed.empty() ? "" : ",") + check.check;
    const auto level = record.answer >= 400 && record.answer != 401 ? log::Level::notice : log::Level::info;
    log::write(level, "register", {{"impi", record.impi.value}, {"ue", record.ue}, {"realm", record.realm_id}, {"over", record.over}, {"choice", record.choice},
                                   {"integrity-protected", record.integrity_protected}, {"core", record.core_status}, {"answer", record.answer},
                                   {"failed-checks", failed.empty() ? "none" : failed}, {"why", record.why}});
    auto at = rings_.find(record.impi);
    if (at == rings_.end()) {
        if (rings_.size() >= ues_ && !recency_.empty()) {
            rings_.erase(recency_.back());
            recency_.pop_back();
        }
        recency_.push_front(record.impi);
        at = rings_.emplace(record.impi, Ring{{}, recency_.begin()}).first;
    } else {
        recency_.splice(recency_.begin(), recency_, at->second.recency);
    }
    auto& records = at->second.records;
    if (records.size() >= records_per_ue_) records.pop_front();
    records.push_back(std::move(record));
}

std::vector<DecisionRecord> Trace::of(const Impi& impi) const {
    const auto at = rings_.find(impi);
    if (at == rings_.end()) return {};
    return {at->second.records.begin(), at->second.records.end()};
}

}  // namespace gmgate::daemon
