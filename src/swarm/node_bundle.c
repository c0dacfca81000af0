/* node_bundle.c: updates that are no larger than a piece, many in one want: at a thousand members a want, a piece, and a
 * question and an answer of the disk for each would be five events for each pair of members in every round.
 *
 *   asks                                     answers
 *   the disk which of up to 16 are there     all at once
 *   for up to 16 that wait to be fetched     reads as many as fill a message, sends them, reads on: one or several
 *   (4 of a peer that has given none yet),   bundles, in the order of the want, those that are not here empty. To a peer
 *   one want of a peer at a time             that asks for more meanwhile: Bye
 *   a bundle of others than the next of the
 *   want, or one that could hold more: Bye
 *   the disk to keep all of a bundle         each is checked against its key; all at once
 *
 * A single one goes in pieces. For the bounds of wants and pieces such a want is one, until the last of its bundles has come. What comes is looked at
 * as pieces are (node_blob.c): each is a whole blob. */
#include "swarm/node_internal.h"

#include <string.h>

static uint32_t bundle_bytes(const struct at_node_machine *m)
{
    return m->options.bundle_bytes ? m->options.bundle_bytes : AT_BUNDLE_BYTES_MAX;
}

/* Does it go in bundles? */
bool at_node_small_update(const struct at_node_machine *m, uint64_t bytes)
{
    return bytes > 0 && bytes <= bundle_bytes(m);
}

uint32_t at_node_update_cost(const struct at_node_machine *m, uint64_t bytes)
{
    if (!at_node_small_update(m, bytes)) return AT_NODE_APPLY_SMALL;
    bool many = m->ledger.member_count > AT_NODE_LOOK_MEMBERS;
    return bytes <= bundle_bytes(m) / AT_BUNDLE_MAX ? 1 : AT_NODE_APPLY_SMALL / (many ? 4 : 2);
}

bool at_node_bundle_fills(const struct at_node_machine *m)
{
    if (m->ledger.member_count <= AT_NODE_LOOK_MEMBERS) return true;
    return m->updates_cost <= AT_NODE_UPDATES_COST / 2 || m->now_ms >= m->bundle.moved_ms + AT_NODE_BUNDLE_IDLE_MS;
}

bool at_node_is_small(const struct at_node_machine *m, const struct at_node_fetch *f)
{
    return f->kind == AT_BLOB_UPDATE && f->written == 0 && at_node_small_update(m, f->bytes_exact);
}

/* ---- what is there already ---- */
static void stat_ask(struct at_node_machine *m)
{
    uint32_t n = 0;
    for (size_t i = 0; i < m->fetch_top && n < AT_BUNDLE_MAX && !m->bundle.looking; i++)
        if (m->fetches[i].state == AT_FETCH_STAT && at_node_is_small(m, &m->fetches[i]))
            m->bundle.look[n++] = m->fetches[i].key;
    if (n == 0) return;
    m->bundle.looking = true;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BUNDLE_STAT);
    op->bundle.keys = m->bundle.look;
    op->bundle.count = n;
}

void at_node_bundle_state(struct at_node_machine *m, const struct at_node_event *e)
{
    m->bundle.looking = false;
    for (uint32_t i = 0; i < e->bundle.count && i < AT_BUNDLE_MAX; i++) {
        struct at_node_fetch *f = at_node_fetch_find(m, AT_BLOB_UPDATE, m->bundle.look[i]);
        if (f && f->state == AT_FETCH_STAT) at_node_fetch_looked(m, f, e->bundle.ok >> i & 1, 0);
    }
}

/* ---- asking ---- */
static void asked(struct at_node_machine *m, struct at_node_fetch *f, uint64_t link)
{
    f->state = AT_FETCH_RUN;
    f->link = f->last_link = link;
    f->asked = f->bytes_exact;
    f->owed = 1;
    f->ripe_ms = 0;
    f->bundled = true;
    m->bundle.last_link = link;
    m->bundle.moved_ms = f->moved_ms = m->now_ms;
}

/* What is to be fetched is looked for here first: until the last of these answers has come, more may join. */
static bool more_may_join(const struct at_node_machine *m)
{
    for (size_t i = 0; i < m->fetch_top; i++)
        if (m->fetches[i].state == AT_FETCH_STAT && at_node_is_small(m, &m->fetches[i])) return true;
    return false;
}

void at_node_bundle_ask(struct at_node_machine *m, struct at_node_fetch *first)
{
    struct at_node_fetch *all[AT_BUNDLE_MAX];
    struct at_message msg = {.kind = AT_MSG_BUNDLE_WANT};
    uint32_t n = 0;
    struct at_node_link *link = more_may_join(m) ? NULL : at_node_fetch_peer(m, first);
    uint32_t most = link && link->cold->gave ? AT_BUNDLE_MAX : AT_NODE_HELD_MISSES;
    for (size_t i = (size_t)(first - m->fetches); link && i < m->fetch_top && n < most; i++) {
        struct at_node_fetch *f = &m->fetches[i];
        bool waits = f->state == AT_FETCH_WAIT && m->now_ms >= f->moved_ms && at_node_is_small(m, f);
        if (waits && at_node_fetch_suits(m, f, link)) all[n++] = f;
    }
    if (n <= 1) {
        if (n == 1) at_node_fetch_start(m, first);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        link->cold->asked[i] = all[i]->key;
        link->cold->asked_bytes[i] = all[i]->bytes_exact;
        asked(m, all[i], link->id);
    }
    link->bundle_out = link->cold->asked_count = n;
    msg.bundle_want = (struct at_msg_bundle_want){link->cold->asked, n};
    if (link->wants_out++ == 0) link->answer_ms = m->now_ms;
    link->pieces_out++;
    at_node_send(m, link->id, &msg);
}

/* What the link's want still waits for: it has moved; or, when that was all, was not in it. */
static void others_of(struct at_node_machine *m, struct at_node_link *link, bool all)
{
    for (size_t i = 0; i < m->fetch_top && !link->closing; i++) {
        struct at_node_fetch *f = &m->fetches[i];
        if (f->state != AT_FETCH_RUN || !f->bundled || f->link != link->id) continue;
        f->moved_ms = m->now_ms;
        if (!all) continue;
        f->owed = 0;
        at_node_fetch_missed(m, f, link);
    }
}

/* NULL: the next of the link's want, in its order, and all of it or as many as fit in one message. So sixteen updates cannot
 * be held up by answers that bring nothing. */
static const char *bundle_fault(const struct at_node_machine *m, const struct at_node_link *link,
                                const struct at_msg_bundle *bundle)
{
    uint32_t next = link->cold->asked_count - link->bundle_out;
    uint64_t bytes = 0;
    if (bundle->count > link->bundle_out) return "a bundle that nobody asked for";
    for (uint32_t i = 0; i < bundle->count; i++) {
        if (!at_hash_eq(bundle->keys[i], link->cold->asked[next + i]))
            return "a bundle of other updates than the next ones";
        bytes += bundle->data[i].n;
    }
    bool all = bundle->count == link->bundle_out;
    if (!all && bytes + link->cold->asked_bytes[next + bundle->count] <= bundle_bytes(m))
        return "a bundle that has room for the next update";
    return NULL;
}

void at_node_bundle(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_bundle *bundle)
{
    struct at_node_op *op = NULL;
    bool plain = !m->tiles.out_blocked && m->now_ms < m->bundle.moved_ms + AT_NODE_BUNDLE_IDLE_MS;
    const char *fault = bundle_fault(m, link, bundle);
    if (fault) {
        at_node_link_refuse(m, link, fault);
        return;
    }
    link->bundle_out -= bundle->count;
    link->answer_ms = m->now_ms;
    if (link->bundle_out == 0) (void)at_node_fetch_answered(m, link, AT_BLOB_UPDATE);
    for (uint32_t i = 0; i < bundle->count && !link->closing; i++) {
        struct at_node_fetch *f = at_node_fetch_find(m, AT_BLOB_UPDATE, bundle->keys[i]);
        struct at_span data = bundle->data[i];
        struct at_msg_piece piece = {
            .kind = AT_BLOB_UPDATE, .key = bundle->keys[i], .offset = 0, .total = data.n, .data = data};
        plain = plain && data.n > 0;
        if (!f || !(f->state == AT_FETCH_RUN || f->state == AT_FETCH_WAIT)) continue;
        bool due = f->state == AT_FETCH_RUN && f->link == link->id;
        if (data.n == 0 && due) {
            f->owed = 0;
            at_node_fetch_missed(m, f, link);
        }
        if (data.n == 0 || !at_node_fetch_whole(m, f, link, &piece)) continue;
        link->cold->gave = true;
        if (!op) {
            op = at_node_op_add(m, AT_NODE_OP_BUNDLE_WRITE);
            op->bundle.keys = m->bundle.write;
            op->bundle.data = m->bundle.data;
        }
        m->bundle.write[op->bundle.count] = f->key;
        m->bundle.data[op->bundle.count++] = data;
    }
    if (!link->closing) others_of(m, link, link->bundle_out == 0);
    if (!link->closing && link->bundle_out > 0 && plain) at_node_quiet(m); /* in the middle of a want */
}

/* Nothing can be done yet with what is here now: others of the open round are under way, as many as may be, and when they are
 * told of is settled. */
static bool more_is_due(const struct at_node_machine *m)
{
    bool open = m->ledger.phase == AT_LEDGER_TRAINING && !m->is_steward && m->receipt_top == 0 && !m->finishing;
    return open && m->ledger.member_count > AT_NODE_LOOK_MEMBERS && m->updates_cost > AT_NODE_UPDATES_COST / 2;
}

void at_node_bundle_stored(struct at_node_machine *m, const struct at_node_event *e)
{
    bool told = m->held.fresh_ms > 0, all = true;
    for (uint32_t i = 0; i < e->bundle.count && (i + 1) * sizeof(struct at_hash) <= e->bytes.n; i++) {
        struct at_hash key;
        memcpy(key.b, e->bytes.p + i * sizeof key.b, sizeof key.b);
        struct at_node_fetch *f = at_node_fetch_find(m, AT_BLOB_UPDATE, key);
        bool ok = e->bundle.ok >> i & 1; /* nothing but the hash makes it not so */
        if (f && f->state == AT_FETCH_CHECK) at_node_fetch_stored(m, f, ok, !ok);
        all = all && ok;
    }
    if (told && all && more_is_due(m)) at_node_quiet(m);
}

/* ---- answering ---- */
void at_node_bundle_want(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_bundle_want *want)
{
    bool busy =
        link->cold->want_count >= AT_NODE_WANTS_MAX || (link->cold->want_reading && link->cold->reading.bytes == 0);
    for (uint32_t i = 0; i < link->cold->want_count; i++) busy = busy || link->cold->want[i].bytes == 0;
    if (busy) {
        at_node_link_refuse(m, link, "too many wants at once");
        return;
    }
    m->tiles.exchange_ms = m->now_ms;
    memcpy(link->cold->bundle, want->keys, want->count * sizeof *want->keys);
    link->cold->bundle_count = want->count;
    link->cold->bundle_at = link->cold->bundle_before = 0;
    link->cold->want[link->cold->want_count++] = (struct at_node_want){.kind = AT_BLOB_UPDATE};
    at_node_serve_next(m, link);
    if (!m->tiles.out_blocked) at_node_quiet(m);
}

void at_node_bundle_read(struct at_node_machine *m, struct at_node_link *link)
{
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BUNDLE_READ);
    op->link = link->id;
    op->bundle.keys = link->cold->bundle + link->cold->bundle_at;
    op->bundle.count = link->cold->bundle_count - link->cold->bundle_at;
    op->bundle.bytes_max = bundle_bytes(m);
}

void at_node_bundle_data(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = at_node_link_find(m, e->link);
    struct at_message msg = {.kind = AT_MSG_BUNDLE};
    if (!link || !link->cold->want_reading || link->cold->reading.bytes != 0) return;
    uint32_t left = link->cold->bundle_count - link->cold->bundle_at, count = e->bundle.count;
    bool drop = link->cold->want_drop || link->closing || count < 1 || count > left;
    link->cold->want_reading = link->cold->want_drop = false;
    if (!drop) {
        link->cold->answered = link->cold->reading;
        msg.bundle = (struct at_msg_bundle){link->cold->bundle + link->cold->bundle_at, e->bundle.data, count};
        at_node_send(m, link->id, &msg);
        link->cold->bundle_before = link->cold->bundle_at;
        link->cold->bundle_at += count;
        if (count < left) at_node_serve_first(link, &link->cold->reading);
    }
    at_node_serve_next(m, link);
    if (!m->tiles.out_blocked) at_node_quiet(m);
}

void at_node_bundle_drive(struct at_node_machine *m)
{
    stat_ask(m);
}
