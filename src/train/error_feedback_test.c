/* Error feedback round by round is that of the run in one process; work that does not count leaves no trace; what is not
 * the member's own is zero; a file is taken as it was written or not at all. */
#include "train/error_feedback.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bench {
    struct test_run run;
    struct at_local l; /* the oracle */
    struct at_trainer trainer;
    struct at_error_feedback f;
};

static void begin(struct bench *b, enum at_outer_kind kind)
{
    struct at_outer_config outer;
    memset(b, 0, sizeof *b);
    assert_true(test_run_init(&b->run, &run_configs[0]));
    at_outer_config_default(&outer, kind);
    if (kind == AT_OUTER_SPARSE) outer.dense_fraction = 0.4; /* both codecs */
    struct at_local_options o = {.replicas = 1, .outer = &outer};
    assert_int_equal(at_local_init_options(&b->l, &b->run.m, &b->run.data, &b->run.config, &o, NULL), AT_OK);
    assert_int_equal(at_trainer_init(&b->trainer, &b->run.m, &b->run.config, 0, NULL), AT_OK);
    b->f.params = &b->run.m.params;
}

static void end(struct bench *b)
{
    at_error_feedback_release(&b->f);
    at_trainer_release(&b->trainer);
    at_local_release(&b->l);
    test_run_release(&b->run);
}

/* The unit of this round, on samples from `start` on, as a member does it; `out` holds its update. */
static void unit(struct bench *b, uint64_t start, struct at_buf *out)
{
    struct at_round rule = at_local_next(&b->l);
    struct at_unit u = {.start = start, .samples = rule.steps * b->run.config.batch, .step_first = rule.step_first};
    struct at_unit_report report;
    struct at_update_source source = {.params = b->f.params,
                                      .theta_start = b->l.state.theta,
                                      .theta = b->trainer.theta,
                                      .stats = b->trainer.stats,
                                      .stats_public = b->l.state.stats};
    assert_int_equal(at_unit_train(&b->trainer, &b->run.ex, &b->run.data, &b->l.state, &u, NULL, NULL, NULL, &report),
                     AT_OK);
    at_buf_clear(out);
    out->bytes_max = at_update_bytes_max(b->f.params);
    assert_int_equal(
        at_error_feedback_encode(&b->f, &b->run.ex, at_codec_find(rule.codec), rule.k, &report.info, &source, out),
        AT_OK);
}

static void one_round(struct bench *b, struct at_buf *out)
{
    double loss;
    struct at_round rule = at_local_next(&b->l);
    unit(b, rule.step_first * b->run.config.batch, out);
    assert_int_equal(at_local_round(&b->l, &b->run.ex, NULL, NULL, NULL, &loss), AT_OK);
    assert_true(at_span_eq(at_buf_span(out), at_buf_span(&b->l.replica[0].blob)));
    assert_true(at_error_feedback_settle(&b->f, at_sha256(out->p, out->n)));
    assert_memory_equal(b->f.e, b->l.replica[0].feedback, b->f.params->count * sizeof *b->f.e);
}

static void counted_work_is_that_of_one_process(void **state)
{
    static const enum at_outer_kind kinds[] = {AT_OUTER_DILOCO, AT_OUTER_SPARSE};
    for (size_t i = 0; i < 2; i++) {
        struct bench b;
        struct at_buf out = {0};
        begin(&b, kinds[i]);
        for (int round = 0; round < 4; round++) one_round(&b, &out);
        at_buf_release(&out);
        end(&b);
    }
}

static void work_that_does_not_count_leaves_no_trace(void **state)
{
    struct bench b;
    struct at_buf out = {0};
    begin(&b, AT_OUTER_SPARSE);
    struct at_hash none = {{0}}, before = at_error_feedback_hash(&b.f);
    assert_true(at_hash_is_zero(before));
    unit(&b, 100, &out); /* a member's first, too late */
    assert_true(at_error_feedback_settle(&b.f, none));
    assert_true(at_hash_is_zero(at_error_feedback_hash(&b.f)));
    one_round(&b, &out);
    before = at_error_feedback_hash(&b.f);
    assert_false(at_hash_is_zero(before));
    struct at_hash counted = b.f.after;
    unit(&b, 100, &out);
    assert_true(at_error_feedback_settle(&b.f, counted));
    assert_true(at_hash_eq(at_error_feedback_hash(&b.f), before));
    one_round(&b, &out);
    assert_false(at_hash_eq(at_error_feedback_hash(&b.f), before));
    at_buf_release(&out);
    end(&b);
}

static void what_is_lost_is_zero(void **state)
{
    struct bench b;
    struct at_buf out = {0};
    begin(&b, AT_OUTER_DILOCO);
    one_round(&b, &out);
    struct at_hash other = at_sha256("another copy of this member did it", 34);
    assert_false(at_error_feedback_settle(&b.f, other));
    assert_true(at_hash_is_zero(at_error_feedback_hash(&b.f)));
    assert_null(b.f.e);
    assert_true(at_error_feedback_settle(&b.f, other)); /* told once */
    at_buf_release(&out);
    end(&b);
}

static void a_file_there_and_back(void **state)
{
    struct bench b;
    struct at_buf out = {0}, file = {0}, again = {0};
    begin(&b, AT_OUTER_DILOCO);
    one_round(&b, &out);
    struct at_hash first = b.f.after, run = at_sha256("run", 3), other = at_sha256("other", 5);
    file.bytes_max = again.bytes_max = at_error_feedback_file_bytes_max(b.f.params);
    assert_int_equal(at_error_feedback_write(&b.f, run, &file), AT_OK);
    struct at_error_feedback back = {.params = b.f.params};
    assert_int_equal(at_error_feedback_read(&back, run, at_buf_span(&file), NULL), AT_OK);
    assert_true(at_hash_eq(back.after, b.f.after));
    assert_true(at_hash_eq(at_error_feedback_hash(&back), at_error_feedback_hash(&b.f)));
    assert_memory_equal(back.e, b.f.e, b.f.params->count * sizeof *b.f.e);
    assert_int_equal(at_error_feedback_write(&back, run, &again), AT_OK);
    assert_true(at_span_eq(at_buf_span(&file), at_buf_span(&again)));
    at_error_feedback_release(&back);
    unit(&b, 100, &out); /* a second file, with a unit that is not decided */
    struct at_hash undecided = at_sha256(out.p, out.n);
    at_buf_clear(&again);
    assert_int_equal(at_error_feedback_write(&b.f, run, &again), AT_OK);
    assert_int_equal(at_error_feedback_read(&back, run, at_buf_span(&again), NULL), AT_OK);
    assert_true(at_error_feedback_settle(&back, undecided) && at_error_feedback_settle(&b.f, undecided));
    assert_memory_equal(back.e, b.f.e, b.f.params->count * sizeof *b.f.e);
    at_error_feedback_release(&back);
    assert_int_equal(at_error_feedback_read(&back, run, at_buf_span(&file), NULL), AT_OK);
    assert_false(at_error_feedback_settle(&back, undecided)); /* the first one is older */
    at_error_feedback_release(&back);
    assert_int_equal(at_error_feedback_read(&back, other, at_buf_span(&file), NULL), AT_E_DATA);
    assert_null(back.e);
    for (size_t bit = 0; bit < 8 * file.n; bit += bit < 8 * 600 ? 7 : 4099) { /* the header, then here and there */
        struct at_diag diag = {0};
        file.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        at_err_t err = at_error_feedback_read(&back, run, at_buf_span(&file), &diag);
        if (err == AT_OK) /* an update's name alone: then it is none that the log knows */
            assert_false(at_hash_eq(back.after, first) && at_hash_is_zero(back.update));
        else
            assert_true(diag.text[0] != '\0' && back.e == NULL && at_hash_is_zero(back.after));
        at_error_feedback_release(&back);
        file.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t n = 0; n < file.n; n += 1 + n / 3)
        assert_int_not_equal(at_error_feedback_read(&back, run, at_span(file.p, n), NULL), AT_OK);
    at_buf_release(&out);
    at_buf_release(&file);
    at_buf_release(&again);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(counted_work_is_that_of_one_process),
                                       cmocka_unit_test(work_that_does_not_count_leaves_no_trace),
                                       cmocka_unit_test(what_is_lost_is_zero), cmocka_unit_test(a_file_there_and_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
