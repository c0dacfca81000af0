/* What auto chooses for links from none to fast, and that it keeps its promise about the share of exchanges. */
#include "train/auto.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct at_auto_run ten_m = {.replicas = 2, .weights = 10818432, .stats = 168320};

static struct at_round ask(const struct at_outer_config *c, const struct at_auto_run *run, double mbit, double step)
{
    struct at_train_config train = test_train_config();
    train.rounds = 100;
    train.steps = 30;
    struct at_auto_measured m = {.step_seconds = step, .bytes_per_second = mbit * 125000, .rtt_seconds = 0.02};
    struct at_round r = at_auto_round(c, &train, run, NULL, &m);
    assert_int_equal(at_round_check(&r, NULL), AT_OK);
    assert_true(r.round == 0 && r.step_first == 0 && r.steps >= 1);
    return r;
}

/* The slower the link, the fewer bytes a step; within 5 % wherever that can be. */
static void test_slower_links_send_less(void **state)
{
    struct at_outer_config c;
    at_outer_config_default(&c, AT_OUTER_AUTO);
    assert_int_equal(ask(&c, &ten_m, 1e5, 1).codec, AT_CODEC_PLAIN);
    assert_int_equal(ask(&c, &ten_m, 1e5, 1).steps, 30);
    assert_int_equal(ask(&c, &ten_m, 100, 1).codec, AT_CODEC_INT4);
    assert_int_equal(ask(&c, &ten_m, 10, 1).codec, AT_CODEC_INT4);
    assert_int_equal(ask(&c, &ten_m, 1, 1).codec, AT_CODEC_SPARSE);
    c.dense_fraction = 0; /* an older run: sparse sooner */
    assert_int_equal(ask(&c, &ten_m, 100, 1).codec, AT_CODEC_INT4);
    assert_int_equal(ask(&c, &ten_m, 10, 1).codec, AT_CODEC_SPARSE);
    assert_true(ask(&c, &ten_m, 10, 1).k > ask(&c, &ten_m, 1, 1).k);
    assert_true(ask(&c, &ten_m, 10, 1).momentum == (real)c.momentum && ask(&c, &ten_m, 100, 1).momentum == 0);
    double before = 1e30;
    for (double mbit = 1e5; mbit > 0.02; mbit *= 0.8) {
        struct at_round r = ask(&c, &ten_m, mbit, 1);
        struct at_auto_measured m = {.step_seconds = 1, .bytes_per_second = mbit * 125000, .rtt_seconds = 0.02};
        double x = at_auto_exchange_seconds(r.codec, r.k, &ten_m, &m);
        bool last = r.codec == AT_CODEC_SPARSE && r.k == c.k && r.steps == AT_AUTO_STEPS_MAX;
        assert_true(last || x <= AT_AUTO_SHARE * r.steps * 1.0001);
        double bytes = at_auto_update_bytes(r.codec, r.k, &ten_m) / r.steps;
        assert_true(bytes <= before * 1.0001 || r.codec == AT_CODEC_SPARSE);
        before = bytes;
    }
    assert_int_equal(before == 1e30, false);
}

static void test_limits(void **state)
{
    struct at_outer_config c;
    struct at_train_config train = test_train_config(); /* 4 rounds of 3 */
    struct at_auto_measured none = {0};
    at_outer_config_default(&c, AT_OUTER_AUTO);
    struct at_round r = at_auto_round(&c, &train, &ten_m, NULL, &none); /* nothing known */
    assert_true(r.codec == AT_CODEC_SPARSE && r.k == c.k && r.steps == 3);
    struct at_auto_run alone = ten_m;
    alone.replicas = 1;
    r = at_auto_round(&c, &train, &alone, NULL, &none);
    assert_true(r.codec == AT_CODEC_PLAIN && r.steps == 3);
    /* The run's steps end it: 12 in all, however long a slow link would like its rounds. */
    struct at_auto_measured slow = {.step_seconds = 0.001, .bytes_per_second = 1000, .rtt_seconds = 1};
    uint64_t done = 0;
    struct at_round at = at_auto_round(&c, &train, &ten_m, NULL, &slow);
    for (; at.steps != 0; at = at_auto_round(&c, &train, &ten_m, &at, &slow)) {
        assert_int_equal(at.step_first, done);
        done += at.steps;
    }
    assert_int_equal(done, 12);
    c.steps_min = 5;
    c.steps_max = 7;
    assert_true(ask(&c, &ten_m, 1e5, 1).steps == 7); /* the usual 30 is beyond it */
    assert_true(ask(&c, &ten_m, 0.001, 1).steps == 7);
    c.k = 128;
    assert_true(ask(&c, &ten_m, 0.001, 1).k == 128);
    c.k = 100;
    assert_true(ask(&c, &ten_m, 0.001, 1).k == 100);
    c.tau = 2;
    assert_true(ask(&c, &ten_m, 10, 1).tau == 2);
}

/* The estimates are near what the codecs make (codec_test holds them to the same bounds). */
static void test_estimates(void **state)
{
    assert_true(fabs(at_auto_update_bytes(AT_CODEC_SPARSE, 64, &ten_m) / 242411 - 1) < 0.05);
    assert_true(fabs(at_auto_update_bytes(AT_CODEC_INT4, 0, &ten_m) / 5673378 - 1) < 0.05);
    assert_true(fabs(at_auto_update_bytes(AT_CODEC_PLAIN, 0, &ten_m) / 43949992 - 1) < 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slower_links_send_less),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_estimates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
