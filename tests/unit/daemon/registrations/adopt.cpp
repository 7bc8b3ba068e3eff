// A restart as the registrations see it: rows and SAs that belong together live on, everything else goes.
#include <doctest/doctest.h>

#include <cstdlib>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/use_future.hpp>

#include "daemon/registrations/adopt.h"
#include "daemon/registrations/store.h"
#include "tests/support/fake_kernel.h"
#include "tests/unit/daemon/agreement/register_bench.h"
#include "tests/unit/daemon/registrations/store_support.h"

using namespace gmgate;
using namespace gmgate::daemon;
using namespace gmgate::test;

namespace {

const Clock kRealClock;

/// The rooms of a gateway that has just started; the kernel is that of the one before.
struct AdoptBench {
    AdoptBench() : AdoptBench(kRealClock) {}
    explicit AdoptBench(const Clock& c) : clock(c) {
        ImsAkaProfile profile;
        profile.name = "volte";
        profile.protected_server_ports = {Port{6100}, Port{6101}};
        profile.start_protected_client_port = Port{6200};
        profile.end_protected_client_port = Port{6203};
        profile.preference.assign(kDefaultPreference.begin(), kDefaultPreference.end());
        config.ims_aka_profiles.push_back(profile);
        SipInterface interface;
        interface.realm_id = "access";
        interface.sec_agree_feature = true;
        interface.sip_ports.push_back({.address = *Address::parse("127.0.0.1"), .ims_aka_profile = "volte"});
        interface.sip_ports.push_back({.address = *Address::parse("fd01::1"), .ims_aka_profile = "volte"});
        config.sip_interfaces.push_back(interface);
        accesses = std::make_unique<AccessMap>(config);
    }
    /// The four SAs of a set as the process before left them.
    void in_kernel(const StoredSet& set, std::chrono::seconds limit = std::chrono::hours{2}) {
        for (const auto& sa : xfrm::four_sas(set.parameters))
            kernel.add_sa(sa, Mark{set.number.value}, set.parameters.algorithms, limit);
    }
    void adopt(
        std::vector<StoredRegistration> rows,
        const std::function<std::optional<sip::Flow>(sip::ConnectionId)>& flow_of = [](sip::ConnectionId) {
            return std::nullopt;
        }) {
        adoption = std::make_unique<Adoption>(
            AdoptParts{config, *accesses, table, sets, expiry, spis, kernel, counters, clock});
        for (auto& row : rows) adoption->add(std::move(row));
        auto matched = asio::co_spawn(loop, adoption->match_kernel(), asio::use_future);
        loop.restart();
        loop.run();
        const auto result = matched.get();
        REQUIRE_MESSAGE(result.has_value(), result.error().text);
        adoption->commit(flow_of);
    }
    /// SAs that the registrations need.
    std::size_t needed() {
        std::size_t count = 0;
        table.for_each([&](Registration& registration) { count += registration.sets.size() * 4; });
        return count;
    }

    const Clock& clock;
    asio::io_context loop;
    FakeKernel kernel{&clock};
    Config config;
    Counters counters;
    std::unique_ptr<AccessMap> accesses;
    Table table;
    xfrm::SpiPool spis;
    sip::Transports transports{loop.get_executor(), {}};
    SaSets sets{config, table, kernel, spis, transports, counters, clock};
    Expiry expiry{config, table, sets, transports, counters, clock};
    std::unique_ptr<Adoption> adoption;
};

}  // namespace

TEST_SUITE("adopt") {
    TEST_CASE("what matches lives on: found by token and mark, with its SPIs and number reserved") {
        AdoptBench bench;
        const auto row = stored_registration(5, false);
        bench.in_kernel(row.sets[0]);
        bench.adopt({row});
        auto* registration = bench.table.find_by_token(row.token);
        REQUIRE(registration);
        CHECK(registration->key == row.key);
        CHECK(registration->impus == row.impus);
        CHECK(registration->service_route == row.service_route);
        const auto owner = bench.table.find_set(row.sets[0].number);
        CHECK(owner.registration == registration);
        CHECK(sip::SecurityList::parse(owner.set->security_client.text())->mechanisms().size() == 1);
        CHECK(bench.spis.in_use() == 2);
        CHECK_FALSE(bench.spis.adopt({row.sets[0].parameters.spi_pc, Spi{0x20000000}}));
        CHECK(bench.table.next_number(0xffffff).value == 6);
        CHECK(bench.table.uses_client_port(row.sets[0].parameters.ue, Port{5062},
                                           {*Address::parse("127.0.0.1"), Port{6100}}));
        CHECK(bench.kernel.sas().size() == 4);
        CHECK(bench.kernel.messages() == 1);  // the dump and nothing else
    }

    TEST_CASE("SAs without a row are deleted, those of somebody else are not") {
        AdoptBench bench;
        const auto row = stored_registration(1, false);
        bench.in_kernel(row.sets[0]);
        bench.in_kernel(stored_set(2, 2, false));
        auto foreign = stored_set(0, 3, true);  // our reqid, but no mark of ours
        bench.in_kernel(foreign);
        auto wide = stored_set(0x7f000001, 4, false);  // outside of the mask
        bench.in_kernel(wide);
        bench.adopt({row});
        CHECK(bench.kernel.sas().size() == 12);
        CHECK(bench.adoption->summary().sas_removed == 4);
        CHECK(bench.adoption->summary().foreign == 8);
        CHECK(bench.counters.get(Counter::stale_sas_removed) == 4);
    }

    TEST_CASE("a set of which one SA is missing, whichever, ends whole and its registration with it") {
        for (std::size_t missing = 0; missing < 4; ++missing) {
            AdoptBench bench;
            const auto row = stored_registration(1, true);
            bench.in_kernel(row.sets[0]);
            REQUIRE(bench.kernel.lose(xfrm::four_sas(row.sets[0].parameters)[missing].id));
            bench.adopt({row});
            CHECK(bench.kernel.sas().empty());
            CHECK(bench.table.registration_count() == 0);
            CHECK(bench.adoption->dropped() == std::vector{row.key});
            CHECK(bench.spis.in_use() == 0);
        }
    }

    TEST_CASE("of two sets one is gone: the registration lives on with the other") {
        AdoptBench bench;
        auto row = stored_registration(1, false);
        auto other = stored_set(9, 1, false);
        other.parameters.port_uc = Port{6062};
        other.parameters.port_pc = Port{6201};
        row.sets[0].state = SetState::old;
        other.in_use = false;
        row.sets.push_back(other);
        SUBCASE("the old one is gone") { bench.in_kernel(other); }
        SUBCASE("the new one is gone") { bench.in_kernel(row.sets[0]); }
        bench.adopt({row});
        auto* registration = bench.table.find(row.key);
        REQUIRE(registration);
        CHECK(registration->sets.size() == 1);
        CHECK(registration->outbound() != nullptr);
        CHECK(bench.needed() == bench.kernel.sas().size());
    }

    TEST_CASE("what differs in a port, an address, an SPI or an algorithm is not adopted") {
        const auto row = stored_registration(1, false);
        for (int change = 0; change < 4; ++change) {
            AdoptBench bench;
            auto other = row.sets[0];
            if (change == 0) other.parameters.port_uc = Port{7000};
            if (change == 1) other.parameters.ue = *Address::parse("10.99.0.1");
            if (change == 2) other.parameters.spi_us = Spi{4711};
            if (change == 3) other.parameters.algorithms = {Alg::hmac_md5_96, Ealg::aes_cbc};
            bench.in_kernel(other);
            bench.adopt({row});
            CHECK(bench.kernel.sas().empty());
            CHECK(bench.table.registration_count() == 0);
        }
    }

    TEST_CASE("a set that ran out meanwhile, or whose ports are not configured any more, ends") {
        AdoptBench bench;
        auto late = stored_registration(1, false), moved = stored_registration(2, false);
        late.sets[0].expires = std::chrono::steady_clock::now() - std::chrono::seconds{1};
        moved.sets[0].parameters.port_ps = Port{6150};
        bench.in_kernel(late.sets[0]);
        bench.in_kernel(moved.sets[0]);
        bench.adopt({late, moved});
        CHECK(bench.kernel.sas().empty());
        CHECK(bench.table.registration_count() == 0);
        CHECK(bench.counters.get(Counter::registrations_not_adopted) == 2);
    }

    TEST_CASE("lifetimes go on: an adopted registration runs out at the time it was granted") {
        StillClock clock;
        AdoptBench bench(clock);
        auto row = stored_registration(1, false);
        row.sets[0].expires = row.expires = clock.now() + std::chrono::minutes{10};
        bench.in_kernel(row.sets[0], std::chrono::minutes{11});
        bench.adopt({row});
        REQUIRE(bench.table.registration_count() == 1);
        const auto sweep = [&] {
            asio::co_spawn(bench.loop, bench.expiry.sweep(), asio::detached);
            bench.loop.restart();
            bench.loop.run();
        };
        clock.advance(std::chrono::minutes{9});
        sweep();
        CHECK(bench.table.registration_count() == 1);
        clock.advance(std::chrono::minutes{2});
        sweep();
        CHECK(bench.table.registration_count() == 0);
        CHECK(bench.kernel.sas().empty());
    }

    TEST_CASE("a kernel limit that a step of the wall clock cut short is set again") {
        AdoptBench bench;
        const auto row = stored_registration(1, false);
        bench.in_kernel(row.sets[0], std::chrono::minutes{5});  // the row says an hour
        bench.adopt({row});
        CHECK(bench.kernel.count("extend_set") == 1);
        for (const auto& [id, sa] : bench.kernel.sas()) CHECK(sa.hard_limit > std::chrono::minutes{59});
    }

    TEST_CASE("a registration over TLS lives on with its connection and not without") {
        AdoptBench bench;
        auto row = stored_registration(1, false);
        row.sets.clear();
        row.tls = StoredTls{sip::ConnectionId{42}, "tls", "tls"};
        SUBCASE("handed over") {
            const sip::Flow flow{sip::Transport::tls,
                                 *Endpoint::parse("127.0.0.1:5061"),
                                 *Endpoint::parse("10.0.0.1:40000"),
                                 sip::ConnectionId{42},
                                 {}};
            bench.adopt({row},
                        [&](sip::ConnectionId id) { return id.value == 42 ? std::optional(flow) : std::nullopt; });
            REQUIRE(bench.table.registration_count() == 1);
            CHECK(bench.table.owner_of(flow).registration == bench.table.find(row.key));
        }
        SUBCASE("not") {
            bench.adopt({row});
            CHECK(bench.table.registration_count() == 0);
            CHECK(bench.adoption->dropped().size() == 1);
        }
    }

    TEST_CASE("the kernel refuses to list: the start fails with its reason and nothing is deleted") {
        AdoptBench bench;
        const auto row = stored_registration(1, false);
        bench.in_kernel(row.sets[0]);
        bench.kernel.fail_next(EPERM);
        Adoption adoption({bench.config, *bench.accesses, bench.table, bench.sets, bench.expiry, bench.spis,
                           bench.kernel, bench.counters, bench.clock});
        auto matched = asio::co_spawn(bench.loop, adoption.match_kernel(), asio::use_future);
        bench.loop.run();
        CHECK_FALSE(matched.get().has_value());
        CHECK(bench.kernel.sas().size() == 4);
    }

    // GMGATE_ADOPT_PHONES=100000 is the size; the cost per phone is printed.
    TEST_CASE("many phones: written, read and adopted, all of them, the SAs of the rest deleted") {
        const char* wanted = std::getenv("GMGATE_ADOPT_PHONES");
        const unsigned phones = wanted ? static_cast<unsigned>(std::atol(wanted)) : 3000;
        AdoptBench bench;
        TemporaryFolder folder;
        StoreConfig config;
        config.file = folder.path + "/registrations.db";
        config.queue = phones;
        {
            Store store(bench.loop.get_executor(), config, bench.counters);
            REQUIRE(store.open("boot").has_value());
            REQUIRE(store.load([](StoredRegistration) {}).has_value());
            for (unsigned i = 1; i <= phones; ++i) store.put(stored_registration(i, i % 2 == 0));
            REQUIRE(store.flush(std::chrono::minutes{5}));
        }
        for (unsigned i = 1; i <= phones; ++i)
            if (i % 10 != 0) bench.in_kernel(stored_set(i, i, i % 2 == 0));
        for (unsigned i = 1; i <= 100; ++i) bench.in_kernel(stored_set(phones + i, phones + i, false));
        const auto begun = std::chrono::steady_clock::now();
        Store store(bench.loop.get_executor(), config, bench.counters);
        REQUIRE(store.open("boot").has_value());
        bench.adoption =
            std::make_unique<Adoption>(AdoptParts{bench.config, *bench.accesses, bench.table, bench.sets, bench.expiry,
                                                  bench.spis, bench.kernel, bench.counters, bench.clock});
        REQUIRE(store.load([&](StoredRegistration row) { bench.adoption->add(std::move(row)); }).has_value());
        auto matched = asio::co_spawn(bench.loop, bench.adoption->match_kernel(), asio::use_future);
        bench.loop.restart();
        bench.loop.run();
        REQUIRE(matched.get().has_value());
        bench.adoption->commit([](sip::ConnectionId) { return std::optional<sip::Flow>{}; });
        const auto took = std::chrono::steady_clock::now() - begun;
        const auto missing = phones / 10;
        CHECK(bench.table.registration_count() == phones - missing);
        CHECK(bench.kernel.sas().size() == (phones - missing) * 4);
        CHECK(bench.spis.in_use() == (phones - missing) * 2);
        MESSAGE(phones << " rows, " << std::chrono::duration_cast<std::chrono::milliseconds>(took).count() << " ms, "
                       << std::chrono::duration_cast<std::chrono::nanoseconds>(took).count() / phones
                       << " ns per phone");
    }
}
