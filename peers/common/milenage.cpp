#include "milenage.h"

#include "crypto.h"

namespace gmgate::peers {
namespace {

using Block = std::array<std::uint8_t, 16>;

Block exor(Block a, std::span<const std::uint8_t, 16> b) {
    for (std::size_t i = 0; i < 16; ++i) a[i] = static_cast<std::uint8_t>(a[i] ^ b[i]);
    return a;
}

// rot(x, r): cyclic rotation by r bits towards the most significant bit; every r of TS 35.206 §4.1 is a whole number of
// octets.
Block rotate(const Block& in, std::size_t bits) {
    Block out{};
    for (std::size_t i = 0; i < 16; ++i) out[i] = in[(i + bits / 8) % 16];
    return out;
}

// OUTn = E[rot(TEMP xor OPc, rn) xor cn]K xor OPc, for n = 2…5. TS 35.206 §4.1.
Block out_block(const Key<16>& k, const Key<16>& opc, const Block& temp, std::size_t r, std::uint8_t c) {
    Block in = rotate(exor(temp, opc.expose()), r);
    in[15] = static_cast<std::uint8_t>(in[15] ^ c);
    return exor(aes128_block(k.expose(), in), opc.expose());
}

}  // namespace

std::array<std::uint8_t, 6> Sqn::octets() const {
    std::array<std::uint8_t, 6> out{};
    for (std::size_t i = 0; i < 6; ++i) out[i] = static_cast<std::uint8_t>(value >> (8 * (5 - i)));
    return out;
}

Sqn Sqn::from_octets(std::span<const std::uint8_t, 6> octets) {
    Sqn out;
    for (const std::uint8_t octet : octets) out.value = (out.value << 8) | octet;
    return out;
}

Key<16> opc_from_op(const Key<16>& k, const Key<16>& op) {
    Block opc = exor(aes128_block(k.expose(), op.expose()), op.expose());
    Key<16> out{std::span<const std::uint8_t, 16>(opc)};
    wipe(opc.data(), opc.size());
    return out;
}

MilenageOutput milenage(const Key<16>& k, const Key<16>& opc, const Rand& rand, Sqn sqn, const Amf& amf) {
    MilenageOutput out;
    Block temp = aes128_block(k.expose(), exor(rand, opc.expose()));
    // IN1 = SQN || AMF || SQN || AMF
    Block in1{};
    const auto sqn_octets = sqn.octets();
    for (std::size_t i = 0; i < 6; ++i) in1[i] = in1[i + 8] = sqn_octets[i];
    in1[6] = in1[14] = amf[0];
    in1[7] = in1[15] = amf[1];
    // OUT1 = E[TEMP xor rot(IN1 xor OPc, r1) xor c1]K xor OPc; r1 = 64, c1 = 0
    Block out1 = exor(aes128_block(k.expose(), exor(rotate(exor(in1, opc.expose()), 64), temp)), opc.expose());
    Block out2 = out_block(k, opc, temp, 0, 1);
    Block out3 = out_block(k, opc, temp, 32, 2);
    Block out4 = out_block(k, opc, temp, 64, 4);
    Block out5 = out_block(k, opc, temp, 96, 8);
    std::copy_n(out1.begin(), 8, out.mac_a.begin());
    std::copy_n(out1.begin() + 8, 8, out.mac_s.begin());
    std::copy_n(out2.begin() + 8, 8, out.res.buffer().begin());
    std::copy_n(out2.begin(), 6, out.ak.begin());
    std::ranges::copy(out3, out.ck.buffer().begin());
    std::ranges::copy(out4, out.ik.buffer().begin());
    std::copy_n(out5.begin(), 6, out.aks.begin());
    for (Block* block : {&temp, &in1, &out1, &out2, &out3, &out4, &out5}) wipe(block->data(), block->size());
    return out;
}

}  // namespace gmgate::peers
