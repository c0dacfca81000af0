/* Who sends what to whom, in which fragments, and the memory for it. */
#include "parallel/exchange.h"

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

bool at_exchange_carries(const struct at_params *p, const struct at_exchange_way *w, int block)
{
    const struct at_block *b = &p->block[block];
    const struct at_shard *from = w->in ? &w->shard : &p->shard, *to = w->in ? &p->shard : &w->shard;
    return w->twin || (at_shard_owns(p, from, b->tensor, b->slot) && at_shard_holds(p, to, b->tensor, b->slot));
}

/* ---- fragments ---- */

struct at_exchange_needs at_exchange_needs_of(const struct at_outer_config *outer)
{
    const uint32_t plain = 1u << AT_CODEC_PLAIN, int4 = 1u << AT_CODEC_INT4, sparse = 1u << AT_CODEC_SPARSE;
    uint32_t all = plain | int4 | sparse;
    switch (outer->kind) {
    case AT_OUTER_MEAN:
        all = plain;
        break;
    case AT_OUTER_DILOCO:
        all = int4;
        break;
    case AT_OUTER_SPARSE:
        all = outer->dense_fraction > 0 ? int4 | sparse : sparse; /* its start: the mean, in 4 bits */
        break;
    case AT_OUTER_AUTO:
        break;
    }
    uint32_t parts = outer->tau > 0 ? 0 : all & (plain | int4);
    return (struct at_exchange_needs){.whole = all & ~parts,
                                      .parts = parts,
                                      .k = outer->kind == AT_OUTER_AUTO ? AT_SPARSE_K_MAX : outer->k,
                                      .fragment_bytes = AT_EXCHANGE_FRAGMENT_BYTES};
}

/* Slots that a rank of the plan has at most. */
static int slots_most(const struct at_plan *plan, const struct at_params *p)
{
    int tp = p->slots;
    for (int s = 0; s < plan->stages; s++)
        if (plan->stage[s].tp < tp) tp = plan->stage[s].tp;
    return p->slots / tp;
}

/* Cuts the whole model's blocks, in memory order, before every block with which some aligned run of `width` slots, and
 * no rank holds more, would come to more than limit bytes. ret_cut[fragments + 1]: where in mine->block those fragments
 * begin that mine has blocks of, and the end. Returns their number. */
static int cut(const struct at_params *whole, const struct at_params *mine, int width, size_t limit, int *ret_cut)
{
    enum { SLOTS_MAX = 8 };
    size_t sum[SLOTS_MAX] = {0};
    int parts = 0, held = 0;
    bool fresh = true; /* nothing of mine in this fragment yet */
    for (int i = 0; i < whole->blocks; i++) {
        const struct at_block *b = &whole->block[i];
        size_t bytes = AT_UPDATE_BLOCK_BYTES + at_codec_plain.bytes_max(whole, b, 0);
        bool every = whole->tensor[b->tensor].slots == 1, full = false;
        for (int run = 0; run * width < whole->slots; run++) {
            if (!every && run != b->slot / width) continue;
            if (sum[run] != 0 && sum[run] + bytes > limit) full = true;
        }
        if (full) {
            memset(sum, 0, sizeof sum);
            fresh = true;
        }
        for (int run = 0; run * width < whole->slots; run++)
            if (every || run == b->slot / width) sum[run] += bytes;
        if (!at_params_holds(mine, b->tensor, b->slot)) continue;
        if (fresh) ret_cut[parts++] = held;
        fresh = false;
        held++;
    }
    AT_ASSERT(held == mine->blocks);
    ret_cut[parts] = held;
    return parts;
}

/* ---- the ways, and their memory ---- */

/* What this rank's share comes to. */
struct measured {
    int *cut, cuts; /* owned */
    struct at_exchange_memory own;
    int ins, outs;
    size_t bytes; /* of the block */
};

/* The most bytes of a blob with those of our blocks [first, end) that w carries (NULL: all), by any of the codecs, with
 * at most k; 0: there are none. */
static size_t blob_bytes_max(const struct at_params *p, uint32_t codecs, uint32_t k, const struct at_exchange_way *w,
                             int first, int end)
{
    size_t sum = 0;
    for (int i = first; codecs != 0 && i < end; i++) {
        size_t most = 0;
        if (w != NULL && !at_exchange_carries(p, w, i)) continue;
        for (uint32_t id = AT_CODEC_PLAIN; id <= AT_CODEC_SPARSE; id++) {
            size_t n = (codecs >> id & 1) != 0 ? at_codec_find(id)->bytes_max(p, &p->block[i], k) : 0;
            if (n > most) most = n;
        }
        sum += AT_UPDATE_BLOCK_BYTES + most;
    }
    return sum == 0 ? 0 : AT_UPDATE_HEADER_BYTES + sum;
}

static struct at_exchange_memory memory_of(const struct at_params *p, const struct at_exchange_needs *needs,
                                           const struct measured *m, const struct at_exchange_way *w)
{
    struct at_exchange_memory n = {.whole = blob_bytes_max(p, needs->whole, needs->k, w, 0, p->blocks)};
    for (int i = 0, which = 0; i < m->cuts; i++) {
        size_t bytes = blob_bytes_max(p, needs->parts, needs->k, w, m->cut[i], m->cut[i + 1]);
        if (bytes == 0) continue;
        if (bytes > n.part[which]) n.part[which] = bytes;
        which = (which + 1) % AT_EXCHANGE_ROOMS;
    }
    return n;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static size_t memory_bytes(const struct at_exchange_memory *m)
{
    size_t whole = aligned(m->whole), parts = 0;
    for (int i = 0; i < AT_EXCHANGE_ROOMS; i++) parts += aligned(m->part[i]);
    return whole > parts ? whole : parts;
}

/* Makes the list of ways from, or to, this rank, and returns how many there are; with ret_way NULL it only counts.
 * io_bytes: what their blobs need is added. */
static int list_ways(const struct at_plan *plan, const struct at_params *p, const struct at_exchange_needs *needs,
                     const struct measured *m, int rank, bool in, struct at_exchange_way *ret_way, size_t *io_bytes)
{
    const struct at_model_config *c = &p->config;
    int mine = at_plan_place(plan, rank).replica, n = 0;
    for (int r = 0; r < plan->replicas; r++) {
        struct ranks all = ranks_of(plan, r);
        for (int i = all.first; r != mine && i < all.end; i++) {
            struct at_shard s = at_plan_shard(plan, c, i);
            struct at_exchange_way way = {
                .rank = i, .replica = r, .in = in, .shard = s, .twin = same_shard(&s, &p->shard)};
            if (way.twin) {
                if (in) way.memory = m->own; /* to a twin the own blob is sent as it lies */
            } else {
                if (in ? has_twin(plan, c, r, &p->shard) : has_twin(plan, c, mine, &s)) continue;
                way.memory = memory_of(p, needs, m, &way);
                if (memory_bytes(&way.memory) == 0) continue;
            }
            *io_bytes += memory_bytes(&way.memory);
            if (ret_way != NULL) ret_way[n] = way;
            n++;
        }
    }
    return n;
}

static size_t lists_bytes(int ways, int replicas)
{
    return aligned((size_t)ways * sizeof(struct at_exchange_way) +
                   (size_t)replicas * (sizeof(struct at_update) + 2 * sizeof(double)));
}

static at_err measure(const struct at_plan *plan, const struct at_params *p, int rank,
                      const struct at_exchange_needs *needs, struct measured *ret)
{
    struct measured m = {.cut = calloc((size_t)p->blocks + 1, sizeof *m.cut)};
    at_err_t err = m.cut == NULL ? AT_E_NOMEM : AT_OK;
    if (err == AT_OK && needs->parts != 0) {
        struct at_params whole;
        err = at_params_init(&whole, &p->config);
        if (err == AT_OK) {
            m.cuts = cut(&whole, p, slots_most(plan, p), needs->fragment_bytes, m.cut);
            at_params_release(&whole);
        }
    }
    if (err != AT_OK) {
        free(m.cut);
        return err;
    }
    m.own = memory_of(p, needs, &m, NULL);
    m.bytes = memory_bytes(&m.own);
    m.ins = list_ways(plan, p, needs, &m, rank, true, NULL, &m.bytes);
    m.outs = list_ways(plan, p, needs, &m, rank, false, NULL, &m.bytes);
    m.bytes += lists_bytes(m.ins + m.outs, plan->replicas);
    *ret = m;
    return AT_OK;
}

/* What at_update_begin takes. */
static size_t update_bytes(const struct at_params *p)
{
    return (size_t)p->blocks * sizeof(struct at_span) + (size_t)p->numbers * sizeof(int);
}

size_t at_exchange_bytes(const struct at_plan *plan, const struct at_model_config *config, int rank,
                         const struct at_exchange_needs *needs)
{
    struct at_params p;
    struct at_shard shard = at_plan_shard(plan, config, rank);
    struct measured m;
    if (at_params_init_shard(&p, config, &shard) != AT_OK) return 0;
    size_t bytes = 0;
    if (measure(plan, &p, rank, needs, &m) == AT_OK) {
        bytes = m.bytes + (size_t)plan->replicas * update_bytes(&p) + ((size_t)p.blocks + 1) * sizeof *m.cut;
        free(m.cut);
    }
    at_params_release(&p);
    return bytes;
}

static void place(struct at_exchange_memory *m, uint8_t **io_at)
{
    m->at = *io_at;
    *io_at += memory_bytes(m);
}

at_err at_exchange_init(struct at_exchange *x, const struct at_comm *comm, const struct at_plan *plan,
                        const struct at_params *params, const struct at_exchange_needs *needs, uint32_t tag,
                        struct at_diag *diag)
{
    struct measured m;
    if (measure(plan, params, comm->rank, needs, &m) != AT_OK)
        return at_fail(diag, AT_E_NOMEM, "exchange", "no memory for the updates' tables");
    struct at_exchange n = {.comm = comm,
                            .params = params,
                            .needs = *needs,
                            .replica = at_plan_place(plan, comm->rank).replica,
                            .replicas = plan->replicas,
                            .tag = tag,
                            .ins = m.ins,
                            .outs = m.outs,
                            .own_memory = m.own,
                            .cut = m.cut,
                            .cuts = m.cuts,
                            .all = {0, params->blocks},
                            .block = aligned_alloc(64, m.bytes),
                            .block_bytes = m.bytes};
    if (n.block == NULL) {
        at_exchange_release(&n);
        return at_fail(diag, AT_E_NOMEM, "exchange", "no memory for %zu MB of updates", m.bytes >> 20);
    }
    size_t lists = lists_bytes(m.ins + m.outs, plan->replicas), unused = 0;
    memset(n.block, 0, lists);
    n.in = n.block;
    n.out = n.in + n.ins;
    n.update = (struct at_update *)(void *)(n.out + n.outs);
    n.loss = (double *)(void *)(n.update + n.replicas);
    n.loss_new = n.loss + n.replicas;
    (void)list_ways(plan, params, needs, &m, comm->rank, true, n.in, &unused);
    (void)list_ways(plan, params, needs, &m, comm->rank, false, n.out, &unused);
    uint8_t *at = (uint8_t *)n.block + lists;
    place(&n.own_memory, &at);
    for (int i = 0; i < n.ins; i++) place(&n.in[i].memory, &at);
    for (int i = 0; i < n.outs; i++) place(&n.out[i].memory, &at);
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
    free(x->cut);
    free(x->block);
    *x = (struct at_exchange){0};
}
