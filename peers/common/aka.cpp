#include "aka.h"

#include <cstring>

namespace gmgate::peers {
namespace {

constexpr Amf kResyncAmf{0, 0};  // AMF* of TS 33.102 §6.3.3

std::array<std::uint8_t, 6> exor6(const std::array<std::uint8_t, 6>& a, const std::array<std::uint8_t, 6>& b) {
    std::array<std::uint8_t, 6> out{};
    for (std::size_t i = 0; i < 6; ++i) out[i] = static_cast<std::uint8_t>(a[i] ^ b[i]);
    return out;
}

template <std::size_t N>
std::array<std::uint8_t, 6> first6(const std::array<std::uint8_t, N>& in) {
    std::array<std::uint8_t, 6> out{};
    std::copy_n(in.begin(), 6, out.begin());
    return out;
}

}  // namespace

AuthVector make_auth_vector(const AkaSecrets& secrets, const Rand& rand, Sqn sqn, const Amf& amf) {
    MilenageOutput m = milenage(secrets.k, secrets.opc, rand, sqn, amf);
    AuthVector out;
    out.rand = rand;
    const auto hidden = exor6(sqn.octets(), m.ak);
    std::ranges::copy(hidden, out.autn.begin());
    std::ranges::copy(amf, out.autn.begin() + 6);
    std::ranges::copy(m.mac_a, out.autn.begin() + 8);
    out.xres = std::move(m.res);
    out.ck = std::move(m.ck);
    out.ik = std::move(m.ik);
    return out;
}

AkaOutcome usim_authenticate(const AkaSecrets& secrets, const Rand& rand, const Autn& autn, Sqn sqn_ms) {
    const Amf amf{autn[6], autn[7]};
    // AK depends on RAND only, so a first run with any SQN yields it.
    const MilenageOutput first = milenage(secrets.k, secrets.opc, rand, Sqn{}, amf);
    const Sqn sqn = Sqn::from_octets(exor6(first6(autn), first.ak));
    MilenageOutput m = milenage(secrets.k, secrets.opc, rand, sqn, amf);
    if (!equal_secret(m.mac_a, ByteView(autn).subspan(8, 8))) return AkaMacFailure{};
    if (sqn <= sqn_ms) return AkaSyncFailure{make_auts(secrets, rand, sqn_ms), sqn};
    return AkaSuccess{std::move(m.res), std::move(m.ck), std::move(m.ik), sqn};
}

Auts make_auts(const AkaSecrets& secrets, const Rand& rand, Sqn sqn_ms) {
    const MilenageOutput m = milenage(secrets.k, secrets.opc, rand, sqn_ms, kResyncAmf);
    Auts out{};
    std::ranges::copy(exor6(sqn_ms.octets(), m.aks), out.begin());
    std::ranges::copy(m.mac_s, out.begin() + 6);
    return out;
}

std::optional<Sqn> verify_auts(const AkaSecrets& secrets, const Rand& rand, const Auts& auts) {
    const MilenageOutput first = milenage(secrets.k, secrets.opc, rand, Sqn{}, kResyncAmf);
    const Sqn sqn_ms = Sqn::from_octets(exor6(first6(auts), first.aks));
    const MilenageOutput m = milenage(secrets.k, secrets.opc, rand, sqn_ms, kResyncAmf);
    if (!equal_secret(m.mac_s, ByteView(auts).subspan(6, 8))) return std::nullopt;
    return sqn_ms;
}

std::string aka_nonce(const Rand& rand, const Autn& autn) {
    std::array<std::uint8_t, 32> both{};
    std::ranges::copy(rand, both.begin());
    std::ranges::copy(autn, both.begin() + 16);
    return to_base64(both);
}

Result<AkaNonce> parse_aka_nonce(std::string_view nonce) {
    const auto octets = from_base64(nonce);
    if (!octets) return fail("the nonce is not base64");
    if (octets->size() < 32) return fail("the nonce holds {} octets, RAND and AUTN need 32", octets->size());
    AkaNonce out;
    std::copy_n(octets->begin(), 16, out.rand.begin());
    std::copy_n(octets->begin() + 16, 16, out.autn.begin());
    return out;
}

SecretBytes akav2_password(Hash algorithm, ByteView res, const Key<16>& ik, const Key<16>& ck) {
    SecretBytes key(res.size() + 32);
    std::ranges::copy(res, key.buffer().begin());
    std::ranges::copy(ik.expose(), key.buffer().begin() + static_cast<std::ptrdiff_t>(res.size()));
    std::ranges::copy(ck.expose(), key.buffer().begin() + static_cast<std::ptrdiff_t>(res.size()) + 16);
    const SecretBytes mac = hmac(algorithm, key.expose(), as_bytes("http-digest-akav2-password"));
    std::string text = to_base64(mac.expose());
    SecretBytes out{as_bytes(text)};
    wipe(text);
    return out;
}

}  // namespace gmgate::peers
