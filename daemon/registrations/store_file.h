// The SQLite file under the store: rows in, rows out. Blocking; the store's writer thread and the start of the process
// use it.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "daemon/registrations/stored.h"

namespace gmgate::daemon {

/// One change: a registration as it is now, or that it is gone.
struct StoreChange {
    ContactKey key;
    std::optional<StoredRegistration> row;  ///< nullopt: erased
};

/// What opening a file found, for the log.
struct StoreOpening {
    bool is_new = false;
    std::size_t lost_rows = 0;  ///< of an earlier boot: the kernel's SAs went with it, so the rows were discarded
    std::string set_aside;      ///< where an unreadable file was put, with the reason; empty: none was
};

/// WAL with synchronous off: what is committed is in the kernel's page cache and survives any death of the process. It
/// need not survive a power cut, for a reboot loses the SAs anyway. One process at a time holds the file, by a lock on
/// FILE.lock that a process which takes over inherits.
class StoreFile {
public:
    static constexpr int kSchema = 2;

    /// Opens or makes the file, and its folder (mode 0700). A file that is not readable as ours (corrupt, of another
    /// schema) is renamed and a new one begun. Reaction::refused: another process holds it; refused or broken with the
    /// reason otherwise. `lock`: a descriptor that holds the lock already (taken over), or -1.
    static Result<std::unique_ptr<StoreFile>> open(std::string path, std::string boot_id, int lock,
                                                   StoreOpening& opening);
    ~StoreFile();
    StoreFile(const StoreFile&) = delete;
    StoreFile& operator=(const StoreFile&) = delete;

    /// All rows, one by one. A row that makes no sense is passed over and counted in the result.
    Result<std::size_t> load(const std::function<void(StoredRegistration)>& each);
    /// All changes in one transaction. Reaction::retry: disk full, I/O error: nothing of it was written.
    /// Reaction::broken: the file is corrupt.
    Result<void> write(std::span<const StoreChange> changes);
    /// Puts the file aside and begins a new one; returns where the old one is now.
    Result<std::string> begin_anew();
    /// To hand to the next process.
    int lock_descriptor() const { return lock_; }
    const std::string& path() const { return path_; }

private:
    struct Statements;
    StoreFile(std::string path, std::string boot_id);
    Result<void> take_lock();
    Result<void> open_database();
    Result<std::size_t> check_boot();
    void close_database();
    Result<void> write_row(const StoredRegistration& row);
    bool write_identities(const StoredRegistration& row, std::int64_t id);
    bool write_sets(const StoredRegistration& row, std::int64_t id);
    bool erase_sets(std::int64_t contact);
    std::unexpected<Error> error(const std::string& what) const;

    std::string path_, boot_id_;
    int lock_ = -1;
    std::unique_ptr<Statements> db_;
};

/// /proc/sys/kernel/random/boot_id: another one means that the kernel's SAs are not those of the rows.
std::string boot_id_of_this_machine();

}  // namespace gmgate::daemon
