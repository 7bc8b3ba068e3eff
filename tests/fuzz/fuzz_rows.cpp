// Fuzz target: registrations that somebody else has written down: a record of the cluster's store (first octet even),
// or rows of the file in which values were changed (odd: a list of changes, each table, column, kind, length, octets).
// What is taken is a registration that can be written again and is then the same; all else is refused or passed over.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <sqlite3.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/cluster/record.h"
#include "daemon/registrations/store_file.h"
#include "tests/fuzz/require.h"
#include "tests/support/still_clock.h"

namespace {

using namespace gmgate;
using namespace gmgate::daemon;
using fuzz::require;

constexpr auto kFar = std::chrono::hours{24 * 366 * 11};

test::StillClock still_clock() {
    test::StillClock clock;
    clock.at = TimePoint{std::chrono::hours{24 * 366 * 20}};
    return clock;
}

void check_row(const StoredRegistration& row, const Clock& clock) {
    require(!row.key.impi.empty(), "a registration has a private identity");
    require(row.sets.size() <= 64 && row.identities.size() <= 1024, "it is bounded");
    require(row.expires < clock.now() + kFar && row.expires > clock.now() - kFar * 2,
            "it ends at a time that clocks hold");
    const auto registration = to_registration(row);
    require(registration && registration->key == row.key && !registration->identities.empty(), "it becomes one");
    for (const StoredSet& stored : row.sets) {
        require(stored.number.value != 0, "a set has a number");
        require(stored.expires < clock.now() + kFar && stored.expires > clock.now() - kFar * 2, "a set ends, too");
        const auto set = to_set(stored);
        require(!set || (*set)->parameters == stored.parameters, "a set is what stands there");
    }
    if (row.tls) (void)to_binding(*row.tls, {});
}

void try_record(std::string_view octets) {
    const auto clock = still_clock();
    const auto record = decode_record(octets, clock);
    if (!record) return require(!record.error().text.empty(), "a refusal has words");
    check_row(record->row, clock);
    require(record->seals.size() == record->row.sets.size(), "one seal for each set");
    const auto row = encode_row(record->row, clock);
    const auto again = decode_record(encode_record(row, record->seals), clock);
    require(again && encode_row(again->row, clock) == row, "it is the same after it was written again");
    require(record_field(again->row.key) == record_field(record->row.key), "in the same place");
}

StoredRegistration a_registration(const Clock& clock, bool over_tls) {
    StoredRegistration row;
    row.key = {Impi{over_tls ? "2@ims.example" : "1@ims.example"}, "<urn:gsma:imei:1>", "1"};
    row.token = over_tls ? "token2" : "token1";
    row.contact_uri = "sip:1@10.1.0.2:5063";
    row.realm_id = "access";
    row.expires = clock.now() + std::chrono::seconds{600};
    row.impus = {Impu{"sip:1@ims.example"}, Impu{"tel:+1"}};
    row.service_route = {"<sip:orig@10.2.0.2;lr>"};
    row.authorized_as = {"ims.example", "sip:ims.example", "AKAv1-MD5"};
    row.identities.push_back({Impu{"sip:1@ims.example"}, row.impus, row.service_route, row.expires});
    if (over_tls) {
        row.tls = StoredTls{sip::ConnectionId{7}, "tls", "tls"};
        return row;
    }
    StoredSet set;
    set.number = SetNumber{17};
    set.parameters.ue = *Address::parse("fd01::2");
    set.parameters.gateway = *Address::parse("fd01::1");
    set.parameters.mode = xfrm::Mode::udp_enc_tun;
    set.parameters.inner = set.inner = Address::parse("fd00::7");
    set.security_server = "ipsec-3gpp;q=0.1";
    set.security_client = "ipsec-3gpp;alg=null";
    set.expires = row.expires;
    row.sets.push_back(set);
    return row;
}

/// A folder in memory for the file, gone with the process.
struct Folder {
    Folder() {
        std::string name =
            (std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp") + std::string("/rows-XXXXXX");
        require(::mkdtemp(name.data()) != nullptr, "there is a folder for the file");
        path = name + "/registrations.db";
    }
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(std::filesystem::path(path).parent_path(), ignored);
    }
    std::string path;
};

std::unique_ptr<StoreFile> opened(const std::string& path) {
    StoreOpening opening;
    auto file = StoreFile::open(path, "boot", -1, opening);
    require(file.has_value(), "the file opens, or another one is begun");
    return std::move(*file);
}

void write(StoreFile& file, const std::vector<StoredRegistration>& rows) {
    std::vector<StoreChange> changes;
    for (const auto& row : rows) changes.push_back({row.key, row});
    require(file.write(changes).has_value(), "rows can be written");
}

std::vector<StoredRegistration> load(StoreFile& file) {
    std::vector<StoredRegistration> rows;
    const auto invalid = file.load([&](StoredRegistration row) { rows.push_back(std::move(row)); });
    require(invalid.has_value(), "a file that opens can be read");
    return rows;
}

/// Behind the gateway's back.
void change(sqlite3* db, unsigned table, unsigned column, unsigned kind, std::string_view octets) {
    constexpr std::array kTables{"contact", "sa_set", "identity", "nat_set", "nat_inner"};
    const char* name = kTables.at(table % kTables.size());
    sqlite3_stmt* columns = nullptr;
    sqlite3_prepare_v2(db, fmt::format("SELECT * FROM {}", name).c_str(), -1, &columns, nullptr);
    const auto count = static_cast<unsigned>(columns != nullptr ? sqlite3_column_count(columns) : 0);
    const std::string field = count == 0 ? "" : sqlite3_column_name(columns, static_cast<int>(column % count));
    sqlite3_finalize(columns);
    sqlite3_stmt* update = nullptr;
    sqlite3_prepare_v2(db, fmt::format("UPDATE {} SET {}=?", name, field).c_str(), -1, &update, nullptr);
    if (update == nullptr) return;
    const auto size = static_cast<int>(octets.size());
    if (kind % 4 == 0) sqlite3_bind_text(update, 1, octets.data(), size, SQLITE_STATIC);
    if (kind % 4 == 1) sqlite3_bind_blob(update, 1, octets.data(), size, SQLITE_STATIC);
    std::uint64_t number = 0;
    for (const char c : octets.substr(0, 8)) number = number << 8 | static_cast<unsigned char>(c);
    if (kind % 4 == 2) sqlite3_bind_int64(update, 1, static_cast<std::int64_t>(number));
    if (kind % 4 == 3) sqlite3_bind_double(update, 1, static_cast<double>(number) * 1e3);
    sqlite3_step(update);
    sqlite3_finalize(update);
}

void try_file(std::string_view script) {
    const auto clock = still_clock();
    const Folder folder;
    write(*opened(folder.path), {a_registration(clock, false), a_registration(clock, true)});
    sqlite3* db = nullptr;
    require(sqlite3_open(folder.path.c_str(), &db) == SQLITE_OK, "the file is SQLite's");
    sqlite3_exec(db, "PRAGMA synchronous=OFF", nullptr, nullptr, nullptr);
    while (script.size() >= 4) {
        const auto octets = script.substr(4, static_cast<unsigned char>(script[3]));
        change(db, static_cast<unsigned char>(script[0]), static_cast<unsigned char>(script[1]),
               static_cast<unsigned char>(script[2]), octets);
        script.remove_prefix(4 + octets.size());
    }
    sqlite3_close(db);
    const auto file = opened(folder.path);
    const auto texts_of = [&](const std::vector<StoredRegistration>& rows) {
        std::vector<std::string> texts;
        for (const auto& row : rows) texts.push_back(encode_row(row, clock));
        return texts;
    };
    auto rows = load(*file);
    for (const auto& row : rows) check_row(row, clock);
    write(*file, rows);  // lists without their empty lines
    rows = load(*file);
    write(*file, rows);
    require(texts_of(rows) == texts_of(load(*file)), "they are the same after they were written again");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    if (size == 0 || size > 1 << 20) return 0;
    log::set_level(log::Level::error);
    const auto input = fuzz::text_of(data + 1, size - 1);
    if (data[0] % 2 == 0) try_record(input);
    else try_file(input);
    return 0;
}
