#include "wire/reach.h"

#include <stdio.h>
#include <string.h>

const char *at_reach_rung_name(enum at_reach_rung rung)
{
    static const char *const name[AT_REACH_RUNG_COUNT] = {"direct", "mapped", "punch", "relay"};
    return rung < AT_REACH_RUNG_COUNT ? name[rung] : "?";
}

void at_reach_init(struct at_reach *r, const struct at_reach_options *options)
{
    memset(r, 0, sizeof *r);
    if (options) r->opt = *options;
    if (!r->opt.stagger_ms) r->opt.stagger_ms = 250;
    if (!r->opt.head_start_ms) r->opt.head_start_ms = 1500;
    if (!r->opt.attempt_ms) r->opt.attempt_ms = 8000;
    if (!r->opt.total_ms) r->opt.total_ms = 40000;
    if (!r->opt.punches_max) r->opt.punches_max = 2;
}

static struct at_reach_op *ask_for(struct at_reach_update *u, enum at_reach_op_kind kind, uint32_t attempt)
{
    AT_ASSERT(u->op_count < AT_REACH_OPS_MAX);
    struct at_reach_op *op = &u->ops[u->op_count++];
    *op = (struct at_reach_op){.kind = kind, .attempt = attempt};
    return op;
}

static bool rung_running(const struct at_reach *r, enum at_reach_rung rung)
{
    for (uint32_t i = 0; i < r->attempt_count; i++)
        if (r->attempt[i].running && r->attempt[i].rung == rung) return true;
    return false;
}

static bool any_running(const struct at_reach *r)
{
    for (uint32_t i = 0; i < r->attempt_count; i++)
        if (r->attempt[i].running) return true;
    return false;
}

static void cancel_all(struct at_reach *r, struct at_reach_update *u)
{
    for (uint32_t i = 0; i < r->attempt_count; i++) {
        if (!r->attempt[i].running) continue;
        r->attempt[i].running = false;
        ask_for(u, AT_REACH_CANCEL, i);
    }
}

static void note_failure(struct at_reach *r, enum at_reach_rung rung, const char *reason)
{
    snprintf(r->failure[rung], sizeof r->failure[rung], "%s", reason);
}

static void give_up(struct at_reach *r, const char *why, struct at_reach_update *u)
{
    size_t n = (size_t)snprintf(r->reason, sizeof r->reason, "%s", why);
    cancel_all(r, u);
    for (int rung = 0; rung < AT_REACH_RUNG_COUNT && n < sizeof r->reason; rung++)
        if (r->failure[rung][0])
            n += (size_t)snprintf(r->reason + n, sizeof r->reason - n, "; %s: %s",
                                  at_reach_rung_name((enum at_reach_rung)rung), r->failure[rung]);
    r->state = AT_REACH_GIVEN_UP;
    ask_for(u, AT_REACH_GIVE_UP, 0);
}

static void try_next(struct at_reach *r, uint64_t now_ms, struct at_reach_update *u)
{
    uint32_t n = r->attempt_count++, index = r->begun[r->rung]++;
    AT_ASSERT(n < AT_REACH_ATTEMPTS_MAX);
    r->attempt[n] = (struct at_reach_attempt){
        .running = true, .rung = r->rung, .index = index, .deadline_ms = now_ms + r->opt.attempt_ms};
    r->next_ms = now_ms + r->opt.stagger_ms;
    struct at_reach_op *op = ask_for(u, AT_REACH_TRY, n);
    op->rung = r->rung;
    op->index = index;
}

/* May the ladder leave its rung? Addresses that still run do not hold it up for ever; a punch does, to its end. */
static bool rung_over(const struct at_reach *r, uint64_t now_ms)
{
    if (r->begun[r->rung] < r->count[r->rung]) return false;
    return !rung_running(r, r->rung) || (r->rung <= AT_REACH_MAPPED && now_ms >= r->rung_ms + r->opt.head_start_ms);
}

static bool may_try(const struct at_reach *r, uint64_t now_ms)
{
    if (r->begun[r->rung] >= r->count[r->rung]) return false;
    if (!rung_running(r, r->rung)) return true;
    return r->rung <= AT_REACH_MAPPED && now_ms >= r->next_ms;
}

static void climb(struct at_reach *r, uint64_t now_ms, struct at_reach_update *u)
{
    for (;;) {
        if (may_try(r, now_ms)) {
            try_next(r, now_ms, u);
        } else if (rung_over(r, now_ms) && r->rung + 1 < AT_REACH_RUNG_COUNT) {
            r->rung++;
            r->rung_ms = now_ms;
        } else {
            break;
        }
    }
    if (!any_running(r) && rung_over(r, now_ms))
        give_up(r, r->attempt_count ? "every way failed" : "no way is known to reach it", u);
}

static void start(struct at_reach *r, const struct at_reach_event *ev)
{
    struct at_reach_options opt = r->opt;
    memset(r, 0, sizeof *r);
    r->opt = opt;
    r->state = AT_REACH_CLIMBING;
    r->started_ms = r->rung_ms = ev->now_ms;
    for (int rung = 0; rung < AT_REACH_RUNG_COUNT; rung++) {
        uint32_t max = rung <= AT_REACH_MAPPED ? AT_REACH_ADDRESSES_MAX : AT_REACH_ARRANGERS_MAX;
        if (rung == AT_REACH_PUNCH && opt.punches_max < max) max = opt.punches_max;
        r->count[rung] = ev->count[rung] < max ? ev->count[rung] : max;
    }
}

static void expire(struct at_reach *r, uint64_t now_ms, struct at_reach_update *u)
{
    for (uint32_t i = 0; i < r->attempt_count; i++) {
        struct at_reach_attempt *t = &r->attempt[i];
        if (!t->running || now_ms < t->deadline_ms) continue;
        t->running = false;
        note_failure(r, t->rung, "not in time");
        ask_for(u, AT_REACH_CANCEL, i);
    }
}

static void on_up(struct at_reach *r, uint32_t i, struct at_reach_update *u)
{
    r->attempt[i].running = false;
    ask_for(u, AT_REACH_REACHED, i);
    cancel_all(r, u);
    r->state = AT_REACH_DONE;
}

void at_reach_step(struct at_reach *r, const struct at_reach_event *event, struct at_reach_update *ret_update)
{
    struct at_reach_update *u = ret_update;
    u->op_count = 0;
    if (event->kind == AT_REACH_START && r->state != AT_REACH_CLIMBING) start(r, event);
    if (event->kind == AT_REACH_UP || event->kind == AT_REACH_FAILED) {
        /* What is no longer wanted: over before its cancel arrived. */
        if (event->attempt >= r->attempt_count || !r->attempt[event->attempt].running) return;
        if (event->kind == AT_REACH_UP) {
            on_up(r, event->attempt, u);
            return;
        }
        r->attempt[event->attempt].running = false;
        note_failure(r, r->attempt[event->attempt].rung, event->reason);
    }
    if (r->state != AT_REACH_CLIMBING) return;
    expire(r, event->now_ms, u);
    if (event->now_ms - r->started_ms >= r->opt.total_ms)
        give_up(r, "not reached in time", u);
    else
        climb(r, event->now_ms, u);
}

uint64_t at_reach_deadline(const struct at_reach *r)
{
    if (r->state != AT_REACH_CLIMBING) return UINT64_MAX;
    uint64_t first = r->started_ms + r->opt.total_ms;
    for (uint32_t i = 0; i < r->attempt_count; i++)
        if (r->attempt[i].running && r->attempt[i].deadline_ms < first) first = r->attempt[i].deadline_ms;
    if (r->rung <= AT_REACH_MAPPED) {
        uint64_t next = r->begun[r->rung] < r->count[r->rung] ? r->next_ms : r->rung_ms + r->opt.head_start_ms;
        if (next < first) first = next;
    }
    return first;
}
