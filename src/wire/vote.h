/* vote.h: what stewards sign to agree on an order (Simplex, Chan & Pass 2023), and the proof that one of them lied.
 * Pure; no allocation; Exact: yes.
 *
 * A vote's signature covers "atoll vote 1\0" ‖ run ‖ term (le32) ‖ view (le64) ‖ kind (1 byte) ‖ hash (32 bytes, zero
 * for the dummy). 2f+1 equal votes of different seats are a certificate. Which key holds which seat is the caller's
 * knowledge; only the form is judged here. */
#ifndef ATOLL_WIRE_VOTE_H
#define ATOLL_WIRE_VOTE_H

#include "base/sign.h"
#include "wire/log_checkpoint.h"

#define AT_SEATS_MAX          31                  /* n = 3f+1, f = 0..10 */
#define AT_VIEW_MAX           (UINT64_C(1) << 62) /* so that view arithmetic cannot wrap */
#define AT_EVIDENCE_BYTES_MAX 1024

enum at_vote_kind { AT_VOTE_NONE, AT_VOTE_BLOCK, AT_VOTE_DUMMY, AT_VOTE_FINAL, AT_VOTE_KIND_COUNT };

struct at_vote {
    uint64_t view; /* 1 .. AT_VIEW_MAX */
    enum at_vote_kind kind;
    struct at_hash hash; /* zero for the dummy */
    uint32_t seat;
    struct at_sig sig;
};

/* seats == 0: none. */
struct at_certificate {
    uint64_t view;
    enum at_vote_kind kind;
    struct at_hash hash;
    uint32_t seats;                  /* bit i: seat i signed */
    struct at_sig sig[AT_SEATS_MAX]; /* of the seats in `seats`, ascending, without gaps */
};

/* The leader of a view: seats in turn. Everybody can compute it, a dead seat costs one time-out in n views, and no one
 * can arrange to lead often. The order of the seats is the caller's. */
static inline uint32_t at_view_leader(uint64_t view, uint32_t seat_count)
{
    return (uint32_t)(view % seat_count);
}

/* The bytes that are signed. */
#define AT_VOTE_TEXT_BYTES (13 + AT_HASH_BYTES + 4 + 8 + 1 + AT_HASH_BYTES)
void at_vote_text(const struct at_vote *vote, struct at_hash run, uint32_t term, uint8_t ret[AT_VOTE_TEXT_BYTES]);
/* AT_E_SIGNATURE. verifier NULL, here and below: at_verify. */
at_err at_vote_verify(const struct at_vote *vote, const struct at_node_id *key, struct at_hash run, uint32_t term,
                      const struct at_verifier *verifier);

/* Do two votes of one seat and view exclude each other: different blocks, different finalisations, dummy and finalise? */
bool at_votes_exclude(const struct at_vote *a, const struct at_vote *b);

/* The i-th of a certificate's votes, i < popcount(seats). */
struct at_vote at_certificate_vote(const struct at_certificate *c, uint32_t i);

/* EVIDENCE: signed by one key; either two votes that exclude each other, or two roots of one log size. */
struct at_evidence {
    struct at_hash run;
    struct at_node_id key;
    bool of_votes;
    uint32_t term;                     /* of_votes */
    struct at_vote vote[2];            /* of_votes: ascending by (kind, hash); seat 0: it is not signed, `key` is */
    struct at_log_checkpoint roots[2]; /* else: ascending by root; `steward` is `key` */
};
/* Puts the pair in order. They must exclude each other. */
struct at_evidence at_evidence_of_votes(struct at_hash run, const struct at_node_id *key, uint32_t term,
                                        const struct at_vote *a, const struct at_vote *b);
struct at_evidence at_evidence_of_roots(struct at_hash run, const struct at_log_checkpoint *a,
                                        const struct at_log_checkpoint *b);
/* One key, one place, two things that exclude each other, in the one order. Signatures: at_evidence_verify. */
bool at_evidence_proves(const struct at_evidence *e);
/* At most AT_EVIDENCE_BYTES_MAX into ret_bytes. AT_E_DATA: the pair proves nothing. */
at_err at_evidence_encode(const struct at_evidence *e, uint8_t *ret_bytes, size_t *ret_n);
/* AT_E_DATA: not canonical, or the pair proves nothing. Signatures are not checked here. */
at_err at_evidence_decode(struct at_span bytes, struct at_diag *diag, struct at_evidence *ret_evidence);
/* Both signatures. AT_E_SIGNATURE: it is no proof. */
at_err at_evidence_verify(const struct at_evidence *e, const struct at_verifier *verifier);

#endif
