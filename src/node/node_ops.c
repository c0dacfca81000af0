/* node_ops.c: what the machine asks for, done. */
#include "net/address.h"
#include "node/node_drive.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* ---- the rest ---- */
static void do_persist(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    at_err_t err = at_agree_persist(n->store, op, &diag);
    if (err)
        node_fail(n, err, &diag);
    else
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_PERSISTED});
}

static void do_send(struct node *n, const struct at_node_op *op)
{
    struct at_link_id link = {op->link};
    at_err_t err = at_net_send(n->net, link, op->frame_class, op->bytes);
    if (err == AT_E_TOO_BIG && op->frame_class == AT_FRAME_BULK)
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_LINK_FULL, .link = op->link});
    else if (err && err != AT_E_NOT_FOUND) /* gone: LINK_DOWN is on its way */
        at_net_close(n->net, link, at_err_text(err));
}

/* A member's loopback address is of use to nodes on its own machine alone. A node that listens to the net connects to
 * nothing on its machine because a member says so. */
static bool means_this_machine(const struct node *n, const struct at_endpoint *e)
{
    struct sockaddr_storage sa;
    if (!at_endpoint_loopback(e) || !at_address_numeric(n->folder.host, 1, &sa)) return false;
    struct at_endpoint own = at_address_of((struct sockaddr *)&sa);
    return !at_endpoint_loopback(&own);
}

static void do_dial(struct node *n, const struct at_node_op *op)
{
    const struct at_invite *contact = &n->folder.contact;
    struct at_link_id link = {0};
    char host[48];
    at_err_t err = AT_E_NOT_FOUND;
    if (op->kind == AT_NODE_OP_MEET) {
        err = at_net_meet(n->net, (struct at_link_id){op->link}, op->how, &op->node, &link);
    } else if (op->endpoint.port) {
        at_address_host(&op->endpoint, host);
        if (!means_this_machine(n, &op->endpoint)) err = at_net_dial(n->net, host, op->endpoint.port, &op->node, &link);
    } else if (n->folder.has_contact && at_node_id_eq(&op->node, &contact->node)) {
        err = at_net_dial(n->net, contact->host, contact->port, &op->node, &link);
    }
    if (err)
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_LINK_DOWN, .node = op->node, .dial = op->dial});
    else
        node_dial_add(n, link, op->dial);
}

/* A cache: when it cannot be written, the node goes on, and asks others again after its next start. */
static void do_keep_peers(struct node *n, const struct at_node_op *op)
{
    char path[AT_PATH_BYTES];
    struct at_diag diag = {0};
    struct at_span part = op->bytes;
    at_err_t err = at_folder_path(&n->folder, "peers", &diag, path);
    if (!err) err = at_file_write_atomic(path, &part, 1, 0600, &diag);
    if (err) node_log(n, AT_NODE_LOG_WARNING, "the members' addresses could not be kept: %s", diag.text);
}

static void do_genesis(struct node *n, const struct at_node_op *op)
{
    char path[AT_PATH_BYTES];
    struct at_diag diag = {0};
    at_err_t err = at_folder_path(&n->folder, "ledger.sqlite", &diag, path);
    if (!err) err = at_store_create(path, op->bytes, &diag, &n->store);
    if (!err) err = node_configure(n, at_node_machine_genesis(n->machine), &diag);
    if (err) node_fail(n, err, &diag);
}

static void do_blob(struct node *n, const struct at_node_op *op)
{
    struct node_todo todo = {.blob = op->read.kind,
                             .key = op->read.key,
                             .link = op->link,
                             .offset = op->read.offset,
                             .bytes = op->read.bytes};
    struct at_diag diag = {0};
    struct job *j;
    at_err_t err = AT_OK;
    switch (op->kind) {
    case AT_NODE_OP_BLOB_STAT:
        todo.kind = AT_NODE_EV_BLOB_STATE;
        break;
    case AT_NODE_OP_BLOB_READ:
        todo.kind = AT_NODE_EV_BLOB_DATA;
        break;
    case AT_NODE_OP_BUNDLE_READ:
        todo.kind = AT_NODE_EV_BUNDLE_DATA;
        todo.bytes = op->bundle.count;
        memcpy(todo.keys, op->bundle.keys, op->bundle.count * sizeof *todo.keys);
        break;
    case AT_NODE_OP_BLOB_WRITE:
        if (op->read.kind == AT_BLOB_TILE) {
            err = at_vault_write_tile(&n->vault, op->read.key, op->read.offset, op->bytes, &diag);
            break;
        }
        err = at_vault_write(&n->vault, op->read.kind, op->read.key, op->read.offset, op->bytes, &diag);
        break;
    case AT_NODE_OP_BLOB_DROP:
        at_vault_drop(&n->vault, op->read.kind, op->read.key);
        break;
    case AT_NODE_OP_BLOB_PRUNE:
        err = at_vault_prune(&n->vault, op->prune.keep, op->prune.count, &diag);
        break;
    default:
        if ((j = job_new(n, op, run_finish, finish_done)) != NULL) at_worker_push(&n->disk, &j->work);
        break;
    }
    if (err) node_fail(n, err, &diag);
    if (todo.kind) node_later(n, todo);
}

static void do_end(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    n->run_ended = op->end.run_ended;
    n->finished = op->end.finished;
    snprintf(n->end_reason, sizeof n->end_reason, "%s", op->reason);
    if (op->end.err)
        node_fail(n, at_fail(&diag, op->end.err, n->folder.dir, "%s", op->reason), &diag);
    else
        node_end(n);
}

void node_do(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    at_err_t err;
    switch (op->kind) {
    case AT_NODE_OP_PERSIST:
        do_persist(n, op);
        break;
    case AT_NODE_OP_SEND:
        do_send(n, op);
        break;
    case AT_NODE_OP_DIAL_OFF:
        node_dial_off(n, op->dial);
        break;
    case AT_NODE_OP_DIAL:
    case AT_NODE_OP_MEET:
        do_dial(n, op);
        break;
    case AT_NODE_OP_CLOSE:
        at_net_close(n->net, (struct at_link_id){op->link}, op->reason);
        break;
    case AT_NODE_OP_GENESIS:
        do_genesis(n, op);
        break;
    case AT_NODE_OP_LOG_READ:
        node_later(
            n, (struct node_todo){
                   .kind = AT_NODE_EV_LOG_DATA, .link = op->link, .offset = op->read.offset, .last = op->read.total});
        break;
    case AT_NODE_OP_BLOB_STAT:
    case AT_NODE_OP_BLOB_WRITE:
    case AT_NODE_OP_BLOB_FINISH:
    case AT_NODE_OP_BLOB_DROP:
    case AT_NODE_OP_BLOB_READ:
    case AT_NODE_OP_BUNDLE_READ:
    case AT_NODE_OP_BLOB_PRUNE:
        do_blob(n, op);
        break;
    case AT_NODE_OP_STATE_SHAPE:
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_STATE_SHAPE});
        break;
    case AT_NODE_OP_TILES_FIND:
        do_find(n, op);
        break;
    case AT_NODE_OP_UPDATE_CHECK:
        do_check(n, op);
        break;
    case AT_NODE_OP_STATE_INIT:
    case AT_NODE_OP_STATE_INSTALL:
    case AT_NODE_OP_APPLY:
        do_state(n, op);
        break;
    case AT_NODE_OP_UNIT_START:
        do_unit(n, op);
        break;
    case AT_NODE_OP_UNIT_STOP:
        at_compute_cancel(n->compute, n->unit_serial++);
        node_team_end(n);
        break;
    case AT_NODE_OP_UNIT_ENOUGH:
        at_compute_enough(n->compute, n->unit_serial);
        break;
    case AT_NODE_OP_GROUP:
        do_group(n, op);
        break;
    case AT_NODE_OP_SAVE:
        node_save(n, op);
        break;
    case AT_NODE_OP_PEERS_KEEP:
        do_keep_peers(n, op);
        break;
    case AT_NODE_OP_AGREE_READ:
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_AGREE_DATA,
                                         .link = op->link,
                                         .agree = {.term = op->agree.term,
                                                   .of_block = op->agree.of_block,
                                                   .view = op->agree.view,
                                                   .last = op->agree.last,
                                                   .hash = op->agree.hash}});
        break;
    case AT_NODE_OP_SECRET_MAKE:
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_SECRET, .term = op->agree.term});
        break;
    case AT_NODE_OP_SECRETS_ERASE:
        if ((err = at_secrets_erase(n->folder.dir, op->agree.term, &diag))) node_fail(n, err, &diag);
        break;
    case AT_NODE_OP_MEASURE:
        node_measure(n, op);
        break;
    case AT_NODE_OP_STATUS:
        node_log(n, AT_NODE_LOG_EVENT, "%s", op->reason);
        break;
    case AT_NODE_OP_ENDED:
        do_end(n, op);
        break;
    }
}
