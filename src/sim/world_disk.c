/* world_disk.c: a node's disk and what can happen to it, and the cheap stand-ins for states and updates. */
#include "sim/world_internal.h"

#include "base/merkle.h"

#include <stdlib.h>
#include <string.h>

void at_world_disk_release(struct at_world *w, struct at_world_disk *d)
{
    for (uint32_t i = 0; i < d->blob_count; i++)
        if (d->blobs[i].used) at_world_blob_drop(w, d, &d->blobs[i]);
    at_world_kept_cut(d, 0);
    free(d->kept);
    free(d->blobs);
    *d = (struct at_world_disk){0};
}

/* What was not durable is gone; half a blob may or may not be there. */
void at_world_disk_crash(struct at_world *w, int node)
{
    struct at_world_disk *d = &w->nodes[node].disk;
    d->written = d->durable;
    at_world_kept_cut(d, d->kept_durable);
    for (uint32_t i = 0; i < d->blob_count; i++) {
        struct at_world_blob *b = &d->blobs[i];
        if (!b->used || b->complete) continue;
        if (b->kind == AT_BLOB_STATE) { /* of its tiles some were not durable */
            for (uint32_t k = 0; k < at_world_tiles(w); k++) {
                struct at_span tile = at_world_tile(w, at_buf_span(&b->part), k);
                if (at_world_draw(w, 2)) memset(b->part.p + (tile.p - b->part.p), 0, tile.n);
            }
            continue;
        }
        b->part.n = b->part.n ? (size_t)at_world_draw(w, b->part.n + 1) : 0;
    }
}

uint64_t at_world_sync_ms(struct at_world *w, int node)
{
    uint64_t slow = w->nodes[node].knob[AT_WORLD_SYNC_MS];
    return 1 + at_world_draw(w, slow ? slow : w->options.sync_ms_max);
}

void at_world_disk_wipe(struct at_world *w, int node)
{
    at_world_disk_release(w, &w->nodes[node].disk);
    at_buf_clear(&w->nodes[node].peers);
    w->nodes[node].secret_count = 0;
    w->counts.wiped++;
}

/* An old copy of the folder: the newer half of the log is not in it, and no state. A block of several stewards was written
 * whole or not at all. */
static void fall_behind(const struct at_world *w, struct at_world_disk *d)
{
    d->durable /= 2;
    while (d->durable > w->several_from && !at_signed_record_is_unsigned(&w->log.records[d->durable])) d->durable--;
    d->written = d->durable;
    d->saved = false;
    at_world_kept_fall_behind(d);
}

/* What the driver of a real node would find when it opens the folder. Damage to whole blobs is found when they are
 * opened; then they are fetched again, as if they had never been there. */
void at_world_disk_rot(struct at_world *w, int node)
{
    struct at_world_disk *d = &w->nodes[node].disk;
    uint64_t rot = w->nodes[node].knob[AT_WORLD_DISK_ROT];
    w->nodes[node].knob[AT_WORLD_DISK_ROT] = 0;
    if (rot & AT_WORLD_ROT_STATE) d->saved = false;
    if (rot & AT_WORLD_ROT_BEHIND) fall_behind(w, d);
    if (rot & AT_WORLD_ROT_LOG) w->nodes[node].log_rots = d->durable > 0;
    for (uint32_t i = 0; i < d->blob_count && rot & AT_WORLD_ROT_PART; i++) {
        struct at_world_blob *b = &d->blobs[i];
        if (b->used && !b->complete && b->part.n > 0) b->part.p[at_world_draw(w, b->part.n)] ^= 0x55;
    }
}

void at_world_expand(struct at_hash h, uint32_t bytes, struct at_buf *out)
{
    uint8_t *p;
    at_buf_clear(out);
    if (at_buf_reserve(out, bytes, &p)) return;
    uint64_t x = at_load_le64(h.b) | 1;
    for (uint32_t i = 0; i < bytes; i++) {
        if (i < sizeof h.b) {
            p[i] = h.b[i];
            continue;
        }
        if (i % 8 == 0) { /* xorshift: only has to differ */
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        p[i] = (uint8_t)(x >> (8 * (i % 8)));
    }
    out->n = bytes;
}

static uint32_t tile_bytes(const struct at_world *w)
{
    return w->options.tile_bytes ? w->options.tile_bytes : 4096;
}

uint32_t at_world_tiles(const struct at_world *w)
{
    return (w->options.state_bytes + tile_bytes(w) - 1) / tile_bytes(w);
}

struct at_span at_world_tile(const struct at_world *w, struct at_span blob, uint32_t tile)
{
    size_t at = (size_t)tile * tile_bytes(w), left = blob.n - at;
    return at_span(blob.p + at, left < tile_bytes(w) ? left : tile_bytes(w));
}

/* Leaf 0 has the round, as that of a real state does: after a round in which nobody finished it alone is another. */
static struct at_hash leaf(const struct at_world *w, uint32_t round, struct at_span blob, uint32_t i)
{
    uint8_t shape[15] = "world state";
    at_store_le32(shape + 11, round);
    return at_merkle_leaf(i == 0 ? at_span(shape, sizeof shape) : at_world_tile(w, blob, i - 1));
}

void at_world_leaves(const struct at_world *w, uint32_t round, struct at_span blob, struct at_buf *out)
{
    at_buf_clear(out);
    for (uint32_t i = 0; i <= at_world_tiles(w); i++) {
        struct at_hash h = leaf(w, round, blob, i);
        if (at_buf_append(out, h.b, sizeof h.b)) return; /* too short: whoever compares will say so */
    }
}

struct at_hash at_world_state_root(const struct at_world *w, uint32_t round, struct at_hash h)
{
    struct at_buf blob = {0};
    struct at_merkle tree = {0};
    at_world_expand(h, w->options.state_bytes, &blob);
    for (uint32_t i = 0; i <= at_world_tiles(w); i++) at_merkle_append(&tree, leaf(w, round, at_buf_span(&blob), i));
    at_buf_release(&blob);
    return at_merkle_root(&tree);
}

void at_world_set_state(const struct at_world *w, struct at_world_node *n, uint32_t round, struct at_hash h)
{
    n->has_before = n->has_state;
    n->h_before = n->h;
    n->round_before = n->state_round;
    n->root_before = n->root;
    n->has_state = true;
    n->state_round = round;
    n->h = h;
    n->root = at_world_state_root(w, round, h);
}

struct at_hash at_world_h0(const struct at_world *w)
{
    uint8_t seed[8];
    at_store_le64(seed, w->g.train.seed);
    return at_sha256(seed, sizeof seed);
}

static bool is_same(const struct at_node_contribution *a, const struct at_node_contribution *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (a[i].replica != b[i].replica || a[i].tokens != b[i].tokens || !at_hash_eq(a[i].update, b[i].update))
            return false;
    return true;
}

/* Everybody applies the same to the same state, so the last answer is kept with all that it was made of. */
struct at_hash at_world_h_next(struct at_world *w, struct at_hash h, const struct at_node_contribution *list,
                               size_t count)
{
    struct at_world_applied *last = &w->applied;
    if (count == 0) return h;
    if (last->count == count && at_hash_eq(last->from, h) && is_same(last->list, list, count)) return last->to;
    struct at_node_contribution *copy = realloc(last->list, count * sizeof *copy);
    if (copy) {
        last->list = copy;
        last->from = h;
        memcpy(copy, list, count * sizeof *copy);
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t head[12];
        at_store_le32(head, list[i].replica);
        at_store_le64(head + 4, list[i].tokens);
        h = at_sha256_2(at_span(h.b, sizeof h.b), at_span(head, sizeof head));
        h = at_sha256_2(at_span(h.b, sizeof h.b), at_span(list[i].update.b, sizeof list[i].update.b));
    }
    last->to = h;
    last->count = copy ? count : 0;
    return h;
}

struct at_hash at_world_update_of(const struct at_world *w, struct at_hash root, uint64_t start, uint32_t samples,
                                  uint32_t stage, uint32_t stages, struct at_buf *ret_blob)
{
    uint8_t range[20];
    size_t n = stages > 1 ? sizeof range : 12;
    at_store_le64(range, start);
    at_store_le32(range + 8, samples);
    at_store_le32(range + 12, stage);
    at_store_le32(range + 16, stages);
    at_world_expand(at_sha256_2(at_span(root.b, sizeof root.b), at_span(range, n)), w->options.update_bytes, ret_blob);
    return at_sha256(ret_blob->p, ret_blob->n);
}

/* Shares are of different windows, so they differ. */
uint32_t at_world_share_loss(uint32_t round, uint32_t replica)
{
    return at_heldout_code(at_world_loss(round), 1) + replica;
}

double at_world_loss(uint32_t round)
{
    return 5.5 / (1.0 + round);
}
