#include "daemon/cluster/cluster.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/spawn.h"
#include "daemon/cluster/record.h"
#include "daemon/registrations/store_file.h"

namespace gmgate::daemon {
namespace {

using namespace std::chrono_literals;

constexpr auto kAlonePatience = 3s;  // for the shared store, when the addresses are here
constexpr auto kLook = 500ms;
constexpr auto kBeat = 1s;
constexpr const char* kAliveTime = "3000";  // milliseconds
constexpr auto kFresh = 2s;                 // of what waits in the sockets: a phone has not given up yet

// Compare-and-set: whoever knows the epoch of before gets the next one, once.
constexpr const char* kTake =
    "local e=redis.call('HGET',KEYS[1],'epoch') or '0' if e~=ARGV[1] then return 0 end "
    "redis.call('HSET',KEYS[1],'epoch',ARGV[2],'node',ARGV[3],'boot',ARGV[4],'since',ARGV[5]) "
    "redis.call('SET',KEYS[2],ARGV[3],'PX',ARGV[6]) "
    "redis.call('XADD',KEYS[3],'MAXLEN','~',ARGV[7],'*','n',redis.call('HINCRBY',KEYS[1],'changes',1),'e',ARGV[2]) "
    "return 1";
// 1: still ours; 2: the store had forgotten, and knows again; -1: another's.
constexpr const char* kKeep =
    "local e=redis.call('HGET',KEYS[1],'epoch') if e and e~=ARGV[1] then return -1 end local r=1 "
    "if not e then redis.call('HSET',KEYS[1],'epoch',ARGV[1],'node',ARGV[2],'boot',ARGV[3],'since',ARGV[4]) r=2 end "
    "redis.call('SET',KEYS[2],ARGV[2],'PX',ARGV[5]) return r";

}  // namespace

Cluster::Cluster(ClusterParts parts)
    : p_(std::move(parts)),
      keys_(p_.cluster.name),
      redis_(p_.executor, p_.cluster.store,
             {.on_up =
                  [this] {
                      trouble_.clear();
                      log::notice("cluster-store-up", {{"store", p_.cluster.store.to_string()}});
                      changed_.cancel();
                      if (is_serving_ && epoch_ != 0) spawn(p_.executor, come_back(), "cluster-come-back");
                  },
              .on_down =
                  [this](const std::string& why) {
                      trouble_ = why;
                      log::error(
                          "cluster-store-down",
                          {{"store", p_.cluster.store.to_string()},
                           {"why", why},
                           {"now", "degraded: phones are served, and what changes is handed on when it is back"}});
                  }}),
      boot_(boot_id_of_this_machine()),
      replica_({p_.executor, p_.table, redis_, p_.sealing, p_.clock, keys_,
                [this] { lose("another node has taken the next epoch"); }}),
      follower_({p_.executor, p_.config, p_.cluster, p_.sealing, p_.kernel, p_.clock, boot_, p_.clear_kernel}),
      addresses_(p_.executor, ClusterConfig::addresses(p_.config),
                 [this](const xfrm::AddressWatch::Change& change) { address_changed(change); }),
      changed_(p_.executor) {}

// ------------------------------------------------------------------------------------------------ who serves

void Cluster::address_changed(const xfrm::AddressWatch::Change& change) {
    const bool were_away = missing_.size() == ClusterConfig::addresses(p_.config).size();
    if (change.is_usable) missing_.erase(change.address);
    else missing_.insert(change.address);
    if (were_away && change.is_usable) first_here_ = p_.clock.now();
    changed_.cancel();
    // Some of them: as without a cluster. Whether another node has them all, the store says.
    if (is_serving_ && missing_.size() == ClusterConfig::addresses(p_.config).size())
        lose("the virtual addresses are not on this machine any more");
}

Task<void> Cluster::wait(milliseconds time) {
    changed_.expires_after(time);
    asio::error_code ignored;
    co_await changed_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

void Cluster::stand_by(const char* state, const std::string& why) {
    follower_.start();
    if (std::exchange(state_, state) == state) return;
    if (p_.on_standby) p_.on_standby(!missing_.empty());
    log::notice("cluster-stands-by",
                {{"cluster", p_.cluster.name}, {"node", p_.cluster.node_id}, {"state", state}, {"why", why}});
}

Task<Result<Cluster::Source>> Cluster::await_ownership() {
    redis_.start();
    first_here_ = p_.clock.now();
    if (auto ok = addresses_.start(); !ok) co_return std::unexpected(ok.error());
    bool have_come = false;
    auto complete_since = p_.clock.now();
    for (;;) {
        if (!missing_.empty()) {
            have_come = true;
            stand_by("standby",
                     "the virtual addresses are not on this machine, " + missing_.begin()->to_string() + " first");
            co_await wait(kLook);
            complete_since = p_.clock.now();
            continue;
        }
        has_waited_ = p_.clock.now() - first_here_ > kFresh;
        if (!redis_.is_up()) {
            if (p_.clock.now() - complete_since > kAlonePatience) {
                state_ = "alone";
                log::error("cluster-alone", {{"why", "the addresses are here and the shared store is not: " + trouble_},
                                             {"now", "this node serves with what it has itself"}});
                co_return follower_.has_followed() ? Source::other_node : Source::own_store;
            }
            co_await wait(100ms);
            continue;
        }
        const auto claimed = co_await claim(have_come);
        if (claimed == Claim::own) co_return Source::own_store;
        if (claimed == Claim::taken) co_return Source::other_node;
        if (claimed == Claim::busy) stand_by("waiting", "the addresses are here, but another node serves and is alive");
        co_await wait(kLook);
    }
}

// The addresses that were here when we started may be a leftover; those that have come are ours: whoever moves them
// has decided.
Task<Cluster::Claim> Cluster::claim(bool have_come) {
    std::vector<std::string> ask_owner{"HGETALL", keys_.owner}, ask_alive{"GET", keys_.alive};
    const auto owner = co_await redis_.ask(std::move(ask_owner));
    const auto alive = co_await redis_.ask(std::move(ask_alive));
    if (!owner || !alive) co_return Claim::unreachable;
    const auto fields = hash_of(**owner);
    const auto value = [&](const char* name) {
        const auto at = fields.find(name);
        return at == fields.end() ? std::string{} : at->second;
    };
    const auto node = std::to_string(p_.cluster.node_id);
    const auto before = number_of(fields, "epoch");
    if (before != 0 && value("node") == node && value("boot") == boot_ && !follower_.has_followed()) {
        epoch_ = before;
        since_ = std::chrono::system_clock::time_point{milliseconds(number_of(fields, "since"))};
        log::notice("cluster-owner", {{"epoch", epoch_}, {"why", "this node served before, too"}});
        co_return Claim::own;
    }
    const bool is_others = before != 0 && value("node") != node;
    if (is_others && !have_come && (*alive)->is_text() && (*alive)->text == value("node")) co_return Claim::busy;
    co_return co_await take(before);
}

// A script that says who owns: of these epochs, by this node, since then.
std::vector<std::string> Cluster::as_owner(const char* script, std::vector<std::string> epochs) const {
    const auto since = std::chrono::duration_cast<milliseconds>(since_.time_since_epoch()).count();
    std::vector<std::string> command{"EVAL", script, "3", keys_.owner, keys_.alive, keys_.changes};
    std::ranges::move(epochs, std::back_inserter(command));
    for (auto& last : {std::to_string(p_.cluster.node_id), boot_, std::to_string(since), std::string(kAliveTime),
                       std::string(kChangesKept)})
        command.push_back(last);
    return command;
}

// Sets that are held ready count for the epoch behind the one that was followed, which a store that has forgotten does
// not know.
Task<Cluster::Claim> Cluster::take(std::uint64_t before) {
    since_ = p_.clock.wall();
    const auto next = std::max(before, follower_.epoch()) + 1;
    std::vector<std::string> epochs{std::to_string(before), std::to_string(next)};
    auto command = as_owner(kTake, std::move(epochs));
    follower_.expect(next);
    const auto answer = co_await redis_.ask(std::move(command));
    if (!answer || (*answer)->number != 1) {
        follower_.expect(0);
        co_return Claim::unreachable;  // another one was first, or nobody knows: again
    }
    epoch_ = next;
    log::notice("cluster-owner", {{"epoch", epoch_}, {"why", "the addresses are here"}});
    co_return Claim::taken;
}

void Cluster::lose(std::string why) {
    if (std::exchange(is_lost_, true)) return;
    state_ = "lost";
    replica_.serve(0);
    log::error("cluster-lost",
               {{"epoch", epoch_}, {"why", why}, {"now", "this process ends, and the next one stands by"}});
    p_.on_lost(std::move(why));
}

// ------------------------------------------------------------------------------------------------ what it serves

Task<TakenRecords> Cluster::take_records() {
    has_others_records_ = epoch_ != 0;
    if (has_others_records_) co_return co_await follower_.take_over(epoch_);
    co_return co_await follower_.take_what_is_held();
}

void Cluster::serve() {
    is_serving_ = true;
    if (state_ != "alone") state_ = "owner";
    p_.table.on_change([this](const ContactKey& key) { replica_.changed(key); });
    replica_.serve(epoch_);
    if (epoch_ != 0) level(!has_others_records_);
    spawn(p_.executor, keep_alive(), "cluster");
}

void Cluster::level(bool all) { spawn(p_.executor, replica_.level(follower_.unopened(), all), "cluster-level"); }

Task<void> Cluster::keep_alive() {
    asio::steady_timer timer(p_.executor);
    while (!is_lost_) {
        if (redis_.is_up()) {
            if (epoch_ == 0) co_await settle_alone();
            else static_cast<void>(co_await beat());
        }
        for (const auto& key : std::exchange(used_, {})) replica_.changed(key);
        timer.expires_after(kBeat);
        asio::error_code ignored;
        co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
}

// The store has come to a node that began without it. What it held ready counts for the epoch behind that which it
// followed: when another node has served since, phones have seen more.
Task<void> Cluster::settle_alone() {
    if (follower_.has_followed()) {
        std::vector<std::string> ask_owner{"HGETALL", keys_.owner};
        const auto owner = co_await redis_.ask(std::move(ask_owner));
        if (!owner) co_return;
        if (number_of(hash_of(**owner), "epoch") > follower_.epoch()) {
            lose("another node has served while this one was alone");
            co_return;
        }
    }
    const auto claimed = co_await claim(false);
    if (claimed == Claim::unreachable) co_return;
    if (claimed == Claim::busy) {
        lose("another node served while this one was alone, and is alive");
        co_return;
    }
    state_ = "owner";
    replica_.serve(epoch_);
    level(true);
}

// Whatever changed meanwhile, and a write that was refused as nobody waited any more, is written now.
Task<void> Cluster::come_back() {
    const auto is_known = co_await beat();
    if (is_known && !is_lost_) level(true);
}

// True: the store knew us still. One that had forgotten gets everything anew.
Task<bool> Cluster::beat() {
    std::vector<std::string> epochs{std::to_string(epoch_)};
    auto command = as_owner(kKeep, std::move(epochs));
    const auto answer = co_await redis_.ask(std::move(command));
    if (!answer) co_return false;
    if ((*answer)->number == -1) lose("another node has taken the next epoch");
    if ((*answer)->number == 2 && !is_lost_) level(true);
    co_return (*answer)->number == 1;
}

ClusterNumbers Cluster::numbers() const {
    return {.serves = is_serving_ && !is_lost_,
            .is_degraded = !trouble_.empty(),
            .epoch = epoch_,
            .waiting = replica_.waiting() + used_.size(),
            .replica = replica_.counters(),
            .follower = follower_.numbers()};
}

nlohmann::json Cluster::status() const {
    const auto numbers = this->numbers();
    const auto& c = numbers.replica;
    const auto& f = numbers.follower;
    auto missing = nlohmann::json::array();
    for (const auto& address : missing_) missing.push_back(address.to_string());
    return {{"cluster", p_.cluster.name},
            {"node", p_.cluster.node_id},
            {"state", state_},
            {"epoch", epoch_},
            {"since", std::chrono::duration_cast<seconds>(since_.time_since_epoch()).count()},
            {"store", p_.cluster.store.to_string()},
            {"degraded", numbers.is_degraded},
            {"trouble", trouble_},
            {"missing_addresses", std::move(missing)},
            {"records_waiting", numbers.waiting},
            {"records_written", c.written},
            {"records_erased", c.erased},
            {"records_failed", c.failed},
            {"unreplicated", c.unreplicated},
            {"records_refused", f.refused},
            {"ready_registrations", f.registrations},
            {"ready_sets", f.sets},
            {"is_level", f.is_level},
            {"changes_behind", f.behind},
            {"readings", f.readings},
            {"sets_installed", f.installed},
            {"sets_moved", f.moved},
            {"sets_removed", f.removed}};
}

}  // namespace gmgate::daemon
