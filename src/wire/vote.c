#include "wire/vote.h"
#include "wire/vote_pb.h"

#include <string.h>

static const char prefix[] = "atoll vote 1"; /* signed with its NUL, so that no other signed text can begin alike */
_Static_assert(sizeof prefix == 13, "AT_VOTE_TEXT_BYTES counts it");

void at_vote_text(const struct at_vote *vote, struct at_hash run, uint32_t term, uint8_t ret[AT_VOTE_TEXT_BYTES])
{
    uint8_t *p = ret;
    memcpy(p, prefix, sizeof prefix);
    p += sizeof prefix;
    memcpy(p, run.b, AT_HASH_BYTES);
    p += AT_HASH_BYTES;
    at_store_le32(p, term);
    at_store_le64(p + 4, vote->view);
    p[12] = (uint8_t)vote->kind;
    memcpy(p + 13, vote->hash.b, AT_HASH_BYTES);
}

at_err at_vote_verify(const struct at_vote *vote, const struct at_node_id *key, struct at_hash run, uint32_t term,
                      const struct at_verifier *verifier)
{
    uint8_t text[AT_VOTE_TEXT_BYTES];
    at_vote_text(vote, run, term, text);
    return at_verify_by(verifier, key, at_span(text, sizeof text), &vote->sig);
}

bool at_votes_exclude(const struct at_vote *a, const struct at_vote *b)
{
    if (a->kind == b->kind) return a->kind != AT_VOTE_DUMMY && !at_hash_eq(a->hash, b->hash);
    return a->kind != AT_VOTE_BLOCK && b->kind != AT_VOTE_BLOCK; /* dummy and finalise */
}

struct at_vote at_certificate_vote(const struct at_certificate *c, uint32_t i)
{
    uint32_t rest = c->seats;
    for (uint32_t k = 0; k < i; k++) rest &= rest - 1;
    AT_ASSERT(rest != 0);
    return (struct at_vote){
        .view = c->view, .kind = c->kind, .hash = c->hash, .seat = (uint32_t)__builtin_ctz(rest), .sig = c->sig[i]};
}

/* ---- evidence ---- */
static int vote_cmp(const struct at_vote *a, const struct at_vote *b)
{
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    return memcmp(a->hash.b, b->hash.b, AT_HASH_BYTES);
}

struct at_evidence at_evidence_of_votes(struct at_hash run, const struct at_node_id *key, uint32_t term,
                                        const struct at_vote *a, const struct at_vote *b)
{
    bool swap = vote_cmp(a, b) > 0;
    struct at_evidence e = {
        .run = run, .key = *key, .of_votes = true, .term = term, .vote = {swap ? *b : *a, swap ? *a : *b}};
    e.vote[0].seat = e.vote[1].seat = 0;
    return e;
}

struct at_evidence at_evidence_of_roots(struct at_hash run, const struct at_log_checkpoint *a,
                                        const struct at_log_checkpoint *b)
{
    bool swap = memcmp(a->root.b, b->root.b, AT_HASH_BYTES) > 0;
    return (struct at_evidence){.run = run, .key = a->steward, .roots = {swap ? *b : *a, swap ? *a : *b}};
}

bool at_evidence_proves(const struct at_evidence *e)
{
    if (e->of_votes) {
        const struct at_vote *a = &e->vote[0], *b = &e->vote[1];
        return a->view == b->view && a->seat == 0 && b->seat == 0 && at_votes_exclude(a, b) && vote_cmp(a, b) < 0;
    }
    const struct at_log_checkpoint *a = &e->roots[0], *b = &e->roots[1];
    return a->size == b->size && at_node_id_eq(&a->steward, &e->key) && at_node_id_eq(&b->steward, &e->key) &&
           memcmp(a->root.b, b->root.b, AT_HASH_BYTES) < 0;
}

struct evidence_pb {
    Atoll__Pb__Evidence evidence;
    Atoll__Pb__VotePair votes;
    Atoll__Pb__RootPair roots;
    Atoll__Pb__Vote vote[2];
    Atoll__Pb__Checkpoint root[2];
};

static void build(const struct at_evidence *e, struct evidence_pb *pb)
{
    atoll__pb__evidence__init(&pb->evidence);
    pb->evidence.run = at_pb_bytes(e->run.b, sizeof e->run.b);
    pb->evidence.key = at_pb_bytes(e->key.b, sizeof e->key.b);
    if (e->of_votes) {
        atoll__pb__vote_pair__init(&pb->votes);
        for (int i = 0; i < 2; i++) at_pb_vote_build(&e->vote[i], &pb->vote[i]);
        pb->votes.term = e->term;
        pb->votes.first = &pb->vote[0];
        pb->votes.second = &pb->vote[1];
        pb->evidence.proof_case = ATOLL__PB__EVIDENCE__PROOF_VOTES;
        pb->evidence.votes = &pb->votes;
    } else {
        atoll__pb__root_pair__init(&pb->roots);
        for (int i = 0; i < 2; i++) at_pb_checkpoint_build(&e->roots[i], &pb->root[i]);
        pb->roots.first = &pb->root[0];
        pb->roots.second = &pb->root[1];
        pb->evidence.proof_case = ATOLL__PB__EVIDENCE__PROOF_ROOTS;
        pb->evidence.roots = &pb->roots;
    }
}

at_err at_evidence_encode(const struct at_evidence *e, uint8_t *ret_bytes, size_t *ret_n)
{
    if (!at_evidence_proves(e)) return AT_E_DATA;
    struct evidence_pb pb;
    build(e, &pb);
    size_t n = protobuf_c_message_get_packed_size(&pb.evidence.base);
    AT_ASSERT(n <= AT_EVIDENCE_BYTES_MAX); /* two keys and hashes, two votes: under half of it */
    *ret_n = protobuf_c_message_pack(&pb.evidence.base, ret_bytes);
    return AT_OK;
}

static bool read(const Atoll__Pb__Evidence *pb, struct at_evidence *e)
{
    if (!at_pb_fixed(&pb->run, e->run.b, sizeof e->run.b) || !at_pb_fixed(&pb->key, e->key.b, sizeof e->key.b))
        return false;
    switch (pb->proof_case) {
    case ATOLL__PB__EVIDENCE__PROOF_VOTES:
        e->of_votes = true;
        e->term = pb->votes->term;
        return at_pb_vote_read(pb->votes->first, &e->vote[0]) && at_pb_vote_read(pb->votes->second, &e->vote[1]);
    case ATOLL__PB__EVIDENCE__PROOF_ROOTS:
        return at_pb_checkpoint_read(pb->roots->first, &e->roots[0]) &&
               at_pb_checkpoint_read(pb->roots->second, &e->roots[1]);
    default:
        return false;
    }
}

at_err at_evidence_decode(struct at_span bytes, struct at_diag *diag, struct at_evidence *ret_evidence)
{
    if (bytes.n > AT_EVIDENCE_BYTES_MAX)
        return at_fail(diag, AT_E_DATA, "evidence", "evidence: larger than %d bytes", AT_EVIDENCE_BYTES_MAX);
    _Alignas(max_align_t) uint8_t block[4096]; /* canonical evidence unpacks to less than half of it */
    struct at_pb_arena arena = {.block = block, .cap = sizeof block};
    ProtobufCAllocator allocator = at_pb_allocator(&arena);
    const Atoll__Pb__Evidence *pb = atoll__pb__evidence__unpack(&allocator, bytes.n, bytes.p);
    if (pb == NULL) return at_fail(diag, AT_E_DATA, "evidence", "evidence: malformed");
    struct at_evidence e;
    memset(&e, 0, sizeof e);
    if (!read(pb, &e)) return at_fail(diag, AT_E_DATA, "evidence", "evidence: a field is missing or out of shape");
    if (!at_evidence_proves(&e)) return at_fail(diag, AT_E_DATA, "evidence", "evidence: the pair proves nothing");
    struct evidence_pb again;
    build(&e, &again);
    if (!at_pb_packs_to(&again.evidence.base, bytes))
        return at_fail(diag, AT_E_DATA, "evidence", "evidence: not in canonical form");
    *ret_evidence = e;
    return AT_OK;
}

at_err at_evidence_verify(const struct at_evidence *e, const struct at_verifier *verifier)
{
    for (int i = 0; i < 2; i++) {
        at_err_t err = e->of_votes ? at_vote_verify(&e->vote[i], &e->key, e->run, e->term, verifier)
                                   : at_log_checkpoint_verify_by(&e->roots[i], e->run, verifier);
        if (err) return err;
    }
    return AT_OK;
}
