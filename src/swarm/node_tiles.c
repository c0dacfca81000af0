/* node_tiles.c: a state by tiles: fetched from many peers at once (tiles.h picks), and served within a budget.
 *
 *   step      event                          does                                                           next
 *   NONE      wanted (node_state.c)          is it here whole? (BLOB_STAT)                                   STAT
 *   STAT      complete                       done                                                           NONE
 *   STAT      not                            fetches the leaves' hashes, from one peer after the other      LEAVES
 *   LEAVES    a list with another root       Bye, closes the link, asks the next peer                       LEAVES
 *   LEAVES    the right list                 asks the driver which tiles are here (TILES_FIND), and every   FIND
 *                                            peer what it holds (TilesAsk)
 *   FIND      TILES_FOUND                    asks for tiles                                                 RUN
 *   RUN       a tile                         BLOB_WRITE; the last one: BLOB_FINISH                          RUN, FINISH
 *   RUN       a wrong tile                   Bye, closes the link; that tile is asked elsewhere             RUN
 *   RUN       TilesHave                      counts its tiles; asks again in 1.5 s unless it has all        RUN
 *   RUN       no peer has a missing tile     goes on asking; node_state.c may take a newer state instead    RUN
 *   FINISH    BLOB_STORED ok                 done                                                           NONE
 *   FINISH    not ok                         looks again which tiles are right                              FIND
 *   any       cancelled                      BLOB_DROP                                                      NONE
 *
 * Nothing that a peer says about what it holds is believed further than that it is asked for it; nothing that it sends
 * is stored before its hash was compared with the agreed root's leaf. Who fetches serves what it has so far. */
#include "swarm/node_internal.h"

#include "base/merkle.h"

#include <string.h>

static uint64_t leaves_bytes(const struct at_node_machine *m)
{
    return ((uint64_t)m->tiles.shape_tiles + 1) * AT_HASH_BYTES;
}

/* ---- the shape of a state ---- */
void at_node_tiles_shape(struct at_node_machine *m, const struct at_node_event *e)
{
    if (e->shape.tiles == 0 || e->shape.tiles > AT_TILES_MAX) {
        at_node_end(m, AT_E_TOO_BIG, "a state of this run has %u tiles; %u are possible", e->shape.tiles, AT_TILES_MAX);
        return;
    }
    m->tiles.shape_tiles = e->shape.tiles;
    m->tiles.shape_bytes = e->shape.bytes;
    m->tiles.leaves.bytes_max = (size_t)leaves_bytes(m);
}

/* ---- the fetch ---- */
static void ops_of(struct at_node_machine *m, enum at_node_op_kind kind)
{
    struct at_node_op *op = at_node_op_add(m, kind);
    op->read.kind = AT_BLOB_STATE;
    op->read.key = m->tiles.root;
    op->read.total = m->tiles.shape_bytes;
}

static void reset(struct at_node_machine *m)
{
    at_node_fetch_cancel(m, at_node_fetch_find(m, AT_BLOB_LEAVES, m->tiles.root));
    at_tiles_release(&m->tiles.pick);
    at_buf_release(&m->tiles.leaves);
    m->tiles.leaves.bytes_max = (size_t)leaves_bytes(m);
    m->tiles.step = AT_NODE_TILES_NONE;
    m->tiles.starved_ms = 0;
    for (size_t i = 0; i < m->link_top; i++) {
        m->links[i].tiles_whole = m->links[i].tiles_answered = false;
        m->links[i].tiles_asked_ms = 0;
    }
}

void at_node_tiles_fetch(struct at_node_machine *m, struct at_hash root, uint32_t round)
{
    struct at_node_tiles *t = &m->tiles;
    if (t->step != AT_NODE_TILES_NONE && at_hash_eq(t->root, root)) return;
    at_node_tiles_cancel(m);
    t->root = root;
    t->round = round;
    t->step = AT_NODE_TILES_STAT;
    if (t->in.bytes_per_s == 0 && m->options.fetch_bytes_per_s)
        at_budget_init(&t->in, m->options.fetch_bytes_per_s, m->options.fetch_bytes_per_s / 4 + 1, m->now_ms);
    ops_of(m, AT_NODE_OP_BLOB_STAT);
}

void at_node_tiles_cancel(struct at_node_machine *m)
{
    if (m->tiles.step == AT_NODE_TILES_NONE) return;
    if (m->tiles.step != AT_NODE_TILES_FINISH) ops_of(m, AT_NODE_OP_BLOB_DROP);
    reset(m);
}

static void done(struct at_node_machine *m)
{
    reset(m);
    at_node_state_fetched(m, AT_BLOB_STATE, m->tiles.root);
}

static void want_leaves(struct at_node_machine *m)
{
    m->tiles.step = AT_NODE_TILES_LEAVES;
    at_node_fetch(m, AT_BLOB_LEAVES, m->tiles.root, leaves_bytes(m), leaves_bytes(m), 0);
}

void at_node_tiles_stat(struct at_node_machine *m, const struct at_node_event *e)
{
    if (m->tiles.step != AT_NODE_TILES_STAT || !at_hash_eq(e->blob.key, m->tiles.root)) return;
    if (e->blob.complete)
        done(m);
    else
        want_leaves(m);
}

static void find_tiles(struct at_node_machine *m)
{
    m->tiles.step = AT_NODE_TILES_FIND;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_TILES_FIND);
    op->root = m->tiles.root;
    op->round = m->tiles.round;
    op->bytes = at_buf_span(&m->tiles.leaves);
}

static struct at_hash leaf_at(const struct at_node_machine *m, size_t i)
{
    struct at_hash leaf;
    memcpy(leaf.b, m->tiles.leaves.p + i * AT_HASH_BYTES, AT_HASH_BYTES);
    return leaf;
}

void at_node_tiles_leaves(struct at_node_machine *m, struct at_node_link *link)
{
    struct at_merkle tree = {0};
    if (m->tiles.step != AT_NODE_TILES_LEAVES) return;
    for (size_t i = 0; i < m->tiles.leaves.n / AT_HASH_BYTES; i++) at_merkle_append(&tree, leaf_at(m, i));
    if (at_hash_eq(at_merkle_root(&tree), m->tiles.root)) {
        find_tiles(m);
        return;
    }
    at_buf_clear(&m->tiles.leaves);
    if (link) at_node_link_refuse(m, link, "these leaves do not have the state's root");
    want_leaves(m);
}

/* Different newcomers begin at different tiles. */
static uint64_t seed_of(const struct at_node_machine *m)
{
    return at_load_le64(m->options.key.id.b);
}

static void finish_if_done(struct at_node_machine *m)
{
    if (m->tiles.pick.missing > 0) return;
    m->tiles.step = AT_NODE_TILES_FINISH;
    ops_of(m, AT_NODE_OP_BLOB_FINISH);
}

void at_node_tiles_found(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_tiles *t = &m->tiles;
    if (t->step != AT_NODE_TILES_FIND || !at_hash_eq(e->blob.key, t->root)) return;
    struct at_span tiles = at_span(t->leaves.p + AT_HASH_BYTES, t->leaves.n - AT_HASH_BYTES);
    at_tiles_release(&t->pick);
    if (at_tiles_start(&t->pick, tiles, t->shape_tiles, seed_of(m))) {
        at_node_end(m, AT_E_NOMEM, "no memory to fetch the %u tiles of the state", t->shape_tiles);
        return;
    }
    for (uint32_t i = 0; i < t->shape_tiles && i / 8 < e->bytes.n; i++)
        if (e->bytes.p[i / 8] >> (i % 8) & 1) at_tiles_found(&t->pick, i);
    uint32_t found = t->shape_tiles - t->pick.missing;
    if (found > 0) at_node_note(m, "%u of the state's %u tiles are here already", found, t->shape_tiles);
    t->step = AT_NODE_TILES_RUN;
    for (size_t i = 0; i < m->link_top; i++) { /* what was said while the driver looked is asked again */
        m->links[i].tiles_whole = m->links[i].tiles_answered = false;
        m->links[i].tiles_asked_ms = 0;
    }
    finish_if_done(m);
}

void at_node_tiles_stored(struct at_node_machine *m, const struct at_node_event *e)
{
    if (m->tiles.step != AT_NODE_TILES_FINISH || !at_hash_eq(e->blob.key, m->tiles.root)) return;
    if (e->blob.ok)
        done(m);
    else
        find_tiles(m);
}

static struct at_message ask_message(struct at_hash root)
{
    struct at_message msg = {.kind = AT_MSG_TILES_ASK};
    msg.tiles_ask.root = root;
    return msg;
}

static bool poll_due(const struct at_node_machine *m, const struct at_node_link *l)
{
    return l->used && l->hello && !l->closing && !l->tiles_whole &&
           (l->tiles_asked_ms == 0 || m->now_ms >= l->tiles_asked_ms + AT_NODE_TILES_POLL_MS);
}

static void ask_around(struct at_node_machine *m)
{
    struct at_message msg = ask_message(m->tiles.root);
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (!poll_due(m, l)) continue;
        l->tiles_asked_ms = m->now_ms ? m->now_ms : 1;
        l->tiles_answered = false;
        at_node_send(m, l->id, &msg);
    }
}

void at_node_tiles_have(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_tiles_have *have)
{
    struct at_node_tiles *t = &m->tiles;
    if (t->step != AT_NODE_TILES_RUN || !at_hash_eq(have->root, t->root)) return; /* of a fetch given up, or over */
    if (link->tiles_asked_ms == 0 || have->bits.n > ((size_t)t->shape_tiles + 7) / 8) {
        at_node_link_refuse(m, link,
                            link->tiles_asked_ms == 0 ? "nobody asked for this map" : "a map of too many tiles");
        return;
    }
    bool some = have->whole || have->bits.n > 0;
    link->tiles_answered = true;
    if (some)
        link->tiles_whole = at_tiles_peer_holds(&t->pick, link->id, have->whole, have->bits) && have->whole;
    else
        at_tiles_peer_empty(&t->pick, link->id);
}

/* As many as windows and budget allow; what does not fit one update waits for the next event. */
static void want_tiles(struct at_node_machine *m)
{
    uint64_t id;
    uint32_t tile;
    while (m->op_count < AT_NODE_OPS_MAX / 2 && at_budget_has(&m->tiles.in, m->now_ms) &&
           at_tiles_next(&m->tiles.pick, m->now_ms, &id, &tile)) {
        struct at_node_link *link = at_node_link_find(m, id);
        AT_ASSERT(link); /* a link that goes down leaves the picker */
        struct at_message msg = {.kind = AT_MSG_WANT};
        msg.want =
            (struct at_msg_want){.kind = AT_BLOB_TILE, .key = m->tiles.root, .offset = tile, .bytes = AT_TILE_DATA_MAX};
        at_node_send(m, id, &msg);
        at_budget_spend(&m->tiles.in, m->tiles.shape_bytes / m->tiles.shape_tiles); /* about what will come */
        if (link->wants_out++ == 0) link->answer_ms = m->now_ms;
    }
}

void at_node_tiles_piece(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_piece *piece)
{
    struct at_node_tiles *t = &m->tiles;
    if (t->step != AT_NODE_TILES_RUN || !at_hash_eq(piece->key, t->root)) return; /* of a fetch given up, or over */
    if (piece->total != t->shape_tiles) {
        at_node_link_refuse(m, link, "a state of another number of tiles");
        return;
    }
    switch (at_tiles_got(&t->pick, link->id, (uint32_t)piece->offset, piece->data, m->now_ms)) {
    case AT_TILES_NEW: {
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_WRITE);
        op->read.kind = AT_BLOB_TILE;
        op->read.key = t->root;
        op->read.offset = piece->offset;
        op->read.total = piece->total;
        op->bytes = piece->data;
        finish_if_done(m);
        break;
    }
    case AT_TILES_KNOWN:
        break;
    case AT_TILES_WRONG:
        at_node_note(m, "%.16s sent a wrong tile", at_node_id_hex(&link->node).s);
        at_node_link_refuse(m, link, "a tile that is not what the agreed root says");
        break;
    case AT_TILES_UNASKED:
        at_node_link_refuse(m, link, "a tile that nobody asked for");
        break;
    }
}

void at_node_tiles_missing(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_missing *missing)
{
    if (m->tiles.step != AT_NODE_TILES_RUN || !at_hash_eq(missing->key, m->tiles.root)) return;
    if (missing->offset >= m->tiles.shape_tiles ||
        !at_tiles_missing(&m->tiles.pick, link->id, (uint32_t)missing->offset)) {
        at_node_link_refuse(m, link, "a tile that nobody asked for is missing");
        return;
    }
    link->tiles_whole = false;
}

void at_node_tiles_link_down(struct at_node_machine *m, uint64_t link)
{
    if (m->tiles.pick.tiles) at_tiles_peer_gone(&m->tiles.pick, link);
}

uint64_t at_node_tiles_bytes_left(const struct at_node_machine *m)
{
    const struct at_node_tiles *t = &m->tiles;
    if (t->step < AT_NODE_TILES_RUN) return t->shape_bytes;
    return (uint64_t)((at_u128)t->shape_bytes * t->pick.missing / t->shape_tiles);
}

/* Rounds may follow each other faster than a state can be fetched: then every one that is begun goes the same way. So a
 * state that is gone is left for the newest when that one has lasted a little, or else every three seconds. */
bool at_node_tiles_starved(const struct at_node_machine *m)
{
    const struct at_node_tiles *t = &m->tiles;
    if (!t->starved_ms) return false;
    if (t->starved_surely && m->now_ms >= t->newest_ms + AT_NODE_TILES_STEADY_MS) return true;
    return m->now_ms >= t->starved_ms + AT_NODE_TILES_STARVED_MS;
}

static bool all_have_answered(const struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++)
        if (at_node_link_open(&m->links[i]) && !m->links[i].tiles_answered) return false;
    return at_node_linked(m);
}

static void watch_hunger(struct at_node_machine *m)
{
    struct at_node_tiles *t = &m->tiles;
    bool hungry = false;
    t->starved_surely = false;
    if (t->step == AT_NODE_TILES_LEAVES) {
        const struct at_node_fetch *f = at_node_fetch_find(m, AT_BLOB_LEAVES, t->root);
        hungry = f && f->misses > 0;
        t->starved_surely = hungry && f->turns > 0;
    } else if (t->step == AT_NODE_TILES_RUN) {
        hungry = at_tiles_starved(&t->pick);
        t->starved_surely = hungry && all_have_answered(m);
    }
    if (!hungry)
        t->starved_ms = 0;
    else if (t->starved_ms == 0)
        t->starved_ms = m->now_ms ? m->now_ms : 1;
}

/* ---- serving ---- */
void at_node_tiles_hold(struct at_node_machine *m, struct at_hash root)
{
    struct at_hash *held = m->tiles.held;
    if (at_hash_eq(held[0], root)) return;
    held[1] = held[0];
    held[0] = root;
}

void at_node_tiles_ask(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_tiles_ask *ask)
{
    const struct at_node_tiles *t = &m->tiles;
    if (link->cold->ask_budget.bytes_per_s == 0) at_budget_init(&link->cold->ask_budget, 4, 16, m->now_ms);
    if (!at_budget_has(&link->cold->ask_budget, m->now_ms)) {
        at_node_link_refuse(m, link, "too many questions about tiles");
        return;
    }
    at_budget_spend(&link->cold->ask_budget, 1);
    struct at_message msg = {.kind = AT_MSG_TILES_HAVE};
    msg.tiles_have.root = ask->root;
    if (!at_hash_is_zero(ask->root) && (at_hash_eq(ask->root, t->held[0]) || at_hash_eq(ask->root, t->held[1])))
        msg.tiles_have.whole = true;
    else if (t->step == AT_NODE_TILES_RUN && at_hash_eq(ask->root, t->root))
        msg.tiles_have.bits = at_tiles_map(&t->pick);
    at_node_send(m, link->id, &msg);
}

/* While updates are exchanged a byte costs as much as four. */
static uint32_t price(const struct at_node_machine *m)
{
    bool exchange = m->tiles.exchange_ms && m->now_ms < m->tiles.exchange_ms + AT_NODE_EXCHANGE_MS;
    return exchange ? AT_NODE_SERVE_BUSY : 1;
}

static void open_budgets(struct at_node_machine *m, struct at_node_link *link)
{
    struct at_node_tiles *t = &m->tiles;
    uint64_t rate = m->options.serve_bytes_per_s ? m->options.serve_bytes_per_s : AT_NODE_SERVE_BYTES_PER_S;
    if (t->out.bytes_per_s == 0) at_budget_init(&t->out, rate, rate / 4 + 1, m->now_ms);
    if (link->cold->tile_budget.bytes_per_s == 0)
        at_budget_init(&link->cold->tile_budget, t->shape_bytes / AT_NODE_PEER_STATE_S + AT_NODE_PEER_BYTES_MIN / 64,
                       2 * t->shape_bytes + AT_NODE_PEER_BYTES_MIN, m->now_ms);
}

enum at_node_serve at_node_tiles_serve(struct at_node_machine *m, struct at_node_link *link)
{
    open_budgets(m, link);
    if (!at_budget_has(&link->cold->tile_budget, m->now_ms)) return AT_NODE_SERVE_NEVER;
    if (!at_budget_has(&m->tiles.out, m->now_ms)) {
        m->tiles.out_blocked = true;
        return AT_NODE_SERVE_LATER;
    }
    return AT_NODE_SERVE_NOW;
}

/* Paid once its size is known: at most one answer to each link is read beyond the budget. */
void at_node_tiles_served(struct at_node_machine *m, struct at_node_link *link, size_t bytes)
{
    at_budget_spend(&m->tiles.out, (uint64_t)bytes * price(m));
    at_budget_spend(&link->cold->tile_budget, bytes);
}

/* Every link in turn, beginning where the budget ended last: nobody takes it all. */
static void serve_blocked(struct at_node_machine *m)
{
    struct at_node_tiles *t = &m->tiles;
    if (!t->out_blocked || !at_budget_has(&t->out, m->now_ms)) return;
    t->out_blocked = false;
    for (size_t i = 0; i < m->link_top && !t->out_blocked; i++) {
        t->turn = (uint32_t)((t->turn + 1) % m->link_top);
        if (m->links[t->turn].used) at_node_serve_next(m, &m->links[t->turn]);
    }
}

/* ---- drive ---- */
void at_node_tiles_drive(struct at_node_machine *m)
{
    struct at_node_tiles *t = &m->tiles;
    if (m->ended || !m->has_genesis) return;
    if (!t->shape_asked) at_node_op_add(m, AT_NODE_OP_STATE_SHAPE);
    t->shape_asked = true;
    serve_blocked(m);
    if (t->step == AT_NODE_TILES_RUN) {
        ask_around(m);
        want_tiles(m);
    }
    watch_hunger(m);
}

static void sooner(uint64_t *deadline, uint64_t at, uint64_t now_ms)
{
    if (at > now_ms && at < *deadline) *deadline = at;
}

uint64_t at_node_tiles_deadline_ms(const struct at_node_machine *m)
{
    const struct at_node_tiles *t = &m->tiles;
    uint64_t deadline = UINT64_MAX;
    if (t->out_blocked) sooner(&deadline, at_budget_ready_ms(&t->out, m->now_ms), m->now_ms);
    if (t->starved_ms) sooner(&deadline, t->starved_ms + AT_NODE_TILES_STARVED_MS, m->now_ms);
    if (t->starved_surely) sooner(&deadline, t->newest_ms + AT_NODE_TILES_STEADY_MS, m->now_ms);
    if (t->step != AT_NODE_TILES_RUN) return deadline;
    sooner(&deadline, at_tiles_deadline_ms(&t->pick, m->now_ms), m->now_ms);
    sooner(&deadline, at_budget_ready_ms(&t->in, m->now_ms), m->now_ms);
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (l->used && l->hello && !l->closing && !l->tiles_whole && l->tiles_asked_ms)
            sooner(&deadline, l->tiles_asked_ms + AT_NODE_TILES_POLL_MS, m->now_ms);
    }
    return deadline;
}
