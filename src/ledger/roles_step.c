/* roles_step.c: what a step takes a group, by what is believed of its members and of the links between them: roles.h has the
 * rules. */
#include "ledger/roles_inner.h"

#define US_MAX ((uint64_t)1 << 50) /* 35 years: sums of a few are far from overflow */

/* ---- what is believed ---- */
uint32_t at_roles_believed(const struct at_measured *m)
{
    uint64_t v = at_measure_value(m->last.speed) >> m->doubt;
    return v < 1 ? 1 : v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

static const struct at_measure_link *told(const struct at_measured *m, uint32_t to)
{
    for (uint32_t i = 0; i < m->last.link_count; i++)
        if (m->last.link[i].replica == to) return &m->last.link[i];
    return NULL;
}

static uint64_t link_us(const struct at_roles *x, uint32_t a, uint32_t b)
{
    const struct at_measure_link *ab = told(&x->measured[a], b), *ba = ab ? told(&x->measured[b], a) : NULL;
    return ba == NULL ? AT_ROLES_FAR_US : at_measure_value(ab->rtt > ba->rtt ? ab->rtt : ba->rtt);
}

/* What is told of the link between two; `ab`: what a tells, NULL: nothing. 0: neither end knows its rate. */
static uint32_t link_kbit(const struct at_roles *x, const struct at_measure_link *ab, uint32_t a, uint32_t b)
{
    const struct at_measure_link *ba = told(&x->measured[b], a);
    uint8_t there = ab ? ab->rate : 0, back = ba ? ba->rate : 0;
    uint64_t kbit = at_measure_value(there == 0 || (back != 0 && back < there) ? back : there);
    return kbit > UINT32_MAX ? UINT32_MAX : (uint32_t)kbit;
}

uint32_t at_roles_line_kbit(const struct at_roles *x, uint32_t r)
{
    const struct at_measure *m = &x->measured[r].last;
    uint32_t best = 0, known = 0;
    for (uint32_t i = 0; i < m->link_count; i++) {
        if (m->link[i].replica >= x->members) continue;
        const struct at_measure_link *back = told(&x->measured[m->link[i].replica], r);
        if (back == NULL || back->rate == 0) continue; /* its own word alone */
        uint32_t kbit = link_kbit(x, &m->link[i], r, m->link[i].replica);
        known++;
        if (kbit > best) best = kbit;
    }
    return known < AT_ROLES_LINE_LINKS ? 0 : best;
}

/* Of two whose lines carry so much. */
static uint32_t pair_kbit(const struct at_roles *x, uint32_t a, uint32_t a_kbit, uint32_t b, uint32_t b_kbit)
{
    uint32_t kbit = link_kbit(x, told(&x->measured[a], b), a, b);
    uint32_t lines = a_kbit == 0 || (b_kbit != 0 && b_kbit < a_kbit) ? b_kbit : a_kbit;
    if (kbit == 0 || (lines != 0 && lines < kbit)) return lines; /* more than that one end alone says */
    if (a_kbit == 0 || b_kbit == 0) return kbit;
    return lines / AT_ROLES_SHARED > kbit ? kbit * AT_ROLES_SHARED : lines;
}

/* From the last of a chain: the round trip over members of it where that is known to be shorter. */
struct at_way at_chain_way(const struct at_roles *x, const struct at_chain *c, int last, uint32_t to, uint32_t to_kbit)
{
    uint64_t best = link_us(x, c->r[last], to);
    for (int k = last - 1; k >= 0 && k >= last - AT_CHAIN_NEAR; k--) {
        uint64_t over = link_us(x, c->r[last], c->r[k]) + link_us(x, c->r[k], to);
        if (over < best) best = over;
    }
    return (struct at_way){.us = best, .kbit = pair_kbit(x, c->r[last], c->line_kbit[last], to, to_kbit)};
}

/* ---- what a step takes ---- */
static uint64_t step_tokens(const struct at_roles *x)
{
    return (uint64_t)x->batch * x->model->seq_len;
}

uint64_t at_chain_work_us(const struct at_roles *x, uint64_t flops, uint32_t speed)
{
    at_u128 us = (at_u128)flops * step_tokens(x) / speed;
    return us > US_MAX ? US_MAX : (uint64_t)us;
}

static uint64_t step_bytes(const struct at_roles *x)
{
    return step_tokens(x) * x->model->d_model * 4;
}

uint64_t at_roles_line_us(const struct at_roles *x, uint32_t kbit)
{
    at_u128 us = kbit == 0 ? 0 : (at_u128)step_bytes(x) * 8000 / kbit;
    return us > US_MAX ? US_MAX : (uint64_t)us;
}

bool at_roles_is_narrow(const struct at_roles *x, uint32_t r)
{
    if (x->measured[r].count == 0) return false;
    uint64_t alone_us = at_chain_work_us(x, at_model_flops_per_token(x->model), at_roles_believed(&x->measured[r]));
    return 2 * at_roles_line_us(x, at_roles_line_kbit(x, r)) > alone_us;
}

/* Of one link between n stages with m microbatches. */
uint64_t at_chain_links_us(const struct at_roles *x, struct at_way way, uint64_t m, uint64_t n)
{
    at_u128 windows = (at_u128)way.us * step_bytes(x) / AT_ROLES_WINDOW, line = at_roles_line_us(x, way.kbit);
    at_u128 us = (at_u128)way.us * (m > n ? m / n : 1) + (windows > line ? windows : line);
    return us > US_MAX ? US_MAX : (uint64_t)us;
}

uint64_t at_chain_step_us(const struct at_roles *x, const struct at_chain *c, const uint32_t *speed,
                          const struct at_stage_cut *cut)
{
    uint64_t slowest = 0, links = 0, n = (uint64_t)c->n, m = (uint64_t)at_stage_microbatches(x->batch, c->n);
    for (int s = 0; s < c->n; s++) {
        uint64_t us = at_chain_work_us(x, at_stage_cut_flops(x->model, cut, s), speed[s]);
        if (us > slowest) slowest = us;
        if (s > 0) links += at_chain_links_us(x, at_chain_way(x, c, s - 1, c->r[s], c->line_kbit[s]), m, n);
    }
    return slowest * (m + n - 1) / m + links + 1; /* never 0 */
}

uint64_t at_roles_step_us(const struct at_roles *x, const struct at_grouped *g, uint32_t lead, uint32_t group)
{
    struct at_stage_cut cut;
    struct at_chain c = {.n = 0};
    uint32_t speed[AT_STAGES_MAX];
    for (uint32_t r = lead; r != AT_GROUP_END; r = g[r].next) {
        if ((group >> g[r].place & 1) == 0) continue;
        if (x->measured[r].count == 0) return 0;
        speed[c.n] = at_roles_believed(&x->measured[r]);
        c.line_kbit[c.n] = at_roles_line_kbit(x, r);
        c.r[c.n++] = r;
    }
    (void)at_group_cut(g, lead, group, x->model, x->batch, &cut);
    return at_chain_step_us(x, &c, speed, &cut);
}
