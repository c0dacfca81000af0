#include "cli/train_split.h"

#include "cli/train_probe.h"
#include "cli/train_rounds.h"
#include "cli/train_save.h"
#include "cli/train_show.h"
#include "os/sys.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FIGURES_TAG 1000 /* beyond those of parallel/; train_probe.c has the next */
#define PROBE_EVERY 16   /* rounds, and as many times the usual number of inner steps: links change */

enum order_kind { ORDER_ROUND = 1, ORDER_SAVE, ORDER_PROBE, ORDER_END };
struct order { /* rank 0's, what comes next; plain values of one program */
    uint32_t kind;
    struct at_round round;
};
struct starts { /* with a round: each replica's first sample */
    uint64_t first[AT_OUTER_REPLICAS_MAX];
};

struct run {
    const struct at_train_setup *setup;
    const struct at_comm *comm;
    const struct at_exec *ex;
    struct at_screen *screen;
    struct at_train_show show; /* also what this rank knows of the time, the loss and the round under way */
    struct at_rank *rank;
    struct at_train_files files;
    struct at_train_diary diary; /* rank 0's */
    struct starts *starts;
    uint32_t rounds_here, probed_at, saved_at; /* rounds begun by this process; when links were measured, when saved */
    uint64_t steps_here, probed_steps;
    bool probed;
    struct at_round before;     /* the round before that of `show` */
    struct at_rank_report last; /* of the last round in the state */
    bool looked;                /* at the held-out text since then */
    struct at_rank_figures figures;
    double saved_s, save_cost_s, unit_seconds;
    bool cut;            /* rank 0's unit, by an interrupt */
    uint32_t unit_steps; /* of this rank's replica in the round under way */
    struct at_split_result result;
};

static double clock_s(void *unused)
{
    return at_train_clock();
}

struct at_rank_options at_split_options(const struct at_train_setup *s)
{
    return (struct at_rank_options){.plan = &s->plan,
                                    .model = &s->preset->model,
                                    .train = &s->config,
                                    .outer = &s->outer,
                                    .data = &s->data,
                                    .recompute = s->recompute,
                                    .seconds = clock_s};
}

uint64_t at_split_bytes(const struct at_train_setup *s, int rank)
{
    struct at_rank_options o = at_split_options(s);
    return at_rank_bytes(&o, rank);
}

at_err_t at_split_tell_memory(const struct at_train_setup *s, struct at_diag *diag)
{
    uint64_t sum = 0, most = 0, available = at_sys_memory_available();
    const struct at_plan *plan = &s->plan;
    at_say("%s: %s parameters; %d replica%s, %d rank%s, %d microbatch%s", s->preset->name,
           at_count((double)at_model_params(&s->preset->model)).s, plan->replicas, plan->replicas == 1 ? "" : "s",
           plan->ranks, plan->ranks == 1 ? "" : "s", plan->microbatches, plan->microbatches == 1 ? "" : "es");
    for (int i = 0; i < plan->ranks; i++) {
        uint64_t need = at_split_bytes(s, i);
        struct at_shard shard = at_plan_shard(plan, &s->preset->model, i);
        if (need == 0) return at_fail(diag, AT_E_NOMEM, s->preset->name, "the model does not fit an address space");
        sum += need;
        most = need > most ? need : most;
        if (plan->ranks <= 16)
            at_say("%s: layers %d-%d, slots %d-%d, needs %s", s->name[i], shard.layer_first,
                   shard.layer_first + shard.layers - 1, shard.slot_first, shard.slot_first + shard.slots - 1,
                   at_bytes(need).s);
    }
    at_say("memory: %s in all, at most %s a rank%s%s%s", at_bytes(sum).s, at_bytes(most).s, available ? "; " : "",
           available ? at_bytes(available).s : "", available ? " available here" : "");
    uint64_t here = s->node < 0 ? sum : most;
    if (s->node < 0 && s->file.hosts > 1)
        at_say("all %d nodes of the plan run on this machine; with --node each machine runs its own", s->file.hosts);
    if (available != 0 && here > available)
        return at_fail(
            diag, AT_E_NOMEM, s->preset->name,
            "needs %s of memory and %s are available; take a smaller preset, more stages on more machines, or "
            "--recompute",
            at_bytes(here).s, at_bytes(available).s);
    return AT_OK;
}

void at_split_result_release(struct at_split_result *r)
{
    free(r->figures);
    json_decref(r->round_list);
    *r = (struct at_split_result){0};
}

/* ---- the run ------------------------------------------------------------------------------------------------------ */

/* Rank 0's interrupt is seen by next_order, once the round is done; or now, where nothing is kept of it. */
static bool on_step(void *arg, const struct at_unit_progress *p)
{
    struct run *r = arg;
    const struct at_train_show *show = &r->show;
    char who[32];
    snprintf(who, sizeof who, "%d rank%s", r->comm->ranks, r->comm->ranks == 1 ? "" : "s");
    r->unit_steps = p->step;
    r->unit_seconds = at_train_clock() - show->start_s;
    at_train_show_step(&r->show, who, 0, p, true);
    if (show->round.seconds > 0 && r->unit_seconds >= show->round.seconds) return false;
    if (!at_interrupted()) return true;
    r->cut = r->comm->rank == 0 && r->setup->args->out == NULL;
    if (r->comm->rank == 0) return !r->cut;
    if (r->setup->node >= 0) /* another machine's Ctrl-C: rank 0 cannot know */
        r->comm->ops->fail(r->comm->link, AT_E_INTERRUPTED, r->setup->args->node,
                           "interrupted on this node; the last checkpoint is whole");
    return true;
}

static at_err heldout(struct run *r, struct at_diag *diag)
{
    r->looked = true;
    return at_rank_heldout(r->rank, diag, &r->show.loss);
}

/* A step's time before there was one: backward takes twice as long as forward. The replicas share the windows. */
static double guess_step_seconds(const struct at_train_setup *s, double heldout_seconds)
{
    double windows = (double)s->data.windows / s->replicas;
    return 3 * heldout_seconds / (windows > 1 ? windows : 1) * s->config.batch;
}

static at_err begin(struct run *r, struct at_diag *diag)
{
    struct at_rank_options options = at_split_options(r->setup);
    uint32_t rounds = 0;
    struct at_hash root = {{0}};
    at_err_t err = at_train_tell_all(r->comm, at_rank_init(&r->rank, r->comm, r->ex, &options, diag), diag);
    if (err != AT_OK) return err;
    at_sys_memory_huge();
    r->files = (struct at_train_files){
        .comm = r->comm, .rank = r->rank, .setup = r->setup, .momentum = at_outer_config_momentum(options.outer)};
    r->figures.bytes_planned = at_rank_bytes(&options, r->comm->rank);
    if (r->setup->args->resume != NULL) {
        err = at_train_files_load(&r->files, r->setup->args->resume, diag, &rounds, &root);
        if (err != AT_OK) return err;
        r->result.rounds = rounds;
        if (r->screen != NULL)
            at_screen_say(r->screen, "goes on from %s, after round %u", r->setup->args->resume, rounds);
    }
    if (r->comm->rank == 0) {
        err = at_train_tell_all(r->comm, at_diary_begin(&r->diary, r->setup, rounds, root, diag), diag);
        r->files.diary = &r->diary;
    }
    double start_s = at_train_clock();
    if (err == AT_OK) err = heldout(r, diag);
    if (err != AT_OK) return err;
    r->diary.measured.step_seconds = guess_step_seconds(r->setup, at_train_clock() - start_s);
    r->result.loss_first = r->show.loss;
    r->show.tokens_before = r->diary.tokens;
    if (r->screen != NULL) at_screen_say(r->screen, "held-out loss before: %.4f nats/byte", r->result.loss_first);
    r->saved_s = at_train_clock();
    return AT_OK;
}

/* ---- the orders ---------------------------------------------------------------------------------------------------- */

static bool save_is_due(const struct run *r)
{
    return r->setup->args->out != NULL && r->rounds_here != r->saved_at &&
           at_train_save_due(r->setup->args, at_train_clock() - r->saved_s, r->save_cost_s);
}

static struct order next_order(struct run *r)
{
    struct order o = {.kind = ORDER_ROUND};
    bool due = !r->probed || (r->rounds_here - r->probed_at >= PROBE_EVERY &&
                              r->steps_here - r->probed_steps >= PROBE_EVERY * (uint64_t)r->setup->config.steps);
    if (r->setup->outer.kind == AT_OUTER_AUTO && due) {
        o.kind = ORDER_PROBE;
        r->probed = true;
        r->probed_at = r->rounds_here;
        r->probed_steps = r->steps_here;
        return o;
    }
    o.round = at_diary_next(&r->diary);
    r->result.interrupted = at_interrupted() && (o.round.steps != 0 || r->cut);
    bool over = o.round.steps == 0 || r->result.interrupted;
    if (!over && save_is_due(r)) o.kind = ORDER_SAVE;
    if (over) o.kind = ORDER_END;
    return o;
}

/* The journal, once a round is in the state. */
static at_err note_round(struct run *r, const struct at_rank_report *report, struct at_diag *diag)
{
    const struct at_update_info *consumed[AT_OUTER_REPLICAS_MAX];
    for (int i = 0; i < r->setup->replicas; i++) consumed[i] = at_rank_consumed(r->rank, i);
    return at_diary_done(&r->diary, report->round, consumed, report->tokens, diag);
}

/* Of the last round that is in the state. */
static const struct at_round *last_round(const struct run *r)
{
    return r->last.round == r->show.round.round ? &r->show.round : &r->before;
}

static void note_time(struct run *r)
{
    double now_s = at_train_clock();
    r->show.train_seconds += now_s - r->show.start_s;
    r->show.start_s = now_s;
}

/* The held-out text, and a line about it. Collective. */
static at_err look(struct run *r, struct at_diag *diag)
{
    at_err_t err = heldout(r, diag);
    note_time(r);
    if (err == AT_OK) at_train_show_round(&r->show, last_round(r), r->last.loss_mean);
    return err;
}

/* What a round has brought. */
static at_err account(struct run *r, const struct at_rank_report *report, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    r->figures.bytes_sent += report->bytes_sent;
    r->figures.update_bytes += report->update_bytes;
    r->figures.exchange_seconds += report->exchange_seconds;
    if (!report->applied) return AT_OK;
    if (r->comm->rank == 0) {
        err = at_train_tell_all(r->comm, note_round(r, report, diag), diag);
        if (err != AT_OK) return err;
    }
    r->show.tokens += report->tokens;
    r->result.rounds = report->round + 1;
    r->last = *report;
    r->looked = false;
    if (at_train_looks(r->setup, last_round(r))) return look(r, diag);
    note_time(r);
    return AT_OK;
}

static at_err do_round(struct run *r, const struct at_round *round, struct at_diag *diag)
{
    struct at_rank_report report = {0};
    size_t bytes = (size_t)r->setup->replicas * sizeof r->starts->first[0];
    at_err_t err = AT_OK;
    if (r->comm->rank == 0)
        err = at_train_tell_all(r->comm, at_diary_take(&r->diary, round, diag, r->starts->first), diag);
    if (err == AT_OK) err = at_rank_broadcast(r->rank, r->starts->first, bytes, diag);
    if (err != AT_OK) return err;
    at_rank_set_starts(r->rank, r->starts->first);
    r->before = r->show.round;
    r->rounds_here++;
    r->steps_here += round->steps;
    at_train_show_start(&r->show, round);
    err = at_rank_round(r->rank, round, on_step, r, diag, &report);
    double waited = round->tau > 0 ? report.exchange_seconds : 0; /* with overlap the unit waits for the round before */
    if (err == AT_OK) at_auto_note_steps(&r->diary.measured, r->unit_steps, r->unit_seconds - waited);
    return err == AT_OK ? account(r, &report, diag) : err;
}

/* With overlap the last round is not in the state yet. */
static at_err join(struct run *r, struct at_diag *diag)
{
    struct at_rank_report report = {0};
    r->show.start_s = at_train_clock();
    at_err_t err = at_rank_join(r->rank, diag, &report);
    return err == AT_OK ? account(r, &report, diag) : err;
}

/* After join. */
static at_err save(struct run *r, struct at_diag *diag)
{
    double start_s = at_train_clock();
    at_err_t err = AT_OK;
    if (r->setup->args->out != NULL && r->result.rounds > 0) {
        err = at_train_files_save(&r->files, r->setup->args->out, diag);
        r->show.saved |= err == AT_OK;
    }
    r->saved_s = at_train_clock();
    r->save_cost_s = r->saved_s - start_s;
    r->saved_at = r->rounds_here;
    return err;
}

static at_err do_orders(struct run *r, struct at_diag *diag)
{
    for (;;) {
        struct order o = {0};
        if (r->comm->rank == 0) o = next_order(r);
        at_err_t err = at_rank_broadcast(r->rank, &o, sizeof o, diag);
        if (err == AT_OK && o.kind == ORDER_ROUND) err = do_round(r, &o.round, diag);
        bool end = o.kind == ORDER_END, saves = o.kind == ORDER_SAVE || end;
        if (err == AT_OK && o.kind == ORDER_PROBE) err = at_train_probe(r->setup, r->comm, &r->diary.measured, diag);
        if (err == AT_OK && saves) err = join(r, diag);
        if (err == AT_OK && end && !r->looked) err = look(r, diag);
        if (err == AT_OK && saves) err = save(r, diag);
        if (err != AT_OK || o.kind == ORDER_END) return err;
    }
}

static at_err gather_figures(struct run *r, struct at_diag *diag)
{
    int ranks = r->comm->ranks;
    r->figures.bytes_peak = at_sys_memory_peak();
    if (r->comm->rank != 0)
        return at_comm_wait(r->comm, at_comm_send(r->comm, 0, FIGURES_TAG, &r->figures, sizeof r->figures), diag);
    struct at_rank_figures *all = calloc((size_t)ranks, sizeof *all);
    if (all == NULL) return at_fail(diag, AT_E_NOMEM, "train", "no memory for the figures of %d ranks", ranks);
    all[0] = r->figures;
    at_err_t err = AT_OK;
    for (int i = 1; i < ranks && err == AT_OK; i++)
        err = at_comm_wait(r->comm, at_comm_recv(r->comm, i, FIGURES_TAG, &all[i], sizeof all[i]), diag);
    r->result.figures = all;
    return err;
}

at_err_t at_split_run(const struct at_train_setup *setup, const struct at_comm *comm, const struct at_exec *ex,
                      struct at_screen *screen, struct at_diag *diag, struct at_split_result *ret_result)
{
    struct run r = {.setup = setup, .comm = comm, .ex = ex, .screen = screen, .starts = calloc(1, sizeof *r.starts)};
    at_err_t err = r.starts != NULL ? AT_OK : at_fail(diag, AT_E_NOMEM, "train", "no memory");
    err = at_train_tell_all(comm, err, diag);
    at_train_show_begin(&r.show, setup, screen);
    if (err == AT_OK) err = begin(&r, diag);
    if (err == AT_OK) err = do_orders(&r, diag);
    if (err == AT_OK) err = at_rank_root(r.rank, diag, &r.result.root);
    if (err == AT_OK) err = gather_figures(&r, diag);
    r.result.loss_last = r.show.loss;
    r.result.tokens = r.show.tokens;
    r.result.train_seconds = r.show.train_seconds;
    r.result.round_list = json_incref(r.diary.rounds);
    at_rank_release(r.rank);
    at_diary_release(&r.diary);
    free(r.starts);
    if (err == AT_OK)
        *ret_result = r.result;
    else
        at_split_result_release(&r.result);
    return err;
}
