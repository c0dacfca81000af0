#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wire/agree_fixture.h"

#include <stdlib.h>

static struct fixture_mem *mem_make(void)
{
    struct fixture_mem *mem = malloc(sizeof *mem);
    assert_non_null(mem);
    return mem;
}

static at_err_t decode(const struct at_buf *buf, struct at_agree *m)
{
    static struct at_agree_mem mem;
    if (m == NULL) {
        at_agree_mem_release(&mem);
        return AT_OK;
    }
    struct at_diag diag = {0};
    at_err_t err = at_agree_decode(at_buf_span(buf), &mem, &diag, m);
    if (err) assert_true(diag.text[0] != '\0');
    return err;
}

static void certificate_eq(const struct at_certificate *a, const struct at_certificate *b)
{
    assert_true(a->view == b->view && a->kind == b->kind && a->seats == b->seats && at_hash_eq(a->hash, b->hash));
    assert_memory_equal(a->sig, b->sig, (size_t)__builtin_popcount(a->seats) * AT_SIG_BYTES);
}

static void vote_eq(const struct at_vote *a, const struct at_vote *b)
{
    assert_true(a->view == b->view && a->kind == b->kind && a->seat == b->seat && at_hash_eq(a->hash, b->hash));
    assert_memory_equal(a->sig.b, b->sig.b, AT_SIG_BYTES);
}

static void same(const struct at_agree *a, const struct at_agree *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->term, b->term);
    switch (a->kind) {
    case AT_AGREE_VOTE:
        vote_eq(&a->vote, &b->vote);
        break;
    case AT_AGREE_CERTIFICATE:
        certificate_eq(a->certificate, b->certificate);
        break;
    case AT_AGREE_PROPOSAL:
        assert_true(at_span_eq(a->proposal.block, b->proposal.block));
        assert_int_equal(a->proposal.is_signed, b->proposal.is_signed);
        assert_memory_equal(a->proposal.sig.b, b->proposal.sig.b, AT_SIG_BYTES);
        assert_int_equal(a->proposal.certificate_count, b->proposal.certificate_count);
        for (uint32_t i = 0; i < a->proposal.certificate_count; i++)
            certificate_eq(a->proposal.certificates[i], b->proposal.certificates[i]);
        break;
    case AT_AGREE_STATUS:
        assert_true(a->status.view == b->status.view && a->status.tip_view == b->status.tip_view);
        assert_true(a->status.asks == b->status.asks && a->status.nonce == b->status.nonce);
        break;
    case AT_AGREE_NEWEST:
        assert_int_equal(a->newest.nonce, b->newest.nonce);
        assert_int_equal(a->newest.count, b->newest.count);
        for (uint32_t i = 0; i < a->newest.count; i++) vote_eq(&a->newest.votes[i], &b->newest.votes[i]);
        break;
    case AT_AGREE_ASK:
        assert_true(a->ask.of_block == b->ask.of_block && a->ask.first == b->ask.first && a->ask.last == b->ask.last);
        assert_true(at_hash_eq(a->ask.hash, b->ask.hash));
        break;
    default:
        assert_true(at_hash_eq(at_signed_record_leaf(a->pending), at_signed_record_leaf(b->pending)));
        break;
    }
}

static void every_message_comes_back(void **state)
{
    (void)state;
    struct fixture_mem *mem = mem_make();
    for (int kind = AT_AGREE_VOTE; kind < AT_AGREE_KIND_COUNT; kind++) {
        struct at_agree m = fixture_agree((enum at_agree_kind)kind, mem), back;
        struct at_buf buf = {0};
        assert_int_equal(at_agree_encode(&m, &buf), AT_OK);
        assert_int_equal(decode(&buf, &back), AT_OK);
        same(&m, &back);
        for (size_t cut = 0; cut < buf.n; cut++) { /* every prefix is refused, or is another message in full */
            struct at_buf part = {.p = buf.p, .n = cut};
            if (decode(&part, &back) == AT_OK) assert_true(back.kind == m.kind && back.term != m.term);
        }
        buf.p[buf.n - 1] ^= 0x80; /* the term's last byte: an overlong or cut number */
        assert_int_equal(decode(&buf, &back), AT_E_PEER);
        at_buf_release(&buf);
    }
    decode(NULL, NULL);
    free(mem);
}

static void the_largest_proposal_fits(void **state)
{
    (void)state;
    struct fixture_mem *mem = mem_make();
    fixture_block(&mem->block, AT_BLOCK_RECORDS_MAX);
    for (uint32_t i = 0; i < AT_BLOCK_RECORDS_MAX; i++) mem->block.records[i].body_bytes = AT_RECORD_BYTES_MAX;
    mem->block.view = AT_VIEW_MAX;
    mem->block.parent_view = AT_VIEW_MAX - 1;
    mem->block.time_ms = UINT64_MAX;
    struct at_agree m = {.term = UINT32_MAX, .kind = AT_AGREE_PROPOSAL}, back;
    m.proposal.block = at_span(mem->bytes, at_block_encode(&mem->block, mem->bytes));
    m.proposal.is_signed = true;
    mem->certificates[0] = fixture_certificate(AT_VOTE_BLOCK, AT_SEATS_MAX - 1);
    for (uint32_t i = 0; i < AT_PROPOSAL_CERTIFICATES_MAX; i++) m.proposal.certificates[i] = &mem->certificates[0];
    m.proposal.certificate_count = AT_PROPOSAL_CERTIFICATES_MAX;
    struct at_buf buf = {0};
    assert_int_equal(at_agree_encode(&m, &buf), AT_OK);
    assert_int_equal(decode(&buf, &back), AT_OK);
    same(&m, &back);
    struct at_block_room *room = malloc(sizeof *room);
    assert_non_null(room);
    assert_int_equal(at_block_decode(back.proposal.block, NULL, room), AT_OK);
    assert_int_equal(room->block.record_count, AT_BLOCK_RECORDS_MAX);
    m.proposal.certificate_count++;
    assert_int_equal(at_agree_encode(&m, &buf), AT_E_DATA);
    at_buf_release(&buf);
    decode(NULL, NULL);
    free(room);
    free(mem);
}

static void out_of_bounds_is_refused(void **state)
{
    (void)state;
    struct fixture_mem *mem = mem_make();
    for (int what = 0; what < 9; what++) {
        struct at_agree m = fixture_agree(AT_AGREE_VOTE, mem), back;
        switch (what) {
        case 0:
            m.vote.seat = AT_SEATS_MAX;
            break;
        case 1:
            m.vote.view = 0;
            break;
        case 2:
            m.vote.view = AT_VIEW_MAX + 1;
            break;
        case 3:
            m.vote.kind = AT_VOTE_KIND_COUNT;
            break;
        case 4:
            m.vote.kind = AT_VOTE_NONE;
            break;
        case 5:
            m = fixture_agree(AT_AGREE_CERTIFICATE, mem);
            mem->certificates[0].seats = 0;
            break;
        case 6:
            m = fixture_agree(AT_AGREE_CERTIFICATE, mem);
            mem->certificates[0].seats = UINT32_C(1) << AT_SEATS_MAX;
            break;
        case 7:
            m = fixture_agree(AT_AGREE_CERTIFICATE, mem);
            mem->certificates[0].kind = AT_VOTE_NONE;
            break;
        default:
            m = fixture_agree(AT_AGREE_CERTIFICATE, mem);
            mem->certificates[0].view = 0;
            break;
        }
        struct at_buf buf = {0};
        assert_int_equal(at_agree_encode(&m, &buf), AT_OK); /* the structs are the caller's to keep right */
        assert_int_equal(decode(&buf, &back), AT_E_PEER);
        at_buf_release(&buf);
    }
    decode(NULL, NULL);
    free(mem);
}

static void a_block_has_one_spelling(void **state)
{
    (void)state;
    struct fixture_mem *mem = mem_make();
    struct at_block_room *room = malloc(sizeof *room);
    assert_non_null(room);
    fixture_block(&mem->block, 3);
    size_t n = at_block_encode(&mem->block, mem->bytes);
    assert_int_equal(at_block_decode(at_span(mem->bytes, n), NULL, room), AT_OK);
    assert_int_equal(room->block.record_count, 3);
    for (int i = 0; i < 3; i++)
        assert_true(
            at_hash_eq(at_signed_record_leaf(&room->block.records[i]), at_signed_record_leaf(&mem->block.records[i])));
    assert_true(room->block.view == 300 && room->block.parent_view == 298 && room->block.term == FIXTURE_TERM);
    assert_true(at_hash_eq(room->block.parent, mem->block.parent) && at_hash_eq(room->block.reveal, mem->block.reveal));
    assert_true(at_hash_eq(room->block.run, mem->block.run) && room->block.time_ms == mem->block.time_ms);
    mem->bytes[n] = 0x50; /* an unknown field, 10, of value 0 */
    mem->bytes[n + 1] = 0;
    assert_int_equal(at_block_decode(at_span(mem->bytes, n + 2), NULL, room), AT_E_DATA);
    assert_int_equal(at_block_decode(at_span(mem->bytes, n - 1), NULL, room), AT_E_DATA);
    mem->bytes[1] ^= 2; /* the version */
    assert_int_equal(at_block_decode(at_span(mem->bytes, n), NULL, room), AT_E_DATA);
    free(room);
    free(mem);
}

static void a_vote_is_for_one_run_term_view_kind_and_hash(void **state)
{
    (void)state;
    const struct at_keypair key = fixture_key(9), other = fixture_key(8);
    struct at_vote vote = fixture_vote(AT_VOTE_BLOCK, 3, &key), bent;
    assert_int_equal(at_vote_verify(&vote, &key.id, fixture_hash(7), FIXTURE_TERM, NULL), AT_OK);
    assert_int_equal(at_vote_verify(&vote, &other.id, fixture_hash(7), FIXTURE_TERM, NULL), AT_E_SIGNATURE);
    assert_int_equal(at_vote_verify(&vote, &key.id, fixture_hash(6), FIXTURE_TERM, NULL), AT_E_SIGNATURE);
    assert_int_equal(at_vote_verify(&vote, &key.id, fixture_hash(7), FIXTURE_TERM + 1, NULL), AT_E_SIGNATURE);
    bent = vote;
    bent.view++;
    assert_int_equal(at_vote_verify(&bent, &key.id, fixture_hash(7), FIXTURE_TERM, NULL), AT_E_SIGNATURE);
    bent = vote;
    bent.kind = AT_VOTE_FINAL;
    assert_int_equal(at_vote_verify(&bent, &key.id, fixture_hash(7), FIXTURE_TERM, NULL), AT_E_SIGNATURE);
    bent = vote;
    bent.hash.b[0] ^= 1;
    assert_int_equal(at_vote_verify(&bent, &key.id, fixture_hash(7), FIXTURE_TERM, NULL), AT_E_SIGNATURE);
}

static void which_votes_exclude_each_other(void **state)
{
    (void)state;
    const struct at_keypair key = fixture_key(9);
    const struct at_vote a = fixture_vote(AT_VOTE_BLOCK, 1, &key), b = fixture_vote(AT_VOTE_BLOCK, 2, &key),
                         dummy = fixture_vote(AT_VOTE_DUMMY, 0, &key), fa = fixture_vote(AT_VOTE_FINAL, 1, &key),
                         fb = fixture_vote(AT_VOTE_FINAL, 2, &key);
    assert_true(at_votes_exclude(&a, &b) && at_votes_exclude(&fa, &fb));
    assert_true(at_votes_exclude(&dummy, &fa) && at_votes_exclude(&fa, &dummy));
    assert_false(at_votes_exclude(&a, &a) || at_votes_exclude(&a, &dummy) || at_votes_exclude(&dummy, &dummy));
    assert_false(at_votes_exclude(&a, &fa) || at_votes_exclude(&a, &fb)); /* seen notarised by others */
}

static void evidence_proves_or_is_refused(void **state)
{
    (void)state;
    const struct at_keypair key = fixture_key(9), other = fixture_key(8);
    const struct at_vote a = fixture_vote(AT_VOTE_BLOCK, 1, &key), b = fixture_vote(AT_VOTE_BLOCK, 2, &key);
    const struct at_log_checkpoint r = at_log_checkpoint_sign(&key, fixture_hash(7), 40, fixture_hash(1)),
                                   s = at_log_checkpoint_sign(&key, fixture_hash(7), 40, fixture_hash(2));
    struct at_evidence e[2] = {at_evidence_of_votes(fixture_hash(7), &key.id, FIXTURE_TERM, &b, &a),
                               at_evidence_of_roots(fixture_hash(7), &s, &r)};
    for (int i = 0; i < 2; i++) {
        uint8_t bytes[AT_EVIDENCE_BYTES_MAX];
        size_t n;
        struct at_evidence back;
        assert_int_equal(at_evidence_encode(&e[i], bytes, &n), AT_OK);
        assert_true(n <= 400);
        assert_int_equal(at_evidence_decode(at_span(bytes, n), NULL, &back), AT_OK);
        assert_int_equal(at_evidence_verify(&back, NULL), AT_OK);
        for (size_t k = 0; k < n; k++) { /* no byte of it may be another */
            bytes[k] ^= 4;
            assert_true(at_evidence_decode(at_span(bytes, n), NULL, &back) != AT_OK ||
                        at_evidence_verify(&back, NULL) == AT_E_SIGNATURE);
            bytes[k] ^= 4;
        }
        back = e[i]; /* the other way round is another spelling of the same proof */
        back.vote[0] = e[i].vote[1];
        back.vote[1] = e[i].vote[0];
        back.roots[0] = e[i].roots[1];
        back.roots[1] = e[i].roots[0];
        assert_int_equal(at_evidence_encode(&back, bytes, &n), AT_E_DATA);
    }
    struct at_evidence no = at_evidence_of_votes(fixture_hash(7), &key.id, FIXTURE_TERM, &a, &a);
    uint8_t bytes[AT_EVIDENCE_BYTES_MAX];
    size_t n;
    assert_int_equal(at_evidence_encode(&no, bytes, &n), AT_E_DATA);
    struct at_evidence framed = at_evidence_of_votes(fixture_hash(7), &other.id, FIXTURE_TERM, &a, &b);
    assert_int_equal(at_evidence_verify(&framed, NULL), AT_E_SIGNATURE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_message_comes_back),
                                       cmocka_unit_test(the_largest_proposal_fits),
                                       cmocka_unit_test(out_of_bounds_is_refused),
                                       cmocka_unit_test(a_block_has_one_spelling),
                                       cmocka_unit_test(a_vote_is_for_one_run_term_view_kind_and_hash),
                                       cmocka_unit_test(which_votes_exclude_each_other),
                                       cmocka_unit_test(evidence_proves_or_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
