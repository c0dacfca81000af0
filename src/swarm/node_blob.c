/* node_blob.c: blobs by content: serving pieces, and fetching whole ones from whoever has them.
 *
 *   state of a fetch   event                   does                                                     next
 *   (none)             wanted                  asks the driver what is there (BLOB_STAT)                STAT
 *   STAT               complete                done                                                     (none)
 *   STAT               BLOB_STATE              goes on behind what is there                             WAIT
 *   WAIT               a peer is linked        wants the first pieces from it                           RUN
 *   RUN                the piece that is due   BLOB_WRITE, wants the next                               RUN
 *   RUN                the last piece          BLOB_FINISH                                              CHECK
 *   RUN                Missing, link down      tries the next peer; after all of them: waits a little   WAIT
 *   RUN                wrong size or place     Bye, closes the link                                     WAIT
 *   CHECK              BLOB_STORED ok          done                                                     (none)
 *   CHECK              BLOB_STORED not ok      drops it, tries another peer                             WAIT
 *
 * A genesis is fetched before anything else, into memory, and checked here; so are the hashes of a state's leaves
 * (node_tiles.c, where tiles go too). What a peer sends is bounded before it is kept: by the exact size where a record
 * or the genesis says it, else by the largest that can be.
 *
 * A peer's wants are served in order, but for those of a state: they wait for all others, and for the budget. So an
 * exchange of updates waits for no more than the tiles that were given to the link before. */
#include "swarm/node_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- serving ---- */
static void send_missing(struct at_node_machine *m, uint64_t link, const struct at_node_want *want)
{
    struct at_message msg = {.kind = AT_MSG_MISSING};
    msg.missing.kind = want->kind;
    msg.missing.key = want->key;
    msg.missing.offset = want->offset;
    at_node_send(m, link, &msg);
}

static void send_piece(struct at_node_machine *m, uint64_t link, const struct at_node_want *want, uint64_t total,
                       struct at_span data)
{
    struct at_message msg = {.kind = AT_MSG_PIECE};
    msg.piece = (struct at_msg_piece){
        .kind = want->kind, .key = want->key, .offset = want->offset, .total = total, .data = data};
    at_node_send(m, link, &msg);
    /* A genesis is a few KiB from memory: it need not wait for room, and LINK_FULL always means the blob read last. */
    if (want->kind == AT_BLOB_GENESIS) m->ops[m->op_count - 1].frame_class = AT_FRAME_CONTROL;
}

static void serve_genesis(struct at_node_machine *m, struct at_node_link *link, const struct at_node_want *want)
{
    uint64_t total = m->genesis_bytes.n;
    if (!m->has_genesis || want->offset >= total || !at_hash_eq(want->key, m->options.run)) {
        send_missing(m, link->id, want);
        return;
    }
    uint64_t n = total - want->offset < want->bytes ? total - want->offset : want->bytes;
    send_piece(m, link->id, want, total, at_span(m->genesis_bytes.p + want->offset, (size_t)n));
}

static void want_back(struct at_node_link *link, const struct at_node_want *want)
{
    AT_ASSERT(link->want_count < AT_NODE_WANTS_ROOM);
    memmove(&link->want[1], &link->want[0], link->want_count * sizeof link->want[0]);
    link->want[0] = *want;
    link->want_count++;
}

static bool is_of_state(enum at_blob_kind kind)
{
    return kind == AT_BLOB_LEAVES || kind == AT_BLOB_TILE;
}

static void want_remove(struct at_node_link *link, uint32_t k)
{
    link->want_count--;
    memmove(&link->want[k], &link->want[k + 1], (link->want_count - k) * sizeof link->want[0]);
}

/* The next want to be served: the first that is not of a state, else the first, if the budget allows it. */
static bool want_take(struct at_node_machine *m, struct at_node_link *link, struct at_node_want *ret_want)
{
    uint32_t k = 0;
    while (k < link->want_count && is_of_state(link->want[k].kind)) k++;
    if (k == link->want_count) k = 0;
    while (k < link->want_count) {
        struct at_node_want want = link->want[k];
        enum at_node_serve may = is_of_state(want.kind) ? at_node_tiles_serve(m, link) : AT_NODE_SERVE_NOW;
        if (may == AT_NODE_SERVE_LATER) return false;
        want_remove(link, k);
        *ret_want = want;
        if (may == AT_NODE_SERVE_NOW) return true;
        send_missing(m, link->id, &want); /* it has taken more than its share: let it ask others */
    }
    return false;
}

void at_node_serve_next(struct at_node_machine *m, struct at_node_link *link)
{
    struct at_node_want want;
    while (!link->want_reading && !link->full && !link->closing && want_take(m, link, &want)) {
        if (want.kind == AT_BLOB_GENESIS) {
            serve_genesis(m, link, &want);
            continue;
        }
        link->want_reading = true;
        link->reading = want;
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_READ);
        op->link = link->id;
        op->read.kind = want.kind;
        op->read.key = want.key;
        op->read.offset = want.offset;
        op->read.bytes = want.bytes;
    }
}

void at_node_want(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_want *want)
{
    if (link->want_count >= AT_NODE_WANTS_MAX) {
        at_node_link_refuse(m, link, "too many wants at once");
        return;
    }
    if (want->kind == AT_BLOB_UPDATE) m->tiles.exchange_ms = m->now_ms;
    link->want[link->want_count++] =
        (struct at_node_want){.kind = want->kind, .key = want->key, .offset = want->offset, .bytes = want->bytes};
    at_node_serve_next(m, link);
}

void at_node_blob_data(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = at_node_link_find(m, e->link);
    if (!link || !link->want_reading) return;
    bool drop = link->want_drop || link->closing;
    link->want_reading = link->want_drop = false;
    if (drop) {
        at_node_serve_next(m, link);
        return;
    }
    const struct at_node_want *want = &link->reading;
    link->answered = *want;
    bool fits = e->blob.ok && e->bytes.n > 0 && e->bytes.n <= want->bytes;
    if (want->kind == AT_BLOB_TILE)
        fits = fits && want->offset < e->blob.total;
    else
        fits = fits && e->blob.total >= e->bytes.n && want->offset <= e->blob.total - e->bytes.n;
    if (is_of_state(want->kind) && fits) at_node_tiles_served(m, link, e->bytes.n);
    if (fits)
        send_piece(m, link->id, want, e->blob.total, e->bytes);
    else
        send_missing(m, link->id, want);
    at_node_serve_next(m, link);
}

/* room false: the piece just sent was not taken. It is read and sent again once there is room, before what
 * follows it. */
void at_node_link_room(struct at_node_machine *m, struct at_node_link *link, bool room)
{
    if (!link || link->closing) return;
    if (!room && !link->full) {
        if (link->want_reading && !link->want_drop) want_back(link, &link->reading);
        link->want_drop = link->want_reading;
        want_back(link, &link->answered);
    }
    link->full = !room;
    at_node_serve_next(m, link);
}

/* ---- fetching ---- */
struct at_node_fetch *at_node_fetch_find(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key)
{
    for (size_t i = 0; i < AT_NODE_FETCHES_MAX; i++) {
        struct at_node_fetch *f = &m->fetches[i];
        if (f->state != AT_FETCH_NONE && f->kind == kind && at_hash_eq(f->key, key)) return f;
    }
    return NULL;
}

/* Fetched into memory, from one peer at a time, whose doing it then is when it is wrong. */
static bool in_memory(enum at_blob_kind kind)
{
    return kind == AT_BLOB_GENESIS || kind == AT_BLOB_LEAVES;
}

void at_node_fetch_cancel(struct at_node_machine *m, struct at_node_fetch *fetch)
{
    if (!fetch) return;
    if (fetch->kind == AT_BLOB_UPDATE && fetch->state != AT_FETCH_CHECK) { /* nobody would ever go on with it */
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_DROP);
        op->read.kind = fetch->kind;
        op->read.key = fetch->key;
    }
    fetch->state = AT_FETCH_NONE;
}

struct at_node_fetch *at_node_fetch(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key,
                                    uint64_t bytes_max, uint64_t bytes_exact, uint64_t only_link)
{
    struct at_node_fetch *f = at_node_fetch_find(m, kind, key);
    for (size_t i = 0; !f && i < AT_NODE_FETCHES_MAX; i++)
        if (m->fetches[i].state == AT_FETCH_NONE) {
            f = &m->fetches[i];
            *f = (struct at_node_fetch){.state = in_memory(kind) ? AT_FETCH_WAIT : AT_FETCH_STAT,
                                        .kind = kind,
                                        .key = key,
                                        .bytes_max = bytes_max,
                                        .bytes_exact = bytes_exact,
                                        .moved_ms = m->now_ms};
            if (in_memory(kind)) break;
            struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_STAT);
            op->read.kind = kind;
            op->read.key = key;
        }
    if (f) f->only_link = only_link;
    return f;
}

void at_node_blob_state(struct at_node_machine *m, const struct at_node_event *e)
{
    if (e->blob.kind == AT_BLOB_STATE) {
        at_node_tiles_stat(m, e);
        return;
    }
    struct at_node_fetch *f = at_node_fetch_find(m, e->blob.kind, e->blob.key);
    if (!f || f->state != AT_FETCH_STAT) return;
    if (e->blob.complete) {
        f->state = AT_FETCH_NONE;
        at_node_fetched(m, f->kind, f->key);
        return;
    }
    f->state = AT_FETCH_WAIT;
    f->moved_ms = m->now_ms;
    f->written = e->blob.bytes_have;
    /* A rest that cannot be the beginning of this blob: from the start. The driver overwrites. */
    if (f->written >= (f->bytes_exact ? f->bytes_exact : f->bytes_max)) f->written = 0;
}

static void want_pieces(struct at_node_machine *m, struct at_node_fetch *f)
{
    struct at_node_link *link = at_node_link_find(m, f->link);
    uint64_t total = f->total ? f->total : f->bytes_exact;
    AT_ASSERT(link);
    while (f->asked - f->written < (uint64_t)AT_NODE_WINDOW_PIECES * AT_PIECE_BYTES_MAX) {
        if (total == 0 && f->asked > f->written) break; /* the first answer says how long it is */
        if (total && f->asked >= total) break;
        struct at_message msg = {.kind = AT_MSG_WANT};
        msg.want.kind = f->kind;
        msg.want.key = f->key;
        msg.want.offset = f->asked;
        msg.want.bytes =
            total && total - f->asked < AT_PIECE_BYTES_MAX ? (uint32_t)(total - f->asked) : AT_PIECE_BYTES_MAX;
        at_node_send(m, f->link, &msg);
        if (link->wants_out++ == 0) link->answer_ms = m->now_ms;
        f->asked += msg.want.bytes;
    }
}

/* The open peer whose id follows the one asked last: all are tried in turn. */
static struct at_node_link *next_peer(struct at_node_machine *m, const struct at_node_fetch *f)
{
    struct at_node_link *best = NULL, *first = NULL;
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++) {
        struct at_node_link *l = &m->links[i];
        if (!l->used || !l->hello || l->closing || (f->only_link && l->id != f->only_link)) continue;
        if (l->wants_out > AT_NODE_PIECES_MAX - AT_NODE_WINDOW_PIECES) continue; /* as many as it takes at once */
        if (!first || l->id < first->id) first = l;
        if (l->id > f->last_link && (!best || l->id < best->id)) best = l;
    }
    return best ? best : first;
}

static void fetch_start(struct at_node_machine *m, struct at_node_fetch *f)
{
    struct at_node_link *link = next_peer(m, f);
    if (!link) return;
    f->state = AT_FETCH_RUN;
    f->link = f->last_link = link->id;
    f->asked = f->written;
    f->moved_ms = m->now_ms;
    want_pieces(m, f);
}

static void fetch_wait(struct at_node_machine *m, struct at_node_fetch *f, uint32_t wait_ms)
{
    f->state = AT_FETCH_WAIT;
    f->link = 0;
    f->total = 0;
    if (in_memory(f->kind)) f->written = 0;
    f->moved_ms = m->now_ms + wait_ms;
}

/* All have been asked: again soon at first, since it may be on its way to one of them. */
static void fetch_turn(struct at_node_machine *m, struct at_node_fetch *f)
{
    fetch_wait(m, f, f->turns < 3 ? AT_NODE_FETCH_RETRY_MS >> (3 - f->turns) : AT_NODE_FETCH_RETRY_MS);
    f->turns++;
}

static void genesis_complete(struct at_node_machine *m, struct at_node_fetch *f)
{
    struct at_diag diag = {0};
    struct at_node_link *link = at_node_link_find(m, f->link);
    f->state = AT_FETCH_NONE;
    if (!at_hash_eq(at_genesis_run_id(at_buf_span(&m->genesis_bytes)), m->options.run)) {
        at_buf_clear(&m->genesis_bytes);
        if (link) at_node_link_refuse(m, link, "this genesis is not the run's");
        return;
    }
    at_err_t err = at_genesis_decode(at_buf_span(&m->genesis_bytes), &diag, &m->genesis);
    if (!err) err = at_ledger_init(&m->ledger, &m->genesis, &diag);
    if (err) {
        at_node_end(m, err, "the run's genesis cannot be used: %s: %s", diag.where, diag.text);
        return;
    }
    m->has_genesis = true;
    at_node_log_start(m);
    at_node_op_add(m, AT_NODE_OP_GENESIS)->bytes = at_buf_span(&m->genesis_bytes);
    at_node_note(m, "fetched the genesis");
}

static bool piece_keep(struct at_node_machine *m, struct at_node_fetch *f, const struct at_msg_piece *piece)
{
    if (f->kind == AT_BLOB_GENESIS) {
        if (piece->offset == 0) at_buf_clear(&m->genesis_bytes);
        return at_buf_append(&m->genesis_bytes, piece->data.p, piece->data.n) == AT_OK;
    }
    if (f->kind == AT_BLOB_LEAVES) {
        if (piece->offset == 0) at_buf_clear(&m->tiles.leaves);
        return at_buf_append(&m->tiles.leaves, piece->data.p, piece->data.n) == AT_OK;
    }
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_WRITE);
    op->read.kind = f->kind;
    op->read.key = f->key;
    op->read.offset = piece->offset;
    op->read.total = piece->total;
    op->bytes = piece->data;
    return true;
}

static const char *piece_fault(const struct at_node_fetch *f, const struct at_msg_piece *piece)
{
    uint64_t due = f->written + AT_PIECE_BYTES_MAX < piece->total ? AT_PIECE_BYTES_MAX : piece->total - f->written;
    if (piece->total > f->bytes_max) return "the blob is larger than it can be";
    if (f->bytes_exact && piece->total != f->bytes_exact) return "the blob has another size than was said";
    if (f->total && piece->total != f->total) return "the blob changes its size";
    if (piece->offset != f->written || piece->data.n == 0 || piece->data.n != due) return "a piece that is not due";
    return NULL;
}

void at_node_piece(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_piece *piece)
{
    if (link->wants_out == 0) {
        at_node_link_refuse(m, link, "a piece that nobody asked for");
        return;
    }
    link->wants_out--;
    link->answer_ms = m->now_ms;
    if (piece->kind == AT_BLOB_TILE) {
        at_node_tiles_piece(m, link, piece);
        return;
    }
    struct at_node_fetch *f = at_node_fetch_find(m, piece->kind, piece->key);
    if (!f || f->state != AT_FETCH_RUN || f->link != link->id) return; /* given up meanwhile */
    const char *fault = piece_fault(f, piece);
    if (fault || !piece_keep(m, f, piece)) {
        at_node_link_refuse(m, link, fault ? fault : "out of memory");
        return;
    }
    f->total = piece->total;
    f->written += piece->data.n;
    f->moved_ms = m->now_ms;
    f->misses = 0;
    if (f->kind == AT_BLOB_UPDATE) m->tiles.exchange_ms = m->now_ms;
    if (f->written < f->total) {
        if (f->asked < f->written) f->asked = f->written;
        want_pieces(m, f);
    } else if (f->kind == AT_BLOB_GENESIS) {
        genesis_complete(m, f);
    } else if (f->kind == AT_BLOB_LEAVES) {
        f->state = AT_FETCH_NONE;
        at_node_tiles_leaves(m, link);
    } else {
        f->state = AT_FETCH_CHECK;
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_FINISH);
        op->read.kind = f->kind;
        op->read.key = f->key;
        op->read.total = f->total;
    }
}

void at_node_missing(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_missing *missing)
{
    if (link->wants_out == 0) {
        at_node_link_refuse(m, link, "an answer to nothing");
        return;
    }
    link->wants_out--;
    link->answer_ms = m->now_ms;
    if (missing->kind == AT_BLOB_TILE) {
        at_node_tiles_missing(m, link, missing);
        return;
    }
    struct at_node_fetch *f = at_node_fetch_find(m, missing->kind, missing->key);
    if (!f || f->state != AT_FETCH_RUN || f->link != link->id) return;
    if (++f->misses % 4 == 0) f->written = 0; /* perhaps the rest that we kept is longer than the blob */
    struct at_node_link *next = next_peer(m, f);
    if (!next || next->id <= f->last_link)
        fetch_turn(m, f);
    else
        fetch_wait(m, f, 0);
}

void at_node_blob_stored(struct at_node_machine *m, const struct at_node_event *e)
{
    if (e->blob.kind == AT_BLOB_STATE) {
        at_node_tiles_stored(m, e);
        return;
    }
    struct at_node_fetch *f = at_node_fetch_find(m, e->blob.kind, e->blob.key);
    if (!f || f->state != AT_FETCH_CHECK) return;
    if (e->blob.ok) {
        f->state = AT_FETCH_NONE;
        at_node_fetched(m, f->kind, f->key);
        return;
    }
    /* The pieces are not what the key says. Some may be a rest of an earlier fetch, so nobody is blamed: once more. */
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_DROP);
    op->read.kind = f->kind;
    op->read.key = f->key;
    f->written = 0;
    f->misses++;
    f->turns++;
    at_node_note(m, "a blob was not what its hash says; it is fetched again");
    fetch_wait(m, f, AT_NODE_FETCH_RETRY_MS);
}

void at_node_blob_link_down(struct at_node_machine *m, uint64_t link)
{
    at_node_tiles_link_down(m, link);
    for (size_t i = 0; i < AT_NODE_FETCHES_MAX; i++) {
        struct at_node_fetch *f = &m->fetches[i];
        if (f->state == AT_FETCH_RUN && f->link == link) fetch_wait(m, f, 0);
        if (f->state == AT_FETCH_WAIT && f->kind == AT_BLOB_GENESIS) f->written = 0;
    }
}

void at_node_blob_drive(struct at_node_machine *m)
{
    if (!m->has_genesis && at_node_linked(m) && !at_node_fetch_find(m, AT_BLOB_GENESIS, m->options.run))
        at_node_fetch(m, AT_BLOB_GENESIS, m->options.run, AT_GENESIS_BYTES_MAX, 0, 0);
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++) {
        struct at_node_link *l = &m->links[i];
        if (l->used && !l->closing && l->wants_out > 0 && m->now_ms >= l->answer_ms + AT_NODE_FETCH_STALL_MS)
            at_node_link_refuse(m, l, "the pieces that were asked for do not come");
    }
    for (size_t i = 0; i < AT_NODE_FETCHES_MAX; i++) {
        struct at_node_fetch *f = &m->fetches[i];
        if (f->state == AT_FETCH_WAIT && m->now_ms >= f->moved_ms) fetch_start(m, f);
    }
}

uint64_t at_node_fetch_deadline_ms(const struct at_node_machine *m)
{
    uint64_t deadline = UINT64_MAX;
    for (size_t i = 0; i < AT_NODE_LINKS_MAX; i++) {
        const struct at_node_link *l = &m->links[i];
        if (l->used && !l->closing && l->wants_out > 0 && l->answer_ms + AT_NODE_FETCH_STALL_MS < deadline)
            deadline = l->answer_ms + AT_NODE_FETCH_STALL_MS;
    }
    for (size_t i = 0; i < AT_NODE_FETCHES_MAX; i++) {
        const struct at_node_fetch *f = &m->fetches[i];
        if (f->state == AT_FETCH_WAIT && f->moved_ms > m->now_ms && f->moved_ms < deadline) deadline = f->moved_ms;
    }
    return deadline;
}

void at_node_fetched(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key)
{
    if (kind == AT_BLOB_SHARD) {
        if (m->shard_next < m->genesis.shard_count && at_hash_eq(m->genesis.shards[m->shard_next].hash, key))
            m->shard_next++;
        return;
    }
    if (kind == AT_BLOB_UPDATE) at_node_relay_fetched(m, key);
    if (kind == AT_BLOB_UPDATE) at_node_hold_fetched(m, key);
    at_node_state_fetched(m, kind, key);
}
