/* world_silent_test.c: blobs from peers that say what they should and do not send what they owe. A stranger is linked to
 * a newcomer before anybody else, so it is the first that the newcomer asks. */
#include "sim/world_internal.h"
#include "sim/world_rig.h"
#include "swarm/tiles.h"

enum { NEWCOMER = 2, SHARD = 700000 }; /* three pieces */

struct silent {
    struct at_world *w;
    struct at_keypair key;
    uint64_t link, asked_ms; /* when the newcomer asked it for the shard */
};

static void say(struct silent *s, const struct at_message *msg)
{
    struct at_buf bytes = {0};
    assert_int_equal(at_message_encode(msg, &bytes), AT_OK);
    at_world_stranger_send(s->w, s->link, at_buf_span(&bytes));
    at_buf_release(&bytes);
}

/* Part `k` of the shard, or of what it says is the blob with this key. */
static void send_piece(struct silent *s, struct at_hash key, uint32_t k)
{
    struct at_span shard = at_buf_span(&s->w->shard);
    size_t at = (size_t)k * AT_PIECE_BYTES_MAX, rest = shard.n - at;
    struct at_message msg = {.kind = AT_MSG_PIECE};
    msg.piece = (struct at_msg_piece){
        .kind = AT_BLOB_SHARD, .key = key, .offset = at, .total = shard.n, .data = {.p = shard.p + at}};
    msg.piece.data.n = rest < AT_PIECE_BYTES_MAX ? rest : AT_PIECE_BYTES_MAX;
    say(s, &msg);
}

static void run_to(struct silent *s, uint64_t until_ms)
{
    assert_false(at_world_run(s->w, until_ms));
    if (at_world_violation(s->w)) fail_msg("%s", at_world_violation(s->w));
}

/* The newcomer has the genesis and knows the stranger; it has just asked it for the three pieces of the shard. */
static struct silent begin(uint64_t seed)
{
    struct at_world_options o = small(seed);
    struct silent s = {0};
    const char *reason;
    o.shard_bytes = SHARD;
    o.rounds = 6;
    o.step_ms = 1000;
    s.w = make_down(&o);
    s.key = at_world_stranger_key(s.w, 1);
    start_all(s.w, 2);
    at_world_start_node(s.w, NEWCOMER, 1000);
    run_to(&s, 1000);
    s.link = at_world_stranger_link(s.w, &s.key, NEWCOMER);
    uint64_t now = 1000;
    while (!at_node_machine_genesis(s.w->nodes[NEWCOMER].machine)) run_to(&s, ++now);
    struct at_message msg = {.kind = AT_MSG_HELLO};
    msg.hello.protocol = AT_PROTOCOL_VERSION;
    msg.hello.run = at_world_run_id(s.w);
    say(&s, &msg);
    while (at_world_stranger_heard(s.w, s.link, &reason) != AT_MSG_WANT) {
        assert_true(now < 1200);
        run_to(&s, ++now);
    }
    s.asked_ms = now;
    return s;
}

static bool has_shard(struct silent *s)
{
    const struct at_world_blob *b =
        at_world_blob_find(&s->w->nodes[NEWCOMER].disk, AT_BLOB_SHARD, s->w->g.shards[0].hash);
    return b && b->complete;
}

/* An update, too, may be asked of the stranger first; that can cost the newcomer a round, once. */
static void all_take_part(struct silent *s)
{
    must_finish(s->w, 60000);
    assert_int_equal(at_world_included(s->w, 5), 3);
    at_world_release(s->w);
}

/* It sends one piece and stops: some seconds later the other two come from the next peer. */
static void another_goes_on(void **state)
{
    (void)state;
    struct silent s = begin(41);
    struct at_hash shard = s.w->g.shards[0].hash;
    uint64_t pieces = at_world_sent(s.w, AT_MSG_PIECE);
    run_to(&s, s.asked_ms + 1000);
    send_piece(&s, shard, 0);
    run_to(&s, s.asked_ms + 1000 + AT_BLOB_SILENT_MS - 1);
    assert_int_equal(at_world_sent(s.w, AT_MSG_PIECE), pieces);
    run_to(&s, s.asked_ms + 1000 + AT_BLOB_SILENT_MS + 200);
    assert_true(has_shard(&s));
    assert_int_equal(at_world_sent(s.w, AT_MSG_PIECE), pieces + 2); /* the first was kept */
    assert_true(at_world_link_is_up(s.w, s.link));                  /* slow is no crime */
    run_to(&s, s.asked_ms + 1000 + AT_BLOB_SILENT_MS + 1500);
    assert_int_equal(at_world_status(s.w, NEWCOMER)->joined, true); /* nothing else was asked of the silent one */
    all_take_part(&s);
}

/* The pieces of the slow one come after all, before those that were asked elsewhere: they are used, and nobody is blamed
 * for what comes twice. */
static void late_pieces_count(void **state)
{
    (void)state;
    struct silent s = begin(42);
    struct at_hash shard = s.w->g.shards[0].hash;
    uint64_t now = s.asked_ms + AT_BLOB_SILENT_MS - 5, pieces = at_world_sent(s.w, AT_MSG_PIECE);
    run_to(&s, now);
    while (at_world_sent(s.w, AT_MSG_PIECE) == pieces) { /* until another is asked and has sent something */
        assert_true(now < s.asked_ms + AT_BLOB_SILENT_MS + 50);
        run_to(&s, ++now);
    }
    for (uint32_t k = 0; k < 3; k++) send_piece(&s, shard, k);
    run_to(&s, now + 20);
    assert_true(has_shard(&s));
    assert_true(at_world_sent(s.w, AT_MSG_PIECE) <= pieces + 3);
    assert_true(at_world_link_is_up(s.w, s.link));
    run_to(&s, now + 1000);
    assert_int_equal(at_world_links(s.w, NEWCOMER), 3);
    all_take_part(&s);
}

/* It answers every want with a piece of something else: then it does not have what was asked. */
static void another_blob(void **state)
{
    (void)state;
    struct silent s = begin(43);
    for (uint32_t k = 0; k < 3; k++) send_piece(&s, at_sha256("other", 5), k);
    run_to(&s, s.asked_ms + 300);
    assert_true(has_shard(&s));
    all_take_part(&s);
}

/* It never sends anything: in the end it loses its link. */
static void silent_for_ever(void **state)
{
    (void)state;
    struct silent s = begin(44);
    const char *reason;
    run_to(&s, s.asked_ms + AT_BLOB_SILENT_MS + 1000);
    assert_true(has_shard(&s));
    run_to(&s, s.asked_ms + 16000);
    assert_int_equal(at_world_stranger_heard(s.w, s.link, &reason), AT_MSG_BYE);
    assert_string_equal(reason, "the pieces that were asked for do not come");
    all_take_part(&s);
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(another_goes_on), cmocka_unit_test(late_pieces_count),
                                       cmocka_unit_test(another_blob), cmocka_unit_test(silent_for_ever)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
