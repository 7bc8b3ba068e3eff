// Fuzz target: both ends of the socket between gmgated and its SA engine. The first octet says who is hostile: a
// gmgated that was taken over (even) or an engine that was (odd); the rest is frames, each behind its length (16 bits).
#include <sys/socket.h>
#include <cstring>

#include "base/rights.h"
#include "tests/fuzz/require.h"
#include "tests/support/engine_world.h"

namespace {

using namespace gmgate;
using namespace gmgate::xfrm;
using fuzz::require;

using Bytes = std::span<const std::uint8_t>;

std::vector<Bytes> frames_of(Bytes rest) {
    std::vector<Bytes> frames;
    while (rest.size() > 2 && frames.size() < 32) {
        const std::size_t size = std::min<std::size_t>(rest[0] | rest[1] << 8, rest.size() - 2);
        frames.push_back(rest.subspan(2, size));
        rest = rest.subspan(2 + size);
    }
    return frames;
}

/// A value that can be read is written as it was read: no two frames mean the same, and nothing hides in them.
template <class Fixed>
void check_value(FrameReader reader) {
    const auto fixed = reader.take<Fixed>();
    if (!reader.is_complete()) return;
    if (const auto value = value_of(fixed)) {
        const auto again = to_frame(*value);
        require(std::memcmp(&again, &fixed, sizeof fixed) == 0, "a value is written as it was read");
    }
}
void check_values(Bytes frame) {
    const FrameReader reader(frame);
    switch (reader.header().kind) {
        case GM_REMOVE_SET:
        case GM_REPORT_SET:
            return check_value<gm_set>(reader);
        case GM_REMOVE_SAS:
            return check_value<gm_sa_id>(reader);
        case GM_REPORTS:
            return check_value<gm_report>(reader);
        case GM_PROBE:
            return check_value<gm_pair>(reader);
        case GM_GUARDS:
            return check_value<gm_guard>(reader);
        default:
            return;
    }
}

std::array<int, 2> pair_of_sockets() {
    std::array<int, 2> ends{};
    require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0, "socketpair");
    return ends;
}
void put(int fd, Bytes frame) {
    if (!frame.empty()) (void)!::send(fd, frame.data(), frame.size(), MSG_NOSIGNAL);
}

/// Each request that has a header is answered once; the kernel has no SA that the configuration does not allow.
void play_hostile_gateway(const std::vector<Bytes>& frames) {
    asio::io_context io;
    test::FakeKernel kernel;
    auto ends = pair_of_sockets();
    bool is_closed = false;
    auto server =
        std::make_unique<EngineServer>(io.get_executor(), ends[1], EngineRules(test::a_configuration()), kernel,
                                       EngineServer::Handlers{.on_refused = [](const char*, const std::string&) {},
                                                              .on_closed = [&](std::string) { is_closed = true; }});
    server->start("test");
    std::size_t asked = 0, done = 0;
    std::vector<std::uint8_t> buffer(GM_FRAME_LIMIT);
    for (const Bytes frame : frames) {
        put(ends[0], frame);
        if (!frame.empty()) ++asked;
        for (int i = 0; i < 4; ++i) io.restart(), io.poll();
        ssize_t size = 0;
        while ((size = ::recv(ends[0], buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0) {
            const FrameReader reader(Bytes(buffer.data(), static_cast<std::size_t>(size)));
            if (reader.header().kind == GM_DONE) ++done;
        }
    }
    require(done <= asked && (is_closed || done == asked), "each request is answered once");
    const auto allowed = test::a_configuration();
    for (const auto& [id, live] : kernel.sas()) {
        const bool is_inbound = live.sa.direction == Direction::in;
        const auto& ours = is_inbound ? live.sa.destination : live.sa.source;
        require(ours.address == allowed.ports[0].gateway && ours.port >= allowed.ports[0].first &&
                    ours.port <= allowed.ports[0].last,
                "an SA is on our address and a protected port");
        require((live.mark.value & ~allowed.owner.mark_mask) == 0 && live.mark.value != 0, "a mark is one of ours");
        if (is_inbound)
            require(id.spi >= allowed.spi_first && id.spi <= allowed.spi_last, "an inbound SPI is of our range");
    }
    ::close(ends[0]);
    for (int i = 0; i < 4; ++i) io.restart(), io.poll();
    server.reset();
    io.restart();
    io.poll();
}

/// gmgated lives, and each of its calls ends once, whatever its engine says.
void play_hostile_engine(const std::vector<Bytes>& frames) {
    asio::io_context io;
    auto guard = pair_of_sockets(), work = pair_of_sockets();
    EngineClient::Handlers handlers;
    handlers.on_event = [](const KernelEvent&) {};
    handlers.on_up = [] {};
    handlers.on_down = [](std::string) {};
    handlers.on_guardian_gone = [](std::string) {};
    auto client = std::make_unique<EngineClient>(io.get_executor(), guard[0], ReqId{21321}, std::move(handlers));
    const auto up = FrameWriter(GM_WORKER_UP).add(gm_worker{.pid = 1, .starts = 1, .status = 0, .refused = 0}).finish();
    require(send_with_descriptor(guard[1], {reinterpret_cast<const char*>(up.data()), up.size()}, work[0]) == 0,
            "send");
    ::close(work[0]);
    put(work[1], FrameWriter(GM_READY).add(gm_ready{.pid = 1, .engine = "test"}).finish());
    std::size_t ended = 0, begun = 0;
    const auto begin = [&]<class T>(Task<T> task) {
        ++begun;
        asio::co_spawn(io, std::move(task), [&](const std::exception_ptr&, T) { ++ended; });
    };
    begin(client->dump_each([](SaReport) {}, [] {}));
    begin(client->report_set(test::a_request().parameters));
    begin(client->install_set(test::a_request()));
    begin(client->probe({{Alg::hmac_sha_1_96, Ealg::aes_cbc}}));
    begin(client->report_guards({*Address::parse("192.0.2.9"), {Port{6100}}}));
    for (const Bytes frame : frames) {
        for (int i = 0; i < 3; ++i) io.restart(), io.poll();
        put(work[1], frame);
    }
    for (int i = 0; i < 3; ++i) io.restart(), io.poll();
    require(ended <= begun, "a call ends once");
    ::close(work[1]);
    ::close(guard[1]);
    client.reset();
    for (int i = 0; i < 8; ++i) io.restart(), io.poll();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    if (size == 0) return 0;
    const auto frames = frames_of({data + 1, size - 1});
    for (const Bytes frame : frames) check_values(frame);
    if (data[0] % 2 == 0) play_hostile_gateway(frames);
    else play_hostile_engine(frames);
    return 0;
}
