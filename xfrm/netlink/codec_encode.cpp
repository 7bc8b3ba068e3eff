#include <cstddef>
#include <cstring>

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/udp.h>
#include <linux/xfrm.h>
#include <netinet/in.h>

#include "xfrm/algorithms.h"
#include "xfrm/netlink/codec.h"

namespace gmgate::xfrm {
namespace {

std::uint16_t family_of(const Address& address) { return static_cast<std::uint16_t>(address.af()); }
std::uint8_t full_prefix(const Address& address) { return static_cast<std::uint8_t>(address.size() * 8); }

xfrm_address_t to_kernel(const Address& address) {
    xfrm_address_t out{};
    std::memcpy(&out, address.bytes().data(), address.size());
    return out;
}

xfrm_id to_kernel(const SaId& id) {
    xfrm_id out{};
    out.daddr = to_kernel(id.destination);
    out.spi = htonl(id.spi.value);
    out.proto = IPPROTO_ESP;
    return out;
}

xfrm_usersa_id to_usersa_id(const SaId& id) {
    xfrm_usersa_id out{};
    out.daddr = to_kernel(id.destination);
    out.spi = htonl(id.spi.value);
    out.family = family_of(id.destination);
    out.proto = IPPROTO_ESP;
    return out;
}

// B-12: addresses and both ports, protocol any (0), so that UDP and TCP share the SA. Without the UE's address for a
// phone that may have another one inside.
xfrm_selector exact_selector(const Sa& sa) {
    xfrm_selector out{};
    out.daddr = to_kernel(sa.destination.address);
    out.saddr = to_kernel(sa.source.address);
    out.dport = htons(sa.destination.port.value);
    out.dport_mask = 0xffff;
    out.sport = htons(sa.source.port.value);
    out.sport_mask = 0xffff;
    out.family = family_of(sa.destination.address);
    out.prefixlen_d = full_prefix(sa.destination.address);
    out.prefixlen_s = full_prefix(sa.source.address);
    if (!sa.has_any_inner) return out;
    if (sa.direction == Direction::in) {
        out.saddr = {};
        out.prefixlen_s = 0;
    } else {
        out.daddr = {};
        out.prefixlen_d = 0;
    }
    return out;
}

// Of a block of ports that is aligned to its size.
std::uint16_t mask_of(std::uint16_t block) {
    return block == 0 ? 0xffff : htons(static_cast<std::uint16_t>(~(block - 1U)));
}

// (any, gateway:port) in, (gateway:port, any) out; protocol any.
xfrm_selector guard_selector(const GuardPolicy& policy) {
    xfrm_selector out{};
    out.family = family_of(policy.gateway.address);
    if (policy.direction == Direction::in) {
        out.daddr = to_kernel(policy.gateway.address);
        out.prefixlen_d = full_prefix(policy.gateway.address);
        out.dport = htons(policy.gateway.port.value);
        out.dport_mask = mask_of(policy.nat_block);
    } else {
        out.saddr = to_kernel(policy.gateway.address);
        out.prefixlen_s = full_prefix(policy.gateway.address);
        out.sport = htons(policy.gateway.port.value);
        out.sport_mask = mask_of(policy.nat_block);
    }
    return out;
}

xfrm_selector nat_selector(const NatPolicy& policy) {
    auto out = guard_selector({Direction::out, {policy.gateway, policy.block.first}, policy.block.size});
    const auto& inside = policy.is_of_inner() ? policy.inner.address : policy.nat;
    out.daddr = to_kernel(inside);
    out.prefixlen_d = full_prefix(inside);
    if (!policy.is_of_inner()) return out;
    out.dport = htons(policy.inner.port.value);
    out.dport_mask = 0xffff;
    return out;
}

std::uint8_t direction_of(const GuardPolicy& policy) {
    return policy.direction == Direction::in ? XFRM_POLICY_IN : XFRM_POLICY_OUT;
}

// Only the time since the SA was added limits it: XFRM_INF elsewhere, 0 (= none) for the other times.
xfrm_lifetime_cfg limits(std::chrono::seconds hard) {
    xfrm_lifetime_cfg out{};
    out.soft_byte_limit = out.hard_byte_limit = XFRM_INF;
    out.soft_packet_limit = out.hard_packet_limit = XFRM_INF;
    out.hard_add_expires_seconds = static_cast<__u64>(hard.count());
    return out;
}

xfrm_usersa_info sa_info(const Sa& sa, std::chrono::seconds hard_limit, const Ownership& owner) {
    xfrm_usersa_info out{};
    out.sel = exact_selector(sa);
    out.id = to_kernel(sa.id);
    out.saddr = to_kernel(sa.source.address);
    out.lft = limits(hard_limit);
    out.reqid = owner.reqid.value;
    out.family = family_of(sa.destination.address);
    out.mode = sa.encapsulation ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
    return out;
}

// A message written in place, so that no key is copied through memory that is not ours to wipe.
class Writer {
public:
    Writer(MessageBuffer& buffer, std::uint16_t type, std::uint16_t flags)
        : buffer_(buffer), room_(buffer.begin_message()) {
        if (room_.empty()) return;
        header_ = mnl_nlmsg_put_header(room_.data());
        header_->nlmsg_type = type;
        header_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    }

    template <class Fixed>
    void body(const Fixed& value) {
        if (header_) std::memcpy(mnl_nlmsg_put_extra_header(header_, sizeof value), &value, sizeof value);
    }

    // Room for an attribute's payload; empty (and the message invalid) when it does not fit.
    std::span<std::uint8_t> attribute(std::uint16_t type, std::size_t size) {
        if (!header_) return {};
        const std::size_t total = MNL_ALIGN(sizeof(nlattr)) + MNL_ALIGN(size);
        if (header_->nlmsg_len + total > room_.size()) {
            header_ = nullptr;
            return {};
        }
        auto* attribute = static_cast<nlattr*>(mnl_nlmsg_get_payload_tail(header_));
        attribute->nla_type = type;
        attribute->nla_len = static_cast<std::uint16_t>(sizeof(nlattr) + size);
        header_->nlmsg_len += static_cast<std::uint32_t>(total);
        return {static_cast<std::uint8_t*>(mnl_attr_get_payload(attribute)), size};
    }

    void number(std::uint16_t type, std::uint32_t value) {
        const auto room = attribute(type, sizeof value);
        if (!room.empty()) std::memcpy(room.data(), &value, sizeof value);
    }

    bool finish() {
        if (!header_) return false;
        buffer_.end_message(MNL_ALIGN(header_->nlmsg_len));
        return true;
    }

private:
    MessageBuffer& buffer_;
    std::span<std::uint8_t> room_;
    nlmsghdr* header_ = nullptr;
};

template <class Algorithm>
std::uint8_t* put_algorithm(std::span<std::uint8_t> room, const Algorithm& fixed, std::string_view name,
                            std::span<const std::uint8_t> key) {
    if (room.empty()) return nullptr;
    std::memcpy(room.data(), &fixed, sizeof fixed);
    std::memcpy(room.data(), name.data(), name.size());  // alg_name is the first member, 64 octets, zero-filled
    if (!key.empty()) std::memcpy(room.data() + sizeof fixed, key.data(), key.size());
    return room.data();
}

void put_algorithms(Writer& message, const KernelAlgorithms& names, const EspKeys& keys) {
    if (!names.aead.empty()) {
        xfrm_algo_aead fixed{};
        fixed.alg_key_len = names.aead_key_bits;
        fixed.alg_icv_len = names.icv_bits;
        put_algorithm(message.attribute(XFRMA_ALG_AEAD, sizeof fixed + keys.combined.size()), fixed, names.aead,
                      keys.combined.expose());
        return;
    }
    xfrm_algo_auth auth{};
    auth.alg_key_len = names.auth_key_bits;
    auth.alg_trunc_len = names.auth_trunc_bits;
    put_algorithm(message.attribute(XFRMA_ALG_AUTH_TRUNC, sizeof auth + keys.integrity.size()), auth, names.auth,
                  keys.integrity.expose());
    xfrm_algo crypt{};
    crypt.alg_key_len = names.crypt_key_bits;
    put_algorithm(message.attribute(XFRMA_ALG_CRYPT, sizeof crypt + keys.confidentiality.size()), crypt, names.crypt,
                  keys.confidentiality.expose());
}

// XFRMA_REPLAY_ESN_VAL without XFRM_STATE_ESN is the bitmap mode with 32-bit sequence numbers: the only way to a window
// over 32.
void put_replay_window(Writer& message, Direction direction, std::uint32_t sequence) {
    constexpr std::uint32_t words = kReplayWindow / 32;
    xfrm_replay_state_esn fixed{};
    fixed.bmp_len = words;
    fixed.replay_window = kReplayWindow;
    const bool is_outbound = direction == Direction::out;
    (is_outbound ? fixed.oseq : fixed.seq) = sequence;
    const auto room = message.attribute(XFRMA_REPLAY_ESN_VAL, sizeof fixed + words * sizeof(std::uint32_t));
    if (room.empty()) return;
    std::memcpy(room.data(), &fixed, sizeof fixed);
    // A full window: what came before the other node's last word may not come again.
    if (!is_outbound && sequence != 0) std::memset(room.data() + sizeof fixed, 0xff, words * sizeof(std::uint32_t));
}

void put_encapsulation(Writer& message, const Sa& sa) {
    if (!sa.encapsulation) return;
    xfrm_encap_tmpl fixed{};
    fixed.encap_type = UDP_ENCAP_ESPINUDP;
    fixed.encap_sport = htons(sa.encapsulation->source.value);
    fixed.encap_dport = htons(sa.encapsulation->destination.value);
    const auto room = message.attribute(XFRMA_ENCAP, sizeof fixed);
    if (!room.empty()) std::memcpy(room.data(), &fixed, sizeof fixed);
}

bool append_policy_id(MessageBuffer& out, std::uint16_t type, const xfrm_selector& sel, std::uint8_t dir) {
    xfrm_userpolicy_id id{};
    id.sel = sel;
    id.dir = dir;
    Writer message(out, type, 0);
    message.body(id);
    return message.finish();
}

xfrm_userpolicy_info policy_info(const xfrm_selector& sel, std::uint8_t dir, std::uint32_t priority) {
    xfrm_userpolicy_info info{};
    info.sel = sel;
    info.lft = limits(std::chrono::seconds{0});
    info.priority = priority;
    info.dir = dir;
    info.action = XFRM_POLICY_ALLOW;
    // Without this flag a port-unreachable that quotes the decrypted SIP leaves in clear when no socket listens
    // (kernel 6.1).
    info.flags = dir == XFRM_POLICY_OUT ? XFRM_POLICY_ICMP : 0;
    info.share = XFRM_SHARE_ANY;
    return info;
}

// Addresses stay zero: transport mode takes those of the flow, an inbound tunnel has the ends that its SA says.
xfrm_user_tmpl template_of(std::uint8_t mode, std::uint16_t family, const Ownership& owner) {
    xfrm_user_tmpl tmpl{};
    tmpl.id.proto = IPPROTO_ESP;
    tmpl.family = family;
    tmpl.reqid = owner.reqid.value;
    tmpl.mode = mode;
    tmpl.share = XFRM_SHARE_ANY;
    tmpl.aalgos = tmpl.ealgos = tmpl.calgos = ~0U;
    return tmpl;
}

bool append_new_policy(MessageBuffer& out, const xfrm_userpolicy_info& info, const xfrm_user_tmpl& tmpl) {
    Writer message(out, XFRM_MSG_NEWPOLICY, 0);
    message.body(info);
    const auto room = message.attribute(XFRMA_TMPL, sizeof tmpl);
    if (!room.empty()) std::memcpy(room.data(), &tmpl, sizeof tmpl);
    return message.finish();
}

bool append_sa_id(MessageBuffer& out, std::uint16_t type, const SaId& id) {
    Writer message(out, type, 0);
    message.body(to_usersa_id(id));
    return message.finish();
}

}  // namespace

bool fits(AlgorithmPair pair, const EspKeys& keys) {
    const auto* names = find_algorithms(pair);
    return names && keys.integrity.size() * 8 == names->auth_key_bits &&
           keys.confidentiality.size() * 8 == names->crypt_key_bits && keys.combined.size() * 8 == names->aead_key_bits;
}

bool append_new_sa(MessageBuffer& out, const NewSa& request, const Ownership& owner) {
    const auto* names = find_algorithms(request.pair);
    if (!names || !fits(request.pair, request.keys)) return false;
    Writer message(out, XFRM_MSG_NEWSA, 0);
    auto info = sa_info(request.sa, request.lifetime, owner);
    info.seq = request.mark.value;
    message.body(info);
    put_algorithms(message, *names, request.keys);
    put_replay_window(message, request.sa.direction, request.sequence);
    if (request.sa.direction == Direction::in) {
        message.number(XFRMA_SET_MARK, request.mark.value);
        message.number(XFRMA_SET_MARK_MASK, owner.mark_mask);
        if (request.sa.encapsulation)
            message.number(XFRMA_MTIMER_THRESH, static_cast<std::uint32_t>(kMappingPause.count()));
    }
    put_encapsulation(message, request.sa);
    return message.finish();
}

bool append_move_sa(MessageBuffer& out, const Sa& sa, std::uint32_t sequence, const Ownership& owner) {
    Writer message(out, XFRM_MSG_NEWAE, NLM_F_REPLACE);
    xfrm_aevent_id id{};
    id.sa_id = to_usersa_id(sa.id);
    id.saddr = to_kernel(sa.source.address);
    id.reqid = owner.reqid.value;
    message.body(id);
    put_replay_window(message, sa.direction, sequence);
    return message.finish();
}

bool append_update_lifetime(MessageBuffer& out, const Sa& sa, std::chrono::seconds hard_limit, const Ownership& owner) {
    Writer message(out, XFRM_MSG_UPDSA, 0);
    message.body(sa_info(sa, hard_limit, owner));
    put_algorithm(message.attribute(XFRMA_ALG_CRYPT, sizeof(xfrm_algo)), xfrm_algo{}, "ecb(cipher_null)", {});
    put_encapsulation(message, sa);
    return message.finish();
}

bool append_delete_sa(MessageBuffer& out, const SaId& id) { return append_sa_id(out, XFRM_MSG_DELSA, id); }
bool append_get_sa(MessageBuffer& out, const SaId& id) { return append_sa_id(out, XFRM_MSG_GETSA, id); }

bool append_dump_sas(MessageBuffer& out) {
    Writer message(out, XFRM_MSG_GETSA, NLM_F_DUMP);
    message.body(xfrm_usersa_id{});
    const auto proto = message.attribute(XFRMA_PROTO, 1);
    if (!proto.empty()) proto[0] = IPPROTO_ESP;
    return message.finish();
}

bool append_new_guard(MessageBuffer& out, const GuardPolicy& policy, const Ownership& owner) {
    auto info = policy_info(guard_selector(policy), direction_of(policy), kGuardPriority);
    const std::uint8_t mode = policy.nat_block == 0 ? XFRM_MODE_TRANSPORT : XFRM_MODE_TUNNEL;
    // A tunnel has no end of its own: what no NatPolicy takes may not leave. The template then only says whose it is.
    if (policy.nat_block != 0 && policy.direction == Direction::out) info.action = XFRM_POLICY_BLOCK;
    return append_new_policy(out, info, template_of(mode, family_of(policy.gateway.address), owner));
}

bool append_delete_guard(MessageBuffer& out, const GuardPolicy& policy) {
    return append_policy_id(out, XFRM_MSG_DELPOLICY, guard_selector(policy), direction_of(policy));
}

bool append_get_guard(MessageBuffer& out, const GuardPolicy& policy) {
    return append_policy_id(out, XFRM_MSG_GETPOLICY, guard_selector(policy), direction_of(policy));
}

bool append_new_nat_policy(MessageBuffer& out, const NatPolicy& policy, const Ownership& owner) {
    auto tmpl = template_of(XFRM_MODE_TUNNEL, family_of(policy.gateway), owner);
    tmpl.saddr = to_kernel(policy.gateway);
    tmpl.id.daddr = to_kernel(policy.nat);
    return append_new_policy(out, policy_info(nat_selector(policy), XFRM_POLICY_OUT, kNatPriority), tmpl);
}

bool append_delete_nat_policy(MessageBuffer& out, const NatPolicy& policy) {
    return append_policy_id(out, XFRM_MSG_DELPOLICY, nat_selector(policy), XFRM_POLICY_OUT);
}

bool append_get_nat_policy(MessageBuffer& out, const NatPolicy& policy) {
    return append_policy_id(out, XFRM_MSG_GETPOLICY, nat_selector(policy), XFRM_POLICY_OUT);
}

bool append_dump_policies(MessageBuffer& out) {
    Writer message(out, XFRM_MSG_GETPOLICY, NLM_F_DUMP);
    message.body(xfrm_userpolicy_id{});
    return message.finish();
}

void set_sequence(std::span<std::uint8_t> message, std::uint32_t sequence) {
    std::memcpy(message.data() + offsetof(nlmsghdr, nlmsg_seq), &sequence, sizeof sequence);
}

void request_ack(std::span<std::uint8_t> message) {
    std::uint16_t flags = 0;
    std::memcpy(&flags, message.data() + offsetof(nlmsghdr, nlmsg_flags), sizeof flags);
    flags |= NLM_F_ACK;
    std::memcpy(message.data() + offsetof(nlmsghdr, nlmsg_flags), &flags, sizeof flags);
}

}  // namespace gmgate::xfrm
