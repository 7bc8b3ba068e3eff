// What the integration tests have in common: labs, the valid algorithm pairs, and REGISTERs made by hand.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/capture.h"
#include "tests/support/lab.h"
#include "tests/support/phone.h"
#include "tests/support/raw_peer.h"
#include "tests/support/xfrm_view.h"

namespace gmgate::test {

/// Those of this build, or the ones in folder $GMGATE_TEST_PROGRAMS: to test an installed or another version.
Programs programs();
LabOptions plain_lab();

/// One of the eight valid combinations of TS 33.203 Annex H and what the kernel calls it.
struct Pair {
    std::string_view alg, ealg;
    std::string_view auth, crypt, aead;
    std::string offer() const { return std::string(alg) + "/" + std::string(ealg); }
};
inline constexpr Pair kSha1AesCbc{"hmac-sha-1-96", "aes-cbc", "hmac(sha1)", "cbc(aes)", ""};
inline constexpr Pair kSha1TripleDes{"hmac-sha-1-96", "des-ede3-cbc", "hmac(sha1)", "cbc(des3_ede)", ""};
inline constexpr Pair kSha1Null{"hmac-sha-1-96", "null", "hmac(sha1)", "ecb(cipher_null)", ""};
inline constexpr Pair kMd5AesCbc{"hmac-md5-96", "aes-cbc", "hmac(md5)", "cbc(aes)", ""};
inline constexpr Pair kMd5TripleDes{"hmac-md5-96", "des-ede3-cbc", "hmac(md5)", "cbc(des3_ede)", ""};
inline constexpr Pair kMd5Null{"hmac-md5-96", "null", "hmac(md5)", "ecb(cipher_null)", ""};
inline constexpr Pair kAesGcm{"null", "aes-gcm", "", "", "rfc4106(gcm(aes))"};
inline constexpr Pair kAesGmac{"aes-gmac", "null", "", "", "rfc4543(gcm(aes))"};

struct Access {
    bool is_v6 = false;
    bool is_tcp = false;
    std::string_view gateway() const { return is_v6 ? Network::kAccess6 : Network::kAccess4; }
    std::string_view ue() const { return is_v6 ? Network::kUe6 : Network::kUe4; }
    /// "10.1.0.1:6100", "[fd01::1]:6100"
    std::string gateway_port(int port) const;
    std::string ue_port(int port) const;
};

/// SAs in the gateway's namespace whose both ends are those of this access.
std::vector<KernelSa> gateway_sas(const Lab& lab, const Access& access);
/// The SA of a set by direction and protected port of the gateway: server (6100…) or client (6200…).
const KernelSa& find_sa(const std::vector<KernelSa>& sas, bool inbound, bool server_port);
/// Text of SAs for INFO.
std::string show(const std::vector<KernelSa>& sas);

/// Registers with one pair, sends a MESSAGE each way and deregisters; checks what kernel, core and phone saw at each
/// step. `peer` is another registered phone of the same lab.
void check_combination(Lab& lab, Phone& peer, std::size_t user, const Pair& pair, const Access& access);

/// A REGISTER as a phone would send it first, with every part open to change.
struct RawRegister {
    std::size_t user = 0;
    Access access{};
    int port = 5066;  ///< source port
    std::string require = "Require: sec-agree\r\nProxy-Require: sec-agree\r\n";
    std::string security_client{};  ///< header value; empty: no header
    std::string more_headers{};
    std::string call_id = unique_word("raw-");
    std::string text() const;
};
/// "ipsec-3gpp; alg=…; ealg=…; spi-c=…; spi-s=…; port-c=…; port-s=…"
struct SecurityClient {
    std::string alg = "hmac-sha-1-96", ealg = "aes-cbc";
    std::uint32_t spi_c = 11111, spi_s = 11112;
    int port_c = 5062, port_s = 5063;
    std::string text() const;
};
/// Sends a request in clear to the gateway's port 5060 and returns the answer that is not 100, or throws.
std::string ask(Lab& lab, const RawRegister& request);
/// "SIP/2.0 494 Security Agreement Required" → 494
int status_of(std::string_view response);

/// What `gmctl status` tells: {"transactions": {"server": 0, "client": 0, …}, …}
nlohmann::json gateway_status(const Lab& lab);
/// Waits until the gateway holds no transaction any more, and tells whether that was so in time.
bool all_transactions_end(const Lab& lab, std::chrono::seconds patience = kPatience);

/// The word again and again, so that every fragment and every quotation of a packet holds it whole.
std::string repeated(std::string_view word, std::size_t size);

}  // namespace gmgate::test
