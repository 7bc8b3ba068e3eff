// /etc/gmgate/gmgate.toml as values. Elements and parameters are named as in the feature text and in Oracle's
// configuration: sip-interface, sec-agree-feature, sec-agree-pref, sip-ports, ims-aka-profile, protected-server-port…
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/algorithms.h"
#include "base/endpoint.h"
#include "base/error.h"
#include "base/types.h"
#include "daemon/config/nat.h"
#include "daemon/config/strangers.h"

namespace gmgate::daemon {

/// sec-agree-pref: which mechanisms, and in which order (G-13).
enum class SecAgreePref { ipsec3gpp, tls, ipsec3gpp_tls, tls_ipsec3gpp };
bool allows_ipsec(SecAgreePref pref);
bool allows_tls(SecAgreePref pref);
std::string_view to_string(SecAgreePref pref);

/// `confidentiality`: off never encrypts, preferred takes the first allowed pair, required refuses pairs without
/// encryption (B-33).
enum class Confidentiality { off, preferred, required };
/// `no-security-client`: what a REGISTER without Security-Client gets on the unprotected port (G-15).
enum class NoSecurityClient { forward, reject };
/// `security-server`: the one mechanism chosen, or the whole static list with distinct q values (G-1).
enum class SecurityServerMode { selected, list };

/// [[ims-aka-profile]]
struct ImsAkaProfile {
    std::string name;
    std::vector<Port>
        protected_server_ports;        ///< port_ps candidates; two, so that colliding phones can be told apart (G-25)
    Port start_protected_client_port;  ///< port_pc pool, at least three (temporary + established + old)
    Port end_protected_client_port;
    std::vector<AlgorithmPair> preference;  ///< allowed pairs, most preferred first
    bool refuse_deprecated = false;         ///< takes hmac-md5-96 and des-ede3-cbc out of the preference

    NatTraversal nat;

    std::vector<Port> client_ports() const;
    /// port_ps candidates and port_pc pool of a mode; empty: that mode is off.
    std::vector<Port> server_ports(xfrm::Mode mode) const;
    std::vector<Port> client_ports(xfrm::Mode mode) const;
    std::vector<Port> transport_ports() const;  ///< server and client ports of transport mode
    std::vector<Port> all_ports() const;        ///< of both modes: what the guards cover
};

/// [[tls-profile]]: the server side of TLS.
struct TlsProfile {
    std::string name;
    std::vector<std::string> end_entity_certs;  ///< PEM files, chain included; ECDSA and RSA may stand side by side
    std::vector<std::string> private_keys;      ///< PEM files, in the same order
    std::chrono::days expiry_warning{30};       ///< how long before their end certificates are warned about
};

/// `ktls`: whether finished TLS sessions go to the kernel.
enum class Ktls { required, preferred, off };

/// [[sip-interface.sip-ports]]: one unprotected port.
struct SipPort {
    Address address;
    Port port{5060};
    bool udp = true;
    bool tcp = true;
    bool tls = false;
    std::string ims_aka_profile{};  ///< name; empty: no ipsec-3gpp on this address
    std::string tls_profile{};      ///< name; needed for TLS
};

/// `refresh-authorization`: which fields of a refresh's Authorization must be those of the REGISTER that made the
/// association, each where both have it. The private identity always must (C-28, C-49); nonce, nc, cnonce and response
/// change by nature.
struct RefreshAuthorization {
    bool realm = true, uri = true, algorithm = true;
};

/// [[sip-interface]]: one access side.
struct SipInterface {
    std::string realm_id;
    bool sec_agree_feature = false;  ///< `sec-agree-feature`, disabled by default (feature text)
    SecAgreePref sec_agree_pref = SecAgreePref::ipsec3gpp;
    bool ims_aka_feature = false;  ///< plain IMS-AKA with ipsec-3gpp, as it was before sec-agree
    std::string host;              ///< host of our URIs in Path and Record-Route; empty: the address
    Confidentiality confidentiality = Confidentiality::preferred;
    std::optional<NoSecurityClient>
        no_security_client;  ///< unset: forward when the preference contains tls, else reject (G-15)
    SecurityServerMode security_server = SecurityServerMode::selected;
    bool security_server_q = false;              ///< add q=0.1 to a single mechanism
    bool require_both = false;                   ///< demand sec-agree in Require *and* Proxy-Require (G-4)
    RefreshAuthorization refresh_authorization;  ///< what of Authorization a refresh may not change (G-8)
    bool strict_refresh = false;            ///< refuse a protected refresh without Security-Client even unchallenged
    bool ignore_q = false;                  ///< leave q out of Security-Verify comparison (G-26)
    bool bare_integrity_protected = false;  ///< integrity-protected=yes without quotes (C-21)
    bool refuse_mediasec = false;           ///< 420 for Proxy-Require: mediasec (G-30)
    bool server_initiated = false;          ///< RFC 3329 §2.3.2 (A-22, A-23)
    bool strict_collision = false;          ///< reject a colliding phone instead of using the other server port (G-25)
    bool reject_akav1_over_tls = false;     ///< `aka-over-tls = "reject-akav1"` (G-2, RFC 4169 §1)
    bool tls_connected = false;             ///< tls-connected for AKAv2-SHA-256 over TLS from the start (C.3, P.3)
    bool anonymous_emergency = true;        ///< unprotected emergency requests are let through (C-80)
    std::vector<std::string> emergency_numbers{"112", "911"};  ///< besides urn:service:sos
    bool alternative_service = false;  ///< 380 for a registered phone that dials one of them as a normal call (IR.92)
    std::vector<SipPort> sip_ports;

    /// False: nothing protects a phone on the clear ports, so that nobody but emergency callers is served there.
    bool serves_clear_ports() const { return sec_agree_feature || ims_aka_feature; }

    NoSecurityClient on_no_security_client() const;
};

enum class CoreTransport { udp, tcp, tls };
/// What it adds to a SIP URI of ours: "", ";transport=tcp", ";transport=tls".
std::string_view uri_transport(CoreTransport transport);

/// [core] next-hop (priority 0) or one of [[core.next-hops]]: one element of the core that requests may go to.
struct NextHop {
    std::string host{};                        ///< name to look up by RFC 3263; empty: `endpoint` says it all
    Endpoint endpoint{};                       ///< address and port; with a name only the port counts, 0: SRV tells it
    std::optional<CoreTransport> transport{};  ///< unset: [core] transport; for a name NAPTR decides
    std::uint16_t priority = 0;                ///< lower is tried first
    std::uint16_t weight = 1;                  ///< share of the load among equals of one priority
    std::string tls_name{};                    ///< tls: SIP domain or host of its certificate; empty: [core] tls-name

    std::string to_string() const;  ///< "10.2.0.2:5060" or "icscf.home.example"
};

/// [core]
struct Core {
    /// Our addresses on the core side, at least one. What goes out leaves from the first of the element's family, which
    /// is also what Via, Path and Record-Route say.
    std::vector<Endpoint> listen;
    bool listens_at(const Endpoint& local) const;
    /// The first of that family; null: elements of that family cannot be reached.
    const Endpoint* listen_for(Family family) const;
    std::vector<NextHop> next_hops;  ///< I-CSCF, S-CSCF or P-CSCF; at least one
    CoreTransport transport = CoreTransport::udp;
    std::string visited_network_id;
    std::string orig_ioi;                      ///< type 1 IOI of the visited network; empty: visited_network_id
    std::vector<NextHop> emergency_next_hops;  ///< E-CSCF; empty: next_hops
    bool follow_route =
        false;  ///< requests of registered phones go where Service-Route and Route say, not through next-hop
    std::vector<Endpoint> name_servers;      ///< empty: those of /etc/resolv.conf
    std::chrono::seconds ping_interval{30};  ///< OPTIONS to each next hop; 0: none
    std::chrono::seconds next_hop_answer{
        8};  ///< an INVITE without any answer for so long goes to the next one, if there is one
    std::vector<AddressRange> peers;  ///< `peers`: who else may talk to `listen`, besides next hops and what they
                                      ///< resolve to
    bool reg_event = false;           ///< subscribe to reg at the S-CSCF for each user (C-51)
    std::string tls_name;  ///< tls: SIP domain or host of the core's certificate (RFC 5922), of next hops without one
                           ///< of their own
    /// tls: tls_name first, then those of next hops that differ; none twice.
    std::vector<std::string> tls_names() const;
    std::string tls_ca;       ///< tls: PEM file of who may sign it; empty: the system's
    std::string tls_profile;  ///< tls: our certificate, served on `listen` and shown to the core when it asks
};

/// [limits]
struct Limits {
    std::size_t registrations = 100000;
    std::size_t challenges = 20000;           ///< temporary sets in total
    std::size_t challenges_per_address = 64;  ///< of one IPv4 address or IPv6 /64
    std::size_t sets_per_address = 256;       ///< the kernel's look-up is linear per address
    std::size_t connections = 65536;
    std::size_t connections_per_address = 1024;
    std::size_t tls_handshakes = 1024;  ///< under way at once, in total
    std::size_t tls_handshakes_per_address = 256;
    std::size_t transactions = 65536;
    std::size_t emergency_reserve = 5;   ///< percent of the transactions that only emergency requests may take
    std::size_t emergency_calls = 1024;  ///< from unprotected ports; beyond it the oldest unanswered one gives way
    std::size_t emergency_calls_per_source = 16;  ///< unanswered ones of one IPv4 address or IPv6 /64; likewise
    std::chrono::milliseconds loop_lag{1000};  ///< the loop is this late: strangers' new requests get 503, at twice of
                                               ///< it everybody's; except emergency
    /// Octets of a message, and of its body, from somebody who has not registered: on an unprotected port, or over TLS
    /// that is not bound. A REGISTER has no body to speak of, an emergency INVITE has SDP and a location.
    std::size_t unprotected_message = 16384, unprotected_body = 8192;
    AuthenticationLimits authentications;
    std::size_t trace_records_per_ue = 16;
    std::size_t traced_ues = 10000;
};

/// [timers]
struct TimerConfig {
    std::chrono::seconds reg_await_auth{240};  ///< lifetime of a temporary set (B-50)
    std::chrono::seconds old_set{128};         ///< 64*T1 towards the UE (B-55)
    std::chrono::seconds lifetime_margin{30};  ///< "shortly after": expires + 30 s (B-51)
    std::chrono::seconds kernel_margin{30};    ///< the kernel's hard limit lies this much behind ours
    std::chrono::seconds ringing{
        185};  ///< Timer C: an INVITE without a final response for so long after the last provisional one
    std::chrono::seconds tls_handshake{10};  ///< time for a whole TLS handshake
    std::chrono::seconds stranger_connection{
        300};  ///< a stream in clear, or TLS, of somebody who does not register ends then, however busy; 0: it does not
    std::chrono::seconds final_answer{
        4};  ///< a set that ends with an answer lives this long after it, for a lost answer's retransmission
};

/// `sa-engine`: who programs the kernel: a process of its own (gmgate-xfrmd), this one, or strongSwan's libcharon in a
/// process of its own.
enum class SaEngine { process, in_process, libcharon };

/// [xfrm]
struct XfrmConfig {
    SaEngine sa_engine = SaEngine::process;
    std::uint32_t reqid = 21321;
    Spi spi_start{0x10000000}, spi_end{0xbfffffff};
    std::uint32_t mark_mask = 0x00ffffff;
};

/// [store]: what is known of registrations across a restart.
struct StoreConfig {
    bool is_kept = true;  ///< `mode`: "file" or "memory"
    std::string file = "/var/lib/gmgate/registrations.db";
    std::size_t queue = 20000;  ///< contacts that may wait for the disk
};

/// [restart]
struct RestartConfig {
    std::string take_over_socket = "/run/gmgate/take-over.sock";  ///< where `gmgated --take-over` asks; empty: nowhere
};

struct Config {
    std::string path;  ///< file it came from
    std::vector<SipInterface> sip_interfaces;
    std::vector<ImsAkaProfile> ims_aka_profiles;
    std::vector<TlsProfile> tls_profiles;
    Ktls ktls = Ktls::preferred;
    bool tls_rekey =
        false;  ///< follow KeyUpdate in the kernel (6.14 and later), which keeps traffic secrets in this process
    Core core;
    Limits limits;
    TimerConfig timers;
    XfrmConfig xfrm;
    StoreConfig store;
    RestartConfig restart;
    std::string log_level = "info";
    std::string control_socket;  ///< empty: none
    Endpoint metrics_listen;     ///< where /metrics, /healthz and /readyz are; port 0: nowhere
    Endpoint hep_collector;      ///< Homer's address and port for HEPv3; port 0: none
    std::uint32_t hep_id = 1;    ///< capture id in HEP
    bool packet_tap = true;      ///< look for ESP with unknown SPIs and clear packets to protected ports (CAP_NET_RAW)
    std::string control_group;   ///< its members may read at the control socket; empty: only root and the own user
    std::vector<std::string> warnings;  ///< what is allowed and hardly meant; "FILE:LINE:COLUMN: …", said at start
    std::map<std::string, std::string>
        settings;  ///< every key of the file as it stands there, "sip-interface[0].realm-id": what a reload compares

    const ImsAkaProfile* profile(std::string_view name) const;
    const TlsProfile* tls_profile(std::string_view name) const;
};

/// Reads and checks a file. The Error text is one or more lines "FILE:LINE:COLUMN: what is wrong; how to mend it".
Result<Config> load_config(const std::string& path);
/// The same for a text; `name` stands for the file in messages.
Result<Config> parse_config(std::string_view text, const std::string& name);
/// Things that only the running machine knows: addresses that do not exist here. Empty when all is well.
std::vector<std::string> check_addresses(const Config& config);

}  // namespace gmgate::daemon
