#include "cli/ledger_samples.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void at_sample_check_release(struct at_sample_check *c)
{
    free(c->used.r);
    free(c->busy.r);
    memset(c, 0, sizeof *c);
}

/* Puts a range into an ascending list, joined with those that it touches. AT_E_VERIFY: a part of it is in there. */
static at_err_t put(struct at_range_list *list, struct at_range range)
{
    size_t at = 0;
    uint64_t end = range.start + range.samples;
    at_err_t err = at_range_reserve(list, 1);
    if (err) return err;
    while (at < list->count && list->r[at].start < range.start) at++;
    struct at_range *left = at > 0 ? &list->r[at - 1] : NULL, *right = at < list->count ? &list->r[at] : NULL;
    if ((left && left->start + left->samples > range.start) || (right && right->start < end)) return AT_E_VERIFY;
    bool joins_left = left && left->start + left->samples == range.start, joins_right = right && right->start == end;
    if (joins_left && joins_right) {
        left->samples += range.samples + right->samples;
        memmove(right, right + 1, (--list->count - at) * sizeof *right);
    } else if (joins_left) {
        left->samples += range.samples;
    } else if (joins_right) {
        right->start = range.start;
        right->samples += range.samples;
    } else {
        memmove(list->r + at + 1, list->r + at, (list->count++ - at) * sizeof *list->r);
        list->r[at] = range;
    }
    return AT_OK;
}

static at_err_t copy(struct at_range_list *to, const struct at_range_list *from)
{
    to->count = 0;
    at_err_t err = at_range_reserve(to, from->count);
    if (err) return err;
    if (from->count > 0) memcpy(to->r, from->r, from->count * sizeof *from->r);
    to->count = from->count;
    return AT_OK;
}

/* The lowest gap below `next` that holds a unit, else `next`. */
static uint64_t place_of_unit(const struct at_sample_check *c, uint64_t unit)
{
    uint64_t from = 0;
    for (size_t i = 0; i < c->busy.count; i++) {
        if (c->busy.r[i].start - from >= unit) return from;
        from = c->busy.r[i].start + c->busy.r[i].samples;
    }
    return c->next - from >= unit ? from : c->next;
}

static at_err_t opened(struct at_sample_check *c, const struct at_ledger *l, struct at_diag *diag)
{
    at_err_t err = copy(&c->busy, &c->used);
    for (uint32_t r = 0; r < l->member_count && !err; r++) {
        const struct at_allotment *u = &l->allotments[r];
        if (!u->allotted || l->groups[r].place != 0) continue; /* a group's range is its first member's */
        uint64_t unit = (uint64_t)at_ledger_round(l).steps * l->genesis.train.batch, place = place_of_unit(c, unit);
        if (u->range.start != place || u->range.samples != unit)
            return at_fail(diag, AT_E_VERIFY, "samples",
                           "round %u replica %u was given samples from %" PRIu64 " on, the rule gives it %" PRIu64,
                           l->round + 1, r, u->range.start, place);
        err = put(&c->busy, u->range);
        if (place + unit > c->next) c->next = place + unit;
    }
    return err == AT_E_NOMEM ? at_fail(diag, err, "samples", "out of memory") : err;
}

/* The samples of a unit: what each of its counted parts says; .samples 0: it does not count. */
static at_err_t of_unit(const struct at_ledger *l, uint32_t lead, struct at_diag *diag, struct at_range *ret)
{
    *ret = (struct at_range){.samples = 0};
    for (uint32_t r = lead; r != AT_GROUP_END; r = l->groups[r].next) {
        const struct at_allotment *u = &l->allotments[r];
        if (!u->included) continue;
        struct at_range part = {u->receipt.start, u->receipt.samples};
        if (part.start != u->range.start || part.samples > u->range.samples)
            return at_fail(diag, AT_E_VERIFY, "samples", "round %u replica %u counts for samples it was not given",
                           l->round + 1, r);
        if (ret->samples != 0 && (part.start != ret->start || part.samples != ret->samples))
            return at_fail(diag, AT_E_VERIFY, "samples", "round %u replica %u counts for other samples than its group",
                           l->round + 1, r);
        *ret = part;
    }
    return AT_OK;
}

static at_err_t closed(struct at_sample_check *c, const struct at_ledger *l, struct at_diag *diag)
{
    for (uint32_t r = 0; r < l->member_count; r++) {
        struct at_range part;
        if (!l->allotments[r].allotted || l->groups[r].place != 0) continue;
        at_err_t err = of_unit(l, r, diag, &part);
        if (err) return err;
        if (part.samples == 0) continue;
        err = put(&c->used, part);
        if (err == AT_E_VERIFY)
            return at_fail(diag, err, "samples", "round %u replica %u: samples from %" PRIu64 " on count twice",
                           l->round + 1, r, part.start);
        if (err) return at_fail(diag, err, "samples", "out of memory");
        c->counted += part.samples;
        c->units++;
    }
    c->waiting = c->next - c->counted;
    return AT_OK;
}

at_err at_sample_check_take(struct at_sample_check *c, const struct at_ledger *ledger, enum at_ledger_phase before,
                            struct at_diag *diag)
{
    if (before == ledger->phase) return AT_OK;
    if (ledger->phase == AT_LEDGER_TRAINING) return opened(c, ledger, diag);
    return ledger->phase == AT_LEDGER_CLOSED ? closed(c, ledger, diag) : AT_OK;
}
