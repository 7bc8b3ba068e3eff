// Phones behind NAT (TS 33.203 Annex M): which mode they get, and what becomes of their sets.
#include <algorithm>

#include "daemon/registrations/kernel_watch.h"
#include "daemon/registrations/store_file.h"
#include "tests/unit/daemon/agreement/register_bench.h"
#include "tests/unit/daemon/registrations/store_support.h"

using namespace gmgate;
using namespace gmgate::test;
using daemon::Counter;

namespace {

constexpr const char* kTrans =
    "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358";
constexpr const char* kBoth =
    "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;mod=trans;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358, "
    "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;mod=UDP-enc-tun;spi-c=8765423;port-c=7524;spi-s=1234563;port-s=1358";
constexpr const char* kNext =
    "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;mod=trans;spi-c=18765423;port-c=7624;spi-s=11234563;port-s=1358, "
    "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;mod=UDP-enc-tun;spi-c=18765423;port-c=7624;spi-s=11234563;port-s=1358";

void switch_on(daemon::Config& config) {
    auto& nat = config.ims_aka_profiles.front().nat;
    nat.is_on = true;
    nat.start_protected_port = Port{6208};
    nat.end_protected_port = Port{6223};
}

struct NatBench : RegisterBench {
    explicit NatBench(bool is_on = true) : RegisterBench(is_on ? switch_on : [](daemon::Config&) {}) {}
    explicit NatBench(void (*change)(daemon::Config&)) : RegisterBench(change) {}

    daemon::KernelWatch watch{loop.get_executor(), parts().accesses, parts().table,
                              parts().sets,        kernel,           parts().counters};

    /// SM1 as it comes through the NAT: Via has the private address.
    std::shared_ptr<RecordedTransaction> first(const char* client = kBoth) {
        Say say;
        say.client = client;
        say.host = "192.168.1.10";
        return send(say);
    }
    daemon::SaSet& registered_behind_nat() {
        REQUIRE(status_of(*first()) == 401);
        auto& set = *temporary_set();
        core_status = 200;
        REQUIRE(status_of(*send(answer_to(set, kBoth), over(set))) == 200);
        core_status = 401;
        return *registration()->sets.front();
    }
    void tell_mapping(const daemon::SaSet& set, const Endpoint& now, bool is_server = true) {
        xfrm::KernelEvent event;
        event.kind = xfrm::KernelEvent::Kind::mapping_changed;
        event.sa = {set.parameters.gateway, is_server ? set.parameters.spi_ps : set.parameters.spi_pc};
        event.before = {set.parameters.ue, set.port_uenc};
        event.now = now;
        watch.event(event);
        loop.restart();
        loop.poll();
    }
    std::uint64_t counted(Counter counter) { return parts().counters.get(counter); }
};

}  // namespace

TEST_CASE("B-80, B-82, B-84: behind NAT a phone gets the mode that it offers, and its next set has it, too") {
    NatBench bench;
    const auto sm6 = bench.first();
    REQUIRE(NatBench::status_of(*sm6) == 401);
    const auto server = NatBench::header(sm6->responses.back(), "Security-Server");
    CHECK(server.find(";mod=UDP-enc-tun;") != std::string::npos);
    const auto& set = *bench.temporary_set();
    CHECK(set.is_behind_nat());
    CHECK(set.parameters.port_ps == Port{6208});
    CHECK((set.parameters.port_pc >= Port{6216} && set.parameters.port_pc <= Port{6223}));
    CHECK(std::ranges::all_of(bench.kernel.sas(),
                              [](const auto& one) { return one.second.sa.encapsulation.has_value(); }));
    bench.core_status = 200;
    CHECK(NatBench::status_of(*bench.send(bench.answer_to(set, kBoth), bench.over(set))) == 200);
    bench.core_status = 401;
    const auto& live = *bench.registration()->sets.front();
    REQUIRE(NatBench::status_of(*bench.send(bench.answer_to(live, kNext), bench.over(live))) == 401);
    REQUIRE(bench.temporary_set());
    CHECK(bench.temporary_set()->is_behind_nat());
    CHECK(bench.temporary_set()->parameters.port_ps == live.parameters.port_ps);
    CHECK(bench.counted(Counter::mechanism_udp_enc_tun) == 2);
}

TEST_CASE("a phone may have its private address inside; its first message says so, and the other address is nobody's") {
    const auto inner = *Address::parse("192.168.1.10");
    for (const bool is_private : {true, false}) {
        CAPTURE(is_private);
        NatBench bench([](daemon::Config& config) {
            switch_on(config);
            config.ims_aka_profiles.front().nat.takes_private_inner = true;
        });
        REQUIRE(NatBench::status_of(*bench.first()) == 401);
        auto& set = *bench.temporary_set();
        REQUIRE(set.parameters.inner == inner);
        CHECK(set.parameters.ue == bench.ue);
        const auto number = set.number;
        auto from_public = bench.over(set), from_private = bench.over(set);
        from_private.remote.address = inner;
        auto elsewhere = from_public;
        elsewhere.remote.address = *Address::parse("192.168.1.11");
        auto& table = bench.parts().table;
        CHECK_FALSE(table.owner_of(elsewhere).set);
        CHECK(table.owner_of(is_private ? from_private : from_public).set == &set);
        CHECK_FALSE(table.owner_of(is_private ? from_public : from_private).set);
        CHECK(set.ue_server().address == (is_private ? inner : bench.ue));
        if (!is_private) continue;
        // It answers the challenge, and its next set knows at once.
        bench.core_status = 200;
        auto answer = bench.answer_to(set, kBoth);
        answer.host = "192.168.1.10";
        REQUIRE(NatBench::status_of(*bench.send(answer, from_private)) == 200);
        bench.core_status = 401;
        const auto& live = *bench.registration()->sets.front();
        REQUIRE(live.number == number);
        auto next = bench.answer_to(live, kNext);
        next.host = "192.168.1.10";
        REQUIRE(NatBench::status_of(*bench.send(next, from_private)) == 401);
        REQUIRE(bench.temporary_set());
        CHECK(bench.temporary_set()->inner == inner);
        CHECK(bench.temporary_set()->parameters.ue == bench.ue);
    }
}

TEST_CASE("B-82: a Security-Verify that names the other mode gets 494, as any bidding down") {
    NatBench bench;
    REQUIRE(NatBench::status_of(*bench.first()) == 401);
    const auto& set = *bench.temporary_set();
    auto bent = bench.answer_to(set, kBoth);
    bent.verify.replace(bent.verify.find("UDP-enc-tun"), 11, "trans");
    CHECK(NatBench::status_of(*bench.send(bent, bench.over(set))) == 494);
}

TEST_CASE("B-81, B-111: no NAT, transport mode; a NAT and no such offer, or none here, 403 that says so") {
    NatBench bench;
    Say say;
    say.client = kBoth;
    CHECK(NatBench::status_of(*bench.send(say)) == 401);
    CHECK_FALSE(bench.temporary_set()->is_behind_nat());
    const auto refused = bench.first(kTrans);
    CHECK(NatBench::status_of(*refused) == 403);
    CHECK(refused->responses.back().find("does not offer mod=UDP-enc-tun") != std::string::npos);
    NatBench off(false);
    const auto as_ever = off.first();
    CHECK(NatBench::status_of(*as_ever) == 403);
    CHECK(as_ever->responses.back().find("nat-traversal is off here") != std::string::npos);
    CHECK(off.kernel.sas().empty());
}

TEST_CASE("a NAT's new port is followed once, and again after the kernel refused; a new address ends the set") {
    NatBench bench;
    auto& set = bench.registered_behind_nat();
    CHECK(set.port_uenc == Port{4500});
    for (const bool is_server : {true, false}) bench.tell_mapping(set, {bench.ue, Port{31000}}, is_server);
    CHECK(set.port_uenc == Port{31000});
    CHECK(bench.kernel.count("follow_nat") == 1);
    for (const auto& [id, live] : bench.kernel.sas()) {
        const auto& around = *live.sa.encapsulation;
        CHECK((live.sa.direction == xfrm::Direction::out ? around.destination : around.source) == Port{31000});
    }
    bool was_told = false;
    bench.watch.on_nat_moved([&](const Impi& impi, const daemon::SaSet&, const Endpoint& now) {
        was_told = impi == Impi{kImpi} && now.port == Port{32000};
    });
    bench.tell_mapping(set, {*Address::parse("127.0.0.10"), Port{32000}});
    CHECK(was_told);
    CHECK(bench.registration() == nullptr);
    CHECK(bench.kernel.sas().empty());
    CHECK(bench.counted(Counter::nat_moved) == 1);
}

TEST_CASE("a row of the store keeps the mode and the NAT's port, beside rows of phones without NAT") {
    const TemporaryFolder folder;
    daemon::StoreOpening opening;
    auto file = daemon::StoreFile::open(folder.path + "/r.db", "boot", -1, opening);
    REQUIRE(file.has_value());
    std::vector<daemon::StoreChange> changes;
    for (const unsigned phone : {1U, 2U}) {
        auto row = stored_registration(phone, false);
        row.sets = {stored_set(phone, phone, false), stored_set(10 + phone, phone, false)};
        if (phone == 2) {
            row.sets[1].parameters.mode = xfrm::Mode::udp_enc_tun;
            row.sets[1].port_uenc = Port{31000};
        }
        changes.push_back({row.key, row});
    }
    REQUIRE((*file)->write(changes).has_value());
    std::vector<daemon::StoredSet> sets;
    REQUIRE((*file)
                ->load([&](const daemon::StoredRegistration& row) {
                    sets.insert(sets.end(), row.sets.begin(), row.sets.end());
                })
                .has_value());
    REQUIRE(sets.size() == 4);
    for (std::size_t i = 0; i < 3; ++i) CHECK(sets[i].parameters.mode == xfrm::Mode::transport);
    CHECK(sets[3].parameters.mode == xfrm::Mode::udp_enc_tun);
    CHECK(sets[3].port_uenc == Port{31000});
    CHECK((*daemon::to_set(sets[3]))->port_uenc == Port{31000});
}
