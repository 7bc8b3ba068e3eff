// What the gateway makes of kernel events: with a fake kernel, so that the moments in between can be chosen.
#include "daemon/registrations/kernel_watch.h"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;
using daemon::Counter;
using Kind = xfrm::KernelEvent::Kind;

namespace {

struct Watched : RegisterBench {
    daemon::KernelWatch watch{loop.get_executor(), parts().accesses, parts().table,
                              parts().sets,        kernel,           parts().counters};

    xfrm::KernelEvent about(const daemon::SaSet& set, Kind kind, std::size_t which = 0) const {
        xfrm::KernelEvent event;
        event.kind = kind;
        event.sa = xfrm::four_sas(set.parameters)[which].id;
        event.mark = Mark{set.number.value};
        return event;
    }
    static xfrm::KernelEvent plain(Kind kind) {
        xfrm::KernelEvent event;
        event.kind = kind;
        return event;
    }
    void tell(const xfrm::KernelEvent& event) {
        watch.event(event);
        loop.restart();
        loop.poll();
    }
    std::uint64_t counted(Counter counter) { return parts().counters.get(counter); }
};

}  // namespace

TEST_CASE("An audit says nothing of a set that took other SPIs after the kernel had told its SAs") {
    Watched bench;
    auto& set = *bench.registered().sets.front();
    bool is_done = false;
    bench.kernel.hold();
    asio::co_spawn(bench.loop, bench.watch.audit(),
                   [&](const std::exception_ptr&, const Result<void>& result) { is_done = result.has_value(); });
    bench.loop.restart();
    bench.loop.poll();
    REQUIRE(bench.kernel.held() == 1);
    bool is_lost = false;
    SUBCASE("swapped") { set.parameters.spi_uc = Spi{set.parameters.spi_uc.value + 1}; }
    SUBCASE("the same: it stands") {}
    SUBCASE("one of its SAs has gone before") {
        bench.kernel.release();
        bench.loop.restart();
        bench.loop.poll();
        bench.kernel.lose(xfrm::four_sas(set.parameters)[1].id);
        asio::co_spawn(bench.loop, bench.watch.audit(), asio::detached);
        is_lost = true;
    }
    bench.kernel.release();
    bench.loop.restart();
    bench.loop.poll();
    CHECK(is_done);
    CHECK((bench.registration() == nullptr) == is_lost);
}

TEST_CASE("An SA of a live set that somebody deletes: its set goes whole, and with the last set the registration") {
    Watched bench;
    const auto& set = *bench.registered().sets.front();
    const auto event = bench.about(set, Kind::sa_deleted, 2);
    bench.kernel.lose(event.sa);
    bench.tell(event);
    CHECK(bench.registration() == nullptr);
    CHECK(bench.kernel.sas().empty());
    CHECK(bench.parts().spis.in_use() == 0);
    CHECK(bench.counted(Counter::sa_lost) == 1);
    bench.tell(event);  // the others of the four come in late
    CHECK(bench.counted(Counter::sa_lost) == 1);
}

TEST_CASE("Our own deletions come back as events and are nobody's loss") {
    Watched bench;
    auto& registration = bench.registered();
    std::vector<xfrm::KernelEvent> own;
    for (std::size_t i = 0; i < 4; ++i) own.push_back(bench.about(*registration.sets.front(), Kind::sa_deleted, i));
    auto say = bench.answer_to(*registration.sets.front());
    say.expires = "0";
    bench.core_status = 200;
    bench.send(say, bench.over(*registration.sets.front()));
    bench.clock.advance(bench.config.timers.final_answer + std::chrono::seconds{1});
    bench.sweep();
    REQUIRE(bench.kernel.sas().empty());
    for (const auto& event : own) bench.tell(event);
    CHECK(bench.counted(Counter::sa_lost) == 0);
}

TEST_CASE("An event with the number of a live set but another SA's id is not about it") {
    Watched bench;
    auto event = bench.about(*bench.registered().sets.front(), Kind::sa_deleted);
    event.sa.spi = Spi{4711};
    bench.tell(event);
    REQUIRE(bench.registration());
    CHECK(bench.counted(Counter::sa_lost) == 0);
}

TEST_CASE(
    "The set in use is lost during a re-authentication: the new one carries on; a lost temporary set leaves the registration alone") {
    Watched bench;
    auto& registration = bench.registered();
    const auto old = registration.sets.front()->number;
    auto say = bench.answer_to(*registration.sets.front(), kSecondClient);
    bench.core_status = 401;
    REQUIRE(Watched::status_of(*bench.send(say, bench.over(*registration.sets.front()))) == 401);
    auto* fresh = bench.temporary_set();
    SUBCASE("temporary") {
        bench.tell(bench.about(*fresh, Kind::sa_deleted, 1));
        CHECK(bench.parts().table.challenge_count() == 0);
        REQUIRE(bench.registration());
        CHECK(bench.registration()->outbound()->number == old);
        CHECK(bench.kernel.sas().size() == 4);
    }
    SUBCASE("old") {
        const auto number = fresh->number;
        bench.core_status = 200;
        REQUIRE(Watched::status_of(*bench.send(bench.answer_to(*fresh, kSecondClient), bench.over(*fresh))) == 200);
        bench.tell(bench.about(*bench.registration()->find(old), Kind::hard_expired));
        REQUIRE(bench.registration());
        CHECK(bench.registration()->outbound()->number == number);
        CHECK(bench.registration()->outbound()->in_use);
        CHECK(bench.kernel.sas().size() == 4);
    }
}

TEST_CASE(
    "After a flush or lost events a dump tells which sets are gone; a set that is made meanwhile is not missed in it") {
    Watched bench;
    bench.registered();
    const auto& set = *bench.registration()->sets.front();
    Kind kind = Kind::sas_flushed;
    SUBCASE("flush") {}
    SUBCASE("events lost") { kind = Kind::events_lost; }
    for (const auto& sa : xfrm::four_sas(set.parameters)) bench.kernel.lose(sa.id);
    bench.kernel.hold();  // the dump is taken and waits
    bench.watch.event(Watched::plain(kind));
    CHECK(bench.watch.guards_stand());  // nothing is known of them
    bench.loop.restart();
    bench.loop.poll();
    while (bench.kernel.calls().back().name != "dump") {  // the guards are looked at first
        REQUIRE(bench.kernel.release_one());
        bench.loop.restart();
        bench.loop.poll();
    }
    REQUIRE(bench.kernel.held() == 1);
    auto made = std::make_unique<daemon::Registration>();
    made->key = {Impi{"late@example"}, "", ""};
    made->token = "late";
    auto late = std::make_unique<daemon::SaSet>();
    late->number = bench.parts().table.next_number(0xffff);
    late->state = daemon::SetState::established;
    late->parameters = set.parameters;
    late->parameters.port_uc = Port{9999};
    late->parameters.port_us = Port{9998};
    made->sets.push_back(std::move(late));
    bench.parts().table.add(std::move(made));
    bench.kernel.release();
    bench.loop.restart();
    bench.loop.poll();
    CHECK(bench.registration() == nullptr);
    CHECK(bench.parts().table.find_by_token("late") != nullptr);
    CHECK(bench.counted(Counter::sa_lost) == 1);
    CHECK(bench.counted(Counter::kernel_events_lost) == (kind == Kind::events_lost ? 1 : 0));
    CHECK_FALSE(bench.watch.is_busy());
}

TEST_CASE("A guard that is gone is put back; until the kernel takes it nothing may leave, and it is tried again") {
    Watched bench;
    auto event = Watched::plain(Kind::policy_deleted);
    event.guard = {xfrm::Direction::out, {bench.gateway, Port{5060}}};
    bench.tell(event);  // not one of ours
    CHECK(bench.kernel.count("install_guards") == 0);
    event.guard.gateway.port = Port{6100};
    bench.kernel.fail_next(EEXIST);
    bench.watch.event(event);
    CHECK_FALSE(bench.watch.guards_stand());
    bench.loop.restart();
    bench.loop.poll();
    CHECK_FALSE(bench.watch.guards_stand());
    bench.loop.restart();
    while (!bench.watch.guards_stand()) bench.loop.run_one_for(std::chrono::seconds{5});
    CHECK(bench.kernel.count("install_guards") == 2);
    CHECK(bench.kernel.policies().size() == 12);
    CHECK(bench.counted(Counter::guards_restored) == 1);
}

TEST_CASE("A soft limit that is reached extends the SAs to our own lifetime") {
    Watched bench;
    const auto& set = *bench.registered().sets.front();
    bench.clock.advance(std::chrono::seconds{100});
    const auto before = bench.kernel.count("extend_set");
    bench.tell(bench.about(set, Kind::soft_expired));
    CHECK(bench.kernel.count("extend_set") == before + 1);
    REQUIRE(bench.registration());
}

TEST_CASE("A suspended address keeps its registrations") {
    Watched bench;
    bench.registered();
    bench.watch.address_changed(bench.gateway, false, "no link has it");
    CHECK(bench.parts().table.is_suspended(bench.gateway));
    CHECK(bench.registration()->sets.size() == 1);
    bench.watch.address_changed(bench.gateway, true, "");
    CHECK_FALSE(bench.parts().table.is_suspended(bench.gateway));
    CHECK(bench.counted(Counter::address_lost) == 1);
}
