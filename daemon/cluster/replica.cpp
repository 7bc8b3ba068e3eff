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
    "if ARGV[3]~='' then redis.call('HSET',KEYS[2],ARGV[2],ARGV[3]) "
    "elseif redis.call('HDEL',KEYS[2],ARGV[2])==0 then return 1 end "
    "local function say(f) redis.call('XADD',KEYS[3],'MAXLEN','~',ARGV[4],'*','n',"
    "redis.call('HINCRBY',KEYS[1],'changes',1),'f',f) end say(ARGV[2]) "
    "for i=5,#ARGV do if redis.call('HDEL',KEYS[2],ARGV[i])==1 then say(ARGV[i]) end end "
    "return 1";
// Said once everything was written anew: what a standby holds and the store does not has ended. A store that had
// forgotten does not say so before.
constexpr const char* kWhole =
    "if redis.call('HGET',KEYS[1],'epoch')~=ARGV[1] then return 0 end redis.call('HSET',KEYS[1],'whole','1') "
    "redis.call('XADD',KEYS[2],'MAXLEN','~',ARGV[2],'*','n',redis.call('HINCRBY',KEYS[1],'changes',1),'w','1') "
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

Task<void> Replica::save_challenge(ChallengeKey key) {
    auto place = challenge_place(key);
    co_await save(std::move(place));
}

void Replica::challenge_ended(SetNumber number) {
    const auto at = challenges_.find(number.value);
    if (at == challenges_.end()) return;
    const auto place = std::move(at->second);
    challenges_.erase(at);
    changed(place);
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
        if (work_.empty() && std::exchange(is_levelling_, false)) spawn(p_.executor, tell_whole(), "cluster-whole");
    }
    pump();
}

Task<void> Replica::tell_whole() {
    std::vector<std::string> command{"EVAL",      kWhole, "2", p_.keys.owner, p_.keys.changes, std::to_string(epoch_),
                                     kChangesKept};
    static_cast<void>(co_await p_.redis.ask(std::move(command)));  // when it fails, the store comes back: again then
}

// Empty: there is nothing to hand on. nullopt: it cannot be sealed now.
Task<std::optional<std::string>> Replica::record_of(ContactKey key) {
    if (const auto challenge = challenge_at(key)) co_return co_await record_of_challenge(*challenge);
    const auto* registration = p_.table.find(key);
    // A TLS connection ends with its node; what comes back over TLS registers anew.
    if (!registration || registration->ended || registration->sets.empty() || registration->tls) co_return "";
    auto row = to_stored(*registration);
    co_return co_await sealed(std::move(row), std::nullopt);
}

Task<std::optional<std::string>> Replica::record_of_challenge(ChallengeKey key) {
    const auto* challenge = p_.table.find_challenge(key);
    if (!challenge || challenge->finished) co_return "";
    const auto& set = *challenge->set;
    challenges_[set.number.value] = challenge_place(key);
    StoredRegistration row;
    row.key = challenge->contact;
    row.token = challenge->token;
    row.expires = set.expires;
    row.sets.push_back({set.number, set.state, set.parameters, set.security_server.text(), set.security_client.text(),
                        set.expires, set.in_use, set.port_uenc, set.inner});
    HandedChallenge beside{.nonce = challenge->nonce, .came_over = challenge->came_over};
    co_return co_await sealed(std::move(row), std::move(beside));
}

Task<std::optional<std::string>> Replica::sealed(StoredRegistration stored, std::optional<HandedChallenge> challenge) {
    const auto row = encode_row(stored, p_.clock, challenge ? &*challenge : nullptr);
    const auto digest = digest_of(row);
    std::vector<xfrm::SealedKeys> seals;
    for (const auto& set : stored.sets) {
        xfrm::SealOrder order{.parameters = set.parameters, .epoch = epoch_, .record = digest};
        const auto seal = co_await p_.sealing.seal_set(std::move(order));
        if (!seal) {
            // ENOENT: the set ended meanwhile, and what came of it is written next.
            if (seal.error().code != ENOENT && !std::exchange(has_logged_seal_, true))
                log::error("cluster-not-sealed", {{"impi", stored.key.impi.value}, {"why", seal.error().text}});
            co_return std::nullopt;
        }
        seals.push_back(*seal);
    }
    co_return encode_record(row, seals);
}

std::vector<std::uint32_t> Replica::answered_by(const ContactKey& key) const {
    std::vector<std::uint32_t> numbers;
    const auto* registration = p_.table.find(key);
    if (registration)
        for (const auto& set : registration->sets)
            if (challenges_.contains(set->number.value)) numbers.push_back(set->number.value);
    return numbers;
}

Task<bool> Replica::write(ContactKey key) {
    if (!p_.redis.is_up()) co_return false;
    auto record = co_await record_of(key);
    if (!record) co_return false;
    const bool is_erased = record->empty();
    std::vector<std::string> command{"EVAL",
                                     kWrite,
                                     "3",
                                     p_.keys.owner,
                                     p_.keys.records,
                                     p_.keys.changes,
                                     std::to_string(epoch_),
                                     record_field(key),
                                     std::move(*record),
                                     kChangesKept};
    // The challenge that it was ends with this, in one step.
    const auto answered = answered_by(key);
    for (const auto number : answered) command.push_back(record_field(challenges_.at(number)));
    const auto answer = co_await p_.redis.ask(std::move(command));
    if (!answer) co_return false;
    const auto code = (*answer)->number;
    if (code == -1 && p_.on_fenced) p_.on_fenced();
    if (code != 1) co_return false;
    for (const auto number : answered) challenges_.erase(number);
    ++(is_erased ? counters_.erased : counters_.written);
    co_return true;
}

Task<void> Replica::level(std::vector<std::string> kept, bool all) {
    std::vector<std::string> command{"HKEYS", p_.keys.records};
    const auto fields = co_await p_.redis.ask(std::move(command));
    const std::set<std::string> left_alone(kept.begin(), kept.end());
    std::set<std::string> there;
    if (fields)
        for (const auto& field : (*fields)->list) {
            const auto key = key_of(field->text);
            const bool is_known = key && (p_.table.find(*key) || is_waiting(*key));
            if (is_known) there.insert(field->text);
            else if (key && !left_alone.contains(field->text)) changed(*key);
        }
    std::function<void(Registration&)> each = [&](Registration& registration) {
        if (all || !there.contains(record_field(registration.key))) changed(registration.key);
    };
    co_await p_.table.walk(std::move(each));
    std::function<void(Challenge&)> waiting = [&](Challenge& one) { changed(challenge_place(one.key())); };
    co_await p_.table.walk_challenges(std::move(waiting));
    if (work_.empty()) co_await tell_whole();
    else is_levelling_ = true;
    log::info("cluster-levelled", {{"records", work_.size()}});
}

bool Replica::is_waiting(const ContactKey& place) const {
    const auto challenge = challenge_at(place);
    return challenge && p_.table.find_challenge(*challenge);
}

}  // namespace gmgate::daemon
