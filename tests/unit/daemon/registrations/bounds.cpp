// Every table that the network can fill has a limit.
#include "tests/unit/daemon/agreement/register_bench.h"

#include "daemon/observe/trace.h"

using namespace gmgate;
using namespace gmgate::test;
using Bench = RegisterBench;

TEST_CASE("The decision trace keeps the newest records of a UE, and the UEs heard last") {
    daemon::Trace trace(2, 3);
    const auto record = [](const std::string& impi, int answer) {
        daemon::DecisionRecord r;
        r.impi = Impi{impi};
        r.answer = answer;
        return r;
    };
    for (const int answer : {401, 200, 403}) trace.add(record("a", answer));
    REQUIRE(trace.of(Impi{"a"}).size() == 2);
    CHECK(trace.of(Impi{"a"}).front().answer == 200);
    CHECK(trace.of(Impi{"a"}).back().answer == 403);
    trace.add(record("b", 1));
    trace.add(record("c", 1));
    trace.add(record("a", 200));
    trace.add(record("d", 1));
    CHECK(trace.ue_count() == 3);
    CHECK(trace.of(Impi{"b"}).empty());
    CHECK(trace.of(Impi{"a"}).size() == 2);
}

TEST_CASE(
    "A REGISTER that names another phone than its sender is kept for both; one that waits for the core is told until it has its answer") {
    daemon::Trace trace(2, 3);
    int heard = 0;
    const auto subscription = trace.on_record([&](const daemon::DecisionRecord&) { ++heard; });
    daemon::DecisionRecord refused;
    refused.impi = Impi{"named"};
    refused.answer = 403;
    trace.add(refused, Impi{"sender"});
    trace.add(refused, refused.impi);
    CHECK(heard == 2);
    CHECK(trace.of(Impi{"named"}).size() == 2);
    REQUIRE(trace.of(Impi{"sender"}).size() == 1);
    CHECK(trace.of(Impi{"sender"}).front().impi == Impi{"sender"});

    const auto first = trace.core_asked({{}, Impi{"a"}, "10.1.0.2:5060/UDP", "unprotected"});
    const auto second = trace.core_asked({{}, Impi{"a"}, "10.1.0.2:5062/UDP", "temporary set 1"});
    trace.core_asked({{}, Impi{"b"}, "10.1.0.3:5060/UDP", "unprotected"});
    REQUIRE(trace.pending(Impi{"a"}).size() == 2);
    CHECK(trace.pending(Impi{"a"}).front().over == "unprotected");
    trace.core_answered(first);
    REQUIRE(trace.pending(Impi{"a"}).size() == 1);
    CHECK(trace.pending(Impi{"a"}).front().over == "temporary set 1");
    trace.core_answered(second);
    CHECK(trace.pending(Impi{"a"}).empty());
    CHECK(trace.pending(Impi{"b"}).size() == 1);
}

TEST_CASE(
    "What strangers write is cut before it is kept, and found by its long name; in all it keeps within its octets") {
    daemon::Trace trace(16, 100'000, 1024 * 1024);
    const auto name_of = [](int i) { return Impi{std::to_string(i) + std::string(60'000, 'n')}; };
    for (int i = 0; i < 2'000; ++i) {
        std::string words(60'000, 'w');  // no two alike
        for (int rest = i, at = 0; rest != 0; rest /= 26, ++at)
            words[static_cast<std::size_t>(at)] = static_cast<char>('a' + rest % 26);
        daemon::DecisionRecord record;
        record.impi = name_of(i);
        record.ue = "192.0.2.7:5060/UDP";
        record.offer = words;
        record.checks.push_back({"via", false, words});
        trace.add(std::move(record));
        REQUIRE(trace.octets() <= 1024 * 1024);
    }
    CHECK(trace.ue_count() > 100);
    CHECK(trace.ue_count() < 1'000);
    CHECK(trace.impis().size() == trace.ue_count());
    CHECK(trace.of(name_of(0)).empty());
    const auto kept = trace.of(name_of(1'999));
    REQUIRE(kept.size() == 1);
    CHECK(kept[0].impi.value.size() == daemon::Trace::kFieldLimit);
    CHECK(kept[0].offer.size() == daemon::Trace::kOfferLimit);
    CHECK(kept[0].checks[0].detail.size() == daemon::Trace::kFieldLimit);
    const auto number = trace.core_asked({{}, name_of(7), "a", "unprotected"});
    REQUIRE(trace.pending(name_of(7)).size() == 1);
    CHECK(trace.pending(name_of(7))[0].impi.value.size() == daemon::Trace::kFieldLimit);
    trace.core_answered(number);
    for (int i = 0; i < 100; ++i) {  // of one UE sixteen
        daemon::DecisionRecord record;
        record.impi = name_of(1'999);
        trace.add(std::move(record));
    }
    CHECK(trace.of(name_of(1'999)).size() == 16);
    CHECK(trace.octets() <= 1024 * 1024);
}

TEST_CASE(
    "The records of phones that say the same but for their numbers share their words, and come back as they were") {
    daemon::Trace trace(16, 100'000);
    const auto record_of = [](unsigned i) {
        daemon::DecisionRecord record;
        record.impi = Impi{fmt::format("{:015}@ims.example", i)};
        record.time = std::chrono::system_clock::time_point{std::chrono::seconds{i}};
        record.ue = i % 2 ? fmt::format("[2001:db8::{:x}]:{}/UDP", i, 1024 + i) : fmt::format("a name {}/UDP", i);
        record.realm_id = "access";
        record.over = fmt::format("established set {}", i);
        for (int n = 0; n < 8; ++n)
            record.offer += fmt::format(
                "{}ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;"
                "spi-c={};spi-s={};port-c={};port-s=0{}",
                n ? ", " : "", 1'000'000 + i, 2'000'000 + i, 10'000 + i, 5060);
        record.checks = {{"via", true, ""}, {"security-verify", i % 2 == 0, "equals the Security-Server sent"}};
        record.set = SetNumber{i};
        record.own_spis = {Spi{3'000'000 + i}, Spi{4'000'000 + i}};
        record.core_status = record.answer = 401;
        record.why = "challenged";
        return record;
    };
    constexpr unsigned kPhones = 1'000;
    for (unsigned i = 0; i < kPhones; ++i) trace.add(record_of(i));
    CHECK(record_of(7).offer.size() > 700);
    CHECK(trace.octets() / kPhones < 512);
    for (const unsigned i : {0U, 7U, 998U}) {
        const auto kept = trace.of(record_of(i).impi);
        REQUIRE(kept.size() == 1);
        const auto &is = kept.front(), was = record_of(i);
        CHECK(is.impi == was.impi);
        CHECK(is.time == was.time);
        CHECK(is.ue == was.ue);
        CHECK(is.realm_id == was.realm_id);
        CHECK(is.over == was.over);
        CHECK(is.offer == was.offer);
        REQUIRE(is.checks.size() == 2);
        CHECK(is.checks[1].check == "security-verify");
        CHECK(is.checks[1].passed == was.checks[1].passed);
        CHECK(is.checks[1].detail == was.checks[1].detail);
        CHECK(is.set == was.set);
        CHECK(is.core_status == 401);
        CHECK(is.why == was.why);
        CHECK(trace.whose_spi(was.own_spis.spi_ps) == was.impi);
    }
}

TEST_CASE(
    "Every REGISTER yields one record: offer, policy, choice, each check with its verdict, SPIs and ports, answer and why") {
    Bench bench;
    auto& set = bench.challenge();
    const auto flow = bench.over(set);
    auto say = bench.answer_to(set);
    say.verify = "tls";
    bench.send(say, flow);
    const auto records = bench.parts().trace.of(Impi{kImpi});
    REQUIRE(records.size() == 2);
    CHECK(records[0].over == "unprotected");
    CHECK(records[0].offer.find("hmac-sha-1-96") != std::string::npos);
    CHECK(records[0].policy == "sec-agree enabled ipsec3gpp");
    CHECK(records[0].choice == "ipsec-3gpp hmac-sha-1-96/aes-cbc");
    CHECK(records[0].rule.find("first that the phone offers") != std::string::npos);
    CHECK(records[0].security_associations.find("spi-pc=") != std::string::npos);
    CHECK(records[0].core_status == 401);
    CHECK(records[0].answer == 401);
    CHECK(records[1].answer == 494);
    REQUIRE_FALSE(records[1].checks.empty());
    CHECK_FALSE(records[1].checks.back().passed);
    CHECK(records[1].checks.back().check == "security-verify");
    CHECK(records[1].why.find("differs") != std::string::npos);
    for (const auto& record : records) {
        for (const auto& text : {record.offer, record.security_associations, record.why, record.rule}) {
            CHECK(text.find(kCk) == std::string::npos);
            CHECK(text.find(kIk) == std::string::npos);
        }
    }
}

TEST_CASE("Agreements on tls that nobody takes up are bounded and run out") {
    StillClock clock;
    daemon::TlsAgreements agreements(2, clock);
    const auto until = clock.now() + std::chrono::seconds{10};
    const auto ue = *Address::parse("192.0.2.1");
    CHECK(agreements.put({Impi{"a"}, ue}, {{}, "tls", until}));
    CHECK(agreements.put({Impi{"b"}, ue}, {{}, "tls", until}));
    CHECK(agreements.put({Impi{"c"}, ue}, {{}, "tls", until}));
    CHECK(agreements.find({Impi{"a"}, ue}) == nullptr);  // the oldest gave way
    CHECK(agreements.put({Impi{"b"}, ue}, {{}, "tls", until}));
    CHECK(agreements.size() == 2);
    clock.advance(std::chrono::seconds{11});
    CHECK(agreements.find({Impi{"b"}, ue}) == nullptr);
    CHECK(agreements.put({Impi{"c"}, ue}, {{}, "tls", clock.now() + std::chrono::seconds{10}}));
    CHECK(agreements.size() == 1);
}

TEST_CASE("Agreements on tls at the limit: the oldest of the source that has most gives way, no phone of another") {
    StillClock clock;
    daemon::TlsAgreements agreements(4, clock);
    const auto until = clock.now() + std::chrono::seconds{240};
    const auto phone = *Address::parse("192.0.2.1");
    CHECK(agreements.put({Impi{"phone"}, phone}, {{}, "tls", until}));
    const auto flood = [&](int i) { return *Address::parse(fmt::format("2001:db8::{}", 1 + i)); };  // one /64
    for (int i = 0; i < 20; ++i) CHECK(agreements.put({Impi{fmt::format("x{}", i)}, flood(i)}, {{}, "tls", until}));
    CHECK(agreements.size() == 4);
    CHECK(agreements.find({Impi{"phone"}, phone}) != nullptr);
    CHECK(agreements.find({Impi{"x16"}, flood(16)}) == nullptr);
    CHECK(agreements.find({Impi{"x17"}, flood(17)}) != nullptr);
}

TEST_CASE(
    "Limits of challenges, registrations and sets per address: 503, a counter or a reason, and the kernel is not asked") {
    Bench bench([](daemon::Config& config) {
        config.limits.challenges = 0;  // full, and nothing there that could give way
        config.limits.sets_per_address = 3;
    });
    Say say;
    say.impi = "another@example";
    const auto calls = bench.kernel.calls().size();
    const auto answer = bench.send(say);
    CHECK(Bench::status_of(*answer) == 503);
    CHECK(Bench::header(answer->responses.back(), "Retry-After") == "5");
    CHECK(bench.kernel.calls().size() == calls);
}

TEST_CASE("SPI space exhausted: 503, and the live sets are unharmed") {
    Bench bench;
    xfrm::SpiPool tiny(Spi{70000}, Spi{70002});
    REQUIRE(tiny.take(Spi{1}, Spi{2}).has_value());
    const auto refused = tiny.take(Spi{1}, Spi{2});
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().reaction == Reaction::exhausted);
}

TEST_CASE("Protected client ports used up for one phone: 503 with the reason") {
    Bench bench([](daemon::Config& config) { config.ims_aka_profiles.front().end_protected_client_port = Port{6200}; });
    bench.registered();
    Say say;  // the same phone comes back unprotected while its set lives: same port_us, no port_pc left
    const auto answer = bench.send(say);
    CHECK(Bench::status_of(*answer) == 503);
    CHECK(bench.registration()->sets.size() == 1);
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE(
    "A set that the kernel does not delete keeps its SPIs and is tried again: no SA without an owner, no SPI given out twice") {
    Bench bench;
    bench.challenge();
    bench.clock.advance(bench.config.timers.reg_await_auth + std::chrono::seconds{1});
    for (std::uint64_t n = 1; n <= 8; ++n) bench.kernel.fail_message(bench.kernel.messages() + n, EBUSY);
    bench.sweep();
    CHECK(bench.parts().sets.leftovers() == 1);
    CHECK(bench.parts().spis.in_use() == 2);
    bench.kernel.clear_failures();
    asio::co_spawn(bench.loop, bench.parts().sets.remove_leftovers(), asio::detached);
    bench.loop.poll();
    CHECK(bench.kernel.sas().empty());
    CHECK(bench.parts().sets.leftovers() == 0);
    CHECK(bench.parts().spis.in_use() == 0);
}

TEST_CASE("Refusals in clear are remembered up to the limit; the oldest gives way, and no phone is refused for it") {
    StillClock clock;
    daemon::TlsAgreements agreements(3, clock);
    const auto ue = *Address::parse("127.0.0.9");
    const auto refuse = [&](const std::string& impi) {
        agreements.put_refusal({Impi{impi}, ue}, "tls;q=0.1", clock.now() + std::chrono::seconds{240});
    };
    for (const char* impi : {"a", "b", "a", "c", "d"}) refuse(impi);
    CHECK(agreements.refusals() == 3);
    CHECK(agreements.find_refusal({Impi{"b"}, ue}) == nullptr);  // the oldest: a was refused again after it
    REQUIRE(agreements.find_refusal({Impi{"a"}, ue}) != nullptr);
    CHECK(*agreements.find_refusal({Impi{"a"}, ue}) == "tls;q=0.1");
    refuse(std::string(254, 'x'));  // no phone has that
    CHECK(agreements.refusals() == 3);
    CHECK(agreements.put({Impi{"a"}, ue}, {{}, "tls", clock.now() + std::chrono::seconds{240}}));
    CHECK(agreements.find_refusal({Impi{"a"}, ue}) == nullptr);  // the latest list counts
    agreements.erase({Impi{"c"}, ue});
    CHECK(agreements.refusals() == 1);
    clock.advance(std::chrono::seconds{241});
    CHECK(agreements.find_refusal({Impi{"d"}, ue}) == nullptr);
}
