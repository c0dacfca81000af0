/* Two boxes joined by a stream that is cut anywhere: every message arrives whole, in order, whatever was posted first;
 * and the exact answers to a peer that breaks the rules. */
#include "net/ranks_box.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 1;
static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

/* Moves up to `most` bytes from one box to the other. False: there was nothing. */
static bool move(struct at_box *from, struct at_box *to, size_t most, enum at_box_kind *ret_kind)
{
    struct at_span bytes;
    uint8_t *p;
    size_t n;
    assert_int_equal(at_box_out_next(from, &bytes), AT_OK);
    assert_true((bytes.n > 0) == at_box_out_pending(from));
    if (bytes.n == 0) return false;
    at_box_in_next(to, &p, &n);
    if (n > bytes.n) n = bytes.n;
    if (n > most) n = most;
    memcpy(p, bytes.p, n);
    at_box_out_took(from, n);
    struct at_diag diag = {0};
    at_err_t err = at_box_in_took(to, n, &diag, ret_kind);
    assert_string_equal(diag.text, "");
    assert_int_equal(err, AT_OK);
    return true;
}

enum { MESSAGES = 60, TAGS = 4 };
static size_t size_of_message(int k)
{
    static const size_t size[] = {1, 24, 100, 16384 - 24, 16384, 65536, 65537, 262144, 262145, 1 << 20, 9 << 20};
    return size[(size_t)k * 7 % (sizeof size / sizeof size[0])];
}

static uint8_t byte_of(int k, size_t i)
{
    return (uint8_t)(k * 17 + (int)(i % 251));
}

static void any_order_any_cut(void **state)
{
    static const size_t most[] = {100000, 4096, SIZE_MAX};
    for (size_t round = 0; round < 3; round++) {
        struct at_box a = {0}, b = {0};
        struct at_post *send = calloc(MESSAGES, sizeof *send), *recv = calloc(MESSAGES, sizeof *recv);
        int sent = 0, posted = 0, done = 0, beats = 0;
        enum at_box_kind kind;
        assert_true(send != NULL && recv != NULL);
        while (done < MESSAGES) {
            if (sent < MESSAGES && draw(3) == 0) {
                struct at_post *s = &send[sent];
                *s = (struct at_post){.tag = (uint32_t)sent % TAGS, .n = size_of_message(sent)};
                assert_non_null(s->bytes = malloc(s->n));
                for (size_t i = 0; i < s->n; i++) s->bytes[i] = byte_of(sent, i);
                at_box_send(&a, s);
                sent++;
            }
            if (posted < MESSAGES && (draw(round == 2 ? 40 : 4) == 0 || sent == MESSAGES)) {
                struct at_post *r = &recv[posted];
                *r = (struct at_post){.tag = (uint32_t)posted % TAGS, .n = size_of_message(posted)};
                assert_non_null(r->bytes = malloc(r->n));
                assert_int_equal(at_box_recv(&b, r, NULL), AT_OK);
                posted++;
            }
            if (draw(4) == 0) assert_int_equal(at_box_note(&a, AT_BOX_BEAT, (struct at_span){0}), AT_OK);
            beats += b.beat;
            b.beat = false;
            for (int i = 0; i < 50 && move(&a, &b, 1 + draw(1000) % most[round] * most[round] / 1000, &kind); i++) {
            }
            while (move(&b, &a, 7, &kind)) {
            }
            for (done = 0; done < posted && recv[done].done; done++) {
            }
        }
        for (int k = 0; k < MESSAGES; k++) {
            assert_true(send[k].done);
            for (size_t i = 0; i < recv[k].n; i += 97) assert_int_equal(recv[k].bytes[i], byte_of(k, i));
            free(send[k].bytes);
            free(recv[k].bytes);
        }
        assert_true(beats > 0);
        assert_false(at_box_expects(&b));
        assert_true(b.eager_in <= AT_RANKS_EAGER_BYTES / 8 && a.eager_out == b.eager_in);
        at_box_release(&a);
        at_box_release(&b);
        free(send);
        free(recv);
    }
}

/* A heartbeat and a small message wait for one piece of a large one at most. */
static void small_ones_overtake(void **state)
{
    struct at_box a = {0}, b = {0};
    size_t n = 4 << 20, moved = 0;
    struct at_post large = {.tag = 1, .bytes = calloc(1, n), .n = n},
                   small = {.tag = 2, .bytes = (uint8_t[1]){5}, .n = 1};
    struct at_post in_large = {.tag = 1, .bytes = malloc(n), .n = n},
                   in_small = {.tag = 2, .bytes = (uint8_t[1]){0}, .n = 1};
    enum at_box_kind kind;
    assert_int_equal(at_box_recv(&b, &in_large, NULL), AT_OK);
    assert_int_equal(at_box_recv(&b, &in_small, NULL), AT_OK);
    at_box_send(&a, &large);
    assert_true(move(&a, &b, 1000, &kind));
    at_box_send(&a, &small);
    assert_int_equal(at_box_note(&a, AT_BOX_BEAT, (struct at_span){0}), AT_OK);
    while (!in_small.done || !b.beat) assert_true(move(&a, &b, SIZE_MAX, &kind));
    moved = b.arrivals != NULL ? 1 : 0;
    assert_true(moved == 1 && !in_large.done); /* the large one is still under way */
    while (move(&a, &b, SIZE_MAX, &kind)) {
    }
    assert_true(in_large.done && large.done);
    free(large.bytes);
    free(in_large.bytes);
    at_box_release(&a);
    at_box_release(&b);
}

/* In the middle of a piece the buffers are taken back: the other side still reads a sound stream, and the note. */
static void letting_go_keeps_the_stream(void **state)
{
    struct at_box a = {0}, b = {0};
    size_t n = 1 << 20;
    struct at_post large = {.tag = 1, .bytes = calloc(1, n), .n = n}, in = {.tag = 1, .bytes = malloc(n), .n = n};
    enum at_box_kind kind = 0;
    assert_int_equal(at_box_recv(&b, &in, NULL), AT_OK);
    at_box_send(&a, &large);
    for (int i = 0; i < 30; i++) assert_true(move(&a, &b, 1000, &kind));
    assert_int_equal(at_box_let_go(&a), AT_OK);
    assert_int_equal(at_box_let_go(&b), AT_OK);
    free(large.bytes); /* the sanitizers see it when they are touched */
    free(in.bytes);
    assert_int_equal(at_box_note(&a, AT_BOX_VERDICT, at_span("why", 3)), AT_OK);
    while (kind == 0) assert_true(move(&a, &b, 5000, &kind));
    assert_int_equal(kind, AT_BOX_VERDICT);
    assert_memory_equal(b.note.p, "why", 3);
    assert_false(large.done || in.done);
    at_box_release(&a);
    at_box_release(&b);
}

static at_err_t feed(struct at_box *b, enum at_box_kind kind, uint32_t tag, uint64_t total, uint32_t bytes,
                     uint32_t zero, struct at_diag *diag)
{
    uint8_t head[AT_BOX_HEAD_BYTES], *p;
    size_t n;
    enum at_box_kind note;
    at_store_le32(head, kind);
    at_store_le32(head + 4, tag);
    at_store_le64(head + 8, total);
    at_store_le32(head + 16, bytes);
    at_store_le32(head + 20, zero);
    at_box_in_next(b, &p, &n);
    assert_int_equal(n, sizeof head);
    memcpy(p, head, n);
    return at_box_in_took(b, n, diag, &note);
}

static void rules_are_kept(void **state)
{
    static const struct {
        enum at_box_kind kind;
        uint64_t total;
        uint32_t bytes, zero;
        const char *says;
    } bad[] = {
        {0, 0, 0, 0, "no frame"},
        {AT_BOX_KINDS, 0, 0, 0, "no frame"},
        {AT_BOX_READY, 0, 0, 1, "no frame"},
        {AT_BOX_HELLO, 0, AT_BOX_PIECE_BYTES + 1, 0, "no frame"},
        {AT_BOX_DATA, UINT64_MAX, 1, 0, "no frame"},
        {AT_BOX_DATA, 5, 0, 0, "a piece of nothing"},
        {AT_BOX_DATA, 5, 6, 0, "a piece of nothing"},
        {AT_BOX_GRANTED, 5, 5, 0, "a piece of nothing"},
        {AT_BOX_DATA, AT_RANKS_EAGER_BYTES + 1, 5, 0, "more than it may"},
        {AT_BOX_ASK, 0, 0, 0, "asks out of turn"},
        {AT_BOX_ASK, 9, 1, 0, "asks out of turn"},
        {AT_BOX_GRANT, 9, 0, 0, "grants what was not asked"},
        {AT_BOX_GRANT, 9, 4, 0, "a grant with a payload"},
        {AT_BOX_CREDIT, 9, 0, 0, "gives back more"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct at_box b = {0};
        struct at_diag diag = {0};
        assert_int_equal(feed(&b, bad[i].kind, 1, bad[i].total, bad[i].bytes, bad[i].zero, &diag), AT_E_PEER);
        assert_non_null(strstr(diag.text, bad[i].says));
        at_box_release(&b);
    }
    /* Another size than the receive's, whichever comes first; granted pieces before the grant. */
    uint8_t room[8];
    struct at_post recv = {.tag = 1, .bytes = room, .n = 8};
    for (int first = 0; first < 2; first++) {
        struct at_box b = {0};
        struct at_diag diag = {0};
        if (first == 0) assert_int_equal(at_box_recv(&b, &recv, &diag), AT_OK);
        at_err_t err = feed(&b, AT_BOX_DATA, 1, 7, 7, 0, &diag);
        if (first == 1) {
            assert_int_equal(err, AT_OK);
            err = at_box_recv(&b, &recv, &diag);
        }
        assert_int_equal(err, AT_E_PEER);
        assert_string_equal(diag.text, "sends 7 bytes with tag 1 where 8 are expected");
        at_box_release(&b);
    }
    struct at_box b = {0};
    assert_int_equal(feed(&b, AT_BOX_ASK, 1, 8, 0, 0, NULL), AT_OK);
    assert_int_equal(feed(&b, AT_BOX_GRANTED, 1, 8, 8, 0, NULL), AT_E_PEER);
    at_box_release(&b);
}

/* A peer that only asks is stopped before its questions fill the memory. */
static void asking_has_an_end(void **state)
{
    struct at_box b = {0};
    struct at_diag diag = {0};
    for (uint32_t tag = 0; tag < AT_BOX_ASKS_MAX; tag++)
        assert_int_equal(feed(&b, AT_BOX_ASK, tag, 1, 0, 0, &diag), AT_OK);
    assert_int_equal(feed(&b, AT_BOX_ASK, AT_BOX_ASKS_MAX, 1, 0, 0, &diag), AT_E_PEER);
    assert_non_null(strstr(diag.text, "asks for more than"));
    at_box_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order_any_cut),           cmocka_unit_test(small_ones_overtake),
        cmocka_unit_test(letting_go_keeps_the_stream), cmocka_unit_test(rules_are_kept),
        cmocka_unit_test(asking_has_an_end),
    };
    return cmocka_run_group_tests_name("ranks_box", tests, NULL, NULL);
}
