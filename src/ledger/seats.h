/* seats.h: who orders the log: the stewards of a term, and how the next term's are drawn. Pure; integers only; no
 * allocation; Exact: yes.
 *
 * A term has n = 3f+1 seats, n = 1, 4, 7 .. 31. The next term's are drawn among the candidates (members that sent READY
 * for it), by confirmed work and never by number of keys:
 *
 *   n          stays, or grows by three when enough candidates have no seat; from one seat to four at once, if its
 *              holder is a candidate
 *   a draw     takes candidates one after the other, each with chance (work + 1) / (the sum of those left)
 *   a holder   that is a candidate keeps its seat and gets its new key; one that is none keeps its old key, until
 *              somebody takes its place
 *   new ones   go, in the order of the draw, to the seats that growth adds; or, in a term that does not grow, first to
 *              the seats whose holders are barred, then to those whose holders are no candidates, then to those whose holders the draw did not name, at most f
 *
 * So newcomers are never more than the f that the term bears, whatever work they have, once it has ten seats. Growth to
 * four and to seven, where three are more than f, goes to vouched candidates only. */
#ifndef ATOLL_LEDGER_SEATS_H
#define ATOLL_LEDGER_SEATS_H

#include "base/hash.h"
#include "wire/vote.h"

struct at_seat {
    struct at_node_id member;
    struct at_node_id key; /* signs votes and cosignatures of the term */
    struct at_hash chain;  /* its beacon's commitment (wire/beacon.h); zero for a single steward */
};
struct at_seats {
    uint32_t term; /* from 1 */
    uint32_t count;
    struct at_seat seat[AT_SEATS_MAX];
};

struct at_candidate {
    struct at_seat seat; /* as READY says */
    uint64_t work;       /* confirmed micro-points */
    bool vouched;        /* by the founder's ticket, or is the founder */
};

/* -1: none. Asked for every link in every step of a node: inline. */
static inline int at_seats_find(const struct at_seats *seats, const struct at_node_id *member)
{
    for (uint32_t i = 0; i < seats->count; i++)
        if (at_node_id_eq(&seats->seat[i].member, member)) return (int)i;
    return -1;
}
/* The number of seats that the next term has with these candidates. */
uint32_t at_seats_next_count(const struct at_seats *seats, const struct at_candidate *candidates, size_t count);
/* The seats of the term after `seats`. Reorders `candidates`; no member may be there twice, and none that is barred.
 * barred: bit s: the holder of seat s is. */
struct at_seats at_seats_draw(const struct at_seats *seats, struct at_candidate *candidates, size_t count,
                              uint32_t barred, struct at_hash seed);

#endif
