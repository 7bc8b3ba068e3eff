// Security-Client, Security-Server and Security-Verify as typed lists (RFC 3329 §2.2, TS 33.203 Annex H). Order and
// values are kept.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/algorithms.h"
#include "base/error.h"
#include "base/types.h"
#include "sip/message/headers.h"

namespace gmgate::sip {

/// ipsec-3gpp's parameters in the specification's words. Defaults of Annex H filled in: prot esp, mod trans, ealg null.
struct Ipsec3gpp {
    std::optional<Alg> alg;        ///< nullopt: absent or an unknown word
    std::optional<Ealg> ealg;      ///< null when the parameter is absent, nullopt when the word is unknown
    bool prot_esp = true;          ///< false for ah or an unknown word
    bool mod_trans = true;         ///< false for tun, UDP-enc-tun or an unknown word
    bool mod_udp_enc_tun = false;  ///< ESP in a tunnel inside UDP: for phones behind NAT (TS 33.203 Annex M)
    std::optional<Spi> spi_c, spi_s;
    std::optional<Port> port_c, port_s;
};

struct MechanismParameter {
    std::string name;
    std::string value;  ///< as written, quotes kept
    bool has_value = false;
};

/// One sec-mechanism.
struct Mechanism {
    std::string name;                            ///< as written
    std::optional<std::uint16_t> q;              ///< thousandths: q=0.1 → 100
    std::vector<MechanismParameter> parameters;  ///< all of them, q included, in order

    bool is(std::string_view mechanism_name) const { return same_token(name, mechanism_name); }
    bool is_mediasec() const;  ///< carries the parameter `mediasec` (G-30)
    std::optional<std::string_view> parameter(std::string_view parameter_name) const;  ///< unquoted
    /// Typed view; nullopt unless the name is ipsec-3gpp. Value syntax was checked when the list was parsed.
    std::optional<Ipsec3gpp> ipsec_3gpp() const;
};

/// A whole list: one or more header fields joined in order.
class SecurityList {
public:
    SecurityList() = default;
    /// Joins all fields of `id` of the message. An absent header gives an empty list (`empty()`), a malformed one an
    /// Error with Reaction::reject whose text names the place: doubled parameter, bad q, SPI not 1..10
    /// digits within 1..2^32-1, port not 1..65535, d-ver or d-alg not by its grammar, mechanism name no token, two
    /// equal q values of a server list (A-3, only for Security-Server/-Verify), limits.
    static Result<SecurityList> from(const Message& message, HeaderId id);
    /// The same for one field value.
    static Result<SecurityList> parse(std::string_view value, bool is_server_list = false);

    bool empty() const { return mechanisms_.empty(); }
    const std::vector<Mechanism>& mechanisms() const { return mechanisms_; }
    std::vector<Mechanism>& mechanisms() { return mechanisms_; }
    /// As one header field value: "ipsec-3gpp;alg=…, tls".
    std::string to_string() const;

private:
    std::vector<Mechanism> mechanisms_;
};

/// How lists are compared; the default is the strict reading.
struct CompareOptions {
    bool ignore_q = false;  ///< some UEs drop or reformat q (G-26)
};

/// Semantic equality (A-16, G-26): same mechanisms in the same order; names, parameter names and token values
/// case-insensitive, quoted values case-sensitive, parameter order free; q, SPIs and ports as numbers; for ipsec-3gpp
/// the defaults prot=esp, mod=trans, ealg=null filled in. On inequality returns a sentence that says what differs;
/// nullopt when equal.
std::optional<std::string> difference(const SecurityList& expected, const SecurityList& received,
                                      CompareOptions options = {});

/// Allocation-free scan of one field value for the hot path and the bench: calls nothing, only validates and counts
/// mechanisms. nullopt when malformed.
std::optional<std::size_t> count_mechanisms(std::string_view value);

}  // namespace gmgate::sip
