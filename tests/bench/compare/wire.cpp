#include "tests/bench/compare/wire.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <stdexcept>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <strings.h>
#include <unistd.h>

namespace gmgate::bench {
namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what + ": " + std::strerror(errno)); }

std::size_t length_of(const Host& host) { return host.family == AF_INET6 ? 16 : 4; }

/// The socket option of both families, first IPv4's.
void set(int fd, int family, int ip_option, int ipv6_option) {
    const int one = 1;
    const bool is_ipv6 = family == AF_INET6;
    if (setsockopt(fd, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, is_ipv6 ? ipv6_option : ip_option, &one, sizeof one) != 0)
        fail("setsockopt");
}

int bound_socket(const Peer& at, int type) {
    const int fd = socket(at.host.family, type | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    const int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    set(fd, at.host.family, IP_FREEBIND, IPV6_FREEBIND);
    sockaddr_storage address{};
    if (bind(fd, reinterpret_cast<const sockaddr*>(&address), at.put(address)) != 0) fail("bind " + at.text());
    return fd;
}

}  // namespace

Host Host::parse(const std::string& text) {
    Host out;
    out.family = text.find(':') == std::string::npos ? AF_INET : AF_INET6;
    if (inet_pton(out.family, text.c_str(), out.octets.data()) != 1) throw std::runtime_error("no address: " + text);
    return out;
}

std::string Host::text() const {
    char buffer[INET6_ADDRSTRLEN] = "";
    inet_ntop(family, octets.data(), buffer, sizeof buffer);
    return family == AF_INET6 ? "[" + std::string(buffer) + "]" : buffer;
}

Host Host::plus(std::uint32_t n) const {
    Host out = *this;
    std::uint8_t* last = out.octets.data() + length_of(*this) - 4;
    std::uint32_t value = 0;
    std::memcpy(&value, last, 4);
    value = htonl(ntohl(value) + n);
    std::memcpy(last, &value, 4);
    return out;
}

std::uint32_t Host::number_from(const Host& first) const {
    std::uint32_t own = 0, other = 0;
    std::memcpy(&own, octets.data() + length_of(*this) - 4, 4);
    std::memcpy(&other, first.octets.data() + length_of(first) - 4, 4);
    return ntohl(own) - ntohl(other);
}

Peer Peer::parse(std::string_view text) {
    Peer out{.host = {}, .port = 5060};
    std::string_view host = text.substr(0, text.starts_with('[') ? text.find(']') : text.find(':'));
    const std::string_view rest = text.substr(host.size());
    if (host.starts_with('[')) host.remove_prefix(1);
    out.host = Host::parse(std::string(host));
    if (const auto colon = rest.find(':'); colon != std::string_view::npos)
        std::from_chars(rest.data() + colon + 1, rest.data() + rest.size(), out.port);
    return out;
}

socklen_t Peer::put(sockaddr_storage& out) const {
    if (host.family == AF_INET) {
        auto& v4 = reinterpret_cast<sockaddr_in&>(out);
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        std::memcpy(&v4.sin_addr, host.octets.data(), 4);
        return sizeof v4;
    }
    auto& v6 = reinterpret_cast<sockaddr_in6&>(out);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::memcpy(&v6.sin6_addr, host.octets.data(), 16);
    return sizeof v6;
}

Peer Peer::from(const sockaddr_storage& address) {
    Peer out;
    out.host.family = address.ss_family;
    if (address.ss_family == AF_INET) {
        const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
        std::memcpy(out.host.octets.data(), &v4.sin_addr, 4);
        out.port = ntohs(v4.sin_port);
    } else {
        const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
        std::memcpy(out.host.octets.data(), &v6.sin6_addr, 16);
        out.port = ntohs(v6.sin6_port);
    }
    return out;
}

int udp_socket(const Peer& at) {
    const int fd = bound_socket(at, SOCK_DGRAM);
    set(fd, at.host.family, IP_PKTINFO, IPV6_RECVPKTINFO);
    const int octets = 8 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof octets);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &octets, sizeof octets);
    return fd;
}

int tcp_listener(const Peer& at) {
    const int fd = bound_socket(at, SOCK_STREAM);
    if (listen(fd, 1024) != 0) fail("listen");
    return fd;
}

int tcp_connection(const Peer& from, const Peer& to) {
    const int fd = bound_socket(from, SOCK_STREAM);
    sockaddr_storage address{};
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), to.put(address)) == 0) return fd;
    close(fd);
    return -1;
}

void send_datagram(int fd, const Host& from, const Peer& to, std::string_view text) {
    sockaddr_storage address{};
    iovec part{const_cast<char*>(text.data()), text.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(in6_pktinfo))]{};
    msghdr message{};
    message.msg_namelen = to.put(address);
    message.msg_name = &address;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    auto* field = reinterpret_cast<cmsghdr*>(control);
    if (from.family == AF_INET) {
        in_pktinfo info{};
        std::memcpy(&info.ipi_spec_dst, from.octets.data(), 4);
        *field = {CMSG_LEN(sizeof info), IPPROTO_IP, IP_PKTINFO};
        std::memcpy(CMSG_DATA(field), &info, sizeof info);
        message.msg_controllen = CMSG_SPACE(sizeof info);
    } else {
        in6_pktinfo info{};
        std::memcpy(&info.ipi6_addr, from.octets.data(), 16);
        *field = {CMSG_LEN(sizeof info), IPPROTO_IPV6, IPV6_PKTINFO};
        std::memcpy(CMSG_DATA(field), &info, sizeof info);
        message.msg_controllen = CMSG_SPACE(sizeof info);
    }
    static int complaints = 0;
    if (sendmsg(fd, &message, 0) < 0 && complaints++ < 5) std::perror(("send to " + to.text()).c_str());
}

int Inbox::take(int fd) {
    for (int i = 0; i < kBatch; ++i) {
        parts_[i] = {text_[i].data(), kOctets};
        headers_[i] = {};
        headers_[i].msg_hdr.msg_iov = &parts_[i];
        headers_[i].msg_hdr.msg_iovlen = 1;
        headers_[i].msg_hdr.msg_name = &from_[i];
        headers_[i].msg_hdr.msg_namelen = sizeof from_[i];
        headers_[i].msg_hdr.msg_control = control_[i].data();
        headers_[i].msg_hdr.msg_controllen = control_[i].size();
    }
    return std::max(0, recvmmsg(fd, headers_.data(), kBatch, MSG_DONTWAIT, nullptr));
}

Datagram Inbox::operator[](int i) const {
    Datagram out{.text = {text_[i].data(), headers_[i].msg_len}, .from = Peer::from(from_[i]), .to = {}};
    out.to.family = out.from.host.family;
    auto header = headers_[i].msg_hdr;
    for (auto* field = CMSG_FIRSTHDR(&header); field != nullptr; field = CMSG_NXTHDR(&header, field)) {
        if (field->cmsg_level == IPPROTO_IP && field->cmsg_type == IP_PKTINFO)
            std::memcpy(out.to.octets.data(), CMSG_DATA(field) + offsetof(in_pktinfo, ipi_addr), 4);
        if (field->cmsg_level == IPPROTO_IPV6 && field->cmsg_type == IPV6_PKTINFO)
            std::memcpy(out.to.octets.data(), CMSG_DATA(field), 16);
    }
    return out;
}

bool is_field(std::string_view line, std::string_view name, std::string_view compact) {
    const auto is = [&](std::string_view n) {
        return !n.empty() && line.size() > n.size() && line[n.size()] == ':' &&
               strncasecmp(line.data(), n.data(), n.size()) == 0;
    };
    return is(name) || is(compact);
}

std::string_view header(std::string_view message, std::string_view name) {
    for (auto at = message.find("\r\n"); at != std::string_view::npos; at = message.find("\r\n", at + 2)) {
        std::string_view line = message.substr(at + 2);
        if (line.starts_with("\r\n")) break;
        if (!is_field(line, name)) continue;
        line = line.substr(name.size() + 1, line.find("\r\n") - name.size() - 1);
        while (line.starts_with(' ')) line.remove_prefix(1);
        return line;
    }
    return {};
}

std::string_view text_of(std::string_view value, std::string_view name) {
    for (auto at = value.find(name); at != std::string_view::npos; at = value.find(name, at + 1)) {
        const auto end = at + name.size();
        if (end >= value.size() || value[end] != '=') continue;
        if (at > 0 && std::string_view("; ,").find(value[at - 1]) == std::string_view::npos) continue;
        const auto text = value.substr(end + 1);
        return text.substr(0, text.find_first_of(";, \r\n"));
    }
    return {};
}

std::uint32_t number_of(std::string_view value, std::string_view name) {
    const auto text = text_of(value, name);
    std::uint32_t out = 0;
    std::from_chars(text.data(), text.data() + text.size(), out);
    return out;
}

int status_of(std::string_view response) {
    int out = 0;
    if (response.size() > 11) std::from_chars(response.data() + 8, response.data() + 11, out);
    return out;
}

}  // namespace gmgate::bench
