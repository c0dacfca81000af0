/* node_kept.c: what a steward among several has on disk beside the log: rows of votes, certificates, blocks and the tip
 * (node_machine.h), made of Simplex's persist ops, and given back to Simplex at the next start.
 *
 *   row          bytes
 *   VOTE         an Agree with the vote
 *   CERTIFICATE  an Agree with the certificate; so are those of FINAL
 *   TIP          view (le64) ‖ hash ‖ time_ms (le64) ‖ seed ‖ for every place of a seat: head ‖ used (le32) ‖ an Agree with
 *                the finalisation, unless view = 0
 * Blocks that are not final yet are in memory, too: a final one is folded in the step that tells of it. They are at most
 * two for each view of Simplex's window, 40 MB when hostile leaders fill every one of them. */
#include "swarm/node_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- blocks in memory ---- */
const struct at_node_cached *at_node_block_find(const struct at_node_machine *m, uint64_t view,
                                                const struct at_hash *hash)
{
    const struct at_node_blocks *b = &m->agree.blocks;
    for (size_t i = 0; i < b->count; i++)
        if (b->list[i].view == view && at_hash_eq(b->list[i].hash, *hash)) return &b->list[i];
    return NULL;
}

static void no_memory(struct at_node_machine *m)
{
    at_node_end(m, AT_E_NOMEM, "no memory for a steward's part");
}

void at_node_block_cache(struct at_node_machine *m, uint64_t view, struct at_hash hash, struct at_span bytes)
{
    struct at_node_blocks *b = &m->agree.blocks;
    if (at_node_block_find(m, view, &hash)) return;
    if (b->count == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 16;
        struct at_node_cached *list = realloc(b->list, cap * sizeof *list);
        if (!list) {
            no_memory(m);
            return;
        }
        b->list = list;
        b->cap = cap;
    }
    struct at_node_cached *c = &b->list[b->count];
    *c = (struct at_node_cached){.view = view, .hash = hash};
    if (at_buf_append(&c->bytes, bytes.p, bytes.n))
        no_memory(m);
    else
        b->count++;
}

/* What the tip has left behind. */
void at_node_blocks_drop(struct at_node_machine *m, uint64_t view)
{
    struct at_node_blocks *b = &m->agree.blocks;
    size_t n = 0;
    for (size_t i = 0; i < b->count; i++) {
        if (b->list[i].view > view)
            b->list[n++] = b->list[i];
        else
            at_buf_release(&b->list[i].bytes);
    }
    b->count = n;
}

void at_node_blocks_clear(struct at_node_machine *m)
{
    at_node_blocks_drop(m, UINT64_MAX);
}

/* ---- rows ---- */
static struct at_node_kept *row(struct at_node_machine *m, enum at_node_kept_kind kind, uint64_t view)
{
    struct at_node_agree *a = &m->agree;
    if (a->kept_count == a->kept_cap) {
        size_t cap = a->kept_cap ? 2 * a->kept_cap : 32;
        struct at_node_kept *kept = realloc(a->kept, cap * sizeof *kept);
        if (kept) a->kept = kept;
        size_t *at = realloc(a->kept_at, cap * sizeof *at);
        if (at) a->kept_at = at;
        if (!kept || !at) {
            no_memory(m);
            return NULL;
        }
        a->kept_cap = cap;
    }
    struct at_node_kept *r = &a->kept[a->kept_count];
    *r = (struct at_node_kept){.kind = kind, .term = a->now->seats.term, .view = view};
    a->kept_at[a->kept_count++] = m->scratch->out.n;
    return r;
}

/* What was appended to `out` since the row was made are its bytes. */
static void row_done(struct at_node_machine *m, struct at_node_kept *r, at_err_t err)
{
    if (err) no_memory(m);
    r->bytes.n = m->scratch->out.n - m->agree.kept_at[r - m->agree.kept];
}

static void keep_agree(struct at_node_machine *m, enum at_node_kept_kind kind, uint64_t view, struct at_hash hash,
                       const struct at_agree *agree)
{
    struct at_node_kept *r = row(m, kind, view);
    if (!r) return;
    r->hash = hash;
    row_done(m, r, agree ? at_agree_encode(agree, &m->scratch->out) : AT_OK);
}

static void keep_certificate(struct at_node_machine *m, enum at_node_kept_kind kind, uint64_t view, struct at_hash hash,
                             const struct at_certificate *certificate)
{
    struct at_agree agree = {.term = m->agree.now->seats.term, .kind = AT_AGREE_CERTIFICATE};
    agree.certificate = certificate;
    keep_agree(m, kind, view, hash, certificate ? &agree : NULL);
}

#define TIP_BYTES (8 + 32 + 8 + 32 + AT_SEATS_MAX * (32 + 4))
static void keep_tip(struct at_node_machine *m, const struct at_simplex_tip *tip)
{
    uint8_t b[TIP_BYTES], *p = b;
    struct at_agree agree = {.term = m->agree.now->seats.term, .kind = AT_AGREE_CERTIFICATE};
    agree.certificate = &tip->certificate;
    struct at_node_kept *r = row(m, AT_NODE_KEPT_TIP, tip->view);
    if (!r) return;
    at_store_le64(p, tip->view);
    memcpy(p + 8, tip->hash.b, 32);
    at_store_le64(p + 40, tip->state.time_ms);
    memcpy(p + 48, tip->state.beacon.seed.b, 32);
    p += 80;
    for (uint32_t s = 0; s < AT_SEATS_MAX; s++, p += 36) {
        memcpy(p, tip->state.beacon.head[s].b, 32);
        at_store_le32(p + 32, tip->state.beacon.used[s]);
    }
    at_err_t err = at_buf_append(&m->scratch->out, b, sizeof b);
    if (!err && tip->certificate.seats) err = at_agree_encode(&agree, &m->scratch->out);
    row_done(m, r, err);
    (void)row(m, AT_NODE_KEPT_PRUNE, tip->view);
}

void at_node_keep(struct at_node_machine *m, const struct at_simplex_op *o)
{
    struct at_agree agree = {.term = m->agree.now->seats.term, .kind = AT_AGREE_VOTE};
    struct at_node_kept *r;
    switch (o->kind) {
    case AT_SIMPLEX_PERSIST_VOTE:
        agree.vote = o->votes[0];
        keep_agree(m, AT_NODE_KEPT_VOTE, o->votes[0].view, o->votes[0].hash, &agree);
        break;
    case AT_SIMPLEX_PERSIST_CERTIFICATE:
        keep_certificate(m, AT_NODE_KEPT_CERTIFICATE, o->certificate->view, o->certificate->hash, o->certificate);
        break;
    case AT_SIMPLEX_PERSIST_BLOCK:
        if (!(r = row(m, AT_NODE_KEPT_BLOCK, o->view))) return;
        r->hash = o->hash;
        row_done(m, r, at_buf_append(&m->scratch->out, o->bytes.p, o->bytes.n));
        break;
    case AT_SIMPLEX_PERSIST_ABSTAIN:
        (void)row(m, AT_NODE_KEPT_ABSTAIN, 0);
        break;
    case AT_SIMPLEX_FINAL:
        keep_certificate(m, AT_NODE_KEPT_FINAL, o->view, o->hash, o->certificate);
        if (o->tip) keep_tip(m, o->tip);
        break;
    default: /* nothing else persists */
        break;
    }
}

/* ---- back again ---- */
static at_err_t read_certificate(struct at_node_machine *m, struct at_span bytes, struct at_certificate *ret)
{
    struct at_agree agree;
    if (at_agree_decode(bytes, &m->agree.mem, NULL, &agree) || agree.kind != AT_AGREE_CERTIFICATE) return AT_E_VERIFY;
    *ret = *agree.certificate;
    return AT_OK;
}

static at_err_t read_tip(struct at_node_machine *m, struct at_span bytes, struct at_simplex_tip *tip)
{
    const uint8_t *p = bytes.p;
    if (bytes.n < TIP_BYTES) return AT_E_VERIFY;
    memset(tip, 0, sizeof *tip);
    tip->view = at_load_le64(p);
    memcpy(tip->hash.b, p + 8, 32);
    tip->state.time_ms = at_load_le64(p + 40);
    memcpy(tip->state.beacon.seed.b, p + 48, 32);
    p += 80;
    for (uint32_t s = 0; s < AT_SEATS_MAX; s++, p += 36) {
        memcpy(tip->state.beacon.head[s].b, p, 32);
        tip->state.beacon.used[s] = at_load_le32(p + 32);
    }
    if (tip->view == 0) return bytes.n == TIP_BYTES ? AT_OK : AT_E_VERIFY;
    return read_certificate(m, at_span(p, bytes.n - TIP_BYTES), &tip->certificate);
}

static const struct at_node_kept *block_row(const struct at_node_kept *kept, size_t count,
                                            const struct at_node_kept *final)
{
    for (size_t i = 0; i < count; i++)
        if (kept[i].kind == AT_NODE_KEPT_BLOCK && kept[i].view == final->view && at_hash_eq(kept[i].hash, final->hash))
            return &kept[i];
    return NULL;
}

static at_err_t give_block(struct at_node_machine *m, const struct at_node_kept *r)
{
    struct at_agree agree = {.term = r->term, .kind = AT_AGREE_PROPOSAL};
    agree.proposal.block = r->bytes;
    return at_simplex_restore(m->agree.simplex, &agree);
}

/* The last final blocks first, so that Simplex knows what was taken lately; then what is newer than the tip. */
static at_err_t give_back(struct at_node_machine *m, const struct at_node_kept *kept, size_t count, uint64_t tip_view)
{
    at_err_t err = AT_OK;
    size_t finals = 0;
    for (size_t i = 0; i < count; i++) finals += kept[i].kind == AT_NODE_KEPT_FINAL;
    for (size_t i = 0; i < count && !err; i++) {
        if (kept[i].kind != AT_NODE_KEPT_FINAL || finals-- > AT_NODE_FINALS_MAX) continue;
        const struct at_node_kept *block = block_row(kept, count, &kept[i]);
        err = block ? give_block(m, block) : AT_E_VERIFY;
    }
    for (size_t i = 0; i < count && !err; i++) {
        const struct at_node_kept *r = &kept[i];
        struct at_agree agree;
        if (r->kind == AT_NODE_KEPT_BLOCK && r->view > tip_view) {
            err = give_block(m, r);
            if (!err) at_node_block_cache(m, r->view, r->hash, r->bytes);
        } else if (r->kind == AT_NODE_KEPT_VOTE || r->kind == AT_NODE_KEPT_CERTIFICATE) {
            err = at_agree_decode(r->bytes, &m->agree.mem, NULL, &agree);
            if (!err) err = at_simplex_restore(m->agree.simplex, &agree);
        }
    }
    return err;
}

at_err at_node_machine_restore(struct at_node_machine *m, const struct at_node_kept *kept, size_t count,
                               struct at_diag *diag)
{
    struct at_node_agree *a = &m->agree;
    struct at_simplex_tip tip = {.hash = a->begin_leaf, .state = {a->begin_ms, a->begin_beacon}};
    bool abstain = false;
    at_err_t err = AT_OK;
    if (count == 0 || kept[0].term < m->ledger.seats.term) return AT_OK; /* its term is over */
    for (size_t i = 0; i < count && !err; i++) {
        if (kept[i].term != m->ledger.seats.term) err = AT_E_VERIFY;
        if (!err && kept[i].kind == AT_NODE_KEPT_TIP) err = read_tip(m, kept[i].bytes, &tip);
        abstain = abstain || kept[i].kind == AT_NODE_KEPT_ABSTAIN;
    }
    if (!err && m->ledger.seats.count > 1) {
        err = at_node_term_open(m, &tip, abstain);
        if (err == AT_E_NOT_FOUND) return AT_OK; /* the key is gone: no steward any more */
        if (!err) err = give_back(m, kept, count, tip.view);
    }
    if (!err) return AT_OK;
    return at_fail(diag, err == AT_E_NOMEM ? err : AT_E_VERIFY, "agree",
                   "what this folder keeps of its votes in term %u does not hold: it is damaged", kept[0].term);
}
