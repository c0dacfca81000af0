/* record.h: what the ledger is made of: canonical records of at most 1 KiB, signed by their author. Pure; Exact: yes.
 *
 * The signature covers "atoll record 1\0" ‖ body. Received bytes are kept as received; a body that is not
 * byte-identical to its own re-encoding is refused, so one meaning has one spelling and one hash. The log's leaf (RFC
 * 6962) is the hash over author ‖ sig ‖ body. What a record may say at a given point of the log is the ledger's
 * business (ledger/ledger.h); here only its shape is judged: sizes, ranges, finite numbers, printable names. */
#ifndef ATOLL_WIRE_RECORD_H
#define ATOLL_WIRE_RECORD_H

#include "base/merkle.h"
#include "base/sign.h"
#include "model/heldout.h"
#include "wire/genesis.h"
#include "wire/measure.h"
#include "wire/ticket.h"
#include "wire/vote.h"

#define AT_RECORD_BYTES_MAX 1024
#define AT_NAME_BYTES_MAX   32

/* A set of replica indices below AT_MEMBERS_MAX. On the wire: bit i of byte i/8, no zero byte at the end. */
struct at_replicas {
    uint8_t b[AT_MEMBERS_MAX / 8];
};
static inline bool at_replicas_has(const struct at_replicas *set, uint32_t replica)
{
    return replica < AT_MEMBERS_MAX && (set->b[replica / 8] >> (replica % 8) & 1) != 0;
}
static inline void at_replicas_add(struct at_replicas *set, uint32_t replica)
{
    AT_ASSERT(replica < AT_MEMBERS_MAX);
    set->b[replica / 8] |= (uint8_t)(1u << (replica % 8));
}
uint32_t at_replicas_count(const struct at_replicas *set);
/* The smallest member >= from, or AT_MEMBERS_MAX:
 * for (r = at_replicas_next(s, 0); r < AT_MEMBERS_MAX; r = at_replicas_next(s, r + 1)). */
uint32_t at_replicas_next(const struct at_replicas *set, uint32_t from);

enum at_record_kind {
    AT_RECORD_NONE,
    AT_RECORD_JOIN,
    AT_RECORD_LEAVE,
    AT_RECORD_OPEN,
    AT_RECORD_RECEIPT,
    AT_RECORD_CLOSE,
    AT_RECORD_EPOCH,
    AT_RECORD_END,
    AT_RECORD_READY,
    AT_RECORD_BLOCK,
    AT_RECORD_EVIDENCE,
    AT_RECORD_MEASURE,
    AT_RECORD_KIND_COUNT
};
const char *at_record_kind_name(enum at_record_kind kind); /* "JOIN", ...; never NULL */

struct at_join { /* the newcomer */
    char name[AT_NAME_BYTES_MAX + 1];
};
struct at_open { /* the steward */
    uint32_t round;
    struct at_hash state_root;
    struct at_replicas replicas; /* who takes part; their sample ranges follow from the log (at_ledger_unit) */
};
struct at_receipt { /* the member that did the unit */
    uint32_t round, replica;
    struct at_hash state_in;
    uint64_t start; /* first sample of the allotted range */
    uint32_t samples, steps;
    uint64_t tokens, flops;
    struct at_hash update; /* SHA-256 of the update blob */
    uint64_t update_bytes;
    uint32_t
        group; /* in a run of stages: who computed the unit, bit i: place i of the group (ledger/groups.h). Else 0 */
    uint32_t took_ms;        /* there: how long the unit took, as its author saw it; 0: not said */
    struct at_hash feedback; /* SHA-256 of the error feedback that the unit began with; zero: it was zero */
    uint32_t heldout;        /* of its share of the held-out text under state_in (model/heldout.h); 0: not computed */
};
struct at_close { /* the steward */
    uint32_t round;
    struct at_replicas included;
};
struct at_epoch { /* the steward, when the round has been applied */
    uint32_t round;
    struct at_hash state_root;
    double
        heldout_loss; /* nats per byte; finite, >= 0. Of the state that the round began with, by the receipts (ledger.h); in
                          * the last round of all, of state_root. 0: nobody told, it is not known */
    struct at_hash balances;
};
struct at_end { /* the steward */
    uint32_t rounds;
};
struct at_stand { /* READY: a member that will hold a seat of the next term, if it is drawn */
    uint32_t term;
    struct at_node_id key; /* signs its votes and cosignatures in that term */
    struct at_sig key_use; /* the key's own, over its member: nobody can show another's key (wire/ticket.h) */
    struct at_hash chain;  /* its beacon's commitment */
    bool has_ticket;
    struct at_ticket_use ticket;
};
struct at_head { /* BLOCK: of several stewards; it has no author and no signature; time_ms is the block's */
    uint32_t term;
    uint64_t view;
    struct at_hash reveal;
};

struct at_record {
    struct at_hash run;
    uint64_t time_ms; /* the author's Unix clock */
    enum at_record_kind kind;
    union {
        struct at_join join;
        struct at_open open;
        struct at_receipt receipt;
        struct at_close close;
        struct at_epoch epoch;
        struct at_end end;
        struct at_stand stand;
        struct at_head head;
        struct at_measure measure;   /* an active member, of itself */
        struct at_evidence evidence; /* any member; its signatures are the ledger's to check */
    };
};

/* A record as it is kept and sent: the bytes themselves. Owns them. */
struct at_signed_record {
    struct at_node_id author;
    struct at_sig sig;
    uint16_t body_bytes;
    uint8_t body[AT_RECORD_BYTES_MAX];
};
static inline struct at_span at_signed_record_body(const struct at_signed_record *rec)
{
    return at_span(rec->body, rec->body_bytes);
}

/* Body bytes into ret_body (AT_RECORD_BYTES_MAX). AT_E_DATA when a field is out of shape. */
at_err at_record_encode(const struct at_record *rec, struct at_diag *diag, uint8_t *ret_body, uint16_t *ret_bytes);
/* AT_E_DATA: not a canonical record of this version. AT_E_TOO_BIG: more than 1 KiB. */
at_err at_record_decode(struct at_span body, struct at_diag *diag, struct at_record *ret_rec);

/* Encodes and signs. */
at_err at_record_sign(const struct at_record *rec, const struct at_keypair *key, struct at_diag *diag,
                      struct at_signed_record *ret_signed);
/* AT_E_SIGNATURE. Says nothing about the meaning. */
at_err at_signed_record_verify(const struct at_signed_record *rec);
at_err at_signed_record_verify_by(const struct at_signed_record *rec, const struct at_verifier *verifier);
/* Author and signature are zero: nobody's word, as of a BLOCK. Nobody's signature verifies, though zero is a point of the
 * curve of which one in four texts is "signed" by zero. */
bool at_signed_record_is_unsigned(const struct at_signed_record *rec);
/* The three stored columns, of any sizes, into one object. AT_E_DATA: a size is impossible. */
at_err at_signed_record_from(struct at_span body, struct at_span author, struct at_span sig, struct at_diag *diag,
                             struct at_signed_record *ret_signed);
struct at_hash at_signed_record_leaf(const struct at_signed_record *rec);

#endif
