#include "ledger/seats.h"
#include "base/bytes.h"
#include "ledger/words.h"

#include <string.h>

__extension__ typedef unsigned __int128 u128;

enum { GROWTH = 3, VOUCHED_BELOW = 10 /* seats */ };

static bool may_be_added(const struct at_seats *seats, const struct at_candidate *c)
{
    return at_seats_find(seats, &c->seat.member) < 0 && (c->vouched || seats->count + GROWTH >= VOUCHED_BELOW);
}

uint32_t at_seats_next_count(const struct at_seats *seats, const struct at_candidate *c, size_t count)
{
    size_t fit = 0;
    bool holder = seats->count > 1;
    for (size_t i = 0; i < count; i++) {
        fit += may_be_added(seats, &c[i]);
        holder = holder || at_node_id_eq(&c[i].seat.member, &seats->seat[0].member);
    }
    return holder && fit >= GROWTH && seats->count + GROWTH <= AT_SEATS_MAX ? seats->count + GROWTH : seats->count;
}

/* The draw's nth number below `bound`: 128 bits of SHA-256("atoll draw 1\0" ‖ seed ‖ n), so its bias is below 2^-60. */
static u128 draw(struct at_hash seed, uint32_t n, u128 bound)
{
    static const char domain[] = "atoll draw 1";
    uint8_t text[sizeof domain + AT_HASH_BYTES + 4];
    memcpy(text, domain, sizeof domain);
    memcpy(text + sizeof domain, seed.b, AT_HASH_BYTES);
    at_store_le32(text + sizeof domain + AT_HASH_BYTES, n);
    struct at_hash h = at_sha256(text, sizeof text);
    return ((u128)at_load_le64(h.b) << 64 | at_load_le64(h.b + 8)) % bound;
}

/* Into the order of a draw by work. Candidates come in the log's order. */
static void order_by_draw(struct at_candidate *c, size_t count, struct at_hash seed)
{
    u128 sum = 0;
    for (size_t i = 0; i < count; i++) sum += (u128)c[i].work + 1;
    for (size_t k = 0; k < count; k++) {
        u128 at = draw(seed, (uint32_t)k, sum);
        size_t i = k;
        while (at >= (u128)c[i].work + 1) at -= (u128)c[i++].work + 1;
        struct at_candidate drawn = c[i];
        c[i] = c[k];
        c[k] = drawn;
        sum -= (u128)drawn.work + 1;
    }
}

/* The next candidate from `from` on, before `end`, for a seat that growth adds or that a holder loses; `end`: none. */
static size_t newcomer(const struct at_seats *seats, const struct at_candidate *c, size_t from, size_t end, bool added)
{
    while (from < end && (at_seats_find(seats, &c[from].seat.member) >= 0 || (added && !may_be_added(seats, &c[from]))))
        from++;
    return from;
}

enum standing { SEAT_BARRED, SEAT_DESERTED, SEAT_NOT_DRAWN, SEAT_KEPT };

struct at_seats at_seats_draw(const struct at_seats *seats, struct at_candidate *c, size_t count, uint32_t barred,
                              struct at_hash seed)
{
    struct at_seats next = *seats;
    enum standing standing[AT_SEATS_MAX];
    next.term++;
    next.count = at_seats_next_count(seats, c, count);
    size_t drawn = count < next.count ? count : next.count;
    order_by_draw(c, count, seed);
    for (uint32_t s = 0; s < seats->count; s++) standing[s] = barred >> s & 1 ? SEAT_BARRED : SEAT_DESERTED;
    for (size_t i = 0; i < count; i++) {
        int s = at_seats_find(seats, &c[i].seat.member);
        if (s < 0) continue;
        next.seat[s] = c[i].seat;
        standing[s] = i < drawn ? SEAT_KEPT : SEAT_NOT_DRAWN;
    }
    size_t at = 0;
    for (uint32_t s = seats->count; s < next.count; s++) {
        at = newcomer(seats, c, at, count, true);
        AT_ASSERT(at < count); /* next_count has counted them */
        next.seat[s] = c[at++].seat;
    }
    if (next.count > seats->count) return next;
    uint32_t changes = at_seats_faults(seats->count);
    for (enum standing kind = SEAT_BARRED; kind <= SEAT_NOT_DRAWN; kind++)
        for (uint32_t s = 0; s < seats->count && changes > 0; s++) {
            size_t end = kind == SEAT_NOT_DRAWN ? drawn : count;
            if (standing[s] != kind) continue;
            at = newcomer(seats, c, at, end, false);
            if (at >= end) break;
            next.seat[s] = c[at++].seat;
            changes--;
        }
    return next;
}
