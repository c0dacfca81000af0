/* sim_test.c: simulated runs as wholes: what the options refuse, that one seed is one run, that each fault does what its
 * name says and is survived, that lies are, and that a planted bug is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "os/sys.h"
#include "sim/sim.h"

#include <stdio.h>
#include <string.h>

static struct at_sim_options small(uint64_t seed)
{
    return (struct at_sim_options){.seed = seed,
                                   .nodes = 6,
                                   .duration_ms = 300000,
                                   .round_ms = 20000,
                                   .update_bytes = 128000,
                                   .faults_per_round = 0.3};
}

static struct at_sim *run(const struct at_sim_options *o, struct at_sim_report *ret_report)
{
    struct at_diag diag = {0};
    struct at_sim *s = NULL;
    if (at_sim_init(o, &diag, &s)) fail_msg("%s: %s", diag.where, diag.text);
    while (at_sim_advance(s, 7000)) continue;
    at_sim_report(s, ret_report);
    return s;
}

/* Runs and must be safe and live. */
static struct at_sim_report must_hold(const struct at_sim_options *o)
{
    struct at_sim_report r;
    struct at_sim *s = run(o, &r);
    char faults[160];
    at_sim_faults_text(o->faults, faults, sizeof faults);
    if (r.violation || !r.liveness)
        fail_msg("seed %llu, faults %s: %s", (unsigned long long)o->seed, faults,
                 r.violation ? r.violation : r.unfinished);
    at_sim_release(s);
    r.violation = r.unfinished = NULL;
    return r;
}

static void names_of_faults(void **state)
{
    (void)state;
    uint32_t set, again;
    char text[160];
    struct at_diag diag = {0};
    assert_int_equal(at_sim_faults_parse("none", &diag, &set), AT_OK);
    assert_int_equal(set, 0);
    assert_int_equal(at_sim_faults_parse("all", &diag, &set), AT_OK);
    for (int i = 0; i < AT_SIM_FAULT_COUNT; i++) assert_true(set >> i & 1);
    at_sim_faults_text(set, text, sizeof text);
    assert_string_equal(text, "all");
    assert_int_equal(at_sim_faults_parse("churn,crash", &diag, &set), AT_OK);
    assert_int_equal(set, 1 << AT_SIM_CHURN | 1 << AT_SIM_CRASH);
    at_sim_faults_text(set, text, sizeof text);
    assert_string_equal(text, "crash,churn");
    assert_int_equal(at_sim_faults_parse(text, &diag, &again), AT_OK);
    assert_int_equal(again, set);
    static const struct {
        const char *list, *expect;
    } bad[] = {{"nat", "nat is not simulated"},
               {"crash,reordering", "reordering is not simulated"},
               {"crush", "crush: no such fault"},
               {"crash,,churn", "no such fault"},
               {"", "There are: all, none, latency"},
               {"all,crash", "all: no such fault"},
               {"crash,", "no such fault"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        diag = (struct at_diag){0};
        assert_int_equal(at_sim_faults_parse(bad[i].list, &diag, &set), AT_E_USAGE);
        if (!strstr(diag.text, bad[i].expect)) fail_msg("\"%s\": %s", bad[i].list, diag.text);
    }
}

static void must_refuse(struct at_sim_options o, const char *where)
{
    struct at_diag diag = {0};
    struct at_sim *s = NULL;
    assert_int_equal(at_sim_init(&o, &diag, &s), AT_E_USAGE);
    assert_string_equal(diag.where, where);
}

static void options_that_make_no_sense(void **state)
{
    (void)state;
    struct at_sim_options o = small(1);
    o.nodes = AT_SIM_NODES_MAX + 1;
    must_refuse(o, "--nodes");
    o.nodes = 0;
    must_refuse(o, "--nodes");
    o = small(1);
    o.byzantine = o.nodes;
    must_refuse(o, "--byzantine");
    o = small(1);
    for (o.stewards = 2; o.stewards <= 3; o.stewards++) must_refuse(o, "--stewards");
    o.stewards = 7; /* of six nodes */
    must_refuse(o, "--stewards");
    o.stewards = 4;
    o.byzantine = 3; /* four bear one, and beside them are two */
    must_refuse(o, "--byzantine");
    o.byzantine = 0;
    o.canary = AT_NODE_CANARY_ACK_EARLY; /* a single steward's */
    must_refuse(o, "--canary");
    o.stewards = 1;
    o.canary = AT_NODE_CANARY_NO_DUMMIES;
    must_refuse(o, "--canary");
    o = small(1);
    o.duration_ms = 5 * o.round_ms;
    must_refuse(o, "--hours");
    o.duration_ms = 10 * o.round_ms;
    o.faults = 1; /* they must be over before liveness is judged */
    must_refuse(o, "--hours");
    o = small(1);
    o.update_bytes = 100000000; /* too heavy for any line */
    must_refuse(o, "--update-kb");
}

/* Without faults everybody takes part in every round but for those who arrive in the first ones. */
static void undisturbed(void **state)
{
    (void)state;
    struct at_sim_options o = small(1);
    struct at_sim_report r = must_hold(&o);
    assert_true(r.counts.rounds >= 8);
    assert_true(r.counts.contributions + 12 >= (uint64_t)r.counts.rounds * 6);
    assert_int_equal(r.counts.joins, 6);
    assert_int_equal(r.counts.crashes + r.counts.silent_deaths + r.counts.disk_deaths + r.counts.leaves, 0);
    assert_int_equal(r.kept_out, 0);
    assert_true(r.utilisation > 0.4 && r.utilisation < 1);
    assert_true(r.nodes_mean > 5.5 && r.nodes_mean <= 6);
    /* Each member sends its update to the steward and fetches the others' from it. */
    assert_true(r.bytes_per_node_round > 128000 && r.bytes_per_node_round < 10 * 128000);
    /* A receipt waits for its update to have been fetched: more than a round trip, less than the round. */
    assert_true(r.finality_ms_p50 > 10 && r.finality_ms_p50 < 20000);
}

/* More than a steward looks at one by one. That the log is longer is told to two peers at a time: when all told all, it was
 * a thousand Heads a node and round here. */
static void many_members(void **state)
{
    (void)state;
    struct at_sim_options o = small(1);
    o.nodes = 72;
    o.duration_ms = 120000;
    struct at_sim_report r = must_hold(&o);
    assert_int_equal(r.counts.joins, 72);
    assert_int_equal(r.kept_out, 0);
    assert_true(2 * r.counts.contributions > (uint64_t)r.counts.rounds * 72);
    assert_true(r.messages_of[AT_MSG_HEAD] > 0 && r.messages_of[AT_MSG_HEAD] < 100);
}

/* Larger updates take longer on the lines, and nothing else is different. */
static void lines_have_rates(void **state)
{
    (void)state;
    struct at_sim_options light = small(2), heavy = small(2);
    heavy.update_bytes = 8000000;
    struct at_sim_report a = must_hold(&light), b = must_hold(&heavy);
    assert_true(b.finality_ms_p50 > a.finality_ms_p50 + 100); /* 8 MB at most at 500 Mbit/s: 128 ms */
    assert_true(b.bytes_per_node_round > 20 * a.bytes_per_node_round);
    assert_true(b.counts.rounds <= a.counts.rounds);
}

static void one_seed_one_run(void **state)
{
    (void)state;
    struct at_sim_options o = small(3);
    struct at_sim_report a, b, c;
    o.faults = (1u << AT_SIM_FAULT_COUNT) - 1;
    o.byzantine = 1;
    o.trace_bytes = 10000;
    struct at_sim *s = run(&o, &a), *t = run(&o, &b);
    assert_true(strlen(at_sim_trace(s)) >= 9900); /* it is longer than what is kept */
    assert_string_equal(at_sim_trace(s), at_sim_trace(t));
    assert_memory_equal(&a.trace_hash, &b.trace_hash, sizeof a.trace_hash);
    assert_memory_equal(&a.counts, &b.counts, sizeof a.counts);
    at_sim_release(t);
    o.trace_bytes = 0; /* to look changes nothing */
    t = run(&o, &c);
    assert_true(c.counts.fingerprint == a.counts.fingerprint);
    at_sim_release(t);
    o.seed++;
    t = run(&o, &c);
    assert_true(c.counts.fingerprint != a.counts.fingerprint);
    at_sim_release(t);
    at_sim_release(s);
}

/* What a fault leaves behind in the figures; fewer contributions a node and round than undisturbed where it has nothing
 * of its own. */
static uint64_t trace_of(enum at_sim_fault fault, const struct at_sim_report *r)
{
    const struct at_world_counts *c = &r->counts;
    switch (fault) {
    case AT_SIM_CRASH:
    case AT_SIM_DISK_CORRUPT:
        return c->crashes;
    case AT_SIM_DEATH:
        return c->silent_deaths;
    case AT_SIM_DISK_FULL:
        return c->disk_deaths;
    case AT_SIM_CHURN:
        return c->leaves;
    case AT_SIM_FLOOD:
        return c->floods;
    case AT_SIM_PARTITION:
    case AT_SIM_ONEWAY:
        return c->link_breaks > 5 ? c->link_breaks - 5 : 0; /* the members' own at the end */
    default:
        return c->fingerprint;
    }
}

static void each_fault_alone(void **state)
{
    (void)state;
    struct at_sim_options o = small(4);
    uint64_t calm = must_hold(&o).counts.fingerprint;
    for (int i = 0; i < AT_SIM_FAULT_COUNT; i++) {
        o.faults = 1u << i;
        struct at_sim_report r = must_hold(&o);
        if (r.counts.fingerprint == calm || trace_of((enum at_sim_fault)i, &r) == 0)
            fail_msg("%s leaves no trace", at_sim_fault_info((enum at_sim_fault)i)->name);
    }
}

/* Lies of three in eight: what the honest ones do counts, and goes on. */
static void byzantine_members(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct at_sim_options o = small(seed);
        o.nodes = 8;
        o.byzantine = 3;
        struct at_sim_report r = must_hold(&o);
        assert_true(r.counts.contributions >= 4 * (uint64_t)r.counts.rounds);
    }
}

/* Four seats, with all faults; then with one of them lying as well. */
static void several_stewards(void **state)
{
    (void)state;
    for (int liars = 0; liars < 2; liars++) {
        struct at_sim_options o = small(6 + (uint64_t)liars);
        o.stewards = 4;
        o.byzantine = liars;
        if (liars) o.duration_ms = 440000; /* it may cost each round its whole time */
        o.faults = (1u << AT_SIM_FAULT_COUNT) - 1;
        struct at_sim_report r = must_hold(&o);
        assert_int_equal(r.counts.seats, 4);
        assert_true(r.counts.term >= 2);
        assert_true(r.finality_ms_p50 > 0 && r.finality_ms_p50 < 20000);
        assert_true(r.record_finality_ms_p50 > 0);
        print_message("%d liars: %u rounds, a block final after %u ms\n", liars, r.counts.rounds, r.finality_ms_p50);
    }
}

static void must_find(enum at_node_canary canary, int stewards, const char *a, const char *b)
{
    struct at_sim_options o = small(5);
    struct at_sim_report r;
    o.canary = canary;
    o.stewards = stewards;
    struct at_sim *s = run(&o, &r);
    if (!r.violation) fail_msg("nobody saw canary %d", canary);
    print_message("%s\n", r.violation);
    assert_true(strstr(r.violation, a) || strstr(r.violation, b));
    assert_int_equal(r.safety_violations, 1);
    assert_false(r.liveness);
    at_sim_release(s);
}

static void canaries(void **state)
{
    (void)state;
    must_find(AT_NODE_CANARY_ACK_EARLY, 1, "two different records", "shorter past");
    must_find(AT_NODE_CANARY_COUNT_UNFETCHED, 1, "the steward lacks", "the steward lacks");
    must_find(AT_NODE_CANARY_NO_DUMMIES, 4, "two different records", "excludes the final log");
}

int main(void)
{
    at_sys_memory_sparse();
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_of_faults),  cmocka_unit_test(options_that_make_no_sense),
                                       cmocka_unit_test(undisturbed),      cmocka_unit_test(many_members),
                                       cmocka_unit_test(lines_have_rates), cmocka_unit_test(one_seed_one_run),
                                       cmocka_unit_test(each_fault_alone), cmocka_unit_test(byzantine_members),
                                       cmocka_unit_test(several_stewards), cmocka_unit_test(canaries)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
