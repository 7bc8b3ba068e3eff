#include "daemon/operate/packet_tap.h"

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <tuple>

#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/spawn.h"

namespace gmgate::daemon {
namespace {

constexpr std::uint32_t kSnap = 2048;       // octets of a packet that reach us: enough for the headers of a REGISTER
constexpr int kReceiveBuffer = 256 * 1024;  // what does not fit is dropped in the kernel and costs nothing here
constexpr std::size_t kTextLimit = 1600;

std::uint16_t u16(std::span<const std::uint8_t> p, std::size_t at) {
    return static_cast<std::uint16_t>(p[at] << 8 | p[at + 1]);
}
std::uint32_t u32(std::span<const std::uint8_t> p, std::size_t at) {
    return static_cast<std::uint32_t>(u16(p, at)) << 16 | u16(p, at + 2);
}

/// A classic BPF program, built with jumps to its two ends. Packets begin with the IP header (SOCK_DGRAM).
class Program {
public:
    Program(bool is_v6, const std::set<std::uint16_t>& ports, bool with_esp) {
        const std::uint32_t protocol_at = is_v6 ? 6 : 9;
        // Only what came for this host: not what passes by, and nothing of our own.
        add(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(SKF_AD_OFF + SKF_AD_PKTTYPE));
        jump(BPF_JEQ, PACKET_HOST, kNext, kDrop);
        // A packet that an inbound SA has marked was decrypted (ESP offload shows it a second time).
        add(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(SKF_AD_OFF + SKF_AD_MARK));
        jump(BPF_JEQ, 0, kNext, kDrop);
        add(BPF_LD | BPF_B | BPF_ABS, protocol_at);
        jump(BPF_JEQ, IPPROTO_ESP, with_esp ? kTake : kDrop, kNext);
        jump(BPF_JEQ, IPPROTO_UDP, kSkipOne, kNext);
        jump(BPF_JEQ, IPPROTO_TCP, kNext, kDrop);
        if (is_v6) {
            add(BPF_LD | BPF_H | BPF_ABS, 40 + 2);
        } else {
            add(BPF_LD | BPF_H | BPF_ABS, 6);
            jump(BPF_JSET, 0x1fff, kDrop, kNext);  // later fragments have no ports
            add(BPF_LDX | BPF_B | BPF_MSH, 0);
            add(BPF_LD | BPF_H | BPF_IND, 2);
        }
        // A jump reaches 255 instructions, so both ends stand before the ports, of which there may be many.
        add(BPF_JMP | BPF_JA, 2);
        add(BPF_RET | BPF_K, 0);
        const auto drop = code_.size() - 1;
        add(BPF_RET | BPF_K, kSnap);
        for (const auto port : ports) {
            jump(BPF_JEQ, port, kNext, kSkipOne);
            add(BPF_RET | BPF_K, kSnap);
        }
        add(BPF_RET | BPF_K, 0);
        for (const auto& [at, yes, no] : jumps_) {
            const auto target = [&, here = at](End end) -> std::uint8_t {
                switch (end) {
                    case kNext:
                        return 0;
                    case kSkipOne:
                        return 1;
                    case kDrop:
                        return static_cast<std::uint8_t>(drop - here - 1);
                    case kTake:
                        return static_cast<std::uint8_t>(drop - here);
                }
                return 0;
            };
            code_[at].jt = target(yes);
            code_[at].jf = target(no);
        }
    }
    bool attach(int fd) {
        sock_fprog program{static_cast<unsigned short>(code_.size()), code_.data()};
        const int on = 1;
        return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0 &&
               setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof on) == 0;
    }

private:
    enum End { kNext, kSkipOne, kDrop, kTake };
    void add(int code, std::uint32_t k) { code_.push_back({static_cast<std::uint16_t>(code), 0, 0, k}); }
    void jump(int how, std::uint32_t k, End yes, End no) {
        jumps_.emplace_back(code_.size(), yes, no);
        add(BPF_JMP | how | BPF_K, k);
    }
    std::vector<sock_filter> code_;
    std::vector<std::tuple<std::size_t, End, End>> jumps_;
};

int protocol_of(bool is_v6) { return is_v6 ? ETH_P_IPV6 : ETH_P_IP; }

// Protocol 0: nothing is received any more (kernel: packet_do_bind).
bool listen_to(int fd, int protocol) {
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(static_cast<std::uint16_t>(protocol));
    return bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

Result<sip::FileDescriptor> open_tap_socket(Program program) {
    // Protocol 0 first: nothing is queued before the filter stands.
    sip::FileDescriptor fd(::socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.is_open()) return system_failure(Reaction::broken, "packet tap: AF_PACKET socket", errno);
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer);
    if (!program.attach(fd.get())) return system_failure(Reaction::broken, "packet tap: filter", errno);
    return fd;
}

}  // namespace

Result<TapSockets> open_tap_sockets(const TapSettings& settings) {
    std::set<std::uint16_t> ports;
    for (const auto& one : settings.protected_ports) ports.insert(one.port.value);
    TapSockets sockets;
    for (const bool is_v6 : {false, true}) {
        auto clear = open_tap_socket(Program(is_v6, ports, false));
        if (!clear) return std::unexpected(clear.error());
        if (!listen_to(clear->get(), protocol_of(is_v6)))
            return system_failure(Reaction::broken, "packet tap: bind", errno);
        auto esp = open_tap_socket(Program(is_v6, {}, true));
        if (!esp) return std::unexpected(esp.error());
        sockets.clear[is_v6] = std::move(*clear);
        sockets.esp[is_v6] = std::move(*esp);
    }
    return sockets;
}

std::optional<TappedPacket> read_packet(std::span<const std::uint8_t> p) {
    if (p.empty()) return std::nullopt;
    TappedPacket packet;
    std::size_t at = 0;
    std::uint8_t protocol = 0;
    if (p[0] >> 4 == 4) {
        at = static_cast<std::size_t>(p[0] & 0x0f) * 4;
        if (at < 20 || p.size() < at) return std::nullopt;
        if ((u16(p, 6) & 0x1fff) != 0) return std::nullopt;
        protocol = p[9];
        std::array<std::uint8_t, 4> from{}, to{};
        std::copy_n(p.begin() + 12, 4, from.begin());
        std::copy_n(p.begin() + 16, 4, to.begin());
        packet.source.address = Address::v4(from);
        packet.destination.address = Address::v4(to);
    } else if (p[0] >> 4 == 6) {
        at = 40;
        if (p.size() < at) return std::nullopt;
        protocol = p[6];
        std::array<std::uint8_t, 16> from{}, to{};
        std::copy_n(p.begin() + 8, 16, from.begin());
        std::copy_n(p.begin() + 24, 16, to.begin());
        packet.source.address = Address::v6(from);
        packet.destination.address = Address::v6(to);
    } else {
        return std::nullopt;
    }
    if (p.size() < at + 8) return std::nullopt;
    if (protocol == IPPROTO_ESP) {
        packet.is_esp = true;
        packet.spi = Spi{u32(p, at)};
        return packet;
    }
    if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP) return std::nullopt;
    packet.is_tcp = protocol == IPPROTO_TCP;
    packet.source.port = Port{u16(p, at)};
    packet.destination.port = Port{u16(p, at + 2)};
    if (!packet.is_tcp)
        packet.text = {reinterpret_cast<const char*>(p.data()) + at + 8, std::min(p.size() - at - 8, kTextLimit)};
    return packet;
}

std::string impi_in_text(std::string_view text) {
    if (text.find(" SIP/2.0\r\n") == std::string_view::npos) return {};
    constexpr std::string_view key = "username=\"";
    const auto at = text.find(key);
    if (at == std::string_view::npos) return {};
    const auto rest = text.substr(at + key.size());
    const auto end = rest.find('"');
    return end == std::string_view::npos || end > 255 ? std::string{} : std::string(rest.substr(0, end));
}

struct PacketTap::Impl : std::enable_shared_from_this<Impl> {
    Impl(asio::any_io_executor e, const Clock& c, TapSettings s, std::function<bool(Spi)> known)
        : executor(std::move(e)), clock(c), settings(std::move(s)), is_known(std::move(known)), watch_timer(executor) {
        for (const auto& one : settings.protected_ports) {
            protected_ports.insert(one);
            ports.insert(one.port.value);
        }
    }
    Result<void> begin();
    // `keep`: a coroutine may begin after the tap is gone.
    Task<void> read(std::shared_ptr<Impl> keep, std::shared_ptr<asio::posix::stream_descriptor> socket);
    Task<void> watch(std::shared_ptr<Impl> keep);
    void take(std::span<const std::uint8_t> packet);
    void note(Sighting sighting);
    void set_esp(bool on);
    void close();

    using Key = std::tuple<Sighting::Kind, Endpoint, Endpoint, Spi, std::string>;
    asio::any_io_executor executor;
    const Clock& clock;
    TapSettings settings;
    std::function<bool(Spi)> is_known;
    std::set<Endpoint> protected_ports;
    std::set<std::uint16_t> ports;
    std::optional<TapSockets> given;
    using Socket = std::shared_ptr<asio::posix::stream_descriptor>;  // shared with read()
    std::vector<Socket> clear, esp;                                  // IPv4, IPv6
    asio::steady_timer watch_timer;
    std::map<Key, Sighting> sightings;
    TapCounters counters;
    TimePoint second{}, esp_until{};
    std::size_t this_second = 0;
    bool esp_on = false, stopped = false;
};

Result<void> PacketTap::Impl::begin() {
    if (!given) {
        auto opened = open_tap_sockets(settings);
        if (!opened) return std::unexpected(opened.error());
        given = std::move(*opened);
    }
    for (auto [from, to] : {std::pair{&given->clear, &clear}, std::pair{&given->esp, &esp}})
        for (auto& socket : *from) {
            to->push_back(std::make_shared<asio::posix::stream_descriptor>(executor, socket.release()));
            spawn(executor, read(shared_from_this(), to->back()), "packet-tap");
        }
    spawn(executor, watch(shared_from_this()), "packet-tap-watch");
    return {};
}

void PacketTap::Impl::set_esp(bool on) {
    if (esp_on == on) return;
    esp_on = on;
    if (on) ++counters.windows;
    for (std::size_t i = 0; i < esp.size(); ++i)
        static_cast<void>(listen_to(esp[i]->native_handle(), on ? protocol_of(i == 1) : 0));
}

Task<void> PacketTap::Impl::read([[maybe_unused]] std::shared_ptr<Impl> keep,
                                 std::shared_ptr<asio::posix::stream_descriptor> socket) {
    std::array<std::uint8_t, kSnap> buffer{};
    while (!stopped) {
        asio::error_code error;
        co_await socket->async_wait(asio::posix::stream_descriptor::wait_read,
                                    asio::redirect_error(asio::use_awaitable, error));
        if (error || stopped) co_return;
        for (int i = 0; i < 64; ++i) {  // then others have their turn
            const auto got = recv(socket->native_handle(), buffer.data(), buffer.size(), 0);
            if (got <= 0) break;
            take({buffer.data(), static_cast<std::size_t>(got)});
        }
    }
}

// Once a second: has the kernel dropped ESP for want of an SA?
Task<void> PacketTap::Impl::watch([[maybe_unused]] std::shared_ptr<Impl> keep) {
    auto seen = value_of(xfrm_statistics(), "XfrmInNoStates");
    while (!stopped) {
        watch_timer.expires_after(std::chrono::seconds{1});
        asio::error_code error;
        co_await watch_timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
        if (error || stopped) co_return;
        const auto now = value_of(xfrm_statistics(), "XfrmInNoStates");
        if (now != seen) esp_until = clock.now() + settings.esp_window;
        seen = now;
        set_esp(clock.now() < esp_until);
    }
}

void PacketTap::Impl::take(std::span<const std::uint8_t> bytes) {
    const auto now = clock.now();
    if (now - second >= std::chrono::seconds{1}) {
        second = now;
        this_second = 0;
    }
    if (++this_second > settings.packets_per_second) {
        ++counters.over_rate;
        return;
    }
    ++counters.packets;
    const auto packet = read_packet(bytes);
    if (!packet) return;
    Sighting sighting;
    sighting.source = packet->source;
    sighting.destination = packet->destination;
    sighting.is_tcp = packet->is_tcp;
    if (packet->is_esp) {
        if (is_known(packet->spi)) return;
        sighting.kind = Sighting::Kind::unknown_spi;
        sighting.spi = packet->spi;
        ++counters.unknown_spi;
    } else {
        if (!protected_ports.contains(packet->destination)) return;
        sighting.kind = Sighting::Kind::clear_protected;
        sighting.impi = impi_in_text(packet->text);
        ++counters.clear_protected;
    }
    note(std::move(sighting));
}

void PacketTap::Impl::note(Sighting sighting) {
    const auto now = clock.wall();
    Key key{sighting.kind, sighting.source, sighting.destination, sighting.spi, sighting.impi};
    auto at = sightings.find(key);
    if (at == sightings.end()) {
        if (sightings.size() >= settings.sightings) {
            sightings.erase(std::ranges::min_element(sightings, {}, [](const auto& one) { return one.second.last; }));
            ++counters.forgotten;
        }
        sighting.first = now;
        at = sightings.emplace(std::move(key), std::move(sighting)).first;
    }
    ++at->second.count;
    at->second.last = now;
}

void PacketTap::Impl::close() {
    stopped = true;
    watch_timer.cancel();
    asio::error_code ignored;
    for (const auto* sockets : {&clear, &esp})
        for (const auto& socket : *sockets) socket->close(ignored);
    clear.clear();
    esp.clear();
}

PacketTap::PacketTap(asio::any_io_executor executor, const Clock& clock, TapSettings settings,
                     std::function<bool(Spi)> is_known)
    : impl_(std::make_shared<Impl>(std::move(executor), clock, std::move(settings), std::move(is_known))) {}
PacketTap::~PacketTap() { close(); }

void PacketTap::use(TapSockets sockets) { impl_->given = std::move(sockets); }

Result<void> PacketTap::open() {
    if (impl_->ports.empty()) return {};
    return impl_->begin();
}

void PacketTap::close() { impl_->close(); }
bool PacketTap::is_open() const { return !impl_->clear.empty(); }
const TapCounters& PacketTap::counters() const { return impl_->counters; }
void PacketTap::take(std::span<const std::uint8_t> packet) { impl_->take(packet); }

std::vector<Sighting> PacketTap::find(const std::function<bool(const Sighting&)>& wanted) const {
    std::vector<Sighting> found;
    for (const auto& [key, sighting] : impl_->sightings)
        if (wanted(sighting)) found.push_back(sighting);
    std::ranges::sort(found, {}, &Sighting::last);
    return found;
}

}  // namespace gmgate::daemon
