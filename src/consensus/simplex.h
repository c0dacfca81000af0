/* simplex.h: one order of records among n = 3f+1 stewards, as a pure machine. Simplex consensus (Chan & Pass, "Simplex
 * Consensus: A Simple and Fast Consensus Protocol", TCC 2023). n = 1 is the same code with a quorum of one.
 *
 * Views h = 1, 2, ... follow each other within a term. Each has one leader; it ends with a *notarisation*: 2f+1 votes
 * for a block, or for the view's dummy. A block names its parent; it is *final* with 2f+1 finalise votes for it or for a
 * descendant. Two quorums share an honest seat, and an honest seat sends in one view at most one block vote, and never
 * both dummy and finalise: hence no two final blocks exclude each other.
 *
 *   event in view h                          does
 *   it leads h, and something waits          proposes a block whose parent (view p) is notarised, with p's notarisation
 *                                            and those of the dummies of every view p+1 .. h-1. Its block vote signs it
 *   the leader's first valid block           block vote: one per view, none after the own timer fired. Valid: size,
 *                                            form, records' signatures (check), leader's signature, parent and dummies
 *                                            as above, reveal, parent's time < time <= own clock + 5 s
 *   3Δ with something waiting                dummy vote, also after a block vote
 *   2f+1 equal votes of a view >= h          a notarisation: moves on, passes it to whoever has not shown to have it
 *   a notarised block, no own dummy vote     finalise(view, hash); never dummy in that view afterwards
 *   2f+1 finalise(view, hash)                block and ancestors are final, told in order
 *   every Δ with something waiting           resends own votes and the notarisation of h-1, and in turn those of an older
 *                                            view that has a notarised block; asks for what is missing
 *   moved by a dummy, or after an own dummy  Δ doubles: the time was too short for us, whatever the others saw
 *   a block is final                         Δ shrinks to 7/10. Both within its bounds: with f seats dead it still comes
 *                                            down, because 2^f (7/10)^(2f+1) < 1
 *   nothing waiting                          no timer runs, nothing is sent
 *
 * "Something waits": a record that is in no notarised block; f+1 dummy votes in h; or, Δ after h began, a record whose
 * notarised block is not final (that long its finalise votes may take, and no empty block is made meanwhile).
 *
 * Durable before sent: every op that persists belongs to a transaction with a number; own votes, and certificates they
 * are in, leave only after PERSISTED says so. For n = 1 block and votes are one transaction;
 * finality, which nothing waits for, is in the next, which may be written together with the next block's.
 *
 * State      event                                        next
 * silent     START                                        asking (n = 1: voting)
 * asking     2f peers told which votes of ours they know  voting
 * any        a vote of our own that our store lacks       abstaining: an old disk; no vote any more in this term
 * It listens, serves and follows in every state; only voting seats vote.
 *
 * Order, then fold: records are opaque here, and the same record may be in two blocks (of hostile leaders). The ledger
 * judges them after finality, in order, and drops what it refuses.
 *
 * Bounds: AT_SIMPLEX_WINDOW views after the last final block are kept, two blocks' outlines for each; a seat has one vote
 * of a kind in each. 256 records wait, of which peers may fill a share each; a peer's record that is not final after 16 Δ
 * is its origin's business again (a hostile peer may have told it to one seat only). A peer gets 64 blocks' worth of
 * answers in Δ, and a message of its costs no more than the check of what is new in it up to the first lie. All memory is
 * allocated by init. Blocks' bytes are the driver's to keep.
 *
 * The window's end: nobody enters a view beyond it, and in the last view no timer runs, for nothing could follow. It is
 * not reached: in its second half the timer doubles again and again, without the bound of Δ, up to 2^24 times. How long
 * timers are has no part in the proof above. Finalise votes of older views are resent in turn, so that no lost one
 * counts.
 *
 * The driver applies ops in order; stores all of one update's persist ops in one transaction, then gives PERSISTED. On
 * start it gives back (restore) what it has stored: own votes, certificates and blocks of views after the tip's; the own
 * votes of the newest view in any case; the last final blocks, in order, with AT_SIMPLEX_RECENT records in all, so that
 * all seats agree on which records are not taken again. What is at or before the tip may go, but for final blocks and
 * their certificates, which laggards ask for (SERVE). */
#ifndef ATOLL_CONSENSUS_SIMPLEX_H
#define ATOLL_CONSENSUS_SIMPLEX_H

#include "wire/agree.h"
#include "wire/beacon.h"

#define AT_SIMPLEX_QUEUE_MAX   256
#define AT_SIMPLEX_FUTURE_MS   5000
#define AT_SIMPLEX_VIEWS_MIN   8
#define AT_SIMPLEX_WINDOW      256 /* of the protocol: seats of one run must not differ in it */
#define AT_SIMPLEX_RECENT      512 /* final records that are not taken again into the queue */
#define AT_SIMPLEX_NO_DEADLINE UINT64_MAX

/* What blocks build on. */
struct at_simplex_state {
    uint64_t time_ms;
    struct at_beacon beacon;
};
struct at_simplex_tip { /* the last final block; view 0: what the term begins with */
    uint64_t view;
    struct at_hash hash;
    struct at_simplex_state state;
    struct at_certificate certificate; /* its finalisation; none at view 0 */
};

/* Planted faults, for the tests of the tests. Zero in every other use. */
enum at_simplex_canary {
    AT_SIMPLEX_CANARY_NO_DUMMIES = 1,    /* a parent without the dummies between */
    AT_SIMPLEX_CANARY_TIMER_FORBIDS = 2, /* no dummy vote after a block vote */
    AT_SIMPLEX_CANARY_EARLY_SEND = 4,    /* sends before it is durable */
};

struct at_simplex_options {
    struct at_hash run;
    uint32_t term;
    uint32_t seat_count; /* 3f+1 */
    uint32_t seat;       /* the own one */
    struct at_simplex_tip tip;
    bool abstain;       /* as stored */
    uint64_t nonce;     /* random: of this start */
    uint32_t views_max; /* 0: AT_SIMPLEX_WINDOW. Tests only: AT_SIMPLEX_VIEWS_MIN .. AT_SIMPLEX_WINDOW */
    uint32_t delta_ms, delta_max_ms;
    /* The own one; borrowed. For n = 1 NULL: a draw by one seat is no draw, so its blocks reveal nothing (zero). */
    const struct at_beacon_chain *chain;
    /* Signs for the own seat; checks for vote->seat (AT_E_SIGNATURE); checks a record's signature and whatever else
     * depends on nothing but the record. */
    void (*sign)(void *user, struct at_vote *vote);
    at_err_t (*verify)(void *user, const struct at_vote *vote);
    at_err_t (*check)(void *user, const struct at_signed_record *record, struct at_diag *diag);
    void *user;
    unsigned canary;
};

enum at_simplex_event_kind {
    AT_SIMPLEX_START = 1, /* after the restores */
    AT_SIMPLEX_TICK,      /* at or after the deadline */
    AT_SIMPLEX_PERSISTED, /* `persisted` */
    AT_SIMPLEX_SUBMIT,    /* `record`; copied */
    AT_SIMPLEX_MESSAGE,   /* `from`, `message`; borrowed for the step */
    AT_SIMPLEX_LINK,      /* there is a new link to `from` */
};
struct at_simplex_event {
    enum at_simplex_event_kind kind;
    uint64_t now_ms;    /* never goes back */
    uint64_t clock_ms;  /* Unix time; may jump */
    uint64_t persisted; /* every transaction up to this number is durable */
    uint32_t from;      /* the peer's seat, < seat_count, as the link has proved it */
    const struct at_signed_record *record;
    const struct at_agree *message;
};

enum at_simplex_op_kind {
    /* persist: */
    AT_SIMPLEX_PERSIST_VOTE = 1,    /* vote */
    AT_SIMPLEX_PERSIST_CERTIFICATE, /* certificate */
    AT_SIMPLEX_PERSIST_BLOCK,       /* view, hash, bytes */
    AT_SIMPLEX_PERSIST_ABSTAIN,
    AT_SIMPLEX_FINAL, /* view, hash, time_ms: the next of the chain; its bytes were PERSIST_BLOCK's. With the last of a
                       * run also `certificate`, to be kept with the block, and `tip`, for options.tip at the next start */
    /* send: */
    AT_SIMPLEX_SEND,       /* message, to every seat in `to` */
    AT_SIMPLEX_SEND_BLOCK, /* the stored block `hash` of `view`, as a proposal without signature, to `to`; if it is there */
    AT_SIMPLEX_SERVE,      /* stored final blocks of views > `view` to `to`, ascending, until a certificate's view is >=
                            * `last`: each block with a certificate, that first, then the blocks before it that have none */
    /* tell: */
    AT_SIMPLEX_EVIDENCE, /* votes[2] of one seat */
};
struct at_simplex_op {
    enum at_simplex_op_kind kind;
    uint64_t view, last;
    struct at_hash hash;
    uint64_t time_ms;
    struct at_span bytes;
    struct at_vote votes[2]; /* PERSIST_VOTE: the first */
    const struct at_certificate *certificate;
    const struct at_simplex_tip *tip;
    uint32_t to; /* bit i: seat i */
    struct at_agree message;
};
/* Borrowed until the next step. */
struct at_simplex_update {
    at_err_t
        err; /* SUBMIT: AT_E_TOO_BIG: the queue is full; or `check` refused. MESSAGE: AT_E_PEER: what no honest seat
                   * passes on, a forged signature or a malformed block: the link is to be closed. Any: AT_E_VERIFY: a
                   * quorum signed what excludes what is final: more than f seats lie; nothing is done any more */
    const struct at_simplex_op *ops;
    size_t op_count;
    uint64_t persist; /* not 0: the number of this update's transaction */
};

struct at_simplex;

/* AT_E_NOMEM; AT_E_USAGE: an option is out of range. */
at_err at_simplex_init(const struct at_simplex_options *options, struct at_simplex **ret_simplex);
void at_simplex_release(struct at_simplex *x);
/* Before START: an own VOTE, a CERTIFICATE, or a block (PROPOSAL; one at or before the tip must be final) from the store.
 * AT_E_DATA: it cannot be ours. */
at_err at_simplex_restore(struct at_simplex *x, const struct at_agree *stored);
void at_simplex_step(struct at_simplex *x, const struct at_simplex_event *event, struct at_simplex_update *ret_update);
/* now_ms at which a TICK is due, or AT_SIMPLEX_NO_DEADLINE. */
uint64_t at_simplex_deadline(const struct at_simplex *x);

/* Where it stands, for people and for tests. */
struct at_simplex_status {
    uint64_t view, tip_view;
    uint32_t pending, delta_ms;
    bool voting, abstaining;
};
struct at_simplex_status at_simplex_status(const struct at_simplex *x);

#endif
