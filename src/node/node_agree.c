#include "node/node_agree.h"

#include <stdlib.h>
#include <string.h>

/* The store's kinds of rows are the machine's. */
_Static_assert((int)AT_STORE_VOTE == AT_NODE_KEPT_VOTE && (int)AT_STORE_CERTIFICATE == AT_NODE_KEPT_CERTIFICATE &&
                   (int)AT_STORE_BLOCK == AT_NODE_KEPT_BLOCK && (int)AT_STORE_FINAL == AT_NODE_KEPT_FINAL &&
                   (int)AT_STORE_TIP == AT_NODE_KEPT_TIP && (int)AT_STORE_ABSTAIN == AT_NODE_KEPT_ABSTAIN &&
                   (int)AT_STORE_PRUNE == AT_NODE_KEPT_PRUNE,
               "kinds of rows");

static at_err_t no_memory(struct at_diag *diag)
{
    return at_fail(diag, AT_E_NOMEM, "ledger", "out of memory");
}

at_err_t at_agree_persist(struct at_store *store, const struct at_node_op *op, struct at_diag *diag)
{
    struct at_store_kept *kept = calloc(op->persist.kept_count + 1, sizeof *kept);
    if (!kept) return no_memory(diag);
    for (size_t i = 0; i < op->persist.kept_count; i++) {
        const struct at_node_kept *k = &op->persist.kept[i];
        kept[i] = (struct at_store_kept){.kind = (enum at_store_kept_kind)k->kind,
                                         .term = k->term,
                                         .view = k->view,
                                         .hash = k->hash,
                                         .bytes = k->bytes};
    }
    const struct at_store_batch batch = {.first = op->persist.from,
                                         .records = op->persist.records,
                                         .count = (uint32_t)op->persist.count,
                                         .checkpoints = op->persist.checkpoints,
                                         .checkpoint_count = (uint32_t)op->persist.checkpoint_count,
                                         .kept = kept,
                                         .kept_count = op->persist.kept_count};
    at_err_t err = at_store_write(store, &batch, diag);
    free(kept);
    return err;
}

/* ---- rows ---- */
struct rows { /* bytes[i] of row i lie at offset[i]: the buffer moves while it grows */
    struct at_node_kept *row;
    size_t *offset;
    size_t count, cap;
    struct at_buf bytes;
};

static at_err_t rows_grow(struct rows *r)
{
    size_t cap = r->cap ? 2 * r->cap : 256;
    struct at_node_kept *row = realloc(r->row, cap * sizeof *row);
    if (row) r->row = row;
    size_t *offset = realloc(r->offset, cap * sizeof *offset);
    if (offset) r->offset = offset;
    if (!row || !offset) return AT_E_NOMEM;
    r->cap = cap;
    return AT_OK;
}

static at_err_t take_row(void *user, const struct at_store_kept *k, struct at_diag *diag)
{
    struct rows *r = user;
    if (r->count == r->cap && rows_grow(r)) return no_memory(diag);
    r->offset[r->count] = r->bytes.n;
    r->row[r->count++] = (struct at_node_kept){.kind = (enum at_node_kept_kind)k->kind,
                                               .term = k->term,
                                               .view = k->view,
                                               .hash = k->hash,
                                               .bytes = at_span(NULL, k->bytes.n)};
    return k->bytes.n == 0 || !at_buf_append(&r->bytes, k->bytes.p, k->bytes.n) ? AT_OK : no_memory(diag);
}

at_err_t at_agree_restore(struct at_store *store, struct at_node_machine *machine, struct at_diag *diag)
{
    struct rows r = {0};
    at_err_t err = at_store_restore(store, AT_NODE_FINALS_MAX, take_row, &r, diag);
    for (size_t i = 0; i < r.count; i++)
        if (r.row[i].bytes.n) r.row[i].bytes.p = r.bytes.p + r.offset[i];
    if (!err && r.count > 0) err = at_node_machine_restore(machine, r.row, r.count, diag);
    free(r.row);
    free(r.offset);
    at_buf_release(&r.bytes);
    return err;
}

/* ---- serving ---- */
#define ANSWER_BYTES ((size_t)2 << 20) /* a link takes 4 MiB that wait */

/* Finds the BLOCKs of the rows, which are FINALs or the one that was asked for; a FINAL's bytes are its certificate. */
static at_err_t add_blocks(struct at_store *store, uint32_t term, struct rows *finals, struct at_diag *diag,
                           struct at_agree_answer *ret)
{
    struct rows blocks = {0};
    at_err_t err = AT_OK;
    for (size_t i = 0; i < finals->count && !err && ret->count < AT_NODE_BLOCKS_MAX; i++) {
        if (blocks.bytes.n > ANSWER_BYTES) break; /* whoever is behind asks again */
        const struct at_node_kept *f = &finals->row[i];
        err = at_store_block(store, term, f->view, f->hash, take_row, &blocks, diag);
        if (err) break;
        ret->list[ret->count++] = (struct at_node_block){.view = f->view, .hash = f->hash};
    }
    if (err == AT_E_NOT_FOUND)
        err = at_fail(diag, AT_E_DATA, "ledger", "the ledger is damaged: a final block is missing");
    if (!err) err = at_buf_append(&ret->bytes, blocks.bytes.p, blocks.bytes.n);
    size_t certificates = ret->bytes.n;
    if (!err) err = at_buf_append(&ret->bytes, finals->bytes.p, finals->bytes.n);
    for (size_t i = 0; i < ret->count && !err; i++) {
        ret->list[i].bytes = at_span(ret->bytes.p + blocks.offset[i], blocks.row[i].bytes.n);
        ret->list[i].certificate = at_span(ret->bytes.p + certificates + finals->offset[i], finals->row[i].bytes.n);
    }
    free(blocks.row);
    free(blocks.offset);
    at_buf_release(&blocks.bytes);
    return err;
}

static at_err_t read_one(struct at_store *store, const struct at_agree_question *q, struct at_diag *diag,
                         struct at_agree_answer *ret)
{
    struct rows block = {0};
    at_err_t err = at_store_block(store, q->term, q->view, q->hash, take_row, &block, diag);
    if (!err) err = at_buf_append(&ret->bytes, block.bytes.p, block.bytes.n);
    if (!err)
        ret->list[ret->count++] =
            (struct at_node_block){.view = q->view, .hash = q->hash, .bytes = at_buf_span(&ret->bytes)};
    free(block.row);
    free(block.offset);
    at_buf_release(&block.bytes);
    return err == AT_E_NOT_FOUND ? AT_OK : err;
}

at_err_t at_agree_read(struct at_store *store, const struct at_agree_question *q, struct at_diag *diag,
                       struct at_agree_answer *ret_answer)
{
    struct rows finals = {0};
    if (q->of_block) return read_one(store, q, diag, ret_answer);
    at_err_t err = at_store_finals(store, q->term, q->view, q->last, AT_NODE_BLOCKS_MAX, take_row, &finals, diag);
    if (!err && finals.count > 0) err = add_blocks(store, q->term, &finals, diag, ret_answer);
    free(finals.row);
    free(finals.offset);
    at_buf_release(&finals.bytes);
    return err;
}

void at_agree_answer_release(struct at_agree_answer *answer)
{
    at_buf_release(&answer->bytes);
    *answer = (struct at_agree_answer){.count = 0};
}
