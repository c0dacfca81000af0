/* A replica's own file from hostile bytes. Property: what is accepted is finite and comes out the same, to the byte, when
 * it is written again; what is not has a reason. */
#include "train/checkpoint_replica.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct box {
    const struct at_params *p;
    struct at_span file;
    real *values; /* [2 * count + statistics] */
    struct at_buf again;
};

static real *place(const struct box *b, int part, int tensor, int slot)
{
    const struct at_block *x = at_params_block(b->p, tensor, slot);
    if (part == AT_OWN_STATS) return b->values + 2 * b->p->count + at_block_stats_offset(b->p, (int)(x - b->p->block));
    return b->values + (part == AT_OWN_WEIGHTS ? b->p->count : 0) + x->offset;
}

static at_err_t take(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct box *b = arg;
    size_t n = at_own_count(b->p, part, tensor, slot);
    for (size_t i = 0; i < n; i++) AT_ASSERT(isfinite(values[i]));
    memcpy(place(b, part, tensor, slot), values, n * sizeof *values);
    return AT_OK;
}

static at_err_t give(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct box *b = arg;
    memcpy(values, place(b, part, tensor, slot), at_own_count(b->p, part, tensor, slot) * sizeof *values);
    return AT_OK;
}

static at_err_t get(void *arg, int part, uint64_t offset, uint8_t *ret, size_t n, struct at_diag *diag)
{
    const struct box *b = arg;
    AT_ASSERT(offset <= b->file.n && n <= b->file.n - offset);
    memcpy(ret, b->file.p + offset, n);
    return AT_OK;
}

static at_err_t put(void *arg, int part, uint64_t offset, struct at_span bytes, struct at_diag *diag)
{
    struct at_buf *file = &((struct box *)arg)->again;
    uint8_t *room;
    size_t end = (size_t)offset + bytes.n;
    if (end > file->n) {
        if (at_buf_reserve(file, end - file->n, &room) != AT_OK) return AT_E_NOMEM;
        memset(room, 0, end - file->n);
        file->n = end;
    }
    memcpy(file->p + offset, bytes.p, bytes.n);
    return AT_OK;
}

static void try(struct box *b, bool feedback, bool overlap)
{
    struct at_own_head h = {.round = 3, .replica = 1, .replicas = 2, .feedback = feedback, .overlap = overlap};
    struct at_piece_source from = {get, b, {b->file.n}};
    struct at_diag diag = {0};
    at_err_t err = at_own_open(b->p, &h, &from, &diag, &h.values);
    if (err == AT_OK) err = at_own_read(b->p, &h, &from, &(struct at_block_stream){take, b}, &diag);
    AT_ASSERT((err == AT_OK) == (diag.text[0] == '\0'));
    if (err != AT_OK) return;
    AT_ASSERT(at_own_write(b->p, &h, &(struct at_block_stream){give, b}, &(struct at_piece_sink){put, b}, NULL) ==
              AT_OK);
    AT_ASSERT(at_span_eq(at_buf_span(&b->again), b->file));
    at_buf_release(&b->again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct at_model_config shape = {.layers = 1,
                                                 .d_model = 8,
                                                 .heads = 1,
                                                 .kv_heads = 1,
                                                 .head_size = 8,
                                                 .d_ff = 8,
                                                 .seq_len = 4,
                                                 .vocab = 5,
                                                 .tied = true,
                                                 .rope_theta = 1e4,
                                                 .norm_eps = 1e-5};
    struct at_params p;
    if (at_params_init(&p, &shape) != AT_OK) return 0;
    struct box b = {.p = &p, .file = at_span(data, size)};
    b.values = calloc(2 * p.count + at_stats_count(&p), sizeof *b.values);
    for (int parts = 1; b.values != NULL && parts <= 3; parts++) try(&b, parts & 1, parts & 2);
    free(b.values);
    at_params_release(&p);
    return 0;
}
