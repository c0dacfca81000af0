/* What auto chooses for links from none to fast, young and later, and that it keeps its promise about the share of
 * exchanges. */
#include "train/auto.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct at_auto_run ten_m = {.replicas = 2, .weights = 10818432, .stats = 168320};
enum { ROUNDS = 1000, USUAL = 30 }; /* 30,000 steps, young for 9,000 */

static struct at_train_config long_run(void)
{
    struct at_train_config train = test_train_config();
    train.rounds = ROUNDS;
    train.steps = USUAL;
    return train;
}

static struct at_auto_measured link_of(double mbit, double step)
{
    return (struct at_auto_measured){.step_seconds = step, .bytes_per_second = mbit * 125000, .rtt_seconds = 0.02};
}

/* The round of 10m, at a second a step, that begins after `first` steps. */
static struct at_round ask_at(const struct at_outer_config *c, double mbit, uint64_t first)
{
    struct at_train_config train = long_run();
    struct at_auto_measured m = link_of(mbit, 1);
    struct at_round before = at_round_mean(6, (uint32_t)first, 0);
    struct at_round r = at_auto_round(c, &train, &ten_m, first != 0 ? &before : NULL, &m);
    assert_int_equal(at_round_check(&r, NULL), AT_OK);
    assert_true(r.round == (first != 0 ? 7 : 0) && r.step_first == first && r.steps >= 1);
    return r;
}

static struct at_round young(const struct at_outer_config *c, double mbit)
{
    return ask_at(c, mbit, 0);
}

static struct at_round later(const struct at_outer_config *c, double mbit)
{
    return ask_at(c, mbit, 9000);
}

/* A young run's rounds are dense, and as short as the link bears. */
static void test_young_rounds_are_short_and_dense(void **state)
{
    struct at_outer_config c;
    at_outer_config_default(&c, AT_OUTER_AUTO);
    assert_true(at_outer_config_momentum(&c));
    struct at_round r = young(&c, 1e5);
    assert_true(r.codec == AT_CODEC_PLAIN && r.steps == 2 && r.momentum == (real)(0.9 * 0.9));
    assert_true(r.alpha == 1 && r.clip == 0 && r.k == 0 && r.tau == 0);
    r = young(&c, 1000); /* 44 MB take 0.35 s: too long for two steps */
    assert_true(r.codec == AT_CODEC_INT4 && r.steps == 2);
    uint32_t before = 2;
    for (double mbit = 1000; mbit > 8; mbit *= 0.8) { /* 5.7 MB: 45 s at 1 Mbit/s */
        r = young(&c, mbit);
        assert_int_equal(r.codec, AT_CODEC_INT4);
        assert_true(r.steps >= before && r.steps <= AT_AUTO_YOUNG_STEPS_MAX && r.clip == 0);
        assert_true(r.momentum == at_outer_dense_momentum(&c, r.steps));
        struct at_auto_measured m = link_of(mbit, 1);
        double x = at_auto_exchange_seconds(r.codec, r.k, &ten_m, &m);
        assert_true(x <= AT_AUTO_SHARE * r.steps);
        assert_true(r.steps == 2 || x > AT_AUTO_SHARE * (r.steps - 1)); /* and no longer than it must be */
        before = r.steps;
    }
    assert_true(before > USUAL);
    r = young(&c, 1.5); /* int4 would need 606 steps a round */
    assert_true(r.codec == AT_CODEC_SPARSE && r.steps == USUAL && r.clip == 1 && r.momentum == (real)0.4);
}

/* Later rounds have the usual length, and the best codec that the link bears. */
static void test_later_rounds_are_long(void **state)
{
    struct at_outer_config c;
    at_outer_config_default(&c, AT_OUTER_AUTO);
    struct at_round r = later(&c, 1e5);
    assert_true(r.codec == AT_CODEC_PLAIN && r.steps == USUAL && r.momentum == at_outer_dense_momentum(&c, USUAL));
    assert_true(r.momentum > 0 && r.momentum < (real)0.05);
    assert_int_equal(ask_at(&c, 1e5, 8999).steps, 2); /* the last young round */
    r = later(&c, 100);
    assert_true(r.codec == AT_CODEC_INT4 && r.steps == USUAL);
    r = later(&c, 10); /* int4 would need H = 92, and has that while the run is young */
    assert_true(r.codec == AT_CODEC_SPARSE && r.steps == USUAL && r.k > later(&c, 2).k && r.clip == 1);
    assert_true(young(&c, 10).codec == AT_CODEC_INT4 && young(&c, 10).steps > USUAL);
    r = later(&c, 0.5); /* even 64 of 4096 are too much for 30 steps */
    assert_true(r.codec == AT_CODEC_SPARSE && r.k == c.k && r.steps > USUAL && r.steps < AT_AUTO_STEPS_MAX);
    r = later(&c, 0.01);
    assert_true(r.codec == AT_CODEC_SPARSE && r.k == c.k && r.steps == AT_AUTO_STEPS_MAX);
}

/* Wherever a choice exists that keeps exchanges within 5 %, it is taken; and the slower the link, the fewer bytes a step. */
static void test_share_is_kept(void **state)
{
    struct at_outer_config c;
    at_outer_config_default(&c, AT_OUTER_AUTO);
    for (int old = 0; old < 2; old++) {
        double before = 1e30;
        int over = 0, within = 0;
        for (double mbit = 1e6; mbit > 0.02; mbit *= 0.9) {
            struct at_round r = old ? later(&c, mbit) : young(&c, mbit);
            struct at_auto_measured m = link_of(mbit, 1);
            double share = at_auto_exchange_seconds(r.codec, r.k, &ten_m, &m) / r.steps;
            double least = at_auto_exchange_seconds(AT_CODEC_SPARSE, c.k, &ten_m, &m) / AT_AUTO_STEPS_MAX;
            double bytes = at_auto_update_bytes(r.codec, r.k, &ten_m) / r.steps;
            assert_true(share <= AT_AUTO_SHARE || least > AT_AUTO_SHARE);
            assert_true(least <= AT_AUTO_SHARE || (r.codec == AT_CODEC_SPARSE && r.steps == AT_AUTO_STEPS_MAX));
            assert_true(bytes <= before * 1.0001);
            before = bytes;
            over += share > AT_AUTO_SHARE;
            within += share <= AT_AUTO_SHARE;
        }
        assert_true(over > 0 && within > 50);
    }
}

/* min(all, max(30 %, 2000)); --young says it outright. A run goes through its rounds and ends with its steps. */
static void test_youth(void **state)
{
    struct at_outer_config c;
    struct at_train_config train = long_run();
    at_outer_config_default(&c, AT_OUTER_AUTO);
    assert_int_equal(at_auto_young_steps(&c, &train), 9000);
    train.rounds = 100; /* 3,000 steps */
    assert_int_equal(at_auto_young_steps(&c, &train), 2000);
    train.rounds = 50; /* 1,500 */
    assert_int_equal(at_auto_young_steps(&c, &train), 1500);
    c.dense_steps = 0;
    assert_int_equal(at_auto_young_steps(&c, &train), 450);
    c.dense_fraction = 0;
    assert_int_equal(at_auto_young_steps(&c, &train), 0);
    c.dense_fraction = 1;
    assert_int_equal(at_auto_young_steps(&c, &train), 1500);

    at_outer_config_default(&c, AT_OUTER_AUTO);
    train.rounds = 100;
    struct at_auto_measured fast = link_of(1e5, 1);
    uint32_t rounds = 0, short_rounds = 0;
    uint64_t done = 0;
    struct at_round r = at_auto_round(&c, &train, &ten_m, NULL, &fast);
    for (; r.steps != 0; r = at_auto_round(&c, &train, &ten_m, &r, &fast)) {
        assert_true(r.step_first == done && r.round == rounds && r.codec == AT_CODEC_PLAIN);
        assert_int_equal(r.steps, done < 2000 ? 2 : done < 2990 ? USUAL : 10);
        assert_true(r.momentum == at_outer_dense_momentum(&c, r.steps));
        short_rounds += done < 2000;
        rounds++;
        done += r.steps;
    }
    assert_true(done == 3000 && short_rounds == 1000 && rounds == 1000 + 34);
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
    assert_true(r.codec == AT_CODEC_PLAIN && r.steps == 3 && r.momentum == at_outer_dense_momentum(&c, 3));
    /* The run's steps end it: 12 in all, however long a slow link would like its rounds. */
    struct at_auto_measured slow = {.step_seconds = 0.001, .bytes_per_second = 1000, .rtt_seconds = 1};
    uint64_t done = 0;
    struct at_round at = at_auto_round(&c, &train, &ten_m, NULL, &slow);
    for (; at.steps != 0; at = at_auto_round(&c, &train, &ten_m, &at, &slow)) {
        assert_int_equal(at.step_first, done);
        done += at.steps;
    }
    assert_int_equal(done, 12);
    train.steps = 1; /* who asks for rounds of one step gets them from the start */
    struct at_auto_measured fast = link_of(1e5, 1);
    assert_int_equal(at_auto_round(&c, &train, &ten_m, NULL, &fast).steps, 1);
    c.steps_min = 5;
    c.steps_max = 7;
    assert_true(young(&c, 1e5).steps == 5 && later(&c, 1e5).steps == 7); /* the usual 30 is beyond it */
    assert_true(young(&c, 0.001).steps == 7 && later(&c, 0.001).steps == 7);
    c.k = 128;
    assert_int_equal(later(&c, 0.001).k, 128);
    c.k = 100;
    assert_int_equal(later(&c, 0.001).k, 100);
}

/* Overlap hides tau steps' worth of an exchange, and needs rounds longer than tau. */
static void test_overlap(void **state)
{
    struct at_outer_config c;
    at_outer_config_default(&c, AT_OUTER_AUTO);
    uint32_t need = young(&c, 10).steps;
    c.tau = 2;
    struct at_round r = young(&c, 1e5);
    assert_true(r.codec == AT_CODEC_PLAIN && r.steps == 3 && r.tau == 2);
    r = young(&c, 1000); /* now plain is hidden */
    assert_true(r.codec == AT_CODEC_PLAIN && r.steps == 3 && r.tau == 2);
    r = young(&c, 10);
    assert_true(r.codec == AT_CODEC_INT4 && r.steps < need && r.tau == 2);
    struct at_auto_measured m = link_of(10, 1);
    assert_true(at_auto_exchange_seconds(r.codec, r.k, &ten_m, &m) - 2 <= AT_AUTO_SHARE * r.steps);
    assert_int_equal(later(&c, 1).tau, 2);
}

/* The estimates are near what the codecs make (codec_test holds them to the same bounds). */
static void test_estimates(void **state)
{
    assert_true(fabs(at_auto_update_bytes(AT_CODEC_SPARSE, 64, &ten_m) / 242411 - 1) < 0.05);
    assert_true(fabs(at_auto_update_bytes(AT_CODEC_INT4, 0, &ten_m) / 5673378 - 1) < 0.05);
    assert_true(fabs(at_auto_update_bytes(AT_CODEC_PLAIN, 0, &ten_m) / 43949992 - 1) < 0.01);
    struct at_auto_measured m = {0};
    at_auto_note_steps(&m, 2, 1.0); /* the first says all there is to say */
    assert_true(m.step_seconds == 0.5);
    at_auto_note_steps(&m, 2, 3.0); /* 1.5 a step, with a quarter of the weight */
    assert_true(m.step_seconds == 0.75);
    at_auto_note_steps(&m, 30, 60.0);
    assert_true(m.step_seconds == 2.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_young_rounds_are_short_and_dense),
        cmocka_unit_test(test_later_rounds_are_long),
        cmocka_unit_test(test_share_is_kept),
        cmocka_unit_test(test_youth),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_estimates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
