#include "daemon/cluster/follower.h"

#include <algorithm>
#include <utility>

#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/spawn.h"

namespace gmgate::daemon {
namespace {

using namespace std::chrono_literals;

constexpr auto kPause = 200ms;
constexpr auto kGiveUp = 3s;  // without a record that comes, when this node is to serve
constexpr std::size_t kTogether = 128;
constexpr std::size_t kRead = 512;      // changes or records at a time
constexpr const char* kBlock = "1000";  // milliseconds: below the patience of Redis
constexpr std::uint64_t kRefusalsLogged = 5;

}  // namespace

/// One record on its way into the kernel.
struct Follower::UnderWay {
    explicit UnderWay(Follower& f) : follower(f) {}
    UnderWay(const UnderWay&) = delete;
    UnderWay& operator=(const UnderWay&) = delete;
    ~UnderWay() {
        --follower.under_way_;
        ++follower.applied_;
        follower.one_done_.cancel();
    }
    Follower& follower;
};

Follower::Follower(Parts parts)
    : p_(std::move(parts)), keys_(p_.cluster.name), pause_(p_.executor), one_done_(p_.executor) {
    redis_ = std::make_unique<Redis>(p_.executor, p_.cluster.store,
                                     Redis::Handlers{.on_up = [this] { pause_.cancel(); },
                                                     .on_down = [this](const std::string&) { is_level_ = false; }});
}

void Follower::start() {
    if (is_stopped_ || std::exchange(is_running_, true)) return;
    if (!std::exchange(is_started_, true)) redis_->start();
    spawn(p_.executor, run(), "cluster-follower");
}

Task<void> Follower::wait(milliseconds time) {
    pause_.expires_after(time);
    asio::error_code ignored;
    co_await pause_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

Task<void> Follower::run() {
    while (!is_done()) {
        is_level_ = false;
        const bool is_read = redis_->is_up() && co_await read_all();
        if (!is_read) {
            if (!is_stopped_) co_await wait(kPause);
            continue;
        }
        is_level_ = true;
        level_epoch_ = epoch_;
        for (bool is_in_step = true; is_in_step && !is_done();) is_in_step = co_await read_changes();
    }
    is_running_ = false;
    pause_.cancel();
}

// What this node itself wrote last it has still, and goes on with it as without a cluster.
bool Follower::may_follow(const std::map<std::string, std::string>& owner) const {
    const auto value = [&](const char* name) {
        const auto at = owner.find(name);
        return at == owner.end() ? std::string{} : at->second;
    };
    const auto epoch = number_of(owner, "epoch");
    if (epoch == 0) return false;
    return epoch == taken_ || value("node") != std::to_string(p_.cluster.node_id) || value("boot") != p_.boot;
}

Task<bool> Follower::clear() {
    if (is_cleared_) co_return true;
    const auto cleared = co_await p_.clear_kernel();
    if (!cleared) log::error("cluster-kernel-not-cleared", {{"why", cleared.error().text}});
    is_cleared_ = cleared.has_value();
    co_return is_cleared_;
}

Task<bool> Follower::read_all() {
    const auto begun = p_.clock.now();
    std::vector<std::string> ask_last{"XREVRANGE", keys_.changes, "+", "-", "COUNT", "1"};
    std::vector<std::string> ask_owner{"HGETALL", keys_.owner};
    const auto last = co_await redis_->ask(std::move(ask_last));
    const auto told = co_await redis_->ask(std::move(ask_owner));
    if (!last || !told) co_return false;
    const auto owner = hash_of(**told);
    if (!may_follow(owner)) co_return false;
    const bool is_cleared = co_await clear();
    if (!is_cleared) co_return false;
    epoch_ = number_of(owner, "epoch");
    position_ = "0-0";
    number_ = number_of(owner, "changes");
    if (!(*last)->list.empty() && (*last)->list[0]->list.size() == 2) {
        position_ = (*last)->list[0]->list[0]->text;
        number_ = number_of(hash_of(*(*last)->list[0]->list[1]), "n");
    }
    ++numbers_.readings;
    ++round_;
    const bool is_read = co_await scan();
    if (!is_read) co_return false;
    if (owner.contains("whole")) co_await end_unseen();
    has_unseen_ = std::ranges::any_of(held_, [this](const auto& one) { return one.second.round != round_; });
    co_await remove_leftovers();
    if (taken_ == 0)
        log::notice("cluster-standby-level",
                    {{"registrations", held_.size()},
                     {"sets", by_mark_.size()},
                     {"refused", numbers_.refused},
                     {"milliseconds", std::chrono::duration_cast<milliseconds>(p_.clock.now() - begun).count()}});
    co_return true;
}

Task<bool> Follower::scan() {
    std::string cursor = "0";
    do {
        std::vector<std::string> command{"HSCAN", keys_.records, cursor, "COUNT", std::to_string(kRead)};
        const auto answer = co_await redis_->ask(std::move(command));
        if (!answer || (*answer)->list.size() != 2) co_return false;
        cursor = (*answer)->list[0]->text;
        auto records = hash_of(*(*answer)->list[1]);
        for (auto& [field, octets] : records) co_await begin(field, std::move(octets));
        co_await wait_below(1);
    } while (cursor != "0" && !cursor.empty() && !is_stopped_);
    co_return !is_stopped_;
}

// False: begin with all records again.
Task<bool> Follower::read_changes() {
    std::vector<std::string> command{"XREAD", "COUNT",   std::to_string(kRead), "BLOCK",
                                     kBlock,  "STREAMS", keys_.changes,         position_};
    const auto answer = co_await redis_->ask(std::move(command));
    if (!answer || is_stopped_) co_return false;
    std::set<std::string> fields;
    bool is_whole = false;
    if (!(*answer)->list.empty() && (*answer)->list[0]->list.size() == 2) {
        for (const auto& entry : (*answer)->list[0]->list[1]->list) {
            if (entry->list.size() != 2) co_return false;
            const auto said = hash_of(*entry->list[1]);
            const auto number = number_of(said, "n");
            if (number != number_ + 1) co_return false;  // some were cut off before they were read, or the store forgot
            number_ = number;
            position_ = entry->list[0]->text;
            if (const auto field = said.find("f"); field != said.end()) fields.insert(field->second);
            epoch_ = std::max(epoch_, number_of(said, "e"));
            is_whole = is_whole || said.contains("w");
        }
    }
    std::vector<std::string> changed(fields.begin(), fields.end());
    const bool is_read = co_await read_records(std::move(changed));
    if (!is_read) co_return false;
    const bool is_looked_at = co_await look_again();
    if (!is_looked_at) co_return false;
    co_await remove_leftovers();
    level_epoch_ = epoch_;
    co_return !(is_whole && has_unseen_);
}

Task<bool> Follower::read_records(std::vector<std::string> fields) {
    for (std::size_t start = 0; start < fields.size(); start += kRead) {
        const auto size = std::min(fields.size() - start, kRead);
        std::vector<std::string> command{"HMGET", keys_.records};
        for (std::size_t i = 0; i < size; ++i) command.push_back(fields[start + i]);
        const auto answer = co_await redis_->ask(std::move(command));
        if (!answer || (*answer)->list.size() != size) co_return false;
        numbers_.behind = size;
        // What was erased comes last: the set of a challenge that was answered is its registration's now.
        for (const bool is_text : {true, false}) {
            for (std::size_t i = 0; i < size; ++i) {
                auto& record = *(*answer)->list[i];
                if (record.is_text() != is_text) continue;
                std::optional<std::string> octets;
                if (is_text) octets = std::move(record.text);
                co_await begin(fields[start + i], std::move(octets));
            }
            co_await wait_below(1);
        }
        numbers_.behind = 0;
    }
    co_return true;
}

Task<void> Follower::begin(std::string field, std::optional<std::string> octets) {
    co_await wait_below(kTogether);
    ++under_way_;
    spawn(p_.executor, apply(std::move(field), std::move(octets)), "follow-record");
}

Task<void> Follower::wait_below(std::size_t limit) {
    while (under_way_ >= limit) {
        one_done_.expires_after(1h);
        asio::error_code ignored;
        co_await one_done_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
}

void Follower::refuse(const std::string& field, const std::string& why) {
    if (!unopened_.insert(field).second) return;  // it is written again and again
    if (++numbers_.refused <= kRefusalsLogged)
        log::error("cluster-record-refused", {{"record", field.substr(0, field.find('\n'))}, {"why", why}});
}

Task<void> Follower::apply(std::string field, std::optional<std::string> octets) {
    const UnderWay counted(*this);
    if (!octets) {
        co_await end(std::move(field));
        co_return;
    }
    auto record = decode_record(*octets, p_.clock);
    if (!record || record->field() != field) {
        if (const auto at = held_.find(field); at != held_.end()) at->second.round = round_;
        refuse(field, record ? "it is filed under another name" : record.error().text);
        co_return;
    }
    if (record->row.expires <= p_.clock.now()) co_await end(std::move(field));
    else co_await hold(std::move(field), std::move(*record));
}

// ------------------------------------------------------------------------------------------------ its turn

Task<void> Follower::wait_for_the_end() {
    auto applied = applied_;
    auto since = p_.clock.now();
    while (is_running_ && (is_stopped_ || p_.clock.now() - since < kGiveUp)) {
        if (std::exchange(applied, applied_) != applied_) since = p_.clock.now();
        co_await wait(50ms);
    }
    if (is_running_)
        log::error(
            "cluster-records-unreadable",
            {{"why", "the store tells nothing more: " + std::string(redis_->is_up() ? "no records" : "it is away")},
             {"read", held_.size()}});
    is_stopped_ = true;
    while (is_running_) co_await wait(50ms);
}

Task<TakenRecords> Follower::take_over(std::uint64_t epoch) {
    const auto begun = p_.clock.now();
    const auto work = numbers_.installed + numbers_.moved;
    taken_ = epoch;
    start();
    co_await wait_for_the_end();
    static_cast<void>(co_await clear());  // the store went before anything was read
    std::vector<std::string> late;        // written in an epoch before the last one, and not since
    for (const auto& [field, held] : held_)
        if (held.epoch != epoch) late.push_back(field);
    static_cast<void>(co_await read_records(std::move(late)));
    auto records = taken();
    log::notice("cluster-records-installed",
                {{"registrations", records.registrations.size()},
                 {"challenges", records.challenges.size()},
                 {"sets", by_mark_.size()},
                 {"kernel-work", numbers_.installed + numbers_.moved - work},
                 {"refused", numbers_.refused},
                 {"milliseconds", std::chrono::duration_cast<milliseconds>(p_.clock.now() - begun).count()}});
    co_return records;
}

Task<TakenRecords> Follower::take_what_is_held() {
    is_stopped_ = true;
    pause_.cancel();
    co_await wait_for_the_end();
    co_return taken();
}

TakenRecords Follower::taken() {
    TakenRecords all;
    all.registrations.reserve(held_.size());
    is_stopped_ = true;
    numbers_.registrations = held_.size();
    for (auto& [field, held] : held_) {
        if (held.row.sets.empty()) continue;
        if (held.challenge) all.challenges.push_back({std::move(held.row), std::move(*held.challenge)});
        else all.registrations.push_back(std::move(held.row));
    }
    held_.clear();
    return all;
}

FollowerNumbers Follower::numbers() const {
    auto numbers = numbers_;
    if (!is_stopped_) numbers.registrations = held_.size();
    numbers.sets = by_mark_.size();
    numbers.is_level = is_level_;
    return numbers;
}

}  // namespace gmgate::daemon
