// What an operator does to TLS, and what strangers try: certificates renewed under load, limits reached, connections
// dropped by the thousand.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include <doctest/doctest.h>

#include "tests/integration/tls_lab.h"
#include "tests/support/tls_client.h"

using namespace gmgate::test;

namespace {

PhoneOptions tls_phone(const TlsLab& tls, std::size_t user, const std::string& version = "1.3") {
    return {.user = user, .arguments = tls.phone_arguments("tls-prior", version)};
}

void hang_up(Lab& lab) { ::kill(lab.gateway().pid(), SIGHUP); }

std::size_t descriptors(pid_t process) {
    const auto folder = std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/fd");
    return static_cast<std::size_t>(std::distance(begin(folder), end(folder)));
}

long resident_kib(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/status");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with("VmRSS:")) return std::stol(line.substr(6));
    return 0;
}

long from_environment(const char* name, long otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atol(text) : otherwise;
}

/// The certificate that a TLS handshake with the gateway shows: its serial number, in hexadecimal.
std::string serial_shown(const TlsLab& tls) {
    const auto shown = run_program(
        {.command = {"sh", "-c",
                     "openssl s_client -connect 10.1.0.1:5061 </dev/null 2>/dev/null | openssl x509 -noout -serial"},
         .name = "s_client",
         .network = &tls.lab->network.ue});
    return shown;
}

std::string serial_of(const std::string& file) {
    return run_program({.command = {"openssl", "x509", "-noout", "-serial", "-in", file}});
}

}  // namespace

TEST_SUITE("tls-operate") {
    TEST_CASE(
        "SIGHUP reads certificates again: new handshakes get the new one, a live phone notices nothing; what is wrong changes nothing") {
        TlsLab tls;
        auto& lab = *tls.lab;
        Phone phone(lab, tls_phone(tls, 0));
        phone.demand_registered();
        const auto first = serial_shown(tls);
        CHECK(first == serial_of(tls.folder + "/ecdsa.pem"));

        // A key of another pair, an expired certificate, no file at all: the reason is said, the old one goes on.
        const auto refuse = [&](const std::string& reason) {
            CAPTURE(reason);
            const auto mark = lab.gateway().line_count();
            hang_up(lab);
            const auto line = lab.gateway().wait_for_text("certificates-not-reloaded", mark).text;
            CHECK_MESSAGE(line.find(reason) != std::string::npos, line);
            CHECK(serial_shown(tls) == first);
        };
        make_certificate(tls.folder, "other");
        std::filesystem::copy(tls.folder + "/ecdsa.key", tls.folder + "/kept.key");
        std::filesystem::copy(tls.folder + "/ecdsa.pem", tls.folder + "/kept.pem");
        std::filesystem::copy(tls.folder + "/other.key", tls.folder + "/ecdsa.key",
                              std::filesystem::copy_options::overwrite_existing);
        refuse("does not belong to the certificate");
        make_expired_certificate(tls.folder, "ecdsa");
        refuse("expired on 2020-02-01");
        make_future_certificate(tls.folder, "ecdsa");
        refuse("is not valid before 2080-01-01");
        std::filesystem::remove(tls.folder + "/ecdsa.pem");
        refuse("No such file");

        make_certificate(tls.folder, "ecdsa", {.days = 5});
        auto mark = lab.gateway().line_count();
        hang_up(lab);
        lab.gateway().wait_for_text("certificates-reloaded", mark);
        const auto warning = lab.gateway().wait_for_text("certificate-expires", mark).text;  // 5 days are less than 30
        CHECK(warning.find("days=4") != std::string::npos);
        CHECK(serial_shown(tls) == serial_of(tls.folder + "/ecdsa.pem"));
        CHECK(serial_shown(tls) != first);

        phone.reregister(true);
        const auto text = unique_word("still-there-");
        CHECK(phone.message(phone.impu(), text) == 200);
        phone.await_message(text);
        CHECK(phone.program().has_text("\"event\":\"transport\"") == false);
    }

    TEST_CASE(
        "A certificate that is not good closes its TLS port and nothing else: ipsec-3gpp is served, --check-config and the log say why, SIGHUP opens it") {
        TlsLab tls({.is_gateway_started = false});
        auto& lab = *tls.lab;
        const auto check = [&](const std::string& reason) {
            CAPTURE(reason);
            Program gateway({.command = {lab.programs().gmgated, "--config", lab.config_path(), "--check-config"},
                             .name = "gmgated-check",
                             .network = &lab.network.gw});
            CHECK(gateway.wait() == 2);
            CHECK_MESSAGE(gateway.output().find(reason) != std::string::npos, gateway.output());
            CHECK(gateway.output().find("would stay closed") != std::string::npos);
        };
        std::filesystem::remove(tls.folder + "/ecdsa.pem");
        check("No such file");
        make_certificate(tls.folder, "ecdsa");
        make_certificate(tls.folder, "other");
        std::filesystem::copy(tls.folder + "/other.key", tls.folder + "/ecdsa.key",
                              std::filesystem::copy_options::overwrite_existing);
        check("does not belong to the certificate");
        make_future_certificate(tls.folder, "ecdsa");
        check("is not valid before 2080-01-01");
        lab.start_gateway();
        auto line = lab.gateway().wait_for_text("tls-port-not-opened").text;
        CHECK_MESSAGE(line.find("is not valid before 2080-01-01") != std::string::npos, line);
        CHECK(lab.stop_gateway() == 0);
        make_expired_certificate(tls.folder, "ecdsa");
        check("renew it");

        lab.start_gateway();
        line = lab.gateway().wait_for_text("tls-port-not-opened").text;
        CHECK_MESSAGE(line.find("expired on 2020-02-01") != std::string::npos, line);
        Phone four(lab, {.user = 1}), six(lab, {.user = 2, .is_v6 = true});
        four.demand_registered();
        six.demand_registered();
        auto mark = lab.gateway().line_count();
        hang_up(lab);  // nothing was mended
        lab.gateway().wait_for_text("tls-port-not-opened", mark);
        lab.gateway().wait_for_text("certificates-not-reloaded", mark);
        make_certificate(tls.folder, "ecdsa");
        mark = lab.gateway().line_count();
        hang_up(lab);
        lab.gateway().wait_for_text("tls-port-opened", mark);
        lab.gateway().wait_for_text("certificates-reloaded", mark);
        CHECK(serial_shown(tls) == serial_of(tls.folder + "/ecdsa.pem"));
        const auto text = unique_word("all-the-while-");
        CHECK(four.message(six.impu(), text) == 200);
        six.await_message(text);
    }

    TEST_CASE(
        "Slow loris: half handshakes held open reach the limits; the oldest give way, so that phones come in all the while") {
        TlsLab tls(
            {.more_sections =
                 "[limits]\ntls-handshakes = 12\ntls-handshakes-per-address = 8\n[timers]\ntls-handshake = 3\n"});
        auto& lab = *tls.lab;
        Phone live(lab, tls_phone(tls, 0));
        live.demand_registered();
        std::vector<std::unique_ptr<RawPeer>> held;
        const Access v4{.is_v6 = false}, v6{.is_v6 = true};
        const auto hold = [&](const Access& access, int port) {
            held.push_back(std::make_unique<RawPeer>(lab.network.ue, RawPeer::Kind::tcp, access.ue_port(port),
                                                     access.gateway_port(5061)));
            if (held.back()->connects(kPatience))
                held.back()->send(std::string("\x16\x03\x01\x02", 4));  // the head of a ClientHello, and no more
        };
        for (int i = 0; i < 9; ++i) hold(v4, 42000 + i);
        lab.gateway().wait_for_text("it gave way to a newer one");  // beyond the limit per address
        for (int i = 0; i < 5; ++i) hold(v6, 42100 + i);
        const auto gave_way = [&] { return gateway_status(lab)["counters"]["tls_gave_way"].get<int>(); };
        CHECK(eventually([&] { return gave_way() >= 2; }));  // and in total
        Phone four(lab, tls_phone(tls, 1)), five(lab, tls_phone(tls, 2, "1.2"));
        four.demand_registered();
        five.demand_registered();
        CHECK(gateway_status(lab)["counters"]["tls_refused"] == 0);
        const auto text = unique_word("unharmed-");
        CHECK(live.message(live.impu(), text) == 200);
        live.await_message(text);
        lab.gateway().wait_for_text("timed-out: no handshake within 3000 ms");
        held.clear();
        CHECK(eventually([&] {  // and then there is room again
            try {
                serial_shown(tls);
                return true;
            } catch (const std::exception&) {
                return false;
            }
        }));
    }

    TEST_CASE(
        "Wrong SNI gets the first certificate; noise, and a record after close_notify, end their connection only") {
        TlsLab tls;
        auto& lab = *tls.lab;
        const Access access{};
        Phone live(lab, tls_phone(tls, 0));
        live.demand_registered();
        const auto shown = run_program(
            {.command = {"sh", "-c",
                         "openssl s_client -servername nobody.example -connect 10.1.0.1:5061 </dev/null 2>&1"},
             .name = "s_client",
             .network = &lab.network.ue});
        CHECK(shown.find(std::string("CN = ") + kTlsName) != std::string::npos);
        for (const int version : {0x0303, 0x0304}) {
            TlsClient client(version);
            const auto connection = client.connect(lab.network.ue, access.gateway_port(5061));
            REQUIRE(connection->handshake());
            CHECK(tls.in_kernel(2));
            connection->close_notify();
            connection->write_after_close_notify("OPTIONS sip:x SIP/2.0\r\n\r\n");
            CHECK(connection->is_ended_by_peer());
            const auto noise = client.connect(lab.network.ue, access.gateway_port(5061));
            REQUIRE(noise->handshake());
            noise->write_raw(std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x'));  // a record under no key
            CHECK(noise->is_ended_by_peer());
            CHECK(tls.in_kernel(1));
        }
        const auto text = unique_word("unharmed-");
        CHECK(live.message(live.impu(), text) == 200);
        live.await_message(text);
    }

    TEST_CASE("SIP is framed across records: an octet each, and two requests in one") {
        TlsLab tls;
        TlsClient client(0x0304);
        const auto connection = client.connect(tls.lab->network.ue, Access{}.gateway_port(5061));
        REQUIRE(connection->handshake());
        const auto request = [](int number) {
            const auto n = std::to_string(number);
            return "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TLS 10.1.0.2:40000;branch=z9hG4bKframe" + n +
                   "\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: frame" + n +
                   "\r\nCSeq: 1 MESSAGE\r\nContent-Length: 2\r\n\r\nhi";
        };
        const auto first = request(1);
        for (const char octet : first) connection->write(std::string(1, octet));
        CHECK(connection->read_until("\r\n\r\n").starts_with("SIP/2.0 403"));  // unbound: REGISTER only
        connection->write(request(2) + request(3));
        const auto answers = connection->read_until("\r\n\r\n", 2);
        CHECK(answers.find("frame2") != std::string::npos);
        CHECK(answers.find("frame3") != std::string::npos);
    }

    TEST_CASE("A phone that stops reading is cut off when its write queue is full; the others go on") {
        TlsLab tls;
        auto& lab = *tls.lab;
        lab.network.gw.set_sysctl("net/ipv4/tcp_wmem", "4096 16384 32768");
        lab.network.ue.set_sysctl("net/ipv4/tcp_rmem", "4096 16384 32768");
        Phone slow(lab, tls_phone(tls, 0)), sender(lab, {.user = 1, .is_tcp = true});
        slow.demand_registered();
        sender.demand_registered();
        CHECK(tls.in_kernel(1));
        ::kill(slow.program().pid(), SIGSTOP);
        const std::string text(15000, 'x');
        for (int i = 0; i < 60 && !lab.gateway().has_text("registration-ended"); ++i)
            sender.start_message(slow.impu(), text);
        lab.gateway().wait_for_text("registration-ended");
        CHECK(tls.in_kernel(0));
        ::kill(slow.program().pid(), SIGCONT);
        Phone other(lab, tls_phone(tls, 2));
        other.demand_registered();
        const auto word = unique_word("unharmed-");
        CHECK(other.message(other.impu(), word) == 200);  // the sender still gets answers to what it sent before
        other.await_message(word);
    }

    // GMGATE_DROPS=10000 is the full size.
    TEST_CASE(
        "Thousands of connects and drops, at every stage of the handshake: descriptors and memory come back, live phones are unharmed") {
        TlsLab tls({.more_sections = "[timers]\ntls-handshake = 3\n"});
        auto& lab = *tls.lab;
        const auto drops = from_environment("GMGATE_DROPS", 600);
        Phone live(lab, tls_phone(tls, 0));
        live.demand_registered();
        const auto pid = lab.gateway().pid();
        TlsClient v12(0x0303), v13(0x0304);
        const std::string gateway = Access{}.gateway_port(5061);
        const auto come_and_go = [&](long count) {
            for (long i = 0; i < count; ++i) {
                const auto connection = (i % 2 == 0 ? v13 : v12).connect(lab.network.ue, gateway);
                switch (i / 2 % 6) {
                    case 0:
                        break;  // connected, and gone
                    case 1:
                        connection->write_raw(std::string("\x16\x03\x01\x02\x00\x01", 6));
                        break;  // within the ClientHello
                    case 2:
                        connection->write_raw("REGISTER sip:x SIP/2.0\r\n");
                        break;  // no TLS
                    case 3:
                        REQUIRE(connection->handshake());
                        connection->abort();
                        break;
                    case 4:
                        REQUIRE(connection->handshake());
                        connection->write("REGISTER sip:x SI");
                        break;
                    default:
                        REQUIRE(connection->handshake());
                        connection->close_notify();
                        break;
                }
            }
        };
        come_and_go(200);  // first use of pools and caches
        CHECK(tls.in_kernel(1));
        std::size_t fds = 0;
        CHECK(eventually([&] { return std::exchange(fds, descriptors(pid)) == descriptors(pid); }));
        const auto rss = resident_kib(pid);
        come_and_go(drops);
        CHECK(tls.in_kernel(1));
        CHECK(eventually([&] { return descriptors(pid) <= fds; }));
        const auto grown = resident_kib(pid) - rss;
        MESSAGE(drops << " connects and drops: RSS grew by " << grown << " KiB from " << rss << " KiB, descriptors "
                      << fds);
        CHECK(grown < 1024 + drops / 10);  // what a leak of 100 octets a connection would take
        const auto text = unique_word("unharmed-");
        CHECK(live.message(live.impu(), text) == 200);
        live.await_message(text);
        CHECK(lab.gateway().is_running());
    }
}
