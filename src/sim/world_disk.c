/* world_disk.c: a node's disk, and the cheap stand-ins for states and updates. */
#include "sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

at_err at_world_disk_init(struct at_world_disk *d)
{
    d->records = calloc(AT_WORLD_LOG_MAX, sizeof *d->records);
    d->checkpoints = calloc(AT_WORLD_LOG_MAX, sizeof *d->checkpoints);
    return d->records && d->checkpoints ? AT_OK : AT_E_NOMEM;
}

void at_world_disk_release(struct at_world_disk *d)
{
    free(d->records);
    free(d->checkpoints);
    for (size_t i = 0; i < AT_WORLD_BLOBS_MAX; i++) at_buf_release(&d->blobs[i].bytes);
}

/* What was not durable is gone; half a blob may or may not be there. */
void at_world_disk_crash(struct at_world *w, struct at_world_disk *d)
{
    for (size_t i = d->durable; i < d->written; i++) d->checkpoints[i].size = 0;
    d->written = d->durable;
    for (size_t i = 0; i < AT_WORLD_BLOBS_MAX; i++) {
        struct at_world_blob *b = &d->blobs[i];
        if (!b->used || b->complete) continue;
        b->bytes.n = b->bytes.n ? (size_t)at_world_draw(w, b->bytes.n + 1) : 0;
    }
}

struct at_world_blob *at_world_blob_find(struct at_world_disk *d, enum at_blob_kind kind, struct at_hash key)
{
    for (size_t i = 0; i < AT_WORLD_BLOBS_MAX; i++) {
        struct at_world_blob *b = &d->blobs[i];
        if (b->used && b->kind == kind && at_hash_eq(b->key, key)) return b;
    }
    return NULL;
}

struct at_world_blob *at_world_blob_get(struct at_world *w, struct at_world_disk *d, enum at_blob_kind kind,
                                        struct at_hash key)
{
    struct at_world_blob *b = at_world_blob_find(d, kind, key);
    for (size_t i = 0; !b && i < AT_WORLD_BLOBS_MAX; i++)
        if (!d->blobs[i].used) {
            b = &d->blobs[i];
            b->used = true;
            b->complete = false;
            b->kind = kind;
            b->key = key;
            at_buf_clear(&b->bytes);
        }
    if (!b) at_world_violate(w, "a disk has more blobs than a node should keep");
    return b;
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

struct at_hash at_world_state_root(const struct at_world *w, struct at_hash h)
{
    struct at_buf blob = {0};
    at_world_expand(h, w->options.state_bytes, &blob);
    struct at_hash root = at_sha256(blob.p, blob.n);
    at_buf_release(&blob);
    return root;
}

struct at_hash at_world_h0(const struct at_world *w)
{
    uint8_t seed[8];
    at_store_le64(seed, w->g.train.seed);
    return at_sha256(seed, sizeof seed);
}

struct at_hash at_world_h_next(struct at_hash h, const struct at_node_contribution *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t head[12];
        at_store_le32(head, list[i].replica);
        at_store_le64(head + 4, list[i].tokens);
        h = at_sha256_2(at_span(h.b, sizeof h.b), at_span(head, sizeof head));
        h = at_sha256_2(at_span(h.b, sizeof h.b), at_span(list[i].update.b, sizeof list[i].update.b));
    }
    return h;
}

struct at_hash at_world_update_of(const struct at_world *w, struct at_hash root, uint64_t start, uint32_t samples,
                                  struct at_buf *ret_blob)
{
    uint8_t range[12];
    at_store_le64(range, start);
    at_store_le32(range + 8, samples);
    at_world_expand(at_sha256_2(at_span(root.b, sizeof root.b), at_span(range, sizeof range)), w->options.update_bytes,
                    ret_blob);
    return at_sha256(ret_blob->p, ret_blob->n);
}

double at_world_loss(uint32_t round)
{
    return 5.5 / (1.0 + round);
}
