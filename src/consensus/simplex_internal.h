/* simplex_internal.h: the insides of the machine: simplex.c (events, time, what is sent), simplex_votes.c (views, votes,
 * certificates), simplex_blocks.c (blocks, proposals, finality), simplex_queue.c (records that wait), simplex_sync.c
 * (laggards, restarts). */
#ifndef ATOLL_CONSENSUS_SIMPLEX_INTERNAL_H
#define ATOLL_CONSENSUS_SIMPLEX_INTERNAL_H

#include "consensus/simplex.h"

#define AT_BIT(i) (UINT32_C(1) << (i))

/* A seat's votes in one view: the first of each kind; what excludes an earlier one is evidence and is not counted. */
struct at_simplex_ballot {
    uint32_t has; /* AT_BIT(kind) */
    bool told;    /* evidence */
    struct at_hash hash[AT_VOTE_KIND_COUNT];
    struct at_sig sig[AT_VOTE_KIND_COUNT];
};

/* A block's outline. Its bytes are in the driver's store. */
struct at_simplex_block {
    bool have, ready; /* ready: `state` is computed */
    struct at_hash hash, parent, reveal;
    uint64_t view, parent_view, time_ms;
    uint32_t record_count;
    struct at_hash leaf[AT_BLOCK_RECORDS_MAX];
    struct at_simplex_state state; /* after it */
};

struct at_simplex_view {
    uint64_t view;                        /* 0: never used */
    uint64_t own_seq[AT_VOTE_KIND_COUNT]; /* the transaction of each own vote */
    uint32_t own_sent;                    /* AT_BIT(kind) */
    struct at_simplex_block block[2];     /* the leader's; the notarised one where that is another */
    struct at_certificate certificate[AT_VOTE_KIND_COUNT];
    struct at_simplex_ballot ballot[AT_SEATS_MAX];
};

struct at_simplex_pending {
    struct at_signed_record record;
    struct at_hash leaf;
    uint32_t origin;  /* the seat that told of it */
    uint64_t in_view; /* the newest known block with it; 0: none */
    uint32_t age;     /* how often Δ has gone by since, while something waited */
};

struct at_simplex_want { /* the one thing asked for most urgently */
    bool set;
    struct at_agree_ask ask;
    uint64_t asked_ms; /* of the last ask sent */
    uint32_t asked;    /* seat */
};

struct at_simplex_peer {
    uint64_t view;         /* it has shown to have the certificate of the view before */
    uint32_t newest_count; /* the newest votes of its seat */
    struct at_vote newest[AT_NEWEST_MAX];
    uint64_t served_ms, served_last, asked_ms, asked_tip;
    bool served, asked;
    uint64_t spent_ms; /* since then it has cost `spent` blocks' worth of answers */
    uint32_t spent;
};

struct at_simplex {
    struct at_simplex_options options;
    uint32_t f;
    uint32_t me;
    struct at_simplex_tip tip;
    /* The tip's view when the step began. The ring holds the `views_max` views after it, so what ops point to stays where
     * it is until the next step, though the tip may move meanwhile. */
    uint64_t window;
    struct at_certificate window_certificate; /* of that view */
    uint64_t view;
    uint64_t top,
        final_top; /* the newest view with any certificate; with a finalisation that is not told yet. 0: none */
    bool started, restoring, abstaining, broken;
    uint32_t answered;       /* seats that told our newest votes */
    uint64_t own_newest;     /* the newest view with own votes, */
    uint32_t own_newest_has; /* and their kinds, AT_BIT(kind) */
    /* time */
    uint64_t now_ms, clock_ms, entered_ms;
    uint64_t timer_ms, resend_ms; /* 0: not running */
    uint32_t timer_stretch;       /* it was set with */
    uint64_t older;               /* views up to this one are still to be resent, newest first; 0: begin again */
    uint32_t delta_ms;
    bool fast, slow; /* something waits; something waits once Δ has gone by in this view */
    /* durability and what waits for it */
    uint64_t seq, durable, vote_seq; /* transactions: begun, durable, with the last own vote */
    uint64_t relay_view;             /* its certificate is to be passed on; 0: none */
    /* the block that was proposed last */
    uint64_t out_view;
    size_t out_n;
    uint8_t *out;  /* AT_BLOCK_BYTES_MAX */
    bool out_lent; /* to an op of this step */
    struct at_block_room *room;
    /* */
    struct at_simplex_want want_block, want_certificates;
    struct at_simplex_peer peer[AT_SEATS_MAX];
    struct at_simplex_view *views;        /* ring of options.views_max */
    struct at_simplex_block **path;       /* scratch of views_max */
    struct at_simplex_pending *queue;     /* AT_SIMPLEX_QUEUE_MAX */
    uint16_t order[AT_SIMPLEX_QUEUE_MAX]; /* places in the queue: waiting ones first, oldest first; then free ones */
    uint32_t queue_count;
    struct at_hash recent[AT_SIMPLEX_RECENT];
    uint32_t recent_next;
    /* this step */
    uint32_t from; /* the event's peer, or AT_SEATS_MAX */
    struct at_simplex_update update;
    struct at_simplex_op *ops;
    size_t ops_max;
};

/* simplex.c */
struct at_simplex_op *at_simplex_op(struct at_simplex *x, enum at_simplex_op_kind kind); /* one that may not be lost */
/* A message to the seats in `to` but the own; NULL when nobody is left, or too much is sent at once (it will be resent). */
struct at_agree *at_simplex_send(struct at_simplex *x, uint32_t to, enum at_agree_kind kind);
bool at_simplex_tell_evidence(struct at_simplex *x, const struct at_vote *a, const struct at_vote *b); /* false: full */
static inline uint32_t at_simplex_all(const struct at_simplex *x)
{
    return (UINT32_C(1) << x->options.seat_count) - 1;
}
static inline bool at_simplex_voting(const struct at_simplex *x)
{
    return x->started && !x->abstaining && (uint32_t)__builtin_popcount(x->answered) >= 2 * x->f;
}
static inline bool at_simplex_canary(const struct at_simplex *x, unsigned which)
{
    return (x->options.canary & which) != 0;
}

/* simplex_votes.c */
struct at_simplex_view *at_simplex_view(const struct at_simplex *x, uint64_t view); /* NULL: nothing known of it */
struct at_simplex_view *at_simplex_view_take(struct at_simplex *x, uint64_t view);  /* NULL: outside the window */
bool at_simplex_notarised(const struct at_simplex *x, uint64_t view, const struct at_hash *hash); /* or the tip */
const struct at_certificate *at_simplex_dummy(const struct at_simplex *x, uint64_t view);         /* or NULL */
/* The certificate that says most of a view, or NULL. */
const struct at_certificate *at_simplex_certificate(const struct at_simplex *x, uint64_t view);
bool at_simplex_durable(const struct at_simplex *x, uint64_t view); /* every own vote in it is */
uint32_t at_simplex_vote_count(const struct at_simplex *x, uint64_t view, enum at_vote_kind kind);
bool at_simplex_cast(struct at_simplex *x, uint64_t view, enum at_vote_kind kind, struct at_hash hash);
void at_simplex_finalise(struct at_simplex *x);                             /* votes so wherever it may */
void at_simplex_note_own(struct at_simplex *x, const struct at_vote *vote); /* cast now, or in an earlier life */
void at_simplex_note(struct at_simplex *x, const struct at_vote *vote);     /* a vote known to be authentic */
/* These: AT_E_PEER: no honest seat passes it on. */
at_err_t at_simplex_take_vote(struct at_simplex *x, const struct at_vote *vote);
at_err_t at_simplex_take_certificate(struct at_simplex *x, const struct at_certificate *certificate);

/* simplex_blocks.c */
struct at_simplex_block *at_simplex_block(const struct at_simplex *x, uint64_t view, const struct at_hash *hash);
/* `sig`: the leader's, or NULL. AT_E_PEER: as above. */
at_err_t at_simplex_take_block(struct at_simplex *x, struct at_span bytes, const struct at_sig *sig);
void at_simplex_propose(struct at_simplex *x);
void at_simplex_vote(struct at_simplex *x);
bool at_simplex_tell_final(struct at_simplex *x); /* true: the tip moved */
uint32_t at_simplex_certificates(const struct at_simplex *x, const struct at_simplex_block *block,
                                 const struct at_certificate *ret[AT_PROPOSAL_CERTIFICATES_MAX]);

/* simplex_queue.c */
void at_simplex_queue_init(struct at_simplex *x);
at_err at_simplex_queue_add(struct at_simplex *x, uint32_t origin, const struct at_signed_record *record);
void at_simplex_queue_seen(struct at_simplex *x, const struct at_simplex_block *block);  /* it is known */
void at_simplex_queue_recent(struct at_simplex *x, struct at_hash leaf);                 /* final: not taken again */
void at_simplex_queue_final(struct at_simplex *x, const struct at_simplex_block *block); /* its records go */
/* Δ has gone by: tells the oldest own records again, and forgets what others keep for themselves. */
void at_simplex_queue_age(struct at_simplex *x);
/* Copies what waits and is in no block from `parent` back to the tip. Returns how many. */
uint32_t at_simplex_queue_pick(const struct at_simplex *x, uint64_t parent_view, const struct at_hash *parent,
                               struct at_signed_record *ret, uint32_t max);
void at_simplex_queue_weigh(struct at_simplex *x); /* sets fast and slow */

/* simplex_sync.c */
void at_simplex_abstain(struct at_simplex *x);
void at_simplex_send_status(struct at_simplex *x, uint32_t to, bool asks);
void at_simplex_catch_up(struct at_simplex *x, uint32_t from); /* this peer seems to be ahead */
at_err_t at_simplex_take_sync(struct at_simplex *x, const struct at_agree *message);
void at_simplex_want_block(struct at_simplex *x, uint64_t view, const struct at_hash *hash);
void at_simplex_want_certificates(struct at_simplex *x, uint64_t first, uint64_t last);
void at_simplex_ask(struct at_simplex *x); /* sends the asks that are due */

#endif
