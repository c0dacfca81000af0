/* node_internal.h: the insides of the node's machine, shared by its files and by nobody else.
 *
 *   node_machine.c  init, replay, the step: one event in, then everything that has become possible ("drive"), in order
 *   node_out.c      the update: operations, encoded messages
 *   node_links.c    links, hello, dialling, the limits of a peer; hands messages on
 *   node_log.c      the log: serving it, following it, submitting to it
 *   node_blob.c     serving blobs and fetching them
 *   node_state.c    which state this node holds and how it comes to the one it needs
 *   node_round.c    a member's part in a round: unit, receipt, joining, leaving, ending
 *   node_steward.c  the steward's part: OPEN, receipts, CLOSE, EPOCH, END
 *   node_status.c   the snapshot for people
 *
 * Rule of the drives: they look at the whole state and at the time, not at the event, so that nothing depends on an
 * event not getting lost: after a restart the same drives go on from what the log and the folder say. Each asks for a
 * thing once (a flag remembers) and asks again when the link or the round has changed.
 *
 * Rule of the fold: on the steward the ledger includes the block in flight; so nothing that depends on the ledger is
 * done while one is (at_node_settled). */
#ifndef ATOLL_SWARM_NODE_INTERNAL_H
#define ATOLL_SWARM_NODE_INTERNAL_H

#include "consensus/consensus.h"
#include "consensus/follower.h"
#include "ledger/ledger.h"
#include "swarm/node_machine.h"

#define AT_NODE_WANTS_MAX     16 /* a peer's wants that wait to be served; one more closes its link */
#define AT_NODE_WANTS_ROOM    (AT_NODE_WANTS_MAX + 2) /* and the two that LINK_FULL may put back */
#define AT_NODE_WINDOW_PIECES 4                       /* our wants of one fetch that are under way */
#define AT_NODE_FETCHES_MAX   (AT_NODE_LINKS_MAX + 8)
#define AT_NODE_APPLY_FETCHES 4 /* updates fetched side by side for one outer step */
#define AT_NODE_HISTORY       4 /* closed rounds that can be replayed from their updates */
#define AT_NODE_KEEP_ROUNDS   2 /* rounds whose update blobs are kept for others */
#define AT_NODE_OUT_BYTES_MAX ((size_t)8 << 20)

enum { /* milliseconds */
       AT_NODE_DIAL_MIN_MS = 200,
       AT_NODE_DIAL_MAX_MS = 5000,
       AT_NODE_ABSENT_MS = 1000,       /* a participant without a link is given up after this */
       AT_NODE_ABSENT_START_MS = 8000, /* and after this when the steward itself has just come back */
       AT_NODE_OPEN_GRACE_MS = 2000,   /* stragglers of the last round are waited for so long at least */
       AT_NODE_END_LINGER_MS = 10000,  /* a steward stays so long after END for members that still fetch */
       AT_NODE_END_WAIT_MS = 6000,     /* and so long for those that may be dialling: longer than their backoff */
       AT_NODE_LOST_MS = 30000,        /* whose link was lost at most so long ago */
       AT_NODE_HELLO_MS = 10000,       /* a link that does not say who it is */
       AT_NODE_REFUSED_MS = 3000,      /* a JOIN was refused, and no JOIN of ours shows up in the log */
       AT_NODE_FETCH_STALL_MS = 15000, /* a peer that answers no want */
       AT_NODE_FETCH_RETRY_MS = 1000,  /* nobody had it */
       AT_NODE_PROGRESS_MS = 250,
       AT_NODE_LEAVE_ALONE_MS = 3000,  /* a finishing member without a link goes without its LEAVE */
       AT_NODE_FINAL_STATE_MS = 30000, /* END is known, the final state cannot be had */
};
#define AT_NODE_PASSES_MAX      16 /* of the drives in one step: each makes possible what the next one does */
#define AT_NODE_FIRST_DIALS_MAX 6  /* who is no member yet gives up after so many dials in a row */
#define AT_NODE_SUBMIT_BURST    32
#define AT_NODE_SUBMIT_MS       100 /* one more record per peer after this */

struct at_node_want {
    enum at_blob_kind kind;
    struct at_hash key;
    uint64_t offset;
    uint32_t bytes;
};

struct at_node_link {
    bool used, dialed, hello, closing;
    uint64_t id, up_ms;
    struct at_node_id node;
    /* serving the log */
    bool log_live;    /* it knows the log up to the head: new blocks are pushed */
    bool log_reading; /* a LOG_READ for it is under way */
    uint64_t log_from;
    /* serving blobs */
    struct at_node_want want[AT_NODE_WANTS_ROOM]; /* ring */
    uint32_t want_first, want_count;
    bool want_reading, want_drop;          /* a BLOB_READ for it is under way; its answer is to be dropped */
    bool full;                             /* the link took no more: nothing is read until it drains */
    struct at_node_want reading, answered; /* answered: the last piece sent; again when it was refused */
    /* our wants to it */
    uint32_t wants_out; /* not answered yet: a piece beyond these was not asked for */
    uint64_t answer_ms; /* its last answer, or when the first of them was asked */
    /* limits */
    uint32_t submits;
    uint64_t submits_ms;
    /* what it said */
    bool ready;
    struct at_msg_ready ready_for;
    struct at_msg_progress progress;
};

enum at_node_fetch_state { AT_FETCH_NONE, AT_FETCH_STAT, AT_FETCH_WAIT, AT_FETCH_RUN, AT_FETCH_CHECK };
struct at_node_fetch {
    enum at_node_fetch_state state;
    enum at_blob_kind kind;
    struct at_hash key;
    uint64_t bytes_max, bytes_exact; /* exact 0: the first piece says, up to max */
    uint64_t only_link;              /* 0: any peer */
    uint64_t link, last_link;        /* asked now; asked last: the next one tried comes after it */
    uint64_t total, written, asked;
    uint64_t moved_ms; /* WAIT: when it may be tried again */
    uint32_t misses;   /* peers that did not have it, in a row */
};

struct at_node_history { /* what a round's outer step needs, kept while updates are */
    bool opened, closed, epoch;
    uint32_t round;
    struct at_hash state_in, state_out; /* out: of the EPOCH */
    struct at_node_contribution *list;  /* AT_MEMBERS_MAX */
    size_t count;
};

enum at_node_state_busy { AT_STATE_IDLE, AT_STATE_INIT, AT_STATE_APPLY, AT_STATE_INSTALL };

struct at_node_machine {
    struct at_node_machine_options options;
    char name[AT_NAME_BYTES_MAX + 1], program[AT_PROGRAM_BYTES_MAX + 1];
    uint64_t now_ms, wall_ms;
    bool started, ended, finishing;
    bool again; /* a drive changed what an earlier one looks at, without an operation */
    /* genesis, ledger, order */
    bool has_genesis, is_steward;
    struct at_buf genesis_bytes;
    struct at_genesis genesis;
    struct at_ledger ledger;
    struct at_consensus *consensus; /* the steward's */
    struct at_follower follower;    /* everybody else's */
    struct at_node_history history[AT_NODE_HISTORY];
    /* links */
    struct at_node_link links[AT_NODE_LINKS_MAX];
    uint8_t link_hint[1024]; /* by a node's id: where its link was found last; looked at first, never trusted */
    uint64_t contact_link;   /* 0: down */
    bool dialing;
    uint64_t dial_ms, dial_backoff_ms, contact_down_ms;
    uint32_t dial_failures;
    bool ever_linked;
    /* the member's log */
    bool log_asked, log_synced;
    /* blobs */
    struct at_node_fetch fetches[AT_NODE_FETCHES_MAX];
    uint32_t shard_next; /* shards below it are here */
    bool shards_here;
    /* state */
    struct {
        bool has, force_fetch;
        enum at_node_state_busy busy;
        uint32_t round;
        struct at_hash root;
        double loss, loss_first; /* of the state held, as the driver evaluated it */
        bool saving, saved, prune_due;
        uint32_t save_round, saved_round;
        bool have[AT_MEMBERS_MAX]; /* of history[round].list: the blob is here */
        uint32_t have_round;
        bool have_valid;
        uint32_t fetch_round; /* of the whole state being fetched */
        struct at_hash fetch_root;
        bool fetching, desync;
        uint32_t prefetched, prefetched_round; /* replicas below it were asked for ahead of CLOSE */
    } state;
    /* own part in the round */
    struct {
        bool running, done;
        uint32_t round, step;
        uint64_t tokens;
        double tokens_per_s;
        struct at_signed_record receipt; /* done */
        uint64_t sent_link;
        bool submitted;
        uint64_t progress_ms;
    } unit;
    uint64_t join_link, leave_link; /* the link on which it was sent last */
    uint64_t join_refused_ms;       /* 0: not refused */
    char join_reason[AT_REASON_BYTES_MAX + 1];
    uint64_t ready_link;
    uint32_t ready_round;
    /* the steward's round */
    uint64_t open_ms, ready_ms, round_took_ms, end_ms;
    bool is_ready, is_end;
    uint64_t start_ms;
    uint64_t *absent_ms;               /* by replica: since when without a link; 0: linked */
    struct at_signed_record *receipts; /* by link slot: waiting for its blob */
    bool receipt_waits[AT_NODE_LINKS_MAX];
    bool receipt_checks[AT_NODE_LINKS_MAX]; /* of those that wait: the blob is here and is being looked at */
    struct at_record receipt_rec[AT_NODE_LINKS_MAX];
    bool done[AT_MEMBERS_MAX];  /* by replica: said goodbye after END */
    bool unfit[AT_MEMBERS_MAX]; /* by replica: its update of this round cannot be applied; not waited for */
    /* out */
    struct at_node_op *ops, *ops_sorted;
    size_t op_count;
    struct at_buf out;
    size_t out_at[AT_NODE_OPS_MAX]; /* SEND: where its bytes begin in `out`, which may move while it grows */
    struct at_message_mem mem;
    struct at_hash keep[AT_NODE_KEEP_ROUNDS * AT_MEMBERS_MAX + AT_NODE_FETCHES_MAX];
    struct at_node_status status;
    struct at_node_member_status *status_members;
    char last_event[AT_NODE_REASON_MAX];
};

/* ---- node_out.c ---- */
struct at_node_op *at_node_op_add(struct at_node_machine *m, enum at_node_op_kind kind);
void at_node_send(struct at_node_machine *m, uint64_t link, const struct at_message *msg);
void at_node_send_again(struct at_node_machine *m, uint64_t link); /* the bytes of the SEND before, to another link */
void at_node_out_finish(struct at_node_machine *m, struct at_node_update *ret_update);
void at_node_note(struct at_node_machine *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void at_node_end(struct at_node_machine *m, at_err_t err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- node_links.c ---- */
struct at_node_link *at_node_link_find(struct at_node_machine *m, uint64_t id); /* open, or NULL */
struct at_node_link *at_node_link_of(struct at_node_machine *m,
                                     const struct at_node_id *node); /* hello said, or NULL */
void at_node_link_up(struct at_node_machine *m, const struct at_node_event *e);
void at_node_link_down(struct at_node_machine *m, const struct at_node_event *e);
void at_node_link_refuse(struct at_node_machine *m, struct at_node_link *link, const char *reason); /* Bye, close */
void at_node_message(struct at_node_machine *m, const struct at_node_event *e);
void at_node_dial_drive(struct at_node_machine *m);
void at_node_links_drive(struct at_node_machine *m);
uint64_t at_node_links_deadline_ms(const struct at_node_machine *m);

/* ---- node_log.c ---- */
at_err_t at_node_take(void *user, const struct at_signed_record *record, struct at_diag *diag); /* the fold's hook */
uint64_t at_node_log_size(const struct at_node_machine *m); /* what may be told to others */
bool at_node_settled(const struct at_node_machine *m);      /* nothing in flight or queued: the ledger is final */
void at_node_log_start(struct at_node_machine *m);          /* once genesis and stored log are known */
void at_node_log_get(struct at_node_machine *m, struct at_node_link *link, uint64_t from);
void at_node_log_data(struct at_node_machine *m, const struct at_node_event *e);
void at_node_log_part(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_log_part *part);
void at_node_log_ask(struct at_node_machine *m);
void at_node_submit(struct at_node_machine *m, struct at_node_link *link, const struct at_signed_record *record);
void at_node_submit_own(struct at_node_machine *m, const struct at_signed_record *record, uint64_t tag);
bool at_node_sign_own(struct at_node_machine *m, struct at_record *record, struct at_signed_record *ret_signed);
void at_node_refused(struct at_node_machine *m, uint64_t link, struct at_hash record, const char *reason);
void at_node_persisted(struct at_node_machine *m);
void at_node_consensus_tick(struct at_node_machine *m);
struct at_node_history *at_node_history(struct at_node_machine *m, uint32_t round); /* NULL: not kept */

/* ---- node_blob.c ---- */
void at_node_want(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_want *want);
void at_node_blob_data(struct at_node_machine *m, const struct at_node_event *e);
void at_node_link_room(struct at_node_machine *m, struct at_node_link *link, bool room);
void at_node_piece(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_piece *piece);
void at_node_missing(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_missing *missing);
void at_node_blob_state(struct at_node_machine *m, const struct at_node_event *e);
void at_node_blob_stored(struct at_node_machine *m, const struct at_node_event *e);
void at_node_blob_link_down(struct at_node_machine *m, uint64_t link);
void at_node_blob_drive(struct at_node_machine *m);
/* Begins to fetch, or finds the fetch that runs. NULL: too many run already. */
struct at_node_fetch *at_node_fetch(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key,
                                    uint64_t bytes_max, uint64_t bytes_exact, uint64_t only_link);
struct at_node_fetch *at_node_fetch_find(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key);
void at_node_fetch_cancel(struct at_node_machine *m, struct at_node_fetch *fetch); /* NULL is fine */
uint64_t at_node_fetch_deadline_ms(const struct at_node_machine *m);
/* The blob is here (fetched, or found in the folder). */
void at_node_fetched(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key);

/* ---- node_state.c ---- */
void at_node_state_start(struct at_node_machine *m, const struct at_node_event *e);
void at_node_state_ready(struct at_node_machine *m, const struct at_node_event *e);
void at_node_state_applied(struct at_node_machine *m, const struct at_node_event *e);
void at_node_state_saved(struct at_node_machine *m, const struct at_node_event *e);
void at_node_state_fetched(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key);
void at_node_state_drive(struct at_node_machine *m);
bool at_node_state_confirmed(const struct at_node_machine *m); /* it is the one at the start of the ledger's round */

/* ---- node_round.c ---- */
int at_node_self(const struct at_node_machine *m);    /* own replica index, -1: none */
bool at_node_joined(const struct at_node_machine *m); /* active member by the log */
void at_node_unit_event(struct at_node_machine *m, const struct at_node_event *e);
void at_node_data_drive(struct at_node_machine *m);
void at_node_unit_drive(struct at_node_machine *m);
void at_node_member_drive(struct at_node_machine *m);
uint64_t at_node_member_deadline_ms(const struct at_node_machine *m);

/* ---- node_steward.c ---- */
void at_node_steward_start(struct at_node_machine *m);
void at_node_steward_opened(struct at_node_machine *m);
void at_node_steward_link(struct at_node_machine *m, struct at_node_link *link, bool up);
void at_node_steward_receipt(struct at_node_machine *m, struct at_node_link *link,
                             const struct at_signed_record *record, const struct at_record *rec);
void at_node_steward_fetched(struct at_node_machine *m, struct at_hash key);
void at_node_steward_checked(struct at_node_machine *m, const struct at_node_event *e);
void at_node_steward_drive(struct at_node_machine *m);
uint64_t at_node_steward_deadline_ms(const struct at_node_machine *m);

#endif
