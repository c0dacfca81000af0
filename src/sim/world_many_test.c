/* world_many_test.c: what is done otherwise among more than 64 members: where somebody is goes on to a few links only, and
 * later. */
#include "sim/world_rig.h"

enum { NODES = 72 };

static struct at_world_options many(uint64_t seed)
{
    struct at_world_options o = small(seed);
    o.nodes = o.min_members = NODES;
    o.round_ms_max = 600000;
    return o;
}

/* ---- where members are ---- */
struct asker {
    uint64_t link;
    struct at_node_id whom;
    uint64_t counter; /* of its statement, as the node says that was asked last; 0: it has none */
    bool answered;
    struct at_node_id last;
    uint32_t count;
};

static void hears(void *context, uint64_t link, const struct at_message *msg)
{
    struct asker *a = context;
    if (link != a->link || msg->kind != AT_MSG_PEERS) return;
    a->answered = true;
    a->count = msg->peers.count;
    for (uint32_t i = 0; i < msg->peers.count; i++) {
        a->last = msg->peers.list[i].node;
        if (at_node_id_eq(&a->last, &a->whom)) a->counter = msg->peers.list[i].counter;
    }
}

static void say(struct at_world *w, uint64_t link, const struct at_message *msg)
{
    struct at_buf bytes = {0};
    assert_int_equal(at_message_encode(msg, &bytes), AT_OK);
    at_world_stranger_send(w, link, at_buf_span(&bytes));
    at_buf_release(&bytes);
    (void)at_world_run(w, at_world_now_ms(w) + 20);
    if (at_world_violation(w)) fail_msg("%s", at_world_violation(w));
}

/* The counter of `whom`'s statement as this node knows it. */
static uint64_t known_at(struct at_world *w, int node, struct at_node_id whom, uint32_t tag)
{
    struct at_keypair key = at_world_stranger_key(w, tag);
    struct asker a = {.link = at_world_stranger_link(w, &key, node), .whom = whom};
    struct at_message hello = {.kind = AT_MSG_HELLO, .hello = {.protocol = AT_PROTOCOL_VERSION}};
    struct at_message get = {.kind = AT_MSG_PEERS_GET};
    hello.hello.run = at_world_run_id(w);
    at_world_strangers_hear(w, hears, &a);
    say(w, a.link, &hello);
    do {
        a.answered = false;
        say(w, a.link, &get);
        assert_true(a.answered);
        get.peers_get.after = a.last;
    } while (a.count == AT_PEERS_MAX);
    at_world_strangers_hear(w, NULL, NULL);
    return a.counter;
}

/* How many do not know the newest of the counters that are known. */
static int outdated(struct at_world *w, struct at_node_id whom, uint32_t tag, uint64_t *ret_newest)
{
    uint64_t at[NODES] = {0};
    int count = 0;
    *ret_newest = 0;
    for (int i = 0; i < NODES; i++) at[i] = known_at(w, i, whom, tag + (uint32_t)i);
    for (int i = 0; i < NODES; i++)
        if (at[i] > *ret_newest) *ret_newest = at[i];
    for (int i = 0; i < NODES; i++) count += at[i] != *ret_newest;
    return count;
}

/* Everybody hears where everybody is, and where one is that comes back at another address. */
static void all_hear_where_one_is(void **state)
{
    enum { WHO = NODES / 2, JOINED_MS = 60000, AWAY_MS = 20000, HEARD_MS = 120000 };
    struct at_world_options o = many(41);
    uint64_t first, second;
    (void)state;
    o.step_ms = 150000;
    struct at_world *w = make(&o);
    assert_false(at_world_run(w, JOINED_MS));
    struct at_world_counts counts;
    at_world_counts(w, &counts);
    assert_int_equal(counts.nodes_joined, NODES);
    struct at_node_id whom = at_world_status(w, WHO)->id;
    assert_int_equal(outdated(w, whom, 1000, &first), 0);
    assert_true(first > 0);
    at_world_crash(w, WHO, at_world_now_ms(w), false);
    assert_false(at_world_run(w, at_world_now_ms(w) + AWAY_MS));
    at_world_move(w, WHO);
    at_world_start_node(w, WHO, at_world_now_ms(w));
    uint64_t before = at_world_sent(w, AT_MSG_PEERS);
    assert_false(at_world_run(w, at_world_now_ms(w) + HEARD_MS));
    print_message("%d nodes, %llu messages of statements since one has moved\n", NODES,
                  (unsigned long long)(at_world_sent(w, AT_MSG_PEERS) - before));
    assert_int_equal(outdated(w, whom, 3000, &second), 0);
    assert_true(second > first);
    at_world_release(w);
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_hear_where_one_is)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
