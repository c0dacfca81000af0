/* node_drive.h: the running node's inside (node_drive.c, node_ops.c, node_jobs.c, node_save.c, node_run.c only): the machine and
 * everything that gives it its effects, on one loop.
 *
 * Order: an event is stepped, its operations are done in their order, then what they answered at once (todo) is
 * stepped, one by one, before the loop goes on. Nothing re-enters: links, workers and the control socket only queue.
 * Work that takes long is done by three workers: `computer` (arithmetic; one after the other), `disk` (checks and fsyncs
 * that a round waits for) and `saver` (whole states). One SAVE at a time, of the newest state; rounds go on beside it, but
 * an APPLY that would leave the state being saved NODE_SAVE_LAG rounds behind waits. So the folder's state is never more
 * than twice so many rounds behind its log, and the updates between the two are still there (AT_NODE_HISTORY). */
#ifndef ATOLL_NODE_NODE_DRIVE_H
#define ATOLL_NODE_NODE_DRIVE_H

#include "net/net.h"
#include "net/portmap.h"
#include "node/node.h"
#include "node/node_agree.h"
#include "node/node_compute.h"
#include "node/node_control.h"
#include "node/node_folder.h"
#include "node/node_secrets.h"
#include "node/node_team.h"
#include "node/node_vault.h"
#include "node/node_worker.h"
#include "store/store.h"
#include "swarm/node_machine.h"

#define NODE_SAVE_LAG  3   /* rounds */
#define NODE_DIALS_MAX 256 /* under way: as many as net has links */

struct node_todo { /* an event to come, kept small: its data is read when its turn comes */
    enum at_node_event_kind kind;
    enum at_blob_kind blob;
    struct at_hash key;
    struct at_node_id node;
    uint64_t link, offset, dial, last; /* last: LOG_DATA */
    uint32_t bytes, bytes_max;         /* max: BUNDLE_DATA, of all together */
    bool ok;
    struct at_agree_question agree;     /* AGREE_DATA */
    uint32_t term;                      /* SECRET */
    struct at_hash keys[AT_BUNDLE_MAX]; /* BUNDLE_DATA, _STATE: so many as `bytes` says */
};

struct node_dial { /* under way: net's name for it, and the machine's */
    struct at_link_id link;
    uint64_t number;
};

#define NODE_FAILED_MAX 64 /* what was said of dials that failed: so many nodes; then the oldest goes */
struct node_failed {
    struct at_node_id peer;
    uint64_t again_ms; /* not said before then; 0: no entry */
    uint64_t wait_ms;
};

struct node {
    uv_loop_t loop;
    struct at_node_run_options options;
    struct at_folder folder;
    struct at_lock lock;
    struct at_store *store;
    struct at_vault vault;
    struct at_buf bundle; /* updates that a peer has asked for together */
    struct at_compute *compute;
    struct at_worker computer, disk, saver;
    struct at_net *net;
    struct at_control *control;
    struct at_node_machine *machine;
    uv_timer_t deadline, last_wait;
    uv_signal_t on_int, on_term;
    uv_async_t work_ready;
    bool loop_open, handles_open;

    struct node_todo *todo; /* a queue: [todo_first, todo_count) */
    size_t todo_first, todo_count, todo_cap;
    bool stepping;

    unsigned unit_serial; /* of the last unit begun */
    struct at_team *team; /* of the last GROUP, until it is over; or NULL */
    pthread_mutex_t progress_mutex;
    struct { /* the running unit's newest step, from the compute thread */
        bool fresh;
        unsigned serial;
        uint32_t round, step;
        uint64_t tokens;
        double tokens_per_s;
    } progress;
    bool save_open;                   /* a SAVE is not on disk yet, */
    uint32_t save_round;              /* of the state after so many rounds */
    struct at_work *waiting_for_save; /* an APPLY */
    bool own_open;                    /* what this member keeps for itself is being written */
    uint64_t own_next_ns;             /* and may be again from then on */

    struct at_signed_record *records; /* [AT_LOG_PART_MAX] for LOG_READ */
    struct at_log_checkpoint *checkpoints;
    struct at_link_id *links; /* that are up, to be closed at the end */
    size_t link_count, link_cap;
    struct node_dial dials[NODE_DIALS_MAX];
    size_t dial_count;
    struct at_portmap *portmap; /* NULL: the gateway is not asked */
    struct at_endpoint outside; /* what it forwards from; port 0: nothing */
    uint64_t refused_told, refused_ms;
    struct node_failed failed[NODE_FAILED_MAX];

    bool has_state; /* for START */
    struct at_compute_state state;
    bool ending, interrupted, run_ended, finished;
    uint64_t end_ms; /* when the way out began */
    at_err_t err;
    struct at_diag diag;
    char end_reason[AT_NODE_REASON_MAX];
};

void node_log(struct node *n, enum at_node_log_kind kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Steps the machine with `ev` (times are filled in) and does all that follows. */
void node_feed(struct node *n, struct at_node_event *ev);
/* The node cannot go on: ends it with this error. */
void node_fail(struct node *n, at_err_t err, const struct at_diag *diag);
at_err node_configure(struct node *n, const struct at_genesis *g, struct at_diag *diag); /* once it is known */
void node_later(struct node *n, struct node_todo todo);
void node_do(struct node *n, const struct at_node_op *op);
void node_job(struct node *n, const struct at_node_op *op);     /* what takes long, begun */
void node_save(struct node *n, const struct at_node_op *op);    /* SAVE */
void node_measure(struct node *n, const struct at_node_op *op); /* MEASURE */
/* The links' round trips and the memory into a MEASURED event; the caller frees what it lists. */
struct at_node_rtt *node_measure_links(struct node *n, struct at_node_event *ev);
void node_keep_own(struct node *n);                             /* at the end, when no worker runs any more */
void node_answer(struct node *n, const struct node_todo *todo); /* turns it into an event and feeds it */
void node_end(struct node *n);                                  /* begins the way out */
void node_on_net(void *user, const struct at_net_event *ev);
void node_dial_add(struct node *n, struct at_link_id link, uint64_t number);
void node_dial_off(struct node *n, uint64_t number);
void node_tell_reachable(struct node *n); /* to the machine: where others can dial this node */
void node_report_progress(struct node *n);
void node_team_end(struct node *n); /* whoever computes with it is told, and its bytes are dropped */
void node_on_last_wait(uv_timer_t *timer);

#endif
