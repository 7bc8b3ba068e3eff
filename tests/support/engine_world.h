// An SA engine in one process for unit tests: the client of gmgated, the server of gmgate-xfrmd, a socket between them,
// a fake kernel behind.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "base/rights.h"
#include "tests/support/fake_kernel.h"
#include "xfrm/engine/client.h"
#include "xfrm/engine/server.h"

namespace gmgate::test {

inline xfrm::EngineConfiguration a_configuration() {
    xfrm::EngineConfiguration configuration;
    configuration.owner = {.reqid = ReqId{21321}, .mark_mask = 0x00ffffff};
    configuration.ports = {{*Address::parse("192.0.2.9"), Port{6100}, Port{6105}}};
    return configuration;
}

/// hmac-sha-1-96 with aes-cbc between 198.51.100.`ue` and 192.0.2.9; every number depends on `ue`.
inline xfrm::SetRequest a_request(unsigned ue = 1) {
    xfrm::SetRequest request{};
    auto& p = request.parameters;
    p.ue = *Address::parse("198.51.100." + std::to_string(ue));
    p.gateway = *Address::parse("192.0.2.9");
    p.port_uc = Port{5062};
    p.port_us = Port{5063};
    p.port_pc = Port{6102};
    p.port_ps = Port{6100};
    p.spi_uc = Spi{1000 + ue};
    p.spi_us = Spi{2000 + ue};
    p.spi_pc = Spi{0x10000000 + 2 * ue};
    p.spi_ps = Spi{0x10000001 + 2 * ue};
    p.algorithms = {Alg::hmac_sha_1_96, Ealg::aes_cbc};
    for (auto& octet : request.keys.integrity.expose_for_writing(20)) octet = 0xaa;
    for (auto& octet : request.keys.confidentiality.expose_for_writing(16)) octet = 0xbb;
    request.mark = Mark{ue};
    request.lifetime = std::chrono::seconds(270);
    return request;
}

/// Plays the guardian: workers come up and die when the test says so.
class EngineWorld {
public:
    explicit EngineWorld(std::chrono::milliseconds patience = std::chrono::seconds(30)) {
        std::array<int, 2> ends{};
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
            throw std::runtime_error("socketpair");
        guard_ = ends[1];
        xfrm::EngineClient::Handlers handlers;
        handlers.on_event = [this](const xfrm::KernelEvent& event) { events.push_back(event); };
        handlers.on_up = [this] { ++ups; };
        handlers.on_down = [this](const std::string& how) { downs.push_back(how); };
        handlers.on_guardian_gone = [this](const std::string& why) { guardian_gone = why; };
        client = std::make_unique<xfrm::EngineClient>(io.get_executor(), ends[0], ReqId{21321}, std::move(handlers),
                                                      patience);
    }
    ~EngineWorld() {
        client.reset();
        server.reset();
        if (guard_ >= 0) close(guard_);
        io.restart();
        io.poll();
    }

    /// A worker on `kernel`, told of as the guardian does.
    void worker_up() {
        std::array<int, 2> ends{};
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
            throw std::runtime_error("socketpair");
        server = std::make_unique<xfrm::EngineServer>(
            io.get_executor(), ends[1], xfrm::EngineRules(a_configuration()), kernel,
            xfrm::EngineServer::Handlers{
                .on_refused = [this](const char* request,
                                     const std::string& why) { refusals.push_back(std::string(request) + ": " + why); },
                .on_closed = [](std::string) {}});
        server->start("test");
        tell(GM_WORKER_UP, {.pid = 1, .starts = ++starts, .status = 0, .refused = 0}, ends[0]);
        close(ends[0]);
    }
    /// As after kill -9: its socket is closed, whatever was in it.
    void worker_dies() {
        server.reset();
        tell(GM_WORKER_DOWN, {.pid = 1, .starts = starts, .status = 9, .refused = 0}, -1);
    }
    void guardian_dies() {
        close(guard_);
        guard_ = -1;
    }
    void tell(gm_kind kind, const gm_worker& worker, int descriptor) const {
        const auto frame = xfrm::FrameWriter(kind).add(worker).finish();
        if (send_with_descriptor(guard_, {reinterpret_cast<const char*>(frame.data()), frame.size()}, descriptor) != 0)
            throw std::runtime_error("sendmsg");
    }

    /// Starts a call without waiting for it.
    template <class T>
    std::shared_ptr<std::optional<T>> begin(Task<T> task) {
        auto out = std::make_shared<std::optional<T>>();
        asio::co_spawn(io, std::move(task),
                       [out](const std::exception_ptr&, T value) { out->emplace(std::move(value)); });
        return out;
    }
    /// Turns the loop until `done` or until nothing more can happen for a long time.
    template <class Condition>
    bool until(Condition&& done) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        bool is_done = done();
        while (!is_done && std::chrono::steady_clock::now() < end) {
            io.restart();
            io.run_one_for(std::chrono::milliseconds(100));
            is_done = done();
        }
        return is_done;
    }
    template <class T>
    T finish(Task<T> task) {
        const auto out = begin(std::move(task));
        if (!until([&] { return out->has_value(); })) throw std::runtime_error("no answer");
        return std::move(**out);
    }

    asio::io_context io;
    FakeKernel kernel;
    std::unique_ptr<xfrm::EngineClient> client;
    std::unique_ptr<xfrm::EngineServer> server;
    std::vector<xfrm::KernelEvent> events;
    std::vector<std::string> downs, refusals;
    std::string guardian_gone;
    int ups = 0;
    std::uint32_t starts = 0;

private:
    int guard_ = -1;
};

}  // namespace gmgate::test
