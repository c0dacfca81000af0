#include "wire/message_pb.h"
#include "wire/printable.h"
#include "wire/vote_pb.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Holds the largest message within the limits twice over: a log part of 256 records (unpacked and as our structs) and
 * 256 checkpoints is about 0.7 MiB. A message that needs more is beyond some limit anyway. */
#define MEM_BYTES ((size_t)5 << 18)

const char *at_message_kind_name(enum at_message_kind kind)
{
    static const char *const name[AT_MSG_KIND_COUNT] = {
        "none",    "hello",       "want",      "piece",      "missing",  "log_get", "log_part",  "submit",
        "refused", "ready",       "progress",  "ping",       "pong",     "bye",     "peers_get", "peers",
        "head",    "gone",        "tiles_ask", "tiles_have", "saved",    "agree",   "cosign",    "meet",
        "stage",   "bundle_want", "bundle",    "held",       "presences"};
    return kind >= 0 && kind < AT_MSG_KIND_COUNT ? name[kind] : "?";
}

enum at_frame_class at_message_class(enum at_message_kind kind)
{
    return kind == AT_MSG_PIECE || kind == AT_MSG_BUNDLE ? AT_FRAME_BULK : AT_FRAME_CONTROL;
}

enum at_message_kind at_message_peek(struct at_span bytes)
{
    /* A field's tag: its number << 3 | 2, as a varint of one byte or two. */
    if (bytes.n < 2 || (bytes.p[0] & 7) != 2 || (bytes.p[0] & 0x80 && bytes.p[1] & 0x80)) return AT_MSG_NONE;
    unsigned tag = bytes.p[0] & 0x80 ? (bytes.p[0] & 0x7fu) | (unsigned)bytes.p[1] << 7 : bytes.p[0];
    return tag >> 3 < AT_MSG_KIND_COUNT ? (enum at_message_kind)(tag >> 3) : AT_MSG_NONE;
}

void at_message_mem_release(struct at_message_mem *mem)
{
    free(mem->block);
    mem->block = NULL;
}

static char *pb_string(const char *s)
{
    return (char *)(uintptr_t)s;
}

static void build_log_part(const struct at_msg_log_part *from, struct message_pb *pb)
{
    atoll__pb__log_part__init(&pb->log_part);
    pb->log_part.from = from->from;
    pb->log_part.live = from->live;
    for (uint32_t i = 0; i < from->record_count; i++) {
        at_pb_signed_build(&from->records[i], &pb->record[i]);
        pb->record_at[i] = &pb->record[i];
    }
    for (uint32_t i = 0; i < from->checkpoint_count; i++) {
        at_pb_checkpoint_build(&from->checkpoints[i], &pb->checkpoint[i]);
        pb->checkpoint_at[i] = &pb->checkpoint[i];
    }
    pb->log_part.n_records = from->record_count;
    pb->log_part.records = pb->record_at;
    pb->log_part.n_checkpoints = from->checkpoint_count;
    pb->log_part.checkpoints = pb->checkpoint_at;
}

static void build_blobs(const struct at_message *msg, struct message_pb *pb)
{
    switch (msg->kind) {
    case AT_MSG_WANT:
        atoll__pb__want__init(&pb->want);
        pb->want.kind = (Atoll__Pb__BlobKind)msg->want.kind;
        pb->want.key = at_pb_hash(&msg->want.key);
        pb->want.offset = msg->want.offset;
        pb->want.bytes = msg->want.bytes;
        break;
    case AT_MSG_PIECE:
        atoll__pb__piece__init(&pb->piece);
        pb->piece.kind = (Atoll__Pb__BlobKind)msg->piece.kind;
        pb->piece.key = at_pb_hash(&msg->piece.key);
        pb->piece.offset = msg->piece.offset;
        pb->piece.total = msg->piece.total;
        pb->piece.data = at_pb_bytes(msg->piece.data.p, msg->piece.data.n);
        break;
    default:
        atoll__pb__missing__init(&pb->missing);
        pb->missing.kind = (Atoll__Pb__BlobKind)msg->missing.kind;
        pb->missing.key = at_pb_hash(&msg->missing.key);
        pb->missing.offset = msg->missing.offset;
        break;
    }
}

static void build_tiles(const struct at_message *msg, struct message_pb *pb)
{
    if (msg->kind == AT_MSG_TILES_ASK) {
        atoll__pb__tiles_ask__init(&pb->tiles_ask);
        pb->tiles_ask.root = at_pb_hash(&msg->tiles_ask.root);
        return;
    }
    if (msg->kind == AT_MSG_SAVED) {
        atoll__pb__saved__init(&pb->saved);
        pb->saved.round = msg->saved.round;
        pb->saved.state_root = at_pb_hash(&msg->saved.state_root);
        return;
    }
    const struct at_msg_tiles_have *have = &msg->tiles_have;
    atoll__pb__tiles_have__init(&pb->tiles_have);
    pb->tiles_have.root = at_pb_hash(&have->root);
    pb->tiles_have.whole = have->whole;
    pb->tiles_have.bits = at_pb_bytes(have->bits.p, have->bits.n);
}

static void build_agree(const struct at_message *msg, struct message_pb *pb)
{
    if (msg->kind == AT_MSG_AGREE) {
        atoll__pb__agree_bytes__init(&pb->agree);
        pb->agree.bytes = at_pb_bytes(msg->agree.bytes.p, msg->agree.bytes.n);
        return;
    }
    atoll__pb__cosign__init(&pb->cosign);
    at_pb_checkpoint_build(&msg->cosign.cosignature, &pb->checkpoint[0]);
    pb->cosign.checkpoint = &pb->checkpoint[0];
}

static void build_log(const struct at_message *msg, struct message_pb *pb)
{
    switch (msg->kind) {
    case AT_MSG_LOG_GET:
        atoll__pb__log_get__init(&pb->log_get);
        pb->log_get.from = msg->log_get.from;
        pb->log_get.once = msg->log_get.once;
        break;
    case AT_MSG_LOG_PART:
        build_log_part(&msg->log_part, pb);
        break;
    case AT_MSG_SUBMIT:
        at_pb_signed_build(msg->submit.record, &pb->record[0]);
        atoll__pb__submit__init(&pb->submit);
        pb->submit.record = &pb->record[0];
        break;
    default:
        atoll__pb__refused__init(&pb->refused);
        pb->refused.record_hash = at_pb_hash(&msg->refused.record);
        pb->refused.reason = pb_string(msg->refused.reason);
        break;
    }
}

static void build_link(const struct at_message *msg, struct message_pb *pb)
{
    switch (msg->kind) {
    case AT_MSG_HELLO:
        atoll__pb__hello__init(&pb->hello);
        pb->hello.protocol = msg->hello.protocol;
        pb->hello.run = at_pb_hash(&msg->hello.run);
        pb->hello.program = pb_string(msg->hello.program);
        pb->hello.log_size = msg->hello.log_size;
        pb->hello.observer = msg->hello.observer;
        break;
    case AT_MSG_PROGRESS:
        atoll__pb__progress__init(&pb->progress);
        pb->progress.round = msg->progress.round;
        pb->progress.step = msg->progress.step;
        pb->progress.tokens = msg->progress.tokens;
        pb->progress.tokens_per_s = msg->progress.tokens_per_s;
        break;
    case AT_MSG_PING:
        atoll__pb__ping__init(&pb->ping);
        pb->ping.nonce = msg->ping.nonce;
        break;
    case AT_MSG_PONG:
        atoll__pb__pong__init(&pb->pong);
        pb->pong.nonce = msg->pong.nonce;
        break;
    case AT_MSG_STAGE:
        atoll__pb__stage__init(&pb->stage);
        pb->stage.round = msg->stage.round;
        pb->stage.group = msg->stage.group;
        pb->stage.from = msg->stage.from;
        pb->stage.to = msg->stage.to;
        break;
    default:
        atoll__pb__bye__init(&pb->bye);
        pb->bye.reason = pb_string(msg->bye.reason);
        break;
    }
}

void at_message_build(const struct at_message *msg, struct message_pb *pb)
{
    atoll__pb__message__init(&pb->message);
    pb->message.body_case = (Atoll__Pb__Message__BodyCase)msg->kind; /* our numbers are the schema's */
    pb->message.hello = &pb->hello; /* one pointer for all: the members of the body share their address */
    switch (msg->kind) {
    case AT_MSG_WANT:
    case AT_MSG_PIECE:
    case AT_MSG_MISSING:
        build_blobs(msg, pb);
        break;
    case AT_MSG_LOG_GET:
    case AT_MSG_LOG_PART:
    case AT_MSG_SUBMIT:
    case AT_MSG_REFUSED:
        build_log(msg, pb);
        break;
    case AT_MSG_READY:
    case AT_MSG_PRESENCES:
    case AT_MSG_PEERS_GET:
    case AT_MSG_PEERS:
    case AT_MSG_HEAD:
    case AT_MSG_GONE:
        at_message_mesh_build(msg, pb);
        break;
    case AT_MSG_TILES_ASK:
    case AT_MSG_TILES_HAVE:
    case AT_MSG_SAVED:
        build_tiles(msg, pb);
        break;
    case AT_MSG_AGREE:
    case AT_MSG_COSIGN:
        build_agree(msg, pb);
        break;
    case AT_MSG_BUNDLE_WANT:
    case AT_MSG_BUNDLE:
    case AT_MSG_HELD:
        at_message_bundle_build(msg, pb);
        break;
    case AT_MSG_MEET:
        at_meet_build(&msg->meet, &pb->meet);
        break;
    default:
        build_link(msg, pb);
        break;
    }
}

static bool blob_kind_ok(int kind)
{
    return kind > AT_BLOB_NONE && kind < AT_BLOB_KIND_COUNT && kind != AT_BLOB_STATE;
}

static const char *want_fault(const struct at_msg_want *w)
{
    if (!blob_kind_ok((int)w->kind)) return "kind";
    if (w->kind == AT_BLOB_TILE && w->offset >= AT_TILES_MAX) return "offset";
    if (w->kind == AT_BLOB_TILE) return w->bytes == AT_TILE_DATA_MAX ? NULL : "bytes";
    return w->bytes >= 1 && w->bytes <= AT_PIECE_BYTES_MAX ? NULL : "bytes";
}

static const char *piece_fault(const struct at_msg_piece *p)
{
    if (!blob_kind_ok((int)p->kind)) return "kind";
    if (p->kind == AT_BLOB_TILE) {
        if (p->data.n < 1 || p->data.n > AT_TILE_DATA_MAX) return "data";
        return p->offset < p->total && p->total <= AT_TILES_MAX ? NULL : "offset";
    }
    if (p->data.n > AT_PIECE_BYTES_MAX) return "data";
    return p->offset <= p->total && p->data.n <= p->total - p->offset ? NULL : "offset";
}

static bool tiles_have_ok(const struct at_msg_tiles_have *have)
{
    size_t n = have->bits.n;
    return n <= AT_TILES_MAX / 8 && !(have->whole && n > 0) && (n == 0 || have->bits.p[n - 1] != 0);
}

static bool text_ok(const char *s, size_t max)
{
    size_t n = strnlen(s, max + 1);
    return n <= max && at_printable(at_span(s, n));
}

static bool signed_ok(const struct at_signed_record *rec)
{
    return rec->body_bytes != 0 && rec->body_bytes <= AT_RECORD_BYTES_MAX;
}

static bool log_part_ok(const struct at_msg_log_part *part)
{
    if (part->record_count > AT_LOG_PART_MAX || part->checkpoint_count > AT_LOG_PART_MAX) return false;
    if (part->from > UINT64_MAX - AT_LOG_PART_MAX) return false;
    for (uint32_t i = 0; i < part->record_count; i++)
        if (!signed_ok(&part->records[i])) return false;
    for (uint32_t i = 0; i < part->checkpoint_count; i++) {
        const struct at_log_checkpoint *c = &part->checkpoints[i];
        if (c->size <= part->from || c->size > part->from + part->record_count) return false;
        if (i > 0 && at_log_checkpoint_cmp(c - 1, c) >= 0) return false;
    }
    return true;
}

/* Every limit of the header, for what we send and for what we got. NULL when all hold, else what does not. */
static const char *fault(const struct at_message *m)
{
    switch (m->kind) {
    case AT_MSG_HELLO:
        return text_ok(m->hello.program, AT_PROGRAM_BYTES_MAX) ? NULL : "program";
    case AT_MSG_WANT:
        return want_fault(&m->want);
    case AT_MSG_PIECE:
        return piece_fault(&m->piece);
    case AT_MSG_MISSING:
        return blob_kind_ok((int)m->missing.kind) ? NULL : "kind";
    case AT_MSG_LOG_PART:
        return log_part_ok(&m->log_part) ? NULL : "records";
    case AT_MSG_SUBMIT:
        return signed_ok(m->submit.record) ? NULL : "record";
    case AT_MSG_REFUSED:
        return text_ok(m->refused.reason, AT_REASON_BYTES_MAX) ? NULL : "reason";
    case AT_MSG_PROGRESS:
        return isfinite(m->progress.tokens_per_s) && !signbit(m->progress.tokens_per_s) ? NULL : "tokens_per_s";
    case AT_MSG_BYE:
        return text_ok(m->bye.reason, AT_REASON_BYTES_MAX) ? NULL : "reason";
    case AT_MSG_TILES_HAVE:
        return tiles_have_ok(&m->tiles_have) ? NULL : "bits";
    case AT_MSG_AGREE:
        return m->agree.bytes.n >= 1 && m->agree.bytes.n <= AT_AGREE_BYTES_MAX ? NULL : "bytes";
    case AT_MSG_COSIGN:
        return m->cosign.cosignature.size > 0 ? NULL : "size";
    case AT_MSG_MEET:
        return at_meet_fault(&m->meet);
    case AT_MSG_STAGE:
        return m->stage.group == 0 ? "group" : m->stage.from == 0 ? "from" : NULL;
    case AT_MSG_READY:
    case AT_MSG_PRESENCES:
    case AT_MSG_PEERS_GET:
    case AT_MSG_PEERS:
    case AT_MSG_HEAD:
    case AT_MSG_GONE:
        return at_message_mesh_fault(m);
    case AT_MSG_BUNDLE_WANT:
    case AT_MSG_BUNDLE:
    case AT_MSG_HELD:
        return at_message_bundle_fault(m);
    case AT_MSG_TILES_ASK:
    case AT_MSG_SAVED:
    case AT_MSG_LOG_GET:
    case AT_MSG_PING:
    case AT_MSG_PONG:
        return NULL;
    case AT_MSG_NONE:
    case AT_MSG_KIND_COUNT:
        break;
    }
    return "kind of message";
}

at_err at_message_encode(const struct at_message *msg, struct at_buf *out)
{
    if (fault(msg) != NULL) return AT_E_DATA;
    struct message_pb pb;
    at_message_build(msg, &pb);
    return at_pb_pack_field((uint32_t)msg->kind, &pb.hello.base, out); /* what the body's members all begin with */
}

static bool read_hash(const ProtobufCBinaryData *field, struct at_hash *ret)
{
    return at_pb_fixed(field, ret->b, sizeof ret->b);
}

static bool read_log_part(const Atoll__Pb__LogPart *from, struct at_pb_arena *arena, struct at_msg_log_part *to)
{
    if (from->n_records > AT_LOG_PART_MAX || from->n_checkpoints > AT_LOG_PART_MAX) return false;
    struct at_signed_record *records = at_pb_take(arena, from->n_records * sizeof *records);
    struct at_log_checkpoint *checkpoints = at_pb_take(arena, from->n_checkpoints * sizeof *checkpoints);
    if (records == NULL || checkpoints == NULL) return false;
    for (size_t i = 0; i < from->n_records; i++)
        if (!at_pb_signed_read(from->records[i], &records[i])) return false;
    for (size_t i = 0; i < from->n_checkpoints; i++)
        if (!at_pb_checkpoint_read(from->checkpoints[i], &checkpoints[i])) return false;
    *to = (struct at_msg_log_part){.from = from->from,
                                   .records = records,
                                   .record_count = (uint32_t)from->n_records,
                                   .checkpoints = checkpoints,
                                   .checkpoint_count = (uint32_t)from->n_checkpoints,
                                   .live = from->live != 0};
    return true;
}

static bool read_blobs(const Atoll__Pb__Message *pb, struct at_message *m)
{
    switch (m->kind) {
    case AT_MSG_WANT:
        m->want.kind = (enum at_blob_kind)pb->want->kind;
        m->want.offset = pb->want->offset;
        m->want.bytes = pb->want->bytes;
        return read_hash(&pb->want->key, &m->want.key);
    case AT_MSG_PIECE:
        m->piece.kind = (enum at_blob_kind)pb->piece->kind;
        m->piece.offset = pb->piece->offset;
        m->piece.total = pb->piece->total;
        m->piece.data = at_span(pb->piece->data.data, pb->piece->data.len);
        return read_hash(&pb->piece->key, &m->piece.key);
    default:
        m->missing.kind = (enum at_blob_kind)pb->missing->kind;
        m->missing.offset = pb->missing->offset;
        return read_hash(&pb->missing->key, &m->missing.key);
    }
}

static bool read_link(const Atoll__Pb__Message *pb, struct at_message *m)
{
    switch (m->kind) {
    case AT_MSG_HELLO:
        m->hello.protocol = pb->hello->protocol;
        m->hello.log_size = pb->hello->log_size;
        m->hello.observer = pb->hello->observer != 0;
        return read_hash(&pb->hello->run, &m->hello.run) &&
               at_pb_text(pb->hello->program, m->hello.program, AT_PROGRAM_BYTES_MAX);
    case AT_MSG_PROGRESS:
        m->progress.round = pb->progress->round;
        m->progress.step = pb->progress->step;
        m->progress.tokens = pb->progress->tokens;
        m->progress.tokens_per_s = pb->progress->tokens_per_s;
        return true;
    case AT_MSG_PING:
        m->ping.nonce = pb->ping->nonce;
        return true;
    case AT_MSG_PONG:
        m->pong.nonce = pb->pong->nonce;
        return true;
    case AT_MSG_STAGE:
        m->stage.round = pb->stage->round;
        m->stage.group = pb->stage->group;
        m->stage.from = pb->stage->from;
        m->stage.to = pb->stage->to;
        return true;
    default:
        return at_pb_text(pb->bye->reason, m->bye.reason, AT_REASON_BYTES_MAX);
    }
}

static bool read_message(const Atoll__Pb__Message *pb, struct at_pb_arena *arena, struct at_message *m)
{
    m->kind = (enum at_message_kind)pb->body_case;
    switch (m->kind) {
    case AT_MSG_NONE:
    case AT_MSG_KIND_COUNT:
        return false;
    case AT_MSG_WANT:
    case AT_MSG_PIECE:
    case AT_MSG_MISSING:
        return read_blobs(pb, m);
    case AT_MSG_LOG_GET:
        m->log_get.from = pb->log_get->from;
        m->log_get.once = pb->log_get->once != 0;
        return true;
    case AT_MSG_LOG_PART:
        return read_log_part(pb->log_part, arena, &m->log_part);
    case AT_MSG_SUBMIT: {
        struct at_signed_record *rec = at_pb_take(arena, sizeof *rec);
        m->submit.record = rec;
        return rec != NULL && at_pb_signed_read(pb->submit->record, rec);
    }
    case AT_MSG_REFUSED:
        return read_hash(&pb->refused->record_hash, &m->refused.record) &&
               at_pb_text(pb->refused->reason, m->refused.reason, AT_REASON_BYTES_MAX);
    case AT_MSG_READY:
    case AT_MSG_PRESENCES:
    case AT_MSG_PEERS_GET:
    case AT_MSG_PEERS:
    case AT_MSG_HEAD:
    case AT_MSG_GONE:
        return at_message_mesh_read(pb, arena, m);
    case AT_MSG_TILES_ASK:
        return read_hash(&pb->tiles_ask->root, &m->tiles_ask.root);
    case AT_MSG_TILES_HAVE:
        m->tiles_have.whole = pb->tiles_have->whole != 0;
        m->tiles_have.bits = at_span(pb->tiles_have->bits.data, pb->tiles_have->bits.len);
        return read_hash(&pb->tiles_have->root, &m->tiles_have.root);
    case AT_MSG_SAVED:
        m->saved.round = pb->saved->round;
        return read_hash(&pb->saved->state_root, &m->saved.state_root);
    case AT_MSG_AGREE:
        m->agree.bytes = at_span(pb->agree->bytes.data, pb->agree->bytes.len);
        return true;
    case AT_MSG_COSIGN:
        return at_pb_checkpoint_read(pb->cosign->checkpoint, &m->cosign.cosignature);
    case AT_MSG_BUNDLE_WANT:
    case AT_MSG_BUNDLE:
    case AT_MSG_HELD:
        return at_message_bundle_read(pb, arena, m);
    case AT_MSG_MEET:
        return at_meet_read(pb->meet, &m->meet);
    default:
        return read_link(pb, m);
    }
}

/* What comes often. False: decode_any is to judge. */
static bool decode_quick(struct at_span bytes, struct at_pb_arena arena, struct at_message *ret_msg)
{
    struct at_message m;
    memset(&m, 0, sizeof m);
    if (!at_message_quick_read(bytes, &arena, &m) || fault(&m) != NULL) return false;
    *ret_msg = m;
    return true;
}

/* Any kind, over the generated structs. */
static at_err_t decode_any(struct at_span bytes, struct at_pb_arena arena, struct at_diag *diag,
                           struct at_message *ret_msg)
{
    ProtobufCAllocator allocator = at_pb_allocator(&arena);
    const Atoll__Pb__Message *pb = atoll__pb__message__unpack(&allocator, bytes.n, bytes.p);
    if (pb == NULL) return at_fail(diag, AT_E_PEER, "message", "message: malformed or beyond its limits");
    struct at_message m;
    memset(&m, 0, sizeof m);
    if (!read_message(pb, &arena, &m))
        return at_fail(diag, AT_E_PEER, "message", "message: a field is missing or beyond its limit");
    const char *what = fault(&m);
    if (what != NULL)
        return at_fail(diag, AT_E_PEER, at_message_kind_name(m.kind), "message %s: %s is out of range",
                       at_message_kind_name(m.kind), what);
    struct message_pb again;
    at_message_build(&m, &again);
    if (!at_pb_packs_to(&again.message.base, bytes))
        return at_fail(diag, AT_E_PEER, at_message_kind_name(m.kind), "message %s: unknown or repeated fields",
                       at_message_kind_name(m.kind));
    *ret_msg = m;
    return AT_OK;
}

at_err at_message_decode(struct at_span bytes, struct at_message_mem *mem, struct at_diag *diag,
                         struct at_message *ret_msg)
{
    if (bytes.n > AT_FRAME_PAYLOAD_BYTES_MAX)
        return at_fail(diag, AT_E_PEER, "message", "message: larger than a frame");
    if (mem->block == NULL) mem->block = malloc(MEM_BYTES);
    if (mem->block == NULL) return at_fail(diag, AT_E_NOMEM, "message", "out of memory");
    struct at_pb_arena arena = {.block = mem->block, .cap = MEM_BYTES};
    return decode_quick(bytes, arena, ret_msg) ? AT_OK : decode_any(bytes, arena, diag, ret_msg);
}
