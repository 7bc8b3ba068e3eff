// What a phone behind NAT needs beside its SAs (TS 33.203 Annex M, RFC 3948): the socket at UDP 4500 out of which the
// kernel takes ESP, keep-alives, and its public address as one of its own, for the packets inside the tunnel have it. A
// phone that is not as the standard says has its private address inside: then there is nothing to add.
#pragma once

#include "endpoint.h"
#include "error.h"
#include "fd.h"
#include "loop.h"

#include <memory>

namespace gmgate::peers {

inline constexpr std::uint16_t kEncapsulationPort = 4500;

class NatTraversal {
public:
    /// `local` and `gateway`: their addresses; `known`: what the network says that the phone's address is, or `local`
    /// for a phone that has its private one inside. Phones of one process may share all of it.
    [[nodiscard]] static Result<std::unique_ptr<NatTraversal>> open(Loop& loop, const Endpoint& local,
                                                                    const Endpoint& gateway, const Endpoint& known,
                                                                    Duration keep_alive);
    ~NatTraversal();
    [[nodiscard]] const Endpoint& public_address() const { return public_; }

private:
    explicit NatTraversal(Loop& loop) : loop_(loop) {}
    void keep_alive();

    Loop& loop_;
    Fd socket_;
    Endpoint gateway_, public_;
    Duration interval_{};
    Timer timer_;
    bool has_added_ = false;
};

}  // namespace gmgate::peers
