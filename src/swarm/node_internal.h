/* node_internal.h: the insides of the node's machine, shared by its files and by nobody else.
 *
 *   node_machine.c  init, replay, the step: one event in, then everything that has become possible ("drive"), in order
 *   node_out.c      the update: operations, encoded messages
 *   node_links.c    links, hello, the limits of a peer; hands messages on
 *   node_peers.c    the directory: where members can be reached, in their own signed words
 *   node_sums.c     what of it a peer need not be told
 *   node_mesh.c     whom this node dials, and when again
 *   node_climb.c    every way to one node: its addresses, a punch, a relay
 *   node_crowd.c    more members than links: who lets go, who gives way, where a newcomer is sent
 *   node_spare.c    links that nobody calls for any more
 *   node_route.c    the way to the steward: which link leads there; who is told how long the log is
 *   node_log.c      the log: serving it, following it
 *   node_relay.c    records on their way to the steward, receipts waiting for their updates
 *   node_company.c  receipts that the single steward orders together
 *   node_presence.c who is here, as the steward and those between hear of it
 *   node_serve.c    serving blobs
 *   node_blob.c     fetching them; node_blob_peer.c from whom, node_piece.c the wants and what comes
 *   node_bundle.c   updates no larger than a piece, many in one want
 *   node_held.c     who has which update of the round
 *   node_tiles.c    fetching a state by tiles from many peers, and serving them within a budget
 *   node_state.c    which state this node holds and how it comes to the one it needs
 *   node_round.c    a member's part in a round: unit, receipt, joining, leaving, ending
 *   node_group.c    a unit computed together with others, a stage each
 *   node_measure.c  what this member tells of its machine and its links
 *   node_steward.c  the steward's part: OPEN, receipts, CLOSE, EPOCH, END
 *   node_agree.c    one steward among several: its term, Simplex's steps
 *   node_final.c    final blocks into the log, cosignatures, checkpoints
 *   node_kept.c     what such a steward keeps on disk beside the log
 *   node_seat.c     standing for a seat, the secrets of seats
 *   node_words.c    such a steward's words on a round, and the updates that it holds
 *   node_status.c   the snapshot for people
 *
 * Rule of the drives: they look at the whole state and at the time, not at the event, so that nothing depends on an
 * event not getting lost: after a restart the same drives go on from what the log and the folder say. Each asks for a
 * thing once (a flag remembers) and asks again when the link or the round has changed.
 *
 * Rule of quiet: whoever takes an event that changes nothing that a drive looks at, and most are such, says so
 * (at_node_quiet); until the deadline the drives would find nothing to do, and are not called.
 *
 * Rule of the groups: an event of the run's work and the mere passing of time run those drives only that look at what has
 * changed, or whose time has come (at_node_look; node_machine.c says which events are which).
 *
 * Rule of the fold: on a single steward the ledger includes the block in flight; so nothing that depends on the ledger is
 * done while one is (at_node_settled). Among several it is of final records only.
 *
 * Who a node is: `consensus` is there: the single steward. is_steward: that one, or the holder of a seat among several
 * (at_node_among_several). Everybody else follows a feed. */
#ifndef ATOLL_SWARM_NODE_INTERNAL_H
#define ATOLL_SWARM_NODE_INTERNAL_H

#include "consensus/consensus.h"
#include "consensus/follower.h"
#include "ledger/ledger.h"
#include "swarm/budget.h"
#include "swarm/node_agree.h"
#include "swarm/node_machine.h"
#include "swarm/node_mesh.h"
#include "swarm/tiles.h"

#define AT_NODE_WANTS_MAX     32 /* a peer's wants that wait to be served; one more closes its link */
#define AT_NODE_WANTS_ROOM    (AT_NODE_WANTS_MAX + 2) /* and the two that LINK_FULL may put back */
#define AT_NODE_WINDOW_PIECES 4                       /* our wants of one fetch that are under way */
#define AT_NODE_PIECES_MAX    16 /* and of all fetches at one peer; with its tiles fewer than it takes */
#define AT_NODE_FETCHES_MAX   (AT_NODE_LINKS_MAX + 8)
#define AT_NODE_APPLY_FETCHES 4 /* updates fetched side by side for one outer step, */
#define AT_NODE_APPLY_SMALL   8 /* so many small ones instead of each of these */
#define AT_NODE_UPDATES_COST  (AT_NODE_APPLY_FETCHES * AT_NODE_APPLY_SMALL)
#define AT_NODE_HISTORY       10 /* closed rounds that can be replayed from their updates */
#define AT_NODE_KEEP_ROUNDS   8 /* rounds whose update blobs are kept for others, while they are fewer bytes than the */
#define AT_NODE_KEEP_LEAST    2 /* state (else nobody would replay them); of so many in any case */
#define AT_NODE_OUT_BYTES_MAX ((size_t)8 << 20)
#define AT_NODE_RECEIPTS_MAX  AT_NODE_LINKS_MAX

/* Serving states. A quarter of it while updates are exchanged, which go first in any case. 64 MiB/s is an eighth of what
 * one core encrypts (net.h), so training loses at most that much of one core, and only while somebody comes in; a state
 * of 10m (46 MB) takes 0.7 s from one member, 0.2 s from four. */
#define AT_NODE_SERVE_BYTES_PER_S ((uint64_t)64 << 20)
#define AT_NODE_SERVE_BUSY        4
#define AT_NODE_PEER_BYTES_MIN    ((uint64_t)64 << 20) /* what one peer may take at once, besides two states */
#define AT_NODE_TILE_SWITCHES     2 /* of a fetch to a newer state; then it stays with one until nobody has it */

enum { /* milliseconds */
       AT_NODE_DIAL_MIN_MS = 200,
       AT_NODE_DIAL_CALM_MS = 500,
       AT_NODE_DIAL_MAX_MS = 5000,    /* to the steward, or while nobody is linked */
       AT_NODE_DIAL_FAR_MS = 60000,   /* to others */
       AT_NODE_DIAL_AWAY_MS = 600000, /* and to those on the ring while enough others are linked */
       AT_NODE_STEADY_MS = 10000,     /* a link that lasts so long was worth dialling */
       AT_NODE_CROSSED_MS = 5000,     /* two links this close, one dialled by each side, have crossed */
       AT_NODE_LONELY_MS = 3000,      /* the steward waits so long for members to dial it */
       AT_NODE_PATHLESS_MS = 1000,    /* a member that is not near dials it after so long without a way there */
       AT_NODE_RING_CALM_MS = 2000,   /* nobody has joined for so long: places on the ring have settled */
       AT_NODE_RING_MOVES_MS = 30000, /* they count as settled after so long in any case: somebody may join for ever */
       AT_NODE_SPARE_MS = 1000,       /* links that nobody needs are closed one by one, so far apart */
       AT_NODE_SPARE_MAX_MS = 600000, /* where there is none it is looked for so late at last */
       AT_NODE_LET_GO_MS = 2000,      /* another way there must have been one for so long, and up to four times more */
       AT_NODE_WHERE_MS = 1000,       /* a member's next statement of where it is, at the earliest */
       AT_NODE_WHERE_AGAIN_MS =
           2000, /* so long after its last telling a member tells it: no net makes that too early, */
       AT_NODE_WHERE_LATE_MS = 10000, /* but not later than so, whoever has been told meanwhile */
       AT_NODE_FRESH_MS = 500, /* where members are is passed on together, after half of this to one and a half */
       AT_NODE_FRESH_MAX_MS = 120000,  /* where it is as the square of the members, that is at most so long */
       AT_NODE_KEEP_MS = 1000,         /* the directory is written down at most so often, */
       AT_NODE_KEEP_EACH_MS = 100,     /* and so much later for each member, each of so many
                                     * a millisecond more: it is as long as they are many, and news as frequent */
       AT_NODE_KEEP_LATE_MS = 3600000, /* or for an hour more */
       AT_NODE_PEERS_AGAIN_MS = 30000, /* a peer is asked for its directory again */
       AT_NODE_ASK_CALM_MS = 1800000,  /* among many it is asked for in any case so long after an answer */
       AT_NODE_PEERS_SOON_MS = 500,    /* and another one, after an answer; */
       AT_NODE_PEERS_LATE_MS = 60000,  /* that is how late it gets while there is no news, */
       AT_NODE_HEAD_MS = 500,          /* so often peers hear of a longer log, see node_route.c */
       AT_NODE_HEAD_MAX_MS = 30000,
       AT_NODE_FLAP_MS = 1000,  /* a peer that was further away, and is nearer again so soon, is not taken before */
       AT_NODE_HOLD_MS = 500,   /* so long only peers nearer to the steward than this node was are a way there */
       AT_NODE_BEHIND_MS = 500, /* another peer has a longer log: so long the feed has to bring it */
       AT_NODE_FEED_SILENT_MS = 5000,
       AT_NODE_DISTRUST_MS = 60000,    /* a way to the steward on which our words get lost is not taken */
       AT_NODE_RESUBMIT_MS = 5000,     /* a record of ours is not in the log: once more */
       AT_NODE_COMPANY_MS = 60000,     /* a receipt waits at most so long for others */
       AT_NODE_JOINS_MS = 3000,        /* and a JOIN at most so long for others */
       AT_NODE_RELAY_AGAIN_MS = 2000,  /* the same record is not passed on again before */
       AT_NODE_ABSENT_MS = 1000,       /* a participant that is not here is given up after this */
       AT_NODE_ABSENT_FAR_MS = 3000,   /* one whose words came through others: it may be looking for another way */
       AT_NODE_ABSENT_START_MS = 8000, /* and after this when the steward itself has just come back */
       AT_NODE_LOOK_MS = 100,          /* many participants are looked at so often, whether they are here */
       AT_NODE_OPEN_GRACE_MS = 2000,   /* stragglers of the last round are waited for so long at least */
       AT_NODE_PAUSE_MIN_MS = 2000,    /* for members that rounds leave out, see node_steward.c */
       AT_NODE_PAUSE_MAX_MS = 30000,
       AT_NODE_END_LINGER_MS =
           10000, /* who has the final state stays so long after END for members that still fetch, */
       AT_NODE_END_LINGER_EACH_MS = 100, /* and so much longer for each member of the run: that many updates to fetch */
       AT_NODE_END_WAIT_MS = 6000,       /* and so long for those that may be dialling: longer than their backoff */
       AT_NODE_LOST_MS = 30000,          /* whose link was lost at most so long ago */
       AT_NODE_HELLO_MS = 10000,         /* a link that does not say who it is */
       AT_NODE_UNINVITED_MS = 10000,     /* no member, no invite, no link */
       AT_NODE_REFUSED_MS = 3000,        /* a JOIN was refused, and no JOIN of ours shows up in the log */
       AT_NODE_FETCH_STALL_MS = AT_TILES_LOST_MS, /* a peer answers no want */
       AT_NODE_HELD_MS = 600000, /* peers are told which updates are here at most so often while a round is open, */
       AT_NODE_BUNDLE_IDLE_MS = 1000, /* no update has come for so long: others are asked for, whatever is under way */
       AT_NODE_HELD_SOON_MS = 100,    /* and so often once it is closed */
       AT_NODE_HELD_PATIENCE_MS = 2000, /* what is needed now waits no longer for a peer that has it and is busy */
       AT_NODE_WRONG_NOTE_MS = 10000,   /* a wrong blob is noted at most so often */
       AT_NODE_FETCH_RETRY_MS = 1000,   /* nobody had it; the first times an eighth of this, a quarter, a half */
       AT_NODE_PROGRESS_MS = 250,
       AT_NODE_TILES_POLL_MS = 1500,      /* a peer that does not hold the whole state is asked again */
       AT_NODE_TILES_STARVED_MS = 3000,   /* nobody has held a missing tile for so long */
       AT_NODE_TILES_STEADY_MS = 500,     /* the newest state has been the newest for so long: it may be kept longer */
       AT_NODE_EXCHANGE_MS = 2000,        /* updates are being exchanged: one was asked for so lately */
       AT_NODE_PEER_STATE_S = 30,         /* one peer may take a state so often for ever */
       AT_NODE_LEAVE_ALONE_MS = 3000,     /* a finishing member without a link goes without its LEAVE */
       AT_NODE_UNIT_FOREVER_MS = 1 << 30, /* the budget of a unit whose last step is known */
       AT_NODE_FINAL_STATE_MS = 30000,    /* END is known, the final state cannot be had */
       AT_NODE_MEASURE_FIRST_MS = 2000,   /* see node_measure.c */
       AT_NODE_MEASURE_SOON_MS = 5000,
       AT_NODE_MEASURE_AGAIN_MS = 10000,
       AT_NODE_MEASURE_FAILED_MS = 60000,
       AT_NODE_GROUP_DIAL_MS = 500,  /* the members of a group before this one have not dialled it */
       AT_NODE_GROUP_LINK_MS = 4000, /* a member of the group that is not linked by then is done without */
       AT_NODE_GROUP_ANSWER_MS =
           15000, /* and one that is, and does not agree: it may apply the round before, or fetch */
       AT_NODE_GROUP_STALL_MS = 20000, /* a unit with others that does not go on */
       AT_NODE_GROUP_CLAIM_MS =
           2000, /* a receipt of steps that cannot have been done: the author is left out after this */
       AT_NODE_GROUP_AGAIN_MS = 500,   /* what was said is said again */
       AT_NODE_GROUP_ANSWERS_MS = 400, /* and answered at most so often */
};
#define AT_NODE_KEEP_MANY       5
#define AT_NODE_KEEP_NEWS       16 /* among many it waits until one statement in so many is new, */
#define AT_NODE_ASK_LATE_TIMES  16 /* or, among many, so many times as late as after news */
#define AT_NODE_COMPANY_SHARE   64 /* of a round it waits one part in so many */
#define AT_NODE_JOINS_SHARE     64 /* n + n * n / 64 milliseconds, with n members */
#define AT_NODE_COMPANY_MAX     32 /* so many are company enough */
#define AT_NODE_HELD_PART       256
#define AT_NODE_HEAD_SHARE      16 /* of the time that a round may take peers wait at most to hear of a longer log */
#define AT_NODE_HELD_SHARE      16 /* of the time that a round may take, if that is less than AT_NODE_HELD_MS */
#define AT_NODE_HELD_SOURCES    8  /* members that take an update from the single steward itself */
#define AT_NODE_HELD_MISSES     4  /* so often it was not where it was told to be: then peers are asked by turns */
#define AT_NODE_LOOK_MEMBERS    64 /* more are many */
#define AT_NODE_GROUP_TRIES     3  /* units lost with one group, then a member works alone */
#define AT_NODE_LEFT_OUT        4  /* rounds in a row: then there is a pause */
#define AT_NODE_PAUSE_SHARE     8  /* a pause is so small a part of the time that it has been left out, */
#define AT_NODE_PAUSE_GAP       4  /* and of the time since the last pause */
#define AT_NODE_FETCH_TURNS     4  /* so often all are asked for what is on its way, in two seconds */
#define AT_NODE_PASSES_MAX      16 /* of the drives in one step: each makes possible what the next one does */
#define AT_NODE_FIRST_DIALS_MAX 6  /* who is no member yet gives up after so many dials in a row */
struct at_node_want {
    enum at_blob_kind kind;
    struct at_hash key;
    uint64_t offset;
    uint32_t bytes; /* 0: the link's bundle */
};

/* What a link's own messages alone need: apart from what the drives look at. */
struct at_node_link_cold {
    struct at_node_bucket frames, kib, submits, carries; /* limits; carries: records of newcomers that it passes on */
    uint64_t log_least;                                  /* of the steward's log, when it is the steward's link */
    struct at_msg_saved saved;                           /* its state on disk, as it said */
    struct at_msg_progress progress;                     /* as it said */
    struct at_msg_stage stage;                           /* likewise; from 0: nothing */
    bool stage_heard;                                    /* and that has not been looked at */
    /* serving blobs */
    uint32_t want_count;
    struct at_node_want want[AT_NODE_WANTS_ROOM]; /* in order; those for a state wait for the others, and the budget */
    struct at_budget tile_budget, ask_budget;     /* of states; of questions (one "byte" each) */
    bool want_reading, want_drop;                 /* a BLOB_READ for it is under way; its answer is to be dropped */
    bool full;                                    /* the link took no more: nothing is read until it drains */
    struct at_node_want reading, answered;        /* answered: the last piece sent; again when it was refused */
    struct at_hash bundle[AT_BUNDLE_MAX];         /* the updates that it asked for together last */
    uint32_t bundle_count, bundle_at,
        bundle_before; /* those before `at` are sent; `before`: all but the last of these */
    /* of our wants to it: the updates that it was asked for together, and how large each is; the last `bundle_out` of them
     * are not answered */
    struct at_hash asked[AT_BUNDLE_MAX];
    uint64_t asked_bytes[AT_BUNDLE_MAX];
    uint32_t asked_count;
    bool gave; /* an update of them has come */
};

/* Every drive looks at all links in every step, so these lie close together: three cache lines each, in the order of how
 * often they are looked at. */
struct at_node_link {
    bool used, dialed, hello, closing;
    bool member, seat, contact; /* its node: an active member, the holder of a seat, the one of our invite */
    bool log_live;              /* it knows the log up to the head: new blocks are pushed */
    bool catch_asked;           /* asked once for what the feed has not brought; no answer yet */
    bool followed;              /* it was asked for its log */
    uint32_t replica1;          /* of its node, + 1; 0: no member yet. Looked up for every link otherwise */
    uint32_t saved_told1;       /* the round of the state on disk that it was told, + 1; 0: nothing */
    uint64_t id;
    uint32_t hops, told_hops; /* from the steward, as it said; from here, as we said */
    uint64_t head, told_head; /* the size of its log as far as is known; of ours as we said */
    uint64_t told_ms, distrust_ms;
    struct at_node_id node;
    uint32_t wants_out, pieces_out; /* our wants: not answered yet, and those of them that are not tiles */
    uint32_t late;                  /* pieces that it is behind with: before they have come, no fetch begins at it */
    uint32_t bundle_out;            /* one of them is for so many updates together: of these it takes one at a time */
    uint64_t answer_ms;             /* its last answer, or when the first of them was asked */
    uint64_t up_ms;
    /* the directory */
    uint64_t peers_asked_ms; /* 0: never */
    bool peers_asking;
    uint16_t peers_pages; /* of its directory that it was asked for, one after the other */
    /* the tiles of the state that this node fetches */
    bool tiles_whole;
    bool tiles_answered;
    bool has_saved; /* it has said that it has a state on disk */
    enum at_node_way way;
    uint64_t tiles_asked_ms; /* when it was asked what it holds of it; 0: not yet */
    uint64_t worse_ms;       /* when it said that it is further away than before */
    /* serving the log */
    uint64_t log_from;
    bool log_reading; /* a LOG_READ for it is under way */
    bool log_once;    /* nothing is pushed after the answer */
    bool log_pushing; /* it is read to be pushed: the receiver asks for nothing, so it goes on up to the head */
    struct at_node_link_cold *cold;
};

enum at_node_fetch_state { AT_FETCH_NONE, AT_FETCH_STAT, AT_FETCH_WAIT, AT_FETCH_RUN, AT_FETCH_CHECK };
struct at_node_fetch {
    enum at_node_fetch_state state;
    enum at_blob_kind kind;
    struct at_hash key;
    uint64_t bytes_max, bytes_exact; /* exact 0: the first piece says, up to max */
    uint64_t only_link;              /* 0: any peer */
    uint64_t link, last_link;        /* asked now; asked last: the next one tried comes after it */
    uint64_t late_link;              /* passed over last: its pieces count, should they come after all; 0: none */
    uint64_t total, written, asked;
    uint64_t from;     /* all that is written came over this link; 0: not all over one */
    uint32_t owed;     /* wants that `link` has not answered */
    bool bundled;      /* RUN: asked for together with others */
    uint64_t moved_ms; /* WAIT: when it may be tried again */
    uint32_t misses;   /* peers that did not have it, in a row */
    uint32_t wrong;    /* so often it was not what its hash says */
    bool kept;         /* the driver keeps a part of it */
    uint64_t ripe_ms;  /* WAIT: since when it could be asked for and is needed; 0: it is not, or is being asked for */
    uint32_t round, replica1; /* it is this one's update of this round, + 1; 0: not known whose */
    uint32_t turns;           /* how often all have been asked */
    uint32_t cost;            /* of an update, at_node_update_cost when it was begun */
};

struct at_node_held { /* node_held.c */
    bool known;       /* a round has opened: */
    uint32_t round;
    uint64_t opened_ms;         /* when this node saw it */
    bool look;                  /* one may be fetched that could not before */
    uint64_t offered_ms;        /* since when somebody has one that is not here or asked for; 0: nobody */
    uint64_t fresh_ms, told_ms; /* since when there is something to tell, 0: nothing; when peers were told last */
    struct at_replicas logged, here, asked; /* whose updates: receipt in the log; of these: here; being fetched */
    uint8_t vain[AT_MEMBERS_MAX];           /* by replica: so often it did not have what it had told, in this round */
    struct at_node_link_held {              /* by the link's place */
        bool knows, knows_next;             /* it has told `has`, of this round; `next`, of the next one */
    } link[AT_NODE_LINKS_MAX];
    struct at_node_held_part { /* the same of all links for so many replicas, since most runs have no more */
        struct at_node_held_bits {
            uint8_t b[AT_NODE_HELD_PART / 8];
        } has[AT_NODE_LINKS_MAX], next[AT_NODE_LINKS_MAX], told[AT_NODE_LINKS_MAX],
            lacks[AT_NODE_LINKS_MAX]; /* lacks: it did not have it when it was asked */
    } * part;                         /* room for AT_MEMBERS_MAX, in the machine's cold memory */
    size_t parts;                     /* so many are written */
};

struct at_node_history { /* what a round's outer step needs, kept while updates are */
    bool opened, closed, epoch;
    uint32_t round;
    struct at_hash state_in, state_out; /* out: of the EPOCH */
    struct at_node_contribution *list;  /* owned, [count] */
    size_t count;
};

/* node_tiles.c draws the steps */
enum at_node_tiles_step {
    AT_NODE_TILES_NONE,
    AT_NODE_TILES_STAT,
    AT_NODE_TILES_LEAVES,
    AT_NODE_TILES_FIND,
    AT_NODE_TILES_RUN,
    AT_NODE_TILES_FINISH
};
struct at_node_tiles {
    bool shape_asked;
    uint32_t shape_tiles; /* of a state of this run; 0: not known yet */
    uint64_t shape_bytes;
    struct at_hash held[2]; /* states that the driver can serve, newest first; zero: none */
    /* the fetch */
    enum at_node_tiles_step step;
    struct at_hash root;
    uint32_t round;
    struct at_buf leaves; /* 32 bytes each, leaf 0 first */
    uint64_t starved_ms;  /* since when nobody holds a missing tile; 0: somebody does */
    bool starved_surely;  /* all peers have answered so */
    uint64_t newest_ms;   /* since when the ledger's newest state is that */
    uint32_t switches;    /* to newer states, since one was installed */
    struct at_budget in;
    /* serving */
    struct at_budget out;
    bool out_blocked;     /* a want waits for the budget */
    uint64_t exchange_ms; /* when an update was asked for last */
    uint32_t turn;        /* the link that is served next */
    struct at_tiles pick; /* of the fetch */
};

struct at_node_group { /* node_group.c; places as in ledger/groups.h */
    bool on;           /* this round's unit is to be computed, and not complete */
    uint32_t round, size, place;
    uint32_t replica[AT_STAGES_MAX]; /* by place */
    uint32_t with;                   /* the places of those who compute it with this node */
    uint32_t standby;                /* of those who do it without: while one is linked this node waits */
    uint32_t linked;                 /* of those that were linked in this round */
    uint32_t agreed;                 /* of those that mean the same set and know `session` */
    uint32_t session, lost;          /* number of the attempt; units lost in this round */
    uint32_t peer[AT_STAGES_MAX];    /* their sessions; 0: not known */
    struct {
        uint32_t to;
        uint64_t ms;             /* 0: nothing */
    } told[AT_STAGES_MAX];       /* what each was told last */
    uint64_t since_ms, begun_ms; /* of the round, of the attempt */
    uint64_t train_ms;           /* when the running unit began */
    /* Steps of a receipt are believed up to one more than this node has done with the same set: nobody gets further alone. */
    bool rejoined;     /* this process began in the middle of the round: it may have done more than it knows */
    uint32_t most;     /* steps of a unit with this set */
    uint64_t claim_ms; /* since when a receipt has said more; 0: none does */
    uint64_t moved_ms, slowest_ms; /* when the running unit's last step ended; the longest of them */
    struct at_node_team team;      /* as operations point to it */
};

struct at_node_measuring { /* node_measure.c */
    bool asked;            /* MEASURE is under way */
    uint64_t again_ms;     /* then the next; 0: nothing is due */
    uint8_t speed;         /* 0: not measured yet */
    uint64_t time_ms;      /* of the record: */
    bool fresh;            /* it was signed now */
};

enum at_node_state_busy { AT_STATE_IDLE, AT_STATE_INIT, AT_STATE_APPLY, AT_STATE_INSTALL };

/* What drives look at in every step comes first, and close together: each step of a node among hundreds in the simulator
 * begins with none of it in the processor's caches. Large arrays come last, here and in its parts. */
/* Most of what a machine could need and few do. It is not zeroed: each entry is written whole before it is read. */
struct at_node_cold {
    struct at_node_link_cold links[AT_NODE_LINKS_MAX];
    struct at_node_receipt receipts[AT_NODE_RECEIPTS_MAX]; /* passed on by a member, ordered by the steward */
    struct at_node_held_part held[AT_MEMBERS_MAX / AT_NODE_HELD_PART];
    struct at_signed_record own[AT_NODE_OWN_COUNT];
};

struct at_node_scratch { /* node_scratch.c: of one step; nothing in it is looked at in a later one */
    struct at_node_op ops[AT_NODE_OPS_MAX], ops_sorted[AT_NODE_OPS_MAX];
    size_t out_at[AT_NODE_OPS_MAX]; /* SEND: where its bytes begin in `out`, which may move while it grows */
    size_t record_at[AT_NODE_OPS_MAX], kept_at[AT_NODE_OPS_MAX], cosigned_at[AT_NODE_OPS_MAX]; /* PERSIST: likewise */
    struct at_buf out;
    struct at_message_mem mem;
};

struct at_node_machine {
    uint64_t now_ms, wall_ms;
    bool started, ended, finishing, leaving; /* leaving: finishing, and now */
    bool again;                              /* a drive changed what an earlier one looks at, without an operation */
    bool quiet;                              /* see at_node_quiet */
    unsigned look;                           /* groups of drives, see at_node_look */
    bool has_genesis, is_steward, joined;    /* joined: an active member */
    uint64_t due_ms;                         /* the deadline, as it was after the last step that was not quiet: */
    uint64_t ways_due_ms, work_due_ms;       /* the earlier of these, of the two groups of drives */
    uint32_t self1;                          /* own replica, + 1; 0: none yet */
    struct at_consensus *consensus;          /* the single steward's; owned */
    size_t link_top;  /* none is used from here on: every drive looks at all links, and most nodes have few */
    size_t fetch_top; /* none runs from here on: as link_top */
    uint32_t fetch_tag[AT_NODE_FETCHES_MAX]; /* of its key: most fetches are passed over without a look at them */
    uint32_t updates_cost;                   /* of all that run */
    size_t receipt_top;                      /* none waits from here on: as link_top */
    uint32_t company;                        /* so many of them wait for company */
    struct at_node_joins *joins;             /* owned; NULL: not the single steward */
    uint64_t pathless_ms, linkless_ms;       /* since when; 0: there is a way to the steward, a link */
    bool ever_linked;
    /* the member's log */
    bool log_asked, log_synced;
    bool began;        /* the log has been known whole; */
    uint32_t began_in; /* the round that was open then, or UINT32_MAX */
    bool shards_here;
    uint32_t shard_next;    /* shards below it are here */
    uint64_t wrong_note_ms; /* when it was noted last that a blob was not what its hash says; 0: never */
    size_t op_count;
    struct at_node_scratch *scratch;
    bool owns_scratch;
    struct at_node_own own[AT_NODE_OWN_COUNT];
    uint64_t join_refused_ms; /* 0: not refused */
    uint64_t ready_path;
    uint32_t ready_round;
    uint64_t child_end_ms; /* END and the final state are here: since when others are waited for */
    /* the steward's round */
    uint64_t open_ms, ready_ms, round_took_ms, end_ms;
    bool is_ready, is_end;
    uint64_t pause_ms, pause_end_ms; /* how long OPEN waits for members left out; the end of the last pause, 0: none */
    uint64_t start_ms;
    uint64_t look_ms; /* when all members were looked at last, whether their receipts are awaited; */
    uint32_t awaited; /* one whose was; */
    bool look_due;    /* since then only that one was looked at */
    /* own part in the round */
    struct {
        bool running, done, enough; /* enough: it was told to end with its step */
        uint32_t round, step, open_round;
        uint64_t open_ms; /* when this node saw the OPEN of open_round */
        uint64_t began_ms, budget_ms;
        uint32_t begun; /* round + 1 of the last one that began */
        uint64_t tokens;
        double tokens_per_s;
        bool submitted;
        uint64_t progress_ms;
    } unit;
    struct at_node_measuring measuring;
    struct at_node_group group;
    /* state */
    struct {
        bool has, force_fetch;
        enum at_node_state_busy busy;
        uint32_t round;
        struct at_hash root;
        double loss, loss_first; /* of the state held, as the driver evaluated it */
        bool saving, saved, prune_due;
        uint32_t save_round, saved_round, pruned_round;
        uint32_t have_round, have_first;
        bool have_valid;
        uint32_t fetch_round; /* of the state fetched and being installed */
        struct at_hash fetch_root;
        bool desync;
        bool have[AT_MEMBERS_MAX]; /* of history[round].list: the blob is here */
    } state;
    struct {                /* node_bundle.c */
        bool looking;       /* BUNDLE_STAT is under way, for the keys in `look` */
        uint64_t last_link; /* asked last */
        uint64_t moved_ms;  /* when an update was asked for, or a part of one came */
        struct at_hash look[AT_BUNDLE_MAX], write[AT_BUNDLE_MAX];
        struct at_span data[AT_BUNDLE_MAX]; /* what a BUNDLE_WRITE of this step points to */
    } bundle;
    struct at_ledger ledger;
    struct at_node_link links[AT_NODE_LINKS_MAX];
    /* By a node's id, by a link's: where the link was found last; looked at first, never trusted. */
    uint8_t link_hint[1024], link_hint_id[256];
    struct at_node_fetch fetches[AT_NODE_FETCHES_MAX];
    struct at_node_mesh mesh;
    struct at_node_tiles tiles;
    struct at_node_agree agree;
    struct at_follower follower; /* everybody's but a steward's */
    struct at_node_held held;
    struct at_node_cold *cold; /* owned */
    struct at_node_machine_options options;
    char name[AT_NAME_BYTES_MAX + 1], program[AT_PROGRAM_BYTES_MAX + 1];
    struct at_buf genesis_bytes;
    struct at_genesis genesis;
    struct at_hash final_root; /* of the log that may be told to others */
    struct at_node_history history[AT_NODE_HISTORY];
    char join_reason[AT_REASON_BYTES_MAX + 1];
    uint64_t absent_ms[AT_MEMBERS_MAX]; /* by replica: since when it is not here; 0: here */
    bool done[AT_MEMBERS_MAX];          /* by replica: said goodbye after END */
    bool unfit[AT_MEMBERS_MAX];         /* by replica: its update of this round cannot be applied; not waited for */
    struct at_hash *keep;               /* owned: for BLOB_PRUNE */
    struct at_node_status status;
    struct at_node_member_status *shown; /* owned, [shown_cap]: the members of `status`; none before it is asked for */
    uint32_t shown_cap;
    char last_event[AT_NODE_REASON_MAX];
};

/* The event that is being handled has changed nothing that a drive or a deadline depends on, but perhaps to make the deadline
 * later. The last word of its handler. */
static inline void at_node_quiet(struct at_node_machine *m)
{
    m->quiet = true;
}

/* The drives are of two groups: those of links, ways and the directory, and those of the run's work. Of a member's steps most
 * change nothing that one of the groups looks at; whoever changes something says of which. */
enum { AT_NODE_WAYS = 1, AT_NODE_WORK = 2 };
static inline void at_node_look(struct at_node_machine *m, unsigned groups)
{
    m->look |= groups;
    if (groups & AT_NODE_WAYS) m->mesh.still = false;
}

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
/* Asked in every loop over links, so they are inline. */
static inline bool at_node_link_open(const struct at_node_link *link) /* hello said, not closing */
{
    return link->used && link->hello && !link->closing;
}
static inline bool at_node_link_member(const struct at_node_machine *m, const struct at_node_link *link)
{
    (void)m;
    return link->member; /* its node is active */
}
static inline bool at_node_link_seat(const struct at_node_link *link)
{
    return link->seat; /* its node holds one in our ledger's term */
}
bool at_node_linked(const struct at_node_machine *m); /* to anybody */
bool at_node_spend(struct at_node_bucket *b, uint64_t now_ms, uint32_t cost, uint32_t burst, uint32_t ms);
void at_node_member_changed(struct at_node_machine *m, const struct at_node_id *id); /* it has just joined, or left */
void at_node_seats_changed(struct at_node_machine *m); /* a genesis is here, a term begins */
void at_node_link_up(struct at_node_machine *m, const struct at_node_event *e);
void at_node_link_down(struct at_node_machine *m, const struct at_node_event *e);
void at_node_link_refuse(struct at_node_machine *m, struct at_node_link *link, const char *reason); /* Bye, close */
void at_node_message(struct at_node_machine *m, const struct at_node_event *e);
void at_node_say_hello(struct at_node_machine *m, uint64_t link);
void at_node_links_drive(struct at_node_machine *m);
uint64_t at_node_links_deadline_ms(const struct at_node_machine *m);

/* ---- node_peers.c ---- */
at_err_t at_node_peers_room(struct at_node_machine *m); /* for one member more; AT_E_NOMEM */
void at_node_ring_make(struct at_node_machine *m);
void at_node_ring_add(struct at_node_machine *m, uint32_t replica);  /* it has just become active */
void at_node_ring_drop(struct at_node_machine *m, uint32_t replica); /* it was active until now */
void at_node_ring_stale(struct at_node_machine *m);                  /* all of it is to be made anew */
uint32_t at_node_ring_find(const struct at_node_machine *m, const struct at_node_id *id); /* the first not below it */
uint64_t at_node_counter(struct at_node_machine *m);                                      /* the next of ours */
void at_node_reachable(struct at_node_machine *m, const struct at_node_event *e);
void at_node_peers_kept(struct at_node_machine *m, const struct at_node_event *e);
void at_node_peers_link(struct at_node_machine *m, struct at_node_link *link);           /* it has said hello */
void at_node_peers_link_new(struct at_node_machine *m, const struct at_node_link *link); /* it is there */
void at_node_peers(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_peers *msg);
void at_node_peers_get(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_peers_get *msg);
void at_node_peers_drive(struct at_node_machine *m);
uint64_t at_node_peers_deadline_ms(const struct at_node_machine *m);
uint32_t at_node_peers_known(const struct at_node_machine *m);

/* ---- node_mesh.c ---- */
/* A dial of ours has come up. Returns the size that our log had when it began. */
uint64_t at_node_mesh_up(struct at_node_machine *m, const struct at_node_id *node, uint64_t dial);
void at_node_mesh_hello(struct at_node_machine *m, const struct at_node_id *node); /* it takes part */
/* link 0: no way led there. was_open: it had said hello, and been up for so long. */
void at_node_mesh_down(struct at_node_machine *m, const struct at_node_id *node, uint64_t link, bool was_open,
                       uint64_t up_ms, const char *reason);
/* True: linked, or being dialled. False: not now. */
bool at_node_mesh_reach(struct at_node_machine *m, const struct at_node_id *node);
void at_node_mesh_drive(struct at_node_machine *m);
uint64_t at_node_mesh_deadline_ms(const struct at_node_machine *m);

/* ---- node_crowd.c ---- */
bool at_node_nearer(const struct at_node_id *a, const struct at_node_id *b, const struct at_node_id *to);
bool at_node_near_by(const struct at_node_machine *m, uint32_t before); /* with so many nearer, the steward included */
static inline bool at_node_lets_go(const struct at_node_machine *m, const struct at_node_link *l)
{
    return m->mesh.let_go && l->dialed && at_node_link_seat(l); /* no way for this node, although it is linked */
}
/* Of a steward: who gives way to this member; NULL: nobody. */
struct at_node_link *at_node_crowd_give_way(struct at_node_machine *m, const struct at_node_id *coming);
/* There is no room for this link: where else to go, for one that is no member. */
void at_node_crowd_answer(struct at_node_machine *m, uint64_t link, const struct at_node_id *node);
void at_node_hints(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_peers *msg);
struct at_node_hint *at_node_hint_of(struct at_node_machine *m, const struct at_node_id *node); /* NULL: none */
void at_node_crowd_drive(struct at_node_machine *m);
uint64_t at_node_crowd_deadline_ms(const struct at_node_machine *m);

uint32_t at_node_members_linked(const struct at_node_machine *m);
bool at_node_ring_calls(struct at_node_machine *m, uint32_t replica); /* one of the two dials the other by right */

/* ---- node_sums.c ---- */
void at_node_sums_make(struct at_node_machine *m);                     /* with the ring; */
void at_node_sums_toggle(struct at_node_machine *m, uint32_t replica); /* and whom it gets, or loses */
void at_node_sums_change(struct at_node_machine *m, const struct at_endpoints *from, const struct at_endpoints *to);
/* Borrowed from ret_bytes. */
struct at_span at_node_sums_write(const struct at_node_machine *m, uint8_t ret_bytes[8 * AT_PEERS_SUMS_MAX]);
/* Against what a peer knows: which ranges it is told. */
void at_node_sums_differ(const struct at_node_machine *m, struct at_span sums, bool ret_differ[AT_PEERS_SUMS_MAX]);
bool at_node_sums_told(const bool differ[AT_PEERS_SUMS_MAX], const struct at_node_id *id);

/* ---- node_spare.c ---- */
void at_node_spare_link(struct at_node_machine *m); /* one has come */
void at_node_spare_drive(struct at_node_machine *m);
uint64_t at_node_spare_deadline_ms(const struct at_node_machine *m);

/* ---- node_climb.c ---- */
/* invited: it is the node of the invite, whose address the driver knows. where: NULL when it has told none. meet: others may
 * be asked to arrange a meeting, and `turn` says which of them first. False: no address is known, or too many nodes are
 * being reached. */
bool at_node_climb_begin(struct at_node_machine *m, const struct at_node_id *node, bool invited,
                         const struct at_endpoints *where, bool meet, uint32_t turn);
/* A link to it is here: by this dial, or (0) by its own. */
void at_node_climb_over(struct at_node_machine *m, const struct at_node_id *node, uint64_t dial);
void at_node_climb_failed(struct at_node_machine *m, const struct at_node_event *e);
void at_node_climb_drive(struct at_node_machine *m);
uint64_t at_node_climb_deadline_ms(const struct at_node_machine *m);

/* ---- node_route.c ---- */
uint32_t at_node_hops(const struct at_node_machine *m);       /* from here to the steward; AT_HOPS_NONE */
struct at_node_link *at_node_feed(struct at_node_machine *m); /* open, or NULL */
void at_node_head(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_head *msg);
void at_node_route_lost(struct at_node_machine *m, const struct at_node_link *link);
void at_node_route_distrust(struct at_node_machine *m); /* the feed: our words do not arrive */
void at_node_route_drive(struct at_node_machine *m);
uint64_t at_node_route_deadline_ms(const struct at_node_machine *m);

/* ---- node_log.c ---- */
at_err_t at_node_take(void *user, const struct at_signed_record *record, struct at_hash leaf,
                      struct at_diag *diag);                             /* the fold's hook */
static inline uint64_t at_node_log_size(const struct at_node_machine *m) /* what may be told to others */
{
    const struct at_consensus *c = m->consensus;
    if (!m->has_genesis) return 0;
    return c ? m->ledger.tree.size - (c->in_flight ? c->block_count : 0) : m->agree.told;
}
static inline bool
at_node_settled(const struct at_node_machine *m) /* nothing in flight or queued: the ledger is final */
{
    return !m->consensus || (!m->consensus->in_flight && m->consensus->queue_count == 0);
}
/* New records with their checkpoint, to those who follow this node; or, when they are not at hand, from the disk. */
void at_node_log_push(struct at_node_machine *m, uint64_t from, const struct at_signed_record *records, size_t count,
                      const struct at_log_checkpoint *checkpoints, size_t checkpoint_count);
void at_node_log_push_read(struct at_node_machine *m);
void at_node_log_start(struct at_node_machine *m); /* once genesis and stored log are known */
void at_node_log_get(struct at_node_machine *m, struct at_node_link *link, uint64_t from, bool once);
void at_node_log_data(struct at_node_machine *m, const struct at_node_event *e);
void at_node_log_part(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_log_part *part);
void at_node_log_ask(struct at_node_machine *m, struct at_node_link *link, bool once);
void at_node_persisted(struct at_node_machine *m);
void at_node_consensus_tick(struct at_node_machine *m);
struct at_node_history *at_node_history(struct at_node_machine *m, uint32_t round); /* NULL: not kept */

/* ---- node_relay.c ---- */
void at_node_submit(struct at_node_machine *m, struct at_node_link *link, const struct at_signed_record *record);
void at_node_submit_own(struct at_node_machine *m, const struct at_signed_record *record, uint64_t tag); /* steward */
bool at_node_sign_own(struct at_node_machine *m, struct at_record *record, struct at_signed_record *ret_signed);
bool at_node_sign_at(struct at_node_machine *m, struct at_record *record, uint64_t time_ms,
                     struct at_signed_record *ret_signed);
/* The fold of several stewards has refused a record: whoever submitted it here is told. */
void at_node_refused_late(struct at_node_machine *m, struct at_hash leaf, const char *reason);
void at_node_update_check(struct at_node_machine *m, uint64_t link, const struct at_receipt *receipt);
/* A member's own record: sends it on the way to the steward, and again when the way has changed or nothing came of it. */
void at_node_own_send(struct at_node_machine *m, enum at_node_own_what what);
/* Signs it anew. False: it is none, and the machine has ended. time_ms: its own, not behind the log's. */
bool at_node_own_sign(struct at_node_machine *m, enum at_node_own_what what, struct at_record *record,
                      uint64_t time_ms);
static inline void at_node_own_submit(struct at_node_machine *m, enum at_node_own_what what) /* a steward's */
{
    at_node_submit_own(m, &m->cold->own[what], 0);
}
/* A JOIN of somebody who is a member. It is in the log then, and that its author will hear: no refusal, which would tell
 * it that it may not join. */
bool at_node_joins_again(const struct at_node_machine *m, const struct at_signed_record *record);
void at_node_refused(struct at_node_machine *m, uint64_t link, struct at_hash record, const char *reason);
void at_node_refusal(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_refused *msg);
bool at_node_author_spend(struct at_node_machine *m, const struct at_node_id *author);
void at_node_relay_fetched(struct at_node_machine *m, struct at_hash key);
void at_node_relay_checked(struct at_node_machine *m, const struct at_node_event *e);
void at_node_relay_lost(struct at_node_machine *m, const struct at_node_link *link);
void at_node_relay_drive(struct at_node_machine *m);
uint64_t at_node_own_deadline_ms(const struct at_node_machine *m);

/* ---- node_company.c ---- */
/* The update of this waiting receipt is fit: it is ordered, soon. */
void at_node_company_join(struct at_node_machine *m, struct at_node_receipt *w);
/* The replica's receipt waits, or those that complete its unit do. */
bool at_node_in_company(const struct at_node_machine *m, uint32_t replica);
void at_node_company_leave(struct at_node_machine *m, struct at_node_receipt *w); /* it is ordered now */
/* A JOIN that the fold would take: it is ordered, soon. */
void at_node_company_newcomer(struct at_node_machine *m, const struct at_signed_record *record, uint64_t link);
uint64_t at_node_company_most_ms(const struct at_node_machine *m); /* no receipt waits longer, at any steward */
void at_node_company_drive(struct at_node_machine *m);
uint64_t at_node_company_deadline_ms(const struct at_node_machine *m);

/* ---- node_presence.c ---- */
/* The member's newest word, when it is here by a link of its own or through others; NULL: it is not. Counter 0: it has
 * said nothing yet. */
const struct at_presence *at_node_present(struct at_node_machine *m, uint32_t replica);
void at_node_say_ready(struct at_node_machine *m);
void at_node_say_here(struct at_node_machine *m);
void at_node_ready(struct at_node_machine *m, struct at_node_link *link, const struct at_presence *p);
void at_node_presences(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_presences *msg);
void at_node_gone(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_gone *msg);
void at_node_presence_lost(struct at_node_machine *m, const struct at_node_link *link);
void at_node_presence_again(struct at_node_machine *m); /* the way to the steward is another */
void at_node_presence_drive(struct at_node_machine *m);
bool at_node_presence_due(const struct at_node_machine *m); /* there is more to tell in the next step */

/* ---- node_serve.c ---- */
void at_node_want(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_want *want);
void at_node_blob_data(struct at_node_machine *m, const struct at_node_event *e);
void at_node_link_room(struct at_node_machine *m, struct at_node_link *link, bool room);
void at_node_serve_next(struct at_node_machine *m, struct at_node_link *link);        /* the next of its wants */
void at_node_serve_first(struct at_node_link *link, const struct at_node_want *want); /* it is before all others */

/* ---- node_blob.c, node_piece.c ---- */
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
/* The update of a receipt in the log. */
struct at_node_fetch *at_node_fetch_update(struct at_node_machine *m, uint32_t round, uint32_t replica,
                                           struct at_hash update, uint64_t bytes);
void at_node_fetch_cancel(struct at_node_machine *m, struct at_node_fetch *fetch); /* NULL is fine */
void at_node_fetch_over(struct at_node_machine *m, struct at_node_fetch *f);       /* it has run */
uint64_t at_node_fetch_deadline_ms(const struct at_node_machine *m);
/* The blob is here (fetched, or found in the folder). */
void at_node_fetched(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key);

bool at_node_fetch_answered(struct at_node_machine *m, struct at_node_link *link, enum at_blob_kind kind);
void at_node_fetch_want(struct at_node_machine *m, struct at_node_fetch *f); /* as many wants as its peer may have */
void at_node_fetch_start(struct at_node_machine *m, struct at_node_fetch *f);
void at_node_fetch_missed(struct at_node_machine *m, struct at_node_fetch *f, struct at_node_link *link);
/* This is all of it. True: it was asked for, and is to be written. */
bool at_node_fetch_whole(struct at_node_machine *m, struct at_node_fetch *f, struct at_node_link *link,
                         const struct at_msg_piece *piece);
void at_node_fetch_looked(struct at_node_machine *m, struct at_node_fetch *f, bool complete, uint64_t bytes_have);
void at_node_fetch_stored(struct at_node_machine *m, struct at_node_fetch *f, bool ok, bool wrong);

/* ---- node_bundle.c ---- */
bool at_node_small_update(const struct at_node_machine *m, uint64_t bytes);
/* How much room it takes among those that are fetched side by side, of AT_NODE_UPDATES_COST. */
uint32_t at_node_update_cost(const struct at_node_machine *m, uint64_t bytes);
/* More of them may be fetched. Among many members they begin together, once half of that room is free or nothing comes: so that a
 * want is for many. */
bool at_node_bundle_fills(const struct at_node_machine *m);
bool at_node_is_small(const struct at_node_machine *m, const struct at_node_fetch *f); /* it goes in bundles */
void at_node_bundle_ask(struct at_node_machine *m, struct at_node_fetch *first);
void at_node_bundle_want(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_bundle_want *want);
void at_node_bundle_read(struct at_node_machine *m, struct at_node_link *link);
void at_node_bundle_data(struct at_node_machine *m, const struct at_node_event *e);
void at_node_bundle_state(struct at_node_machine *m, const struct at_node_event *e);
void at_node_bundle_stored(struct at_node_machine *m, const struct at_node_event *e);
void at_node_bundle_drive(struct at_node_machine *m);
void at_node_bundle(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_bundle *bundle);

/* ---- node_held.c ---- */
enum at_node_holds { AT_NODE_HOLDS_NOT, AT_NODE_HOLDS_TOO /* but others are to be asked before */, AT_NODE_HOLDS };
void at_node_held_opened(struct at_node_machine *m);
void at_node_held_receipt(struct at_node_machine *m, uint32_t replica); /* it is in the log */
bool at_node_held_here(const struct at_node_machine *m, uint32_t round, uint32_t replica);
void at_node_held_asked(struct at_node_machine *m, const struct at_node_fetch *f, bool asked);
void at_node_held_fetched(struct at_node_machine *m, const struct at_node_fetch *f);
void at_node_held_link(struct at_node_machine *m, const struct at_node_link *link); /* it is new */
void at_node_held_hello(struct at_node_machine *m);                                 /* one has said hello */
void at_node_held(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_held *msg);
void at_node_held_missed(struct at_node_machine *m, const struct at_node_fetch *f, const struct at_node_link *link);
void at_node_held_lied(struct at_node_machine *m, const struct at_node_link *link); /* until the next round */
enum at_node_holds at_node_held_by(struct at_node_machine *m, const struct at_node_link *l,
                                   const struct at_node_fetch *f);
/* What may be fetched ahead of CLOSE; false: nothing now. */
bool at_node_held_offered(struct at_node_machine *m, struct at_replicas *ret_offered);
void at_node_held_drive(struct at_node_machine *m);
uint64_t at_node_held_deadline_ms(const struct at_node_machine *m);

/* ---- node_blob_peer.c ---- */
/* The best that is known of any peer that may be asked. */
enum at_node_holds at_node_fetch_holds(struct at_node_machine *m, const struct at_node_fetch *f);
/* Of those who have it for all that is known, or else of all, the peer whose id follows the one asked last: all are tried
 * in turn. NULL: none. */
struct at_node_link *at_node_fetch_next(struct at_node_machine *m, const struct at_node_fetch *f, bool busy_too);
struct at_node_link *at_node_fetch_peer(struct at_node_machine *m, const struct at_node_fetch *f); /* NULL: none now */
/* Would `link` be as good as any to ask for it now? */
bool at_node_fetch_suits(struct at_node_machine *m, const struct at_node_fetch *f, const struct at_node_link *link);

/* ---- node_tiles.c ---- */
/* Begins to fetch the state, or goes on; instead of what was fetched before. */
void at_node_tiles_fetch(struct at_node_machine *m, struct at_hash root, uint32_t round);
void at_node_tiles_cancel(struct at_node_machine *m);
uint64_t at_node_tiles_bytes_left(const struct at_node_machine *m);      /* of the fetch; an estimate */
bool at_node_tiles_starved(const struct at_node_machine *m);             /* for a while */
void at_node_tiles_hold(struct at_node_machine *m, struct at_hash root); /* the driver holds this state from now on */
void at_node_tiles_shape(struct at_node_machine *m, const struct at_node_event *e);
void at_node_tiles_stat(struct at_node_machine *m, const struct at_node_event *e);
void at_node_tiles_leaves(struct at_node_machine *m, struct at_node_link *link); /* the list is complete */
void at_node_tiles_found(struct at_node_machine *m, const struct at_node_event *e);
void at_node_tiles_stored(struct at_node_machine *m, const struct at_node_event *e);
void at_node_tiles_ask(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_tiles_ask *ask);
void at_node_tiles_have(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_tiles_have *have);
void at_node_tiles_piece(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_piece *piece);
void at_node_tiles_missing(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_missing *missing);
void at_node_tiles_link_down(struct at_node_machine *m, uint64_t link);
enum at_node_serve { AT_NODE_SERVE_NOW, AT_NODE_SERVE_LATER, AT_NODE_SERVE_NEVER };
/* May a want for a state be served? NEVER: this peer has taken too much. */
enum at_node_serve at_node_tiles_serve(struct at_node_machine *m, struct at_node_link *link);
void at_node_tiles_served(struct at_node_machine *m, struct at_node_link *link, size_t bytes);
void at_node_tiles_drive(struct at_node_machine *m);
uint64_t at_node_tiles_deadline_ms(const struct at_node_machine *m);

/* ---- node_state.c ---- */
void at_node_state_start(struct at_node_machine *m, const struct at_node_event *e);
void at_node_state_ready(struct at_node_machine *m, const struct at_node_event *e);
void at_node_state_applied(struct at_node_machine *m, const struct at_node_event *e);
void at_node_state_saved(struct at_node_machine *m, const struct at_node_event *e);
void at_node_state_fetched(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key);
void at_node_state_drive(struct at_node_machine *m);
bool at_node_state_confirmed(const struct at_node_machine *m); /* it is the one at the start of the ledger's round */

bool at_node_state_is_saved(const struct at_node_machine *m); /* and durable here */
void at_node_state_opened(struct at_node_machine *m);
void at_node_say_saved(struct at_node_machine *m); /* that, to every member linked, once per round */

/* ---- node_round.c ---- */
static inline int at_node_self(const struct at_node_machine *m) /* own replica index, -1: none */
{
    return (int)m->self1 - 1;
}
static inline bool at_node_joined(const struct at_node_machine *m) /* active member by the log */
{
    return m->joined;
}
void at_node_unit_event(struct at_node_machine *m, const struct at_node_event *e);
void at_node_data_drive(struct at_node_machine *m);
void at_node_unit_drive(struct at_node_machine *m);
void at_node_member_drive(struct at_node_machine *m);
uint64_t at_node_member_deadline_ms(const struct at_node_machine *m);
void at_node_unit_start(struct at_node_machine *m, const struct at_allotment *u, const struct at_node_team *team);
void at_node_unit_hand_in(struct at_node_machine *m);
uint64_t at_node_end_linger_ms(const struct at_node_machine *m); /* at most, after END */

/* ---- node_measure.c ---- */
void at_node_measured(struct at_node_machine *m, const struct at_node_event *e);
void at_node_measure_drive(struct at_node_machine *m);
uint64_t at_node_measure_deadline_ms(const struct at_node_machine *m);

/* ---- node_group.c ---- */
void at_node_stage(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_stage *msg);
/* u: this node's unit of the open round, or NULL. */
void at_node_group_drive(struct at_node_machine *m, const struct at_allotment *u);
void at_node_group_lost(struct at_node_machine *m, const char *reason); /* the unit that ran with others */
void at_node_group_moved(struct at_node_machine *m, uint32_t step);     /* it has done one; 0: it is at its share */
/* The unit of so many steps that is done, without its share of the held-out loss, for which an eighth of a whole unit at the
 * pace of these steps is allowed; 0: need not be said. */
uint32_t at_node_group_took_ms(const struct at_node_machine *m, uint32_t share_ms, uint32_t steps);
uint32_t at_node_group_with(const struct at_node_machine *m);  /* whom a receipt of ours would name */
uint32_t at_node_group_steps(const struct at_node_machine *m); /* that the unit must have: a receipt's; 0: any */
uint64_t at_node_group_deadline_ms(const struct at_node_machine *m);

/* ---- node_steward.c ---- */
void at_node_steward_start(struct at_node_machine *m);
void at_node_steward_begin(struct at_node_machine *m); /* among several, from now on */
void at_node_steward_opened(struct at_node_machine *m);
bool at_node_steward_awaits_more(struct at_node_machine *m); /* receipts that have not come yet */
void at_node_steward_drive(struct at_node_machine *m);
uint64_t at_node_steward_deadline_ms(const struct at_node_machine *m);

/* ---- node_agree.c ---- */
/* It holds a seat in our ledger's term. */
static inline bool at_node_is_seat(const struct at_node_machine *m, const struct at_node_id *node)
{
    return m->has_genesis && at_ledger_seat(&m->ledger, node) >= 0;
}
bool at_node_among_several(const struct at_node_machine *m); /* this node is a steward of them */
uint32_t at_node_seats_here(struct at_node_machine *m);      /* holders that are linked, and this node */
/* To the holders of seats (bit i: seat i) that are linked, this node excepted. */
void at_node_to_seats(struct at_node_machine *m, const struct at_seats *seats, uint32_t to,
                      const struct at_message *msg);
/* One step; what it asks for is done. The step's err. */
at_err_t at_node_simplex(struct at_node_machine *m, struct at_simplex_event event);
void at_node_agree_persisted(struct at_node_machine *m);
void at_node_agree_message(struct at_node_machine *m, struct at_node_link *link, struct at_span bytes);
void at_node_agree_data(struct at_node_machine *m, const struct at_node_event *e);
void at_node_agree_link(struct at_node_machine *m, struct at_node_link *link); /* it has said hello */
/* AT_E_NOT_FOUND: no seat for this node, or not its key. */
at_err_t at_node_term_open(struct at_node_machine *m, const struct at_simplex_tip *tip, bool abstain);
void at_node_agree_drive(struct at_node_machine *m);
uint64_t at_node_agree_deadline_ms(const struct at_node_machine *m);
void at_node_agree_release(struct at_node_machine *m);

/* ---- node_final.c ---- */
void at_node_fold_before(struct at_node_machine *m, const struct at_signed_record *record);
void at_node_fold_after(struct at_node_machine *m, const struct at_signed_record *record);
void at_node_follow_seats(struct at_node_machine *m, const struct at_seats *seats);
/* Of the log when it had this size; false: not known any more. */
bool at_node_root_at(const struct at_node_machine *m, uint64_t size, struct at_hash *ret_root);
void at_node_final(struct at_node_machine *m, const struct at_simplex_op *o);
void at_node_cosign_term(struct at_node_machine *m, struct at_node_term *t, const struct at_seats *seats,
                         const struct at_keypair *key);
void at_node_cosign_before(struct at_node_machine *m); /* the term that was the present one is over */
void at_node_cosign_now(struct at_node_machine *m);
void at_node_cosign_again(struct at_node_machine *m, const struct at_node_link *link);
void at_node_cosign(struct at_node_machine *m, struct at_node_link *link, const struct at_log_checkpoint *c);
void at_node_cosign_persist(struct at_node_machine *m);
void at_node_cosign_attach(struct at_node_machine *m, struct at_node_op *op); /* to a PERSIST */
bool at_node_cosign_before_done(const struct at_node_machine *m); /* that term's last size has its checkpoint */

/* ---- node_kept.c ---- */
const struct at_node_cached *at_node_block_find(const struct at_node_machine *m, uint64_t view,
                                                const struct at_hash *hash); /* NULL: not in memory */
void at_node_block_cache(struct at_node_machine *m, uint64_t view, struct at_hash hash, struct at_span bytes);
void at_node_blocks_drop(struct at_node_machine *m, uint64_t view); /* those of views up to this one */
void at_node_blocks_clear(struct at_node_machine *m);
void at_node_keep(struct at_node_machine *m, const struct at_simplex_op *o); /* a persist op: into this step's rows */

/* ---- node_seat.c ---- */
/* The key pair of a seat, and its beacon (NULL: not wanted; NULL in it: no memory). False: it is not of our secrets. */
bool at_node_seat_key(struct at_node_machine *m, const struct at_node_id *key, struct at_keypair *ret_key,
                      const struct at_beacon_chain **ret_chain);
/* Two things under one seat's key that exclude each other: told to people, and to the log. */
void at_node_accuse(struct at_node_machine *m, const struct at_evidence *e);
void at_node_secret(struct at_node_machine *m, const struct at_node_secret *secret);
void at_node_seat_drive(struct at_node_machine *m);

/* ---- node_words.c ---- */
bool at_node_word(struct at_node_machine *m, struct at_record *rec);   /* true: it was said now */
bool at_node_holds(const struct at_node_machine *m, uint32_t replica); /* the update of its logged receipt */
bool at_node_hold_awaited(struct at_node_machine *m, uint32_t replica);
void at_node_hold_set(struct at_node_machine *m, uint32_t replica, struct at_hash update, bool fit);
void at_node_hold_clear(struct at_node_machine *m);
void at_node_hold_fetched(struct at_node_machine *m, struct at_hash key);
void at_node_hold_checked(struct at_node_machine *m, const struct at_node_event *e);
void at_node_hold_drive(struct at_node_machine *m);

#endif
