// What is known about one phone when somebody asks why it does not register: plain values, gathered by the control
// socket, judged by diagnose().
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/endpoint.h"
#include "base/types.h"
#include "daemon/observe/kernel_statistics.h"
#include "daemon/observe/trace.h"
#include "daemon/registrations/registration.h"
#include "xfrm/sa.h"

namespace gmgate::daemon {

using WallTime = std::chrono::system_clock::time_point;

/// A set of SAs with the kernel's counters: alive, or as they were when it was removed.
struct SetEvidence {
    SetNumber number;
    SetState state = SetState::temporary;
    bool is_alive = true;
    bool in_use = false;
    std::optional<WallTime> ended;  ///< when it was removed
    xfrm::SetParameters parameters;
    std::vector<xfrm::SaReport> sas;  ///< empty: the kernel does not have them, or did not tell

    std::uint64_t inbound_packets() const;
    std::uint32_t integrity_failures() const;
    std::uint32_t replays() const;  ///< replayed or later than the window
};

/// Something that the kernel dropped without saying whose it was, seen by the packet tap.
struct Sighting {
    enum class Kind {
        unknown_spi,      ///< ESP for an SPI that no SA has
        clear_protected,  ///< UDP or TCP in clear to a protected port
    };
    Kind kind{};
    Endpoint source;  ///< port 0 for ESP
    Endpoint destination;
    Spi spi;  ///< of ESP
    bool is_tcp = false;
    std::string impi;  ///< that its text names, when it was SIP
    std::uint64_t count = 0;
    WallTime first, last;
};

struct Evidence {
    Impi impi;
    WallTime now;
    std::vector<DecisionRecord> records;   ///< oldest first
    std::vector<PendingRegister> pending;  ///< REGISTERs that wait for the core, oldest first
    std::vector<SetEvidence> sets;         ///< oldest first, those that have ended as well
    bool is_registered = false;
    std::chrono::seconds registration_expires_in{0};
    std::optional<Endpoint> tls_remote;  ///< registered over this TLS connection
    std::vector<Sighting> sightings;     ///< from this phone's addresses, for its SPIs, or naming it
    std::vector<Spi> own_spis_before;    ///< SPIs of ours that this phone's earlier sets had
    std::vector<KernelStatistic> xfrm;
    std::string
        refused_algorithms;  ///< what the profile does not allow, "hmac-md5-96, des-ede3-cbc"; empty: all are allowed
};

}  // namespace gmgate::daemon
