// Certificates, keys and rules of a TLS endpoint, loaded from files and replaced as a whole by a reload.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "ktls/types.h"

namespace gmgate::ktls {

class TicketKeys;

/// PEM files: the server's certificate followed by its intermediates, and its private key (no passphrase).
struct CertificateFiles {
    std::string chain;
    std::string key;
    std::string ocsp{};  ///< DER, of a server: the OCSP response that is shown with it (RFC 6066 §8); empty: none
};

struct ServerOptions {
    /// Certificates with the same names and different key types (ECDSA, RSA) stand side by side, and the client's
    /// abilities pick one. Other names form another identity that SNI picks; the first identity serves everybody else.
    std::vector<CertificateFiles> certificates{};
    bool allow_tls12 = true;
    bool allow_tls13 = true;
    /// A handshake whose SNI names none of the certificates gets alert unrecognized_name instead of the first identity.
    bool strict_server_name = false;
    /// How long a session can be resumed; ticket keys are replaced in the same rhythm. TS 33.203 §O.2.1: one hour, or
    /// at least longer than the time between registrations.
    std::chrono::seconds session_lifetime{3600};
    /// OpenSSL's names, most preferred first, of those that a kernel can carry; empty: all of them. `groups` likewise
    /// for the key exchange; empty: X25519MLKEM768 where the library has it, X25519, P-256, P-384.
    std::vector<std::string> ciphers{};
    std::vector<std::string> groups{};
    /// Tickets are sealed with the first key of this file (see TicketKeys::read_file) and opened with any, so that
    /// sessions go on after a restart and on another node. Empty: with random keys of this process, replaced in the
    /// rhythm of `session_lifetime`.
    std::string ticket_key_file{};
    /// Not asked for on Gm by itself (F-5): demand a certificate of the client, signed by one of `client_ca_file`
    /// (empty: the system's) and for the SIP domain one of the SIP domains `client_names` (RFC 5922; empty: any).
    bool demand_client_certificate = false;
    std::string client_ca_file{};
    std::vector<std::string> client_names{};
};

struct ClientOptions {
    std::string ca_file{};      ///< PEM; empty: the system's
    bool verify = true;         ///< chain and `server_name`; off only in tests
    std::string server_name{};  ///< sent as SNI; the SIP domain that the certificate must be for, by RFC 5922 (see
                                ///< sip_domain.h)
    std::vector<CertificateFiles> certificates{};  ///< shown when the server asks for one
    bool allow_tls12 = true;
    bool allow_tls13 = true;
};

struct CertificateInfo {
    std::string file;
    std::vector<std::string> names;  ///< DNS names, lower case
    std::string key_type;            ///< "EC 256", "RSA 2048"
    std::chrono::system_clock::time_point expires;
    std::string ocsp_file{};  ///< empty: nothing is shown with it
    std::chrono::system_clock::time_point ocsp_ends{};
};

/// A value: copies share what was loaded. Handshakes keep the state they began with, so a reload disturbs nobody. One
/// thread.
class Context {
public:
    /// Everything is checked before anything is used: files readable, key fits, certificate valid today.
    /// Reaction::refused with the file, the reason and the fix.
    static Result<Context> server(ServerOptions options);
    static Result<Context> client(ClientOptions options);

    /// Reads the files again. On an error everything stays as it is. A server's ticket keys are kept: sessions can
    /// still be resumed; those of a file are read again.
    Result<void> reload();
    /// When the first of the certificates ends (time_point::max() for a client that shows none).
    std::chrono::system_clock::time_point expires() const;
    /// Whether one of the certificates ends within `ahead`: time to warn.
    bool expires_within(std::chrono::seconds ahead) const;
    const std::vector<CertificateInfo>& certificates() const;

    struct State;
    /// Shared, because handshakes on other threads outlive a reload.
    const std::shared_ptr<const State>& state() const { return state_; }

private:
    Context() = default;
    std::variant<ServerOptions, ClientOptions> options_;
    std::shared_ptr<TicketKeys> tickets_;  ///< of a server
    std::shared_ptr<const State> state_;
};

}  // namespace gmgate::ktls
