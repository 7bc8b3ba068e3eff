// Strangers against the connections between gateway and core: what they send in clear must neither become a second
// request there nor cost a registered phone anything.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <list>
#include <mutex>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/integration/scene.h"

using namespace gmgate::test;

namespace {

constexpr std::string_view kPoison = "X-Poison:", kSmuggled = "MESSAGE sip:smuggled@";

sockaddr_storage address_of(const std::string& text, socklen_t& size) {
    sockaddr_storage address{};
    size = gmgate::Endpoint::parse(text)->to_sockaddr(address);
    return address;
}

/// A core's front that reads as carelessly as some do (no Content-Length is 0), closes a connection at the first
/// message that it does not like, and passes the rest on to gmcore, connection by connection.
class CarelessFront {
public:
    CarelessFront(const Namespace& network, const std::string& listen, const std::string& core)
        : network_(network), core_(core) {
        network.enter([&] {
            listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            const int on = 1;
            ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
            socklen_t size = 0;
            const auto address = address_of(listen, size);
            if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
                ::listen(listener_, 64) != 0)
                throw std::runtime_error("no listener at " + listen);
        });
        thread_ = std::thread([this] { network_.enter([this] { run(); }); });
    }
    CarelessFront(const CarelessFront&) = delete;
    CarelessFront& operator=(const CarelessFront&) = delete;
    ~CarelessFront() {
        is_over_ = true;
        thread_.join();
        for (const Pair& pair : pairs_) end(pair, false);
        ::close(listener_);
    }

    std::size_t executed() const { return executed_; }  ///< requests that nobody sent as such
    std::size_t poisoned() const { return poisoned_; }  ///< connections that were closed because of a message

private:
    struct Pair {
        int gateway = -1, core = -1;
        std::string read{};
    };

    void run() {
        while (!is_over_) {
            std::vector<pollfd> wanted{{listener_, POLLIN, 0}};
            std::vector<Pair*> owners;
            for (Pair& pair : pairs_) {
                owners.push_back(&pair);
                wanted.push_back({pair.gateway, POLLIN, 0});
                wanted.push_back({pair.core, POLLIN, 0});
            }
            if (::poll(wanted.data(), wanted.size(), 100) <= 0) continue;
            std::vector<Pair*> ended;
            for (std::size_t i = 0; i < owners.size(); ++i) {
                const bool goes_on = (wanted[1 + 2 * i].revents == 0 || from_gateway(*owners[i])) &&
                                     (wanted[2 + 2 * i].revents == 0 || copy(owners[i]->core, owners[i]->gateway));
                if (!goes_on) ended.push_back(owners[i]);
            }
            pairs_.remove_if([&](const Pair& pair) {
                if (std::ranges::find(ended, &pair) == ended.end()) return false;
                end(pair, true);
                return true;
            });
            if (wanted[0].revents != 0) accept_one();
        }
    }
    void accept_one() {
        Pair pair;
        pair.gateway = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        pair.core = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        socklen_t size = 0;
        const auto address = address_of(core_, size);
        if (pair.gateway < 0 || ::connect(pair.core, reinterpret_cast<const sockaddr*>(&address), size) != 0)
            return end(pair, true);
        pairs_.push_back(std::move(pair));
    }
    static void end(const Pair& pair, bool by_reset) {
        const linger at_once{1, 0};
        if (by_reset) ::setsockopt(pair.gateway, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        ::close(pair.gateway);
        ::close(pair.core);
    }
    static bool give(int to, std::string_view bytes) {
        return ::send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
    }
    static bool copy(int from, int to) {
        std::array<char, 65536> buffer;
        const ssize_t got = ::recv(from, buffer.data(), buffer.size(), 0);
        return got > 0 && give(to, {buffer.data(), static_cast<std::size_t>(got)});
    }
    /// False: the connection is to be closed.
    bool from_gateway(Pair& pair) {
        std::array<char, 65536> buffer;
        const ssize_t got = ::recv(pair.gateway, buffer.data(), buffer.size(), 0);
        if (got <= 0) return false;
        pair.read.append(buffer.data(), static_cast<std::size_t>(got));
        for (;;) {
            const auto head = pair.read.find("\r\n\r\n");
            if (head == std::string::npos) return true;
            constexpr std::string_view name = "\r\nContent-Length:";
            const auto field = pair.read.substr(0, head).find(name);
            const std::size_t body = field == std::string::npos ? 0 : std::stoul(pair.read.substr(field + name.size()));
            if (pair.read.size() < head + 4 + body) return true;
            const std::string message = pair.read.substr(0, head + 4 + body);
            pair.read.erase(0, message.size());
            if (message.starts_with(kSmuggled)) ++executed_;
            if (message.substr(0, head).find(kPoison) != std::string::npos) {
                ++poisoned_;
                return false;
            }
            if (!give(pair.core, message)) return false;
        }
    }

    const Namespace& network_;
    std::string core_;
    int listener_ = -1;
    std::list<Pair> pairs_;
    std::atomic<bool> is_over_ = false;
    std::atomic<std::size_t> executed_ = 0, poisoned_ = 0;
    std::thread thread_;
};

/// Five REGISTERs a second of each kind, over both families: datagrams without Content-Length that hold a second
/// request, and requests that the front does not like, over UDP and TCP.
class Attack {
public:
    explicit Attack(Lab& lab) : lab_(lab), thread_([this] { run(); }) {}
    Attack(const Attack&) = delete;
    Attack& operator=(const Attack&) = delete;
    ~Attack() {
        is_over_ = true;
        thread_.join();
    }
    std::size_t sent() const { return sent_; }
    bool is_broken() const { return is_broken_; }  ///< it could not go on

private:
    static std::string register_of(const Access& access, int port, int number, bool is_poison) {
        RawRegister raw;
        raw.user = 5000 + static_cast<std::size_t>(number);
        raw.access = access;
        raw.port = port;
        raw.security_client = SecurityClient{}.text();
        raw.more_headers = "X-Long: " + std::string(1400, 'x') + "\r\n";
        if (is_poison) raw.more_headers += std::string(kPoison) + " 1\r\n";
        std::string text = raw.text();
        if (is_poison) return text;
        text.resize(text.rfind("Content-Length: 0"));
        return text + fmt::format(
                          "\r\n{0}{1} SIP/2.0\r\nVia: SIP/2.0/TCP 10.2.0.1;branch=z9hG4bKs{2}\r\nMax-Forwards: "
                          "70\r\nFrom: <sip:boss@{1}>;tag=s\r\nTo: <sip:smuggled@{1}>\r\n"
                          "Call-ID: smuggled-{2}\r\nCSeq: 1 MESSAGE\r\nP-Asserted-Identity: "
                          "<sip:boss@{1}>\r\nContent-Length: 0\r\n\r\n",
                          kSmuggled, kHomeDomain, number);
    }
    void run() {
        try {
            for (int number = 0; !is_over_; ++number) {
                for (const bool is_v6 : {false, true}) once({.is_v6 = is_v6}, number);
                std::this_thread::sleep_for(std::chrono::milliseconds(200));  // the rate of the attack
            }
        } catch (const std::exception& e) {
            MESSAGE("the attack ended: ", std::string(e.what()));
            is_broken_ = true;
        }
    }
    void once(Access access, int number) {
        const int port = 10000 + 2 * (number % 4000);  // below those of the phones
        RawPeer datagrams(lab_.network.ue, RawPeer::Kind::udp, access.ue_port(port), access.gateway_port(5060));
        datagrams.send(register_of(access, port, 3 * number, false));
        datagrams.send(register_of(access, port, 3 * number + 1, true));
        access.is_tcp = true;
        RawPeer stream(lab_.network.ue, RawPeer::Kind::tcp, access.ue_port(port + 1), access.gateway_port(5060));
        if (stream.connects(std::chrono::seconds(5))) stream.send(register_of(access, port + 1, 3 * number + 2, true));
        (void)stream.receive(
            std::chrono::milliseconds(100));  // closed before the gateway has read it, it would be no attack
        sent_ += 3;
    }

    Lab& lab_;
    std::atomic<bool> is_over_ = false, is_broken_ = false;
    std::atomic<std::size_t> sent_ = 0;
    std::thread thread_;
};

}  // namespace

TEST_SUITE("core-side") {
    TEST_CASE(
        "strangers' REGISTERs that smuggle a request, or at which the core closes its connection, while 30 phones "
        "register and talk: none of theirs fails, no next hop is down") {
        constexpr std::size_t kQuiet = 26;
        auto options = plain_lab();
        options.users = kQuiet + 4;
        options.core_transport = "tcp";
        options.core_listen = std::string(Network::kCore4) + ":5062";
        options.core_lines = "ping-interval = 1\n";
        options.more_sections = "[limits]\nchallenges-per-address = 256\n";
        std::unique_ptr<CarelessFront> front;
        options.prepare = [&](const Network& network) {
            front = std::make_unique<CarelessFront>(network.core, std::string(Network::kCore4) + ":5060",
                                                    std::string(Network::kCore4) + ":5062");
        };
        Lab lab(options);
        const auto before = lab.gateway_log().size();  // gmcore may have been later than the first ping
        {
            Attack attack(lab);
            REQUIRE(eventually([&] { return front->poisoned() >= 4; }));
            Program quiet({.command = {lab.programs().gmue, "register", "--gateway", Network::kAccess4, "--count",
                                       std::to_string(kQuiet), "--rate", "5", "--hold", "1", "--json"},
                           .name = "gmue",
                           .network = &lab.network.ue});
            Phone a(lab, {.user = kQuiet}), b(lab, {.user = kQuiet + 1, .is_tcp = true});
            Phone c(lab, {.user = kQuiet + 2, .is_v6 = true}),
                d(lab, {.user = kQuiet + 3, .is_v6 = true, .is_tcp = true});
            for (Phone* phone : {&a, &b, &c, &d}) phone->demand_registered();
            const auto until = attack.sent() + 60;
            do {
                for (Phone* from : {&a, &b, &c, &d})
                    for (Phone* to : {&a, &b, &c, &d})
                        if (from != to) CHECK(from->message(to->impu(), "m") == 200);
                CHECK(a.call(d.impu()).value("event", "") == "call_ended");
                CHECK(c.call(b.impu()).value("event", "") == "call_ended");
                a.reregister(true);
                d.reregister(false);
            } while (attack.sent() < until && !attack.is_broken());
            CHECK_FALSE(attack.is_broken());
            const auto summary = quiet.wait_for_text("\"phase\":\"register\"", 0, std::chrono::minutes(3)).text;
            INFO(summary);
            CHECK(summary.find("\"ok\":" + std::to_string(kQuiet)) != std::string::npos);
            CHECK(quiet.wait(std::chrono::minutes(2)) == 0);
        }
        MESSAGE("connections that the core closed: ", front->poisoned());
        CHECK(front->poisoned() > 20);
        CHECK(front->executed() == 0);
        CHECK(lab.gateway_log().find("next-hop-down", before) == std::string::npos);
        for (const auto& text : lab.core_received(0, "MESSAGE")) CHECK_FALSE(text.starts_with(kSmuggled));
    }

    TEST_CASE(
        "a stranger may send as much as a REGISTER needs and no more: 513, counted; a registered phone may send more") {
        auto options = plain_lab();
        options.more_sections = "[limits]\nunprotected-message = 4000\nunprotected-body = 500\n";
        Lab lab(options);
        const auto mark = lab.core_mark();
        for (const Access access :
             {Access{}, Access{.is_v6 = true}, Access{.is_tcp = true}, Access{.is_v6 = true, .is_tcp = true}}) {
            RawRegister raw;
            raw.user = 100;
            raw.access = access;
            raw.security_client = SecurityClient{}.text();
            raw.more_headers = "X-Long: " + std::string(4000, 'x') + "\r\n";
            CHECK(status_of(ask(lab, raw)) == 513);
            raw.port += 1;
            raw.more_headers = "X-Long: " + std::string(2000, 'x') + "\r\n";
            CHECK(status_of(ask(lab, raw)) / 100 == 4);  // of the core: it does not know him
        }
        CHECK(lab.core_received(mark, "REGISTER").size() == 4);
        Phone one(lab, {}), two(lab, {.user = 1, .is_tcp = true});
        one.demand_registered();
        two.demand_registered();
        const auto word = repeated("much", 6000);
        CHECK(two.message(one.impu(), word) == 200);
        CHECK(one.message(two.impu(), word) == 200);
    }
}
