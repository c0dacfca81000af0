#include "parallel/plan_search_inner.h"

#include <stdlib.h>
#include <string.h>

/* ---- randomness: splitmix64 (Steele, Lea, Flood 2014) ---- */

uint32_t at_search_draw(struct search *s, int below)
{
    uint64_t z = s->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (uint32_t)(((z >> 32) * (uint64_t)below) >> 32);
}

/* ---- the objective ---- */

struct totals {
    int replicas, shortage;
    double fastest_s, slowest_s, exchange_s, rtt_s;
};

struct search_value at_search_chain_value(const struct at_chain *c)
{
    return (struct search_value){
        .step_s = c->step_s, .per_s = 1 / c->step_s, .exchange_s = c->exchange_s, .rtt_s = c->exchange_rtt_s};
}

static void count_in(struct totals *t, const struct search_value *v)
{
    if (v->step_s < t->fastest_s) t->fastest_s = v->step_s;
    if (v->step_s > t->slowest_s) t->slowest_s = v->step_s;
    if (v->exchange_s > t->exchange_s) t->exchange_s = v->exchange_s;
    if (v->rtt_s > t->rtt_s) t->rtt_s = v->rtt_s;
}

static double round_of(const struct at_cost_exchange *x, const struct totals *t)
{
    double fast_s = x->steps_max * t->fastest_s, slow_s = x->steps_min * t->slowest_s;
    return fast_s > slow_s ? fast_s : slow_s;
}

static double wait_of(const struct at_cost_exchange *x, const struct totals *t)
{
    if (t->replicas < 2) return 0;
    double s = (t->replicas - 1) * t->exchange_s + t->rtt_s - x->tau * t->fastest_s;
    return s > 0 ? s : 0;
}

static double steps_of(const struct at_cost_exchange *x, double round_s, const struct search_value *v)
{
    double steps = round_s * v->per_s;
    return steps < x->steps_max ? steps : x->steps_max;
}

static const struct totals no_totals = {.fastest_s = 1e300};

struct at_search_value at_search_value_of(const struct at_cost *cost, const struct at_chain *chain, int replicas)
{
    struct totals t = no_totals;
    double steps = 0;
    t.replicas = replicas;
    for (int r = 0; r < replicas; r++) {
        struct search_value v = at_search_chain_value(&chain[r]);
        count_in(&t, &v);
        t.shortage += chain[r].shortage;
    }
    if (replicas == 0 || t.shortage != 0) return (struct at_search_value){0};
    struct at_search_value a = {.round_s = round_of(&cost->exchange, &t), .exchange_s = wait_of(&cost->exchange, &t)};
    for (int r = 0; r < replicas; r++) {
        struct search_value v = at_search_chain_value(&chain[r]);
        steps += steps_of(&cost->exchange, a.round_s, &v);
    }
    a.tokens_per_s = cost->step_tokens * steps / (a.round_s + a.exchange_s);
    return a;
}

/* Of the state with the proposal in it; negative when there may not be so many replicas. */
static double value_with(struct search *s, int *ret_shortage)
{
    const struct at_cost_exchange *x = &s->w->cost.exchange;
    const struct search_state *n = &s->now;
    struct totals t = no_totals;
    struct search_value made[2];
    int makes = 0, low = s->ia < s->ib ? s->ia : s->ib, high = s->ia < s->ib ? s->ib : s->ia;
    int end[3] = {low, high, n->replicas}, first[3] = {0, low + 1, high + 1}; /* what the proposal leaves alone */
    double steps = 0;
    t.shortage = n->shortage;
    for (int i = 0; i < 3; i++) {
        if (end[i] > n->replicas) end[i] = n->replicas;
        t.replicas += end[i] > first[i] ? end[i] - first[i] : 0;
    }
    if (s->ia >= 0 && s->a.stages != 0) made[makes++] = at_search_chain_value(&s->a), t.shortage += s->a.shortage;
    if (s->ib >= 0 && s->b.stages != 0) made[makes++] = at_search_chain_value(&s->b), t.shortage += s->b.shortage;
    if (low >= 0 && low < n->replicas) t.shortage -= n->chain[low].shortage;
    if (high >= 0 && high < n->replicas) t.shortage -= n->chain[high].shortage;
    t.replicas += makes;
    for (int i = 0; i < 3; i++)
        for (int r = first[i]; r < end[i]; r++) count_in(&t, &n->value[r]);
    for (int i = 0; i < makes; i++) count_in(&t, &made[i]);
    double round_s = round_of(x, &t);
    for (int i = 0; i < 3; i++)
        for (int r = first[i]; r < end[i]; r++) steps += steps_of(x, round_s, &n->value[r]);
    for (int i = 0; i < makes; i++) steps += steps_of(x, round_s, &made[i]);
    *ret_shortage = t.shortage;
    if (t.replicas == 0 || t.replicas > s->room || (s->wanted != 0 && t.replicas != s->wanted)) return -1;
    return t.shortage != 0 ? 0 : s->w->cost.step_tokens * steps / (round_s + wait_of(x, &t));
}

/* ---- states ---- */

bool at_search_state_alloc(struct search_state *t, int nodes, int room, int stages_max)
{
    t->chain = calloc((size_t)room, sizeof *t->chain);
    t->stage = calloc((size_t)room * (size_t)stages_max, sizeof *t->stage);
    t->where = calloc((size_t)nodes, sizeof *t->where);
    t->value = calloc((size_t)room, sizeof *t->value);
    if (t->chain == NULL || t->stage == NULL || t->where == NULL || t->value == NULL) return false;
    for (int r = 0; r < room; r++) {
        t->chain[r].stage = t->stage + (size_t)r * (size_t)stages_max;
        t->chain[r].stages_max = stages_max;
    }
    return true;
}

void at_search_state_release(struct search_state *t)
{
    free(t->chain);
    free(t->stage);
    free(t->where);
    free(t->value);
    *t = (struct search_state){0};
}

void at_search_copy(const struct search *s, struct search_state *to, const struct search_state *from)
{
    for (int r = 0; r < from->replicas; r++) at_chain_copy(&to->chain[r], &from->chain[r]);
    memcpy(to->value, from->value, (size_t)from->replicas * sizeof *to->value);
    memcpy(to->where, from->where, (size_t)s->nodes * sizeof *to->where);
    to->replicas = from->replicas;
    to->shortage = from->shortage;
    to->tokens_per_s = from->tokens_per_s;
}

void at_search_mark(struct search_state *t, const struct at_chain *c, int replica)
{
    for (int p = 0; p < c->stages; p++)
        for (int i = 0; i < c->stage[p].tp; i++) t->where[c->stage[p].node[i]] = replica;
}

static void store(struct search_state *t, int r, const struct at_chain *c)
{
    at_chain_copy(&t->chain[r], c);
    t->value[r] = at_search_chain_value(c);
    at_search_mark(t, c, r);
}

static void remove_empty(struct search_state *t, int r)
{
    if (r >= t->replicas || t->chain[r].stages != 0) return;
    int last = --t->replicas;
    if (r != last) store(t, r, &t->chain[last]);
}

/* Makes the proposal the state. */
void at_search_accept(struct search *s, double value, int shortage)
{
    struct search_state *t = &s->now;
    int old = t->replicas;
    if (s->ia >= 0 && s->ia < old) at_search_mark(t, &t->chain[s->ia], -1);
    if (s->ib >= 0 && s->ib < old) at_search_mark(t, &t->chain[s->ib], -1);
    if (s->ia == old || s->ib == old) t->replicas++;
    if (s->ia >= 0) store(t, s->ia, &s->a);
    if (s->ib >= 0) store(t, s->ib, &s->b);
    int high = s->ia > s->ib ? s->ia : s->ib, low = s->ia > s->ib ? s->ib : s->ia;
    if (high >= 0) remove_empty(t, high);
    if (low >= 0) remove_empty(t, low);
    t->tokens_per_s = value;
    t->shortage = shortage;
    if (shortage < s->best.shortage || (shortage == s->best.shortage && value > s->best.tokens_per_s * (1 + 1e-12)))
        at_search_copy(s, &s->best, t);
}

/* Work is counted in turns of stages, about: a step is played a few times for every cut. */
void at_search_count(struct search *s, const struct at_chain *c)
{
    s->evaluations++;
    s->work += 300 + 4 * (uint64_t)c->stages * (uint64_t)(c->stages + s->w->cost.microbatches);
}

static void cut(struct search *s, struct at_chain *c)
{
    at_chain_cut(s->w, c);
    at_search_count(s, c);
}

bool at_search_evaluate(struct search *s, double *ret_value, int *ret_shortage)
{
    int created = (s->ia >= s->now.replicas) + (s->ib >= s->now.replicas);
    if (s->now.replicas + created > s->room) return false;
    if (s->ia >= 0 && s->a.stages != 0) cut(s, &s->a);
    if (s->ib >= 0 && s->b.stages != 0) cut(s, &s->b);
    s->work += (uint64_t)s->now.replicas;
    *ret_value = value_with(s, ret_shortage);
    return *ret_value >= 0;
}

/* Values the state; keeps it when it is the best so far. */
void at_search_weigh(struct search *s)
{
    int shortage;
    s->ia = s->ib = -1;
    double value = value_with(s, &shortage);
    s->now.tokens_per_s = value < 0 ? 0 : value;
    s->now.shortage = shortage;
    if (value < 0) return;
    if (s->best.replicas == 0 || shortage < s->best.shortage ||
        (shortage == s->best.shortage && value > s->best.tokens_per_s))
        at_search_copy(s, &s->best, &s->now);
}
