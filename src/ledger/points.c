#include "ledger/points.h"

/* Who gets a left-over micro-point before whom: larger remainder, then smaller id. */
static bool before(const struct at_points_claim *a, const struct at_points_claim *b)
{
    if (a->remainder != b->remainder) return a->remainder > b->remainder;
    return at_node_id_cmp(a->id, b->id) < 0;
}

static void swap(struct at_points_claim *a, struct at_points_claim *b)
{
    struct at_points_claim t = *a;
    *a = *b;
    *b = t;
}

/* Restores the heap (the last in order on top) below `i`. */
static void sift(struct at_points_claim *claims, size_t i, size_t count)
{
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && before(&claims[child], &claims[child + 1])) child++;
        if (!before(&claims[i], &claims[child])) return;
        swap(&claims[i], &claims[child]);
    }
}

/* Heap sort: qsort may allocate. */
static void sort(struct at_points_claim *claims, size_t count)
{
    for (size_t i = count / 2; i-- > 0;) sift(claims, i, count);
    for (size_t n = count; n > 1; n--) {
        swap(&claims[0], &claims[n - 1]);
        sift(claims, 0, n - 1);
    }
}

void at_points_split(uint64_t issuance, struct at_points_claim *claims, size_t count)
{
    at_u128 total = 0;
    for (size_t i = 0; i < count; i++) total += claims[i].flops;
    uint64_t given = 0;
    for (size_t i = 0; i < count; i++) {
        at_u128 product = (at_u128)issuance * claims[i].flops;
        claims[i].ret_points = total != 0 ? (uint64_t)(product / total) : 0;
        claims[i].remainder = total != 0 ? product % total : 0;
        given += claims[i].ret_points;
    }
    if (total == 0) return;
    sort(claims, count);
    uint64_t left = issuance - given;
    AT_ASSERT(given <= issuance && left <= count);
    for (size_t i = 0; i < left; i++) claims[i].ret_points++;
}
