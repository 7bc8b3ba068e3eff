// The register flow as a whole, with a fake kernel: what the phone gets, what the core saw, what the kernel holds.
#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;
using Bench = RegisterBench;

TEST_CASE("B-34: the SAs exist before the 401 leaves") {
    Bench bench;
    auto request = sip::OwnedMessage::parse(
        "REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.9:5060;branch=z9hG4bK1\r\nFrom: <sip:u@x>;tag=1\r\nTo: <sip:u@x>\r\n"
        "Call-ID: 1\r\nCSeq: 1 REGISTER\r\nContact: <sip:127.0.0.9:1358>\r\nSecurity-Client: " +
        std::string(kClient) + "\r\nContent-Length: 0\r\n\r\n");
    auto transaction = std::make_shared<RecordedTransaction>(std::move(request.value()), bench.unprotected());
    std::size_t sas_at_answer = 0;
    transaction->on_respond = [&](RecordedTransaction&) { sas_at_answer = bench.kernel.sas().size(); };
    asio::co_spawn(bench.loop, bench.parts().flow.handle(transaction), asio::detached);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    while (!transaction->is_completed() && std::chrono::steady_clock::now() < deadline)
        bench.loop.run_one_for(std::chrono::milliseconds{50});
    CHECK(Bench::status_of(*transaction) == 401);
    CHECK(sas_at_answer == 4);
    CHECK_FALSE(transaction->is_forgettable);  // a copy must get this very 401: its SAs are there
}

TEST_CASE(
    "G-9: what the gateway refuses in clear leaves no transaction, and what the core answers without SAs none in a flood") {
    Bench bench;
    const auto refused = bench.send({.client = "", .sec_agree = false});
    CHECK(Bench::status_of(*refused) / 100 == 4);
    CHECK(refused->is_forgotten);
    CHECK(Bench::header(refused->responses.back(), "To").find(";tag=gateway") != std::string::npos);
    bench.core_status = 404;
    const auto declined = bench.send({});
    CHECK(Bench::status_of(*declined) == 404);
    CHECK_FALSE(declined->is_forgotten);
    CHECK(declined->is_forgettable);
    bench.core_status = 401;
    auto& registration = bench.registered();
    bench.core_status = 403;
    auto say = bench.answer_to(*registration.sets.front());
    say.cseq = 3;
    CHECK_FALSE(bench.send(say, bench.over(*registration.sets.front()))
                    ->is_forgettable);  // over an SA: bounded by the registrations
}

TEST_CASE("C-31: ck and ik never reach the phone, and Security-Server names the chosen pair (PRIO, G-1)") {
    Bench bench;
    const auto sm6 = bench.send({});
    REQUIRE(Bench::status_of(*sm6) == 401);
    const auto& text = sm6->responses.back();
    CHECK(text.find(kCk) == std::string::npos);
    CHECK(text.find(kIk) == std::string::npos);
    const auto server = sip::SecurityList::parse(Bench::header(text, "Security-Server"), true);
    REQUIRE(server.has_value());
    REQUIRE(server->mechanisms().size() == 1);
    const auto chosen = server->mechanisms().front().ipsec_3gpp();
    CHECK(chosen->alg == Alg::hmac_sha_1_96);  // second in the phone's list, before md5 in ours
    CHECK(chosen->ealg == Ealg::aes_cbc);
    SUBCASE("SPI (4.2.2.3.5): ours differ from the phone's and from each other") {
        CHECK(chosen->spi_c != chosen->spi_s);
        for (const auto spi : {*chosen->spi_c, *chosen->spi_s}) {
            CHECK(spi != Spi{8765423});
            CHECK(spi != Spi{1234563});
            CHECK(spi.value >= 65536);
        }
    }
}

TEST_CASE("A registration: 'no', then 'yes' over the SAs, 200 over the new outbound SA, then established") {
    Bench bench;
    auto& registration = bench.registered();
    REQUIRE(bench.core_saw.size() == 2);
    CHECK(bench.core_saw[0].find("integrity-protected=\"no\"") != std::string::npos);
    CHECK(bench.core_saw[1].find("integrity-protected=\"yes\"") != std::string::npos);
    for (const auto& seen : bench.core_saw) {
        CHECK(seen.find("Security-") == std::string::npos);
        CHECK(seen.find("sec-agree") == std::string::npos);
        CHECK(seen.find("\r\nPath: <sip:") != std::string::npos);
        CHECK(seen.find("\r\nRequire: path\r\n") != std::string::npos);
        CHECK(seen.find("P-Visited-Network-ID:") != std::string::npos);
    }
    REQUIRE(registration.sets.size() == 1);
    CHECK(registration.sets.front()->state == daemon::SetState::established);
    CHECK(registration.sets.front()->in_use);
    CHECK(registration.service_route == std::vector<std::string>{"<sip:orig@scscf.example;lr>"});
    CHECK(registration.impus.front() == Impu{"sip:user@example"});
    CHECK(bench.temporary_set() == nullptr);
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE("B-39: the 200 goes from port_pc to port_us of the set that carried the REGISTER") {
    Bench bench;
    auto& set = bench.challenge();
    const auto parameters = set.parameters;
    bench.core_status = 200;
    const auto sm12 = bench.send(bench.answer_to(set), bench.over(set));
    CHECK(sm12->reply_flow().local == Endpoint{bench.gateway, parameters.port_pc});
    CHECK(sm12->reply_flow().remote == Endpoint{bench.ue, parameters.port_us});
}

TEST_CASE("B-37: the four bidding-down cases end with 494, nothing is forwarded, the temporary set goes") {
    Bench bench;
    auto& set = bench.challenge();
    auto say = bench.answer_to(set);
    const auto replace = [](std::string text, const std::string& from, const std::string& to) {
        for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
            text.replace(at, from.size(), to);
        return text;
    };
    const auto changed_client =
        replace(replace(kClient, "spi-c=8765423", "spi-c=8765424"), "port-c=7524", "port-c=7525");
    const auto& p = set.parameters;
    const auto changed_verify = replace(replace(say.verify, fmt::format("spi-s={}", p.spi_ps.value), "spi-s=4711471"),
                                        fmt::format("port-s={}", p.port_ps.value), "port-s=9999");
    SUBCASE("BID-1: SPI_U and Port_U altered") { say.client = changed_client; }
    SUBCASE("BID-2: both altered") {
        say.client = changed_client;
        say.verify = changed_verify;
    }
    SUBCASE("BID-3: SPI_P and Port_P altered") { say.verify = changed_verify; }
    SUBCASE("BID-4: another algorithm list") { say.verify = replace(say.verify, "hmac-sha-1-96", "hmac-md5-96"); }
    SUBCASE("A-15: Security-Verify missing") { say.verify.clear(); }
    SUBCASE("B-63: Security-Client missing") { say.client.clear(); }
    const auto server = set.security_server;
    const auto flow = bench.over(set);
    const auto answer = bench.send(say, flow);
    CHECK(Bench::status_of(*answer) == 494);
    CHECK(Bench::header(answer->responses.back(), "Security-Server") == server);  // the unmodified list
    CHECK(answer->reply_flow().local.port == p.port_pc);                          // on the same path
    CHECK(bench.core_saw.size() == 1);
    bench.clock.advance(bench.config.timers.final_answer + std::chrono::seconds{1});
    bench.sweep();
    CHECK(bench.kernel.sas().empty());
    CHECK(bench.parts().table.set_count() == 0);
    CHECK(bench.parts().spis.in_use() == 0);
}

TEST_CASE("B-33, CONF-1, CONF-2: with confidentiality required a phone without encryption is refused with 494") {
    Bench bench([](daemon::Config& config) {
        config.sip_interfaces.front().confidentiality = daemon::Confidentiality::required;
    });
    Say say;
    SUBCASE("no ealg at all") {
        say.client = "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1111;spi-s=2222;port-c=5000;port-s=5001";
    }
    SUBCASE("only null") {
        say.client = "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;spi-c=1111;spi-s=2222;port-c=5000;port-s=5001";
    }
    CHECK(Bench::status_of(*bench.send(say)) == 494);
    CHECK(bench.core_saw.empty());
}

TEST_CASE(
    "G-15: a REGISTER without Security-Client gets 421 where only ipsec-3gpp is wanted, and is forwarded where configured") {
    SUBCASE("reject by default") {
        Bench bench;
        const auto answer = bench.send({.client = "", .sec_agree = false});
        CHECK(Bench::status_of(*answer) == 421);
        CHECK(Bench::header(answer->responses.back(), "Require") == "sec-agree");
        CHECK(!Bench::header(answer->responses.back(), "Security-Server").empty());
    }
    SUBCASE("forward: no Security-Server, no integrity-protected, ck and ik stripped") {
        Bench bench([](daemon::Config& config) {
            config.sip_interfaces.front().no_security_client = daemon::NoSecurityClient::forward;
        });
        const auto answer = bench.send({.client = "", .sec_agree = false});
        CHECK(Bench::status_of(*answer) == 401);
        CHECK(Bench::header(answer->responses.back(), "Security-Server").empty());
        CHECK(answer->responses.back().find(kCk) == std::string::npos);
        CHECK(bench.core_saw.front().find("integrity-protected") == std::string::npos);
        CHECK(bench.kernel.sas().empty());
    }
}

TEST_CASE("C-35: a 401 without ck and ik is not forwarded: 504, or tls where it is offered and allowed") {
    SUBCASE("504 and a counter") {
        Bench bench;
        bench.core_sends_keys = false;
        CHECK(Bench::status_of(*bench.send({})) == 504);
        CHECK(bench.parts().counters.get(daemon::Counter::ck_ik_missing) == 1);
    }
    SUBCASE("tls") {
        Bench bench([](daemon::Config& config) {
            config.sip_interfaces.front().sec_agree_pref = daemon::SecAgreePref::ipsec3gpp_tls;
        });
        bench.core_sends_keys = false;
        const auto answer = bench.send({});
        CHECK(Bench::status_of(*answer) == 401);
        CHECK(Bench::header(answer->responses.back(), "Security-Server") == "tls");
    }
}

TEST_CASE("Every refusal by the kernel leaves zero SAs and an error answer, never a 401 that lies") {
    std::uint64_t messages = 0;
    {
        Bench clean;
        clean.challenge();
        messages = clean.kernel.messages();
    }
    REQUIRE(messages == 4);
    for (std::uint64_t n = 1; n <= messages; ++n) {
        CAPTURE(n);
        Bench bench;
        bench.kernel.fail_message(n, ENOMEM);
        const auto answer = bench.send({});
        CHECK(Bench::status_of(*answer) == 503);
        CHECK(bench.kernel.sas().empty());
        CHECK(bench.parts().spis.in_use() == 0);
        CHECK(bench.parts().table.set_count() == 0);
        CHECK(bench.parts().counters.get(daemon::Counter::sa_add_failed) == 1);
    }
}

TEST_CASE("B-74: a weak pair is chosen when the phone offers nothing better, and counted; a strong one is not") {
    Bench bench;
    Say say;
    SUBCASE("weak") {
        say.client = "ipsec-3gpp;alg=hmac-md5-96;ealg=des-ede3-cbc;spi-c=1111;spi-s=2222;port-c=5000;port-s=5001";
        CHECK(Bench::status_of(*bench.send(say)) == 401);
        CHECK(bench.parts().counters.get(daemon::Counter::deprecated_chosen) == 1);
    }
    SUBCASE("both") {
        CHECK(Bench::status_of(*bench.send(say)) == 401);
        CHECK(bench.parts().counters.get(daemon::Counter::deprecated_chosen) == 0);
    }
}

TEST_CASE("G-25: an SPI of the phone that is taken in the kernel gets a 4xx with the reason") {
    Bench bench;
    bench.kernel.add_foreign({bench.ue, Spi{1234563}});
    CHECK(Bench::status_of(*bench.send({})) == 480);
    CHECK(bench.kernel.sas().empty());
}

TEST_CASE("C-28: another private identity over the SAs gets 403 and is not forwarded") {
    Bench bench;
    auto& set = bench.challenge();
    auto say = bench.answer_to(set);
    SUBCASE("different") { say.impi = "mallory@example"; }
    SUBCASE("absent") { say.impi.clear(); }
    const auto answer = bench.send(say, bench.over(set));
    CHECK(Bench::status_of(*answer) == 403);
    CHECK(bench.core_saw.size() == 1);
}

TEST_CASE("B-21: a Via that is not the packet's source gets 403 on a protected port") {
    Bench bench;
    auto& set = bench.challenge();
    auto say = bench.answer_to(set);
    say.host = "127.0.0.77";
    CHECK(Bench::status_of(*bench.send(say, bench.over(set))) == 403);
}

TEST_CASE("C-31, B-43: a new challenge ends the one before it, even with the same SPIs of the phone") {
    Bench bench;
    const auto first = bench.challenge().number;
    const auto& second = bench.challenge();
    CHECK(second.number != first);
    CHECK(bench.kernel.sas().size() == 4);
    CHECK(bench.parts().table.set_count() == 1);
    CHECK(bench.parts().spis.in_use() == 2);
}

TEST_CASE("B-50: a temporary set that nobody answers is gone after reg-await-auth") {
    Bench bench;
    bench.challenge();
    bench.clock.advance(bench.config.timers.reg_await_auth + std::chrono::seconds{1});
    bench.sweep();
    CHECK(bench.kernel.sas().empty());
    CHECK(bench.parts().table.challenge_count() == 0);
    CHECK(bench.parts().counters.get(daemon::Counter::temporary_expired) == 1);
}

TEST_CASE("B-5, B-58: a spoofed REGISTER from elsewhere changes nothing of a live registration") {
    Bench bench;
    auto& registration = bench.registered();
    const auto generation = registration.generation;
    auto flow = bench.unprotected();
    flow.remote.address = *Address::parse("127.0.0.66");
    Say say;
    say.host = "127.0.0.66";
    const auto answer = bench.send(say, flow);
    CHECK(Bench::status_of(*answer) == 401);
    CHECK(bench.registration()->generation == generation);
    CHECK(bench.registration()->sets.size() == 1);
    CHECK(bench.kernel.sas().size() == 8);
}

TEST_CASE("C-27: a protected refresh without a challenge extends the set and is marked 'yes'") {
    Bench bench;
    auto& registration = bench.registered();
    const auto before = registration.sets.front()->expires;
    bench.clock.advance(std::chrono::seconds{1000});
    auto say = bench.answer_to(*registration.sets.front());
    bench.core_status = 200;
    SUBCASE("with the same Security-Client") {}
    SUBCASE("with new SPIs and port_uc") {
        for (const auto& [from, to] :
             {std::pair{"spi-c=8765423", "spi-c=9765423"}, std::pair{"spi-s=1234563", "spi-s=2234563"},
              std::pair{"port-c=7524", "port-c=7530"}})
            for (auto at = say.client.find(from); at != std::string::npos; at = say.client.find(from, at + 1))
                say.client.replace(at, std::string(from).size(), to);
    }
    SUBCASE("without Security-Client") { say.client.clear(); }
    CHECK(Bench::status_of(*bench.send(say, bench.over(*registration.sets.front()))) == 200);
    CHECK(bench.core_saw.back().find("integrity-protected=\"yes\"") != std::string::npos);
    CHECK(bench.registration()->sets.size() == 1);
    CHECK(bench.registration()->sets.front()->expires > before);
}

TEST_CASE("G-6, G-27: a refresh with a changed Security-Verify or offer gets 494 and leaves everything as it was") {
    Bench bench;
    auto& registration = bench.registered();
    const auto generation = registration.generation;
    auto say = bench.answer_to(*registration.sets.front());
    SUBCASE("verify changed") {
        say.verify = "ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;spi-c=1;spi-s=2;port-c=3;port-s=4";
    }
    SUBCASE("verify missing") { say.verify.clear(); }
    SUBCASE("offer shortened") {
        say.client =
            "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;prot=esp;mod=trans;spi-c=1765423;port-c=7524;spi-s=7234563;port-s=1358";
    }
    SUBCASE("port_us changed") { say.client = say.client.replace(say.client.find("port-s=1358"), 11, "port-s=1359"); }
    const auto forwarded = bench.core_saw.size();
    CHECK(Bench::status_of(*bench.send(say, bench.over(*registration.sets.front()))) == 494);
    CHECK(bench.core_saw.size() == forwarded);
    CHECK(bench.registration()->generation == generation);
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE("B-54, C-44: re-authentication: new port_pc, same port_ps, old set in use until the phone uses the new one") {
    Bench bench;
    auto& registration = bench.registered();
    const auto old_parameters = registration.sets.front()->parameters;
    const auto old_number = registration.sets.front()->number;
    auto say = bench.answer_to(*registration.sets.front());
    const std::string client = kSecondClient;
    say.client = client;
    bench.core_status = 401;
    const auto sm6 = bench.send(say, bench.over(*registration.sets.front()));
    REQUIRE(Bench::status_of(*sm6) == 401);
    CHECK(sm6->reply_flow().local.port == old_parameters.port_pc);  // B-39: over the old outbound SA
    auto* fresh = bench.temporary_set();
    REQUIRE(fresh);
    CHECK(fresh->parameters.port_ps == old_parameters.port_ps);
    CHECK(fresh->parameters.port_pc != old_parameters.port_pc);
    const auto fresh_number = fresh->number;
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(bench.answer_to(*fresh, client), bench.over(*fresh))) == 200);
    auto& after = *bench.registration();
    REQUIRE(after.sets.size() == 2);
    CHECK(after.outbound()->number == old_number);
    CHECK(after.find(old_number)->state == daemon::SetState::old);
    CHECK(bench.kernel.sas().size() == 8);
    CHECK(daemon::take_into_use(after, fresh_number, bench.clock.now(), bench.config.timers.old_set));
    CHECK(after.outbound()->number == fresh_number);
    bench.parts().expiry.watch(old_number, after.find(old_number)->expires);
    bench.clock.advance(bench.config.timers.old_set + std::chrono::seconds{1});
    bench.sweep();
    CHECK(bench.registration()->sets.size() == 1);
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE("B-41: the core's refusal is told over the temporary set, which then ends; the live registration stays") {
    Bench bench;
    auto& set = bench.challenge();
    const auto flow = bench.over(set);
    bench.core_status = 403;
    const auto answer = bench.send(bench.answer_to(set), flow);
    CHECK(Bench::status_of(*answer) == 403);
    CHECK(answer->reply_flow().local.port == set.parameters.port_pc);
    bench.clock.advance(bench.config.timers.final_answer + std::chrono::seconds{1});
    bench.sweep();
    CHECK(bench.kernel.sas().empty());
}

TEST_CASE("C-50: after de-registration the SAs end, but not before the 200 is surely out") {
    Bench bench;
    auto& registration = bench.registered();
    auto say = bench.answer_to(*registration.sets.front());
    say.expires = "0";
    bench.core_status = 200;
    CHECK(Bench::status_of(*bench.send(say, bench.over(*registration.sets.front()))) == 200);
    CHECK(bench.kernel.sas().size() == 4);
    bench.clock.advance(bench.config.timers.final_answer + std::chrono::seconds{1});
    bench.sweep();
    CHECK(bench.kernel.sas().empty());
    CHECK(bench.registration() == nullptr);
    CHECK(bench.parts().spis.in_use() == 0);
}

TEST_CASE("G-8: sec-agree-feature disabled answers Proxy-Require: sec-agree with 420 and names it") {
    Bench bench([](daemon::Config& config) { config.sip_interfaces.front().sec_agree_feature = false; });
    const auto answer = bench.send({});
    CHECK(Bench::status_of(*answer) == 420);
    CHECK(Bench::header(answer->responses.back(), "Unsupported") == "sec-agree");
    CHECK(bench.core_saw.empty());
}

TEST_CASE("ims-aka-feature keeps plain IMS-AKA with ipsec-3gpp while sec-agree-feature is disabled") {
    Bench bench([](daemon::Config& config) {
        config.sip_interfaces.front().sec_agree_feature = false;
        config.sip_interfaces.front().ims_aka_feature = true;
    });
    CHECK(Bench::status_of(*bench.send({})) == 401);
    CHECK(bench.kernel.sas().size() == 4);
}

TEST_CASE("Limits: beyond the challenges of one address the oldest one that nobody answers gives way") {
    Bench bench([](daemon::Config& config) { config.limits.challenges_per_address = 1; });
    bench.challenge();
    Say say;
    say.impi = "another@example";
    const auto answer = bench.send(say);
    CHECK(Bench::status_of(*answer) == 401);
    CHECK(bench.temporary_set() == nullptr);
    CHECK(bench.kernel.sas().size() == 4);
    CHECK(bench.parts().spis.in_use() == 2);
}
