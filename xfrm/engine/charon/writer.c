/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "writer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "strongswan_config.h"

#include <daemon.h>
#include <library.h>

#include "pairs.h"

/* The constructor of the plugin's IPsec half (kernel_netlink_ipsec.h): exported by the plugin, returns a
 * kernel_ipsec_t. The plugin as a whole would bring its network half, too, which reads all routes, adds routing rules
 * and sets a sysctl. */
extern kernel_ipsec_t* kernel_netlink_ipsec_create(void);

enum {
    REPLAY_WINDOW = 64, /* RFC 4303 3.4.3, B-7: on all four */
    PATIENCE_MS = 5000, /* the kernel answers within the call; longer means that the answer is lost */
    KEY_LIMIT = 24,
};

/* What libcharon logged during one call: its return value does not tell why. */
static struct {
    char words[GM_TEXT_LIMIT];
    bool is_vanished;
} heard;
static uint64_t requests;

static void note(const char* line) {
    if (strstr(line, "try to add SAD entry")) heard.is_vanished = true;
    const size_t used = strlen(heard.words);
    (void)snprintf(heard.words + used, sizeof heard.words - used, "%s%s", used ? "; " : "", line);
}

/* Level 1 tells errors. Higher ones print whole messages, keys included, and are not even formatted. */
static level_t level_of(logger_t* self, debug_t group) {
    (void)self, (void)group;
    return LEVEL_CTRL;
}

/* What libcharon and its plugin say comes over its bus … */
static void hear(logger_t* self, debug_t group, level_t level, int thread, ike_sa_t* ike_sa, const char* line) {
    (void)self, (void)group, (void)thread, (void)ike_sa;
    if (level <= LEVEL_CTRL) note(line);
}

/* … and what libstrongswan says before there is one. */
static void hear_library(debug_t group, level_t level, char* format, ...) {
    (void)group;
    if (level > LEVEL_CTRL) return;
    char line[GM_TEXT_LIMIT];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    note(line);
}

static logger_t logger = {.log = hear, .get_level = level_of};

static void begin(void) {
    memset(&heard, 0, sizeof heard);
    ++requests;
}

/* The errno behind a status. `add_sa` and `del_sa` say FAILED for everything; their words are those of the pinned
 * version. */
static int code_of(status_t status) {
    switch (status) {
        case SUCCESS:
            return 0;
        case ALREADY_DONE:
            return EEXIST;
        case NOT_FOUND:
            return ESRCH;
        default:
            break; /* an enum of the library's */
    }
    if (strstr(heard.words, "(ALREADY_DONE)")) return EEXIST;
    if (strstr(heard.words, "(NOT_FOUND)")) return ESRCH;
    if (strstr(heard.words, "timed out") || strstr(heard.words, "(OUT_OF_RES)")) return ETIMEDOUT;
    if (strstr(heard.words, "not supported by kernel")) return EOPNOTSUPP;
    const char* error = strstr(heard.words, "received netlink error: ");
    const char* number = error ? strchr(error, '(') : NULL;
    const long code = number ? strtol(number + 1, NULL, 10) : 0;
    return code > 0 && code < 4096 ? (int)code : EIO;
}

static int answer(status_t status, char words[GM_TEXT_LIMIT]) {
    const int code = code_of(status);
    if (code != 0) memcpy(words, heard.words, GM_TEXT_LIMIT);
    return code;
}

bool writer_open(char words[GM_TEXT_LIMIT]) {
    memset(&heard, 0, sizeof heard);
    /* An empty list of files instead of /etc/strongswan.conf: the operator's charon is somebody else's. By the name
     * "starter" the plugin knows a program without threads of its own and does not listen to the kernel's events: as a
     * listener to ACQUIRE it would turn on larval SAs for our policies. */
    dbg = hear_library;
    if (library_init("", "starter") && libcharon_init()) {
        charon->bus->add_logger(charon->bus, &logger);
        lib->settings->set_bool(lib->settings, "starter.plugins.kernel-netlink.set_proto_port_transport_sa", TRUE);
        lib->settings->set_int(lib->settings, "starter.plugins.kernel-netlink.timeout", PATIENCE_MS);
        if (charon->kernel->add_ipsec_interface(charon->kernel, kernel_netlink_ipsec_create)) return true;
    }
    (void)snprintf(words, GM_TEXT_LIMIT, "libcharon does not start: %s",
                   heard.words[0] ? heard.words : "it does not say why");
    return false;
}

void writer_close(void) {
    charon->bus->remove_logger(charon->bus, &logger);
    libcharon_deinit();
    library_deinit();
}

uint64_t writer_requests(void) { return requests; }

/* --- values of libstrongswan: hosts and traffic selectors, destroyed by release() */

struct ends {
    kernel_ipsec_sa_id_t id;
    linked_list_t *source, *destination;
};

static chunk_t octets(const uint8_t* address, int family) {
    return chunk_create((u_char*)address, address_size(family));
}

/* One address and one port, protocol any. */
static linked_list_t* selector(int family, const uint8_t* address, uint16_t port) {
    const chunk_t bytes = octets(address, family);
    return linked_list_create_with_items(
        traffic_selector_create_from_bytes(0, family == AF_INET6 ? TS_IPV6_ADDR_RANGE : TS_IPV4_ADDR_RANGE, bytes, port,
                                           bytes, port),
        NULL);
}

static struct ends ends_of(const struct sa* sa) {
    return (struct ends){
        .id = {.src = host_create_from_chunk(sa->family, octets(sa->source, sa->family), 0),
               .dst = host_create_from_chunk(sa->family, octets(sa->destination, sa->family), 0),
               .spi = htonl(sa->spi),
               .proto = IPPROTO_ESP},
        .source = selector(sa->family, sa->source, sa->source_port),
        .destination = selector(sa->family, sa->destination, sa->destination_port),
    };
}

static void release(struct ends* ends) {
    ends->id.src->destroy(ends->id.src);
    ends->id.dst->destroy(ends->id.dst);
    ends->source->destroy_offset(ends->source, offsetof(traffic_selector_t, destroy));
    ends->destination->destroy_offset(ends->destination, offsetof(traffic_selector_t, destroy));
}

/* --- algorithms */

static uint16_t encryption_of(const struct pair_row* row) {
    if (strcmp(row->aead, "rfc4106(gcm(aes))") == 0) return ENCR_AES_GCM_ICV16;
    if (strcmp(row->aead, "rfc4543(gcm(aes))") == 0) return ENCR_NULL_AUTH_AES_GMAC;
    if (strcmp(row->crypt, "cbc(aes)") == 0) return ENCR_AES_CBC;
    if (strcmp(row->crypt, "cbc(des3_ede)") == 0) return ENCR_3DES;
    return ENCR_NULL;
}

static uint16_t integrity_of(const struct pair_row* row) {
    if (strcmp(row->auth, "hmac(sha1)") == 0) return AUTH_HMAC_SHA1_96;
    if (strcmp(row->auth, "hmac(md5)") == 0) return AUTH_HMAC_MD5_96;
    return AUTH_UNDEFINED;
}

static kernel_ipsec_add_sa_t data_of(const struct pair_row* row, const struct writer_keys* keys, uint32_t reqid,
                                     lifetime_cfg_t* lifetime, struct ends* ends) {
    const bool is_aead = row->combined_size != 0;
    return (kernel_ipsec_add_sa_t){
        .reqid = reqid,
        .mode = MODE_TRANSPORT,
        .src_ts = ends->source,
        .dst_ts = ends->destination,
        .lifetime = lifetime,
        .enc_alg = encryption_of(row),
        .enc_key = chunk_create((u_char*)(is_aead ? keys->combined : keys->confidentiality),
                                is_aead ? row->combined_size : row->confidentiality_size),
        .int_alg = integrity_of(row),
        .int_key = chunk_create((u_char*)keys->integrity, row->integrity_size),
        .hw_offload = HW_OFFLOAD_NO,
        .copy_df = TRUE,  /* else XFRM_STATE_NOPMTUDISC */
        .copy_ecn = TRUE, /* else XFRM_STATE_NOECN */
        .copy_dscp = DSCP_COPY_OUT_ONLY,
        .inbound =
            TRUE, /* or an outbound SA gets no anti-replay window; it changes nothing else without offload and DSCP */
    };
}

int writer_add(const struct sa* sa, struct gm_pair pair, const struct writer_keys* keys, uint32_t reqid, uint32_t mark,
               uint32_t mark_mask, uint32_t lifetime, char words[GM_TEXT_LIMIT]) {
    const struct pair_row* row = pair_find(pair);
    if (!row) return EOPNOTSUPP;
    struct ends ends = ends_of(sa);
    lifetime_cfg_t limits = {.time = {.life = lifetime}};
    kernel_ipsec_add_sa_t data = data_of(row, keys, reqid, &limits, &ends);
    data.replay_window = REPLAY_WINDOW;
    data.mark = (mark_t){.value = mark, .mask = sa->is_outbound ? 0 : mark_mask};
    begin();
    const status_t status = charon->kernel->add_sa(charon->kernel, &ends.id, &data);
    release(&ends);
    return answer(status, words);
}

int writer_limit(const struct sa* sa, struct gm_pair pair, uint32_t reqid, uint64_t hard_limit,
                 char words[GM_TEXT_LIMIT]) {
    const struct pair_row* row = pair_find(pair);
    if (!row) return EOPNOTSUPP;
    /* UPDSA copies the limits and nothing else (kernel 6.1: xfrm_state_update), but wants algorithms and keys that it
     * can set up. When the SA has gone meanwhile, libcharon adds it: so these are keys that nobody knows, never the
     * null cipher, and it is deleted again. */
    uint8_t unknown[3][KEY_LIMIT];
    if (getrandom(unknown, sizeof unknown, 0) != (ssize_t)sizeof unknown) return EIO;
    const struct writer_keys keys = {.integrity = unknown[0], .confidentiality = unknown[1], .combined = unknown[2]};
    struct ends ends = ends_of(sa);
    lifetime_cfg_t limits = {.time = {.life = hard_limit}};
    kernel_ipsec_add_sa_t data = data_of(row, &keys, reqid, &limits, &ends);
    data.update = TRUE;
    begin();
    const status_t status = charon->kernel->add_sa(charon->kernel, &ends.id, &data);
    release(&ends);
    explicit_bzero(unknown, sizeof unknown);
    if (heard.is_vanished) {
        if (status == SUCCESS) {
            char ignored[GM_TEXT_LIMIT];
            (void)writer_delete(sa, ignored);
        }
        (void)snprintf(words, GM_TEXT_LIMIT, "it is gone");
        return ESRCH;
    }
    return answer(status, words);
}

int writer_delete(const struct sa* sa, char words[GM_TEXT_LIMIT]) {
    struct ends ends = ends_of(sa);
    kernel_ipsec_del_sa_t data = {0};
    begin();
    const status_t status = charon->kernel->del_sa(charon->kernel, &ends.id, &data);
    release(&ends);
    return answer(status, words);
}
