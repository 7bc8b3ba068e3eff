// SAs and policies of the comparison's own programs: hmac-sha-1-96 with aes-cbc, transport mode, the keys of the test
// core. A batch is one netlink send.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tests/bench/compare/wire.h"

namespace gmgate::bench {

/// One SA as TS 33.203 §7.1 names it: from one protected port to another, the SPI chosen by who receives.
struct BenchSa {
    Peer from, to;
    std::uint32_t spi = 0;
};

class SecurityKernel {
public:
    /// `own`: the family of all addresses. Throws without a netlink socket.
    explicit SecurityKernel(int family);
    ~SecurityKernel();
    SecurityKernel(const SecurityKernel&) = delete;
    SecurityKernel& operator=(const SecurityKernel&) = delete;

    /// One send; one receive for the acknowledgement of the last. A refusal is told on stderr, five times at most.
    void add(std::span<const BenchSa> sas);
    void remove(std::span<const BenchSa> sas);
    /// What leaves for a port of `to.host` is protected, whoever the phone is (to the gateway's `to`).
    void protect_to(const Peer& to);
    /// What leaves from a port of `from.host` is protected (the gateway's own).
    void protect_from(const Peer& from);

private:
    void run(const char* what);
    void put_policy(const Peer& from, const Peer& to);

    int family_;
    int fd_ = -1;
    std::vector<char> batch_;
};

}  // namespace gmgate::bench
