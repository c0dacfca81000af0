/* sim_faults.c: which faults hit which node when, drawn from the seed before the run begins. */
#include "sim/sim_internal.h"

#include <stdio.h>
#include <string.h>

enum { PARTED = 32 /* nodes that a partition goes through as it does among few */ };

/* One kind: what it does to a node at a time. `round` is the length of a round, the measure of everything. */
typedef void plan_fn(struct at_sim *s, int node, uint64_t at, uint64_t round);

static void for_a_while(struct at_sim *s, int node, enum at_world_knob knob, uint64_t value, uint64_t normal,
                        uint64_t at, uint64_t ms)
{
    at_world_set(s->world, node, knob, value, at);
    at_world_set(s->world, node, knob, normal, at + ms);
}

static void latency(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t more = at_sim_between(s, 100, 2000);
    for_a_while(s, node, AT_WORLD_LATENCY_MS, more, 0, at, at_sim_between(s, round / 5, 2 * round));
}

static void bandwidth(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t permille = at_sim_between(s, 10, 200);
    for_a_while(s, node, AT_WORLD_RATE_PERMILLE, permille, 1000, at, at_sim_between(s, round / 5, 2 * round));
}

static void loss(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t ppm = at_sim_between(s, 10000, 100000);
    for_a_while(s, node, AT_WORLD_LOSS_PPM, ppm, 0, at, at_sim_between(s, round / 5, 2 * round));
}

/* The node and some others on one side, the rest on the other. Each node has its partitions, so were a third of all others
 * always in them, each would be in more of them the more nodes there are: a third of a thousand were apart at any time.
 * Among many nodes as many partitions as among a few are that wide, and into the others go as many nodes as there. */
static void partition(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t ms = at_sim_between(s, 6000, 6000 + 3 * round / 2), permille = at_sim_draw(s, 300);
    uint64_t nodes = (uint64_t)s->options.nodes, of = 1000;
    if (nodes > PARTED && at_sim_draw(s, nodes) >= PARTED) of = 1000 * nodes / PARTED;
    for_a_while(s, node, AT_WORLD_SIDE, 1 + (uint64_t)node, 0, at, ms);
    for (int i = 1; i < s->options.nodes && node != 0; i++)
        if (i != node && at_sim_draw(s, of) < permille) for_a_while(s, i, AT_WORLD_SIDE, 1 + (uint64_t)node, 0, at, ms);
}

static void oneway(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    enum at_world_knob knob = at_sim_draw(s, 2) ? AT_WORLD_DEAF : AT_WORLD_MUTE;
    for_a_while(s, node, knob, 1, 0, at, at_sim_between(s, 6000, 6000 + round));
}

/* Half of them in the worst moment: what was written last is lost, and has perhaps been told. */
static void crash(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    if (at_sim_draw(s, 2)) {
        at_world_set(s->world, node, AT_WORLD_DIES_WRITING, at_sim_between(s, 500, 500 + 2 * round / 3), at);
        return;
    }
    at_world_crash(s->world, node, at, false);
    at_world_return_node(s->world, node, at + at_sim_between(s, 500, 500 + 2 * round / 3));
}

/* One in four members stays away until the faults are over. */
static void death(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    at_world_crash(s->world, node, at, true);
    if (node < s->options.stewards || at_sim_draw(s, 4) > 0)
        at_world_return_node(s->world, node, at + at_sim_between(s, 8000, 8000 + 2 * round));
}

static void slow(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t permille = at_sim_between(s, 20, 500);
    for_a_while(s, node, AT_WORLD_SPEED_PERMILLE, permille, 1000, at, at_sim_between(s, round / 2, 3 * round));
}

static void skew(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t most = s->options.stewards > 1 && !at_sim_may_fail(s, node) ? 2000 : 60000;
    (void)round;
    at_world_set(s->world, node, AT_WORLD_SKEW_MS, AT_WORLD_SKEW_ZERO - most + at_sim_draw(s, 2 * most + 1), at);
}

static void disk_full(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t ms = at_sim_between(s, round / 5, round);
    for_a_while(s, node, AT_WORLD_DISK_FULL, 1, 0, at, ms);
    for (uint64_t k = 1; k <= 6; k++) at_world_return_node(s->world, node, at + k * ms / 5); /* a service tries again */
}

static void disk_slow(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t sync_ms = at_sim_between(s, 200, 3000);
    for_a_while(s, node, AT_WORLD_SYNC_MS, sync_ms, 0, at, at_sim_between(s, round / 5, 2 * round));
}

/* A single steward's disk is the only one that nobody could replace: a run does not survive its loss. */
static void disk_corrupt(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t rot = at_sim_between(s, 1, 15);
    if (!at_sim_may_fail(s, node)) return;
    at_world_set(s->world, node, AT_WORLD_DISK_ROT, rot, at);
    at_world_crash(s->world, node, at, false);
    at_world_return_node(s->world, node, at + at_sim_between(s, 500, 500 + 2 * round / 3));
}

static void churn(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    uint64_t away = at_sim_between(s, round / 2, 4 * round);
    if (node < s->options.stewards) return; /* a single one's leaving is the end of the run */
    at_world_finish(s->world, node, at);
    at_world_return_node(s->world, node, at + away);
    at_world_return_node(s->world, node, at + away + 3 * round); /* it may have left late */
}

static void flood(struct at_sim *s, int node, uint64_t at, uint64_t round)
{
    for (int i = 0; i < 10; i++) at_world_flood(s->world, node, at + at_sim_draw(s, round));
}

static const struct kind {
    struct at_sim_fault_info info;
    plan_fn *plan;
} kinds[AT_SIM_FAULT_COUNT] = {
    [AT_SIM_LATENCY] = {{"latency", "a node's line takes 0.1 to 2 s more for a while"}, latency},
    [AT_SIM_BANDWIDTH] = {{"bandwidth", "a node's line has 1 to 20 % of its rate for a while"}, bandwidth},
    [AT_SIM_LOSS] = {{"loss", "1 to 10 % of a node's packets are lost for a while: TCP is late and slow"}, loss},
    [AT_SIM_PARTITION] = {{"partition", "a node and up to a third of the others are cut off from the rest"}, partition},
    [AT_SIM_ONEWAY] = {{"oneway", "a node sends but does not hear, or hears but cannot send"}, oneway},
    [AT_SIM_CRASH] = {{"crash", "a process is killed; what was not durable is lost; it starts again"}, crash},
    [AT_SIM_DEATH] = {{"death", "a machine dies in silence; peers find out after 5 s; it may come back late"}, death},
    [AT_SIM_SLOW] = {{"slow", "a node computes at 2 to 50 % of its speed for a while"}, slow},
    [AT_SIM_SKEW] = {{"skew", "a node's clock jumps by up to a minute, ahead or back"}, skew},
    [AT_SIM_DISK_FULL] = {{"disk-full", "a node's writes fail for a while, and its process dies of each"}, disk_full},
    [AT_SIM_DISK_SLOW] = {{"disk-slow", "a node's writes take up to 3 s to be durable for a while"}, disk_slow},
    [AT_SIM_DISK_CORRUPT] = {{"disk-corrupt", "a member starts with a damaged log, a lost state, garbage in unfinished"
                                              "\n                blobs, or an old copy of its folder"},
                             disk_corrupt},
    [AT_SIM_CHURN] = {{"churn", "half of the members come late; members leave and come back"}, churn},
    [AT_SIM_FLOOD] = {{"flood", "strangers: half-open links, garbage, wants, records, joins that never work"}, flood},
};

const struct at_sim_fault_info *at_sim_fault_info(enum at_sim_fault fault)
{
    return &kinds[fault].info;
}

/* ---- their names ---- */
static const struct {
    const char *name, *why;
} others[] = {
    {"duplication", "links are TLS over TCP, which delivers once; a Byzantine node that repeats itself is --byzantine"},
    {"reordering", "links are TLS over TCP, which keeps the order; control overtakes bulk without asking"},
    {"nat", "it is an option of its own: --nats PERCENT"},
    {"equivocation", "it is what stewards do that lie: --stewards 4 --byzantine 1"},
    {"byzantine", "it is an option of its own: --byzantine F"},
};

static at_err_t refuse(const char *word, size_t n, struct at_diag *diag)
{
    char list[256] = "";
    for (int i = 0; i < AT_SIM_FAULT_COUNT; i++) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", kinds[i].info.name);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strlen(others[i].name) == n && strncmp(word, others[i].name, n) == 0)
            return at_fail(diag, AT_E_USAGE, "--faults", "%s is not simulated: %s. There are: all, none, %s",
                           others[i].name, others[i].why, list);
    return at_fail(diag, AT_E_USAGE, "--faults", "%.*s: no such fault. There are: all, none, %s",
                   (int)(n < 40 ? n : 40), word, list);
}

static int find(const char *word, size_t n)
{
    for (int i = 0; i < AT_SIM_FAULT_COUNT; i++)
        if (strlen(kinds[i].info.name) == n && strncmp(word, kinds[i].info.name, n) == 0) return i;
    return -1;
}

at_err_t at_sim_faults_parse(const char *list, struct at_diag *diag, uint32_t *ret_set)
{
    uint32_t set = 0;
    if (strcmp(list, "all") == 0) {
        *ret_set = (UINT32_C(1) << AT_SIM_FAULT_COUNT) - 1;
        return AT_OK;
    }
    if (strcmp(list, "none") == 0) {
        *ret_set = 0;
        return AT_OK;
    }
    for (const char *word = list;; word++) {
        size_t n = strcspn(word, ",");
        int kind = find(word, n);
        if (kind < 0) return refuse(word, n, diag);
        set |= UINT32_C(1) << kind;
        word += n;
        if (*word == '\0') break;
    }
    *ret_set = set;
    return AT_OK;
}

void at_sim_faults_text(uint32_t set, char *ret_text, size_t room)
{
    size_t n = 0;
    bool all = set == (UINT32_C(1) << AT_SIM_FAULT_COUNT) - 1;
    snprintf(ret_text, room, "%s", all ? "all" : "none");
    for (int i = 0; i < AT_SIM_FAULT_COUNT && !all; i++) {
        if (!(set >> i & 1) || n >= room) continue;
        int more = snprintf(ret_text + n, room - n, "%s%s", n ? "," : "", kinds[i].info.name);
        n += more > 0 ? (size_t)more : 0;
    }
}

at_err_t at_sim_canary_parse(const char *name, struct at_diag *diag, enum at_node_canary *ret_canary)
{
    static const char *const names[] = {[AT_NODE_CANARY_ACK_EARLY] = "ack-early",
                                        [AT_NODE_CANARY_COUNT_UNFETCHED] = "count-unfetched",
                                        [AT_NODE_CANARY_NO_DUMMIES] = "no-dummies"};
    for (size_t i = 1; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) {
            *ret_canary = (enum at_node_canary)i;
            return AT_OK;
        }
    return at_fail(diag, AT_E_USAGE, "--canary",
                   "%.40s: no such bug. There are: ack-early (the steward tells of records before they are durable), "
                   "count-unfetched (it counts updates that it does not have), no-dummies (several stewards build on a "
                   "parent views back, without the dummies between)",
                   name);
}

/* ---- the plan ---- */
static int pick(struct at_sim *s)
{
    int count = 0, chosen = -1;
    for (int i = 0; i < AT_SIM_FAULT_COUNT; i++) count += s->options.faults >> i & 1;
    uint64_t left = at_sim_draw(s, (uint64_t)count);
    for (int i = 0; i < AT_SIM_FAULT_COUNT && chosen < 0; i++)
        if (s->options.faults >> i & 1 && left-- == 0) chosen = i;
    return chosen;
}

/* Each node has its own row of faults, with gaps of nothing to twice the mean between them. */
void at_sim_plan_faults(struct at_sim *s)
{
    uint64_t round = s->options.round_ms, from = 2 * round;
    if (s->options.faults == 0 || s->options.faults_per_round <= 0) return;
    uint64_t gap = (uint64_t)((double)round / s->options.faults_per_round) + 1;
    for (int node = 0; node < s->options.nodes; node++)
        for (uint64_t at = from + at_sim_draw(s, 2 * gap); at < s->heal_ms; at += 1 + at_sim_draw(s, 2 * gap))
            kinds[pick(s)].plan(s, node, at, round);
}

void at_sim_heal(struct at_sim *s)
{
    static const struct {
        enum at_world_knob knob;
        uint64_t normal;
    } knobs[] = {{AT_WORLD_SPEED_PERMILLE, 1000},
                 {AT_WORLD_LATENCY_MS, 0},
                 {AT_WORLD_RATE_PERMILLE, 1000},
                 {AT_WORLD_LOSS_PPM, 0},
                 {AT_WORLD_SIDE, 0},
                 {AT_WORLD_DEAF, 0},
                 {AT_WORLD_MUTE, 0},
                 {AT_WORLD_SKEW_MS, AT_WORLD_SKEW_ZERO},
                 {AT_WORLD_SYNC_MS, 0},
                 {AT_WORLD_DISK_FULL, 0},
                 {AT_WORLD_DIES_WRITING, 0}};
    uint64_t last =
        at_world_now_ms(s->world) + 6 * s->options.round_ms; /* what was planned to end later ends now too */
    for (int node = 0; node < s->options.nodes; node++) {
        for (size_t k = 0; k < sizeof knobs / sizeof knobs[0]; k++)
            at_world_set(s->world, node, knobs[k].knob, knobs[k].normal, at_world_now_ms(s->world));
        for (uint64_t at = at_world_now_ms(s->world); at <= last; at += s->options.round_ms)
            at_world_return_node(s->world, node, at + 1 + at_sim_draw(s, 1000));
    }
}
