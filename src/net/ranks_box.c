#include "net/ranks_box.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NOTES_BYTES_MAX ((size_t)16 << 20)

struct at_arrival {
    struct at_arrival *next;
    uint32_t tag;
    bool asked; /* ASK came first: no byte before the receive is posted */
    size_t total, got;
    uint8_t *side;        /* where it waits; NULL: goes straight into the post */
    struct at_post *post; /* the receive that it belongs to */
};

static void append(struct at_post_list *list, struct at_post *post)
{
    post->next = NULL;
    *(list->last ? &list->last->next : &list->first) = post;
    list->last = post;
}

static void take_out(struct at_post_list *list, struct at_post *post)
{
    struct at_post *before = NULL, *p = list->first;
    for (; p != post; p = p->next) before = p;
    *(before ? &before->next : &list->first) = post->next;
    if (list->last == post) list->last = before;
}

static struct at_post *first_of(const struct at_post_list *list, uint32_t tag)
{
    struct at_post *p = list->first;
    while (p != NULL && p->tag != tag) p = p->next;
    return p;
}

static void write_head(uint8_t *p, enum at_box_kind kind, uint32_t tag, uint64_t total, size_t bytes)
{
    at_store_le32(p, kind);
    at_store_le32(p + 4, tag);
    at_store_le64(p + 8, total);
    at_store_le32(p + 16, (uint32_t)bytes);
    at_store_le32(p + 20, 0);
}

static void arrival_free(struct at_arrival *a)
{
    free(a->side);
    free(a);
}

void at_box_release(struct at_box *b)
{
    while (b->arrivals != NULL) {
        struct at_arrival *a = b->arrivals;
        b->arrivals = a->next;
        arrival_free(a);
    }
    free(b->stage);
    at_buf_release(&b->notes);
    at_buf_release(&b->note);
    memset(b, 0, sizeof *b);
}

/* ---- out ---------------------------------------------------------------------------------------------------------- */

static at_err frame(struct at_box *b, enum at_box_kind kind, uint32_t tag, uint64_t total, struct at_span payload)
{
    uint8_t head[AT_BOX_HEAD_BYTES];
    if (payload.n > AT_BOX_PIECE_BYTES) return AT_E_TOO_BIG;
    b->notes.bytes_max = NOTES_BYTES_MAX;
    write_head(head, kind, tag, total, payload.n);
    at_err_t err = at_buf_append(&b->notes, head, sizeof head);
    if (err == AT_OK && payload.n > 0) err = at_buf_append(&b->notes, payload.p, payload.n);
    return err;
}

at_err_t at_box_note(struct at_box *b, enum at_box_kind kind, struct at_span payload)
{
    AT_ASSERT(kind >= AT_BOX_BEAT && kind < AT_BOX_KINDS);
    if (kind == AT_BOX_BEAT) {
        uint8_t byte = AT_BOX_BEAT;
        b->notes.bytes_max = NOTES_BYTES_MAX;
        return at_buf_append(&b->notes, &byte, 1);
    }
    return frame(b, kind, 0, 0, payload);
}

void at_box_send(struct at_box *b, struct at_post *post)
{
    post->moved = 0;
    post->asked = post->granted = post->done = false;
    if (!b->let_go) append(&b->sends, post);
}

static bool may_go(const struct at_box *b, const struct at_post *post)
{
    if (post->asked && !post->granted) return false;
    for (const struct at_post *p = b->sends.first; p != post; p = p->next)
        if (p->tag == post->tag) return false; /* messages of a tag go one after the other */
    return true;
}

/* The earliest small message that may go, else the earliest large one. */
static struct at_post *choose(const struct at_box *b)
{
    struct at_post *large = NULL;
    for (struct at_post *p = b->sends.first; p != NULL; p = p->next) {
        bool small = p->n <= AT_BOX_SMALL_BYTES;
        if ((!small && large != NULL) || !may_go(b, p)) continue;
        if (small) return p;
        large = p;
    }
    return large;
}

static void sent(struct at_box *b, struct at_post *post, size_t n)
{
    post->moved += n;
    if (post->moved < post->n) return;
    take_out(&b->sends, post);
    post->done = true;
    b->finished = true;
}

/* A piece of `post` into the stage, as far as it fits; the rest of it becomes the body. */
static void stage_piece(struct at_box *b, struct at_post *post)
{
    size_t n = post->n - post->moved < AT_BOX_PIECE_BYTES ? post->n - post->moved : AT_BOX_PIECE_BYTES;
    size_t room = AT_BOX_STAGE_BYTES - b->stage_n - AT_BOX_HEAD_BYTES, staged = n < room ? n : room;
    const uint8_t *from = post->bytes + post->moved;
    write_head(b->stage + b->stage_n, post->asked ? AT_BOX_GRANTED : AT_BOX_DATA, post->tag, post->n, n);
    memcpy(b->stage + b->stage_n + AT_BOX_HEAD_BYTES, from, staged);
    b->stage_n += AT_BOX_HEAD_BYTES + staged;
    if (n > staged) {
        b->body_of = post;
        b->body = from + staged;
        b->body_n = n - staged;
    }
    sent(b, post, staged);
}

static void stage_notes(struct at_box *b)
{
    size_t room = AT_BOX_STAGE_BYTES - b->stage_n, n = b->notes.n < room ? b->notes.n : room;
    if (n == 0) return;
    memcpy(b->stage + b->stage_n, b->notes.p, n);
    at_buf_consume(&b->notes, n);
    b->stage_n += n;
}

static at_err fill_stage(struct at_box *b)
{
    if (b->stage == NULL && (b->stage = malloc(AT_BOX_STAGE_BYTES)) == NULL) return AT_E_NOMEM;
    b->stage_at = b->stage_n = 0;
    for (;;) {
        stage_notes(b);
        if (b->notes.n > 0 || b->body_n > 0 || AT_BOX_STAGE_BYTES - b->stage_n <= AT_BOX_HEAD_BYTES) return AT_OK;
        struct at_post *post = choose(b);
        if (post == NULL) return AT_OK;
        if (post->moved == 0 && !post->asked) {
            size_t cost = post->n + AT_BOX_COST_BYTES;
            if (cost > AT_RANKS_EAGER_BYTES || b->eager_out > AT_RANKS_EAGER_BYTES - cost) {
                post->asked = true;
                at_err_t err = frame(b, AT_BOX_ASK, post->tag, post->n, (struct at_span){0});
                if (err != AT_OK) return err;
                continue;
            }
            b->eager_out += cost;
        }
        stage_piece(b, post);
    }
}

at_err_t at_box_out_next(struct at_box *b, struct at_span *ret_bytes)
{
    if (b->stage_at == b->stage_n && b->body_n == 0 && (b->notes.n > 0 || b->sends.first != NULL)) {
        at_err_t err = fill_stage(b);
        if (err != AT_OK) return err;
    }
    *ret_bytes = b->stage_at < b->stage_n ? at_span(b->stage + b->stage_at, b->stage_n - b->stage_at)
                                          : at_span(b->body, b->body_n);
    return AT_OK;
}

void at_box_out_took(struct at_box *b, size_t n)
{
    if (b->stage_at < b->stage_n) {
        AT_ASSERT(n <= b->stage_n - b->stage_at);
        b->stage_at += n;
        return;
    }
    AT_ASSERT(n <= b->body_n);
    if (n == 0 && b->body == NULL) return;
    b->body += n;
    b->body_n -= n;
    if (b->body_of != NULL) sent(b, b->body_of, n);
    if (b->body_n == 0) b->body_of = NULL;
}

bool at_box_out_pending(const struct at_box *b)
{
    return b->stage_at < b->stage_n || b->body_n > 0 || b->notes.n > 0 || choose(b) != NULL;
}

/* ---- in ----------------------------------------------------------------------------------------------------------- */

static void unlink_arrival(struct at_box *b, struct at_arrival *a)
{
    struct at_arrival **at = &b->arrivals;
    while (*at != a) at = &(*at)->next;
    *at = a->next;
}

/* The message has all its bytes and its receive: over. */
static at_err deliver(struct at_box *b, struct at_arrival *a)
{
    if (a->side != NULL) memcpy(a->post->bytes, a->side, a->total);
    a->post->moved = a->total;
    a->post->done = true;
    b->finished = true;
    b->bound--;
    if (a->asked)
        b->asks--;
    else
        b->credit_due += a->total + AT_BOX_COST_BYTES;
    unlink_arrival(b, a);
    arrival_free(a);
    if (b->credit_due < AT_RANKS_EAGER_BYTES / 8) return AT_OK;
    at_err_t err = frame(b, AT_BOX_CREDIT, 0, b->credit_due, (struct at_span){0});
    b->eager_in -= b->credit_due;
    b->credit_due = 0;
    return err;
}

static at_err bind(struct at_box *b, struct at_arrival *a, struct at_post *post, struct at_diag *diag)
{
    if (a->total != post->n)
        return at_fail(diag, AT_E_PEER, "links", "sends %zu bytes with tag %" PRIu32 " where %zu are expected",
                       a->total, a->tag, post->n);
    a->post = post;
    b->bound++;
    return a->asked ? frame(b, AT_BOX_GRANT, a->tag, a->total, (struct at_span){0}) : AT_OK;
}

at_err_t at_box_recv(struct at_box *b, struct at_post *post, struct at_diag *diag)
{
    post->moved = 0;
    post->asked = post->granted = post->done = false;
    if (b->let_go) return AT_OK;
    struct at_arrival *a = b->arrivals;
    while (a != NULL && (a->tag != post->tag || a->post != NULL)) a = a->next;
    if (a == NULL) {
        append(&b->recvs, post);
        return AT_OK;
    }
    at_err_t err = bind(b, a, post, diag);
    return err == AT_OK && a->got == a->total ? deliver(b, a) : err;
}

static at_err begin_message(struct at_box *b, size_t total, bool asked, struct at_diag *diag,
                            struct at_arrival **ret_arrival)
{
    size_t cost = total + AT_BOX_COST_BYTES;
    if (!asked && (cost > AT_RANKS_EAGER_BYTES || b->eager_in > AT_RANKS_EAGER_BYTES - cost))
        return at_fail(diag, AT_E_PEER, "links", "sends more than it may without being asked");
    if (asked && b->asks == AT_BOX_ASKS_MAX)
        return at_fail(diag, AT_E_PEER, "links", "asks for more than %d messages at once", AT_BOX_ASKS_MAX);
    struct at_arrival *a = calloc(1, sizeof *a), **end = &b->arrivals;
    struct at_post *post = first_of(&b->recvs, b->tag);
    if (a == NULL) return AT_E_NOMEM;
    *a = (struct at_arrival){.tag = b->tag, .asked = asked, .total = total};
    if (!asked && post == NULL && (a->side = malloc(total)) == NULL) {
        free(a);
        return AT_E_NOMEM;
    }
    while (*end != NULL) end = &(*end)->next;
    *end = a;
    *ret_arrival = a;
    if (asked)
        b->asks++;
    else
        b->eager_in += cost;
    if (post == NULL) return AT_OK;
    take_out(&b->recvs, post);
    return bind(b, a, post, diag);
}

static at_err begin_data(struct at_box *b, size_t total, size_t bytes, struct at_diag *diag)
{
    struct at_arrival *a = b->arrivals;
    bool granted = b->kind == AT_BOX_GRANTED;
    at_err_t err = AT_OK;
    while (a != NULL && (a->tag != b->tag || a->got == a->total)) a = a->next; /* at most one is unfinished */
    if (b->kind == AT_BOX_ASK) {
        if (a != NULL || bytes != 0 || total == 0) return at_fail(diag, AT_E_PEER, "links", "asks out of turn");
        return begin_message(b, total, true, diag, &a);
    }
    if (bytes == 0 || bytes > total || (a == NULL && granted))
        return at_fail(diag, AT_E_PEER, "links", "sends a piece of nothing");
    if (a == NULL) err = begin_message(b, total, false, diag, &a);
    if (err != AT_OK) return err;
    if (a->asked != granted || (granted && a->post == NULL) || a->total != total || bytes > total - a->got)
        return at_fail(diag, AT_E_PEER, "links", "sends a piece that does not fit its message");
    b->current = a;
    return AT_OK;
}

static at_err take_grant(struct at_box *b, size_t total, struct at_diag *diag)
{
    struct at_post *post = first_of(&b->sends, b->tag);
    if (b->let_go) return AT_OK;
    if (post == NULL || !post->asked || post->granted || post->n != total)
        return at_fail(diag, AT_E_PEER, "links", "grants what was not asked");
    post->granted = true;
    return AT_OK;
}

/* A head is complete. */
static at_err begin_frame(struct at_box *b, struct at_diag *diag)
{
    uint64_t total = at_load_le64(b->head + 8);
    size_t bytes = at_load_le32(b->head + 16);
    b->kind = at_load_le32(b->head);
    b->tag = at_load_le32(b->head + 4);
    b->left = bytes;
    b->current = NULL;
    if (b->kind == 0 || b->kind >= AT_BOX_KINDS || at_load_le32(b->head + 20) != 0 || bytes > AT_BOX_PIECE_BYTES ||
        total > SIZE_MAX / 2)
        return at_fail(diag, AT_E_PEER, "links", "sends no frame of this program's");
    if (b->kind == AT_BOX_DATA || b->kind == AT_BOX_GRANTED || b->kind == AT_BOX_ASK)
        return b->let_go ? AT_OK : begin_data(b, (size_t)total, bytes, diag);
    if (b->kind == AT_BOX_GRANT || b->kind == AT_BOX_CREDIT) {
        if (bytes != 0) return at_fail(diag, AT_E_PEER, "links", "sends a grant with a payload");
        if (b->kind == AT_BOX_GRANT) return take_grant(b, (size_t)total, diag);
        if (total > b->eager_out) return at_fail(diag, AT_E_PEER, "links", "gives back more than it got");
        b->eager_out -= (size_t)total;
        return AT_OK;
    }
    at_buf_clear(&b->note);
    uint8_t *room;
    return bytes > 0 ? at_buf_reserve(&b->note, bytes, &room) : AT_OK;
}

void at_box_in_next(struct at_box *b, uint8_t **ret_p, size_t *ret_n)
{
    if (b->left == 0) {
        *ret_p = b->head + b->head_n;
        *ret_n = AT_BOX_HEAD_BYTES - b->head_n;
    } else if (b->kind >= AT_BOX_BEAT) {
        *ret_p = b->note.p + b->note.n;
        *ret_n = b->left;
    } else if (b->current == NULL) {
        *ret_p = b->discard;
        *ret_n = b->left < sizeof b->discard ? b->left : sizeof b->discard;
    } else {
        struct at_arrival *a = b->current;
        *ret_p = (a->side != NULL ? a->side : a->post->bytes) + a->got;
        *ret_n = b->left;
    }
}

at_err_t at_box_in_took(struct at_box *b, size_t n, struct at_diag *diag, enum at_box_kind *ret_kind)
{
    *ret_kind = 0;
    if (b->left == 0) {
        b->head_n += n;
        while (b->head_n > 0 && b->head[0] == AT_BOX_BEAT) {
            b->beat = true;
            memmove(b->head, b->head + 1, --b->head_n);
        }
        if (b->head_n < AT_BOX_HEAD_BYTES) return AT_OK;
        b->head_n = 0;
        at_err_t err = begin_frame(b, diag);
        if (err != AT_OK || b->left > 0) return err;
        if (b->kind >= AT_BOX_BEAT) *ret_kind = b->kind;
        return AT_OK;
    }
    AT_ASSERT(n <= b->left);
    b->left -= n;
    if (b->kind >= AT_BOX_BEAT) {
        b->note.n += n;
        if (b->left == 0) *ret_kind = b->kind;
    } else if (b->current != NULL) {
        struct at_arrival *a = b->current;
        a->got += n;
        if (b->left > 0) return AT_OK;
        b->current = NULL;
        if (a->got == a->total && a->post != NULL) return deliver(b, a);
    }
    return AT_OK;
}

bool at_box_expects(const struct at_box *b)
{
    return b->recvs.first != NULL || b->bound > 0;
}

at_err_t at_box_let_go(struct at_box *b)
{
    b->let_go = true;
    b->sends = b->recvs = (struct at_post_list){0};
    b->current = NULL;
    b->bound = 0;
    while (b->arrivals != NULL) {
        struct at_arrival *a = b->arrivals;
        b->arrivals = a->next;
        arrival_free(a);
    }
    if (b->body_of == NULL || b->body_n == 0) return AT_OK;
    /* The head of this piece is out: the rest must follow, from a copy, before any note. */
    struct at_buf rest = {.bytes_max = NOTES_BYTES_MAX};
    at_err_t err = at_buf_append(&rest, b->body, b->body_n);
    if (err == AT_OK && b->notes.n > 0) err = at_buf_append(&rest, b->notes.p, b->notes.n);
    at_buf_release(&b->notes);
    b->notes = rest;
    b->body_of = NULL;
    b->body_n = 0;
    return err;
}
