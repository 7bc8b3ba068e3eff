// What one phone is and how it behaves, honest or not.
#pragma once

#include "../common/aka.h"
#include "../common/algorithms.h"
#include "../common/endpoint.h"
#include "../common/loop.h"
#include "../common/profiles.h"
#include "../common/sip_message.h"
#include "../common/tls.h"

#include <string>
#include <vector>

namespace gmgate::peers {

/// Departures from what a phone should do, for negative tests.
struct Faults {
    bool wrong_ik = false;    ///< program the SAs with another IK (TS 33.203 §7.3.1.1)
    bool wrong_res = false;   ///< answer the challenge wrongly over right SAs
    bool force_auts = false;  ///< claim a sequence number failure once
    bool no_esp = false;      ///< take the challenge and never answer
    bool lose_200 =
        false;  ///< never see the 200 of a REGISTER (TS 33.203 §7.4.1a: the new SAs are given up, the old ones go on)
    bool made_up_tag = false;  ///< requests outside a dialog pretend to be inside one: a To tag, and a Route of their
                               ///< own behind the gateway's
    bool clear = false;        ///< send the second REGISTER without ESP to the protected port
    std::string answer_as;     ///< answer the challenge with another private identity
    std::string
        forge;  ///< REGISTER for another user: how his credentials stand beside ours ("first", "last", "double")
    std::string forge_impi, forge_impu;
    int bid_down = 0;  ///< 1…4: the cases of TS 33.226 §4.2.2.3.2
};

/// How calls go, ours and those to us.
struct CallBehaviour {
    bool reliable = false;  ///< 100rel (RFC 3262): offered by the caller, used by the callee when the caller offers it
    bool early_update = false;  ///< caller: UPDATE in every early dialog after its PRACK
    bool ring = true;           ///< callee: 18x before the final response
    int early_dialogs = 1;  ///< callee: so many To tags in turn, as if a proxy behind it forked; the last one answers
    int reject = 0;         ///< callee: this status in place of 200
};

/// Mechanism tls (TS 33.203 Annex O): not used, agreed on by sec-agree in a clear REGISTER, or set up before the first
/// REGISTER.
enum class TlsUse { none, during_registration, prior_to_registration };

struct PhoneConfig {
    std::string impi;
    std::string impu;
    std::string realm;
    std::optional<AkaSecrets> aka;  ///< absent: plain digest with `password`
    SecretBytes password;

    Endpoint local;    ///< port: unprotected port, 0 for any
    Endpoint gateway;  ///< where unprotected requests go
    bool register_over_tcp = false;
    bool message_over_tcp = false;

    bool ipsec = true;  ///< false and no TLS: no sec-agree, everything on the unprotected port
    TlsUse tls = TlsUse::none;
    std::shared_ptr<const TlsContext> tls_context;  ///< shared by all phones of the process; set whenever tls is used
    std::uint16_t tls_port = 5061;                  ///< of the gateway
    std::vector<AlgPair> offer;
    bool nat = false;          ///< offer mod=UDP-enc-tun, and use it when the network sees a NAT (TS 33.203 Annex M)
    bool nat_private = false;  ///< its private address is inside the tunnel, not its public one: against Annex M
    Duration nat_keep_alive = std::chrono::seconds(20);  ///< 0: none
    Habits habits;                                       ///< of a family of phones
    std::uint16_t port_us = 0;     ///< 0: chosen; with TLS only a name in Contact and Via, as nobody listens there
    std::uint16_t port_uc = 0;     ///< 0: as `habits` says
    std::uint16_t port_block = 8;  ///< ports per phone: port_us and its client ports in turn
    std::uint32_t spi_uc = 0;      ///< 0: random
    std::uint32_t spi_us = 0;

    std::uint32_t expires = 600000;
    bool emergency = false;  ///< an emergency registration: Contact with the URI parameter sos (TS 24.229 §5.1.6)
    std::string instance;    ///< +sip.instance, empty for none
    Duration t1 = std::chrono::seconds(2);  ///< TS 24.229 table 7.7.1: the UE's side of Gm
    Duration t2 = std::chrono::seconds(16);
    Duration timeout = std::chrono::seconds(32);  ///< for a transaction; 64·T1 would be 128 s
    Duration old_set_grace = std::chrono::seconds(128);
    Duration answer_after = std::chrono::milliseconds(200);
    bool rport = false;           ///< put rport into protected Vias too: the answer must still come to port_us (B-15)
    bool security_verify = true;  ///< Security-Verify and sec-agree in requests other than REGISTER

    std::string raw_security_client;    ///< replaces the header in the first REGISTER
    std::string raw_security_verify;    ///< replaces the header in the second REGISTER
    std::vector<Header> extra_headers;  ///< added to every request
    std::vector<Header> extra_register_headers;
    unsigned copies = 1;  ///< datagrams per request other than REGISTER and ACK
    CallBehaviour calls;
    Faults faults;
};

}  // namespace gmgate::peers
