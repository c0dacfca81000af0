#include "parallel/plan_row.h"

#include <stdlib.h>
#include <string.h>

int at_row_sites(const struct at_plan_nodes *nodes, int *ret_group)
{
    int groups = 0;
    for (int i = 0; i < nodes->count; i++) {
        ret_group[i] = -1;
        for (int g = 0; g < groups && ret_group[i] < 0; g++) {
            bool near = true;
            for (int j = 0; j < i && near; j++) near = ret_group[j] != g || at_chain_near(nodes, i, j);
            if (near) ret_group[i] = g;
        }
        if (ret_group[i] < 0) ret_group[i] = groups++;
    }
    return groups;
}

void at_row_by_speed(const struct at_plan_nodes *nodes, int *ret_row)
{
    for (int i = 0; i < nodes->count; i++) {
        int at = i;
        for (; at > 0 && nodes->node[ret_row[at - 1]].gflops < nodes->node[i].gflops; at--)
            ret_row[at] = ret_row[at - 1];
        ret_row[at] = i;
    }
}

/* What a microbatch's way between two nodes takes, roughly. */
static double distance_s(const struct at_chain_world *w, int a, int b)
{
    struct at_link l = at_plan_link_worse(w->nodes, a, b);
    return l.rtt_ms * 1e-3 + at_cost_boundary_bytes(&w->cost) * 16e-6 / l.mbit_s;
}

static void place_group(const struct at_chain_world *w, const int *group, int g, int *io_count, int *ret_row)
{
    int first = *io_count;
    for (int i = 0; i < w->nodes->count; i++) {
        if (group[i] != g) continue;
        int at = (*io_count)++;
        for (; at > first && w->nodes->node[ret_row[at - 1]].gflops < w->nodes->node[i].gflops; at--)
            ret_row[at] = ret_row[at - 1];
        ret_row[at] = i;
    }
}

at_err at_row_order(const struct at_chain_world *w, const int *group, int groups, struct at_diag *diag, int *ret_row)
{
    int *head = calloc((size_t)groups, sizeof *head), count = 0, at = 0;
    bool *done = calloc((size_t)groups, sizeof *done);
    at_err_t err = AT_OK;
    if (head == NULL || done == NULL) {
        err = at_fail(diag, AT_E_NOMEM, "planner", "no memory for %d sites", groups);
        goto out;
    }
    for (int i = w->nodes->count - 1; i >= 0; i--) head[group[i]] = i; /* a group's first node speaks for it */
    for (int left = groups; left > 0; left--) {
        place_group(w, group, at, &count, ret_row);
        done[at] = true;
        int next = -1;
        double best = 0;
        for (int g = 0; g < groups; g++) {
            if (done[g]) continue;
            double s = distance_s(w, head[at], head[g]);
            if (next < 0 || s < best) {
                next = g;
                best = s;
            }
        }
        at = next;
    }
out:
    free(head);
    free(done);
    return err;
}

/* Appends the stages that a run of nodes of one group makes: widths of at most tp, powers of two, largest first. */
static void append_run(const struct at_chain_world *w, const int *node, int n, int tp, struct at_chain *c)
{
    for (int i = 0; i < n && c->stages < c->stages_max;) {
        int width = tp;
        while (width > n - i) width /= 2;
        struct at_chain_stage *t = &c->stage[c->stages++];
        *t = (struct at_chain_stage){.tp = width};
        memcpy(t->node, node + i, (size_t)width * sizeof *node);
        i += width;
    }
}

static void make(const struct at_chain_world *w, const int *group, const int *node, int n, int tp, struct at_chain *c)
{
    c->stages = 0;
    for (int i = 0; i < n && c->stages < c->stages_max;) {
        int end = i + 1;
        while (end < n && group[node[end]] == group[node[i]]) end++;
        append_run(w, node + i, end - i, tp, c);
        i = end;
    }
    int kept = 0, all = c->stages;
    for (int at = 0; at < all; at++) { /* without those that have no room for a single layer, but at least one */
        if (at_chain_room(w, c, at) < 1 && kept + all - at > 1) continue;
        c->stage[kept++] = c->stage[at];
    }
    c->stages = kept;
}

bool at_row_chain(const struct at_chain_world *w, const int *group, const int *node, int n, struct at_chain *c,
                  struct at_chain *spare, uint64_t *io_tried)
{
    bool have = false;
    bool near = false; /* otherwise wider stages are the same chain again */
    for (int i = 1; i < n && !near; i++) near = group[node[i]] == group[node[i - 1]];
    for (int tp = 1; tp <= w->cost.slots && tp <= n && (tp == 1 || near); tp *= 2) {
        struct at_chain *t = have ? spare : c;
        make(w, group, node, n, tp, t);
        at_chain_cut(w, t);
        ++*io_tried;
        if (have) {
            bool better = t->shortage < c->shortage || (t->shortage == c->shortage && t->step_s < c->step_s);
            if (better) at_chain_copy(c, t);
            if (!better && c->shortage == 0) break; /* wider still would hardly help */
        }
        have = true;
    }
    return have && c->shortage == 0;
}
