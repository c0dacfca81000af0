/* at_rank_bytes is what at_rank_init allocates, and an inner step allocates nothing: this program's own malloc counts. */
#include "parallel/rank.h"

#include "base/sanitized.h"
#include "parallel/rank_test_util.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNTED !AT_SANITIZED

static atomic_size_t bytes_held, calls;

#if COUNTED
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);

static void *count(void *p)
{
    if (p != NULL) atomic_fetch_add(&bytes_held, malloc_usable_size(p));
    atomic_fetch_add(&calls, 1);
    return p;
}
static void discount(void *p)
{
    if (p != NULL) atomic_fetch_sub(&bytes_held, malloc_usable_size(p));
}
void *malloc(size_t n)
{
    return count(__libc_malloc(n));
}
void *calloc(size_t k, size_t n)
{
    return count(__libc_calloc(k, n));
}
void *realloc(void *p, size_t n)
{
    discount(p);
    return count(__libc_realloc(p, n));
}
void *aligned_alloc(size_t align, size_t n)
{
    return count(__libc_memalign(align, n));
}
void free(void *p)
{
    discount(p);
    __libc_free(p);
}
#endif

/* Large enough that tables do not matter. */
static const struct at_model_config shape = TEST_SHAPE(4, 64, 8, 8, 160, 32, 257, true);

static struct test_net net;

struct bench {
    struct test_run run;
    struct split_job j;
};

static void start(struct bench *b, const char *const *cut, int replicas, int microbatches, enum at_outer_kind kind)
{
    assert_true(test_run_init(&b->run, &shape));
    b->j = (struct split_job){.run = &b->run};
    assert_true(split_plan(&b->j.plan, cut, replicas, microbatches));
    at_outer_config_default(&b->j.outer, kind);
}

static void stop(struct bench *b)
{
    at_plan_release(&b->j.plan);
    test_run_release(&b->run);
}

static void bytes_are_what_is_allocated(void **state)
{
    static const char *const cuts[][2] = {{"1x4"}, {"2x4"}, {"1x1 2x1 1x2"}, {"2x2 1x2", "1x4"}, {"1x4", "1x4"}};
    if (!COUNTED) skip();
    for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++)
        for (int kind = AT_OUTER_MEAN; kind <= AT_OUTER_DILOCO; kind++) {
            struct bench b;
            start(&b, cuts[c], cuts[c][1] != NULL ? 2 : 1, 1 + (int)c % 3, (enum at_outer_kind)kind);
            b.j.outer.tau = (uint32_t)c % 2;
            for (int i = 0; i < b.j.plan.ranks; i++) {
                struct at_comm alone = {.rank = i, .ranks = b.j.plan.ranks}; /* init sends nothing */
                struct at_rank_options o = {.plan = &b.j.plan,
                                            .model = &shape,
                                            .train = &b.run.config,
                                            .outer = &b.j.outer,
                                            .data = &b.run.data,
                                            .recompute = c == 2,
                                            .fragment_bytes = c == 4 ? 20000 : 0};
                size_t before = atomic_load(&bytes_held), said = at_rank_bytes(&o, i);
                assert_int_equal(atomic_load(&bytes_held), before);
                struct at_rank *r;
                assert_int_equal(at_rank_init(&r, &alone, &b.run.ex, &o, NULL), AT_OK);
                double off = (double)(atomic_load(&bytes_held) - before) / (double)said - 1;
                if (off < -0.01 || off > 0.01)
                    print_error("cut %zu, rank %d: %zu said, %zu allocated\n", c, i, said,
                                atomic_load(&bytes_held) - before);
                assert_true(off >= -0.01 && off <= 0.01);
                at_rank_release(r);
                assert_int_equal(atomic_load(&bytes_held), before);
            }
            stop(&b);
        }
}

/* Allocations between one step's end and the next one's, on all ranks: none. The test's own links allocate for every
 * message, so only one rank runs: the pipeline's, the trainer's and the outer step's own parts. */
static size_t calls_at[64];

static bool note(void *arg, const struct at_unit_progress *p)
{
    calls_at[p->step] = atomic_load(&calls);
    return true;
}

static void alone(struct split_job *j, struct at_rank *r, int rank)
{
    struct at_round round = at_outer_round(&j->outer, &j->run->config, NULL);
    j->err[rank] = at_rank_round(r, &round, note, NULL, &j->diag[rank], &j->report[rank]);
}

static void a_step_allocates_nothing(void **state)
{
    static const char *const cut[] = {"1x4"};
    struct bench b;
    if (!COUNTED) skip();
    start(&b, cut, 1, 2, AT_OUTER_MEAN);
    b.j.body = alone;
    assert_null(split_run(&net, &b.j));
    assert_int_equal(b.j.err[0], AT_OK);
    assert_true(calls_at[1] > 0);
    for (uint32_t k = 2; k <= b.run.config.steps; k++) assert_int_equal(calls_at[k], calls_at[1]);
    stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_what_is_allocated),
        cmocka_unit_test(a_step_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
