/* slots.h: a pool of objects of one size that stay where they are and are found by a small number. Objects that were
 * given back are the first to be taken again. At most AT_SLOTS_MAX. No lock: the owner's. */
#ifndef ATOLL_BASE_SLOTS_H
#define ATOLL_BASE_SLOTS_H

#include <stddef.h>
#include <stdint.h>

#define AT_SLOTS_CHUNK  64
#define AT_SLOTS_CHUNKS 1024
#define AT_SLOTS_MAX    (AT_SLOTS_CHUNK * AT_SLOTS_CHUNKS)

struct at_slots_chunk;
struct at_slots {
    size_t bytes;  /* of an object; alignment as malloc gives it */
    uint32_t free; /* the number of the next free object, 0: none */
    uint32_t chunks;
    struct at_slots_chunk *chunk[AT_SLOTS_CHUNKS];
};

void at_slots_init(struct at_slots *s, size_t bytes); /* allocates nothing */
void at_slots_release(struct at_slots *s);            /* safe on a zeroed pool; objects still taken go with it */

/* An object and its number, 1 .. AT_SLOTS_MAX. Its bytes are zero the first time it is taken, later as they were given
 * back. NULL: no memory, or all are taken. */
void *at_slots_take(struct at_slots *s, uint64_t *ret_number);
/* The object of a number that is taken; an assert otherwise (so never with a foreign number). */
void *at_slots_at(const struct at_slots *s, uint64_t number);
void at_slots_give(struct at_slots *s, uint64_t number);

#endif
