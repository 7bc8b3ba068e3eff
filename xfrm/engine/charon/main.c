/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gmgate-xfrmd-charon: a worker of gmgate's SA engine whose SAs are written by strongSwan's libcharon
 * (xfrm/engine/protocol.h). One thread: one request after the other, and between two of them the kernel's events.
 * Frames are sent with blocking calls: a gmgated that does not read stops the engine, and then the kernel's events are
 * lost in its socket and said to be. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "events.h"
#include "log.h"
#include "netlink.h"
#include "orders.h"
#include "rules.h"
#include "sandbox.h"
#include "writer.h"

enum {
    REPORTS_PER_FRAME = (GM_FRAME_LIMIT - sizeof(struct gm_header)) / sizeof(struct gm_report),
    PAIRS = 8,
};
_Static_assert(sizeof(struct gm_header) + 2 * PAIRS * sizeof(struct gm_finding) <= GM_FRAME_LIMIT,
               "the findings of all pairs fit one frame");

static _Alignas(8) uint8_t frame[GM_FRAME_LIMIT + 1];
static struct { uint64_t malformed, forbidden, events, events_lost; } counters;

/* --- out */

/* The header and a body; ends the process when the other end is gone. */
static void send_frame(enum gm_kind kind, uint32_t sequence, uint32_t count, const void* body, size_t size) {
    struct gm_header header = {
        .version = GM_PROTOCOL_VERSION, .kind = (uint16_t)kind, .sequence = sequence, .count = count};
    struct iovec parts[] = {{&header, sizeof header}, {(void*)body, size}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    while (sendmsg(GM_WORK_FD, &message, MSG_NOSIGNAL) < 0) {
        if (errno == EINTR) continue;
        if (errno == EPIPE || errno == ECONNRESET) exit(EXIT_SUCCESS);
        fail("xfrmd-not-started", "cannot answer", strerror(errno));
    }
}

static void send_done(uint32_t sequence, const struct verdict* verdict) {
    const struct order_counters* orders = order_counters();
    struct gm_done done = {
        .outcome = verdict->outcome,
        .code = verdict->code,
        .counters = {.requests = writer_requests() + netlink_requests(),
                     .system_calls = 2 * writer_requests() + netlink_system_calls(), /* libcharon: sendto, recv */
                     .sets_installed = orders->sets_installed,
                     .sets_refused = orders->sets_refused,
                     .sets_removed = orders->sets_removed,
                     .rollbacks = orders->rollbacks,
                     .malformed = counters.malformed,
                     .forbidden = counters.forbidden,
                     .events = counters.events,
                     .events_lost = counters.events_lost}};
    (void)snprintf(done.text, sizeof done.text, "%s", verdict->text);
    send_frame(GM_DONE, sequence, 0, &done, sizeof done);
}

/* --- lists */

static struct {
    struct gm_report reports[REPORTS_PER_FRAME];
    uint32_t count, sequence;
} list;

static void flush_list(void) {
    if (list.count != 0)
        send_frame(GM_REPORTS, list.sequence, list.count, list.reports, list.count * sizeof *list.reports);
    list.count = 0;
}

static void list_one(const struct gm_report* report) {
    list.reports[list.count++] = *report;
    if (list.count == REPORTS_PER_FRAME) flush_list();
}

static void list_again(void) {
    list.count = 0;
    send_frame(GM_AGAIN, list.sequence, 0, NULL, 0);
}

static struct verdict dump(uint32_t sequence) {
    list.count = 0;
    list.sequence = sequence;
    const struct verdict result = order_dump(list_one, list_again);
    if (is_ok(&result)) flush_list();
    return result;
}

static struct verdict report_set(const struct gm_set* set, uint32_t sequence) {
    struct gm_report reports[4];
    uint32_t count = 0;
    const struct verdict result = order_report(set, reports, &count);
    if (is_ok(&result) && count != 0) send_frame(GM_REPORTS, sequence, count, reports, count * sizeof *reports);
    return result;
}

static struct {
    struct gm_guard standing[(GM_FRAME_LIMIT - sizeof(struct gm_header)) / sizeof(struct gm_guard)];
    uint32_t count, sequence;
} guards;

static void flush_guards(void) {
    if (guards.count != 0)
        send_frame(GM_GUARDS, guards.sequence, guards.count, guards.standing, guards.count * sizeof *guards.standing);
    guards.count = 0;
}

static void list_guard(const struct gm_guard* guard) {
    guards.standing[guards.count++] = *guard;
    if (guards.count == sizeof guards.standing / sizeof *guards.standing) flush_guards();
}

static struct verdict report_guards(const struct gm_address* gateway, const uint16_t* ports, uint32_t count,
                                    uint32_t sequence) {
    struct verdict result = {.outcome = GM_OK};
    guards.count = 0;
    guards.sequence = sequence;
    for (uint32_t i = 0; i < count && is_ok(&result); ++i) result = order_report_guard(gateway, ports[i], list_guard);
    if (is_ok(&result)) flush_guards();
    return result;
}

static struct verdict probe(const struct gm_pair* pairs, uint32_t count, uint32_t sequence) {
    static struct gm_finding findings[2 * PAIRS];
    uint32_t told = 0;
    for (uint32_t family = 4; family <= 6; family += 2) {
        for (uint32_t i = 0; i < count; ++i) {
            const struct verdict result = order_probe(pairs[i], family, &findings[told++]);
            if (!is_ok(&result)) return result;
        }
    }
    send_frame(GM_FINDINGS, sequence, told, findings, told * sizeof *findings);
    return (struct verdict){.outcome = GM_OK};
}

/* --- in: everything is checked before anything of it is done. Requests are read where they lie, so that keys have no
 * copies. */

static struct verdict no_nat(void) {
    return verdict(GM_REFUSED, EPERM, "not allowed: this engine writes nothing in mode UDP-enc-tun");
}

static struct verdict perform(const struct gm_header* header, size_t size) {
    const void* body = frame + sizeof *header;
    const size_t left = size - sizeof *header;
    struct verdict checked = {.outcome = GM_OK};
    switch (header->kind) {
        case GM_INSTALL_SET: {
            const struct gm_install* install = body;
            if (left != sizeof *install || header->count != 0) return malformed("not a set of SAs");
            checked = rules_check_install(install);
            return is_ok(&checked) ? order_install(install) : checked;
        }
        case GM_EXTEND_SET: {
            const struct gm_extend* extend = body;
            if (left != sizeof *extend || header->count != 0 || extend->lifetime == 0)
                return malformed("not a set and a lifetime");
            checked = rules_check_set(&extend->set);
            return is_ok(&checked) ? order_extend(extend) : checked;
        }
        case GM_REMOVE_SET:
        case GM_REPORT_SET: {
            const struct gm_set* set = body;
            if (left != sizeof *set || header->count != 0) return malformed("not a set");
            checked = rules_check_set(set);
            if (!is_ok(&checked)) return checked;
            return header->kind == GM_REMOVE_SET ? order_remove_set(set) : report_set(set, header->sequence);
        }
        case GM_REMOVE_SAS:
            if (header->count == 0 || left != (uint64_t)header->count * sizeof(struct gm_sa_id))
                return malformed("not a list of SAs");
            return order_remove_sas(body, header->count);
        case GM_DUMP:
            return left == 0 && header->count == 0 ? dump(header->sequence) : malformed("a list takes no arguments");
        case GM_INSTALL_GUARDS:
        case GM_REPORT_GUARDS: {
            const struct gm_guards* of = body;
            const uint16_t* ports = (const uint16_t*)(of + 1);
            if (left != sizeof *of + (uint64_t)header->count * sizeof *ports)
                return malformed("not an address and ports");
            if (of->nat_first != 0 || of->nat_size != 0) return no_nat();
            checked = rules_check_guards(&of->gateway, ports, header->count);
            if (!is_ok(&checked)) return checked;
            if (header->kind == GM_REPORT_GUARDS)
                return report_guards(&of->gateway, ports, header->count, header->sequence);
            return order_install_guards(&of->gateway, ports, header->count);
        }
        case GM_FOLLOW_NAT:
            return no_nat();
        case GM_PROBE:
            if (header->count == 0 || header->count > PAIRS || left != header->count * sizeof(struct gm_pair))
                return malformed("not a list of algorithms");
            return probe(body, header->count, header->sequence);
        case GM_CONFIGURE:
            return verdict(GM_REFUSED, EPERM, "not allowed: the configuration is given once, by the guardian");
        default:
            return malformed("unknown kind"); /* the number is the other end's */
    }
}

static struct verdict answer(const struct gm_header* header, size_t size) {
    if (size < sizeof *header) return malformed("no header");
    if (size > GM_FRAME_LIMIT) return malformed("larger than any frame");
    if (header->version != GM_PROTOCOL_VERSION) return malformed("another version of the protocol");
    if (header->flags != 0) return malformed("unknown flags");
    return perform(header, size);
}

static void serve_one(void) {
    memset(frame, 0, sizeof(struct gm_header));
    const ssize_t size = recv(GM_WORK_FD, frame, sizeof frame, 0);
    if (size == 0) exit(EXIT_SUCCESS);
    if (size < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (size < 0) exit(errno == ECONNRESET ? EXIT_SUCCESS : EXIT_FAILURE);
    struct gm_header header;
    memcpy(&header, frame, sizeof header);
    const struct verdict result = answer(&header, (size_t)size);
    explicit_bzero(frame, (size_t)size);
    if (result.outcome == GM_REFUSED && (result.code == EBADMSG || result.code == EPERM)) {
        ++*(result.code == EBADMSG ? &counters.malformed : &counters.forbidden);
        log_refusal(header.kind, result.text);
    }
    send_done(header.sequence, &result);
}

static void pass_events(int events) {
    struct gm_event event;
    while (events_next(events, rules_configuration()->reqid, &event)) {
        if (event.event == GM_EVENTS_LOST) ++counters.events_lost;
        /* A flush is one event, and does not name SAs that were added since. */
        if (event.event == GM_EVENTS_LOST || event.event == GM_SAS_FLUSHED) (void)order_look_around();
        ++counters.events;
        send_frame(GM_EVENT, 0, 0, &event, sizeof event);
    }
}

_Noreturn static void serve(int events) {
    struct pollfd waiting[] = {{.fd = GM_WORK_FD, .events = POLLIN}, {.fd = events, .events = POLLIN}};
    for (;;) {
        if (poll(waiting, 2, -1) < 0 && errno != EINTR) exit(EXIT_FAILURE);
        if (waiting[0].revents & POLLHUP)
            exit(EXIT_SUCCESS); /* what is still to be read was asked by one who is gone */
        if (waiting[1].revents) pass_events(events);
        if (waiting[0].revents & POLLIN) serve_one();
    }
}

/* --- start */

static void take_configuration(void) {
    bool is_last = false;
    for (bool is_first = true; !is_last; is_first = false) {
        const ssize_t size = recv(GM_WORK_FD, frame, sizeof frame, 0);
        if (size == 0) exit(EXIT_SUCCESS);
        if (size < 0) fail("xfrmd-not-started", "descriptor 3 is not the socket of a guardian", strerror(errno));
        const char* why = rules_configure(frame, (size_t)size, is_first, &is_last);
        if (why) fail("xfrmd-configuration-refused", "the engine's configuration is malformed", why);
    }
}

static int start(void) {
    char words[GM_TEXT_LIMIT] = "";
    sandbox_begin();
    take_configuration();
    const int events = events_open(); /* first of all: from here on nothing that happens in the kernel is missed */
    if (events < 0) fail("xfrmd-not-started", "cannot open the XFRM event socket", strerror(errno));
    const int code = netlink_open();
    if (code != 0) fail("xfrmd-not-started", "cannot open an XFRM socket", strerror(code));
    if (!writer_open(words)) fail("xfrmd-not-started", "cannot start", words);
    const struct verdict seen = order_look_around();
    if (!is_ok(&seen)) fail("xfrmd-not-started", "cannot list the SAs that are there", seen.text);
    if (!sandbox_close()) fail("xfrmd-not-started", "cannot set the system call filter", strerror(errno));
    struct gm_ready ready = {.pid = (uint32_t)getpid()};
    (void)snprintf(ready.engine, sizeof ready.engine, "libcharon %s", GMGATE_STRONGSWAN_VERSION);
    send_frame(GM_READY, 0, 0, &ready, sizeof ready);
    return events;
}

static void usage(FILE* out) {
    (void)fputs(
        "gmgate-xfrmd-charon: a worker of gmgate's SA engine that writes SAs with strongSwan's libcharon\n"
        "Usage: gmgate-xfrmd-charon [OPTIONS]\n\n"
        "Options:\n"
        "  -h,--help                   Print this help message and exit\n"
        "  --version                   Display program version information and exit\n"
        "  --worker                    Serve the socket that is descriptor 3: started so by gmgate's guardian (gmgate-xfrmd), not by hand\n",
        out);
}

int main(int argc, char** argv) {
    const char* option = argc == 2 ? argv[1] : "";
    if (strcmp(option, "--worker") == 0) serve(start());
    if (strcmp(option, "--version") == 0) {
        (void)printf("%s (libcharon %s)\n", GMGATE_VERSION, GMGATE_STRONGSWAN_VERSION);
        return EXIT_SUCCESS;
    }
    if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0) {
        usage(stdout);
        return EXIT_SUCCESS;
    }
    usage(stderr);
    return 2;
}
