#include "daemon/registrations/store_file.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

#include <fmt/format.h>

namespace gmgate::daemon {
namespace {

// Lists are one text with a line each: header values hold no line ends, and `sqlite3 FILE` shows them as they are.
constexpr const char* kTables = R"(
CREATE TABLE meta (boot_id TEXT NOT NULL);
CREATE TABLE contact (
  id INTEGER PRIMARY KEY, impi TEXT NOT NULL, instance TEXT NOT NULL, reg_id TEXT NOT NULL, token TEXT NOT NULL, contact_uri TEXT NOT NULL,
  realm_id TEXT NOT NULL, transport INTEGER NOT NULL, expires INTEGER NOT NULL, impus TEXT NOT NULL, service_route TEXT NOT NULL,
  tls_connection INTEGER, tls_client TEXT, tls_verify TEXT, authorized_as TEXT NOT NULL, UNIQUE (impi, instance, reg_id));
CREATE TABLE sa_set (
  contact INTEGER NOT NULL, place INTEGER NOT NULL, mark INTEGER NOT NULL, state INTEGER NOT NULL, ue TEXT NOT NULL, gateway TEXT NOT NULL,
  port_uc INTEGER NOT NULL, port_us INTEGER NOT NULL, port_pc INTEGER NOT NULL, port_ps INTEGER NOT NULL,
  spi_uc INTEGER NOT NULL, spi_us INTEGER NOT NULL, spi_pc INTEGER NOT NULL, spi_ps INTEGER NOT NULL, alg INTEGER NOT NULL, ealg INTEGER NOT NULL,
  security_server TEXT NOT NULL, security_client TEXT NOT NULL, expires INTEGER NOT NULL, in_use INTEGER NOT NULL,
  PRIMARY KEY (contact, place)) WITHOUT ROWID;
)";

// Later than the other tables: a file of an older version gets it when it is opened, and its rows have no identities.
constexpr const char* kIdentityTable =
    "CREATE TABLE IF NOT EXISTS identity (contact INTEGER NOT NULL, place INTEGER NOT NULL, aor TEXT NOT NULL, "
    "impus TEXT NOT NULL, service_route TEXT NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (contact, place)) WITHOUT ROWID";

// The same, of sets in mode UDP-enc-tun alone.
constexpr const char* kNatTable =
    "CREATE TABLE IF NOT EXISTS nat_set (contact INTEGER NOT NULL, mark INTEGER NOT NULL, port_uenc INTEGER NOT NULL, "
    "PRIMARY KEY (contact, mark)) WITHOUT ROWID";

// Of those whose phone may have a private address inside: which one, and which of its addresses it has, empty as long
// as nobody knows.
constexpr const char* kInnerTable =
    "CREATE TABLE IF NOT EXISTS nat_inner (contact INTEGER NOT NULL, mark INTEGER NOT NULL, private TEXT NOT NULL, "
    "in_use TEXT NOT NULL, PRIMARY KEY (contact, mark)) WITHOUT ROWID";

class Statement {
public:
    Statement(sqlite3* db, const char* sql) {
        sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &handle_, nullptr);
    }
    ~Statement() { sqlite3_finalize(handle_); }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    bool is_ready() const { return handle_ != nullptr; }

    Statement& begin() {
        sqlite3_reset(handle_);
        index_ = 0;
        return *this;
    }
    Statement& bind(std::int64_t value) {
        sqlite3_bind_int64(handle_, ++index_, value);
        return *this;
    }
    /// The text must live until the statement has run.
    Statement& bind(std::string_view text) {
        sqlite3_bind_text(handle_, ++index_, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
        return *this;
    }
    Statement& bind_null() {
        sqlite3_bind_null(handle_, ++index_);
        return *this;
    }
    int step() { return sqlite3_step(handle_); }
    bool run() {
        const int code = step();
        sqlite3_reset(handle_);
        return code == SQLITE_DONE;
    }
    std::int64_t number(int column) const { return sqlite3_column_int64(handle_, column); }
    std::string text(int column) const {
        const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(handle_, column));
        return bytes ? std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(handle_, column)))
                     : std::string{};
    }
    bool is_null(int column) const { return sqlite3_column_type(handle_, column) == SQLITE_NULL; }

private:
    sqlite3_stmt* handle_ = nullptr;
    int index_ = 0;
};

std::int64_t nanoseconds_of(TimePoint time) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}
/// Whether time can be counted from it: what stands in the file may be any number, and this clock begins at the boot.
bool is_time(std::int64_t nanoseconds) {
    constexpr std::chrono::nanoseconds kFarthest = std::chrono::hours{24 * 366 * 50};
    return nanoseconds > -kFarthest.count() && nanoseconds < kFarthest.count();
}
TimePoint time_of(std::int64_t nanoseconds) {
    return TimePoint{std::chrono::duration_cast<TimePoint::duration>(std::chrono::nanoseconds{nanoseconds})};
}

template <class Range, class Text>
std::string joined(const Range& range, const Text& text_of) {
    std::string all;
    for (const auto& element : range) {
        if (!all.empty()) all += '\n';
        for (const char c : text_of(element)) all += c == '\n' || c == '\r' ? ' ' : c;
    }
    return all;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const auto end = std::min(text.find('\n', at), text.size());
        lines.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return lines;
}

AuthorizedAs read_authorized_as(const std::string& text) {
    auto lines = lines_of(text);
    lines.resize(3);
    return {.realm = std::move(lines[0]), .uri = std::move(lines[1]), .algorithm = std::move(lines[2])};
}

std::optional<StoredSet> read_set(const Statement& s) {
    StoredSet set;
    const auto ue = Address::parse(s.text(4)), gateway = Address::parse(s.text(5));
    const auto state = s.number(3);
    const auto alg = s.number(14), ealg = s.number(15);
    if (!ue || !gateway || state < 0 || state > 2 || alg < 0 || alg > 3 || ealg < 0 || ealg > 3 || s.number(2) <= 0 ||
        s.number(2) > std::numeric_limits<std::uint32_t>::max() || !is_time(s.number(18)))
        return std::nullopt;
    const auto port = [&](int column) { return Port{static_cast<std::uint16_t>(s.number(column))}; };
    const auto spi = [&](int column) { return Spi{static_cast<std::uint32_t>(s.number(column))}; };
    set.number = SetNumber{static_cast<std::uint32_t>(s.number(2))};
    set.state = static_cast<SetState>(state);
    set.parameters = {.ue = *ue,
                      .gateway = *gateway,
                      .port_uc = port(6),
                      .port_us = port(7),
                      .port_pc = port(8),
                      .port_ps = port(9),
                      .spi_uc = spi(10),
                      .spi_us = spi(11),
                      .spi_pc = spi(12),
                      .spi_ps = spi(13),
                      .algorithms = {static_cast<Alg>(alg), static_cast<Ealg>(ealg)}};
    set.security_server = s.text(16);
    set.security_client = s.text(17);
    set.expires = time_of(s.number(18));
    set.in_use = s.number(19) != 0;
    if (!s.is_null(20)) {
        set.parameters.mode = xfrm::Mode::udp_enc_tun;
        set.port_uenc = port(20);
        if (!s.is_null(21)) {
            set.parameters.inner = Address::parse(s.text(21));
            set.inner = Address::parse(s.text(22));
            if (!set.parameters.inner) return std::nullopt;
        }
    }
    return set;
}

/// Nullopt: one of them makes no sense.
std::optional<std::vector<RegisteredIdentity>> read_identities(Statement& s, std::int64_t contact) {
    std::vector<RegisteredIdentity> identities;
    s.begin().bind(contact);
    while (s.step() == SQLITE_ROW) {
        RegisteredIdentity identity;
        identity.aor = Impu{s.text(0)};
        for (auto& line : lines_of(s.text(1))) identity.impus.emplace_back(std::move(line));
        identity.service_route = lines_of(s.text(2));
        if (!is_time(s.number(3))) return std::nullopt;
        identity.expires = time_of(s.number(3));
        identities.push_back(std::move(identity));
    }
    return identities;
}

std::string lines_for(const std::vector<Impu>& impus) {
    return joined(impus, [](const Impu& impu) -> const std::string& { return impu.value; });
}
std::string lines_for(const std::vector<std::string>& routes) {
    return joined(routes, [](const std::string& route) -> const std::string& { return route; });
}

}  // namespace

struct StoreFile::Statements {
    explicit Statements(sqlite3* handle)
        : db(handle),
          begin(db, "BEGIN IMMEDIATE"),
          commit(db, "COMMIT"),
          rollback(db, "ROLLBACK"),
          put(db,
              "INSERT INTO contact (impi, instance, reg_id, token, contact_uri, realm_id, transport, expires, impus, service_route, tls_connection, tls_client, tls_verify, authorized_as) "
              "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (impi, instance, reg_id) DO UPDATE SET token=excluded.token, contact_uri=excluded.contact_uri, "
              "realm_id=excluded.realm_id, transport=excluded.transport, expires=excluded.expires, impus=excluded.impus, service_route=excluded.service_route, "
              "tls_connection=excluded.tls_connection, tls_client=excluded.tls_client, tls_verify=excluded.tls_verify, authorized_as=excluded.authorized_as RETURNING id"),
          find(db, "SELECT id FROM contact WHERE impi=? AND instance=? AND reg_id=?"),
          erase(db, "DELETE FROM contact WHERE id=?"),
          erase_sets(db, "DELETE FROM sa_set WHERE contact=?"),
          erase_identities(db, "DELETE FROM identity WHERE contact=?"),
          erase_nat(db, "DELETE FROM nat_set WHERE contact=?"),
          put_nat(db, "INSERT INTO nat_set VALUES (?,?,?)"),
          erase_inner(db, "DELETE FROM nat_inner WHERE contact=?"),
          put_inner(db, "INSERT INTO nat_inner VALUES (?,?,?,?)"),
          put_identity(db, "INSERT INTO identity VALUES (?,?,?,?,?,?)"),
          put_set(db, "INSERT INTO sa_set VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)") {}
    ~Statements() = default;
    bool are_ready() const {
        return begin.is_ready() && commit.is_ready() && rollback.is_ready() && put.is_ready() && find.is_ready() &&
               erase.is_ready() && erase_sets.is_ready() && erase_identities.is_ready() && put_identity.is_ready() &&
               put_set.is_ready() && erase_nat.is_ready() && put_nat.is_ready() && erase_inner.is_ready() &&
               put_inner.is_ready();
    }
    sqlite3* db;
    bool has_nat_rows = true;  ///< false: load() has found none to be erased, as in most networks
    Statement begin, commit, rollback, put, find, erase, erase_sets, erase_identities, erase_nat, put_nat, erase_inner,
        put_inner, put_identity, put_set;
};

std::string boot_id_of_this_machine() {
    std::ifstream file("/proc/sys/kernel/random/boot_id");
    std::string id;
    std::getline(file, id);
    return id;
}

StoreFile::StoreFile(std::string path, std::string boot_id) : path_(std::move(path)), boot_id_(std::move(boot_id)) {}

StoreFile::~StoreFile() {
    close_database();
    if (lock_ >= 0) ::close(lock_);
}

std::unexpected<Error> StoreFile::error(const std::string& what) const {
    const int code = db_ ? sqlite3_errcode(db_->db) : SQLITE_CANTOPEN;
    const bool is_corrupt = code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
    return failure(is_corrupt ? Reaction::broken : Reaction::retry,
                   fmt::format("{} {}: {}", what, path_, db_ ? sqlite3_errmsg(db_->db) : "not open"),
                   db_ ? sqlite3_system_errno(db_->db) : 0);
}

Result<std::unique_ptr<StoreFile>> StoreFile::open(std::string path, std::string boot_id, int lock,
                                                   StoreOpening& opening) {
    std::error_code made;
    const auto folder = std::filesystem::path(path).parent_path();
    if (!folder.empty() && !std::filesystem::exists(folder, made)) {
        std::filesystem::create_directories(folder, made);
        std::filesystem::permissions(folder, std::filesystem::perms::owner_all, made);
    }
    std::unique_ptr<StoreFile> file(new StoreFile(std::move(path), std::move(boot_id)));
    file->lock_ = lock;
    if (lock < 0)
        if (auto ok = file->take_lock(); !ok) return std::unexpected(ok.error());
    opening.is_new = !std::filesystem::exists(file->path_, made);
    auto ready = file->open_database();
    if (!ready && ready.error().reaction == Reaction::broken) {
        const auto reason = ready.error().text;
        const auto aside = file->begin_anew();
        if (!aside) return std::unexpected(aside.error());
        opening.set_aside = *aside + " (" + reason + ")";
        opening.is_new = true;
        return file;
    }
    if (!ready) return std::unexpected(ready.error());
    const auto lost = file->check_boot();
    if (!lost) return std::unexpected(lost.error());
    opening.lost_rows = *lost;
    return file;
}

Result<void> StoreFile::take_lock() {
    const auto name = path_ + ".lock";
    lock_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock_ < 0) return system_failure(Reaction::refused, "cannot make " + name, errno);
    static_cast<void>(::fchmod(lock_, 0600));
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0)
        return failure(
            Reaction::refused,
            path_ +
                " belongs to a running gmgated; stop it, use --take-over, or give this one a [store] file of its own",
            errno);
    return {};
}

Result<void> StoreFile::open_database() {
    // What is known of phones is nobody else's, whatever the umask. SQLite makes its other files with the mode of this
    // one.
    if (const int file = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600); file >= 0) {
        static_cast<void>(::fchmod(file, 0600));
        ::close(file);
    }
    sqlite3* handle = nullptr;
    const auto fail = [&](const std::string& what) {
        const int code = handle ? sqlite3_errcode(handle) : SQLITE_NOMEM;
        auto text = fmt::format("{} {}: {}", what, path_, handle ? sqlite3_errmsg(handle) : "out of memory");
        sqlite3_close(handle);
        const bool is_ours_no_more = code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_ERROR;
        return failure(is_ours_no_more ? Reaction::broken : Reaction::refused, std::move(text));
    };
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path_.c_str(), &handle, flags, nullptr) != SQLITE_OK) return fail("cannot open");
    sqlite3_busy_timeout(handle, 2000);  // somebody looks at it with sqlite3
    // A write is committed when it is in the page cache; see the class. A checkpoint moves the WAL back every 1000
    // pages.
    const auto run = [&](const std::string& sql) {
        return sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK;
    };
    if (!run("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF;"))
        return fail("cannot use");
    int schema = 0;
    {
        Statement version(handle, "PRAGMA user_version");
        if (!version.is_ready() || version.step() != SQLITE_ROW) return fail("cannot read");
        schema = static_cast<int>(version.number(0));
    }
    if (schema == 0) {
        const auto make = fmt::format("BEGIN; {} INSERT INTO meta VALUES ('{}'); PRAGMA user_version={}; COMMIT;",
                                      kTables, boot_id_, kSchema);
        if (!run(make)) return fail("cannot set up");
    } else if (schema != kSchema) {
        sqlite3_close(handle);
        return failure(Reaction::broken,
                       fmt::format("{} has schema {}, this version reads {}", path_, schema, kSchema));
    }
    if (!run(kIdentityTable) || !run(kNatTable) || !run(kInnerTable)) return fail("cannot set up");
    db_ = std::make_unique<Statements>(handle);
    if (!db_->are_ready()) {
        auto failed = failure(Reaction::broken,
                              fmt::format("{} has not the tables it should have: {}", path_, sqlite3_errmsg(handle)));
        close_database();
        return failed;
    }
    return {};
}

void StoreFile::close_database() {
    if (!db_) return;
    auto* handle = db_->db;
    db_.reset();  // statements first
    sqlite3_close(handle);
}

// Another boot: the rows are of SAs that no kernel holds any more.
Result<std::size_t> StoreFile::check_boot() {
    std::string known;
    std::size_t rows = 0;
    {
        Statement id(db_->db, "SELECT boot_id FROM meta");
        if (id.step() == SQLITE_ROW) known = id.text(0);
        if (known == boot_id_) return 0;
        Statement count(db_->db, "SELECT count(*) FROM contact");
        if (count.step() == SQLITE_ROW) rows = static_cast<std::size_t>(count.number(0));
    }
    const auto sql = fmt::format(
        "BEGIN IMMEDIATE; DELETE FROM contact; DELETE FROM sa_set; DELETE FROM nat_set; DELETE FROM nat_inner; DELETE FROM identity; DELETE FROM meta; INSERT INTO meta VALUES ('{}'); COMMIT;",
        boot_id_);
    if (sqlite3_exec(db_->db, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
        return error("cannot discard the rows of an earlier boot in");
    return rows;
}

Result<std::size_t> StoreFile::load(const std::function<void(StoredRegistration)>& each) {
    Statement contacts(
        db_->db,
        "SELECT id, impi, instance, reg_id, token, contact_uri, realm_id, transport, expires, impus, service_route, tls_connection, tls_client, tls_verify, authorized_as FROM contact ORDER BY id");
    Statement sets(db_->db,
                   "SELECT s.*, n.port_uenc, i.private, i.in_use FROM sa_set s "
                   "LEFT JOIN nat_set n ON n.contact=s.contact AND n.mark=s.mark "
                   "LEFT JOIN nat_inner i ON i.contact=s.contact AND i.mark=s.mark ORDER BY s.contact, s.place");
    Statement identities(db_->db,
                         "SELECT aor, impus, service_route, expires FROM identity WHERE contact=? ORDER BY place");
    if (!contacts.is_ready() || !sets.is_ready() || !identities.is_ready()) return error("cannot read");
    Statement nat(db_->db, "SELECT EXISTS (SELECT 1 FROM nat_set) OR EXISTS (SELECT 1 FROM nat_inner)");
    db_->has_nat_rows = nat.step() != SQLITE_ROW || nat.number(0) != 0;
    // Two cursors in the same order: the sets of a contact are the next ones.
    std::size_t invalid = 0;
    int set_code = sets.step();
    int code = SQLITE_DONE;
    while ((code = contacts.step()) == SQLITE_ROW) {
        StoredRegistration row;
        const auto id = contacts.number(0);
        row.key = {Impi{contacts.text(1)}, contacts.text(2), contacts.text(3)};
        row.token = contacts.text(4);
        row.contact_uri = contacts.text(5);
        row.realm_id = contacts.text(6);
        bool is_valid = contacts.number(7) >= 0 && contacts.number(7) <= 2 && !row.token.empty() &&
                        !row.key.impi.empty() && is_time(contacts.number(8));
        row.transport = static_cast<sip::Transport>(contacts.number(7));
        row.expires = time_of(contacts.number(8));
        for (auto& line : lines_of(contacts.text(9))) row.impus.emplace_back(std::move(line));
        row.service_route = lines_of(contacts.text(10));
        if (auto all = read_identities(identities, id)) row.identities = std::move(*all);
        else is_valid = false;
        if (!contacts.is_null(11))
            row.tls = StoredTls{sip::ConnectionId{static_cast<std::uint64_t>(contacts.number(11))}, contacts.text(12),
                                contacts.text(13)};
        row.authorized_as = read_authorized_as(contacts.text(14));
        while (set_code == SQLITE_ROW && sets.number(0) <= id) {
            if (sets.number(0) == id) {
                if (auto set = read_set(sets)) row.sets.push_back(std::move(*set));
                else is_valid = false;
            }
            set_code = sets.step();
        }
        if (is_valid) each(std::move(row));
        else ++invalid;
    }
    if (code != SQLITE_DONE || (set_code != SQLITE_ROW && set_code != SQLITE_DONE)) return error("cannot read");
    return invalid;
}

Result<void> StoreFile::write_row(const StoredRegistration& row) {
    const auto impus = lines_for(row.impus);
    const auto routes = lines_for(row.service_route);
    auto& put = db_->put.begin()
                    .bind(row.key.impi.value)
                    .bind(row.key.instance)
                    .bind(row.key.reg_id)
                    .bind(row.token)
                    .bind(row.contact_uri)
                    .bind(row.realm_id)
                    .bind(static_cast<std::int64_t>(row.transport))
                    .bind(nanoseconds_of(row.expires))
                    .bind(impus)
                    .bind(routes);
    if (row.tls)
        put.bind(static_cast<std::int64_t>(row.tls->connection.value))
            .bind(row.tls->security_client)
            .bind(row.tls->security_verify);
    else put.bind_null().bind_null().bind_null();
    const auto authorized_as =
        fmt::format("{}\n{}\n{}", row.authorized_as.realm, row.authorized_as.uri, row.authorized_as.algorithm);
    put.bind(authorized_as);
    if (put.step() != SQLITE_ROW) return error("cannot write");
    const auto id = put.number(0);
    if (!put.run()) return error("cannot write");
    if (!write_identities(row, id) || !write_sets(row, id)) return error("cannot write");
    return {};
}

bool StoreFile::write_identities(const StoredRegistration& row, std::int64_t id) {
    if (!db_->erase_identities.begin().bind(id).run()) return false;
    std::int64_t place = 0;
    for (const auto& identity : row.identities) {
        const auto impus = lines_for(identity.impus), routes = lines_for(identity.service_route);
        auto& insert = db_->put_identity.begin()
                           .bind(id)
                           .bind(place++)
                           .bind(identity.aor.value)
                           .bind(impus)
                           .bind(routes)
                           .bind(nanoseconds_of(identity.expires));
        if (!insert.run()) return false;
    }
    return true;
}

bool StoreFile::write_sets(const StoredRegistration& row, std::int64_t id) {
    if (!erase_sets(id)) return false;
    std::int64_t place = 0;
    for (const auto& set : row.sets) {
        const auto& p = set.parameters;
        const auto ue = p.ue.to_string(), gateway = p.gateway.to_string();
        auto& insert = db_->put_set.begin()
                           .bind(id)
                           .bind(place++)
                           .bind(set.number.value)
                           .bind(static_cast<std::int64_t>(set.state))
                           .bind(ue)
                           .bind(gateway)
                           .bind(p.port_uc.value)
                           .bind(p.port_us.value)
                           .bind(p.port_pc.value)
                           .bind(p.port_ps.value)
                           .bind(p.spi_uc.value)
                           .bind(p.spi_us.value)
                           .bind(p.spi_pc.value)
                           .bind(p.spi_ps.value)
                           .bind(static_cast<std::int64_t>(p.algorithms.alg))
                           .bind(static_cast<std::int64_t>(p.algorithms.ealg))
                           .bind(set.security_server)
                           .bind(set.security_client)
                           .bind(nanoseconds_of(set.expires))
                           .bind(std::int64_t{set.in_use});
        if (!insert.run()) return false;
        if (p.mode != xfrm::Mode::udp_enc_tun) continue;
        db_->has_nat_rows = true;
        if (!db_->put_nat.begin().bind(id).bind(set.number.value).bind(set.port_uenc.value).run()) return false;
        if (!p.inner) continue;
        const auto inner = p.inner->to_string(), in_use = set.inner ? set.inner->to_string() : std::string();
        if (!db_->put_inner.begin().bind(id).bind(set.number.value).bind(inner).bind(in_use).run()) return false;
    }
    return true;
}

bool StoreFile::erase_sets(std::int64_t contact) {
    if (!db_->erase_sets.begin().bind(contact).run()) return false;
    if (!db_->has_nat_rows) return true;
    return db_->erase_nat.begin().bind(contact).run() && db_->erase_inner.begin().bind(contact).run();
}

Result<void> StoreFile::write(std::span<const StoreChange> changes) {
    if (!db_) return failure(Reaction::broken, path_ + " is not open");
    const auto give_up = [&](Result<void> failed) {
        sqlite3_exec(db_->db, "ROLLBACK", nullptr, nullptr, nullptr);  // an error when SQLite has rolled back by itself
        return failed;
    };
    if (!db_->begin.begin().run()) return error("cannot write");
    for (const auto& change : changes) {
        if (change.row) {
            if (auto ok = write_row(*change.row); !ok) return give_up(ok);
            continue;
        }
        auto& find = db_->find.begin().bind(change.key.impi.value).bind(change.key.instance).bind(change.key.reg_id);
        const int code = find.step();
        const auto id = code == SQLITE_ROW ? find.number(0) : 0;
        if (code != SQLITE_ROW && code != SQLITE_DONE) return give_up(error("cannot read"));
        find.begin();
        if (code == SQLITE_ROW &&
            !(erase_sets(id) && db_->erase_identities.begin().bind(id).run() && db_->erase.begin().bind(id).run()))
            return give_up(error("cannot write"));
    }
    if (!db_->commit.begin().run()) return give_up(error("cannot write"));
    return {};
}

Result<std::string> StoreFile::begin_anew() {
    close_database();
    const auto aside = fmt::format("{}.unreadable-{}", path_, std::time(nullptr));
    std::error_code code;
    std::filesystem::rename(path_, aside, code);
    if (code) return failure(Reaction::broken, "cannot set " + path_ + " aside: " + code.message(), code.value());
    for (const char* suffix : {"-wal", "-shm"})
        std::filesystem::rename(path_ + suffix, aside + suffix, code);  // may not be there
    if (auto ok = open_database(); !ok) return std::unexpected(ok.error());
    return aside;
}

}  // namespace gmgate::daemon
