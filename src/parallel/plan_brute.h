/* plan_brute.h: for tests: every plan there is. All partitions of the nodes into replicas and spares, all orders of
 * stages in a replica, tensor widths 1, 2, 4 (all pairs within 1 ms), all cuts of the layers, as a naive oracle for the
 * planner: nothing is shared with its search but what a given chain costs (at_chain_step, at_search_value_of). */
#ifndef ATOLL_PARALLEL_PLAN_BRUTE_H
#define ATOLL_PARALLEL_PLAN_BRUTE_H

#include "parallel/plan_search.h"

#include <stdlib.h>
#include <string.h>

enum { BRUTE_NODES = 6, BRUTE_LAYERS = 6 };

/* The ways to run one replica on exactly this set of nodes: what the objective needs of each. */
struct brute_set {
    struct at_chain *way; /* without stages */
    int ways, room;
};
struct brute {
    struct at_chain_world *w;
    struct brute_set set[1 << BRUTE_NODES];
    struct at_chain chain; /* being built */
    struct at_chain_stage stage[BRUTE_NODES];
    double best;
    int wanted;
};

static inline void brute_keep(struct brute *b, int set)
{
    struct brute_set *s = &b->set[set];
    struct at_chain *c = &b->chain;
    at_chain_step(b->w, c);
    if (c->shortage != 0) return;
    for (int i = 0; i < s->ways; i++) /* nothing in the objective tells them apart */
        if (s->way[i].step_s == c->step_s && s->way[i].exchange_s == c->exchange_s &&
            s->way[i].exchange_rtt_s == c->exchange_rtt_s)
            return;
    if (s->ways == s->room) {
        s->room = s->room == 0 ? 16 : 2 * s->room;
        s->way = realloc(s->way, (size_t)s->room * sizeof *s->way);
        AT_ASSERT(s->way != NULL);
    }
    s->way[s->ways++] = *c;
}

static inline void brute_cuts(struct brute *b, int set, int stage, int left)
{
    struct at_chain *c = &b->chain;
    if (stage == c->stages - 1) {
        c->stage[stage].layers = left;
        brute_keep(b, set);
        return;
    }
    for (int n = 1; n <= left - (c->stages - 1 - stage); n++) {
        c->stage[stage].layers = n;
        brute_cuts(b, set, stage + 1, left - n);
    }
}

/* Adds a stage of every subset of `left` of 1, 2 or 4 near nodes (ascending order within it: which tensor rank is
 * whose matters only through pair links, so all orders of it are tried too). */
static inline void brute_stages(struct brute *b, int set, int left);

static inline void brute_ranks(struct brute *b, int set, int left, int tp, int have)
{
    struct at_chain_stage *t = &b->chain.stage[b->chain.stages];
    if (have == tp) {
        t->tp = tp;
        b->chain.stages++;
        brute_stages(b, set, left);
        b->chain.stages--;
        return;
    }
    for (int i = 0; i < b->w->nodes->count; i++) {
        bool near = (left >> i & 1) != 0;
        for (int j = 0; j < have && near; j++) near = at_chain_near(b->w->nodes, t->node[j], i);
        if (!near) continue;
        t->node[have] = i;
        brute_ranks(b, set, left & ~(1 << i), tp, have + 1);
    }
}

static inline void brute_stages(struct brute *b, int set, int left)
{
    int layers = b->w->cost.layers;
    if (left == 0) {
        brute_cuts(b, set, 0, layers);
        return;
    }
    if (b->chain.stages == layers || b->chain.stages == BRUTE_NODES) return;
    for (int tp = 1; tp <= 4 && tp <= b->w->cost.slots; tp *= 2) brute_ranks(b, set, left, tp, 0);
}

/* Replicas over what is left; the lowest node is spare or in the next replica. */
static inline void brute_partitions(struct brute *b, int left, struct at_chain *chain, int replicas)
{
    if (replicas != 0 && (b->wanted == 0 || b->wanted == replicas)) {
        double v = at_search_value_of(&b->w->cost, chain, replicas).tokens_per_s;
        if (v > b->best) b->best = v;
    }
    if (left == 0) return;
    int lowest = left & -left;
    for (int set = left; set != 0; set = (set - 1) & left) {
        if ((set & lowest) == 0) continue;
        for (int i = 0; i < b->set[set].ways; i++) {
            chain[replicas] = b->set[set].way[i];
            brute_partitions(b, left & ~set, chain, replicas + 1);
        }
    }
    brute_partitions(b, left & ~lowest, chain, replicas);
}

/* The most tokens a second that any plan has with the world's cost (one microbatch count); 0: none is possible. */
static inline double brute_best(struct at_chain_world *w, int wanted)
{
    struct brute *b = calloc(1, sizeof *b);
    struct at_chain chain[BRUTE_NODES];
    AT_ASSERT(b != NULL && w->nodes->count <= BRUTE_NODES && w->cost.layers <= BRUTE_LAYERS);
    b->w = w;
    b->wanted = wanted;
    b->chain = (struct at_chain){.stage = b->stage, .stages_max = BRUTE_NODES};
    for (int set = 1; set < 1 << w->nodes->count; set++) {
        b->chain.stages = 0;
        brute_stages(b, set, set);
    }
    brute_partitions(b, (1 << w->nodes->count) - 1, chain, 0);
    double best = b->best;
    for (int set = 0; set < 1 << BRUTE_NODES; set++) free(b->set[set].way);
    free(b);
    return best;
}

#endif
