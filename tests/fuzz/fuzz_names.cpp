// Fuzz target: what a name server answers, through c-ares and our reading of NAPTR, SRV and addresses. The input is a
// list of answers, each behind its length (16 bits): the part of a reply behind its question. Id and question are set
// right, so that nothing is wrong but what the server says; an answer of odd length comes behind one with a wrong id.
// What is found is bounded, is nobody that may not be, and serves no longer than it should.
#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "base/log.h"
#include "daemon/core/resolver.h"
#include "sip/transport/socket.h"
#include "tests/fuzz/require.h"
#include "tests/support/still_clock.h"

namespace {

using namespace gmgate;
using namespace gmgate::daemon;
using fuzz::require;

constexpr std::size_t kHeader = 12;
constexpr std::size_t kQuestions = 400;  ///< more are not asked for one name

const Endpoint kForbidden = *Endpoint::parse("127.0.0.1:5060");

class LyingServer {
public:
    explicit LyingServer(std::string_view script)
        : script_(script), socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
        sockaddr_storage address{};
        const auto length = Endpoint{*Address::parse("127.0.0.1"), Port{0}}.to_sockaddr(address);
        require(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), length) == 0, "the server has a socket");
    }

    Endpoint endpoint() const {
        sockaddr_storage address{};
        socklen_t length = sizeof address;
        ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &length);
        return *Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
    }

    void serve() {
        std::array<char, 2048> bytes{};
        sockaddr_storage from{};
        socklen_t length = sizeof from;
        for (;;) {
            length = sizeof from;
            const auto count = ::recvfrom(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT,
                                          reinterpret_cast<sockaddr*>(&from), &length);
            if (count < static_cast<ssize_t>(kHeader + 5)) return;
            ++questions;
            const std::string reply = reply_to({bytes.data(), static_cast<std::size_t>(count)});
            if (reply.size() % 2 == 1) {
                std::string other = reply;
                other[0] = static_cast<char>(other[0] ^ 0x55);
                send(other, from, length);
            }
            send(reply, from, length);
        }
    }

    std::size_t questions = 0;

private:
    void send(const std::string& bytes, const sockaddr_storage& to, socklen_t length) const {
        ::sendto(socket_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to), length);
    }

    /// Flags, counts and records from the script; NXDOMAIN when it is over.
    std::string reply_to(std::string_view query) {
        std::size_t end = kHeader;
        while (end < query.size() && query[end] != 0) end += static_cast<unsigned char>(query[end]) + 1U;
        const auto question = query.substr(kHeader, std::min(end + 5, query.size()) - kHeader);
        std::string part = next_part();
        if (part.size() < 8) part = std::string("\x81\x83\0\0\0\0\0\0", 8);
        // A reply, not cut off, to one question; the rest of the flags and the counts are the server's.
        std::string head(query.substr(0, 2));
        head += static_cast<char>((static_cast<unsigned char>(part[0]) | 0x80U) & ~0x02U & ~0x78U);
        head += part[1];
        head += std::string("\0\1", 2) + part.substr(2, 6);
        return head + std::string(question) + part.substr(8);
    }

    std::string next_part() {
        if (script_.size() < 2) return {};
        const auto length = static_cast<std::size_t>(static_cast<unsigned char>(script_[0])) << 8 |
                            static_cast<unsigned char>(script_[1]);
        const auto part = script_.substr(2, length);
        script_.remove_prefix(2 + part.size());
        return std::string(part);
    }

    std::string_view script_;
    sip::FileDescriptor socket_;
};

using Answer = Result<std::vector<Target>>;

class Play {
public:
    explicit Play(std::string_view script) : server_(script) {}

    void run(bool has_port) {
        NextHop hop;
        hop.host = "core.example";
        if (has_port) hop.endpoint.port = Port{5060};
        check(resolve(hop));
        const auto asked = server_.questions;
        require(asked >= 1 && asked <= kQuestions, "a name costs a bounded number of questions");
        require(resolver_->cached() == 1, "one name is one entry");
        clock_.advance(std::chrono::seconds{3601});  // longer than any answer may serve
        check(resolve(hop));
        require(server_.questions > asked, "an answer is asked for again when its time is over");
    }

private:
    Answer resolve(const NextHop& hop) {
        std::optional<Answer> found;
        auto ask = [](Resolver& resolver, NextHop one, std::optional<Answer>& into) -> Task<void> {
            into = co_await resolver.resolve(std::move(one), CoreTransport::udp);
        };
        asio::co_spawn(loop_, ask(*resolver_, hop, found),
                       [](const std::exception_ptr& e) { require(e == nullptr, "no answer throws"); });
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{15};
        while (!found) {
            require(std::chrono::steady_clock::now() < deadline, "a look-up ends");
            loop_.restart();
            loop_.run_one_for(std::chrono::milliseconds{1});
            server_.serve();
        }
        return *found;
    }

    static void check(const Answer& found) {
        if (!found) return require(!found.error().text.empty(), "a failure has words");
        require(!found->empty() && found->size() <= ResolverLimits{}.targets, "some targets, and not more than a few");
        for (const Target& target : *found) {
            require(target.endpoint.address != kForbidden.address, "who may not be a next hop is none");
            require(target.endpoint.address.family() == Family::v4, "targets are of the family that was wanted");
            require(target.host == "core.example", "the name is the configured one, whatever its aliases");
            require(target.transport != CoreTransport::tls, "no other protection than the configured one");
        }
    }

    asio::io_context loop_;
    test::StillClock clock_;
    LyingServer server_;
    std::unique_ptr<Resolver> resolver_ = std::make_unique<Resolver>(
        loop_.get_executor(), clock_, std::vector{server_.endpoint()}, Family::v4, ResolverLimits{},
        [](const Endpoint& answer) { return answer.address != kForbidden.address; });
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    if (size == 0) return 0;
    log::set_level(log::Level::error);
    Play(fuzz::text_of(data + 1, size - 1)).run(data[0] % 4 == 1);
    return 0;
}
