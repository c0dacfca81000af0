#include "train/journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---- */

static at_err append_text(struct at_buf *out, const char *text)
{
    return at_buf_append(out, text, strlen(text));
}

at_err at_journal_put_head(const struct at_journal_head *h, struct at_buf *out)
{
    char line[320];
    snprintf(line, sizeof line,
             "{\"atoll_journal\":%d,\"replicas\":%" PRIu32 ",\"batch\":%" PRIu32 ",\"seq_len\":%" PRIu32
             ",\"epoch_samples\":%" PRIu64 ",\"seed\":%" PRIu64 "%s%s%s}\n",
             h->has_text ? 2 : 1, h->replicas, h->batch, h->seq_len, h->epoch_samples, h->seed,
             h->has_text ? ",\"text\":\"" : "", h->has_text ? at_hash_hex(h->text).s : "", h->has_text ? "\"" : "");
    return append_text(out, line);
}

static at_err put_units(const struct at_journal_head *h, const struct at_journal_unit *unit, struct at_buf *out)
{
    int err = AT_OK;
    for (uint32_t r = 0; r < h->replicas && err == AT_OK; r++) {
        char text[96];
        snprintf(text, sizeof text, "%s[%" PRIu64 ",%" PRIu32 ",%" PRIu32 "]", r == 0 ? "" : ",", unit[r].start,
                 unit[r].samples, unit[r].consumed);
        err = append_text(out, text);
    }
    return err;
}

at_err at_journal_put(const struct at_journal_head *h, const struct at_journal_entry *e, struct at_buf *out)
{
    const struct at_round *r = &e->round;
    size_t before = out->n;
    char text[512];
    snprintf(text, sizeof text,
             "{\"round\":%" PRIu32 ",\"steps\":%" PRIu32 ",\"step_first\":%" PRIu64 ",\"codec\":%" PRIu32
             ",\"k\":%" PRIu32 ",\"tau\":%" PRIu32 ",\"clip\":%" PRIu32
             ",\"alpha\":%.9g,\"momentum\":%.9g,\"seconds\":%.17g,\"units\":[",
             r->round, r->steps, r->step_first, r->codec, r->k, r->tau, r->clip, (double)r->alpha, (double)r->momentum,
             r->seconds);
    int err = append_text(out, text);
    if (err == AT_OK) err = put_units(h, e->unit, out);
    snprintf(text, sizeof text, "],\"tokens\":%" PRIu64 ",\"root\":%s%s%s}\n", e->tokens, e->has_root ? "\"" : "",
             e->has_root ? at_hash_hex(e->root).s : "null", e->has_root ? "\"" : "");
    if (err == AT_OK) err = append_text(out, text);
    if (err != AT_OK) out->n = before;
    return err;
}

/* ---- reading ---- */

/* What is left of a line. */
struct line {
    const char *at, *end;
    const char *expected; /* what was not there; NULL: all well */
};

static bool skip(struct line *l, const char *text)
{
    size_t n = strlen(text);
    if (l->expected != NULL) return false;
    if ((size_t)(l->end - l->at) < n || memcmp(l->at, text, n) != 0) {
        l->expected = text;
        return false;
    }
    l->at += n;
    return true;
}

/* A whole number without leading zeros, at most `most`. */
static uint64_t whole(struct line *l, uint64_t most, const char *what)
{
    uint64_t x = 0;
    const char *from = l->at;
    if (l->expected != NULL) return 0;
    while (l->at < l->end && *l->at >= '0' && *l->at <= '9') {
        uint64_t digit = (uint64_t)(*l->at - '0');
        if (x > (most - digit) / 10 || (l->at > from && *from == '0')) break;
        x = 10 * x + digit;
        l->at++;
    }
    bool ends = l->at < l->end && (*l->at < '0' || *l->at > '9');
    if (l->at == from || !ends) l->expected = what;
    return x;
}

static uint32_t whole32(struct line *l, const char *what)
{
    return (uint32_t)whole(l, UINT32_MAX, what);
}

/* A real as printf writes it; it must print to the same text again, so that there is one way to write it. */
static double number(struct line *l, int digits, const char *what)
{
    char text[40], again[40];
    size_t n = 0;
    if (l->expected != NULL) return 0;
    while (l->at + n < l->end && n < sizeof text - 1 && l->at[n] != ',' && l->at[n] != '}') {
        text[n] = l->at[n];
        n++;
    }
    text[n] = '\0';
    char *end;
    double x = strtod(text, &end);
    snprintf(again, sizeof again, "%.*g", digits, x);
    if (n == 0 || end != text + n || strcmp(text, again) != 0) l->expected = what;
    l->at += n;
    return x;
}

/* 64 hex digits and the quote after them. */
static void hash(struct line *l, const char *what, struct at_hash *ret)
{
    char hex[2 * AT_HASH_BYTES + 1];
    if (l->expected != NULL) return;
    if ((size_t)(l->end - l->at) >= sizeof hex) {
        memcpy(hex, l->at, sizeof hex - 1);
        hex[sizeof hex - 1] = '\0';
        l->at += sizeof hex - 1;
        if (at_hash_parse(hex, ret) == AT_OK) {
            skip(l, "\"");
            return;
        }
    }
    l->expected = what;
}

static void read_head(struct line *l, struct at_journal_head *h)
{
    skip(l, "{\"atoll_journal\":");
    uint32_t version = whole32(l, "version 1 or 2");
    if (l->expected == NULL && version != 1 && version != 2) l->expected = "version 1 or 2";
    h->has_text = version == 2;
    skip(l, ",\"replicas\":");
    h->replicas = whole32(l, "a number of replicas");
    skip(l, ",\"batch\":");
    h->batch = whole32(l, "a batch");
    skip(l, ",\"seq_len\":");
    h->seq_len = whole32(l, "a number of tokens");
    skip(l, ",\"epoch_samples\":");
    h->epoch_samples = whole(l, (uint64_t)1 << 40, "a number of samples");
    skip(l, ",\"seed\":");
    h->seed = whole(l, UINT64_MAX, "a seed");
    if (h->has_text) {
        skip(l, ",\"text\":\"");
        hash(l, "a SHA-256 of 64 hex digits", &h->text);
    }
    skip(l, "}");
    bool possible = h->replicas >= 1 && h->replicas <= AT_OUTER_REPLICAS_MAX && h->batch >= 1 && h->batch <= 1u << 20 &&
                    h->seq_len >= 1 && h->seq_len <= 1u << 20 && h->epoch_samples >= 1;
    if (l->expected == NULL && !possible) l->expected = "replicas, batch and samples that can be";
}

static void read_round(struct line *l, struct at_round *r)
{
    skip(l, "{\"round\":");
    r->round = whole32(l, "a round");
    skip(l, ",\"steps\":");
    r->steps = whole32(l, "a number of steps");
    skip(l, ",\"step_first\":");
    r->step_first = whole(l, (uint64_t)1 << 62, "a number of steps");
    skip(l, ",\"codec\":");
    r->codec = whole32(l, "a codec");
    skip(l, ",\"k\":");
    r->k = whole32(l, "a k");
    skip(l, ",\"tau\":");
    r->tau = whole32(l, "a tau");
    skip(l, ",\"clip\":");
    r->clip = whole32(l, "0 or 1");
    skip(l, ",\"alpha\":");
    r->alpha = (real)number(l, 9, "an alpha");
    skip(l, ",\"momentum\":");
    r->momentum = (real)number(l, 9, "a momentum");
    skip(l, ",\"seconds\":");
    r->seconds = number(l, 17, "seconds");
    skip(l, ",\"units\":[");
}

static void read_end(struct line *l, struct at_journal_entry *e)
{
    skip(l, "],\"tokens\":");
    e->tokens = whole(l, (uint64_t)1 << 62, "a number of tokens");
    skip(l, ",\"root\":");
    if (l->expected != NULL) return;
    e->has_root = l->at < l->end && *l->at == '"';
    if (!e->has_root) {
        skip(l, "null}");
        return;
    }
    skip(l, "\"");
    hash(l, "a root of 64 hex digits, or null", &e->root);
    skip(l, "}");
}

/* ---- the replay ---- */

struct replay {
    struct at_journal_tail tail;
    struct at_range_list used; /* consumed ranges, ascending, disjoint, none touching another */
    const char *name;
    int line;
    struct at_diag *diag;
};

static at_err_t complain(struct replay *p, at_err_t err, const char *text)
{
    char where[256];
    snprintf(where, sizeof where, "%.200s:%d", p->name, p->line);
    return at_fail(p->diag, err, where, "%s", text);
}

static at_err_t unexpected(struct replay *p, const struct line *l)
{
    char text[160];
    snprintf(text, sizeof text, "expected %.100s", l->expected != NULL ? l->expected : "the end of the line");
    return complain(p, AT_E_DATA, text);
}

static at_err_t no_memory(struct replay *p)
{
    return complain(p, AT_E_NOMEM, "no memory for its ranges");
}

/* Puts a consumed range among the used ones. */
static at_err fold(struct replay *p, struct at_range range)
{
    struct at_range_list *list = &p->used;
    size_t lo = 0, hi = list->count;
    while (lo < hi) { /* the first range that ends after this one's start */
        size_t mid = lo + (hi - lo) / 2;
        if (list->r[mid].start + list->r[mid].samples <= range.start)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < list->count && list->r[lo].start < range.start + range.samples) {
        char text[96];
        uint64_t twice = list->r[lo].start > range.start ? list->r[lo].start : range.start;
        snprintf(text, sizeof text, "sample %" PRIu64 " is used a second time", twice);
        return complain(p, AT_E_VERIFY, text);
    }
    bool left = lo > 0 && list->r[lo - 1].start + list->r[lo - 1].samples == range.start;
    bool right = lo < list->count && list->r[lo].start == range.start + range.samples;
    if (left && right) {
        list->r[lo - 1].samples += range.samples + list->r[lo].samples;
        memmove(&list->r[lo], &list->r[lo + 1], (list->count - lo - 1) * sizeof *list->r);
        list->count--;
    } else if (left) {
        list->r[lo - 1].samples += range.samples;
    } else if (right) {
        list->r[lo].start = range.start;
        list->r[lo].samples += range.samples;
    } else {
        int err = at_range_reserve(list, 1);
        if (err != AT_OK) return no_memory(p);
        memmove(&list->r[lo + 1], &list->r[lo], (list->count - lo) * sizeof *list->r);
        list->r[lo] = range;
        list->count++;
    }
    return AT_OK;
}

/* A round against the one before it. */
static at_err check_round(struct replay *p, const struct at_round *r)
{
    const struct at_journal_tail *t = &p->tail;
    uint64_t first = t->rounds > 0 ? t->last.step_first + t->steps_done : 0;
    char text[128];
    if (r->round != t->rounds) {
        snprintf(text, sizeof text, "round %" PRIu32 " where round %" PRIu32 " comes", r->round, t->rounds);
        return complain(p, AT_E_DATA, text);
    }
    if (r->step_first != first) {
        snprintf(text, sizeof text, "it begins at step %" PRIu64 "; %" PRIu64 " were done", r->step_first, first);
        return complain(p, AT_E_DATA, text);
    }
    if (r->steps == 0 || (uint64_t)r->steps * t->head.batch > UINT32_MAX)
        return complain(p, AT_E_DATA, "a number of steps that cannot be");
    struct at_diag why = {0};
    int err = at_round_check(r, &why);
    return err == AT_OK ? AT_OK : complain(p, err, why.text);
}

/* What is allotted must be taken in order: all units of the round first, then what they left. */
static at_err do_units(struct replay *p, struct line *l, const struct at_round *r, uint64_t *ret_tokens)
{
    struct at_journal_tail *t = &p->tail;
    struct at_journal_unit unit[AT_OUTER_REPLICAS_MAX];
    uint32_t each = r->steps * t->head.batch, replicas = t->head.replicas, steps = 0;
    if (at_samples_resize(&t->samples, each) != AT_OK || at_samples_reserve(&t->samples, replicas) != AT_OK)
        return no_memory(p);
    for (uint32_t i = 0; i < replicas; i++) {
        if (i > 0) skip(l, ",");
        skip(l, "[");
        unit[i].start = whole(l, (uint64_t)1 << 62, "a sample");
        skip(l, ",");
        unit[i].samples = whole32(l, "a number of samples");
        skip(l, ",");
        unit[i].consumed = whole32(l, "a number of samples");
        skip(l, "]");
        if (l->expected != NULL) return unexpected(p, l);
        if (unit[i].samples != each || unit[i].consumed > each || unit[i].consumed == 0 ||
            unit[i].consumed % t->head.batch != 0)
            return complain(p, AT_E_DATA,
                            "a unit of other samples than the round's steps, or consumed by no whole steps");
        if (!at_samples_can_take(&t->samples, 1) || at_samples_take(&t->samples) != unit[i].start)
            return complain(p, AT_E_VERIFY, "a unit of samples that were not to be allotted next");
    }
    *ret_tokens = 0;
    for (uint32_t i = 0; i < replicas; i++) {
        uint32_t used = unit[i].consumed;
        at_samples_free(&t->samples, (struct at_range){unit[i].start + used, each - used});
        int err = fold(p, (struct at_range){unit[i].start, used});
        if (err != AT_OK) return err;
        *ret_tokens += (uint64_t)used * t->head.seq_len;
        if (used / t->head.batch > steps) steps = used / t->head.batch;
    }
    t->steps_done = steps;
    return AT_OK;
}

static at_err do_round(struct replay *p, struct line *l)
{
    struct at_journal_tail *t = &p->tail;
    struct at_journal_entry e = {.has_root = false};
    uint64_t tokens;
    read_round(l, &e.round);
    if (l->expected != NULL) return unexpected(p, l);
    int err = check_round(p, &e.round);
    if (err == AT_OK) err = do_units(p, l, &e.round, &tokens);
    if (err != AT_OK) return err;
    read_end(l, &e);
    if (l->expected != NULL || l->at != l->end) return unexpected(p, l);
    if (e.tokens != tokens) return complain(p, AT_E_DATA, "other tokens than its units consumed");
    t->last = e.round;
    t->has_root = e.has_root;
    t->root = e.root;
    t->tokens += tokens;
    t->rounds++;
    return AT_OK;
}

/* One line; the newline is not part of it. */
static at_err do_line(struct replay *p, const char *text, size_t n)
{
    struct line l = {.at = text, .end = text + n};
    if (p->line > 1) return do_round(p, &l);
    read_head(&l, &p->tail.head);
    if (l.expected != NULL || l.at != l.end) return unexpected(p, &l);
    at_samples_init(&p->tail.samples, p->tail.head.batch);
    return AT_OK;
}

/* Whole epochs, and what is used of those that are not. */
static void count_epochs(struct replay *p)
{
    struct at_journal_tail *t = &p->tail;
    uint64_t n = t->head.epoch_samples, all = 0;
    uint64_t front = p->used.count > 0 && p->used.r[0].start == 0 ? p->used.r[0].samples : 0;
    for (size_t i = 0; i < p->used.count; i++) all += p->used.r[i].samples;
    t->epochs_whole = front / n;
    uint64_t begin = t->epochs_whole * n;
    for (size_t i = 0; i < p->used.count; i++) {
        uint64_t from = p->used.r[i].start, to = from + p->used.r[i].samples;
        if (from < begin) from = begin;
        if (to > begin + n) to = begin + n;
        if (from < to) t->epoch_used += to - from;
    }
    t->later_used = all - begin - t->epoch_used;
}

at_err at_journal_read(struct at_span text, const char *name, uint32_t rounds_max, struct at_diag *diag,
                       struct at_journal_tail *ret_tail)
{
    struct replay p = {.name = name, .diag = diag};
    int err = AT_OK;
    while (err == AT_OK && p.tail.bytes < text.n && (p.line == 0 || p.tail.rounds < rounds_max)) {
        const char *at = (const char *)text.p + p.tail.bytes;
        const char *end = memchr(at, '\n', text.n - p.tail.bytes);
        if (end == NULL) break; /* a crash cut it short */
        p.line++;
        err = do_line(&p, at, (size_t)(end - at));
        p.tail.bytes += (size_t)(end - at) + 1;
    }
    p.line++;
    if (err == AT_OK && p.line == 1) err = complain(&p, AT_E_TRUNCATED, "no whole line: not a journal");
    if (err == AT_OK) {
        count_epochs(&p);
        *ret_tail = p.tail;
    } else {
        at_samples_release(&p.tail.samples);
    }
    free(p.used.r);
    return err;
}

uint32_t at_journal_steps(const struct at_samples *samples, const struct at_journal_head *head, uint32_t steps)
{
    uint64_t left = 0, longest = 0, unit = (uint64_t)steps * head->batch;
    const struct at_range_list *lists[] = {&samples->whole, &samples->part};
    for (int l = 0; l < 2; l++)
        for (size_t i = 0; i < lists[l]->count; i++) {
            uint64_t n = lists[l]->r[i].samples;
            if (n >= unit) left += n / unit;
            if (n < unit && n > longest) longest = n;
        }
    if (longest < head->batch || left >= head->replicas) return steps;
    uint64_t fresh = (head->replicas - left) * unit, room = head->epoch_samples - samples->next % head->epoch_samples;
    return fresh <= room ? steps : (uint32_t)(longest / head->batch);
}
