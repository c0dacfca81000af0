/* world_hostile_test.c: peers that lie, flood and withhold. */
#include "sim/world_rig.h"

/* ---- a hostile peer: each breach is answered with a reason, and the run goes on as if it were not there ---------- */
struct hostile {
    struct at_world *w;
    struct at_keypair key;
    uint64_t link;
    struct at_buf bytes;
};

static void settle(struct hostile *h)
{
    assert_false(at_world_run(h->w, at_world_now_ms(h->w) + 50));
    if (at_world_violation(h->w)) fail_msg("%s", at_world_violation(h->w));
}

static void say(struct hostile *h, const struct at_message *msg)
{
    at_buf_clear(&h->bytes);
    assert_int_equal(at_message_encode(msg, &h->bytes), AT_OK);
    at_world_stranger_send(h->w, h->link, at_buf_span(&h->bytes));
}

static void greet_with(struct hostile *h, uint32_t protocol, bool other_run)
{
    struct at_message msg = {.kind = AT_MSG_HELLO};
    h->link = at_world_stranger_link(h->w, &h->key, 0);
    msg.hello.protocol = protocol;
    msg.hello.run = at_world_run_id(h->w);
    if (other_run) msg.hello.run.b[0] ^= 1;
    say(h, &msg);
    settle(h);
}

static void greet(struct hostile *h, bool other_run)
{
    greet_with(h, AT_PROTOCOL_VERSION, other_run);
}

static void must_close(struct hostile *h, const char *reason)
{
    const char *heard;
    settle(h);
    assert_int_equal(at_world_stranger_heard(h->w, h->link, &heard), AT_MSG_BYE);
    if (!strstr(heard, reason)) fail_msg("closed with \"%s\", not \"%s\"", heard, reason);
    assert_false(at_world_link_is_up(h->w, h->link));
}

static void must_refuse(struct hostile *h, const char *reason)
{
    const char *heard;
    settle(h);
    assert_int_equal(at_world_stranger_heard(h->w, h->link, &heard), AT_MSG_REFUSED);
    if (!strstr(heard, reason)) fail_msg("refused with \"%s\", not \"%s\"", heard, reason);
    assert_true(at_world_link_is_up(h->w, h->link));
}

static void submit(struct hostile *h, struct at_record rec, const struct at_keypair *author)
{
    struct at_signed_record signed_rec;
    struct at_message msg = {.kind = AT_MSG_SUBMIT, .submit = {.record = &signed_rec}};
    rec.run = at_world_run_id(h->w);
    rec.time_ms = 1;
    assert_int_equal(at_record_sign(&rec, author, NULL, &signed_rec), AT_OK);
    say(h, &msg);
}

static void hostile_records(struct hostile *h)
{
    struct at_keypair member = at_world_node_key(h->w, 1);
    struct at_record receipt = {.kind = AT_RECORD_RECEIPT, .receipt = {.samples = 1, .steps = 1, .update_bytes = 1}};
    struct at_record end = {.kind = AT_RECORD_END}, leave = {.kind = AT_RECORD_LEAVE};
    greet(h, false);
    submit(h, receipt, &h->key);
    must_refuse(h, "stranger");
    submit(h, end, &h->key);
    must_refuse(h, "stranger");
    submit(h, leave, &member);
    must_refuse(h, "author is not the one");
    for (int i = 0; i < 40; i++) submit(h, end, &h->key);
    must_close(h, "too many records");
}

/* What a stranger carries for other newcomers must be signed by them, or it would spend what all of them may have. */
static void hostile_carrier(struct hostile *h)
{
    struct at_keypair other = at_world_stranger_key(h->w, 77);
    struct at_signed_record rec;
    struct at_record join = {.kind = AT_RECORD_JOIN, .run = at_world_run_id(h->w), .time_ms = 1};
    struct at_message msg = {.kind = AT_MSG_SUBMIT, .submit = {.record = &rec}};
    assert_int_equal(at_record_sign(&join, &other, NULL, &rec), AT_OK);
    rec.sig.b[5] ^= 1;
    greet(h, false);
    say(h, &msg);
    must_close(h, "wrong signature");
}

static void hostile_blobs(struct hostile *h)
{
    struct at_message want = {.kind = AT_MSG_WANT}, piece = {.kind = AT_MSG_PIECE}, missing = {.kind = AT_MSG_MISSING};
    uint8_t data[100] = {0};
    want.want.kind = AT_BLOB_SHARD;
    want.want.bytes = AT_PIECE_BYTES_MAX;
    piece.piece.kind = missing.missing.kind = AT_BLOB_UPDATE;
    piece.piece.total = UINT64_MAX;
    piece.piece.data = at_span(data, sizeof data);
    greet(h, false);
    say(h, &want); /* of what nobody has, and far beyond the end */
    settle(h);
    want.want.offset = UINT64_MAX - 5;
    say(h, &want);
    settle(h);
    assert_true(at_world_link_is_up(h->w, h->link));
    say(h, &piece);
    must_close(h, "nobody asked for");
    greet(h, false);
    say(h, &missing);
    must_close(h, "answer to nothing");
    struct at_hash keys[2] = {{{1}}, {{2}}};
    struct at_span none[2] = {{0}};
    struct at_message wants = {.kind = AT_MSG_BUNDLE_WANT, .bundle_want = {keys, 2}};
    struct at_message bundle = {.kind = AT_MSG_BUNDLE, .bundle = {keys, none, 2}};
    const char *heard;
    greet(h, false);
    say(h, &wants);
    settle(h);
    assert_int_equal(at_world_stranger_heard(h->w, h->link, &heard), AT_MSG_BUNDLE);
    say(h, &bundle);
    must_close(h, "a bundle that nobody asked for");
    greet(h, false);
    for (int i = 0; i < 20; i++) say(h, &wants); /* one at a time */
    must_close(h, "too many wants at once");
    greet(h, false);
    for (int i = 0; i < 200; i++) say(h, &want);
    must_close(h, "too many wants");
}

static void hostile_log(struct hostile *h)
{
    struct at_message get = {.kind = AT_MSG_LOG_GET}, part = {.kind = AT_MSG_LOG_PART};
    greet(h, false);
    get.log_get.from = UINT64_MAX;
    say(h, &get);
    must_close(h, "longer than mine");
    greet(h, false);
    say(h, &part);
    must_close(h, "nobody asked");
}

static void hostile_peer(void **state)
{
    (void)state;
    struct at_world_options o = small(14);
    struct at_message hello = {.kind = AT_MSG_HELLO}, ping = {.kind = AT_MSG_PING};
    const char *reason;
    o.rounds = 3;
    o.step_ms = 2000;
    struct hostile h = {.w = make(&o)};
    h.key = at_world_stranger_key(h.w, 1);
    settle(&h);
    greet(&h, true);
    must_close(&h, "another run");
    /* An older program hears what is spoken here, whatever number that is. */
    char spoken[64];
    greet_with(&h, AT_PROTOCOL_VERSION - 1, false);
    snprintf(spoken, sizeof spoken, "speaks protocol %d, and you %d:", AT_PROTOCOL_VERSION, AT_PROTOCOL_VERSION - 1);
    must_close(&h, spoken);
    h.link = at_world_stranger_link(h.w, &h.key, 0);
    say(&h, &ping);
    must_close(&h, "must be a hello");
    h.link = at_world_stranger_link(h.w, &h.key, 0);
    at_world_stranger_send(h.w, h.link, at_span("GET / HTTP/1.0\r\n\r\n", 18));
    must_close(&h, "");
    greet(&h, false);
    say(&h, &ping);
    settle(&h);
    assert_int_equal(at_world_stranger_heard(h.w, h.link, &reason), AT_MSG_PONG);
    hello.hello.protocol = AT_PROTOCOL_VERSION;
    hello.hello.run = at_world_run_id(h.w);
    say(&h, &hello);
    must_close(&h, "second hello");
    hostile_records(&h);
    hostile_carrier(&h);
    hostile_blobs(&h);
    hostile_log(&h);
    must_finish(h.w, 60000);
    for (uint32_t r = 0; r < 3; r++) assert_int_equal(at_world_included(h.w, r), 3);
    at_buf_release(&h.bytes);
    at_world_release(h.w);
}

/* A member that lies: its receipt is in shape, but the update that it names cannot be had from it. It does not count,
 * the round is not held up by more than its time, and the steward keeps nothing of what it sends instead. */
static void member_lies(bool hash_is_right)
{
    uint8_t data[1000] = {1};
    struct at_world_options o = small(15);
    struct at_message msg = {.kind = AT_MSG_READY};
    o.nodes = 2;
    o.min_members = 3;
    o.rounds = 1;
    o.step_ms = 1000;
    o.round_ms_max = 4000;
    struct hostile h = {.w = make(&o)};
    h.key = at_world_stranger_key(h.w, 1);
    assert_false(at_world_run(h.w, 1000));
    greet(&h, false);
    submit(&h, (struct at_record){.kind = AT_RECORD_JOIN, .join = {.name = "liar"}}, &h.key);
    settle(&h);
    msg.ready = at_presence_sign(&h.key, at_world_run_id(h.w), 1, 0, at_world_status(h.w, 0)->state_root);
    say(&h, &msg);
    settle(&h);
    assert_int_equal(at_world_log_count(h.w, AT_RECORD_OPEN), 1);
    uint32_t samples = 4 * o.steps;
    struct at_record receipt = {.kind = AT_RECORD_RECEIPT};
    receipt.receipt = (struct at_receipt){.replica = 2,
                                          .state_in = msg.ready.state_root,
                                          .start = 2 * (uint64_t)samples,
                                          .samples = samples,
                                          .steps = o.steps,
                                          .tokens = (uint64_t)samples * 128,
                                          .update_bytes = sizeof data};
    if (hash_is_right) receipt.receipt.update = at_sha256(data, sizeof data);
    receipt.receipt.flops = receipt.receipt.tokens * at_model_flops_per_token(at_world_model(h.w));
    submit(&h, receipt, &h.key);
    settle(&h);
    const char *reason;
    enum at_message_kind heard = at_world_stranger_heard(h.w, h.link, &reason);
    if (heard != AT_MSG_WANT) fail_msg("heard %s %s", at_message_kind_name(heard), reason);
    struct at_message piece = {.kind = AT_MSG_PIECE};
    piece.piece.kind = AT_BLOB_UPDATE;
    piece.piece.key = receipt.receipt.update;
    piece.piece.total = sizeof data;
    piece.piece.data = at_span(data, sizeof data);
    say(&h, &piece); /* right in size, wrong in content */
    if (hash_is_right) must_refuse(&h, "cannot be applied");
    settle(&h);
    must_finish(h.w, 30000);
    assert_int_equal(at_world_included(h.w, 0), 2);
    at_buf_release(&h.bytes);
    at_world_release(h.w);
}

static void member_withholds_its_update(void **state)
{
    (void)state;
    member_lies(false);
}

/* Its bytes have their hash, and are nonsense: counted, they would stop every member at this round for ever. */
static void member_hands_in_nonsense(void **state)
{
    (void)state;
    member_lies(true);
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_peer), cmocka_unit_test(member_withholds_its_update),
                                       cmocka_unit_test(member_hands_in_nonsense)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
