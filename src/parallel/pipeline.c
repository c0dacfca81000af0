#include "parallel/pipeline.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

static int rows_ahead(int stages, int microbatches)
{
    return stages < microbatches ? stages : microbatches;
}

/* Spare buffers of (sequences * T, d): the next input, the second gradient, and those of the ring. */
static int spares(const struct at_model_config *c, int stage, int stages, int microbatches)
{
    bool last = stage == stages - 1;
    if (stages == 1) return 0;
    return (stage > 0 || c->tied ? 1 : 0) + 1 + (last && c->tied ? rows_ahead(stages, microbatches) + 1 : 0);
}

static bool spare_reals(const struct at_model_config *c, long sequences, size_t *ret_n)
{
    return at_mul_size((size_t)sequences, c->seq_len, ret_n) && at_mul_size(*ret_n, c->d_model, ret_n) &&
           at_add_size(*ret_n, 15, ret_n) && (*ret_n = *ret_n / 16 * 16, true);
}

/* Of the spare buffers and the lists of buffers, in one block. */
static size_t own_bytes(const struct at_model_config *c, int stage, int stages, int microbatches, long sequences)
{
    size_t reals, bytes, n = (size_t)spares(c, stage, stages, microbatches);
    size_t lists =
        (size_t)at_schedule_in_flight(stage, stages, microbatches) + (size_t)rows_ahead(stages, microbatches);
    if (!spare_reals(c, sequences, &reals) || !at_mul_size(reals, n * sizeof(real), &bytes)) return 0;
    return at_add_size(bytes, (lists * sizeof(struct at_pipeline_buffer) + 63) / 64 * 64, &bytes) ? bytes : 0;
}

size_t at_pipeline_bytes(const struct at_model_config *config, int stage, int stages, int microbatches, long batch)
{
    return own_bytes(config, stage, stages, microbatches, at_schedule_cut_max(batch, microbatches));
}

/* Hands the block out: the lists first, then the buffers. */
static void lay_out(struct at_pipeline *p)
{
    const struct at_pipeline_options *o = &p->o;
    size_t reals = 0, lists = (size_t)p->held + (size_t)p->rows;
    p->out = p->block;
    p->row = p->out + p->held;
    real *at = (real *)(void *)((char *)p->block + (lists * sizeof *p->out + 63) / 64 * 64);
    bool fits = spare_reals(&o->model->params.config, p->o.pass->sequences, &reals);
    AT_ASSERT(fits);
    for (size_t i = 0; i < lists; i++) p->out[i] = (struct at_pipeline_buffer){0};
    for (int i = 0; i < p->held; i++) p->out[i].x = p->o.act[i].x_last;
    p->d_x[0].x = p->d_x[1].x = p->o.pass->d_x;
    if (o->stages == 1) return;
    if (!p->first || p->ring) p->arrive.x = at, at += reals;
    p->d_x[1].x = at, at += reals;
    if (!p->last || !p->ring) return;
    p->d_row.x = at, at += reals;
    for (int i = 0; i < p->rows; i++, at += reals) p->row[i].x = at;
}

at_err at_pipeline_init(struct at_pipeline *p, const struct at_pipeline_options *options, struct at_diag *diag)
{
    const struct at_pipeline_options *o = options;
    const struct at_model_config *c = &o->model->params.config;
    AT_ASSERT(o->before.tp <= AT_PIPELINE_TP_MAX && o->behind.tp <= AT_PIPELINE_TP_MAX &&
              o->first.tp <= AT_PIPELINE_TP_MAX && o->last.tp <= AT_PIPELINE_TP_MAX);
    struct at_pipeline n = {.o = *o,
                            .tp = at_group_tp(o->group),
                            .held = at_schedule_in_flight(o->stage, o->stages, o->microbatches),
                            .first = o->stage == 0,
                            .last = o->stage == o->stages - 1,
                            .ring = c->tied && o->stages > 1,
                            .rows = rows_ahead(o->stages, o->microbatches)};
    AT_ASSERT(o->pass->sequences >= at_schedule_cut_max(o->batch, o->microbatches));
    size_t bytes = own_bytes(c, o->stage, o->stages, o->microbatches, o->pass->sequences);
    n.block = bytes != 0 ? aligned_alloc(64, bytes) : NULL;
    if (n.block == NULL)
        return at_fail(diag, AT_E_NOMEM, "pipeline", "no memory for %zu MB of buffers between stages", bytes >> 20);
    lay_out(&n);
    *p = n;
    return AT_OK;
}

void at_pipeline_release(struct at_pipeline *p)
{
    free(p->block);
    *p = (struct at_pipeline){0};
}

/* ---- transfers ---- */

struct run {
    struct at_pipeline *p;
    const struct at_exec *ex;
    const struct at_pipeline_work *w;
    double *io_sum;
    struct at_diag *diag;
};

static struct at_cut cut_of(const struct run *r, int i)
{
    return at_schedule_cut(r->w->sequences, r->w->microbatches, i);
}

static long rows_of(const struct run *r, int i)
{
    return cut_of(r, i).count * (long)r->p->o.model->params.config.seq_len;
}

static size_t bytes_of(const struct run *r, int i)
{
    return (size_t)rows_of(r, i) * r->p->o.model->params.config.d_model * sizeof(real);
}

static const int32_t *tokens_of(const struct run *r, const int32_t *token, int i)
{
    return token + cut_of(r, i).first * (long)r->p->o.model->params.config.seq_len;
}

static at_err wait_one(const struct run *r, struct at_transfer *t)
{
    at_err_t err = at_comm_wait(r->p->o.comm, *t, r->diag);
    *t = (struct at_transfer){0};
    return err;
}

/* Until the buffer may be written again. */
static at_err wait_sent(const struct run *r, struct at_pipeline_buffer *b)
{
    at_err_t first = AT_OK;
    for (int i = 0; i < AT_PIPELINE_TP_MAX; i++) {
        if (b->send[i].v == 0) continue;
        at_err_t err = wait_one(r, &b->send[i]);
        if (first == AT_OK) first = err;
    }
    return first;
}

static bool has_left(const struct run *r, const struct at_pipeline_buffer *b)
{
    const struct at_comm *c = r->p->o.comm;
    for (int i = 0; i < AT_PIPELINE_TP_MAX; i++)
        if (b->send[i].v != 0 && !c->ops->done(c->link, b->send[i])) return false;
    return true;
}

/* To all ranks of a stage that take from this one. */
static void send_to(const struct run *r, struct at_pipeline_buffer *b, const struct at_pipeline_peer *to, uint32_t tag,
                    int i)
{
    const struct at_group *g = r->p->o.group;
    for (int t = g->me, n = 0; t < to->tp; t += g->ranks)
        b->send[n++] = at_comm_send(r->p->o.comm, to->rank_first + t, tag, b->x, bytes_of(r, i));
}

static void recv_from(const struct run *r, struct at_pipeline_buffer *b, const struct at_pipeline_peer *from,
                      uint32_t tag, int i)
{
    b->recv = at_comm_recv(r->p->o.comm, from->rank_first + r->p->o.group->me % from->tp, tag, b->x, bytes_of(r, i));
}

/* What a failed stage function says lies in the group. */
static at_err told(const struct run *r, at_err_t err)
{
    if (err != AT_OK && r->diag != NULL && r->diag->err == AT_OK) *r->diag = r->p->o.group->diag;
    return err;
}

/* ---- the ring of tied weights, last stage ---- */

static at_err send_rows(const struct run *r, int i)
{
    struct at_pipeline *p = r->p;
    struct at_pipeline_buffer *b = &p->row[i % p->rows];
    at_err_t err = wait_sent(r, b);
    if (err == AT_OK)
        err = told(r, at_model_embed(r->ex, p->o.model, &p->tp, r->w->theta, tokens_of(r, r->w->input, i),
                                     rows_of(r, i), b->x));
    if (err == AT_OK) send_to(r, b, &p->o.first, p->o.tag, i);
    return err;
}

/* The gradient of the rows of microbatch i. */
static at_err take_rows_grad(const struct run *r, int i)
{
    struct at_pipeline *p = r->p;
    at_err_t err = wait_one(r, &p->d_row.recv);
    if (err != AT_OK) return err;
    at_model_embed_grad(r->ex, p->o.model, r->w->grad, tokens_of(r, r->w->input, i), p->d_row.x, rows_of(r, i));
    if (i + 1 < r->w->microbatches) recv_from(r, &p->d_row, &p->o.first, p->o.tag + 1, i + 1);
    return AT_OK;
}

static at_err ring_begin(const struct run *r)
{
    struct at_pipeline *p = r->p;
    at_err_t err = AT_OK;
    if (r->w->grad != NULL) recv_from(r, &p->d_row, &p->o.first, p->o.tag + 1, 0);
    for (int i = 0; err == AT_OK && i < p->rows && i < r->w->microbatches; i++) err = send_rows(r, i);
    return err;
}

/* Before forward i: the first stage has done backward i - P before it did forward i. Taking that gradient here, and not
 * when it happens to have arrived, keeps the ring from blocking. */
static at_err ring_before(const struct run *r, int i)
{
    struct at_pipeline *p = r->p;
    at_err_t err = AT_OK;
    if (r->w->grad != NULL && i >= p->o.stages) err = take_rows_grad(r, i - p->o.stages);
    if (err == AT_OK && i + p->rows < r->w->microbatches) err = send_rows(r, i + p->rows);
    return err;
}

static at_err ring_end(const struct run *r)
{
    int M = r->w->microbatches, i = M - r->p->o.stages;
    at_err_t err = AT_OK;
    if (r->w->grad == NULL) return AT_OK;
    for (i = i < 0 ? 0 : i; err == AT_OK && i < M; i++) err = take_rows_grad(r, i);
    return err;
}

/* ---- turns ---- */

/* Who sends this stage its inputs: the stage before; in a ring, the last one to the first. */
static const struct at_pipeline_peer *source(const struct at_pipeline *p)
{
    return !p->first ? &p->o.before : p->ring ? &p->o.last : NULL;
}

static at_err take_input(const struct run *r, struct at_activations *a, int i)
{
    struct at_pipeline *p = r->p;
    if (source(p) == NULL)
        return told(r, at_model_embed(r->ex, p->o.model, &p->tp, r->w->theta, tokens_of(r, r->w->input, i),
                                      rows_of(r, i), a->layer[0].x));
    at_err_t err = wait_one(r, &p->arrive.recv);
    if (err != AT_OK) return err;
    real *free_now = a->layer[0].x; /* its backward is done */
    a->layer[0].x = p->arrive.x;
    p->arrive.x = free_now;
    if (i + 1 < r->w->microbatches) recv_from(r, &p->arrive, source(p), p->o.tag, i + 1);
    return AT_OK;
}

static at_err forward(const struct run *r, int i)
{
    struct at_pipeline *p = r->p;
    struct at_activations *a = &p->o.act[i % p->held];
    struct at_pipeline_buffer *out = &p->out[i % p->held];
    at_err_t err = wait_sent(r, out);
    if (err == AT_OK && p->ring && p->last) err = ring_before(r, i);
    if (err == AT_OK) err = take_input(r, a, i);
    if (err == AT_OK) err = told(r, at_stage_forward(r->ex, p->o.model, &p->tp, a, r->w->theta, cut_of(r, i).count));
    if (err == AT_OK && r->w->look != NULL) r->w->look(r->w->look_arg, cut_of(r, i).first, a);
    if (err == AT_OK && !p->last) send_to(r, out, &p->o.behind, p->o.tag, i);
    if (err != AT_OK || !p->last || r->w->grad != NULL) return err;
    err = told(
        r, at_stage_loss(r->ex, p->o.model, &p->tp, a, tokens_of(r, r->w->target, i), cut_of(r, i).count, r->io_sum));
    if (err == AT_OK && r->w->ret_loss != NULL)
        memcpy(r->w->ret_loss + (tokens_of(r, r->w->target, i) - r->w->target), p->o.pass->loss,
               (size_t)rows_of(r, i) * sizeof(real));
    return err;
}

/* Posts the receive for the gradient of microbatch i, if there is one and its buffer has left, or `wait`ing for that. */
static at_err expect_grad(const struct run *r, int i, bool wait)
{
    struct at_pipeline *p = r->p;
    struct at_pipeline_buffer *b = &p->d_x[i % 2];
    if (p->last || i >= r->w->microbatches || b->recv.v != 0 || (!wait && !has_left(r, b))) return AT_OK;
    at_err_t err = wait_sent(r, b);
    if (err == AT_OK) recv_from(r, b, &p->o.behind, p->o.tag + 1, i);
    return err;
}

static at_err backward(const struct run *r, int i)
{
    struct at_pipeline *p = r->p;
    struct at_pipeline_buffer *b = &p->d_x[i % 2];
    at_err_t err = p->last ? wait_sent(r, b) : wait_one(r, &b->recv);
    if (err == AT_OK) err = expect_grad(r, i + 1, false);
    if (err != AT_OK) return err;
    p->o.pass->d_x = b->x;
    err = told(r, at_stage_backward(r->ex, p->o.model, &p->tp, &p->o.act[i % p->held], r->w->theta,
                                    p->last ? tokens_of(r, r->w->target, i) : NULL, cut_of(r, i).count, r->w->inv,
                                    r->w->grad, r->io_sum));
    if (err != AT_OK) return err;
    if (!p->first)
        send_to(r, b, &p->o.before, p->o.tag + 1, i);
    else if (p->ring)
        send_to(r, b, &p->o.last, p->o.tag + 1, i);
    else
        at_model_embed_grad(r->ex, p->o.model, r->w->grad, tokens_of(r, r->w->input, i), b->x, rows_of(r, i));
    return expect_grad(r, i + 1, true);
}

static at_err all_turns(const struct run *r)
{
    const struct at_pipeline *p = r->p;
    int M = r->w->microbatches;
    at_err_t err = AT_OK;
    for (int i = 0; err == AT_OK && r->w->grad == NULL && i < M; i++) err = forward(r, i);
    for (int i = 0; err == AT_OK && r->w->grad != NULL && i < 2 * M; i++) {
        struct at_turn t = at_schedule_turn(p->o.stage, p->o.stages, M, i);
        err = t.forward ? forward(r, t.microbatch) : backward(r, t.microbatch);
    }
    return err;
}

/* Waits for everything that is still under way. */
static at_err settle(const struct run *r)
{
    struct at_pipeline *p = r->p;
    at_err_t first = AT_OK, err;
    struct at_pipeline_buffer *one[] = {&p->arrive, &p->d_x[0], &p->d_x[1], &p->d_row};
    int lists = p->held + p->rows;
    for (int i = 0; i < 4 + lists; i++) {
        struct at_pipeline_buffer *b = i < 4 ? one[i] : &p->out[i - 4];
        if ((err = wait_one(r, &b->recv)) != AT_OK && first == AT_OK) first = err;
        if ((err = wait_sent(r, b)) != AT_OK && first == AT_OK) first = err;
    }
    return first;
}

at_err at_pipeline_run(struct at_pipeline *p, const struct at_exec *ex, const struct at_pipeline_work *work,
                       double *io_sum, struct at_diag *diag)
{
    struct run r = {.p = p, .ex = ex, .w = work, .io_sum = io_sum, .diag = diag};
    AT_ASSERT(work->microbatches >= 1 && (work->grad == NULL || work->microbatches <= p->o.microbatches) &&
              at_schedule_cut_max(work->sequences, work->microbatches) <= p->o.pass->sequences);
    if (source(p) != NULL) recv_from(&r, &p->arrive, source(p), p->o.tag, 0);
    at_err_t err = AT_OK;
    if (work->grad != NULL) err = expect_grad(&r, 0, true);
    if (err == AT_OK && p->ring && p->last) err = ring_begin(&r);
    if (err == AT_OK) err = all_turns(&r);
    if (err == AT_OK && p->ring && p->last) err = ring_end(&r);
    /* A failure inside the stage has been told to all by the links, so nothing here waits for long. */
    at_err_t late = settle(&r);
    return err != AT_OK ? err : late;
}
