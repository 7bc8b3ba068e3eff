// [cluster] of gmgate.toml as values: several gateways, one of which has the addresses at a time.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"
#include "daemon/config/config.h"

namespace gmgate::daemon {

/// Where the shared store is: redis://[user:password@]host:port or unix:/path.
struct RedisAddress {
    std::string path;   ///< of a Unix socket; empty: `endpoint`
    Endpoint endpoint;  ///< address and port, no name: the store must be found when DNS is not
    std::string user, password;
    static std::optional<RedisAddress> parse(std::string_view url);
    std::string to_string() const;  ///< without the password
};

/// [cluster]. Its virtual addresses are all those of the file: each access address and each of [core] listen.
struct ClusterConfig {
    std::string name;
    int node_id = 0;  ///< 1 to kNodes
    RedisAddress store;
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
