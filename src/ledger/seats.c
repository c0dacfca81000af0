#include "ledger/seats.h"
#include "base/bytes.h"
#include "ledger/words.h"

#include <string.h>

__extension__ typedef unsigned __int128 u128;

int at_seats_find(const struct at_seats *seats, const struct at_node_id *member)
{
    for (uint32_t i = 0; i < seats->count; i++)
        if (at_node_id_eq(&seats->seat[i].member, member)) return (int)i;
    return -1;
}

uint32_t at_seats_next_count(uint32_t count, size_t candidates)
{
    return count + 3 <= AT_SEATS_MAX && candidates >= count + 3 ? count + 3 : count;
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

/* The first `wanted` of a draw by work, in its order; the others behind them. Candidates come in the log's order. */
static void order_by_draw(struct at_candidate *c, size_t count, size_t wanted, struct at_hash seed)
{
    u128 sum = 0;
    for (size_t i = 0; i < count; i++) sum += (u128)c[i].work + 1;
    for (size_t k = 0; k < wanted; k++) {
        u128 at = draw(seed, (uint32_t)k, sum);
        size_t i = k;
        while (at >= (u128)c[i].work + 1) at -= (u128)c[i++].work + 1;
        struct at_candidate drawn = c[i];
        memmove(&c[k + 1], &c[k], (i - k) * sizeof *c);
        c[k] = drawn;
        sum -= (u128)drawn.work + 1;
    }
}

enum standing { SEAT_NEW, SEAT_DESERTED, SEAT_NOT_DRAWN, SEAT_KEPT };

struct at_seats at_seats_draw(const struct at_seats *seats, struct at_candidate *c, size_t count, struct at_hash seed)
{
    struct at_seats next = *seats;
    uint32_t changes = at_seats_faults(seats->count);
    enum standing standing[AT_SEATS_MAX];
    next.term++;
    next.count = at_seats_next_count(seats->count, count);
    size_t drawn = count < next.count ? count : next.count;
    order_by_draw(c, count, drawn, seed);
    for (uint32_t s = 0; s < next.count; s++) standing[s] = s < seats->count ? SEAT_DESERTED : SEAT_NEW;
    for (size_t i = 0; i < count; i++) {
        int s = at_seats_find(seats, &c[i].seat.member);
        if (s < 0) continue;
        next.seat[s] = c[i].seat;
        standing[s] = i < drawn ? SEAT_KEPT : SEAT_NOT_DRAWN;
    }
    size_t i = 0;
    for (enum standing kind = SEAT_NEW; kind <= SEAT_NOT_DRAWN; kind++)
        for (uint32_t s = 0; s < next.count; s++) {
            if (standing[s] != kind) continue;
            if (kind != SEAT_NEW && changes == 0) return next;
            while (i < count && at_seats_find(seats, &c[i].seat.member) >= 0) i++;
            if (i == count || (kind == SEAT_NOT_DRAWN && i >= drawn)) return next;
            next.seat[s] = c[i++].seat;
            if (kind != SEAT_NEW) changes--;
        }
    return next;
}
