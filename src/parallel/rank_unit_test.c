/* A unit computed by several members from a state that each of them holds: their blobs together are the one that a
 * member alone makes, to the bit. */
#include "parallel/rank.h"
#include "parallel/rank_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct test_net net;

struct work {
    const struct at_state *state;
    struct at_unit unit;
    int stops; /* this rank wants no more after the first step; -1: none */
    struct at_buf blob[TEST_RANKS_MAX];
    at_err_t err[TEST_RANKS_MAX];
    int waves; /* of the share, before that rank has no more time */
    struct at_heldout_share share;
    uint32_t heldout[TEST_RANKS_MAX];
};

struct wish {
    const struct work *w;
    int rank, asked;
};

static bool progress(void *arg, const struct at_unit_progress *p)
{
    const struct wish *wish = arg;
    return wish->rank != wish->w->stops || p->step < 1;
}

/* The rank that ends the unit has no time for the share, either: not from the beginning, or after the first wave. */
static bool goes(void *arg)
{
    struct wish *wish = arg;
    return wish->rank != wish->w->stops || wish->asked++ < wish->w->waves;
}

static void body(struct split_job *j, struct at_rank *r, int rank)
{
    struct work *w = j->arg;
    struct at_unit_report report;
    struct wish wish = {w, rank, 0};
    w->blob[rank].bytes_max = at_update_bytes_max(&j->run->m.params);
    struct wish part = {w, rank, 0};
    w->err[rank] = at_rank_share(r, w->state, w->share, goes, &part, &j->diag[rank], &w->heldout[rank]);
    if (w->err[rank] != AT_OK) return;
    w->err[rank] = at_rank_unit(r, w->state, &w->unit, progress, &wish, &j->diag[rank], &w->blob[rank], &report);
}

/* Every block of the whole update is in exactly one of the parts, with the same bytes. */
static void same_update(const struct at_params *p, const struct work *w, int ranks, struct at_span whole)
{
    struct at_update one = {0}, parts = {0};
    assert_int_equal(at_update_parse(p, whole, NULL, &one), AT_OK);
    assert_int_equal(at_update_begin(&parts, p), AT_OK);
    for (int i = 0; i < ranks; i++) assert_int_equal(at_update_add(&parts, at_buf_span(&w->blob[i]), NULL), AT_OK);
    assert_int_equal(at_update_complete(&parts, NULL), AT_OK);
    for (int b = 0; b < p->blocks; b++) assert_true(at_span_eq(one.payload[b], parts.payload[b]));
    assert_memory_equal(&one.info, &parts.info, sizeof one.info);
    at_update_release(&one);
    at_update_release(&parts);
}

/* With `stages` ranks, of which `stops` ends the unit of three steps after one; -1: it has two, and nobody does. */
static void compare(bool tied, int stages, int stops)
{
    struct test_run run;
    struct at_model_config shape = TEST_SHAPE(4, 16, 8, 8, 24, 8, 257, tied);
    assert_true(test_run_init(&run, &shape));
    struct at_state s = {0};
    struct at_trainer t = {0};
    assert_int_equal(at_state_init(&s, &run.m.params), AT_OK);
    test_state(&s, 1);
    uint32_t batch = run.config.batch;
    struct work w = {.state = &s,
                     .stops = stops,
                     .share = {.first = 1, .step = 2, .most = 100},
                     .waves = stops % 2,
                     .unit = {.start = 3 * batch, .samples = (stops < 0 ? 2 : 3) * batch, .step_first = 2}};
    struct split_job job = {.run = &run, .body = body, .arg = &w};
    at_outer_config_default(&job.outer, AT_OUTER_MEAN);
    assert_int_equal(at_plan_uniform(&job.plan, &shape, 1, stages, 1, 2, batch, NULL), AT_OK);
    assert_null(split_run(&net, &job));
    struct at_buf whole = {.bytes_max = at_update_bytes_max(&run.m.params)};
    struct at_unit_report report;
    struct at_unit alone = w.unit;
    if (stops >= 0) alone.samples = batch;
    assert_int_equal(at_trainer_init(&t, &run.m, &run.config, 0, NULL), AT_OK);
    assert_int_equal(at_unit_run(&t, &run.ex, &run.data, &s, &alone, NULL, NULL, NULL, &whole, &report), AT_OK);
    for (int i = 0; i < stages; i++)
        if (w.err[i]) fail_msg("rank %d: %s", i, job.diag[i].text);
    same_update(&run.m.params, &w, stages, at_buf_span(&whole));
    uint32_t heldout = at_heldout_of_share(&t, &run.ex, &run.data, s.theta, w.share, NULL, NULL);
    assert_true(heldout > 0 && at_heldout_windows(&run.data, w.share) > (long)batch); /* two waves at least */
    for (int i = 0; i < stages; i++) assert_int_equal(w.heldout[i], i + 1 < stages || stops >= 0 ? 0 : heldout);
    for (int i = 0; i < stages; i++) at_buf_release(&w.blob[i]);
    at_buf_release(&whole);
    at_trainer_release(&t);
    at_state_release(&s);
    at_plan_release(&job.plan);
    test_run_release(&run);
}

static void parts_are_the_update_of_one_member(void **state)
{
    (void)state;
    for (int stages = 1; stages <= 4; stages++) {
        compare(false, stages, -1);
        compare(true, stages, -1);
    }
}

static void any_of_them_ends_the_unit(void **state)
{
    (void)state;
    for (int stages = 1; stages <= 4; stages++)
        for (int stops = 0; stops < stages; stops++) compare(false, stages, stops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_are_the_update_of_one_member),
                                       cmocka_unit_test(any_of_them_ends_the_unit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
