/* world_internal.h: the insides of the virtual world: world.c (time, events, lives of nodes), world_drive.c (their
 * drivers), world_disk.c (disks, blobs, the fake state), world_net.c (links), world_check.c (the judges). */
#ifndef ATOLL_SIM_WORLD_INTERNAL_H
#define ATOLL_SIM_WORLD_INTERNAL_H

#include "ledger/ledger.h"
#include "sim/world.h"

#define AT_WORLD_BLOBS_MAX 64
#define AT_WORLD_LINKS_MAX 2048
#define AT_WORLD_LOG_MAX   2048

struct at_world_blob {
    bool used, complete;
    enum at_blob_kind kind;
    struct at_hash key;
    struct at_buf bytes;
};

struct at_world_disk {
    bool has_genesis;
    struct at_signed_record *records;      /* AT_WORLD_LOG_MAX */
    struct at_log_checkpoint *checkpoints; /* [i]: of size i + 1; size 0: none */
    size_t written, durable;               /* records */
    struct at_world_blob blobs[AT_WORLD_BLOBS_MAX];
    bool saved;
    uint32_t saved_round;
    struct at_hash saved_h;
};

struct at_world_node {
    struct at_keypair key;
    struct at_node_machine *machine; /* NULL: down */
    struct at_world_disk disk;
    uint32_t life; /* events of earlier lives are not delivered */
    uint64_t events, tick_id;
    double speed;
    bool ended, corrupt_next;
    bool left_behind; /* had no link to the steward when that one ended: may dial for ever */
    at_err_t end_err;
    uint64_t partition_from, partition_until;
    /* the driver's volatile side */
    bool has_state;
    uint32_t state_round;
    struct at_hash h;
    uint64_t unit_id;
    struct {
        uint32_t round, steps, step, samples;
        uint64_t start;
    } unit;
    /* fault */
    uint64_t crash_event;
    enum at_world_crash crash_how;
    uint32_t crash_restart_ms;
    uint32_t dials, desyncs;
};

struct at_world_link {
    bool up;
    int end[2]; /* nodes; -1: a stranger */
    uint32_t life[2];
    uint64_t last_ms[2]; /* last delivery towards end[i] */
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
    AT_WORLD_UNIT_STEP,
    AT_WORLD_APPLY,
    AT_WORLD_SAVE,
    AT_WORLD_LINK_UP,
    AT_WORLD_LINK_BREAK,
    AT_WORLD_START,
    AT_WORLD_CRASH,
    AT_WORLD_BREAK_ALL,
};
struct at_world_event {
    uint64_t at_ms, seq;
    enum at_world_what what;
    int node;
    uint32_t life;
    uint64_t id, arg;
    bool flag;
    struct at_hash hash;
    struct at_node_event e;
    uint8_t *payload; /* owned: e.bytes */
};

struct at_world {
    struct at_world_options options;
    uint64_t now_ms, seq, draws;
    struct at_world_node nodes[AT_WORLD_NODES_MAX];
    struct at_buf genesis;
    struct at_hash run;
    struct at_genesis g;
    struct at_buf shard;
    struct at_world_event *heap;
    size_t heap_count, heap_cap;
    struct at_world_event nowhere; /* filled in when there is no memory for the heap */
    struct at_world_link *links;   /* AT_WORLD_LINKS_MAX */
    size_t link_count;
    struct at_buf trace;
    struct at_message_mem mem;
    /* checkers */
    struct at_hash *log; /* leaf at each index, as first seen final anywhere */
    bool *log_seen;
    struct at_hash *round_root; /* at the start of each round */
    bool *round_seen;
    bool violated;
    char violation[512];
};

/* world.c */
uint64_t at_world_draw(struct at_world *w, uint64_t below); /* seeded; 0 .. below - 1 */
struct at_world_event *at_world_push(struct at_world *w, enum at_world_what what, int node, uint64_t delay_ms);
void at_world_payload(struct at_world_event *ev, struct at_span bytes);
void at_world_step_node(struct at_world *w, int node, struct at_node_event *e);
void at_world_tracef(struct at_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* world_drive.c */
void at_world_do_op(struct at_world *w, int node, const struct at_node_op *op); /* all but SEND */
void at_world_log_read(struct at_world *w, const struct at_world_event *ev);
void at_world_unit_step(struct at_world *w, const struct at_world_event *ev);
void at_world_apply(struct at_world *w, const struct at_world_event *ev);
void at_world_save(struct at_world *w, const struct at_world_event *ev);

/* world_disk.c */
at_err at_world_disk_init(struct at_world_disk *d);
void at_world_disk_release(struct at_world_disk *d);
void at_world_disk_crash(struct at_world *w, struct at_world_disk *d);
struct at_world_blob *at_world_blob_find(struct at_world_disk *d, enum at_blob_kind kind, struct at_hash key);
struct at_world_blob *at_world_blob_get(struct at_world *w, struct at_world_disk *d, enum at_blob_kind kind,
                                        struct at_hash key);                /* found or made */
void at_world_expand(struct at_hash h, uint32_t bytes, struct at_buf *out); /* a blob that only h determines */
struct at_hash at_world_state_root(const struct at_world *w, struct at_hash h);
struct at_hash at_world_h0(const struct at_world *w);
struct at_hash at_world_h_next(struct at_hash h, const struct at_node_contribution *list, size_t count);
struct at_hash at_world_update_of(const struct at_world *w, struct at_hash root, uint64_t start, uint32_t samples,
                                  struct at_buf *ret_blob);
double at_world_loss(uint32_t round);

/* world_net.c */
void at_world_dial(struct at_world *w, int node);
void at_world_link_up(struct at_world *w, const struct at_world_event *ev);
bool at_world_send(struct at_world *w, int node, const struct at_node_op *op); /* false: the bulk queue is full */
void at_world_close(struct at_world *w, uint64_t link);
void at_world_link_break(struct at_world *w, size_t index, const char *reason);
void at_world_hang_up(struct at_world *w, int node); /* what was sent still arrives */
void at_world_links_of(struct at_world *w, int node, bool silent);
void at_world_mark_left_behind(struct at_world *w);
bool at_world_link_deliverable(const struct at_world *w, const struct at_world_event *ev);

/* world_check.c */
void at_world_violate(struct at_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void at_world_check_persist(struct at_world *w, int node, const struct at_node_op *op);
void at_world_check_save(struct at_world *w, int node, uint32_t round, struct at_hash root);
void at_world_check_end(struct at_world *w, int node, const struct at_node_op *op);

#endif
