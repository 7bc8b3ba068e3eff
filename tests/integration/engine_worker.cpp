#include "tests/integration/engine_worker.h"

#include <algorithm>
#include <csignal>
#include <cstring>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace gmgate::test {
namespace {

constexpr int kPatienceMs = 60'000;

// Between fork and exec: async-signal-safe calls only.
[[noreturn]] void become(const char* program, int fd) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fd == GM_WORK_FD) fcntl(fd, F_SETFD, 0);
    else if (dup2(fd, GM_WORK_FD) < 0) _exit(126);
    execl(program, program, "--worker", static_cast<char*>(nullptr));
    _exit(127);
}

}  // namespace

gm_address frame_of(const Address& address) {
    gm_address out{};
    std::ranges::copy(address.bytes(), out.octets);
    out.family = address.is_v6() ? 6 : 4;
    return out;
}

gm_set frame_of(const xfrm::SetParameters& p) {
    return {.ue = frame_of(p.ue),
            .gateway = frame_of(p.gateway),
            .port_uc = p.port_uc.value,
            .port_us = p.port_us.value,
            .port_pc = p.port_pc.value,
            .port_ps = p.port_ps.value,
            .spi_uc = p.spi_uc.value,
            .spi_us = p.spi_us.value,
            .spi_pc = p.spi_pc.value,
            .spi_ps = p.spi_ps.value,
            .pair = {.alg = static_cast<std::uint8_t>(p.algorithms.alg),
                     .ealg = static_cast<std::uint8_t>(p.algorithms.ealg),
                     .reserved = {}},
            .mode = static_cast<std::uint16_t>(p.mode),
            .reserved = 0,
            .inner = p.inner ? frame_of(*p.inner) : gm_address{}};
}

gm_install install_frame(const xfrm::SetRequest& request) {
    gm_install out{};
    out.set = frame_of(request.parameters);
    out.reqid = xfrm::Ownership{}.reqid.value;
    out.mark = request.mark.value;
    out.lifetime = static_cast<std::uint32_t>(request.lifetime.count());
    const auto put = [](std::span<std::uint8_t> field, std::uint8_t& size, std::span<const std::uint8_t> key) {
        size = static_cast<std::uint8_t>(key.size());
        std::ranges::copy(key, field.begin());
    };
    put(out.integrity, out.integrity_size, request.keys.integrity.expose());
    put(out.confidentiality, out.confidentiality_size, request.keys.confidentiality.expose());
    put(out.combined, out.combined_size, request.keys.combined.expose());
    return out;
}

std::vector<WorkerProgram> worker_programs() {
    std::vector<WorkerProgram> programs;
#ifdef GMGATE_XFRMD
    programs.push_back({GMGATE_XFRMD, "netlink"});
#endif
#ifdef GMGATE_XFRMD_CHARON
    programs.push_back({GMGATE_XFRMD_CHARON, "libcharon 5.9.8"});
#endif
    return programs;
}

Worker::Worker(const Lab& lab, const std::string& program, std::uint32_t sa_limit) {
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    fd_ = pair[0];
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) become(program.c_str(), pair[1]);
    ::close(pair[1]);

    const gm_configuration fixed{.reqid = xfrm::Ownership{}.reqid.value,
                                 .mark_mask = 0x00ffffff,
                                 .spi_first = 0x10000000,
                                 .spi_last = 0xbfffffff,
                                 .sa_limit = sa_limit,
                                 .reserved = 0};
    // In two parts, as a long list of ports comes.
    for (const auto family : {Family::v4, Family::v6}) {
        const gm_header header{.version = GM_PROTOCOL_VERSION,
                               .kind = GM_CONFIGURE,
                               .sequence = 0,
                               .count = 1,
                               .flags = family == Family::v4 ? std::uint32_t{GM_MORE} : 0};
        const auto frame = bytes_of(header, fixed,
                                    gm_ports{.gateway = frame_of(lab.gateway_address(family)),
                                             .first = 6100,
                                             .last = 6101,
                                             .mode = GM_TRANSPORT,
                                             .reserved = 0});
        REQUIRE(send(fd_, frame.data(), frame.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(frame.size()));
    }
    const auto first = receive();
    REQUIRE_MESSAGE(first, program, " does not start");
    gm_header header;
    gm_ready ready;
    REQUIRE(first->size() == sizeof header + sizeof ready);
    std::memcpy(&header, first->data(), sizeof header);
    std::memcpy(&ready, first->data() + sizeof header, sizeof ready);
    CHECK(header.kind == GM_READY);
    CHECK(ready.pid == static_cast<std::uint32_t>(pid_));
    engine_.assign(ready.engine, strnlen(ready.engine, sizeof ready.engine));
}

Worker::~Worker() {
    if (fd_ >= 0) ::close(fd_);
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
}

int Worker::wait() {
    int status = -1;
    REQUIRE(waitpid(std::exchange(pid_, -1), &status, 0) > 0);
    return status;
}

int Worker::close_and_wait() {
    ::close(std::exchange(fd_, -1));
    return wait();
}

std::optional<Bytes> Worker::receive() {
    pollfd wanted{fd_, POLLIN, 0};
    if (poll(&wanted, 1, kPatienceMs) != 1) return std::nullopt;
    Bytes frame(GM_FRAME_LIMIT + 1);
    const auto size = recv(fd_, frame.data(), frame.size(), 0);
    if (size <= 0) return std::nullopt;
    frame.resize(static_cast<std::size_t>(size));
    gm_header header;
    REQUIRE(frame.size() >= sizeof header);
    std::memcpy(&header, frame.data(), sizeof header);
    CHECK(header.version == GM_PROTOCOL_VERSION);
    CHECK(frame.size() <= GM_FRAME_LIMIT);
    if (header.kind == GM_EVENT) {
        REQUIRE(frame.size() == sizeof header + sizeof(gm_event));
        std::memcpy(&events.emplace_back(), frame.data() + sizeof header, sizeof(gm_event));
    }
    return frame;
}

WorkerAnswer Worker::ask(gm_kind kind, const Bytes& body, std::uint32_t count) {
    const gm_header header{.version = GM_PROTOCOL_VERSION,
                           .kind = static_cast<std::uint16_t>(kind),
                           .sequence = ++sequence_,
                           .count = count,
                           .flags = 0};
    auto frame = bytes_of(header);
    frame.insert(frame.end(), body.begin(), body.end());
    return ask_raw(frame);
}

WorkerAnswer Worker::ask_raw(const Bytes& request) {
    REQUIRE(send(fd_, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size()));
    WorkerAnswer answer;
    for (;;) {
        const auto frame = receive();
        REQUIRE_MESSAGE(frame, "no answer from ", engine_);
        answer.all.insert(answer.all.end(), frame->begin(), frame->end());
        gm_header header;
        std::memcpy(&header, frame->data(), sizeof header);
        const auto body = std::span(*frame).subspan(sizeof header);
        if (header.kind == GM_DONE) {
            REQUIRE(body.size() == sizeof answer.done);
            std::memcpy(&answer.done, body.data(), body.size());
            return answer;
        }
        const auto take = [&](auto& list) {
            REQUIRE(body.size() == header.count * sizeof list[0]);
            const auto before = list.size();
            list.resize(before + header.count);
            std::memcpy(list.data() + before, body.data(), body.size());
        };
        if (header.kind == GM_REPORTS) take(answer.reports);
        if (header.kind == GM_FINDINGS) take(answer.findings);
        if (header.kind == GM_AGAIN) answer.reports.clear();
    }
}

std::optional<gm_event> Worker::hears(gm_event_kind kind, std::uint32_t spi) {
    for (std::size_t next = 0;;) {
        for (; next < events.size(); ++next)
            if (events[next].event == static_cast<std::uint32_t>(kind) && (spi == 0 || events[next].spi == spi))
                return events[next];
        if (!receive()) return std::nullopt;
    }
}

}  // namespace gmgate::test
