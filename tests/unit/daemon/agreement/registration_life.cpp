// How long a registration serves and whose it is: shorter grants, answers that cross, emergency contacts beside others,
// one phone over several TLS connections.
#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;
using Bench = RegisterBench;
using std::chrono::seconds;

namespace {

constexpr const char* kSosClient =
    "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=28765423;port-c=7724;spi-s=21234563;port-s=1458";
constexpr const char* kSos = "<sip:127.0.0.9:1458;sos>";

void prefer_tls(daemon::Config& config) {
    config.sip_interfaces.front().sec_agree_pref = daemon::SecAgreePref::tls_ipsec3gpp;
}

Say over_tls(const Bench& bench) {
    return {.verify = "tls", .response = "3779ff40a057f999a2f8288bbfafc10d", .nonce = bench.nonce};
}

/// A registration over TLS after an agreement in clear; returns its connection.
sip::Flow registered_over_tls(Bench& bench, const std::optional<std::string>& contact = {}) {
    bench.core_status = 401;
    REQUIRE(Bench::status_of(*bench.send({})) == 401);
    const auto flow = bench.tls_connection();
    auto say = over_tls(bench);
    say.contact = contact;
    bench.core_status = 200;
    REQUIRE(Bench::status_of(*bench.send(say, flow)) == 200);
    return flow;
}

/// An emergency contact with SAs of its own beside the one that there is.
daemon::Registration& registered_for_emergencies(Bench& bench) {
    Say sm1;
    sm1.client = kSosClient;
    sm1.contact = kSos;
    bench.core_status = 401;
    REQUIRE(Bench::status_of(*bench.send(sm1)) == 401);
    auto& set = *bench.temporary_set(true);
    auto say = bench.answer_to(set, kSosClient);
    say.contact = kSos;
    bench.core_status = 200;
    REQUIRE(Bench::status_of(*bench.send(say, bench.over(set))) == 200);
    auto* made = bench.parts().table.find({Impi{kImpi}, "", "sos:"});
    REQUIRE(made);
    return *made;
}

void advance(Bench& bench, seconds by) {
    bench.clock.advance(by);
    bench.sweep();
}

}  // namespace

TEST_CASE("TS 24.229 5.2.5: a refresh that is granted less time ends service then, whatever its SAs were made for") {
    SUBCASE("over SAs") {
        Bench bench;
        auto& registration = bench.registered();
        auto say = bench.answer_to(*registration.sets.front());
        say.expires = "60";
        bench.core_status = 200;
        REQUIRE(Bench::status_of(*bench.send(say, bench.over(*registration.sets.front()))) == 200);
        advance(bench, seconds{60} + bench.config.timers.lifetime_margin - seconds{1});
        CHECK(bench.registration() != nullptr);
        advance(bench, seconds{2});
        CHECK(bench.registration() == nullptr);
        CHECK(bench.kernel.sas().empty());
        CHECK(bench.parts().spis.in_use() == 0);
        CHECK(bench.parts().expiry.watched() == 0);
    }
    SUBCASE("over TLS") {
        Bench bench(prefer_tls);
        const auto flow = registered_over_tls(bench);
        auto say = over_tls(bench);
        say.expires = "60";
        REQUIRE(Bench::status_of(*bench.send(say, flow)) == 200);
        advance(bench, seconds{59});
        CHECK(bench.registration() != nullptr);
        advance(bench, seconds{2});
        CHECK(bench.registration() == nullptr);
        CHECK_FALSE(bench.parts().transports.is_open(flow.connection));
        CHECK(bench.parts().expiry.watched() == 0);
    }
}

TEST_CASE("What is watched for its end does not grow with refreshes, and is forgotten with what it stood for") {
    Bench bench;
    auto& registration = bench.registered();
    bench.core_status = 200;
    for (int i = 0; i < 50; ++i) {
        bench.clock.advance(seconds{100});
        const auto say = bench.answer_to(*registration.sets.front());
        REQUIRE(Bench::status_of(*bench.send(say, bench.over(*registration.sets.front()))) == 200);
        CHECK(bench.parts().expiry.watched() == 2);  // the set and the registration
    }
    auto say = bench.answer_to(*registration.sets.front());
    say.expires = "0";
    REQUIRE(Bench::status_of(*bench.send(say, bench.over(*registration.sets.front()))) == 200);
    advance(bench, bench.config.timers.final_answer + seconds{1});
    CHECK(bench.registration() == nullptr);
    CHECK(bench.parts().expiry.watched() == 0);
}

TEST_CASE("A 200 that crosses a later de-REGISTER brings nothing back") {
    SUBCASE("over the same set") {
        Bench bench;
        auto& set = *bench.registered().sets.front();
        const auto first = bench.answer_to(set);
        auto second = first;
        second.expires = "0";
        bench.core_status = 200;
        CHECK(bench.crossed(first, bench.over(set), second, bench.over(set)) == std::pair{480, 200});
        advance(bench, bench.config.timers.final_answer + seconds{1});
        CHECK(bench.registration() == nullptr);
        CHECK(bench.kernel.sas().empty());
    }
    SUBCASE("over a temporary set") {
        Bench bench;
        auto& set = *bench.registered().sets.front();
        const auto over_old = bench.over(set);
        auto second = bench.answer_to(set);
        second.expires = "0";
        auto again = bench.answer_to(set, kSecondClient);
        REQUIRE(Bench::status_of(*bench.send(again, over_old)) == 401);
        auto& fresh = *bench.temporary_set();
        const auto first = bench.answer_to(fresh, kSecondClient);
        bench.core_status = 200;
        CHECK(bench.crossed(first, bench.over(fresh), second, over_old) == std::pair{480, 200});
        advance(bench, bench.config.timers.final_answer + seconds{1});
        CHECK(bench.registration() == nullptr);
        CHECK(bench.kernel.sas().empty());
    }
    SUBCASE("over another TLS connection") {
        Bench bench(prefer_tls);
        const auto flow = registered_over_tls(bench);
        const auto first = over_tls(bench);
        auto second = first;
        second.expires = "0";
        CHECK(bench.crossed(first, bench.tls_connection(), second, flow).second == 200);
        CHECK(bench.registration() == nullptr);
    }
}

TEST_CASE(
    "C-81: an emergency contact is refreshed over the normal one's SAs: each keeps its own key, token and route") {
    Bench bench;
    auto& normal = bench.registered();
    const auto normal_contact = normal.contact_uri;
    auto& sos = registered_for_emergencies(bench);
    REQUIRE(bench.parts().table.registration_count() == 2);
    auto* carrier = bench.parts().table.find({Impi{kImpi}, "", ""});
    REQUIRE(carrier);
    auto say = bench.answer_to(*carrier->sets.front());
    say.contact = std::string(kSos) + ";expires=500";
    SUBCASE("as it was") {}
    SUBCASE("spelled otherwise") { *say.contact += ";+sip.instance=\"<urn:gsma:imei:35-1>\";reg-id=1"; }
    bench.clock.advance(seconds{1000});
    REQUIRE(Bench::status_of(*bench.send(say, bench.over(*carrier->sets.front()))) == 200);
    CHECK(bench.parts().table.registration_count() == 2);
    CHECK(Bench::header(bench.core_saw.back(), "Path").find(sos.token) != std::string::npos);
    CHECK(sos.expires == bench.clock.now() + seconds{500});
    CHECK(carrier->contact_uri == normal_contact);
    CHECK(carrier->expires > sos.expires);
    say.contact = "*";
    say.extra = "Expires: 0\r\n";
    REQUIRE(Bench::status_of(*bench.send(say, bench.over(*carrier->sets.front()))) == 200);
    CHECK(carrier->ended);
    CHECK_FALSE(sos.ended);
}

TEST_CASE(
    "C-81: a TLS connection that an emergency contact shares is its user's: both are judged, the last one closes it") {
    Bench bench(prefer_tls);
    const auto flow = registered_over_tls(bench);
    auto say = over_tls(bench);
    say.contact = "<sip:127.0.0.9:1358;sos>;expires=900";
    auto& table = bench.parts().table;
    REQUIRE(Bench::status_of(*bench.send(say, flow)) == 200);
    REQUIRE(table.bound_to(flow.connection).size() == 2);
    CHECK(table.owner_of(flow).registration->key.reg_id.empty());
    SUBCASE("the normal one ends first") {
        auto end = over_tls(bench);
        end.expires = "0";
        REQUIRE(Bench::status_of(*bench.send(end, flow)) == 200);
        CHECK(bench.parts().transports.is_open(flow.connection));
        CHECK(table.owner_of(flow).registration->key.reg_id == "sos:");
        advance(bench, seconds{901});
    }
    SUBCASE("the emergency contact runs out first") {
        advance(bench, seconds{901});
        CHECK(bench.parts().transports.is_open(flow.connection));
        CHECK(table.bound_to(flow.connection).size() == 1);
        advance(bench, seconds{600000});
    }
    CHECK_FALSE(bench.parts().transports.is_open(flow.connection));
    CHECK(table.registration_count() == 0);
}

TEST_CASE("C-81: an emergency REGISTER while the normal one's challenge waits, and the other way round: both go on") {
    Bench bench;
    Say urgent;
    urgent.client = kSosClient;
    urgent.contact = kSos;
    bool is_urgent_first = false;
    SUBCASE("the normal one first") {}
    SUBCASE("the emergency one first") { is_urgent_first = true; }
    std::string path, urgent_path;
    const auto ask = [&](const Say& say, std::string& kept) {
        REQUIRE(Bench::status_of(*bench.send(say)) == 401);
        kept = Bench::header(bench.core_saw.back(), "Path");
    };
    if (is_urgent_first) ask(urgent, urgent_path);
    ask({}, path);
    if (!is_urgent_first) ask(urgent, urgent_path);
    CHECK(path != urgent_path);
    REQUIRE(bench.temporary_set());
    REQUIRE(bench.temporary_set(true));
    CHECK(bench.kernel.sas().size() == 8);
    bench.core_status = 200;
    auto& normal_set = *bench.temporary_set();
    REQUIRE(Bench::status_of(*bench.send(bench.answer_to(normal_set), bench.over(normal_set))) == 200);
    CHECK(Bench::header(bench.core_saw.back(), "Path") == path);
    auto& urgent_set = *bench.temporary_set(true);
    auto say = bench.answer_to(urgent_set, kSosClient);
    say.contact = kSos;
    REQUIRE(Bench::status_of(*bench.send(say, bench.over(urgent_set))) == 200);
    CHECK(Bench::header(bench.core_saw.back(), "Path") == urgent_path);
    CHECK(bench.parts().table.registration_count() == 2);
    CHECK(bench.kernel.sas().size() == 8);
}

TEST_CASE(
    "C-81: an emergency REGISTER that agrees on TLS leaves what the normal one has agreed on, and the other way") {
    Bench bench(prefer_tls);
    const auto flow = bench.tls_connection();
    Say urgent;
    urgent.client = "tls;q=0.1";
    urgent.contact = "<sip:127.0.0.9:1358;sos>;expires=900";
    REQUIRE(Bench::status_of(*bench.send({})) == 401);
    REQUIRE(Bench::status_of(*bench.send(urgent)) == 401);
    CHECK(bench.parts().tls_agreements.size() == 2);
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(over_tls(bench), flow)) == 200);  // with the Security-Client that it offered
    CHECK(bench.parts().tls_agreements.size() == 1);
}

TEST_CASE(
    "C-81: an emergency contact that agreed in clear, over the normal one's connection: judged by its own lists") {
    Bench bench(prefer_tls);
    Say urgent;
    urgent.client = "tls;q=0.1";
    urgent.contact = "<sip:alice@192.0.2.9:1357;sos>";
    REQUIRE(Bench::status_of(*bench.send({})) == 401);
    REQUIRE(Bench::status_of(*bench.send(urgent)) == 401);
    bench.core_status = 200;
    const auto flow = bench.tls_connection();
    REQUIRE(Bench::status_of(*bench.send(over_tls(bench), flow)) == 200);
    auto answer = over_tls(bench);
    answer.contact = urgent.contact;
    SUBCASE("its own") {
        answer.client = urgent.client;
        CHECK(Bench::status_of(*bench.send(answer, flow)) == 200);
        CHECK(bench.parts().tls_agreements.size() == 0);
        CHECK(bench.parts().table.registration_count() == 2);
        CHECK(bench.parts().table.bound_to(flow.connection).size() == 2);
    }
    SUBCASE("those of the normal one") {
        CHECK(Bench::status_of(*bench.send(answer, flow)) == 494);
        CHECK(bench.parts().table.registration_count() == 1);
    }
}

TEST_CASE("One phone has one registration over TLS, however it spells its Contact and whatever connection it uses") {
    Bench bench(prefer_tls);
    const std::string bare = "<sip:127.0.0.9:1358>", full = bare + ";reg-id=1;+sip.instance=\"<urn:gsma:imei:35-1>\"";
    const auto first = registered_over_tls(bench, full);
    const auto path = Bench::header(bench.core_saw.back(), "Path");
    auto say = over_tls(bench);
    say.contact = bare;
    SUBCASE("over the connection that is bound") {
        REQUIRE(Bench::status_of(*bench.send(say, first)) == 200);
        CHECK(Bench::header(bench.core_saw.back(), "Path") == path);
    }
    SUBCASE("over a new connection") {
        say.client = "";
        say.verify = "";
        say.sec_agree = false;
        const auto second = bench.tls_connection();
        REQUIRE(Bench::status_of(*bench.send(say, second)) == 200);
        CHECK(Bench::header(bench.core_saw.back(), "Path") == path);
        CHECK_FALSE(bench.parts().transports.is_open(first.connection));
    }
    SUBCASE("two at once over a new connection") {
        bench.core_status = 200;
        const auto second = bench.tls_connection();
        auto other = say;
        other.contact = "<sip:other@127.0.0.9:1358>;reg-id=2;+sip.instance=\"<urn:gsma:imei:35-2>\"";
        say.contact = "<sip:other@127.0.0.9:1358>";
        CHECK(bench.crossed(say, second, other, second) == std::pair{200, 200});
        CHECK(bench.parts().table.bound_to(second.connection).size() == 1);
        return;
    }
    CHECK(bench.parts().table.registration_count() == 1);
}
