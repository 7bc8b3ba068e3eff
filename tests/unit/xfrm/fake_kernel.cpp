// The double keeps the contract of xfrm::Kernel, so that what the flows above learn from it is true.
#include <cerrno>

#include <doctest/doctest.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "tests/support/fake_kernel.h"
#include "tests/unit/xfrm/netlink/mini_kernel.h"

using namespace gmgate;
using namespace gmgate::test;
using namespace gmgate::xfrm;

namespace {

SetParameters parameters() {
    SetParameters p{};
    p.ue = *Address::parse("192.0.2.9");
    p.gateway = *Address::parse("192.0.2.1");
    p.port_uc = Port{5064};
    p.port_us = Port{5066};
    p.port_pc = Port{6100};
    p.port_ps = Port{6101};
    p.spi_uc = Spi{1000};
    p.spi_us = Spi{1001};
    p.spi_pc = Spi{0x20000000};
    p.spi_ps = Spi{0x20000001};
    p.algorithms = {Alg::hmac_sha_1_96, Ealg::aes_cbc};
    return p;
}

SetRequest request() {
    return {.parameters = parameters(), .keys = {}, .mark = Mark{1}, .lifetime = std::chrono::seconds{240}};
}

}  // namespace

TEST_CASE("FakeKernel: all or nothing, whichever message fails; EEXIST on a taken id") {
    asio::io_context io;
    for (std::uint64_t n = 0; n <= 7; ++n) {
        FakeKernel kernel;
        if (n) kernel.fail_message(n, EPERM);
        auto r = request();
        const auto result = finish(io, kernel.install_set(std::move(r)));
        CHECK(result.has_value() == (n == 0 || n > 4));
        CHECK(kernel.sas().size() == (result ? 4 : 0));
    }
    FakeKernel kernel;
    kernel.add_foreign(four_sas(parameters())[2].id);
    auto r = request();
    const auto refused = finish(io, kernel.install_set(std::move(r)));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == EEXIST);
    CHECK(kernel.sas().empty());
}

TEST_CASE("FakeKernel: a held call has done its work and returns when it is released") {
    asio::io_context io;
    FakeKernel kernel;
    kernel.hold();
    bool is_done = false;
    auto r = request();
    asio::co_spawn(io, kernel.install_set(std::move(r)),
                   [&](std::exception_ptr, const Result<void>& result) { is_done = result.has_value(); });
    io.poll();  // run() would wait for the held call
    CHECK(kernel.held() == 1);
    CHECK(kernel.sas().size() == 4);
    CHECK_FALSE(is_done);
    kernel.release();
    io.restart();
    io.run();
    CHECK(is_done);
    CHECK(kernel.count("install_set") == 1);
}

TEST_CASE("FakeKernel: extend, lose, remove") {
    asio::io_context io;
    FakeKernel kernel;
    auto r = request();
    REQUIRE(finish(io, kernel.install_set(std::move(r))));
    REQUIRE(finish(io, kernel.extend_set(parameters(), std::chrono::seconds{900})));
    for (const auto& [id, sa] : kernel.sas()) CHECK(sa.hard_limit >= std::chrono::seconds{900});
    CHECK(kernel.lose(four_sas(parameters())[0].id));
    CHECK_FALSE(finish(io, kernel.extend_set(parameters(), std::chrono::seconds{900})));
    CHECK(finish(io, kernel.remove_set(parameters())));
    CHECK(kernel.sas().empty());
}
