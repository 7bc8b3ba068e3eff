// What a REGISTER and the registrar's final answer mean for a registration.
#include "daemon/agreement/contact.h"
#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;
using Bench = RegisterBench;

namespace {

sip::OwnedMessage message(const std::string& first_line, const std::string& contacts) {
    auto parsed = sip::OwnedMessage::parse(
        first_line +
        "\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:u@x>;tag=1\r\nTo: <sip:u@x>\r\nCall-ID: 1\r\n"
        "CSeq: 1 REGISTER\r\n" +
        (contacts.empty() ? "" : "Contact: " + contacts + "\r\n") + "Content-Length: 0\r\n\r\n");
    REQUIRE(parsed.has_value());
    return std::move(*parsed);
}

struct Said {
    std::string asked, listed;
    long expires;
    bool is_listed = true;
};

constexpr const char* kOther = "<sip:u@10.1.0.250:5060>;+sip.instance=\"<urn:gsma:imei:9>\";expires=500";

}  // namespace

TEST_CASE("RFC 3261 10.2.3: a REGISTER without Contact changes nothing and is no de-registration") {
    Bench bench;
    SUBCASE("over an established set") {
        auto& registration = bench.registered();
        const auto generation = registration.generation;
        auto say = bench.answer_to(*registration.sets.front());
        say.contact = "";
        say.cseq = 3;
        bench.core_status = 200;
        bench.core_contact = "<sip:127.0.0.9:1358>;expires=3000";
        CHECK(Bench::status_of(*bench.send(say, bench.over(*registration.sets.front()))) == 200);
        bench.clock.advance(bench.config.timers.final_answer + std::chrono::seconds{1});
        bench.sweep();
        REQUIRE(bench.registration());
        CHECK(bench.registration()->generation == generation);
        CHECK_FALSE(bench.registration()->contact_uri.empty());
        CHECK(bench.kernel.sas().size() == 4);
    }
    SUBCASE("over a temporary set, which then carries the REGISTER with a Contact") {
        auto& set = bench.challenge();
        const auto flow = bench.over(set);
        auto say = bench.answer_to(set);
        say.contact = "";
        bench.core_status = 200;
        CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
        CHECK(bench.registration() == nullptr);
        say.contact.reset();
        say.cseq = 3;
        CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
        CHECK(bench.registration());
    }
    CHECK(bench.parts().counters.get(daemon::Counter::deregistered) == 0);
}

TEST_CASE("RFC 3261 10.3: our contact is found in a 200, however the registrar writes it") {
    const Endpoint source{*Address::parse("fd01::7"), Port{7524}};
    const std::string mine = "<sip:u@[fd01::7]:1358>";
    const std::string other = kOther;
    for (const auto& said : std::vector<Said>{
             {mine, other + ", <sip:u@[fd01:0:0:0:0:0:0:7]:1358>;expires=3000", 3000},
             {mine, "<sip:u@[FD01::7]:1358>;expires=3000, " + other, 3000},
             {mine, other + ", <sip:%75@[fd01::7]:1358>;expires=3000", 3000},
             {mine, other + ", <sip:u@[fd01::7]:7524>;expires=3000", 3000},  // the port that it came from
             {mine, "<sip:u@[fd01::7]:1358>;expires=0, <sip:u@[fd01::7]:7524>;expires=3000", 3000},
             {mine + ";+sip.instance=\"<urn:gsma:imei:1>\"",
              "<sip:u@[fd01::6]:1358>;+sip.instance=\"<urn:gsma:imei:1>\";expires=0, "
              "<sip:x@pool.example>;+sip.instance=\"<urn:gsma:IMEI:1>\";expires=3000, " +
                  other,
              3000},
             {"<sip:u@[fd01::6]:1358>;expires=0, " + mine + ";expires=600", mine + ";expires=3000", 3000},
             {mine, mine + ";expires=\"3000\"", 3000},
             {mine, "<sip:u@proxy.example:5080>;expires=3000", 3000},  // the only one, rewritten
             {mine, mine + ";expires=0", 0},
             {mine + ";expires=600", "", 600, false},
             {mine + ";expires=600", other, 600, false},
             {mine + ";expires=600;+sip.instance=\"<urn:gsma:imei:1>\"", other, 600, false},
             {mine + ";expires=600", "<sip:u@[fd01::7]:1358;sos>;expires=3000", 600, false},
             {mine + ";expires=600", "<sip:u@[fd01::6]:1358>;expires=0", 600, false},
             {mine + ";reg-id=1;+sip.instance=\"<urn:gsma:imei:1>\"",
              mine + ";reg-id=2;+sip.instance=\"<urn:gsma:imei:1>\";expires=50, " + mine +
                  ";reg-id=1;+sip.instance=\"<urn:gsma:imei:1>\";expires=3000",
              3000},
         }) {
        CAPTURE(said.asked);
        CAPTURE(said.listed);
        const auto request = message("REGISTER sip:x SIP/2.0", said.asked);
        const auto response = message("SIP/2.0 200 OK", said.listed);
        const auto grant = daemon::granted(*response, *request, source);
        CHECK(grant.expires.count() == said.expires);
        CHECK(grant.is_listed == said.is_listed);
    }
}

TEST_CASE("A 200 that does not name the contact registers it for the time asked for") {
    Bench bench;
    bench.core_contact = kOther;
    auto& registration = bench.registered();
    CHECK(registration.expires == bench.clock.now() + std::chrono::seconds{600000});
    bench.clock.advance(bench.config.timers.final_answer + std::chrono::seconds{1});
    bench.sweep();
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE("The set says whose registration it is: refresh and de-REGISTER may spell instance and reg-id otherwise") {
    Bench bench;
    const std::string bare = "<sip:127.0.0.9:1358>";
    const std::string full = bare + ";reg-id=1;+sip.instance=\"<urn:gsma:imei:35-1>\"";
    std::string first = full, then = bare;
    SUBCASE("dropped") {}
    SUBCASE("added") { std::swap(first, then); }
    SUBCASE("other case") { then = bare + ";reg-id=1;+sip.instance=\"<urn:gsma:IMEI:35-1>\""; }
    SUBCASE("without reg-id") { then = bare + ";+sip.instance=\"<urn:gsma:imei:35-1>\""; }
    const auto path = [&] { return Bench::header(bench.core_saw.back(), "Path"); };
    Say sm1;
    sm1.contact = first;
    REQUIRE(Bench::status_of(*bench.send(sm1)) == 401);
    auto& set = *bench.temporary_set();
    auto say = bench.answer_to(set);
    const auto flow = bench.over(set);
    bench.core_status = 200;
    SUBCASE("from the answer to the challenge on") { say.contact = then; }
    SUBCASE("after it") { say.contact = first; }
    const auto first_path = path();
    CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
    CHECK(path() == first_path);
    say.contact = then;
    say.cseq = 3;
    CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
    CHECK(path() == first_path);
    CHECK(bench.parts().table.registration_count() == 1);
    say.contact = then + ";expires=0";
    say.cseq = 4;
    CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
    bench.clock.advance(bench.config.timers.final_answer + std::chrono::seconds{1});
    bench.sweep();
    CHECK(bench.kernel.sas().empty());
    CHECK(bench.parts().table.registration_count() == 0);
}

TEST_CASE(
    "E-5: Path says ob when the contact asks for a flow of its own and no proxy stands before us; 439 and Require pass") {
    Bench bench;
    const auto path_of = [&](const std::string& contact, const std::string& extra = {}) {
        Say sm1;
        sm1.contact = contact;
        sm1.extra = extra;
        (void)bench.send(sm1);
        return Bench::header(bench.core_saw.back(), "Path");
    };
    const std::string bare = "<sip:127.0.0.9:1358>", instance = ";+sip.instance=\"<urn:gsma:imei:35-1>\"";
    CHECK(path_of(bare).ends_with(";lr>"));
    CHECK(path_of(bare + instance).ends_with(";lr>"));
    CHECK(path_of(bare + ";reg-id=1").ends_with(";lr>"));
    CHECK(path_of(bare + ";reg-id=1" + instance).ends_with(";lr;ob>"));
    CHECK(path_of("<sip:127.0.0.9:1358;sos>" + instance).ends_with(";lr>"));
    CHECK(path_of("<sip:127.0.0.9:1358;sos>;reg-id=1" + instance).ends_with(";lr;ob>"));
    CHECK(
        path_of(bare + ";reg-id=1" + instance, "Via: SIP/2.0/UDP 127.0.0.8;branch=z9hG4bKphone\r\n").ends_with(";lr>"));
    Say sm1;
    sm1.contact = bare + ";reg-id=1" + instance;
    sm1.extra = "Supported: path, outbound\r\n";
    bench.core_status = 439;
    const auto refused = bench.send(sm1);
    CHECK(Bench::status_of(*refused) == 439);
    CHECK(Bench::header(bench.core_saw.back(), "Supported") == "path, outbound");
}

TEST_CASE("B-41: an answer that refuses only this request keeps the temporary set, and no next try is dropped") {
    Bench bench;
    auto& set = bench.challenge();
    const auto flow = bench.over(set);
    auto say = bench.answer_to(set);
    bool is_kept = true;
    SUBCASE("423") { bench.core_status = 423; }
    SUBCASE("500") { bench.core_status = 500; }
    SUBCASE("503") { bench.core_status = 503; }
    SUBCASE("302") { bench.core_status = 302; }
    SUBCASE("403") {
        bench.core_status = 403;
        is_kept = false;
    }
    const int told = bench.core_status == 503 ? 500 : bench.core_status;  // RFC 3261 §16.7 step 6
    CHECK(Bench::status_of(*bench.send(say, flow)) == told);
    bench.core_status = 200;
    say.cseq = 3;
    CHECK(Bench::status_of(*bench.send(say, flow)) == (is_kept ? 200 : 480));
    CHECK((bench.registration() != nullptr) == is_kept);
}

TEST_CASE("C-18, B-37: a silent core gets the phone 504, and its next try over the same temporary set is answered") {
    Bench bench;
    auto& set = bench.challenge();
    const auto flow = bench.over(set);
    auto say = bench.answer_to(set);
    bench.core_status = 0;
    CHECK(Bench::status_of(*bench.send(say, flow)) == 504);
    CHECK(bench.kernel.sas().size() == 4);
    bench.core_status = 200;
    say.cseq = 3;
    CHECK(Bench::status_of(*bench.send(say, flow)) == 200);
    CHECK(bench.registration());
}

TEST_CASE("The limit of registrations does not keep out a phone that has one of them") {
    Bench bench([](daemon::Config& config) { config.limits.registrations = 1; });
    bench.registered();
    Say again;
    again.client =
        "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=8765425;port-c=7526;spi-s=1234565;port-s=1360";
    CHECK(Bench::status_of(*bench.send(again)) == 401);
    again.impi = "other@example";
    CHECK(Bench::status_of(*bench.send(again)) == 503);
}

TEST_CASE("B-43: the 401 of an older REGISTER does not replace the challenge of a newer one") {
    Bench bench;
    bool is_older_last = false;
    SUBCASE("answered in order") {}
    SUBCASE("the older is answered last") { is_older_last = true; }
    const auto [older, newer] = bench.challenge_two(is_older_last);
    CHECK(Bench::status_of(*newer) == 401);
    CHECK(Bench::status_of(*older) == (is_older_last ? 480 : 401));
    REQUIRE(bench.temporary_set());
    CHECK(Bench::header(newer->responses.back(), "Security-Server") == bench.temporary_set()->security_server);
    CHECK(bench.kernel.sas().size() == 4);
}
