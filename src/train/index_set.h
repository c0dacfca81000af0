/* index_set.h: inner header of the train layer: which indices of a chunk are kept, in few bits. Pure. Exact: yes, integers
 * only, the same on both sides.
 *
 * A set of n of len alike indices costs log2 C(len, n) bits. Those that matter are not alike: what is kept gathers in
 * some rows and columns of a matrix, which saves about an eighth. Index after index, until all are found, a bit says
 * whether it is kept, and its likelihood, in 1/2^14, is
 *   even   = left to find * weight of its column / weights of the indices left in the chunk; at most 1
 *   row    = (kept in this row + 2) / (sum of `even` over this row so far + 2), in 1/256, within 1/16 .. 8, looked at anew
 *            every eighth column, after a kept one, and where a chunk begins
 *   even * row, within 2^-11 .. 1/2
 * The weight of a column is 1 + how often it was kept in the chunks before (columns are counted modulo 768; all are halved
 * when one reaches 126). When as many are left to find as there are indices, nothing is said: all are kept. */
#ifndef ATOLL_TRAIN_INDEX_SET_H
#define ATOLL_TRAIN_INDEX_SET_H

#include "train/range_code.h"

#define AT_INDEX_COLUMNS 768
#define AT_INDEX_LEN_MAX 4096
/* Bits that a set of n of len costs at most: 11 for one that is kept, 1 for one that is not. The coder loses 0.0015 more
 * for each of the len. */
#define AT_INDEX_BITS_MAX(n, len) ((n)*11 + ((len) - (n)))

struct at_index_set {  /* what was learned in one block */
    uint64_t expected; /* of the row so far, in 1/2^14 */
    uint32_t cols, col, row_kept;
    uint8_t seen[AT_INDEX_COLUMNS];
};
void at_index_set_init(struct at_index_set *s, uint32_t cols);
/* index[n] ascending, < len <= AT_INDEX_LEN_MAX; n <= 1024. */
void at_index_set_put(struct at_index_set *s, struct at_range_writer *w, const uint16_t *index, size_t n, size_t len);
void at_index_set_get(struct at_index_set *s, struct at_range_reader *r, size_t n, size_t len, uint16_t *ret_index);

#endif
