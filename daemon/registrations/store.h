// The registrations on disk: changes go through a bounded queue to one writer thread, which commits what has gathered
// together.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <asio/any_io_executor.hpp>

#include "base/error.h"
#include "base/task.h"
#include "daemon/config/config.h"
#include "daemon/observe/counters.h"
#include "daemon/registrations/store_file.h"

namespace gmgate::daemon {

/// Threads: the loop calls, the writer thread writes, results come back to the loop. The loop never waits for the disk.
/// A row that cannot be written (disk full) is tried again every second with what has come since; the registrations in
/// memory are what counts, and a failing disk never harms one. Kept in memory only, every call succeeds and does
/// nothing.
class Store {
public:
    Store(asio::any_io_executor executor, const StoreConfig& config, Counters& counters);
    ~Store();
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;

    /// Opens the file and starts the writer. `lock`: see StoreFile::open. Logs what it found.
    Result<void> open(const std::string& boot_id, int lock = -1);
    /// The rows of the process before, one by one, before anything is written. An unreadable file is set aside and a
    /// new one begun.
    Result<void> load(const std::function<void(StoredRegistration)>& each);

    /// Completes when the row is in the file. Errors: exhausted (queue full), retry (the file cannot be written at the
    /// moment; the row stays queued).
    Task<Result<void>> save(StoredRegistration row);
    /// Completes when no row of that contact is in the file. The same errors.
    Task<Result<void>> remove(ContactKey key);
    /// The same as the two without waiting; a refusal is counted.
    void put(StoredRegistration row);
    void erase(ContactKey key);
    /// Changes were refused since the queue was full, or the file was begun anew, and now it can be written again: the
    /// owner of the registrations saves them all.
    void on_gap(std::function<void()> handler);

    /// Waits (blocking) until everything queued is written or has failed; for the end of the process. False: something
    /// could not be written.
    bool flush(std::chrono::milliseconds patience);
    /// Stops the writer. Nothing more is written.
    void close();
    bool is_kept() const { return state_ != nullptr; }
    std::size_t queued() const;
    /// Descriptor of the lock, for the process that takes over; -1 in memory.
    int lock_descriptor() const;

private:
    struct State;
    void note(const Result<void>& result, std::size_t rows, bool begins, bool ends);
    Result<void> enqueue(StoreChange change, std::move_only_function<void(Result<void>)> done);
    Task<Result<void>> write(StoreChange change);

    asio::any_io_executor executor_;
    const StoreConfig& config_;
    Counters& counters_;
    std::function<void()> gap_handler_;
    std::shared_ptr<State> state_;  // shared with completions on their way to the loop
};

}  // namespace gmgate::daemon
