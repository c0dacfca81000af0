#include "os/pool.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define JOBS_MAX 1000
struct count {
    int done[JOBS_MAX];
};
static void count_job(void *arg, int job)
{
    ((struct count *)arg)->done[job]++;
}

/* Every job once, for every (threads, jobs) of a grid; the counters are plain ints, so TSan sees any sharing. */
static void test_each_job_once(void **state)
{
    static const int jobs[] = {0, 1, 2, 3, 7, 64, 999};
    struct count *c = calloc(1, sizeof *c);
    for (int threads = 1; threads <= 9; threads++) {
        struct at_pool pool;
        assert_int_equal(at_pool_init(&pool, threads, NULL), AT_OK);
        assert_int_equal(pool.par.threads, threads);
        for (size_t k = 0; k < sizeof jobs / sizeof *jobs; k++) {
            memset(c, 0, sizeof *c);
            at_par_run(&pool.par, jobs[k], count_job, c);
            for (int i = 0; i < JOBS_MAX; i++) assert_int_equal(c->done[i], i < jobs[k]);
        }
        at_pool_release(&pool);
    }
    free(c);
}

static void sum_job(void *arg, int job)
{
    ((uint64_t *)arg)[job * 8] += (uint64_t)job + 1;
}

/* Many runs back to back, and with pauses long enough for the threads to go to sleep: no wake-up is lost either way. */
static void test_many_runs(void **state)
{
    struct at_pool pool;
    uint64_t sums[16 * 8] = {0};
    assert_int_equal(at_pool_init(&pool, 4, NULL), AT_OK);
    for (int i = 0; i < 3000; i++) {
        if (i % 300 == 0) nanosleep(&(struct timespec){0, 2000000}, NULL);
        at_par_run(&pool.par, 16, sum_job, sums);
    }
    for (int j = 0; j < 16; j++) assert_int_equal(sums[j * 8], 3000 * (j + 1));
    at_pool_release(&pool);
    at_pool_release(&pool); /* safe to repeat */
}

/* The caller's own part is nothing; the other one takes anything from no time to a few times what the caller spins. */
static void late_job(void *arg, int job)
{
    unsigned *random = arg;
    if (job == 0) return;
    *random = *random * 1664525u + 1013904223u;
    for (volatile unsigned i = 0; i < (*random >> 16) % 12000; i++) {
    }
}

/* The last part ends just when the caller goes to sleep, now and then. tests/cross runs this where a load may pass an
 * earlier store (pool.c says how): with a plain store there, 200,000 runs hung one time in three. */
static void test_last_part_ends_as_the_caller_falls_asleep(void **state)
{
#ifdef ATOLL_CROSS
    enum { RUNS = 60000 };
#else
    enum { RUNS = 20000 };
#endif
    struct at_pool pool;
    unsigned random = 1;
    assert_int_equal(at_pool_init(&pool, 2, NULL), AT_OK);
    for (int i = 0; i < RUNS; i++) at_par_run(&pool.par, 2, late_job, &random);
    at_pool_release(&pool);
}

struct meet {
    atomic_int arrived;
};
static void meet_job(void *arg, int job)
{
    struct meet *m = arg;
    atomic_fetch_add(&m->arrived, 1);
    while (atomic_load(&m->arrived) < 3) nanosleep(&(struct timespec){0, 100000}, NULL);
}

/* Jobs that wait for each other end only if they really run side by side, the caller's among them. */
static void test_jobs_run_side_by_side(void **state)
{
    struct at_pool pool;
    struct meet m = {0};
    assert_int_equal(at_pool_init(&pool, 3, NULL), AT_OK);
    at_par_run(&pool.par, 3, meet_job, &m);
    assert_int_equal(atomic_load(&m.arrived), 3);
    at_pool_release(&pool);
}

static void nested_job(void *arg, int job)
{
    struct at_pool *pool = arg;
    at_par_run(&pool->par, 1, nested_job, pool);
}

static void test_nested_run_asserts(void **state)
{
    pid_t child = fork();
    if (child == 0) {
        struct at_pool pool;
        if (at_pool_init(&pool, 1, NULL)) _exit(3);
        signal(SIGABRT, SIG_DFL);
        close(2);
        at_par_run(&pool.par, 2, nested_job, &pool);
        _exit(4);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_bad_counts(void **state)
{
    static const int bad[] = {0, -1, 65, 1 << 30};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct at_pool pool;
        struct at_diag diag = {0};
        assert_int_equal(at_pool_init(&pool, bad[i], &diag), AT_E_USAGE);
        assert_non_null(strstr(diag.text, "1 to 64"));
        at_pool_release(&pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_job_once),
        cmocka_unit_test(test_many_runs),
        cmocka_unit_test(test_last_part_ends_as_the_caller_falls_asleep),
        cmocka_unit_test(test_jobs_run_side_by_side),
        cmocka_unit_test(test_nested_run_asserts),
        cmocka_unit_test(test_bad_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
