#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/udp.h>
#include <linux/xfrm.h>
#include <netinet/in.h>

#include "xfrm/algorithms.h"
#include "xfrm/netlink/codec.h"
#include "xfrm/netlink/fixed_part.h"
#include "xfrm/netlink/kernel_address.h"
#include "xfrm/netlink/policy_selector.h"

namespace gmgate::xfrm {
namespace {

using Attributes = std::array<const nlattr*, XFRMA_MAX + 1>;

// Attributes after a fixed part of `offset` octets; the last of a kind wins, unknown kinds (newer kernels) are skipped.
Attributes attributes_of(const nlmsghdr* message, std::size_t offset) {
    Attributes found{};
    const auto keep = [](const nlattr* attribute, void* out) {
        const auto type = mnl_attr_get_type(attribute);
        if (type <= XFRMA_MAX) (*static_cast<Attributes*>(out))[type] = attribute;
        return MNL_CB_OK;
    };
    mnl_attr_parse(message, static_cast<unsigned>(offset), keep, &found);
    return found;
}

template <class Fixed>
std::optional<Fixed> fixed_value(const nlattr* attribute) {
    if (!attribute || mnl_attr_get_payload_len(attribute) < sizeof(Fixed)) return std::nullopt;
    Fixed out;
    std::memcpy(&out, mnl_attr_get_payload(attribute), sizeof out);
    return out;
}

// The name of an algorithm attribute and nothing more: its key is never read.
std::string_view algorithm_name(const nlattr* attribute) {
    if (!attribute || mnl_attr_get_payload_len(attribute) < sizeof(xfrm_algo)) return {};
    const auto* name = static_cast<const char*>(mnl_attr_get_payload(attribute));
    return {name, strnlen(name, sizeof(xfrm_algo::alg_name))};
}

// system_clock counts nanoseconds in 64 bits: later than the year 2242 does not fit.
std::chrono::seconds bounded_seconds(__u64 value) {
    constexpr __u64 limit = 1ULL << 33;
    return std::chrono::seconds{static_cast<std::int64_t>(value < limit ? value : limit)};
}

// Both addresses and both ports; of a phone that may have any address inside, the UE's port alone.
bool is_exact(const xfrm_selector& sel, const Sa& sa) {
    const unsigned full = sel.family == AF_INET6 ? 128 : 32;
    const unsigned of_ue = sa.has_any_inner ? 0 : full;
    const bool is_in = sa.direction == Direction::in;
    return sel.prefixlen_d == (is_in ? full : of_ue) && sel.prefixlen_s == (is_in ? of_ue : full) &&
           sel.dport_mask == 0xffff && sel.sport_mask == 0xffff && sel.proto == 0;
}

// A tunnel whose selector leaves the UE's address open: what is told of it is the outer one.
void read_open_inner(const xfrm_usersa_info& info, Sa& sa) {
    const bool is_in = sa.direction == Direction::in;
    if (!sa.encapsulation || (is_in ? info.sel.prefixlen_s : info.sel.prefixlen_d) != 0) return;
    sa.has_any_inner = true;
    if (is_in) sa.source.address = address_from(&info.saddr, info.family);
    else sa.destination.address = sa.id.destination;
}

// Transport mode, or a tunnel inside UDP whose ends are those of the selector.
bool is_known_mode(const xfrm_usersa_info& info, const Sa& sa) {
    if (!sa.encapsulation) return info.mode == XFRM_MODE_TRANSPORT;
    return info.mode == XFRM_MODE_TUNNEL && sa.id.destination == sa.destination.address &&
           address_from(&info.saddr, info.family) == sa.source.address;
}

std::optional<Encapsulation> read_encapsulation(const nlattr* attribute) {
    const auto told = fixed_value<xfrm_encap_tmpl>(attribute);
    if (!told || told->encap_type != UDP_ENCAP_ESPINUDP) return std::nullopt;
    return Encapsulation{Port{ntohs(told->encap_sport)}, Port{ntohs(told->encap_dport)}};
}

void read_sa(const nlmsghdr* message, Reply& reply) {
    const auto info = fixed_part<xfrm_usersa_info>(message);
    if (!info) return;
    const auto attributes = attributes_of(message, sizeof(xfrm_usersa_info));

    SaRecord record;
    auto& report = record.report;
    report.sa.id = {address_from(&info->id.daddr, info->family), Spi{ntohl(info->id.spi)}};
    report.sa.source = {address_from(&info->sel.saddr, info->family), Port{ntohs(info->sel.sport)}};
    report.sa.destination = {address_from(&info->sel.daddr, info->family), Port{ntohs(info->sel.dport)}};
    report.sa.encapsulation = read_encapsulation(attributes[XFRMA_ENCAP]);
    // The mark of the set is `seq`; an SA that libcharon wrote has it in XFRMA_SET_MARK alone, outbound ones with mask
    // 0 (xfrm/engine/charon).
    const auto set_mark = fixed_value<std::uint32_t>(attributes[XFRMA_SET_MARK]).value_or(0);
    report.mark = Mark{info->seq != 0 ? info->seq : set_mark};
    // Kernel 6.1 does not tell a direction; only our inbound SAs set a mark.
    const auto applied = set_mark & fixed_value<std::uint32_t>(attributes[XFRMA_SET_MARK_MASK]).value_or(0xffffffff);
    report.sa.direction = applied == 0 ? Direction::out : Direction::in;
    read_open_inner(*info, report.sa);
    report.packets = info->curlft.packets;
    report.bytes = info->curlft.bytes;
    report.replay_window_drops = info->stats.replay_window;
    report.replay_drops = info->stats.replay;
    report.integrity_failures = info->stats.integrity_failed;
    report.added = std::chrono::system_clock::time_point{bounded_seconds(info->curlft.add_time)};
    report.hard_lifetime = bounded_seconds(info->lft.hard_add_expires_seconds);
    record.reqid = ReqId{info->reqid};

    // The kernel tells XFRMA_ALG_AUTH beside XFRMA_ALG_AUTH_TRUNC for old readers; the latter alone counts.
    const auto pair =
        pair_from_names(algorithm_name(attributes[XFRMA_ALG_AUTH_TRUNC]), algorithm_name(attributes[XFRMA_ALG_CRYPT]),
                        algorithm_name(attributes[XFRMA_ALG_AEAD]));
    if (pair) report.algorithms = *pair;
    record.is_known_kind =
        pair && info->id.proto == IPPROTO_ESP && is_known_mode(*info, report.sa) && is_exact(info->sel, report.sa);
    reply.sa = std::move(record);
}

// ESP, whoever's SA; all but mode and addresses are as they are written here.
bool is_plain_template(const xfrm_user_tmpl& tmpl) {
    return tmpl.id.proto == IPPROTO_ESP && !tmpl.optional && tmpl.id.spi == 0;
}

bool has_ends(const xfrm_user_tmpl& tmpl, const Address& source, const Address& destination) {
    return address_from(&tmpl.saddr, source.af()) == source &&
           address_from(&tmpl.id.daddr, destination.af()) == destination;
}

// The ports on the gateway's side of a guard's selector, and nothing else in it.
std::optional<PortBlock> guarded_ports(const xfrm_selector& sel, std::uint8_t dir) {
    const unsigned full = sel.family == AF_INET6 ? 128 : 32;
    if (sel.proto != 0 || sel.ifindex != 0) return std::nullopt;
    if (dir == XFRM_POLICY_IN) {
        const bool is_guards = sel.prefixlen_d == full && sel.prefixlen_s == 0 && sel.sport_mask == 0;
        return is_guards ? block_of(sel.dport, sel.dport_mask) : std::nullopt;
    }
    const bool is_guards = sel.prefixlen_s == full && sel.prefixlen_d == 0 && sel.dport_mask == 0;
    return is_guards ? block_of(sel.sport, sel.sport_mask) : std::nullopt;
}

bool is_guard(const xfrm_userpolicy_info& info, const PortBlock& ports, const xfrm_user_tmpl& tmpl) {
    const bool is_in = info.dir == XFRM_POLICY_IN;
    const bool is_nat = ports.size > 1;
    const auto any = Address::any(info.sel.family == AF_INET6 ? Family::v6 : Family::v4);
    return is_plain_template(tmpl) && tmpl.mode == (is_nat ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT) &&
           (!is_nat || has_ends(tmpl, any, any)) && (is_in || info.dir == XFRM_POLICY_OUT) &&
           info.priority == kGuardPriority &&
           info.action == (is_nat && !is_in ? XFRM_POLICY_BLOCK : XFRM_POLICY_ALLOW) &&
           info.flags == (is_in ? 0 : XFRM_POLICY_ICMP);
}

bool is_nat_policy(const xfrm_userpolicy_info& info, const NatPolicy& policy, const xfrm_user_tmpl& tmpl) {
    return is_plain_template(tmpl) && tmpl.mode == XFRM_MODE_TUNNEL && has_ends(tmpl, policy.gateway, policy.nat) &&
           info.priority == kNatPriority && info.action == XFRM_POLICY_ALLOW && info.flags == XFRM_POLICY_ICMP;
}

void read_policy(const nlmsghdr* message, Reply& reply) {
    const auto info = fixed_part<xfrm_userpolicy_info>(message);
    if (!info) return;
    const auto attributes = attributes_of(message, sizeof(xfrm_userpolicy_info));

    PolicyRecord record;
    record.priority = info->priority;
    const bool inbound = info->dir == XFRM_POLICY_IN;
    record.guard.direction = inbound ? Direction::in : Direction::out;
    record.guard.gateway =
        inbound ? Endpoint{address_from(&info->sel.daddr, info->sel.family), Port{ntohs(info->sel.dport)}}
                : Endpoint{address_from(&info->sel.saddr, info->sel.family), Port{ntohs(info->sel.sport)}};
    const auto ports = guarded_ports(info->sel, info->dir);
    if (ports && ports->size > 1) record.guard.nat_block = ports->size;
    if (const auto tmpl = fixed_value<xfrm_user_tmpl>(attributes[XFRMA_TMPL])) {
        record.reqid = ReqId{tmpl->reqid};
        const bool is_only = mnl_attr_get_payload_len(attributes[XFRMA_TMPL]) == sizeof(xfrm_user_tmpl);
        record.is_guard_shaped = is_only && ports && is_guard(*info, *ports, *tmpl);
        auto nat = nat_policy_of(info->sel, info->dir);
        if (nat && nat->is_of_inner()) nat->nat = address_from(&tmpl->id.daddr, info->sel.family);
        if (is_only && nat && is_nat_policy(*info, *nat, *tmpl)) record.nat = nat;
    }
    reply.policy = std::move(record);
}

// nlmsgerr, then (NETLINK_EXT_ACK) attributes. Without NETLINK_CAP_ACK the request stands between them.
/// The errno of a status; one that has no positive counterpart is the largest there is.
int positive(int status) {
    if (status == std::numeric_limits<int>::min()) return std::numeric_limits<int>::max();
    return status < 0 ? -status : status;
}

void read_status(const nlmsghdr* message, Reply& reply) {
    const auto status = fixed_part<nlmsgerr>(message);
    if (!status) {
        reply.kind = Reply::Kind::other;
        return;
    }
    reply.code = positive(status->error);
    if (!(message->nlmsg_flags & NLM_F_ACK_TLVS)) return;
    std::size_t offset = sizeof(nlmsgerr);
    if (!(message->nlmsg_flags & NLM_F_CAPPED) && status->msg.nlmsg_len > sizeof(nlmsghdr))
        offset += MNL_ALIGN(status->msg.nlmsg_len - sizeof(nlmsghdr));
    if (offset > mnl_nlmsg_get_payload_len(message)) return;
    const auto take_text = [](const nlattr* attribute, void* out) {
        if (mnl_attr_get_type(attribute) != NLMSGERR_ATTR_MSG) return MNL_CB_OK;
        const auto* text = static_cast<const char*>(mnl_attr_get_payload(attribute));
        static_cast<std::string*>(out)->assign(text, strnlen(text, mnl_attr_get_payload_len(attribute)));
        return MNL_CB_OK;
    };
    mnl_attr_parse(message, static_cast<unsigned>(offset), take_text, &reply.text);
}

void read_done(const nlmsghdr* message, Reply& reply) {
    int status = 0;
    if (mnl_nlmsg_get_payload_len(message) >= sizeof status)
        std::memcpy(&status, mnl_nlmsg_get_payload(message), sizeof status);
    reply.code = status < 0 ? positive(status) : 0;
}

Reply read_message(const nlmsghdr* message) {
    Reply reply;
    reply.sequence = message->nlmsg_seq;
    reply.message = {reinterpret_cast<const std::uint8_t*>(message), message->nlmsg_len};
    reply.is_interrupted = (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
    switch (message->nlmsg_type) {
        case NLMSG_ERROR:
            reply.kind = Reply::Kind::status;
            read_status(message, reply);
            break;
        case NLMSG_DONE:
            reply.kind = Reply::Kind::done;
            read_done(message, reply);
            break;
        case XFRM_MSG_NEWSA:
            reply.kind = Reply::Kind::sa;
            read_sa(message, reply);
            break;
        case XFRM_MSG_NEWPOLICY:
            reply.kind = Reply::Kind::policy;
            read_policy(message, reply);
            break;
        default:
            break;  // message types are an open set of the kernel's
    }
    return reply;
}

template <std::size_t Limit>
bool take_key(const nlattr* attribute, std::size_t fixed, std::uint32_t bits, Secret<Limit>& key) {
    if (bits == 0) return true;
    const std::size_t size = bits / 8;
    if (!attribute || size > Limit || mnl_attr_get_payload_len(attribute) < fixed + size) return false;
    key.assign({static_cast<const std::uint8_t*>(mnl_attr_get_payload(attribute)) + fixed, size});
    // A kernel that is locked down for confidentiality tells zeros.
    return std::ranges::any_of(key.expose(), [](std::uint8_t octet) { return octet != 0; });
}

}  // namespace

std::optional<SaSecrets> read_secrets(std::span<const std::uint8_t> bytes) {
    const auto* message = reinterpret_cast<const nlmsghdr*>(bytes.data());
    if (bytes.size() < sizeof(nlmsghdr) || message->nlmsg_type != XFRM_MSG_NEWSA ||
        !fixed_part<xfrm_usersa_info>(message))
        return std::nullopt;
    const auto attributes = attributes_of(message, sizeof(xfrm_usersa_info));
    const auto pair =
        pair_from_names(algorithm_name(attributes[XFRMA_ALG_AUTH_TRUNC]), algorithm_name(attributes[XFRMA_ALG_CRYPT]),
                        algorithm_name(attributes[XFRMA_ALG_AEAD]));
    const auto* names = pair ? find_algorithms(*pair) : nullptr;
    SaSecrets told;
    if (!names ||
        !take_key(attributes[XFRMA_ALG_AUTH_TRUNC], sizeof(xfrm_algo_auth), names->auth_key_bits,
                  told.keys.integrity) ||
        !take_key(attributes[XFRMA_ALG_CRYPT], sizeof(xfrm_algo), names->crypt_key_bits, told.keys.confidentiality) ||
        !take_key(attributes[XFRMA_ALG_AEAD], sizeof(xfrm_algo_aead), names->aead_key_bits, told.keys.combined))
        return std::nullopt;
    const auto* counted = attributes[XFRMA_REPLAY_ESN_VAL];  // every SA of ours has it
    if (!counted || mnl_attr_get_payload_len(counted) < sizeof(xfrm_replay_state_esn)) return std::nullopt;
    xfrm_replay_state_esn replay{};
    std::memcpy(&replay, mnl_attr_get_payload(counted), sizeof replay);
    told.sent = replay.oseq;
    told.received = replay.seq;
    return told;
}

bool decode(std::span<const std::uint8_t> datagram, const std::function<void(Reply&)>& handle) {
    int left = static_cast<int>(datagram.size());
    const auto* message = reinterpret_cast<const nlmsghdr*>(datagram.data());
    // libmnl 1.0.4 compares the length as a signed number (0x80000000 passes) and walks attributes up to the aligned
    // length.
    const auto fits_in = [](const nlmsghdr* m, int size) {
        if (!mnl_nlmsg_ok(m, size)) return false;
        const std::uint64_t aligned = (std::uint64_t{m->nlmsg_len} + 3) / 4 * 4;
        return aligned <= static_cast<std::uint64_t>(size);
    };
    while (left > 0 && fits_in(message, left)) {
        Reply reply = read_message(message);
        handle(reply);
        message = mnl_nlmsg_next(message, &left);
    }
    return left <= 0;
}

}  // namespace gmgate::xfrm
