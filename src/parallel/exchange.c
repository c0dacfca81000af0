/* A round of the exchange: what is posted when, and what came. */
#include "parallel/exchange.h"

#include <string.h>

/* ---- posting ---- */

static void lay_out(const struct at_exchange *x, const struct at_exchange_memory *m, int which, struct at_buf *ret_blob)
{
    size_t before = which == 0 ? 0 : (m->part[0] + 63) / 64 * 64, bytes = x->whole ? m->whole : m->part[which];
    *ret_blob = (struct at_buf){.p = m->at != NULL ? m->at + before : NULL, .cap = bytes, .bytes_max = bytes};
}

static void begin(struct at_exchange *x, bool whole)
{
    x->whole = whole;
    x->first = whole ? x->all : x->cut;
    x->parts = whole ? 1 : x->cuts;
    x->rooms = whole ? 1 : AT_EXCHANGE_ROOMS;
    x->part = x->made = 0;
    for (int i = 0; i < x->rooms; i++) lay_out(x, &x->own_memory, i, &x->own[i]);
    for (int k = 0; k < x->ins + x->outs; k++) {
        struct at_exchange_way *w = &x->in[k]; /* the outs lie behind */
        w->next = 0;
        w->posted = w->done = 0;
        for (int i = 0; i < x->rooms; i++) lay_out(x, &w->memory, i, &w->room[i].blob);
    }
}

/* The way's next fragment; NULL: no room, or there is none left. */
static struct at_exchange_blob *next_blob(const struct at_exchange *x, struct at_exchange_way *w)
{
    if (w->posted - w->done == (uint32_t)x->rooms) return NULL;
    for (int part = w->next; part < x->parts; part++)
        for (int b = x->first[part]; b < x->first[part + 1]; b++) {
            if (!at_exchange_carries(x->params, w, b)) continue;
            struct at_exchange_blob *room = &w->room[w->posted++ % (uint32_t)x->rooms];
            room->part = part;
            room->head_here = false;
            w->next = part + 1;
            return room;
        }
    w->next = x->parts;
    return NULL;
}

static void post_receives(struct at_exchange *x, struct at_exchange_way *w)
{
    struct at_exchange_blob *b;
    while ((b = next_blob(x, w)) != NULL) b->head_t = at_comm_recv(x->comm, w->rank, x->tag, b->head, sizeof b->head);
}

void at_exchange_expect(struct at_exchange *x, uint32_t codec)
{
    begin(x, (x->needs.parts >> codec & 1) == 0);
    for (int i = 0; i < x->ins; i++) post_receives(x, &x->in[i]);
}

struct carries_arg {
    const struct at_params *p;
    const struct at_exchange_way *w;
};

static bool carries(void *arg, int block)
{
    const struct carries_arg *a = arg;
    return at_exchange_carries(a->p, a->w, block);
}

static at_err encode(struct at_exchange *x, int part, const struct at_exchange_way *w, struct at_buf *blob,
                     struct at_diag *diag)
{
    struct carries_arg arg = {x->params, w};
    blob->n = 0;
    AT_ASSERT(blob->cap != 0);
    at_err_t err = at_update_encode_blocks(x->codec, x->k, &x->info, &x->source, x->first[part],
                                           x->first[part + 1] - x->first[part], w != NULL ? carries : NULL, &arg, blob);
    return err == AT_OK ? AT_OK : at_fail(diag, err, "update", "no room for the update");
}

static at_err send_way(struct at_exchange *x, struct at_exchange_way *w, struct at_diag *diag)
{
    struct at_exchange_blob *b;
    while ((b = next_blob(x, w)) != NULL) {
        struct at_buf *blob = w->twin ? &x->own[b->part % x->rooms] : &b->blob;
        AT_ASSERT(!w->twin || b->part < x->made);
        at_err_t err = w->twin ? AT_OK : encode(x, b->part, w, blob, diag);
        if (err != AT_OK) return err;
        at_store_le64(b->head, blob->n);
        memcpy(b->head + 8, &x->loss_new[x->replica], 8);
        b->head_t = at_comm_send(x->comm, w->rank, x->tag, b->head, sizeof b->head);
        b->blob_t = at_comm_send(x->comm, w->rank, x->tag + 1, blob->p, blob->n);
        x->bytes_sent += sizeof b->head + blob->n;
    }
    return AT_OK;
}

/* Encodes and sends as far as there is room. */
static at_err send_ahead(struct at_exchange *x, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    for (; err == AT_OK && x->made < x->parts && x->made < x->part + x->rooms; x->made++)
        err = encode(x, x->made, NULL, &x->own[x->made % x->rooms], diag);
    for (int i = 0; err == AT_OK && i < x->outs; i++) err = send_way(x, &x->out[i], diag);
    return err;
}

at_err at_exchange_send(struct at_exchange *x, const struct at_codec *codec, uint32_t k,
                        const struct at_update_info *info, const struct at_update_source *source, double loss_mean,
                        struct at_diag *diag)
{
    x->codec = codec;
    x->k = k;
    x->info = *info;
    x->source = *source;
    x->loss_new[x->replica] = loss_mean;
    return send_ahead(x, diag);
}

/* ---- what comes ---- */

static at_err wait_one(const struct at_exchange *x, struct at_transfer *t, struct at_diag *diag)
{
    at_err_t err = at_comm_wait(x->comm, *t, diag);
    *t = (struct at_transfer){0};
    return err;
}

/* Takes the head, and posts the receive for the blob. */
static at_err take_head(struct at_exchange *x, struct at_exchange_way *w, struct at_exchange_blob *b,
                        struct at_diag *diag)
{
    at_err_t err = wait_one(x, &b->head_t, diag);
    if (err != AT_OK) return err;
    b->head_here = true;
    uint64_t bytes = at_load_le64(b->head);
    if (bytes < AT_UPDATE_HEADER_BYTES || bytes > b->blob.bytes_max)
        return at_fail(diag, AT_E_PEER, "update",
                       "rank %d (replica %d) announces an update of %llu bytes; it has at most %zu", w->rank,
                       w->replica, (unsigned long long)bytes, b->blob.bytes_max);
    b->blob.n = (size_t)bytes;
    if (w->done == 0) memcpy(&x->loss_new[w->replica], b->head + 8, 8);
    b->blob_t = at_comm_recv(x->comm, w->rank, x->tag + 1, b->blob.p, b->blob.n);
    return AT_OK;
}

at_err at_exchange_poll(struct at_exchange *x, struct at_diag *diag)
{
    const struct at_comm *c = x->comm;
    at_err_t err = AT_OK;
    for (int i = 0; err == AT_OK && i < x->ins; i++) {
        struct at_exchange_way *w = &x->in[i];
        for (uint32_t j = w->done; err == AT_OK && j < w->posted; j++) { /* blobs are posted in the heads' order */
            struct at_exchange_blob *b = &w->room[j % (uint32_t)x->rooms];
            if (b->head_here) continue;
            if (!c->ops->done(c->link, b->head_t)) break;
            err = take_head(x, w, b, diag);
        }
    }
    return err;
}

/* A way's blob of the fragment that is taken next; NULL: it carries nothing of it. */
static struct at_exchange_blob *blob_now(const struct at_exchange *x, struct at_exchange_way *w)
{
    struct at_exchange_blob *b = &w->room[w->done % (uint32_t)x->rooms];
    return w->done < w->posted && b->part == x->part ? b : NULL;
}

static at_err wait_for_part(struct at_exchange *x, struct at_diag *diag)
{
    struct at_exchange_blob *b;
    at_err_t err = at_exchange_poll(x, diag);
    for (int i = 0; err == AT_OK && i < x->ins; i++)
        if ((b = blob_now(x, &x->in[i])) != NULL && !b->head_here) err = take_head(x, &x->in[i], b, diag);
    for (int i = 0; err == AT_OK && i < x->ins; i++)
        if ((b = blob_now(x, &x->in[i])) != NULL) err = wait_one(x, &b->blob_t, diag);
    if (err == AT_OK) err = at_exchange_poll(x, diag); /* the fragment behind it flows from now on, too */
    for (int i = 0; err == AT_OK && i < x->outs; i++)
        if ((b = blob_now(x, &x->out[i])) != NULL) {
            err = wait_one(x, &b->head_t, diag);
            if (err == AT_OK) err = wait_one(x, &b->blob_t, diag);
        }
    return err;
}

/* The blob has what this way carries of blocks [first, end), no less and no more. */
static bool is_whole(const struct at_exchange *x, const struct at_exchange_way *w, const struct at_update *u,
                     int blocks_new)
{
    int due = 0;
    for (int b = u->first; b < u->end; b++) {
        if (!at_exchange_carries(x->params, w, b)) continue;
        if (u->payload[b].p == NULL) return false;
        due++;
    }
    return due == blocks_new;
}

/* w: NULL for the own blob. */
static at_err add_blob(const struct at_exchange *x, const struct at_exchange_way *w, struct at_span blob,
                       struct at_diag *diag)
{
    struct at_diag why = {0};
    int rank = w != NULL ? w->rank : x->comm->rank, replica = w != NULL ? w->replica : x->replica;
    struct at_update *u = &x->update[replica];
    int before = u->blocks;
    at_err_t err = at_update_add(u, blob, &why);
    if (err == AT_OK && w != NULL && !is_whole(x, w, u, u->blocks - before))
        err = at_fail(&why, AT_E_DATA, "update", "other blocks than those of this fragment");
    if (err == AT_OK) return AT_OK;
    return at_fail(diag, err == AT_E_NONFINITE || w == NULL ? err : AT_E_PEER, why.where, "rank %d (replica %d): %s",
                   rank, replica, why.text);
}

/* The updates of all replicas from the blobs of this fragment. */
static at_err put_together(struct at_exchange *x, struct at_diag *diag)
{
    int first = x->first[x->part], blocks = x->first[x->part + 1] - first;
    at_err_t err = AT_OK;
    for (int r = 0; err == AT_OK && r < x->replicas; r++) {
        if (x->part == 0) err = at_update_begin(&x->update[r], x->params);
        if (err == AT_OK) at_update_move(&x->update[r], first, blocks);
    }
    if (err != AT_OK) return at_fail(diag, err, "update", "no memory for the updates");
    err = add_blob(x, NULL, at_buf_span(&x->own[x->part % x->rooms]), diag);
    for (int i = 0; err == AT_OK && i < x->ins; i++) {
        struct at_exchange_blob *b = blob_now(x, &x->in[i]);
        if (b != NULL) err = add_blob(x, &x->in[i], at_buf_span(&b->blob), diag);
    }
    for (int r = 0; err == AT_OK && r < x->replicas; r++) err = at_update_complete(&x->update[r], diag);
    if (x->part == 0) memcpy(x->loss, x->loss_new, (size_t)x->replicas * sizeof *x->loss);
    return err;
}

at_err at_exchange_take(struct at_exchange *x, struct at_diag *diag, int *ret_first, int *ret_blocks)
{
    if (x->part == x->parts) {
        *ret_first = x->params->blocks;
        *ret_blocks = 0;
        return AT_OK;
    }
    at_err_t err = wait_for_part(x, diag);
    if (err == AT_OK) err = put_together(x, diag);
    if (err != AT_OK) return err;
    *ret_first = x->first[x->part];
    *ret_blocks = x->first[x->part + 1] - x->first[x->part];
    return AT_OK;
}

at_err at_exchange_drop(struct at_exchange *x, struct at_diag *diag)
{
    for (int k = 0; k < x->ins + x->outs; k++)
        if (blob_now(x, &x->in[k]) != NULL) x->in[k].done++;
    x->part++;
    for (int i = 0; i < x->ins; i++) post_receives(x, &x->in[i]);
    return send_ahead(x, diag);
}

void at_exchange_settle(struct at_exchange *x)
{
    for (int k = 0; k < x->ins + x->outs; k++)
        for (int i = 0; i < AT_EXCHANGE_ROOMS; i++) { /* what the run ended with is known already */
            struct at_exchange_blob *b = &x->in[k].room[i];
            at_err_t head = wait_one(x, &b->head_t, NULL), blob = wait_one(x, &b->blob_t, NULL);
            (void)head;
            (void)blob;
        }
}
