// Who sends what the kernel drops without telling: ESP for an SPI that no SA has, and clear UDP or TCP to a protected
// port. An AF_PACKET socket for each family with a BPF filter, so that ordinary traffic costs a few instructions and
// never reaches this process.
//
// Packets in clear to protected ports are rare by themselves and always looked for. ESP is what all phones send: its
// sockets listen only for a while after the kernel's own counter XfrmInNoStates has grown, and what comes then is read
// at a limited rate. The filters are locked: whoever has the sockets later sees nothing else through them.
#pragma once

#include <array>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/task.h"
#include "daemon/operate/evidence.h"
#include "sip/transport/socket.h"

namespace gmgate::daemon {

struct TapSettings {
    std::vector<Endpoint> protected_ports;  ///< of all access addresses, both families
    std::size_t sightings = 4096;           ///< kept; the one not seen for longest gives way
    std::size_t packets_per_second = 500;   ///< looked at; the rest of a second is dropped and counted
    std::chrono::seconds esp_window{20};    ///< how long ESP is looked at after the counter has grown
};

/// A packet as far as the tap reads it; nothing for one that it does not care about.
struct TappedPacket {
    bool is_esp = false, is_tcp = false;
    Endpoint source, destination;  ///< ports 0 for ESP
    Spi spi;
    std::string_view text;  ///< of UDP, the beginning of the payload
};
/// `packet` begins with its IP header. Hostile input: lengths are checked, extension headers of IPv6 are not followed.
std::optional<TappedPacket> read_packet(std::span<const std::uint8_t> packet);
/// The private identity that a REGISTER names, by its Authorization or To; empty when there is none.
std::string impi_in_text(std::string_view text);

struct TapCounters {
    std::uint64_t packets = 0, over_rate = 0, unknown_spi = 0, clear_protected = 0, forgotten = 0, windows = 0;
};

/// The sockets of a tap: opened with CAP_NET_RAW, used without. [0] IPv4, [1] IPv6.
struct TapSockets {
    std::array<sip::FileDescriptor, 2> clear;  ///< packets in clear to protected ports
    std::array<sip::FileDescriptor, 2> esp;    ///< all ESP; listens while it is bound to a protocol
};
/// Error: what the system says.
Result<TapSockets> open_tap_sockets(const TapSettings& settings);

class PacketTap {
public:
    /// `is_known` says whether an inbound SA of ours has this SPI.
    PacketTap(asio::any_io_executor executor, const Clock& clock, TapSettings settings,
              std::function<bool(Spi)> is_known);
    ~PacketTap();

    /// Sockets that were opened while the process still had the right to it.
    void use(TapSockets sockets);
    /// Begins, with sockets of its own when it was given none. Error: what the system says; the gateway works without,
    /// `why` knows less.
    Result<void> open();
    void close();
    bool is_open() const;
    /// Those that `wanted` accepts, oldest first.
    std::vector<Sighting> find(const std::function<bool(const Sighting&)>& wanted) const;
    const TapCounters& counters() const;

    /// Takes one packet, as the sockets do (tests).
    void take(std::span<const std::uint8_t> packet);

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with its coroutines
};

}  // namespace gmgate::daemon
