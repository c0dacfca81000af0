/* node_serve.c: blobs for peers: their wants, in order; those for a state wait for all others, and for the budget
 * (node_tiles.c). So an exchange of updates waits for no more than the tiles that were given to the link before. */
#include "swarm/node_internal.h"

#include <string.h>

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
    if (want->kind == AT_BLOB_GENESIS) m->scratch->ops[m->op_count - 1].frame_class = AT_FRAME_CONTROL;
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

void at_node_serve_first(struct at_node_link *link, const struct at_node_want *want)
{
    AT_ASSERT(link->cold->want_count < AT_NODE_WANTS_ROOM);
    memmove(&link->cold->want[1], &link->cold->want[0], link->cold->want_count * sizeof link->cold->want[0]);
    link->cold->want[0] = *want;
    link->cold->want_count++;
}

static bool is_of_state(enum at_blob_kind kind)
{
    return kind == AT_BLOB_LEAVES || kind == AT_BLOB_TILE;
}

static void want_remove(struct at_node_link *link, uint32_t k)
{
    link->cold->want_count--;
    memmove(&link->cold->want[k], &link->cold->want[k + 1], (link->cold->want_count - k) * sizeof link->cold->want[0]);
}

/* The next want to be served: the first that is not of a state, else the first, if the budget allows it. */
static bool want_take(struct at_node_machine *m, struct at_node_link *link, struct at_node_want *ret_want)
{
    uint32_t k = 0;
    while (k < link->cold->want_count && is_of_state(link->cold->want[k].kind)) k++;
    if (k == link->cold->want_count) k = 0;
    while (k < link->cold->want_count) {
        struct at_node_want want = link->cold->want[k];
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
    while (!link->cold->want_reading && !link->cold->full && !link->closing && want_take(m, link, &want)) {
        if (want.kind == AT_BLOB_GENESIS) {
            serve_genesis(m, link, &want);
            continue;
        }
        link->cold->want_reading = true;
        link->cold->reading = want;
        if (want.bytes == 0) {
            at_node_bundle_read(m, link);
            continue;
        }
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
    if (link->cold->want_count >= AT_NODE_WANTS_MAX) {
        at_node_link_refuse(m, link, "too many wants at once");
        return;
    }
    if (want->kind == AT_BLOB_UPDATE) m->tiles.exchange_ms = m->now_ms;
    link->cold->want[link->cold->want_count++] =
        (struct at_node_want){.kind = want->kind, .key = want->key, .offset = want->offset, .bytes = want->bytes};
    at_node_serve_next(m, link);
    if (!m->tiles.out_blocked) at_node_quiet(m);
}

void at_node_blob_data(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = at_node_link_find(m, e->link);
    if (!link || !link->cold->want_reading) return;
    bool drop = link->cold->want_drop || link->closing;
    link->cold->want_reading = link->cold->want_drop = false;
    if (drop) {
        at_node_serve_next(m, link);
        return;
    }
    const struct at_node_want *want = &link->cold->reading;
    link->cold->answered = *want;
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
    if (!m->tiles.out_blocked) at_node_quiet(m);
}

/* room false: the piece just sent was not taken. It is read and sent again once there is room, before what
 * follows it. */
void at_node_link_room(struct at_node_machine *m, struct at_node_link *link, bool room)
{
    if (!link || link->closing) return;
    if (!room && !link->cold->full) {
        bool next = link->cold->want_reading && !link->cold->want_drop, bundle = link->cold->answered.bytes == 0;
        if (next) at_node_serve_first(link, &link->cold->reading);
        link->cold->want_drop = link->cold->want_reading;
        if (bundle) link->cold->bundle_at = link->cold->bundle_before;
        if (!bundle || !next || link->cold->reading.bytes > 0) at_node_serve_first(link, &link->cold->answered);
    }
    link->cold->full = !room;
    at_node_serve_next(m, link);
}
