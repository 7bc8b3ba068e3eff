// Which sockets a start would not get.
#include <dirent.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include "daemon/config/access.h"
#include "daemon/preflight/finding.h"
#include "sip/transport/socket.h"

namespace gmgate::daemon {
namespace {

/// "0100007F:13C4" as /proc/net/udp writes an end.
std::string proc_text(const Endpoint& end) {
    std::string text;
    for (std::size_t at = 0; at < end.address.size(); at += 4) {
        std::uint32_t word = 0;
        std::memcpy(&word, end.address.bytes().data() + at, sizeof word);
        text += fmt::format("{:08X}", word);
    }
    return text + fmt::format(":{:04X}", end.port.value);
}

std::set<std::string> inodes_at(const OpenedSocket& wanted) {
    std::set<std::string> inodes;
    for (const char* suffix : {"", "6"}) {
        std::ifstream file(fmt::format("/proc/net/{}{}", wanted.is_udp ? "udp" : "tcp", suffix));
        const std::string end = proc_text(wanted.local), port = end.substr(end.find(':'));
        for (std::string line; std::getline(file, line);) {
            std::istringstream words(line);
            std::string skip, local, remote, state, inode;
            words >> skip >> local >> remote >> state;
            const bool is_any = local == std::string(local.size() - port.size(), '0') + port;
            if ((local != end && !is_any) || (!wanted.is_udp && state != "0A")) continue;
            for (int i = 0; i < 6; ++i) words >> inode;  // queues, timer, retransmissions, uid, timeout, inode
            inodes.insert(inode);
        }
    }
    return inodes;
}

/// "kamailio (pid 812)", empty when it cannot be seen.
std::string holder_of(const OpenedSocket& socket) {
    const auto inodes = inodes_at(socket);
    std::error_code ignored;
    for (const auto& process : std::filesystem::directory_iterator("/proc", ignored)) {
        const auto pid = process.path().filename().string();
        if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
        for (const auto& file : std::filesystem::directory_iterator(process.path() / "fd", ignored)) {
            const auto target = std::filesystem::read_symlink(file.path(), ignored).string();
            if (!target.starts_with("socket:[") || !inodes.contains(target.substr(8, target.size() - 9))) continue;
            std::ifstream name(process.path() / "comm");
            std::string word;
            std::getline(name, word);
            return fmt::format("{} (pid {})", word, pid);
        }
    }
    return {};
}

// As the daemon binds: a connection that has ended stands in nobody's way.
int bind_errno(const OpenedSocket& wanted) {
    const sip::FileDescriptor fd(
        socket(wanted.local.address.af(), (wanted.is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (!wanted.is_udp) setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_storage address{};
    const auto length = wanted.local.to_sockaddr(address);
    return bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0 ? 0 : errno;
}

}  // namespace

std::vector<OpenedSocket> sockets_of(const Config& config) {
    std::vector<OpenedSocket> all;
    for (const Endpoint& local : config.core.listen) {
        if (config.core.transport != CoreTransport::tls) all.push_back({local, true});
        all.push_back({local, false});
    }
    for (const auto& interface : config.sip_interfaces)
        for (const auto& port : interface.sip_ports) {
            if (port.udp) all.push_back({{port.address, port.port}, true});
            if (port.tcp || port.tls) all.push_back({{port.address, port.port}, false});
        }
    const AccessMap accesses(config);
    for (const auto& local : accesses.protected_ports())
        for (const bool is_udp : {true, false}) all.push_back({local, is_udp});
    for (const auto& address : accesses.encapsulation_addresses())
        all.push_back({{address, xfrm::kEncapsulationPort}, true});
    if (config.metrics_listen.port.value != 0) all.push_back({config.metrics_listen, false});
    std::ranges::sort(all);
    const auto twice = std::ranges::unique(all);
    all.erase(twice.begin(), twice.end());
    return all;
}

std::vector<Finding> check_ports(const Config& config) {
    std::vector<Finding> findings;
    for (const auto& wanted : sockets_of(config)) {
        const int code = bind_errno(wanted);
        if (code == 0 || code == EADDRNOTAVAIL) continue;  // check_addresses() tells of an address that is not here
        const auto where = fmt::format("{}/{}", wanted.local.to_string(), wanted.is_udp ? "udp" : "tcp");
        if (code != EADDRINUSE) {
            findings.push_back({.what = fmt::format("{} cannot be opened: {}", where, std::strerror(code)),
                                .fix = "choose another port, or run as root"});
            continue;
        }
        const auto holder = holder_of(wanted);
        if (holder.starts_with("gmgated ")) continue;
        findings.push_back(
            {.what = fmt::format("{} is in use by {}", where, holder.empty() ? "another program" : holder),
             .fix = "end it, or choose another port"});
    }
    return findings;
}

}  // namespace gmgate::daemon
