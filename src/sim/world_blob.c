/* world_blob.c: blobs on disks. A whole blob is known by its content, and one content is kept once, however many disks
 * hold it; what is still coming in belongs to its disk alone. */
#include "sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

static uint32_t spread(const struct at_hash *key)
{
    return at_load_le32(key->b);
}

struct at_world_blob *at_world_blob_find(struct at_world_disk *d, enum at_blob_kind kind, struct at_hash key)
{
    for (uint32_t i = d->bucket[spread(&key) % AT_WORLD_BLOB_BUCKETS]; i > 0; i = d->blobs[i - 1].next) {
        struct at_world_blob *b = &d->blobs[i - 1];
        if (b->kind == kind && at_hash_eq(b->key, key)) return b;
    }
    return NULL;
}

/* A slot, from the ones that were given back or a new one. */
static struct at_world_blob *slot(struct at_world *w, struct at_world_disk *d)
{
    uint32_t max = 64 + 4 * (uint32_t)w->options.nodes;
    if (d->blob_free) {
        struct at_world_blob *b = &d->blobs[d->blob_free - 1];
        d->blob_free = b->next;
        return b;
    }
    if (d->blob_count == max) {
        at_world_violate(w, "a disk has more blobs than a node should keep");
        return NULL;
    }
    if (d->blob_count >= 16 ? (d->blob_count & (d->blob_count - 1)) == 0 : d->blob_count == 0) { /* twice the room */
        struct at_world_blob *blobs = realloc(d->blobs, (d->blob_count ? 2 * d->blob_count : 16) * sizeof *blobs);
        if (!blobs) {
            at_world_violate(w, "out of memory");
            return NULL;
        }
        d->blobs = blobs;
    }
    return &d->blobs[d->blob_count++];
}

struct at_world_blob *at_world_blob_get(struct at_world *w, struct at_world_disk *d, enum at_blob_kind kind,
                                        struct at_hash key)
{
    struct at_world_blob *b = at_world_blob_find(d, kind, key);
    if (b || !(b = slot(w, d))) return b;
    uint32_t *head = &d->bucket[spread(&key) % AT_WORLD_BLOB_BUCKETS];
    *b = (struct at_world_blob){.used = true, .kind = kind, .key = key, .next = *head};
    *head = (uint32_t)(b - d->blobs) + 1;
    return b;
}

static void let_go(struct at_world *w, struct at_world_content *c)
{
    if (--c->holders > 0) return;
    struct at_world_content **at = &w->contents[spread(&c->key) % AT_WORLD_CONTENT_BUCKETS];
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    w->counts.shared_bytes -= c->bytes.n;
    at_buf_release(&c->bytes);
    free(c);
}

void at_world_blob_drop(struct at_world *w, struct at_world_disk *d, struct at_world_blob *b)
{
    uint32_t index = (uint32_t)(b - d->blobs) + 1;
    uint32_t *at = &d->bucket[spread(&b->key) % AT_WORLD_BLOB_BUCKETS];
    while (*at != index) at = &d->blobs[*at - 1].next;
    *at = b->next;
    if (b->content) let_go(w, b->content);
    at_buf_release(&b->part);
    *b = (struct at_world_blob){.next = d->blob_free};
    d->blob_free = index;
}

struct at_span at_world_blob_bytes(const struct at_world_blob *b)
{
    return at_buf_span(b->content ? &b->content->bytes : &b->part);
}

static struct at_world_content **contents_of(struct at_world *w, const struct at_hash *key)
{
    return &w->contents[spread(key) % AT_WORLD_CONTENT_BUCKETS];
}

static struct at_world_content *content_find(struct at_world *w, const struct at_hash *key, struct at_span bytes)
{
    struct at_world_content *c = *contents_of(w, key);
    while (c && !(at_hash_eq(c->key, *key) && at_span_eq(at_buf_span(&c->bytes), bytes))) c = c->next;
    return c;
}

static void hold(struct at_world_blob *b, struct at_world_content *c)
{
    c->holders++;
    b->content = c;
    b->complete = true;
    at_buf_release(&b->part);
}

void at_world_blob_whole(struct at_world *w, struct at_world_blob *b, struct at_buf *bytes)
{
    struct at_world_content **head = contents_of(w, &b->key), *c = content_find(w, &b->key, at_buf_span(bytes));
    if (c) {
        at_buf_release(bytes);
    } else {
        if (!(c = calloc(1, sizeof *c))) {
            at_world_violate(w, "out of memory");
            at_buf_release(bytes);
            return;
        }
        *c = (struct at_world_content){.key = b->key, .bytes = *bytes, .next = *head};
        *bytes = (struct at_buf){0};
        *head = c;
        w->counts.shared_bytes += c->bytes.n;
    }
    hold(b, c);
}

/* ---- many at once ---- */
void at_world_bundle_ask(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_event *ev = at_world_push(w, AT_WORLD_BUNDLE_READ, node, at_world_draw(w, 2));
    ev->id = op->link;
    ev->arg = op->bundle.bytes_max;
    at_world_payload(ev, at_span(op->bundle.keys[0].b, op->bundle.count * sizeof *op->bundle.keys));
}

void at_world_bundle_read(struct at_world *w, const struct at_world_event *ev)
{
    struct at_span data[AT_BUNDLE_MAX] = {{0}};
    struct at_node_event e = {.kind = AT_NODE_EV_BUNDLE_DATA, .link = ev->id};
    uint32_t count = (uint32_t)(ev->e.bytes.n / sizeof(struct at_hash)), i = 0;
    for (size_t left = ev->arg; i < count; i++) {
        struct at_hash key;
        memcpy(key.b, ev->e.bytes.p + i * sizeof key.b, sizeof key.b);
        const struct at_world_blob *b = at_world_blob_find(&w->nodes[ev->node].disk, AT_BLOB_UPDATE, key);
        if (!b || !b->complete || at_world_blob_bytes(b).n > ev->arg) continue;
        if (at_world_blob_bytes(b).n > left) break;
        data[i] = at_world_blob_bytes(b);
        left -= data[i].n;
    }
    e.bundle.data = data;
    e.bundle.count = i;
    at_world_step_node(w, ev->node, &e);
}

void at_world_bundle_stat(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, 0);
    ev->e.kind = AT_NODE_EV_BUNDLE_STATE;
    ev->e.bundle.count = op->bundle.count;
    for (uint32_t i = 0; i < op->bundle.count; i++) {
        const struct at_world_blob *b = at_world_blob_find(&w->nodes[node].disk, AT_BLOB_UPDATE, op->bundle.keys[i]);
        if (b && b->complete) ev->e.bundle.ok |= 1u << i;
    }
}

/* False: these are not its bytes. What another disk holds under this key was hashed when it came there first. */
static bool update_write(struct at_world *w, int node, struct at_hash key, struct at_span data)
{
    struct at_world_content *c = content_find(w, &key, data);
    if (!c && !at_hash_eq(at_sha256(data.p, data.n), key)) return false;
    struct at_world_blob *b = at_world_blob_get(w, &w->nodes[node].disk, AT_BLOB_UPDATE, key);
    struct at_buf bytes = {0};
    if (!b) return false;
    if (b->complete)
        at_world_violate(w, "node %d writes an update that it has", node);
    else if (c)
        hold(b, c);
    else if (at_buf_append(&bytes, data.p, data.n))
        at_world_violate(w, "out of memory");
    else
        at_world_blob_whole(w, b, &bytes);
    return true;
}

/* Durable before BUNDLE_STORED is told, as in BLOB_FINISH. */
void at_world_bundle_write(struct at_world *w, int node, const struct at_node_op *op)
{
    struct at_world_event *ev = at_world_push(w, AT_WORLD_DELIVER, node, at_world_sync_ms(w, node));
    ev->e.kind = AT_NODE_EV_BUNDLE_STORED;
    ev->e.bundle.count = op->bundle.count;
    at_world_payload(ev, at_span(op->bundle.keys[0].b, op->bundle.count * sizeof *op->bundle.keys));
    for (uint32_t i = 0; i < op->bundle.count && !w->violated; i++)
        if (update_write(w, node, op->bundle.keys[i], op->bundle.data[i])) ev->e.bundle.ok |= 1u << i;
}
