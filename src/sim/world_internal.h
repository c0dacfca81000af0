/* world_internal.h: the insides of the virtual world: world.c (events, lives of nodes), world_heap.c (virtual time),
 * world_script.c (what tests and sim.c ask for), world_drive.c (the nodes' drivers), world_tiles.c (and what they do for
 * states by tiles), world_disk.c (disks, the fake state), world_blob.c (blobs, kept once), world_log.c (records, kept
 * once), world_net.c (links), world_line.c (how long a message takes), world_hostile.c (Byzantine nodes), world_check.c
 * and world_judge.c (the judges), world_sign.c (signatures that stand in for real ones), world_count.c (what is counted),
 * world_trace.c. */
#ifndef ATOLL_SIM_WORLD_INTERNAL_H
#define ATOLL_SIM_WORLD_INTERNAL_H

#include "base/line_rate.h"
#include "ledger/ledger.h"
#include "sim/world.h"

#define AT_WORLD_WALLS_MAX 64
#define AT_WORLD_DIALS_OFF 64 /* dials called off lately, of a node */

/* ---- blobs: bytes by content, shared by all disks that hold them whole ---- */
struct at_world_content {
    struct at_hash key;
    struct at_buf bytes;
    uint32_t holders;
    struct at_world_content *next; /* of the bucket */
};
struct at_world_blob {
    bool used, complete, pruned;
    enum at_blob_kind kind;
    struct at_hash key;
    struct at_buf part;               /* not complete */
    struct at_world_content *content; /* complete */
    uint32_t next;                    /* of the bucket, index + 1 */
};
#define AT_WORLD_BLOB_BUCKETS    8192
#define AT_WORLD_CONTENT_BUCKETS 4096

/* A node's log is a beginning of the world's (world_log.c): two different records never stand at one index for long,
 * and that is what the judges see to. */
struct at_world_kept { /* a row of what a steward among several keeps; its bytes are owned */
    struct at_node_kept row;
    size_t log; /* the log's records when it was written */
    uint8_t *bytes;
};
struct at_world_disk {
    bool has_genesis;
    size_t written, durable; /* records */
    struct at_world_kept *kept;
    size_t kept_count, kept_cap, kept_durable;
    struct at_world_blob *blobs;
    uint32_t blob_count, blob_free; /* slots ever used; index + 1 of the first unused one */
    uint32_t bucket[AT_WORLD_BLOB_BUCKETS];
    bool saved;
    uint32_t saved_round;
    struct at_hash saved_h;
};

/* The log that disks share: at each index the record that the steward wrote last, for good once a member stored it. */
struct at_world_log {
    struct at_signed_record *records;
    struct at_log_checkpoint *checkpoints; /* [i]: of size i + 1; size 0: none */
    struct at_world_cosigned **cosigned;   /* [i]: of size i + 1, of several stewards; NULL: none; owned */
    bool *told;                            /* a member stored it: nothing else may ever stand here */
    size_t count, cap;
};

/* When a block of several stewards was written down first. */
struct at_world_proposed {
    uint32_t term;
    uint64_t view, ms;
    struct at_hash hash;
};
#define AT_WORLD_PROPOSED_MAX 1024 /* the newest; a window of Simplex has 256 views */

struct at_world_samples {
    uint32_t *ms; /* owned */
    size_t count, cap;
};

struct at_world_cosigned {
    size_t count;
    struct at_log_checkpoint list[]; /* ascending by key */
};

struct at_world_node {               /* what every event looks at comes first, the disk last */
    struct at_node_machine *machine; /* NULL: down */
    uint32_t life;                   /* events of earlier lives are not delivered */
    enum at_world_crash crash_how;
    uint64_t crash_event;
    uint64_t events, tick_id, tick_ms;
    uint64_t deadline_ms; /* as the machine said after its last step */
    uint64_t partition_from, partition_until;
    uint64_t knob[AT_WORLD_KNOB_COUNT];
    struct at_world_line line;
    uint64_t up_free_us, control_free_us, down_free_us; /* of its line */
    bool ended, corrupt_next, spoils_tiles;
    bool disk_dies;   /* a write has failed in this step */
    bool left_behind; /* had no link to the steward when that one ended: may dial for ever */
    bool run_ended;   /* ended because the run did */
    at_err_t end_err;
    double speed;
    struct at_keypair key;
    /* the driver's volatile side */
    bool has_state, has_before;
    uint32_t state_round;
    struct at_hash h, h_before; /* of the state held, and of the one held before it */
    struct at_hash root, root_before;
    uint32_t round_before;
    uint64_t unit_id, tokens; /* tokens: of its work that a CLOSE counted */
    struct {
        uint32_t round, replica, steps, step, samples, stage, stages;
        uint32_t stop_at;
        uint64_t start, began_ms, until_ms;
        uint64_t share_ms;     /* its share of the held-out loss takes so long, before the first step; 0: it has none */
        uint64_t share_off_ms; /* so much less take its steps */
        bool in_share, share_told;
        struct at_node_team team; /* session 0: alone, or it was stopped */
    } unit;
    /* fault */
    uint32_t crash_restart_ms;
    uint64_t synced_ms;       /* when the last write will be durable: they become so in order */
    struct at_node_rtt *rtts; /* as its machine was told last; owned */
    bool has_ticket;
    struct at_ticket ticket;
    struct at_node_secret secrets[AT_NODE_SECRETS];
    size_t secret_count;
    bool log_rots; /* a record of its log is found damaged at the next start */
    uint32_t dials, desyncs;
    uint64_t dials_off[AT_WORLD_DIALS_OFF];
    uint32_t dials_off_next;
    struct at_world_traffic traffic;
    /* counted */
    uint64_t up_since_ms, unit_ms;
    struct at_hash submitted;
    uint64_t submitted_ms;
    struct at_buf said; /* a Byzantine node's last message worth saying again */
    /* links */
    int contact;         /* the node of its invite */
    uint16_t moves;      /* its port is 1000 and this */
    struct at_buf peers; /* as its machine asked to keep them */
    struct at_world_disk disk;
};

struct at_world_link { /* what every message looks at comes first */
    bool up;
    bool full[2]; /* the sender towards end[i] waits for room */
    int end[2];   /* nodes; -1: a stranger */
    int via;      /* the node that relays it, + 1; 0: none */
    uint32_t life[2];
    uint64_t last_ms[2][2];      /* last delivery towards end[i], control and bulk */
    uint64_t paced_us[2];        /* when the link has done, at its own pace, what goes towards end[i] */
    uint64_t queued[2];          /* bytes of bulk under way towards end[i] */
    size_t live;                 /* its place in the world's list of links that are up */
    struct at_line_rate rate[2]; /* of what came to end[i], where members measure themselves */
    struct at_node_id stranger;
    enum at_message_kind heard;
    char reason[AT_REASON_BYTES_MAX + 1];
};
/* A link's id as seen from end i: 2 * index + 1 + i. */

enum at_world_what {
    AT_WORLD_DELIVER, /* an event for a node's machine */
    AT_WORLD_TICK,
    AT_WORLD_PERSISTED,
    AT_WORLD_LOG_READ,
    AT_WORLD_AGREE_READ,
    AT_WORLD_BUNDLE_READ,
    AT_WORLD_KILL,
    AT_WORLD_UNIT_STEP,
    AT_WORLD_APPLY,
    AT_WORLD_SAVE,
    AT_WORLD_LINK_UP,
    AT_WORLD_MET,
    AT_WORLD_LINK_BREAK,
    AT_WORLD_START,
    AT_WORLD_CRASH,
    AT_WORLD_BREAK_ALL,
    AT_WORLD_JOIN_UP,
    AT_WORLD_SET,
    AT_WORLD_FLOOD,
    AT_WORLD_FINISH,
    AT_WORLD_WALL,
};
struct at_world_payload { /* shared by the events of one broadcast */
    uint32_t users;
    size_t n;
    uint8_t bytes[];
};
struct at_world_event { /* what every event is asked for comes first */
    uint64_t at_ms, seq;
    enum at_world_what what;
    int node;
    uint32_t life;
    bool flag;
    uint64_t id, arg;
    struct at_world_payload *payload; /* e.bytes */
    struct at_world_event *next_free;
    struct at_node_event e;
    struct at_hash hash;
};
struct at_world_due { /* an entry of the heap */
    uint64_t at_ms, seq;
    struct at_world_event *event;
};

struct at_world_judge {          /* what the log says, recounted without the fold */
    size_t judged;               /* records */
    uint32_t round;              /* of the state that is due: the CLOSEs so far */
    struct at_hash h;            /* that state's */
    double loss;                 /* that EPOCH must tell; 0: nobody did */
    struct at_receipt *receipts; /* by replica, of the round */
    bool *received;
    int *node_of;              /* by replica; -1: none of the world's */
    struct at_grouped *groups; /* by replica, of the round */
    struct at_measured *measured;
    struct at_roles_room room;
    uint32_t members;
    struct at_range_list used; /* ascending, neighbours joined */
    uint64_t used_samples, points;
    /* of several stewards */
    struct at_ledger fold;   /* who holds which seat, and what has happened */
    uint32_t said, end_said; /* bit i: seat i has said a word in this phase */
};

struct at_world_applied { /* what an outer step has given: see at_world_h_next */
    struct at_hash from, to;
    struct at_node_contribution *list; /* owned */
    size_t count;                      /* 0: nothing is kept */
};

struct at_world_wall { /* the two cannot reach each other; -1: anybody */
    int a, b;
    uint64_t from_ms, until_ms;
};

struct at_world {
    struct at_world_options options;
    at_world_hear *hear; /* of strangers; NULL: nobody listens */
    void *hear_context;
    uint64_t now_ms, seq, draws;
    struct at_world_node *nodes;
    uint32_t *node_of; /* by id: node + 1, open addressing; twice as many places as nodes, or more */
    size_t node_of_count;
    struct at_buf genesis;
    struct at_hash run;
    struct at_genesis g;
    struct at_buf shard;
    struct at_world_due *heap;
    size_t heap_count, heap_cap;
    struct at_world_event *free_events;
    void **chunks; /* of events */
    size_t chunk_count, chunk_cap;
    struct at_world_event nowhere; /* filled in when there is no memory for the heap */
    struct at_world_link *links;
    size_t link_count, link_cap;
    size_t *live; /* indices of links that are up */
    size_t live_count;
    struct at_world_log log;
    size_t several_from; /* the first record of several stewards; SIZE_MAX: none yet */
    uint64_t block_ms;
    struct at_world_content **contents; /* AT_WORLD_CONTENT_BUCKETS */
    struct at_world_applied applied;
    bool ends_changed; /* somebody has ended, or was left behind */
    struct at_world_wall walls[AT_WORLD_WALLS_MAX];
    size_t wall_count;
    struct at_message_mem mem;
    struct at_node_scratch *scratch; /* of all machines: one is stepped at a time */
    struct at_span sent; /* the payload of the last delivery came from here, in the same step of a machine */
    struct at_world_payload *sent_payload;
    /* trace */
    struct at_buf trace;
    struct at_sha256_ctx trace_sha;
    /* signatures */
    struct at_verifier stand_ins;
    const struct at_verifier *verifier; /* NULL: real ones */
    struct at_keypair *keys;            /* all that were made, by id, open addressing; free: no stand_in */
    size_t key_count, key_cap;
    /* counted */
    struct at_world_counts counts;
    uint64_t sent_of[AT_MSG_KIND_COUNT]; /* messages by kind */
    struct at_world_samples finality, block_finality;
    struct at_world_proposed *proposed; /* AT_WORLD_PROPOSED_MAX, a ring; of several stewards */
    size_t proposed_next;
    uint32_t strangers;
    /* checkers */
    struct at_world_judge judge;
    struct at_hash *round_root; /* at the start of each round */
    bool *round_seen;
    bool violated;
    char violation[512], unfinished[256];
};

/* world.c */
void at_world_step_node(struct at_world *w, int node, struct at_node_event *e);
void at_world_happen(struct at_world *w, struct at_world_event *ev);
void at_world_node_crash(struct at_world *w, int node, bool silent);

/* world_heap.c */
uint64_t at_world_draw(struct at_world *w, uint64_t below); /* seeded; 0 .. below - 1 */
/* The event to fill in; it stays where it is until it has happened. */
struct at_world_event *at_world_push(struct at_world *w, enum at_world_what what, int node, uint64_t delay_ms);
struct at_world_event *at_world_pop(struct at_world *w); /* the next one; then at_world_event_free */
void at_world_event_free(struct at_world *w, struct at_world_event *ev);
void at_world_payload(struct at_world_event *ev, struct at_span bytes);
void at_world_payload_share(struct at_world *w, struct at_world_event *ev, struct at_span bytes);
void at_world_heap_release(struct at_world *w);

/* world_script.c */
struct at_keypair at_world_key_of(struct at_world *w, uint32_t tag);
at_err_t at_world_nodes_index(struct at_world *w);                           /* once their keys are there */
int at_world_node_of(const struct at_world *w, const struct at_node_id *id); /* -1: none of the world's */
void at_world_happen_set(struct at_world *w, const struct at_world_event *ev);

/* world_trace.c */
void at_world_tracef(struct at_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void at_world_trace_op(struct at_world *w, int node, const struct at_node_op *op);

/* world_roles.c */
void at_world_measure(struct at_world *w, int node, double speed); /* speed 0: only the links */
double at_world_stage_ms(struct at_world *w, const struct at_world_node *n, double whole_ms);

/* world_drive.c */
void at_world_do_op(struct at_world *w, int node, const struct at_node_op *op); /* all but SEND */
void at_world_log_read(struct at_world *w, const struct at_world_event *ev);
void at_world_unit_step(struct at_world *w, const struct at_world_event *ev);
void at_world_apply(struct at_world *w, const struct at_world_event *ev);
void at_world_save(struct at_world *w, const struct at_world_event *ev);

/* world_tiles.c: the driver's side of states by tiles */
void at_world_state_read(struct at_world *w, int node, const struct at_node_op *op, struct at_world_event *ev);
void at_world_tile_write(struct at_world *w, int node, const struct at_node_op *op);
void at_world_tiles_find(struct at_world *w, int node, const struct at_node_op *op);
void at_world_count_in(struct at_world *w, int node, struct at_span message);

/* world_log.c */
void at_world_log_release(struct at_world *w);
/* Writes what a PERSIST orders; the judges look at it first. */
void at_world_log_write(struct at_world *w, int node, const struct at_node_op *op);

/* What is stored for this size; count 0: nothing. */
const struct at_log_checkpoint *at_world_log_checkpoints(const struct at_world *w, size_t size, size_t *ret_count);
int at_world_longest(
    const struct at_world *w); /* the node whose durable log is the run's: the steward, or the longest */

/* world_agree.c */
bool at_world_several(const struct at_world *w);
void at_world_give_tickets(struct at_world *w);
void at_world_secret_make(struct at_world *w, int node, uint32_t term);
void at_world_secrets_erase(struct at_world *w, int node, uint32_t term);
void at_world_kept_cut(struct at_world_disk *d, size_t count);
void at_world_kept_write(struct at_world *w, int node, const struct at_node_op *op);
void at_world_kept_fall_behind(struct at_world_disk *d);
at_err_t at_world_kept_restore(struct at_world *w, int node, struct at_diag *diag);
void at_world_agree_ask(struct at_world *w, int node, const struct at_node_op *op);
void at_world_agree_read(struct at_world *w, const struct at_world_event *ev);
void at_world_judge_words(struct at_world *w, const struct at_signed_record *record, const struct at_record *rec);

/* world_disk.c */
void at_world_disk_release(struct at_world *w, struct at_world_disk *d);
void at_world_disk_crash(struct at_world *w, int node);
void at_world_disk_rot(struct at_world *w, int node);
void at_world_disk_wipe(struct at_world *w, int node);
uint64_t at_world_sync_ms(struct at_world *w, int node);                    /* how long a write takes to be durable */
void at_world_expand(struct at_hash h, uint32_t bytes, struct at_buf *out); /* a blob that only h determines */
struct at_hash at_world_state_root(const struct at_world *w, uint32_t round, struct at_hash h);
/* Of the blob of h, tile by tile; leaf 0 is the same for all. */
uint32_t at_world_tiles(const struct at_world *w);
struct at_span at_world_tile(const struct at_world *w, struct at_span blob, uint32_t tile);
/* 32 bytes each, 0 first */
void at_world_leaves(const struct at_world *w, uint32_t round, struct at_span blob, struct at_buf *out);
void at_world_set_state(const struct at_world *w, struct at_world_node *n, uint32_t round,
                        struct at_hash h); /* held from now on */
struct at_hash at_world_h0(const struct at_world *w);
struct at_hash at_world_h_next(struct at_world *w, struct at_hash h, const struct at_node_contribution *list,
                               size_t count);
/* A stage of the unit's update; stages 1: all of it. */
struct at_hash at_world_update_of(const struct at_world *w, struct at_hash root, uint64_t start, uint32_t samples,
                                  uint32_t stage, uint32_t stages, struct at_buf *ret_blob);
double at_world_loss(uint32_t round);
uint32_t at_world_share_loss(uint32_t round, uint32_t replica); /* as a receipt says it */

/* world_blob.c */
void at_world_bundle_ask(struct at_world *w, int node, const struct at_node_op *op);
void at_world_bundle_read(struct at_world *w, const struct at_world_event *ev);
void at_world_bundle_stat(struct at_world *w, int node, const struct at_node_op *op);
void at_world_bundle_write(struct at_world *w, int node, const struct at_node_op *op);
struct at_world_blob *at_world_blob_find(struct at_world_disk *d, enum at_blob_kind kind, struct at_hash key);
struct at_world_blob *at_world_blob_get(struct at_world *w, struct at_world_disk *d, enum at_blob_kind kind,
                                        struct at_hash key); /* found or made */
void at_world_blob_drop(struct at_world *w, struct at_world_disk *d, struct at_world_blob *b);
struct at_span at_world_blob_bytes(const struct at_world_blob *b); /* what there is of it */
/* Makes it whole with these bytes (of this key, or the judges object). Takes the buffer over. */
void at_world_blob_whole(struct at_world *w, struct at_world_blob *b, struct at_buf *bytes);

/* world_net.c */
void at_world_dial(struct at_world *w, int node, const struct at_node_op *op);
struct at_endpoint at_world_endpoint(const struct at_world *w, int node);
/* LINK_UP at both. via: who relays it; -1: nobody. */
void at_world_link(struct at_world *w, int from, int to, int via, enum at_node_way way, uint64_t dial);
void at_world_tell_down(struct at_world *w, int node, uint64_t link, const struct at_node_id *peer, const char *reason,
                        uint64_t dial);
void at_world_link_up(struct at_world *w, const struct at_world_event *ev);
bool at_world_send(struct at_world *w, int node, const struct at_node_op *op); /* false: the bulk queue is full */
void at_world_close(struct at_world *w, uint64_t link);
void at_world_link_break(struct at_world *w, size_t index, const char *reason);
void at_world_hang_up(struct at_world *w, int node); /* what was sent still arrives */
void at_world_links_of(struct at_world *w, int node, bool silent);
void at_world_mark_left_behind(struct at_world *w);
void at_world_wall_up(struct at_world *w, size_t wall); /* what it stands between breaks, in silence */
bool at_world_link_deliverable(struct at_world *w, const struct at_world_event *ev);
bool at_world_hears(const struct at_world *w, int from, int to); /* -1: a stranger, who is everywhere */

/* world_meet.c */
void at_world_dial_off(struct at_world *w, int node, uint64_t dial);
bool at_world_dial_is_off(const struct at_world *w, int node, uint64_t dial);
uint64_t at_world_nat_ms(const struct at_world *w, int node); /* how much later a dial there fails */
void at_world_meet(struct at_world *w, int node, const struct at_node_op *op);
void at_world_met(struct at_world *w, const struct at_world_event *ev);
bool at_world_link_hears(const struct at_world *w, const struct at_world_link *l, int from, int to);

/* world_line.c */
/* When a message of so many bytes on the wire arrives at the link's end `to`, at_ms >= now. Takes its place in the queues. */
double at_world_bytes_per_us(const struct at_world *w, int from, int to); /* of the slower end's line */
uint64_t at_world_arrival_ms(struct at_world *w, struct at_world_link *l, int to, uint64_t wire_bytes, bool bulk);
/* What an encoded message takes on a line: of updates and states the stand-ins' weight, of all else its bytes and frame. */
uint64_t at_world_wire_bytes(struct at_world *w, struct at_span bytes);
enum at_message_kind at_world_kind_of(struct at_span bytes); /* of a message that is one, without decoding it */
uint64_t at_world_latency_ms(struct at_world *w, int a, int b);

/* world_hostile.c */
/* A Byzantine node's machine wants to say this. True: it does (ret_bytes: perhaps something else); false: it does not.
 * May say more, before. ret_bytes is borrowed until the next call. */
bool at_world_tamper(struct at_world *w, int node, uint64_t link, struct at_span said, struct at_span *ret_bytes);
void at_world_flood_now(struct at_world *w, int node);

/* world_check.c */
void at_world_violate(struct at_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void at_world_check_persist(struct at_world *w, int node, const struct at_node_op *op);
void at_world_check_save(struct at_world *w, int node, uint32_t round, struct at_hash root);
void at_world_check_end(struct at_world *w, int node, const struct at_node_op *op);

/* world_judge.c */
at_err_t at_world_judge_init(struct at_world *w);
void at_world_judge_release(struct at_world *w);
void at_world_judge_records(struct at_world *w); /* those that have become durable at the steward, or at anybody's */
void at_world_judge_deed(struct at_world *w, const struct at_signed_record *signed_rec, const struct at_record *rec);

/* world_sign.c */
void at_world_key_made(struct at_world *w, struct at_keypair *key); /* it signs by the stand-in from now on */
at_err_t at_world_verify(void *ctx, const struct at_node_id *id, struct at_span message, const struct at_sig *sig);

/* world_count.c */
void at_world_count_event(struct at_world *w, const struct at_world_event *ev);
void at_world_count_send(struct at_world *w, int node, struct at_span bytes, uint64_t wire_bytes, bool bulk);
void at_world_count_stored(struct at_world *w, int node, const struct at_node_op *op);
void at_world_count_blocks(struct at_world *w, int node, const struct at_node_op *op);
void at_world_count_life(struct at_world *w, int node, bool up);
void at_world_count_trained(struct at_world *w, int node);
void at_world_count_close(struct at_world *w, int node); /* its unit was counted */
static inline bool at_world_is_honest(const struct at_world *w, int node)
{
    return w->nodes[node].knob[AT_WORLD_HOSTILE] == 0;
}

#endif
