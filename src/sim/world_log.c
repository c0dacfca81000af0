/* world_log.c: the log, kept once for all disks. A disk knows how many of its records it has written and how many are
 * durable. That is enough because of what the judges hold: once a member has stored a record as final, no other may
 * stand at its index, anywhere, ever. Until then only the steward holds it, and may write another after a crash. */
#include "sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

static bool grow(void **block, size_t cap, size_t each)
{
    void *p = realloc(*block, cap * each);
    if (p) *block = p;
    return p != NULL;
}

static bool reserve(struct at_world_log *log, size_t count)
{
    if (count <= log->cap) return true;
    size_t cap = log->cap ? log->cap : 256;
    while (cap < count) cap *= 2;
    void *records = log->records, *checkpoints = log->checkpoints, *told = log->told;
    bool fine = grow(&records, cap, sizeof *log->records);
    log->records = records;
    fine = grow(&checkpoints, cap, sizeof *log->checkpoints) && fine;
    log->checkpoints = checkpoints;
    fine = grow(&told, cap, sizeof *log->told) && fine;
    log->told = told;
    void *cosigned = log->cosigned;
    fine = grow(&cosigned, cap, sizeof *log->cosigned) && fine;
    log->cosigned = cosigned;
    if (fine) log->cap = cap;
    return fine;
}

void at_world_log_release(struct at_world *w)
{
    free(w->log.records);
    free(w->log.checkpoints);
    free(w->log.told);
    for (size_t i = 0; i < w->log.count; i++) free(w->log.cosigned[i]);
    free(w->log.cosigned);
}

/* The first that was written stays: any quorum's will do. */
static void cosigned(struct at_world *w, const struct at_log_checkpoint *list, size_t count)
{
    struct at_world_cosigned **at = &w->log.cosigned[list->size - 1];
    if (*at) return;
    if (!(*at = malloc(sizeof **at + count * sizeof *list))) {
        at_world_violate(w, "out of memory");
        return;
    }
    (*at)->count = count;
    memcpy((*at)->list, list, count * sizeof *list);
}

void at_world_log_write(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_log *log = &w->log;
    struct at_world_disk *d = &w->nodes[node].disk;
    if (!reserve(log, (size_t)op->persist.from + op->persist.count)) {
        at_world_violate(w, "out of memory");
        return;
    }
    for (size_t i = 0; i < op->persist.count; i++, d->written++) {
        size_t idx = (size_t)op->persist.from + i;
        if (idx >= log->count) {
            log->told[idx] = false;
            log->checkpoints[idx].size = 0;
            log->cosigned[idx] = NULL;
            log->count = idx + 1;
        }
        if (!log->told[idx]) log->records[idx] = op->persist.records[i];
        if (at_signed_record_is_unsigned(&log->records[idx]) && idx < w->several_from) w->several_from = idx;
        if (idx >= w->several_from) w->block_ms = w->now_ms;
        log->told[idx] = log->told[idx] || node != 0 || idx >= w->several_from;
    }
    for (size_t i = 0, n; i < op->persist.checkpoint_count; i += n) {
        const struct at_log_checkpoint *c = &op->persist.checkpoints[i];
        for (n = 1; i + n < op->persist.checkpoint_count && c[n].size == c->size;) n++;
        if (n == 1)
            log->checkpoints[c->size - 1] = *c;
        else
            cosigned(w, c, n);
    }
}

uint64_t at_world_block_ms(const struct at_world *w)
{
    return w->block_ms;
}

const struct at_log_checkpoint *at_world_log_checkpoints(const struct at_world *w, size_t size, size_t *ret_count)
{
    const struct at_world_log *log = &w->log;
    *ret_count = 0;
    if (size == 0 || size > log->count) return NULL;
    const struct at_world_cosigned *c = log->cosigned[size - 1];
    *ret_count = c ? c->count : log->checkpoints[size - 1].size > 0;
    return c ? c->list : &log->checkpoints[size - 1];
}

int at_world_longest(const struct at_world *w)
{
    int node = 0;
    for (int i = 1; i < w->options.nodes && at_world_several(w); i++)
        if (at_world_is_honest(w, i) && w->nodes[i].disk.durable > w->nodes[node].disk.durable) node = i;
    return node;
}
