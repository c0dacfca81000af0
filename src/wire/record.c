#include "wire/record.h"
#include "wire/canon.h"
#include "wire/pb.h"

#include <math.h>
#include <string.h>

#define RECORD_VERSION 1u

static const char prefix[] = "atoll record 1"; /* signed with its NUL, so that no other signed text can begin alike */

const char *at_record_kind_name(enum at_record_kind kind)
{
    static const char *const name[AT_RECORD_KIND_COUNT] = {"NONE",  "JOIN", "LEAVE", "OPEN",  "RECEIPT",  "CLOSE",
                                                           "EPOCH", "END",  "READY", "BLOCK", "EVIDENCE", "MEASURE"};
    return kind >= 0 && kind < AT_RECORD_KIND_COUNT ? name[kind] : "?";
}

uint32_t at_replicas_count(const struct at_replicas *set)
{
    uint32_t n = 0;
    for (size_t i = 0; i < sizeof set->b; i += 8) {
        uint64_t word = at_load_le64(set->b + i);
        if (word) n += (uint32_t)__builtin_popcountll(word); /* a call, on processors of any age */
    }
    return n;
}

uint32_t at_replicas_next(const struct at_replicas *set, uint32_t from)
{
    for (uint32_t word = from / 64; word < AT_MEMBERS_MAX / 64; word++, from = 64 * word) {
        uint64_t rest = at_load_le64(set->b + 8 * word) >> from % 64;
        if (rest) return from + (uint32_t)__builtin_ctzll(rest);
    }
    return AT_MEMBERS_MAX;
}

static size_t replicas_bytes(const struct at_replicas *set)
{
    size_t n = sizeof set->b;
    while (n != 0 && set->b[n - 1] == 0) n--;
    return n;
}

static bool replicas_read(const ProtobufCBinaryData *field, struct at_replicas *ret)
{
    if (field->len > sizeof ret->b || (field->len != 0 && field->data[field->len - 1] == 0)) return false;
    memset(ret, 0, sizeof *ret);
    if (field->len != 0) memcpy(ret->b, field->data, field->len);
    return true;
}

struct record_pb {
    Atoll__Pb__Record record;
    union {
        Atoll__Pb__Join join;
        Atoll__Pb__Leave leave;
        Atoll__Pb__Open open;
        Atoll__Pb__Receipt receipt;
        Atoll__Pb__Close close;
        Atoll__Pb__Epoch epoch;
        Atoll__Pb__End end;
        Atoll__Pb__Stand stand;
        Atoll__Pb__Head head;
        Atoll__Pb__Proof proof;
        Atoll__Pb__Measure measure;
    };
    uint8_t evidence[AT_EVIDENCE_BYTES_MAX];
    uint8_t links[AT_MEASURE_LINKS * AT_MEASURE_LINK_BYTES], rates[AT_MEASURE_LINKS];
};

static ProtobufCBinaryData pb_hash(const struct at_hash *h)
{
    return at_pb_bytes(h->b, sizeof h->b);
}

static void build_receipt(const struct at_receipt *from, Atoll__Pb__Receipt *to)
{
    atoll__pb__receipt__init(to);
    to->round = from->round;
    to->replica = from->replica;
    to->state_in = pb_hash(&from->state_in);
    to->start = from->start;
    to->samples = from->samples;
    to->steps = from->steps;
    to->tokens = from->tokens;
    to->flops = from->flops;
    to->update = pb_hash(&from->update);
    to->update_bytes = from->update_bytes;
    to->group = from->group;
    to->took_ms = from->took_ms;
    to->heldout = from->heldout;
    if (!at_hash_is_zero(from->feedback)) to->feedback = pb_hash(&from->feedback);
}

static void build_epoch(const struct at_epoch *from, Atoll__Pb__Epoch *to)
{
    atoll__pb__epoch__init(to);
    to->round = from->round;
    to->state_root = pb_hash(&from->state_root);
    to->heldout_loss = from->heldout_loss;
    to->balances = pb_hash(&from->balances);
}

static void build_stand(const struct at_stand *from, Atoll__Pb__Stand *to)
{
    atoll__pb__stand__init(to);
    to->term = from->term;
    to->key = at_pb_bytes(from->key.b, sizeof from->key.b);
    to->key_use = at_pb_bytes(from->key_use.b, sizeof from->key_use.b);
    to->chain = pb_hash(&from->chain);
    if (!from->has_ticket) return;
    to->ticket = at_pb_bytes(from->ticket.ticket.b, sizeof from->ticket.ticket.b);
    to->ticket_sig = at_pb_bytes(from->ticket.founder.b, sizeof from->ticket.founder.b);
    to->ticket_use = at_pb_bytes(from->ticket.bearer.b, sizeof from->ticket.bearer.b);
}

/* An evidence that proves nothing comes out empty, and is refused as such (check_shape). */
static void build_proof(const struct at_evidence *from, uint8_t bytes[AT_EVIDENCE_BYTES_MAX], Atoll__Pb__Proof *to)
{
    size_t n = 0;
    atoll__pb__proof__init(to);
    if (at_evidence_encode(from, bytes, &n) != AT_OK) n = 0;
    to->evidence = at_pb_bytes(bytes, n);
}

static void build_measure(const struct at_measure *from, uint8_t *links, uint8_t *rates, Atoll__Pb__Measure *to)
{
    atoll__pb__measure__init(to);
    to->speed = from->speed;
    to->memory = from->memory;
    to->links = at_pb_bytes(links, at_measure_pack(from, links));
    to->rates = at_pb_bytes(rates, at_measure_pack_rates(from, rates));
}

/* The generated message over `rec`; borrows from it. The kind must be one of ours. */
static void build(const struct at_record *rec, struct record_pb *pb)
{
    static const Atoll__Pb__Record__BodyCase body_case[AT_RECORD_KIND_COUNT] = {
        ATOLL__PB__RECORD__BODY__NOT_SET, ATOLL__PB__RECORD__BODY_JOIN,    ATOLL__PB__RECORD__BODY_LEAVE,
        ATOLL__PB__RECORD__BODY_OPEN,     ATOLL__PB__RECORD__BODY_RECEIPT, ATOLL__PB__RECORD__BODY_CLOSE,
        ATOLL__PB__RECORD__BODY_EPOCH,    ATOLL__PB__RECORD__BODY_END,     ATOLL__PB__RECORD__BODY_STAND,
        ATOLL__PB__RECORD__BODY_HEAD,     ATOLL__PB__RECORD__BODY_PROOF,   ATOLL__PB__RECORD__BODY_MEASURE};
    atoll__pb__record__init(&pb->record);
    pb->record.version = RECORD_VERSION;
    pb->record.run = pb_hash(&rec->run);
    pb->record.time_ms = rec->time_ms;
    pb->record.body_case = body_case[rec->kind];
    pb->record.join = &pb->join; /* one pointer for all: the members of the body share their address */
    switch (rec->kind) {
    case AT_RECORD_JOIN:
        atoll__pb__join__init(&pb->join);
        pb->join.name = (char *)(uintptr_t)rec->join.name;
        break;
    case AT_RECORD_LEAVE:
        atoll__pb__leave__init(&pb->leave);
        break;
    case AT_RECORD_OPEN:
        atoll__pb__open__init(&pb->open);
        pb->open.round = rec->open.round;
        pb->open.state_root = pb_hash(&rec->open.state_root);
        pb->open.replicas = at_pb_bytes(rec->open.replicas.b, replicas_bytes(&rec->open.replicas));
        break;
    case AT_RECORD_RECEIPT:
        build_receipt(&rec->receipt, &pb->receipt);
        break;
    case AT_RECORD_CLOSE:
        atoll__pb__close__init(&pb->close);
        pb->close.round = rec->close.round;
        pb->close.included = at_pb_bytes(rec->close.included.b, replicas_bytes(&rec->close.included));
        break;
    case AT_RECORD_EPOCH:
        build_epoch(&rec->epoch, &pb->epoch);
        break;
    case AT_RECORD_END:
        atoll__pb__end__init(&pb->end);
        pb->end.rounds = rec->end.rounds;
        break;
    case AT_RECORD_READY:
        build_stand(&rec->stand, &pb->stand);
        break;
    case AT_RECORD_BLOCK:
        atoll__pb__head__init(&pb->head);
        pb->head.term = rec->head.term;
        pb->head.view = rec->head.view;
        pb->head.reveal = pb_hash(&rec->head.reveal);
        break;
    case AT_RECORD_EVIDENCE:
        build_proof(&rec->evidence, pb->evidence, &pb->proof);
        break;
    case AT_RECORD_MEASURE:
        build_measure(&rec->measure, pb->links, pb->rates, &pb->measure);
        break;
    case AT_RECORD_NONE:
    case AT_RECORD_KIND_COUNT:
        break;
    }
}

static bool loss_ok(double loss)
{
    return isfinite(loss) && !signbit(loss);
}

/* What canonical form alone does not settle. */
static at_err_t check_shape(const struct at_record *rec, struct at_diag *diag)
{
    if (rec->kind <= AT_RECORD_NONE || rec->kind >= AT_RECORD_KIND_COUNT)
        return at_fail(diag, AT_E_DATA, "record", "record: of no known kind");
    char name[AT_NAME_BYTES_MAX + 1];
    if (rec->kind == AT_RECORD_JOIN && (memchr(rec->join.name, 0, sizeof rec->join.name) == NULL ||
                                        !at_pb_text(rec->join.name, name, AT_NAME_BYTES_MAX)))
        return at_fail(diag, AT_E_DATA, "JOIN.name", "JOIN: the name must be at most 32 bytes of printable text");
    if (rec->kind == AT_RECORD_EPOCH && !loss_ok(rec->epoch.heldout_loss))
        return at_fail(diag, AT_E_DATA, "EPOCH.heldout_loss", "EPOCH: the loss must be finite and not negative");
    if (rec->kind == AT_RECORD_EVIDENCE && !at_evidence_proves(&rec->evidence))
        return at_fail(diag, AT_E_DATA, "EVIDENCE.evidence", "EVIDENCE: the pair proves nothing");
    const char *wrong = rec->kind == AT_RECORD_MEASURE ? at_measure_wrong(&rec->measure) : NULL;
    if (wrong)
        return at_fail(diag, AT_E_DATA, "MEASURE", "MEASURE: %s: a figure is missing, or links are not ascending",
                       wrong);
    return AT_OK;
}

at_err at_record_encode(const struct at_record *rec, struct at_diag *diag, uint8_t *ret_body, uint16_t *ret_bytes)
{
    at_err_t err = check_shape(rec, diag);
    if (err) return err;
    struct record_pb pb;
    build(rec, &pb);
    size_t n = protobuf_c_message_get_packed_size(&pb.record.base);
    AT_ASSERT(n <= AT_RECORD_BYTES_MAX); /* every field is bounded; the largest is a bitmap of 512 bytes */
    *ret_bytes = (uint16_t)protobuf_c_message_pack(&pb.record.base, ret_body);
    return AT_OK;
}

static bool read_receipt(const Atoll__Pb__Receipt *from, struct at_receipt *to)
{
    to->round = from->round;
    to->replica = from->replica;
    to->start = from->start;
    to->samples = from->samples;
    to->steps = from->steps;
    to->tokens = from->tokens;
    to->flops = from->flops;
    to->update_bytes = from->update_bytes;
    to->group = from->group;
    to->took_ms = from->took_ms;
    to->heldout = from->heldout;
    return at_pb_fixed(&from->state_in, to->state_in.b, AT_HASH_BYTES) &&
           at_pb_fixed(&from->update, to->update.b, AT_HASH_BYTES) &&
           (from->feedback.len == 0 || at_pb_fixed(&from->feedback, to->feedback.b, AT_HASH_BYTES));
}

static bool read_epoch(const Atoll__Pb__Epoch *from, struct at_epoch *to)
{
    to->round = from->round;
    to->heldout_loss = from->heldout_loss;
    return at_pb_fixed(&from->state_root, to->state_root.b, AT_HASH_BYTES) &&
           at_pb_fixed(&from->balances, to->balances.b, AT_HASH_BYTES);
}

static bool read_stand(const Atoll__Pb__Stand *from, struct at_stand *to)
{
    to->term = from->term;
    to->has_ticket = from->ticket.len != 0;
    return at_pb_fixed(&from->key, to->key.b, AT_KEY_BYTES) &&
           at_pb_fixed(&from->key_use, to->key_use.b, AT_SIG_BYTES) &&
           at_pb_fixed(&from->chain, to->chain.b, AT_HASH_BYTES) &&
           (!to->has_ticket || (at_pb_fixed(&from->ticket, to->ticket.ticket.b, AT_KEY_BYTES) &&
                                at_pb_fixed(&from->ticket_sig, to->ticket.founder.b, AT_SIG_BYTES) &&
                                at_pb_fixed(&from->ticket_use, to->ticket.bearer.b, AT_SIG_BYTES)));
}

static bool read_measure(const Atoll__Pb__Measure *from, struct at_measure *to)
{
    to->speed = (uint8_t)from->speed;
    to->memory = (uint8_t)from->memory;
    return from->speed <= UINT8_MAX && from->memory <= UINT8_MAX &&
           at_measure_unpack(at_span(from->links.data, from->links.len), to) &&
           at_measure_unpack_rates(at_span(from->rates.data, from->rates.len), to);
}

static bool read_body(const Atoll__Pb__Record *pb, struct at_record *rec)
{
    switch (pb->body_case) {
    case ATOLL__PB__RECORD__BODY_JOIN:
        rec->kind = AT_RECORD_JOIN;
        return at_pb_text(pb->join->name, rec->join.name, AT_NAME_BYTES_MAX);
    case ATOLL__PB__RECORD__BODY_LEAVE:
        rec->kind = AT_RECORD_LEAVE;
        return true;
    case ATOLL__PB__RECORD__BODY_OPEN:
        rec->kind = AT_RECORD_OPEN;
        rec->open.round = pb->open->round;
        return at_pb_fixed(&pb->open->state_root, rec->open.state_root.b, AT_HASH_BYTES) &&
               replicas_read(&pb->open->replicas, &rec->open.replicas);
    case ATOLL__PB__RECORD__BODY_RECEIPT:
        rec->kind = AT_RECORD_RECEIPT;
        return read_receipt(pb->receipt, &rec->receipt);
    case ATOLL__PB__RECORD__BODY_CLOSE:
        rec->kind = AT_RECORD_CLOSE;
        rec->close.round = pb->close->round;
        return replicas_read(&pb->close->included, &rec->close.included);
    case ATOLL__PB__RECORD__BODY_EPOCH:
        rec->kind = AT_RECORD_EPOCH;
        return read_epoch(pb->epoch, &rec->epoch);
    case ATOLL__PB__RECORD__BODY_END:
        rec->kind = AT_RECORD_END;
        rec->end.rounds = pb->end->rounds;
        return true;
    case ATOLL__PB__RECORD__BODY_STAND:
        rec->kind = AT_RECORD_READY;
        return read_stand(pb->stand, &rec->stand);
    case ATOLL__PB__RECORD__BODY_HEAD:
        rec->kind = AT_RECORD_BLOCK;
        rec->head.term = pb->head->term;
        rec->head.view = pb->head->view;
        return at_pb_fixed(&pb->head->reveal, rec->head.reveal.b, AT_HASH_BYTES);
    case ATOLL__PB__RECORD__BODY_PROOF:
        rec->kind = AT_RECORD_EVIDENCE;
        return at_evidence_decode(at_span(pb->proof->evidence.data, pb->proof->evidence.len), NULL, &rec->evidence) ==
               AT_OK;
    case ATOLL__PB__RECORD__BODY_MEASURE:
        rec->kind = AT_RECORD_MEASURE;
        return read_measure(pb->measure, &rec->measure);
    default:
        return false;
    }
}

/* What comes most often, a canonical RECEIPT, straight into our struct. True only for what decode_any takes, and reads to
 * the same; of everything else that is the judge (record_fuzz.c). */
static bool decode_receipt(struct at_span body, struct at_record *ret_rec)
{
    struct at_canon c = at_canon(body);
    struct at_record rec;
    struct at_receipt *to = &rec.receipt;
    struct at_span receipt, feedback;
    memset(&rec, 0, sizeof rec);
    rec.kind = AT_RECORD_RECEIPT;
    if (at_canon_u32(&c, 1) != RECORD_VERSION) return false;
    at_canon_fixed(&c, 2, rec.run.b, sizeof rec.run.b);
    rec.time_ms = at_canon_u64(&c, 3);
    if (!at_canon_next(&c, ATOLL__PB__RECORD__BODY_RECEIPT, &receipt) || !at_canon_end(&c)) return false;
    c = at_canon(receipt);
    to->round = at_canon_u32(&c, 1);
    to->replica = at_canon_u32(&c, 2);
    at_canon_fixed(&c, 3, to->state_in.b, sizeof to->state_in.b);
    to->start = at_canon_u64(&c, 4);
    to->samples = at_canon_u32(&c, 5);
    to->steps = at_canon_u32(&c, 6);
    to->tokens = at_canon_u64(&c, 7);
    to->flops = at_canon_u64(&c, 8);
    at_canon_fixed(&c, 9, to->update.b, sizeof to->update.b);
    to->update_bytes = at_canon_u64(&c, 10);
    feedback = at_canon_bytes(&c, 11);
    to->group = at_canon_u32(&c, 14);
    to->took_ms = at_canon_u32(&c, 15);
    to->heldout = at_canon_u32(&c, 16);
    if (!at_canon_end(&c) || (feedback.n != 0 && feedback.n != sizeof to->feedback.b)) return false;
    if (feedback.n != 0) memcpy(to->feedback.b, feedback.p, feedback.n);
    if (feedback.n != 0 && at_hash_is_zero(to->feedback)) return false; /* zero has another spelling: no field */
    *ret_rec = rec;
    return true;
}

/* Any kind, over the generated structs. */
static at_err_t decode_any(struct at_span body, struct at_diag *diag, struct at_record *ret_rec)
{
    _Alignas(max_align_t) uint8_t block[4096]; /* the largest canonical record unpacks to less than half of it */
    struct at_pb_arena arena = {.block = block, .cap = sizeof block};
    ProtobufCAllocator allocator = at_pb_allocator(&arena);
    const Atoll__Pb__Record *pb = atoll__pb__record__unpack(&allocator, body.n, body.p);
    if (pb == NULL) return at_fail(diag, AT_E_DATA, "record", "record: not a record, or damaged");
    struct at_record rec;
    memset(&rec, 0, sizeof rec);
    if (pb->version != RECORD_VERSION)
        return at_fail(diag, AT_E_DATA, "record", "record: version %u is not known here", pb->version);
    rec.time_ms = pb->time_ms;
    if (!at_pb_fixed(&pb->run, rec.run.b, AT_HASH_BYTES) || !read_body(pb, &rec))
        return at_fail(diag, AT_E_DATA, "record", "record: a field has the wrong size or is missing");
    at_err_t err = check_shape(&rec, diag);
    if (err) return err;
    struct record_pb again;
    build(&rec, &again);
    if (!at_pb_packs_to(&again.record.base, body))
        return at_fail(diag, AT_E_DATA, "record", "record: not in canonical form");
    *ret_rec = rec;
    return AT_OK;
}

at_err at_record_decode(struct at_span body, struct at_diag *diag, struct at_record *ret_rec)
{
    if (body.n > AT_RECORD_BYTES_MAX) return at_fail(diag, AT_E_TOO_BIG, "record", "record: larger than 1 KiB");
    return decode_receipt(body, ret_rec) ? AT_OK : decode_any(body, diag, ret_rec);
}

static size_t signed_bytes(struct at_span body, uint8_t ret[sizeof prefix + AT_RECORD_BYTES_MAX])
{
    memcpy(ret, prefix, sizeof prefix);
    memcpy(ret + sizeof prefix, body.p, body.n);
    return sizeof prefix + body.n;
}

at_err at_record_sign(const struct at_record *rec, const struct at_keypair *key, struct at_diag *diag,
                      struct at_signed_record *ret_signed)
{
    at_err_t err = at_record_encode(rec, diag, ret_signed->body, &ret_signed->body_bytes);
    if (err) return err;
    uint8_t text[sizeof prefix + AT_RECORD_BYTES_MAX];
    size_t n = signed_bytes(at_signed_record_body(ret_signed), text);
    ret_signed->author = key->id;
    ret_signed->sig = at_sign(key, at_span(text, n));
    return AT_OK;
}

static const struct at_node_id nobody;

bool at_signed_record_is_unsigned(const struct at_signed_record *rec)
{
    static const struct at_sig none;
    return at_node_id_eq(&rec->author, &nobody) && memcmp(&rec->sig, &none, sizeof none) == 0;
}

at_err_t at_signed_record_verify_by(const struct at_signed_record *rec, const struct at_verifier *verifier)
{
    uint8_t text[sizeof prefix + AT_RECORD_BYTES_MAX];
    if (at_node_id_eq(&rec->author, &nobody)) return AT_E_SIGNATURE;
    size_t n = signed_bytes(at_signed_record_body(rec), text);
    return at_verify_by(verifier, &rec->author, at_span(text, n), &rec->sig);
}

at_err_t at_signed_record_verify(const struct at_signed_record *rec)
{
    return at_signed_record_verify_by(rec, NULL);
}

at_err at_signed_record_from(struct at_span body, struct at_span author, struct at_span sig, struct at_diag *diag,
                             struct at_signed_record *ret_signed)
{
    if (body.n == 0 || body.n > AT_RECORD_BYTES_MAX)
        return at_fail(diag, AT_E_DATA, "record", "record: the body has %zu bytes; 1 to %d are possible", body.n,
                       AT_RECORD_BYTES_MAX);
    if (author.n != AT_KEY_BYTES)
        return at_fail(diag, AT_E_DATA, "record", "record: the author has %zu bytes instead of 32", author.n);
    if (sig.n != AT_SIG_BYTES)
        return at_fail(diag, AT_E_DATA, "record", "record: the signature has %zu bytes instead of 64", sig.n);
    memcpy(ret_signed->author.b, author.p, author.n);
    memcpy(ret_signed->sig.b, sig.p, sig.n);
    memcpy(ret_signed->body, body.p, body.n);
    ret_signed->body_bytes = (uint16_t)body.n;
    return AT_OK;
}

struct at_hash at_signed_record_leaf(const struct at_signed_record *rec)
{
    uint8_t text[AT_KEY_BYTES + AT_SIG_BYTES + AT_RECORD_BYTES_MAX];
    memcpy(text, rec->author.b, AT_KEY_BYTES);
    memcpy(text + AT_KEY_BYTES, rec->sig.b, AT_SIG_BYTES);
    memcpy(text + AT_KEY_BYTES + AT_SIG_BYTES, rec->body, rec->body_bytes);
    return at_merkle_leaf(at_span(text, AT_KEY_BYTES + AT_SIG_BYTES + (size_t)rec->body_bytes));
}
