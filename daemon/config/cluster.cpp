#include "daemon/config/cluster.h"

#include <algorithm>
#include <set>

#include "daemon/config/config_toml.h"

namespace gmgate::daemon {

std::optional<RedisAddress> RedisAddress::parse(std::string_view url) {
    RedisAddress address;
    if (url.starts_with("unix:")) {
        address.path = url.substr(5);
        if (address.path.starts_with("//")) address.path.erase(0, 2);
        return address.path.starts_with('/') && address.path.size() < 108 ? std::optional(address) : std::nullopt;
    }
    constexpr std::string_view clear = "redis://", secure = "rediss://";
    address.is_tls = url.starts_with(secure);
    if (!address.is_tls && !url.starts_with(clear)) return std::nullopt;
    url.remove_prefix(address.is_tls ? secure.size() : clear.size());
    if (const auto at = url.rfind('@'); at != std::string_view::npos) {
        const auto login = url.substr(0, at);
        const auto colon = login.find(':');
        if (colon == std::string_view::npos || colon + 1 == login.size()) return std::nullopt;
        address.user = login.substr(0, colon);
        address.password = login.substr(colon + 1);
        url.remove_prefix(at + 1);
    }
    const auto endpoint = Endpoint::parse(url);
    if (!endpoint || endpoint->port.value == 0) return std::nullopt;
    address.endpoint = *endpoint;
    return address;
}

std::string RedisAddress::to_string() const { return path.empty() ? endpoint.to_string() : "unix:" + path; }

std::string RedisStore::to_string() const {
    std::string text;
    for (const auto& server : servers) text += (text.empty() ? "" : ", ") + server.to_string();
    return text;
}

std::vector<Address> ClusterConfig::addresses(const Config& config) {
    std::set<Address> all;
    for (const Endpoint& local : config.core.listen) all.insert(local.address);
    for (const auto& interface : config.sip_interfaces)
        for (const auto& port : interface.sip_ports) all.insert(port.address);
    return {all.begin(), all.end()};
}

std::pair<Spi, Spi> ClusterConfig::spi_range(const XfrmConfig& xfrm) const {
    const auto share = (xfrm.spi_end.value - xfrm.spi_start.value) / kNodes;
    const auto first = xfrm.spi_start.value + static_cast<std::uint32_t>(node_id - 1) * share;
    return {Spi{first}, Spi{first + share - 1}};
}

namespace {

void read_store(Section& section, RedisStore& store) {
    std::vector<std::string> urls;
    section.texts("url", urls);
    section.text("ca-file", store.ca_file);
    section.text("tls-name", store.tls_name);
    if (urls.empty()) section.mistake("url", "is needed: the shared store, or a list of its servers");
    for (const auto& url : urls) {
        if (const auto server = RedisAddress::parse(url)) store.servers.push_back(*server);
        else
            section.mistake("url",
                            "must be redis://[user:password@]address:port with an address and no name, rediss:// for "
                            "TLS, or unix:/path; or a list of them");
    }
    const bool has_tls = std::ranges::any_of(store.servers, &RedisAddress::is_tls);
    if (has_tls && store.tls_name.empty())
        section.mistake("tls-name", "is needed with rediss://: the DNS name that the server's certificate is for");
    if (!has_tls && !(store.tls_name.empty() && store.ca_file.empty()))
        section.mistake("tls-name", "and ca-file are for rediss:// and no server of this store has it");
    if (!store.ca_file.empty() && store.ca_file.front() != '/')
        section.mistake("ca-file", "must be a path from the root, of a PEM file");
}

}  // namespace

void read_cluster(Section& section, ClusterConfig& cluster) {
    section.text("name", cluster.name);
    section.number("node-id", cluster.node_id, 1, ClusterConfig::kNodes);
    section.text("secret-file", cluster.secret_file);
    const auto is_word = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    };
    if (cluster.name.empty() || cluster.name.size() > 64 || !std::ranges::all_of(cluster.name, is_word))
        section.mistake("name", "is needed: the same one on every node, 1 to 64 letters, digits, - and _");
    if (cluster.node_id == 0) section.mistake("node-id", "is needed: another one on every node, from 1 to 8");
    read_store(section, cluster.store);
    if (cluster.secret_file.empty() || cluster.secret_file.front() != '/')
        section.mistake("secret-file",
                        "must be a path from the root; lines KEY-ID:HEX, `openssl rand -hex 32` makes HEX");
}

void check_cluster(Section& section, const ClusterConfig& cluster, const Config& config) {
    if (config.xfrm.sa_engine != SaEngine::process)
        section.mistake("name", "only [xfrm] sa-engine = \"process\" seals keys for other nodes; choose it");
    if (!config.store.is_kept)
        section.mistake("name", "[store] mode must be \"file\": a restart of one node goes on with what it has itself");
    const auto [first, last] = cluster.spi_range(config.xfrm);
    if (last.value - first.value < 65536)
        section.mistake("node-id", "each of 8 nodes needs 65536 SPIs; give [xfrm] spi-start and spi-end more room");
}

Result<std::optional<ClusterConfig>> load_cluster(const Config& config) {
    if (std::ranges::none_of(config.settings, [](const auto& one) { return one.first.starts_with("cluster."); }))
        return std::nullopt;
    ClusterConfig cluster;
    try {
        const auto document = toml::parse_file(config.path);
        const auto* table = document["cluster"].as_table();
        Mistakes mistakes(config.path);
        if (!table) return failure(Reaction::reject, config.path + ": [cluster] has gone since the file was checked");
        Section section(*table, "[cluster]", mistakes);
        read_cluster(section, cluster);
        if (!mistakes.none()) return failure(Reaction::reject, mistakes.text());
    } catch (const toml::parse_error& error) {
        return failure(Reaction::reject, config.path + ": " + std::string(error.description()));
    }
    return cluster;
}

}  // namespace gmgate::daemon
