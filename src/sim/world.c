/* world.c: virtual time, what happens in it, the lives of nodes, and the test's script. */
#include "sim/world_internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

#define WALL_MS_0 UINT64_C(1800000000000)

uint64_t at_world_draw(struct at_world *w, uint64_t below)
{
    struct at_philox r = at_philox(w->options.seed, AT_RNG_TEST, 1, w->draws++);
    return below ? ((uint64_t)r.v[0] << 32 | r.v[1]) % below : 0;
}

void at_world_tracef(struct at_world *w, const char *fmt, ...)
{
    char line[256];
    va_list args;
    if (!w->options.trace) return;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (at_buf_append(&w->trace, line, strlen(line)) || at_buf_append(&w->trace, "\n", 2))
        at_world_violate(w, "the trace is too long");
    else
        w->trace.n--; /* the NUL stays behind the end */
}

/* ---- events: a heap by (time, order of making) ---- */
static bool before(const struct at_world_event *a, const struct at_world_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->seq < b->seq;
}

static void heap_up(struct at_world *w, size_t i)
{
    while (i > 0 && before(&w->heap[i], &w->heap[(i - 1) / 2])) {
        struct at_world_event t = w->heap[i];
        w->heap[i] = w->heap[(i - 1) / 2];
        w->heap[(i - 1) / 2] = t;
        i = (i - 1) / 2;
    }
}

static void heap_pop(struct at_world *w, struct at_world_event *ret_event)
{
    *ret_event = w->heap[0];
    w->heap[0] = w->heap[--w->heap_count];
    for (size_t i = 0, c; (c = 2 * i + 1) < w->heap_count; i = c) {
        if (c + 1 < w->heap_count && before(&w->heap[c + 1], &w->heap[c])) c++;
        if (!before(&w->heap[c], &w->heap[i])) break;
        struct at_world_event t = w->heap[i];
        w->heap[i] = w->heap[c];
        w->heap[c] = t;
    }
}

/* The event to fill in; valid until the next push. Its place in time is fixed, so filling it in does not disturb. */
struct at_world_event *at_world_push(struct at_world *w, enum at_world_what what, int node, uint64_t delay_ms)
{
    if (w->heap_count == w->heap_cap) {
        size_t cap = w->heap_cap ? 2 * w->heap_cap : 256;
        struct at_world_event *heap = realloc(w->heap, cap * sizeof *heap);
        if (!heap) {
            at_world_violate(w, "out of memory");
            return &w->nowhere;
        }
        w->heap = heap;
        w->heap_cap = cap;
    }
    uint64_t seq = w->seq++;
    w->heap[w->heap_count] = (struct at_world_event){.at_ms = w->now_ms + delay_ms,
                                                     .seq = seq,
                                                     .what = what,
                                                     .node = node,
                                                     .life = node >= 0 ? w->nodes[node].life : 0};
    heap_up(w, w->heap_count++);
    for (size_t i = 0;; i++)
        if (w->heap[i].seq == seq) return &w->heap[i];
}

void at_world_payload(struct at_world_event *ev, struct at_span bytes)
{
    ev->payload = malloc(bytes.n ? bytes.n : 1);
    if (!ev->payload) return;
    if (bytes.n) memcpy(ev->payload, bytes.p, bytes.n);
    ev->e.bytes = at_span(ev->payload, bytes.n);
}

/* ---- birth ---- */
static at_err_t make_genesis(struct at_world *w)
{
    struct at_hash h = at_sha256("shard", 5);
    const struct at_preset *preset;
    struct at_diag diag = {0};
    at_world_expand(h, w->options.shard_bytes, &w->shard);
    at_err_t err = at_preset_find("nano", &diag, &preset);
    if (err) return err;
    struct at_genesis *g = &w->g;
    snprintf(g->profile, sizeof g->profile, "F32-1");
    snprintf(g->tokenizer, sizeof g->tokenizer, "bytes");
    snprintf(g->preset, sizeof g->preset, "nano");
    g->model = preset->model;
    g->train = preset->train;
    g->train.rounds = w->options.rounds;
    g->train.steps = w->options.steps;
    g->train.warmup_steps = 1;
    g->train.seed = w->options.seed;
    g->shard_count = 1;
    g->shards[0].hash = at_sha256(w->shard.p, w->shard.n);
    g->shards[0].bytes = w->shard.n;
    snprintf(g->shards[0].name, sizeof g->shards[0].name, "shard");
    g->heldout_fraction = 0.05;
    g->heldout_bytes = 32768;
    g->min_members = w->options.min_members;
    g->issuance = 1000000000;
    g->round_ms_max = w->options.round_ms_max;
    g->steward = w->nodes[0].key.id;
    g->created_ms = WALL_MS_0;
    err = at_genesis_encode(g, &diag, &w->genesis);
    if (!err) w->run = at_genesis_run_id(at_buf_span(&w->genesis));
    return err;
}

static struct at_keypair key_of(struct at_world *w, uint32_t tag)
{
    uint8_t text[16] = "key";
    struct at_keypair key = {0};
    at_store_le64(text + 3, w->options.seed);
    at_store_le32(text + 11, tag);
    struct at_hash seed = at_sha256(text, sizeof text);
    if (at_keypair_from_seed(seed.b, &key)) at_world_violate(w, "a key cannot be made");
    return key;
}

struct at_keypair at_world_stranger_key(struct at_world *w, uint32_t tag)
{
    return key_of(w, 1000 + tag);
}
struct at_keypair at_world_node_key(struct at_world *w, int node)
{
    return w->nodes[node].key;
}

at_err at_world_init(const struct at_world_options *options, struct at_world **ret_world)
{
    struct at_world *w = calloc(1, sizeof *w);
    if (!w) return AT_E_NOMEM;
    w->options = *options;
    w->links = calloc(AT_WORLD_LINKS_MAX, sizeof *w->links);
    w->log = calloc(AT_WORLD_LOG_MAX, sizeof *w->log);
    w->log_seen = calloc(AT_WORLD_LOG_MAX, sizeof *w->log_seen);
    w->round_root = calloc((size_t)options->rounds + 2, sizeof *w->round_root);
    w->round_seen = calloc((size_t)options->rounds + 2, sizeof *w->round_seen);
    at_err_t err = w->links && w->log && w->log_seen && w->round_root && w->round_seen ? AT_OK : AT_E_NOMEM;
    for (int i = 0; !err && i < options->nodes; i++) {
        w->nodes[i].key = key_of(w, (uint32_t)i);
        w->nodes[i].speed = 1;
        err = at_world_disk_init(&w->nodes[i].disk);
    }
    if (!err) err = make_genesis(w);
    if (err) {
        at_world_release(w);
        return err;
    }
    struct at_world_disk *founder = &w->nodes[0].disk;
    founder->has_genesis = true;
    struct at_world_blob *shard = at_world_blob_get(w, founder, AT_BLOB_SHARD, w->g.shards[0].hash);
    shard->complete = true;
    err = at_buf_append(&shard->bytes, w->shard.p, w->shard.n);
    *ret_world = w;
    return err;
}

void at_world_release(struct at_world *w)
{
    if (!w) return;
    for (int i = 0; i < AT_WORLD_NODES_MAX; i++) {
        at_node_machine_release(w->nodes[i].machine);
        at_world_disk_release(&w->nodes[i].disk);
    }
    for (size_t i = 0; i < w->heap_count; i++) free(w->heap[i].payload);
    free(w->heap);
    free(w->links);
    free(w->log);
    free(w->log_seen);
    free(w->round_root);
    free(w->round_seen);
    at_buf_release(&w->genesis);
    at_buf_release(&w->shard);
    at_buf_release(&w->trace);
    at_message_mem_release(&w->mem);
    free(w);
}

/* ---- life and death of a node ---- */
static void node_down(struct at_world *w, int node)
{
    struct at_world_node *n = &w->nodes[node];
    at_node_machine_release(n->machine);
    n->machine = NULL;
    n->life++;
}

static void node_crash(struct at_world *w, int node, bool silent)
{
    if (!w->nodes[node].machine) return;
    at_world_tracef(w, "%d crashes", node);
    if (w->nodes[0].ended) w->nodes[node].left_behind = true;
    at_world_links_of(w, node, silent);
    node_down(w, node);
    at_world_disk_crash(w, &w->nodes[node].disk);
}

static void node_start(struct at_world *w, int node)
{
    struct at_world_node *n = &w->nodes[node];
    struct at_world_disk *d = &n->disk;
    struct at_diag diag = {0};
    if (n->machine || n->ended) return;
    char name[16];
    snprintf(name, sizeof name, "node %d", node);
    struct at_node_machine_options options = {.key = n->key,
                                              .run = w->run,
                                              .genesis = d->has_genesis ? at_buf_span(&w->genesis) : at_span(NULL, 0),
                                              .contact = w->nodes[0].key.id,
                                              .name = name,
                                              .program = "sim",
                                              .canary = node == 0 ? w->options.canary : 0};
    at_err_t err = at_node_machine_init(&options, &diag, &n->machine);
    struct at_log_checkpoint none = {0};
    if (!err) err = at_node_machine_replay(n->machine, d->records, d->durable, &diag);
    if (!err) err = at_node_machine_replayed(n->machine, d->durable ? &d->checkpoints[d->durable - 1] : &none, &diag);
    if (err) {
        at_world_violate(w, "node %d cannot be rebuilt from its disk: %s", node, diag.text);
        return;
    }
    n->has_state = d->saved;
    n->state_round = d->saved_round;
    n->h = d->saved_h;
    n->unit_id++;
    struct at_node_event e = {.kind = AT_NODE_EV_START};
    e.start.has_state = d->saved;
    e.start.round = d->saved_round;
    e.start.heldout_loss = NAN;
    if (d->saved) e.start.root = at_world_state_root(w, d->saved_h);
    at_world_step_node(w, node, &e);
}

static void trace_op(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_message msg;
    struct at_record rec;
    unsigned long long now = w->now_ms;
    if (!w->options.trace) return;
    if (op->kind == AT_NODE_OP_SEND) {
        const struct at_world_link *l = &w->links[(op->link - 1) / 2];
        int to = l->end[(op->link - 1) % 2 ? 0 : 1];
        if (at_message_decode(op->bytes, &w->mem, NULL, &msg) == AT_OK)
            at_world_tracef(w, "%llu %d>%d %s", now, node, to, at_message_kind_name(msg.kind));
    } else if (op->kind == AT_NODE_OP_PERSIST) {
        for (size_t i = 0; i < op->persist.count; i++)
            if (at_record_decode(at_signed_record_body(&op->persist.records[i]), NULL, &rec) == AT_OK)
                at_world_tracef(w, "%llu %d stores %llu %s", now, node, (unsigned long long)(op->persist.from + i),
                                at_record_kind_name(rec.kind));
    } else {
        static const char *const deed[AT_NODE_OP_ENDED + 1] = {[AT_NODE_OP_STATE_INIT] = "makes the initial state",
                                                               [AT_NODE_OP_UNIT_START] = "trains",
                                                               [AT_NODE_OP_UNIT_STOP] = "stops training",
                                                               [AT_NODE_OP_APPLY] = "applies",
                                                               [AT_NODE_OP_SAVE] = "saves",
                                                               [AT_NODE_OP_ENDED] = "ends"};
        if (deed[op->kind]) at_world_tracef(w, "%llu %d %s", now, node, deed[op->kind]);
    }
}

static void schedule_tick(struct at_world *w, int node)
{
    struct at_world_node *n = &w->nodes[node];
    uint64_t deadline = at_node_machine_deadline_ms(n->machine);
    n->tick_id++;
    if (deadline == UINT64_MAX) return;
    if (deadline <= w->now_ms) {
        at_world_violate(w, "node %d asks for a tick in the past", node);
        return;
    }
    at_world_push(w, AT_WORLD_TICK, node, deadline - w->now_ms)->id = n->tick_id;
}

static void node_dies_here(struct at_world *w, int node)
{
    struct at_world_node *n = &w->nodes[node];
    uint32_t restart_ms = n->crash_restart_ms;
    n->crash_how = AT_WORLD_CRASH_NEVER;
    node_crash(w, node, false);
    at_world_start_node(w, node, w->now_ms + restart_ms);
}

void at_world_step_node(struct at_world *w, int node, struct at_node_event *e)
{
    struct at_world_node *n = &w->nodes[node];
    struct at_node_update update;
    uint64_t full_link = 0;
    if (!n->machine || w->violated) return;
    e->time_ms = w->now_ms;
    e->wall_ms = WALL_MS_0 + w->now_ms;
    at_node_machine_step(n->machine, e, &update);
    bool dies = n->crash_how != AT_WORLD_CRASH_NEVER && n->events == n->crash_event;
    n->events++;
    if (dies && n->crash_how == AT_WORLD_CRASH_BEFORE_OPS) {
        node_dies_here(w, node);
        return;
    }
    for (size_t i = 0; i < update.count && !w->violated; i++) {
        const struct at_node_op *op = &update.ops[i];
        trace_op(w, node, op);
        if (op->kind == AT_NODE_OP_SEND && !at_world_send(w, node, op)) full_link = op->link;
        at_world_do_op(w, node, op);
    }
    if (n->ended) {
        at_world_hang_up(w, node);
        node_down(w, node);
        return;
    }
    if (w->violated) return;
    schedule_tick(w, node);
    if (dies) {
        node_dies_here(w, node);
    } else if (full_link) {
        struct at_node_event full = {.kind = AT_NODE_EV_LINK_FULL, .link = full_link};
        at_world_step_node(w, node, &full);
    }
}

/* ---- what comes due ---- */
static void happen(struct at_world *w, struct at_world_event *ev)
{
    struct at_world_node *n = ev->node >= 0 ? &w->nodes[ev->node] : NULL;
    struct at_node_event e = {.kind = AT_NODE_EV_TICK};
    bool script = ev->what == AT_WORLD_START || ev->what == AT_WORLD_CRASH || ev->what == AT_WORLD_BREAK_ALL;
    if (n && !script && (!n->machine || ev->life != n->life)) return;
    switch (ev->what) {
    case AT_WORLD_DELIVER:
        if (ev->e.kind == AT_NODE_EV_MESSAGE && !at_world_link_deliverable(w, ev)) return;
        at_world_step_node(w, ev->node, &ev->e);
        break;
    case AT_WORLD_TICK:
        if (ev->id == n->tick_id) at_world_step_node(w, ev->node, &e);
        break;
    case AT_WORLD_PERSISTED:
        n->disk.durable = (size_t)ev->arg;
        e.kind = AT_NODE_EV_PERSISTED;
        at_world_step_node(w, ev->node, &e);
        break;
    case AT_WORLD_LOG_READ:
        at_world_log_read(w, ev);
        break;
    case AT_WORLD_UNIT_STEP:
        at_world_unit_step(w, ev);
        break;
    case AT_WORLD_APPLY:
        at_world_apply(w, ev);
        break;
    case AT_WORLD_SAVE:
        at_world_save(w, ev);
        break;
    case AT_WORLD_LINK_UP:
        at_world_link_up(w, ev);
        break;
    case AT_WORLD_LINK_BREAK:
        at_world_link_break(w, (size_t)ev->id, "end of file");
        break;
    case AT_WORLD_START:
        node_start(w, ev->node);
        break;
    case AT_WORLD_CRASH:
        node_crash(w, ev->node, ev->flag);
        break;
    case AT_WORLD_BREAK_ALL:
        at_world_links_of(w, ev->node, ev->flag);
        break;
    }
}

bool at_world_run(struct at_world *w, uint64_t until_ms)
{
    while (!w->violated && w->heap_count > 0) {
        struct at_world_event ev;
        bool going = false;
        for (int i = 0; i < w->options.nodes; i++) going = going || (!w->nodes[i].ended && !w->nodes[i].left_behind);
        if (!going) return true;
        if (w->heap[0].at_ms > until_ms) {
            w->now_ms = until_ms;
            return false;
        }
        heap_pop(w, &ev);
        w->now_ms = ev.at_ms;
        happen(w, &ev);
        free(ev.payload);
    }
    return !w->violated;
}

/* ---- the script ---- */
static struct at_world_event *script(struct at_world *w, enum at_world_what what, int node, uint64_t at_ms)
{
    return at_world_push(w, what, node, at_ms > w->now_ms ? at_ms - w->now_ms : 0);
}
void at_world_start_node(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_START, node, at_ms);
}
void at_world_crash(struct at_world *w, int node, uint64_t at_ms, bool silent)
{
    script(w, AT_WORLD_CRASH, node, at_ms)->flag = silent;
}
void at_world_break_links(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_BREAK_ALL, node, at_ms);
}
void at_world_partition(struct at_world *w, int node, uint64_t at_ms, uint64_t until_ms)
{
    script(w, AT_WORLD_BREAK_ALL, node, at_ms)->flag = true;
    w->nodes[node].partition_from = at_ms;
    w->nodes[node].partition_until = until_ms;
}
void at_world_finish(struct at_world *w, int node, uint64_t at_ms)
{
    script(w, AT_WORLD_DELIVER, node, at_ms)->e.kind = AT_NODE_EV_FINISH;
}
void at_world_speed(struct at_world *w, int node, double speed)
{
    w->nodes[node].speed = speed;
}
void at_world_corrupt_state(struct at_world *w, int node)
{
    w->nodes[node].corrupt_next = true;
}
void at_world_crash_at_event(struct at_world *w, int node, uint64_t event, enum at_world_crash how, uint32_t restart_ms)
{
    struct at_world_node *n = &w->nodes[node];
    n->crash_event = n->events + event;
    n->crash_how = how;
    n->crash_restart_ms = restart_ms;
}

uint64_t at_world_now_ms(const struct at_world *w)
{
    return w->now_ms;
}
uint64_t at_world_events(const struct at_world *w, int node)
{
    return w->nodes[node].events;
}
const struct at_node_status *at_world_status(struct at_world *w, int node)
{
    return w->nodes[node].machine ? at_node_machine_status(w->nodes[node].machine) : NULL;
}
bool at_world_ended(const struct at_world *w, int node, at_err_t *ret_err)
{
    *ret_err = w->nodes[node].end_err;
    return w->nodes[node].ended;
}
const char *at_world_trace(const struct at_world *w)
{
    return w->trace.n ? (const char *)w->trace.p : "";
}
uint32_t at_world_dials(const struct at_world *w, int node)
{
    return w->nodes[node].dials;
}
uint32_t at_world_desyncs(const struct at_world *w, int node)
{
    return w->nodes[node].desyncs;
}
struct at_hash at_world_run_id(const struct at_world *w)
{
    return w->run;
}
const struct at_model_config *at_world_model(const struct at_world *w)
{
    return &w->g.model;
}
