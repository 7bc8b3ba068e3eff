// A sender of arbitrary bytes in clear: the stranger on the access network, and the phone with broken SIP.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/endpoint.h"
#include "tests/support/netns.h"
#include "tests/support/process.h"

namespace gmgate::test {

/// A socket inside a namespace, not connected (UDP) or connecting (TCP).
class RawPeer {
public:
    enum class Kind { udp, tcp };
    /// TCP starts to connect and does not wait. `local` and `remote` as "192.0.2.1:5060" or "[2001:db8::1]:5060"; port
    /// 0 is not accepted by Endpoint, so name one.
    RawPeer(const Namespace& network, Kind kind, const std::string& local, const std::string& remote);
    RawPeer(const RawPeer&) = delete;
    RawPeer& operator=(const RawPeer&) = delete;
    ~RawPeer();

    /// True as soon as a TCP connection stands; false when it has not by the deadline.
    bool connects(std::chrono::milliseconds patience);
    void send(std::string_view bytes);
    /// One datagram, or what TCP has by now; nullopt when nothing came or the peer closed.
    std::optional<std::string> receive(std::chrono::milliseconds patience = kPatience);
    /// Receives until `text` was seen; what was received is returned, or an exception tells it.
    std::string receive_until(std::string_view text, std::chrono::milliseconds patience = kPatience);

private:
    bool wait_for(short events, std::chrono::milliseconds patience) const;

    Kind kind_;
    Endpoint remote_;
    int fd_ = -1;
};

}  // namespace gmgate::test
