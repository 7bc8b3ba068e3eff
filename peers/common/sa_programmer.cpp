#include "sa_programmer.h"

#include "esp_keys.h"
#include "nat_traversal.h"

#include <netlink/addr.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <netlink/xfrm/lifetime.h>
#include <netlink/xfrm/sa.h>
#include <netlink/xfrm/selector.h>
#include <netlink/xfrm/sp.h>
#include <netlink/xfrm/template.h>

#include <linux/netlink.h>
#include <linux/udp.h>
#include <linux/xfrm.h>
#include <netinet/in.h>

namespace gmgate::peers {
namespace {

template <auto Put>
struct PutWith {
    template <class T>
    void operator()(T* object) const {
        Put(object);
    }
};
template <class T, auto Put>
using Holder = std::unique_ptr<T, PutWith<Put>>;
using AddrHolder = Holder<nl_addr, nl_addr_put>;
using SelHolder = Holder<xfrmnl_sel, xfrmnl_sel_put>;
using LifetimeHolder = Holder<xfrmnl_ltime_cfg, xfrmnl_ltime_cfg_put>;
using SaHolder = Holder<xfrmnl_sa, xfrmnl_sa_put>;
using SpHolder = Holder<xfrmnl_sp, xfrmnl_sp_put>;

/// One direction of one port pair.
struct Flow {
    Endpoint source;
    Endpoint destination;
    std::uint32_t spi;
    bool outgoing;
};

AddrHolder address_of(const Endpoint& endpoint) {
    AddrHolder out(nl_addr_build(endpoint.family(), endpoint.raw_address(), endpoint.raw_address_size()));
    nl_addr_set_prefixlen(out.get(), static_cast<int>(endpoint.raw_address_size() * 8));
    return out;
}

// Full selector: both addresses, both ports, any protocol (B-12: UDP and TCP run through the same SA).
SelHolder selector_of(const Flow& flow) {
    SelHolder out(xfrmnl_sel_alloc());
    xfrmnl_sel_set_family(out.get(), static_cast<unsigned>(flow.source.family()));
    xfrmnl_sel_set_saddr(out.get(), address_of(flow.source).get());
    xfrmnl_sel_set_daddr(out.get(), address_of(flow.destination).get());
    const auto prefix = static_cast<unsigned>(flow.source.raw_address_size() * 8);
    xfrmnl_sel_set_prefixlen_s(out.get(), prefix);
    xfrmnl_sel_set_prefixlen_d(out.get(), prefix);
    xfrmnl_sel_set_sport(out.get(), flow.source.port());
    xfrmnl_sel_set_sportmask(out.get(), 0xffff);
    xfrmnl_sel_set_dport(out.get(), flow.destination.port());
    xfrmnl_sel_set_dportmask(out.get(), 0xffff);
    xfrmnl_sel_set_proto(out.get(), 0);
    return out;
}

// libnl sends zeroes for limits that nobody set, and the kernel reads a zero byte limit as "expired".
LifetimeHolder no_limits() {
    LifetimeHolder out(xfrmnl_ltime_cfg_alloc());
    xfrmnl_ltime_cfg_set_soft_bytelimit(out.get(), XFRM_INF);
    xfrmnl_ltime_cfg_set_hard_bytelimit(out.get(), XFRM_INF);
    xfrmnl_ltime_cfg_set_soft_packetlimit(out.get(), XFRM_INF);
    xfrmnl_ltime_cfg_set_hard_packetlimit(out.get(), XFRM_INF);
    return out;
}

const char* key_of(const SecretBytes& key) {
    return key.size() == 0 ? "" : reinterpret_cast<const char*>(key.expose().data());
}
unsigned bits_of(const SecretBytes& key) { return static_cast<unsigned>(key.size() * 8); }

// Kernel names and sizes: requirements B-72.
int set_algorithms(xfrmnl_sa* sa, const SaSetSpec& spec) {
    const SecretBytes aead = esp_aead_key(spec.pair, spec.ck, spec.ik);
    if (spec.pair.ealg == Ealg::aes_gcm)
        return xfrmnl_sa_set_aead_params(sa, "rfc4106(gcm(aes))", bits_of(aead), 128, key_of(aead));
    if (spec.pair.alg == Alg::aes_gmac)
        return xfrmnl_sa_set_aead_params(sa, "rfc4543(gcm(aes))", bits_of(aead), 128, key_of(aead));
    const SecretBytes integrity = esp_integrity_key(spec.pair.alg, spec.ik);
    const char* auth_name = spec.pair.alg == Alg::hmac_md5_96 ? "hmac(md5)" : "hmac(sha1)";
    if (const int error = xfrmnl_sa_set_auth_params(sa, auth_name, bits_of(integrity), 96, key_of(integrity));
        error < 0)
        return error;
    const SecretBytes cipher = esp_cipher_key(spec.pair.ealg, spec.ck);
    const char* cipher_name = spec.pair.ealg == Ealg::aes_cbc        ? "cbc(aes)"
                              : spec.pair.ealg == Ealg::des_ede3_cbc ? "cbc(des3_ede)"
                                                                     : "ecb(cipher_null)";
    return xfrmnl_sa_set_crypto_params(sa, cipher_name, bits_of(cipher), key_of(cipher));
}

// The addresses that a packet has outside: in transport mode its own.
struct Ends {
    Endpoint source, destination;
};
Ends outer_ends(const SaSetSpec& spec, const Flow& flow) {
    return flow.outgoing ? Ends{spec.ue, spec.network} : Ends{spec.network, spec.ue};
}

int set_mode(xfrmnl_sa* sa, const SaSetSpec& spec) {
    if (!spec.inner) return xfrmnl_sa_set_mode(sa, XFRM_MODE_TRANSPORT);
    const AddrHolder none(nl_addr_alloc(16));
    nl_addr_set_family(none.get(), spec.ue.family());
    if (const int code =
            xfrmnl_sa_set_encap_tmpl(sa, UDP_ENCAP_ESPINUDP, kEncapsulationPort, kEncapsulationPort, none.get());
        code < 0)
        return code;
    return xfrmnl_sa_set_mode(sa, XFRM_MODE_TUNNEL);
}

SaHolder make_state(const SaSetSpec& spec, const Flow& flow) {
    SaHolder out(xfrmnl_sa_alloc());
    xfrmnl_sa_set_family(out.get(), static_cast<unsigned>(flow.source.family()));
    const auto [source, destination] = outer_ends(spec, flow);
    xfrmnl_sa_set_saddr(out.get(), address_of(source).get());
    xfrmnl_sa_set_daddr(out.get(), address_of(destination).get());
    xfrmnl_sa_set_spi(out.get(), flow.spi);
    xfrmnl_sa_set_proto(out.get(), IPPROTO_ESP);
    if (set_mode(out.get(), spec) < 0) return nullptr;
    xfrmnl_sa_set_reqid(out.get(), spec.reqid);
    xfrmnl_sa_set_replay_window(out.get(), 32);  // anti-replay on all SAs: TS 33.203 §6.3
    xfrmnl_sa_set_sel(out.get(), selector_of(flow).get());
    xfrmnl_sa_set_lifetime_cfg(out.get(), no_limits().get());
    if (set_algorithms(out.get(), spec) < 0) return nullptr;
    return out;
}

SpHolder make_policy(const SaSetSpec& spec, const Flow& flow) {
    SpHolder out(xfrmnl_sp_alloc());
    xfrmnl_sp_set_sel(out.get(), selector_of(flow).get());
    xfrmnl_sp_set_lifetime_cfg(out.get(), no_limits().get());
    xfrmnl_sp_set_priority(out.get(), 1000);
    xfrmnl_sp_set_dir(out.get(), flow.outgoing ? XFRM_POLICY_OUT : XFRM_POLICY_IN);
    xfrmnl_sp_set_action(out.get(), XFRM_POLICY_ALLOW);
    // An ICMP error about a protected datagram must not quote it in clear.
    xfrmnl_sp_set_flags(out.get(), flow.outgoing ? XFRM_POLICY_ICMP : 0);
    xfrmnl_user_tmpl* tmpl = xfrmnl_user_tmpl_alloc();
    xfrmnl_user_tmpl_set_family(tmpl, static_cast<unsigned>(flow.source.family()));
    const auto [source, destination] = outer_ends(spec, flow);
    xfrmnl_user_tmpl_set_saddr(tmpl, address_of(source).get());
    xfrmnl_user_tmpl_set_daddr(tmpl, address_of(destination).get());
    xfrmnl_user_tmpl_set_proto(tmpl, IPPROTO_ESP);
    xfrmnl_user_tmpl_set_mode(tmpl, spec.inner ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT);
    xfrmnl_user_tmpl_set_reqid(tmpl, spec.reqid);
    xfrmnl_user_tmpl_set_aalgos(tmpl, 0xffffffff);
    xfrmnl_user_tmpl_set_ealgos(tmpl, 0xffffffff);
    xfrmnl_user_tmpl_set_calgos(tmpl, 0xffffffff);
    xfrmnl_sp_add_usertemplate(out.get(), tmpl);  // takes the template over
    return out;
}

// The four SAs of TS 33.203 §7.1 as the UE sees them: SA1 and SA3 go out, SA2 and SA4 come in.
std::array<Flow, 4> flows_of(const SaSetSpec& spec) {
    const Endpoint inner = spec.inner.value_or(spec.ue);
    const Endpoint uc = inner.with_port(spec.ue_end.port_c);
    const Endpoint us = inner.with_port(spec.ue_end.port_s);
    const Endpoint pc = spec.network.with_port(spec.network_end.port_c);
    const Endpoint ps = spec.network.with_port(spec.network_end.port_s);
    return {Flow{uc, ps, spec.network_end.spi_s, true}, Flow{pc, us, spec.ue_end.spi_s, false},
            Flow{us, pc, spec.network_end.spi_c, true}, Flow{ps, uc, spec.ue_end.spi_c, false}};
}

std::string describe(const Flow& flow) {
    return fmt::format("{} -> {} spi {}", flow.source.to_string(), flow.destination.to_string(), flow.spi);
}

}  // namespace

SaSet::~SaSet() {
    for (xfrmnl_sp* policy : policies_) {
        xfrmnl_sp_delete(socket_, policy, 0);
        xfrmnl_sp_put(policy);
    }
    for (xfrmnl_sa* state : states_) {
        xfrmnl_sa_delete(socket_, state, 0);
        xfrmnl_sa_put(state);
    }
}

void SaProgrammer::CloseSocket::operator()(nl_sock* socket) const { nl_socket_free(socket); }

Result<std::unique_ptr<SaProgrammer>> SaProgrammer::open() {
    std::unique_ptr<SaProgrammer> out(new SaProgrammer);
    out->socket_.reset(nl_socket_alloc());
    if (!out->socket_) return fail("no memory for a netlink socket");
    if (const int error = nl_connect(out->socket_.get(), NETLINK_XFRM); error < 0)
        return fail("the kernel gives no XFRM netlink socket ({}): is CONFIG_XFRM_USER there (module xfrm_user)?",
                    nl_geterror(error));
    return out;
}

Result<std::unique_ptr<SaSet>> SaProgrammer::install(const SaSetSpec& spec) {
    std::unique_ptr<SaSet> out(new SaSet(socket_.get()));
    // On failure `out` goes and takes back what stood; its list holds only what the kernel acknowledged.
    for (const Flow& flow : flows_of(spec)) {
        SaHolder state = make_state(spec, flow);
        if (!state) return fail("no memory for SA {}", describe(flow));
        if (const int error = xfrmnl_sa_add(socket_.get(), state.get(), NLM_F_CREATE | NLM_F_EXCL); error < 0)
            return fail("the kernel refuses SA {} ({}): {}", describe(flow), to_string(spec.pair), nl_geterror(error));
        out->states_.push_back(state.release());
    }
    for (const Flow& flow : flows_of(spec)) {
        SpHolder policy = make_policy(spec, flow);
        if (const int error = xfrmnl_sp_add(socket_.get(), policy.get(), NLM_F_CREATE | NLM_F_EXCL); error < 0)
            return fail("the kernel refuses the policy for {}: {}", describe(flow), nl_geterror(error));
        out->policies_.push_back(policy.release());
    }
    return out;
}

}  // namespace gmgate::peers
