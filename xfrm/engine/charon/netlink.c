/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/xfrm.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pairs.h"

enum {
    PATIENCE_MS = 5000,
    GUARD_PRIORITY = 2000, /* xfrm::kGuardPriority: before charon's (200000 and up) */
    DUMP_BUFFER = 65536,
};

static struct mnl_socket* sock;
static uint32_t sequence;
static uint64_t requests, system_calls;
static _Alignas(8) char answers[DUMP_BUFFER];
static bool is_interrupted; /* what was dumped so far */

uint64_t netlink_requests(void) { return requests; }
uint64_t netlink_system_calls(void) { return system_calls; }

int netlink_open(void) {
    sock = mnl_socket_open2(NETLINK_XFRM, SOCK_CLOEXEC);
    if (!sock) return errno;
    if (mnl_socket_bind(sock, 0, MNL_SOCKET_AUTOPID) < 0) return errno;
    const int on = 1;
    (void)mnl_socket_setsockopt(sock, NETLINK_EXT_ACK, (void*)&on, sizeof on);
    (void)mnl_socket_setsockopt(sock, NETLINK_CAP_ACK, (void*)&on, sizeof on);
    return 0;
}

void netlink_close(void) {
    if (sock) (void)mnl_socket_close(sock);
    sock = NULL;
}

/* --- messages */

static struct nlmsghdr* begin(char buffer[4096], uint16_t type, uint16_t flags) {
    memset(buffer, 0, 4096);
    struct nlmsghdr* message = mnl_nlmsg_put_header(buffer);
    message->nlmsg_type = type;
    message->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    message->nlmsg_seq = ++sequence;
    return message;
}

static void put_address(xfrm_address_t* out, int family, const uint8_t octets[16]) {
    memcpy(out, octets, address_size(family));
}

static struct xfrm_selector guard_selector(const struct guard* guard) {
    struct xfrm_selector out = {.family = (uint16_t)guard->family};
    const uint8_t full = (uint8_t)(address_size(guard->family) * 8);
    if (guard->is_outbound) {
        put_address(&out.saddr, guard->family, guard->gateway);
        out.prefixlen_s = full;
        out.sport = htons(guard->port);
        out.sport_mask = 0xffff;
    } else {
        put_address(&out.daddr, guard->family, guard->gateway);
        out.prefixlen_d = full;
        out.dport = htons(guard->port);
        out.dport_mask = 0xffff;
    }
    return out;
}

static uint8_t direction_of(const struct guard* guard) { return guard->is_outbound ? XFRM_POLICY_OUT : XFRM_POLICY_IN; }

/* --- answers */

static bool is_whole(const struct nlmsghdr* message, size_t left) {
    /* libmnl 1.0.4 compares the length as a signed number, and attributes are walked up to the aligned length. */
    return left >= sizeof *message && message->nlmsg_len >= sizeof *message &&
           ((uint64_t)message->nlmsg_len + 3) / 4 * 4 <= left;
}

struct attributes {
    const struct nlattr* of[XFRMA_MAX + 1];
};

static int keep(const struct nlattr* attribute, void* out) {
    const uint16_t type = mnl_attr_get_type(attribute);
    if (type <= XFRMA_MAX) ((struct attributes*)out)->of[type] = attribute;
    return MNL_CB_OK;
}

/* The name of an algorithm attribute and nothing more: its key is never read. */
static const char* algorithm_name(const struct nlattr* attribute, char out[65]) {
    memset(out, 0, 65);
    if (attribute && mnl_attr_get_payload_len(attribute) >= sizeof(struct xfrm_algo))
        memcpy(out, mnl_attr_get_payload(attribute), 64);
    return out;
}

static uint32_t number(const struct nlattr* attribute) {
    uint32_t out = 0;
    if (attribute && mnl_attr_get_payload_len(attribute) >= sizeof out)
        memcpy(&out, mnl_attr_get_payload(attribute), sizeof out);
    return out;
}

static bool is_exact(const struct xfrm_selector* sel) {
    const unsigned full = sel->family == AF_INET6 ? 128 : 32;
    return sel->prefixlen_d == full && sel->prefixlen_s == full && sel->dport_mask == 0xffff &&
           sel->sport_mask == 0xffff && sel->proto == 0;
}

void netlink_read_sa(const struct nlmsghdr* message, struct told_sa* out) {
    struct xfrm_usersa_info info;
    memset(out, 0, sizeof *out);
    size_t offset = sizeof info;
    struct attributes found = {{0}};
    if (message->nlmsg_type == XFRM_MSG_DELSA) { /* usersa_id, then usersa_info as an attribute beside the others */
        offset = sizeof(struct xfrm_usersa_id);
        if (mnl_nlmsg_get_payload_len(message) < offset) return;
        (void)mnl_attr_parse(message, (unsigned)offset, keep, &found);
        if (!found.of[XFRMA_SA] || mnl_attr_get_payload_len(found.of[XFRMA_SA]) < sizeof info) return;
        memcpy(&info, mnl_attr_get_payload(found.of[XFRMA_SA]), sizeof info);
    } else { /* NEWSA, and EXPIRE, whose usersa_info comes first, too */
        if (message->nlmsg_type == XFRM_MSG_EXPIRE) offset = sizeof(struct xfrm_user_expire);
        if (mnl_nlmsg_get_payload_len(message) < offset) return;
        memcpy(&info, mnl_nlmsg_get_payload(message), sizeof info);
        (void)mnl_attr_parse(message, (unsigned)offset, keep, &found);
    }
    struct sa* sa = &out->sa;
    sa->family = info.family == AF_INET6 ? AF_INET6 : AF_INET;
    memcpy(sa->source, &info.sel.saddr, address_size(sa->family));
    memcpy(sa->destination, &info.id.daddr, address_size(sa->family));
    sa->source_port = ntohs(info.sel.sport);
    sa->destination_port = ntohs(info.sel.dport);
    sa->spi = ntohl(info.id.spi);
    sa->is_outbound = (number(found.of[XFRMA_SET_MARK]) & number(found.of[XFRMA_SET_MARK_MASK])) ==
                      0; /* only inbound SAs set a mark */
    out->reqid = info.reqid;
    out->mark = info.seq ? info.seq : number(found.of[XFRMA_SET_MARK]);
    out->packets = info.curlft.packets;
    out->bytes = info.curlft.bytes;
    out->replay_window_drops = info.stats.replay_window;
    out->replay_drops = info.stats.replay;
    out->integrity_failures = info.stats.integrity_failed;
    out->added = (int64_t)info.curlft.add_time;
    out->hard_lifetime = info.lft.hard_add_expires_seconds;

    /* The kernel tells XFRMA_ALG_AUTH beside XFRMA_ALG_AUTH_TRUNC for old readers; the latter alone counts. */
    char auth[65], crypt[65], aead[65];
    const struct pair_row* row =
        pair_by_names(algorithm_name(found.of[XFRMA_ALG_AUTH_TRUNC], auth),
                      algorithm_name(found.of[XFRMA_ALG_CRYPT], crypt), algorithm_name(found.of[XFRMA_ALG_AEAD], aead));
    if (row) out->pair = row->pair;
    out->is_known_kind = row && info.id.proto == IPPROTO_ESP && info.mode == XFRM_MODE_TRANSPORT &&
                         is_exact(&info.sel) && memcmp(&info.sel.daddr, &info.id.daddr, address_size(sa->family)) == 0;
}

static bool is_guard_selector(const struct xfrm_selector* sel, uint8_t direction) {
    const unsigned full = sel->family == AF_INET6 ? 128 : 32;
    if (sel->proto != 0 || sel->ifindex != 0) return false;
    if (direction == XFRM_POLICY_IN)
        return sel->prefixlen_d == full && sel->prefixlen_s == 0 && sel->dport_mask == 0xffff && sel->sport_mask == 0;
    return sel->prefixlen_s == full && sel->prefixlen_d == 0 && sel->sport_mask == 0xffff && sel->dport_mask == 0;
}

static void read_policy(const struct nlmsghdr* message, struct told_policy* out) {
    struct xfrm_userpolicy_info info;
    struct xfrm_user_tmpl tmpl;
    memset(out, 0, sizeof *out);
    if (mnl_nlmsg_get_payload_len(message) < sizeof info) return;
    memcpy(&info, mnl_nlmsg_get_payload(message), sizeof info);
    struct attributes found = {{0}};
    (void)mnl_attr_parse(message, sizeof info, keep, &found);
    out->priority = info.priority;
    bool has_template = false;
    const struct nlattr* templates = found.of[XFRMA_TMPL];
    if (templates && mnl_attr_get_payload_len(templates) >= sizeof tmpl) {
        memcpy(&tmpl, mnl_attr_get_payload(templates), sizeof tmpl);
        out->reqid = tmpl.reqid;
        has_template = mnl_attr_get_payload_len(templates) == sizeof tmpl && tmpl.id.proto == IPPROTO_ESP &&
                       tmpl.mode == XFRM_MODE_TRANSPORT && !tmpl.optional && tmpl.id.spi == 0;
    }
    const uint8_t flags = info.dir == XFRM_POLICY_OUT ? XFRM_POLICY_ICMP : 0;
    out->is_guard_shaped = has_template && info.dir <= XFRM_POLICY_OUT && is_guard_selector(&info.sel, info.dir) &&
                           info.priority == GUARD_PRIORITY && info.action == XFRM_POLICY_ALLOW && info.flags == flags;
}

static int take_words(const struct nlattr* attribute, void* out) {
    if (mnl_attr_get_type(attribute) != NLMSGERR_ATTR_MSG) return MNL_CB_OK;
    (void)snprintf(out, GM_TEXT_LIMIT, "%.*s", (int)mnl_attr_get_payload_len(attribute),
                   (const char*)mnl_attr_get_payload(attribute));
    return MNL_CB_OK;
}

/* nlmsgerr; with NETLINK_CAP_ACK the kernel's words follow it at once. */
static int read_status(const struct nlmsghdr* message, char words[GM_TEXT_LIMIT]) {
    struct nlmsgerr status;
    if (mnl_nlmsg_get_payload_len(message) < sizeof status) return EBADMSG;
    memcpy(&status, mnl_nlmsg_get_payload(message), sizeof status);
    if ((message->nlmsg_flags & NLM_F_ACK_TLVS) && (message->nlmsg_flags & NLM_F_CAPPED))
        (void)mnl_attr_parse(message, sizeof status, take_words, words);
    return status.error < 0 ? -status.error : status.error;
}

static int read_done(const struct nlmsghdr* message) {
    int status = 0;
    if (mnl_nlmsg_get_payload_len(message) >= sizeof status)
        memcpy(&status, mnl_nlmsg_get_payload(message), sizeof status);
    return status < 0 ? -status : 0;
}

/* --- one request and its answers; `take` gets every message that is not a status */

struct taker {
    void (*take)(const struct nlmsghdr* message, void* context);
    void* context;
};

enum { ANOTHER = -1 };

static int read_message(const struct nlmsghdr* message, const struct taker* taker, char words[GM_TEXT_LIMIT]) {
    if (message->nlmsg_seq != sequence) return ANOTHER; /* late, of a request that was given up */
    if (message->nlmsg_flags & NLM_F_DUMP_INTR) is_interrupted = true;
    if (message->nlmsg_type == NLMSG_ERROR) return read_status(message, words);
    if (message->nlmsg_type == NLMSG_DONE) return is_interrupted ? EINTR : read_done(message);
    if (taker->take) taker->take(message, taker->context);
    return message->nlmsg_flags & NLM_F_MULTI ? ANOTHER : 0;
}

static int receive(const struct taker* taker, char words[GM_TEXT_LIMIT]) {
    struct pollfd wanted = {.fd = mnl_socket_get_fd(sock), .events = POLLIN};
    for (;;) {
        if (poll(&wanted, 1, PATIENCE_MS) == 0) return ETIMEDOUT;
        const ssize_t size = mnl_socket_recvfrom(sock, answers, sizeof answers);
        ++system_calls;
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return errno;
        int result = ANOTHER;
        size_t left = (size_t)size;
        for (const char* at = answers; result == ANOTHER && left > 0;) {
            const struct nlmsghdr* message = (const struct nlmsghdr*)at;
            if (!is_whole(message, left)) {
                result = EBADMSG;
                break;
            }
            result = read_message(message, taker, words);
            const size_t step = ((size_t)message->nlmsg_len + 3) / 4 * 4;
            at += step;
            left -= step;
        }
        explicit_bzero(answers, (size_t)size);
        if (result != ANOTHER) return result;
    }
}

static int exchange(const struct nlmsghdr* message, const struct taker* taker, char words[GM_TEXT_LIMIT]) {
    ++requests;
    ++system_calls;
    is_interrupted = false;
    if (mnl_socket_sendto(sock, message, message->nlmsg_len) < 0) return errno;
    return receive(taker, words);
}

static int act(const struct nlmsghdr* message, char words[GM_TEXT_LIMIT]) {
    const struct taker nobody = {0};
    return exchange(message, &nobody, words);
}

/* --- SAs */

struct finding {
    struct told_sa* out;
    bool is_told;
};

static void take_one(const struct nlmsghdr* message, void* context) {
    struct finding* finding = context;
    if (message->nlmsg_type != XFRM_MSG_NEWSA) return;
    netlink_read_sa(message, finding->out);
    finding->is_told = true;
}

int netlink_find(const struct sa* sa, struct told_sa* out, char words[GM_TEXT_LIMIT]) {
    char buffer[4096];
    struct nlmsghdr* message = begin(buffer, XFRM_MSG_GETSA, 0);
    struct xfrm_usersa_id* id = mnl_nlmsg_put_extra_header(message, sizeof *id);
    put_address(&id->daddr, sa->family, sa->destination);
    id->spi = htonl(sa->spi);
    id->family = (uint16_t)sa->family;
    id->proto = IPPROTO_ESP;
    struct finding finding = {.out = out};
    const struct taker taker = {take_one, &finding};
    const int code = exchange(message, &taker, words);
    return code == 0 && !finding.is_told ? EBADMSG : code;
}

struct visit {
    void (*each)(const struct told_sa*, void*);
    void* context;
};

static void take_each(const struct nlmsghdr* message, void* context) {
    const struct visit* visit = context;
    struct told_sa told;
    if (message->nlmsg_type != XFRM_MSG_NEWSA) return;
    netlink_read_sa(message, &told);
    visit->each(&told, visit->context);
}

int netlink_dump(void (*each)(const struct told_sa* told, void* context), void* context, char words[GM_TEXT_LIMIT]) {
    char buffer[4096];
    struct nlmsghdr* message = begin(buffer, XFRM_MSG_GETSA, NLM_F_DUMP);
    (void)mnl_nlmsg_put_extra_header(message, sizeof(struct xfrm_usersa_id));
    mnl_attr_put_u8(message, XFRMA_PROTO, IPPROTO_ESP); /* the kernel filters by protocol, not by reqid */
    struct visit visit = {each, context};
    const struct taker taker = {take_each, &visit};
    return exchange(message, &taker, words);
}

/* --- guards: libcharon cannot say XFRM_POLICY_ICMP, would replace another's policy, and counts references instead of
 * asking the kernel */

int netlink_add_guard(const struct guard* guard, uint32_t reqid, char words[GM_TEXT_LIMIT]) {
    char buffer[4096];
    struct nlmsghdr* message = begin(buffer, XFRM_MSG_NEWPOLICY, NLM_F_ACK);
    struct xfrm_userpolicy_info* info = mnl_nlmsg_put_extra_header(message, sizeof *info);
    info->sel = guard_selector(guard);
    info->lft.soft_byte_limit = info->lft.hard_byte_limit = XFRM_INF;
    info->lft.soft_packet_limit = info->lft.hard_packet_limit = XFRM_INF;
    info->priority = GUARD_PRIORITY;
    info->dir = direction_of(guard);
    info->action = XFRM_POLICY_ALLOW;
    info->flags = guard->is_outbound ? XFRM_POLICY_ICMP : 0;
    const struct xfrm_user_tmpl tmpl = {.id.proto = IPPROTO_ESP,
                                        .family = (uint16_t)guard->family,
                                        .reqid = reqid,
                                        .mode = XFRM_MODE_TRANSPORT,
                                        .aalgos = ~0U,
                                        .ealgos = ~0U,
                                        .calgos = ~0U};
    mnl_attr_put(message, XFRMA_TMPL, sizeof tmpl, &tmpl);
    return act(message, words);
}

static struct nlmsghdr* about_guard(char buffer[4096], uint16_t type, uint16_t flags, const struct guard* guard) {
    struct nlmsghdr* message = begin(buffer, type, flags);
    struct xfrm_userpolicy_id* id = mnl_nlmsg_put_extra_header(message, sizeof *id);
    id->sel = guard_selector(guard);
    id->dir = direction_of(guard);
    return message;
}

static void take_policy(const struct nlmsghdr* message, void* context) {
    if (message->nlmsg_type == XFRM_MSG_NEWPOLICY) read_policy(message, context);
}

int netlink_find_guard(const struct guard* guard, struct told_policy* out, char words[GM_TEXT_LIMIT]) {
    char buffer[4096];
    const struct taker taker = {take_policy, out};
    memset(out, 0, sizeof *out);
    return exchange(about_guard(buffer, XFRM_MSG_GETPOLICY, 0, guard), &taker, words);
}

int netlink_delete_guard(const struct guard* guard, char words[GM_TEXT_LIMIT]) {
    char buffer[4096];
    return act(about_guard(buffer, XFRM_MSG_DELPOLICY, NLM_F_ACK, guard), words);
}
