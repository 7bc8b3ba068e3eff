// What crosses the access side: a packet socket of its own, and of what it hears only ESP, fragments, and what goes to
// or comes from the gateway's unprotected ports.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "base/error.h"
#include "daemon/config/config.h"
#include "lab/packet.h"

namespace gmgate::lab {

class AccessCapture {
public:
    struct Packet {
        std::string bytes;
        std::uint64_t nanoseconds = 0;  ///< since 1970
        bool is_outward = false;
        IpPacket ip;
    };

    /// Needs CAP_NET_RAW. Hears all interfaces of the caller's network namespace from here on. Reaction::refused with
    /// the system's words.
    static Result<AccessCapture> open(const daemon::Config& config);
    AccessCapture(AccessCapture&& other) noexcept;
    AccessCapture& operator=(AccessCapture&&) = delete;
    ~AccessCapture();

    int native_handle() const { return socket_; }
    /// The next one that belongs to the access side; nullopt: none has come.
    std::optional<Packet> next();
    /// How many the kernel had no room for since the last question.
    std::uint64_t dropped();

private:
    AccessCapture() = default;
    bool is_wanted(const IpPacket& packet) const;

    int socket_ = -1;
    std::set<Address> addresses_;
    std::set<Endpoint> ports_;
    std::string buffer_;
};

}  // namespace gmgate::lab
