#include "wire/agree.h"
#include "wire/vote_pb.h"

#include <stdlib.h>
#include <string.h>

/* Holds the largest message: a block's bytes and 32 certificates, unpacked and as our structs, are 220 KB. */
#define MEM_BYTES ((size_t)256 * 1024)

void at_agree_mem_release(struct at_agree_mem *mem)
{
    free(mem->block);
    mem->block = NULL;
}

struct agree_pb {
    Atoll__Pb__Agree agree;
    union {
        Atoll__Pb__Vote vote;
        Atoll__Pb__Certificate certificate;
        Atoll__Pb__Proposal proposal;
        Atoll__Pb__Status status;
        Atoll__Pb__Newest newest;
        Atoll__Pb__Ask ask;
        Atoll__Pb__Pending pending;
    };
    Atoll__Pb__Signed record;
    Atoll__Pb__Vote votes[AT_NEWEST_MAX], *vote_at[AT_NEWEST_MAX];
    Atoll__Pb__Certificate certificates[AT_PROPOSAL_CERTIFICATES_MAX], *certificate_at[AT_PROPOSAL_CERTIFICATES_MAX];
};

static void build_proposal(const struct at_agree_proposal *from, struct agree_pb *pb)
{
    atoll__pb__proposal__init(&pb->proposal);
    pb->proposal.block = at_pb_bytes(from->block.p, from->block.n);
    pb->proposal.sig = at_pb_bytes(from->sig.b, from->is_signed ? sizeof from->sig.b : 0);
    for (uint32_t i = 0; i < from->certificate_count; i++) {
        at_pb_certificate_build(from->certificates[i], &pb->certificates[i]);
        pb->certificate_at[i] = &pb->certificates[i];
    }
    pb->proposal.n_certificates = from->certificate_count;
    pb->proposal.certificates = pb->certificate_at;
}

static void build_newest(const struct at_agree_newest *from, struct agree_pb *pb)
{
    atoll__pb__newest__init(&pb->newest);
    pb->newest.nonce = from->nonce;
    for (uint32_t i = 0; i < from->count; i++) {
        at_pb_vote_build(&from->votes[i], &pb->votes[i]);
        pb->vote_at[i] = &pb->votes[i];
    }
    pb->newest.n_votes = from->count;
    pb->newest.votes = pb->vote_at;
}

/* The generated message over `msg`; borrows from it. The kind is one of ours. */
static void build(const struct at_agree *msg, struct agree_pb *pb)
{
    atoll__pb__agree__init(&pb->agree);
    pb->agree.term = msg->term;
    pb->agree.body_case = (Atoll__Pb__Agree__BodyCase)msg->kind; /* our numbers are the schema's */
    pb->agree.vote = &pb->vote; /* one pointer for all: the members of the body share their address */
    switch (msg->kind) {
    case AT_AGREE_VOTE:
        at_pb_vote_build(&msg->vote, &pb->vote);
        break;
    case AT_AGREE_CERTIFICATE:
        at_pb_certificate_build(msg->certificate, &pb->certificate);
        break;
    case AT_AGREE_PROPOSAL:
        build_proposal(&msg->proposal, pb);
        break;
    case AT_AGREE_STATUS:
        atoll__pb__status__init(&pb->status);
        pb->status.view = msg->status.view;
        pb->status.tip_view = msg->status.tip_view;
        pb->status.asks = msg->status.asks;
        pb->status.nonce = msg->status.nonce;
        break;
    case AT_AGREE_NEWEST:
        build_newest(&msg->newest, pb);
        break;
    case AT_AGREE_ASK:
        atoll__pb__ask__init(&pb->ask);
        pb->ask.first = msg->ask.first;
        pb->ask.last = msg->ask.last;
        pb->ask.hash = at_pb_bytes(msg->ask.hash.b, msg->ask.of_block ? sizeof msg->ask.hash.b : 0);
        break;
    case AT_AGREE_PENDING:
        at_pb_signed_build(msg->pending, &pb->record);
        atoll__pb__pending__init(&pb->pending);
        pb->pending.record = &pb->record;
        break;
    case AT_AGREE_NONE:
    case AT_AGREE_KIND_COUNT:
        break;
    }
}

/* The limits that are not the structs' own. NULL when all hold, else what does not. */
static const char *fault(const struct at_agree *m)
{
    switch (m->kind) {
    case AT_AGREE_PROPOSAL:
        if (m->proposal.block.n == 0 || m->proposal.block.n > AT_BLOCK_BYTES_MAX) return "block";
        return m->proposal.certificate_count <= AT_PROPOSAL_CERTIFICATES_MAX ? NULL : "certificates";
    case AT_AGREE_STATUS:
        return m->status.view <= AT_VIEW_MAX && m->status.tip_view <= AT_VIEW_MAX ? NULL : "view";
    case AT_AGREE_NEWEST:
        return m->newest.count <= AT_NEWEST_MAX ? NULL : "votes";
    case AT_AGREE_ASK:
        if (m->ask.first > m->ask.last || m->ask.last > AT_VIEW_MAX) return "views";
        return !m->ask.of_block || m->ask.first == m->ask.last ? NULL : "views";
    case AT_AGREE_VOTE:
    case AT_AGREE_CERTIFICATE:
    case AT_AGREE_PENDING:
        return NULL;
    case AT_AGREE_NONE:
    case AT_AGREE_KIND_COUNT:
        break;
    }
    return "kind of message";
}

at_err at_agree_encode(const struct at_agree *msg, struct at_buf *out)
{
    if (fault(msg) != NULL) return AT_E_DATA;
    struct agree_pb pb;
    build(msg, &pb);
    return at_pb_pack(&pb.agree.base, out);
}

static bool read_proposal(const Atoll__Pb__Proposal *from, struct at_pb_arena *arena, struct at_agree_proposal *to)
{
    if (from->n_certificates > AT_PROPOSAL_CERTIFICATES_MAX) return false;
    to->block = at_span(from->block.data, from->block.len);
    to->is_signed = from->sig.len != 0;
    if (to->is_signed && !at_pb_fixed(&from->sig, to->sig.b, sizeof to->sig.b)) return false;
    for (size_t i = 0; i < from->n_certificates; i++) {
        struct at_certificate *c = at_pb_take(arena, sizeof *c);
        if (c == NULL || !at_pb_certificate_read(from->certificates[i], c)) return false;
        to->certificates[i] = c;
    }
    to->certificate_count = (uint32_t)from->n_certificates;
    return true;
}

static bool read_newest(const Atoll__Pb__Newest *from, struct at_agree_newest *to)
{
    if (from->n_votes > AT_NEWEST_MAX) return false;
    to->nonce = from->nonce;
    to->count = (uint32_t)from->n_votes;
    for (size_t i = 0; i < from->n_votes; i++)
        if (!at_pb_vote_read(from->votes[i], &to->votes[i])) return false;
    return true;
}

static bool read_ask(const Atoll__Pb__Ask *from, struct at_agree_ask *to)
{
    to->first = from->first;
    to->last = from->last;
    to->of_block = from->hash.len != 0;
    return !to->of_block || at_pb_fixed(&from->hash, to->hash.b, sizeof to->hash.b);
}

static bool read_body(const Atoll__Pb__Agree *pb, struct at_pb_arena *arena, struct at_agree *m)
{
    switch (m->kind) {
    case AT_AGREE_VOTE:
        return at_pb_vote_read(pb->vote, &m->vote);
    case AT_AGREE_CERTIFICATE: {
        struct at_certificate *c = at_pb_take(arena, sizeof *c);
        m->certificate = c;
        return c != NULL && at_pb_certificate_read(pb->certificate, c);
    }
    case AT_AGREE_PROPOSAL:
        return read_proposal(pb->proposal, arena, &m->proposal);
    case AT_AGREE_STATUS:
        m->status = (struct at_agree_status){.view = pb->status->view,
                                             .tip_view = pb->status->tip_view,
                                             .asks = pb->status->asks != 0,
                                             .nonce = pb->status->nonce};
        return true;
    case AT_AGREE_NEWEST:
        return read_newest(pb->newest, &m->newest);
    case AT_AGREE_ASK:
        return read_ask(pb->ask, &m->ask);
    case AT_AGREE_PENDING: {
        struct at_signed_record *rec = at_pb_take(arena, sizeof *rec);
        m->pending = rec;
        return rec != NULL && at_pb_signed_read(pb->pending->record, rec);
    }
    case AT_AGREE_NONE:
    case AT_AGREE_KIND_COUNT:
        break;
    }
    return false;
}

at_err at_agree_decode(struct at_span bytes, struct at_agree_mem *mem, struct at_diag *diag, struct at_agree *ret_msg)
{
    if (mem->block == NULL) mem->block = malloc(MEM_BYTES);
    if (mem->block == NULL) return at_fail(diag, AT_E_NOMEM, "steward message", "out of memory");
    struct at_pb_arena arena = {.block = mem->block, .cap = MEM_BYTES};
    ProtobufCAllocator allocator = at_pb_allocator(&arena);
    const Atoll__Pb__Agree *pb = atoll__pb__agree__unpack(&allocator, bytes.n, bytes.p);
    if (pb == NULL) return at_fail(diag, AT_E_PEER, "steward message", "message: malformed or beyond its limits");
    struct at_agree m;
    memset(&m, 0, sizeof m);
    m.term = pb->term;
    m.kind = (enum at_agree_kind)pb->body_case;
    if (!read_body(pb, &arena, &m))
        return at_fail(diag, AT_E_PEER, "steward message", "message: a field is missing or out of shape");
    const char *what = fault(&m);
    if (what != NULL) return at_fail(diag, AT_E_PEER, "steward message", "message: %s is beyond its limit", what);
    struct agree_pb again;
    build(&m, &again);
    if (!at_pb_packs_to(&again.agree.base, bytes))
        return at_fail(diag, AT_E_PEER, "steward message", "message: not in canonical form");
    *ret_msg = m;
    return AT_OK;
}
