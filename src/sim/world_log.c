/* world_log.c: the log, kept once for all disks. A disk knows how many of its records it has written and how many are
 * durable. That is enough because of what the judges hold: once a member has stored a record as final, no other may
 * stand at its index, anywhere, ever. Until then only the steward holds it, and may write another after a crash. */
#include "sim/world_internal.h"

#include <stdlib.h>

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
    if (fine) log->cap = cap;
    return fine;
}

void at_world_log_release(struct at_world *w)
{
    free(w->log.records);
    free(w->log.checkpoints);
    free(w->log.told);
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
            log->count = idx + 1;
        }
        if (!log->told[idx]) log->records[idx] = op->persist.records[i];
        log->told[idx] = log->told[idx] || node != 0;
    }
    for (size_t i = 0; i < op->persist.checkpoint_count; i++)
        log->checkpoints[op->persist.checkpoints[i].size - 1] = op->persist.checkpoints[i];
}
