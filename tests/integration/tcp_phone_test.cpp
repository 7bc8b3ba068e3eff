// TCP towards phones on the real kernel (TS 33.203 §7.1, B-15): a phone that does not answer the SYN, one whose
// connection died without a word, TIME_WAIT on either side. The phone is sockets of the test over SAs that gmue agreed
// on (sipp_lab.h), so that it can be as wrong as it likes.
#include <memory>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/endpoint.h"
#include "tests/integration/sipp_lab.h"

using namespace gmgate::test;

namespace {

using Event = nlohmann::json;

constexpr int kPortUs = 5073;
const std::string kCallee = std::string("sip:uas@") + kHomeDomain;

/// A connection that the gateway opened.
class Accepted {
public:
    Accepted(int fd, std::string remote) : remote_(std::move(remote)), fd_(fd) {}
    Accepted(const Accepted&) = delete;
    Accepted& operator=(const Accepted&) = delete;
    ~Accepted() { close(fd_); }

    const std::string& remote() const { return remote_; }
    std::string receive_until(const std::string& text) {
        std::string all;
        while (all.find(text) == std::string::npos) {
            pollfd ready{fd_, POLLIN, 0};
            char buffer[8192];
            const ssize_t got = poll(&ready, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) == 1
                                    ? recv(fd_, buffer, sizeof buffer, 0)
                                    : 0;
            if (got <= 0) throw std::runtime_error("no \"" + text + "\" on the gateway's connection, but\n" + all);
            all.append(buffer, static_cast<std::size_t>(got));
        }
        return all;
    }
    void send(const std::string& text) {
        REQUIRE(::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
    }

private:
    std::string remote_;
    int fd_;
};

/// The phone's server port over TCP.
class ServerPort {
public:
    ServerPort(const Namespace& network, const std::string& local) {
        const auto endpoint = gmgate::Endpoint::parse(local);
        REQUIRE(endpoint.has_value());
        network.enter([&] {
            fd_ = socket(endpoint->address.af(), SOCK_STREAM | SOCK_CLOEXEC, 0);
            const int on = 1;
            setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
            sockaddr_storage address{};
            const socklen_t size = endpoint->to_sockaddr(address);
            if (bind(fd_, reinterpret_cast<const sockaddr*>(&address), size) != 0 || listen(fd_, 8) != 0)
                throw std::runtime_error("cannot listen on " + local);
        });
    }
    ServerPort(const ServerPort&) = delete;
    ServerPort& operator=(const ServerPort&) = delete;
    ~ServerPort() { close(fd_); }

    std::unique_ptr<Accepted> accept(const Lab& lab) {
        pollfd ready{fd_, POLLIN, 0};
        if (poll(&ready, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) != 1)
            throw std::runtime_error("the gateway opens no connection to port_us\n" + lab.gateway_log());
        sockaddr_storage address{};
        socklen_t size = sizeof address;
        const int fd = ::accept4(fd_, reinterpret_cast<sockaddr*>(&address), &size, SOCK_CLOEXEC);
        REQUIRE(fd >= 0);
        return std::make_unique<Accepted>(
            fd, gmgate::Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address))->to_string());
    }

private:
    int fd_ = -1;
};

/// 200 to a request.
std::string ok_to(const std::string& request) {
    std::string out = "SIP/2.0 200 OK\r\n";
    std::istringstream lines(request.substr(request.find("MESSAGE ")));
    for (std::string line; std::getline(lines, line) && line != "\r";) {
        for (const char* name : {"Via: ", "From: ", "Call-ID: ", "CSeq: "})
            if (line.starts_with(name)) out += line + "\n";
        if (line.starts_with("To: ")) out += line.substr(0, line.size() - 1) + ";tag=bare\r\n";
    }
    return out + "Content-Length: 0\r\n\r\n";
}

/// A gmue that sends, and a phone made of sockets that it sends to.
struct Scene {
    explicit Scene(const Access& access = {false, true}) : access_(access) {
        LabOptions options = plain_lab();
        options.core_arguments = sipp_users();
        lab = std::make_unique<Lab>(options);
        ports = hand_over(*lab, "uas", access, kPortUs);
        caller = std::make_unique<Phone>(*lab, PhoneOptions{.user = 0, .arguments = {"--timeout", "90"}});
        caller->demand_registered();
    }

    std::string at(int port) const { return access_.ue_port(port); }
    std::string gateway(int port) const { return access_.gateway_port(port); }
    /// The phone takes no segment to that port of its own, and says nothing about it.
    void ignore_tcp_to(int port) const {
        lab->network.ue.run(fmt::format("{} -A INPUT -p tcp --dport {} -j DROP",
                                        access_.is_v6 ? "ip6tables-legacy" : "iptables-legacy", port));
    }
    /// Sends a MESSAGE; what becomes of it is await_200()'s.
    std::string say() {
        const std::string word = unique_word("tcp-");
        mark_ = caller->mark();
        caller->start_message(kCallee, word);
        return word;
    }
    void await_200() {
        const auto sent =
            caller->await_event([](const Event& event) { return event.value("event", "") == "message_sent"; },
                                "the answer to the MESSAGE", mark_);
        CHECK(sent.value("status", 0) == 200);
    }
    /// A MESSAGE comes on a new connection from port_pc; it is answered there.
    std::unique_ptr<Accepted> expect_connection(ServerPort& server, const std::string& word) {
        auto connection = server.accept(*lab);
        CHECK(connection->remote() == gateway(ports.pc));
        const std::string request = connection->receive_until(word);
        CHECK(request.find("Via: SIP/2.0/TCP " + gateway(ports.ps)) != std::string::npos);
        connection->send(ok_to(request));
        await_200();
        return connection;
    }
    /// A MESSAGE comes as a datagram to port_us; the answer goes from port_uc to port_ps.
    void expect_datagram(const std::string& word) {
        RawPeer client(lab->network.ue, RawPeer::Kind::udp, at(ports.uc), gateway(ports.ps));
        const std::string request = server_udp->receive_until(word);
        CHECK(request.find("Via: SIP/2.0/UDP " + gateway(ports.ps)) != std::string::npos);
        client.send(ok_to(request));
        await_200();
    }
    void listen_udp() {
        server_udp = std::make_unique<RawPeer>(lab->network.ue, RawPeer::Kind::udp, at(ports.us), gateway(ports.pc));
    }

    std::unique_ptr<Lab> lab;
    ProtectedPorts ports;
    std::unique_ptr<Phone> caller;
    std::unique_ptr<RawPeer> server_udp;

private:
    Access access_;
    std::size_t mark_ = 0;
};

}  // namespace

TEST_SUITE("tcp-phones") {
    TEST_CASE(
        "B-15: a phone that registered over TCP and does not answer the SYN gets the request by UDP, in the same transaction") {
        Scene scene;
        INFO(scene.lab->gateway_log());
        scene.listen_udp();
        SUBCASE("it is silent") { scene.ignore_tcp_to(scene.ports.us); }
        SUBCASE("it refuses") {}
        const auto word = scene.say();
        scene.expect_datagram(word);
        scene.lab->gateway().wait_for_text(fmt::format("tcp-connect-failed local={} remote={}",
                                                       scene.gateway(scene.ports.pc), scene.at(scene.ports.us)));
    }

    TEST_CASE(
        "B-15: a connection that died without a word: within seconds the request goes over a new one from port_pc to port_us, or by UDP") {
        Scene scene;
        RawPeer phone(scene.lab->network.ue, RawPeer::Kind::tcp, scene.at(scene.ports.uc),
                      scene.gateway(scene.ports.ps));
        REQUIRE(phone.connects(kPatience));
        phone.send("\r\n\r\n");
        CHECK(phone.receive() == "\r\n");  // it stands, and the gateway knows it
        scene.ignore_tcp_to(scene.ports.uc);
        scene.listen_udp();
        SUBCASE("it answers the SYN") {
            ServerPort server(scene.lab->network.ue, scene.at(scene.ports.us));
            const auto connection = scene.expect_connection(server, scene.say());
            const auto word = scene.say();  // the next one stays on it
            const std::string request = connection->receive_until(word);
            connection->send(ok_to(request));
            scene.await_200();
        }
        SUBCASE("it does not answer that either") {
            scene.ignore_tcp_to(scene.ports.us);
            scene.expect_datagram(scene.say());
        }
    }

    TEST_CASE(
        "B-15: a connection from port_pc to port_us that the phone closes, or the gateway by its end, is opened again from the same port, without TCP timestamps as well") {
        Access access{false, true};
        bool is_killed = false;
        SUBCASE("IPv4, SIGTERM") {}
        SUBCASE("IPv6, SIGKILL") { access.is_v6 = is_killed = true; }
        Scene scene(access);
        scene.lab->network.ue.set_sysctl("net/ipv4/tcp_timestamps", "0");  // TIME_WAIT is not cut short by them
        ServerPort server(scene.lab->network.ue, scene.at(scene.ports.us));
        auto connection = scene.expect_connection(server, scene.say());
        connection.reset();  // FIN: TIME_WAIT on the phone's side
        connection = scene.expect_connection(server, scene.say());
        if (is_killed) scene.lab->kill_gateway();
        else CHECK(scene.lab->stop_gateway() == 0);
        scene.lab->start_gateway();
        connection = scene.expect_connection(server, scene.say());
        CHECK(scene.lab->gateway_log().find("TIME_WAIT") == std::string::npos);
    }

    TEST_CASE(
        "B-15: a phone that registers again and again from the same server port gets a long request over TCP each time: no port_pc stays in TIME_WAIT") {
        Lab lab(plain_lab());
        lab.network.ue.set_sysctl("net/ipv4/tcp_timestamps", "0");
        Phone caller(lab, {.user = 0});
        caller.demand_registered();
        constexpr int kRounds = Lab::kLastClientPort - Lab::kFirstClientPort + 3;
        for (int round = 0; round < kRounds; ++round) {
            INFO("round ", round);
            Phone callee(lab, {.user = 1, .arguments = {"--port-us", std::to_string(kPortUs)}});
            callee.demand_registered();
            const auto text = unique_word("long-") + std::string(1500, 'x');
            CHECK(caller.message(callee.impu(), text) == 200);
            callee.await_message(text);
            callee.deregister();
        }
        CHECK(lab.gateway_log().find("tcp-connect-failed") == std::string::npos);
    }
}
