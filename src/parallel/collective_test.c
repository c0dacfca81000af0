#include "parallel/collective.h"

#include "parallel/comm_test_util.h"
#include "tensor/tensor_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { GROUP_MAX = 8, LONG = 5000 };

static struct test_net net;

/* One job for all threads: a group of `ranks` behind `before` ranks that take no part. */
struct job {
    int before, ranks, failures;
    size_t n, part, room; /* elements; per piece; of room */
    bool awkward;
    pthread_mutex_t lock;
};

static void input(const struct job *j, int member, real *x)
{
    test_fill(x, (long)j->n, 11, (uint32_t)member, 3);
    if (j->awkward) test_fill_awkward(x, (long)j->n, 12, (uint32_t)member, true);
}

static void expect(struct job *j, bool ok)
{
    pthread_mutex_lock(&j->lock);
    j->failures += !ok;
    pthread_mutex_unlock(&j->lock);
}

/* Serial: the tree over all members' values. */
static void tree(const struct job *j, bool sum, real *ret_x)
{
    real *x[GROUP_MAX];
    for (int i = 0; i < j->ranks; i++) {
        x[i] = malloc((j->n + 1) * sizeof(real));
        if (x[i] == NULL) abort();
        input(j, i, x[i]);
    }
    for (int w = 1; w < j->ranks; w *= 2)
        for (int i = 0; i < j->ranks; i += 2 * w)
            for (size_t e = 0; e < j->n; e++) {
                real a = x[i][e], b = x[i + w][e];
                x[i][e] = sum ? a + b : a != a || b != b ? (real)NAN : a >= b ? a : b;
            }
    memcpy(ret_x, x[0], j->n * sizeof(real));
    for (int i = 0; i < j->ranks; i++) free(x[i]);
}

struct seat {
    struct at_group g;
    struct at_exec ex;
    void *room;
};

static bool sit(struct seat *s, struct job *j, int rank, const struct at_comm *comm)
{
    if (rank < j->before || rank >= j->before + j->ranks) return false;
    size_t bytes = at_group_room_bytes(j->room);
    s->room = aligned_alloc(64, bytes);
    if (s->room == NULL || at_exec_init(&s->ex, at_kern_available()[0], &at_par_serial) != AT_OK) abort();
    at_group_init(&s->g, comm, &s->ex, j->before, j->ranks, 40, s->room, bytes);
    return true;
}

static void stand(struct seat *s)
{
    at_exec_release(&s->ex);
    free(s->room);
}

static void sum_body(void *arg, int rank, const struct at_comm *comm)
{
    struct job *j = arg;
    struct seat s;
    if (!sit(&s, j, rank, comm)) return;
    static _Thread_local real x[LONG], want[LONG];
    struct at_tp tp = at_group_tp(&s.g);
    tree(j, true, want);
    for (int turn = 0; turn < 2; turn++) { /* again: the group is as new after finish */
        input(j, s.g.me, x);
        bool ok = true;
        for (size_t i = 0; i < j->n; i += j->part)
            ok &= tp.begin(tp.group, x + i, j->n - i < j->part ? j->n - i : j->part) == AT_OK;
        expect(j, ok && tp.finish(tp.group) == AT_OK && test_all_same(x, want, (long)j->n));
    }
    tree(j, false, want);
    input(j, s.g.me, x);
    expect(j, tp.max(tp.group, x, j->n) == AT_OK && test_all_same(x, want, (long)j->n));
    stand(&s);
}

static void run(struct job *j, void (*body)(void *, int, const struct at_comm *))
{
    pthread_mutex_init(&j->lock, NULL);
    const char *misuse = test_net_run(&net, j->before + j->ranks + 1, body, j);
    if (misuse != NULL) print_error("%s\n", misuse);
    assert_null(misuse);
    if (j->failures != 0) print_error("%d ranks, %zu elements in parts of %zu\n", j->ranks, j->n, j->part);
    assert_int_equal(j->failures, 0);
    pthread_mutex_destroy(&j->lock);
}

static void sums_and_maxima(void **state)
{
    for (int ranks = 1; ranks <= GROUP_MAX; ranks *= 2)
        for (int awkward = 0; awkward < 2; awkward++) {
            static const size_t shape[][3] = {
                {1, 1, 1}, {LONG, LONG, LONG}, {LONG, 700, LONG}, {700, 13, 700}, {900, 64, 300}};
            for (int i = 0; i < 5; i++) {
                struct job j = {
                    .before = i % 3, .ranks = ranks, .n = shape[i][0], .part = shape[i][1], .room = shape[i][2]};
                j.awkward = awkward != 0;
                run(&j, sum_body);
            }
        }
}

static double sparse(size_t i)
{
    static const double odd[] = {1e300, -0.0, (double)NAN, (double)INFINITY, 1e-310, -3};
    return odd[i % 6];
}

static void gather_body(void *arg, int rank, const struct at_comm *comm)
{
    struct job *j = arg;
    struct seat s;
    if (!sit(&s, j, rank, comm)) return;
    static _Thread_local double x[LONG];
    struct at_gather g = at_group_gather(&s.g);
    for (size_t i = 0; i < j->n; i++) x[i] = (int)(i * 7 % 11) % (j->ranks + 1) == s.g.me ? sparse(i) : 0;
    bool ok = g.run(g.arg, x, j->n, NULL) == AT_OK;
    for (size_t i = 0; i < j->n; i++) {
        bool owned = (int)(i * 7 % 11) % (j->ranks + 1) < j->ranks;
        double want = owned ? sparse(i) : 0;
        ok &= memcmp(&want, &x[i], 8) == 0;
    }
    expect(j, ok);
    stand(&s);
}

static void blob_body(void *arg, int rank, const struct at_comm *comm)
{
    struct job *j = arg;
    struct seat s;
    if (!sit(&s, j, rank, comm)) return;
    static _Thread_local uint8_t bytes[LONG], all[GROUP_MAX][LONG];
    void *at[GROUP_MAX];
    size_t size[GROUP_MAX];
    for (int from = 0; from < j->ranks; from++) {
        memset(bytes, s.g.me == from ? 100 + from : 0, sizeof bytes);
        bool ok = at_group_broadcast(&s.g, from, bytes, j->n, NULL) == AT_OK;
        for (size_t i = 0; i < sizeof bytes; i++) ok &= bytes[i] == (i < j->n || s.g.me == from ? 100 + from : 0);
        expect(j, ok);
    }
    for (int i = 0; i < j->ranks; i++) {
        at[i] = all[i];
        size[i] = (size_t)i * 37 % 5 * 100; /* some send nothing */
    }
    for (int to = 0; to < j->ranks; to++) {
        memset(all, 0, sizeof all);
        memset(bytes, s.g.me + 1, sizeof bytes);
        bool ok = at_group_collect(&s.g, to, bytes, s.g.me == to ? at : NULL, size, NULL) == AT_OK;
        for (int i = 0; i < j->ranks; i++)
            for (size_t k = 0; k < LONG; k++) ok &= all[i][k] == (s.g.me == to && k < size[i] ? i + 1 : 0);
        expect(j, ok);
    }
    stand(&s);
}

static void gathers_and_broadcasts(void **state)
{
    for (int ranks = 1; ranks <= GROUP_MAX; ranks++)
        for (size_t n = 1; n <= LONG; n = n * 5 + 3) {
            struct job j = {.before = ranks % 3, .ranks = ranks, .n = n, .room = 600};
            run(&j, gather_body);
            run(&j, blob_body);
        }
}

/* One rank gives up: all others are told why, by whatever they call, and again. */
static void failing_body(void *arg, int rank, const struct at_comm *comm)
{
    struct job *j = arg;
    struct seat s;
    if (!sit(&s, j, rank, comm)) return;
    static _Thread_local real x[LONG];
    static _Thread_local double y[64];
    struct at_tp tp = at_group_tp(&s.g);
    struct at_gather g = at_group_gather(&s.g);
    if (s.g.me == 1) {
        (comm->ops->fail)(comm->link, AT_E_DISK, "rank 1", "no room left");
    } else {
        int err = AT_OK;
        for (size_t i = 0; i < j->n; i += j->part)
            if (tp.begin(tp.group, x + i, j->part) != AT_OK) break;
        err = tp.finish(tp.group);
        struct at_diag diag = {0};
        expect(j,
               err == AT_E_DISK && g.run(g.arg, y, 64, &diag) == AT_E_DISK && strcmp(diag.text, "no room left") == 0);
        expect(j, at_group_broadcast(&s.g, 0, y, 64, NULL) == AT_E_DISK && tp.max(tp.group, x, 5) == AT_E_DISK);
    }
    stand(&s);
}

static void failure_reaches_all(void **state)
{
    for (int ranks = 2; ranks <= GROUP_MAX; ranks *= 2) {
        struct job j = {.ranks = ranks, .n = 1000, .part = 100, .room = 1000};
        run(&j, failing_body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_maxima),
        cmocka_unit_test(gathers_and_broadcasts),
        cmocka_unit_test(failure_reaches_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
