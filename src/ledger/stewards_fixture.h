/* stewards_fixture.h: for tests: a run whose members stand for seats, hold them, and lead blocks. Asserts instead of
 * reporting; keys are fixed (log_fixture.h). */
#ifndef ATOLL_LEDGER_STEWARDS_FIXTURE_H
#define ATOLL_LEDGER_STEWARDS_FIXTURE_H

#include "ledger/log_fixture.h"

enum { FIXTURE_LINKS = 64 }; /* of a beacon's chain */

struct stewards_fixture { /* member k has key k, for a seat seat_key[k], chain[k] and ticket[k] */
    struct log_fixture f;
    struct at_keypair seat_key[FIXTURE_KEYS];
    struct at_beacon_chain chain[FIXTURE_KEYS];
    struct at_ticket ticket[FIXTURE_KEYS];
    uint32_t revealed[FIXTURE_KEYS]; /* in this term */
};

/* All have joined, nobody stands. */
static inline void stewards_init(struct stewards_fixture *r)
{
    fixture_init(&r->f);
    for (int k = 0; k < FIXTURE_KEYS; k++) {
        uint8_t seed[AT_KEY_BYTES] = {(uint8_t)(k + 101)};
        struct at_keypair ticket;
        AT_ASSERT(at_keypair_from_seed(seed, &r->seat_key[k]) == AT_OK);
        at_beacon_chain_init(&r->chain[k], at_sha256(seed, sizeof seed), FIXTURE_LINKS);
        r->revealed[k] = 0;
        seed[1] = 1;
        AT_ASSERT(at_keypair_from_seed(seed, &ticket) == AT_OK);
        r->ticket[k] = at_ticket_make(&r->f.key[0], r->f.ledger.run, &ticket);
        AT_ASSERT(fixture_join(&r->f, k) == AT_OK);
    }
}

/* What member k writes to stand, with its ticket. */
static inline struct at_record stewards_stand_record(struct stewards_fixture *r, int k)
{
    struct at_record rec = fixture_record(&r->f, AT_RECORD_READY);
    rec.stand = (struct at_stand){.term = r->f.ledger.seats.term + 1,
                                  .key = r->seat_key[k].id,
                                  .key_use = at_seat_key_show(&r->seat_key[k], rec.run, &r->f.key[k].id),
                                  .chain = r->chain[k].commitment,
                                  .has_ticket = true};
    AT_ASSERT(at_ticket_show(&r->ticket[k], rec.run, &r->f.key[k], &rec.stand.ticket) == AT_OK);
    return rec;
}

/* The member that leads a view. */
static inline int stewards_leader(const struct stewards_fixture *r, uint64_t view)
{
    const struct at_seats *s = &r->f.ledger.seats;
    int k = 0;
    while (k < FIXTURE_KEYS && !at_node_id_eq(&r->f.key[k].id, &s->seat[at_view_leader(view, s->count)].member)) k++;
    AT_ASSERT(k < FIXTURE_KEYS);
    return k;
}

/* A final block of a view, with the link-th of the links that its leader has not revealed yet. */
static inline struct at_block_head stewards_head(struct stewards_fixture *r, uint64_t view, uint32_t link)
{
    struct at_block_head head = {.term = r->f.ledger.seats.term, .view = view, .time_ms = ++r->f.now_ms};
    int k = stewards_leader(r, view);
    AT_ASSERT(at_beacon_chain_next(&r->chain[k], r->revealed[k] + link, &head.reveal));
    return head;
}

#endif
