/* ledger.h: the fold: everything people see (members, rounds, points, shares) computed from genesis and the log, the
 * same on every node. Pure; integers only; Exact: yes.
 *
 * Life of a run, as phases of this fold:
 *
 *     READY --OPEN--> TRAINING --CLOSE--> CLOSED --EPOCH--> READY ...        READY --END--> ENDED
 *
 * What the stewards settle (OPEN, CLOSE, EPOCH, END) takes effect with the word that completes a quorum (words.h): 2f+1
 * for OPEN, CLOSE and END, f+1 for EPOCH; with one steward, at once.
 *
 * A term ends at a round's edge (seats.h): with one steward as soon as four members stand for a seat, itself among them;
 * with several after AT_TERM_ROUNDS, or when a beacon is half used. Who stands then is fixed, with the work confirmed
 * then; the seats are drawn as soon as f+1 leaders have revealed a link of their beacons since, so that nobody who could
 * still choose to stand knew the draw. The next term begins with the block that brings the last of these reveals: what
 * else is in that block is judged with the new seats, and later blocks of the old term are refused.
 *
 * Blocks of several stewards are in the log as BLOCK records without author and signature: at_ledger_begin_block makes
 * them from final blocks, nobody can write one, and what vouches for them is the stewards' quorum under the log's root.
 * Every record of several stewards is in a block, and whoever held the seats when its block came has ordered it: so after
 * the block that begins a term, the old seats sign its size, and then nothing any more.
 *
 * The held-out loss of the state that a round began with comes with its receipts: each unit has a share of the windows
 * (at_ledger_heldout_share), so nobody waits for one who computes it all, and EPOCH must say what follows from those that
 * count. Of the last round's EPOCH it is of the state after it, which nobody trains from: the stewards compute that.
 *
 * EVIDENCE, two things under one seat's key that exclude each other, costs its holder the right to a seat for good: the
 * term ends as soon as somebody without a seat stands, and the seat goes first. Until then its words and votes count as
 * before, for f such are borne, and whoever ran one folder twice by mistake must not stop the run. Points stay: nothing
 * is confiscated.
 *
 * Who may write what, and when a record is refused, is the one table in ledger_judge.c. A record is judged by at_ledger_check
 * (signature included) or at_ledger_judge (without), and taken by at_ledger_apply, which judges again but leaves the
 * signature to its caller. Nothing changes when a record is refused.
 * Codes: AT_E_DATA malformed or not canonical; AT_E_SIGNATURE; AT_E_VERIFY refused, `diag` says why; AT_E_NOMEM.
 * Memory: arrays grow at JOIN, the free list at OPEN; nothing else allocates. */
#ifndef ATOLL_LEDGER_LEDGER_H
#define ATOLL_LEDGER_LEDGER_H

#include "base/samples.h"
#include "ledger/groups.h"
#include "ledger/points.h"
#include "ledger/roles.h"
#include "ledger/seats.h"
#include "ledger/words.h"
#include "model/heldout.h"
#include "wire/beacon.h"
#include "wire/record.h"

#define AT_TERM_ROUNDS        32  /* a term of several stewards lasts at least so long */
#define AT_SEATS_YOUNG_ROUNDS 100 /* until then the founder's ticket decides who may stand, later confirmed work */

enum at_ledger_phase { AT_LEDGER_READY, AT_LEDGER_TRAINING, AT_LEDGER_CLOSED, AT_LEDGER_ENDED };

struct at_member { /* replica index = position = order of first JOIN records */
    struct at_node_id id;
    char name[AT_NAME_BYTES_MAX + 1];
    bool active;          /* joined and has not left; one who left may join again and keeps its index and points */
    uint64_t standing_ms; /* time of its last JOIN or LEAVE; the next must be later: an old one cannot be replayed */
    uint64_t word_ms;     /* the same for its words among several stewards */
    uint64_t confirmed;   /* micro-points */
    uint64_t tokens;      /* of included receipts */
    uint32_t rounds;      /* included receipts */
    struct at_hash last;  /* update of the last of them; zero: none. Its error feedback goes on from there */
    /* its standing for a seat */
    uint32_t stands_for;      /* the term of its READY; 0: none yet */
    struct at_seat stand;     /* what it would hold */
    bool vouched;             /* it has shown a ticket: */
    struct at_node_id ticket; /* this one */
    bool barred;              /* it has signed what excludes itself (EVIDENCE): no seat any more, for good */
};

struct at_allotment { /* a replica's part in the current round; kept from OPEN until the next OPEN */
    bool allotted, received, included;
    struct at_range range;     /* where allotted: of the unit, the same for all of a group */
    struct at_receipt receipt; /* where received: the last one */
    uint32_t complete; /* a group's first member: by whom the unit was computed whose parts are all here; 0: not yet */
};

struct at_ledger { /* read the fields freely; only the functions below write them, and the owner the first */
    const struct at_verifier
        *verifier; /* of the signatures within records; NULL, as at_ledger_init leaves it: at_verify */
    enum at_ledger_phase phase;
    uint32_t round; /* READY: the next one = rounds done; TRAINING, CLOSED: the current one; ENDED: rounds done */
    struct at_hash state_root; /* at the start of `round`: of the last EPOCH, or of OPEN in round 0; zero before that */
    double heldout_loss;       /* the newest that EPOCHs tell; -1: none yet */
    uint32_t
        heldout_rounds; /* of the state after so many rounds: one less than were done then, but at the end of the run */
    uint64_t tokens;    /* of all included receipts */
    uint64_t confirmed; /* micro-points issued in all */
    struct at_merkle tree; /* size = records; root: at_ledger_root */
    struct at_member *members;
    struct at_allotment *allotments;
    struct at_grouped *groups;                           /* [member_count] of the current round */
    struct at_measured *measured;                        /* [member_count] */
    uint32_t member_count, active_count, included_count; /* included_count: units of the last CLOSE */
    struct at_samples samples;
    struct at_seats seats;   /* of this term */
    uint32_t term_round;     /* in which it began */
    uint64_t view, block_ms; /* of the last BLOCK */
    struct at_beacon beacon; /* after it */
    /* private */
    bool drawing; /* the term is over; the draw waits for reveals after: */
    struct at_beacon cut;
    size_t candidate_count; /* of those who stood then: */
    struct at_candidate *candidates;
    uint32_t member_cap, slot_count;
    struct at_ledger_slot {   /* node id -> replica, open addressing; the id itself, so that a look at the member is */
        struct at_node_id id; /* not needed: each would be one at memory that is in no cache */
        uint32_t replica1;    /* + 1; 0: empty */
    } * slots;
    uint32_t *update_heads, *update_next; /* updates.c; [slot_count] and [member_cap] replica + 1, 0: none */
    struct at_points_claim *claims;
    struct at_roles_room room;
    uint64_t *term_ends; /* [i]: records ordered by the terms up to the (i + 1)st */
    uint32_t term_end_count;
    uint64_t flops_per_token;
    /* large */
    struct at_seats former;  /* of the term before; count 0 in the first */
    struct at_seats signers; /* who ordered the last record: a quorum of these signs the log's present size; before the
                              * first record: `seats` */
    struct at_steward_words words,
        end_words; /* of the running phase; END's apart: whoever wants the end may open meanwhile */
    struct at_hash run;
    struct at_genesis genesis;
};

/* Copies the genesis. AT_E_DATA when it is out of range. */
at_err at_ledger_init(struct at_ledger *ledger, const struct at_genesis *genesis, struct at_diag *diag);
void at_ledger_release(struct at_ledger *ledger);

/* Would this record be accepted as the next one? check: signature, form, rules. judge: form and rules. */
at_err at_ledger_check(const struct at_ledger *ledger, const struct at_signed_record *rec, struct at_diag *diag);
at_err at_ledger_judge(const struct at_ledger *ledger, const struct at_signed_record *rec, struct at_diag *diag,
                       struct at_record *ret_rec);
/* Judges, then takes it as the next record. The signature must have been checked. ret_rec may be NULL. */
at_err at_ledger_apply(struct at_ledger *ledger, const struct at_signed_record *rec, struct at_diag *diag,
                       struct at_record *ret_rec);
/* The same for one whose leaf (at_signed_record_leaf) the caller has. */
at_err at_ledger_apply_leaf(struct at_ledger *ledger, const struct at_signed_record *rec, struct at_hash leaf,
                            struct at_diag *diag, struct at_record *ret_rec);

/* A block that the stewards have made final, before its records: the BLOCK record as it is in the log now. AT_E_VERIFY:
 * it is of another term, and none of its records count. */
struct at_block_head {
    uint32_t term;
    uint64_t view, time_ms;
    struct at_hash reveal;
};
at_err at_ledger_begin_block(struct at_ledger *ledger, const struct at_block_head *head, struct at_diag *diag,
                             struct at_signed_record *ret_rec);

/* The seat of a member in this term, or -1. */
static inline int at_ledger_seat(const struct at_ledger *ledger, const struct at_node_id *id)
{
    return at_seats_find(&ledger->seats, id);
}
/* A stretch of the log that begins with record `from` is ordered by one term up to this size; UINT64_MAX: it has not ended. */
uint64_t at_ledger_term_end(const struct at_ledger *ledger, uint64_t from);
/* The replica whose seat has, had last term or would have this key; or -1. */
int at_ledger_key_holder(const struct at_ledger *ledger, const struct at_node_id *key);
/* What a steward's record (OPEN, CLOSE, EPOCH, END) says, as a word. */
struct at_word at_ledger_word(const struct at_record *rec);
/* Replica index of a key, or -1. O(1). */
int at_ledger_find(const struct at_ledger *ledger, const struct at_node_id *id);
/* The current round's unit of a replica: its range after OPEN, its receipt. NULL: it takes no part. */
const struct at_allotment *at_ledger_allotment(const struct at_ledger *ledger, uint32_t replica);
/* Of a replica that takes part: by whom its group's unit was computed whose parts are all here (bits of places; 1 where
 * members work alone); 0: not yet. */
uint32_t at_ledger_unit_complete(const struct at_ledger *ledger, uint32_t replica);
/* It was named by the last OPEN: it has a part in the round, or sits it out (groups.h). */
static inline bool at_ledger_in_round(const struct at_ledger *ledger, uint32_t replica)
{
    return ledger->groups[replica].role != AT_GROUP_ROLE_NONE;
}
/* The stages in which those in `group` (as a receipt names them) of the replica's group compute its unit. One: group is 0, or
 * of another round: there is no such set of which the replica is one. */
struct at_stage_cut at_ledger_cut(const struct at_ledger *ledger, uint32_t replica, uint32_t group);
/* What a step takes those of the replica's group, in microseconds, as far as is known; 0: it is not. */
uint64_t at_ledger_step_us(const struct at_ledger *ledger, uint32_t replica);
/* The windows whose loss under the round's state the replica's unit tells of: the units take turns along the text, and none
 * has more of them than cost an eighth of its steps, or one. The same for every round of as many units and steps. step 0: it
 * has no unit. In a group the last stage writes it. */
struct at_heldout_share at_ledger_heldout_share(const struct at_ledger *ledger, uint32_t replica);
/* Of a closed round: the loss of the state that it began with, by the receipts that count; 0: none of them tells, it is not
 * known. */
double at_ledger_heldout(const struct at_ledger *ledger);
/* Its receipt is one of those parts. */
bool at_ledger_part_counts(const struct at_ledger *ledger, uint32_t replica);
struct at_hash at_ledger_root(const struct at_ledger *ledger); /* the head */
/* SHA-256 over members in replica order: id ‖ confirmed (le64). What EPOCH must carry once its round is closed. */
struct at_hash at_ledger_balances(const struct at_ledger *ledger);
/* Micro-points each replica would get if the round closed with the receipts so far; 0 outside TRAINING.
 * ret_points: member_count values. Uses the ledger's scratch: not for two threads at once. */
void at_ledger_pending(struct at_ledger *ledger, uint64_t *ret_points);
/* confirmed / all confirmed; 0 when nothing is confirmed yet. For people: not part of the fold. */
double at_ledger_share(const struct at_ledger *ledger, uint32_t replica);
/* The settings of the round that `round` names. */
struct at_round at_ledger_round(const struct at_ledger *ledger);
/* The largest plausible update blob of this run. */
uint64_t at_ledger_update_bytes_max(const struct at_ledger *ledger);

#endif
