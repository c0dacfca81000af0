/* What the rates of links do to groups: a line that cannot carry a stage's activations is not shared, whoever says so; what
 * is not known changes nothing; nobody gains by his own word; and the records. */
#include "ledger/log_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "ledger/roles_fixture.h"

enum { SLOW = 3, SLOW_KBIT = 1000, FAST_KBIT = 100000 };

/* Of what came from `to`. */
static void one_rate(struct bench *b, uint32_t at, uint32_t to, uint64_t kbit)
{
    struct at_measure *m = &b->measured[at].last;
    for (uint32_t i = 0; i < m->link_count; i++)
        if (m->link[i].replica == to) m->link[i].rate = at_measure_code(kbit);
}

static void rated(struct bench *b, uint32_t x, uint32_t y, uint64_t kbit)
{
    one_rate(b, x, y, kbit);
    one_rate(b, y, x, kbit);
}

/* All alike and near one another. */
static void neighbours(struct bench *b, uint32_t members, uint32_t stages)
{
    make(b, members, stages);
    for (uint32_t r = 0; r < members; r++) {
        measure(b, r, 50, 8192);
        for (uint32_t k = 0; k < r; k++) linked(b, k, r, 300);
    }
}

static uint64_t kbit_of(uint32_t x, uint32_t y)
{
    return x == SLOW || y == SLOW ? SLOW_KBIT : FAST_KBIT;
}

static void all_rated(struct bench *b)
{
    for (uint32_t r = 0; r < b->x.members; r++)
        for (uint32_t k = 0; k < r; k++) rated(b, k, r, kbit_of(k, r));
}

static bool is_shared(const struct bench *b, uint32_t r)
{
    return b->g[r].size > 1;
}

static uint32_t sharing(const struct bench *b)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < b->x.members; r++) n += is_shared(b, r);
    return n;
}

static void a_narrow_line_is_not_shared(void **state)
{
    struct bench b;
    (void)state;
    for (uint32_t members = 4; members <= 16; members++)
        for (uint32_t stages = 2; stages <= 3; stages++) {
            struct at_replicas in = all(members);
            neighbours(&b, members, stages);
            form(&b, &in);
            assert_true(is_shared(&b, SLOW) || members % stages != 0); /* nothing is known of its line yet */
            all_rated(&b);
            for (int round = 0; round < 3; round++) {
                form(&b, &in);
                assert_false(is_shared(&b, SLOW));
            }
            assert_true(sharing(&b) >= (members - 1) / stages * stages); /* its partners are with others */
        }
}

/* The same groups, whatever the one with the narrow line says of it. */
static void a_boaster_gains_nothing(void **state)
{
    static const uint64_t says[] = {0, SLOW_KBIT, 10000000};
    struct bench b, honest;
    struct at_replicas in = all(8);
    (void)state;
    neighbours(&honest, 8, 2);
    all_rated(&honest);
    form(&honest, &in);
    for (size_t i = 0; i < sizeof says / sizeof *says; i++) {
        neighbours(&b, 8, 2);
        all_rated(&b);
        for (uint32_t r = 0; r < 8; r++) one_rate(&b, SLOW, r, says[i]);
        assert_int_equal(at_roles_line_kbit(&b.x, SLOW), at_roles_line_kbit(&honest.x, SLOW));
        form(&b, &in);
        assert_memory_equal(b.g, honest.g, sizeof b.g);
    }
    /* Where nobody else knows anything, its word is worth no more than none. */
    neighbours(&honest, 8, 2);
    form(&honest, &in);
    neighbours(&b, 8, 2);
    for (uint32_t r = 0; r < 8; r++) one_rate(&b, SLOW, r, 10000000);
    form(&b, &in);
    assert_memory_equal(b.g, honest.g, sizeof b.g);
}

/* Links that no other end tells a rate of: to members that do not list it, to a newcomer that has measured nothing yet. */
static void nobody_confirms_what_a_boaster_invents(void **state)
{
    enum { ALL = 12, NEAR = 8, BOAST_KBIT = 10000000 };
    struct bench b, honest;
    struct at_replicas in = all(ALL);
    (void)state;
    for (int boasts = 0; boasts <= 2;
         boasts++) { /* none; of others; also of those that take part and have nothing from it */
        make(&b, ALL, 2);
        for (uint32_t r = 0; r < ALL; r++) {
            measure(&b, r, 50, 8192);
            for (uint32_t k = 0; k < r && r < NEAR; k++) linked(&b, k, r, 300);
            for (uint32_t k = 0; k < r && r < NEAR; k++) rated(&b, k, r, k == SLOW || r == SLOW ? 8000 : FAST_KBIT);
        }
        for (uint32_t k = 0; k < NEAR; k++) one_rate(&b, SLOW, k, 0);
        rated(&b, 0, SLOW, 0);
        for (uint32_t k = NEAR; boasts > 0 && k < ALL; k++) {
            one_way(&b, SLOW, k, 300);
            one_rate(&b, SLOW, k, BOAST_KBIT);
        }
        if (boasts == 2) one_rate(&b, SLOW, 0, BOAST_KBIT);
        assert_int_equal(at_roles_line_kbit(&b.x, SLOW), at_measure_value(at_measure_code(8000)));
        assert_true(at_roles_is_narrow(&b.x, SLOW));
        in.b[0] = 1u | 1u << SLOW;
        in.b[1] = 0;
        form(&b, &in);
        assert_false(is_shared(&b, SLOW));
        in = all(ALL);
        form(&b, &in);
        assert_false(is_shared(&b, SLOW));
        if (boasts == 0) honest = b;
        assert_memory_equal(b.g, honest.g, sizeof b.g);
    }
}

/* Who makes little of all its links harms those alone. */
static void who_makes_little_of_others_harms_itself(void **state)
{
    struct bench b;
    struct at_replicas in = all(9);
    (void)state;
    neighbours(&b, 9, 2);
    for (uint32_t r = 0; r < 9; r++)
        for (uint32_t k = 0; k < r; k++) rated(&b, k, r, FAST_KBIT);
    uint32_t line = at_roles_line_kbit(&b.x, 0);
    assert_int_equal(line, at_measure_value(at_measure_code(FAST_KBIT)));
    for (uint32_t r = 0; r < 9; r++) one_rate(&b, SLOW, r, 1);
    for (uint32_t r = 0; r < 9; r++)
        if (r != SLOW) assert_int_equal(at_roles_line_kbit(&b.x, r), line);
    form(&b, &in);
    assert_false(is_shared(&b, SLOW));
    assert_int_equal(sharing(&b), 8);
}

/* What nobody measured changes nothing, nor does a rate that a round trip's window does not fill. */
static void what_is_not_known_changes_nothing(void **state)
{
    struct bench b, plain;
    struct at_replicas in = all(11);
    (void)state;
    neighbours(&plain, 11, 3);
    form(&plain, &in);
    neighbours(&b, 11, 3);
    for (uint32_t r = 0; r < 11; r++)
        for (uint32_t k = 0; k < r; k++) rated(&b, k, r, 10000000);
    form(&b, &in);
    assert_memory_equal(b.g, plain.g, sizeof b.g);
    assert_int_equal(at_roles_step_us(&b.x, b.g, b.g[0].lead, 7), at_roles_step_us(&plain.x, b.g, b.g[0].lead, 7));
    assert_int_equal(at_roles_line_kbit(&plain.x, 0), 0);
    assert_int_equal(at_roles_line_us(&plain.x, 0), 0);
}

/* Those who are not together have measured their links while all fetched from all, so that each had an eighth of the lines. Two
 * whose partners are gone are put together all the same. */
static void a_line_that_was_shared_is_believed(void **state)
{
    struct bench b;
    struct at_replicas in = all(4);
    (void)state;
    neighbours(&b, 4, 2);
    form(&b, &in);
    uint32_t lead = b.g[0].lead, next = b.g[lead].next;
    for (uint32_t r = 0; r < 4; r++)
        for (uint32_t k = 0; k < r; k++) rated(&b, k, r, b.g[r].lead == b.g[k].lead ? FAST_KBIT : FAST_KBIT / 7);
    for (uint32_t r = 0; r < 4; r++)
        if (b.g[r].lead != lead && b.g[r].place == 0) in.b[0] = (uint8_t)(1u << lead | 1u << r);
    form(&b, &in);
    assert_true(is_shared(&b, lead));
    /* But not of one whose line nobody has seen carry much, but one that says so with it. */
    in = all(4);
    neighbours(&b, 4, 2);
    for (uint32_t r = 0; r < 4; r++)
        for (uint32_t k = 0; k < r; k++) rated(&b, k, r, kbit_of(k, r));
    rated(&b, next, SLOW, 10000000);
    assert_true(at_roles_line_kbit(&b.x, SLOW) > FAST_KBIT);
    in.b[0] &= (uint8_t) ~(1u << next);
    form(&b, &in);
    assert_false(is_shared(&b, SLOW));
}

/* A group whose link is slow: which of both it is shows when they are with others. */
static void the_slow_end_of_a_link_is_found(void **state)
{
    struct bench b;
    struct at_replicas in = all(8);
    (void)state;
    neighbours(&b, 8, 2);
    form(&b, &in);
    bool left = false;
    for (int round = 0; round < 4 && !left; round++) {
        for (uint32_t r = 0; r < 8; r++) /* groups measure the links that they have */
            if (is_shared(&b, r) && b.g[r].place == 0) rated(&b, r, b.g[r].next, kbit_of(r, b.g[r].next));
        form(&b, &in);
        if (round == 0) assert_int_equal(at_roles_line_kbit(&b.x, SLOW), 0);
        left = !is_shared(&b, SLOW);
    }
    assert_true(left);
    assert_int_equal(at_roles_line_kbit(&b.x, SLOW), at_measure_value(at_measure_code(SLOW_KBIT)));
    form(&b, &in);
    assert_false(is_shared(&b, SLOW));
    assert_true(sharing(&b) >= 6);
}

/* No room for the model but together: the line is shared, as a far member is. */
static void who_is_needed_is_in(void **state)
{
    struct bench b;
    struct at_replicas in = all(4);
    (void)state;
    neighbours(&b, 4, 2);
    for (uint32_t r = 0; r < 4; r++) {
        uint64_t half = at_stage_bytes(&b.model, b.x.batch, 2, 4, true, true);
        b.measured[r].last.memory = at_measure_code(half >> 20);
    }
    all_rated(&b);
    form(&b, &in);
    for (uint32_t r = 0; r < 4; r++) assert_true(b.g[r].size != 1); /* nobody has room for it alone */
    assert_true(sharing(&b) >= 2);
}

static void a_step_takes_what_its_activations_do(void **state)
{
    struct bench b;
    struct at_replicas in = all(2);
    (void)state;
    neighbours(&b, 2, 2);
    form(&b, &in);
    uint64_t bytes = (uint64_t)b.x.batch * b.model.seq_len * b.model.d_model * 4;
    uint64_t before = at_roles_step_us(&b.x, b.g, b.g[0].lead, 3), kbit = at_measure_value(at_measure_code(8000));
    assert_int_equal(at_roles_line_us(&b.x, 8000), bytes); /* 8 Mbit/s: a byte a microsecond */
    rated(&b, 0, 1, 8000);
    uint64_t windows = at_measure_value(at_measure_code(300)) * bytes / AT_ROLES_WINDOW;
    assert_int_equal(at_roles_step_us(&b.x, b.g, b.g[0].lead, 3) - before, bytes * 8000 / kbit - windows);
    assert_true(at_roles_line_us(&b.x, 1) > at_roles_line_us(&b.x, 2));
}

static void records_tell_rates(void **state)
{
    uint8_t body[AT_RECORD_BYTES_MAX], rates[AT_MEASURE_LINKS];
    uint16_t n, without;
    struct at_record again, rec = {.kind = AT_RECORD_MEASURE};
    (void)state;
    rec.measure = (struct at_measure){.speed = 1, .memory = 1, .link_count = AT_MEASURE_LINKS};
    for (uint16_t i = 0; i < AT_MEASURE_LINKS; i++)
        rec.measure.link[i] = (struct at_measure_link){.replica = i, .rtt = 9};
    assert_int_equal(at_record_encode(&rec, NULL, body, &without), AT_OK); /* as before there were rates */
    assert_int_equal(at_record_decode(at_span(body, without), NULL, &again), AT_OK);
    for (uint16_t i = 0; i < AT_MEASURE_LINKS; i++) assert_int_equal(again.measure.link[i].rate, 0);
    rec.measure.link[5].rate = 255;
    assert_int_equal(at_record_encode(&rec, NULL, body, &n), AT_OK);
    assert_int_equal(n - without, 2 + AT_MEASURE_LINKS + 0);
    assert_int_equal(at_record_decode(at_span(body, n), NULL, &again), AT_OK);
    assert_int_equal(again.measure.link[5].rate, 255);
    assert_int_equal(again.measure.link[15].rate, 0);
    /* Of too few links, and that none is known in so many words. */
    struct at_measure m = rec.measure;
    memset(rates, 0, sizeof rates);
    assert_true(at_measure_unpack_rates(at_span(rates, AT_MEASURE_LINKS), &m));
    assert_false(at_measure_unpack_rates(at_span(rates, AT_MEASURE_LINKS - 1), &m));
    body[n - AT_MEASURE_LINKS + 5] = 0;
    assert_int_equal(at_record_decode(at_span(body, n), NULL, &again), AT_E_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_narrow_line_is_not_shared),
                                       cmocka_unit_test(a_boaster_gains_nothing),
                                       cmocka_unit_test(nobody_confirms_what_a_boaster_invents),
                                       cmocka_unit_test(who_makes_little_of_others_harms_itself),
                                       cmocka_unit_test(what_is_not_known_changes_nothing),
                                       cmocka_unit_test(a_line_that_was_shared_is_believed),
                                       cmocka_unit_test(the_slow_end_of_a_link_is_found),
                                       cmocka_unit_test(who_is_needed_is_in),
                                       cmocka_unit_test(a_step_takes_what_its_activations_do),
                                       cmocka_unit_test(records_tell_rates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
