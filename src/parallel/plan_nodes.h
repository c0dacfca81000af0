/* plan_nodes.h: the machines that a plan may use, as they were measured, and the links between them. Plain values; owned
 * by the caller, filled by plan_file.h or by hand.
 *
 * A link is directed. What was measured one way only counts both ways. A pair that was not measured has the link
 * `within_site` when both nodes name the same site, and `elsewhere` otherwise. */
#ifndef ATOLL_PARALLEL_PLAN_NODES_H
#define ATOLL_PARALLEL_PLAN_NODES_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AT_PLAN_NODES_MAX 4096
#define AT_PLAN_NAME_MAX  63

struct at_link {
    double rtt_ms, mbit_s;
};
struct at_plan_node {
    char name[AT_PLAN_NAME_MAX + 1], site[AT_PLAN_NAME_MAX + 1]; /* site: may be "" */
    char address[128];                                           /* may be ""; not used in planning */
    double gflops;                                               /* of training steps, as `atoll bench node` measures */
    uint64_t memory_bytes;                                       /* that a rank may take */
    int threads;                                                 /* 0: not said; not used in planning */
    int site_id; /* set by at_plan_nodes_index: the same for the same non-empty site, else its own */
};
struct at_plan_link {
    int from, to;
    struct at_link link;
};
struct at_plan_nodes {
    int count;
    struct at_plan_node *node;
    struct at_link within_site, elsewhere;
    size_t links;
    struct at_plan_link *link; /* after at_plan_nodes_index: by (from, to), both directions of every pair */
    size_t *row;               /* [count + 1]: link[row[i]] .. are those from node i */
};

/* Room for `count` nodes and `links` links (both directions of each will fit). AT_E_NOMEM. */
at_err at_plan_nodes_alloc(struct at_plan_nodes *n, int count, size_t links, struct at_diag *diag);
void at_plan_nodes_release(struct at_plan_nodes *n);
/* After nodes and links are filled in: sorts the links and adds the unmeasured directions of measured pairs.
 * AT_E_DATA when a link is given twice or leads from a node to itself. */
at_err at_plan_nodes_index(struct at_plan_nodes *n, struct at_diag *diag);

struct at_link at_plan_link_of(const struct at_plan_nodes *n, int from, int to);
/* The worse of both directions. */
struct at_link at_plan_link_worse(const struct at_plan_nodes *n, int a, int b);
/* The node with this name, or -1. */
int at_plan_nodes_find(const struct at_plan_nodes *n, const char *name);

#endif
