/* world.h: a virtual world in which real node machines (swarm/) run under a virtual clock: one process, one seed,
 * no system call. Node 0 is the steward, and the invite of the others names it unless the test says otherwise. sim.h
 * makes whole runs with faults of it.
 *
 * What is simulated: links with seeded latency that keep order (they are TLS over TCP) and that break, with end of file
 * at once or silence for five seconds; lines with rates, queues and losses; bulk queues that are full now and then;
 * disks whose writes become durable later and are lost in a crash; crashes at any event; restarts; partitions; slow
 * members; compute as a cost model. A state is 32 bytes h, its blob is made from h, its root a Merkle root over the
 * tiles of the blob as a real state's is, and h' = SHA-256(h ‖ (replica, tokens, update hash)...): cheap, and different
 * whenever anything that an outer step depends on differs.
 *
 * What is checked, from outside, on every step: nobody ever stores two different records at one index; one root per
 * round, and it is that of an independent recomputation; a counted update is durable at the steward when its CLOSE is,
 * and is what its unit gives; no sample is consumed twice; points are conserved; no honest node ends in error. And at
 * the end (at_world_check): the ledger verifies, no sample is lost, everybody holds the last root.
 *
 * Memory: what nodes share by content (records, whole blobs) is kept once; a node's machine is the rest. */
#ifndef ATOLL_SIM_WORLD_H
#define ATOLL_SIM_WORLD_H

#include "swarm/node_machine.h"

struct at_world_options {
    uint64_t seed;
    int nodes;
    uint32_t rounds, steps, min_members, round_ms_max; /* of the genesis */
    uint32_t latency_ms_min, latency_ms_max;
    uint32_t sync_ms_max; /* a write is durable after 1..this */
    uint32_t step_ms;     /* one inner step on a node of speed 1 */
    uint32_t update_bytes, shard_bytes, state_bytes;
    uint32_t tile_bytes;                           /* 0: 4096 */
    uint64_t serve_bytes_per_s, fetch_bytes_per_s; /* of every node's machine */
    uint32_t full_percent;                         /* of bulk frames are refused at first */
    uint32_t links_max;                            /* of every node; 0: what the machine takes by itself */
    uint32_t canary;                               /* handed to the machine of node 0; NO_DUMMIES: to all */
    bool meets;                                    /* nodes arrange meetings; else nobody does */
    bool trace;
    size_t trace_bytes_max; /* only the newest lines are kept, at least so many bytes of them; 0: all */
    /* What a large world adds; all 0 in a small one. */
    bool lines;           /* nodes have lines with rates (at_world_line); else links have latency alone */
    uint32_t bulk_weight; /* with lines a byte of a blob takes as long as so many: stand-ins are small; 0: 1 */
    int stewards;     /* nodes 0 .. stewards - 1 may hold seats: the invites of 1 .. have tickets; 0: node 0 alone */
    uint32_t stages;  /* members that share a unit; 0: none */
    bool stage_costs; /* of a run of stages: a step takes what its stages and the way between them do */
    bool roles;       /* members measure themselves */
    uint32_t site_ms;
    bool peers_give_up;   /* a node may end because it could not reach anybody: counted, and no violation */
    bool spoil_scratch;   /* what a step leaves in its scratch becomes garbage once its operations are done */
    bool real_signatures; /* Ed25519's, not their stand-ins (world_sign.c): the same happens, and takes longer */
};

/* How a node is connected. Times add up over both ends of a link; a link is as fast as its slower end. */
struct at_world_line {
    uint32_t latency_ms, jitter_ms; /* each message takes latency + 0..jitter */
    uint32_t up_kbit, down_kbit;
    uint32_t loss_ppm; /* of packets; TCP sends them again: it costs time and rate, nothing is lost */
};

/* What can be set on a node at a virtual time. */
enum at_world_knob {
    AT_WORLD_SPEED_PERMILLE, /* of its own speed */
    AT_WORLD_LATENCY_MS,     /* more than its line's */
    AT_WORLD_RATE_PERMILLE,  /* of its line's */
    AT_WORLD_LOSS_PPM,       /* more than its line's */
    AT_WORLD_SIDE,           /* nodes of two sides hear nothing of each other */
    AT_WORLD_DEAF,           /* 1: nothing reaches it */
    AT_WORLD_MUTE,           /* 1: nothing that it sends arrives */
    AT_WORLD_SKEW_MS,        /* of its Unix clock, + AT_WORLD_SKEW_ZERO */
    AT_WORLD_SYNC_MS,        /* its writes are durable after 1..this; 0: the world's */
    AT_WORLD_DISK_FULL,      /* 1: its process dies of the next write */
    AT_WORLD_DISK_ROT,       /* a set of enum at_world_rot, acted on when the node is down */
    AT_WORLD_HOSTILE,        /* a set of enum at_world_hostile */
    AT_WORLD_NAT,            /* enum at_world_nat: what it sits behind */
    AT_WORLD_DIES_WRITING, /* it is killed with its next log write not durable yet, and starts again after so many ms */
    AT_WORLD_SITE,         /* between nodes of two sites messages take site_ms more */
    AT_WORLD_MEMORY_MIB,   /* that it says it has; 0: plenty */
    AT_WORLD_KNOB_COUNT
};
#define AT_WORLD_SKEW_ZERO ((uint64_t)1 << 40)

enum at_world_nat { AT_WORLD_NAT_NONE, AT_WORLD_NAT_CONE, AT_WORLD_NAT_SYMMETRIC };

enum at_world_rot {
    AT_WORLD_ROT_STATE = 1,  /* the saved state does not have its root any more */
    AT_WORLD_ROT_PART = 2,   /* what there is of unfinished blobs is garbage */
    AT_WORLD_ROT_LOG = 4,    /* a record is damaged: the folder is refused, and its owner starts with an empty one */
    AT_WORLD_ROT_BEHIND = 8, /* an old copy of the folder: the newer half of the log and the state are gone */
};

/* What a Byzantine node does beside its honest part. */
enum at_world_hostile {
    AT_WORLD_HOSTILE_WITHHOLD = 1, /* sends no pieces of updates */
    AT_WORLD_HOSTILE_SOME = 2,     /* sends them to some peers in some rounds */
    AT_WORLD_HOSTILE_GARBAGE = 4,  /* sends wrong bytes in them, and in tiles of states */
    AT_WORLD_HOSTILE_NONSENSE = 8, /* its update is not what its unit gives */
    AT_WORLD_HOSTILE_RECEIPT = 16, /* signs receipts that say something else than what it did */
    AT_WORLD_HOSTILE_REPLAY = 32,  /* says again what it said before */
    AT_WORLD_HOSTILE_NOISE = 64,   /* says what is no message */
    AT_WORLD_HOSTILE_FLOOD = 128,  /* says everything many times */
    AT_WORLD_HOSTILE_READY = 256,  /* is ready with another state than it holds */
    AT_WORLD_HOSTILE_STEPS = 2048, /* after its first step says that it has done them all */
    AT_WORLD_HOSTILE_ALL = 511,
    /* Of a steward among several: */
    AT_WORLD_HOSTILE_HOLD_VOTES = 512, /* says what stewards say to half of them only */
    AT_WORLD_HOSTILE_EQUIVOCATE = 1024 /* proposes other blocks to half of them, signed as it must */
};

enum at_world_crash { AT_WORLD_CRASH_NEVER, AT_WORLD_CRASH_BEFORE_OPS, AT_WORLD_CRASH_AFTER_OPS };

struct at_world;
at_err at_world_init(const struct at_world_options *options, struct at_world **ret_world);
void at_world_release(struct at_world *w);

/* What happens, now or at a virtual time. */
void at_world_start_node(struct at_world *w, int node, uint64_t at_ms);
void at_world_crash(struct at_world *w, int node, uint64_t at_ms, bool silent); /* silent: peers notice after 5 s */
void at_world_kill(struct at_world *w, int node, uint64_t at_ms); /* at once, seen at once, and for good */
void at_world_break_links(struct at_world *w, int node, uint64_t at_ms);
void at_world_partition(struct at_world *w, int node, uint64_t at_ms, uint64_t until_ms);
/* The two cannot reach each other in that time; links between them are found dead. b -1: node a is not dialled by
 * anybody (it sits behind a firewall), but its links stay. */
void at_world_wall(struct at_world *w, int a, int b, uint64_t at_ms, uint64_t until_ms);
void at_world_contact(struct at_world *w, int node, int contact); /* whom its invite names */
void at_world_move(struct at_world *w, int node); /* from now on it is at another address; while it is down */
void at_world_finish(struct at_world *w, int node, uint64_t at_ms);
void at_world_leave(struct at_world *w, int node, uint64_t at_ms); /* the same, but now: with what its unit has */
void at_world_join_up(struct at_world *w, int from, int to, uint64_t at_ms); /* a link between two that are up then */
void at_world_spoil_tiles(struct at_world *w, int node);                     /* the tiles that it serves are wrong */
void at_world_speed(struct at_world *w, int node, double speed);             /* of its compute; 1 at first */
void at_world_corrupt_state(struct at_world *w, int node); /* its next outer step gives a wrong state */
/* Crash when the node has had `event` more events; restart after restart_ms. */
void at_world_crash_at_event(struct at_world *w, int node, uint64_t event, enum at_world_crash how,
                             uint32_t restart_ms);

/* Runs until every node that is up has ended, nothing is left to happen, or until_ms. False: time ran out, or a checker
 * has objected. */
bool at_world_run(struct at_world *w, uint64_t until_ms);

/* Of a large world. */
void at_world_line_set(struct at_world *w, int node, const struct at_world_line *line);
void at_world_set(struct at_world *w, int node, enum at_world_knob knob, uint64_t value, uint64_t at_ms);
void at_world_return_node(struct at_world *w, int node, uint64_t at_ms); /* start; also after it ended by itself */
void at_world_flood(struct at_world *w, int node, uint64_t at_ms);       /* a stranger's minute of hostile traffic */
const char *at_world_violation(const struct at_world *w);                /* the first; NULL: none */
bool at_world_check(struct at_world *w); /* the checks of the end; false: see violation */

uint64_t at_world_now_ms(const struct at_world *w);
uint64_t at_world_events(const struct at_world *w, int node);               /* that its machines were given so far */
const struct at_node_status *at_world_status(struct at_world *w, int node); /* NULL: down */
bool at_world_ended(const struct at_world *w, int node, at_err_t *ret_err);
int at_world_nodes(const struct at_world *w);
const char *at_world_trace(const struct at_world *w); /* a line per message, record and deed */
uint32_t at_world_log_count(struct at_world *w,
                            enum at_record_kind kind);               /* in the steward's durable log, or the longest */
uint32_t at_world_oldest_secret(const struct at_world *w, int node); /* the term of it; 0: none on its disk */
uint64_t at_world_block_ms(const struct at_world *w); /* virtual time when the newest block of several became durable */
uint32_t at_world_included(struct at_world *w, uint32_t round); /* contributions of its CLOSE; UINT32_MAX: none yet */
uint64_t at_world_tokens(const struct at_world *w, int node);   /* of its work that a CLOSE counted */
uint64_t at_world_sent(const struct at_world *w, enum at_message_kind kind); /* messages that nodes have sent so far */
uint32_t at_world_links(const struct at_world *w, int node);                 /* that are up between it and nodes */
uint32_t at_world_dials(const struct at_world *w, int node);
uint32_t at_world_desyncs(const struct at_world *w, int node);
/* Of states and updates, in pieces that it was sent; of states, that it sent. */
struct at_world_traffic {
    uint64_t tiles_in, tile_bytes_in, update_bytes_in, tiles_out;
    uint32_t wrong_tiles; /* peers that it caught */
    uint32_t tiles_found; /* that it had not to fetch */
};
struct at_world_traffic at_world_traffic(const struct at_world *w, int node);

/* What happened so far, and how long things took. */
struct at_world_counts {
    uint64_t events;                      /* that happened, of all kinds */
    uint64_t fingerprint;                 /* of all of them, in order: two runs with one fingerprint did the same */
    uint64_t messages, bytes, bulk_bytes; /* handed to links; bulk_bytes: of blobs, with their weight */
    uint64_t up_ms, trained_ms,
        counted_ms; /* of honest nodes, summed: running; training; training that a CLOSE counted */
    uint64_t crashes, silent_deaths, disk_deaths, restarts, wiped, joins, leaves, dials, link_breaks, floods;
    uint64_t punches, relays; /* links that began as such */
    uint64_t refused_ends;    /* honest nodes that ended without having reached anybody */
    uint64_t contributions, records;
    uint32_t rounds, desyncs;
    uint32_t nodes_up, nodes_joined;
    uint32_t seats, term; /* of the stewards, as the judges count them */
    size_t shared_bytes;  /* of records and blobs, kept once for all nodes */
};
void at_world_counts(struct at_world *w, struct at_world_counts *ret_counts);
uint32_t at_world_rounds(const struct at_world *w); /* of the counts, which look at every node */
/* In ms, the sample at `permille` of all of them sorted; 0 when there is none. Of records: from a member's first sending
 * until it stores it as final. Of blocks of several stewards: from when its leader has it written down, which comes
 * before anybody is told of it, until an honest steward knows it as final; a sample for each of these. */
uint32_t at_world_finality_ms(struct at_world *w, uint32_t permille);
uint32_t at_world_block_finality_ms(struct at_world *w, uint32_t permille);
uint32_t at_world_seats(const struct at_world *w);      /* of the term, as the judges count it */
uint32_t at_world_kept_out(struct at_world *w);         /* honest nodes that are no members (any more) */
struct at_hash at_world_root(struct at_world *w);       /* of the state after the last durable CLOSE */
struct at_hash at_world_trace_hash(struct at_world *w); /* SHA-256 of all lines so far, kept or not */
/* NULL: the run has ended well everywhere; else what is missing, in words. Node 0 must have ended. */
const char *at_world_unfinished(struct at_world *w);
size_t at_world_durable(const struct at_world *w); /* records in the steward's durable log, or in the longest */
/* NULL: every honest member that is up has the first `records` of the log, and a state of round `round` or later. Else who
 * has not, in words. */
const char *at_world_behind(struct at_world *w, size_t records, uint32_t round);

/* A peer that is no machine: says what the test says. Its key is made from `tag`. */
struct at_keypair at_world_stranger_key(struct at_world *w, uint32_t tag);
struct at_keypair at_world_node_key(struct at_world *w, int node);
struct at_hash at_world_run_id(const struct at_world *w);
const struct at_model_config *at_world_model(const struct at_world *w);
uint64_t at_world_stranger_link(struct at_world *w, const struct at_keypair *key, int node);
void at_world_stranger_send(struct at_world *w, uint64_t link, struct at_span bytes);
/* From now on `hear` gets every message that a stranger is told, while the node that says it is in its step: it keeps what
 * it needs, and answers later. The message is valid during the call. */
typedef void at_world_hear(void *context, uint64_t link, const struct at_message *msg);
void at_world_strangers_hear(struct at_world *w, at_world_hear *hear, void *context);
/* What it was told last on that link: kind, and the reason of a Bye or Refused ("" otherwise). */
enum at_message_kind at_world_stranger_heard(struct at_world *w, uint64_t link, const char **ret_reason);
bool at_world_link_is_up(const struct at_world *w, uint64_t link);

#endif
