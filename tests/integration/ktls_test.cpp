// The hand-off on a real kernel: each version and suite with openssl s_client, both directions counted by
// /proc/net/tls_stat.
#include <fstream>
#include <map>

#include <linux/tls.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>

#include "ktls/handoff.h"
#include "ktls/record_io.h"
#include "tests/support/ktls_bench.h"

using namespace gmgate;
using namespace gmgate::ktls;
using namespace gmgate::ktls::test;

namespace {

/// The loopback of a fresh guest is down.
const bool kLoopbackUp = [] {
    gmgate::test::ProgramOptions options{.command = {"ip", "link", "set", "lo", "up"}};
    gmgate::test::run_program(std::move(options));
    return true;
}();

std::map<std::string, long> tls_stat() {
    std::map<std::string, long> out;
    std::ifstream file("/proc/net/tls_stat");
    REQUIRE_MESSAGE(file.is_open(), "kernel TLS was expected and is absent");
    std::string name;
    for (long value = 0; file >> name >> value;) out[name] = value;
    return out;
}

void check_in_kernel(long connections) {
    auto now = tls_stat();
    CHECK(now["TlsCurrTxSw"] == connections);
    CHECK(now["TlsCurrRxSw"] == connections);
}

std::string pattern(std::size_t size) {
    std::string text;
    for (std::size_t i = 0; text.size() < size; ++i) text += "line " + std::to_string(i) + "\n";
    text.resize(size - 1);
    return text + "\n";
}

/// One for all connections, as a daemon has it: its size must not be counted per connection.
const Context& client_context() {
    static const Context shared = [] {
        ClientOptions options;
        options.verify = false;
        auto made = Context::client(options);
        REQUIRE(made.has_value());
        return std::move(*made);
    }();
    return shared;
}

struct Pair {
    Established server, client;
};

Pair connect_pair(Bench& bench, Handshaker& client_side, OwnedFd socket) {
    auto client = bench.start(client_side.connect(std::move(socket), client_context(), 20s));
    auto server = bench.accept();
    REQUIRE_MESSAGE(server.has_value(), server.error().text);
    REQUIRE(bench.until([&] { return client->has_value(); }));
    REQUIRE_MESSAGE((**client).has_value(), (**client).error().text);
    return {std::move(*server), std::move(***client)};
}

Handshaker user_space(Bench& bench) {
    HandshakerOptions options;
    options.kernel = KernelTls::off;
    auto made = Handshaker::make(bench.io.get_executor(), options);
    REQUIRE(made.has_value());
    return std::move(*made);
}

}  // namespace

TEST_CASE("this kernel has kernel TLS for every cipher of ours") {
    const auto available = ktls_available();
    REQUIRE_MESSAGE(available.has_value(), available.error().text);
    Bench bench(KernelTls::required);
    CHECK(bench.handshaker.uses_kernel());
    CHECK(bench.handshaker.no_kernel_reason().empty());
    check_in_kernel(0);
}

TEST_CASE(
    "openssl s_client: every suite is carried by the kernel in both directions, large data both ways, close_notify") {
    Bench bench(KernelTls::required);
    const auto text = pattern(40'000);
    for (const auto& suite : suites()) {
        CAPTURE(suite.name);
        const auto peer = bench.s_client(suite, {"-quiet"});
        auto established = bench.accept();
        REQUIRE_MESSAGE(established.has_value(), established.error().text);
        CHECK(established->suite == suite.name);
        auto& connection = *established->connection;
        CHECK(connection.is_kernel());
        check_in_kernel(1);
        peer->write(text);
        CHECK(bench.read(connection, text.size()) == text);
        bench.write(connection, text + "the end\n");
        peer->wait_for_text("the end");
        CHECK(peer->has_text(text.substr(text.rfind("line "), text.size() - text.rfind("line ") - 1)));
        CHECK(connection.half_close());
        CHECK(bench.read(connection, 1).empty());
        connection.close(false);
        CHECK(peer->wait() == 0);  // s_client is content: it saw close_notify
        check_in_kernel(0);
    }
    CHECK(bench.handshaker.counters().handed_to_kernel == suites().size());
    CHECK(bench.handshaker.counters().fallback == 0);
    CHECK(bench.handshaker.counters().truncated == 0);
    CHECK(tls_stat()["TlsDecryptError"] == 0);
}

TEST_CASE("close_notify of the peer is an orderly end") {
    Bench bench(KernelTls::required);
    for (const std::size_t which : {0U, 3U}) {
        const auto peer = bench.s_client(suites()[which]);
        auto established = bench.accept();
        REQUIRE(established.has_value());
        peer->write("Q\n");
        CHECK(bench.read(*established->connection, 1).empty());
        CHECK(peer->wait() == 0);
    }
    CHECK(bench.handshaker.counters().truncated == 0);
    const auto peer = bench.s_client(suites()[0]);
    auto established = bench.accept();
    REQUIRE(established.has_value());
    // It must have read everything, session tickets included: a process that dies with unread bytes resets the
    // connection.
    REQUIRE(bench.get(established->connection->write("ready\n")).has_value());
    peer->wait_for_text("ready");
    peer->kill();
    CHECK(bench.read(*established->connection, 1).empty());
    CHECK(bench.handshaker.counters().truncated == 1);
}

TEST_CASE("KeyUpdate, asked back or not, closes cleanly and is counted; what came before it is delivered") {
    Bench bench(KernelTls::required);
    std::uint64_t expected = 0;
    for (const char* command : {"k\n", "K\n"}) {
        const auto peer = bench.s_client(suites()[0]);
        auto established = bench.accept();
        REQUIRE(established.has_value());
        peer->write("before\n");
        CHECK(bench.read(*established->connection, 7) == "before\n");
        peer->write(command);
        peer->wait_for_text("KEYUPDATE");
        peer->write("after\n");
        std::string out;
        const auto result = bench.get(established->connection->read(out));
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error().text.find("KeyUpdate") != std::string::npos);
        CHECK(out.empty());
        CHECK(bench.handshaker.counters().key_updates == ++expected);
        established->connection->close(false);
        peer->wait();
        CHECK_FALSE(peer->has_text("bad record mac"));
    }
    CHECK(bench.handshaker.counters().decrypt_errors == 0);
}

// Kernels before 6.14 take no second key: GMGATE_EXPECT_REKEY=1 says that this one is expected to.
TEST_CASE(
    "tls-rekey: KeyUpdates, asked back or not, are followed without loss where the kernel can, and close in order where it cannot") {
    Bench bench(KernelTls::required);
    HandshakerOptions options;
    options.kernel = KernelTls::required;
    options.rekey = true;
    auto rekeying = Handshaker::make(bench.io.get_executor(), options);
    REQUIRE(rekeying.has_value());
    const char* expected = std::getenv("GMGATE_EXPECT_REKEY");
    if (expected != nullptr && *expected == '1') REQUIRE_MESSAGE(rekeying->can_rekey(), rekeying->no_rekey_reason());
    MESSAGE("KeyUpdate is " << (rekeying->can_rekey() ? "followed" : "not followed: " + rekeying->no_rekey_reason()));
    for (std::size_t i = 0; i < 3; ++i) {  // the three suites of TLS 1.3
        CAPTURE(suites()[i].name);
        const auto peer = bench.s_client(suites()[i]);
        auto established = bench.get(rekeying->accept(bench.accept_socket(), bench.context, 20s));
        REQUIRE(established.has_value());
        auto& connection = *established->connection;
        CHECK(connection.is_kernel());
        if (!rekeying->can_rekey()) {
            peer->write("k\n");
            peer->wait_for_text("KEYUPDATE");
            std::string out;
            CHECK_FALSE(bench.get(connection.read(out)).has_value());
            CHECK(rekeying->counters().key_updates == i + 1);
            continue;
        }
        for (int round = 0; round < 3; ++round)
            for (const char* command : {"k\n", "K\n"}) {
                const auto word = "round-" + std::to_string(round) + command;
                const auto updates = peer->line_count();
                peer->write(command);
                peer->wait_for_text("KEYUPDATE", updates);
                peer->write(word);
                CHECK(bench.read(connection, word.size()) == word);
                // Large data back, under the new keys where the peer asked for them.
                const auto lines = peer->line_count();
                bench.write(connection, pattern(100000) + "end-of-" + word);
                peer->wait_for_text("end-of-" + word.substr(0, word.size() - 1), lines);
            }
        CHECK(rekeying->counters().rekeyed == 6 * (i + 1));
        CHECK_FALSE(peer->has_text("bad record mac"));
        connection.close(false);
        CHECK(peer->wait() == 0);
    }
    CHECK(rekeying->counters().decrypt_errors == 0);
    if (rekeying->can_rekey()) CHECK(rekeying->counters().key_updates == 0);
}

TEST_CASE("tls-rekey: KeyUpdates one upon the other, then megabytes") {
    Bench bench(KernelTls::required);
    HandshakerOptions options;
    options.kernel = KernelTls::required;
    options.rekey = true;
    auto rekeying = Handshaker::make(bench.io.get_executor(), options);
    REQUIRE(rekeying.has_value());
    if (!rekeying->can_rekey()) {
        MESSAGE("not on this kernel: " << rekeying->no_rekey_reason());
        return;
    }
    const auto peer = bench.s_client(suites()[1]);
    auto established = bench.get(rekeying->accept(bench.accept_socket(), bench.context, 20s));
    REQUIRE(established.has_value());
    for (int i = 0; i < 20; ++i) {
        const auto updates = peer->line_count();
        peer->write("K\n");
        peer->wait_for_text("KEYUPDATE", updates);
        peer->write("x\n");  // s_client takes a K for a command only when it is the first octet that it reads
        CHECK(bench.read(*established->connection, 2) == "x\n");
    }
    CHECK(rekeying->counters().rekeyed == 20);
    bench.write(*established->connection, pattern(2000000) + "end-of-everything\n");
    peer->wait_for_text("end-of-everything");
    CHECK_FALSE(peer->has_text("bad record mac"));
}

TEST_CASE("renegotiation of TLS 1.2 is refused with a warning") {
    Bench bench(KernelTls::required);
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
    CHECK(bench.handshaker.counters().renegotiations_refused == 1);
}

TEST_CASE("sessions are resumed after the hand-off and go to the kernel again") {
    Bench bench(KernelTls::required);
    for (const std::size_t which : {0U, 1U, 3U}) {
        const auto& suite = suites()[which];
        CAPTURE(suite.name);
        const auto saved = bench.folder.file("session" + std::to_string(which));
        for (const bool again : {false, true, true}) {
            const auto peer = bench.s_client(suite, {again ? "-sess_in" : "-sess_out", saved});
            auto established = bench.accept();
            REQUIRE_MESSAGE(established.has_value(), established.error().text);
            CHECK(established->info.resumed == again);
            CHECK(established->connection->is_kernel());
            peer->write("phone\n");
            CHECK(bench.read(*established->connection, 6) == "phone\n");
            bench.write(*established->connection, "gateway\n");
            peer->wait_for_text("gateway");
            peer->close_input();
            CHECK(bench.read(*established->connection, 1).empty());
            established->connection->close(false);
            peer->wait();
        }
    }
    CHECK(bench.handshaker.counters().resumed == 6);
}

TEST_CASE("both our ends in the kernel: the client passes over session tickets; megabytes both ways") {
    Bench bench(KernelTls::required);
    auto pair = connect_pair(bench, bench.handshaker, bench.connect_socket());
    CHECK(pair.client.connection->is_kernel());
    check_in_kernel(2);
    const auto text = pattern(8'000'000);
    for (auto [from, to] : {std::pair(&pair.server, &pair.client), std::pair(&pair.client, &pair.server)}) {
        const auto now = from->connection->write_now(text);
        CHECK(now > 0);
        CHECK(now < text.size());
        const auto written = bench.start(from->connection->write(std::string_view(text).substr(now)));
        CHECK(bench.read(*to->connection, text.size()) == text);
        REQUIRE(bench.until([&] { return written->has_value(); }));
        CHECK((**written).has_value());
    }
    pair.server.connection->close(false);
    CHECK(bench.read(*pair.client.connection, 1).empty());
    CHECK(bench.handshaker.counters().truncated == 0);
    CHECK(bench.handshaker.counters().bad_records == 0);
}

TEST_CASE("data in one segment with Finished, and a record cut in pieces, arrive whole") {
    Bench bench(KernelTls::required);
    auto outside = user_space(bench);
    auto socket = bench.connect_socket();
    const int fd = socket.get(), on = 1, off = 0;
    ::setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);  // holds Finished back until the data is there
    auto client = bench.start(outside.connect(std::move(socket), client_context(), 20s));
    auto server = bench.start(bench.handshaker.accept(bench.accept_socket(), bench.context, 20s));
    REQUIRE(bench.until([&] { return client->has_value(); }));
    REQUIRE((**client).has_value());
    auto& writer = *(***client).connection;
    CHECK(writer.write_now("first ") == 6);
    CHECK(writer.write_now("second") == 6);
    ::setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
    REQUIRE(bench.until([&] { return server->has_value(); }));
    REQUIRE((**server).has_value());
    auto& reader = *(***server).connection;
    CHECK(reader.is_kernel());
    CHECK(bench.read(reader, 12) == "first second");
}

TEST_CASE("records that are damaged, oversized or out of place end the connection and are counted") {
    Bench bench(KernelTls::required);
    auto outside = user_space(bench);
    std::string alerts;
    const auto fail_with = [&](const std::string& bytes) {
        auto pair = connect_pair(bench, outside, bench.connect_socket());
        REQUIRE(::send(pair.client.connection->native_handle(), bytes.data(), bytes.size(), 0) ==
                static_cast<ssize_t>(bytes.size()));
        std::string out;
        const auto result = bench.get(pair.server.connection->read(out));
        REQUIRE_FALSE(result.has_value());
        CHECK(out.empty());
        // The alert has left, whatever the kernel thinks of the socket.
        const auto told = bench.get(pair.client.connection->read(out));
        REQUIRE_FALSE(told.has_value());
        alerts += told.error().text + "; ";
        pair.server.connection->close(false);
        return result.error().text;
    };
    CHECK(fail_with(std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x')).find("failed authentication") !=
          std::string::npos);
    CHECK(bench.handshaker.counters().decrypt_errors == 1);
    CHECK(fail_with(std::string("\x17\x03\x03\x7f\xff", 5) + std::string(32767, 'x')).find("larger than 16 KiB") !=
          std::string::npos);
    CHECK(fail_with("OPTIONS sip:example.net SIP/2.0\r\n\r\n").find("TLS record") != std::string::npos);
    CHECK(fail_with(std::string("\x17\x02\x00\x00\x20", 5) + std::string(32, 'x')).find("wrong version") !=
          std::string::npos);
    CHECK(bench.handshaker.counters().bad_records == 3);
    INFO("the peer was told: ", alerts);
    for (const std::string_view alert : {"bad record mac", "record overflow", "protocol version"})
        CHECK(alerts.find(alert) != std::string::npos);
    check_in_kernel(0);
}

TEST_CASE("a peer that sends record after record with nothing in it is cut off") {
    Bench bench(KernelTls::required);
    auto pair = connect_pair(bench, bench.handshaker, bench.connect_socket());
    for (int i = 0; i < 32; ++i) REQUIRE(send_alert(pair.client.connection->native_handle(), Alert::no_renegotiation));
    bench.write(*pair.client.connection, "fine");
    CHECK(bench.read(*pair.server.connection, 4) == "fine");
    for (int i = 0; i < 33; ++i) REQUIRE(send_alert(pair.client.connection->native_handle(), Alert::no_renegotiation));
    std::string out;
    CHECK_FALSE(bench.get(pair.server.connection->read(out)).has_value());
    CHECK_FALSE(bench.get(pair.client.connection->read(out)).has_value());  // alert unexpected_message
    CHECK(bench.handshaker.counters().alerts_received == 1);
    CHECK(bench.handshaker.counters().bad_records == 1);
}

TEST_CASE("idle connections: memory of this process, in the kernel and in OpenSSL, from one run") {
    const auto resident = [] {
        std::ifstream file("/proc/self/statm");
        long total = 0, pages = 0;
        file >> total >> pages;
        return pages * 4096;
    };
    // A heap that grows by one transparent huge page of 2 MiB would be counted as 5 kB for each connection.
    REQUIRE(::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    constexpr int kPairs = 200;
    long per_end[2] = {};
    for (const auto mode : {KernelTls::required, KernelTls::off}) {
        Bench bench(mode);
        std::vector<Pair> pairs;
        pairs.reserve(kPairs + 20);
        long before = 0;
        for (int i = 0; i < kPairs + 20; ++i) {
            if (i == 20) before = resident();
            pairs.push_back(connect_pair(bench, bench.handshaker, bench.connect_socket()));
            bench.write(*pairs.back().client.connection, "hello");
            bench.read(*pairs.back().server.connection, 5);
        }
        per_end[mode == KernelTls::off] = (resident() - before) / (2 * kPairs);
    }
    MESSAGE("bytes per connection: kernel TLS ", per_end[0], ", OpenSSL ", per_end[1]);
    CHECK(per_end[0] < 2048);
    CHECK(per_end[0] < per_end[1]);
}

TEST_CASE("a socket with kernel TLS can be taken over by another Connection, as after a restart") {
    Bench bench(KernelTls::required);
    const auto peer = bench.s_client(suites()[0]);
    auto established = bench.accept();
    REQUIRE(established.has_value());
    OwnedFd copy(::dup(established->connection->native_handle()));
    auto inherited = make_kernel_connection(bench.io.get_executor(), std::move(copy), established->info,
                                            bench.handshaker.shared_counters());
    REQUIRE(inherited.has_value());
    established->connection.reset();  // without close_notify: the descriptor just goes
    peer->write("still here\n");
    CHECK(bench.read(**inherited, 11) == "still here\n");
    bench.write(**inherited, "so am I\n");
    peer->wait_for_text("so am I");
    check_in_kernel(1);
}

TEST_CASE(
    "a kernel connection that speaks another version's extension stays with OpenSSL, or fails where the kernel is required") {
    for (const auto mode : {KernelTls::preferred, KernelTls::required}) {
        Bench bench(mode);
        const auto peer = bench.s_client(suites()[0], {"-maxfraglen", "1024"});
        auto established = bench.accept();
        CHECK(established.has_value() == (mode == KernelTls::preferred));
        if (!established) {
            CHECK(established.error().text.starts_with("kernel: "));
            CHECK(bench.failures(HandshakeFailure::kernel) == 1);
            continue;
        }
        CHECK_FALSE(established->connection->is_kernel());
        CHECK(bench.handshaker.counters().fallback == 1);
        const auto text = pattern(5000);
        peer->write(text);
        CHECK(bench.read(*established->connection, text.size()) == text);
        bench.write(*established->connection, text + "the end\n");
        peer->wait_for_text("the end");
    }
    check_in_kernel(0);
}

TEST_CASE("1000 connects and drops leave no descriptor and no kernel TLS behind") {
    Bench bench(KernelTls::required);
    const auto count_fds = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}); };
    auto living = connect_pair(bench, bench.handshaker, bench.connect_socket());
    const auto before = count_fds();
    for (int i = 0; i < 1000; ++i) {
        auto peer = bench.connect_socket();
        if (i % 3 == 1) ::send(peer.get(), "\x16\x03\x01", 3, 0);
        const linger at_once{1, 0};
        if (i % 3 == 2) ::setsockopt(peer.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        auto accepted = bench.accept_socket();
        peer = OwnedFd();
        CHECK_FALSE(bench.get(bench.handshaker.accept(std::move(accepted), bench.context, 20s)).has_value());
    }
    CHECK(count_fds() == before);
    check_in_kernel(2);
    bench.write(*living.client.connection, "unharmed");
    CHECK(bench.read(*living.server.connection, 8) == "unharmed");
}
