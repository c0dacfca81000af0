#include "parallel/collective.h"

#include "tensor/ops.h"

#include <string.h>

enum { ROOM_BYTES_MIN = 1024 };

size_t at_group_room_bytes(size_t elements)
{
    size_t bytes = (elements * sizeof(real) + 63) / 64 * 64;
    return bytes < ROOM_BYTES_MIN ? ROOM_BYTES_MIN : bytes;
}

void at_group_init(struct at_group *g, const struct at_comm *comm, const struct at_exec *ex, int first, int ranks,
                   uint32_t tag, void *room, size_t room_bytes)
{
    AT_ASSERT(first >= 0 && ranks >= 1 && ranks <= AT_GROUP_RANKS_MAX && comm->rank >= first &&
              comm->rank < first + ranks && (ranks == 1 || room_bytes >= ROOM_BYTES_MIN));
    *g = (struct at_group){.comm = comm,
                           .ex = ex,
                           .first = first,
                           .ranks = ranks,
                           .me = comm->rank - first,
                           .tag = tag,
                           .room = room,
                           .room_count = room_bytes / sizeof(real)};
    while (1 << (g->levels + 1) <= ranks) g->levels++;
}

/* ---- transfers ---- */

static void post_send(struct at_group *g, int member, const void *bytes, size_t n, struct at_transfer *ret_t)
{
    *ret_t = at_comm_send(g->comm, g->first + member, g->tag, bytes, n);
}

static void post_recv(struct at_group *g, int member, void *bytes, size_t n, struct at_transfer *ret_t)
{
    *ret_t = at_comm_recv(g->comm, g->first + member, g->tag, bytes, n);
}

/* Every transfer is waited for, also after an error. */
static at_err wait_for(struct at_group *g, struct at_transfer *t)
{
    int err = at_comm_wait(g->comm, *t, &g->diag);
    *t = (struct at_transfer){0};
    return err;
}

static at_err wait_both(struct at_group *g, struct at_transfer *a, struct at_transfer *b)
{
    int first = wait_for(g, a), second = wait_for(g, b);
    return first != AT_OK ? first : second;
}

/* What a failed group answers, and tells. */
static at_err report(struct at_group *g, at_err_t err, struct at_diag *diag)
{
    if (err == AT_OK) return AT_OK;
    if (g->diag.err == AT_OK) g->diag.err = err;
    if (diag != NULL && diag->err == AT_OK) *diag = g->diag;
    return g->diag.err;
}

/* ---- sums and maxima ---- */

static void begin_level(struct at_group *g, struct at_group_piece *p)
{
    int partner = g->me ^ (1 << p->level);
    post_recv(g, partner, p->in, p->n * sizeof *p->in, &p->recv);
    post_send(g, partner, p->x, p->n * sizeof *p->x, &p->send);
}

/* Ends the level that is under way and begins the next one. */
static at_err end_level(struct at_group *g, struct at_group_piece *p)
{
    int err = wait_both(g, &p->recv, &p->send);
    if (err != AT_OK) return err;
    at_add(g->ex, p->x, p->x, p->in, (long)p->n);
    if (++p->level < g->levels) begin_level(g, p);
    return AT_OK;
}

static at_err give_up(struct at_group *g, at_err_t err)
{
    for (int i = 0; i < g->pieces; i++)
        if (wait_both(g, &g->piece[i].recv, &g->piece[i].send) != AT_OK) continue; /* the first failure is known */
    g->pieces = 0;
    g->used = 0;
    return report(g, err, NULL);
}

/* Moves on what has arrived, without waiting. A piece begins a level only after the one before it did: messages of one
 * tag arrive in the order in which they were posted. */
static at_err move_on(struct at_group *g)
{
    const struct at_comm *c = g->comm;
    int limit = g->levels;
    for (int i = 0; i < g->pieces; i++) {
        struct at_group_piece *p = &g->piece[i];
        while (p->level < limit && c->ops->done(c->link, p->recv) && c->ops->done(c->link, p->send)) {
            int err = end_level(g, p);
            if (err != AT_OK) return give_up(g, err);
        }
        limit = p->level;
    }
    return AT_OK;
}

static at_err sum_finish(void *group)
{
    struct at_group *g = group;
    if (g->diag.err != AT_OK) return g->diag.err;
    for (int level = 0; level < g->levels; level++) /* level by level, so that the levels of pieces overlap */
        for (int i = 0; i < g->pieces; i++)
            if (g->piece[i].level == level) {
                int err = end_level(g, &g->piece[i]);
                if (err != AT_OK) return give_up(g, err);
            }
    g->pieces = 0;
    g->used = 0;
    return AT_OK;
}

static at_err sum_begin(void *group, real *x, size_t n)
{
    struct at_group *g = group;
    if (g->diag.err != AT_OK) return g->diag.err;
    AT_ASSERT(1 << g->levels == g->ranks);
    if (g->ranks == 1) return AT_OK;
    for (size_t part; n > 0; x += part, n -= part) {
        part = n < g->room_count ? n : g->room_count;
        if (g->pieces == AT_GROUP_PIECES || part > g->room_count - g->used) {
            int err = sum_finish(g);
            if (err != AT_OK) return err;
        }
        struct at_group_piece *p = &g->piece[g->pieces++];
        *p = (struct at_group_piece){.x = x, .in = g->room + g->used, .n = part};
        g->used += part;
        begin_level(g, p);
    }
    return move_on(g);
}

/* The lower rank's value comes first on both sides, so that both get the same zero and the same NaN. */
static void keep_larger(real *x, const real *in, size_t n, bool mine_first)
{
    for (size_t i = 0; i < n; i++) {
        real a = mine_first ? x[i] : in[i], b = mine_first ? in[i] : x[i];
        x[i] = a != a || a >= b ? a : b;
    }
}

static at_err largest(void *group, real *x, size_t n)
{
    struct at_group *g = group;
    if (g->diag.err != AT_OK) return g->diag.err;
    AT_ASSERT(1 << g->levels == g->ranks && g->pieces == 0);
    for (size_t part; n > 0; x += part, n -= part) {
        part = n < g->room_count ? n : g->room_count;
        struct at_group_piece p = {.x = x, .in = g->room, .n = part};
        for (; p.level < g->levels; p.level++) {
            begin_level(g, &p);
            int err = wait_both(g, &p.recv, &p.send);
            if (err != AT_OK) return report(g, err, NULL);
            keep_larger(p.x, p.in, part, (g->me >> p.level & 1) == 0);
        }
    }
    return AT_OK;
}

struct at_tp at_group_tp(struct at_group *g)
{
    return (struct at_tp){.ranks = g->ranks, .begin = sum_begin, .finish = sum_finish, .max = largest, .group = g};
}

/* ---- gather ---- */

/* +0 is all bits zero, so "the one that is not +0" is the OR of the bits. */
static void join_bits(double *x, const double *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t a, b;
        memcpy(&a, &x[i], 8);
        memcpy(&b, &in[i], 8);
        a |= b;
        memcpy(&x[i], &a, 8);
    }
}

static at_err send_to(struct at_group *g, int member, const void *bytes, size_t n)
{
    struct at_transfer t;
    post_send(g, member, bytes, n, &t);
    return wait_for(g, &t);
}

static at_err recv_from(struct at_group *g, int member, void *bytes, size_t n)
{
    struct at_transfer t;
    post_recv(g, member, bytes, n, &t);
    return wait_for(g, &t);
}

static at_err gather_part(struct at_group *g, double *x, size_t n)
{
    double *in = (double *)(void *)g->room;
    int core = 1 << g->levels, err = AT_OK;
    if (g->me >= core) {
        err = send_to(g, g->me - core, x, n * sizeof *x);
        return err != AT_OK ? err : recv_from(g, g->me - core, x, n * sizeof *x);
    }
    bool has_other = g->me + core < g->ranks;
    if (has_other) {
        err = recv_from(g, g->me + core, in, n * sizeof *x);
        if (err != AT_OK) return err;
        join_bits(x, in, n);
    }
    for (int level = 0; level < g->levels; level++) {
        struct at_transfer recv, send;
        post_recv(g, g->me ^ (1 << level), in, n * sizeof *x, &recv);
        post_send(g, g->me ^ (1 << level), x, n * sizeof *x, &send);
        err = wait_both(g, &recv, &send);
        if (err != AT_OK) return err;
        join_bits(x, in, n);
    }
    return has_other ? send_to(g, g->me + core, x, n * sizeof *x) : AT_OK;
}

static at_err gather(void *arg, double *x, size_t n, struct at_diag *diag)
{
    struct at_group *g = arg;
    int err = g->diag.err;
    AT_ASSERT(g->pieces == 0);
    size_t most = g->room_count * sizeof(real) / sizeof *x;
    for (size_t part; g->ranks > 1 && err == AT_OK && n > 0; x += part, n -= part) {
        part = n < most ? n : most;
        err = gather_part(g, x, part);
    }
    return report(g, err, diag);
}

struct at_gather at_group_gather(struct at_group *g)
{
    return (struct at_gather){.run = gather, .arg = g};
}

/* ---- broadcast, collect ---- */

at_err at_group_broadcast(struct at_group *g, int from, void *bytes, size_t n, struct at_diag *diag)
{
    int err = g->diag.err, place = (g->me - from + g->ranks) % g->ranks; /* 0: has it */
    if (n == 0) return report(g, err, diag);
    int bit = 1; /* the lowest bit of `place` that is set: without it, the number of who sends to this one */
    while (bit < g->ranks && (place & bit) == 0) bit *= 2;
    if (err == AT_OK && place != 0) err = recv_from(g, (place - bit + from) % g->ranks, bytes, n);
    for (bit /= 2; err == AT_OK && bit >= 1; bit /= 2)
        if (place + bit < g->ranks) err = send_to(g, (place + bit + from) % g->ranks, bytes, n);
    return report(g, err, diag);
}

at_err at_group_collect(struct at_group *g, int to, const void *mine, void *const *all, const size_t *size,
                        struct at_diag *diag)
{
    int err = g->diag.err;
    if (g->me == to && size[to] > 0) memcpy(all[to], mine, size[to]);
    if (err == AT_OK && g->me != to && size[g->me] > 0) err = send_to(g, to, mine, size[g->me]);
    for (int i = 0; err == AT_OK && g->me == to && i < g->ranks; i++)
        if (i != to && size[i] > 0) err = recv_from(g, i, all[i], size[i]);
    return report(g, err, diag);
}
