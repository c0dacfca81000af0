#include "base/samples.h"

#include <stdlib.h>
#include <string.h>

void at_samples_init(struct at_samples *s, uint64_t unit)
{
    AT_ASSERT(unit != 0);
    *s = (struct at_samples){.unit = unit};
}

void at_samples_release(struct at_samples *s)
{
    free(s->whole.r);
    free(s->part.r);
    *s = (struct at_samples){.unit = s->unit};
}

at_err at_range_reserve(struct at_range_list *list, size_t extra)
{
    size_t need = list->count + extra, bytes;
    if (need <= list->cap) return AT_OK;
    size_t cap = list->cap < 16 ? 16 : list->cap;
    while (cap < need) cap *= 2;
    if (!at_mul_size(cap, sizeof *list->r, &bytes)) return AT_E_NOMEM;
    struct at_range *r = realloc(list->r, bytes);
    if (r == NULL) return AT_E_NOMEM;
    list->r = r;
    list->cap = cap;
    return AT_OK;
}

at_err at_samples_reserve(struct at_samples *s, size_t count)
{
    at_err_t err = at_range_reserve(&s->whole, count);
    return err ? err : at_range_reserve(&s->part, count);
}

/* Position of the first range that starts at or after `start`. */
static size_t list_find(const struct at_range_list *list, uint64_t start)
{
    size_t lo = 0, hi = list->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (list->r[mid].start < start)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void list_remove(struct at_range_list *list, size_t i)
{
    memmove(&list->r[i], &list->r[i + 1], (list->count - i - 1) * sizeof *list->r);
    list->count--;
}

static void list_insert(struct at_range_list *list, struct at_range range)
{
    AT_ASSERT(list->count < list->cap);
    size_t i = list_find(list, range.start);
    memmove(&list->r[i + 1], &list->r[i], (list->count - i) * sizeof *list->r);
    list->r[i] = range;
    list->count++;
}

/* Takes the neighbours that touch `range` out of the list and joins them to it. */
static struct at_range list_absorb(struct at_range_list *list, struct at_range range)
{
    size_t i = list_find(list, range.start);
    if (i < list->count && list->r[i].start == range.start + range.samples) {
        range.samples += list->r[i].samples;
        list_remove(list, i);
    }
    if (i > 0 && list->r[i - 1].start + list->r[i - 1].samples == range.start) {
        range.start = list->r[i - 1].start;
        range.samples += list->r[i - 1].samples;
        list_remove(list, i - 1);
    }
    return range;
}

static void put(struct at_samples *s, struct at_range range)
{
    if (range.samples != 0) list_insert(range.samples >= s->unit ? &s->whole : &s->part, range);
}

void at_samples_free(struct at_samples *s, struct at_range range)
{
    if (range.samples == 0) return;
    range = list_absorb(&s->whole, range);
    range = list_absorb(&s->part, range);
    put(s, range);
}

static void list_copy(struct at_range_list *to, const struct at_range_list *from)
{
    if (from->count != 0) memcpy(to->r, from->r, from->count * sizeof *to->r);
    to->count = from->count;
}

at_err at_samples_copy(struct at_samples *to, const struct at_samples *from)
{
    /* Reserving counts on from what is there already: more than enough. */
    at_err_t err = at_range_reserve(&to->whole, from->whole.count);
    if (!err) err = at_range_reserve(&to->part, from->part.count);
    if (err) return err;
    list_copy(&to->whole, &from->whole);
    list_copy(&to->part, &from->part);
    to->next = from->next;
    to->unit = from->unit;
    return AT_OK;
}

/* The ranges of `from` that belong into the other list now; both lists have room. */
static void resort(struct at_samples *s, struct at_range_list *from, struct at_range_list *to, bool whole)
{
    size_t kept = 0;
    for (size_t i = 0; i < from->count; i++) {
        struct at_range range = from->r[i];
        if ((range.samples >= s->unit) == whole)
            list_insert(to, range);
        else
            from->r[kept++] = range;
    }
    from->count = kept;
}

at_err at_samples_resize(struct at_samples *s, uint64_t unit)
{
    AT_ASSERT(unit != 0);
    size_t whole = s->whole.count, part = s->part.count;
    at_err_t err = at_range_reserve(&s->whole, part);
    if (!err) err = at_range_reserve(&s->part, whole);
    if (err) return err;
    s->unit = unit;
    resort(s, &s->part, &s->whole, true);
    resort(s, &s->whole, &s->part, false);
    return AT_OK;
}

bool at_samples_can_take(const struct at_samples *s, uint64_t units)
{
    return s->next <= AT_SAMPLES_NEXT_MAX && units <= (AT_SAMPLES_NEXT_MAX - s->next) / s->unit;
}

uint64_t at_samples_take(struct at_samples *s)
{
    if (s->whole.count != 0) {
        struct at_range first = s->whole.r[0];
        struct at_range rest = {.start = first.start + s->unit, .samples = first.samples - s->unit};
        list_remove(&s->whole, 0);
        put(s, rest);
        return first.start;
    }
    AT_ASSERT(at_samples_can_take(s, 1));
    uint64_t start = s->next;
    s->next += s->unit;
    return start;
}
