/* world_count.c: what is counted: events, messages, time in which nodes ran, trained and trained for what counted, and
 * how long records take to be final. Nothing here is seen by a node. */
#include "sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

static void mix(struct at_world *w, uint64_t value)
{
    w->counts.fingerprint = (w->counts.fingerprint ^ value) * UINT64_C(0x100000001b3);
}

void at_world_count_event(struct at_world *w, const struct at_world_event *ev)
{
    w->counts.events++;
    mix(w, ev->at_ms);
    mix(w, (uint64_t)ev->what << 32 | (uint32_t)ev->node);
    mix(w, (uint64_t)ev->e.kind << 32 | ev->e.bytes.n);
    mix(w, ev->e.link);
}

static void sample(struct at_world_samples *s, uint64_t ms)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 1024;
        uint32_t *all = realloc(s->ms, cap * sizeof *all);
        if (!all) return;
        s->ms = all;
        s->cap = cap;
    }
    s->ms[s->count++] = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

/* A record that is handed in again, on another link, has been on its way since the first time. */
static void submitted(struct at_world *w, struct at_world_node *n, struct at_span bytes)
{
    struct at_message msg;
    if (at_message_decode(bytes, &w->mem, NULL, &msg) || msg.kind != AT_MSG_SUBMIT) return;
    struct at_hash leaf = at_signed_record_leaf(msg.submit.record);
    if (at_hash_eq(leaf, n->submitted)) return;
    n->submitted = leaf;
    n->submitted_ms = w->now_ms;
}

void at_world_count_send(struct at_world *w, int node, struct at_span bytes, uint64_t wire, bool bulk)
{
    w->counts.messages++;
    w->counts.bytes += wire;
    if (bulk) w->counts.bulk_bytes += wire;
    if (at_world_kind_of(bytes) == AT_MSG_SUBMIT && at_world_is_honest(w, node)) submitted(w, &w->nodes[node], bytes);
}

void at_world_count_stored(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_node *n = &w->nodes[node];
    if (node == 0 || n->submitted_ms == 0) return;
    for (size_t i = 0; i < op->persist.count; i++) {
        const struct at_signed_record *rec = &op->persist.records[i];
        if (!at_node_id_eq(&rec->author, &n->key.id) || !at_hash_eq(at_signed_record_leaf(rec), n->submitted)) continue;
        sample(&w->finality, w->now_ms - n->submitted_ms);
        n->submitted_ms = 0;
    }
}

/* ---- blocks of several stewards ---- */
static const struct at_world_proposed *proposed(const struct at_world *w, const struct at_node_kept *row)
{
    for (size_t back = 1; back <= AT_WORLD_PROPOSED_MAX && back <= w->proposed_next; back++) {
        const struct at_world_proposed *p = &w->proposed[(w->proposed_next - back) % AT_WORLD_PROPOSED_MAX];
        if (p->view == row->view && p->term == row->term && at_hash_eq(p->hash, row->hash)) return p;
    }
    return NULL;
}

void at_world_count_blocks(struct at_world *w, int node, const struct at_node_op *op)
{
    if (op->persist.kept_count == 0) return;
    if (!w->proposed && !(w->proposed = calloc(AT_WORLD_PROPOSED_MAX, sizeof *w->proposed))) return;
    for (size_t i = 0; i < op->persist.kept_count; i++) {
        const struct at_node_kept *row = &op->persist.kept[i];
        if (row->kind != AT_NODE_KEPT_BLOCK && row->kind != AT_NODE_KEPT_FINAL) continue;
        const struct at_world_proposed *p = proposed(w, row);
        if (row->kind == AT_NODE_KEPT_FINAL && p && at_world_is_honest(w, node))
            sample(&w->block_finality, w->now_ms - p->ms);
        if (row->kind == AT_NODE_KEPT_BLOCK && !p)
            w->proposed[w->proposed_next++ % AT_WORLD_PROPOSED_MAX] =
                (struct at_world_proposed){row->term, row->view, w->now_ms, row->hash};
    }
}

void at_world_count_life(struct at_world *w, int node, bool up)
{
    struct at_world_node *n = &w->nodes[node];
    if (up) {
        n->up_since_ms = w->now_ms;
        if (n->life > 0) w->counts.restarts++;
    } else if (at_world_is_honest(w, node)) {
        w->counts.up_ms += w->now_ms - n->up_since_ms;
    }
}

void at_world_count_trained(struct at_world *w, int node)
{
    struct at_world_node *n = &w->nodes[node];
    n->unit_ms = w->now_ms - n->unit.began_ms;
    if (at_world_is_honest(w, node)) w->counts.trained_ms += n->unit_ms;
}

void at_world_count_close(struct at_world *w, int node)
{
    if (at_world_is_honest(w, node)) w->counts.counted_ms += w->nodes[node].unit_ms;
}

void at_world_counts(struct at_world *w, struct at_world_counts *ret_counts)
{
    *ret_counts = w->counts;
    ret_counts->shared_bytes += w->log.cap * (sizeof *w->log.records + sizeof *w->log.checkpoints + 1);
    ret_counts->seats = at_world_seats(w);
    ret_counts->term = at_world_several(w) ? w->judge.fold.seats.term : 1;
    for (int i = 0; i < w->options.nodes; i++) {
        const struct at_world_node *n = &w->nodes[i];
        if (!n->machine) continue;
        ret_counts->nodes_up++;
        if (at_world_is_honest(w, i)) ret_counts->up_ms += w->now_ms - n->up_since_ms;
        ret_counts->nodes_joined += at_node_machine_status(n->machine)->joined;
    }
}

uint32_t at_world_rounds(const struct at_world *w)
{
    return w->counts.rounds;
}

uint32_t at_world_kept_out(struct at_world *w)
{
    uint32_t count = 0;
    for (int i = 0; i < w->options.nodes; i++) {
        const struct at_world_node *n = &w->nodes[i];
        bool member = n->run_ended || (n->machine && at_node_machine_status(n->machine)->joined);
        count += at_world_is_honest(w, i) && !member;
    }
    return count;
}

struct at_hash at_world_root(struct at_world *w)
{
    return at_world_state_root(w, w->judge.round, w->judge.h);
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t sorted_at(struct at_world_samples *s, uint32_t permille)
{
    if (s->count == 0) return 0;
    qsort(s->ms, s->count, sizeof *s->ms, ascending);
    size_t i = s->count * permille / 1000;
    return s->ms[i < s->count ? i : s->count - 1];
}

uint32_t at_world_finality_ms(struct at_world *w, uint32_t permille)
{
    return sorted_at(&w->finality, permille);
}

uint32_t at_world_block_finality_ms(struct at_world *w, uint32_t permille)
{
    return sorted_at(&w->block_finality, permille);
}

uint32_t at_world_seats(const struct at_world *w)
{
    return at_world_several(w) ? w->judge.fold.seats.count : 1;
}
