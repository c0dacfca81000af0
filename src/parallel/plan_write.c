/* A plan as a file: plan_file.h. */
#include "parallel/plan_file.h"

#include <math.h>

static bool put(json_t *object, const char *key, json_t *value)
{
    return value != NULL && json_object_set_new(object, key, value) == 0;
}

static bool put_real(json_t *object, const char *key, double v)
{
    return put(object, key, isfinite(v) ? json_real(v) : json_null());
}

static json_t *write_rank(const struct at_plan_nodes *nodes, const struct at_plan *plan,
                          const struct at_planner_report *report, int rank)
{
    const struct at_plan_node *n = &nodes->node[plan->node[rank]];
    json_t *j = json_object();
    bool ok = j != NULL && put(j, "rank", json_integer(rank)) && put(j, "node", json_string(n->name));
    if (ok && n->address[0] != '\0') ok = put(j, "address", json_string(n->address));
    ok = ok && put(j, "bytes", json_integer((json_int_t)report->rank[rank].bytes)) &&
         put(j, "memory_bytes", json_integer((json_int_t)n->memory_bytes)) &&
         put_real(j, "busy", report->rank[rank].busy);
    if (ok) return j;
    json_decref(j);
    return NULL;
}

static json_t *write_stage(const struct at_plan_nodes *nodes, const struct at_plan *plan,
                           const struct at_planner_report *report, int stage)
{
    const struct at_plan_stage *t = &plan->stage[stage];
    json_t *j = json_object(), *ranks = json_array();
    bool ok = j != NULL && put(j, "layer_first", json_integer(t->layer_first)) &&
              put(j, "layers", json_integer(t->layers)) &&
              put_real(j, "microbatch_s", report->rank[t->rank_first].microbatch_s) &&
              put_real(j, "all_reduce_s", report->rank[t->rank_first].link_s) && put(j, "ranks", json_incref(ranks));
    for (int i = 0; i < t->tp && ok; i++)
        ok = json_array_append_new(ranks, write_rank(nodes, plan, report, t->rank_first + i)) == 0;
    json_decref(ranks);
    if (ok) return j;
    json_decref(j);
    return NULL;
}

static const char *limit_name(enum at_planner_limit limit)
{
    static const char *const name[] = {"compute", "tensor link", "stage link", "pipeline bubble"};
    return name[limit];
}

static json_t *write_replica(const struct at_plan_nodes *nodes, const struct at_plan *plan,
                             const struct at_planner_report *report, int replica)
{
    const struct at_planner_replica *r = &report->replica[replica];
    const struct at_plan_replica *p = &plan->replica[replica];
    json_t *j = json_object(), *stages = json_array();
    bool ok = j != NULL && put_real(j, "step_s", r->step_s) && put_real(j, "tokens_per_s", r->tokens_per_s) &&
              put_real(j, "steps", r->steps) && put(j, "limit", json_string(limit_name(r->limit))) &&
              put(j, "limit_node", json_string(nodes->node[plan->node[r->limit_rank]].name)) &&
              put(j, "stages", json_incref(stages));
    for (int s = 0; s < p->stages && ok; s++)
        ok = json_array_append_new(stages, write_stage(nodes, plan, report, p->stage_first + s)) == 0;
    json_decref(stages);
    if (ok) return j;
    json_decref(j);
    return NULL;
}

static bool write_head(json_t *j, const struct at_planner_options *options, const struct at_plan *plan,
                       const struct at_planner_report *report)
{
    return put(j, "plan", json_integer(AT_PLAN_FILE_VERSION)) && put(j, "model", json_string(options->name)) &&
           put(j, "parameters", json_integer((json_int_t)at_model_params(options->model))) &&
           put(j, "microbatches", json_integer(plan->microbatches)) &&
           put(j, "recompute", json_boolean(report->recompute)) && put_real(j, "tokens_per_s", report->tokens_per_s) &&
           put_real(j, "round_s", report->round_s) && put_real(j, "exchange_s", report->exchange_s) &&
           put(j, "steps", json_integer(options->exchange.steps_max)) &&
           put(j, "update_bytes", json_integer((json_int_t)report->update_bytes)) &&
           put(j, "need_bytes", json_integer((json_int_t)report->need_bytes)) &&
           put(j, "have_bytes", json_integer((json_int_t)report->have_bytes));
}

json_t *at_plan_file_json(const struct at_planner_options *options, const struct at_plan_nodes *nodes,
                          const struct at_plan *plan, const struct at_planner_report *report)
{
    json_t *j = json_object(), *replicas = json_array(), *spares = json_array(), *why = json_array();
    bool ok = j != NULL && replicas != NULL && spares != NULL && why != NULL && write_head(j, options, plan, report);
    for (int r = 0; r < plan->replicas && ok; r++)
        ok = json_array_append_new(replicas, write_replica(nodes, plan, report, r)) == 0;
    for (int i = 0; i < report->spares && ok; i++) {
        json_t *spare = json_object();
        ok = spare != NULL && put(spare, "node", json_string(nodes->node[report->spare[i]].name)) &&
             put(spare, "why", json_string(report->spare_why[i].s));
        ok = json_array_append_new(spares, spare) == 0 && ok;
    }
    for (int i = 0; i < report->whys && ok; i++) ok = json_array_append_new(why, json_string(report->why[i].s)) == 0;
    ok = ok && put(j, "replicas", json_incref(replicas)) && put(j, "spares", json_incref(spares)) &&
         put(j, "why", json_incref(why));
    json_decref(replicas);
    json_decref(spares);
    json_decref(why);
    if (ok) return j;
    json_decref(j);
    return NULL;
}
