/* node_measure.c: what this member tells the log of its machine and its links (MEASURE, wire/measure.h), in runs whose units
 * are computed by groups: who is with whom follows from it (ledger/roles.h).
 *
 *   when                                                           then
 *   it has been a member for two seconds                           MEASURE, with the machine's speed
 *   five seconds later, then every ten seconds              MEASURE: round trips and rates only
 *   MEASURED, nothing is known of it, or much has changed, and     a record
 *   the ledger takes one more
 *
 * Much: speed or memory by half or more; or of the links it tells of and told of, every second is new, gone, twice as
 * long or short (below 8 ms all are alike), or carries twice or half as much (above 200 Mbit/s all are alike); or the best
 * of them carries so, or the rate of one that it told of was not known before: it may be the one that holds up its group. What it told of a link's rate it tells again while nothing
 * newer is known, as after a link was made anew. The nearest are told of, of equals those whose replicas follow on its own: so
 * that members of a large site tell of the same links. */
#include "swarm/node_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    OCTAVE = 8,     /* codes */
    NEAR_US = 8000, /* a busy processor makes round trips of microseconds last milliseconds: no news */
    FAST_KBIT = 200000,
};

struct candidate {
    uint32_t replica, steps; /* from our own replica, round the members */
    uint8_t rtt, rate;
};

static int nearer(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->rtt != y->rtt) return x->rtt < y->rtt ? -1 : 1;
    if (x->steps != y->steps) return x->steps < y->steps ? -1 : 1;
    return x->replica < y->replica ? -1 : x->replica > y->replica;
}

static int by_replica(const void *a, const void *b)
{
    const struct at_measure_link *x = a, *y = b;
    return x->replica < y->replica ? -1 : x->replica > y->replica;
}

static uint8_t code_of(uint64_t value)
{
    uint8_t code = at_measure_code(value);
    return code ? code : 1;
}

static const struct at_measure_link *find(const struct at_measure *m, uint32_t replica)
{
    for (uint32_t i = 0; i < m->link_count; i++)
        if (m->link[i].replica == replica) return &m->link[i];
    return NULL;
}

static uint8_t rate_of(const struct at_measure *before, uint32_t replica, uint32_t kbit)
{
    const struct at_measure_link *l = find(before, replica);
    return kbit ? code_of(kbit) : l ? l->rate : 0;
}

static void take_links(struct at_node_machine *m, const struct at_node_event *e, struct at_measure *ret)
{
    struct candidate list[AT_NODE_LINKS_MAX];
    uint32_t n = 0, self = (uint32_t)at_node_self(m), members = m->ledger.member_count;
    for (size_t i = 0; i < e->measured.count && n < AT_NODE_LINKS_MAX; i++) {
        const struct at_node_rtt *from = &e->measured.list[i];
        const struct at_node_link *l = at_node_link_find(m, from->link);
        int replica = l && l->hello ? at_ledger_find(&m->ledger, &l->node) : -1;
        if (replica < 0 || (uint32_t)replica == self || !m->ledger.members[replica].active || from->us == 0) continue;
        uint32_t ahead = ((uint32_t)replica + members - self) % members;
        list[n++] = (struct candidate){.replica = (uint32_t)replica,
                                       .steps = ahead < members - ahead ? ahead : members - ahead,
                                       .rtt = code_of(from->us),
                                       .rate = rate_of(&m->ledger.measured[self].last, (uint32_t)replica, from->kbit)};
    }
    qsort(list, n, sizeof *list, nearer);
    ret->link_count = 0;
    for (uint32_t i = 0; i < n && ret->link_count < AT_MEASURE_LINKS; i++) {
        bool twice = false;
        for (uint32_t k = 0; k < i; k++) twice = twice || list[k].replica == list[i].replica;
        if (!twice)
            ret->link[ret->link_count++] = (struct at_measure_link){
                .replica = (uint16_t)list[i].replica, .rtt = list[i].rtt, .rate = list[i].rate};
    }
    qsort(ret->link, ret->link_count, sizeof *ret->link, by_replica);
}

static bool apart(uint8_t a, uint8_t b)
{
    return a > b ? a - b >= OCTAVE : b - a >= OCTAVE;
}

static uint8_t at_least(uint8_t rtt, uint8_t least)
{
    return rtt > least ? rtt : least;
}

static uint8_t at_most(uint8_t rate, uint8_t most)
{
    return rate < most ? rate : most;
}

static bool carries_else(uint8_t a, uint8_t b)
{
    uint8_t fast = at_measure_code(FAST_KBIT);
    return apart(at_most(a, fast), at_most(b, fast));
}

/* Links of a that b lacks, or of which b tells something else. */
static uint32_t not_in(const struct at_measure *a, const struct at_measure *b)
{
    uint32_t n = 0;
    uint8_t near = at_measure_code(NEAR_US);
    for (uint32_t i = 0; i < a->link_count; i++) {
        const struct at_measure_link *x = &a->link[i], *y = find(b, x->replica);
        n += !y || apart(at_least(x->rtt, near), at_least(y->rtt, near)) || carries_else(x->rate, y->rate);
    }
    return n;
}

/* The rate of a link that was told of without one. Not of one that was not told of: where links come and go, all records that a
 * member has would be used up by them. */
static bool is_newly_known(const struct at_measure *now, const struct at_measure *before)
{
    bool newly = false;
    for (uint32_t i = 0; i < now->link_count; i++) {
        const struct at_measure_link *was = find(before, now->link[i].replica);
        newly = newly || (now->link[i].rate != 0 && was && was->rate == 0);
    }
    return newly;
}

static uint8_t best_rate(const struct at_measure *m)
{
    uint8_t best = 0;
    for (uint32_t i = 0; i < m->link_count; i++)
        if (m->link[i].rate > best) best = m->link[i].rate;
    return best;
}

static bool much_has_changed(const struct at_measure *now, const struct at_measure *before)
{
    if (apart(now->speed, before->speed) || apart(now->memory, before->memory)) return true;
    if (is_newly_known(now, before) || carries_else(best_rate(now), best_rate(before))) return true;
    uint32_t changed = not_in(now, before), gone = not_in(before, now);
    return 2 * changed > now->link_count || 2 * gone > before->link_count;
}

/* By the table in ledger_judge.c. */
static bool may_say(const struct at_node_machine *m, const struct at_measured *before)
{
    return before->count < AT_ROLES_MEASURES + (m->ledger.round - before->round) / AT_ROLES_MEASURE_ROUNDS ||
           before->count == 0;
}

static bool on(const struct at_node_machine *m)
{
    return m->has_genesis && at_genesis_is_planned(&m->genesis) && at_node_joined(m) && !m->ended && !m->finishing &&
           m->ledger.phase != AT_LEDGER_ENDED && (m->is_steward || m->log_synced);
}

void at_node_measured(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_measuring *x = &m->measuring;
    x->asked = false;
    bool failed = x->speed == 0 && e->measured.mflops == 0;
    x->again_ms = m->now_ms + (failed     ? AT_NODE_MEASURE_FAILED_MS
                               : x->speed ? AT_NODE_MEASURE_AGAIN_MS
                                          : AT_NODE_MEASURE_SOON_MS);
    if (e->measured.mflops) x->speed = code_of(e->measured.mflops);
    if (!on(m) || x->speed == 0 || m->own[AT_NODE_OWN_MEASURE].is_signed) return;
    struct at_record rec = {.kind = AT_RECORD_MEASURE};
    const struct at_measured *before = &m->ledger.measured[at_node_self(m)];
    rec.measure = (struct at_measure){.speed = x->speed, .memory = code_of(e->measured.memory_mib)};
    /* While it computes, what is missing is what this node itself has taken. */
    bool computes = m->unit.running || m->state.busy != AT_STATE_IDLE;
    if (before->count && computes && rec.measure.memory < before->last.memory) rec.measure.memory = before->last.memory;
    take_links(m, e, &rec.measure);
    if (before->count && (!much_has_changed(&rec.measure, &before->last) || !may_say(m, before))) return;
    uint64_t time_ms = m->wall_ms > before->time_ms ? m->wall_ms : before->time_ms + 1; /* clocks are set back */
    x->time_ms = time_ms;
    x->fresh = at_node_own_sign(m, AT_NODE_OWN_MEASURE, &rec, time_ms);
}

void at_node_measure_drive(struct at_node_machine *m)
{
    struct at_node_measuring *x = &m->measuring;
    if (!on(m)) {
        x->again_ms = 0;
        return;
    }
    if (x->again_ms == 0) x->again_ms = m->now_ms + AT_NODE_MEASURE_FIRST_MS;
    if (!x->asked && m->now_ms >= x->again_ms) {
        x->asked = true;
        at_node_op_add(m, AT_NODE_OP_MEASURE)->evaluate = x->speed == 0;
    }
    struct at_node_own *own = &m->own[AT_NODE_OWN_MEASURE];
    if (!own->is_signed) return;
    const struct at_measured *known = &m->ledger.measured[at_node_self(m)];
    if ((known->count && known->time_ms >= x->time_ms) || !may_say(m, known))
        own->is_signed = false;
    else if (!m->consensus)
        at_node_own_send(m, AT_NODE_OWN_MEASURE);
    else if (x->fresh)
        at_node_own_submit(m, AT_NODE_OWN_MEASURE);
    x->fresh = false;
}

uint64_t at_node_measure_deadline_ms(const struct at_node_machine *m)
{
    const struct at_node_measuring *x = &m->measuring;
    return on(m) && !x->asked && x->again_ms > m->now_ms ? x->again_ms : UINT64_MAX;
}
