// What the gateway keeps and hands out for its operator, and the idle times of connections: settings of the top level,
// of [limits] and of [timers] that belong together.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <string>

namespace gmgate::daemon {

/// What the flight recorder may keep of registrations and calls that have not succeeded.
struct RecorderLimits {
    std::size_t octets = std::size_t{16} * 1024 * 1024;       ///< `recorded-octets`; 0: nothing is kept
    std::size_t octets_per_source = std::size_t{256} * 1024;  ///< `recorded-octets-per-source`: of one IPv4 address or
                                                              ///< IPv6 /64
};

/// How HEPv3 goes to `hep-collector`.
struct HepSettings {
    enum class Transport { udp, tcp, tls } transport = Transport::udp;  ///< `hep-transport`
    std::string auth_key_file;  ///< `hep-auth-key-file`: its first line is the key in the authentication chunk; empty:
                                ///< none is sent
    std::string tls_ca;         ///< `hep-tls-ca`: PEM file of who may sign the collector's certificate; empty: the
                                ///< system's
    std::string tls_name;       ///< `hep-tls-name`: the host that it is for
};

/// `log-format`
enum class LogFormat { text, json };

struct Observation {
    RecorderLimits recorder;
    HepSettings hep;
    LogFormat log_format = LogFormat::text;
    /// `unregistered-idle`: a stream of somebody who is not registered is closed after so long without a whole message
    /// either way.
    std::chrono::seconds unregistered_idle{60};
};

/// Of Config::settings, which the parser has checked. Read at start only.
Observation observation_of(const std::map<std::string, std::string>& settings);

}  // namespace gmgate::daemon
