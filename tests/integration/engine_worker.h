// A worker of the SA engine, asked frame by frame as no gmgated would ask: what it refuses is what it owes to the
// machine.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <sys/types.h>

#include "tests/integration/xfrm_lab.h"
#include "xfrm/engine/protocol.h"

namespace gmgate::test {

using Bytes = std::vector<std::uint8_t>;

template <class Fixed>
void append(Bytes& out, const Fixed& fixed) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&fixed);
    out.insert(out.end(), bytes, bytes + sizeof fixed);
}
template <class... Fixed>
Bytes bytes_of(const Fixed&... fixed) {
    Bytes out;
    (append(out, fixed), ...);
    return out;
}

struct WorkerAnswer {
    gm_done done{};
    std::vector<gm_report> reports;
    std::vector<gm_finding> findings;
    Bytes all;  ///< every octet that came, headers included
};

/// Runs `PROGRAM --worker` in the network namespace of the moment. Everything that does not come within a minute fails
/// the test.
class Worker {
public:
    /// With the configuration of the lab: both gateway addresses, protected ports 6100 to 6101.
    Worker(const Lab& lab, const std::string& program, std::uint32_t sa_limit = 0);
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    const std::string& engine() const { return engine_; }
    pid_t pid() const { return pid_; }
    /// One request and its whole answer; events that come meanwhile are kept.
    WorkerAnswer ask(gm_kind kind, const Bytes& body = {}, std::uint32_t count = 0);
    /// A frame as it is, and the GM_DONE that answers it.
    WorkerAnswer ask_raw(const Bytes& frame);
    /// Waits for an event of this kind, and of this SPI when it is not 0; nullopt when none comes.
    std::optional<gm_event> hears(gm_event_kind kind, std::uint32_t spi = 0);
    std::vector<gm_event> events;  ///< all that came, oldest first
    /// Closes the socket; the status of its end as waitpid() tells it.
    int close_and_wait();
    int wait();

private:
    std::optional<Bytes> receive();

    int fd_ = -1;
    pid_t pid_ = -1;
    std::string engine_;
    std::uint32_t sequence_ = 0;
};

gm_address frame_of(const Address& address);
gm_set frame_of(const xfrm::SetParameters& parameters);
gm_install install_frame(const xfrm::SetRequest& request);

/// The worker programs of this build, and what they say they are.
struct WorkerProgram {
    std::string path, engine;
};
std::vector<WorkerProgram> worker_programs();

}  // namespace gmgate::test
