#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct at_world_options small(uint64_t seed)
{
    return (struct at_world_options){.seed = seed,
                                     .nodes = 3,
                                     .rounds = 2,
                                     .steps = 3,
                                     .min_members = 3,
                                     .round_ms_max = 20000,
                                     .latency_ms_min = 1,
                                     .latency_ms_max = 3,
                                     .sync_ms_max = 3,
                                     .step_ms = 20,
                                     .update_bytes = 5000,
                                     .shard_bytes = 3000,
                                     .state_bytes = 4000};
}

static struct at_world *make(const struct at_world_options *options)
{
    struct at_world *w = NULL;
    assert_int_equal(at_world_init(options, &w), AT_OK);
    for (int i = 0; i < options->nodes; i++) at_world_start_node(w, i, (uint64_t)i);
    return w;
}

static void must_finish(struct at_world *w, uint64_t until_ms)
{
    bool done = at_world_run(w, until_ms);
    if (at_world_violation(w)) {
        fprintf(stderr, "%s\n", at_world_trace(w));
        fail_msg("%s", at_world_violation(w));
    }
    if (!done) {
        fprintf(stderr, "%s\n", at_world_trace(w));
        fail_msg("not done by %llu ms", (unsigned long long)until_ms);
    }
    if (!at_world_check(w)) fail_msg("%s", at_world_violation(w));
}

/* ---- one round, line by line: two nodes, a millisecond of latency, writes that take one ---- */
/* clang-format off */
static const char expected_round[] =
    "0 0 stores 0 JOIN\n"
    "1 0 makes the initial state\n"
    "2 1>0 hello\n"
    "2 0>1 hello\n"
    "3 1>0 want\n"
    "4 0>1 piece\n"
    "5 1>0 log_get\n"
    "6 0 saves\n"
    "7 0>1 log_part\n"
    "8 1 stores 0 JOIN\n"
    "8 1>0 log_get\n"
    "9 0>1 log_part\n"
    "10 1>0 want\n"
    "11 0>1 piece\n"
    "13 1>0 submit\n"
    "14 0 stores 1 JOIN\n"
    "15 0>1 log_part\n"
    "16 1 stores 1 JOIN\n"
    "16 1 makes the initial state\n"
    "21 1>0 ready\n"
    "21 1 saves\n"
    "22 0 stores 2 OPEN\n"
    "23 0>1 log_part\n"
    "23 0 trains\n"
    "24 1 stores 2 OPEN\n"
    "24 1 trains\n"
    "83 0 stores 3 RECEIPT\n"
    "83 0>1 progress\n"
    "84 1>0 progress\n"
    "84 1>0 submit\n"
    "84 0>1 log_part\n"
    "85 1 stores 3 RECEIPT\n"
    "85 0>1 want\n"
    "85 1>0 want\n"
    "86 0>1 piece\n"
    "87 1>0 piece\n"
    "89 0 stores 4 RECEIPT\n"
    "90 0 stores 5 CLOSE\n"
    "90 0>1 log_part\n"
    "91 0>1 log_part\n"
    "91 1 stores 4 RECEIPT\n"
    "91 0 applies\n"
    "92 1 stores 5 CLOSE\n"
    "92 1 applies\n"
    "95 0 stores 6 EPOCH\n"
    "96 0 stores 7 END\n"
    "96 0>1 log_part\n"
    "96 0 saves\n"
    "97 0>1 log_part\n"
    "97 1 stores 6 EPOCH\n"
    "97 1>0 ready\n"
    "97 1 saves\n"
    "98 1 stores 7 END\n"
    "99 0 ends\n"
    "99 1 ends\n";
/* clang-format on */

static void transcript_of_one_round(void **state)
{
    (void)state;
    struct at_world_options o = small(1);
    o.nodes = (int)(o.min_members = 2);
    o.rounds = 1;
    o.latency_ms_max = o.sync_ms_max = 1;
    o.trace = true;
    struct at_world *w = make(&o);
    must_finish(w, 60000);
    if (strcmp(at_world_trace(w), expected_round) != 0) fail_msg("the trace is another:\n%s", at_world_trace(w));
    at_world_release(w);
}

static void undisturbed(void **state)
{
    (void)state;
    struct at_world_options o = small(1);
    o.rounds = 4;
    o.nodes = 5;
    o.min_members = 5;
    o.full_percent = 20;
    o.update_bytes = 700000; /* three pieces */
    struct at_world *w = make(&o);
    must_finish(w, 60000);
    assert_int_equal(at_world_log_count(w, AT_RECORD_EPOCH), 4);
    for (uint32_t r = 0; r < 4; r++) assert_int_equal(at_world_included(w, r), 5);
    assert_int_equal(at_world_dials(w, 1), 1);
    at_world_release(w);
}

static void member_killed_mid_round(void **state)
{
    (void)state;
    struct at_world_options o = small(2);
    o.rounds = 3;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_crash(w, 2, 1500, false); /* the first round is open from 40 ms to 3 s */
    at_world_start_node(w, 2, 4500);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 0), 2);
    assert_int_equal(at_world_included(w, 2), 3);
    at_world_release(w);
}

static void member_killed_silently(void **state)
{
    (void)state;
    struct at_world_options o = small(3);
    o.rounds = 1;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_crash(w, 2, 1500, true);
    assert_false(at_world_run(w, 7400)); /* found out at 6.5 s, given up a second later */
    assert_int_equal(at_world_included(w, 0), UINT32_MAX);
    assert_false(at_world_run(w, 7700));
    assert_int_equal(at_world_included(w, 0), 2);
    at_world_release(w);
}

/* What it had committed counts, though it died; and it comes back for the next round. */
static void member_killed_after_commit(void **state)
{
    (void)state;
    struct at_world_options o = small(4);
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_speed(w, 2, 2.0);
    assert_false(at_world_run(w, 2000));
    assert_int_equal(at_world_log_count(w, AT_RECORD_RECEIPT), 1);
    at_world_crash(w, 2, 2000, false);
    at_world_start_node(w, 2, 3500);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 0), 3);
    at_world_release(w);
}

/* Dead for a moment inside its round: it goes on with the same allotment, and nobody gives it up. */
static void member_back_in_its_round(void **state)
{
    (void)state;
    struct at_world_options o = small(5);
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_crash(w, 2, 1500, false);
    at_world_start_node(w, 2, 1600);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 0), 3);
    at_world_release(w);
}

static void late_joiner(void **state)
{
    (void)state;
    struct at_world_options o = small(6);
    struct at_world *w = NULL;
    o.nodes = 4;
    o.rounds = 6;
    o.step_ms = 500;
    o.state_bytes = 900000;
    assert_int_equal(at_world_init(&o, &w), AT_OK);
    for (int i = 0; i < 3; i++) at_world_start_node(w, i, 0);
    at_world_start_node(w, 3, 2000); /* in the second round: it takes part in the third */
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 1), 3);
    assert_int_equal(at_world_included(w, 2), 4);
    at_world_release(w);
}

static void straggler(void **state)
{
    (void)state;
    struct at_world_options o = small(7);
    o.rounds = 2;
    o.step_ms = 100;
    o.round_ms_max = 3000;
    struct at_world *w = make(&o);
    at_world_speed(w, 2, 0.05); /* 6 s for what takes the others 0.3 */
    assert_false(at_world_run(w, 2900));
    assert_int_equal(at_world_included(w, 0), UINT32_MAX);
    must_finish(w, 60000);
    assert_int_equal(at_world_included(w, 0), 2);
    assert_int_equal(at_world_included(w, 1), 2);
    at_world_release(w);
}

static void partition(void **state)
{
    (void)state;
    struct at_world_options o = small(8);
    o.rounds = 12;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_partition(w, 1, 4000, 16000); /* it misses rounds, more than are kept */
    must_finish(w, 90000);
    assert_true(at_world_included(w, 1) < 3);
    assert_int_equal(at_world_included(w, 11), 3);
    at_world_release(w);
}

static void partition_of_all(void **state)
{
    (void)state;
    struct at_world_options o = small(9);
    o.trace = getenv("ATOLL_SIM_TRACE") != NULL;
    o.rounds = 5;
    o.step_ms = 1000;
    struct at_world *w = make(&o);
    at_world_partition(w, 0, 4000, 16000); /* the steward trains on alone */
    must_finish(w, 90000);
    at_world_release(w);
}

/* A wrong outer step at one member is said loudly and mended by fetching the state whole. */
static void desync(void **state)
{
    (void)state;
    struct at_world_options o = small(10);
    o.trace = getenv("ATOLL_SIM_TRACE") != NULL;
    o.rounds = 5;
    o.step_ms = 200;
    struct at_world *w = make(&o);
    at_world_corrupt_state(w, 1);
    must_finish(w, 90000);
    assert_int_equal(at_world_desyncs(w, 1), 1);
    assert_int_equal(at_world_desyncs(w, 2), 0);
    assert_int_equal(at_world_included(w, 4), 3);
    at_world_release(w);
}

static void finish_on_member_and_steward(void **state)
{
    (void)state;
    struct at_world_options o = small(11);
    at_err_t err;
    o.rounds = 100;
    o.step_ms = 200;
    struct at_world *w = make(&o);
    at_world_finish(w, 2, 1000);
    assert_false(at_world_run(w, 2600));
    assert_true(at_world_ended(w, 2, &err));
    assert_int_equal(err, AT_OK);
    assert_int_equal(at_world_log_count(w, AT_RECORD_LEAVE), 1);
    at_world_finish(w, 0, 3000);
    must_finish(w, 10000);
    assert_int_equal(at_world_log_count(w, AT_RECORD_END), 1);
    assert_true(at_world_log_count(w, AT_RECORD_EPOCH) < 10);
    at_world_release(w);
}

/* ---- a hostile peer: each of its breaches is answered with a reason, and the run goes on as if it were not there ----
 */
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

static void greet(struct hostile *h, bool other_run)
{
    struct at_message msg = {.kind = AT_MSG_HELLO};
    h->link = at_world_stranger_link(h->w, &h->key, 0);
    msg.hello.protocol = AT_PROTOCOL_VERSION;
    msg.hello.run = at_world_run_id(h->w);
    if (other_run) msg.hello.run.b[0] ^= 1;
    say(h, &msg);
    settle(h);
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
    hello.hello.protocol = 1;
    hello.hello.run = at_world_run_id(h.w);
    say(&h, &hello);
    must_close(&h, "second hello");
    hostile_records(&h);
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
    msg.ready.state_root = at_world_status(h.w, 0)->state_root;
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

/* ---- the steward dies at every single event of a small run, before or after its operations ---- */
static uint64_t run_with_steward_crash(uint64_t event, enum at_world_crash how, uint32_t restart_ms)
{
    struct at_world_options o = small(12);
    o.nodes = (int)(o.min_members = 2);
    o.full_percent = 10;
    struct at_world *w = make(&o);
    at_world_crash_at_event(w, 0, event, how, restart_ms);
    must_finish(w, 120000);
    uint64_t events = at_world_events(w, 0);
    assert_int_equal(at_world_log_count(w, AT_RECORD_END), 1);
    at_world_release(w);
    return events;
}

static void steward_killed_at_every_event(void **state)
{
    (void)state;
    uint64_t events = run_with_steward_crash(UINT64_MAX, AT_WORLD_CRASH_NEVER, 0), runs = 0;
    for (uint64_t k = 0; k < events; k++, runs += 2) {
        run_with_steward_crash(k, AT_WORLD_CRASH_BEFORE_OPS, 50);
        run_with_steward_crash(k, AT_WORLD_CRASH_AFTER_OPS, k % 3 == 0 ? 3000 : 50);
    }
    print_message("%llu crash points of the steward\n", (unsigned long long)runs);
}

static void member_killed_at_every_event(void **state)
{
    (void)state;
    uint64_t events = 1;
    for (uint64_t k = 0; k < events; k++) {
        struct at_world_options o = small(13);
        o.nodes = (int)(o.min_members = 2);
        struct at_world *w = make(&o);
        at_world_crash_at_event(w, 1, k, k % 2 ? AT_WORLD_CRASH_BEFORE_OPS : AT_WORLD_CRASH_AFTER_OPS, 50);
        must_finish(w, 120000);
        if (k == 0) events = at_world_events(w, 1) - 1;
        at_world_release(w);
    }
    print_message("%llu crash points of a member\n", (unsigned long long)events);
}

/* ---- many seeds, many faults; then they stop and everything must end well ---- */
static uint64_t lcg(uint64_t *x)
{
    *x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *x >> 33;
}

static struct at_world *random_world(uint64_t seed, uint32_t canary)
{
    uint64_t x = seed * 7919 + 1;
    struct at_world_options o = small(seed);
    struct at_world *w = NULL;
    o.nodes = 2 + (int)(lcg(&x) % 3);
    o.min_members = 1 + (uint32_t)(lcg(&x) % (uint64_t)o.nodes);
    o.rounds = 1 + (uint32_t)(lcg(&x) % 3);
    o.latency_ms_max = 1 + (uint32_t)(lcg(&x) % 60);
    o.sync_ms_max = 1 + (uint32_t)(lcg(&x) % 40);
    o.step_ms = 5 + (uint32_t)(lcg(&x) % 400);
    o.round_ms_max = 4000 + (uint32_t)(lcg(&x) % 4000);
    o.full_percent = (uint32_t)(lcg(&x) % 40);
    o.update_bytes = lcg(&x) % 4 ? 2000 : 300000;
    o.state_bytes = lcg(&x) % 4 ? 2000 : 300000;
    o.canary = canary;
    o.trace = getenv("ATOLL_SIM_TRACE") != NULL;
    assert_int_equal(at_world_init(&o, &w), AT_OK);
    for (int i = 0; i < o.nodes; i++) at_world_start_node(w, i, lcg(&x) % 3000);
    for (uint64_t faults = lcg(&x) % 5; faults > 0; faults--) {
        int node = (int)(lcg(&x) % (uint64_t)o.nodes);
        uint64_t at = 1 + lcg(&x) % 8000;
        switch (lcg(&x) % 5) {
        case 0:
        case 1:
            at_world_crash(w, node, at, lcg(&x) % 3 == 0);
            at_world_start_node(w, node, at + 1 + lcg(&x) % 6000);
            break;
        case 2:
            at_world_break_links(w, node, at);
            break;
        case 3:
            at_world_partition(w, node, at, at + lcg(&x) % 12000);
            break;
        case 4:
            at_world_crash_at_event(w, node, lcg(&x) % 150, 1 + (int)(lcg(&x) % 2), (uint32_t)(lcg(&x) % 2000));
            break;
        }
    }
    /* Every start is tried again once the faults are over: a crash may have hit after its own restart. */
    for (int i = 0; i < o.nodes; i++) at_world_start_node(w, i, 20000);
    at_world_speed(w, 1, lcg(&x) % 4 ? 1.0 : 0.1);
    return w;
}

static uint64_t from_env(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : fallback;
}

static void random_seeds(void **state)
{
    (void)state;
    uint64_t first = from_env("ATOLL_SIM_SEED", 1), count = from_env("ATOLL_SIM_SEEDS", 200);
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct at_world *w = random_world(seed, 0);
        if (!at_world_run(w, 200000) || !at_world_check(w)) {
            fprintf(stderr, "%s\n", at_world_trace(w));
            fail_msg("ATOLL_SIM_SEED=%llu ATOLL_SIM_SEEDS=1: %s", (unsigned long long)seed,
                     at_world_violation(w) ? at_world_violation(w) : "not done after 200 s");
        }
        at_world_release(w);
    }
    print_message("seeds %llu to %llu\n", (unsigned long long)first, (unsigned long long)(first + count - 1));
}

/* A planted bug must be seen, or the checkers are worth nothing. */
static void canary(uint32_t bug, const char *expect)
{
    for (uint64_t seed = 1; seed < 400; seed++) {
        struct at_world *w = random_world(seed, bug);
        bool fine = at_world_run(w, 200000) && at_world_check(w);
        const char *found = at_world_violation(w);
        if (!fine && found) {
            if (!strstr(found, expect)) fail_msg("the canary was found, but as: %s", found);
            print_message("canary %u: %s\n", bug, found);
            at_world_release(w);
            return;
        }
        at_world_release(w);
    }
    fail_msg("nobody saw canary %u", bug);
}

static void canary_acknowledges_before_durable(void **state)
{
    (void)state;
    canary(1, "past");
}

static void canary_counts_what_it_has_not(void **state)
{
    (void)state;
    canary(2, "the steward lacks");
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(transcript_of_one_round),
                                       cmocka_unit_test(undisturbed),
                                       cmocka_unit_test(member_killed_mid_round),
                                       cmocka_unit_test(member_killed_silently),
                                       cmocka_unit_test(member_killed_after_commit),
                                       cmocka_unit_test(member_back_in_its_round),
                                       cmocka_unit_test(late_joiner),
                                       cmocka_unit_test(straggler),
                                       cmocka_unit_test(partition),
                                       cmocka_unit_test(partition_of_all),
                                       cmocka_unit_test(desync),
                                       cmocka_unit_test(finish_on_member_and_steward),
                                       cmocka_unit_test(hostile_peer),
                                       cmocka_unit_test(member_withholds_its_update),
                                       cmocka_unit_test(member_hands_in_nonsense),
                                       cmocka_unit_test(steward_killed_at_every_event),
                                       cmocka_unit_test(member_killed_at_every_event),
                                       cmocka_unit_test(random_seeds),
                                       cmocka_unit_test(canary_acknowledges_before_durable),
                                       cmocka_unit_test(canary_counts_what_it_has_not)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
