#include "ledger/roles_inner.h"

#include <stdlib.h>
#include <string.h>

/* ---- forming groups ---- */
struct maker {
    const struct at_roles *x;
    const struct at_replicas *in;
    const struct at_roles_room *room;
    int side;          /* group[side] of each member is made */
    bool again;        /* those who stalled together may be put together */
    uint32_t pool, at; /* row[0 .. pool): who is to be put into groups; those before `at` are in one */
};

static struct at_grouped *made(const struct maker *k, uint32_t r)
{
    return &k->room->work[r].group[k->side];
}

static bool is_free(const struct maker *k, uint32_t r)
{
    return r < k->x->members && at_replicas_has(k->in, r) && made(k, r)->role == AT_GROUP_ROLE_NONE;
}

static uint32_t memory_mib(const struct at_roles *x, uint32_t r)
{
    uint64_t mib = x->measured[r].count ? at_measure_value(x->measured[r].last.memory) : 0;
    return mib > UINT32_MAX ? UINT32_MAX : (uint32_t)mib;
}

static void append(const struct maker *k, struct at_chain *c, uint32_t r)
{
    c->line_kbit[c->n] = k->room->work[r].line_kbit;
    c->r[c->n++] = r;
}

/* What a step of the chain takes, cut as it would be. ret_fits: there is room for the model. */
static uint64_t weigh(const struct maker *k, const struct at_chain *c, bool *ret_fits)
{
    struct at_grouped g[AT_STAGES_MAX]; /* the chain as a group of its own */
    uint32_t speed[AT_STAGES_MAX];
    struct at_stage_cut cut;
    for (int s = 0; s < c->n; s++) {
        at_group_one(g, (uint32_t)s, speed[s] = k->room->work[c->r[s]].speed);
        g[s].memory_mib = memory_mib(k->x, c->r[s]);
        g[s].place = (uint32_t)s;
        if (s + 1 < c->n) g[s].next = (uint32_t)s + 1;
    }
    *ret_fits = at_group_cut(g, 0, (UINT32_C(1) << c->n) - 1, k->x->model, k->x->batch, &cut);
    return at_chain_step_us(k->x, c, speed, &cut);
}

static uint64_t adds_us(const struct maker *k, const struct at_chain *c, uint32_t r)
{
    uint64_t flops = at_model_flops_per_token(k->x->model) / k->x->stages;
    return at_chain_work_us(k->x, flops, k->room->work[r].speed) +
           at_chain_links_us(k->x, at_chain_way(k->x, c, c->n - 1, r, k->room->work[r].line_kbit), 1, 1);
}

/* How often a suspect has stalled; 0: it is none. */
static uint32_t suspicion(const struct maker *k, uint32_t r)
{
    const struct at_measured *m = &k->x->measured[r];
    return m->apart > 0 ? m->stalls : 0;
}

/* It is in the chain, or with it all are who stalled together. */
static bool is_barred(const struct maker *k, const struct at_chain *c, uint32_t r)
{
    const struct at_measured *m = k->x->measured;
    uint32_t same = 1;
    for (int s = 0; s < c->n; s++) {
        if (c->r[s] == r) return true;
        same += m[c->r[s]].stalled == m[r].stalled;
    }
    return !k->again && m[r].stalled != 0 && same >= m[r].together;
}

struct candidate {
    uint32_t suspicion, r; /* r: AT_GROUP_END if there is none */
    uint64_t us;
};

static void propose(const struct maker *k, const struct at_chain *c, uint32_t r, struct candidate *io_best)
{
    if (!is_free(k, r) || is_barred(k, c, r)) return;
    struct candidate x = {.suspicion = suspicion(k, r), .r = r, .us = adds_us(k, c, r)};
    bool better = x.us != io_best->us ? x.us < io_best->us : r < io_best->r;
    if (x.suspicion != io_best->suspicion) better = x.suspicion < io_best->suspicion;
    if (better || io_best->r == AT_GROUP_END) *io_best = x;
}

/* Who adds least to the chain: of those that its last members have links with, or the fastest of all; of those who have
 * stalled least. */
static uint32_t nearest(const struct maker *k, const struct at_chain *c)
{
    struct candidate best = {.r = AT_GROUP_END};
    for (int i = c->n - 1; i >= 0 && i >= c->n - AT_CHAIN_NEAR; i--) {
        const struct at_measure *m = &k->x->measured[c->r[i]].last;
        for (uint32_t l = 0; l < m->link_count; l++) propose(k, c, m->link[l].replica, &best);
    }
    for (uint32_t i = k->at; i < k->pool; i++) {
        uint32_t r = k->room->row[i].replica;
        if (!is_free(k, r) || is_barred(k, c, r)) continue;
        propose(k, c, r, &best);
        break;
    }
    return best.r;
}

/* Of a chain that has not room for the model the one with the least gives way, and the others are free again. */
static void give_way(const struct maker *k, const struct at_chain *c, enum at_group_role role)
{
    int least = 0;
    for (int s = 1; s < c->n; s++) {
        uint64_t mib = memory_mib(k->x, c->r[s]), than = memory_mib(k->x, c->r[least]); /* 0: not known */
        if (mib != 0 && (than == 0 || mib < than)) least = s;
    }
    *made(k, c->r[least]) = (struct at_grouped){.role = (uint8_t)role};
}

static void write_group(const struct maker *k, const struct at_chain *c)
{
    for (int s = 0; s < c->n; s++)
        *made(k, c->r[s]) = (struct at_grouped){.lead = c->r[0],
                                                .next = s + 1 < c->n ? c->r[s + 1] : AT_GROUP_END,
                                                .place = (uint32_t)s,
                                                .size = (uint32_t)c->n,
                                                .speed = k->room->work[c->r[s]].speed,
                                                .memory_mib = memory_mib(k->x, c->r[s]),
                                                .role = AT_GROUP_ROLE_TRAINS,
                                                .planned = true};
}

static void grow(const struct maker *k, uint32_t first)
{
    struct at_chain c = {.n = 0};
    bool fits, alone = false; /* alone: there is nobody for the next place */
    append(k, &c, first);
    uint64_t us = weigh(k, &c, &fits);
    while (c.n < (int)k->x->stages) {
        bool fits_with;
        uint32_t r = nearest(k, &c);
        alone = r == AT_GROUP_END;
        if (alone || (fits && c.n > 1 && suspicion(k, r) > 0)) break;
        append(k, &c, r);
        uint64_t with = weigh(k, &c, &fits_with);
        if (fits && with >= us) {
            c.n--;
            break;
        }
        us = with;
        fits = fits_with;
    }
    if (fits)
        write_group(k, &c);
    else
        give_way(k, &c, alone ? AT_GROUP_ROLE_SPARE : AT_GROUP_ROLE_NO_MEMORY);
}

/* Who has stalled less, who is faster. */
static int faster(const void *a, const void *b)
{
    const struct at_roles_row *x = a, *y = b;
    if (x->us != y->us) return x->us < y->us ? -1 : 1;
    if (x->speed != y->speed) return x->speed > y->speed ? -1 : 1;
    return x->replica < y->replica ? -1 : x->replica > y->replica;
}

static bool has_room(const struct at_roles *x, uint32_t r)
{
    uint64_t mib = memory_mib(x, r), least = UINT64_MAX;
    int stages = (int)x->stages;
    for (int s = 0; s < stages; s++) {
        uint64_t bytes = at_stage_bytes(x->model, x->batch, stages, 1, s == 0, s == stages - 1);
        if (bytes < least) least = bytes;
    }
    return mib == 0 || mib << 20 >= least;
}

/* Groups of all who are free, fastest first. */
static void make(struct maker *k)
{
    k->pool = 0;
    for (uint32_t r = 0; r < k->x->members; r++) {
        if (!is_free(k, r)) continue;
        if (has_room(k->x, r))
            k->room->row[k->pool++] =
                (struct at_roles_row){.us = suspicion(k, r), .speed = k->room->work[r].speed, .replica = r};
        else
            made(k, r)->role = AT_GROUP_ROLE_NO_MEMORY;
    }
    qsort(k->room->row, k->pool, sizeof *k->room->row, faster);
    for (k->at = 0; k->at < k->pool; k->at++)
        while (is_free(k, k->room->row[k->at].replica)) grow(k, k->room->row[k->at].replica);
}

/* ---- who trains ---- */
static int sooner(const void *a, const void *b)
{
    const struct at_roles_row *x = a, *y = b;
    return x->us < y->us ? -1 : x->us > y->us;
}

static uint64_t group_us(const struct maker *k, uint32_t lead)
{
    struct at_stage_cut cut;
    struct at_chain c = {.n = 0};
    uint32_t speed[AT_STAGES_MAX];
    for (uint32_t r = lead; r != AT_GROUP_END; r = made(k, r)->next) {
        speed[c.n] = k->room->work[r].speed;
        append(k, &c, r);
    }
    struct at_grouped g[AT_STAGES_MAX];
    for (int s = 0; s < c.n; s++) { /* as it is cut: with the speeds of when it was formed */
        g[s] = *made(k, c.r[s]);
        g[s].next = s + 1 < c.n ? (uint32_t)s + 1 : AT_GROUP_END;
    }
    (void)at_group_cut(g, 0, (UINT32_C(1) << c.n) - 1, k->x->model, k->x->batch, &cut);
    return at_chain_step_us(k->x, &c, speed, &cut);
}

static void sit_out(const struct maker *k, uint32_t lead, enum at_group_role role)
{
    for (uint32_t r = lead, next; r != AT_GROUP_END; r = next) {
        next = made(k, r)->next;
        *made(k, r) = (struct at_grouped){.role = (uint8_t)role};
    }
}

struct outcome {
    uint32_t units;
    uint64_t slowest_us;
};

/* One of the groups before that goes on. */
static bool is_kept(const struct maker *k, const struct at_grouped *before, uint32_t lead)
{
    return before && before[lead].planned && before[lead].place == 0 && before[lead].size == k->x->stages &&
           made(k, lead)->size == k->x->stages && at_group_all_in(before, lead, k->in);
}

/* Who of the groups made trains. A group that did (before; NULL: none) is borne for half as long again: it would come and go
 * with what the others happen to form. */
static struct outcome settle(const struct maker *k, const struct at_grouped *before)
{
    struct outcome o = {0};
    struct at_roles_row *row = k->room->row;
    uint32_t n = 0;
    uint64_t full_us = 0;
    for (uint32_t r = 0; r < k->x->members; r++)
        if (made(k, r)->size > 0 && made(k, r)->place == 0)
            row[n++] = (struct at_roles_row){.us = group_us(k, r), .replica = r};
    if (n == 0) return o;
    qsort(row, n, sizeof *row, sooner);
    uint64_t limit = row[(n - 1) / 2].us * AT_ROLES_SLOW;
    for (uint32_t i = 0; i < n; i++)
        if (row[i].us <= limit && made(k, row[i].replica)->size == k->x->stages) full_us = row[i].us;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t lead = row[i].replica;
        bool small = made(k, lead)->size < k->x->stages;
        if (row[i].us > (is_kept(k, before, lead) ? limit + limit / 2 : limit)) {
            sit_out(k, lead, AT_GROUP_ROLE_TOO_SLOW);
        } else if (small && full_us > 0 && row[i].us > full_us + full_us / 2) {
            sit_out(k, lead, AT_GROUP_ROLE_SPARE);
        } else {
            o.units++;
            o.slowest_us = row[i].us;
        }
    }
    return o;
}

/* Half as much again, at least. */
static bool is_worth_it(const struct outcome *fresh, const struct outcome *kept)
{
    return (at_u128)fresh->units * kept->slowest_us * 2 >= (at_u128)kept->units * fresh->slowest_us * 3;
}

/* All are in it who stalled together. */
static bool has_stalled(const struct maker *k, uint32_t lead)
{
    struct at_chain c = {.n = 0};
    bool stalled = false;
    for (uint32_t r = lead; r != AT_GROUP_END; r = made(k, r)->next) {
        stalled = stalled || is_barred(k, &c, r);
        c.r[c.n++] = r;
    }
    return stalled;
}

/* What of the groups before goes on. */
static void keep(const struct maker *k, const struct at_grouped *g)
{
    for (uint32_t r = 0; r < k->x->members; r++)
        *made(k, r) = g[r].planned && g[r].size == k->x->stages ? g[r] : (struct at_grouped){0};
    for (uint32_t r = 0; r < k->x->members; r++) {
        struct at_grouped *at = made(k, r);
        if (at->size > 0 && at->place == 0 && (!at_group_all_in(g, r, k->in) || has_stalled(k, r)))
            sit_out(k, r, AT_GROUP_ROLE_NONE);
    }
}

/* How fast everybody counts, and his line; false: nobody who takes part has measured anything. */
static bool set_speeds(const struct at_roles *x, const struct at_replicas *in, struct at_roles_work *work)
{
    uint32_t least = UINT32_MAX;
    bool any = false;
    for (uint32_t r = 0; r < x->members; r++) {
        if (!at_replicas_has(in, r) || x->measured[r].count == 0) continue;
        work[r].speed = at_roles_believed(&x->measured[r]);
        work[r].line_kbit = at_roles_line_kbit(x, r);
        any = true;
        if (work[r].speed < least) least = work[r].speed;
    }
    for (uint32_t r = 0; r < x->members; r++)
        if (x->measured[r].count == 0) work[r] = (struct at_roles_work){.speed = least};
    return any;
}

void at_roles_form(const struct at_roles *x, struct at_grouped *g, const struct at_replicas *in,
                   const struct at_roles_room *room)
{
    struct outcome kept, fresh;
    struct maker k = {.x = x, .in = in, .room = room};
    if (!set_speeds(x, in, room->work)) {
        at_groups_form(g, x->members, in, x->stages);
        return;
    }
    for (int i = 0; i < 2; i++) {
        k.again = i == 1; /* as a last resort */
        k.side = 0;
        keep(&k, g);
        make(&k);
        kept = settle(&k, g);
        k.side = 1;
        for (uint32_t r = 0; r < x->members; r++) *made(&k, r) = (struct at_grouped){0};
        make(&k);
        fresh = settle(&k, NULL);
        if (kept.units > 0 || fresh.units > 0) break;
    }
    if (kept.units == 0 && fresh.units == 0) { /* no group has room for the model, by what they say: */
        at_groups_form(g, x->members, in, x->stages);
        return;
    }
    k.side = kept.units == 0 || (fresh.units > 0 && is_worth_it(&fresh, &kept)) ? 1 : 0;
    for (uint32_t r = 0; r < x->members; r++) g[r] = *made(&k, r);
}
