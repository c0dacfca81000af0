/* A run's rounds by their number alone are those that follow one from the other. */
#include "model/rounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void same_round(const struct at_round *a, const struct at_round *b)
{
    assert_int_equal(a->round, b->round);
    assert_int_equal(a->steps, b->steps);
    assert_true(a->step_first == b->step_first);
    assert_int_equal(a->codec, b->codec);
    assert_int_equal(a->k, b->k);
    assert_int_equal(a->tau, b->tau);
    assert_int_equal(a->clip, b->clip);
    assert_true(a->alpha == b->alpha && a->momentum == b->momentum && a->seconds == b->seconds);
}

static void walk(const struct at_outer_config *c, const struct at_train_config *train)
{
    struct at_round last;
    uint64_t count = 0;
    for (uint32_t n = 0;; n++) {
        struct at_round next = at_outer_round(c, train, n == 0 ? NULL : &last);
        struct at_round same = at_outer_round_number(c, train, n);
        same_round(&next, &same);
        if (next.steps == 0) break;
        count++;
        last = next;
    }
    assert_true(at_outer_rounds(c, train) == count);
    assert_true(last.step_first + last.steps == (uint64_t)train->rounds * train->steps);
    assert_int_equal(at_outer_round_number(c, train, UINT32_MAX).steps, 0);
}

static void by_number_as_one_after_the_other(void **state)
{
    static const struct {
        uint32_t rounds, steps;
    } runs[] = {{1, 1}, {7, 3}, {24, 20}, {50, 30}};
    static const double fractions[] = {0, 0.1, 1.0 / 3, 0.5, 0.999, 1};
    for (int kind = AT_OUTER_MEAN; kind <= AT_OUTER_SPARSE; kind++)
        for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
            struct at_train_config train = {.rounds = runs[i].rounds, .steps = runs[i].steps, .batch = 1};
            struct at_outer_config c;
            at_outer_config_default(&c, (enum at_outer_kind)kind);
            walk(&c, &train);
            for (size_t f = 0; kind != AT_OUTER_MEAN && f < sizeof fractions / sizeof *fractions; f++) {
                at_outer_config_young(&c, fractions[f]);
                c.alpha_last = 0.65;
                walk(&c, &train);
            }
        }
}

static void a_mean_is_as_it_always_was(void **state)
{
    struct at_train_config train = {.rounds = 5, .steps = 4, .batch = 1};
    struct at_outer_config c;
    at_outer_config_default(&c, AT_OUTER_MEAN);
    for (uint32_t n = 0; n < 5; n++) {
        struct at_round is = at_outer_round_number(&c, &train, n), was = at_round_mean(n, 4, (uint64_t)n * 4);
        same_round(&is, &was);
        assert_false(at_round_is_lossy(&is));
    }
    assert_true(at_outer_rounds(&c, &train) == 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_number_as_one_after_the_other),
                                       cmocka_unit_test(a_mean_is_as_it_always_was)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
