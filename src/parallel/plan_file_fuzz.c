/* The first byte chooses the reader, the rest is the file. Properties: nothing is read outside it; what nodes.json says
 * is in range and planned without a crash (small ones); a plan that is read is written and read again as the same plan. */
#include "parallel/plan_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct at_planner_options options(void)
{
    const struct at_preset *p;
    struct at_planner_options o;
    if (at_preset_find("tiny", NULL, &p) != AT_OK) abort();
    at_planner_options_default(&o, "tiny", &p->model, &p->train);
    o.effort = 0.01;
    return o;
}

static void check_same(const struct at_plan *a, const struct at_plan_file *f)
{
    AT_ASSERT(f->plan.ranks == a->ranks && f->plan.stages == a->stages && f->plan.replicas == a->replicas);
    AT_ASSERT(memcmp(f->plan.stage, a->stage, (size_t)a->stages * sizeof *a->stage) == 0);
    AT_ASSERT(f->plan.microbatches == a->microbatches);
}

static void read_nodes(struct at_span text)
{
    struct at_plan_nodes n;
    struct at_diag diag = {0};
    struct at_planner_options o = options();
    struct at_plan plan;
    struct at_planner_report report;
    if (at_nodes_parse(text, "nodes.json", &diag, &n) != AT_OK) {
        AT_ASSERT(diag.text[0] != '\0');
        return;
    }
    for (int i = 0; i < n.count; i++) AT_ASSERT(n.node[i].gflops > 0 && n.node[i].memory_bytes >= 1);
    if (n.count <= 8 && at_planner_make(&o, &n, &diag, &plan, &report) == AT_OK) {
        struct at_plan_file f;
        AT_ASSERT(at_plan_check(&plan, o.model, o.train->batch, NULL) == AT_OK);
        json_t *j = at_plan_file_json(&o, &n, &plan, &report);
        char *out = json_dumps(j, 0);
        AT_ASSERT(out != NULL);
        struct at_span again = {(const uint8_t *)out, strlen(out)};
        AT_ASSERT(at_plan_file_parse(again, "plan.json", &diag, &f) == AT_OK);
        check_same(&plan, &f);
        at_plan_file_release(&f);
        free(out);
        json_decref(j);
        at_plan_release(&plan);
        at_planner_report_release(&report);
    }
    at_plan_nodes_release(&n);
}

static void read_plan(struct at_span text)
{
    struct at_plan_file f;
    struct at_diag diag = {0};
    struct at_planner_options o = options();
    if (at_plan_file_parse(text, "plan.json", &diag, &f) != AT_OK) {
        AT_ASSERT(diag.text[0] != '\0');
        return;
    }
    for (int i = 0; i < f.plan.ranks; i++) AT_ASSERT(f.plan.node[i] >= 0 && f.plan.node[i] < f.hosts);
    if (at_plan_check(&f.plan, o.model, o.train->batch, &diag) == AT_OK)
        for (int i = 0; i < f.plan.ranks; i++) AT_ASSERT(at_plan_place(&f.plan, i).at->layers >= 1);
    at_plan_file_release(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    struct at_span text = {data + 1, size - 1};
    if (data[0] % 2 == 0)
        read_nodes(text);
    else
        read_plan(text);
    return 0;
}
