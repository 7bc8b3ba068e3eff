#include "daemon/preflight/core_check.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <asio/this_coro.hpp>

#include "base/clock.h"
#include "base/random.h"
#include "daemon/core/resolver.h"
#include "sip/transport/socket.h"

namespace gmgate::daemon {
namespace {

/// One element of the core while it is asked.
struct Question {
    Target target;
    Endpoint from;  ///< our end, once it is known
    sip::FileDescriptor socket{};
    bool is_answered = false;
};

std::string options_request(const Question& question) {
    const auto to = question.target.endpoint.to_string(), from = question.from.to_string();
    return fmt::format(
        "OPTIONS sip:{0} SIP/2.0\r\nVia: SIP/2.0/UDP {1};rport;branch=z9hG4bK{2}\r\nMax-Forwards: 0\r\n"
        "From: <sip:{1}>;tag={3}\r\nTo: <sip:{0}>\r\nCall-ID: {2}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        to, from, random_hex(16), random_hex(8));
}

/// From our address of that family, any port: the configured one is the running gateway's. Errno of what failed.
int open_question(Question& question) {
    const bool is_udp = question.target.transport == CoreTransport::udp;
    question.socket = sip::FileDescriptor(
        socket(question.from.address.af(), (is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_storage address{};
    auto length = Endpoint{question.from.address, Port{}}.to_sockaddr(address);
    if (bind(question.socket.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0)
        return errno == EADDRNOTAVAIL ? 0 : errno;  // check_addresses() has told
    length = question.target.endpoint.to_sockaddr(address);
    if (connect(question.socket.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 &&
        errno != EINPROGRESS)
        return errno;
    length = sizeof address;
    if (getsockname(question.socket.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0)
        question.from = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address)).value_or(question.from);
    return 0;
}

// A datagram is a sign of life, whatever it says; so is a connection that stands.
bool has_answered(const Question& question, short events) {
    if (question.target.transport == CoreTransport::udp) {
        char bytes[2048];
        return (events & POLLIN) != 0 && recv(question.socket.get(), bytes, sizeof bytes, 0) > 0;
    }
    int code = 0;
    socklen_t length = sizeof code;
    return (events & POLLOUT) != 0 && getsockopt(question.socket.get(), SOL_SOCKET, SO_ERROR, &code, &length) == 0 &&
           code == 0;
}

// Twice, for a datagram may be lost.
void ask_all(std::vector<Question>& questions, std::chrono::milliseconds patience) {
    for (int round = 0; round < 2; ++round) {
        for (const auto& question : questions)
            if (question.target.transport == CoreTransport::udp && !question.is_answered) {
                const auto bytes = options_request(question);
                static_cast<void>(send(question.socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
            }
        const Clock clock;
        const auto until = clock.now() + patience / 2;
        while (std::ranges::any_of(questions, [](const Question& q) { return !q.is_answered; })) {
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - clock.now()).count();
            if (left <= 0) break;
            std::vector<pollfd> waiting;
            for (const auto& question : questions) {
                const bool is_udp = question.target.transport == CoreTransport::udp;
                waiting.push_back({question.is_answered ? -1 : question.socket.get(),
                                   static_cast<short>(is_udp ? POLLIN : POLLOUT), 0});
            }
            if (poll(waiting.data(), waiting.size(), static_cast<int>(left)) <= 0) break;
            for (std::size_t i = 0; i < questions.size(); ++i) {
                if (waiting[i].revents == 0) continue;
                questions[i].is_answered = has_answered(questions[i], waiting[i].revents);
                if (!questions[i].is_answered && questions[i].target.transport != CoreTransport::udp)
                    questions[i].socket = sip::FileDescriptor();  // refused: nothing more will come
            }
        }
    }
}

}  // namespace

Task<std::vector<Finding>> check_next_hops(const Config& config, std::chrono::milliseconds patience) {
    std::vector<Finding> findings;
    std::vector<Question> questions;
    const Clock clock;
    const auto executor = co_await asio::this_coro::executor;
    Resolver resolver(executor, clock, config.core.name_servers, std::nullopt);
    std::vector<NextHop> hops = config.core.next_hops;
    hops.insert(hops.end(), config.core.emergency_next_hops.begin(), config.core.emergency_next_hops.end());
    for (const NextHop& hop : hops) {
        std::vector<Target> targets;
        if (hop.host.empty()) {
            Target target;
            target.endpoint = hop.endpoint;
            target.transport = hop.transport.value_or(config.core.transport);
            targets.push_back(std::move(target));
        } else {
            auto found = co_await resolver.resolve(hop, config.core.transport);
            if (found) targets = std::move(*found);
            else
                findings.push_back({.what = fmt::format("next hop {}: {}", hop.to_string(), found.error().text),
                                    .fix = "correct the name, [core] name-servers or the name server"});
        }
        for (auto& target : targets) {
            const auto* listen = config.core.listen_for(target.endpoint.address.family());
            if (!listen) continue;
            Question question{.target = std::move(target), .from = *listen};
            if (const int code = open_question(question); code != 0)
                findings.push_back(
                    {.what = fmt::format("no way from {} to next hop {}: {}", listen->address.to_string(),
                                         question.target.endpoint.to_string(), std::strerror(code)),
                     .fix = fmt::format("ip route add; ip route get {} from {} tells what this machine would do",
                                        question.target.endpoint.address.to_string(), listen->address.to_string())});
            else questions.push_back(std::move(question));
        }
    }
    ask_all(questions, patience);
    for (const auto& question : questions)
        if (!question.is_answered)
            findings.push_back(
                {.what = fmt::format(
                     "next hop {} {} within {} ms", question.target.endpoint.to_string(),
                     question.target.transport == CoreTransport::udp ? "did not answer OPTIONS" : "took no connection",
                     patience.count()),
                 .fix = "start it, open its firewall, or correct [core] next-hop and transport"});
    co_return findings;
}

}  // namespace gmgate::daemon
