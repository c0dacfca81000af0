/* world_directory_test.c: who asks for the directory is told what it does not know (swarm/node_sums.c). A stranger asks.
 * And who is asked: all in turn, whatever one of them answers (swarm/node_peers.c). */
#include "sim/world_rig.h"

enum { NODES = 12 };

struct asker {
    struct at_world *w;
    struct at_keypair key;
    uint64_t link;
    struct at_buf bytes;
    struct at_endpoints told[AT_PEERS_MAX]; /* by the last answer */
    uint32_t count, answers;
};

static void hears(void *context, uint64_t link, const struct at_message *msg)
{
    struct asker *a = context;
    if (link != a->link || msg->kind != AT_MSG_PEERS) return;
    memcpy(a->told, msg->peers.list, msg->peers.count * sizeof *a->told);
    a->count = msg->peers.count;
    a->answers++;
}

static void say(struct asker *a, const struct at_message *msg)
{
    at_buf_clear(&a->bytes);
    assert_int_equal(at_message_encode(msg, &a->bytes), AT_OK);
    at_world_stranger_send(a->w, a->link, at_buf_span(&a->bytes));
    assert_false(at_world_run(a->w, at_world_now_ms(a->w) + 50));
}

static void ask(struct asker *a, struct at_span sums)
{
    struct at_message msg = {.kind = AT_MSG_PEERS_GET, .peers_get = {.sums = sums}};
    uint32_t before = a->answers;
    say(a, &msg);
    if (a->answers != before + 1) fail_msg("%u answers", a->answers - before);
}

static struct at_span sum_up(const struct at_endpoints *list, uint32_t count, uint32_t ranges, uint8_t *ret_bytes)
{
    uint64_t sums[AT_PEERS_SUMS_MAX] = {0};
    for (uint32_t i = 0; i < count; i++)
        sums[at_endpoints_range(&list[i].node) * ranges / AT_PEERS_SUMS_MAX] ^= at_endpoints_number(&list[i]);
    for (uint32_t k = 0; k < ranges; k++) at_store_le64(ret_bytes + 8 * k, sums[k]);
    return at_span(ret_bytes, 8 * (size_t)ranges);
}

/* For each of the members: an asker that lacks its statement, or has an older one, is told its range and no other. */
static void misses_one(struct asker *a, const struct at_endpoints *all, uint32_t count, uint32_t ranges, bool older)
{
    uint8_t bytes[8 * AT_PEERS_SUMS_MAX];
    struct at_endpoints known[AT_PEERS_MAX];
    for (uint32_t lost = 0; lost < count; lost++) {
        memcpy(known, all, count * sizeof *known);
        known[lost].counter = older ? known[lost].counter - 1 : 0;
        ask(a, sum_up(known, count, ranges, bytes));
        uint32_t range = at_endpoints_range(&all[lost].node) * ranges / AT_PEERS_SUMS_MAX, of_range = 0;
        for (uint32_t i = 0; i < count; i++)
            of_range += at_endpoints_range(&all[i].node) * ranges / AT_PEERS_SUMS_MAX == range;
        assert_int_equal(a->count, of_range);
        for (uint32_t i = 0; i < a->count; i++)
            assert_int_equal(at_endpoints_range(&a->told[i].node) * ranges / AT_PEERS_SUMS_MAX, range);
    }
}

static void is_told_what_it_lacks(void **state)
{
    struct at_world_options o = small(from_env("ATOLL_SIM_SEED", 1));
    struct asker a = {0};
    struct at_message hello = {.kind = AT_MSG_HELLO, .hello = {.protocol = AT_PROTOCOL_VERSION}};
    struct at_endpoints all[AT_PEERS_MAX];
    uint8_t bytes[8 * AT_PEERS_SUMS_MAX];
    (void)state;
    o.nodes = o.min_members = NODES;
    o.step_ms = 60000;
    o.round_ms_max = 600000;
    a.w = make(&o);
    assert_false(at_world_run(a.w, 5000));
    a.key = at_world_stranger_key(a.w, 1);
    at_world_strangers_hear(a.w, hears, &a);
    a.link = at_world_stranger_link(a.w, &a.key, 0);
    hello.hello.run = at_world_run_id(a.w);
    say(&a, &hello);
    ask(&a, at_span(NULL, 0));
    uint32_t count = a.count;
    assert_int_equal(count, NODES);
    memcpy(all, a.told, count * sizeof *all);
    for (uint32_t ranges = 1; ranges <= AT_PEERS_SUMS_MAX; ranges *= 2) {
        ask(&a, sum_up(all, count, ranges, bytes));
        assert_int_equal(a.count, 0); /* it knows all */
        ask(&a, sum_up(all, 0, ranges, bytes));
        assert_int_equal(a.count, count); /* nothing */
        misses_one(&a, all, count, ranges, false);
        misses_one(&a, all, count, ranges, true);
    }
    if (at_world_violation(a.w)) fail_msg("%s", at_world_violation(a.w));
    at_buf_release(&a.bytes);
    at_world_release(a.w);
}

/* ---- two members that are no machines: one answers each question with a whole page that is nobody's, and asks for nothing
 * better than to be asked on; the other counts how often it is asked ---- */
struct members {
    struct at_world *w;
    uint64_t liar, counter;
    struct at_node_id after;
    uint32_t pages, pages_at_most, asked; /* of the liar in one go; the counter */
    bool due, answers;
};

static void is_asked(void *context, uint64_t link, const struct at_message *msg)
{
    static const struct at_node_id lowest;
    struct members *x = context;
    if (msg->kind != AT_MSG_PEERS_GET) return;
    bool first = at_node_id_eq(&msg->peers_get.after, &lowest);
    if (link == x->counter) {
        x->asked += first;
        x->answers = true;
    } else if (link == x->liar) {
        x->pages = first ? 1 : x->pages + 1;
        if (x->pages > x->pages_at_most) x->pages_at_most = x->pages;
        x->after = msg->peers_get.after;
        x->due = true;
    }
}

static void tell(struct at_world *w, uint64_t link, const struct at_message *msg)
{
    struct at_buf bytes = {0};
    assert_int_equal(at_message_encode(msg, &bytes), AT_OK);
    at_world_stranger_send(w, link, at_buf_span(&bytes));
    at_buf_release(&bytes);
}

static uint64_t joins(struct at_world *w, uint32_t tag, const char *name)
{
    struct at_keypair key = at_world_stranger_key(w, tag);
    uint64_t link = at_world_stranger_link(w, &key, 0);
    struct at_record join = {.kind = AT_RECORD_JOIN, .run = at_world_run_id(w), .time_ms = 1};
    struct at_signed_record record;
    struct at_message hello = {.kind = AT_MSG_HELLO}, submit = {.kind = AT_MSG_SUBMIT, .submit = {.record = &record}};
    snprintf(join.join.name, sizeof join.join.name, "%s", name);
    hello.hello.protocol = AT_PROTOCOL_VERSION;
    hello.hello.run = at_world_run_id(w);
    tell(w, link, &hello);
    assert_int_equal(at_record_sign(&join, &key, NULL, &record), AT_OK);
    tell(w, link, &submit);
    assert_false(at_world_run(w, at_world_now_ms(w) + 500));
    return link;
}

/* Ids that ascend from the one that was asked for: it can go on so for ever. */
static void answer(struct members *x)
{
    static struct at_endpoints list[AT_PEERS_MAX];
    struct at_message msg = {.kind = AT_MSG_PEERS, .peers = {list, AT_PEERS_MAX}}, none = {.kind = AT_MSG_PEERS};
    for (uint32_t i = 0; i < AT_PEERS_MAX; i++) {
        struct at_node_id *id = &list[i].node;
        *id = i ? list[i - 1].node : x->after;
        for (int k = AT_KEY_BYTES - 1; k >= 0 && ++id->b[k] == 0; k--) continue;
        list[i].counter = list[i].count = 1;
        list[i].list[0] = (struct at_endpoint){.ip_bytes = 4, .ip = {10, 0, 0, 1}, .port = 1};
    }
    if (x->due) tell(x->w, x->liar, &msg);
    if (x->answers) tell(x->w, x->counter, &none);
    x->due = x->answers = false;
}

static void one_that_tells_on_and_on_does_not_keep_others_from_being_asked(void **state)
{
    enum { UNTIL_MS = 900000, AT_LEAST = 3 }; /* there is no news: once a minute at last, one of four */
    struct at_world_options o = small(from_env("ATOLL_SIM_SEED", 1));
    struct members x = {0};
    (void)state;
    o.step_ms = 60000;
    o.round_ms_max = 600000;
    o.rounds = 20;
    x.w = make(&o);
    assert_false(at_world_run(x.w, 5000));
    at_world_strangers_hear(x.w, is_asked, &x);
    x.liar = joins(x.w, 1, "liar");
    x.counter = joins(x.w, 2, "counter");
    for (uint32_t tag = 3; at_world_now_ms(x.w) < UNTIL_MS;) {
        struct at_keypair passer_by = at_world_stranger_key(x.w, tag);
        if (at_world_now_ms(x.w) >=
            tag * 50000) { /* whoever is new may know where a member is: then some are asked again */
            struct at_message hello = {.kind = AT_MSG_HELLO, .hello = {.protocol = AT_PROTOCOL_VERSION}};
            hello.hello.run = at_world_run_id(x.w);
            tell(x.w, at_world_stranger_link(x.w, &passer_by, 0), &hello);
            tag++;
        }
        assert_false(at_world_run(x.w, at_world_now_ms(x.w) + 100));
        if (at_world_violation(x.w)) fail_msg("%s", at_world_violation(x.w));
        answer(&x);
    }
    assert_true(at_world_link_is_up(x.w, x.liar) && at_world_link_is_up(x.w, x.counter));
    print_message("asked %u times; the liar for %u pages in one go\n", x.asked, x.pages_at_most);
    assert_int_equal(x.pages_at_most, 1); /* five members fill no page */
    assert_true(x.asked >= AT_LEAST);
    at_world_release(x.w);
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_told_what_it_lacks),
        cmocka_unit_test(one_that_tells_on_and_on_does_not_keep_others_from_being_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
