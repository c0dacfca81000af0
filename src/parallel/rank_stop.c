/* What the leaders of the replicas and rank 0, the first of them, tell each other about the units of a round: two small
 * messages a round each way.
 *
 * Down, AT_TAG_STOP: after how many steps the unit ends; 0: as planned.
 * Up, AT_TAG_FOUND: how the unit ended: a culprit when it was refused.
 *
 * A refused unit ends the run, and one culprit is told (train/culprit.h): that of the earliest step, then of the lowest
 * replica, which is what one process tells. Which replica is the first to say so is chance. So rank 0 lets the others go
 * on up to the step that was refused, hears from all how their units ended, and only then speaks. Everybody else in a
 * refused replica waits for its word. */
#include "parallel/rank_inner.h"
#include "train/culprit.h"

static at_err wait_one(struct at_rank *r, struct at_transfer *t, struct at_diag *diag)
{
    at_err_t err = at_comm_wait(&r->comm, *t, diag);
    *t = (struct at_transfer){0};
    return err;
}

static int leader_of(const struct at_rank *r, int replica)
{
    return r->o.plan->stage[r->o.plan->replica[replica].stage_first].rank_first;
}

static bool is_here(const struct at_rank *r, struct at_transfer t)
{
    return t.v != 0 && r->comm.ops->done(r->comm.link, t);
}

/* ---- down ---- */

void at_rank_expect_stop(struct at_rank *r)
{
    r->stop_sent = false;
    r->stop_heard = 0;
    if (r->leader && r->comm.rank != 0)
        r->stop_from = at_comm_recv(&r->comm, 0, AT_TAG_STOP, &r->stop_heard, sizeof r->stop_heard);
}

void at_rank_say_stop(struct at_rank *r, uint32_t step)
{
    if (r->comm.rank != 0 || r->stop_sent) return;
    r->stop_sent = true;
    r->stop_said = step;
    for (int i = 1; i < r->o.plan->replicas; i++)
        r->stop_to[i] = at_comm_send(&r->comm, leader_of(r, i), AT_TAG_STOP, &r->stop_said, sizeof r->stop_said);
}

at_err_t at_rank_settle_stop(struct at_rank *r, struct at_diag *diag)
{
    at_err_t first = wait_one(r, &r->stop_from, diag), err = wait_one(r, &r->found_to, diag);
    if (first == AT_OK) first = err;
    for (int i = 0; i < r->o.plan->replicas; i++) {
        err = wait_one(r, &r->stop_to[i], diag);
        if (first == AT_OK) first = err;
    }
    return first;
}

/* ---- up ---- */

void at_rank_settle_found(struct at_rank *r)
{
    for (int i = 0; i < r->o.plan->replicas; i++) {
        at_err_t known = wait_one(r, &r->found_from[i], NULL);
        (void)known;
    }
}

void at_rank_expect_found(struct at_rank *r)
{
    r->worst = (struct at_culprit){0};
    for (int i = 1; i < r->o.plan->replicas && r->comm.rank == 0; i++)
        r->found_from[i] =
            at_comm_recv(&r->comm, leader_of(r, i), AT_TAG_FOUND, &r->found_in[i], sizeof r->found_in[i]);
}

static void weigh(struct at_rank *r, const struct at_culprit *c, int replica)
{
    bool earlier =
        r->worst.step == 0 || c->step < r->worst.step || (c->step == r->worst.step && replica < r->worst_replica);
    if (c->step == 0 || !earlier) return;
    r->worst = *c;
    r->worst_replica = replica;
}

static at_err hear(struct at_rank *r, int replica, struct at_diag *diag)
{
    at_err_t err = wait_one(r, &r->found_from[replica], diag);
    if (err == AT_OK) weigh(r, &r->found_in[replica], replica);
    return err;
}

bool at_rank_goes_on(struct at_rank *r, uint32_t step, at_err_t *io_err, struct at_diag *diag)
{
    for (int i = 1; i < r->o.plan->replicas && r->comm.rank == 0 && *io_err == AT_OK; i++)
        if (is_here(r, r->found_from[i])) *io_err = hear(r, i, diag);
    if (r->worst.step != 0) {
        r->stop_wish = r->worst.step;
        at_rank_say_stop(r, r->stop_wish);
        if (step >= r->worst.step) return false;
    }
    if (is_here(r, r->stop_from) && *io_err == AT_OK) *io_err = wait_one(r, &r->stop_from, diag);
    return r->stop_from.v != 0 || r->stop_heard == 0 || step < r->stop_heard;
}

/* Rank 0's own unit was refused: the others may still listen for the word of the round before, with overlap. */
static at_err order_stop(struct at_rank *r, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    for (int i = 1; i < r->o.plan->replicas && r->outstanding && r->stop_sent && err == AT_OK; i++)
        err = wait_one(r, &r->stop_to[i], diag);
    if (r->outstanding) r->stop_sent = false;
    if (err == AT_OK) at_rank_say_stop(r, r->worst.step);
    return err;
}

static at_err judge(struct at_rank *r, bool refused, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    if (refused) {
        weigh(r, &r->trainer.culprit, 0);
        err = order_stop(r, diag);
    }
    for (int i = 1; i < r->o.plan->replicas && err == AT_OK; i++)
        if (r->found_from[i].v != 0) err = hear(r, i, diag);
    if (err != AT_OK || r->worst.step == 0) return err;
    return at_culprit_tell(&r->model.params, &r->worst, r->worst_replica, diag);
}

static at_err report(struct at_rank *r, bool refused, struct at_diag *diag)
{
    at_err_t err = wait_one(r, &r->found_to, diag); /* that of the round before */
    if (err != AT_OK) return err;
    r->found_out = refused ? r->trainer.culprit : (struct at_culprit){0};
    r->found_to = at_comm_send(&r->comm, 0, AT_TAG_FOUND, &r->found_out, sizeof r->found_out);
    return AT_OK;
}

at_err_t at_rank_tell_unit(struct at_rank *r, bool refused, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    if (refused && r->outstanding) { /* the others count on our part of the round before; with overlap it goes whole */
        int first, blocks;
        err = at_exchange_take(&r->exchange, diag, &first, &blocks);
        if (err != AT_OK) return err;
    }
    if (r->comm.rank == 0) return judge(r, refused, diag);
    if (r->leader) err = report(r, refused, diag);
    if (err != AT_OK || !refused) return err;
    r->rank_0_tells = true;
    return at_culprit_tell(&r->model.params, &r->trainer.culprit, r->place.replica, diag);
}
