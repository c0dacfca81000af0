/* plan_file.h: nodes.json, what `atoll plan` reads, and plan files, what it writes and `atoll train --plan` reads.
 * docs/plan.md describes both with examples. Pure codecs; foreign input: every number is checked, and an error names
 * the line, or the field as in "nodes[3].gflops".
 *
 * nodes.json
 *   nodes        [{name, gflops, memory_bytes, site?, address?, threads?, note?}]   names are unique
 *   within_site  {rtt_ms, mbit_s}   of pairs that name the same site and were not measured
 *   elsewhere    {rtt_ms, mbit_s}   of all other pairs that were not measured
 *   links        [{from, to, rtt_ms, mbit_s}]   what was measured; one direction counts for both
 *   rtt_ms, mbit_s   [n][n]   instead of links: matrices, row = from; the diagonal is ignored, null = not measured
 * Unknown fields are errors, because a mistyped one would be a figure silently left out.
 *
 * A plan file (more fields are for people and ignored when reading)
 *   plan          2
 *   model         name of the preset, or of the configuration
 *   microbatches  of a step
 *   recompute     bool
 *   replicas      [{stages: [{layer_first, layers, ranks: [{node, address?}]}]}]   ranks: slots ascending */
#ifndef ATOLL_PARALLEL_PLAN_FILE_H
#define ATOLL_PARALLEL_PLAN_FILE_H

#include "base/bytes.h"
#include "parallel/planner.h"

#include <jansson.h>

#define AT_NODES_FILE_BYTES_MAX ((size_t)64 << 20)
#define AT_PLAN_FILE_BYTES_MAX  ((size_t)8 << 20)
#define AT_PLAN_FILE_VERSION    2

/* `file`: its name, for messages. AT_E_DATA, AT_E_TOO_BIG, AT_E_NOMEM. Indexed and ready for the planner. */
at_err at_nodes_parse(struct at_span json, const char *file, struct at_diag *diag, struct at_plan_nodes *ret_nodes);

struct at_plan_host {
    char name[AT_PLAN_NAME_MAX + 1], address[128]; /* address: "" when the file has none */
};
struct at_plan_file {
    char model[AT_PLAN_NAME_MAX + 1];
    bool recompute;
    struct at_plan plan;       /* node[rank] is an index of host[] */
    struct at_plan_host *host; /* [hosts] in the order in which the ranks name them */
    int hosts;
};
/* A plan that is whole in itself; whether it fits a model is at_plan_check's question. AT_E_DATA, AT_E_TOO_BIG,
 * AT_E_NOMEM. Owned: at_plan_file_release. */
at_err at_plan_file_parse(struct at_span json, const char *file, struct at_diag *diag, struct at_plan_file *ret_plan);
void at_plan_file_release(struct at_plan_file *f);
/* The host with this name. AT_E_USAGE lists the first names there are. */
at_err at_plan_file_find(const struct at_plan_file *f, const char *name, struct at_diag *diag, int *ret_host);

/* The plan file's object with the prediction in it; the caller's (json_decref). NULL: no memory. */
json_t *at_plan_file_json(const struct at_planner_options *options, const struct at_plan_nodes *nodes,
                          const struct at_plan *plan, const struct at_planner_report *report);

#endif
