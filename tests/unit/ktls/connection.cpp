// Handshakes and connections in user space, against openssl s_client and against ourselves.
#include <fstream>

#include "tests/support/ktls_bench.h"

using namespace gmgate;
using namespace gmgate::ktls;
using namespace gmgate::ktls::test;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

Context client_context(bool verify, const std::string& ca = {}, const std::string& name = {}) {
    ClientOptions options;
    options.verify = verify;
    options.ca_file = ca;
    options.server_name = name;
    auto made = Context::client(std::move(options));
    REQUIRE_MESSAGE(made.has_value(), made.error().text);
    return std::move(*made);
}

struct Pair {
    Established server, client;
};

Pair connect_pair(Bench& bench) {
    auto client = bench.start(bench.handshaker.connect(bench.connect_socket(), client_context(false), 20s));
    auto server = bench.accept();
    REQUIRE_MESSAGE(server.has_value(), server.error().text);
    REQUIRE(bench.until([&] { return client->has_value(); }));
    REQUIRE_MESSAGE((**client).has_value(), (**client).error().text);
    return {std::move(*server), std::move(***client)};
}

}  // namespace

TEST_CASE("F-1…F-3: openssl s_client talks with every suite, both ways") {
    Bench bench(KernelTls::off);
    for (const auto& suite : suites()) {
        CAPTURE(suite.name);
        const auto peer = bench.s_client(suite);
        auto established = bench.accept();
        REQUIRE_MESSAGE(established.has_value(), established.error().text);
        CHECK(established->info.version == suite.wanted);
        CHECK(established->info.cipher == suite.cipher);
        CHECK(established->suite == suite.name);
        CHECK_FALSE(established->connection->is_kernel());
        peer->write("from-the-phone\n");
        CHECK(bench.read(*established->connection, 15) == "from-the-phone\n");
        bench.write(*established->connection, "from-the-gateway\n");
        peer->wait_for_text("from-the-gateway");
        CHECK(established->connection->half_close());
        CHECK(bench.read(*established->connection, 1).empty());
        established->connection->close(false);
        CHECK(peer->wait() == 0);
    }
    CHECK(bench.handshaker.counters().handshakes_ok == suites().size());
    CHECK(bench.handshaker.counters().fallback == 0);
    CHECK(bench.handshaker.counters().truncated == 0);
    CHECK(bench.handshaker.in_progress() == 0);
}

TEST_CASE("F-1: TLS 1.1, CBC and RSA key exchange find nothing in common") {
    Bench bench(KernelTls::off);
    const Suite old{"-tls1_1", {"-cipher", "ALL:@SECLEVEL=0"}, "", Version::tls12, Cipher::aes_128_gcm};
    const Suite cbc{"-tls1_2",
                    {"-cipher", "ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA"},
                    "",
                    Version::tls12,
                    Cipher::aes_128_gcm};
    const Suite rsa{"-tls1_2", {"-cipher", "AES128-GCM-SHA256"}, "", Version::tls12, Cipher::aes_128_gcm};
    auto peer = bench.s_client(old);
    CHECK_FALSE(bench.accept().has_value());
    CHECK(bench.failures(HandshakeFailure::no_common_version) == 1);
    for (const auto* suite : {&cbc, &rsa}) {
        peer = bench.s_client(*suite);
        CHECK_FALSE(bench.accept().has_value());
    }
    CHECK(bench.failures(HandshakeFailure::no_common_cipher) == 2);
}

TEST_CASE("handshake: bytes that are no TLS are counted as such") {
    Bench bench(KernelTls::off);
    for (const std::string text : {"REGISTER sip:example.net SIP/2.0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"}) {
        const auto peer = bench.connect_socket();
        REQUIRE(::send(peer.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
        const auto result = bench.accept();
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error().text.starts_with("not-tls: "));
        CHECK(result.error().reaction == Reaction::reject);
    }
    CHECK(bench.failures(HandshakeFailure::not_tls) == 2);
}

TEST_CASE("handshake: half handshakes held open end at the time limit and keep nobody waiting") {
    Bench bench(KernelTls::off);
    std::vector<OwnedFd> idle;
    std::vector<std::shared_ptr<std::optional<Result<Established>>>> halves;
    for (int i = 0; i < 16; ++i) {  // many more than there are threads
        idle.push_back(bench.connect_socket());
        if (i % 2 == 1) REQUIRE(::send(idle.back().get(), "\x16\x03\x01\x02\x00\x01", 6, 0) == 6);
        halves.push_back(bench.start(bench.handshaker.accept(bench.accept_socket(), bench.context, 5s)));
    }
    auto pair = connect_pair(bench);
    CHECK(bench.handshaker.counters().handshakes_ok == 2);
    CHECK(bench.handshaker.in_progress() == 16);
    REQUIRE(bench.until([&] { return bench.handshaker.in_progress() == 0; }));
    for (const auto& half : halves) CHECK((**half).error().text.starts_with("timed-out: "));
    CHECK(bench.failures(HandshakeFailure::timed_out) == 16);
    for (const auto& socket : idle) {  // our side is closed; where something was sent a record layer may answer first
        char byte;
        while (::recv(socket.get(), &byte, 1, 0) > 0) {}
    }
    bench.write(*pair.client.connection, "alive");
    CHECK(bench.read(*pair.server.connection, 5) == "alive");
}

TEST_CASE("handshake: a peer that goes away in the middle is counted") {
    Bench bench(KernelTls::off);
    auto peer = bench.connect_socket();
    peer = OwnedFd();
    CHECK_FALSE(bench.accept().has_value());
    CHECK(bench.failures(HandshakeFailure::peer_closed) == 1);
}

TEST_CASE("handshake: a shutdown overtakes handshakes under way") {
    auto bench = std::make_unique<Bench>(KernelTls::off);
    const auto peer = bench->connect_socket();
    const auto result = bench->start(bench->handshaker.accept(bench->accept_socket(), bench->context, 20s));
    bench->until([&] { return bench->handshaker.in_progress() == 1; });
    bench.reset();
    CHECK_FALSE(result->has_value());
}

TEST_CASE("connection: data both ways between our own ends, more than the sockets hold") {
    Bench bench(KernelTls::off);
    auto pair = connect_pair(bench);
    std::string large(8'000'000, '\0');
    for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7 + i / 256);
    for (auto [from, to] : {std::pair(&pair.client, &pair.server), std::pair(&pair.server, &pair.client)}) {
        const auto now = from->connection->write_now(large);
        CHECK(now > 0);
        CHECK(now < large.size());
        const auto written = bench.start(from->connection->write(std::string_view(large).substr(now)));
        CHECK(bench.read(*to->connection, large.size()) == large);
        REQUIRE(bench.until([&] { return written->has_value(); }));
        CHECK((**written).has_value());
    }
}

TEST_CASE("connection: close_notify is an orderly end, a bare end of TCP is counted as truncated") {
    Bench bench(KernelTls::off);
    auto pair = connect_pair(bench);
    pair.client.connection->close(false);
    CHECK(bench.read(*pair.server.connection, 1).empty());
    CHECK(bench.handshaker.counters().truncated == 0);
    pair = connect_pair(bench);
    ::shutdown(pair.client.connection->native_handle(), SHUT_WR);
    CHECK(bench.read(*pair.server.connection, 1).empty());
    CHECK(bench.handshaker.counters().truncated == 1);
}

TEST_CASE("connection: close ends a pending read with an error in a later turn") {
    Bench bench(KernelTls::off);
    auto pair = connect_pair(bench);
    std::string out;
    const auto pending = bench.start(pair.server.connection->read(out));
    bench.until([] { return false; }, 20ms);
    pair.server.connection->close(true);
    CHECK_FALSE(pending->has_value());
    REQUIRE(bench.until([&] { return pending->has_value(); }));
    REQUIRE_FALSE((**pending).has_value());
    CHECK((**pending).error().reaction == Reaction::broken);
    CHECK_FALSE(pair.server.connection->half_close());
    CHECK(pair.server.connection->write_now("x") == 0);
}

TEST_CASE("connection: a damaged record ends it and is counted") {
    Bench bench(KernelTls::off);
    auto pair = connect_pair(bench);
    const std::string record(
        "\x17\x03\x03\x00\x20"
        "01234567890123456789012345678901",
        37);
    REQUIRE(::send(pair.client.connection->native_handle(), record.data(), record.size(), 0) ==
            static_cast<ssize_t>(record.size()));
    std::string out;
    const auto result = bench.get(pair.server.connection->read(out));
    REQUIRE_FALSE(result.has_value());
    CHECK(bench.handshaker.counters().decrypt_errors == 1);
}

TEST_CASE("sessions are resumed with tickets, across a reload as well") {
    Bench bench(KernelTls::off);
    for (const std::size_t which : {0U, 3U}) {
        const auto& suite = suites()[which];
        CAPTURE(suite.name);
        const auto saved = bench.folder.file("session" + std::to_string(which));
        for (const bool again : {false, true, true}) {
            const auto peer = bench.s_client(suite, {again ? "-sess_in" : "-sess_out", saved});
            auto established = bench.accept();
            REQUIRE_MESSAGE(established.has_value(), established.error().text);
            CHECK(established->info.resumed == again);
            bench.write(*established->connection, "hello\n");
            peer->wait_for_text("hello");
            peer->close_input();
            CHECK(bench.read(*established->connection, 1).empty());
            established->connection->close(false);
            peer->wait();
            REQUIRE(bench.context.reload().has_value());
        }
    }
    CHECK(bench.handshaker.counters().resumed == 4);
}

TEST_CASE("SNI picks the identity; an unknown name gets the first one, or an alert where that is configured") {
    Bench bench(KernelTls::off);
    CertificateRequest other;
    other.name = "ims.example.org";
    ServerOptions options;
    options.certificates = {make_certificate(bench.folder, "one"), make_certificate(bench.folder, "two", other)};
    for (const bool strict : {false, true}) {
        options.strict_server_name = strict;
        auto made = Context::server(options);
        REQUIRE(made.has_value());
        bench.context = *made;
        for (const auto& [name, subject] : {std::pair("IMS.example.org", "CN = ims.example.org"),
                                            std::pair("sip.example.net", "CN = sip.example.net"),
                                            std::pair("nobody.example", "CN = sip.example.net")}) {
            const bool refused = strict && std::string_view(name) == "nobody.example";
            const auto peer = bench.s_client(suites()[0], {"-servername", name});
            auto established = bench.accept();
            CHECK(established.has_value() != refused);
            if (refused) {
                CHECK(established.error().text.starts_with("unknown-name: "));
                continue;
            }
            CHECK(established->server_name == name);
            peer->wait_for_text(subject);
        }
    }
}

TEST_CASE("client: the server's certificate is verified, chain and name") {
    Bench bench(KernelTls::off);
    const auto ca = bench.context.certificates()[0].file;
    const auto attempt = [&](const Context& context) {
        auto client = bench.start(bench.handshaker.connect(bench.connect_socket(), context, 20s));
        const auto server = bench.accept();
        REQUIRE(bench.until([&] { return client->has_value(); }));
        return (**client).has_value() ? std::string() : (**client).error().text;
    };
    CHECK(attempt(client_context(true, ca, "sip.example.net")).empty());
    CHECK(attempt(client_context(true, ca, "other.example.net")).starts_with("certificate: "));
    CHECK(attempt(client_context(true, bench.context.certificates()[1].file, "sip.example.net"))
              .starts_with("certificate: "));
    CHECK(bench.failures(HandshakeFailure::certificate) == 2);
    CHECK(bench.failures(HandshakeFailure::peer_alert) >= 1);
}

TEST_CASE("key updates are followed where OpenSSL carries the connection") {
    Bench bench(KernelTls::off);
    const auto peer = bench.s_client(suites()[0]);
    auto established = bench.accept();
    REQUIRE(established.has_value());
    for (const char* command : {"k\n", "K\n"}) {
        const auto from = peer->line_count();
        peer->write(command);
        peer->wait_for_text("KEYUPDATE", from);  // s_client takes one command per read of its input
        peer->write("after\n");
        CHECK(bench.read(*established->connection, 6) == "after\n");
        bench.write(*established->connection, "still\n");
        peer->wait_for_text("still", from);
    }
}

TEST_CASE("renegotiation of TLS 1.2 is refused") {
    Bench bench(KernelTls::off);
    const auto peer = bench.s_client(suites()[3]);
    auto established = bench.accept();
    REQUIRE(established.has_value());
    std::string out;
    const auto pending = bench.start(established->connection->read(out));
    peer->write("R\n");
    peer->wait_for_text("RENEGOTIATING");
    REQUIRE(bench.until([&] { return !peer->is_running(); }));
    peer->wait();  // its last words may still be in the pipe
    CHECK(peer->output().find("no renegotiation") != std::string::npos);
}

TEST_CASE("kernel TLS that is absent: preferred falls back and counts it, required refuses with the fix") {
    asio::io_context io;
    HandshakerOptions options;
    auto preferred = Handshaker::make(io.get_executor(), options);
    REQUIRE(preferred.has_value());
    options.kernel = KernelTls::required;
    const auto required = Handshaker::make(io.get_executor(), options);
    CHECK(required.has_value() == preferred->uses_kernel());
    if (!required) {
        CHECK(has(required.error().text, "modprobe tls"));
        CHECK(required.error().text == preferred->no_kernel_reason());
        Bench bench(KernelTls::preferred);
        const auto pair = connect_pair(bench);
        CHECK_FALSE(pair.server.connection->is_kernel());
        CHECK(bench.handshaker.counters().fallback == 2);
    }
}
