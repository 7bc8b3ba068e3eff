/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SAs and addresses as values: no library, no I/O. */
#ifndef GMGATE_CHARON_SA_H
#define GMGATE_CHARON_SA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xfrm/engine/protocol.h"

/* One unidirectional transport-mode ESP SA; ports and SPI in host order. Its selector is the four-tuple, protocol any.
 */
struct sa {
    int family; /* AF_INET or AF_INET6 */
    uint8_t source[16], destination[16];
    uint16_t source_port, destination_port;
    uint32_t spi;
    bool is_outbound;
};

/* What the kernel tells of an SA; its keys are not read. */
struct told_sa {
    struct sa sa;
    uint32_t reqid;
    uint32_t mark; /* of the set, see mark_of_told() in netlink.c */
    struct gm_pair pair;
    bool is_known_kind; /* ESP, transport mode, exact selector with ports, an algorithm pair of ours */
    uint64_t packets, bytes;
    uint32_t replay_window_drops, replay_drops, integrity_failures;
    int64_t added;          /* seconds since 1970 */
    uint64_t hard_lifetime; /* seconds since then, 0 for none */
};

/* The table of B-18 (xfrm::four_sas): in port_uc -> port_ps, out port_pc -> port_us, in port_us -> port_pc, out port_ps
 * -> port_uc. */
void sa_four(const struct gm_set* set, struct sa out[4]);

size_t address_size(int family);
/* False for a family that is neither 4 nor 6, for unused octets that are not 0, and for an IPv4 address as IPv6. */
bool address_from(const struct gm_address* address, int* family, uint8_t octets[16]);
void address_to(int family, const uint8_t octets[16], struct gm_address* out);

/* "192.0.2.1:5060", "[2001:db8::1]:5060"; returns `text`. */
enum { ENDPOINT_SIZE = 64 };
const char* endpoint_text(int family, const uint8_t octets[16], uint16_t port, char text[ENDPOINT_SIZE]);
/* "the SA in 192.0.2.9:5064 -> 192.0.2.1:6101, spi 0x10002222"; returns `text`. */
enum { SA_TEXT_SIZE = 192 };
const char* sa_text(const struct sa* sa, char text[SA_TEXT_SIZE]);

/* True when source and destination, addresses and ports, are equal. */
bool sa_same_selector(const struct sa* a, const struct sa* b);

#endif
