/* world_liars_test.c: peers that lie about where members are, who is here, how far away the steward is and what the log
 * says; and floods of that. */
#include "sim/world_rig.h"

struct liar {
    struct at_world *w;
    struct at_keypair key;
    uint64_t link;
    struct at_buf bytes;
};

static void settle(struct liar *h)
{
    assert_false(at_world_run(h->w, at_world_now_ms(h->w) + 50));
    if (at_world_violation(h->w)) fail_msg("%s", at_world_violation(h->w));
}

static void say(struct liar *h, const struct at_message *msg)
{
    at_buf_clear(&h->bytes);
    assert_int_equal(at_message_encode(msg, &h->bytes), AT_OK);
    at_world_stranger_send(h->w, h->link, at_buf_span(&h->bytes));
}

static void greet(struct liar *h, int node)
{
    struct at_message msg = {.kind = AT_MSG_HELLO};
    h->link = at_world_stranger_link(h->w, &h->key, node);
    msg.hello.protocol = AT_PROTOCOL_VERSION;
    msg.hello.run = at_world_run_id(h->w);
    say(h, &msg);
    settle(h);
}

static void join(struct liar *h)
{
    struct at_signed_record record;
    struct at_record rec = {
        .kind = AT_RECORD_JOIN, .run = at_world_run_id(h->w), .time_ms = 1, .join = {.name = "liar"}};
    struct at_message msg = {.kind = AT_MSG_SUBMIT, .submit = {.record = &record}};
    assert_int_equal(at_record_sign(&rec, &h->key, NULL, &record), AT_OK);
    say(h, &msg);
    settle(h);
}

static void must_close(struct liar *h, const char *reason)
{
    const char *heard;
    settle(h);
    assert_int_equal(at_world_stranger_heard(h->w, h->link, &heard), AT_MSG_BYE);
    if (!strstr(heard, reason)) fail_msg("closed with \"%s\", not \"%s\"", heard, reason);
    assert_false(at_world_link_is_up(h->w, h->link));
}

static struct at_endpoints somewhere(struct liar *h, const struct at_keypair *key, uint64_t counter)
{
    struct at_endpoint e = {.ip = {0xfd, 1}, .ip_bytes = 16, .port = 9};
    return at_endpoints_sign(key, at_world_run_id(h->w), counter, &e, 1);
}

static void lies_about_addresses(void **state)
{
    (void)state;
    struct at_world_options o = small(28);
    o.rounds = 6;
    o.step_ms = 1000;
    struct liar h = {.w = make(&o)};
    struct at_keypair member = at_world_node_key(h.w, 2);
    struct at_message msg = {.kind = AT_MSG_PEERS};
    h.key = at_world_stranger_key(h.w, 1);
    assert_false(at_world_run(h.w, 2000));
    greet(&h, 1);
    /* its own, of one who is no member: nobody keeps it or passes it on */
    struct at_endpoints e = somewhere(&h, &h.key, 1);
    msg.peers = (struct at_msg_peers){&e, 1};
    uint64_t sent = at_world_sent(h.w, AT_MSG_PEERS);
    say(&h, &msg);
    settle(&h);
    assert_int_equal(at_world_status(h.w, 1)->peers_known, 3);
    assert_true(at_world_sent(h.w, AT_MSG_PEERS) == sent);
    /* an old one of a member: not taken, nobody's fault */
    e = somewhere(&h, &member, 1);
    say(&h, &msg);
    settle(&h);
    assert_true(at_world_link_is_up(h.w, h.link));
    assert_true(at_world_sent(h.w, AT_MSG_PEERS) == sent);
    /* a newer one that the member has not signed */
    e.counter = UINT64_MAX;
    say(&h, &msg);
    must_close(&h, "not signed by it");
    /* a word of presence, likewise */
    struct at_message ready = {.kind = AT_MSG_READY};
    greet(&h, 0);
    join(&h);
    ready.ready = at_presence_sign(&h.key, at_world_run_id(h.w), UINT64_MAX, 0, at_sha256("", 0));
    ready.ready.member = member.id;
    say(&h, &ready);
    must_close(&h, "has not signed");
    must_finish(h.w, 60000);
    for (uint32_t r = 0; r < 6; r++) assert_int_equal(at_world_included(h.w, r), 3);
    at_buf_release(&h.bytes);
    at_world_release(h.w);
}

/* A member that signs a new statement every millisecond makes nobody pass on more than one per second. */
static void floods_addresses(void **state)
{
    (void)state;
    struct at_world_options o = small(29);
    o.rounds = 4;
    o.step_ms = 1000;
    struct liar h = {.w = make(&o)};
    struct at_message msg = {.kind = AT_MSG_PEERS};
    h.key = at_world_stranger_key(h.w, 1);
    assert_false(at_world_run(h.w, 500));
    greet(&h, 0);
    join(&h);
    uint64_t sent = at_world_sent(h.w, AT_MSG_PEERS), from_ms = at_world_now_ms(h.w);
    for (uint64_t i = 1; i <= 3000; i++) {
        struct at_endpoints e = somewhere(&h, &h.key, i);
        msg.peers = (struct at_msg_peers){&e, 1};
        say(&h, &msg);
        if (i % 10 == 0) assert_false(at_world_run(h.w, at_world_now_ms(h.w) + 10));
    }
    uint64_t seconds = (at_world_now_ms(h.w) - from_ms) / 1000 + 1;
    assert_true(at_world_sent(h.w, AT_MSG_PEERS) - sent <= 8 * seconds); /* to two members, and between them */
    struct at_endpoints e = somewhere(&h, &h.key, 1);                    /* and a flood of anything ends */
    msg.peers = (struct at_msg_peers){&e, 1};
    for (int i = 0; i < 5000; i++) say(&h, &msg);
    must_close(&h, "too many messages");
    must_finish(h.w, 60000);
    at_buf_release(&h.bytes);
    at_world_release(h.w);
}

/* A member says that it is next to the steward, and swallows what it is given to pass on. Node 2, which reaches the
 * steward through node 1 only, is drawn to it, misses its words in the log, and goes back. An update that it wants from
 * the liar costs it rounds as well: 15 s, until the silent link is closed. */
static void lies_about_its_distance(void **state)
{
    (void)state;
    struct at_world_options o = small(30);
    o.rounds = 8;
    o.step_ms = 2000;
    o.round_ms_max = 8000;
    struct liar h = {.w = make_down(&o)};
    h.key = at_world_stranger_key(h.w, 1);
    at_world_contact(h.w, 2, 1);
    at_world_wall(h.w, 0, 2, 0, AT_EVER_MS);
    start_all(h.w, 3);
    assert_false(at_world_run(h.w, 1000));
    greet(&h, 0);
    join(&h);
    assert_int_equal(at_world_log_count(h.w, AT_RECORD_JOIN), 4);
    greet(&h, 2);
    struct at_message head = {.kind = AT_MSG_HEAD, .head = {.log_size = 1000000, .hops = 0}};
    say(&h, &head);
    settle(&h);
    assert_int_equal(at_world_status(h.w, 2)->hops, 1); /* it believes that */
    must_finish(h.w, 200000);
    assert_int_equal(at_world_included(h.w, 7), 3);
    at_buf_release(&h.bytes);
    at_world_release(h.w);
}

/* A peer that shows another log than the steward's is shut out; the node that it showed it to goes on. */
static void shows_another_log(void **state)
{
    (void)state;
    struct at_world_options o = small(31);
    o.rounds = 3;
    o.step_ms = 1000;
    struct liar h = {.w = make(&o)};
    struct at_message head = {.kind = AT_MSG_HEAD, .head = {.hops = 3}}, part = {.kind = AT_MSG_LOG_PART};
    h.key = at_world_stranger_key(h.w, 1);
    assert_false(at_world_run(h.w, 500));
    greet(&h, 1);
    uint64_t size = at_world_status(h.w, 1)->log_size;
    head.head.log_size = size + 1;
    say(&h, &head);
    assert_false(at_world_run(h.w, at_world_now_ms(h.w) + 1000)); /* it is asked for more than the feed has brought */
    struct at_signed_record record;
    struct at_record rec = {.kind = AT_RECORD_LEAVE, .run = at_world_run_id(h.w), .time_ms = 1};
    struct at_keypair member = at_world_node_key(h.w, 2);
    assert_int_equal(at_record_sign(&rec, &member, NULL, &record), AT_OK);
    size = at_world_status(h.w, 1)->log_size;
    struct at_log_checkpoint c = at_log_checkpoint_sign(&h.key, at_world_run_id(h.w), size + 1, at_sha256("", 0));
    part.log_part = (struct at_msg_log_part){
        .from = size, .records = &record, .record_count = 1, .checkpoints = &c, .checkpoint_count = 1};
    say(&h, &part);
    must_close(&h, "not signed by the run's steward");
    must_finish(h.w, 60000);
    for (uint32_t r = 0; r < 3; r++) assert_int_equal(at_world_included(h.w, r), 3);
    at_buf_release(&h.bytes);
    at_world_release(h.w);
}

/* Members may take all links but those that are kept for newcomers and the steward. */
static void room_is_kept_for_newcomers(void **state)
{
    (void)state;
    enum { LINKS_MAX = 20, KEPT = 8, OTHERS = LINKS_MAX - KEPT - 2 }; /* nodes 1 and 2 are members too */
    struct at_world_options o = small(32);
    struct at_keypair keys[OTHERS];
    const char *reason;
    o.rounds = 2;
    o.step_ms = 2000;
    o.links_max = LINKS_MAX;
    struct liar h = {.w = make(&o)};
    assert_false(at_world_run(h.w, 200));
    for (uint32_t i = 0; i < OTHERS; i++) {
        h.key = keys[i] = at_world_stranger_key(h.w, i);
        greet(&h, 0);
        join(&h);
    }
    assert_int_equal(at_world_log_count(h.w, AT_RECORD_JOIN), OTHERS + 3);
    h.key = keys[0];
    greet(&h, 0); /* a member's second link is one too many */
    must_close(&h, "no room");
    for (uint32_t i = 0; i < KEPT; i++) {
        h.key = at_world_stranger_key(h.w, 100 + i);
        greet(&h, 0);
        assert_int_equal(at_world_stranger_heard(h.w, h.link, &reason), AT_MSG_HELLO);
    }
    uint64_t last = h.link;
    h.key = at_world_stranger_key(h.w, 200); /* when all are taken, a stranger gives way to the next */
    greet(&h, 0);
    assert_int_equal(at_world_stranger_heard(h.w, h.link, &reason), AT_MSG_HELLO);
    assert_true(at_world_link_is_up(h.w, last));
    must_finish(h.w, 60000);
    at_buf_release(&h.bytes);
    at_world_release(h.w);
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(lies_about_addresses), cmocka_unit_test(floods_addresses),
                                       cmocka_unit_test(lies_about_its_distance), cmocka_unit_test(shows_another_log),
                                       cmocka_unit_test(room_is_kept_for_newcomers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
