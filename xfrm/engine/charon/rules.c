/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pairs.h"
#include "sa.h"

enum { RANGES_LIMIT = 65536 };

static struct gm_configuration configuration;
static struct gm_ports* ranges;
static size_t range_count;

const struct gm_configuration* rules_configuration(void) { return &configuration; }

struct verdict malformed(const char* why) {
    return verdict(GM_REFUSED, EBADMSG, "malformed request: %s", why);
}

static const struct verdict allowed = {.outcome = GM_OK};

static bool is_zero(const uint8_t* octets, size_t size) {
    for (size_t i = 0; i < size; ++i)
        if (octets[i] != 0) return false;
    return true;
}

static bool is_same(const struct gm_address* a, const struct gm_address* b) { return memcmp(a, b, sizeof *a) == 0; }

static bool is_address(const struct gm_address* address) {
    int family;
    uint8_t octets[16];
    return address_from(address, &family, octets);
}

const char* rules_configure(const uint8_t* frame, size_t size, bool is_first, bool* is_last) {
    struct gm_header header;
    struct gm_configuration fixed;
    if (size < sizeof header + sizeof fixed) return "its length";
    memcpy(&header, frame, sizeof header);
    memcpy(&fixed, frame + sizeof header, sizeof fixed);
    if (header.version != GM_PROTOCOL_VERSION)
        return "another version of the protocol: gmgated and its engine are not of one release";
    if (header.kind != GM_CONFIGURE || (header.flags & ~(uint32_t)GM_MORE) != 0) return "not a configuration";
    if (size != sizeof header + sizeof fixed + (uint64_t)header.count * sizeof(struct gm_ports)) return "its length";
    if (fixed.reserved != 0 || fixed.reqid == 0 || fixed.mark_mask == 0 || fixed.spi_first < 256 ||
        fixed.spi_last < fixed.spi_first)
        return "a number is out of range";
    if (!is_first && memcmp(&fixed, &configuration, sizeof fixed) != 0) return "its parts differ";
    if (range_count + header.count > RANGES_LIMIT) return "too many ports";
    configuration = fixed;
    struct gm_ports* const larger = realloc(ranges, (range_count + header.count + 1) * sizeof *ranges);
    if (!larger) return "no memory for its ports";
    ranges = larger;
    for (uint32_t i = 0; i < header.count; ++i) {
        struct gm_ports one;
        memcpy(&one, frame + sizeof header + sizeof fixed + i * sizeof one, sizeof one);
        if (one.mode == GM_UDP_ENC_TUN)
            return "this engine writes no SAs in mode UDP-enc-tun, for libcharon knows neither port masks nor what a NAT "
                   "changes: set nat-traversal = \"off\", or another [xfrm] sa-engine";
        if (one.mode != GM_TRANSPORT || one.reserved != 0 || !is_address(&one.gateway) ||
            is_zero(one.gateway.octets, 16) || one.first == 0 || one.last < one.first)
            return "an address or port";
        ranges[range_count++] = one;
    }
    *is_last = (header.flags & GM_MORE) == 0;
    return NULL;
}

static bool is_access_address(const struct gm_address* address) {
    for (size_t i = 0; i < range_count; ++i)
        if (is_same(&ranges[i].gateway, address)) return true;
    return false;
}

static bool is_protected(const struct gm_address* gateway, uint16_t port) {
    for (size_t i = 0; i < range_count; ++i)
        if (is_same(&ranges[i].gateway, gateway) && port >= ranges[i].first && port <= ranges[i].last) return true;
    return false;
}

static struct verdict forbidden(const char* what, const struct gm_address* address, uint16_t port, const char* why) {
    char text[INET6_ADDRSTRLEN] = "?";
    (void)inet_ntop(address->family == 6 ? AF_INET6 : AF_INET, address->octets, text, sizeof text);
    if (port != 0)
        return verdict(GM_REFUSED, EPERM, "not allowed by the engine's configuration: %s port %u of %s%s", what,
                       (unsigned)port, text, why);
    return verdict(GM_REFUSED, EPERM, "not allowed by the engine's configuration: %s%s%s", what, text, why);
}

static bool is_well_formed(const struct gm_set* set) {
    if (!is_address(&set->ue) || !is_address(&set->gateway) || set->ue.family != set->gateway.family ||
        !pair_find(set->pair))
        return false;
    if (!set->port_uc || !set->port_us || !set->port_pc || !set->port_ps) return false;
    if (set->mode > GM_UDP_ENC_TUN || set->reserved != 0) return false;
    if (set->inner.family != 0 || !is_zero(set->inner.octets, 16)) return false;
    if (!set->spi_uc || !set->spi_us || !set->spi_pc || !set->spi_ps) return false;
    return set->spi_uc != set->spi_us && set->spi_pc != set->spi_ps;
}

static bool is_multicast(const struct gm_address* address) {
    return address->family == 6 ? address->octets[0] == 0xff : address->octets[0] >= 224;
}

struct verdict rules_check_set(const struct gm_set* set) {
    if (!is_well_formed(set)) return malformed("not a set");
    if (set->mode != GM_TRANSPORT)
        return verdict(GM_REFUSED, EPERM, "not allowed: this engine writes no SAs in mode UDP-enc-tun");
    if (!is_access_address(&set->gateway)) return forbidden("", &set->gateway, 0, " is no access address");
    const uint16_t ports[] = {set->port_pc, set->port_ps};
    for (size_t i = 0; i < 2; ++i)
        if (!is_protected(&set->gateway, ports[i]))
            return forbidden("", &set->gateway, ports[i], " is no protected port");
    if (is_access_address(&set->ue)) return forbidden("the UE's address ", &set->ue, 0, " is one of the gateway's");
    if (is_zero(set->ue.octets, 16) || is_multicast(&set->ue))
        return forbidden("the UE's address ", &set->ue, 0, " is no phone's");
    return allowed;
}

static bool is_key(const uint8_t* octets, size_t limit, uint8_t size, uint8_t wanted) {
    return size == wanted && is_zero(octets + size, limit - size);
}

struct verdict rules_check_install(const struct gm_install* install) {
    const struct pair_row* row = pair_find(install->set.pair);
    if (!row || !is_well_formed(&install->set) || install->reserved != 0 || install->reserved_too != 0 ||
        install->lifetime == 0 || (install->port_uenc != 0) != (install->set.mode == GM_UDP_ENC_TUN) ||
        !is_key(install->integrity, sizeof install->integrity, install->integrity_size, row->integrity_size) ||
        !is_key(install->confidentiality, sizeof install->confidentiality, install->confidentiality_size,
                row->confidentiality_size) ||
        !is_key(install->combined, sizeof install->combined, install->combined_size, row->combined_size))
        return malformed("not a set of SAs");
    if (install->reqid != configuration.reqid)
        return verdict(GM_REFUSED, EPERM, "not allowed by the engine's configuration: reqid %u is another's",
                       install->reqid);
    if (install->mark == 0 || (install->mark & ~configuration.mark_mask) != 0)
        return verdict(GM_REFUSED, EPERM,
                       "not allowed by the engine's configuration: the mark is 0 or outside of its mask");
    const uint32_t spis[] = {install->set.spi_pc, install->set.spi_ps};
    for (size_t i = 0; i < 2; ++i)
        if (spis[i] < configuration.spi_first || spis[i] > configuration.spi_last)
            return verdict(GM_REFUSED, EPERM,
                           "not allowed by the engine's configuration: the inbound SPI 0x%08x is outside of the range",
                           spis[i]);
    return rules_check_set(&install->set);
}

struct verdict rules_check_guards(const struct gm_address* gateway, const uint16_t* ports, uint32_t count) {
    if (!is_address(gateway) || count == 0) return malformed("not an address and ports");
    for (uint32_t i = 0; i < count; ++i)
        if (!is_protected(gateway, ports[i]))
            return forbidden("a policy for", gateway, ports[i], ", which is no protected port");
    return allowed;
}
