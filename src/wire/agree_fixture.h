/* agree_fixture.h: for tests and fuzz targets: one well-formed message between stewards of each kind. */
#ifndef ATOLL_WIRE_AGREE_FIXTURE_H
#define ATOLL_WIRE_AGREE_FIXTURE_H

#include "wire/agree.h"
#include "wire/wire_fixture.h"

#define FIXTURE_TERM 5u

static inline struct at_keypair fixture_key(uint8_t x)
{
    uint8_t seed[AT_KEY_BYTES] = {x};
    struct at_keypair key;
    AT_ASSERT(at_keypair_from_seed(seed, &key) == AT_OK);
    return key;
}

static inline struct at_vote fixture_vote(enum at_vote_kind kind, uint8_t hash, const struct at_keypair *key)
{
    struct at_vote vote = {.view = 300, .kind = kind, .seat = 2};
    if (kind != AT_VOTE_DUMMY) vote.hash = fixture_hash(hash);
    uint8_t text[AT_VOTE_TEXT_BYTES];
    at_vote_text(&vote, fixture_hash(7), FIXTURE_TERM, text);
    vote.sig = at_sign(key, at_span(text, sizeof text));
    return vote;
}

/* Of `count` seats from the second on; the signatures are only bytes. */
static inline struct at_certificate fixture_certificate(enum at_vote_kind kind, uint32_t count)
{
    struct at_certificate c = {.view = 299, .kind = kind, .seats = ((UINT32_C(1) << count) - 1) << 1};
    if (kind != AT_VOTE_DUMMY) c.hash = fixture_hash(3);
    for (uint32_t i = 0; i < count; i++) memset(c.sig[i].b, (int)i + 1, AT_SIG_BYTES);
    return c;
}

static inline void fixture_block(struct at_block *b, uint32_t records)
{
    memset(b, 0, sizeof *b);
    b->run = fixture_hash(7);
    b->term = FIXTURE_TERM;
    b->view = 300;
    b->parent_view = 298;
    b->parent = fixture_hash(3);
    b->time_ms = UINT64_C(1790000000789);
    b->reveal = fixture_hash(4);
    b->record_count = records;
    for (uint32_t i = 0; i < records; i++) {
        struct at_signed_record *r = &b->records[i];
        r->body_bytes = (uint16_t)(AT_RECORD_BYTES_MAX - i);
        memset(r->body, (int)i + 1, r->body_bytes);
        memset(r->author.b, 0x11, sizeof r->author.b);
        memset(r->sig.b, 0x22, sizeof r->sig.b);
    }
}

/* Borrows what the message needs from `mem`. */
struct fixture_mem {
    struct at_block block;
    uint8_t bytes[AT_BLOCK_BYTES_MAX];
    struct at_certificate certificates[2];
    struct at_signed_record record;
};
static inline struct at_agree fixture_agree(enum at_agree_kind kind, struct fixture_mem *mem)
{
    const struct at_keypair key = fixture_key(9);
    struct at_agree m = {.term = FIXTURE_TERM, .kind = kind};
    mem->certificates[0] = fixture_certificate(AT_VOTE_BLOCK, 3);
    mem->certificates[1] = fixture_certificate(AT_VOTE_DUMMY, 5);
    switch (kind) {
    case AT_AGREE_VOTE:
        m.vote = fixture_vote(AT_VOTE_FINAL, 3, &key);
        break;
    case AT_AGREE_CERTIFICATE:
        m.certificate = &mem->certificates[0];
        break;
    case AT_AGREE_PROPOSAL:
        fixture_block(&mem->block, 2);
        m.proposal.block = at_span(mem->bytes, at_block_encode(&mem->block, mem->bytes));
        m.proposal.is_signed = true;
        m.proposal.sig = fixture_vote(AT_VOTE_BLOCK, 3, &key).sig;
        m.proposal.certificates[m.proposal.certificate_count++] = &mem->certificates[0];
        m.proposal.certificates[m.proposal.certificate_count++] = &mem->certificates[1];
        break;
    case AT_AGREE_STATUS:
        m.status = (struct at_agree_status){.view = 300, .tip_view = 298, .asks = true, .nonce = 77};
        break;
    case AT_AGREE_NEWEST:
        m.newest.nonce = 77;
        m.newest.count = 2;
        m.newest.votes[0] = fixture_vote(AT_VOTE_BLOCK, 3, &key);
        m.newest.votes[1] = fixture_vote(AT_VOTE_DUMMY, 0, &key);
        break;
    case AT_AGREE_ASK:
        m.ask = (struct at_agree_ask){.of_block = true, .first = 298, .last = 298, .hash = fixture_hash(3)};
        break;
    case AT_AGREE_PENDING: {
        struct at_record rec = wire_fixture_record(AT_RECORD_JOIN);
        AT_ASSERT(at_record_sign(&rec, &key, NULL, &mem->record) == AT_OK);
        m.pending = &mem->record;
        break;
    }
    case AT_AGREE_NONE:
    case AT_AGREE_KIND_COUNT:
        break;
    }
    return m;
}

#endif
