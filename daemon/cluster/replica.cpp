#include "daemon/cluster/replica.h"

#include <algorithm>
#include <set>
#include <utility>

#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/slice.h"
#include "base/spawn.h"
#include "daemon/cluster/record.h"
#include "daemon/registrations/stored.h"

namespace gmgate::daemon {
namespace {

constexpr std::size_t kTogether = 128;  // records under way

// 1: written; -1: another epoch; -2: the store knows no owner, which the owner tells it again within a second.
constexpr const char* kWrite =
    "local e=redis.call('HGET',KEYS[1],'epoch') if e~=ARGV[1] then return e and -1 or -2 end "
    "if ARGV[3]=='' then redis.call('HDEL',KEYS[2],ARGV[2]) else redis.call('HSET',KEYS[2],ARGV[2],ARGV[3]) end "
    "return 1";

// Its second half of record_field(): what a record is filed under.
std::optional<ContactKey> key_of(const std::string& field) {
    const auto first = field.find('\n');
    const auto second = first == std::string::npos ? first : field.find('\n', first + 1);
    if (second == std::string::npos) return std::nullopt;
    return ContactKey{Impi{field.substr(0, first)}, field.substr(first + 1, second - first - 1),
                      field.substr(second + 1)};
}

}  // namespace

Task<void> Replica::save(ContactKey key) {
    if (epoch_ == 0 || !p_.redis.is_up()) {
        ++counters_.unreplicated;
        co_return;
    }
    const auto waiter = std::make_shared<Waiter>(p_.executor);
    waiter->timer.expires_after(kPatience);
    push(key, waiter);
    asio::error_code ignored;
    co_await waiter->timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    if (!waiter->is_done) ++counters_.unreplicated;
}

void Replica::changed(const ContactKey& key) {
    if (epoch_ != 0) push(key, nullptr);
}

void Replica::push(const ContactKey& key, std::shared_ptr<Waiter> waiter) {
    auto& work = work_[key];
    if (waiter) work.waiters.push_back(std::move(waiter));
    if (work.is_busy) {
        work.is_wanted_again = true;
        return;
    }
    if (std::exchange(work.is_queued, true)) return;
    queue_.push_back(key);
    // In the loop's next turn: what changes several times in this one is written once.
    if (queue_.size() == 1) asio::post(p_.executor, [this] { pump(); });
}

void Replica::pump() {
    while (busy_ < kTogether && !queue_.empty()) {
        auto key = std::move(queue_.front());
        queue_.pop_front();
        auto& work = work_[key];
        work.is_queued = false;
        work.is_busy = true;
        ++busy_;
        spawn(p_.executor, run(std::move(key)), "replica");
    }
}

Task<void> Replica::run(ContactKey key) {
    const auto waiters = std::exchange(work_[key].waiters, {});
    const bool is_written = co_await write(key);
    if (!is_written) ++counters_.failed;
    for (const auto& waiter : waiters) {
        waiter->is_done = is_written;
        waiter->timer.cancel();
    }
    --busy_;
    const auto at = work_.find(key);
    at->second.is_busy = false;
    if (std::exchange(at->second.is_wanted_again, false)) {
        at->second.is_queued = true;
        queue_.push_back(std::move(key));
    } else {
        work_.erase(at);
    }
    pump();
}

// Empty: there is nothing to hand on. nullopt: it cannot be sealed now.
Task<std::optional<std::string>> Replica::record_of(ContactKey key) {
    const auto* registration = p_.table.find(key);
    // A TLS connection ends with its node; what comes back over TLS registers anew.
    if (!registration || registration->ended || registration->sets.empty() || registration->tls) co_return "";
    const auto stored = to_stored(*registration);
    const auto row = encode_row(stored, p_.clock);
    const auto digest = digest_of(row);
    std::vector<xfrm::SealedKeys> seals;
    for (const auto& set : stored.sets) {
        xfrm::SealOrder order{.parameters = set.parameters, .epoch = epoch_, .record = digest};
        const auto sealed = co_await p_.sealing.seal_set(std::move(order));
        if (!sealed) {
            // ENOENT: the set ended meanwhile, and what came of it is written next.
            if (sealed.error().code != ENOENT && !std::exchange(has_logged_seal_, true))
                log::error("cluster-not-sealed", {{"impi", key.impi.value}, {"why", sealed.error().text}});
            co_return std::nullopt;
        }
        seals.push_back(*sealed);
    }
    co_return encode_record(row, seals);
}

Task<bool> Replica::write(ContactKey key) {
    if (!p_.redis.is_up()) co_return false;
    auto record = co_await record_of(key);
    if (!record) co_return false;
    const bool is_erased = record->empty();
    std::vector<std::string> command{"EVAL",
                                     kWrite,
                                     "2",
                                     p_.keys.owner,
                                     p_.keys.records,
                                     std::to_string(epoch_),
                                     record_field(key),
                                     std::move(*record)};
    const auto answer = co_await p_.redis.ask(std::move(command));
    if (!answer) co_return false;
    const auto code = (*answer)->number;
    if (code == -1 && p_.on_fenced) p_.on_fenced();
    if (code != 1) co_return false;
    ++(is_erased ? counters_.erased : counters_.written);
    co_return true;
}

Task<void> Replica::level(std::vector<std::string> kept) {
    std::vector<std::string> command{"HKEYS", p_.keys.records};
    const auto fields = co_await p_.redis.ask(std::move(command));
    const std::set<std::string> left_alone(kept.begin(), kept.end());
    if (fields)
        for (const auto& field : (*fields)->list) {
            const auto key = key_of(field->text);
            if (key && !p_.table.find(*key) && !left_alone.contains(field->text)) changed(*key);
        }
    std::function<void(Registration&)> each = [this](Registration& registration) { changed(registration.key); };
    co_await p_.table.walk(std::move(each));
    log::info("cluster-levelled", {{"records", work_.size()}});
}

}  // namespace gmgate::daemon
