#include "sim/sim_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "swarm/tiles.h"
#include "wire/vote.h"

enum { STEPS = 10, STAND_IN_BYTES = 256, STATE_STAND_IN_BYTES = 1024, STATE_TILES = 4, ROUNDS_AFTER_MIN = 2 };
enum { NEAR = 48, APART_MS = 20 /* of many nodes: invited by the steward; between two that come */ };
enum { AT_ONCE = 8 /* updates over a member's line */ };
enum { ROUNDS_LEAST = 15, ROUNDS_LEAST_CALM = 6 };
/* By default. Each member fetches as many updates in a round as there are members, so with more of them a founder would choose
 * longer rounds: an hour for a thousand, and half as many of them. */
enum { ROUNDS = 48, ROUNDS_MANY = 24, ROUND_LEAST_MS = 10000, ROUND_MOST_MS = 600000, ROUND_EACH_MS = 3600 };
enum { LATE_LOOKS = 32 }; /* in a round's time, at a run whose rounds are late */
enum { LOOK_MS = 1000 };  /* so often the stewards' seats are looked at: at fixed times, however time is let pass */
/* What a run promises once its faults are over, in the worst case: the round that is open lasts its whole time, two rounds;
 * the next one waits a quarter of that for stragglers, and AT_NODE_PAUSE_MAX_MS for members left out; it lasts its whole
 * time again; and after each the outer step is made, with updates to be fetched. That is two rounds done. */
enum { PROMISE_ROUNDS = 5, PROMISE_PAUSE_MS = 30000 };

uint64_t at_sim_draw(struct at_sim *s, uint64_t below)
{
    struct at_philox r = at_philox(s->options.seed, AT_RNG_TEST, 2, s->draws++);
    return below ? ((uint64_t)r.v[0] << 32 | r.v[1]) % below : 0;
}
uint64_t at_sim_between(struct at_sim *s, uint64_t from, uint64_t to)
{
    return from + at_sim_draw(s, to - from + 1);
}
double at_sim_unit(struct at_sim *s)
{
    return (double)at_sim_draw(s, UINT64_C(1) << 53) / (double)(UINT64_C(1) << 53);
}

/* ---- birth ---- */
static at_err_t check_stewards(struct at_sim_options *o, struct at_diag *diag)
{
    if (o->stewards < 1 || o->stewards > AT_SEATS_MAX || o->stewards % 3 != 1 || o->stewards > o->nodes)
        return at_fail(diag, AT_E_USAGE, "--stewards", "%d of %d nodes: 1, 4, 7 .. %d of them, 3f + 1 bear f that lie",
                       o->stewards, o->nodes, AT_SEATS_MAX);
    bool of_several = o->canary == AT_NODE_CANARY_NO_DUMMIES;
    if (o->canary != AT_NODE_CANARY_NONE && of_several != (o->stewards > 1))
        return at_fail(diag, AT_E_USAGE, "--canary", "this bug is one of %s",
                       of_several ? "several stewards: --stewards 4" : "a single steward: --stewards 1");
    return AT_OK;
}

/* Nothing goes wrong, so nothing need be over before liveness is judged. */
static bool is_calm(const struct at_sim_options *o)
{
    return o->byzantine == 0 && (o->faults == 0 || o->faults_per_round <= 0) && o->canary == AT_NODE_CANARY_NONE;
}

static at_err_t check(struct at_sim_options *o, struct at_diag *diag)
{
    if (o->nodes < 1 || o->nodes > AT_SIM_NODES_MAX)
        return at_fail(diag, AT_E_USAGE, "--nodes",
                       "%d: 1 to %d; a run has room for %d keys, in which floods and new folders share", o->nodes,
                       AT_SIM_NODES_MAX, AT_MEMBERS_MAX);
    if (o->byzantine < 0 || o->byzantine >= o->nodes)
        return at_fail(diag, AT_E_USAGE, "--byzantine", "%d of %d nodes: a single steward must be honest", o->byzantine,
                       o->nodes);
    if (o->nats < 0 || o->nats > 100)
        return at_fail(diag, AT_E_USAGE, "--nats", "%d: 0 to 100 percent of the members", o->nats);
    if (o->stewards <= 3 * o->byzantine && o->byzantine > o->nodes - o->stewards)
        return at_fail(diag, AT_E_USAGE, "--byzantine",
                       "%d of %d nodes: %d stewards bear %d that lie, and those are more", o->byzantine, o->nodes,
                       o->stewards, (o->stewards - 1) / 3);
    if (o->round_ms == 0) {
        bool many = (uint64_t)o->nodes * ROUND_EACH_MS > ROUND_MOST_MS;
        uint64_t most = many ? (uint64_t)o->nodes * ROUND_EACH_MS : ROUND_MOST_MS;
        o->round_ms = o->duration_ms / (many ? ROUNDS_MANY : ROUNDS);
        if (o->round_ms < ROUND_LEAST_MS) o->round_ms = ROUND_LEAST_MS;
        if (o->round_ms > most) o->round_ms = most;
    }
    uint64_t least = is_calm(o) ? ROUNDS_LEAST_CALM : ROUNDS_LEAST;
    if (o->duration_ms < least * o->round_ms)
        return at_fail(diag, AT_E_USAGE, "--hours", "%.4g hours are too short: %s %llu rounds of %.4g s",
                       (double)o->duration_ms / 3600e3,
                       is_calm(o) ? "a run needs" : "faults and the time after them need", (unsigned long long)least,
                       (double)o->round_ms / 1e3);
    if (o->duration_ms / o->round_ms > 100000)
        return at_fail(diag, AT_E_USAGE, "--round-s", "%.4g s: a run has at most 100000 rounds",
                       (double)o->round_ms / 1e3);
    return AT_OK;
}

/* A member hands in its update and fetches all others' in each round. Where that alone takes longer than a round may last,
 * the run would go on without it, or not at all. And an update goes in one piece here, where a real one goes in many: if
 * eight at once take longer than peers wait for a piece, links are given up for no fault of the protocol's. */
static at_err_t check_line(const struct at_sim *s, int node, const struct at_world_line *line, struct at_diag *diag)
{
    double kbit = (double)s->options.update_bytes * 8 / 1000;
    double up_s = kbit / line->up_kbit, down_s = kbit * (s->options.nodes - 1) / line->down_kbit;
    double most_s = 2 * (double)s->options.round_ms / 1e3;
    double least_kbit = line->up_kbit < line->down_kbit ? line->up_kbit : line->down_kbit;
    double pieces_s = AT_ONCE * kbit / least_kbit, wait_s = AT_BLOB_SILENT_MS / 1e3;
    if (pieces_s >= wait_s)
        return at_fail(
            diag, AT_E_USAGE, "--update-kb",
            "node %d has a line of %.0f kbit/s: %d updates at once, each in one piece as they go here, would "
            "take %.0f s, and peers wait for %.0f s. Up to %.0f kB can be simulated with this seed's lines",
            node, least_kbit, AT_ONCE, pieces_s, wait_s, (double)s->options.update_bytes / 1000 * wait_s / pieces_s);
    if (up_s + down_s < most_s) return AT_OK;
    return at_fail(
        diag, AT_E_USAGE, "--update-kb",
        "node %d has %u kbit/s up and %u down: handing in its update and fetching %d others' would take "
        "%.0f s, and a round lasts at most %.0f s. Smaller updates, longer rounds (--round-s) or fewer nodes",
        node, line->up_kbit, line->down_kbit, s->options.nodes - 1, up_s + down_s, most_s);
}

static at_err_t connect(struct at_sim *s, struct at_diag *diag)
{
    at_err_t err = AT_OK;
    static const struct at_world_line backbone = {.latency_ms = 5, .up_kbit = 1000000, .down_kbit = 1000000};
    at_world_line_set(s->world, 0, &backbone);
    at_world_speed(s->world, 0, 1.5);
    for (int i = 1; i < s->options.nodes && !err; i++) {
        double speed = at_sim_unit(s), near = at_sim_unit(s), wide = at_sim_unit(s), bad = at_sim_unit(s);
        struct at_world_line line = {.latency_ms = 2 + (uint32_t)(78 * near * near),
                                     .up_kbit = 10000 + (uint32_t)(490000 * wide * wide),
                                     .loss_ppm = (uint32_t)(500 * bad * bad)};
        line.jitter_ms = line.latency_ms / 5;
        line.down_kbit = (uint32_t)((1 + 3 * at_sim_unit(s)) * line.up_kbit);
        at_world_line_set(s->world, i, &line);
        at_world_speed(s->world, i, 0.6 + 2.4 * speed * speed);
        err = check_line(s, i, &line, diag);
    }
    return err;
}

static bool come_late(const struct at_sim_options *o)
{
    return o->faults >> AT_SIM_CHURN & 1;
}

/* With churn half of the members come during the first half of the faults. */
static void start_all(struct at_sim *s)
{
    bool late = come_late(&s->options), many = s->options.nodes > AT_SIM_NODES_AT_ONCE;
    for (int i = 0; i < s->options.nodes; i++) {
        uint64_t at = i == 0 ? 0 : many ? (uint64_t)(APART_MS * i) : at_sim_draw(s, 2000);
        if (many && i > NEAR) at_world_contact(s->world, i, 1 + (int)at_sim_draw(s, (uint64_t)i - 1));
        if (late && i > s->options.nodes / 2 && i >= s->options.stewards) at = at_sim_draw(s, s->heal_ms / 2);
        at_world_start_node(s->world, i, at);
    }
}

/* Drawn last: a run without them is what it was. */
static void hide(struct at_sim *s)
{
    for (int i = 1; i < s->options.nodes && s->options.nats > 0; i++) {
        if (at_sim_draw(s, 100) >= (uint64_t)s->options.nats) continue;
        at_world_set(s->world, i, AT_WORLD_NAT, at_sim_draw(s, 3) ? AT_WORLD_NAT_CONE : AT_WORLD_NAT_SYMMETRIC, 0);
    }
}

/* A single steward's bug shows only when its hour comes: it dies in the worst moment of every other round. */
static void provoke(struct at_sim *s)
{
    if (s->options.canary == AT_NODE_CANARY_NONE || s->options.stewards > 1) return;
    for (uint64_t at = 2 * s->options.round_ms; at < s->heal_ms; at += 2 * s->options.round_ms)
        at_world_set(s->world, 0, AT_WORLD_DIES_WRITING, 1000, at);
}

/* Many that come one after the other begin with the first round when most are there. */
static uint32_t least_members(const struct at_sim_options *o)
{
    if (o->nodes > AT_SIM_NODES_AT_ONCE && !come_late(o)) return (uint32_t)(o->nodes - o->byzantine) * 9 / 10;
    return o->nodes > 2 ? 2 : 1;
}

at_err_t at_sim_init(const struct at_sim_options *options, struct at_diag *diag, struct at_sim **ret_sim)
{
    struct at_sim *s = calloc(1, sizeof *s);
    if (!s) return at_fail(diag, AT_E_NOMEM, "sim", "out of memory");
    s->options = *options;
    struct at_sim_options *o = &s->options;
    if (o->stewards == 0) o->stewards = 1;
    at_err_t err = check(o, diag);
    if (!err) err = check_stewards(o, diag);
    if (err) {
        free(s);
        return err;
    }
    bool short_one = o->duration_ms < ROUNDS_LEAST * (uint64_t)o->round_ms;
    s->heal_ms = short_one ? o->duration_ms / 5 : o->duration_ms / 5 * 4;
    s->limit_ms = o->duration_ms + (10 + PROMISE_ROUNDS) * o->round_ms + PROMISE_PAUSE_MS + 120000;
    struct at_world_options world = {.seed = o->seed,
                                     .nodes = o->nodes,
                                     .rounds = (uint32_t)(10 * o->duration_ms / o->round_ms),
                                     .steps = STEPS,
                                     .min_members = least_members(o),
                                     .round_ms_max = (uint32_t)(2 * o->round_ms),
                                     .latency_ms_min = 1,
                                     .latency_ms_max = 100,
                                     .sync_ms_max = 30,
                                     .step_ms = (uint32_t)(o->round_ms / STEPS),
                                     .update_bytes = STAND_IN_BYTES,
                                     .shard_bytes = 4096,
                                     .state_bytes = STATE_STAND_IN_BYTES,
                                     .tile_bytes = STATE_STAND_IN_BYTES / STATE_TILES,
                                     .canary = o->canary,
                                     .meets = o->nats > 0,
                                     .trace = o->trace_bytes > 0,
                                     .trace_bytes_max = o->trace_bytes,
                                     .lines = true,
                                     .bulk_weight = (uint32_t)(o->update_bytes / STAND_IN_BYTES + 1),
                                     .stewards = o->stewards > 1 ? o->stewards : 0,
                                     .peers_give_up = true};
    if ((err = at_world_init(&world, &s->world))) {
        free(s);
        return at_fail(diag, err, "sim", "the world cannot be made: %s", at_err_text(err));
    }
    if ((err = connect(s, diag))) {
        at_sim_release(s);
        return err;
    }
    start_all(s);
    at_sim_liars_start(s);
    at_sim_plan_faults(s);
    provoke(s);
    hide(s);
    *ret_sim = s;
    return AT_OK;
}

void at_sim_release(struct at_sim *s)
{
    if (!s) return;
    at_world_release(s->world);
    free(s);
}

/* ---- the phases ---- */
static void next_phase(struct at_sim *s)
{
    struct at_world_counts counts;
    at_world_counts(s->world, &counts);
    if (s->phase == AT_SIM_FAULTS) {
        s->rounds_at_heal = counts.rounds;
        s->contributions_at_heal = counts.contributions;
        at_sim_heal(s);
        s->healed = true;
        s->phase = AT_SIM_HEALED;
    } else if (s->phase == AT_SIM_HEALED) {
        if (s->options.stewards == 1) at_world_finish(s->world, 0, at_world_now_ms(s->world));
        s->records_at_end = at_world_durable(s->world);
        s->rounds_at_end = counts.rounds;
        s->phase = AT_SIM_ENDING;
    } else {
        s->phase = AT_SIM_OVER;
    }
}

/* Until when the run goes on unhurt: to its time; one whose rounds are late, until it has broken its promise. */
static uint64_t unhurt_until(struct at_sim *s)
{
    uint64_t promise = s->heal_ms + PROMISE_ROUNDS * (uint64_t)s->options.round_ms + PROMISE_PAUSE_MS;
    if (at_world_now_ms(s->world) < s->options.duration_ms) return s->options.duration_ms;
    bool kept = at_world_rounds(s->world) >= s->rounds_at_heal + ROUNDS_AFTER_MIN;
    return kept || promise < s->options.duration_ms ? s->options.duration_ms : promise;
}

static const char *behind(struct at_sim *s)
{
    return at_world_behind(s->world, s->records_at_end, s->rounds_at_end);
}

bool at_sim_advance(struct at_sim *s, uint64_t ms)
{
    uint64_t until = at_world_now_ms(s->world) + ms;
    bool several = s->options.stewards > 1;
    while (s->phase != AT_SIM_OVER && at_world_now_ms(s->world) < until) {
        uint64_t end = s->phase == AT_SIM_FAULTS   ? s->heal_ms
                       : s->phase == AT_SIM_HEALED ? unhurt_until(s)
                                                   : s->limit_ms;
        uint64_t stop = end < until ? end : until, now = at_world_now_ms(s->world);
        bool late = s->phase == AT_SIM_HEALED && now >= s->options.duration_ms;
        uint64_t often =
            late && s->options.round_ms > LATE_LOOKS * LOOK_MS ? s->options.round_ms / LATE_LOOKS : LOOK_MS;
        uint64_t look = (now / often + 1) * often;
        if (s->phase == AT_SIM_HEALED && !late && s->options.duration_ms < stop) stop = s->options.duration_ms;
        if (at_world_run(s->world, (several || late) && look < stop ? look : stop) || at_world_violation(s->world))
            s->phase = AT_SIM_OVER; /* nobody goes on */
        else if (at_world_now_ms(s->world) >= (s->phase == AT_SIM_HEALED ? unhurt_until(s) : end))
            next_phase(s);
        else if (several && at_world_now_ms(s->world) == look && s->phase == AT_SIM_FAULTS)
            at_sim_liars_turn(s);
        else if (several && at_world_now_ms(s->world) == look && s->phase == AT_SIM_ENDING && !behind(s))
            s->phase = AT_SIM_OVER;
    }
    if (s->phase != AT_SIM_OVER) return true;
    if (at_hash_is_zero(s->trace_hash)) {
        (void)at_world_check(s->world); /* its verdict is the world's violation */
        s->trace_hash = at_world_trace_hash(s->world);
    }
    return false;
}

/* ---- the report ---- */
static bool is_live(struct at_sim *s, const struct at_sim_report *r)
{
    const char *who = s->options.stewards > 1 ? behind(s) : at_world_unfinished(s->world);
    if (r->violation)
        snprintf(s->unfinished, sizeof s->unfinished, "stopped by the violation");
    else if (who)
        snprintf(s->unfinished, sizeof s->unfinished, "%s", who);
    else if (r->rounds_after_faults < ROUNDS_AFTER_MIN || r->contributions_after_faults == 0)
        snprintf(s->unfinished, sizeof s->unfinished,
                 "only %u rounds with %llu contributions were done after the faults", r->rounds_after_faults,
                 (unsigned long long)r->contributions_after_faults);
    else
        return true;
    return false;
}

static void rates(const struct at_sim *s, struct at_sim_report *r)
{
    const struct at_world_counts *c = &r->counts;
    r->nodes_mean = r->now_ms ? (double)c->up_ms / (double)r->now_ms : 0;
    r->utilisation = c->up_ms ? (double)c->counted_ms / (double)c->up_ms : 0;
    double node_rounds = r->nodes_mean * c->rounds;
    if (node_rounds <= 0) return;
    r->bytes_per_node_round = (double)c->bytes / node_rounds;
    r->control_bytes_per_node_round = (double)(c->bytes - c->bulk_bytes) / node_rounds;
    r->messages_per_node_round = (double)c->messages / node_rounds;
    for (int k = 0; k < AT_MSG_KIND_COUNT; k++)
        r->messages_of[k] = (double)at_world_sent(s->world, (enum at_message_kind)k) / node_rounds;
}

void at_sim_report(struct at_sim *s, struct at_sim_report *ret_report)
{
    struct at_sim_report r = {.now_ms = at_world_now_ms(s->world),
                              .duration_ms = s->options.duration_ms,
                              .round_ms = s->options.round_ms,
                              .healing = s->phase == AT_SIM_HEALED || s->phase == AT_SIM_ENDING,
                              .over = s->phase == AT_SIM_OVER,
                              .violation = at_world_violation(s->world)};
    at_world_counts(s->world, &r.counts);
    r.safety_violations = r.violation != NULL;
    r.rounds_after_faults = s->healed ? r.counts.rounds - s->rounds_at_heal : 0;
    r.contributions_after_faults = s->healed ? r.counts.contributions - s->contributions_at_heal : 0;
    rates(s, &r);
    if (r.over) {
        r.liveness = is_live(s, &r);
        r.unfinished = r.liveness ? NULL : s->unfinished;
        r.kept_out = at_world_kept_out(s->world);
        bool blocks = s->options.stewards > 1;
        r.record_finality_ms_p50 = at_world_finality_ms(s->world, 500);
        r.record_finality_ms_p99 = at_world_finality_ms(s->world, 990);
        r.finality_ms_p50 = blocks ? at_world_block_finality_ms(s->world, 500) : r.record_finality_ms_p50;
        r.finality_ms_p99 = blocks ? at_world_block_finality_ms(s->world, 990) : r.record_finality_ms_p99;
        r.state_root = at_world_root(s->world);
        r.trace_hash = s->trace_hash;
    }
    *ret_report = r;
}

const char *at_sim_trace(const struct at_sim *s)
{
    return at_world_trace(s->world);
}
