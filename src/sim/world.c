/* world.c: what happens in virtual time, and the lives of nodes. */
#include "sim/world_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WALL_MS_0 UINT64_C(1800000000000)

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
    at_outer_config_default(&g->outer, AT_OUTER_MEAN);
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
    g->stages = w->options.stages;
    err = at_genesis_encode(g, &diag, &w->genesis);
    if (!err) w->run = at_genesis_run_id(at_buf_span(&w->genesis));
    return err;
}

static void give_founder(struct at_world *w)
{
    struct at_world_disk *founder = &w->nodes[0].disk;
    struct at_buf bytes = {0};
    founder->has_genesis = true;
    struct at_world_blob *shard = at_world_blob_get(w, founder, AT_BLOB_SHARD, w->g.shards[0].hash);
    if (at_buf_append(&bytes, w->shard.p, w->shard.n)) at_world_violate(w, "out of memory");
    if (shard) at_world_blob_whole(w, shard, &bytes);
}

at_err_t at_world_init(const struct at_world_options *options, struct at_world **ret_world)
{
    struct at_world *w = calloc(1, sizeof *w);
    if (!w) return AT_E_NOMEM;
    w->options = *options;
    w->stand_ins = (struct at_verifier){at_world_verify, w};
    w->verifier = options->real_signatures ? NULL : &w->stand_ins;
    w->several_from = SIZE_MAX;
    w->counts.fingerprint = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    w->nodes = calloc((size_t)options->nodes, sizeof *w->nodes);
    at_err_t no_scratch = at_node_scratch_init(&w->scratch);
    w->contents = calloc(AT_WORLD_CONTENT_BUCKETS, sizeof *w->contents);
    w->round_root = calloc((size_t)options->rounds + 2, sizeof *w->round_root);
    w->round_seen = calloc((size_t)options->rounds + 2, sizeof *w->round_seen);
    at_err_t err = w->nodes && w->contents && w->round_root && w->round_seen && !no_scratch ? AT_OK : AT_E_NOMEM;
    for (int i = 0; !err && i < options->nodes; i++) {
        struct at_world_node *n = &w->nodes[i];
        n->key = at_world_key_of(w, (uint32_t)i);
        n->speed = 1;
        n->tick_ms = UINT64_MAX;
        n->knob[AT_WORLD_SPEED_PERMILLE] = n->knob[AT_WORLD_RATE_PERMILLE] = 1000;
        n->knob[AT_WORLD_SKEW_MS] = AT_WORLD_SKEW_ZERO;
        n->peers.bytes_max = (size_t)1 << 22;
    }
    if (!err) err = at_world_nodes_index(w);
    if (!err) err = make_genesis(w);
    if (!err) at_world_give_tickets(w);
    if (!err) err = at_world_judge_init(w);
    if (err) {
        at_world_release(w);
        return err;
    }
    give_founder(w);
    *ret_world = w;
    return AT_OK;
}

void at_world_release(struct at_world *w)
{
    if (!w) return;
    for (int i = 0; i < w->options.nodes && w->nodes; i++) {
        at_node_machine_release(w->nodes[i].machine);
        at_world_disk_release(w, &w->nodes[i].disk);
        at_buf_release(&w->nodes[i].said);
        at_buf_release(&w->nodes[i].peers);
        free(w->nodes[i].rtts);
    }
    at_world_heap_release(w);
    at_world_log_release(w);
    at_world_judge_release(w);
    free(w->nodes);
    free(w->node_of);
    free(w->links);
    free(w->live);
    free(w->contents);
    free(w->applied.list);
    free(w->round_root);
    free(w->round_seen);
    free(w->keys);
    at_node_scratch_release(w->scratch);
    free(w->finality.ms);
    free(w->block_finality.ms);
    free(w->proposed);
    at_sha256_release(&w->trace_sha);
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
    at_world_count_life(w, node, false);
    at_node_machine_release(n->machine);
    n->machine = NULL;
    memset(n->dials_off, 0, sizeof n->dials_off); /* a new life counts from 1 again */
    n->tick_ms = UINT64_MAX;
    n->life++;
}

void at_world_node_crash(struct at_world *w, int node, bool silent)
{
    if (!w->nodes[node].machine) return;
    at_world_tracef(w, "%llu %d crashes", (unsigned long long)w->now_ms, node);
    if (w->nodes[0].ended && !at_world_several(w)) w->nodes[node].left_behind = w->ends_changed = true;
    *(silent ? &w->counts.silent_deaths : &w->counts.crashes) += 1;
    at_world_links_of(w, node, silent);
    node_down(w, node);
    at_world_disk_crash(w, node);
}

/* The stored log into the machine. A damaged record must be noticed, and then the folder is of no use. */
static at_err_t replay(struct at_world *w, int node, bool damaged, struct at_diag *diag)
{
    struct at_world_node *n = &w->nodes[node];
    size_t durable = n->disk.durable, at = 0;
    at_err_t err = AT_OK;
    if (damaged) {
        at = (size_t)at_world_draw(w, durable);
        struct at_signed_record rec = w->log.records[at];
        rec.body[at_world_draw(w, rec.body_bytes)] ^= 1;
        err = at_node_machine_replay(n->machine, w->log.records, at, diag);
        if (!err) err = at_node_machine_replay(n->machine, &rec, 1, diag);
        at++;
    }
    if (!err && at < durable) err = at_node_machine_replay(n->machine, w->log.records + at, durable - at, diag);
    const struct at_log_checkpoint *newest = NULL;
    size_t size = durable, count = 0; /* of a steward among several the log may be ahead of it */
    while (size > 0 && count == 0) newest = at_world_log_checkpoints(w, size--, &count);
    if (!err) err = at_node_machine_replayed(n->machine, newest, count, diag);
    return err;
}

static uint32_t canary_of(const struct at_world *w, int node)
{
    return node == 0 || w->options.canary == AT_NODE_CANARY_NO_DUMMIES ? w->options.canary : 0;
}

/* As many stand-ins go in a bundle as of what they stand for would. */
static uint32_t bundle_bytes(const struct at_world *w)
{
    uint32_t weight = w->options.lines && w->options.bulk_weight > 1 ? w->options.bulk_weight : 1;
    return AT_BUNDLE_BYTES_MAX / weight > 1 ? AT_BUNDLE_BYTES_MAX / weight : 1;
}

static at_err_t build(struct at_world *w, int node, bool damaged, struct at_diag *diag)
{
    struct at_world_node *n = &w->nodes[node];
    char name[16];
    snprintf(name, sizeof name, "node %d", node);
    struct at_node_machine_options options = {.key = n->key,
                                              .run = w->run,
                                              .contact = w->nodes[n->contact].key.id,
                                              .name = name,
                                              .program = "sim",
                                              .verifier = w->verifier,
                                              .scratch = w->scratch,
                                              .serve_bytes_per_s = w->options.serve_bytes_per_s,
                                              .fetch_bytes_per_s = w->options.fetch_bytes_per_s,
                                              .links_max = w->options.links_max,
                                              .ticket = n->has_ticket ? &n->ticket : NULL,
                                              .secrets = n->secrets,
                                              .secret_count = n->secret_count,
                                              .nonce = ((uint64_t)node << 32) + n->life,
                                              .bundle_bytes = bundle_bytes(w),
                                              .beacon_links = 4096,
                                              .canary = canary_of(w, node)};
    options.genesis = n->disk.has_genesis ? at_buf_span(&w->genesis) : at_span(NULL, 0);
    at_err_t err = at_node_machine_init(&options, diag, &n->machine);
    if (!err) err = replay(w, node, damaged, diag);
    return err ? err : at_world_kept_restore(w, node, diag);
}

static void node_start(struct at_world *w, int node)
{
    struct at_world_node *n = &w->nodes[node];
    struct at_diag diag = {0};
    if (n->machine || n->ended) return;
    at_world_disk_rot(w, node);
    bool damaged = n->log_rots && n->disk.durable > 0;
    n->log_rots = false;
    at_err_t err = build(w, node, damaged, &diag);
    if (damaged && err == AT_E_VERIFY) {
        at_world_tracef(w, "%llu %d finds its folder damaged and begins with an empty one",
                        (unsigned long long)w->now_ms, node);
        at_node_machine_release(n->machine);
        n->machine = NULL;
        at_world_disk_wipe(w, node);
        err = build(w, node, false, &diag);
    } else if (damaged) {
        at_world_violate(w, "node %d does not notice that its log is damaged", node);
        return;
    }
    if (err) {
        at_world_violate(w, "node %d cannot be rebuilt from its disk: %s", node, diag.text);
        return;
    }
    n->has_state = n->disk.saved;
    n->has_before = false;
    n->state_round = n->disk.saved_round;
    n->h = n->disk.saved_h;
    if (n->has_state) n->root = at_world_state_root(w, n->state_round, n->h);
    n->unit_id++;
    n->unit.team.session = 0;
    n->deadline_ms = at_node_machine_deadline_ms(n->machine);
    at_world_count_life(w, node, true);
    struct at_node_event e = {.kind = AT_NODE_EV_START};
    e.start.has_state = n->disk.saved;
    e.start.round = n->disk.saved_round;
    e.start.heldout_loss = NAN;
    if (n->has_state) e.start.root = n->root;
    at_world_step_node(w, node, &e);
    struct at_node_event peers = {.kind = AT_NODE_EV_PEERS, .bytes = at_buf_span(&n->peers)};
    if (n->peers.n) at_world_step_node(w, node, &peers);
    struct at_endpoint endpoint = at_world_endpoint(w, node);
    struct at_node_event reachable = {.kind = AT_NODE_EV_REACHABLE, .reachable = {&endpoint, 1}};
    at_world_step_node(w, node, &reachable);
}

/* One tick is under way at a time; one that comes too early looks again. */
static void schedule_tick(struct at_world *w, int node, uint64_t deadline)
{
    struct at_world_node *n = &w->nodes[node];
    if (deadline == UINT64_MAX || n->tick_ms <= deadline) return;
    if (deadline <= w->now_ms) {
        at_world_violate(w, "node %d asks for a tick in the past", node);
        return;
    }
    n->tick_ms = deadline;
    at_world_push(w, AT_WORLD_TICK, node, deadline - w->now_ms)->id = ++n->tick_id;
}

static void tick(struct at_world *w, const struct at_world_event *ev)
{
    struct at_world_node *n = &w->nodes[ev->node];
    struct at_node_event e = {.kind = AT_NODE_EV_TICK};
    if (ev->id != n->tick_id) return;
    n->tick_ms = UINT64_MAX;
    if (n->deadline_ms <= w->now_ms)
        at_world_step_node(w, ev->node, &e);
    else
        schedule_tick(w, ev->node, n->deadline_ms);
}

static void node_dies_here(struct at_world *w, int node)
{
    struct at_world_node *n = &w->nodes[node];
    uint32_t restart_ms = n->crash_restart_ms;
    n->crash_how = AT_WORLD_CRASH_NEVER;
    at_world_node_crash(w, node, false);
    at_world_start_node(w, node, w->now_ms + restart_ms);
}

static uint64_t wall_ms(const struct at_world *w, int node)
{
    return WALL_MS_0 + w->now_ms + w->nodes[node].knob[AT_WORLD_SKEW_MS] - AT_WORLD_SKEW_ZERO;
}

void at_world_step_node(struct at_world *w, int node, struct at_node_event *e)
{
    struct at_world_node *n = &w->nodes[node];
    struct at_node_update update;
    uint64_t full_link = 0;
    if (!n->machine || w->violated) return;
    if (at_node_machine_deadline_ms(n->machine) != n->deadline_ms) {
        at_world_violate(w, "node %d says another deadline when it is asked again", node);
        return;
    }
    e->time_ms = w->now_ms;
    e->wall_ms = wall_ms(w, node);
    at_node_machine_step(n->machine, e, &update);
    bool dies = n->crash_how != AT_WORLD_CRASH_NEVER && n->events == n->crash_event;
    n->events++;
    if (dies && n->crash_how == AT_WORLD_CRASH_BEFORE_OPS) {
        node_dies_here(w, node);
        return;
    }
    w->sent = at_span(NULL, 0); /* the machine's buffer has new contents */
    for (size_t i = 0; i < update.count && !w->violated && !n->disk_dies; i++) {
        const struct at_node_op *op = &update.ops[i];
        at_world_trace_op(w, node, op);
        if (op->kind == AT_NODE_OP_SEND && !at_world_send(w, node, op)) full_link = op->link;
        at_world_do_op(w, node, op);
    }
    if (w->options.spoil_scratch) at_node_scratch_spoil(w->scratch);
    if (n->disk_dies) {
        n->disk_dies = false;
        w->counts.disk_deaths++;
        at_world_node_crash(w, node, false);
        return;
    }
    if (n->ended) {
        n->disk.durable = n->disk.written; /* an orderly end waits for its writes */
        n->disk.kept_durable = n->disk.kept_count;
        if (at_world_several(w)) at_world_judge_records(w);
        at_world_hang_up(w, node);
        node_down(w, node);
        return;
    }
    if (w->violated) return;
    n->deadline_ms = at_node_machine_deadline_ms(n->machine);
    schedule_tick(w, node, n->deadline_ms);
    if (n->knob[AT_WORLD_DIES_WRITING] && n->disk.durable < n->disk.written) {
        n->crash_restart_ms = (uint32_t)n->knob[AT_WORLD_DIES_WRITING];
        n->knob[AT_WORLD_DIES_WRITING] = 0;
        dies = true;
    }
    if (dies) {
        node_dies_here(w, node);
    } else if (full_link) {
        struct at_node_event full = {.kind = AT_NODE_EV_LINK_FULL, .link = full_link};
        at_world_step_node(w, node, &full);
    }
}

/* ---- what comes due ---- */
static bool is_script(enum at_world_what what)
{
    return what == AT_WORLD_START || what == AT_WORLD_CRASH || what == AT_WORLD_BREAK_ALL || what == AT_WORLD_JOIN_UP ||
           what == AT_WORLD_KILL || what == AT_WORLD_SET || what == AT_WORLD_FLOOD || what == AT_WORLD_FINISH;
}

static void start(struct at_world *w, const struct at_world_event *ev)
{
    struct at_world_node *n = &w->nodes[ev->node];
    if (ev->flag && n->ended && !w->nodes[0].ended) { /* it comes back */
        n->ended = n->left_behind = n->run_ended = false;
        n->end_err = AT_OK;
        w->ends_changed = true;
    }
    node_start(w, ev->node);
}

static void persisted(struct at_world *w, const struct at_world_event *ev)
{
    struct at_node_event e = {.kind = AT_NODE_EV_PERSISTED};
    w->nodes[ev->node].disk.durable = (size_t)ev->arg;
    w->nodes[ev->node].disk.kept_durable = (size_t)ev->id;
    if (ev->node == 0 || at_world_several(w)) at_world_judge_records(w);
    at_world_step_node(w, ev->node, &e);
}

void at_world_happen(struct at_world *w, struct at_world_event *ev)
{
    struct at_world_node *n = ev->node >= 0 ? &w->nodes[ev->node] : NULL;
    if (n && !is_script(ev->what) && (!n->machine || ev->life != n->life)) return;
    switch (ev->what) {
    case AT_WORLD_DELIVER:
        if (ev->e.kind == AT_NODE_EV_MESSAGE && !at_world_link_deliverable(w, ev)) return;
        if (ev->e.kind == AT_NODE_EV_MESSAGE) at_world_count_in(w, ev->node, ev->e.bytes);
        at_world_step_node(w, ev->node, &ev->e);
        break;
    case AT_WORLD_TICK:
        tick(w, ev);
        break;
    case AT_WORLD_PERSISTED:
        persisted(w, ev);
        break;
    case AT_WORLD_LOG_READ:
        at_world_log_read(w, ev);
        break;
    case AT_WORLD_AGREE_READ:
        at_world_agree_read(w, ev);
        break;
    case AT_WORLD_BUNDLE_READ:
        at_world_bundle_read(w, ev);
        break;
    case AT_WORLD_KILL:
        at_world_node_crash(w, ev->node, false);
        n->left_behind = w->ends_changed = true;
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
    case AT_WORLD_MET:
        at_world_met(w, ev);
        break;
    case AT_WORLD_LINK_BREAK:
        at_world_link_break(w, (size_t)ev->id, "end of file");
        break;
    case AT_WORLD_START:
        start(w, ev);
        break;
    case AT_WORLD_CRASH:
        at_world_node_crash(w, ev->node, ev->flag);
        break;
    case AT_WORLD_BREAK_ALL:
        at_world_links_of(w, ev->node, ev->flag);
        break;
    case AT_WORLD_JOIN_UP:
        at_world_link(w, ev->node, (int)ev->arg, -1, AT_NODE_DIRECT, 0);
        break;
    case AT_WORLD_SET:
        at_world_happen_set(w, ev);
        break;
    case AT_WORLD_FLOOD:
        at_world_flood_now(w, ev->node);
        break;
    case AT_WORLD_FINISH:
        at_world_step_node(w, ev->node, &ev->e);
        break;
    case AT_WORLD_WALL:
        at_world_wall_up(w, (size_t)ev->id);
        break;
    }
}

/* One that was left behind may dial for ever, unless it knows that the run is over: then it ends by itself, after a while,
 * and where that may be without the final state it is waited for. */
static bool goes_on(const struct at_world *w, int node)
{
    const struct at_world_node *n = &w->nodes[node];
    if (n->ended || !at_world_is_honest(w, node)) return false;
    if (!n->left_behind) return true;
    return w->options.peers_give_up && n->machine && at_node_machine_status(n->machine)->phase == AT_NODE_PHASE_ENDING;
}

static bool somebody_goes_on(const struct at_world *w)
{
    for (int i = 0; i < w->options.nodes; i++)
        if (goes_on(w, i)) return true;
    return false;
}

bool at_world_run(struct at_world *w, uint64_t until_ms)
{
    w->ends_changed = true;
    while (!w->violated && w->heap_count > 0) {
        if (w->ends_changed && !somebody_goes_on(w)) return true;
        w->ends_changed = false;
        if (w->heap[0].at_ms > until_ms) {
            w->now_ms = until_ms;
            return false;
        }
        struct at_world_event *ev = at_world_pop(w);
        w->now_ms = ev->at_ms;
        at_world_count_event(w, ev);
        at_world_happen(w, ev);
        at_world_event_free(w, ev);
    }
    return !w->violated;
}
