/* world_held_test.c: members tell which updates they have, and only who has one is asked for it. */
#include "sim/world_rig.h"

enum {
    NODES = 24,
    ROUNDS = 3,
    LOG_PARTS_MAX = 18,
    LIAR_ROUNDS = 6,
    LIAR_LATE_MS = 12000,
    LEFT_OUT_MAX = NODES + NODES / 2
};

/* Members of all speeds: the first receipts are in long before the last, and everybody fetches meanwhile. Each update
 * comes once to each, and nobody says that it has none yet. */
static void nobody_asks_in_vain(void **state)
{
    (void)state;
    struct at_world_options o = small(71);
    o.nodes = o.min_members = NODES;
    o.rounds = ROUNDS;
    o.step_ms = 5000;
    o.round_ms_max = 120000;
    struct at_world *w = make_down(&o);
    for (int i = 0; i < NODES; i++) at_world_speed(w, i, 0.6 + 0.1 * i);
    start_all(w, NODES);
    must_finish(w, 600000);
    uint64_t once = (uint64_t)ROUNDS * (NODES - 1) * o.update_bytes;
    for (uint32_t r = 0; r < ROUNDS; r++) assert_int_equal(at_world_included(w, r), NODES);
    for (int i = 0; i < NODES; i++)
        assert_in_range(at_world_traffic(w, i).update_bytes_in, once, once + (uint64_t)ROUNDS * o.update_bytes);
    assert_int_equal(at_world_sent(w, AT_MSG_MISSING), 0);
    print_message("held %llu, bundle_want %llu, want %llu\n", (unsigned long long)at_world_sent(w, AT_MSG_HELD),
                  (unsigned long long)at_world_sent(w, AT_MSG_BUNDLE_WANT),
                  (unsigned long long)at_world_sent(w, AT_MSG_WANT));
    at_world_release(w);
}

/* JOINs that come at once are not a block each. */
static void joins_go_together(void **state)
{
    (void)state;
    struct at_world_options o = small(72);
    o.nodes = o.min_members = NODES;
    o.rounds = 1;
    struct at_world *w = make(&o);
    must_finish(w, 60000);
    uint64_t each = at_world_sent(w, AT_MSG_LOG_PART) / NODES;
    assert_int_equal(at_world_log_count(w, AT_RECORD_JOIN), NODES);
    print_message("%llu log parts for each of %d members\n", (unsigned long long)each, NODES);
    assert_in_range(each, 1, LOG_PARTS_MAX);
    at_world_release(w);
}

static void say(struct at_world *w, uint64_t link, const struct at_message *msg)
{
    struct at_buf bytes = {0};
    assert_int_equal(at_message_encode(msg, &bytes), AT_OK);
    at_world_stranger_send(w, link, at_buf_span(&bytes));
    at_buf_release(&bytes);
}

/* A member that tells all the time that it has everything, and answers nothing: it is asked, then others are. That
 * costs a member one round at most, once. */
static void one_that_has_nothing(void **state)
{
    (void)state;
    struct at_world_options o = small(73);
    o.rounds = 2 * ROUNDS; /* the run's end is not the time for it: who is left waits for ten seconds, and it for 13 */
    o.step_ms = 7000;
    o.round_ms_max = 60000;
    struct at_world *w = make(&o);
    struct at_keypair key = at_world_stranger_key(w, 1);
    struct at_record join = {
        .kind = AT_RECORD_JOIN, .run = at_world_run_id(w), .time_ms = 1, .join = {.name = "boast"}};
    struct at_signed_record record;
    struct at_message hello = {.kind = AT_MSG_HELLO}, submit = {.kind = AT_MSG_SUBMIT, .submit = {.record = &record}};
    uint8_t bits = 0x0f;
    bool asked = false, done = false;
    assert_false(at_world_run(w, 1000));
    uint64_t link = at_world_stranger_link(w, &key, 1), now = 1000;
    hello.hello.protocol = AT_PROTOCOL_VERSION;
    hello.hello.run = at_world_run_id(w);
    say(w, link, &hello);
    assert_int_equal(at_record_sign(&join, &key, NULL, &record), AT_OK);
    say(w, link, &submit);
    while (!done && now < 300000 && !at_world_violation(w)) {
        const char *reason;
        for (uint32_t r = 0; r < ROUNDS && at_world_link_is_up(w, link); r++) {
            struct at_message held = {.kind = AT_MSG_HELD, .held = {r, at_span(&bits, 1)}};
            if (now % 1000 == 0) say(w, link, &held);
        }
        done = at_world_run(w, now += 100);
        enum at_message_kind heard = at_world_stranger_heard(w, link, &reason);
        asked = asked || heard == AT_MSG_WANT || heard == AT_MSG_BUNDLE_WANT;
    }
    must_finish(w, now);
    assert_true(asked);
    uint32_t counted = 0;
    for (uint32_t r = 0; r < o.rounds; r++) counted += at_world_included(w, r);
    assert_in_range(counted, 3 * o.rounds - 1, 3 * o.rounds);
    at_world_release(w);
}

/* ---- a member that is linked to everybody and tells all the time that it has everything of the open round ---- */
enum lie { CRUMBS, HALVES, MISSING, GARBAGE, EMPTIES };
struct asked {
    uint64_t link, due_ms;
    bool bundle;
    uint32_t count, next;
    struct at_hash keys[AT_BUNDLE_MAX];
};
struct liar {
    struct at_world *w;
    enum lie lie;
    const char *blame;
    uint64_t links[NODES];
    struct asked asked[256];
    uint32_t waiting, keys, blamed;
};

static void hears(void *context, uint64_t link, const struct at_message *msg)
{
    struct liar *x = context;
    struct asked *a = &x->asked[x->waiting];
    bool bundle = msg->kind == AT_MSG_BUNDLE_WANT;
    if (msg->kind == AT_MSG_BYE && x->blame && strstr(msg->bye.reason, x->blame)) x->blamed++;
    if ((!bundle && msg->kind != AT_MSG_WANT) || x->waiting == sizeof x->asked / sizeof x->asked[0]) return;
    *a = (struct asked){.link = link, .bundle = bundle, .count = bundle ? msg->bundle_want.count : 1};
    memcpy(a->keys, bundle ? msg->bundle_want.keys : &msg->want.key, a->count * sizeof a->keys[0]);
    x->keys += a->count;
    x->waiting++;
}

static void missing(struct liar *x, const struct asked *a, struct at_hash key)
{
    struct at_message msg = {.kind = AT_MSG_MISSING, .missing = {.kind = AT_BLOB_UPDATE, .key = key}};
    say(x->w, a->link, &msg);
}

/* True: that was its last answer to this want. */
static bool answer(struct liar *x, struct asked *a, const struct at_world_options *o)
{
    static const uint8_t junk[5000];
    struct at_span data[AT_BUNDLE_MAX] = {{0}};
    struct at_hash nobodys = {{9}};
    struct at_message piece = {.kind = AT_MSG_PIECE,
                               .piece = {.kind = AT_BLOB_UPDATE,
                                         .key = a->keys[0],
                                         .total = o->update_bytes,
                                         .data = at_span(junk, o->update_bytes)}};
    struct at_message bundle = {.kind = AT_MSG_BUNDLE, .bundle = {a->keys, data, a->count}};
    bool crumbs = x->lie == CRUMBS || x->lie == HALVES;
    for (uint32_t i = 0; i < a->count && x->lie == GARBAGE; i++) data[i] = piece.piece.data;
    if (!a->bundle && x->lie == GARBAGE)
        say(x->w, a->link, &piece);
    else if (!a->bundle || x->lie == MISSING)
        missing(x, a, a->bundle ? nobodys : a->keys[0]);
    else if (!crumbs)
        say(x->w, a->link, &bundle);
    if (!a->bundle || !crumbs) return true;
    if (at_world_now_ms(x->w) < a->due_ms) return false;
    if (a->due_ms) {
        bundle.bundle.keys = x->lie == CRUMBS ? &nobodys : &a->keys[a->next++];
        bundle.bundle.count = 1;
        say(x->w, a->link, &bundle);
    }
    a->due_ms = at_world_now_ms(x->w) + LIAR_LATE_MS;
    return a->next == a->count;
}

static void link_to_all(struct liar *x)
{
    struct at_keypair key = at_world_stranger_key(x->w, 1);
    struct at_record join = {
        .kind = AT_RECORD_JOIN, .run = at_world_run_id(x->w), .time_ms = 1, .join = {.name = "liar"}};
    struct at_signed_record record;
    struct at_message hello = {.kind = AT_MSG_HELLO}, submit = {.kind = AT_MSG_SUBMIT, .submit = {.record = &record}};
    hello.hello.protocol = AT_PROTOCOL_VERSION;
    hello.hello.run = at_world_run_id(x->w);
    assert_int_equal(at_record_sign(&join, &key, NULL, &record), AT_OK);
    for (int i = 1; i < NODES; i++) {
        x->links[i] = at_world_stranger_link(x->w, &key, i);
        say(x->w, x->links[i], &hello);
        say(x->w, x->links[i], &submit);
    }
}

/* Returns how many updates of the sound members did not count, of LIAR_ROUNDS * NODES. Each may lose one round: while the
 * liar was silent before its first answer. */
static uint32_t run_with(struct liar *x)
{
    struct at_world_options o = small(73);
    o.nodes = o.min_members = NODES;
    o.rounds = LIAR_ROUNDS;
    o.step_ms = 3000;
    o.round_ms_max = 60000;
    x->w = make(&o);
    for (int i = 0; i < NODES; i++) at_world_speed(x->w, i, 0.8 + 0.4 * i / NODES);
    at_world_strangers_hear(x->w, hears, x);
    bool done = at_world_run(x->w, 2000);
    uint8_t bits[NODES / 8];
    memset(bits, 0xff, sizeof bits);
    link_to_all(x);
    uint32_t round = 0, counted = 0;
    for (uint64_t now = 2000; !done && now < 400000 && !at_world_violation(x->w);) {
        struct at_message held = {.kind = AT_MSG_HELD, .held = {round, at_span(bits, sizeof bits)}};
        for (int i = 1; i < NODES && now % 500 == 0; i++) say(x->w, x->links[i], &held);
        for (uint32_t i = 0; i < x->waiting; i++)
            if (!at_world_link_is_up(x->w, x->asked[i].link) || answer(x, &x->asked[i], &o))
                x->asked[i--] = x->asked[--x->waiting];
        done = at_world_run(x->w, now += 100);
        while (round < LIAR_ROUNDS && at_world_included(x->w, round) != UINT32_MAX) round++;
    }
    for (uint32_t r = 0; r < round; r++) counted += at_world_included(x->w, r);
    print_message("lie %d: %u of %d counted, asked for %u updates, blamed %u times, done %d at %llu ms\n", x->lie,
                  counted, LIAR_ROUNDS * NODES, x->keys, x->blamed, done, (unsigned long long)at_world_now_ms(x->w));
    must_finish(x->w, at_world_now_ms(x->w));
    at_world_release(x->w);
    return LIAR_ROUNDS * NODES - counted;
}

/* The others do nearly all of their rounds, and it is shown the door for what it did. */
static void is_blamed(struct liar *x)
{
    assert_in_range(run_with(x), 0, LEFT_OUT_MAX);
    assert_true(x->blamed > 0);
}

static void crumbs_of_nothing(void **state)
{
    (void)state;
    struct liar x = {.lie = CRUMBS, .blame = "a bundle of other updates than the next ones"};
    is_blamed(&x);
}

static void crumbs_of_the_want(void **state)
{
    (void)state;
    struct liar x = {.lie = HALVES, .blame = "a bundle that has room for the next update"};
    is_blamed(&x);
}

static void missing_for_a_bundle(void **state)
{
    (void)state;
    struct liar x = {.lie = MISSING, .blame = "an answer to nothing"};
    is_blamed(&x);
}

static void garbage_of_the_right_size(void **state)
{
    (void)state;
    struct liar x = {.lie = GARBAGE, .blame = "a blob that is not what its hash says"};
    is_blamed(&x);
    assert_in_range(x.keys, 1, LIAR_ROUNDS * NODES * 8);
}

/* What is not there is no fault, but who told otherwise four times is not believed for the rest of the round. */
static void empties(void **state)
{
    (void)state;
    struct liar x = {.lie = EMPTIES};
    assert_in_range(run_with(&x), 0, LEFT_OUT_MAX);
    assert_in_range(x.keys, 1, LIAR_ROUNDS * NODES * 8); /* without that 12 times; some four by turns */
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_asks_in_vain),       cmocka_unit_test(joins_go_together),
        cmocka_unit_test(one_that_has_nothing),      cmocka_unit_test(crumbs_of_nothing),
        cmocka_unit_test(crumbs_of_the_want),        cmocka_unit_test(missing_for_a_bundle),
        cmocka_unit_test(garbage_of_the_right_size), cmocka_unit_test(empties)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
