// [cluster] of gmgate.toml as values: several gateways, one of which has the addresses at a time.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "daemon/config/config.h"

namespace gmgate::daemon {

/// Where a server of the shared store is: redis://[user:password@]host:port, rediss:// for TLS, or unix:/path.
struct RedisAddress {
    bool is_tls = false;
    std::string path;   ///< of a Unix socket; empty: `endpoint`
    Endpoint endpoint;  ///< address and port, no name: the store must be found when DNS is not
    std::string user, password;
    static std::optional<RedisAddress> parse(std::string_view url);
    std::string to_string() const;  ///< without the password
};

/// The shared store: one server, or several of which one is the master at a time (Sentinel, or whoever promotes them).
struct RedisStore {
    RedisStore() = default;
    RedisStore(RedisAddress server) : servers{std::move(server)} {}  // NOLINT: one server is a store
    std::vector<RedisAddress> servers;
    std::string ca_file;   ///< PEM, of TLS; empty: the system's
    std::string tls_name;  ///< that the server's certificate must be for (a DNS name of it, no wildcard), and SNI
    std::string to_string() const;  ///< without passwords
};

/// [cluster]. Its virtual addresses are all those of the file: each access address and each of [core] listen.
struct ClusterConfig {
    std::string name;
    int node_id = 0;  ///< 1 to kNodes
    RedisStore store;
    std::string secret_file;  ///< read by gmgate-xfrmd alone; lines KEY-ID:HEX

    static constexpr int kNodes = 8;
    /// The virtual addresses.
    static std::vector<Address> addresses(const Config& config);
    /// The part of [xfrm] spi-start to spi-end that this node gives SPIs from: no two nodes choose the same one.
    std::pair<Spi, Spi> spi_range(const XfrmConfig& xfrm) const;
};

/// The section of a file that load_config() has found good; nullopt: there is none.
Result<std::optional<ClusterConfig>> load_cluster(const Config& config);

class Mistakes;
class Section;
/// For parse_config(): reads the section and says what is wrong with it.
void read_cluster(Section& section, ClusterConfig& cluster);
void check_cluster(Section& section, const ClusterConfig& cluster, const Config& config);

}  // namespace gmgate::daemon
