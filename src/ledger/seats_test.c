/* The draw of a term's stewards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "ledger/seats.h"
#include "ledger/words.h"

#include <string.h>

static struct at_node_id id_of(uint32_t i)
{
    struct at_node_id id = {{0}};
    at_store_le32(id.b, i + 1);
    return id;
}

static struct at_candidate candidate(uint32_t i, uint64_t work)
{
    struct at_candidate c = {.seat.member = id_of(i), .work = work, .vouched = true};
    c.seat.key = id_of(i + 1000);
    return c;
}

static struct at_hash seed_of(uint32_t i)
{
    return at_sha256(&i, sizeof i);
}

static struct at_seats founded(void)
{
    struct at_seats s = {.term = 1, .count = 1};
    s.seat[0] = (struct at_seat){.member = id_of(0), .key = id_of(0)};
    return s;
}

/* A term of the members 0 .. count - 1. */
static struct at_seats term_of(uint32_t count)
{
    struct at_seats s = {.term = 5, .count = count};
    for (uint32_t i = 0; i < count; i++) s.seat[i] = (struct at_seat){.member = id_of(i), .key = id_of(i + 500)};
    return s;
}

static uint32_t changed(const struct at_seats *a, const struct at_seats *b)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->count; i++) n += at_seats_find(a, &b->seat[i].member) < 0;
    return n;
}

static void no_member_twice(const struct at_seats *s)
{
    for (uint32_t i = 0; i < s->count; i++) assert_int_equal(at_seats_find(s, &s->seat[i].member), (int)i);
}

static uint32_t next_count(uint32_t seats, uint32_t first, uint32_t end, bool vouched)
{
    struct at_seats s = seats == 1 ? founded() : term_of(seats);
    struct at_candidate list[100];
    for (uint32_t i = first; i < end; i++) {
        list[i - first] = candidate(i, i);
        list[i - first].vouched = vouched;
    }
    return at_seats_next_count(&s, list, end - first);
}

static void growth_needs_three_who_have_no_seat(void **state)
{
    (void)state;
    assert_int_equal(next_count(1, 0, 3, true), 1);
    assert_int_equal(next_count(1, 0, 4, true), 4);
    assert_int_equal(next_count(1, 0, 100, true), 4);
    assert_int_equal(next_count(1, 1, 100, true), 1); /* without the only one who could hand the log over */
    assert_int_equal(next_count(1, 0, 100, false), 1);
    assert_int_equal(next_count(4, 0, 6, true), 4);
    assert_int_equal(next_count(4, 3, 7, true), 7);
    assert_int_equal(next_count(4, 0, 100, false), 4);
    assert_int_equal(next_count(7, 0, 100, false), 10);
    assert_int_equal(next_count(28, 0, 100, false), 31);
    assert_int_equal(next_count(31, 0, 100, true), 31);
}

static void newcomers_are_never_more_than_f(void **state)
{
    (void)state;
    struct at_seats s = term_of(7);
    for (uint32_t term = 0; term < 9; term++) {
        struct at_candidate list[60];
        for (uint32_t i = 0; i < 60; i++) {
            struct at_node_id id = id_of(i);
            list[i] = candidate(i, at_seats_find(&s, &id) < 0 ? 1000000 : 1);
        }
        for (uint32_t i = 0; i < 60; i++) list[i].vouched = false;
        struct at_seats next = at_seats_draw(&s, list, 60, 0, seed_of(term));
        assert_int_equal(next.term, s.term + 1);
        assert_int_equal(next.count, s.count < AT_SEATS_MAX ? s.count + 3 : s.count);
        assert_true(changed(&s, &next) <= at_seats_faults(next.count));
        assert_true(changed(&s, &next) >= 3);
        no_member_twice(&next);
        s = next;
    }
}

static void a_holder_that_stands_gets_its_new_key(void **state)
{
    (void)state;
    struct at_seats s = term_of(4);
    struct at_candidate list[4];
    for (uint32_t i = 0; i < 4; i++) list[i] = candidate(3 - i, 7);
    struct at_seats next = at_seats_draw(&s, list, 4, 0, seed_of(1));
    assert_int_equal(changed(&s, &next), 0);
    for (uint32_t i = 0; i < 4; i++) {
        struct at_node_id member = id_of(i), key = id_of(i + 1000);
        assert_true(at_node_id_eq(&next.seat[i].member, &member)); /* in its old place */
        assert_true(at_node_id_eq(&next.seat[i].key, &key));
    }
}

static void nobody_stands_and_nothing_changes_but_the_term(void **state)
{
    (void)state;
    struct at_seats s = term_of(7), next = at_seats_draw(&s, NULL, 0, 0, seed_of(1));
    assert_int_equal(next.term, s.term + 1);
    assert_int_equal(next.count, 7);
    assert_memory_equal(next.seat, s.seat, sizeof s.seat);
}

static void deserted_seats_are_filled_first_and_at_most_f_change(void **state)
{
    (void)state;
    for (uint32_t k = 0; k < 200; k++) {
        struct at_seats s = term_of(7); /* f = 2; members 1 and 4 do not stand; 7 and 8, with most of the work, do */
        struct at_candidate list[7];
        size_t n = 0;
        for (uint32_t i = 0; i < 9; i++)
            if (i != 1 && i != 4) list[n++] = candidate(i, i >= 7 ? 1000000 : 1);
        struct at_seats next = at_seats_draw(&s, list, n, 0, seed_of(k));
        assert_int_equal(next.count, 7);
        no_member_twice(&next);
        assert_int_equal(changed(&s, &next), 2);
        struct at_node_id gone[] = {id_of(1), id_of(4)};
        for (int i = 0; i < 2; i++) assert_int_equal(at_seats_find(&next, &gone[i]), -1);
    }
}

static void a_seat_is_lost_to_one_with_more_work_only(void **state)
{
    (void)state;
    uint32_t lost_to_rich = 0, lost_to_poor = 0;
    for (uint32_t k = 0; k < 300; k++) {
        struct at_seats s = term_of(4);
        struct at_candidate list[5];
        for (uint32_t i = 0; i < 4; i++) list[i] = candidate(i, 1000);
        list[4] = candidate(9, 1000000);
        struct at_seats next = at_seats_draw(&s, list, 5, 0, seed_of(k));
        lost_to_rich += changed(&s, &next);
        for (uint32_t i = 0; i < 4; i++) list[i] = candidate(i, 1000000);
        list[4] = candidate(9, 10);
        next = at_seats_draw(&s, list, 5, 0, seed_of(k));
        lost_to_poor += changed(&s, &next);
    }
    assert_true(lost_to_rich >= 297); /* its chance to be among 4 of 5 is 1 - 3e-6 */
    assert_true(lost_to_poor <= 3);   /* 4e-5 */
}

static void the_draw_goes_by_work(void **state)
{
    (void)state;
    /* Who is first of 1 : 2 : 7 takes the one seat that a term of 4 may change, when a holder deserts. */
    uint32_t first[3] = {0};
    const uint32_t draws = 4000;
    for (uint32_t k = 0; k < draws; k++) {
        struct at_seats s = term_of(4);
        struct at_candidate list[3] = {candidate(10, 99), candidate(11, 199), candidate(12, 699)};
        for (uint32_t i = 0; i < 3; i++) list[i].vouched = false;
        struct at_seats next = at_seats_draw(&s, list, 3, 0, seed_of(k));
        for (uint32_t i = 0; i < 3; i++) {
            struct at_node_id id = id_of(10 + i);
            if (at_seats_find(&next, &id) >= 0) first[i]++;
        }
    }
    assert_int_equal(first[0] + first[1] + first[2], draws);
    assert_in_range(first[0], 310, 490); /* 400 +- 4.7 sigma */
    assert_in_range(first[1], 680, 920); /* 800 +- 4.7 sigma */
}

static void work_of_any_size_is_summed(void **state)
{
    (void)state;
    struct at_seats s = founded();
    struct at_candidate list[6];
    for (uint32_t i = 0; i < 6; i++) list[i] = candidate(i, i % 2 != 0 ? UINT64_MAX : 0);
    struct at_seats next = at_seats_draw(&s, list, 6, 0, seed_of(3));
    assert_int_equal(next.count, 4);
    no_member_twice(&next);
}

static void the_draw_is_a_function_of_its_input(void **state)
{
    (void)state;
    struct at_seats s = term_of(7), next[2];
    for (int turn = 0; turn < 2; turn++) {
        struct at_candidate list[20];
        for (uint32_t i = 0; i < 20; i++) list[i] = candidate(i, i * i);
        next[turn] = at_seats_draw(&s, list, 20, 0, seed_of(77));
    }
    assert_memory_equal(&next[0], &next[1], sizeof next[0]);
    static const char expected[] = "b4249ab150329c15160b61788c1747853b6e5236b7426ebaf67ba260cb538eb7";
    assert_string_equal(at_hash_hex(at_sha256(next[0].seat, 10 * sizeof next[0].seat[0])).s, expected);
}

static void words_settle_what_enough_of_them_name(void **state)
{
    (void)state;
    struct at_steward_words words;
    struct at_word a, b, settled;
    memset(&a, 0, sizeof a);
    at_words_clear(&words);
    a.root = seed_of(1);
    at_replicas_add(&a.replicas, 1);
    at_replicas_add(&a.replicas, 2);
    assert_true(at_words_say(&words, 0, &a, 1, 1, &settled)); /* one steward: at once, its own set */
    assert_memory_equal(&settled, &a, sizeof a);

    at_words_clear(&words);
    b = a; /* four stewards: three words, replicas in two of them */
    memset(&b.replicas, 0, sizeof b.replicas);
    at_replicas_add(&b.replicas, 2);
    at_replicas_add(&b.replicas, 3);
    assert_false(at_words_say(&words, 0, &a, 3, 4, &settled));
    assert_true(at_words_has(&words, 0, &a));
    assert_false(at_words_has(&words, 0, &b));
    assert_false(at_words_has(&words, 1, &a));
    assert_false(at_words_say(&words, 0, &a, 3, 4, &settled)); /* twice is once */
    assert_false(at_words_say(&words, 1, &b, 3, 4, &settled));
    b.root = seed_of(2);
    assert_false(at_words_say(&words, 2, &b, 3, 4, &settled)); /* another root does not agree */
    b.root = a.root;
    at_replicas_add(&b.replicas, 4);
    assert_true(at_words_say(&words, 2, &b, 3, 4, &settled)); /* and may be taken back */
    assert_int_equal(at_replicas_count(&settled.replicas), 2);
    assert_true(at_replicas_has(&settled.replicas, 2) && at_replicas_has(&settled.replicas, 3));
    b.number = -0.0; /* not the same bits as 0 */
    at_words_clear(&words);
    assert_false(at_words_say(&words, 0, &a, 2, 4, &settled));
    assert_false(at_words_say(&words, 1, &b, 2, 4, &settled));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(growth_needs_three_who_have_no_seat),
        cmocka_unit_test(newcomers_are_never_more_than_f),
        cmocka_unit_test(a_holder_that_stands_gets_its_new_key),
        cmocka_unit_test(nobody_stands_and_nothing_changes_but_the_term),
        cmocka_unit_test(deserted_seats_are_filled_first_and_at_most_f_change),
        cmocka_unit_test(a_seat_is_lost_to_one_with_more_work_only),
        cmocka_unit_test(the_draw_goes_by_work),
        cmocka_unit_test(work_of_any_size_is_summed),
        cmocka_unit_test(the_draw_is_a_function_of_its_input),
        cmocka_unit_test(words_settle_what_enough_of_them_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
