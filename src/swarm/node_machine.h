/* node_machine.h: a node of a run as a pure machine: step(event) -> update. It is the whole of a node but the effects:
 * membership, rounds on the steward's and on the member's side, agreement (consensus/), the ledger's fold, fetching and
 * serving blobs, restart. It knows no socket, file, clock or thread; the driver (node/) and the simulator (sim/) give
 * it those. Same events in the same order give the same updates, to the byte.
 *
 * Contract of the driver:
 *
 *   - at_node_machine_init, then at_node_machine_replay with the stored log, then event START; one event at a time.
 *
 *   - An update is a list of operations in the order in which they must be done: PERSIST, then SEND, then the rest.
 *     Each is done or, where an event answers it, begun, before the next one and before the next event. Everything an
 *     update points to is borrowed until the next step.
 *
 *   - Each PERSIST is answered by PERSISTED once it is durable, in order; the driver may wait for the disk or go on
 *     meanwhile. The steward tells nobody of a record before its PERSISTED. A PERSIST that fails is the end of the
 *     process: the machine must be rebuilt from what is stored.
 *
 *   - at_node_machine_deadline_ms() after each step: at that time_ms, if no other event came before, event TICK.
 *
 *   - time_ms is a monotonic clock (never steps back), wall_ms the Unix clock (for records' dates only).
 *
 *   - Blobs live with the driver, by (kind, key). UPDATE, SHARD: key = SHA-256 of the bytes; STATE: key = state root.
 *     A state is fetched and served by tiles (tiles.h): LEAVES, the hashes of its leaves, and TILE by number. The driver
 *     can serve (BLOB_READ) those of the two states it was told of last (START, STATE_READY, APPLIED), while it does
 *     other work too, and the tiles written so far (BLOB_WRITE) of one that is being fetched.
 *
 *   - What a steward among several must not forget is PERSIST's `kept`, in the same transaction as the records beside it,
 *     and is handed back by at_node_machine_restore after the replay. A PERSIST may have no records at all. The secrets
 *     of seats (SECRET_MAKE) are random bytes from the system, in a file that only the owner can read; what
 *     SECRETS_ERASE names must be gone from the disk for good (old keys could rewrite history).
 *
 *   - A link is what net/ calls one: LINK_UP once, then MESSAGE, LINK_FULL and LINK_DRAIN, then LINK_DOWN once. DIAL and
 *     MEET carry a number, which LINK_UP, or LINK_DOWN with link 0, says again: each is answered by one of the two. What
 *     is called off (DIAL_OFF) may still come up, and then counts; no more need be said of it otherwise.
 *     LINK_FULL comes before any later BLOB_DATA for that link. Liveness of links (ping, silence) is the link layer's
 *     business and arrives as LINK_DOWN.
 *
 * Bounds: memory is taken in init, apart from the ledger's arrays and what is known of the last rounds, which grow with
 * the members, and about 76 bytes for each tile of a state while it is fetched; links, wants, submits per second, parts
 * and pieces have limits (node_internal.h). A peer that breaks the protocol is refused with a reason
 * and its link closed; it never stops the others and never makes the machine grow. */
#ifndef ATOLL_SWARM_NODE_MACHINE_H
#define ATOLL_SWARM_NODE_MACHINE_H

#include "base/sign.h"
#include "swarm/node_status.h"
#include "wire/genesis.h"
#include "wire/message.h"
#include "wire/record.h"
#include "wire/ticket.h"

#define AT_NODE_OPS_MAX    1024 /* operations of one update */
#define AT_NODE_LINKS_MAX  128
#define AT_NODE_REASON_MAX 160
#define AT_NODE_SECRETS    4   /* of seats: that many may be stored at a time */
#define AT_NODE_ACCUSALS   4   /* EVIDENCE of ours on its way at a time; other witnesses tell what is more */
#define AT_NODE_FINALS_MAX 512 /* final blocks that at_node_machine_restore needs, the newest of the term */
#define AT_NODE_BLOCKS_MAX 64  /* final blocks that one AGREE_READ gives */

/* What is kept of the agreement among several stewards (consensus/simplex.h). Rows, in the order in which they come; the
 * driver need not understand them. */
enum at_node_kept_kind {
    AT_NODE_KEPT_VOTE = 1,    /* view; bytes */
    AT_NODE_KEPT_CERTIFICATE, /* view; bytes */
    AT_NODE_KEPT_BLOCK,       /* view, hash; bytes: the block's */
    AT_NODE_KEPT_FINAL,       /* view, hash: that BLOCK is final; bytes: its certificate's, or none */
    AT_NODE_KEPT_TIP,         /* bytes; takes the place of the TIP before */
    AT_NODE_KEPT_ABSTAIN,
    /* Not a row but an order to the driver: rows of earlier terms may go; of this term VOTEs of views < view but those
     * of the newest view that has any, CERTIFICATEs of views < view, and BLOCKs of views < view that are not FINAL. */
    AT_NODE_KEPT_PRUNE,
};
struct at_node_kept {
    enum at_node_kept_kind kind;
    uint32_t term;
    uint64_t view;
    struct at_hash hash;
    struct at_span bytes;
};

/* Of which a seat's key and its beacon are made. Never of the node's own key: this one is erased with its term. */
struct at_node_secret {
    uint32_t term; /* for whose seats it was made; its holder may go on with it in a later one (ledger/seats.h) */
    uint8_t bytes[AT_KEY_BYTES];
};

/* ---- what the driver hands in ---- */
struct at_node_machine_options {
    struct at_keypair key;
    struct at_hash run;
    struct at_span genesis;    /* its canonical bytes; empty: not known yet, will be fetched. Copied. */
    struct at_node_id contact; /* the invite's node, whom the driver knows how to dial. Ignored on the steward. */
    uint64_t invite_log_size;  /* a past that the log must contain; 0: none */
    struct at_hash invite_log_root;
    const char *name;                   /* of this member, for its JOIN record; copied */
    const char *program;                /* name and version, for Hello; copied */
    uint32_t links_max;                 /* 0: AT_NODE_LINKS_MAX */
    const struct at_verifier *verifier; /* how signatures are checked; NULL: at_verify. Borrowed */
    /* Bytes of states a second, to all peers and from all peers. 0: the default (node_internal.h); from: no limit. */
    uint64_t serve_bytes_per_s, fetch_bytes_per_s;
    const struct at_ticket *ticket;       /* of the invite, for a seat; NULL: none. Copied */
    const struct at_node_secret *secrets; /* those stored, <= AT_NODE_SECRETS; copied */
    size_t secret_count;
    struct at_node_scratch *scratch; /* NULL: one of its own. Borrowed */
    uint64_t nonce;                  /* random: of this start */
    uint32_t bundle_bytes; /* 0: AT_BUNDLE_BYTES_MAX. Less only where updates are smaller than what they stand for */
    uint32_t beacon_links; /* 0: AT_BEACON_LENGTH_MAX. Less only where time is virtual: they take 20 ms of hashing */
    uint32_t canary;       /* 0. The simulator plants a protocol bug here to prove that its checkers see it. */
};
enum at_node_canary {
    AT_NODE_CANARY_NONE,
    AT_NODE_CANARY_ACK_EARLY,
    AT_NODE_CANARY_COUNT_UNFETCHED,
    AT_NODE_CANARY_NO_DUMMIES, /* among several: a block's parent may be views back, without the dummies between */
};

/* How a link came about: dialled, or arranged by a third node (wire/meet.h). */
enum at_node_way { AT_NODE_DIRECT, AT_NODE_RELAYED, AT_NODE_PUNCHED };

enum at_node_event_kind {
    AT_NODE_EV_START = 1, /* .start */
    AT_NODE_EV_TICK,
    AT_NODE_EV_LINK_UP,        /* link, node, dialed (or asked to meet), way; dial: whose answer it is, 0: nobody's */
    AT_NODE_EV_LINK_DOWN,      /* link, node, reason; link 0: a DIAL or MEET that never came up, and dial: which */
    AT_NODE_EV_LINK_FULL,      /* link: the SEND of class BULK just ordered was refused for lack of room */
    AT_NODE_EV_LINK_DRAIN,     /* link: has room again after LINK_FULL */
    AT_NODE_EV_MESSAGE,        /* link, bytes: one encoded Message */
    AT_NODE_EV_PERSISTED,      /* the last PERSIST is durable */
    AT_NODE_EV_LOG_DATA,       /* .log, answers LOG_READ */
    AT_NODE_EV_BLOB_STATE,     /* .blob: bytes_have, complete; answers BLOB_STAT */
    AT_NODE_EV_BLOB_STORED,    /* .blob: ok; answers BLOB_FINISH: content checked against the key, durable */
    AT_NODE_EV_BLOB_DATA,      /* .blob and bytes, answers BLOB_READ; ok false: not here */
    AT_NODE_EV_BUNDLE_DATA,    /* link, .bundle, answers BUNDLE_READ: the first `count` of its updates, at least one, in
                                * order */
    AT_NODE_EV_BUNDLE_STATE,   /* .bundle: count, ok: which of BUNDLE_STAT's are whole here */
    AT_NODE_EV_BUNDLE_STORED,  /* bytes: BUNDLE_WRITE's keys; .bundle: count, ok: which of them are durable; the others
                                * are not what their keys say */
    AT_NODE_EV_STATE_SHAPE,    /* .shape; answers STATE_SHAPE */
    AT_NODE_EV_TILES_FOUND,    /* .blob.key, ok, bytes: bit i of byte i/8: tile i is here; answers TILES_FIND */
    AT_NODE_EV_UPDATE_CHECKED, /* link, .blob: key, ok; reason; answers UPDATE_CHECK */
    AT_NODE_EV_UNIT_PROGRESS,  /* .unit: step, tokens, tokens_per_s */
    AT_NODE_EV_UNIT_DONE,      /* .unit: all; the update blob is stored */
    AT_NODE_EV_UNIT_FAILED,    /* .unit.round, reason */
    AT_NODE_EV_UNIT_LOST,      /* .unit.round, session, reason: the others of its group cannot be reached any more */
    AT_NODE_EV_STATE_READY,    /* .state: answers STATE_INIT and STATE_INSTALL (ok false: its root is another) */
    AT_NODE_EV_APPLIED,        /* .state: answers APPLY; round = the round applied, root = of the state after it */
    AT_NODE_EV_SAVED,          /* .state.round: answers SAVE (may come late, or for a later round only) */
    AT_NODE_EV_FINISH,         /* the user wants this node (steward: the run) to end after its round */
    AT_NODE_EV_LEAVE, /* the same, but now: its unit of work ends with the step it is in, and it leaves when all parts
                                * of that are in the log; one of several stewards at CLOSE, so that others have its update */
    AT_NODE_EV_REACHABLE,  /* .reachable: where others can dial this node; told at the start and when it changes */
    AT_NODE_EV_PEERS,      /* bytes: as PEERS_KEEP left them; once, right after START */
    AT_NODE_EV_SECRET,     /* .secret: answers SECRET_MAKE: it is durable */
    AT_NODE_EV_AGREE_DATA, /* link, .agree: answers AGREE_READ, also with nothing */
    AT_NODE_EV_MEASURED,   /* .measured; answers MEASURE */
    AT_NODE_EV_STOP,       /* the user wants this process to end now: links get a Bye, then ENDED */
};

struct at_node_block;
struct at_node_event {
    enum at_node_event_kind kind;
    uint64_t time_ms, wall_ms;
    uint64_t link;
    struct at_span bytes; /* MESSAGE; BLOB_DATA: the piece */
    struct at_node_id node;
    bool dialed;
    enum at_node_way way;
    uint64_t dial;
    const char *reason; /* NUL-terminated, for people */
    struct {
        bool has_state; /* a state is in the folder and its root was recomputed from its bytes */
        uint32_t round; /* it is the state at the start of this round (0: the initial one) */
        struct at_hash root;
        double heldout_loss; /* NaN when not evaluated */
    } start;
    struct {
        const struct at_endpoint *list; /* the first AT_ENDPOINTS_MAX that can be dialled count; none: nobody can */
        uint32_t count;
    } reachable;
    struct {
        uint64_t from;
        const struct at_signed_record *records; /* from `from` on, <= AT_LOG_PART_MAX; at the head: none */
        size_t count;
        const struct at_log_checkpoint
            *checkpoints; /* stored ones of sizes in (from, from + count], ascending by (size,
                                                      * key); the last of them of from + count, with all of its size */
        size_t checkpoint_count;
    } log;
    struct {
        enum at_blob_kind kind;
        struct at_hash key;
        uint64_t offset, total; /* BLOB_DATA: total = the blob's size */
        uint64_t bytes_have;    /* BLOB_STATE: a fetch goes on from here (whatever the driver kept of an earlier one) */
        bool complete, ok, wrong; /* wrong: BLOB_STORED, not ok because its bytes have another hash */
    } blob;
    struct {
        const struct at_span *data; /* n 0: not here, or larger than bytes_max */
        uint32_t count;             /* <= AT_BUNDLE_MAX */
        uint32_t ok;                /* bit i: the i-th */
    } bundle;
    struct {
        uint32_t round, step, steps, samples, session;
        uint64_t tokens, update_bytes;
        double tokens_per_s;
        struct at_hash update;
        struct at_hash feedback; /* SHA-256 of the error feedback that the unit began with; zero: it was zero */
        uint32_t heldout;  /* UNIT_DONE: of the share that UNIT_START named (model/heldout.h); 0: another of the group
                                  * has computed it, there is none, or there was no time for it. UNIT_PROGRESS of step 0:
                                  * a part of it is done */
        uint32_t share_ms; /* UNIT_DONE: which took so long, before the first step */
    } unit;
    struct {
        uint32_t round;
        struct at_hash root;
        bool ok;
        double heldout_loss; /* of the whole text, nats per byte; NaN when not asked for */
    } state;
    struct {
        uint32_t tiles; /* 1 .. AT_TILES_MAX */
        uint64_t bytes; /* of all of them */
    } shape;
    struct at_node_secret secret;
    struct {
        uint64_t mflops;     /* of training; 0: not asked for, or it cannot be measured */
        uint64_t memory_mib; /* that it can use for training */
        const struct at_node_rtt {
            uint64_t link, us; /* us: its round trip; 0: not known */
            uint32_t kbit;     /* what came over it, a second, at least (base/line_rate.h); 0: not known */
        } * list;              /* of links that are up; those to strangers are passed over */
        size_t count;
    } measured;
    struct {
        uint32_t term;
        bool of_block;
        const struct at_node_block *list; /* <= AT_NODE_BLOCKS_MAX */
        size_t count;
    } agree;
};
struct at_node_block {
    uint64_t view;
    struct at_hash hash;
    struct at_span bytes, certificate; /* of BLOCK; of FINAL: may be empty */
};

/* ---- what it asks for ---- */
enum at_node_op_kind {
    AT_NODE_OP_PERSIST = 1, /* .persist, one transaction; then PERSISTED */
    AT_NODE_OP_SEND,        /* link, frame_class, bytes (an encoded Message) */
    AT_NODE_OP_DIAL,        /* node, endpoint (port 0: where the invite says), dial: then LINK_UP or LINK_DOWN */
    AT_NODE_OP_MEET,        /* node, how, link, dial: a meeting arranged by who is at the other end of that link; the
                              * same answers */
    AT_NODE_OP_DIAL_OFF,    /* dial: not wanted any more */
    AT_NODE_OP_CLOSE,       /* link, reason; what was sent before goes out first; LINK_DOWN follows */
    AT_NODE_OP_GENESIS,     /* bytes: fetched, checked against the run id; to be stored before anything else */
    AT_NODE_OP_LOG_READ,    /* link, .read.offset = first index, <= AT_LOG_PART_MAX records up to the last stored
                              * checkpoint of at most .read.total records; then LOG_DATA */
    AT_NODE_OP_BLOB_STAT,   /* .read.kind, key: what is there? then BLOB_STATE */
    AT_NODE_OP_BLOB_WRITE,  /* .read.kind, key, offset, total; bytes: pieces come ascending, without gaps. TILE: tile
                               * number `offset` of the state `key`, checked already, in any order, after TILES_FOUND */
    AT_NODE_OP_BLOB_FINISH, /* .read.kind, key: all bytes are there: check, make durable, then BLOB_STORED */
    AT_NODE_OP_BLOB_DROP,   /* .read.kind, key: forget what a fetch has kept (wrong, given up); not what is whole */
    AT_NODE_OP_BLOB_READ,   /* link, .read.kind, key, offset, bytes: for a peer; BLOB_DATA with the same link. Never
                               * STATE; LEAVES and TILE as in the messages */
    AT_NODE_OP_BUNDLE_READ, /* link, .bundle: whole updates for a peer, as many of the first as are no more than bytes_max
                              * together; then BUNDLE_DATA with the same link */
    AT_NODE_OP_BUNDLE_STAT,  /* .bundle: which are here? then BUNDLE_STATE. One at a time */
    AT_NODE_OP_BUNDLE_WRITE, /* .bundle: whole updates: check each, make it durable; then BUNDLE_STORED */
    AT_NODE_OP_STATE_SHAPE,  /* how large is a state of this run? Then STATE_SHAPE. After GENESIS */
    AT_NODE_OP_TILES_FIND,   /* root, round, bytes: its leaves, 32 bytes each. Which tiles are here: of an earlier fetch
                               * of it (each is checked: a crash may have spoilt some), or the same in a state that is
                               * held? These then count as written. Other unfinished states may go. Then TILES_FOUND */
    AT_NODE_OP_UPDATE_CHECK, /* link, .read.key, .unit: can the stored update be counted as this unit's (shape, round,
                               * range, values an outer step can take)? Then UPDATE_CHECKED with the same link */
    AT_NODE_OP_BLOB_PRUNE,   /* .prune: whole update blobs other than these are no longer needed */
    AT_NODE_OP_STATE_INIT,   /* the initial state, from the genesis; evaluate; then STATE_READY for round 0 */
    AT_NODE_OP_STATE_INSTALL, /* the stored blob (STATE, root) becomes the state at the start of `round` */
    AT_NODE_OP_UNIT_START,  /* .unit: train; then UNIT_PROGRESS..., UNIT_DONE, UNIT_FAILED or UNIT_LOST. With .team: as
                               * stage `rank`, whose blocks the update has, with the others of the GROUP before */
    AT_NODE_OP_UNIT_STOP,   /* whatever unit runs is not wanted any more, nor a GROUP; no UNIT_DONE for it */
    AT_NODE_OP_UNIT_ENOUGH, /* the unit that runs ends with the step it is in, or, with others, all together with the
                             * next: UNIT_DONE may have fewer steps and samples than were asked for, at least one step */
    AT_NODE_OP_GROUP, /* .team: a unit will be computed with these. From now on the bytes that they send to stage `rank` of
                       * this session are kept, within a bound; instead of those of the GROUP before */
    AT_NODE_OP_APPLY,      /* .apply: outer step on the state at the start of `round`; evaluate; then APPLIED */
    AT_NODE_OP_SAVE,       /* round, root: the state held is the run's: keep it durably; then SAVED */
    AT_NODE_OP_PEERS_KEEP, /* bytes: where members can be reached; to be kept, and given back by PEERS. A cache: what
                               * is lost or damaged is asked for again */
    AT_NODE_OP_AGREE_READ, /* link, .agree: BLOCKs of the term. of_block: the one with this view and hash. Else the FINAL
                               * ones of views > view, ascending, up to one with a certificate whose view is >= last, at
                               * most AT_NODE_BLOCKS_MAX. Then AGREE_DATA with the same link */
    AT_NODE_OP_SECRET_MAKE,   /* .agree.term: a secret for seats of this term; the stored one where there is one. Then
                               * SECRET */
    AT_NODE_OP_SECRETS_ERASE, /* .agree.term: the secrets of earlier terms, for good */
    AT_NODE_OP_MEASURE, /* how long are the links' round trips, and how much do they carry; evaluate: and how fast is
                               * this machine, with memory for what? Then MEASURED */
    AT_NODE_OP_STATUS,  /* something worth a line happened: reason (also status.last_event) */
    AT_NODE_OP_ENDED,   /* .end, reason: last operation of the machine's life */
};

/* Members that compute a unit together, stage by stage. */
struct at_node_team {
    uint32_t session, rank, ranks; /* session: this node's number for the attempt; rank: its stage */
    struct at_stage_cut cut;       /* in `ranks` stages */
    struct {
        struct at_node_id id;
        uint32_t session; /* the peer's; UNIT_START */
        uint64_t link;    /* to send to it; UNIT_START */
    } peer[AT_STAGES_MAX];
};

struct at_node_contribution {
    uint32_t replica;
    uint32_t unit; /* those of one unit are parts of one update */
    uint64_t tokens, update_bytes;
    struct at_hash update;
};

struct at_node_op {
    enum at_node_op_kind kind;
    uint64_t link;
    enum at_frame_class frame_class; /* its numbers are net's classes */
    struct at_node_id node;
    struct at_endpoint endpoint;
    uint64_t dial;
    enum at_meet_how how;
    struct at_span bytes;
    char reason[AT_NODE_REASON_MAX];
    uint32_t round;
    struct at_hash root;
    bool evaluate; /* the held-out loss is wanted too */
    struct {
        uint64_t from;
        const struct at_signed_record *records;
        size_t count;
        /* Ascending by (size, key). Of a single steward, or a part that was fetched, the last is of size from + count. Of
         * several the log may be ahead of its checkpoint, which comes later, without records. */
        const struct at_log_checkpoint *checkpoints;
        size_t checkpoint_count;
        const struct at_node_kept *kept; /* in order */
        size_t kept_count;
    } persist;
    struct {
        enum at_blob_kind kind;
        struct at_hash key;
        uint64_t offset, total;
        uint32_t bytes;
    } read;
    struct {
        const struct at_hash *keys; /* UPDATE blobs */
        const struct at_span *data; /* BUNDLE_WRITE: none is empty */
        uint32_t count;             /* 1 .. AT_BUNDLE_MAX */
        uint32_t bytes_max;         /* BUNDLE_READ */
    } bundle;
    struct {
        const struct at_hash *keep; /* UPDATE blobs */
        size_t count;
    } prune;
    struct {
        uint32_t round, replica, steps, samples;
        uint64_t start;
        uint32_t stop_at;   /* UNIT_START: > 0: it ends with this step for all who compute it, whatever the budget */
        uint64_t budget_ms; /* UNIT_START: no step is begun that would end later than so long from now, but the first */
        struct at_heldout_share heldout; /* UNIT_START: whose loss under the state is computed, too */
        uint32_t stage;                  /* UPDATE_CHECK: the update has the blocks of this stage */
        struct at_stage_cut cut;
    } unit;
    const struct at_node_team *team; /* GROUP, UNIT_START; NULL: alone */
    struct at_hash
        counted; /* UNIT_START, SAVE: at_node_machine_counted. What that update left over is the member's error
                             * feedback, with which the unit begins; the driver keeps it */
    struct {
        const struct at_node_contribution *list; /* replicas ascending; none: the state stays as it is */
        size_t count;
    } apply;
    struct {
        uint32_t term;
        bool of_block;
        uint64_t view, last;
        struct at_hash hash;
    } agree;
    struct {
        at_err_t
            err; /* AT_OK: the run has ended, or FINISH, LEAVE or STOP were obeyed; else what is wrong, in `reason` */
        bool run_ended, finished;
    } end;
};

struct at_node_update {
    const struct at_node_op *ops;
    size_t count;
};

/* The key of a seat that is made of this secret; it signs as the node's own does. False: of no use (never, but for a chance
 * of 2^-128). */
bool at_node_secret_key(const struct at_node_secret *secret, const struct at_keypair *node, struct at_keypair *ret_key);

/* ---- the machine ---- */
struct at_node_machine;

/* Where a step decodes its message and leaves its operations, 2.7 MB: what `update` points to until the machine's next step.
 * Who drives many machines lets them share one, or one for each thread that steps them: the next step of any machine with
 * it may begin as soon as the operations of the last one have been carried out. */
struct at_node_scratch;
at_err at_node_scratch_init(struct at_node_scratch **ret_scratch); /* AT_E_NOMEM. Owned by the caller (release) */
void at_node_scratch_release(struct at_node_scratch *scratch);     /* NULL is fine */
/* For tests: what the last step left there becomes garbage. */
void at_node_scratch_spoil(struct at_node_scratch *scratch);

/* AT_E_DATA: a genesis that is none, or of another run. The machine is owned by the caller (release). */
at_err at_node_machine_init(const struct at_node_machine_options *options, struct at_diag *diag,
                            struct at_node_machine **ret_machine);
void at_node_machine_release(struct at_node_machine *m); /* NULL is fine */

/* The stored log, in order, in as many calls as convenient, before START; then the newest stored checkpoint (all the
 * cosignatures of its size; none: count 0), which must fit it (size, root, signatures; of several stewards the log may be
 * longer). AT_E_VERIFY naming the record when the fold refuses it: the folder is damaged. Then, if there is any, what is
 * kept of the agreement: all rows of the newest term, in the order of their writing, of its FINALs and their BLOCKs the
 * newest AT_NODE_FINALS_MAX at least. AT_E_VERIFY: it cannot be ours. */
at_err at_node_machine_replay(struct at_node_machine *m, const struct at_signed_record *records, size_t count,
                              struct at_diag *diag);
at_err at_node_machine_replayed(struct at_node_machine *m, const struct at_log_checkpoint *newest, size_t count,
                                struct at_diag *diag);
at_err at_node_machine_restore(struct at_node_machine *m, const struct at_node_kept *kept, size_t count,
                               struct at_diag *diag);

/* Steps from now on use this one; between steps. */
void at_node_machine_scratch(struct at_node_machine *m, struct at_node_scratch *scratch);

/* One event. Never fails: what goes wrong is an operation (SEND of a refusal, CLOSE, ENDED). */
void at_node_machine_step(struct at_node_machine *m, const struct at_node_event *event,
                          struct at_node_update *ret_update);

/* When it wants a TICK, on the clock of time_ms; UINT64_MAX: never. Asking changes nothing: until the next step the
 * answer is the same. */
uint64_t at_node_machine_deadline_ms(const struct at_node_machine *m);

/* A snapshot for people; borrowed until the next step. */
const struct at_node_status *at_node_machine_status(struct at_node_machine *m);

/* Is it an active member by the log that this node holds? Who is none may not be brought together with anybody. */
bool at_node_machine_is_member(const struct at_node_machine *m, const struct at_node_id *node);

/* This member's update that counted last, by the log; zero: none. */
struct at_hash at_node_machine_counted(const struct at_node_machine *m);

/* The run's genesis once known, else NULL. Borrowed. */
const struct at_genesis *at_node_machine_genesis(const struct at_node_machine *m);

#endif
