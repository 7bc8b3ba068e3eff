// gmgated's client and the engine's server over a real socket pair: what a request does, what a forged one does not,
// and a worker's death at every moment of a request.
#include <algorithm>
#include <cerrno>
#include <random>

#include <doctest/doctest.h>

#include "tests/support/engine_world.h"

using namespace gmgate;
using namespace gmgate::xfrm;
using namespace gmgate::test;

namespace {

/// A gmgated whose parser was taken over: raw frames to a server.
struct Forger {
    EngineWorld world;
    int fd = -1;

    Forger() {
        std::array<int, 2> ends{};
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0);
        fd = ends[0];
        world.server = std::make_unique<EngineServer>(
            world.io.get_executor(), ends[1], EngineRules(a_configuration()), world.kernel,
            EngineServer::Handlers{.on_refused =
                                       [this](const char* request, const std::string& why) {
                                           world.refusals.push_back(std::string(request) + ": " + why);
                                       },
                                   .on_closed = [](std::string) {}});
        world.server->start("test");
        CHECK(answer().header.kind == GM_READY);
    }
    ~Forger() { close(fd); }

    struct Answer {
        gm_header header{};
        gm_done done{};
    };
    Answer answer() {
        Frame frame(GM_FRAME_LIMIT);
        ssize_t size = -1;
        world.until([&] { return (size = recv(fd, frame.data(), frame.size(), MSG_DONTWAIT)) >= 0; });
        REQUIRE(size > 0);
        const std::span<const std::uint8_t> whole(frame.data(), static_cast<std::size_t>(size));
        FrameReader reader(whole);
        Answer out{.header = reader.header(), .done = {}};
        if (out.header.kind == GM_DONE) {
            out.done = reader.take<gm_done>();
            CHECK(reader.is_complete());
        }
        return out;
    }
    void send_bytes(std::span<const std::uint8_t> bytes) {
        REQUIRE(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
    }
    Answer ask(const Frame& frame) {
        send_bytes(frame);
        return answer();
    }
    Frame install(const SetRequest& request, std::uint32_t sequence = 1) {
        return FrameWriter(GM_INSTALL_SET, sequence).add(to_frame(request, ReqId{21321})).finish();
    }
};

bool is_words(const Forger::Answer& answer, int code) {
    return answer.header.kind == GM_DONE && answer.done.outcome == GM_REFUSED && answer.done.code == code;
}

}  // namespace

TEST_CASE("every call reaches the kernel behind the engine, and its answer comes back") {
    EngineWorld world;
    world.worker_up();
    CHECK(world.finish(world.client->install_set(a_request())));
    CHECK(world.kernel.sas().size() == 4);
    CHECK(world.client->status().engine == "test");

    const auto parameters = a_request().parameters;
    CHECK(world.finish(world.client->extend_set(parameters, std::chrono::seconds(600))));
    CHECK(world.kernel.sas().begin()->second.hard_limit >= std::chrono::seconds(600));
    const auto reports = world.finish(world.client->report_set(parameters));
    REQUIRE(reports);
    CHECK(reports->size() == 4);
    const auto list = world.finish(world.client->dump());
    REQUIRE(list);
    CHECK(list->size() == 4);
    CHECK(std::ranges::all_of(*list, [](const SaReport& sa) { return sa.mark == Mark{1}; }));

    CHECK(world.finish(world.client->install_guards({*Address::parse("192.0.2.9"), {Port{6100}, Port{6101}}})));
    CHECK(world.kernel.policies().size() == 4);
    const auto opened = world.finish(world.client->remove_guards({*Address::parse("192.0.2.9"), {Port{6100}}}));
    REQUIRE_FALSE(opened);
    CHECK(opened.error().code == EPERM);
    CHECK(world.kernel.policies().size() == 4);
    const auto findings = world.finish(world.client->probe({kDefaultPreference.begin(), kDefaultPreference.end()}));
    REQUIRE(findings);
    CHECK(findings->size() >= 8);

    world.kernel.fail_next(EEXIST);
    const auto refused = world.finish(world.client->install_set(a_request(2)));
    REQUIRE(!refused);
    CHECK(refused.error().reaction == Reaction::refused);
    CHECK(refused.error().code == EEXIST);
    std::vector<SaId> ids;
    for (const auto& sa : four_sas(parameters)) ids.push_back(sa.id);
    CHECK(world.finish(world.client->remove_sas(ids)));
    CHECK(world.kernel.sas().empty());
    CHECK(world.client->counters().sets_installed == world.kernel.counters().sets_installed);
}

TEST_CASE("a list of more SAs than a frame, and many requests at once, come whole and in order") {
    EngineWorld world;
    world.worker_up();
    std::vector<std::shared_ptr<std::optional<Result<void>>>> all;
    for (unsigned ue = 1; ue <= 200; ++ue) all.push_back(world.begin(world.client->install_set(a_request(ue))));
    CHECK(world.until(
        [&] { return std::ranges::all_of(all, [](const auto& one) { return one->has_value() && **one; }); }));
    const auto list = world.finish(world.client->dump());
    REQUIRE(list);
    CHECK(list->size() == 800);
}

TEST_CASE("an event of the kernel arrives as it was") {
    EngineWorld world;
    world.worker_up();
    REQUIRE(world.until([&] { return world.ups == 1; }));
    KernelEvent event;
    event.kind = KernelEvent::Kind::sa_deleted;
    event.sa = four_sas(a_request().parameters)[0].id;
    event.mark = Mark{1};
    world.server->event(event);
    REQUIRE(world.until([&] { return !world.events.empty(); }));
    CHECK(world.events[0].kind == event.kind);
    CHECK(world.events[0].sa == event.sa);
    CHECK(world.events[0].mark == event.mark);
}

TEST_CASE("forged requests are refused, counted and reported, and the kernel is not asked") {
    Forger forger;
    auto wrong_reqid = FrameWriter(GM_INSTALL_SET, 1).add(to_frame(a_request(), ReqId{1})).finish();
    CHECK(is_words(forger.ask(wrong_reqid), EPERM));
    auto foreign_spi = a_request();
    foreign_spi.parameters.spi_ps = Spi{0xc1234567};
    CHECK(is_words(forger.ask(forger.install(foreign_spi)), EPERM));
    auto foreign_address = a_request();
    foreign_address.parameters.gateway = *Address::parse("192.0.2.200");
    CHECK(is_words(forger.ask(forger.install(foreign_address)), EPERM));
    auto foreign_port = a_request();
    foreign_port.parameters.port_pc = Port{443};
    CHECK(is_words(forger.ask(forger.install(foreign_port)), EPERM));
    FrameWriter policy(GM_INSTALL_GUARDS, 1, 1);
    policy.add(guards_frame_of({*Address::parse("192.0.2.9"), {}})).add(std::uint16_t{22});
    CHECK(is_words(forger.ask(policy.finish()), EPERM));
    CHECK(is_words(forger.ask(configuration_frames(a_configuration())[0]), EPERM));
    CHECK(is_words(forger.ask(FrameWriter(static_cast<gm_kind>(77), 1).finish()), EBADMSG));
    auto other_version = forger.install(a_request());
    other_version[0] = 9;
    CHECK(is_words(forger.ask(other_version), EBADMSG));
    CHECK(forger.world.kernel.calls().empty());
    CHECK(forger.world.server->counters().forbidden == 6);
    CHECK(forger.world.server->counters().malformed == 2);
    CHECK(forger.world.refusals.size() >= 5);
}

TEST_CASE("frames cut at every length, too long, or with any octet changed never crash the engine or get half done") {
    Forger forger;
    const auto good = forger.install(a_request());
    for (std::size_t size = 1; size < good.size(); ++size) {
        forger.send_bytes(std::span<const std::uint8_t>(good).first(size));
        CHECK(is_words(forger.answer(), EBADMSG));
    }
    auto longer = good;
    longer.push_back(0);
    CHECK(is_words(forger.ask(longer), EBADMSG));
    CHECK(is_words(forger.ask(Frame(GM_FRAME_LIMIT + 1, 0)), EBADMSG));
    CHECK(forger.world.kernel.calls().empty());

    std::mt19937 random(1);  // the same octets every time
    std::uint64_t answers = 0;
    for (int i = 0; i < 20000; ++i) {
        Frame frame = good;
        if (i % 3 == 0) {
            frame.resize(sizeof(gm_header) + random() % 200);
            reinterpret_cast<gm_header*>(frame.data())->kind = static_cast<std::uint16_t>(1 + random() % 12);
            reinterpret_cast<gm_header*>(frame.data())->count =
                static_cast<std::uint32_t>(random() % 8 == 0 ? random() : random() % 9);
        }
        for (int n = 0; n < 1 + i % 4; ++n)
            frame[sizeof(gm_header) +
                  random() % (frame.size() - sizeof(gm_header) + (frame.size() == sizeof(gm_header)))] =
                static_cast<std::uint8_t>(random());
        forger.send_bytes(frame);
        while (forger.answer().header.kind != GM_DONE) {}
        ++answers;
    }
    CHECK(answers == 20000);
    for (const auto& [id, sa] : forger.world.kernel.sas()) CHECK(sa.mark.value <= 0x00ffffff);
}

TEST_CASE("more requests than may be under way are a flood: refused and counted, the others are done") {
    Forger forger;
    forger.world.kernel.hold();
    const auto request = FrameWriter(GM_REPORT_SET, 1).add(to_frame(a_request().parameters)).finish();
    for (int i = 0; i < GM_IN_FLIGHT_LIMIT; ++i) {
        forger.send_bytes(request);
        if (i % 16 == 0)
            forger.world.until([&] { return forger.world.kernel.held() + 32 > static_cast<std::size_t>(i); });
    }
    REQUIRE(forger.world.until([&] { return forger.world.kernel.held() == GM_IN_FLIGHT_LIMIT; }));
    const auto one_more = forger.ask(request);
    CHECK(one_more.done.outcome == GM_RETRY);
    CHECK(one_more.done.code == ENOBUFS);
    CHECK(forger.world.server->counters().flooded == 1);
    forger.world.kernel.release();
    for (int i = 0; i < GM_IN_FLIGHT_LIMIT; ++i) CHECK(forger.answer().done.outcome == GM_OK);
}

TEST_CASE("a worker that dies under an install, done or not: the set is removed, installed again and whole") {
    for (const bool was_done : {true, false}) {
        EngineWorld world;
        world.worker_up();
        REQUIRE(world.until([&] { return world.ups == 1; }));
        world.kernel.hold();
        const auto installed = world.begin(world.client->install_set(a_request()));
        if (was_done) REQUIRE(world.until([&] { return world.kernel.held() == 1; }));
        world.worker_dies();
        world.kernel.release();
        world.worker_up();
        REQUIRE(world.until([&] { return installed->has_value(); }));
        CHECK((*installed)->has_value());
        CHECK(world.kernel.sas().size() == 4);
        CHECK(world.kernel.count("remove_set") == (was_done ? 1 : world.kernel.count("remove_set")));
        CHECK(world.downs == std::vector<std::string>{"killed by signal 9"});
        REQUIRE(!world.events.empty());
        CHECK(world.events.back().kind == KernelEvent::Kind::events_lost);
    }
}

TEST_CASE("a second death under the same install is an error, and nothing of the set is left") {
    EngineWorld world;
    world.worker_up();
    REQUIRE(world.until([&] { return world.ups == 1; }));
    world.kernel.hold();
    const auto installed = world.begin(world.client->install_set(a_request()));
    for (std::size_t round = 1; round <= 2; ++round) {
        REQUIRE(world.until([&] { return world.kernel.count("install_set") == round; }));
        world.worker_dies();
        world.worker_up();
        REQUIRE(world.until([&] { return world.kernel.count("remove_set") == round; }));
        while (world.kernel.release_one()) {}
    }
    REQUIRE(world.until([&] {
        while (world.kernel.release_one()) {}
        return installed->has_value();
    }));
    REQUIRE(!installed->value());
    CHECK(installed->value().error().reaction == Reaction::broken);
    CHECK(world.kernel.sas().empty());
}

TEST_CASE("a worker that dies under a list: the list is begun again and told once") {
    EngineWorld world;
    world.worker_up();
    for (unsigned ue = 1; ue <= 60; ++ue) REQUIRE(world.finish(world.client->install_set(a_request(ue))));
    world.kernel.hold();
    const auto list = world.begin(world.client->dump());
    REQUIRE(world.until([&] { return world.kernel.held() == 1; }));
    world.worker_dies();
    world.kernel.release();
    world.worker_up();
    REQUIRE(world.until([&] { return list->has_value(); }));
    REQUIRE(list->value());
    CHECK(list->value()->size() == 240);
}

TEST_CASE("without a worker nobody waits for ever, and a late one does what is asked then") {
    EngineWorld world(std::chrono::milliseconds(300));
    const auto result = world.finish(world.client->install_set(a_request()));
    REQUIRE(!result);
    CHECK(result.error().reaction == Reaction::retry);
    world.worker_up();
    CHECK(world.finish(world.client->install_set(a_request())));
    CHECK(world.kernel.sas().size() == 4);
}

TEST_CASE("a worker that says nothing: the caller gets an error, and a set that it installs too late is removed") {
    EngineWorld world(std::chrono::milliseconds(300));
    world.worker_up();
    REQUIRE(world.until([&] { return world.ups == 1; }));
    world.kernel.hold();
    const auto result = world.finish(world.client->install_set(a_request()));
    REQUIRE(!result);
    CHECK(result.error().reaction == Reaction::broken);
    CHECK(world.kernel.sas().size() == 4);
    world.kernel.release();
    CHECK(world.until([&] { return world.kernel.sas().empty(); }));
}

TEST_CASE("the guardian's end is told once, and every call fails from then on") {
    EngineWorld world;
    world.worker_up();
    world.kernel.hold();
    const auto installed = world.begin(world.client->install_set(a_request()));
    REQUIRE(world.until([&] { return world.kernel.held() == 1; }));
    world.guardian_dies();
    REQUIRE(world.until([&] { return installed->has_value() && !world.guardian_gone.empty(); }));
    CHECK(!installed->value());
    CHECK(!world.finish(world.client->dump()));
    world.kernel.release();
}
