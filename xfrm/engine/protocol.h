/*
 * What gmgated and its SA engine say to each other: plain C, for engines in C as well (C11, C++23).
 *
 * Who is who
 *   gmgated   the gateway; parses bytes from the network, has no capability.
 *   guardian  gmgate-xfrmd, started by gmgated while that is still privileged. It starts the worker, waits for its end
 * and starts it again, each time over a fresh socket pair, one end of which it passes to gmgated. It reads nothing
 * else. worker    the engine: `gmgate-xfrmd --worker`, or another program of the same contract (`gmgate-xfrmd-charon
 * --worker`). It has CAP_NET_ADMIN and the netlink sockets, trusts nothing that gmgated says, and does only what its
 * configuration allows.
 *
 * A worker program's contract
 *   Started as `PROGRAM --worker`, effective capability CAP_NET_ADMIN (inherited, ambient), no_new_privs set.
 * Descriptor GM_WORK_FD is its socket (AF_UNIX, SOCK_SEQPACKET), stderr its log. The first frames in the socket are
 * GM_CONFIGURE, sent by the guardian before gmgated gets the other end; a GM_CONFIGURE after the one without GM_MORE is
 * refused. It answers them with GM_READY (or ends with a status other than 0 and a line on stderr that says why). It
 * ignores SIGTERM, SIGINT and SIGHUP, and ends with status 0 when the other end of its socket is closed; requests that
 * it has not begun then are dropped.
 *
 * Frames
 *   One datagram is one frame: a gm_header and what belongs to its kind, structs one after the other, numbers in host
 * order. Its size must be exactly that. Bytes named `reserved`, unused octets of an address, and key octets behind the
 * size that stands beside them are 0. A frame that breaks any of this is malformed: refused with EBADMSG, counted,
 * never acted upon in part. Every request carries a `sequence` of the asker's choice and gets exactly one GM_DONE with
 * it, behind the GM_REPORTS, GM_AGAIN, GM_FINDINGS or GM_GUARDS that belong to the answer. Answers may come in another
 * order than the requests; the effects keep the requests' order. Neither side waits in the middle of a frame; a sender
 * that finds the socket full waits or queues, and never drops an answer. Frames that carried a key (GM_INSTALL_SET) are
 * overwritten by both sides once they are sent and once they are read.
 *
 * Errors
 *   gm_done.outcome is GM_OK or 1 + gmgate::Reaction. GM_REFUSED with EPERM or EBADMSG is the worker's own word ("not
 * allowed by the configuration", "malformed"); otherwise `code` and `text` are the kernel's, as far as it has given
 * any.
 */
#ifndef GMGATE_XFRM_ENGINE_PROTOCOL_H
#define GMGATE_XFRM_ENGINE_PROTOCOL_H

#include <stdint.h>

enum {
    GM_PROTOCOL_VERSION = 3,
    GM_WORK_FD = 3,         /* the worker's socket */
    GM_GUARD_FD = 3,        /* the guardian's socket to gmgated */
    GM_FRAME_LIMIT = 16384, /* octets; no frame is larger */
    GM_IN_FLIGHT_LIMIT =
        4096, /* requests without GM_DONE; one more is refused with ENOBUFS (GM_RETRY) and counted as a flood */
    GM_TEXT_LIMIT = 256, /* with the 0 at its end */
};

enum gm_kind {
    /* guardian -> worker, first of all; gmgated -> guardian, once: gm_configuration, then `count` gm_ports */
    GM_CONFIGURE = 1,
    /* gmgated -> worker */
    GM_INSTALL_SET = 2, /* gm_install: all four SAs or none (xfrm::Kernel::install_set) */
    GM_EXTEND_SET = 3,  /* gm_extend: a new hard limit counted from now */
    GM_REMOVE_SET =
        4, /* gm_set: those of its SAs that exist with our reqid and its selector; another's under the same SPI stays */
    GM_REMOVE_SAS = 5,     /* `count` gm_sa_id: those of them that exist with our reqid */
    GM_REPORT_SET = 6,     /* gm_set; GM_REPORTS with those that exist and are ours */
    GM_DUMP = 7,           /* nothing; GM_REPORTS and GM_AGAIN */
    GM_INSTALL_GUARDS = 8, /* gm_guards, then `count` uint16_t ports */
    /* 9 was to remove guards: only `gmgated --remove-guards` does that, in its own process */
    GM_PROBE = 10,          /* `count` gm_pair; GM_FINDINGS */
    GM_REPORT_GUARDS = 11,  /* gm_guards, then `count` uint16_t ports; GM_GUARDS */
    GM_FOLLOW_NAT = 12,     /* gm_follow: where the UE's NAT has its port 4500 now (xfrm::Kernel::follow_nat) */
    GM_SEAL_SET = 13,       /* gm_seal: the keys of an installed set for another node; GM_SEALED */
    GM_INSTALL_SEALED = 14, /* gm_install_sealed: all four SAs or none, from what another node sealed */
    GM_DIALOG_KEY = 15,     /* nothing: the key by which all nodes of the cluster know calls; GM_KEY */
    GM_MOVE_SEALED = 16,    /* gm_install_sealed: a set that stands counts on from what another node sealed */
    /* worker -> gmgated, answers */
    GM_DONE = 64,     /* gm_done */
    GM_REPORTS = 65,  /* `count` gm_report */
    GM_AGAIN = 66,    /* nothing: the kernel's list is begun again, what was told of this dump counts no more */
    GM_FINDINGS = 67, /* `count` gm_finding */
    GM_GUARDS = 68,   /* `count` gm_guard: those of the asked ones that stand as ours */
    GM_SEALED = 69,   /* gm_sealed */
    GM_KEY = 70,      /* gm_key */
    /* worker -> gmgated, unasked (sequence 0) */
    GM_READY = 128, /* gm_ready: events are being heard and requests served from now on */
    GM_EVENT = 129, /* gm_event */
    /* guardian -> gmgated */
    GM_WORKER_UP = 192, /* gm_worker, and with it one descriptor (SCM_RIGHTS): the other end of that worker's socket */
    GM_WORKER_DOWN = 193, /* gm_worker */
};

enum gm_flag {
    GM_MORE = 1, /* of GM_CONFIGURE: another one follows, whose fixed part is equal and whose ports add to these */
};

/* 16 octets, at the beginning of each frame. */
struct gm_header {
    uint16_t version; /* GM_PROTOCOL_VERSION */
    uint16_t kind;
    uint32_t sequence; /* of a request, and of its answers; 0 in unasked frames */
    uint32_t count;    /* of what is repeated, else 0 */
    uint32_t flags;
};

struct gm_address {
    uint8_t octets[16]; /* network order, an IPv4 address in the first four */
    uint32_t family;    /* 4 or 6 */
};

/* gmgate::Alg: 0 hmac-sha-1-96, 1 hmac-md5-96, 2 aes-gmac, 3 null. gmgate::Ealg: 0 aes-cbc, 1 des-ede3-cbc, 2 aes-gcm,
 * 3 null. */
struct gm_pair {
    uint8_t alg, ealg;
    uint8_t reserved[2];
};

/* Everything that a later request may name. */
struct gm_configuration {
    uint32_t reqid;               /* on every SA and policy of ours; none other is touched, or told of */
    uint32_t mark_mask;           /* bits of the mark that inbound SAs set; a mark has no others and is not 0 */
    uint32_t spi_first, spi_last; /* of inbound SAs */
    uint32_t sa_limit; /* SAs of ours that may exist; GM_INSTALL_SET beyond it is GM_EXHAUSTED; 0: no limit */
    uint32_t reserved;
};
/* xfrm::Mode. An engine that cannot write GM_UDP_ENC_TUN refuses a configuration, a set or guards with it, and says so.
 */
enum gm_mode { GM_TRANSPORT = 0, GM_UDP_ENC_TUN = 1 };

/* Protected ports first..last of an access address: port_ps, port_pc and guards are of these. With GM_UDP_ENC_TUN they
 * are a power of two in number, and `first` is a multiple of it. */
struct gm_ports {
    struct gm_address gateway;
    uint16_t first, last;
    uint16_t mode; /* gm_mode */
    uint16_t reserved;
};

/* xfrm::SetParameters. SPIs of one direction differ, none is 0, both addresses are of one family. */
struct gm_set {
    struct gm_address ue, gateway;
    uint16_t port_uc, port_us, port_pc, port_ps;
    uint32_t spi_uc, spi_us, spi_pc, spi_ps;
    struct gm_pair pair;
    uint16_t mode; /* gm_mode */
    uint16_t reserved;
    struct gm_address inner; /* GM_UDP_ENC_TUN: the private address that the UE may have inside; all 0: none */
};

struct gm_install {
    struct gm_set set;
    uint32_t reqid;    /* that of the configuration */
    uint32_t mark;     /* set by inbound SAs (XFRMA_SET_MARK), and `seq` of all four */
    uint32_t lifetime; /* seconds, hard limit of all four, not 0 */
    uint8_t integrity_size, confidentiality_size, combined_size,
        reserved;       /* octets of the keys, as the pair wants them */
    uint16_t port_uenc; /* GM_UDP_ENC_TUN: UDP port of the UE's NAT, a guess; else 0 */
    uint16_t reserved_too;
    uint8_t integrity[20];       /* HMAC-MD5: 16, HMAC-SHA-1: 20 */
    uint8_t confidentiality[24]; /* AES-CBC: 16, DES-EDE3-CBC: 24 */
    uint8_t combined[20];        /* AES-GCM, AES-GMAC: key and salt */
};

/* A set's keys under the secret of a cluster (xfrm/engine/sealer.h): AES-256-GCM over three sizes, a 0 and the three
 * key fields of gm_install; the tag behind it. Cluster, set, record and everything before the nonce are bound to it. */
struct gm_sealed {
    uint64_t epoch;           /* in which it was sealed, from 1 */
    uint32_t out_sequence[2]; /* last sent: port_pc->port_us, port_ps->port_uc */
    uint32_t in_sequence[2];  /* highest received: port_uc->port_ps, port_us->port_pc */
    uint8_t key_id;           /* line of the secret */
    uint8_t reserved[3];
    uint8_t nonce[12];
    uint8_t octets[84];
    uint8_t reserved_end[4];
};
struct gm_seal {
    uint64_t epoch; /* of gmgated's node, not 0 */
    struct gm_set set;
    uint8_t record[32];  /* digest of what else is in the record */
    uint8_t reserved[4]; /* 0 */
};
struct gm_install_sealed {
    uint64_t epoch; /* of gmgated's node: later than the seal's */
    struct gm_set set;
    uint8_t record[32];
    uint32_t reqid, mark, lifetime; /* as in gm_install */
    uint16_t port_uenc;             /* as in gm_install */
    uint16_t reserved;              /* 0 */
    uint32_t reserved_too;          /* 0 */
    struct gm_sealed sealed;
};
/* Derived from the cluster's secret, for marks in Record-Route: it opens no seal. */
struct gm_key {
    uint8_t octets[16];
};

struct gm_extend {
    struct gm_set set;
    uint32_t lifetime; /* seconds from now, not 0 */
};

struct gm_follow {
    struct gm_set set;  /* of mode GM_UDP_ENC_TUN */
    uint16_t port_uenc; /* not 0 */
    uint16_t reserved;
};

struct gm_sa_id {
    struct gm_address destination;
    uint32_t spi;
};

/* The ports that follow are of transport mode. */
struct gm_guards {
    struct gm_address gateway;
    uint16_t nat_first, nat_size; /* and those of GM_UDP_ENC_TUN: a whole range of the configuration, or 0 and 0 */
};

/* xfrm::GuardPolicy */
struct gm_guard {
    struct gm_address gateway;
    uint16_t port, is_outbound;
    uint16_t nat_block; /* ports from `port` on, of GM_UDP_ENC_TUN; 0: one, of transport mode */
    uint16_t reserved;
};

/* xfrm::SaReport */
struct gm_report {
    struct gm_address source, destination;
    uint16_t source_port, destination_port;
    uint32_t spi;
    uint32_t mark;
    struct gm_pair pair;
    uint16_t encap_source, encap_destination; /* GM_UDP_ENC_TUN: the UDP ports around it, not both 0; else 0 */
    uint16_t mode;                            /* gm_mode */
    uint16_t has_any_inner;                   /* GM_UDP_ENC_TUN: 1: its selector names no address of the UE */
    uint32_t is_outbound;                     /* 1: an SA of ours without XFRMA_SET_MARK; inbound ones have it */
    uint32_t replay_window_drops, replay_drops, integrity_failures;
    uint64_t packets, bytes;
    int64_t added;          /* seconds since 1970, add_time of the kernel */
    uint64_t hard_lifetime; /* seconds from `added`, 0 for none */
};

/* xfrm::ProbeFinding; texts end with 0 */
struct gm_finding {
    uint32_t is_present;
    char feature[64], reason[GM_TEXT_LIMIT], module[64];
};

enum gm_outcome {
    GM_OK = 0, /* the others are 1 + gmgate::Reaction */
    GM_REJECT = 1,
    GM_RETRY = 2,
    GM_EXHAUSTED = 3,
    GM_REFUSED = 4,
    GM_BROKEN = 5,
    GM_INTERNAL = 6,
};

/* Since the worker's start. */
struct gm_counters {
    uint64_t requests, system_calls; /* to the kernel: netlink messages; sendmsg and recvmsg */
    uint64_t sets_installed, sets_refused, sets_removed, rollbacks; /* xfrm::KernelCounters */
    uint64_t malformed, forbidden, flooded;                         /* requests refused by the worker itself */
    uint64_t events, events_lost;                                   /* GM_EVENT sent; those that had no room */
};

struct gm_done {
    uint32_t outcome; /* gm_outcome */
    int32_t code;     /* errno, 0 when none applies */
    char text[GM_TEXT_LIMIT];
    struct gm_counters counters;
};

struct gm_ready {
    uint32_t pid;
    char engine[60]; /* "netlink", "libcharon 5.9.8" */
};

/* xfrm::KernelEvent, its kinds in the same order */
enum gm_event_kind {
    GM_SOFT_EXPIRED = 0,
    GM_HARD_EXPIRED = 1,
    GM_SA_DELETED = 2,
    GM_SAS_FLUSHED = 3,
    GM_POLICY_DELETED = 4,
    GM_POLICY_REPLACED = 5,
    GM_POLICIES_FLUSHED = 6,
    GM_EVENTS_LOST = 7,
    GM_MAPPING_CHANGED = 8,
};
struct gm_event {
    uint32_t event;                /* gm_event_kind */
    struct gm_address destination; /* of the SA: first three kinds; only SAs with our reqid are told of */
    uint32_t spi;
    uint32_t mark;           /* its `seq`: whose set it is */
    struct gm_address guard; /* of a policy, whoever's: the address and port of its selector on the gateway's side */
    uint16_t guard_port;
    uint16_t guard_is_outbound;
    uint16_t guard_nat_block;
    uint16_t reserved;
    struct gm_address before, now; /* GM_MAPPING_CHANGED: the UE's outer address and port; else 0, the families, too */
    uint16_t before_port, now_port;
};

struct gm_worker {
    uint32_t pid;
    uint32_t starts;  /* of workers so far: 1 for the first */
    int32_t status;   /* GM_WORKER_DOWN: as waitpid() tells it */
    uint32_t refused; /* frames that the guardian did not take: a second configuration, anything else */
};

/* A request's kind in words, for logs; "unknown" for a number that is none. */
static inline const char* gm_kind_name(uint16_t kind) {
    switch (kind) {
        case GM_CONFIGURE:
            return "configure";
        case GM_INSTALL_SET:
            return "install-set";
        case GM_EXTEND_SET:
            return "extend-set";
        case GM_REMOVE_SET:
            return "remove-set";
        case GM_REMOVE_SAS:
            return "remove-sas";
        case GM_REPORT_SET:
            return "report-set";
        case GM_DUMP:
            return "dump";
        case GM_INSTALL_GUARDS:
            return "install-guards";
        case GM_PROBE:
            return "probe";
        case GM_REPORT_GUARDS:
            return "report-guards";
        case GM_FOLLOW_NAT:
            return "follow-nat";
        case GM_SEAL_SET:
            return "seal-set";
        case GM_INSTALL_SEALED:
            return "install-sealed";
        case GM_DIALOG_KEY:
            return "dialog-key";
        case GM_MOVE_SEALED:
            return "move-sealed";
        default:
            return "unknown"; /* the number is the other end's */
    }
}

#ifdef __cplusplus
#define GM_SIZE(type, octets) static_assert(sizeof(type) == (octets), "the layout of " #type " has padding")
#else
#define GM_SIZE(type, octets) _Static_assert(sizeof(type) == (octets), "the layout of " #type " has padding")
#endif
GM_SIZE(struct gm_header, 16);
GM_SIZE(struct gm_address, 20);
GM_SIZE(struct gm_configuration, 24);
GM_SIZE(struct gm_ports, 28);
GM_SIZE(struct gm_set, 92);
GM_SIZE(struct gm_install, 176);
GM_SIZE(struct gm_sealed, 128);
GM_SIZE(struct gm_seal, 136);
GM_SIZE(struct gm_install_sealed, 280);
GM_SIZE(struct gm_key, 16);
GM_SIZE(struct gm_extend, 96);
GM_SIZE(struct gm_follow, 96);
GM_SIZE(struct gm_guards, 24);
GM_SIZE(struct gm_sa_id, 24);
GM_SIZE(struct gm_guard, 28);
GM_SIZE(struct gm_report, 112);
GM_SIZE(struct gm_finding, 388);
GM_SIZE(struct gm_counters, 88);
GM_SIZE(struct gm_done, 352);
GM_SIZE(struct gm_ready, 64);
GM_SIZE(struct gm_event, 104);
GM_SIZE(struct gm_worker, 16);
#undef GM_SIZE

#endif
