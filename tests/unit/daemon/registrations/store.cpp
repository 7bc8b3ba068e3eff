// The store of registrations: what is written comes back, a failing or unreadable file harms nobody, limits are
// reached.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>

#include <csignal>

#include "daemon/registrations/keeper.h"
#include "daemon/registrations/store.h"
#include "tests/support/lab.h"
#include "tests/unit/daemon/registrations/store_support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::test;

namespace {

/// Size limit for files of this process: a full disk, as write() sees it (EFBIG instead of ENOSPC), without needing
/// root.
class FileSizeLimit {
public:
    explicit FileSizeLimit(rlim_t octets) {
        std::signal(SIGXFSZ, SIG_IGN);
        getrlimit(RLIMIT_FSIZE, &before_);
        const rlimit now{octets, before_.rlim_max};
        REQUIRE(setrlimit(RLIMIT_FSIZE, &now) == 0);
    }
    ~FileSizeLimit() { lift(); }
    void lift() { setrlimit(RLIMIT_FSIZE, &before_); }

private:
    rlimit before_{};
};

struct StoreBench {
    StoreBench() { config.file = folder.path + "/registrations.db"; }
    std::unique_ptr<Store> open(const std::string& boot_id = "boot-1") {
        auto store = std::make_unique<Store>(loop.get_executor(), config, counters);
        const auto opened = store->open(boot_id);
        REQUIRE_MESSAGE(opened.has_value(), opened.error().text);
        rows.clear();
        const auto loaded = store->load([&](StoredRegistration row) { rows.push_back(std::move(row)); });
        REQUIRE_MESSAGE(loaded.has_value(), loaded.error().text);
        return store;
    }
    Result<void> save(Store& store, StoredRegistration row) {
        std::optional<Result<void>> result;
        asio::co_spawn(
            loop,
            [](Store& s, StoredRegistration saved, std::optional<Result<void>>& out) -> Task<void> {
                out = co_await s.save(std::move(saved));
            }(store, std::move(row), result),
            asio::detached);
        run_until([&] { return result.has_value(); });
        return *result;
    }
    void run_until(const std::function<bool()>& done) {
        const auto deadline = std::chrono::steady_clock::now() + kPatience;
        while (!done() && std::chrono::steady_clock::now() < deadline) {
            loop.restart();
            loop.run_one_for(std::chrono::milliseconds{20});
        }
        REQUIRE(done());
    }
    std::uint64_t count(Counter counter) const { return counters.get(counter); }

    TemporaryFolder folder;
    asio::io_context loop;
    StoreConfig config;
    Counters counters;
    std::vector<StoredRegistration> rows;
};

}  // namespace

TEST_SUITE("store") {
    TEST_CASE("what was saved comes back in every field, in order, IPv4 and IPv6, ipsec-3gpp and tls") {
        StoreBench bench;
        auto v4 = stored_registration(1, false), v6 = stored_registration(2, true), tls = stored_registration(3, false);
        v4.identities.push_back({.aor = Impu{"sip:second@ims.example"},
                                 .impus = {Impu{"sip:second@ims.example"}},
                                 .service_route = {"<sip:orig@scscf2.ims.example;lr>"},
                                 .expires = v4.expires});
        v4.impus.push_back(Impu{"sip:second@ims.example"});
        v4.sets.push_back(stored_set(77, 1, false));
        v4.sets.back().state = SetState::old;
        v4.sets.back().in_use = false;
        tls.sets.clear();
        tls.transport = sip::Transport::tls;
        tls.tls = StoredTls{sip::ConnectionId{42},
                            "tls;q=0.5, ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1;spi-s=2;port-c=3;port-s=4", "tls"};
        {
            const auto store = bench.open();
            for (const auto& row : {v4, v6, tls}) REQUIRE(bench.save(*store, row).has_value());
        }
        const auto again = bench.open();
        REQUIRE(bench.rows.size() == 3);
        CHECK(same(bench.rows[0], v4));
        CHECK(same(bench.rows[1], v6));
        CHECK(same(bench.rows[2], tls));
    }

    TEST_CASE("a row is replaced by the next one of its contact, and erased") {
        StoreBench bench;
        {
            const auto store = bench.open();
            auto row = stored_registration(1, false);
            REQUIRE(bench.save(*store, row).has_value());
            row.sets = {stored_set(9, 1, false)};
            row.service_route = {"<sip:other@scscf;lr>"};
            REQUIRE(bench.save(*store, row).has_value());
            REQUIRE(bench.save(*store, stored_registration(2, false)).has_value());
            store->erase(stored_registration(2, false).key);
            REQUIRE(store->flush(kPatience));
        }
        const auto again = bench.open();
        REQUIRE(bench.rows.size() == 1);
        CHECK(bench.rows[0].sets.size() == 1);
        CHECK(bench.rows[0].sets[0].number == SetNumber{9});
        CHECK(bench.rows[0].service_route == std::vector<std::string>{"<sip:other@scscf;lr>"});
    }

    TEST_CASE("a row of a version that knew no list of identities becomes a registration with one") {
        auto row = stored_registration(1, false);
        row.identities.clear();
        const auto registration = to_registration(row);
        REQUIRE(registration->identities.size() == 1);
        CHECK(registration->identities.front().impus == row.impus);
        CHECK(registration->identities.front().service_route == row.service_route);
        CHECK(registration->expires == row.expires);
    }

    TEST_CASE("a row that an older version refreshed beside a list of identities: what it wrote counts") {
        auto row = stored_registration(1, false);
        row.expires += std::chrono::seconds{100};
        SUBCASE("a time") {}
        SUBCASE("a route") { row.service_route = {"<sip:other@scscf;lr>"}; }
        SUBCASE("identities") { row.impus.pop_back(); }
        const auto registration = to_registration(row);
        REQUIRE(registration->identities.size() == 1);
        CHECK(registration->identities.front().aor.empty());
        CHECK(registration->expires == row.expires);
        CHECK(registration->impus == row.impus);
        CHECK(registration->service_route == row.service_route);
    }

    TEST_CASE("a saved row survives kill -9 of the process at once, and a removed one stays away") {
        StoreBench bench;
        const pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            asio::io_context loop;
            Counters counters;
            Store store(loop.get_executor(), bench.config, counters);
            if (!store.open("boot-1") || !store.load([](StoredRegistration) {})) _exit(1);
            asio::co_spawn(
                loop,
                [](Store& s) -> Task<void> {
                    auto row = stored_registration(1, false);
                    const auto saved = co_await s.save(std::move(row));
                    if (!saved) _exit(2);
                    auto other = stored_registration(2, true);
                    auto key = other.key;
                    const auto also = co_await s.save(std::move(other));
                    const auto removed = co_await s.remove(std::move(key));
                    if (!also || !removed) _exit(4);
                    kill(getpid(), SIGKILL);
                }(store),
                asio::detached);
            loop.run();
            _exit(3);
        }
        int status = 0;
        REQUIRE(waitpid(child, &status, 0) == child);
        REQUIRE(WIFSIGNALED(status));
        const auto store = bench.open();
        REQUIRE(bench.rows.size() == 1);
        CHECK(same(bench.rows[0], stored_registration(1, false)));
    }

    TEST_CASE("another boot_id: the rows are discarded and counted, for their SAs are gone") {
        StoreBench bench;
        {
            const auto store = bench.open("boot-1");
            for (unsigned i = 1; i <= 3; ++i) REQUIRE(bench.save(*store, stored_registration(i, false)).has_value());
        }
        const auto store = bench.open("boot-2");
        CHECK(bench.rows.empty());
        CHECK(bench.count(Counter::registrations_lost_by_reboot) == 3);
    }

    TEST_CASE("one process at a time: the second is told whose file it is") {
        StoreBench bench;
        const auto store = bench.open();
        Store second(bench.loop.get_executor(), bench.config, bench.counters);
        const auto opened = second.open("boot-1");
        REQUIRE_FALSE(opened.has_value());
        CHECK(opened.error().text.find("--take-over") != std::string::npos);
    }

    TEST_CASE("a corrupted file is set aside at start and a new one begun") {
        StoreBench bench;
        SUBCASE("no database at all") { std::ofstream(bench.config.file) << std::string(8192, 'x'); }
        SUBCASE("another schema") {
            { const auto store = bench.open(); }
            sqlite3* db = nullptr;
            REQUIRE(sqlite3_open(bench.config.file.c_str(), &db) == SQLITE_OK);
            sqlite3_exec(db, "PRAGMA user_version=99", nullptr, nullptr, nullptr);
            sqlite3_close(db);
        }
        SUBCASE("pages overwritten in the middle") {
            {
                const auto store = bench.open();
                for (unsigned i = 1; i <= 300; ++i) store->put(stored_registration(i, false));
                REQUIRE(store->flush(kPatience));
            }
            const auto size = std::filesystem::file_size(bench.config.file);
            REQUIRE(size > 40960);
            std::fstream file(bench.config.file, std::ios::in | std::ios::out | std::ios::binary);
            file.seekp(8192);
            file << std::string(size - 8192, '\xa5');
        }
        const auto store = bench.open();
        CHECK(bench.count(Counter::store_set_aside) == 1);
        CHECK(bench.save(*store, stored_registration(7, false)).has_value());
        const auto aside = std::ranges::count_if(
            std::filesystem::directory_iterator(bench.folder.path),
            [](const auto& entry) { return entry.path().string().find(".unreadable-") != std::string::npos; });
        CHECK(aside >= 1);
    }

    TEST_CASE("a full disk: the save fails, is counted and tried again, and nobody is stopped") {
        StoreBench bench;
        const auto store = bench.open();
        REQUIRE(bench.save(*store, stored_registration(1, false)).has_value());
        FileSizeLimit limit(16384);
        std::optional<Error> failed;
        for (unsigned i = 2; i < 2000 && !failed; ++i) {
            const auto saved = bench.save(*store, stored_registration(i, false));
            if (!saved) failed = saved.error();
        }
        REQUIRE(failed.has_value());
        CHECK(failed->reaction == Reaction::retry);
        bench.run_until([&] { return bench.count(Counter::store_failed) >= 1; });
        CHECK_FALSE(store->flush(std::chrono::milliseconds{10}));
        limit.lift();
        REQUIRE(store->flush(kPatience));  // by itself, with what was refused
        const auto written = bench.count(Counter::store_written);
        bench.run_until([&] { return bench.count(Counter::store_written) > 0 || written > 0; });
        CHECK(bench.save(*store, stored_registration(5000, false)).has_value());
    }

    TEST_CASE(
        "the queue has a limit: beyond it changes are refused and counted, and the gap is reported once there is room") {
        StoreBench bench;
        bench.config.queue = 8;
        const auto store = bench.open();
        bool gap = false;
        store->on_gap([&] { gap = true; });
        for (unsigned i = 1; i <= 5000; ++i) store->put(stored_registration(i, false));
        CHECK(store->queued() <= 8);
        CHECK(bench.count(Counter::store_overflow) > 0);
        bench.run_until([&] { return gap; });
    }

    TEST_CASE("in memory only: nothing is written, every call succeeds") {
        StoreBench bench;
        bench.config.is_kept = false;
        const auto store = bench.open();
        CHECK(bench.save(*store, stored_registration(1, false)).has_value());
        CHECK_FALSE(std::filesystem::exists(bench.config.file));
    }

    TEST_CASE("no key can be in the file: its columns are those of the negotiation") {
        StoreBench bench;
        const auto store = bench.open();
        REQUIRE(bench.save(*store, stored_registration(1, false)).has_value());
        sqlite3* db = nullptr;
        REQUIRE(sqlite3_open(bench.config.file.c_str(), &db) == SQLITE_OK);
        sqlite3_stmt* statement = nullptr;
        REQUIRE(sqlite3_prepare_v2(db, "SELECT group_concat(name) FROM pragma_table_info('sa_set')", -1, &statement,
                                   nullptr) == SQLITE_OK);
        REQUIRE(sqlite3_step(statement) == SQLITE_ROW);
        CHECK(
            std::string(reinterpret_cast<const char*>(sqlite3_column_text(statement, 0))) ==
            "contact,place,mark,state,ue,gateway,port_uc,port_us,port_pc,port_ps,spi_uc,spi_us,spi_pc,spi_ps,alg,ealg,security_server,security_client,expires,in_use");
        sqlite3_finalize(statement);
        sqlite3_close(db);
    }
}
