#include "daemon/operate/registration_statistics.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace gmgate::daemon {
namespace {

constexpr std::string_view kTemporary = "temporary set ";

}  // namespace

SetNumber temporary_set_of(std::string_view over) {
    SetNumber set;
    if (!over.starts_with(kTemporary)) return set;
    over.remove_prefix(kTemporary.size());
    std::from_chars(over.data(), over.data() + over.size(), set.value);
    return set;
}

std::string failure_reason(const DecisionRecord& record) {
    for (const auto& check : record.checks)
        if (!check.passed) return check.check;
    return record.core_status >= 300 ? fmt::format("core {}", record.core_status) : fmt::format("{}", record.answer);
}

std::chrono::seconds RegistrationStatistics::in_period() const {
    return std::chrono::duration_cast<std::chrono::seconds>(clock_->now() - period_begun_);
}

void RegistrationStatistics::look(std::size_t active) {
    if (const auto late = clock_->now() - period_begun_; late >= kPeriod) {
        period_begun_ += kPeriod * (late / kPeriod);
        most_active_in_period_ = 0;
        for (auto* tally : {&registered_, &refreshed_, &challenged_, &refused_}) tally->period = 0;
        for (auto& [realm, tally] : by_realm_) {
            for (auto* one : {&tally.attempts, &tally.successes, &tally.failures}) one->period = 0;
            for (auto& [reason, one] : tally.reasons) one.period = 0;
        }
    }
    most_active_in_period_ = std::max(most_active_in_period_, active);
    most_active_ = std::max(most_active_, active);
}

void RegistrationStatistics::fail(AgreementTally& tally, const std::string& reason) {
    tally.failures.add();
    const bool has_room = tally.reasons.size() < kReasons || tally.reasons.contains(reason);
    tally.reasons[has_room ? reason : "other"].add();
}

void RegistrationStatistics::record(const DecisionRecord& record, std::size_t active) {
    look(active);
    const bool is_temporary = temporary_set_of(record.over).value != 0;
    const bool is_refused = record.answer >= 300 && record.answer != 401 && record.answer != 407;
    if (record.answer == 200 && record.why.starts_with("registered")) registered_.add();
    if (record.answer == 200 && record.why.starts_with("refreshed")) refreshed_.add();
    if (record.answer == 401 || record.answer == 407) challenged_.add();
    if (is_refused) refused_.add();
    if (record.over.find("TLS") != std::string::npos) return;
    auto& tally = by_realm_[record.realm_id];
    if (!is_temporary && (record.set.value != 0 || is_refused)) tally.attempts.add();
    if (is_temporary && record.answer == 200) tally.successes.add();
    if (is_refused) fail(tally, failure_reason(record));
    measure(record);
}

// The record's time is that of the REGISTER's arrival; the handler runs when its answer has left.
void RegistrationStatistics::measure(const DecisionRecord& record) {
    const auto now = clock_->wall();
    if (record.answer == 401 && record.set.value != 0) {
        if (begun_.size() >= kChallenges) begun_.clear();  // a flood: those of the others are not measured
        begun_[record.set] = {record.time, now};
        durations_["challenge"].add(now - record.time);
        return;
    }
    const auto begun = begun_.find(temporary_set_of(record.over));
    if (begun == begun_.end()) return;
    if (record.answer == 200) {
        durations_["phone"].add(record.time - begun->second.challenged);
        durations_["answer"].add(now - record.time);
        durations_["whole"].add(now - begun->second.first);
    }
    begun_.erase(begun);
}

void RegistrationStatistics::unanswered(SetNumber set, const std::string& realm) {
    begun_.erase(set);
    fail(by_realm_[realm], "unanswered");
}

}  // namespace gmgate::daemon
