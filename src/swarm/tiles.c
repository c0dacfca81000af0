#include "swarm/tiles.h"

#include "base/merkle.h"

#include <stdlib.h>
#include <string.h>

#define COPIES_HAVE  255
#define WINDOW_FIRST 4

static bool bit(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}
static size_t map_bytes(uint32_t tiles)
{
    return ((size_t)tiles + 7) / 8;
}

/* ---- birth ---- */
at_err at_tiles_start(struct at_tiles *t, struct at_span leaves, uint32_t tiles, uint64_t seed)
{
    size_t maps = map_bytes(tiles) * (AT_TILES_PEERS_MAX + 1);
    AT_ASSERT(tiles > 0 && !t->block && leaves.n == (size_t)tiles * AT_HASH_BYTES);
    uint8_t *p = calloc(1, (size_t)tiles * (sizeof *t->leaf + sizeof *t->order + 2) + maps);
    if (!p) return AT_E_NOMEM;
    *t = (struct at_tiles){.tiles = tiles, .missing = tiles, .free = tiles, .block = p, .stale = true};
    t->offset = (uint32_t)(seed % tiles);
    t->again_left = tiles / 8 + 16;
    t->order = (uint32_t *)p; /* first: what follows it needs no alignment */
    p += (size_t)tiles * sizeof *t->order;
    t->leaf = (struct at_hash *)p;
    p += (size_t)tiles * sizeof *t->leaf;
    for (uint32_t i = 0; i < tiles; i++) memcpy(t->leaf[i].b, leaves.p + (size_t)i * AT_HASH_BYTES, AT_HASH_BYTES);
    t->copies = p;
    t->held_by = p + tiles;
    t->have = p + 2 * (size_t)tiles;
    for (size_t i = 0; i < AT_TILES_PEERS_MAX; i++) t->peer[i].bits = t->have + (i + 1) * map_bytes(tiles);
    return AT_OK;
}

void at_tiles_release(struct at_tiles *t)
{
    free(t->block);
    *t = (struct at_tiles){0};
}

static void set_here(struct at_tiles *t, uint32_t tile)
{
    if (t->copies[tile] == 0) t->free--;
    t->copies[tile] = COPIES_HAVE;
    t->have[tile / 8] |= (uint8_t)(1u << tile % 8);
    t->missing--;
}

void at_tiles_found(struct at_tiles *t, uint32_t tile)
{
    if (!at_tiles_has(t, tile)) set_here(t, tile);
}

bool at_tiles_has(const struct at_tiles *t, uint32_t tile)
{
    return t->copies[tile] == COPIES_HAVE;
}

struct at_span at_tiles_map(const struct at_tiles *t)
{
    size_t n = map_bytes(t->tiles);
    while (n > 0 && t->have[n - 1] == 0) n--;
    return at_span(t->have, n);
}

/* ---- peers ---- */
static struct at_tiles_peer *find(struct at_tiles *t, uint64_t id)
{
    for (size_t i = 0; i < AT_TILES_PEERS_MAX; i++)
        if (t->peer[i].id == id) return &t->peer[i];
    return NULL;
}

static bool holds(const struct at_tiles_peer *p, uint32_t tile)
{
    return p->whole || bit(p->bits, tile);
}

static void count_holder(struct at_tiles *t, const struct at_tiles_peer *p, int by)
{
    for (uint32_t i = 0; i < t->tiles; i++)
        if (holds(p, i)) t->held_by[i] = (uint8_t)(t->held_by[i] + by);
    t->stale = true;
}

/* One that was asked and will not come any more, or not soon. */
static void give_back(struct at_tiles *t, uint32_t tile)
{
    if (t->copies[tile] == COPIES_HAVE || --t->copies[tile] > 0) return;
    t->free++;
    for (size_t i = 0; i < AT_TILES_PEERS_MAX; i++) t->peer[i].cursor = 0;
}

static void settle(struct at_tiles *t, struct at_tiles_peer *p, struct at_tiles_ask *ask)
{
    if (ask->late)
        p->late--;
    else
        give_back(t, ask->tile);
    ask->used = ask->late = false;
    p->owes--;
}

bool at_tiles_peer_holds(struct at_tiles *t, uint64_t id, bool whole, struct at_span bits)
{
    struct at_tiles_peer *p = find(t, id);
    if (!p) {
        if (!(p = find(t, 0))) return false;
        p->id = id;
        p->window = WINDOW_FIRST;
    } else {
        count_holder(t, p, -1);
    }
    p->whole = whole;
    memset(p->bits, 0, map_bytes(t->tiles));
    if (!whole && bits.n > 0) memcpy(p->bits, bits.p, bits.n);
    count_holder(t, p, 1);
    return true;
}

void at_tiles_peer_gone(struct at_tiles *t, uint64_t id)
{
    struct at_tiles_peer *p = id ? find(t, id) : NULL;
    if (!p) return;
    for (size_t k = 0; k < AT_TILES_WINDOW_MAX; k++)
        if (p->ask[k].used) settle(t, p, &p->ask[k]);
    count_holder(t, p, -1);
    *p = (struct at_tiles_peer){.bits = p->bits};
}

void at_tiles_peer_empty(struct at_tiles *t, uint64_t id)
{
    const struct at_tiles_peer *p = id ? find(t, id) : NULL;
    if (p && p->owes > 0)
        (void)at_tiles_peer_holds(t, id, false, at_span(NULL, 0)); /* it has its place already */
    else
        at_tiles_peer_gone(t, id);
}

/* ---- picking ---- */

/* A counting sort by the number of holders; within one number ascending from `offset`, around. */
static void sort(struct at_tiles *t)
{
    uint32_t at[AT_TILES_PEERS_MAX + 2] = {0};
    for (uint32_t i = 0; i < t->tiles; i++) at[t->held_by[i] + 1]++;
    for (size_t k = 1; k < AT_TILES_PEERS_MAX + 2; k++) at[k] += at[k - 1];
    for (uint32_t i = 0, tile = t->offset; i < t->tiles; i++, tile = tile + 1 < t->tiles ? tile + 1 : 0)
        t->order[at[t->held_by[tile]]++] = tile;
    for (size_t i = 0; i < AT_TILES_PEERS_MAX; i++) t->peer[i].cursor = 0;
    t->stale = false;
}

/* When it has waited too long for this one. */
static uint64_t late_ms(const struct at_tiles_peer *p, const struct at_tiles_ask *ask)
{
    uint64_t silent = (ask->asked_ms > p->answer_ms ? ask->asked_ms : p->answer_ms) + AT_TILES_STALL_MS;
    uint64_t lost = ask->asked_ms + AT_TILES_LOST_MS;
    return silent < lost ? silent : lost;
}

static void find_late(struct at_tiles *t, uint64_t now_ms)
{
    for (size_t i = 0; i < AT_TILES_PEERS_MAX; i++) {
        struct at_tiles_peer *p = &t->peer[i];
        for (size_t k = 0; p->owes > p->late && k < AT_TILES_WINDOW_MAX; k++) {
            struct at_tiles_ask *ask = &p->ask[k];
            if (!ask->used || ask->late || now_ms < late_ms(p, ask)) continue;
            ask->late = true;
            p->late++;
            p->window = 1;
            give_back(t, ask->tile);
        }
    }
}

static bool owes_it(const struct at_tiles_peer *p, uint32_t tile)
{
    for (size_t k = 0; k < AT_TILES_WINDOW_MAX; k++)
        if (p->ask[k].used && p->ask[k].tile == tile) return true;
    return false;
}

static bool pick_free(struct at_tiles *t, struct at_tiles_peer *p, uint32_t *ret_tile)
{
    if (t->free == 0) return false;
    for (; p->cursor < t->tiles; p->cursor++) {
        uint32_t tile = t->order[p->cursor];
        if (t->copies[tile] || !holds(p, tile) || owes_it(p, tile)) continue;
        *ret_tile = tile;
        return true;
    }
    return false;
}

/* The endgame: the one among those that others owe for longest. */
static bool pick_again(struct at_tiles *t, const struct at_tiles_peer *p, uint64_t now_ms, uint32_t *ret_tile)
{
    uint64_t oldest = UINT64_MAX;
    if (t->free > 0 || t->again_left == 0) return false;
    for (size_t i = 0; i < AT_TILES_PEERS_MAX; i++) {
        const struct at_tiles_peer *other = &t->peer[i];
        for (size_t k = 0; other != p && other->owes > 0 && k < AT_TILES_WINDOW_MAX; k++) {
            const struct at_tiles_ask *ask = &other->ask[k];
            if (!ask->used || ask->late || now_ms < ask->asked_ms + AT_TILES_AGAIN_MS || ask->asked_ms >= oldest)
                continue;
            if (t->copies[ask->tile] >= AT_TILES_COPIES_MAX || !holds(p, ask->tile) || owes_it(p, ask->tile)) continue;
            oldest = ask->asked_ms;
            *ret_tile = ask->tile;
        }
    }
    if (oldest == UINT64_MAX) return false;
    t->again_left--;
    return true;
}

static void note_ask(struct at_tiles *t, struct at_tiles_peer *p, uint32_t tile, uint64_t now_ms)
{
    size_t k = 0;
    while (p->ask[k].used) k++; /* window <= AT_TILES_WINDOW_MAX */
    p->ask[k] = (struct at_tiles_ask){.used = true, .tile = tile, .asked_ms = now_ms};
    p->owes++;
    if (t->copies[tile]++ == 0) t->free--;
}

bool at_tiles_next(struct at_tiles *t, uint64_t now_ms, uint64_t *ret_id, uint32_t *ret_tile)
{
    if (t->missing == 0) return false;
    find_late(t, now_ms);
    if (t->stale) sort(t);
    for (size_t i = 0; i < AT_TILES_PEERS_MAX; i++) {
        struct at_tiles_peer *p = &t->peer[(t->turn + i) % AT_TILES_PEERS_MAX];
        uint32_t tile;
        if (p->id == 0 || p->owes >= p->window || p->late > 0) continue;
        if (!pick_free(t, p, &tile) && !pick_again(t, p, now_ms, &tile)) continue;
        note_ask(t, p, tile, now_ms);
        t->turn = (uint32_t)((t->turn + i + 1) % AT_TILES_PEERS_MAX);
        *ret_id = p->id;
        *ret_tile = tile;
        return true;
    }
    return false;
}

/* ---- answers ---- */
static struct at_tiles_ask *find_ask(struct at_tiles_peer *p, uint32_t tile)
{
    for (size_t k = 0; p && k < AT_TILES_WINDOW_MAX; k++)
        if (p->ask[k].used && p->ask[k].tile == tile) return &p->ask[k];
    return NULL;
}

enum at_tiles_verdict at_tiles_got(struct at_tiles *t, uint64_t id, uint32_t tile, struct at_span bytes,
                                   uint64_t now_ms)
{
    struct at_tiles_peer *p = id ? find(t, id) : NULL;
    struct at_tiles_ask *ask = find_ask(p, tile);
    if (!ask) return AT_TILES_UNASKED;
    if (!at_hash_eq(at_merkle_leaf(bytes), t->leaf[tile])) {
        settle(t, p, ask);
        return AT_TILES_WRONG;
    }
    uint64_t took_ms = now_ms - ask->asked_ms;
    p->answer_ms = now_ms;
    if (took_ms <= AT_TILES_FAST_MS && p->window < AT_TILES_WINDOW_MAX) p->window++;
    if (took_ms > AT_TILES_SLOW_MS && p->window > 1) p->window /= 2;
    bool known = at_tiles_has(t, tile);
    if (!known) set_here(t, tile); /* before it is settled: it does not become free */
    settle(t, p, ask);
    return known ? AT_TILES_KNOWN : AT_TILES_NEW;
}

bool at_tiles_missing(struct at_tiles *t, uint64_t id, uint32_t tile)
{
    struct at_tiles_peer *p = id ? find(t, id) : NULL;
    struct at_tiles_ask *ask = find_ask(p, tile);
    if (!ask) return false;
    settle(t, p, ask);
    if (p->whole) { /* all but this one, until it says otherwise */
        p->whole = false;
        memset(p->bits, 0xff, map_bytes(t->tiles));
    }
    if (!bit(p->bits, tile)) return true;
    p->bits[tile / 8] &= (uint8_t) ~(1u << tile % 8);
    t->held_by[tile]--;
    t->stale = true;
    return true;
}

/* ---- what is left to wait for ---- */
bool at_tiles_starved(const struct at_tiles *t)
{
    if (t->missing == 0) return false;
    for (size_t i = 0; i < AT_TILES_PEERS_MAX; i++) {
        const struct at_tiles_peer *p = &t->peer[i];
        if (p->owes > 0) return false;
        for (uint32_t k = 0; p->id && k < t->tiles; k++)
            if (!at_tiles_has(t, k) && holds(p, k)) return false;
    }
    return true;
}

static void sooner(uint64_t *deadline, uint64_t at, uint64_t now_ms)
{
    if (at > now_ms && at < *deadline) *deadline = at;
}

uint64_t at_tiles_deadline_ms(const struct at_tiles *t, uint64_t now_ms)
{
    uint64_t deadline = UINT64_MAX;
    if (t->missing == 0) return deadline;
    for (size_t i = 0; i < AT_TILES_PEERS_MAX; i++)
        for (size_t k = 0; t->peer[i].owes > t->peer[i].late && k < AT_TILES_WINDOW_MAX; k++) {
            const struct at_tiles_ask *ask = &t->peer[i].ask[k];
            if (!ask->used || ask->late) continue;
            sooner(&deadline, late_ms(&t->peer[i], ask), now_ms);
            if (t->free == 0 && t->again_left > 0) sooner(&deadline, ask->asked_ms + AT_TILES_AGAIN_MS, now_ms);
        }
    return deadline;
}
