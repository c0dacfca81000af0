#include "wire/message.h"
#include "wire/wire_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct at_signed_record records[AT_LOG_PART_MAX];
static struct at_log_checkpoint checkpoints[AT_LOG_PART_MAX];
static uint8_t data[AT_PIECE_BYTES_MAX];
static struct at_endpoints endpoints[AT_PEERS_MAX];
static struct at_presence words[AT_PRESENCES_MAX];
static struct at_node_id ids[AT_PEERS_MAX];
static struct at_hash keys[AT_BUNDLE_MAX];
static struct at_span whole[AT_BUNDLE_MAX], few[2], large[AT_BUNDLE_MAX];

static int setup(void **state)
{
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 31);
    for (uint32_t i = 0; i < AT_LOG_PART_MAX; i++) {
        memset(&records[i], (int)i + 1, sizeof records[i]);
        records[i].body_bytes = i == 0 ? 1 : AT_RECORD_BYTES_MAX;
        memset(&checkpoints[i], (int)i + 2, sizeof checkpoints[i]);
        checkpoints[i].size = 1001 + i;
    }
    for (uint32_t i = 0; i < AT_PRESENCES_MAX; i++) {
        words[i] = (struct at_presence){.round = i, .state_root = fixture_hash((uint8_t)(50 + i)), .counter = i + 1};
        memset(&words[i].member, (int)i + 4, sizeof words[i].member);
        memset(&words[i].sig, (int)i + 5, sizeof words[i].sig);
    }
    for (uint32_t i = 0; i < AT_BUNDLE_MAX; i++) {
        keys[i] = fixture_hash((uint8_t)(20 + i));
        whole[i] = large[i] = at_span(data + i, i == 1 ? 0 : AT_BUNDLE_BYTES_MAX / (AT_BUNDLE_MAX - 1));
    }
    large[3].n += AT_BUNDLE_BYTES_MAX % (AT_BUNDLE_MAX - 1) + 1;
    few[0] = at_span(data, 20);
    for (uint32_t i = 0; i < AT_PEERS_MAX; i++) {
        memset(&ids[i], (int)i + 1, sizeof ids[i]);
        endpoints[i] = (struct at_endpoints){.node = ids[i], .counter = i + 1, .count = 1 + i % AT_ENDPOINTS_MAX};
        for (uint32_t k = 0; k < endpoints[i].count; k++)
            endpoints[i].list[k] =
                (struct at_endpoint){.ip = {0xfd, (uint8_t)i, 1, 2}, .ip_bytes = 16, .port = (uint16_t)(258 + k)};
        memset(&endpoints[i].sig, (int)i + 3, sizeof endpoints[i].sig);
    }
    return 0;
}

/* Every field away from its default. */
static struct at_message example(enum at_message_kind kind)
{
    struct at_message m;
    memset(&m, 0, sizeof m);
    m.kind = kind;
    switch (kind) {
    case AT_MSG_HELLO:
        m.hello = (struct at_msg_hello){
            .protocol = 1, .run = fixture_hash(1), .program = "atoll 0.1.0", .log_size = 99, .observer = true};
        break;
    case AT_MSG_WANT:
        m.want = (struct at_msg_want){.kind = AT_BLOB_SHARD, .key = fixture_hash(2), .offset = 65536, .bytes = 1};
        break;
    case AT_MSG_PIECE:
        m.piece = (struct at_msg_piece){.kind = AT_BLOB_UPDATE,
                                        .key = fixture_hash(3),
                                        .offset = 5,
                                        .total = 5 + sizeof data,
                                        .data = at_span(data, sizeof data)};
        break;
    case AT_MSG_MISSING:
        m.missing = (struct at_msg_missing){.kind = AT_BLOB_TILE, .key = fixture_hash(4), .offset = 9};
        break;
    case AT_MSG_LOG_GET:
        m.log_get.from = 7;
        m.log_get.once = true;
        break;
    case AT_MSG_LOG_PART:
        m.log_part = (struct at_msg_log_part){.from = 1000,
                                              .records = records,
                                              .record_count = AT_LOG_PART_MAX,
                                              .checkpoints = checkpoints,
                                              .checkpoint_count = AT_LOG_PART_MAX,
                                              .live = true};
        break;
    case AT_MSG_SUBMIT:
        m.submit.record = &records[5];
        break;
    case AT_MSG_REFUSED:
        m.refused.record = fixture_hash(5);
        memset(m.refused.reason, 'r', AT_REASON_BYTES_MAX);
        break;
    case AT_MSG_READY:
        m.ready = (struct at_presence){.round = 3, .state_root = fixture_hash(6), .counter = 1};
        memset(&m.ready.member, 7, sizeof m.ready.member);
        memset(&m.ready.sig, 8, sizeof m.ready.sig);
        break;
    case AT_MSG_PRESENCES:
        m.presences = (struct at_msg_presences){.list = words, .count = AT_PRESENCES_MAX};
        break;
    case AT_MSG_PROGRESS:
        m.progress = (struct at_msg_progress){.round = 1, .step = 2, .tokens = 3, .tokens_per_s = 4.5};
        break;
    case AT_MSG_PING:
        m.ping.nonce = UINT64_MAX;
        break;
    case AT_MSG_PONG:
        m.pong.nonce = 1;
        break;
    case AT_MSG_BYE:
        at_reason_set(m.bye.reason, "see you at the next round");
        break;
    case AT_MSG_PEERS_GET:
        memset(&m.peers_get.after, 9, sizeof m.peers_get.after);
        m.peers_get.sums = at_span(data, 8 * AT_PEERS_SUMS_MAX);
        break;
    case AT_MSG_PEERS:
        m.peers = (struct at_msg_peers){.list = endpoints, .count = AT_PEERS_MAX};
        break;
    case AT_MSG_HEAD:
        m.head = (struct at_msg_head){.log_size = 12, .hops = AT_HOPS_NONE};
        break;
    case AT_MSG_GONE:
        m.gone = (struct at_msg_gone){.members = ids, .count = AT_PEERS_MAX};
        break;
    case AT_MSG_TILES_ASK:
        m.tiles_ask.root = fixture_hash(7);
        break;
    case AT_MSG_TILES_HAVE:
        m.tiles_have = (struct at_msg_tiles_have){.root = fixture_hash(8), .bits = at_span("\x00\x81", 2)};
        break;
    case AT_MSG_SAVED:
        m.saved = (struct at_msg_saved){.round = 4, .state_root = fixture_hash(10)};
        break;
    case AT_MSG_AGREE:
        m.agree.bytes = at_span(data, 300);
        break;
    case AT_MSG_COSIGN:
        m.cosign.cosignature = checkpoints[1];
        break;
    case AT_MSG_MEET:
        m.meet = (struct at_meet){.kind = AT_MEET_REFUSE, .number = UINT64_MAX, .yours = true};
        at_reason_set(m.meet.reason, "no thanks");
        break;
    case AT_MSG_STAGE:
        m.stage = (struct at_msg_stage){.round = 5, .group = 3, .from = 7, .to = 9};
        break;
    case AT_MSG_BUNDLE_WANT:
        m.bundle_want = (struct at_msg_bundle_want){.keys = keys, .count = AT_BUNDLE_MAX};
        break;
    case AT_MSG_HELD:
        m.held = (struct at_msg_held){.round = 7, .bits = at_span(data + 2, AT_MEMBERS_MAX / 8)};
        break;
    case AT_MSG_BUNDLE: /* the second is not there */
        m.bundle = (struct at_msg_bundle){.keys = keys, .data = whole, .count = AT_BUNDLE_MAX};
        break;
    default:
        fail();
    }
    return m;
}

/* Encodes, decodes, encodes again: the same bytes, so nothing was lost on the way. */
static void every_kind_there_and_back(void **state)
{
    struct at_message_mem mem = {.block = NULL};
    for (int kind = AT_MSG_HELLO; kind < AT_MSG_KIND_COUNT; kind++) {
        struct at_message m = example((enum at_message_kind)kind), back;
        struct at_diag diag = {.err = AT_OK};
        struct at_buf bytes = {0}, again = {0};
        assert_int_equal(at_message_encode(&m, &bytes), AT_OK);
        assert_int_equal(at_message_peek(at_buf_span(&bytes)), kind);
        assert_true(bytes.n <= AT_FRAME_PAYLOAD_BYTES_MAX);
        if (at_message_decode(at_buf_span(&bytes), &mem, &diag, &back) != AT_OK)
            fail_msg("%s: %s", at_message_kind_name(m.kind), diag.text);
        assert_int_equal(back.kind, kind);
        assert_int_equal(at_message_encode(&back, &again), AT_OK);
        assert_true(at_span_eq(at_buf_span(&bytes), at_buf_span(&again)));
        assert_true(bytes.n > 3);
        bool bulk = kind == AT_MSG_PIECE || kind == AT_MSG_BUNDLE;
        assert_int_equal(at_message_class(back.kind), bulk ? AT_FRAME_BULK : AT_FRAME_CONTROL);
        at_buf_release(&bytes);
        at_buf_release(&again);
    }
    at_message_mem_release(&mem);
    at_message_mem_release(&mem);
}

static void fields_arrive(void **state)
{
    struct at_message_mem mem = {.block = NULL};
    struct at_buf bytes = {0};
    struct at_message m = example(AT_MSG_LOG_PART), back;
    assert_int_equal(at_message_encode(&m, &bytes), AT_OK);
    assert_int_equal(at_message_decode(at_buf_span(&bytes), &mem, NULL, &back), AT_OK);
    assert_int_equal(back.log_part.record_count, AT_LOG_PART_MAX);
    assert_true(back.log_part.from == 1000);
    assert_true(back.log_part.live);
    for (uint32_t i = 0; i < AT_LOG_PART_MAX; i++) {
        const struct at_signed_record *a = &records[i], *b = &back.log_part.records[i];
        assert_true(at_span_eq(at_signed_record_body(a), at_signed_record_body(b)));
        assert_memory_equal(&a->author, &b->author, sizeof a->author);
        assert_memory_equal(&a->sig, &b->sig, sizeof a->sig);
        assert_memory_equal(&checkpoints[i], &back.log_part.checkpoints[i], sizeof checkpoints[i]);
    }
    at_buf_clear(&bytes);
    m = example(AT_MSG_PIECE);
    assert_int_equal(at_message_encode(&m, &bytes), AT_OK);
    assert_int_equal(at_message_decode(at_buf_span(&bytes), &mem, NULL, &back), AT_OK);
    assert_true(at_span_eq(back.piece.data, m.piece.data) && back.piece.offset == 5 &&
                at_hash_eq(back.piece.key, m.piece.key));
    at_buf_release(&bytes);
    at_message_mem_release(&mem);
}

static void expect_unsendable(const struct at_message *m)
{
    struct at_buf bytes = {0};
    assert_int_equal(at_message_encode(m, &bytes), AT_E_DATA);
    at_buf_release(&bytes);
}

static void limits_hold_for_what_we_send(void **state)
{
    struct at_message m;
#define WITH(of, change)                                                                                               \
    m = example(of);                                                                                                   \
    m.change;                                                                                                          \
    expect_unsendable(&m)
    WITH(AT_MSG_HELLO, kind = AT_MSG_NONE);
    WITH(AT_MSG_HELLO, hello.program[0] = '\n');
    WITH(AT_MSG_WANT, want.bytes = 0);
    WITH(AT_MSG_WANT, want.bytes = AT_PIECE_BYTES_MAX + 1);
    WITH(AT_MSG_WANT, want.kind = AT_BLOB_NONE);
    WITH(AT_MSG_PIECE, piece.data.n = AT_PIECE_BYTES_MAX + 1);
    WITH(AT_MSG_PIECE, piece.total--);
    WITH(AT_MSG_PIECE, piece.offset = UINT64_MAX);
    WITH(AT_MSG_WANT, want.kind = AT_BLOB_STATE);
    WITH(AT_MSG_WANT, want.kind = AT_BLOB_TILE);   /* one byte of a tile */
    WITH(AT_MSG_PIECE, piece.kind = AT_BLOB_TILE); /* larger than a tile */
    WITH(AT_MSG_TILES_HAVE, tiles_have.whole = true);
    WITH(AT_MSG_TILES_HAVE, tiles_have.bits.n = 1); /* a zero at the end */
    WITH(AT_MSG_TILES_HAVE, tiles_have.bits = at_span(data, AT_TILES_MAX / 8 + 2));
    WITH(AT_MSG_PEERS_GET, peers_get.sums.n = 7);
    WITH(AT_MSG_PEERS_GET, peers_get.sums.n = 24); /* three sums */
    WITH(AT_MSG_PEERS_GET, peers_get.sums.n = 16 * AT_PEERS_SUMS_MAX);
    WITH(AT_MSG_LOG_PART, log_part.record_count++);
    WITH(AT_MSG_LOG_PART, log_part.checkpoint_count++);
    WITH(AT_MSG_LOG_PART, log_part.from++);
    WITH(AT_MSG_LOG_PART, log_part.from = UINT64_MAX);
    WITH(AT_MSG_PROGRESS, progress.tokens_per_s = (double)NAN);
    WITH(AT_MSG_PROGRESS, progress.tokens_per_s = -1.0);
    WITH(AT_MSG_BYE, bye.reason[2] = '\x07');
    WITH(AT_MSG_PEERS, peers.count++);
    WITH(AT_MSG_HEAD, head.hops++);
    WITH(AT_MSG_GONE, gone.count++);
    WITH(AT_MSG_PRESENCES, presences.count++);
    WITH(AT_MSG_PRESENCES, presences.count = 1); /* that would be a Ready */
    WITH(AT_MSG_GONE, gone.count = 0);
    WITH(AT_MSG_BUNDLE_WANT, bundle_want.count++);
    WITH(AT_MSG_BUNDLE_WANT, bundle_want.count = 0);
    WITH(AT_MSG_HELD, held.bits.n++);
    WITH(AT_MSG_HELD, held.bits.n = 255); /* a zero at the end */
    WITH(AT_MSG_BUNDLE, bundle.count++);
    WITH(AT_MSG_BUNDLE, bundle.data = large);
    endpoints[3].list[0].port = 0;
    WITH(AT_MSG_PEERS, peers.count = AT_PEERS_MAX);
    endpoints[3].list[0].port = 1;
#undef WITH
    m = example(AT_MSG_WANT);
    m.want.kind = AT_BLOB_TILE;
    m.want.bytes = AT_TILE_DATA_MAX;
    m.want.offset = AT_TILES_MAX;
    expect_unsendable(&m);
    m = example(AT_MSG_PIECE);
    m.piece.kind = AT_BLOB_TILE;
    m.piece.data.n = AT_TILE_DATA_MAX;
    m.piece.offset = m.piece.total = 7;
    expect_unsendable(&m);
    m = example(AT_MSG_REFUSED);
    memset(m.refused.reason, 'r', sizeof m.refused.reason);
    expect_unsendable(&m);
}

/* Cosignatures of one size: each key once, ascending. */
static void cosignatures_are_in_order(void **state)
{
    (void)state;
    struct at_log_checkpoint kept = checkpoints[3];
    struct at_message m = example(AT_MSG_LOG_PART), back;
    struct at_buf bytes = {0};
    struct at_message_mem mem = {.block = NULL};
    checkpoints[3].size--;
    assert_int_equal(at_message_encode(&m, &bytes), AT_OK);
    assert_int_equal(at_message_decode(at_buf_span(&bytes), &mem, NULL, &back), AT_OK);
    assert_memory_equal(&checkpoints[3], &back.log_part.checkpoints[3], sizeof kept);
    checkpoints[3].steward = checkpoints[2].steward;
    expect_unsendable(&m);
    memset(&checkpoints[3].steward, 0, sizeof checkpoints[3].steward);
    expect_unsendable(&m);
    checkpoints[3] = kept;
    at_buf_release(&bytes);
    at_message_mem_release(&mem);
}

static void expect_refused(struct at_message_mem *mem, const void *bytes, size_t n)
{
    struct at_message m;
    struct at_diag diag = {.err = AT_OK};
    assert_int_equal(at_message_decode(at_span(bytes, n), mem, &diag, &m), AT_E_PEER);
    assert_true(diag.text[0] != '\0');
}

static void foreign_bytes_are_refused(void **state)
{
    struct at_message_mem mem = {.block = NULL};
    struct at_buf bytes = {0};
    expect_refused(&mem, "", 0);
    expect_refused(&mem, "\xff\xff\xff\xff\xff", 5);
    expect_refused(&mem, "\xb2\x01\x00", 3);         /* a 22nd kind */
    expect_refused(&mem, "\x92\x01\x00", 3);         /* TILES_ASK without a root */
    expect_refused(&mem, "\xa2\x01\x00", 3);         /* SAVED without a root */
    expect_refused(&mem, "\xaa\x01\x00", 3);         /* MEET that says nothing */
    expect_refused(&mem, "\x0a\x00", 2);             /* HELLO without a run */
    expect_refused(&mem, "\x3a\x00", 2);             /* SUBMIT without a record */
    expect_refused(&mem, "\x5a\x00\x62\x00", 4);     /* PING and PONG at once */
    expect_refused(&mem, "\x5a\x02\x08\x00", 4);     /* a default written out */
    expect_refused(&mem, "\x5a\x03\x08\x80\x00", 5); /* a padded number */
    /* A frame full of empty records asks for 36 times its size when unpacked: the memory is bounded, so it
     * is refused. */
    size_t n = AT_FRAME_PAYLOAD_BYTES_MAX - 8;
    uint8_t *room;
    assert_int_equal(at_buf_reserve(&bytes, n + 8, &room), AT_OK);
    room[0] = 0x32;
    for (int i = 0; i < 3; i++) room[1 + i] = (uint8_t)((n >> (7 * i) & 0x7f) | (i < 2 ? 0x80 : 0));
    for (size_t i = 0; i < n; i += 2) memcpy(room + 4 + i, "\x12\x00", 2);
    expect_refused(&mem, room, n + 4);
    static uint8_t big[AT_FRAME_PAYLOAD_BYTES_MAX + 1];
    expect_refused(&mem, big, sizeof big);
    at_buf_release(&bytes);
    at_message_mem_release(&mem);
}

/* Bit flips and cuts of every small kind: refused, or exactly another message's own bytes. */
static void only_canonical_bytes_pass(void **state)
{
    struct at_message_mem mem = {.block = NULL};
    for (int kind = AT_MSG_HELLO; kind < AT_MSG_KIND_COUNT; kind++) {
        struct at_message m = example((enum at_message_kind)kind), back;
        struct at_buf bytes = {0}, again = {0};
        if (kind == AT_MSG_PIECE) m.piece.data.n = 20;
        if (kind == AT_MSG_AGREE) m.agree.bytes.n = 20;
        if (kind == AT_MSG_BUNDLE) m.bundle = (struct at_msg_bundle){.keys = keys, .data = few, .count = 2};
        if (kind == AT_MSG_LOG_PART) m.log_part.record_count = m.log_part.checkpoint_count = 1;
        if (kind == AT_MSG_PEERS) m.peers.count = 2;
        if (kind == AT_MSG_GONE) m.gone.count = 2;
        assert_int_equal(at_message_encode(&m, &bytes), AT_OK);
        for (size_t bit = 0; bit < 8 * bytes.n; bit++) {
            bytes.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (at_message_decode(at_buf_span(&bytes), &mem, NULL, &back) == AT_OK) {
                at_buf_clear(&again);
                assert_int_equal(at_message_encode(&back, &again), AT_OK);
                assert_true(at_span_eq(at_buf_span(&bytes), at_buf_span(&again)));
            }
            bytes.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t n = 0; n < bytes.n; n++) expect_refused(&mem, bytes.p, n);
        at_buf_release(&bytes);
        at_buf_release(&again);
    }
    at_message_mem_release(&mem);
}

static void reasons_are_fit_for_people(void **state)
{
    char reason[AT_REASON_BYTES_MAX + 1], text[300];
    at_reason_set(reason, "short");
    assert_string_equal(reason, "short");
    at_reason_set(reason, "bell\x07 and \x1b[31m");
    assert_string_equal(reason, "bell? and ?[31m");
    memset(text, 'x', sizeof text);
    text[299] = '\0';
    memcpy(text + AT_REASON_BYTES_MAX - 1, "\xc3\xa9", 2); /* the cut would fall inside it */
    at_reason_set(reason, text);
    assert_int_equal(strlen(reason), AT_REASON_BYTES_MAX - 1);
    assert_int_equal(reason[AT_REASON_BYTES_MAX - 2], 'x');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_there_and_back),    cmocka_unit_test(fields_arrive),
        cmocka_unit_test(limits_hold_for_what_we_send), cmocka_unit_test(foreign_bytes_are_refused),
        cmocka_unit_test(only_canonical_bytes_pass),    cmocka_unit_test(reasons_are_fit_for_people),
        cmocka_unit_test(cosignatures_are_in_order)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
