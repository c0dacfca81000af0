/* What a replica keeps comes back whole or not at all, whichever byte is changed, wherever it is cut; and with it a run
 * in one process ends as the run that was never stopped. */
#include "train/checkpoint_replica.h"
#include "train/train_test_util.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct shelf { /* a file, and the run that it is of */
    struct at_local *l;
    struct at_buf file;
    int replica, moves, follows;
    uint64_t order, order_followed; /* of the blocks asked for */
};

static uint64_t mix(uint64_t order, int part, int tensor, int slot)
{
    return order * 31 + (uint64_t)(part * 1000 + tensor * 10 + slot);
}

static at_err_t give(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct shelf *s = arg;
    memcpy(values, at_local_own(s->l, s->replica, part, tensor, slot),
           at_own_count(&s->l->model->params, part, tensor, slot) * sizeof(real));
    s->order = mix(s->order, part, tensor, slot);
    s->moves++;
    return AT_OK;
}

static at_err_t take(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct shelf *s = arg;
    memcpy(at_local_own(s->l, s->replica, part, tensor, slot), values,
           at_own_count(&s->l->model->params, part, tensor, slot) * sizeof(real));
    return AT_OK;
}

static at_err_t follow(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct shelf *s = arg;
    s->order_followed = mix(s->order_followed, part, tensor, slot);
    s->follows++;
    return values == NULL ? AT_OK : AT_E_DATA;
}

static at_err_t put(void *arg, int part, uint64_t offset, struct at_span bytes, struct at_diag *diag)
{
    struct at_buf *file = &((struct shelf *)arg)->file;
    uint8_t *room;
    size_t end = (size_t)offset + bytes.n;
    if (end > file->n) {
        if (at_buf_reserve(file, end - file->n, &room) != AT_OK) return AT_E_NOMEM;
        memset(room, 0xee, end - file->n);
        file->n = end;
    }
    memcpy(file->p + offset, bytes.p, bytes.n);
    return AT_OK;
}

static at_err_t get(void *arg, int part, uint64_t offset, uint8_t *ret, size_t n, struct at_diag *diag)
{
    const struct at_buf *file = &((struct shelf *)arg)->file;
    if (offset > file->n || n > file->n - offset) return AT_E_TRUNCATED;
    memcpy(ret, file->p + offset, n);
    return AT_OK;
}

static struct at_own_head head_of(const struct at_local *l, int replica)
{
    struct at_own_head h = {.round = l->state.round,
                            .replica = (uint32_t)replica,
                            .replicas = (uint32_t)l->replicas,
                            .feedback = l->replica[0].feedback != NULL,
                            .overlap = l->stats_before != NULL};
    assert_int_equal(at_state_root(&l->state, NULL, &h.root), AT_OK);
    return h;
}

static void save(struct shelf *s, struct at_local *l, int replica)
{
    struct at_own_head h = head_of(l, replica);
    *s = (struct shelf){.l = l, .replica = replica};
    assert_int_equal(
        at_own_write(&l->model->params, &h, &(struct at_block_stream){give, s}, &(struct at_piece_sink){put, s}, NULL),
        AT_OK);
}

/* As somebody does who resumes. */
static at_err load(struct shelf *s, struct at_local *l, int replica, struct at_diag *diag)
{
    const struct at_params *p = &l->model->params;
    struct at_own_head h = head_of(l, replica);
    struct at_piece_source from = {get, s, {s->file.n}};
    s->l = l;
    s->replica = replica;
    at_local_start(l);
    at_err_t err = at_own_open(p, &h, &from, diag, &h.values);
    return err == AT_OK ? at_own_read(p, &h, &from, &(struct at_block_stream){take, s}, diag) : err;
}

static const struct kind {
    enum at_outer_kind kind;
    uint32_t tau;
} kinds[] = {{AT_OUTER_DILOCO, 0}, {AT_OUTER_SPARSE, 0}, {AT_OUTER_MEAN, 1}, {AT_OUTER_SPARSE, 2}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void start(struct test_run *run, struct at_local *l, const struct kind *k)
{
    struct at_outer_config outer;
    at_outer_config_default(&outer, k->kind);
    outer.tau = k->tau;
    assert_int_equal(at_local_init_options(l, &run->m, &run->data, &run->config,
                                           &(struct at_local_options){.replicas = 2, .outer = &outer}, NULL),
                     AT_OK);
}

static void rounds(struct test_run *run, struct at_local *l, int n)
{
    double loss;
    for (int i = 0; i < n; i++) assert_int_equal(at_local_round(l, &run->ex, NULL, NULL, NULL, &loss), AT_OK);
}

static void a_run_that_goes_on_ends_the_same(void **state)
{
    struct test_run run;
    assert_true(test_run_init(&run, &run_configs[2]));
    for (int k = 0; k < KINDS; k++)
        for (int stop = 1; stop <= 3; stop++) {
            struct at_local whole, first, second;
            struct at_hash want, got;
            struct shelf s[2];
            start(&run, &whole, &kinds[k]);
            start(&run, &first, &kinds[k]);
            start(&run, &second, &kinds[k]);
            rounds(&run, &whole, 4);
            rounds(&run, &first, stop);
            at_state_copy(&second.state, &first.state);
            assert_int_equal(at_local_resume(&second, &first.round, first.steps_done, &first.samples, first.tokens),
                             AT_OK);
            for (int i = 0; i < 2; i++) {
                save(&s[i], &first, i);
                assert_int_equal(load(&s[i], &second, i, NULL), AT_OK);
                at_buf_release(&s[i].file);
            }
            rounds(&run, &second, 4 - stop);
            assert_int_equal(at_state_root(&whole.state, NULL, &want), AT_OK);
            assert_int_equal(at_state_root(&second.state, NULL, &got), AT_OK);
            assert_memory_equal(&got, &want, sizeof want);
            at_local_release(&whole);
            at_local_release(&first);
            at_local_release(&second);
        }
    test_run_release(&run);
}

/* Before the first round there is nothing to join, whether that is said or not. */
static void own_weights_of_no_round_change_nothing(void **state)
{
    struct test_run run;
    struct at_local a, b;
    struct at_hash want, got;
    assert_true(test_run_init(&run, &run_configs[0]));
    start(&run, &a, &kinds[3]);
    start(&run, &b, &kinds[3]);
    at_local_start(&b);
    rounds(&run, &a, 2);
    rounds(&run, &b, 2);
    assert_int_equal(at_state_root(&a.state, NULL, &want), AT_OK);
    assert_int_equal(at_state_root(&b.state, NULL, &got), AT_OK);
    assert_memory_equal(&got, &want, sizeof want);
    at_local_release(&a);
    at_local_release(&b);
    test_run_release(&run);
}

static void the_others_go_through_the_same_blocks(void **state)
{
    struct test_run run;
    struct at_local l;
    assert_true(test_run_init(&run, &run_configs[1]));
    for (int k = 0; k < KINDS; k++) {
        struct shelf s;
        start(&run, &l, &kinds[k]);
        rounds(&run, &l, 1);
        save(&s, &l, 1);
        struct at_own_head h = head_of(&l, 1);
        assert_int_equal(at_own_follow(&run.m.params, &h, &(struct at_block_stream){follow, &s}, NULL), AT_OK);
        int parts = (h.feedback ? 1 : 0) + (h.overlap ? 2 : 0);
        assert_int_equal(s.moves, parts * run.m.params.blocks);
        assert_int_equal(s.follows, s.moves);
        assert_true(s.order == s.order_followed);
        at_buf_release(&s.file);
        at_local_release(&l);
    }
    test_run_release(&run);
}

static void damage_is_noticed(void **state)
{
    struct test_run run;
    struct at_local l;
    struct shelf s;
    char name[AT_OWN_NAME_BYTES];
    assert_true(test_run_init(&run, &run_configs[2]));
    start(&run, &l, &kinds[3]);
    rounds(&run, &l, 1);
    save(&s, &l, 1);
    struct at_own_head h = head_of(&l, 1);
    at_own_name(&h, name);
    size_t bytes = s.file.n;
    for (size_t i = 0; i < bytes; i += i < 900 ? 1 : 37) { /* the header densely */
        struct at_diag diag = {0};
        s.file.p[i] ^= (uint8_t)(1u << (i % 8));
        at_err_t err = load(&s, &l, 1, &diag);
        s.file.p[i] ^= (uint8_t)(1u << (i % 8));
        assert_int_equal(at_err_exit_code(err), 3);
        assert_string_equal(diag.where, name);
        assert_true(diag.text[0] != '\0');
    }
    for (size_t n = 0; n < bytes; n += n < 900 ? 1 : 997) {
        struct at_diag diag = {0};
        s.file.n = n;
        assert_int_equal(at_err_exit_code(load(&s, &l, 1, &diag)), 3);
        assert_string_equal(diag.where, name);
    }
    uint8_t *room;
    s.file.n = bytes;
    assert_int_equal(at_buf_reserve(&s.file, 1, &room), AT_OK);
    *room = 0;
    s.file.n++;
    assert_int_equal(load(&s, &l, 1, NULL), AT_E_DATA);
    s.file.n = bytes;
    assert_int_equal(load(&s, &l, 1, NULL), AT_OK);
    at_buf_release(&s.file);
    at_local_release(&l);
    test_run_release(&run);
}

static void what_is_of_something_else_is_refused(void **state)
{
    struct test_run run, other;
    struct at_local l;
    struct shelf s;
    assert_true(test_run_init(&run, &run_configs[2]) && test_run_init(&other, &run_configs[0]));
    start(&run, &l, &kinds[3]);
    rounds(&run, &l, 1);
    save(&s, &l, 1);
    struct at_own_head right = head_of(&l, 1), wrong[6];
    struct at_hash values;
    struct at_piece_source from = {get, &s, {s.file.n}};
    for (int i = 0; i < 6; i++) wrong[i] = right;
    wrong[0].root.b[31] ^= 1;
    wrong[1].round++;
    wrong[2].replica = 0;
    wrong[3].replicas = 3;
    wrong[4].feedback = false;
    wrong[5].overlap = false;
    for (int i = 0; i < 6; i++) {
        struct at_diag diag = {0};
        assert_int_equal(at_own_open(&run.m.params, &wrong[i], &from, &diag, &values), AT_E_DATA);
        assert_non_null(strstr(diag.text, i < 4 ? "another run or another state" : "another --outer or --tau"));
    }
    assert_int_equal(at_own_open(&other.m.params, &right, &from, NULL, &values), AT_E_DATA);
    assert_int_equal(at_own_open(&run.m.params, &right, &from, NULL, &values), AT_OK);
    at_buf_release(&s.file);
    at_local_release(&l);
    test_run_release(&run);
    test_run_release(&other);
}

/* By somebody who also writes the hash: values that would spoil the run are refused. */
static void impossible_values_are_refused(void **state)
{
    struct test_run run;
    struct at_local l;
    assert_true(test_run_init(&run, &run_configs[2]));
    for (int i = 0; i < 3; i++) {
        struct shelf s;
        struct at_diag diag = {0};
        start(&run, &l, &kinds[3]);
        rounds(&run, &l, 1);
        const struct at_params *p = &run.m.params;
        const struct at_block *b = at_params_block(p, 0, p->slots - 1); /* its last row is padding */
        assert_true(at_block_rows_used(p, b) < b->rows);
        if (i == 0) at_local_own(&l, 0, AT_OWN_FEEDBACK, 0, 0)[3] = (real)NAN;
        if (i == 1) at_local_own(&l, 0, AT_OWN_WEIGHTS, b->tensor, b->slot)[at_block_count(b) - 1] = 1;
        if (i == 2) at_local_own(&l, 0, AT_OWN_STATS, 1, 0)[0] = -1;
        save(&s, &l, 0);
        assert_int_equal(load(&s, &l, 0, &diag), AT_E_DATA);
        assert_non_null(strstr(diag.text, "no run leaves"));
        at_buf_release(&s.file);
        at_local_release(&l);
    }
    test_run_release(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_that_goes_on_ends_the_same),
        cmocka_unit_test(own_weights_of_no_round_change_nothing),
        cmocka_unit_test(the_others_go_through_the_same_blocks),
        cmocka_unit_test(damage_is_noticed),
        cmocka_unit_test(what_is_of_something_else_is_refused),
        cmocka_unit_test(impossible_values_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
