/* world_heap.c: virtual time: a heap of what is due, by (time, order of making). Events lie still in chunks, the heap
 * moves 24 bytes. */
#include "sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

enum { CHUNK = 256 };

uint64_t at_world_draw(struct at_world *w, uint64_t below)
{
    struct at_philox r = at_philox(w->options.seed, AT_RNG_TEST, 1, w->draws++);
    return below ? ((uint64_t)r.v[0] << 32 | r.v[1]) % below : 0;
}

static bool before(const struct at_world_due *a, const struct at_world_due *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->seq < b->seq;
}

static void heap_up(struct at_world_due *heap, size_t i)
{
    struct at_world_due x = heap[i];
    for (; i > 0 && before(&x, &heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = x;
}

static void heap_down(struct at_world_due *heap, size_t count, struct at_world_due x)
{
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < count; i = c) {
        if (c + 1 < count && before(&heap[c + 1], &heap[c])) c++;
        if (!before(&heap[c], &x)) break;
        heap[i] = heap[c];
    }
    heap[i] = x;
}

static bool grow_heap(struct at_world *w)
{
    if (w->heap_count < w->heap_cap) return true;
    size_t cap = w->heap_cap ? 2 * w->heap_cap : 256;
    struct at_world_due *heap = realloc(w->heap, cap * sizeof *heap);
    if (!heap) return false;
    w->heap = heap;
    w->heap_cap = cap;
    return true;
}

static bool grow_events(struct at_world *w)
{
    if (w->free_events) return true;
    if (w->chunk_count == w->chunk_cap) {
        size_t cap = w->chunk_cap ? 2 * w->chunk_cap : 16;
        void **chunks = realloc(w->chunks, cap * sizeof *chunks);
        if (!chunks) return false;
        w->chunks = chunks;
        w->chunk_cap = cap;
    }
    struct at_world_event *events = malloc(CHUNK * sizeof *events);
    if (!events) return false;
    w->chunks[w->chunk_count++] = events;
    for (size_t i = 0; i < CHUNK; i++) {
        events[i].next_free = w->free_events;
        w->free_events = &events[i];
    }
    return true;
}

struct at_world_event *at_world_push(struct at_world *w, enum at_world_what what, int node, uint64_t delay_ms)
{
    if (!grow_heap(w) || !grow_events(w)) {
        at_world_violate(w, "out of memory");
        return &w->nowhere;
    }
    struct at_world_event *ev = w->free_events;
    w->free_events = ev->next_free;
    *ev = (struct at_world_event){.at_ms = w->now_ms + delay_ms,
                                  .seq = w->seq++,
                                  .what = what,
                                  .node = node,
                                  .life = node >= 0 ? w->nodes[node].life : 0};
    w->heap[w->heap_count] = (struct at_world_due){ev->at_ms, ev->seq, ev};
    heap_up(w->heap, w->heap_count++);
    return ev;
}

struct at_world_event *at_world_pop(struct at_world *w)
{
    struct at_world_event *ev = w->heap[0].event;
    w->heap_count--;
    if (w->heap_count > 0) heap_down(w->heap, w->heap_count, w->heap[w->heap_count]);
    return ev;
}

/* ---- what a message says, kept once for all who are told ---- */
static void payload_drop(struct at_world_payload *p)
{
    if (p && --p->users == 0) free(p);
}

static struct at_world_payload *payload_make(struct at_span bytes)
{
    struct at_world_payload *p = malloc(sizeof *p + bytes.n);
    if (!p) return NULL;
    p->users = 1;
    p->n = bytes.n;
    if (bytes.n) memcpy(p->bytes, bytes.p, bytes.n);
    return p;
}

static void attach(struct at_world_event *ev, struct at_world_payload *p)
{
    ev->payload = p;
    if (p) ev->e.bytes = at_span(p->bytes, p->n);
}

void at_world_payload(struct at_world_event *ev, struct at_span bytes)
{
    attach(ev, payload_make(bytes));
}

/* A machine that tells many links the same names the same bytes again; `sent` is forgotten after each of its steps. */
void at_world_payload_share(struct at_world *w, struct at_world_event *ev, struct at_span bytes)
{
    if (!w->sent_payload || w->sent.p != bytes.p || w->sent.n != bytes.n) {
        payload_drop(w->sent_payload);
        w->sent = bytes;
        w->sent_payload = payload_make(bytes);
    }
    if (w->sent_payload) w->sent_payload->users++;
    attach(ev, w->sent_payload);
}

void at_world_event_free(struct at_world *w, struct at_world_event *ev)
{
    payload_drop(ev->payload);
    ev->payload = NULL;
    ev->next_free = w->free_events;
    w->free_events = ev;
}

void at_world_heap_release(struct at_world *w)
{
    for (size_t i = 0; i < w->heap_count; i++) payload_drop(w->heap[i].event->payload);
    payload_drop(w->sent_payload);
    for (size_t i = 0; i < w->chunk_count; i++) free(w->chunks[i]);
    free(w->chunks);
    free(w->heap);
}
