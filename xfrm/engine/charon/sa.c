/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sa.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

size_t address_size(int family) { return family == AF_INET6 ? 16 : 4; }

bool address_from(const struct gm_address* address, int* family, uint8_t octets[16]) {
    if (address->family != 4 && address->family != 6) return false;
    *family = address->family == 6 ? AF_INET6 : AF_INET;
    memset(octets, 0, 16);
    memcpy(octets, address->octets, address_size(*family));
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (*family == AF_INET6 && memcmp(octets, mapped, sizeof mapped) == 0)
        return false; /* an IPv4 address: two names for one thing */
    return memcmp(octets, address->octets, 16) == 0;
}

void address_to(int family, const uint8_t octets[16], struct gm_address* out) {
    memset(out, 0, sizeof *out);
    memcpy(out->octets, octets, address_size(family));
    out->family = family == AF_INET6 ? 6 : 4;
}

static void one(const struct gm_set* set, bool is_outbound, uint16_t source_port, uint16_t destination_port,
                uint32_t spi, struct sa* out) {
    memset(out, 0, sizeof *out);
    (void)address_from(is_outbound ? &set->gateway : &set->ue, &out->family, out->source);
    (void)address_from(is_outbound ? &set->ue : &set->gateway, &out->family, out->destination);
    out->source_port = source_port;
    out->destination_port = destination_port;
    out->spi = spi;
    out->is_outbound = is_outbound;
}

void sa_four(const struct gm_set* set, struct sa out[4]) {
    one(set, false, set->port_uc, set->port_ps, set->spi_ps, &out[0]);
    one(set, true, set->port_pc, set->port_us, set->spi_us, &out[1]);
    one(set, false, set->port_us, set->port_pc, set->spi_pc, &out[2]);
    one(set, true, set->port_ps, set->port_uc, set->spi_uc, &out[3]);
}

const char* endpoint_text(int family, const uint8_t octets[16], uint16_t port, char text[ENDPOINT_SIZE]) {
    char address[INET6_ADDRSTRLEN] = "?";
    (void)inet_ntop(family, octets, address, sizeof address);
    (void)snprintf(text, ENDPOINT_SIZE, family == AF_INET6 ? "[%s]:%u" : "%s:%u", address, (unsigned)port);
    return text;
}

const char* sa_text(const struct sa* sa, char text[SA_TEXT_SIZE]) {
    char from[ENDPOINT_SIZE], to[ENDPOINT_SIZE];
    (void)snprintf(text, SA_TEXT_SIZE, "the SA %s %s -> %s, spi 0x%08x", sa->is_outbound ? "out" : "in",
                   endpoint_text(sa->family, sa->source, sa->source_port, from),
                   endpoint_text(sa->family, sa->destination, sa->destination_port, to), sa->spi);
    return text;
}

bool sa_same_selector(const struct sa* a, const struct sa* b) {
    return a->family == b->family && memcmp(a->source, b->source, sizeof a->source) == 0 &&
           memcmp(a->destination, b->destination, sizeof a->destination) == 0 && a->source_port == b->source_port &&
           a->destination_port == b->destination_port;
}
