#include "parallel/plan_search_inner.h"

#include <string.h>

/* ---- what can be done to a chain ---- */

static bool all_near(const struct search *s, const int *a, int na, const int *b, int nb)
{
    for (int i = 0; i < na; i++)
        for (int j = 0; j < nb; j++)
            if (a[i] != b[j] && !at_chain_near(s->w->nodes, a[i], b[j])) return false;
    return true;
}

bool at_chain_insert(struct at_chain *c, int at, const struct at_chain_stage *t)
{
    if (c->stages == c->stages_max) return false;
    memmove(&c->stage[at + 1], &c->stage[at], (size_t)(c->stages - at) * sizeof *t);
    c->stage[at] = *t;
    c->stages++;
    return true;
}

static void remove_stage(struct at_chain *c, int at)
{
    c->stages--;
    memmove(&c->stage[at], &c->stage[at + 1], (size_t)(c->stages - at) * sizeof c->stage[0]);
}

struct at_chain_stage at_chain_single(int node)
{
    return (struct at_chain_stage){.tp = 1, .node = {node}};
}

static int find_stage(const struct at_chain *c, int node, int *ret_rank)
{
    for (int p = 0; p < c->stages; p++)
        for (int i = 0; i < c->stage[p].tp; i++)
            if (c->stage[p].node[i] == node) {
                *ret_rank = i;
                return p;
            }
    AT_ASSERT(false);
    return -1;
}

/* Takes a node out; the others of its stage stay as narrower stages in its place. */
static bool take_out(struct at_chain *c, int node)
{
    int rank, p = find_stage(c, node, &rank);
    struct at_chain_stage old = c->stage[p];
    remove_stage(c, p);
    for (int i = 0; i < old.tp;) { /* halves of halves that do not have it */
        if (i == rank) {
            i++;
            continue;
        }
        int width = 1;
        while (i % (2 * width) == 0 && i + 2 * width <= old.tp && (rank < i || rank >= i + 2 * width)) width *= 2;
        struct at_chain_stage t = {.tp = width};
        memcpy(t.node, &old.node[i], (size_t)width * sizeof t.node[0]);
        if (!at_chain_insert(c, p++, &t)) return false;
        i += width;
    }
    return true;
}

bool at_search_join(const struct search *s, struct at_chain *c, int p, int q)
{
    struct at_chain_stage *x = &c->stage[p], *y = &c->stage[q];
    int tp = x->tp;
    if (p == q || y->tp != tp || tp * 2 > s->w->cost.slots || !all_near(s, x->node, tp, y->node, tp)) return false;
    memcpy(&x->node[tp], y->node, (size_t)tp * sizeof x->node[0]);
    x->tp = 2 * tp;
    remove_stage(c, q);
    return true;
}

static bool part(struct at_chain *c, int p)
{
    struct at_chain_stage half = c->stage[p];
    if (half.tp == 1) return false;
    half.tp /= 2;
    memcpy(half.node, &c->stage[p].node[half.tp], (size_t)half.tp * sizeof half.node[0]);
    c->stage[p].tp = half.tp;
    return at_chain_insert(c, p + 1, &half);
}

/* A node put in another's place; tensor ranks must stay near. */
static bool replace(const struct search *s, struct at_chain *c, int node, int by)
{
    int rank, p = find_stage(c, node, &rank);
    struct at_chain_stage *t = &c->stage[p];
    for (int i = 0; i < t->tp; i++)
        if (i != rank && !at_chain_near(s->w->nodes, by, t->node[i])) return false;
    t->node[rank] = by;
    return true;
}

/* ---- proposals: each fills a, b, ia, ib and says whether there is something to try ---- */

void at_search_load(struct search *s, struct at_chain *c, int r)
{
    c->stages = 0;
    if (r >= 0 && r < s->now.replicas) at_chain_copy(c, &s->now.chain[r]);
}

/* A node near `node` for half of the draws, else any. */
int at_search_draw_node(struct search *s, int node)
{
    int g = s->group[node], first = s->member_first[g], n = s->member_first[g + 1] - first;
    if (n > 1 && at_search_draw(s, 2) == 0) return s->member[first + (int)at_search_draw(s, n)];
    return (int)at_search_draw(s, s->nodes);
}

/* Puts a single node into chain c: as a stage, or beside another one as tensor rank. */
static bool put_in(struct search *s, struct at_chain *c, int node)
{
    struct at_chain_stage t = at_chain_single(node);
    if (c->stages != 0 && at_search_draw(s, 3) == 0) {
        int p = (int)at_search_draw(s, c->stages);
        return at_chain_insert(c, p, &t) && at_search_join(s, c, p, p + 1);
    }
    return at_chain_insert(c, (int)at_search_draw(s, c->stages + 1), &t);
}

static bool relocate(struct search *s)
{
    int node = (int)at_search_draw(s, s->nodes), kind = (int)at_search_draw(s, 8);
    s->ia = s->now.where[node];
    s->ib = kind == 0 ? -1 : kind <= 2 ? s->now.replicas : s->now.where[at_search_draw_node(s, node)];
    if (s->ia < 0 && s->ib < 0) return false;
    at_search_load(s, &s->a, s->ia);
    if (s->ia >= 0 && !take_out(&s->a, node)) return false;
    if (s->ia == s->ib) {
        s->ib = -1;
        return put_in(s, &s->a, node);
    }
    at_search_load(s, &s->b, s->ib);
    return s->ib < 0 || put_in(s, &s->b, node);
}

static bool swap_nodes(struct search *s)
{
    int x = (int)at_search_draw(s, s->nodes), y = at_search_draw_node(s, x);
    s->ia = s->now.where[x];
    s->ib = s->now.where[y];
    if (x == y || (s->ia < 0 && s->ib < 0)) return false;
    at_search_load(s, &s->a, s->ia);
    if (s->ia == s->ib) {
        int rx, ry, px = find_stage(&s->a, x, &rx), py = find_stage(&s->a, y, &ry);
        s->ib = -1;
        if (px == py) return false;
        s->a.stage[px].node[rx] = y;
        s->a.stage[py].node[ry] = x;
        const struct at_chain_stage *t = &s->a.stage[px], *u = &s->a.stage[py];
        return (t->tp == 1 || all_near(s, t->node, t->tp, t->node, t->tp)) &&
               (u->tp == 1 || all_near(s, u->node, u->tp, u->node, u->tp));
    }
    at_search_load(s, &s->b, s->ib);
    return (s->ia < 0 || replace(s, &s->a, x, y)) && (s->ib < 0 || replace(s, &s->b, y, x));
}

static bool reshape(struct search *s)
{
    s->ia = (int)at_search_draw(s, s->now.replicas);
    s->ib = -1;
    at_search_load(s, &s->a, s->ia);
    int p = (int)at_search_draw(s, s->a.stages), q = (int)at_search_draw(s, s->a.stages);
    switch (at_search_draw(s, 3)) {
    case 0:
        return at_search_join(s, &s->a, p, q);
    case 1:
        return part(&s->a, p);
    default: {
        struct at_chain_stage t = s->a.stage[p];
        if (p == q) return false;
        remove_stage(&s->a, p);
        return at_chain_insert(&s->a, q, &t);
    }
    }
}

/* Two replicas become one, or one two. */
static bool merge_or_split(struct search *s)
{
    s->ia = (int)at_search_draw(s, s->now.replicas);
    at_search_load(s, &s->a, s->ia);
    if (s->a.stages > 1 && at_search_draw(s, 2) == 0) {
        int cut = 1 + (int)at_search_draw(s, s->a.stages - 1);
        s->ib = s->now.replicas;
        s->b.stages = s->a.stages - cut;
        memcpy(s->b.stage, &s->a.stage[cut], (size_t)s->b.stages * sizeof s->b.stage[0]);
        s->a.stages = cut;
        return true;
    }
    s->ib = (int)at_search_draw(s, s->now.replicas);
    if (s->ia == s->ib) return false;
    at_search_load(s, &s->b, s->ib);
    if (s->a.stages + s->b.stages > s->a.stages_max) return false;
    memcpy(&s->a.stage[s->a.stages], s->b.stage, (size_t)s->b.stages * sizeof s->b.stage[0]);
    s->a.stages += s->b.stages;
    s->b.stages = 0;
    return true;
}

static bool move_stage(struct search *s)
{
    s->ia = (int)at_search_draw(s, s->now.replicas);
    int kind = (int)at_search_draw(s, 6);
    s->ib = kind == 0 ? s->now.replicas : (int)at_search_draw(s, s->now.replicas);
    if (s->ia == s->ib) return false;
    at_search_load(s, &s->a, s->ia);
    at_search_load(s, &s->b, s->ib);
    int p = (int)at_search_draw(s, s->a.stages);
    struct at_chain_stage t = s->a.stage[p];
    remove_stage(&s->a, p);
    return at_chain_insert(&s->b, (int)at_search_draw(s, s->b.stages + 1), &t);
}

/* A chain of these nodes in this order; now and then two or four that are near each other share a stage. */
static bool string_up(struct search *s, const int *node, int n, struct at_chain *c)
{
    c->stages = 0;
    for (int i = 0; i < n;) {
        int width = 1 << at_search_draw(s, 3);
        struct at_chain_stage t = {.tp = 1};
        while (width > n - i || width > s->w->cost.slots) width /= 2;
        if (!all_near(s, &node[i], width, &node[i], width)) width = 1;
        t.tp = width;
        memcpy(t.node, &node[i], (size_t)width * sizeof *node);
        if (!at_chain_insert(c, c->stages, &t)) return false;
        i += width;
    }
    return true;
}

static int take_nodes(const struct at_chain *c, int *node, int n)
{
    for (int p = 0; p < c->stages; p++)
        for (int i = 0; i < c->stage[p].tp && n < SEARCH_REGROUP; i++) node[n++] = c->stage[p].node[i];
    return n;
}

static int chain_nodes(const struct at_chain *c)
{
    int n = 0;
    for (int p = 0; p < c->stages; p++) n += c->stage[p].tp;
    return n;
}

/* The nodes of up to two small replicas and a few without work, shuffled, become up to two others. */
static bool regroup(struct search *s)
{
    int node[SEARCH_REGROUP], n = 0, pick = (int)at_search_draw(s, 4), seed = (int)at_search_draw(s, s->nodes);
    s->ia = pick == 0 ? s->now.replicas : (int)at_search_draw(s, s->now.replicas);
    s->ib = pick == 1 ? (int)at_search_draw(s, s->now.replicas) : pick == 2 ? s->now.replicas : -1;
    if (s->ia == s->ib) return false;
    at_search_load(s, &s->a, s->ia);
    at_search_load(s, &s->b, s->ib);
    if (chain_nodes(&s->a) + chain_nodes(&s->b) > SEARCH_REGROUP) return false;
    n = take_nodes(&s->b, node, take_nodes(&s->a, node, 0));
    for (int left = (int)at_search_draw(s, 5), tries = 0; left > 0 && n < SEARCH_REGROUP && tries < 16; tries++) {
        int i = at_search_draw_node(s, seed), have = 0;
        while (have < n && node[have] != i) have++;
        if (have < n || s->now.where[i] >= 0) continue;
        node[n++] = i;
        left--;
    }
    if (n == 0) return false;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)at_search_draw(s, i + 1), t = node[i];
        node[i] = node[j];
        node[j] = t;
    }
    int used = n - (int)at_search_draw(s, n > 2 ? 3 : n), first = s->ib < 0 ? used : 1 + (int)at_search_draw(s, used);
    return string_up(s, node, first, &s->a) && (s->ib < 0 || string_up(s, node + first, used - first, &s->b));
}

/* The slowest replica is the one that others wait for: it ends, or gives a node up, or gets a better one. */
static bool mend_slowest(struct search *s)
{
    int slow = 0;
    for (int r = 1; r < s->now.replicas; r++)
        if (s->now.value[r].step_s > s->now.value[slow].step_s) slow = r;
    at_search_load(s, &s->a, slow);
    s->ia = slow;
    const struct at_chain_stage *t = &s->a.stage[at_search_draw(s, s->a.stages)];
    int node = t->node[at_search_draw(s, t->tp)];
    switch (at_search_draw(s, 3)) {
    case 0:
        s->a.stages = 0;
        return true;
    case 1:
        return take_out(&s->a, node);
    default: {
        int other = at_search_draw_node(s, node);
        s->ib = s->now.where[other];
        if (s->ib == slow || s->w->nodes->node[other].gflops <= s->w->nodes->node[node].gflops) return false;
        at_search_load(s, &s->b, s->ib);
        return replace(s, &s->a, node, other) && (s->ib < 0 || replace(s, &s->b, other, node));
    }
    }
}

bool at_search_propose(struct search *s)
{
    s->ia = s->ib = -1;
    int k = (int)at_search_draw(s, 100);
    if (k < 12) return mend_slowest(s);
    if (k < 35) return relocate(s);
    if (k < 52) return swap_nodes(s);
    if (k < 64) return reshape(s);
    if (k < 72) return merge_or_split(s);
    if (k < 90) return regroup(s);
    return move_stage(s);
}
