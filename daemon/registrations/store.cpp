#include "daemon/registrations/store.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include <asio/async_result.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/spawn.h"

namespace gmgate::daemon {
namespace {

constexpr std::chrono::seconds kRetry{1};
using Done = std::move_only_function<void(Result<void>)>;

}  // namespace

struct Store::State : std::enable_shared_from_this<Store::State> {
    State(asio::any_io_executor e, std::size_t l, std::unique_ptr<StoreFile> f)
        : executor(std::move(e)), limit(l), file(std::move(f)) {}

    struct Pending {
        std::optional<StoredRegistration> row;
        std::vector<Done> done;
    };
    using Queue = std::map<ContactKey, Pending>;

    void run();
    std::vector<Done> write(Queue& batch, Result<void>& result);
    void report(const Result<void>& result, std::size_t rows, std::vector<Done> done);
    void keep_failed(Queue batch);
    void tell(std::move_only_function<void(Store&)> what);

    asio::any_io_executor executor;
    const std::size_t limit;
    std::unique_ptr<StoreFile> file;  // the writer's once it runs
    Store* owner = nullptr;           // the loop's only; null once it is gone
    std::mutex mutex;
    std::condition_variable changed, idle;
    Queue queue;
    bool busy = false, closing = false, has_gap = false, failing = false;
    std::thread writer;
};

Store::Store(asio::any_io_executor executor, const StoreConfig& config, Counters& counters)
    : executor_(std::move(executor)), config_(config), counters_(counters) {}

Store::~Store() { close(); }

void Store::on_gap(std::function<void()> handler) { gap_handler_ = std::move(handler); }

Result<void> Store::open(const std::string& boot_id, int lock) {
    if (!config_.is_kept) {
        log::notice("store-in-memory",
                    {{"why", "[store] mode = \"memory\": a restart of the gateway loses its registrations"}});
        return {};
    }
    StoreOpening opening;
    auto file = StoreFile::open(config_.file, boot_id, lock, opening);
    if (!file) return std::unexpected(file.error());
    if (!opening.set_aside.empty()) {
        counters_.add(Counter::store_set_aside);
        log::error("store-set-aside",
                   {{"file", config_.file},
                    {"now", opening.set_aside},
                    {"why", "it cannot be read; a new one was begun, and the phones register anew"}});
    }
    if (opening.lost_rows != 0) {
        counters_.add(Counter::registrations_lost_by_reboot, opening.lost_rows);
        log::notice("registrations-lost",
                    {{"count", opening.lost_rows},
                     {"why", "the machine was booted since: the kernel's SAs are gone, and the phones register anew"}});
    }
    state_ = std::make_shared<State>(executor_, config_.queue, std::move(*file));
    state_->owner = this;
    return {};
}

Result<void> Store::load(const std::function<void(StoredRegistration)>& each) {
    if (!state_) return {};
    auto loaded = state_->file->load(each);
    if (!loaded && loaded.error().reaction == Reaction::broken) {
        const auto aside = state_->file->begin_anew();
        if (!aside) return std::unexpected(aside.error());
        counters_.add(Counter::store_set_aside);
        log::error("store-set-aside",
                   {{"file", config_.file},
                    {"now", *aside},
                    {"why", loaded.error().text + "; what could be read of it is used, the rest registers anew"}});
        state_->has_gap = true;  // what was read is written again
    } else if (!loaded) {
        return std::unexpected(loaded.error());
    } else if (*loaded != 0) {
        log::warning("store-rows-invalid", {{"count", *loaded},
                                            {"file", config_.file},
                                            {"why", "their values are out of range; their phones register anew"}});
    }
    state_->writer = std::thread([state = state_] { state->run(); });
    return {};
}

Result<void> Store::enqueue(StoreChange change, Done done) {
    const std::lock_guard guard(state_->mutex);
    auto at = state_->queue.find(change.key);
    if (at == state_->queue.end()) {
        if (state_->queue.size() >= state_->limit) {
            state_->has_gap = true;
            counters_.add(Counter::store_overflow);
            return failure(Reaction::exhausted, "the queue of the store is full: the disk does not follow");
        }
        at = state_->queue.try_emplace(std::move(change.key)).first;
    }
    at->second.row = std::move(change.row);  // the latest state of a contact is the one that counts
    if (done) at->second.done.push_back(std::move(done));
    state_->changed.notify_one();
    return {};
}

Task<Result<void>> Store::write(StoreChange change) {
    if (!state_) co_return Result<void>{};
    auto start = [this](auto handler, StoreChange wanted) {
        // The work guard keeps the loop alive while the row is on its way through the other thread.
        auto resume = std::make_shared<std::move_only_function<void(Result<void>)>>(
            [then = std::move(handler), work = asio::make_work_guard(executor_)](Result<void> result) mutable {
                then(std::move(result));
            });
        const auto queued = enqueue(std::move(wanted), [resume](Result<void> result) { (*resume)(std::move(result)); });
        if (!queued) asio::post(executor_, [resume, queued] { (*resume)(queued); });
    };
    co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(Result<void>)>(
        std::move(start), asio::use_awaitable, std::move(change));
}

Task<Result<void>> Store::save(StoredRegistration row) {
    ContactKey key = row.key;
    StoreChange change{std::move(key), std::move(row)};
    return write(std::move(change));
}

Task<Result<void>> Store::remove(ContactKey key) {
    StoreChange change{std::move(key), std::nullopt};
    return write(std::move(change));
}

void Store::put(StoredRegistration row) {
    if (!state_) return;
    ContactKey key = row.key;
    (void)enqueue({std::move(key), std::move(row)}, {});
}

void Store::erase(ContactKey key) {
    if (state_) (void)enqueue({std::move(key), std::nullopt}, {});
}

std::size_t Store::queued() const {
    if (!state_) return 0;
    const std::lock_guard guard(state_->mutex);
    return state_->queue.size();
}

int Store::lock_descriptor() const { return state_ ? state_->file->lock_descriptor() : -1; }

bool Store::flush(std::chrono::milliseconds patience) {
    if (!state_) return true;
    std::unique_lock lock(state_->mutex);
    state_->changed.notify_one();
    return state_->idle.wait_for(lock, patience, [&] { return state_->queue.empty() && !state_->busy; });
}

void Store::close() {
    if (!state_) return;
    {
        const std::lock_guard guard(state_->mutex);
        state_->closing = true;
        state_->changed.notify_one();
    }
    if (state_->writer.joinable()) state_->writer.join();
    state_->owner = nullptr;
    state_->file.reset();  // and its lock: reports on their way to the loop may keep the rest for a while
    state_.reset();
}

// --------------------------------------------------------------------------------------------------------------- the
// writer thread

void Store::State::run() {
    std::unique_lock lock(mutex);
    for (;;) {
        if (failing) changed.wait_for(lock, kRetry, [&] { return closing; });
        else changed.wait(lock, [&] { return closing || !queue.empty() || has_gap; });
        if (closing && (queue.empty() || failing)) return;
        Queue batch = std::exchange(queue, {});
        busy = true;
        lock.unlock();
        Result<void> result;
        const std::size_t rows = batch.size();
        auto done = write(batch, result);
        report(result, rows, std::move(done));
        lock.lock();
        busy = false;
        failing = !result;
        if (!result) keep_failed(std::move(batch));
        else if (std::exchange(has_gap, false))
            tell([](Store& store) {
                if (store.gap_handler_) store.gap_handler_();
            });
        idle.notify_all();
    }
}

std::vector<Done> Store::State::write(Queue& batch, Result<void>& result) {
    std::vector<StoreChange> changes;
    std::vector<Done> done;
    changes.reserve(batch.size());
    for (auto& [key, pending] : batch) {
        changes.push_back({key, std::move(pending.row)});
        for (auto& one : pending.done) done.push_back(std::move(one));
        pending.done.clear();
    }
    result = file->write(changes);
    if (!result && result.error().reaction == Reaction::broken) {  // corrupt under our hands
        const auto reason = result.error().text;
        if (const auto aside = file->begin_anew()) {
            const auto path = file->path();
            tell([path, where = *aside, reason](Store& store) {
                store.counters_.add(Counter::store_set_aside);
                log::error("store-set-aside",
                           {{"file", path}, {"now", where}, {"why", reason + "; a new one was begun"}});
            });
            {
                const std::lock_guard guard(mutex);
                has_gap = true;
            }
            result = file->write(changes);
        }
    }
    if (!result)  // they are tried again
        for (auto& change : changes) batch.at(change.key).row = std::move(change.row);
    return done;
}

// One turn of the loop for all: each of its own wakes it anew.
void Store::State::report(const Result<void>& result, std::size_t rows, std::vector<Done> done) {
    const bool begins = !result && !failing, ends = result && failing;
    asio::post(executor, [self = shared_from_this(), result, rows, begins, ends, all = std::move(done)]() mutable {
        if (self->owner) self->owner->note(result, rows, begins, ends);
        for (auto& one : all) guarded("store", [&] { one(result); });
    });
}

void Store::note(const Result<void>& result, std::size_t rows, bool begins, bool ends) {
    if (result) counters_.add(Counter::store_written, rows);
    else counters_.add(Counter::store_failed);
    if (begins)
        log::error(
            "store-write-failed",
            {{"reason", result.error().text},
             {"why",
              "registrations go on in memory; a restart now would lose those that changed. Tried again every second"}});
    if (ends) log::notice("store-writes-again", {{"rows", rows}});
}

// What came meanwhile is newer. Nobody waits for these any more.
void Store::State::keep_failed(Queue batch) {
    for (auto& [key, pending] : batch) {
        if (queue.size() >= limit) {
            has_gap = true;
            return;
        }
        queue.try_emplace(key, std::move(pending));
    }
}

void Store::State::tell(std::move_only_function<void(Store&)> what) {
    asio::post(executor, [self = shared_from_this(), act = std::move(what)]() mutable {
        if (self->owner) act(*self->owner);
    });
}

}  // namespace gmgate::daemon
