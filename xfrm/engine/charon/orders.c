/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "orders.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "events.h"
#include "netlink.h"
#include "pairs.h"
#include "rules.h"
#include "writer.h"

enum { DUMMY_LIFETIME = 30 }; /* of the probe, should this process end between adding and deleting */

static struct order_counters counters;
static const struct verdict done = {.outcome = GM_OK};

const struct order_counters* order_counters(void) { return &counters; }

static struct gm_address destination_of(const struct sa* sa) {
    struct gm_address out;
    address_to(sa->family, sa->destination, &out);
    return out;
}

static bool is_ours(const struct told_sa* told, const struct sa* sa) {
    return told->reqid == rules_configuration()->reqid && sa_same_selector(&told->sa, sa);
}

/* --- sets */

/* Deletes what a refused set left. */
static void undo(const struct sa* sas, int count) {
    for (int i = 0; i < count; ++i) {
        char words[GM_TEXT_LIMIT] = "";
        const int code = writer_delete(&sas[i], words);
        if (code == 0 || code == ESRCH) ++counters.rollbacks;
    }
}

/* An SA that may or may not have been added, because its answer was lost: deleted when it is ours and this set's. */
static void settle(const struct sa* sa, uint32_t mark) {
    struct told_sa told;
    char words[GM_TEXT_LIMIT] = "";
    if (netlink_find(sa, &told, words) == 0 && is_ours(&told, sa) && told.mark == mark) undo(sa, 1);
}

struct verdict order_install(const struct gm_install* install) {
    const struct gm_configuration* c = rules_configuration();
    const struct writer_keys keys = {
        .integrity = install->integrity, .confidentiality = install->confidentiality, .combined = install->combined};
    struct sa sas[4];
    sa_four(&install->set, sas);
    if (c->sa_limit != 0 && marks_count() + 4 > c->sa_limit)
        return verdict(GM_EXHAUSTED, ENOSPC, "the engine's limit of %u SAs is reached", c->sa_limit);
    for (int i = 0; i < 4; ++i) {
        const struct gm_address destination = destination_of(&sas[i]);
        char words[GM_TEXT_LIMIT] = "", text[SA_TEXT_SIZE];
        const int code = writer_add(&sas[i], install->set.pair, &keys, c->reqid, install->mark, c->mark_mask,
                                    install->lifetime, words);
        if (code == 0 && marks_put(&destination, sas[i].spi, install->mark)) continue;
        ++counters.sets_refused;
        if (code == ETIMEDOUT) settle(&sas[i], install->mark);
        undo(sas, code == 0 ? i + 1 : i);
        return code == 0 ? verdict(GM_RETRY, ENOMEM, "no memory in the engine")
                         : refusal(sa_text(&sas[i], text), code, words);
    }
    ++counters.sets_installed;
    return done;
}

/* Asks for all four; ours they must be. */
static struct verdict find_set(const struct sa sas[4], struct told_sa told[4]) {
    for (int i = 0; i < 4; ++i) {
        char words[GM_TEXT_LIMIT] = "", text[SA_TEXT_SIZE], what[SA_TEXT_SIZE + 16];
        const int code = netlink_find(&sas[i], &told[i], words);
        (void)snprintf(what, sizeof what, "to tell of %s", sa_text(&sas[i], text));
        if (code != 0) return refusal(what, code, words);
        if (!is_ours(&told[i], &sas[i])) return verdict(GM_REFUSED, EEXIST, "%s is another's in the kernel", text);
    }
    return done;
}

struct verdict order_extend(const struct gm_extend* extend) {
    struct sa sas[4];
    struct told_sa told[4];
    sa_four(&extend->set, sas);
    struct verdict found = find_set(sas, told);
    if (!is_ok(&found)) return found;
    const int64_t now = time(NULL);
    for (int i = 0; i < 4; ++i) {
        /* The kernel counts from add_time in wall-clock seconds; after a step back of that clock the age is below 0,
         * and a limit of 0 would mean none. */
        const int64_t limit = now - told[i].added + extend->lifetime;
        char words[GM_TEXT_LIMIT] = "", text[SA_TEXT_SIZE], what[SA_TEXT_SIZE + 24];
        const int code = writer_limit(&sas[i], told[i].pair, rules_configuration()->reqid,
                                      (uint64_t)(limit > 0 ? limit : extend->lifetime), words);
        if (code == 0) continue;
        for (int j = 0; j < i; ++j)
            (void)writer_limit(&sas[j], told[j].pair, rules_configuration()->reqid, told[j].hard_lifetime, words);
        (void)snprintf(what, sizeof what, "a new lifetime of %s", sa_text(&sas[i], text));
        return refusal(what, code, words);
    }
    return done;
}

/* 0: it is there and ours (with `has_selector`, by its selector), as `told`; ESRCH: it is not, EPERM: it is another's;
 * or why nobody knows. */
static int find_own(const struct sa* sa, bool has_selector, struct told_sa* told, char words[GM_TEXT_LIMIT]) {
    const int code = netlink_find(sa, told, words);
    if (code != 0) return code;
    if (told->reqid != rules_configuration()->reqid || told->mark == 0) return EPERM;
    return has_selector && !sa_same_selector(&told->sa, sa) ? ESRCH : 0;
}

static struct verdict not_deleted(const struct sa* sa, int code, const char* words) {
    char text[SA_TEXT_SIZE], what[SA_TEXT_SIZE + 16];
    (void)snprintf(what, sizeof what, "to delete %s", sa_text(sa, text));
    return refusal(what, code, words);
}

struct verdict order_remove_set(const struct gm_set* set) {
    struct sa sas[4];
    struct verdict result = done;
    sa_four(set, sas);
    for (int i = 0; i < 4; ++i) {
        struct told_sa told;
        char words[GM_TEXT_LIMIT] = "";
        int code = find_own(&sas[i], true, &told, words);
        if (code == 0) code = writer_delete(&sas[i], words);
        else if (code == EPERM) continue; /* its SPI has a new owner, who is not we */
        if (code != 0 && code != ESRCH && is_ok(&result)) result = not_deleted(&sas[i], code, words);
    }
    if (is_ok(&result)) ++counters.sets_removed;
    return result;
}

struct verdict order_remove_sas(const struct gm_sa_id* ids, uint32_t count) {
    static struct sa wanted[GM_FRAME_LIMIT / sizeof(struct gm_sa_id)];
    uint32_t own = 0;
    for (uint32_t i = 0; i < count; ++i) {
        struct sa sa = {.spi = ids[i].spi};
        if (!address_from(&ids[i].destination, &sa.family, sa.destination) || sa.spi == 0)
            return malformed("an SA's address or SPI");
    }
    /* All are asked for before one is deleted: another's among them refuses all. */
    for (uint32_t i = 0; i < count; ++i) {
        struct sa sa = {.spi = ids[i].spi};
        struct told_sa told;
        char words[GM_TEXT_LIMIT] = "", text[SA_TEXT_SIZE];
        (void)address_from(&ids[i].destination, &sa.family, sa.destination);
        const int code = find_own(&sa, false, &told, words);
        if (code == EPERM) return verdict(GM_REFUSED, EPERM, "not allowed: %s is another's", sa_text(&told.sa, text));
        if (code != 0 && code != ESRCH) return not_deleted(&sa, code, words);
        if (code == 0) wanted[own++] = told.sa;
    }
    struct verdict result = done;
    for (uint32_t i = 0; i < own; ++i) {
        char words[GM_TEXT_LIMIT] = "";
        const int code = writer_delete(&wanted[i], words);
        if (code != 0 && code != ESRCH && is_ok(&result)) result = not_deleted(&wanted[i], code, words);
    }
    return result;
}

/* --- what is there */

static struct gm_report report_of(const struct told_sa* told) {
    struct gm_report out = {.source_port = told->sa.source_port,
                            .destination_port = told->sa.destination_port,
                            .spi = told->sa.spi,
                            .mark = told->mark,
                            .pair = told->pair,
                            .is_outbound = told->sa.is_outbound,
                            .replay_window_drops = told->replay_window_drops,
                            .replay_drops = told->replay_drops,
                            .integrity_failures = told->integrity_failures,
                            .packets = told->packets,
                            .bytes = told->bytes,
                            .added = told->added,
                            .hard_lifetime = told->hard_lifetime};
    address_to(told->sa.family, told->sa.source, &out.source);
    address_to(told->sa.family, told->sa.destination, &out.destination);
    return out;
}

struct verdict order_report(const struct gm_set* set, struct gm_report out[4], uint32_t* count) {
    struct sa sas[4];
    *count = 0;
    sa_four(set, sas);
    for (int i = 0; i < 4; ++i) {
        struct told_sa told;
        char words[GM_TEXT_LIMIT] = "", text[SA_TEXT_SIZE];
        const int code = netlink_find(&sas[i], &told, words);
        if (code != 0 && code != ESRCH) return refusal(sa_text(&sas[i], text), code, words);
        if (code != 0 || !told.is_known_kind || !is_ours(&told, &sas[i])) continue;
        told.sa.is_outbound = sas[i].is_outbound;
        out[(*count)++] = report_of(&told);
    }
    return done;
}

static void (*visitor)(const struct gm_report*);

static void visit(const struct told_sa* told, void* context) {
    (void)context;
    if (told->reqid != rules_configuration()->reqid || !told->is_known_kind) return;
    const struct gm_report report = report_of(told);
    visitor(&report);
}

struct verdict order_dump(void (*each)(const struct gm_report* report), void (*again)(void)) {
    char words[GM_TEXT_LIMIT] = "";
    visitor = each;
    int code = netlink_dump(visit, NULL, words);
    if (code != 0) { /* inconsistent, or answers were lost: once more */
        again();
        words[0] = '\0';
        code = netlink_dump(visit, NULL, words);
    }
    return code == 0 ? done : refusal("a list of its SAs", code, words);
}

static void remember(const struct gm_report* report) {
    (void)marks_put(&report->destination, report->spi, report->mark);
}

struct verdict order_look_around(void) {
    marks_clear();
    return order_dump(remember, marks_clear);
}

/* --- guards */

static struct guard guard_of(const struct gm_address* gateway, uint16_t port, bool is_outbound) {
    struct guard out = {.port = port, .is_outbound = is_outbound};
    (void)address_from(gateway, &out.family, out.gateway);
    return out;
}

static const char* guard_text(const struct guard* guard, char text[SA_TEXT_SIZE]) {
    char where[ENDPOINT_SIZE];
    (void)snprintf(text, SA_TEXT_SIZE, "the guard policy %s %s", guard->is_outbound ? "out" : "in",
                   endpoint_text(guard->family, guard->gateway, guard->port, where));
    return text;
}

/* A policy that stands in the place of a guard must be that guard: with another template or without XFRM_POLICY_ICMP
 * the port would look protected and not be. */
static struct verdict check_existing(const struct guard* guard) {
    struct told_policy told;
    char words[GM_TEXT_LIMIT] = "", text[SA_TEXT_SIZE], what[SA_TEXT_SIZE + 16];
    const int code = netlink_find_guard(guard, &told, words);
    (void)snprintf(what, sizeof what, "to tell of %s", guard_text(guard, text));
    if (code != 0) return refusal(what, code, words);
    if (told.is_guard_shaped && told.reqid == rules_configuration()->reqid) return done;
    return verdict(
        GM_REFUSED, EEXIST,
        "another policy stands in the place of %s (priority %u, reqid %u): find it with `ip -d xfrm policy` and delete it",
        text, told.priority, told.reqid);
}

struct verdict order_install_guards(const struct gm_address* gateway, const uint16_t* ports, uint32_t count) {
    uint8_t added[2 * GM_FRAME_LIMIT / sizeof(uint16_t)] = {0};
    struct verdict result = done;
    for (uint32_t i = 0; i < 2 * count && is_ok(&result); ++i) {
        const struct guard guard = guard_of(gateway, ports[i / 2], i % 2 != 0);
        char words[GM_TEXT_LIMIT] = "", text[SA_TEXT_SIZE];
        const int code = netlink_add_guard(&guard, rules_configuration()->reqid, words);
        added[i] = code == 0;
        if (code == EEXIST) result = check_existing(&guard);
        else if (code != 0) result = refusal(guard_text(&guard, text), code, words);
    }
    for (uint32_t i = 0; i < 2 * count && !is_ok(&result); ++i) {
        const struct guard guard = guard_of(gateway, ports[i / 2], i % 2 != 0);
        char words[GM_TEXT_LIMIT];
        if (added[i]) (void)netlink_delete_guard(&guard, words);
    }
    return result;
}

struct verdict order_report_guard(const struct gm_address* gateway, uint16_t port,
                                  void (*tell)(const struct gm_guard* guard)) {
    for (uint16_t is_outbound = 0; is_outbound < 2; ++is_outbound) {
        const struct guard guard = guard_of(gateway, port, is_outbound != 0);
        struct told_policy told;
        char words[GM_TEXT_LIMIT] = "", text[SA_TEXT_SIZE], what[SA_TEXT_SIZE + 16];
        const int code = netlink_find_guard(&guard, &told, words);
        (void)snprintf(what, sizeof what, "to tell of %s", guard_text(&guard, text));
        if (code != 0 && code != ENOENT) return refusal(what, code, words);
        const struct gm_guard one = {.gateway = *gateway, .port = port, .is_outbound = is_outbound};
        if (code == 0 && told.is_guard_shaped && told.reqid == rules_configuration()->reqid) tell(&one);
    }
    return done;
}

/* --- probe */

static struct sa dummy(uint32_t family) {
    struct sa sa = {.family = family == 6 ? AF_INET6 : AF_INET, .source_port = 1, .destination_port = 1};
    (void)inet_pton(sa.family, family == 6 ? "2001:db8::1" : "192.0.2.1", sa.source);
    (void)inet_pton(sa.family, family == 6 ? "2001:db8::2" : "192.0.2.2", sa.destination);
    uint32_t random = 0;
    (void)!getrandom(&random, sizeof random, 0);
    sa.spi = 0x10000000 + random % 0xb0000000;
    return sa;
}

struct verdict order_probe(struct gm_pair pair, uint32_t family, struct gm_finding* out) {
    const struct pair_row* row = pair_find(pair);
    memset(out, 0, sizeof *out);
    if (!row) return malformed("an unknown pair of algorithms");
    (void)snprintf(out->feature, sizeof out->feature, "%s, %s", row->words, family == 6 ? "IPv6" : "IPv4");
    const struct gm_configuration* c = rules_configuration();
    const uint32_t mark = c->mark_mask & (~c->mark_mask + 1); /* the lowest bit that we may set */
    const struct sa sa = dummy(family);
    uint8_t key[24];
    (void)!getrandom(key, sizeof key, 0);
    const struct writer_keys keys = {.integrity = key, .confidentiality = key, .combined = key};
    char words[GM_TEXT_LIMIT] = "";
    int code = writer_add(&sa, pair, &keys, c->reqid, mark, c->mark_mask, DUMMY_LIFETIME, words);
    explicit_bzero(key, sizeof key);
    if (code == EPERM || code == ETIMEDOUT) return refusal("a dummy SA (CAP_NET_ADMIN is needed)", code, words);
    if (code != 0) {
        const struct verdict why = refusal("a dummy SA", code, words);
        (void)snprintf(out->reason, sizeof out->reason, "%s", why.text);
        (void)snprintf(out->module, sizeof out->module, "%s",
                       code != EPROTONOSUPPORT ? row->modules
                       : family == 6           ? "esp6"
                                               : "esp4");
        return done;
    }
    struct told_sa told = {0};
    code = netlink_find(&sa, &told, words);
    (void)writer_delete(&sa, words);
    if (code != 0) return refusal("to tell of a dummy SA", code, words);
    out->is_present = told.mark == mark && told.is_known_kind && told.hard_lifetime == DUMMY_LIFETIME;
    if (!out->is_present)
        (void)snprintf(out->reason, sizeof out->reason,
                       "the kernel took the SA but not its mark or lifetime: it is older than 4.19");
    return done;
}
