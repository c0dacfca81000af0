/* simplex_queue.c: the records that wait for a place in a final block. */
#include "consensus/simplex_internal.h"

#include <string.h>

#define TOLD_AGAIN 4  /* own records, every Δ */
#define AGE_MAX    16 /* Δ that a peer's record may wait here */

void at_simplex_queue_init(struct at_simplex *x)
{
    for (uint16_t i = 0; i < AT_SIMPLEX_QUEUE_MAX; i++) x->order[i] = i;
}

static struct at_simplex_pending *waiting(const struct at_simplex *x, uint32_t i)
{
    return &x->queue[x->order[i]];
}

static bool is_known(const struct at_simplex *x, const struct at_hash *leaf)
{
    for (uint32_t i = 0; i < x->queue_count; i++)
        if (at_hash_eq(waiting(x, i)->leaf, *leaf)) return true;
    for (uint32_t i = 0; i < AT_SIMPLEX_RECENT; i++)
        if (at_hash_eq(x->recent[i], *leaf)) return true;
    return false;
}

/* No peer can fill the queue: each has the same share, and the own records find room until all of it is taken. */
static bool has_room(const struct at_simplex *x, uint32_t origin)
{
    if (x->queue_count == AT_SIMPLEX_QUEUE_MAX) return false;
    if (origin == x->me) return true;
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->queue_count; i++) n += waiting(x, i)->origin == origin;
    return n < AT_SIMPLEX_QUEUE_MAX / (x->options.seat_count + 1);
}

at_err at_simplex_queue_add(struct at_simplex *x, uint32_t origin, const struct at_signed_record *record)
{
    struct at_hash leaf = at_signed_record_leaf(record);
    if (is_known(x, &leaf)) return AT_OK;
    if (!has_room(x, origin)) return AT_E_TOO_BIG;
    at_err_t err = x->options.check(x->options.user, record, NULL);
    if (err) return err;
    struct at_simplex_pending *p = waiting(x, x->queue_count++);
    p->record = *record;
    p->leaf = leaf;
    p->origin = origin;
    p->in_view = 0;
    p->age = 0;
    for (uint64_t h = x->tip.view + 1; h <= x->view; h++) { /* its block may have come before it */
        const struct at_simplex_view *v = at_simplex_view(x, h);
        for (int k = 0; v != NULL && k < 2; k++)
            for (uint32_t i = 0; v->block[k].have && i < v->block[k].record_count; i++)
                if (at_hash_eq(v->block[k].leaf[i], leaf)) p->in_view = h;
    }
    if (origin == x->me) {
        struct at_agree *m = at_simplex_send(x, at_simplex_all(x), AT_AGREE_PENDING);
        if (m != NULL) m->pending = &p->record;
    }
    return AT_OK;
}

/* Index among the waiting, or queue_count. */
static uint32_t find(const struct at_simplex *x, const struct at_hash *leaf)
{
    uint32_t i = 0;
    while (i < x->queue_count && !at_hash_eq(waiting(x, i)->leaf, *leaf)) i++;
    return i;
}

void at_simplex_queue_seen(struct at_simplex *x, const struct at_simplex_block *block)
{
    for (uint32_t i = 0; i < block->record_count; i++) {
        uint32_t at = find(x, &block->leaf[i]);
        if (at < x->queue_count && waiting(x, at)->in_view < block->view) waiting(x, at)->in_view = block->view;
    }
}

void at_simplex_queue_recent(struct at_simplex *x, struct at_hash leaf)
{
    x->recent[x->recent_next++ % AT_SIMPLEX_RECENT] = leaf;
}

static void drop(struct at_simplex *x, uint32_t at)
{
    uint16_t place = x->order[at];
    x->queue_count--;
    memmove(&x->order[at], &x->order[at + 1], (x->queue_count - at) * sizeof x->order[0]);
    x->order[x->queue_count] = place;
}

void at_simplex_queue_final(struct at_simplex *x, const struct at_simplex_block *block)
{
    for (uint32_t i = 0; i < block->record_count; i++) {
        at_simplex_queue_recent(x, block->leaf[i]);
        uint32_t at = find(x, &block->leaf[i]);
        if (at < x->queue_count) drop(x, at);
    }
}

void at_simplex_queue_age(struct at_simplex *x)
{
    uint32_t told = 0;
    for (uint32_t i = x->queue_count; i-- != 0;)
        if (++waiting(x, i)->age > AGE_MAX && waiting(x, i)->origin != x->me) drop(x, i);
    for (uint32_t i = 0; i < x->queue_count && told < TOLD_AGAIN; i++) {
        const struct at_simplex_pending *p = waiting(x, i);
        if (p->origin != x->me) continue;
        told++;
        struct at_agree *m = at_simplex_send(x, at_simplex_all(x), AT_AGREE_PENDING);
        if (m != NULL) m->pending = &p->record;
    }
}

uint32_t at_simplex_queue_pick(const struct at_simplex *x, uint64_t parent_view, const struct at_hash *parent,
                               struct at_signed_record *ret, uint32_t max)
{
    bool skip[AT_SIMPLEX_QUEUE_MAX] = {false};
    uint64_t view = parent_view;
    struct at_hash hash = *parent;
    while (view > x->tip.view) {
        const struct at_simplex_block *b = at_simplex_block(x, view, &hash);
        AT_ASSERT(b != NULL); /* the caller has walked this chain */
        for (uint32_t i = 0; i < b->record_count; i++) {
            uint32_t at = find(x, &b->leaf[i]);
            if (at < x->queue_count) skip[at] = true;
        }
        view = b->parent_view;
        hash = b->parent;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->queue_count && n < max; i++)
        if (!skip[i]) ret[n++] = waiting(x, i)->record;
    return n;
}

static bool has_records(const struct at_simplex_view *v)
{
    return (v->block[0].have && v->block[0].record_count != 0) || (v->block[1].have && v->block[1].record_count != 0);
}

/* In a notarised block of an earlier view: only its finality is missing. */
static bool only_finality_missing(const struct at_simplex *x, const struct at_simplex_pending *p)
{
    if (p->in_view >= x->view) return false;
    const struct at_simplex_view *v = at_simplex_view(x, p->in_view);
    return v != NULL && (v->certificate[AT_VOTE_BLOCK].seats != 0 || v->certificate[AT_VOTE_FINAL].seats != 0);
}

void at_simplex_queue_weigh(struct at_simplex *x)
{
    x->fast = at_simplex_vote_count(x, x->view, AT_VOTE_DUMMY) > x->f;
    x->slow = false;
    for (uint32_t i = 0; i < x->queue_count && !x->fast; i++) {
        bool soon = only_finality_missing(x, waiting(x, i));
        x->slow |= soon;
        x->fast |= !soon;
    }
    const struct at_simplex_view *now = at_simplex_view(x, x->view);
    x->fast |= now != NULL && has_records(now);
    for (uint64_t h = x->tip.view + 1; h < x->view && !x->slow; h++) {
        const struct at_simplex_view *v = at_simplex_view(x, h);
        x->slow = v != NULL && has_records(v);
    }
}
