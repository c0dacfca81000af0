/* collective.h: what a group of ranks computes together over at_comm: sums on the slot tree, maxima, gathers,
 * broadcasts. Pure: memory is handed down, nothing is allocated. Exact: yes.
 *
 * A group is a run of consecutive ranks. All its members call the same functions in the same order with the same sizes.
 *
 * All-reduce (groups of a power of two): recursive doubling (Thakur, Rabenseifner, Gropp, "Optimization of Collective
 * Communication Operations in MPICH", 2005, section 4.2). At level k rank r exchanges what it has with rank r XOR 2^k
 * and both add the two: addition commutes, so both get the same bits, and after log2(ranks) levels everybody has
 *   ((x0 + x1) + (x2 + x3)) + ...
 * which is the slot tree (contract rule 3) where rank r's x is the node of its own aligned run of slots.
 * Several pieces may be under way: a piece travels while the next is computed, is moved on to its next level whenever
 * another one is begun, and finish() waits for the rest. Pieces are sent from where they lie.
 *
 * After a failure every function of the group returns the same code again; `diag` says what happened first. */
#ifndef ATOLL_PARALLEL_COLLECTIVE_H
#define ATOLL_PARALLEL_COLLECTIVE_H

#include "base/comm.h"
#include "model/transformer.h"
#include "train/gather.h"

enum { AT_GROUP_PIECES = 16, AT_GROUP_RANKS_MAX = 4096 };

struct at_group_piece {
    real *x, *in; /* the caller's values, and where the partner's arrive */
    size_t n;
    int level; /* under way; log2(ranks): done */
    struct at_transfer send, recv;
};

struct at_group {
    const struct at_comm *comm; /* borrowed, as are ex and room */
    const struct at_exec *ex;   /* adds; used only between the caller's own operations */
    int first, ranks, me;       /* ranks first .. first + ranks - 1 of comm; this one is number `me` of them */
    uint32_t tag;               /* of all its messages; groups that have two ranks in common have different tags */
    real *room;                 /* arrivals; also what bounds the elements under way */
    size_t room_count;
    int levels, pieces;
    size_t used; /* of room */
    struct at_group_piece piece[AT_GROUP_PIECES];
    struct at_diag diag;
};

/* Bytes of room for sums of `elements` at once (or fewer elements: larger sums are cut in parts that wait for each
 * other). A multiple of 64, at least 1 KiB. */
size_t at_group_room_bytes(size_t elements);
/* The group of ranks first .. first + ranks - 1, of which comm->rank is one. room: of at_group_room_bytes, aligned for
 * doubles; NULL for a group of one. */
void at_group_init(struct at_group *g, const struct at_comm *comm, const struct at_exec *ex, int first, int ranks,
                   uint32_t tag, void *room, size_t room_bytes);

/* Sums and maxima; only groups of a power of two. A maximum with a NaN in it is NaN. */
struct at_tp at_group_tp(struct at_group *g);
/* Each element is +0 on all ranks but at most one: afterwards all have it, to the bit (also NaN and -0). Any number of
 * ranks: recursive doubling over the largest power of two, the others fold in before and are told after. */
struct at_gather at_group_gather(struct at_group *g);
/* The bytes of member `from` to all: a binomial tree. */
at_err at_group_broadcast(struct at_group *g, int from, void *bytes, size_t n, struct at_diag *diag);
/* all[i] of size[i] bytes comes from member i, to member `to` alone; `mine` (size[me] bytes) is sent. On other members
 * than `to` all may be NULL. A size of 0 is left out. */
at_err at_group_collect(struct at_group *g, int to, const void *mine, void *const *all, const size_t *size,
                        struct at_diag *diag);

#endif
