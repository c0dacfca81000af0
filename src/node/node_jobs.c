/* node_jobs.c: what the machine asks for and takes long: states, units, checks. A job is done by a worker beside the loop
 * (node_worker.h), then its result is an event. */
#include "node/node_drive.h"

#include <math.h>
#include <stdlib.h>

/* A piece of work for a worker: input, then result. `list` is owned. */
struct job {
    struct at_work work;
    struct node *n;
    enum at_node_op_kind kind;
    uint32_t round, steps, stage;
    uint64_t link;
    struct at_hash key;
    enum at_blob_kind blob;
    bool evaluate;
    struct at_compute_unit unit;
    struct at_team *team; /* it is computed with; a reference */
    struct at_comm comm;
    uint32_t session;
    struct at_compute_part *list;
    int count;
    at_err_t err;
    struct at_diag diag;
    struct at_compute_state state;
    struct at_compute_done unit_done;
    struct at_vault_search search;
};

static void job_free(struct job *j)
{
    at_compute_state_release(&j->state);
    at_vault_search_release(&j->search);
    at_team_put(j->team);
    free(j->list);
    free(j);
}

static struct job *job_new(struct node *n, const struct at_node_op *op, void (*run)(struct at_work *),
                           void (*done)(struct at_work *))
{
    struct job *j = calloc(1, sizeof *j);
    if (!j) {
        struct at_diag diag = {0};
        node_fail(n, at_fail(&diag, AT_E_NOMEM, n->folder.dir, "out of memory"), &diag);
        return NULL;
    }
    j->work.run = run;
    j->work.done = done;
    j->n = n;
    j->kind = op->kind;
    j->round = op->round;
    j->key = op->kind == AT_NODE_OP_BLOB_FINISH ? op->read.key : op->root;
    j->blob = op->read.kind;
    j->evaluate = op->evaluate;
    return j;
}

/* ---- states: STATE_INIT, STATE_INSTALL, APPLY ---- */
static void run_state(struct at_work *work)
{
    struct job *j = (struct job *)work;
    struct at_compute *c = j->n->compute;
    char path[AT_PATH_BYTES];
    if (j->kind == AT_NODE_OP_STATE_INIT) {
        j->err = at_compute_genesis(c, j->evaluate, &j->diag, &j->state);
    } else if (j->kind == AT_NODE_OP_APPLY) {
        j->err = at_compute_apply(c, j->round, j->list, j->count, j->evaluate, &j->diag, &j->state);
    } else {
        j->err = at_vault_state_path(&j->n->vault, j->key, &j->diag, path);
        if (!j->err) j->err = at_compute_install(c, path, j->round, j->key, &j->diag, &j->state);
    }
}

/* A fetched state may be wrong, and is then fetched again; our own arithmetic may not. */
static void state_done(struct at_work *work)
{
    struct job *j = (struct job *)work;
    struct node *n = j->n;
    struct at_node_event ev = {.kind = j->kind == AT_NODE_OP_APPLY ? AT_NODE_EV_APPLIED : AT_NODE_EV_STATE_READY};
    bool foreign = j->kind == AT_NODE_OP_STATE_INSTALL && at_err_exit_code(j->err) != 5 && j->err != AT_E_INTERNAL;
    ev.state.round = j->round;
    ev.state.ok = j->err == AT_OK;
    ev.state.root = j->state.root;
    ev.state.heldout_loss = j->err ? (double)NAN : j->state.heldout_loss;
    if (n->ending) {
        job_free(j);
        return;
    }
    if (j->err && !foreign)
        node_fail(n, j->err, &j->diag);
    else if (j->err)
        node_log(n, AT_NODE_LOG_WARNING, "the state that was fetched is wrong: %s", j->diag.text);
    else
        at_vault_hold_state(&n->vault, j->state.held);
    job_free(j);
    node_feed(n, &ev);
}

static void do_state(struct node *n, const struct at_node_op *op)
{
    struct job *j = job_new(n, op, run_state, state_done);
    if (!j) return;
    if (op->kind == AT_NODE_OP_STATE_INIT) j->round = 0;
    if (op->kind == AT_NODE_OP_APPLY && op->apply.count > 0) {
        j->count = (int)op->apply.count;
        j->list = calloc(op->apply.count, sizeof *j->list);
        for (int i = 0; j->list && i < j->count; i++)
            j->list[i] =
                (struct at_compute_part){op->apply.list[i].update, op->apply.list[i].tokens, op->apply.list[i].unit};
        if (!j->list) {
            struct at_diag diag = {0};
            job_free(j);
            node_fail(n, AT_E_NOMEM, &diag);
            return;
        }
    }
    if (op->kind == AT_NODE_OP_APPLY && n->save_open && op->round >= n->save_round + NODE_SAVE_LAG) { /* node_drive.h */
        AT_ASSERT(!n->waiting_for_save);
        n->waiting_for_save = &j->work;
    } else {
        at_worker_push(&n->computer, &j->work);
    }
}

/* ---- units ---- */
struct step_sink {
    struct node *n;
    const struct at_compute_unit *unit;
};

static void on_step(void *user, uint32_t step, uint64_t tokens, double tokens_per_s)
{
    struct step_sink *s = user;
    struct node *n = s->n;
    pthread_mutex_lock(&n->progress_mutex);
    n->progress.fresh = true;
    n->progress.serial = s->unit->serial;
    n->progress.round = s->unit->round;
    n->progress.step = step;
    n->progress.tokens = tokens;
    n->progress.tokens_per_s = tokens_per_s;
    pthread_mutex_unlock(&n->progress_mutex);
    uv_async_send(&n->work_ready);
}

static void run_unit(struct at_work *work)
{
    struct job *j = (struct job *)work;
    struct step_sink sink = {j->n, &j->unit};
    j->err = at_compute_unit(j->n->compute, &j->unit, on_step, &sink, &j->diag, &j->unit_done);
}

static void unit_done(struct at_work *work)
{
    struct job *j = (struct job *)work;
    struct node *n = j->n;
    bool lost = j->team && j->err == AT_E_PEER;
    struct at_node_event ev = {.kind = lost     ? AT_NODE_EV_UNIT_LOST
                                       : j->err ? AT_NODE_EV_UNIT_FAILED
                                                : AT_NODE_EV_UNIT_DONE,
                               .reason = j->diag.text};
    bool wanted = !n->ending && j->err != AT_E_INTERRUPTED && j->unit.serial == n->unit_serial;
    ev.unit.round = j->unit.round;
    ev.unit.session = j->session;
    ev.unit.step = ev.unit.steps = j->unit_done.steps;
    ev.unit.samples = j->unit_done.samples;
    ev.unit.tokens = j->unit_done.tokens;
    ev.unit.update_bytes = j->unit_done.update_bytes;
    ev.unit.tokens_per_s = j->unit_done.tokens_per_s;
    ev.unit.heldout = j->unit_done.heldout;
    ev.unit.share_ms = j->unit_done.share_ms;
    ev.unit.update = j->unit_done.update;
    ev.unit.feedback = j->unit_done.feedback;
    if (j->unit_done.feedback_lost)
        node_log(n, AT_NODE_LOG_WARNING,
                 "what earlier updates left over (error feedback) is not in this folder; it begins at zero again");
    if (wanted && at_err_exit_code(j->err) == 5) /* a full disk does not go away by trying again */
        node_fail(n, j->err, &j->diag);
    else if (wanted)
        node_feed(n, &ev);
    job_free(j);
}

static void on_team(void *user)
{
    uv_async_send(&((struct node *)user)->work_ready);
}

static void do_group(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    node_team_end(n);
    n->team = at_team_new(op->team, on_team, n);
    if (!n->team) node_fail(n, at_fail(&diag, AT_E_NOMEM, n->folder.dir, "out of memory"), &diag);
}

static void do_unit(struct node *n, const struct at_node_op *op)
{
    struct job *j = job_new(n, op, run_unit, unit_done);
    if (!j) return;
    j->unit = (struct at_compute_unit){.round = op->unit.round,
                                       .replica = op->unit.replica,
                                       .samples = op->unit.samples,
                                       .start = op->unit.start,
                                       .counted = op->counted,
                                       .budget_ms = op->unit.budget_ms,
                                       .stop_at = op->unit.stop_at,
                                       .heldout = op->unit.heldout,
                                       .serial = ++n->unit_serial};
    if (op->team) {
        AT_ASSERT(n->team && at_team_session(n->team) == op->team->session);
        at_team_join(n->team, op->team);
        at_team_keep(n->team);
        j->team = n->team;
        j->session = op->team->session;
        j->comm = at_team_comm(n->team);
        j->unit.comm = &j->comm;
        j->unit.cut = op->team->cut;
    }
    at_worker_push(&n->computer, &j->work);
}

/* ---- blobs ---- */
static void run_finish(struct at_work *work)
{
    struct job *j = (struct job *)work;
    j->err = at_vault_finish(&j->n->vault, j->blob, j->key, &j->diag);
}

static void finish_done(struct at_work *work)
{
    struct job *j = (struct job *)work;
    struct at_node_event ev = {.kind = AT_NODE_EV_BLOB_STORED};
    ev.blob.kind = j->blob;
    ev.blob.key = j->key;
    ev.blob.ok = j->err == AT_OK;
    ev.blob.wrong = j->err == AT_E_VERIFY;
    if (at_err_exit_code(j->err) == 5)
        node_fail(j->n, j->err, &j->diag);
    else
        node_feed(j->n, &ev);
    job_free(j);
}

/* Which tiles of a state are here: what an earlier fetch left, and what the states held have in common with it. */
static void run_find(struct at_work *work)
{
    struct job *j = (struct job *)work;
    j->err = at_vault_find(&j->search, &j->diag);
}

static void find_done(struct at_work *work)
{
    struct job *j = (struct job *)work;
    struct at_node_event ev = {.kind = AT_NODE_EV_TILES_FOUND};
    ev.blob.key = j->key;
    ev.blob.ok = j->err == AT_OK;
    ev.bytes = at_span(j->search.found, ((size_t)j->search.tiles + 7) / 8);
    if (j->err)
        node_fail(j->n, j->err, &j->diag);
    else
        node_feed(j->n, &ev);
    job_free(j);
}

static void do_find(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    struct job *j = job_new(n, op, run_find, find_done);
    if (!j) return;
    at_err_t err = at_vault_search_init(&n->vault, op->root, op->bytes, &diag, &j->search);
    if (err) {
        job_free(j);
        node_fail(n, err, &diag);
        return;
    }
    at_compute_state_header(n->compute, op->round, j->search.header);
    at_worker_push(&n->disk, &j->work);
}

/* A steward's look at a member's update. */
static void run_check(struct at_work *work)
{
    struct job *j = (struct job *)work;
    struct at_compute_claim claim = {j->round, j->unit.samples, j->steps, j->unit.start, j->stage, j->unit.cut};
    j->err = at_compute_check_update(j->n->compute, &j->n->vault.updates_writer, j->key, &claim, &j->diag);
}

static void check_done(struct at_work *work)
{
    struct job *j = (struct job *)work;
    struct at_node_event ev = {.kind = AT_NODE_EV_UPDATE_CHECKED, .link = j->link, .reason = j->diag.text};
    ev.blob.kind = AT_BLOB_UPDATE;
    ev.blob.key = j->key;
    ev.blob.ok = j->err == AT_OK;
    if (at_err_exit_code(j->err) == 5)
        node_fail(j->n, j->err, &j->diag);
    else
        node_feed(j->n, &ev);
    job_free(j);
}

static void do_check(struct node *n, const struct at_node_op *op)
{
    struct job *j = job_new(n, op, run_check, check_done);
    if (!j) return;
    j->key = op->read.key;
    j->link = op->link;
    j->round = op->unit.round;
    j->steps = op->unit.steps;
    j->stage = op->unit.stage;
    j->unit = (struct at_compute_unit){.samples = op->unit.samples, .start = op->unit.start, .cut = op->unit.cut};
    at_worker_push(&n->disk, &j->work);
}

static void do_finish(struct node *n, const struct at_node_op *op)
{
    struct job *j = job_new(n, op, run_finish, finish_done);
    if (j) at_worker_push(&n->disk, &j->work);
}

void node_job(struct node *n, const struct at_node_op *op)
{
    switch (op->kind) {
    case AT_NODE_OP_BLOB_FINISH:
        do_finish(n, op);
        break;
    case AT_NODE_OP_TILES_FIND:
        do_find(n, op);
        break;
    case AT_NODE_OP_UPDATE_CHECK:
        do_check(n, op);
        break;
    case AT_NODE_OP_UNIT_START:
        do_unit(n, op);
        break;
    case AT_NODE_OP_GROUP:
        do_group(n, op);
        break;
    default: /* STATE_INIT, STATE_INSTALL, APPLY */
        do_state(n, op);
        break;
    }
}
