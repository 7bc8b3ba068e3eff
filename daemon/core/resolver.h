// Names of core elements to addresses: NAPTR, SRV, A and AAAA as RFC 3263 §4 tells, through c-ares on the loop, never
// blocking.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/task.h"
#include "daemon/config/config.h"
#include "daemon/core/next_hops.h"

namespace gmgate::daemon {

struct ResolverLimits {
    std::size_t names = 256;   ///< cached; beyond it the entry that ends first makes room
    std::size_t targets = 32;  ///< of one name
    std::size_t queries = 64;  ///< names being looked up at once; beyond it a look-up is refused
    seconds longest{3600};     ///< an answer is asked for again after this, whatever its TTL
    seconds failure{10};       ///< a failure is remembered so long, or a dead server would delay every request
    seconds stale{86400};      ///< an answer that ran out still serves so long when the servers fail (RFC 8767)
};

struct ResolverCounters {
    std::uint64_t queries = 0, failures = 0, served_stale = 0, refused_limit = 0;
};

/// One loop, one thread. Look-ups of one name that come together share one answer. Destroying it ends those under way
/// with an error.
class Resolver {
public:
    /// Whether a name may lead there. An answer that may not is logged (`dns-answer-refused`) and left out; when no
    /// other is left, that is a failure, and an old answer serves.
    using Admits = std::function<bool(const Endpoint&)>;

    /// `servers` empty: those of /etc/resolv.conf. `family`: the only one of use, because the core side has no other;
    /// unset: both. `admits` empty: all.
    Resolver(asio::any_io_executor executor, const Clock& clock, const std::vector<Endpoint>& servers,
             std::optional<Family> family, ResolverLimits limits = {}, Admits admits = {});
    ~Resolver();

    /// The targets of a name (`hop.host`), each with the priority that SRV gives below the hop's own. A port in `hop`
    /// means A/AAAA only; a transport means SRV of that transport; neither means NAPTR first. Without SRV records the
    /// name's addresses with port 5060. Errors: Reaction::retry, with the name and the server's reason.
    Task<Result<std::vector<Target>>> resolve(NextHop hop, CoreTransport otherwise);

    const ResolverCounters& counters() const;
    std::size_t cached() const;

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with look-ups under way
};

}  // namespace gmgate::daemon
