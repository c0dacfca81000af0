#include "train/index_set.h"

#include <string.h>

enum { SHIFT = 14, TOTAL = 1 << SHIFT, LEAST = TOTAL >> 11, MOST = TOTAL / 2, SEEN_MAX = 126, ROW_PRIOR = 2 };

void at_index_set_init(struct at_index_set *s, uint32_t cols)
{
    *s = (struct at_index_set){.cols = cols};
}

/* A chunk that is walked through. */
struct walk {
    struct at_index_set *set;
    size_t len, at, left;
    uint32_t weights; /* of the indices from `at` on */
    uint32_t row, even;
    uint8_t weight[AT_INDEX_LEN_MAX];
};

static void look_at_row(struct walk *k)
{
    const struct at_index_set *s = k->set;
    uint64_t row =
        ((uint64_t)(s->row_kept + ROW_PRIOR) << (SHIFT + 8)) / (s->expected + ((uint64_t)ROW_PRIOR << SHIFT));
    k->row = row < 16 ? 16 : row > 8 * 256 ? 8 * 256 : (uint32_t)row;
}

static void begin(struct walk *k, struct at_index_set *s, size_t n, size_t len)
{
    k->set = s;
    k->len = len;
    k->left = n;
    k->at = 0;
    k->weights = 0;
    for (size_t i = 0, col = s->col; i < len; i++) {
        k->weight[i] = (uint8_t)(1 + s->seen[col % AT_INDEX_COLUMNS]);
        k->weights += k->weight[i];
        if (++col == s->cols) col = 0;
    }
    look_at_row(k);
}

/* How likely, of TOTAL, the index is kept. */
static inline uint32_t likelihood(struct walk *k)
{
    uint32_t even = (((uint32_t)k->left * k->weight[k->at]) << SHIFT) / k->weights;
    k->even = even < TOTAL ? even : TOTAL;
    if (k->set->col % 8 == 0) look_at_row(k);
    uint32_t p = k->even * k->row >> 8;
    return p < LEAST ? LEAST : p > MOST ? MOST : p;
}

static void count_column(struct at_index_set *s)
{
    uint8_t *seen = &s->seen[s->col % AT_INDEX_COLUMNS];
    if (++*seen < SEEN_MAX) return;
    for (int i = 0; i < AT_INDEX_COLUMNS; i++) s->seen[i] /= 2;
}

static inline void advance(struct walk *k, bool kept)
{
    struct at_index_set *s = k->set;
    k->weights -= k->weight[k->at++];
    k->left -= kept;
    s->expected += k->even;
    s->row_kept += kept;
    if (kept) count_column(s);
    if (++s->col == s->cols) s->col = s->row_kept = 0, s->expected = 0;
    if (kept) look_at_row(k);
}

/* All are found: to the chunk's end. */
static void finish(struct walk *k)
{
    struct at_index_set *s = k->set;
    size_t col = s->col + (k->len - k->at);
    if (col >= s->cols) s->row_kept = 0, s->expected = 0;
    s->col = (uint32_t)(col % s->cols);
}

void at_index_set_put(struct at_index_set *s, struct at_range_writer *w, const uint16_t *index, size_t n, size_t len)
{
    struct walk k;
    size_t found = 0;
    begin(&k, s, n, len);
    while (k.left > 0) {
        bool kept = index[found] == k.at;
        uint32_t p = likelihood(&k);
        if (k.left < len - k.at) at_range_put_bit(w, kept, p, TOTAL);
        found += kept;
        advance(&k, kept);
    }
    finish(&k);
}

void at_index_set_get(struct at_index_set *s, struct at_range_reader *r, size_t n, size_t len, uint16_t *ret_index)
{
    struct walk k;
    size_t found = 0;
    begin(&k, s, n, len);
    while (k.left > 0) {
        uint32_t p = likelihood(&k);
        bool kept = k.left == len - k.at || at_range_bit(r, p, TOTAL);
        if (kept) ret_index[found++] = (uint16_t)k.at;
        advance(&k, kept);
    }
    finish(&k);
}
