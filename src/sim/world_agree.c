/* world_agree.c: what the driver of a steward among several does: its rows on the disk, the secrets of seats, blocks for
 * laggards; and what an independent count of the stewards' words says of the log. */
#include "sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

bool at_world_several(const struct at_world *w)
{
    return w->options.stewards > 1;
}

/* ---- tickets and secrets ---- */
void at_world_give_tickets(struct at_world *w)
{
    for (int i = 1; i < w->options.nodes && i < w->options.stewards; i++) {
        struct at_keypair key = at_world_key_of(w, 200000 + (uint32_t)i);
        w->nodes[i].ticket = at_ticket_make(&w->nodes[0].key, w->run, &key);
        w->nodes[i].has_ticket = true;
    }
}

void at_world_secret_make(struct at_world *w, int node, uint32_t term)
{
    struct at_world_node *n = &w->nodes[node];
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, at_world_sync_ms(w, node));
    size_t i = 0;
    while (i < n->secret_count && n->secrets[i].term != term) i++;
    if (i == AT_NODE_SECRETS) {
        at_world_violate(w, "node %d has more secrets of seats than can be of use", node);
        return;
    }
    if (i == n->secret_count) {
        uint8_t text[16] = "secret";
        at_store_le64(text + 8, at_world_draw(w, UINT64_MAX));
        struct at_hash h = at_sha256(text, sizeof text);
        n->secrets[n->secret_count] = (struct at_node_secret){.term = term};
        memcpy(n->secrets[n->secret_count].bytes, h.b, sizeof h.b);
        struct at_keypair key;
        if (at_node_secret_key(&n->secrets[n->secret_count++], &n->key, &key)) at_world_key_made(w, &key);
    }
    ev->e.kind = AT_NODE_EV_SECRET;
    ev->e.secret = n->secrets[i];
}

void at_world_secrets_erase(struct at_world *w, int node, uint32_t term)
{
    struct at_world_node *n = &w->nodes[node];
    size_t kept = 0;
    for (size_t i = 0; i < n->secret_count; i++)
        if (n->secrets[i].term >= term) n->secrets[kept++] = n->secrets[i];
    n->secret_count = kept;
}

uint32_t at_world_oldest_secret(const struct at_world *w, int node)
{
    const struct at_world_node *n = &w->nodes[node];
    uint32_t oldest = 0;
    for (size_t i = 0; i < n->secret_count; i++)
        if (oldest == 0 || n->secrets[i].term < oldest) oldest = n->secrets[i].term;
    return oldest;
}

/* ---- rows ---- */
void at_world_kept_cut(struct at_world_disk *d, size_t count)
{
    while (d->kept_count > count) free(d->kept[--d->kept_count].bytes);
    if (d->kept_durable > count) d->kept_durable = count;
}

void at_world_kept_write(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_disk *d = &w->nodes[node].disk;
    for (size_t i = 0; i < op->persist.kept_count; i++) {
        const struct at_node_kept *from = &op->persist.kept[i];
        if (d->kept_count == d->kept_cap) {
            size_t cap = d->kept_cap ? 2 * d->kept_cap : 64;
            struct at_world_kept *p = realloc(d->kept, cap * sizeof *p);
            if (!p) {
                at_world_violate(w, "out of memory");
                return;
            }
            d->kept = p;
            d->kept_cap = cap;
        }
        struct at_world_kept *to = &d->kept[d->kept_count];
        *to = (struct at_world_kept){.row = *from, .log = d->written, .bytes = malloc(from->bytes.n + 1)};
        if (!to->bytes) {
            at_world_violate(w, "out of memory");
            return;
        }
        if (from->bytes.n) memcpy(to->bytes, from->bytes.p, from->bytes.n);
        to->row.bytes.p = to->bytes;
        d->kept_count++;
    }
}

/* An old copy of the folder, of when the log had no more than these records. */
void at_world_kept_fall_behind(struct at_world_disk *d)
{
    size_t n = 0;
    while (n < d->kept_count && d->kept[n].log <= d->durable) n++;
    at_world_kept_cut(d, n);
    d->kept_durable = n;
}

static bool is_final(const struct at_world_disk *d, const struct at_node_kept *block)
{
    for (size_t i = 0; i < d->kept_count; i++) {
        const struct at_node_kept *r = &d->kept[i].row;
        if (r->kind == AT_NODE_KEPT_FINAL && r->term == block->term && r->view == block->view &&
            at_hash_eq(r->hash, block->hash))
            return true;
    }
    return false;
}

/* Rows stay, so that an old copy can be found; what the orders to prune would have left is given back. */
at_err_t at_world_kept_restore(struct at_world *w, int node, struct at_diag *diag)
{
    const struct at_world_disk *d = &w->nodes[node].disk;
    uint32_t term = 0;
    uint64_t prune = 0, newest = 0;
    size_t n = 0;
    if (d->kept_count == 0) return AT_OK;
    for (size_t i = 0; i < d->kept_count; i++)
        if (d->kept[i].row.term > term) term = d->kept[i].row.term;
    for (size_t i = 0; i < d->kept_count; i++) {
        const struct at_node_kept *r = &d->kept[i].row;
        if (r->term != term) continue;
        if (r->kind == AT_NODE_KEPT_PRUNE && r->view > prune) prune = r->view;
        if (r->kind == AT_NODE_KEPT_VOTE && r->view > newest) newest = r->view;
    }
    struct at_node_kept *list = malloc(d->kept_count * sizeof *list);
    if (!list) return AT_E_NOMEM;
    for (size_t i = 0; i < d->kept_count; i++) {
        const struct at_node_kept *r = &d->kept[i].row;
        bool old = r->view < prune;
        if (r->term != term || r->kind == AT_NODE_KEPT_PRUNE) continue;
        if (r->kind == AT_NODE_KEPT_VOTE && old && r->view < newest) continue;
        if (r->kind == AT_NODE_KEPT_CERTIFICATE && old) continue;
        if (r->kind == AT_NODE_KEPT_BLOCK && old && !is_final(d, r)) continue;
        list[n++] = *r;
    }
    at_err_t err = at_node_machine_restore(w->nodes[node].machine, list, n, diag);
    free(list);
    return err;
}

static const struct at_node_kept *block_of(const struct at_world_disk *d, uint32_t term, uint64_t view,
                                           const struct at_hash *hash)
{
    for (size_t i = 0; i < d->kept_count; i++) {
        const struct at_node_kept *r = &d->kept[i].row;
        if (r->kind == AT_NODE_KEPT_BLOCK && r->term == term && r->view == view && at_hash_eq(r->hash, *hash)) return r;
    }
    return NULL;
}

void at_world_agree_ask(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_event *ev = at_world_push(w, AT_WORLD_AGREE_READ, node, at_world_draw(w, 3));
    ev->id = op->link;
    ev->arg = op->agree.view;
    ev->hash = op->agree.hash;
    ev->flag = op->agree.of_block;
    ev->e.agree.term = op->agree.term;
    ev->e.blob.total = op->agree.last;
}

void at_world_agree_read(struct at_world *w, const struct at_world_event *ev)
{
    const struct at_world_disk *d = &w->nodes[ev->node].disk;
    struct at_node_block list[AT_NODE_BLOCKS_MAX];
    struct at_node_event e = {.kind = AT_NODE_EV_AGREE_DATA, .link = ev->id};
    uint32_t term = ev->e.agree.term;
    e.agree.term = term;
    e.agree.of_block = ev->flag;
    e.agree.list = list;
    const struct at_node_kept *b = ev->flag ? block_of(d, term, ev->arg, &ev->hash) : NULL;
    if (b) list[e.agree.count++] = (struct at_node_block){.view = b->view, .hash = b->hash, .bytes = b->bytes};
    bool done = ev->flag;
    for (size_t i = 0; i < d->kept_count && !done && e.agree.count < AT_NODE_BLOCKS_MAX; i++) {
        const struct at_node_kept *r = &d->kept[i].row;
        if (r->kind != AT_NODE_KEPT_FINAL || r->term != term || r->view <= ev->arg) continue;
        if (!(b = block_of(d, term, r->view, &r->hash))) {
            at_world_violate(w, "node %d lacks the bytes of a final block", ev->node);
            return;
        }
        list[e.agree.count++] =
            (struct at_node_block){.view = r->view, .hash = r->hash, .bytes = b->bytes, .certificate = r->bytes};
        done = r->bytes.n > 0 && r->view >= ev->e.blob.total;
    }
    at_world_step_node(w, ev->node, &e);
}

/* ---- the judge of words ---- */
static uint32_t need(const struct at_ledger *l, enum at_record_kind kind)
{
    uint32_t faults = (l->seats.count - 1) / 3;
    return kind == AT_RECORD_EPOCH ? faults + 1 : 2 * faults + 1;
}

/* What happened with this record must rest on the words of so many different seats. */
void at_world_judge_words(struct at_world *w, const struct at_signed_record *record, const struct at_record *rec)
{
    struct at_world_judge *j = &w->judge;
    struct at_ledger *l = &j->fold;
    struct at_diag diag = {0};
    enum at_ledger_phase before = l->phase;
    uint32_t term = l->seats.term, round = l->round;
    int seat = at_ledger_seat(l, &record->author);
    bool word = rec->kind == AT_RECORD_OPEN || rec->kind == AT_RECORD_CLOSE || rec->kind == AT_RECORD_EPOCH ||
                rec->kind == AT_RECORD_END;
    uint32_t *said = rec->kind == AT_RECORD_END ? &j->end_said : &j->said, needed = need(l, rec->kind);
    if (word && seat >= 0) *said |= UINT32_C(1) << seat;
    if (at_ledger_apply(l, record, &diag, NULL)) {
        at_world_violate(w, "record %zu of the stewards' log is refused: %s", j->judged, diag.text);
        return;
    }
    if (l->phase != before && (!word || (uint32_t)__builtin_popcount(*said) < needed))
        at_world_violate(w, "record %zu settles what %d of %u stewards have said", j->judged, __builtin_popcount(*said),
                         l->seats.count);
    if (l->phase != before || l->seats.term != term) j->said = j->end_said = 0;
    if (l->phase == before) return;
    struct at_record deed = *rec; /* what the words have settled, as one steward's record would say it */
    if (l->phase == AT_LEDGER_TRAINING) {
        deed.open.round = l->round;
        deed.open.state_root = l->state_root;
        memset(&deed.open.replicas, 0, sizeof deed.open.replicas);
        for (uint32_t r = 0; r < l->member_count; r++)
            if (at_ledger_in_round(l, r)) at_replicas_add(&deed.open.replicas, r);
    } else if (l->phase == AT_LEDGER_CLOSED) {
        memset(&deed.close, 0, sizeof deed.close);
        deed.close.round = round;
        for (uint32_t r = 0; r < l->member_count; r++)
            if (l->allotments[r].included) at_replicas_add(&deed.close.included, r);
    } else if (l->phase == AT_LEDGER_READY) {
        deed.epoch.round = round;
        deed.epoch.state_root = l->state_root;
    }
    at_world_judge_deed(w, record, &deed);
}
