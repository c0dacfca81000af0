/* node_bundle.c: small updates, many in one message: at a thousand members a want, a piece and an answer for each would be
 * three thousand messages for each of them in every round.
 *
 *   asks                                     answers
 *   for up to 16 that wait to be fetched,    reads them all at once; one message with those that are here, the others
 *   one bundle of a peer at a time           empty. To a peer that asks for a second one meanwhile: Bye
 *
 * For the bounds of wants and pieces a bundle is one. What comes is then looked at as pieces are (node_blob.c): each is a
 * whole blob. */
#include "swarm/node_internal.h"

#include <string.h>

bool at_node_small_update(const struct at_node_machine *m, uint64_t bytes)
{
    return bytes > 0 && bytes <= (m->options.bundle_each ? m->options.bundle_each : AT_BUNDLE_EACH_MAX);
}

bool at_node_is_small(const struct at_node_machine *m, const struct at_node_fetch *f)
{
    return f->kind == AT_BLOB_UPDATE && f->written == 0 && at_node_small_update(m, f->bytes_exact);
}

/* ---- asking ---- */
static void asked(struct at_node_machine *m, struct at_node_fetch *f, uint64_t link)
{
    f->state = AT_FETCH_RUN;
    f->link = f->last_link = link;
    f->asked = f->bytes_exact;
    f->owed = 1;
    f->moved_ms = m->now_ms;
}

/* What is to be fetched is looked for here first (BLOB_STAT): until the last of these answers has come, more may join. */
static bool more_may_join(const struct at_node_machine *m)
{
    for (size_t i = 0; i < m->fetch_top; i++)
        if (m->fetches[i].state == AT_FETCH_STAT && at_node_is_small(m, &m->fetches[i])) return true;
    return false;
}

void at_node_bundle_ask(struct at_node_machine *m, struct at_node_fetch *first)
{
    struct at_node_fetch *all[AT_BUNDLE_MAX];
    struct at_hash keys[AT_BUNDLE_MAX];
    struct at_message msg = {.kind = AT_MSG_BUNDLE_WANT, .bundle_want = {keys, 0}};
    uint32_t n = 0;
    struct at_node_link *link = more_may_join(m) ? NULL : at_node_fetch_peer(m, first);
    for (size_t i = (size_t)(first - m->fetches); link && i < m->fetch_top && n < AT_BUNDLE_MAX; i++) {
        struct at_node_fetch *f = &m->fetches[i];
        bool waits = f->state == AT_FETCH_WAIT && m->now_ms >= f->moved_ms && at_node_is_small(m, f);
        if (waits && at_node_fetch_peer(m, f) == link) all[n++] = f;
    }
    if (n <= 1) {
        if (n == 1) at_node_fetch_start(m, first);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        keys[i] = all[i]->key;
        asked(m, all[i], link->id);
    }
    msg.bundle_want.count = n;
    link->bundle_out = true;
    if (link->wants_out++ == 0) link->answer_ms = m->now_ms;
    link->pieces_out++;
    at_node_send(m, link->id, &msg);
}

void at_node_bundle(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_bundle *bundle)
{
    if (!link->bundle_out || !at_node_fetch_answered(m, link, AT_BLOB_UPDATE)) {
        at_node_link_refuse(m, link, "a bundle that nobody asked for");
        return;
    }
    link->bundle_out = false;
    for (uint32_t i = 0; i < bundle->count && !link->closing; i++) {
        struct at_node_fetch *f = at_node_fetch_find(m, AT_BLOB_UPDATE, bundle->keys[i]);
        struct at_span data = bundle->data[i];
        struct at_msg_piece piece = {
            .kind = AT_BLOB_UPDATE, .key = bundle->keys[i], .offset = 0, .total = data.n, .data = data};
        if (!f || !(f->state == AT_FETCH_RUN || f->state == AT_FETCH_WAIT)) continue;
        bool due = f->state == AT_FETCH_RUN && f->link == link->id;
        if (data.n > 0) {
            at_node_fetch_piece(m, f, link, &piece);
        } else if (due) {
            f->owed = 0;
            at_node_fetch_missed(m, f, link);
        }
    }
}

/* ---- answering ---- */
void at_node_bundle_want(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_bundle_want *want)
{
    bool busy = link->want_count >= AT_NODE_WANTS_MAX || (link->want_reading && link->reading.bytes == 0);
    for (uint32_t i = 0; i < link->want_count; i++) busy = busy || link->want[i].bytes == 0;
    if (busy) {
        at_node_link_refuse(m, link, "too many wants at once");
        return;
    }
    m->tiles.exchange_ms = m->now_ms;
    memcpy(link->bundle, want->keys, want->count * sizeof *want->keys);
    link->bundle_count = want->count;
    link->want[link->want_count++] = (struct at_node_want){.kind = AT_BLOB_UPDATE};
    at_node_serve_next(m, link);
}

void at_node_bundle_read(struct at_node_machine *m, struct at_node_link *link)
{
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BUNDLE_READ);
    op->link = link->id;
    op->bundle.keys = link->bundle;
    op->bundle.count = link->bundle_count;
}

void at_node_bundle_data(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = at_node_link_find(m, e->link);
    struct at_message msg = {.kind = AT_MSG_BUNDLE};
    if (!link || !link->want_reading || link->reading.bytes != 0) return;
    bool drop = link->want_drop || link->closing || e->bundle.count != link->bundle_count;
    link->want_reading = link->want_drop = false;
    if (!drop) {
        link->answered = link->reading;
        msg.bundle = (struct at_msg_bundle){link->bundle, e->bundle.data, link->bundle_count};
        at_node_send(m, link->id, &msg);
    }
    at_node_serve_next(m, link);
}
