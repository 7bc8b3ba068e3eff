// Out of memory amid a REGISTER: it is refused, leaves nothing behind, and the next one is served.
#include <doctest/doctest.h>

#include <new>

#include "tests/unit/daemon/agreement/register_bench.h"

using namespace gmgate;
using namespace gmgate::test;

namespace {

std::string first_register(int n, std::uint16_t port) {
    return fmt::format(
        "REGISTER sip:ims.mnc001.mcc001.3gppnetwork.org SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.9:5060;branch=z9hG4bKoom{0}\r\n"
        "Max-Forwards: 70\r\nFrom: <sip:user@example>;tag=a\r\nTo: <sip:user@example>\r\nCall-ID: oom{0}\r\nCSeq: 1 REGISTER\r\n"
        "Contact: <sip:127.0.0.9:{1}>;expires=600000\r\n"
        "Authorization: Digest username=\"{2}\", realm=\"ims\", nonce=\"\", uri=\"sip:ims\", response=\"\"\r\n"
        "Security-Client: ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c={3};port-c=7524;spi-s={4};port-s={1}\r\n"
        "Require: sec-agree\r\nProxy-Require: sec-agree\r\nSupported: path\r\nContent-Length: 0\r\n\r\n",
        n, port, kImpi, 100000 + 2 * n, 100001 + 2 * n);
}

}  // namespace

TEST_CASE(
    "out of memory while a REGISTER is answered: it gets 503, nothing waits for the core, and the phone registers") {
    RegisterBench bench;
    for (int n = 1; n <= 3; ++n) {
        auto parsed = sip::OwnedMessage::parse(first_register(n, 1358));
        REQUIRE(parsed.has_value());
        const auto transaction = std::make_shared<RecordedTransaction>(std::move(*parsed), bench.unprotected());
        bool has_thrown = false;
        transaction->on_respond = [&](RecordedTransaction&) {
            if (!std::exchange(has_thrown, true)) throw std::bad_alloc();
        };
        bool has_ended = false;
        asio::co_spawn(bench.loop, bench.parts().flow.handle(transaction),
                       [&](const std::exception_ptr& failed) { has_ended = !failed; });
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{10};
        while (!has_ended && std::chrono::steady_clock::now() < deadline)
            bench.loop.run_one_for(std::chrono::milliseconds{50});
        REQUIRE(has_ended);
        CHECK(has_thrown);
        REQUIRE(transaction->is_completed());
        CHECK(RegisterBench::status_of(*transaction) == 503);
        CHECK(transaction->responses.back().find("Retry-After: ") != std::string::npos);
        CHECK(bench.parts().trace.pending(Impi{kImpi}).empty());
    }
    bench.loop.poll();
    CHECK(bench.registered().sets.size() == 1);
}
