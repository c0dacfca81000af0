/* cmd_plan.c: who should compute what, from measured machines and links. The planner is parallel/planner.h; docs/plan.md
 * describes both files. */
#include "cli/cli_cmd.h"
#include "cli/cli_ledger.h"
#include "cli/progress.h"
#include "ledger/part.h"
#include "model/hf.h"
#include "os/file.h"
#include "parallel/plan_explain.h"
#include "parallel/plan_file.h"
#include "train/outer.h"

#include <string.h>

struct args {
    const char *preset, *config, *nodes, *outer, *dir;
    struct at_opt_int replicas, microbatches, batch, steps, steps_min, tau, tp, pp;
    bool recompute;
};

static const struct at_opt rows[] = {
    AT_ROW_TEXT(struct args, nodes, "nodes", "FILE", NULL,
                "measured machines and links; `atoll bench node` prints an entry"),
    AT_ROW_TEXT(struct args, dir, "dir", "D", NULL,
                "no planning: the plan that a swarm's run follows, by the"
                "\nledger in this folder: who has which part, and why"),
    AT_ROW_TEXT(struct args, preset, "preset", "P", "10m", "the model's shape: nano, 10m, 124m, 1b, 7b"),
    AT_ROW_TEXT(struct args, config, "config", "FILE", NULL, "the shape as config.json of a Llama model instead"),
    AT_ROW_INT(struct args, replicas, "replicas", "R", 1, AT_PLAN_NODES_MAX, NULL,
               "exactly so many (default: the best)"),
    AT_ROW_INT(struct args, microbatches, "microbatches", "M", 1, 65536, NULL,
               "pieces of a step's sequences (default: the best)"),
    AT_ROW_INT(struct args, batch, "batch", "B", 1, 65536, NULL, "sequences of a step (default: the preset's)"),
    AT_ROW_INT(struct args, steps, "steps", "H", 1, 100000, NULL, "inner steps of a round (default: the preset's)"),
    AT_ROW_INT(struct args, steps_min, "steps-min", "N", 1, 100000, NULL,
               "rounds bounded by time: slow replicas may do as few (default: all do H)"),
    AT_ROW_TEXT(struct args, outer, "outer", "KIND", "mean", "mean, diloco, sparse or auto: what an exchange sends"),
    AT_ROW_INT(struct args, tau, "tau", "N", 0, AT_OUTER_TAU_MAX, "0", "inner steps that hide the exchange"),
    AT_ROW_INT(struct args, tp, "tp", "T", 1, 8, NULL,
               "no search: this split, as `train --tp T --pp P` makes it, on the"
               "\nnodes in their order"),
    AT_ROW_INT(struct args, pp, "pp", "P", 1, 256, NULL, "likewise"),
    AT_ROW_FLAG(struct args, recompute, "recompute", "compute activations again in any case (default: if it helps)"),
};

enum { TABLE_ROWS = 48 };

/* Bytes per parameter: of an update (sparse: after its dense start), of what a rank keeps (weights, public weights,
 * gradient, m, v; error feedback; momentum), and of the room for one update, whole and, with fragments, of what goes
 * whole. Measured with 10m and the usual k, statistics included. */
static at_err exchange_of(const char *outer, uint32_t tau, struct at_diag *diag, struct at_cost_exchange *ret)
{
    static const struct {
        double update, keeps, blob, sparse;
    } bytes[] = {[AT_OUTER_MEAN] = {4.07, 20, 4.03, 0},
                 [AT_OUTER_DILOCO] = {0.53, 28, 0.83, 0},
                 [AT_OUTER_SPARSE] = {0.0264, 28, 0.83, 0.49},
                 [AT_OUTER_AUTO] = {0.0264, 28, 4.03, 1.04}};
    enum at_outer_kind kind;
    at_err_t err = at_outer_kind_find(outer, diag, &kind);
    if (err != AT_OK) return err;
    bool some_whole = bytes[kind].sparse > 0;
    ret->bytes_per_param = bytes[kind].update;
    ret->memory_per_param = bytes[kind].keeps;
    ret->blob_per_param = tau == 0 && some_whole ? bytes[kind].sparse : bytes[kind].blob;
    ret->fragments = tau == 0 && !some_whole;
    return AT_OK;
}

/* The model and how it is trained: a preset, or a config.json with the training settings of the preset next in size. */
struct job {
    const char *name;
    struct at_model_config model;
    struct at_train_config train;
};

static const struct at_preset *next_in_size(const struct at_model_config *model)
{
    int count;
    const struct at_preset *list = at_preset_list(&count), *best = &list[0];
    double size = (double)at_model_params(model), best_ratio = 1e30;
    for (int i = 0; i < count; i++) {
        double other = (double)at_model_params(&list[i].model), ratio = other > size ? other / size : size / other;
        if (ratio >= best_ratio) continue;
        best = &list[i];
        best_ratio = ratio;
    }
    return best;
}

/* The last part of a path, if a plan file can name a model so. */
static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
    bool plain = name[0] != '\0' && strlen(name) <= AT_PLAN_NAME_MAX;
    for (const char *c = name; *c != '\0'; c++) plain = plain && *c > ' ' && *c < 127;
    return plain ? name : "config.json";
}

static at_err read_job(const struct args *a, struct at_diag *diag, struct job *j)
{
    const struct at_preset *preset = NULL;
    at_err_t err = AT_OK;
    if (a->config != NULL) {
        struct at_buf text = {0};
        err = at_file_read(a->config, 65536, diag, &text);
        if (err == AT_OK) err = at_hf_read_config(at_buf_span(&text), a->config, diag, &j->model);
        at_buf_release(&text);
        if (err != AT_OK) return err;
        j->name = file_name(a->config);
        preset = next_in_size(&j->model);
    } else {
        if ((err = at_preset_find(a->preset, diag, &preset)) != AT_OK) return err;
        j->name = preset->name;
        j->model = preset->model;
    }
    j->train = preset->train;
    if (a->batch.given) j->train.batch = (uint32_t)a->batch.v;
    if (a->steps.given) j->train.steps = (uint32_t)a->steps.v;
    return at_train_config_check(&j->train, diag);
}

static at_err read_nodes(const struct args *a, struct at_diag *diag, struct at_plan_nodes *ret_nodes)
{
    struct at_buf text = {0};
    if (a->nodes == NULL)
        return at_fail(diag, AT_E_USAGE, "--nodes",
                       "needed: a file with the measured machines; `atoll bench node` "
                       "prints an entry for this one");
    at_err_t err = at_file_read(a->nodes, AT_NODES_FILE_BYTES_MAX, diag, &text);
    if (err == AT_OK) err = at_nodes_parse(at_buf_span(&text), a->nodes, diag, ret_nodes);
    at_buf_release(&text);
    return err;
}

/* ---- for people ---- */

static void print_rank(const struct at_plan_nodes *nodes, const struct at_plan *plan, const struct at_planner_report *r,
                       int rank, int name_width)
{
    struct at_place p = at_plan_place(plan, rank);
    const struct at_plan_node *n = &nodes->node[plan->node[rank]];
    char replica[16] = "", stage[16] = "", layers[48] = "", use[64];
    if (p.tp_rank == 0) {
        int last = p.at->layer_first + p.at->layers - 1;
        if (p.stage == 0) snprintf(replica, sizeof replica, "%d", p.replica);
        snprintf(stage, sizeof stage, "%d", p.stage);
        if (p.at->layers == 1)
            snprintf(layers, sizeof layers, "%d%s", last, p.last ? " + head" : "");
        else
            snprintf(layers, sizeof layers, "%d-%d%s", p.at->layer_first, last, p.last ? " + head" : "");
    }
    snprintf(use, sizeof use, "%s of %s", at_plan_size_of(r->rank[rank].bytes).s,
             at_plan_size_of((double)n->memory_bytes).s);
    printf("%7s  %5s  %-13s  %-*s  %8.4g  %-18s  %3.0f %%\n", replica, stage, layers, name_width, n->name, n->gflops,
           use, 100 * r->rank[rank].busy);
}

static void print_table(const struct at_plan_nodes *nodes, const struct at_plan *plan,
                        const struct at_planner_report *r)
{
    int width = 4;
    for (int i = 0; i < plan->ranks && i < TABLE_ROWS; i++) {
        int n = (int)strlen(nodes->node[plan->node[i]].name);
        width = n > width ? n : width;
    }
    printf("replica  stage  %-13s  %-*s  %8s  %-18s  busy\n", "layers", width, "node", "GFLOP/s", "memory");
    for (int i = 0; i < plan->ranks && i < TABLE_ROWS; i++) print_rank(nodes, plan, r, i, width);
    if (plan->ranks > TABLE_ROWS) printf("... and %d more ranks: --json lists all\n", plan->ranks - TABLE_ROWS);
}

static void print_plan(const struct at_planner_options *o, const struct at_plan_nodes *nodes,
                       const struct at_plan *plan, const struct at_planner_report *r)
{
    printf("%s, %s parameters: %s tokens/s from %d of %d nodes\n", o->name,
           at_count((double)at_model_params(o->model)).s, at_count(r->tokens_per_s).s, plan->ranks, nodes->count);
    printf("%d replica%s, %d microbatch%s of a step's %u sequences%s\n\n", plan->replicas,
           plan->replicas == 1 ? "" : "s", plan->microbatches, plan->microbatches == 1 ? "" : "es", o->train->batch,
           r->recompute ? ", activations recomputed" : "");
    print_table(nodes, plan, r);
    printf("\n");
    for (int i = 0; i < r->whys; i++) printf("- %s\n", r->why[i].s);
    if (r->spares != 0) printf("\nspare: ready, without a part of the model\n");
    for (int i = 0; i < r->spares && i < 12; i++)
        printf("- %s: %s\n", nodes->node[r->spare[i]].name, r->spare_why[i].s);
    if (r->spares > 12) printf("- ... and %d more: --json lists all\n", r->spares - 12);
}

/* ---- running ---- */

static at_err set_options(const struct args *a, const struct job *j, struct at_diag *diag, struct at_planner_options *o)
{
    at_planner_options_default(o, j->name, &j->model, &j->train);
    o->replicas = (int)a->replicas.v;
    o->microbatches = (int)a->microbatches.v;
    if (a->recompute) o->recompute = 1;
    o->exchange.tau = (uint32_t)a->tau.v;
    if (a->steps_min.given && a->steps_min.v > j->train.steps)
        return at_fail(diag, AT_E_USAGE, "--steps-min", "%u: a round has %u steps at most", (unsigned)a->steps_min.v,
                       j->train.steps);
    if (a->steps_min.given) o->exchange.steps_min = (uint32_t)a->steps_min.v;
    return exchange_of(a->outer, o->exchange.tau, diag, &o->exchange);
}

/* The split that `atoll train` makes from the same options, rank i on node i. */
static at_err uniform(const struct args *a, const struct at_planner_options *o, const struct at_plan_nodes *nodes,
                      struct at_diag *diag, struct at_plan *ret_plan, struct at_planner_report *ret_report)
{
    struct at_planner_options fixed = *o;
    struct at_plan plan;
    int R = o->replicas != 0 ? o->replicas : 1, P = a->pp.given ? (int)a->pp.v : 1, T = a->tp.given ? (int)a->tp.v : 1;
    uint32_t M = o->microbatches != 0 ? (uint32_t)o->microbatches : P > 1 ? 4 * (uint32_t)P : 4;
    if (o->microbatches == 0 && M > o->train->batch) M = o->train->batch;
    at_err_t err = at_plan_uniform(&plan, o->model, R, P, T, (int)M, o->train->batch, diag);
    if (err != AT_OK) return err;
    if (plan.ranks > nodes->count)
        err = at_fail(diag, AT_E_USAGE, "--nodes", "%d ranks need a node each, and there are %d", plan.ranks,
                      nodes->count);
    fixed.recompute = a->recompute;
    for (int i = 0; i < plan.ranks; i++) plan.node[i] = i;
    if (err == AT_OK) err = at_planner_predict(&fixed, nodes, &plan, diag, ret_report);
    if (err == AT_OK)
        *ret_plan = plan;
    else
        at_plan_release(&plan);
    return err;
}

/* ---- the plan that a run follows ---- */
static json_t *part_json(const struct at_member *m, uint32_t replica, const struct at_part *part, const char *why)
{
    json_t *o = json_object();
    AT_ASSERT(o != NULL);
    at_json_set_text(o, "name", m->name);
    at_json_set_text(o, "id", at_node_id_hex(&m->id).s);
    at_json_set_int(o, "replica", replica);
    at_json_set_text(o, "part", at_part_word(part));
    at_json_set_text(o, "part_why", why);
    if (part->line_kbit != 0) at_json_set_real(o, "line_mbit_s", (double)part->line_kbit / 1000);
    if (part->stages == 0) return o;
    at_json_set_int(o, "stage", part->stage);
    at_json_set_int(o, "stages", part->stages);
    at_json_set_int(o, "layer_first", part->layer_first);
    at_json_set_int(o, "layers", part->layers);
    if (part->step_us != 0) at_json_set_real(o, "step_s", (double)part->step_us / 1e6);
    return o;
}

/* Groups one after the other, then who does not train. */
static void show_parts(const struct at_ledger *l, json_t *list)
{
    uint32_t groups = 0;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t lead = 0; lead < l->member_count; lead++) {
            const struct at_grouped *g = &l->groups[lead];
            bool trains = g->size > 0;
            if (g->role == AT_GROUP_ROLE_NONE || (pass == 0) != trains || (trains && g->place != 0)) continue;
            groups += trains;
            for (uint32_t r = lead; r != AT_GROUP_END; r = trains ? l->groups[r].next : AT_GROUP_END) {
                struct at_part part = at_ledger_part(l, r);
                char why[AT_PART_TEXT], group[16] = "";
                at_part_text(&part, why);
                if (trains) snprintf(group, sizeof group, "%u", groups);
                if (list != NULL)
                    AT_ASSERT(json_array_append_new(list, part_json(&l->members[r], r, &part, why)) == 0);
                else
                    printf("%-5s %-6s %-12s %s\n", group, at_part_word(&part), l->members[r].name, why);
            }
        }
}

static at_err show_run(struct at_cli *cli, const char *dir)
{
    struct at_cli_ledger l = {0};
    at_err_t err = at_cli_ledger_open(dir, &cli->diag, &l);
    if (err == AT_OK) err = at_cli_ledger_fold(&l, &cli->diag);
    if (err == AT_OK && at_genesis_stages(&l.ledger.genesis) == 1)
        err = at_fail(&cli->diag, AT_E_USAGE, "--dir", "members of this run work alone: there is no plan of parts");
    if (err == AT_OK && cli->json) {
        json_t *list = json_array();
        AT_ASSERT(list != NULL);
        show_parts(&l.ledger, list);
        at_json_set_int(at_cli_answer(cli), "round", l.ledger.round);
        at_json_set(at_cli_answer(cli), "members", list);
    } else if (err == AT_OK) {
        printf("%-5s %-6s %-12s %s\n", "group", "part", "member", "why");
        show_parts(&l.ledger, NULL);
    }
    at_cli_ledger_release(&l);
    return err;
}

static at_err_t run(struct at_cli *cli, void *args)
{
    const struct args *a = args;
    struct job job = {0};
    struct at_plan_nodes nodes = {0};
    struct at_planner_options o;
    struct at_plan plan = {0};
    struct at_planner_report report = {0};
    if (a->dir != NULL) return show_run(cli, a->dir);
    at_err_t err = read_job(a, &cli->diag, &job);
    if (err == AT_OK) err = set_options(a, &job, &cli->diag, &o);
    if (err == AT_OK) err = read_nodes(a, &cli->diag, &nodes);
    if (err == AT_OK)
        err = a->tp.given || a->pp.given ? uniform(a, &o, &nodes, &cli->diag, &plan, &report)
                                         : at_planner_make(&o, &nodes, &cli->diag, &plan, &report);
    if (err == AT_OK && cli->json) {
        cli->answer = at_plan_file_json(&o, &nodes, &plan, &report);
        if (cli->answer == NULL) err = at_fail(&cli->diag, AT_E_NOMEM, "plan", "no memory for the answer");
    } else if (err == AT_OK) {
        print_plan(&o, &nodes, &plan, &report);
    }
    at_planner_report_release(&report);
    at_plan_release(&plan);
    at_plan_nodes_release(&nodes);
    return err;
}

const struct at_command at_cmd_plan = {
    .name = "plan",
    .summary = "who should compute what: a model split over measured machines",
    .usage = "--nodes FILE [--preset P | --config F] [--replicas R] [--outer KIND] [--json] | --dir D [--json]",
    .about =
        "Reads the speed and memory of machines and what the links between them do, and answers with replicas (copies\n"
        "of the model), stages (runs of layers) and tensor ranks (shares of a layer, only within 1 ms): who holds\n"
        "what, how fast the run will be, what holds it up, and why. `--json` writes the plan file that\n"
        "`atoll train --plan` reads. A plan never changes results: every split gives the same bits.",
    .examples = "  atoll bench node --json            an entry for this machine\n"
                "  atoll plan --preset 124m --nodes nodes.json\n"
                "  atoll plan --preset 124m --nodes nodes.json --json > plan.json\n"
                "  atoll plan --dir D                 the parts of a run's members\n",
    AT_ROWS(rows),
    .args_bytes = sizeof(struct args),
    .run = run,
};
