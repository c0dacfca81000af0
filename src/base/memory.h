/* memory.h: where large blocks come from, handed down as par.h hands down threads. Pure. */
#ifndef ATOLL_BASE_MEMORY_H
#define ATOLL_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct at_memory {
    void *(*take)(void *arg, size_t bytes); /* 64-byte aligned, contents undefined; NULL: there is none left */
    void (*give)(void *arg, void *block, size_t bytes);
    void *arg;
};

/* m NULL, or a zeroed one: the process' own memory. */
static inline void *at_memory_take(const struct at_memory *m, size_t bytes)
{
    if (m != NULL && m->take != NULL) return m->take(m->arg, bytes);
    return bytes <= SIZE_MAX - 63 ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
}
/* The bytes that were taken; block may be NULL. */
static inline void at_memory_give(const struct at_memory *m, void *block, size_t bytes)
{
    if (block == NULL) return;
    if (m != NULL && m->give != NULL)
        m->give(m->arg, block, bytes);
    else
        free(block);
}

#endif
