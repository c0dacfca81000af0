#include "wire/vote_pb.h"

#include <string.h>

void at_pb_signed_build(const struct at_signed_record *from, Atoll__Pb__Signed *to)
{
    atoll__pb__signed__init(to);
    to->body = at_pb_bytes(from->body, from->body_bytes);
    to->author = at_pb_bytes(from->author.b, sizeof from->author.b);
    to->sig = at_pb_bytes(from->sig.b, sizeof from->sig.b);
}

bool at_pb_signed_read(const Atoll__Pb__Signed *from, struct at_signed_record *to)
{
    return from != NULL &&
           at_signed_record_from(at_span(from->body.data, from->body.len), at_span(from->author.data, from->author.len),
                                 at_span(from->sig.data, from->sig.len), NULL, to) == AT_OK;
}

void at_pb_checkpoint_build(const struct at_log_checkpoint *from, Atoll__Pb__Checkpoint *to)
{
    atoll__pb__checkpoint__init(to);
    to->size = from->size;
    to->root = at_pb_bytes(from->root.b, sizeof from->root.b);
    to->steward = at_pb_bytes(from->steward.b, sizeof from->steward.b);
    to->sig = at_pb_bytes(from->sig.b, sizeof from->sig.b);
}

bool at_pb_checkpoint_read(const Atoll__Pb__Checkpoint *from, struct at_log_checkpoint *to)
{
    if (from == NULL) return false;
    to->size = from->size;
    return at_pb_fixed(&from->root, to->root.b, sizeof to->root.b) &&
           at_pb_fixed(&from->steward, to->steward.b, sizeof to->steward.b) &&
           at_pb_fixed(&from->sig, to->sig.b, sizeof to->sig.b);
}

/* ---- votes and certificates: view, kind and hash have one form ---- */
static bool view_ok(uint64_t view)
{
    return view >= 1 && view <= AT_VIEW_MAX;
}

static ProtobufCBinaryData hash_build(enum at_vote_kind kind, const struct at_hash *hash)
{
    return at_pb_bytes(hash->b, kind == AT_VOTE_DUMMY ? 0 : sizeof hash->b);
}

static bool hash_read(int kind, const ProtobufCBinaryData *from, struct at_hash *to)
{
    if (kind <= AT_VOTE_NONE || kind >= AT_VOTE_KIND_COUNT) return false;
    memset(to, 0, sizeof *to);
    if (kind == AT_VOTE_DUMMY) return from->len == 0;
    return at_pb_fixed(from, to->b, sizeof to->b);
}

void at_pb_vote_build(const struct at_vote *from, Atoll__Pb__Vote *to)
{
    atoll__pb__vote__init(to);
    to->view = from->view;
    to->kind = (Atoll__Pb__VoteKind)from->kind;
    to->hash = hash_build(from->kind, &from->hash);
    to->seat = from->seat;
    to->sig = at_pb_bytes(from->sig.b, sizeof from->sig.b);
}

bool at_pb_vote_read(const Atoll__Pb__Vote *from, struct at_vote *to)
{
    if (from == NULL || !view_ok(from->view) || from->seat >= AT_SEATS_MAX) return false;
    to->view = from->view;
    to->kind = (enum at_vote_kind)from->kind;
    to->seat = from->seat;
    return hash_read((int)from->kind, &from->hash, &to->hash) && at_pb_fixed(&from->sig, to->sig.b, sizeof to->sig.b);
}

void at_pb_certificate_build(const struct at_certificate *from, Atoll__Pb__Certificate *to)
{
    atoll__pb__certificate__init(to);
    to->view = from->view;
    to->kind = (Atoll__Pb__VoteKind)from->kind;
    to->hash = hash_build(from->kind, &from->hash);
    to->seats = from->seats;
    to->sigs = at_pb_bytes(from->sig, (size_t)__builtin_popcount(from->seats) * AT_SIG_BYTES);
}

bool at_pb_certificate_read(const Atoll__Pb__Certificate *from, struct at_certificate *to)
{
    if (from == NULL || !view_ok(from->view) || from->seats == 0 || from->seats >> AT_SEATS_MAX != 0) return false;
    to->view = from->view;
    to->kind = (enum at_vote_kind)from->kind;
    to->seats = from->seats;
    memset(to->sig, 0, sizeof to->sig);
    return hash_read((int)from->kind, &from->hash, &to->hash) &&
           at_pb_fixed(&from->sigs, to->sig[0].b, (size_t)__builtin_popcount(from->seats) * AT_SIG_BYTES);
}
