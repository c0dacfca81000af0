/* world_tiles.c: what a node's driver does for states by tiles: reads them for peers, keeps those that are fetched, and
 * finds those that need not be fetched. */
#include "sim/world_internal.h"

#include "base/merkle.h"

#include <string.h>

/* The blob of the state with this root that the node holds, made anew; false: it holds none. */
static bool held(struct at_world *w, int node, struct at_hash root, struct at_buf *out, uint32_t *ret_round)
{
    const struct at_world_node *n = &w->nodes[node];
    const struct at_hash *h = NULL;
    if (n->has_before && at_hash_eq(n->root_before, root)) h = &n->h_before;
    if (n->has_state && at_hash_eq(n->root, root)) h = &n->h;
    *ret_round = h == &n->h_before ? n->round_before : n->state_round;
    if (h) at_world_expand(*h, w->options.state_bytes, out);
    return h != NULL;
}

static void read_tile(struct at_world *w, int node, const struct at_node_op *op, struct at_span blob,
                      struct at_world_event *ev)
{
    if (op->read.offset >= at_world_tiles(w)) return;
    ev->e.blob.ok = true;
    ev->e.blob.total = at_world_tiles(w);
    at_world_payload(ev, at_world_tile(w, blob, (uint32_t)op->read.offset));
    if (w->nodes[node].spoils_tiles && ev->payload) ev->payload->bytes[0] ^= 1;
    w->nodes[node].traffic.tiles_out++;
}

void at_world_state_read(struct at_world *w, int node, const struct at_node_op *op, struct at_world_event *ev)
{
    struct at_buf blob = {0}, leaves = {0};
    uint32_t round;
    bool whole = held(w, node, op->read.key, &blob, &round);
    const struct at_world_blob *part = at_world_blob_find(&w->nodes[node].disk, AT_BLOB_STATE, op->read.key);
    ev->e.blob.ok = false;
    if (op->read.kind == AT_BLOB_TILE && whole) {
        read_tile(w, node, op, at_buf_span(&blob), ev);
    } else if (op->read.kind == AT_BLOB_TILE && part) {
        read_tile(w, node, op, at_world_blob_bytes(part), ev);
    } else if (whole) {
        at_world_leaves(w, round, at_buf_span(&blob), &leaves);
        if (op->read.offset < leaves.n) {
            size_t rest = leaves.n - (size_t)op->read.offset;
            ev->e.blob.ok = true;
            ev->e.blob.total = leaves.n;
            at_world_payload(ev, at_span(leaves.p + op->read.offset, rest < op->read.bytes ? rest : op->read.bytes));
        }
    }
    at_buf_release(&blob);
    at_buf_release(&leaves);
}

void at_world_tile_write(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_blob *b = at_world_blob_find(&w->nodes[node].disk, AT_BLOB_STATE, op->read.key);
    if (!b || b->complete || op->read.offset >= at_world_tiles(w)) {
        at_world_violate(w, "node %d writes a tile of no unfinished state", node);
        return;
    }
    struct at_span place = at_world_tile(w, at_buf_span(&b->part), (uint32_t)op->read.offset);
    if (place.n != op->bytes.n)
        at_world_violate(w, "node %d writes a tile of another size", node);
    else
        memcpy(b->part.p + (place.p - b->part.p), op->bytes.p, place.n);
}

static bool is_leaf(struct at_span tile, struct at_span leaves, uint32_t i)
{
    return memcmp(at_merkle_leaf(tile).b, leaves.p + ((size_t)i + 1) * AT_HASH_BYTES, AT_HASH_BYTES) == 0;
}

void at_world_tiles_find(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_node *n = &w->nodes[node];
    struct at_world_blob *b = at_world_blob_get(w, &n->disk, AT_BLOB_STATE, op->root);
    struct at_buf mine = {0}, found = {0};
    uint8_t *p;
    if (!b || op->bytes.n != ((size_t)at_world_tiles(w) + 1) * AT_HASH_BYTES) {
        at_world_violate(w, "node %d looks for tiles with another list of leaves", node);
        return;
    }
    if (!b->complete && b->part.n < w->options.state_bytes &&
        at_buf_reserve(&b->part, w->options.state_bytes, &p) == AT_OK) {
        memset(b->part.p, 0, w->options.state_bytes);
        b->part.n = w->options.state_bytes;
    }
    if (n->has_state) at_world_expand(n->h, w->options.state_bytes, &mine);
    for (uint32_t i = 0; i < at_world_tiles(w); i++) {
        struct at_span tile = at_world_tile(w, at_world_blob_bytes(b), i), own = {0};
        if (i % 8 == 0 && at_buf_append(&found, "", 1)) break;
        bool here = is_leaf(tile, op->bytes, i);
        if (n->has_state) own = at_world_tile(w, at_buf_span(&mine), i);
        if (!here && !b->complete && own.n && is_leaf(own, op->bytes, i)) {
            memcpy(b->part.p + (tile.p - b->part.p), own.p, own.n);
            here = true;
        }
        if (here) found.p[i / 8] |= (uint8_t)(1u << i % 8);
        n->traffic.tiles_found += here;
    }
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, at_world_sync_ms(w, node));
    ev->e.kind = AT_NODE_EV_TILES_FOUND;
    ev->e.blob.key = op->root;
    ev->e.blob.ok = true;
    at_world_payload(ev, at_buf_span(&found));
    at_buf_release(&mine);
    at_buf_release(&found);
}

void at_world_count_in(struct at_world *w, int node, struct at_span message)
{
    struct at_world_traffic *t = &w->nodes[node].traffic;
    struct at_message msg;
    enum at_message_kind kind = at_world_kind_of(message);
    if (kind != AT_MSG_PIECE && kind != AT_MSG_BUNDLE) return;
    if (at_message_decode(message, &w->mem, NULL, &msg) || msg.kind != kind) return;
    if (kind == AT_MSG_BUNDLE) {
        for (uint32_t i = 0; i < msg.bundle.count; i++) t->update_bytes_in += msg.bundle.data[i].n;
    } else if (msg.piece.kind == AT_BLOB_TILE) {
        t->tiles_in++;
        t->tile_bytes_in += msg.piece.data.n;
    } else if (msg.piece.kind == AT_BLOB_UPDATE) {
        t->update_bytes_in += msg.piece.data.n;
    }
}

struct at_world_traffic at_world_traffic(const struct at_world *w, int node)
{
    return w->nodes[node].traffic;
}

void at_world_spoil_tiles(struct at_world *w, int node)
{
    w->nodes[node].spoils_tiles = true;
}
