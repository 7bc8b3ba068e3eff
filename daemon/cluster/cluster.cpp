#include "daemon/cluster/cluster.h"

#include <algorithm>
#include <charconv>
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
constexpr std::size_t kInstallsTogether = 256;
constexpr std::uint64_t kRefusalsLogged = 5;

// Compare-and-set: whoever knows the epoch of before gets the next one, once.
constexpr const char* kTake =
    "local e=redis.call('HGET',KEYS[1],'epoch') or '0' if e~=ARGV[1] then return 0 end "
    "redis.call('HSET',KEYS[1],'epoch',ARGV[2],'node',ARGV[3],'boot',ARGV[4],'since',ARGV[5]) "
    "redis.call('SET',KEYS[2],ARGV[3],'PX',ARGV[6]) return 1";
// 1: still ours; 2: the store had forgotten, and knows again; -1: another's.
constexpr const char* kKeep =
    "local e=redis.call('HGET',KEYS[1],'epoch') if e and e~=ARGV[1] then return -1 end local r=1 "
    "if not e then redis.call('HSET',KEYS[1],'epoch',ARGV[1],'node',ARGV[2],'boot',ARGV[3],'since',ARGV[4]) r=2 end "
    "redis.call('SET',KEYS[2],ARGV[2],'PX',ARGV[5]) return r";

std::uint64_t number_of(std::string_view text) {
    std::uint64_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
}

/// What a hash says, as pairs.
std::map<std::string, std::string> hash_of(const RedisReply& reply) {
    std::map<std::string, std::string> fields;
    for (std::size_t i = 0; i + 1 < reply.list.size(); i += 2) fields[reply.list[i]->text] = reply.list[i + 1]->text;
    return fields;
}

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
      replica_({p_.executor, p_.table, redis_, p_.sealing, p_.clock, keys_,
                [this] { lose("another node has taken the next epoch"); }}),
      addresses_(p_.executor, ClusterConfig::addresses(p_.config),
                 [this](const xfrm::AddressWatch::Change& change) { address_changed(change); }),
      changed_(p_.executor),
      boot_(boot_id_of_this_machine()) {}

// ------------------------------------------------------------------------------------------------ who serves

void Cluster::address_changed(const xfrm::AddressWatch::Change& change) {
    if (change.is_usable) missing_.erase(change.address);
    else missing_.insert(change.address);
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

Task<Result<Cluster::Source>> Cluster::await_ownership() {
    redis_.start();
    if (auto ok = addresses_.start(); !ok) co_return std::unexpected(ok.error());
    bool have_come = false;
    std::string said;
    const auto say = [&](const char* state, const std::string& why) {
        if (std::exchange(said, state) == state) return;
        state_ = state;
        log::notice("cluster-stands-by",
                    {{"cluster", p_.cluster.name}, {"node", p_.cluster.node_id}, {"state", state}, {"why", why}});
    };
    auto complete_since = p_.clock.now();
    for (;;) {
        if (!missing_.empty()) {
            have_come = true;
            say("standby",
                "the virtual addresses are not on this machine, " + missing_.begin()->to_string() + " first");
            co_await wait(kLook);
            complete_since = p_.clock.now();
            continue;
        }
        if (!redis_.is_up()) {
            if (p_.clock.now() - complete_since > kAlonePatience) {
                state_ = "alone";
                log::error("cluster-alone", {{"why", "the addresses are here and the shared store is not: " + trouble_},
                                             {"now", "this node serves with what it has itself"}});
                co_return Source::own_store;
            }
            co_await wait(100ms);
            continue;
        }
        const auto claimed = co_await claim(have_come);
        if (claimed == Claim::own) co_return Source::own_store;
        if (claimed == Claim::taken) co_return Source::other_node;
        if (claimed == Claim::busy) say("waiting", "the addresses are here, but another node serves and is alive");
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
    const auto before = number_of(value("epoch"));
    if (before != 0 && value("node") == node && value("boot") == boot_) {
        epoch_ = before;
        since_ = std::chrono::system_clock::time_point{milliseconds(number_of(value("since")))};
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
    std::vector<std::string> command{"EVAL", script, "2", keys_.owner, keys_.alive};
    std::ranges::move(epochs, std::back_inserter(command));
    for (auto& last : {std::to_string(p_.cluster.node_id), boot_, std::to_string(since), std::string(kAliveTime)})
        command.push_back(last);
    return command;
}

Task<Cluster::Claim> Cluster::take(std::uint64_t before) {
    since_ = p_.clock.wall();
    std::vector<std::string> epochs{std::to_string(before), std::to_string(before + 1)};
    auto command = as_owner(kTake, std::move(epochs));
    const auto answer = co_await redis_.ask(std::move(command));
    if (!answer || (*answer)->number != 1)
        co_return Claim::unreachable;  // another one was first, or nobody knows: again
    epoch_ = before + 1;
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

Task<std::vector<std::pair<std::string, std::string>>> Cluster::read_records() {
    std::vector<std::pair<std::string, std::string>> records;
    std::string cursor = "0";
    do {
        std::vector<std::string> command{"HSCAN", keys_.records, cursor, "COUNT", "1000"};
        const auto answer = co_await redis_.ask(std::move(command));
        if (!answer || (*answer)->list.size() != 2) {
            log::error("cluster-records-unreadable",
                       {{"why", answer ? "the store answers with something else" : answer.error().text},
                        {"read", records.size()}});
            break;
        }
        cursor = (*answer)->list[0]->text;
        for (auto& [field, value] : hash_of(*(*answer)->list[1])) records.emplace_back(field, std::move(value));
    } while (cursor != "0" && !cursor.empty());
    std::ranges::sort(records);  // a scan may tell a field twice
    const auto twice = std::ranges::unique(records, {}, &std::pair<std::string, std::string>::first);
    records.erase(twice.begin(), twice.end());
    co_return records;
}

void Cluster::refuse(const std::string& field, const std::string& why) {
    unopened_.push_back(field);
    if (++records_refused_ <= kRefusalsLogged)
        log::error("cluster-record-refused", {{"record", field.substr(0, field.find('\n'))}, {"why", why}});
}

// Those of its sets that the kernel does not take leave the row.
Task<void> Cluster::install(StoredRegistration& row, const xfrm::RecordDigest& digest,
                            const std::vector<xfrm::SealedKeys>& seals, const std::string& field) {
    std::vector<StoredSet> installed;
    for (std::size_t i = 0; i < row.sets.size(); ++i) {
        const auto& set = row.sets[i];
        const auto left = std::chrono::duration_cast<seconds>(set.expires - p_.clock.now());
        if (left <= 0s) continue;
        xfrm::SealedInstall order{.parameters = set.parameters,
                                  .keys = seals[i],
                                  .record = digest,
                                  .epoch = epoch_,
                                  .mark = Mark{set.number.value},
                                  .lifetime = left + p_.config.timers.kernel_margin,
                                  .port_uenc = set.port_uenc};
        const auto done = co_await p_.sealing.install_sealed(std::move(order));
        if (done) {
            ++sets_installed_;
            installed.push_back(set);
        } else {
            refuse(field, done.error().text);
        }
    }
    row.sets = std::move(installed);
}

Task<void> Cluster::install_one(Installing& all, std::size_t index, ClusterRecord record, std::string field) {
    co_await install(all.rows[index], record.digest, record.seals, field);
    --all.under_way;
    all.one_done.cancel();
}

Task<void> Cluster::wait_below(Installing& all, std::size_t limit) {
    while (all.under_way >= limit) {
        all.one_done.expires_after(1h);
        asio::error_code ignored;
        co_await all.one_done.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
}

Task<std::vector<StoredRegistration>> Cluster::install_records() {
    const auto begun = p_.clock.now();
    const auto records = co_await read_records();
    Installing all(p_.executor);
    all.rows.reserve(records.size());  // they stay where they are while their sets are installed
    for (const auto& [field, octets] : records) {
        auto record = decode_record(octets, p_.clock);
        if (!record || record_field(record->row.key) != field) {
            refuse(field, record ? "it is filed under another name" : record.error().text);
            continue;
        }
        if (record->row.expires <= p_.clock.now()) continue;
        all.rows.push_back(record->row);
        ++all.under_way;
        spawn(p_.executor, install_one(all, all.rows.size() - 1, std::move(*record), field), "install-record");
        co_await wait_below(all, kInstallsTogether);
    }
    co_await wait_below(all, 1);
    std::erase_if(all.rows, [](const StoredRegistration& row) { return row.sets.empty(); });
    log::notice("cluster-records-installed",
                {{"records", records.size()},
                 {"registrations", all.rows.size()},
                 {"sets", sets_installed_},
                 {"refused", records_refused_},
                 {"milliseconds", std::chrono::duration_cast<milliseconds>(p_.clock.now() - begun).count()}});
    co_return std::move(all.rows);
}

void Cluster::serve() {
    is_serving_ = true;
    if (state_ != "alone") state_ = "owner";
    p_.table.on_change([this](const ContactKey& key) { replica_.changed(key); });
    replica_.serve(epoch_);
    if (epoch_ != 0) level();
    spawn(p_.executor, keep_alive(), "cluster");
}

void Cluster::level() { spawn(p_.executor, replica_.level(unopened_), "cluster-level"); }

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

// The store has come to a node that began without it.
Task<void> Cluster::settle_alone() {
    const auto claimed = co_await claim(false);
    if (claimed == Claim::unreachable) co_return;
    if (claimed == Claim::busy) {
        lose("another node served while this one was alone, and is alive");
        co_return;
    }
    state_ = "owner";
    replica_.serve(epoch_);
    level();
}

// Whatever changed meanwhile, and a write that was refused as nobody waited any more, is written now.
Task<void> Cluster::come_back() {
    const auto is_known = co_await beat();
    if (is_known && !is_lost_) level();
}

// True: the store knew us still. One that had forgotten gets everything anew.
Task<bool> Cluster::beat() {
    std::vector<std::string> epochs{std::to_string(epoch_)};
    auto command = as_owner(kKeep, std::move(epochs));
    const auto answer = co_await redis_.ask(std::move(command));
    if (!answer) co_return false;
    if ((*answer)->number == -1) lose("another node has taken the next epoch");
    if ((*answer)->number == 2 && !is_lost_) level();
    co_return (*answer)->number == 1;
}

ClusterNumbers Cluster::numbers() const {
    return {.serves = is_serving_ && !is_lost_,
            .is_degraded = !trouble_.empty(),
            .epoch = epoch_,
            .waiting = replica_.waiting() + used_.size(),
            .refused = records_refused_,
            .sets_installed = sets_installed_,
            .replica = replica_.counters()};
}

nlohmann::json Cluster::status() const {
    const auto numbers = this->numbers();
    const auto& c = numbers.replica;
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
            {"records_refused", numbers.refused},
            {"sets_installed", numbers.sets_installed}};
}

}  // namespace gmgate::daemon
