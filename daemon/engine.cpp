#include "daemon/engine.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include "daemon/config/access.h"
#include "xfrm/engine/protocol.h"

#ifndef GMGATE_LIBEXEC
#define GMGATE_LIBEXEC "/usr/libexec/gmgate"
#endif

namespace gmgate::daemon {
namespace {

Result<std::string> program(const std::string& name) {
    std::array<char, PATH_MAX> own{};
    const auto length = readlink("/proc/self/exe", own.data(), own.size() - 1);
    std::string beside(own.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
    beside.resize(beside.rfind('/') == std::string::npos ? 0 : beside.rfind('/') + 1);
    for (const auto& path : {beside + name, std::string(GMGATE_LIBEXEC) + "/" + name})
        if (access(path.c_str(), X_OK) == 0) return path;
    return failure(
        Reaction::refused,
        name + " is neither beside gmgated nor in " GMGATE_LIBEXEC ": install it, or choose another [xfrm] sa-engine",
        ENOENT);
}

// Nothing of ours goes along but what the log and a sanitizer want: no notify socket, no list of inherited descriptors.
std::vector<std::string> environment() {
    std::vector<std::string> kept;
    for (const char* name : {"JOURNAL_STREAM", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "STRONGSWAN_CONF"})
        if (const char* value = std::getenv(name)) kept.push_back(std::string(name) + "=" + value);
    return kept;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> list;
    for (auto& word : words) list.push_back(word.data());
    list.push_back(nullptr);
    return list;
}

// In the child: everything that could fail here has been prepared.
[[noreturn]] void become(const std::string& path, char* const* arguments, char* const* environment, int socket) {
    if (dup2(socket, GM_GUARD_FD) >= 0 && close_range(GM_GUARD_FD + 1, ~0U, 0) == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, nullptr);
        execve(path.c_str(), arguments, environment);
    }
    _exit(127);
}

}  // namespace

xfrm::EngineConfiguration engine_configuration(const Config& config) {
    xfrm::EngineConfiguration told;
    told.owner = {.reqid = ReqId{config.xfrm.reqid}, .mark_mask = config.xfrm.mark_mask};
    told.spi_first = config.xfrm.spi_start;
    told.spi_last = config.xfrm.spi_end;
    // A ceiling for somebody who has taken this process over, not a limit of ours: [limits] may be raised by a reload.
    constexpr std::uint64_t least = 1'000'000;
    const auto planned = 4 * (2 * config.limits.registrations + config.limits.challenges);
    told.sa_limit =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(std::max(4 * std::uint64_t{planned}, least), UINT32_MAX));
    const AccessMap accesses(config);
    std::set<std::pair<Address, const ImsAkaProfile*>> done;
    for (const auto& access : accesses.all()) {
        if (!access.profile || !done.insert({access.address, access.profile}).second) continue;
        for (const auto port : access.profile->protected_server_ports)
            told.ports.push_back({access.address, port, port});
        if (!access.profile->client_ports().empty())
            told.ports.push_back({access.address, access.profile->start_protected_client_port,
                                  access.profile->end_protected_client_port});
        if (access.profile->nat.is_on)
            told.ports.push_back({access.address, access.profile->nat.start_protected_port,
                                  access.profile->nat.end_protected_port, xfrm::Mode::udp_enc_tun});
    }
    return told;
}

Result<void> check_engine(const Config& config) {
    if (config.xfrm.sa_engine == SaEngine::in_process) return {};
    if (const auto path = program("gmgate-xfrmd"); !path) return std::unexpected(path.error());
    if (config.xfrm.sa_engine != SaEngine::libcharon) return {};
    const auto engine = program("gmgate-xfrmd-charon");
    return engine ? Result<void>{} : std::unexpected(engine.error());
}

std::vector<xfrm::NatBlock> nat_blocks(const Config& config) {
    std::vector<xfrm::NatBlock> blocks;
    for (const auto& request : AccessMap(config).guard_requests())
        if (request.nat) blocks.push_back({request.gateway, *request.nat});
    return blocks;
}

Result<sip::FileDescriptor> start_engine(const Config& config, const ClusterConfig* cluster) {
    const auto path = program("gmgate-xfrmd");
    if (!path) return std::unexpected(path.error());
    std::vector<std::string> words{*path, "--guardian"};
    if (config.xfrm.sa_engine == SaEngine::libcharon) {
        const auto engine = program("gmgate-xfrmd-charon");
        if (!engine) return std::unexpected(engine.error());
        words.insert(words.end(), {"--engine", *engine});
    }
    auto kept = environment();
    if (cluster) {
        kept.push_back("GMGATE_CLUSTER=" + cluster->name);
        kept.push_back("GMGATE_CLUSTER_SECRET=" + cluster->secret_file);
    }
    const auto arguments = pointers(words), variables = pointers(kept);

    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
        return system_failure(Reaction::refused, "no socket to the SA engine", errno);
    sip::FileDescriptor ours(ends[0]), theirs(ends[1]);
    const pid_t child = fork();
    if (child < 0) return system_failure(Reaction::refused, "the SA engine cannot be started", errno);
    if (child == 0) become(*path, arguments.data(), variables.data(), theirs.get());
    theirs.close();
    for (const auto& frame : xfrm::configuration_frames(engine_configuration(config)))
        if (send(ours.get(), frame.data(), frame.size(), MSG_NOSIGNAL) < 0)
            return system_failure(Reaction::refused, "the SA engine ended at once; its own lines say why", errno);
    return ours;
}

}  // namespace gmgate::daemon
