/* world.h: a small virtual world in which real node machines (swarm/) run under a virtual clock: one process, one seed,
 * no system call. Node 0 is the steward; the others dial it.
 *
 * What is simulated: links with seeded latency that keep order (they are TLS over TCP) and that break, with end of file
 * at once or silence for five seconds; bulk queues that are full now and then; disks whose writes become durable later
 * and are lost in a crash; crashes at any event; restarts; partitions; slow members; compute as a cost model. A state
 * is 32 bytes h, its root the hash of the blob made from h, and h' = SHA-256(h ‖ (replica, tokens, update hash)...):
 * cheap, and different whenever anything that an outer step depends on differs.
 *
 * What is checked, from outside, on every step: nobody ever stores two different records at one index; one root per
 * round; a counted update is durable at the steward when its CLOSE is; no honest node ends in error. And at the end
 * (at_world_check): the ledger verifies, every EPOCH root is that of an independent recomputation, every sample was
 * consumed at most once and none is lost, points are conserved, everybody holds the last root. */
#ifndef ATOLL_SIM_WORLD_H
#define ATOLL_SIM_WORLD_H

#include "swarm/node_machine.h"

#define AT_WORLD_NODES_MAX 16

struct at_world_options {
    uint64_t seed;
    int nodes;
    uint32_t rounds, steps, min_members, round_ms_max; /* of the genesis */
    uint32_t latency_ms_min, latency_ms_max;
    uint32_t sync_ms_max; /* a write is durable after 1..this */
    uint32_t step_ms;     /* one inner step on a node of speed 1 */
    uint32_t update_bytes, shard_bytes, state_bytes;
    uint32_t full_percent; /* of bulk frames are refused at first */
    uint32_t canary;       /* handed to the steward's machine */
    bool trace;
};

enum at_world_crash { AT_WORLD_CRASH_NEVER, AT_WORLD_CRASH_BEFORE_OPS, AT_WORLD_CRASH_AFTER_OPS };

struct at_world;
at_err at_world_init(const struct at_world_options *options, struct at_world **ret_world);
void at_world_release(struct at_world *w);

/* What happens, now or at a virtual time. */
void at_world_start_node(struct at_world *w, int node, uint64_t at_ms);
void at_world_crash(struct at_world *w, int node, uint64_t at_ms, bool silent); /* silent: peers notice after 5 s */
void at_world_break_links(struct at_world *w, int node, uint64_t at_ms);
void at_world_partition(struct at_world *w, int node, uint64_t at_ms, uint64_t until_ms);
void at_world_finish(struct at_world *w, int node, uint64_t at_ms);
void at_world_speed(struct at_world *w, int node, double speed); /* of its compute; 1 at first */
void at_world_corrupt_state(struct at_world *w, int node);       /* its next outer step gives a wrong state */
/* Crash when the node has had `event` more events; restart after restart_ms. */
void at_world_crash_at_event(struct at_world *w, int node, uint64_t event, enum at_world_crash how,
                             uint32_t restart_ms);

/* Runs until every node that is up has ended, nothing is left to happen, or until_ms. False: time ran out, or a checker
 * has objected. */
bool at_world_run(struct at_world *w, uint64_t until_ms);
const char *at_world_violation(const struct at_world *w); /* the first; NULL: none */
bool at_world_check(struct at_world *w);                  /* the checks of the end; false: see violation */

uint64_t at_world_now_ms(const struct at_world *w);
uint64_t at_world_events(const struct at_world *w, int node);               /* that its machines were given so far */
const struct at_node_status *at_world_status(struct at_world *w, int node); /* NULL: down */
bool at_world_ended(const struct at_world *w, int node, at_err_t *ret_err);
const char *at_world_trace(const struct at_world *w);                      /* a line per message, record and deed */
uint32_t at_world_log_count(struct at_world *w, enum at_record_kind kind); /* in the steward's durable log */
uint32_t at_world_included(struct at_world *w, uint32_t round); /* contributions of its CLOSE; UINT32_MAX: none yet */
uint32_t at_world_dials(const struct at_world *w, int node);
uint32_t at_world_desyncs(const struct at_world *w, int node);

/* A peer that is no machine: says what the test says. Its key is made from `tag`. */
struct at_keypair at_world_stranger_key(struct at_world *w, uint32_t tag);
struct at_keypair at_world_node_key(struct at_world *w, int node);
struct at_hash at_world_run_id(const struct at_world *w);
const struct at_model_config *at_world_model(const struct at_world *w);
uint64_t at_world_stranger_link(struct at_world *w, const struct at_keypair *key, int node);
void at_world_stranger_send(struct at_world *w, uint64_t link, struct at_span bytes);
/* What it was told last on that link: kind, and the reason of a Bye or Refused ("" otherwise). */
enum at_message_kind at_world_stranger_heard(struct at_world *w, uint64_t link, const char **ret_reason);
bool at_world_link_is_up(const struct at_world *w, uint64_t link);

#endif
