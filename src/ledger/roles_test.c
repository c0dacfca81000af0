/* Who trains with whom, from measurements: two sites, unlike speeds, little memory, spares, lies; random members; and the
 * records themselves. ATOLL_ROLES_SEED and ATOLL_ROLES_SEEDS: the first random case and how many. */
#include "ledger/log_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "ledger/roles_fixture.h"

/* Members of even numbers are at one site, those of odd numbers at another, 100 ms away. */
static void two_sites(struct bench *b, uint32_t members, uint32_t stages)
{
    make(b, members, stages);
    for (uint32_t r = 0; r < members; r++) {
        measure(b, r, 50, 8192);
        for (uint32_t k = 0; k < r; k++) linked(b, k, r, (r - k) % 2 ? 100000 : 300);
    }
}

static void groups_do_not_straddle_sites(void **state)
{
    struct bench b;
    for (uint32_t members = 4; members <= 16; members += 2)
        for (uint32_t stages = 2; stages <= 3; stages++) {
            two_sites(&b, members, stages);
            struct at_replicas in = all(members);
            at_groups_form(b.g, members, &in, stages); /* as it was before anything was measured */
            form(&b, &in);
            uint32_t train = 0;
            for (uint32_t r = 0; r < members; r++) {
                assert_int_not_equal(b.g[r].role, AT_GROUP_ROLE_NONE);
                if (b.g[r].size == 0) continue;
                train++;
                if (b.g[r].lead % 2 != r % 2)
                    fail_msg("%u members, %u stages: %u is with %u", members, stages, r, b.g[r].lead);
            }
            assert_true(train >= members / 2 / stages * stages * 2);
        }
}

static struct at_stage_cut cut_of(const struct bench *b, uint32_t r)
{
    struct at_stage_cut cut;
    uint32_t whole = (UINT32_C(1) << b->g[r].size) - 1;
    assert_true(at_group_cut(b->g, b->g[r].lead, whole, &b->model, b->x.batch, &cut));
    return cut;
}

/* Three groups and one left over; one group is there for two rounds and hands in nothing. The others stay; of its members one
 * is put together with whoever was left over. */
static void a_group_that_stalls_is_taken_apart(void **state)
{
    struct bench b;
    struct at_replicas in = all(7);
    (void)state;
    make(&b, 7, 2);
    for (uint32_t r = 0; r < 7; r++) {
        measure(&b, r, 50, 8192);
        for (uint32_t k = 0; k < r; k++) linked(&b, k, r, 300);
    }
    form(&b, &in);
    uint32_t lead = b.g[2].lead, other = b.g[lead].next;
    assert_int_equal(b.g[lead].size, 2);
    at_roles_idle(b.g, lead, 0, b.measured);
    form(&b, &in);
    assert_int_equal(b.g[lead].next, other); /* once may be an accident */
    at_roles_seen(&b.x, b.g, lead, 1, 1, 1, b.measured);
    at_roles_idle(b.g, lead, 2, b.measured);
    assert_true(b.measured[other].idle == 1); /* not in a row, not even for the one that was left behind */
    form(&b, &in);
    assert_int_equal(b.g[lead].next, other);
    at_roles_idle(b.g, lead, 3, b.measured);
    form(&b, &in);
    assert_true(b.g[lead].lead != b.g[other].lead || b.g[lead].size == 0);
    uint32_t works = b.g[lead].size == 2 ? lead : other, rests = works == lead ? other : lead, twos = 0;
    for (uint32_t r = 0; r < 7; r++) twos += b.g[r].size == 2;
    assert_true(twos == 6 && b.g[works].size == 2 && b.g[rests].role == AT_GROUP_ROLE_SPARE);
    at_roles_seen(&b.x, b.g, b.g[works].lead, 3, 1, 1, b.measured);
    assert_true(b.measured[works].stalled == 0 && b.measured[works].stalls == 0); /* its unit counts */
    for (uint32_t round = 0; round < AT_ROLES_APART; round++) {
        assert_true(b.measured[rests].apart > 0); /* not the other's */
        at_roles_rest(b.g, 7, b.measured);
    }
    assert_true(b.measured[rests].apart == 0 && b.measured[rests].stalled == 0); /* it has rested for so long */
    assert_int_equal(b.measured[rests].stalls, 1);                               /* the next time it is for longer */
}

/* Groups that the same member leads, in other rounds, are others. */
static void who_never_met_is_not_kept_apart(void **state)
{
    struct bench b;
    struct at_replicas in = all(4);
    (void)state;
    make(&b, 4, 2);
    for (uint32_t r = 0; r < 4; r++) measure(&b, r, 50, 8192);
    linked(&b, 1, 2, 300);
    for (uint32_t with = 1; with <= 2; with++) { /* 0 leads a pair with 1, later one with 2 */
        struct at_replicas pair = {.b = {(uint8_t)(1 | 1 << with)}};
        memset(b.g, 0, sizeof b.g);
        at_groups_form(b.g, 4, &pair, 2);
        assert_true(b.g[0].lead == 0 && b.g[0].next == with);
        for (uint32_t round = 0; round < AT_ROLES_IDLE; round++) at_roles_idle(b.g, 0, 10 * with + round, b.measured);
    }
    assert_true(b.measured[1].stalled != 0 && b.measured[2].stalled != 0);
    assert_true(b.measured[1].stalled != b.measured[2].stalled);
    in.b[0] = 6;
    form(&b, &in);
    assert_true(b.g[1].lead == b.g[2].lead && b.g[1].size == 2);
}

/* Members that each have room for 1/parts of the model. */
static void make_tight(struct bench *b, uint32_t members, uint32_t stages, uint64_t memory_mib, uint32_t parts)
{
    struct at_replicas in = all(members);
    make(b, members, stages);
    for (uint32_t r = 0; r < members; r++) {
        measure(b, r, 50, memory_mib);
        for (uint32_t k = 0; k < r; k++) linked(b, k, r, 300);
    }
    form(b, &in);
    for (uint32_t n = 1; n <= parts; n++) {
        struct at_grouped g[AT_STAGES_MAX];
        struct at_stage_cut cut;
        for (uint32_t s = 0; s < n; s++) {
            at_group_one(g, s, 50);
            g[s].place = s;
            g[s].memory_mib = (uint32_t)at_measure_value(b->measured[0].last.memory);
            g[s].next = s + 1 < n ? s + 1 : AT_GROUP_END;
        }
        bool fits = at_group_cut(g, 0, (UINT32_C(1) << n) - 1, &b->model, b->x.batch, &cut);
        assert_true(fits == (n == parts));
    }
    memset(b->g, 0, sizeof b->g);
}

enum { LOOP_ROUNDS = 40, WAITS_MAX = 8 };

struct loop {
    uint32_t units;  /* of all rounds */
    uint32_t whole;  /* rounds with as many units as the others can do without the staller */
    uint32_t waits;  /* rounds with a group that the staller is in */
    bool has_memory; /* nobody was said to have no room */
};

/* Whoever is with `staller` hands in nothing; the others do what they should. */
static struct loop with_a_staller(struct bench *b, uint32_t staller, uint32_t possible)
{
    struct at_replicas in = all(b->x.members);
    struct loop l = {.has_memory = true};
    for (uint32_t round = 0; round < LOOP_ROUNDS; round++) {
        uint32_t units = 0;
        form(b, &in);
        at_roles_rest(b->g, b->x.members, b->measured);
        for (uint32_t r = 0; r < b->x.members; r++) {
            const struct at_grouped *g = &b->g[r];
            l.has_memory = l.has_memory && g->role != AT_GROUP_ROLE_NO_MEMORY;
            if (g->size == 0 || g->place != 0) continue;
            if (b->g[staller].size > 0 && b->g[staller].lead == r) {
                at_roles_idle(b->g, r, round, b->measured);
                l.waits++;
                continue;
            }
            uint32_t group = (UINT32_C(1) << g->size) - 1;
            uint64_t step_us = at_roles_step_us(&b->x, b->g, r, group);
            at_roles_seen(&b->x, b->g, r, group, 100, step_us * 100 / 1000, b->measured);
            units++;
        }
        l.units += units;
        l.whole += units >= possible;
    }
    return l;
}

/* One member is there in every round, and whoever is with it hands in nothing. */
static void a_staller_costs_few_rounds(void **state)
{
    static const struct {
        uint32_t members, stages, memory_mib, parts, possible, rounds_lost;
    } of[] = {
        {4, 2, 300, 2, 1, 0},                         /* the other pair goes on */
        {5, 2, 300, 2, 2, 8},                         /* its partner finds another one */
        {6, 2, 300, 2, 2, 0},  {3, 4, 300, 2, 1, 8},  /* two are enough, where four might be */
        {7, 2, 300, 2, 3, 8},  {8, 4, 200, 3, 2, 10}, /* trios */
        {7, 4, 200, 3, 2, 10}, {9, 3, 200, 3, 2, 0},  {10, 3, 200, 3, 3, 10},
    };
    struct bench b;
    (void)state;
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        for (uint32_t staller = 0; staller < of[i].members; staller++) {
            make_tight(&b, of[i].members, of[i].stages, of[i].memory_mib, of[i].parts);
            struct loop l = with_a_staller(&b, staller, of[i].possible);
            if (l.whole + of[i].rounds_lost < LOOP_ROUNDS || l.waits > WAITS_MAX || !l.has_memory)
                fail_msg("%u members, %u stages: with %u as the staller %u of %d rounds have %u units", of[i].members,
                         of[i].stages, staller, l.whole, LOOP_ROUNDS, of[i].possible);
        }
}

/* Where no other has room for the model, the group that stalls is formed again: one of them may have been ill. */
static void the_only_possible_group_stays(void **state)
{
    struct bench b;
    (void)state;
    for (uint32_t members = 2; members <= 3; members++) {
        make_tight(&b, members, members, members == 2 ? 300 : 200, members);
        struct loop l = with_a_staller(&b, 0, 0);
        assert_true(l.waits == LOOP_ROUNDS && l.units == 0 && l.has_memory);
        l = with_a_staller(&b, members, 1); /* nobody: it is over */
        assert_int_equal(l.whole, LOOP_ROUNDS);
        for (uint32_t r = 0; r < members; r++) assert_int_equal(b.measured[r].stalls, 0);
    }
}

static void layers_go_by_speed_and_memory(void **state)
{
    struct bench b;
    make(&b, 2, 2);
    measure(&b, 0, 60, 8192);
    measure(&b, 1, 40, 8192);
    linked(&b, 0, 1, 300);
    struct at_replicas in = all(2);
    form(&b, &in);
    assert_int_equal(b.g[0].size, 2);
    struct at_stage_cut cut = cut_of(&b, 0), even;
    uint32_t same[2] = {1, 1};
    assert_true(at_stage_cut_by(&b.model, 2, same, NULL, &even));
    assert_true(cut.layers[b.g[0].place] > even.layers[b.g[0].place]);
    assert_int_equal(cut.layers[0] + cut.layers[1], b.model.layers);
    /* The fast one has room for a single layer only. */
    uint64_t one = at_stage_bytes(&b.model, b.x.batch, 2, 1, true, false);
    assert_true(at_stage_bytes(&b.model, b.x.batch, 2, 2, true, false) > one + (2 << 20));
    make(&b, 2, 2);
    measure(&b, 0, 60, (one >> 20) + 1);
    measure(&b, 1, 40, 8192);
    b.measured[0].last.memory = at_measure_code((one >> 20) + 1);
    while (at_measure_value(b.measured[0].last.memory) << 20 < one) b.measured[0].last.memory++;
    linked(&b, 0, 1, 300);
    form(&b, &in);
    assert_int_equal(b.g[0].size, 2);
    cut = cut_of(&b, 0);
    assert_true(at_stage_bytes(&b.model, b.x.batch, 2, cut.layers[0], true, false) <=
                at_measure_value(b.measured[0].last.memory) << 20);
}

static void the_weak_sit_out(void **state)
{
    struct bench b;
    struct at_replicas in = all(7);
    make(&b, 7, 2);
    for (uint32_t r = 0; r < 4; r++) measure(&b, r, 50, 8192);
    measure(&b, 4, 50, 8); /* no room */
    measure(&b, 5, 1, 8192);
    measure(&b, 6, 1, 8192);
    for (uint32_t r = 1; r < 7; r++)
        for (uint32_t k = 0; k < r; k++) linked(&b, k, r, 300);
    form(&b, &in);
    for (uint32_t r = 0; r < 4; r++) assert_int_equal(b.g[r].size, 2);
    assert_int_equal(b.g[4].role, AT_GROUP_ROLE_NO_MEMORY);
    assert_int_equal(b.g[5].role, AT_GROUP_ROLE_TOO_SLOW);
    assert_int_equal(b.g[6].role, AT_GROUP_ROLE_TOO_SLOW);
}

static void a_spare_takes_the_place_of_who_is_gone(void **state)
{
    struct bench b;
    struct at_replicas in = all(5);
    make(&b, 5, 2);
    for (uint32_t r = 0; r < 5; r++) measure(&b, r, r == 4 ? 40 : 50, 8192);
    for (uint32_t r = 1; r < 5; r++)
        for (uint32_t k = 0; k < r; k++) linked(&b, k, r, 300);
    form(&b, &in);
    assert_int_equal(b.g[4].role, AT_GROUP_ROLE_SPARE);
    uint32_t other = b.g[1].lead == b.g[0].lead ? 2 : 0, dead = other == 2 ? 0 : b.g[0].lead == 0 ? 0 : b.g[0].lead;
    struct at_grouped before = b.g[other == 2 ? 2 : other];
    uint32_t partner = AT_GROUP_END;
    for (uint32_t r = 0; r < 4; r++)
        if (r != dead && b.g[r].lead == b.g[dead].lead) partner = r;
    assert_int_not_equal(partner, AT_GROUP_END);
    in.b[0] &= (uint8_t) ~(1u << dead);
    form(&b, &in);
    assert_int_equal(b.g[dead].role, AT_GROUP_ROLE_NONE);
    assert_int_equal(b.g[4].size, 2);
    assert_int_equal(b.g[4].lead, b.g[partner].lead);
    if (other != dead && b.g[other].size) assert_int_equal(b.g[other].size, before.size);
}

/* Where memory is tight one with little of it, near and fast as it may be, does not keep those out who fit together. */
static void who_has_least_memory_gives_way(void **state)
{
    struct bench b;
    struct at_replicas in = all(3);
    make(&b, 3, 2);
    for (uint32_t r = 0; r < 3; r++) measure(&b, r, r == 1 ? 90 : 50, 1);
    b.model.layers = 12; /* so that figures of four bits tell them apart */
    for (uint32_t r = 0; r < 3; r++) {
        uint64_t need = at_stage_bytes(&b.model, b.x.batch, 2, r == 1 ? 2 : 8, true, true);
        while (at_measure_value(b.measured[r].last.memory) << 20 < need) b.measured[r].last.memory++;
    }
    linked(&b, 0, 1, 100);
    linked(&b, 1, 2, 100);
    linked(&b, 0, 2, 50000);
    form(&b, &in);
    assert_int_equal(b.g[1].role, AT_GROUP_ROLE_NO_MEMORY);
    assert_int_equal(b.g[0].size, 2);
    assert_int_equal(b.g[2].size, 2);
    assert_int_equal(b.g[0].lead, b.g[2].lead);
}

/* One receipt that names an absurd time costs little, and who sits out for it trains again. */
static void nobody_is_kept_out_for_ever(void **state)
{
    struct bench b;
    struct at_replicas in = all(6);
    make(&b, 6, 2);
    for (uint32_t r = 0; r < 6; r++) measure(&b, r, 50, 8192);
    for (uint32_t r = 1; r < 6; r++)
        for (uint32_t k = 0; k < r; k++) linked(&b, k, r, 300);
    form(&b, &in);
    uint32_t lead = b.g[5].lead, rounds = 0, out = 0;
    for (int i = 0; i < 4; i++) at_roles_seen(&b.x, b.g, lead, 3, 10, UINT32_MAX, b.measured);
    assert_true(b.measured[5].doubt > 0 && b.measured[5].doubt <= 12);
    do {
        form(&b, &in);
        at_roles_rest(b.g, 6, b.measured);
        out += b.g[5].role != AT_GROUP_ROLE_TRAINS;
    } while (b.g[5].role != AT_GROUP_ROLE_TRAINS && ++rounds < 40);
    assert_true(out > 0);
    assert_int_equal(b.g[5].role, AT_GROUP_ROLE_TRAINS);
}

/* Replica 1 says it is as fast as the others and is ten times slower. */
static void a_claim_that_units_do_not_show_is_not_believed(void **state)
{
    struct bench b;
    struct at_replicas in = all(4);
    make(&b, 4, 2);
    for (uint32_t r = 0; r < 4; r++) measure(&b, r, 50, 8192);
    for (uint32_t r = 1; r < 4; r++)
        for (uint32_t k = 0; k < r; k++) linked(&b, k, r, 300);
    form(&b, &in);
    uint32_t lead = b.g[1].lead, steps = 10;
    uint64_t promised = at_roles_step_us(&b.x, b.g, lead, 3);
    at_roles_seen(&b.x, b.g, lead, 3, steps, promised * steps * 10 / 1000, b.measured);
    assert_true(b.measured[1].doubt > 0);
    uint64_t now = at_roles_step_us(&b.x, b.g, lead, 3);
    assert_true(now * AT_ROLES_DOUBT >= promised * 10 && now <= promised * 10); /* about what was seen, not slower */
    /* Its partner, whoever that was, is soon believed again with others; it is not. */
    for (uint32_t r = 0; r < 4; r++)
        if (r != 1 && b.g[r].lead == lead) assert_int_equal(b.measured[r].doubt, b.measured[1].doubt);
    for (int i = 0; i < 20; i++) at_roles_seen(&b.x, b.g, lead, 3, steps, promised * steps * 10 / 1000, b.measured);
    now = at_roles_step_us(&b.x, b.g, lead, 3);
    assert_true(now * AT_ROLES_DOUBT >= promised * 10 && now <= promised * 10);
    for (int i = 0; i < 10; i++) at_roles_seen(&b.x, b.g, lead, 3, steps, promised * steps / 1000, b.measured);
    assert_int_equal(b.measured[1].doubt, 0); /* it was another's fault, and is over */
}

static void a_link_counts_when_both_ends_tell_of_it(void **state)
{
    struct bench b;
    make(&b, 3, 2);
    for (uint32_t r = 0; r < 3; r++) measure(&b, r, 50, 8192);
    one_way(&b, 0, 1, 20); /* 1 knows nothing of it */
    linked(&b, 0, 2, 2000);
    struct at_replicas in = all(3);
    form(&b, &in);
    assert_int_equal(b.g[2].lead, b.g[0].lead);
    assert_int_equal(b.g[2].size, 2);
    make(&b, 3, 2);
    for (uint32_t r = 0; r < 3; r++) measure(&b, r, 50, 8192);
    one_way(&b, 0, 1, 20); /* the longer of both counts */
    one_way(&b, 1, 0, 50000);
    linked(&b, 0, 2, 2000);
    form(&b, &in);
    assert_int_equal(b.g[2].lead, b.g[0].lead);
    assert_int_equal(b.g[2].size, 2);
}

static void without_measurements_nothing_changes(void **state)
{
    struct bench b;
    struct at_grouped g[MEMBERS_MAX] = {{0}};
    make(&b, 9, 4);
    for (uint32_t round = 0; round < 20; round++) {
        struct at_replicas in = all(9);
        in.b[0] ^= (uint8_t)(round * 37 % 128);
        at_groups_form(g, 9, &in, 4);
        form(&b, &in);
        assert_memory_equal(g, b.g, 9 * sizeof *g);
    }
}

/* ---- random members ---- */
static uint64_t draw(uint64_t *x, uint64_t below)
{
    *x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*x >> 33) % below;
}

static void check_groups(const struct bench *b, const struct at_replicas *in)
{
    uint32_t members = b->x.members, trains = 0;
    for (uint32_t r = 0; r < members; r++) {
        const struct at_grouped *at = &b->g[r];
        assert_int_equal(at_replicas_has(in, r), at->role != AT_GROUP_ROLE_NONE);
        assert_int_equal(at->role == AT_GROUP_ROLE_TRAINS, at->size > 0);
        if (at->size == 0 || at->place != 0) continue;
        uint32_t n = 0;
        for (uint32_t k = r; k != AT_GROUP_END; k = b->g[k].next) {
            assert_true(k < members && b->g[k].lead == r && b->g[k].place == n && b->g[k].size == at->size);
            n++;
        }
        assert_int_equal(n, at->size);
        assert_true(n <= b->x.stages);
        trains += n;
    }
    assert_true(trains > 0);
}

/* Every group's stages fit their members: unless no group's would, and then nobody looks at memory. */
static void check_memory(const struct bench *b)
{
    for (uint32_t r = 0; r < b->x.members; r++) {
        struct at_stage_cut cut;
        if (b->g[r].size == 0 || b->g[r].place != 0 || b->g[r].memory_mib == 0) continue;
        assert_true(at_group_cut(b->g, r, (UINT32_C(1) << b->g[r].size) - 1, &b->model, b->x.batch, &cut));
    }
}

/* Of the groups that were full and whose members are all still here, those are gone or changed that are in no group of
 * `g` with the same members in the same places. */
static uint32_t moved(const struct bench *b, const struct at_grouped *before, const struct at_replicas *in)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < b->x.members; r++) {
        if (before[r].size != b->x.stages || before[r].place != 0 || !at_group_all_in(before, r, in)) continue;
        bool same = b->g[r].size == before[r].size;
        for (uint32_t k = r; k != AT_GROUP_END && same; k = before[k].next)
            same = b->g[k].lead == r && b->g[k].place == before[k].place;
        bool slow = true; /* the others have become so much faster that it sits out as it is */
        for (uint32_t k = r; k != AT_GROUP_END; k = before[k].next)
            slow = slow && b->g[k].role == AT_GROUP_ROLE_TOO_SLOW;
        n += !same && !slow;
    }
    return n;
}

static void random_case(uint64_t seed)
{
    struct bench b, again;
    uint64_t x = seed * 7919 + 13;
    uint32_t n = 2 + (uint32_t)draw(&x, MEMBERS_MAX - 1), stages = 2 + (uint32_t)draw(&x, 4);
    make(&b, n, stages);
    for (uint32_t r = 0; r < n; r++)
        if (draw(&x, 8)) {
            uint64_t gflops = 1 + draw(&x, 100), memory_mib = 20 + draw(&x, 400);
            measure(&b, r, gflops, memory_mib);
        }
    for (uint32_t links = (uint32_t)draw(&x, 400), i = 0; i < links; i++) {
        uint32_t from = (uint32_t)draw(&x, n), to = (uint32_t)draw(&x, n);
        if (from != to) linked(&b, from, to, 20 + draw(&x, 200000));
    }
    struct at_replicas in = all(n);
    form(&b, &in);
    check_groups(&b, &in);
    memcpy(&again, &b, sizeof b);
    again.x.model = &again.model;
    again.x.measured = again.measured;
    form(&b, &in); /* nothing is new: nothing moves */
    assert_int_equal(moved(&b, again.g, &in), 0);
    memset(again.work, 0xff, sizeof again.work); /* nor depends on what the room held */
    memset(again.row, 0xff, sizeof again.row);
    form(&again, &in);
    assert_memory_equal(b.g, again.g, sizeof b.g);
    struct at_grouped before[MEMBERS_MAX];
    memcpy(before, b.g, sizeof before);
    uint32_t dead = (uint32_t)draw(&x, n);
    if (at_replicas_count(&in) < 2) return;
    in.b[dead / 8] &= (uint8_t) ~(1u << dead % 8);
    form(&b, &in);
    check_groups(&b, &in);
    check_memory(&b);
}

static uint64_t from_env(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : fallback;
}

static void random_members(void **state)
{
    uint64_t first = from_env("ATOLL_ROLES_SEED", 1), count = from_env("ATOLL_ROLES_SEEDS", 300);
    print_message("seeds from %llu on, %llu of them: ATOLL_ROLES_SEED=N ATOLL_ROLES_SEEDS=1 runs one\n",
                  (unsigned long long)first, (unsigned long long)count);
    for (uint64_t seed = first; seed < first + count; seed++) random_case(seed);
}

/* Members alike, near one another: whoever dies, only its group changes. */
static void one_death_moves_one_group(void **state)
{
    struct bench b, whole;
    for (uint32_t stages = 2; stages <= 4; stages++)
        for (uint32_t dead = 0; dead < 17; dead++) {
            make(&whole, 17, stages);
            for (uint32_t r = 0; r < 17; r++) measure(&whole, r, 40 + r, 8192);
            for (uint32_t r = 0; r < 17; r++)
                for (uint32_t k = 1; k <= 4; k++) linked(&whole, r, (r + k) % 17, 200 + r);
            struct at_replicas in = all(17);
            form(&whole, &in);
            b = whole;
            b.x.model = &b.model;
            b.x.measured = b.measured;
            in.b[dead / 8] &= (uint8_t) ~(1u << dead % 8);
            form(&b, &in);
            check_groups(&b, &in);
            assert_int_equal(moved(&b, whole.g, &in), 0);
        }
}

/* ---- the records ---- */
static void begin(struct log_fixture *f, uint32_t stages)
{
    const struct at_preset *p;
    fixture_init(f);
    at_ledger_release(&f->ledger);
    assert_int_equal(at_preset_find("nano", NULL, &p), AT_OK);
    f->genesis.model = p->model;
    f->genesis.train = p->train;
    f->genesis.stages = stages;
    f->genesis.min_members = 1;
    assert_int_equal(at_ledger_init(&f->ledger, &f->genesis, NULL), AT_OK);
    for (int k = 0; k < 4; k++) assert_int_equal(fixture_join(f, k), AT_OK);
}

static struct at_record measure_record(struct log_fixture *f)
{
    struct at_record rec = fixture_record(f, AT_RECORD_MEASURE);
    rec.measure = (struct at_measure){
        .speed = 100, .memory = 90, .link_count = 2, .link = {{.replica = 1, .rtt = 60}, {.replica = 3, .rtt = 70}}};
    return rec;
}

static void refuses(struct log_fixture *f, int key, const struct at_record *rec, const char *why)
{
    struct at_diag diag = {0};
    assert_int_equal(fixture_write(f, key, rec, &diag), AT_E_VERIFY);
    if (strstr(diag.text, why) == NULL) fail_msg("'%s' instead of '%s'", diag.text, why);
}

static void the_ledger_refuses_what_is_wrong(void **state)
{
    struct log_fixture f;
    begin(&f, 0);
    struct at_record rec = measure_record(&f);
    refuses(&f, 2, &rec, "work alone");
    fixture_release(&f);
    begin(&f, 2);
    rec = measure_record(&f);
    refuses(&f, 6, &rec, "a stranger");
    rec.measure.link[1].replica = 4;
    refuses(&f, 2, &rec, "a link to nobody");
    rec = measure_record(&f);
    refuses(&f, 3, &rec, "a link to its author");
    assert_int_equal(fixture_write(&f, 2, &rec, NULL), AT_OK);
    refuses(&f, 2, &rec, "older than the author's last one"); /* said again by anybody */
    for (int i = 1; i < AT_ROLES_MEASURES; i++) {
        rec = measure_record(&f);
        assert_int_equal(fixture_write(&f, 2, &rec, NULL), AT_OK);
    }
    rec = measure_record(&f);
    refuses(&f, 2, &rec, "too often");
    assert_int_equal(f.ledger.measured[2].count, AT_ROLES_MEASURES);
    struct at_signed_record forged = fixture_sign(&f, 2, &rec);
    forged.author = f.key[0].id;
    assert_int_equal(at_ledger_check(&f.ledger, &forged, NULL), AT_E_SIGNATURE);
    fixture_release(&f);
}

static void shapes_that_are_none(void **state)
{
    struct log_fixture f;
    struct at_diag diag = {0};
    uint8_t body[AT_RECORD_BYTES_MAX];
    uint16_t n;
    begin(&f, 2);
    struct at_record rec = measure_record(&f);
    rec.measure.speed = 0;
    assert_int_equal(at_record_encode(&rec, &diag, body, &n), AT_E_DATA);
    assert_non_null(strstr(diag.text, "speed"));
    rec = measure_record(&f);
    rec.measure.link[1].replica = 1; /* twice */
    assert_int_equal(at_record_encode(&rec, &diag, body, &n), AT_E_DATA);
    assert_non_null(strstr(diag.text, "links"));
    struct at_measure m;
    uint8_t bytes[AT_MEASURE_LINKS * AT_MEASURE_LINK_BYTES + AT_MEASURE_LINK_BYTES] = {0};
    assert_true(at_measure_unpack(at_span(bytes, AT_MEASURE_LINKS * AT_MEASURE_LINK_BYTES), &m));
    assert_false(at_measure_unpack(at_span(bytes, sizeof bytes), &m));
    assert_false(at_measure_unpack(at_span(bytes, 4), &m));
    fixture_release(&f);
}

static void codes_are_values_rounded_down(void **state)
{
    for (int c = 0; c < 256; c++) {
        uint64_t v = at_measure_value((uint8_t)c);
        assert_int_equal(at_measure_code(v), c);
        if (c > 0) assert_int_equal(at_measure_code(v - 1), c - 1);
    }
    assert_int_equal(at_measure_code(UINT64_MAX), 255);
}

/* A receipt's FLOPs are those of its stage in the cut by speed. */
static void receipts_follow_the_cut(void **state)
{
    struct log_fixture f;
    begin(&f, 2);
    for (int k = 0; k < 4; k++) {
        struct at_record rec = measure_record(&f);
        rec.measure.link_count = 1;
        rec.measure.link[0] = (struct at_measure_link){.replica = (uint16_t)(k ^ 1), .rtt = 1};
        rec.measure.speed = (uint8_t)(100 + 4 * (k % 2));
        assert_int_equal(fixture_write(&f, k, &rec, NULL), AT_OK);
    }
    struct at_record rec = fixture_open_record(&f, 0xf);
    assert_int_equal(fixture_write(&f, 0, &rec, NULL), AT_OK);
    uint64_t flops = 0;
    uint32_t lead = f.ledger.groups[0].lead;
    assert_int_equal(f.ledger.groups[0].size, 2);
    struct at_stage_cut cut = at_ledger_cut(&f.ledger, 0, 3);
    for (uint32_t r = lead; r != AT_GROUP_END; r = f.ledger.groups[r].next) {
        rec = fixture_receipt_record(&f, (int)r, 4);
        rec.receipt.group = 3;
        rec.receipt.took_ms = 1;
        refuses(&f, (int)r, &rec, "FLOPs");
        if (f.ledger.groups[r].place == 0) {
            rec.receipt.flops = rec.receipt.tokens * at_stage_cut_flops(&f.genesis.model, &cut, 0);
            refuses(&f, (int)r, &rec, "only the last stage");
            rec.receipt.heldout = 0;
        }
        flops += at_stage_cut_flops(&f.genesis.model, &cut, (int)f.ledger.groups[r].place);
        rec.receipt.flops =
            rec.receipt.tokens * at_stage_cut_flops(&f.genesis.model, &cut, (int)f.ledger.groups[r].place);
        assert_int_equal(fixture_write(&f, (int)r, &rec, NULL), AT_OK);
    }
    assert_int_equal(at_ledger_cut(&f.ledger, lead, 2).stages, 1); /* not one of these */
    assert_int_equal(at_ledger_cut(&f.ledger, lead, UINT32_MAX).stages, 1);
    assert_int_equal(at_ledger_cut(&f.ledger, 9, 3).stages, 1);
    assert_int_equal(flops, at_model_flops_per_token(&f.genesis.model));
    assert_int_equal(at_ledger_unit_complete(&f.ledger, 0), 3);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_group_that_stalls_is_taken_apart),
                                       cmocka_unit_test(who_never_met_is_not_kept_apart),
                                       cmocka_unit_test(a_staller_costs_few_rounds),
                                       cmocka_unit_test(the_only_possible_group_stays),
                                       cmocka_unit_test(groups_do_not_straddle_sites),
                                       cmocka_unit_test(layers_go_by_speed_and_memory),
                                       cmocka_unit_test(the_weak_sit_out),
                                       cmocka_unit_test(a_spare_takes_the_place_of_who_is_gone),
                                       cmocka_unit_test(a_claim_that_units_do_not_show_is_not_believed),
                                       cmocka_unit_test(who_has_least_memory_gives_way),
                                       cmocka_unit_test(nobody_is_kept_out_for_ever),
                                       cmocka_unit_test(a_link_counts_when_both_ends_tell_of_it),
                                       cmocka_unit_test(without_measurements_nothing_changes),
                                       cmocka_unit_test(random_members),
                                       cmocka_unit_test(one_death_moves_one_group),
                                       cmocka_unit_test(the_ledger_refuses_what_is_wrong),
                                       cmocka_unit_test(shapes_that_are_none),
                                       cmocka_unit_test(codes_are_values_rounded_down),
                                       cmocka_unit_test(receipts_follow_the_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
