/* node_save.c: SAVE: a state that is held as files of the folder, on a thread of its own, beside the next rounds; and what
 * this member keeps for itself. No round waits for the latter, so it may take a part of the time only, and what a crash
 * leaves of it may be older than the log: then error feedback begins at zero. */
#include "node/node_drive.h"

#include "os/sys.h"

#include <stdlib.h>

#define OWN_SHARE 20 /* of the time, as `atoll train` saves */

struct save {
    struct at_work work;
    struct node *n;
    uint32_t round;
    struct at_hash root, counted;
    struct at_held *state; /* a reference */
    struct at_buf own;
    uint64_t took_ns;
    at_err_t err;
    struct at_diag diag;
};

static void save_free(struct save *s)
{
    at_held_put(s->state);
    at_buf_release(&s->own);
    free(s);
}

static struct save *save_new(struct node *n, void (*run)(struct at_work *), void (*done)(struct at_work *))
{
    struct save *s = calloc(1, sizeof *s);
    if (!s) {
        struct at_diag diag = {0};
        node_fail(n, at_fail(&diag, AT_E_NOMEM, n->folder.dir, "out of memory"), &diag);
        return NULL;
    }
    s->work.run = run;
    s->work.done = done;
    s->n = n;
    return s;
}

/* ---- the state ---- */
static void run_write(struct at_work *work)
{
    struct save *s = (struct save *)work;
    s->err = at_compute_save(s->n->folder.dir, s->state, &s->diag);
}

static void write_done(struct at_work *work)
{
    struct save *s = (struct save *)work;
    struct node *n = s->n;
    struct at_node_event ev = {.kind = AT_NODE_EV_SAVED};
    ev.state.round = s->round;
    ev.state.root = s->root;
    ev.state.ok = true;
    n->save_open = false;
    if (n->waiting_for_save) {
        at_worker_push(&n->computer, n->waiting_for_save);
        n->waiting_for_save = NULL;
    }
    if (s->err) {
        node_fail(n, s->err, &s->diag);
    } else {
        at_vault_drop_states(&n->vault);
        node_feed(n, &ev);
    }
    save_free(s);
}

/* ---- what this member keeps for itself ---- */
static void run_write_own(struct at_work *work)
{
    struct save *s = (struct save *)work;
    uint64_t start_ns = at_clock_mono_ns();
    s->err = at_compute_write_own(s->n->folder.dir, &s->own, &s->diag);
    s->took_ns = at_clock_mono_ns() - start_ns;
}

static void write_own_done(struct at_work *work)
{
    struct save *s = (struct save *)work;
    struct node *n = s->n;
    n->own_open = false;
    n->own_next_ns = at_clock_mono_ns() + OWN_SHARE * s->took_ns;
    if (s->err) node_log(n, AT_NODE_LOG_WARNING, "the error feedback could not be kept: %s", s->diag.text);
    save_free(s);
}

static void run_pack_own(struct at_work *work)
{
    struct save *s = (struct save *)work;
    if (at_compute_pack_own(s->n->compute, s->n->folder.run, s->counted, NULL, &s->own))
        at_buf_release(&s->own); /* no memory for it now: next time */
}

static void pack_own_done(struct at_work *work)
{
    struct save *s = (struct save *)work;
    if (s->own.n == 0) {
        s->n->own_open = false;
        save_free(s);
        return;
    }
    s->work.run = run_write_own;
    s->work.done = write_own_done;
    at_worker_push(&s->n->saver, &s->work);
}

static void save_own(struct node *n, struct at_hash counted)
{
    struct save *s =
        !n->own_open && at_clock_mono_ns() >= n->own_next_ns ? save_new(n, run_pack_own, pack_own_done) : NULL;
    if (!s) return;
    s->counted = counted;
    n->own_open = true;
    at_worker_push(&n->computer, &s->work);
}

void node_keep_own(struct node *n)
{
    struct at_buf own = {0};
    struct at_diag diag = {0};
    if (!n->compute || !n->machine || n->err) return;
    at_err_t err = at_compute_pack_own(n->compute, n->folder.run, at_node_machine_counted(n->machine), &diag, &own);
    if (!err && own.n > 0) err = at_compute_write_own(n->folder.dir, &own, &diag);
    if (err) node_log(n, AT_NODE_LOG_WARNING, "the error feedback could not be kept: %s", diag.text);
    at_buf_release(&own);
}

/* ---- both ---- */
void node_save(struct node *n, const struct at_node_op *op)
{
    struct save *s = save_new(n, run_write, write_done);
    if (!s) return;
    AT_ASSERT(!n->save_open); /* the machine has one under way at a time */
    s->round = op->round;
    s->root = op->root;
    struct at_held *state = at_vault_state(&n->vault, op->root);
    AT_ASSERT(state); /* what the machine has is held */
    s->state = at_held_keep(state);
    n->save_open = true;
    n->save_round = op->round;
    at_worker_push(&n->saver, &s->work); /* also on the way out: what was asked to be kept is kept */
    save_own(n, op->counted);
}
