#include "parallel/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- who holds what ---- */

static bool same_shard(const struct at_shard *a, const struct at_shard *b)
{
    return a->slot_first == b->slot_first && a->slots == b->slots && a->layer_first == b->layer_first &&
           a->layers == b->layers;
}

/* Ranks [first, end) of a replica. */
struct ranks {
    int first, end;
};
static struct ranks ranks_of(const struct at_plan *plan, int replica)
{
    const struct at_plan_replica *r = &plan->replica[replica];
    const struct at_plan_stage *first = &plan->stage[r->stage_first], *last = first + r->stages - 1;
    return (struct ranks){first->rank_first, last->rank_first + last->tp};
}

static bool has_twin(const struct at_plan *plan, const struct at_model_config *c, int replica,
                     const struct at_shard *shard)
{
    struct ranks all = ranks_of(plan, replica);
    for (int i = all.first; i < all.end; i++) {
        struct at_shard s = at_plan_shard(plan, c, i);
        if (same_shard(&s, shard)) return true;
    }
    return false;
}

/* Whether block b goes from a rank with shard `from` to one with shard `to`, where they are not twins. */
static bool goes(const struct at_params *p, const struct at_block *b, const struct at_shard *from,
                 const struct at_shard *to)
{
    return at_shard_owns(p, from, b->tensor, b->slot) && at_shard_holds(p, to, b->tensor, b->slot);
}

uint32_t at_exchange_codecs(const struct at_outer_config *outer)
{
    const uint32_t plain = 1u << AT_CODEC_PLAIN, int4 = 1u << AT_CODEC_INT4, sparse = 1u << AT_CODEC_SPARSE;
    switch (outer->kind) {
    case AT_OUTER_MEAN:
        return plain;
    case AT_OUTER_DILOCO:
        return int4;
    case AT_OUTER_SPARSE:
        return outer->dense_fraction > 0 ? int4 | sparse : sparse; /* its start: the mean, in 4 bits */
    case AT_OUTER_AUTO:
        break;
    }
    return plain | int4 | sparse;
}

/* The most bytes of a blob with those of our blocks that go from `from` to `to` (NULL: all), by any of the codecs; 0:
 * there are none. */
static size_t blob_bytes_max(const struct at_params *p, uint32_t codecs, const struct at_shard *from,
                             const struct at_shard *to)
{
    size_t sum = 0;
    for (int i = 0; i < p->blocks; i++) {
        size_t most = 0;
        if (to != NULL && !goes(p, &p->block[i], from, to)) continue;
        for (uint32_t id = AT_CODEC_PLAIN; id <= AT_CODEC_SPARSE; id++) {
            size_t n = (codecs >> id & 1) != 0 ? at_codec_find(id)->bytes_max(p, &p->block[i]) : 0;
            if (n > most) most = n;
        }
        sum += AT_UPDATE_BLOCK_BYTES + most;
    }
    return sum == 0 ? 0 : AT_UPDATE_HEADER_BYTES + sum;
}

/* ---- the ways, and their memory ---- */

/* Makes the list of ways from, or to, this rank, and returns how many there are; with ret_way NULL it only counts.
 * io_bytes: what their blobs need is added. */
static int list_ways(const struct at_plan *plan, const struct at_params *p, uint32_t codecs, int rank, bool in,
                     struct at_exchange_way *ret_way, size_t *io_bytes)
{
    const struct at_model_config *c = &p->config;
    int mine = at_plan_place(plan, rank).replica, n = 0;
    for (int r = 0; r < plan->replicas; r++) {
        struct ranks all = ranks_of(plan, r);
        for (int i = all.first; r != mine && i < all.end; i++) {
            struct at_shard s = at_plan_shard(plan, c, i);
            struct at_exchange_way way = {.rank = i, .replica = r, .shard = s, .twin = same_shard(&s, &p->shard)};
            size_t bytes;
            if (way.twin)
                bytes = in ? blob_bytes_max(p, codecs, NULL, NULL) : 0; /* the own blob is sent as it lies */
            else if (in ? has_twin(plan, c, r, &p->shard) : has_twin(plan, c, mine, &s))
                continue;
            else if ((bytes = in ? blob_bytes_max(p, codecs, &s, &p->shard)
                                 : blob_bytes_max(p, codecs, &p->shard, &s)) == 0)
                continue;
            way.blob = (struct at_buf){.cap = bytes, .bytes_max = bytes};
            *io_bytes += (bytes + 63) / 64 * 64;
            if (ret_way != NULL) ret_way[n] = way;
            n++;
        }
    }
    return n;
}

static size_t lists_bytes(int ways, int replicas)
{
    return ((size_t)ways * sizeof(struct at_exchange_way) +
            (size_t)replicas * (sizeof(struct at_update) + sizeof(double)) + 63) /
           64 * 64;
}

struct measured {
    int ins, outs;
    size_t bytes; /* of the block */
};
static struct measured measure(const struct at_plan *plan, const struct at_params *p, uint32_t codecs, int rank)
{
    struct measured m = {.bytes = (blob_bytes_max(p, codecs, NULL, NULL) + 63) / 64 * 64};
    m.ins = list_ways(plan, p, codecs, rank, true, NULL, &m.bytes);
    m.outs = list_ways(plan, p, codecs, rank, false, NULL, &m.bytes);
    m.bytes += lists_bytes(m.ins + m.outs, plan->replicas);
    return m;
}

/* What at_update_begin takes. */
static size_t update_bytes(const struct at_params *p)
{
    return (size_t)p->blocks * sizeof(struct at_span) + (size_t)p->numbers * sizeof(int);
}

size_t at_exchange_bytes(const struct at_plan *plan, const struct at_model_config *config, int rank, uint32_t codecs)
{
    struct at_params p;
    struct at_shard shard = at_plan_shard(plan, config, rank);
    if (at_params_init_shard(&p, config, &shard) != AT_OK) return 0;
    size_t bytes = measure(plan, &p, codecs, rank).bytes + (size_t)plan->replicas * update_bytes(&p);
    at_params_release(&p);
    return bytes;
}

static void place_blob(struct at_buf *blob, size_t bytes, uint8_t **io_at)
{
    *blob = (struct at_buf){.p = *io_at, .cap = bytes, .bytes_max = bytes};
    *io_at += (bytes + 63) / 64 * 64;
}

at_err at_exchange_init(struct at_exchange *x, const struct at_comm *comm, const struct at_plan *plan,
                        const struct at_params *params, uint32_t codecs, uint32_t tag, struct at_diag *diag)
{
    struct measured m = measure(plan, params, codecs, comm->rank);
    struct at_exchange n = {.comm = comm,
                            .params = params,
                            .replica = at_plan_place(plan, comm->rank).replica,
                            .replicas = plan->replicas,
                            .tag = tag,
                            .ins = m.ins,
                            .outs = m.outs,
                            .block_bytes = m.bytes};
    n.block = aligned_alloc(64, m.bytes);
    if (n.block == NULL) return at_fail(diag, AT_E_NOMEM, "exchange", "no memory for %zu MB of updates", m.bytes >> 20);
    size_t lists = lists_bytes(m.ins + m.outs, plan->replicas), unused = 0;
    memset(n.block, 0, lists);
    n.in = n.block;
    n.out = n.in + n.ins;
    n.update = (struct at_update *)(void *)(n.out + n.outs);
    n.loss = (double *)(void *)(n.update + n.replicas);
    (void)list_ways(plan, params, codecs, comm->rank, true, n.in, &unused);
    (void)list_ways(plan, params, codecs, comm->rank, false, n.out, &unused);
    uint8_t *at = (uint8_t *)n.block + lists;
    place_blob(&n.own, blob_bytes_max(params, codecs, NULL, NULL), &at);
    for (int i = 0; i < n.ins; i++) place_blob(&n.in[i].blob, n.in[i].blob.bytes_max, &at);
    for (int i = 0; i < n.outs; i++) place_blob(&n.out[i].blob, n.out[i].blob.bytes_max, &at);
    AT_ASSERT(at == (uint8_t *)n.block + m.bytes);
    for (int r = 0; r < n.replicas; r++)
        if (at_update_begin(&n.update[r], params) != AT_OK) {
            at_exchange_release(&n);
            return at_fail(diag, AT_E_NOMEM, "exchange", "no memory for the updates' tables");
        }
    *x = n;
    return AT_OK;
}

void at_exchange_release(struct at_exchange *x)
{
    for (int r = 0; x->block != NULL && r < x->replicas; r++) at_update_release(&x->update[r]);
    free(x->block);
    *x = (struct at_exchange){0};
}

/* ---- a round ---- */

void at_exchange_expect(struct at_exchange *x)
{
    for (int i = 0; i < x->ins; i++) {
        struct at_exchange_way *w = &x->in[i];
        w->head_t = at_comm_recv(x->comm, w->rank, x->tag, w->head, sizeof w->head);
        w->head_here = false;
    }
}

static at_err wait_one(const struct at_exchange *x, struct at_transfer *t, struct at_diag *diag)
{
    at_err_t err = at_comm_wait(x->comm, *t, diag);
    *t = (struct at_transfer){0};
    return err;
}

/* Takes the head, and posts the receive for the blob. */
static at_err take_head(struct at_exchange *x, struct at_exchange_way *w, struct at_diag *diag)
{
    at_err_t err = wait_one(x, &w->head_t, diag);
    if (err != AT_OK) return err;
    w->head_here = true;
    uint64_t bytes = at_load_le64(w->head);
    if (bytes < AT_UPDATE_HEADER_BYTES || bytes > w->blob.bytes_max)
        return at_fail(diag, AT_E_PEER, "update", "rank %d announces an update of %llu bytes; it has at most %zu",
                       w->rank, (unsigned long long)bytes, w->blob.bytes_max);
    w->blob.n = (size_t)bytes;
    memcpy(&x->loss[w->replica], w->head + 8, 8);
    w->blob_t = at_comm_recv(x->comm, w->rank, x->tag + 1, w->blob.p, w->blob.n);
    return AT_OK;
}

at_err at_exchange_poll(struct at_exchange *x, struct at_diag *diag)
{
    const struct at_comm *c = x->comm;
    at_err_t err = AT_OK;
    for (int i = 0; err == AT_OK && i < x->ins; i++)
        if (!x->in[i].head_here && x->in[i].head_t.v != 0 && c->ops->done(c->link, x->in[i].head_t))
            err = take_head(x, &x->in[i], diag);
    return err;
}

struct goes_arg {
    const struct at_params *p;
    const struct at_shard *to;
};

static bool goes_to(void *arg, int block)
{
    const struct goes_arg *g = arg;
    return goes(g->p, &g->p->block[block], &g->p->shard, g->to);
}

at_err at_exchange_send(struct at_exchange *x, const struct at_codec *codec, uint32_t k,
                        const struct at_update_info *info, const struct at_update_source *source, double loss_mean,
                        struct at_diag *diag)
{
    x->loss[x->replica] = loss_mean;
    for (int i = 0; i < x->outs; i++) {
        struct at_exchange_way *w = &x->out[i];
        const struct at_buf *blob = w->twin ? &x->own : &w->blob;
        if (!w->twin) {
            struct goes_arg arg = {x->params, &w->shard};
            w->blob.n = 0;
            at_err_t err = at_update_encode(codec, k, info, source, goes_to, &arg, &w->blob);
            if (err != AT_OK) return at_fail(diag, err, "update", "no memory for the update");
        }
        at_store_le64(w->head, blob->n);
        memcpy(w->head + 8, &loss_mean, 8);
        w->head_t = at_comm_send(x->comm, w->rank, x->tag, w->head, sizeof w->head);
        w->blob_t = at_comm_send(x->comm, w->rank, x->tag + 1, blob->p, blob->n);
        x->bytes_sent += sizeof w->head + blob->n;
    }
    return AT_OK;
}

/* The updates of all replicas from the blobs that lie here. */
static at_err put_together(struct at_exchange *x, struct at_diag *diag)
{
    for (int r = 0; r < x->replicas; r++) {
        at_err_t err = at_update_begin(&x->update[r], x->params);
        if (err == AT_OK && r == x->replica) err = at_update_add(&x->update[r], at_buf_span(&x->own), diag);
        for (int i = 0; err == AT_OK && i < x->ins; i++)
            if (x->in[i].replica == r) err = at_update_add(&x->update[r], at_buf_span(&x->in[i].blob), diag);
        if (err == AT_OK) err = at_update_complete(&x->update[r], diag);
        if (err != AT_OK) return at_fail(diag, err, "update", "no memory for the updates");
    }
    return AT_OK;
}

at_err at_exchange_finish(struct at_exchange *x, struct at_diag *diag)
{
    at_err_t err = at_exchange_poll(x, diag);
    for (int i = 0; err == AT_OK && i < x->ins; i++)
        if (!x->in[i].head_here) err = take_head(x, &x->in[i], diag);
    for (int i = 0; err == AT_OK && i < x->ins; i++) err = wait_one(x, &x->in[i].blob_t, diag);
    for (int i = 0; err == AT_OK && i < x->outs; i++) {
        err = wait_one(x, &x->out[i].head_t, diag);
        if (err == AT_OK) err = wait_one(x, &x->out[i].blob_t, diag);
    }
    return err == AT_OK ? put_together(x, diag) : err;
}

static void settle_ways(const struct at_exchange *x, struct at_exchange_way *way, int n)
{
    for (int i = 0; i < n; i++) { /* what the run ended with is known already */
        at_err_t head = wait_one(x, &way[i].head_t, NULL), blob = wait_one(x, &way[i].blob_t, NULL);
        (void)head;
        (void)blob;
    }
}

void at_exchange_settle(struct at_exchange *x)
{
    settle_ways(x, x->in, x->ins);
    settle_ways(x, x->out, x->outs);
}
