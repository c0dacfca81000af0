#include "base/slots.h"

#include "base/err.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stdlib.h>

struct at_slots_chunk {
    struct {
        uint32_t next_free;
        bool taken;
    } of[AT_SLOTS_CHUNK];
    alignas(max_align_t) uint8_t objects[];
};

void at_slots_init(struct at_slots *s, size_t bytes)
{
    size_t align = alignof(max_align_t);
    AT_ASSERT(bytes >= 1 && bytes <= ((size_t)1 << 20));
    *s = (struct at_slots){.bytes = (bytes + align - 1) / align * align};
}

void at_slots_release(struct at_slots *s)
{
    for (uint32_t i = 0; i < s->chunks; i++) free(s->chunk[i]);
    *s = (struct at_slots){0};
}

static void *object(const struct at_slots *s, uint64_t number)
{
    return s->chunk[(number - 1) / AT_SLOTS_CHUNK]->objects + (number - 1) % AT_SLOTS_CHUNK * s->bytes;
}

void *at_slots_take(struct at_slots *s, uint64_t *ret_number)
{
    if (s->free == 0) {
        if (s->chunks == AT_SLOTS_CHUNKS) return NULL;
        struct at_slots_chunk *chunk = calloc(1, sizeof *chunk + AT_SLOTS_CHUNK * s->bytes);
        if (chunk == NULL) return NULL;
        for (uint32_t i = 0; i + 1 < AT_SLOTS_CHUNK; i++)
            chunk->of[i].next_free = s->chunks * AT_SLOTS_CHUNK + i + 2; /* the one after it, counted from 1 */
        s->free = s->chunks * AT_SLOTS_CHUNK + 1;
        s->chunk[s->chunks++] = chunk;
    }
    uint32_t number = s->free, i = (number - 1) % AT_SLOTS_CHUNK;
    struct at_slots_chunk *chunk = s->chunk[(number - 1) / AT_SLOTS_CHUNK];
    s->free = chunk->of[i].next_free;
    chunk->of[i].taken = true;
    *ret_number = number;
    return object(s, number);
}

void *at_slots_at(const struct at_slots *s, uint64_t number)
{
    AT_ASSERT(number >= 1 && number <= (uint64_t)s->chunks * AT_SLOTS_CHUNK);
    AT_ASSERT(s->chunk[(number - 1) / AT_SLOTS_CHUNK]->of[(number - 1) % AT_SLOTS_CHUNK].taken);
    return object(s, number);
}

void at_slots_give(struct at_slots *s, uint64_t number)
{
    (void)at_slots_at(s, number);
    struct at_slots_chunk *chunk = s->chunk[(number - 1) / AT_SLOTS_CHUNK];
    uint32_t i = (uint32_t)((number - 1) % AT_SLOTS_CHUNK);
    chunk->of[i].taken = false;
    chunk->of[i].next_free = s->free;
    s->free = (uint32_t)number;
}
