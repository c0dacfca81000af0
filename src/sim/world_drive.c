/* world_drive.c: the driver that every node of the world has: what it does for each operation of its machine, and what
 * it tells the machine when that is done. */
#include "sim/world_internal.h"

#include <math.h>
#include <string.h>

/* ---- the driver: one operation ---- */
static void answer(struct at_world *w, int node, const struct at_node_op *op, enum at_node_event_kind kind,
                   uint64_t delay_ms, struct at_world_event **ret_event)
{
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, delay_ms);
    ev->e.kind = kind;
    ev->e.link = op->link;
    ev->e.blob.kind = op->read.kind;
    ev->e.blob.key = op->read.key;
    ev->e.blob.offset = op->read.offset;
    *ret_event = ev;
}

/* On a full disk a write fails, and the process ends of it. */
static bool disk_takes(struct at_world *w, int node)
{
    struct at_world_node *n = &w->nodes[node];
    n->disk_dies = n->disk_dies || n->knob[AT_WORLD_DISK_FULL];
    return !n->disk_dies;
}

static void op_persist(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_disk *d = &w->nodes[node].disk;
    if (!disk_takes(w, node)) return;
    at_world_check_persist(w, node, op);
    if (w->violated) return;
    at_world_log_write(w, node, op);
    at_world_kept_write(w, node, op);
    at_world_count_stored(w, node, op);
    at_world_count_blocks(w, node, op);
    uint64_t at = w->now_ms + at_world_sync_ms(w, node);
    struct at_world_node *n = &w->nodes[node];
    n->synced_ms = at > n->synced_ms ? at : n->synced_ms;
    struct at_world_event *ev = at_world_push(w, AT_WORLD_PERSISTED, node, n->synced_ms - w->now_ms);
    ev->arg = d->written;
    ev->id = d->kept_count;
}

static void op_blob_write(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_blob *b = at_world_blob_get(w, &w->nodes[node].disk, op->read.kind, op->read.key);
    if (!b) return;
    if (op->read.offset > b->part.n || b->complete) {
        at_world_violate(w, "node %d writes a blob with a gap, or one that it has", node);
        return;
    }
    b->part.n = (size_t)op->read.offset;
    if (at_buf_append(&b->part, op->bytes.p, op->bytes.n)) at_world_violate(w, "out of memory");
}

static void op_blob_finish(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_event *ev;
    struct at_world_blob *b = at_world_blob_find(&w->nodes[node].disk, op->read.kind, op->read.key);
    bool right = b && (b->complete || op->read.kind == AT_BLOB_STATE ||
                       at_hash_eq(at_sha256(b->part.p, b->part.n), op->read.key));
    /* Durable before BLOB_STORED is told: a crash between the two is harmless. */
    if (right && !b->complete) at_world_blob_whole(w, b, &b->part);
    answer(w, node, op, AT_NODE_EV_BLOB_STORED, at_world_sync_ms(w, node), &ev);
    ev->e.blob.ok = right;
    ev->e.blob.wrong = !right && b;
}

static void op_blob_read(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_event *ev;
    struct at_world_node *n = &w->nodes[node];
    struct at_span from = {0};
    struct at_world_blob *b = at_world_blob_find(&n->disk, op->read.kind, op->read.key);
    if (b && b->complete) from = at_world_blob_bytes(b);
    answer(w, node, op, AT_NODE_EV_BLOB_DATA, at_world_draw(w, 2), &ev);
    if (op->read.offset < from.n) {
        size_t rest = from.n - (size_t)op->read.offset;
        ev->e.blob.ok = true;
        ev->e.blob.total = from.n;
        at_world_payload(ev, at_span(from.p + op->read.offset, rest < op->read.bytes ? rest : op->read.bytes));
    }
    if (op->read.kind == AT_BLOB_LEAVES || op->read.kind == AT_BLOB_TILE) at_world_state_read(w, node, op, ev);
}

/* The stand-in for an update is a function of the state and the range, so the world knows what it must be. */
static void op_check(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_event *ev;
    struct at_world_node *n = &w->nodes[node];
    struct at_buf blob = {0};
    struct at_hash right =
        at_world_update_of(w, n->root, op->unit.start, op->unit.samples, op->unit.stage, op->unit.cut.stages, &blob);
    at_buf_release(&blob);
    answer(w, node, op, AT_NODE_EV_UPDATE_CHECKED, 0, &ev);
    ev->e.blob.ok = at_hash_eq(right, op->read.key);
}

static void op_prune(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_disk *d = &w->nodes[node].disk;
    for (uint32_t i = 0; i < d->blob_count; i++)
        d->blobs[i].pruned = d->blobs[i].complete && d->blobs[i].kind != AT_BLOB_SHARD;
    for (size_t k = 0; k < op->prune.count; k++) {
        struct at_world_blob *b = at_world_blob_find(d, AT_BLOB_UPDATE, op->prune.keep[k]);
        if (b) b->pruned = false;
    }
    for (uint32_t i = 0; i < d->blob_count; i++)
        if (d->blobs[i].used && d->blobs[i].pruned) at_world_blob_drop(w, d, &d->blobs[i]);
}

static void op_install(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_node *n = &w->nodes[node];
    struct at_world_blob *b = at_world_blob_find(&n->disk, AT_BLOB_STATE, op->root);
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, 3);
    ev->e.kind = AT_NODE_EV_STATE_READY;
    ev->e.state.round = op->round;
    ev->e.state.root = op->root;
    ev->e.state.heldout_loss = NAN;
    struct at_span bytes = b && b->complete ? at_world_blob_bytes(b) : at_span(NULL, 0);
    struct at_hash h;
    if (bytes.n < sizeof h.b) return;
    memcpy(h.b, bytes.p, sizeof h.b);
    ev->e.state.ok = at_hash_eq(at_world_state_root(w, op->round, h), op->root);
    if (!ev->e.state.ok)
        at_world_violate(w, "node %d installs a state that was checked tile by tile and is wrong", node);
    at_world_set_state(w, n, op->round, h);
    at_world_blob_drop(w, &n->disk, b); /* the state serves from memory */
}

static void op_state_init(struct at_world *w, int node)
{
    struct at_world_node *n = &w->nodes[node];
    at_world_set_state(w, n, 0, at_world_h0(w));
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, 5);
    ev->e.kind = AT_NODE_EV_STATE_READY;
    ev->e.state.ok = true;
    ev->e.state.root = n->root;
    ev->e.state.heldout_loss = at_world_loss(0);
}

static double speed_of(const struct at_world_node *n)
{
    return n->speed * (double)n->knob[AT_WORLD_SPEED_PERMILLE] / 1000;
}

static uint64_t step_ms(struct at_world *w, const struct at_world_node *n)
{
    double ms = w->options.step_ms / speed_of(n);
    if (w->options.stage_costs) ms = at_world_stage_ms(w, n, ms);
    return ms < 1 ? 1 : (uint64_t)ms;
}

/* A unit takes its steps' time with its share of the held-out loss; so each of them takes a little less. */
static uint64_t unit_step_ms(struct at_world *w, const struct at_world_node *n)
{
    uint64_t ms = step_ms(w, n), off = n->unit.share_off_ms / n->unit.steps;
    if (n->unit.step == 0) off += n->unit.share_off_ms % n->unit.steps;
    return ms > off ? ms - off : 1;
}

/* A forward pass costs a third of a step. */
static uint64_t share_ms(struct at_world *w, const struct at_world_node *n, struct at_heldout_share share)
{
    uint64_t windows = (w->g.heldout_bytes - 1) / w->g.model.seq_len;
    uint64_t count = at_heldout_count(share, windows), ms = count * step_ms(w, n) / (3 * w->g.train.batch);
    return count > 0 && ms == 0 ? 1 : ms;
}

static void op_unit_start(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_node *n = &w->nodes[node];
    if (!n->has_state || n->state_round != op->round) {
        at_world_violate(w, "node %d starts a unit of round %u from another state", node, op->round);
        return;
    }
    n->unit.round = op->unit.round;
    n->unit.replica = op->unit.replica;
    n->unit.steps = op->unit.steps;
    n->unit.step = 0;
    n->unit.samples = op->unit.samples;
    n->unit.start = op->unit.start;
    n->unit.stage = op->team ? op->team->rank : 0;
    n->unit.stages = op->team ? op->team->ranks : 1;
    n->unit.team = op->team ? *op->team : (struct at_node_team){.ranks = 1};
    n->unit.began_ms = w->now_ms;
    n->unit.until_ms = w->now_ms + op->unit.budget_ms;
    n->unit.stop_at = op->unit.stop_at;
    n->unit.share_ms = share_ms(w, n, op->unit.heldout);
    n->unit.share_off_ms = n->unit.share_ms;
    n->unit.in_share = n->unit.share_ms > 0;
    n->unit.share_told = n->unit.in_share && n->unit.share_ms <= op->unit.budget_ms / 8; /* else given up there */
    if (!n->unit.share_told && n->unit.in_share) n->unit.share_ms = op->unit.budget_ms / 8 + 1;
    uint64_t first_ms = n->unit.in_share ? n->unit.share_ms : unit_step_ms(w, n);
    at_world_push(w, AT_WORLD_UNIT_STEP, node, first_ms)->id = ++n->unit_id;
}

static void op_apply(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_node *n = &w->nodes[node];
    if (!n->has_state || n->state_round != op->round) {
        at_world_violate(w, "node %d applies round %u to another state", node, op->round);
        return;
    }
    for (size_t i = 0; i < op->apply.count; i++) {
        const struct at_world_blob *b = at_world_blob_find(&n->disk, AT_BLOB_UPDATE, op->apply.list[i].update);
        if (!b || !b->complete) at_world_violate(w, "node %d applies an update that it does not have", node);
    }
    struct at_hash h = at_world_h_next(w, n->h, op->apply.list, op->apply.count);
    if (n->corrupt_next && op->apply.count) h.b[31] ^= 1;
    if (op->apply.count) n->corrupt_next = false;
    struct at_world_event *ev = at_world_push(w, AT_WORLD_APPLY, node, 4);
    ev->hash = h;
    ev->arg = op->round;
    ev->flag = op->evaluate;
}

static bool shares_unit(const struct at_world *w, int node, int other)
{
    const struct at_world_node *n = &w->nodes[node], *p = &w->nodes[other];
    const struct at_node_team *t = &n->unit.team;
    for (uint32_t k = 0; k < t->ranks && p->machine; k++)
        if (k != t->rank && at_node_id_eq(&p->key.id, &t->peer[k].id) && p->unit.team.session == t->peer[k].session)
            return true;
    return false;
}

/* The unit ends with step `last`, for all who share it. */
static void cut_to(struct at_world *w, int node, uint32_t last)
{
    for (int i = 0; i < w->options.nodes; i++)
        if ((i == node || shares_unit(w, node, i)) && last < w->nodes[i].unit.steps) w->nodes[i].unit.steps = last;
}

/* The unit ends `more` steps later, or, shared, with the step after that of the one who is ahead. */
static void cut_unit(struct at_world *w, int node, uint32_t more)
{
    uint32_t last = w->nodes[node].unit.step + more;
    for (int i = 0; i < w->options.nodes; i++)
        if (i != node && shares_unit(w, node, i) && w->nodes[i].unit.step + 1 > last) last = w->nodes[i].unit.step + 1;
    cut_to(w, node, last);
}

void at_world_do_op(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_node *n = &w->nodes[node];
    struct at_world_event *ev;
    struct at_world_blob *b;
    switch (op->kind) {
    case AT_NODE_OP_PERSIST:
        op_persist(w, node, op);
        break;
    case AT_NODE_OP_SEND:
        break; /* below: it may be refused */
    case AT_NODE_OP_DIAL:
        at_world_dial(w, node, op);
        break;
    case AT_NODE_OP_MEET:
        at_world_meet(w, node, op);
        break;
    case AT_NODE_OP_DIAL_OFF:
        at_world_dial_off(w, node, op->dial);
        break;
    case AT_NODE_OP_CLOSE:
        at_world_close(w, op->link);
        break;
    case AT_NODE_OP_GENESIS:
        n->disk.has_genesis = at_hash_eq(at_genesis_run_id(op->bytes), w->run);
        if (!n->disk.has_genesis) at_world_violate(w, "node %d stores a genesis of another run", node);
        break;
    case AT_NODE_OP_LOG_READ:
        ev = at_world_push(w, AT_WORLD_LOG_READ, node, at_world_draw(w, 3));
        ev->id = op->link;
        ev->arg = op->read.offset;
        ev->e.blob.total = op->read.total;
        break;
    case AT_NODE_OP_BLOB_STAT:
        b = at_world_blob_find(&n->disk, op->read.kind, op->read.key);
        answer(w, node, op, AT_NODE_EV_BLOB_STATE, 0, &ev);
        ev->e.blob.complete = b && b->complete;
        ev->e.blob.bytes_have = b ? at_world_blob_bytes(b).n : 0;
        break;
    case AT_NODE_OP_BLOB_WRITE:
        if (!disk_takes(w, node)) return;
        if (op->read.kind == AT_BLOB_TILE)
            at_world_tile_write(w, node, op);
        else
            op_blob_write(w, node, op);
        break;
    case AT_NODE_OP_BLOB_FINISH:
        op_blob_finish(w, node, op);
        break;
    case AT_NODE_OP_BLOB_DROP:
        if ((b = at_world_blob_find(&n->disk, op->read.kind, op->read.key)) && !b->complete)
            at_world_blob_drop(w, &n->disk, b);
        break;
    case AT_NODE_OP_BLOB_READ:
        op_blob_read(w, node, op);
        break;
    case AT_NODE_OP_BUNDLE_READ:
        at_world_bundle_ask(w, node, op);
        break;
    case AT_NODE_OP_BUNDLE_STAT:
        at_world_bundle_stat(w, node, op);
        break;
    case AT_NODE_OP_BUNDLE_WRITE:
        if (!disk_takes(w, node)) return;
        at_world_bundle_write(w, node, op);
        break;
    case AT_NODE_OP_STATE_SHAPE:
        answer(w, node, op, AT_NODE_EV_STATE_SHAPE, 0, &ev);
        ev->e.shape.tiles = at_world_tiles(w);
        ev->e.shape.bytes = w->options.state_bytes;
        break;
    case AT_NODE_OP_TILES_FIND:
        at_world_tiles_find(w, node, op);
        break;
    case AT_NODE_OP_UPDATE_CHECK:
        op_check(w, node, op);
        break;
    case AT_NODE_OP_BLOB_PRUNE:
        op_prune(w, node, op);
        break;
    case AT_NODE_OP_STATE_INIT:
        op_state_init(w, node);
        break;
    case AT_NODE_OP_STATE_INSTALL:
        op_install(w, node, op);
        break;
    case AT_NODE_OP_UNIT_START:
        op_unit_start(w, node, op);
        break;
    case AT_NODE_OP_GROUP: /* no bytes go between stages here: see others_follow */
        break;
    case AT_NODE_OP_UNIT_STOP:
        n->unit_id++;
        n->unit.team.session = 0;
        break;
    case AT_NODE_OP_UNIT_ENOUGH:
        if (n->unit.stop_at == 0) cut_unit(w, node, 1);
        break;
    case AT_NODE_OP_APPLY:
        op_apply(w, node, op);
        break;
    case AT_NODE_OP_SAVE:
        if (!disk_takes(w, node)) return;
        at_world_check_save(w, node, op->round, op->root);
        ev = at_world_push(w, AT_WORLD_SAVE, node, 1 + at_world_draw(w, 4 * (uint64_t)w->options.sync_ms_max));
        ev->hash = n->h;
        ev->arg = op->round;
        break;
    case AT_NODE_OP_PEERS_KEEP:
        at_buf_clear(&n->peers);
        if (at_buf_append(&n->peers, op->bytes.p, op->bytes.n)) at_world_violate(w, "out of memory");
        break;
    case AT_NODE_OP_AGREE_READ:
        at_world_agree_ask(w, node, op);
        break;
    case AT_NODE_OP_SECRET_MAKE:
        at_world_secret_make(w, node, op->agree.term);
        break;
    case AT_NODE_OP_SECRETS_ERASE:
        at_world_secrets_erase(w, node, op->agree.term);
        break;
    case AT_NODE_OP_MEASURE:
        if (w->options.roles) at_world_measure(w, node, op->evaluate ? speed_of(n) : 0);
        break;
    case AT_NODE_OP_STATUS:
        if (strncmp(op->reason, "DESYNC", 6) == 0) {
            n->desyncs++;
            w->counts.desyncs++;
        }
        if (strstr(op->reason, "sent a wrong tile")) n->traffic.wrong_tiles++;
        break;
    case AT_NODE_OP_ENDED:
        at_world_check_end(w, node, op);
        break;
    }
}

/* ---- what comes due ---- */
void at_world_log_read(struct at_world *w, const struct at_world_event *ev)
{
    const struct at_world_disk *d = &w->nodes[ev->node].disk;
    struct at_log_checkpoint checkpoints[AT_LOG_PART_MAX];
    struct at_node_event e = {.kind = AT_NODE_EV_LOG_DATA, .link = ev->id};
    e.log.from = ev->arg;
    e.log.records = w->log.records + ev->arg;
    size_t most = w->options.seed % 3 == 0 ? 3 : AT_LOG_PART_MAX; /* short answers happen too */
    uint64_t end = d->written < ev->e.blob.total ? d->written : ev->e.blob.total;
    for (uint64_t i = ev->arg; i < end && i - ev->arg < AT_LOG_PART_MAX; i++) {
        size_t n;
        const struct at_log_checkpoint *at = at_world_log_checkpoints(w, (size_t)i + 1, &n);
        if (n == 0) continue;
        if (i - ev->arg >= most && e.log.count > 0) break;
        if (n > 1) e.log.checkpoint_count = 0; /* of several stewards those of the last size do */
        for (size_t k = 0; k < n; k++) checkpoints[e.log.checkpoint_count++] = at[k];
        e.log.count = (size_t)(i + 1 - ev->arg);
    }
    e.log.checkpoints = checkpoints;
    at_world_step_node(w, ev->node, &e);
}

/* A step of several stages ends for one when all others have done the step before, of the same attempt, and can be heard. */
static bool others_follow(const struct at_world *w, int node)
{
    const struct at_world_node *n = &w->nodes[node];
    const struct at_node_team *t = &n->unit.team;
    for (uint32_t k = 0; k < t->ranks; k++) {
        if (k == t->rank) continue;
        bool follows = false;
        for (int i = 0; i < w->options.nodes && !follows; i++) {
            const struct at_world_node *p = &w->nodes[i];
            follows = at_node_id_eq(&p->key.id, &t->peer[k].id) && p->machine &&
                      p->unit.team.session == t->peer[k].session && p->unit.step >= n->unit.step && !p->unit.in_share &&
                      at_world_hears(w, i, node) && at_world_hears(w, node, i);
        }
        if (!follows) return false;
    }
    return true;
}

#define FOLLOW_MS 5

void at_world_unit_step(struct at_world *w, const struct at_world_event *ev)
{
    struct at_world_node *n = &w->nodes[ev->node];
    if (ev->id != n->unit_id) return;
    if (n->unit.in_share) {
        struct at_node_event part = {.kind = AT_NODE_EV_UNIT_PROGRESS, .unit.round = n->unit.round};
        n->unit.in_share = false;
        n->unit.share_ms = w->now_ms - n->unit.began_ms;
        n->unit.began_ms = w->now_ms;
        at_world_push(w, AT_WORLD_UNIT_STEP, ev->node, unit_step_ms(w, n))->id = n->unit_id;
        at_world_step_node(w, ev->node, &part);
        return;
    }
    if (!others_follow(w, ev->node)) {
        at_world_push(w, AT_WORLD_UNIT_STEP, ev->node, FOLLOW_MS)->id = n->unit_id;
        return;
    }
    struct at_node_event e = {.kind = AT_NODE_EV_UNIT_PROGRESS};
    e.unit.round = n->unit.round;
    e.unit.step = ++n->unit.step;
    uint64_t spent_ms = w->now_ms - n->unit.began_ms;
    if (n->knob[AT_WORLD_HOSTILE] & AT_WORLD_HOSTILE_STEPS) e.unit.step = n->unit.step = n->unit.steps;
    if (n->unit.stop_at > 0)
        cut_to(w, ev->node, n->unit.stop_at);
    else if (w->now_ms + spent_ms / n->unit.step > n->unit.until_ms)
        cut_unit(w, ev->node, 0);
    e.unit.steps = n->unit.steps;
    e.unit.samples = n->unit.step * w->g.train.batch;
    e.unit.tokens = (uint64_t)e.unit.samples * w->g.model.seq_len;
    e.unit.tokens_per_s = 1000.0 * n->speed;
    if (n->unit.step < n->unit.steps) {
        at_world_push(w, AT_WORLD_UNIT_STEP, ev->node, unit_step_ms(w, n))->id = n->unit_id;
    } else {
        struct at_buf blob = {0};
        uint64_t wrong = n->knob[AT_WORLD_HOSTILE] & AT_WORLD_HOSTILE_NONSENSE ? 1 : 0;
        e.kind = AT_NODE_EV_UNIT_DONE;
        e.unit.update =
            at_world_update_of(w, n->root, n->unit.start + wrong, e.unit.samples, n->unit.stage, n->unit.stages, &blob);
        e.unit.update_bytes = blob.n;
        e.unit.share_ms = (uint32_t)n->unit.share_ms;
        if (n->unit.share_told && n->unit.stage + 1 >= n->unit.stages)
            e.unit.heldout = at_world_share_loss(n->unit.round, n->unit.replica);
        struct at_world_blob *b = at_world_blob_get(w, &n->disk, AT_BLOB_UPDATE, e.unit.update);
        if (b && !b->complete) at_world_blob_whole(w, b, &blob);
        at_buf_release(&blob);
        at_world_count_trained(w, ev->node);
    }
    at_world_step_node(w, ev->node, &e);
}

void at_world_apply(struct at_world *w, const struct at_world_event *ev)
{
    struct at_world_node *n = &w->nodes[ev->node];
    at_world_set_state(w, n, (uint32_t)ev->arg + 1, ev->hash);
    struct at_node_event e = {.kind = AT_NODE_EV_APPLIED};
    e.state.round = (uint32_t)ev->arg;
    e.state.root = n->root;
    e.state.ok = true;
    e.state.heldout_loss = ev->flag ? at_world_loss((uint32_t)ev->arg + 1) : NAN;
    at_world_step_node(w, ev->node, &e);
}

void at_world_save(struct at_world *w, const struct at_world_event *ev)
{
    struct at_world_disk *d = &w->nodes[ev->node].disk;
    d->saved = true;
    d->saved_round = (uint32_t)ev->arg;
    d->saved_h = ev->hash;
    struct at_node_event e = {.kind = AT_NODE_EV_SAVED};
    e.state.round = (uint32_t)ev->arg;
    at_world_step_node(w, ev->node, &e);
}
