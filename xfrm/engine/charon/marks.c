/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A hash table with open addressing; removal moves the followers up, so that no look-up passes over graves. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "events.h"

struct slot {
    struct gm_address destination;
    uint32_t spi, mark; /* mark 0: free */
};

static struct slot* slots;
static size_t capacity, used; /* capacity is a power of two */
static uint64_t seed;         /* phones choose their SPIs */

static size_t place_of(const struct gm_address* destination, uint32_t spi) {
    uint64_t hash = seed ^ spi;
    const uint8_t* octets = (const uint8_t*)destination;
    for (size_t i = 0; i < sizeof *destination; ++i) hash = (hash ^ octets[i]) * 0x100000001b3U;
    hash ^= hash >> 32;
    return (size_t)(hash * 0x9e3779b97f4a7c15U >> 20) & (capacity - 1);
}

static bool is_of(const struct slot* slot, const struct gm_address* destination, uint32_t spi) {
    return slot->spi == spi && memcmp(&slot->destination, destination, sizeof *destination) == 0;
}

/* Its slot, or the free one where it belongs. */
static size_t find(const struct gm_address* destination, uint32_t spi) {
    size_t at = place_of(destination, spi);
    while (slots[at].mark != 0 && !is_of(&slots[at], destination, spi)) at = (at + 1) & (capacity - 1);
    return at;
}

static bool grow(void) {
    const size_t old_capacity = capacity;
    struct slot* const old = slots;
    struct slot* const larger = calloc(old_capacity ? old_capacity * 2 : 1024, sizeof *slots);
    if (!larger) return false;
    if (seed == 0) (void)!getrandom(&seed, sizeof seed, 0);
    slots = larger;
    capacity = old_capacity ? old_capacity * 2 : 1024;
    for (size_t i = 0; i < old_capacity; ++i)
        if (old[i].mark != 0) slots[find(&old[i].destination, old[i].spi)] = old[i];
    free(old);
    return true;
}

bool marks_put(const struct gm_address* destination, uint32_t spi, uint32_t mark) {
    if (mark == 0) return true;
    if (used * 4 >= capacity * 3 && !grow()) return false;
    struct slot* const slot = &slots[find(destination, spi)];
    if (slot->mark == 0) ++used;
    *slot = (struct slot){.destination = *destination, .spi = spi, .mark = mark};
    return true;
}

uint32_t marks_get(const struct gm_address* destination, uint32_t spi) {
    return capacity ? slots[find(destination, spi)].mark : 0;
}

void marks_clear(void) {
    if (capacity) memset(slots, 0, capacity * sizeof *slots);
    used = 0;
}

size_t marks_count(void) { return used; }

void marks_drop(const struct gm_address* destination, uint32_t spi) {
    if (!capacity) return;
    size_t hole = find(destination, spi);
    if (slots[hole].mark == 0) return;
    slots[hole].mark = 0;
    --used;
    for (size_t at = (hole + 1) & (capacity - 1); slots[at].mark != 0; at = (at + 1) & (capacity - 1)) {
        const size_t home = place_of(&slots[at].destination, slots[at].spi);
        if (((at - home) & (capacity - 1)) < ((at - hole) & (capacity - 1)))
            continue; /* its place is behind the hole */
        slots[hole] = slots[at];
        slots[at].mark = 0;
        hole = at;
    }
}
