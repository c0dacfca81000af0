/* node_blob.c: blobs by content, fetched piece by piece from whoever has them: the life of a fetch. Whom it asks is in
 * node_blob_peer.c, the wants and their answers are in node_piece.c.
 *
 *   state of a fetch   event                   does                                                     next
 *   (none)             wanted                  asks the driver what is there (BLOB_STAT)                STAT
 *   STAT               complete                done                                                     (none)
 *   STAT               BLOB_STATE              goes on behind what is there                             WAIT
 *   WAIT               a peer is linked        wants the first pieces from it; who is known to have it  RUN
 *                                              comes first, unless it has been busy for two seconds
 *   RUN                the piece that is due   BLOB_WRITE, wants the next                               RUN
 *   RUN                the last piece          BLOB_FINISH                                              CHECK
 *   RUN                Missing, link down      tries the next peer; after all of them: waits a little   WAIT
 *   RUN                wrong size or place     Bye, closes the link                                     WAIT
 *   RUN                the peer is silent      while another one can be asked: goes on there; what the  WAIT
 *                                              silent one owes is kept, should it come first
 *   RUN                it has answered all     as Missing                                               WAIT
 *                      its wants, and not this
 *   CHECK              BLOB_STORED ok          done                                                     (none)
 *   CHECK              BLOB_STORED not ok      drops it, tries another peer; Bye to the one over whose  WAIT
 *                                              link all of it came
 *
 * Silent: a peer that has answered nothing for AT_BLOB_SILENT_MS is passed over, and asked nothing more until it has
 * answered; likewise one that answers, but does not go on with this blob, after AT_TILES_LOST_MS. Tiles change their peer
 * sooner (tiles.h): each is small. Where many ask for large updates over thin lines, answers take their time, and asking
 * a second peer as well makes that worse for all. */
#include "swarm/node_internal.h"

#include <string.h>

struct at_node_fetch *at_node_fetch_find(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key)
{
    uint32_t tag = at_load_le32(key.b);
    for (size_t i = 0; i < m->fetch_top; i++) {
        if (m->fetch_tag[i] != tag) continue;
        struct at_node_fetch *f = &m->fetches[i];
        if (f->state != AT_FETCH_NONE && f->kind == kind && at_hash_eq(f->key, key)) return f;
    }
    return NULL;
}

/* Fetched into memory, from one peer at a time, whose doing it then is when it is wrong. */
static bool in_memory(enum at_blob_kind kind)
{
    return kind == AT_BLOB_GENESIS || kind == AT_BLOB_LEAVES;
}

void at_node_fetch_over(struct at_node_machine *m, struct at_node_fetch *f)
{
    m->updates_cost -= f->cost;
    f->cost = 0;
    f->state = AT_FETCH_NONE;
}

void at_node_fetch_cancel(struct at_node_machine *m, struct at_node_fetch *fetch)
{
    if (!fetch) return;
    bool unknown = fetch->state == AT_FETCH_STAT && !at_node_is_small(m, fetch);
    if (fetch->kind == AT_BLOB_UPDATE && fetch->state != AT_FETCH_CHECK && (fetch->kept || unknown)) {
        /* nobody would ever go on with it */
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_DROP);
        op->read.kind = fetch->kind;
        op->read.key = fetch->key;
    }
    at_node_held_asked(m, fetch, false);
    at_node_fetch_over(m, fetch);
}

/* What is fetched is of the open round, and needed when it has closed; of several stewards it is needed for that. */
static bool is_early(const struct at_node_machine *m, const struct at_node_fetch *f)
{
    bool ahead = f->replica1 && f->round == m->ledger.round && m->ledger.phase == AT_LEDGER_TRAINING;
    return ahead && !f->only_link && !m->is_steward;
}

struct at_node_fetch *at_node_fetch_update(struct at_node_machine *m, uint32_t round, uint32_t replica,
                                           struct at_hash update, uint64_t bytes)
{
    struct at_node_fetch *f = at_node_fetch_find(m, AT_BLOB_UPDATE, update);
    /* A receipt that is in no log may have named it with a size that no honest peer's bytes have. */
    if (f && f->replica1 == 0 && f->bytes_exact != bytes) at_node_fetch_cancel(m, f);
    f = at_node_fetch(m, AT_BLOB_UPDATE, update, bytes, bytes, 0);
    if (!f || (f->replica1 == replica + 1 && f->round == round)) return f;
    f->round = round;
    f->replica1 = replica + 1;
    /* One peer after the other; of an older round all are asked, from the first one on, before it counts as not to be had. */
    if (f->last_link == 0 && m->held.known && m->held.round == round) f->last_link = m->bundle.last_link;
    at_node_held_asked(m, f, true);
    return f;
}

struct at_node_fetch *at_node_fetch(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key,
                                    uint64_t bytes_max, uint64_t bytes_exact, uint64_t only_link)
{
    struct at_node_fetch *f = at_node_fetch_find(m, kind, key);
    for (size_t i = 0; !f && i < AT_NODE_FETCHES_MAX; i++)
        if (m->fetches[i].state == AT_FETCH_NONE) {
            f = &m->fetches[i];
            if (m->fetch_top <= i) m->fetch_top = i + 1;
            m->fetch_tag[i] = at_load_le32(key.b);
            *f = (struct at_node_fetch){.state = in_memory(kind) ? AT_FETCH_WAIT : AT_FETCH_STAT,
                                        .kind = kind,
                                        .key = key,
                                        .bytes_max = bytes_max,
                                        .bytes_exact = bytes_exact,
                                        .moved_ms = m->now_ms};
            if (kind == AT_BLOB_UPDATE) f->cost = at_node_update_cost(m, bytes_exact);
            m->updates_cost += f->cost;
            m->again = true; /* a drive may have begun it that comes after those of fetches: they are to look at it */
            if (in_memory(kind) || at_node_is_small(m, f)) break; /* the small ones are looked for together */
            struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_STAT);
            op->read.kind = kind;
            op->read.key = key;
        }
    if (!f) return NULL;
    f->only_link = only_link;
    return f;
}

void at_node_blob_state(struct at_node_machine *m, const struct at_node_event *e)
{
    if (e->blob.kind == AT_BLOB_STATE) {
        at_node_tiles_stat(m, e);
        return;
    }
    struct at_node_fetch *f = at_node_fetch_find(m, e->blob.kind, e->blob.key);
    if (f && f->state == AT_FETCH_STAT) at_node_fetch_looked(m, f, e->blob.complete, e->blob.bytes_have);
}

void at_node_fetch_looked(struct at_node_machine *m, struct at_node_fetch *f, bool complete, uint64_t bytes_have)
{
    if (complete) {
        at_node_fetch_over(m, f);
        at_node_held_fetched(m, f);
        at_node_fetched(m, f->kind, f->key);
        return;
    }
    f->state = AT_FETCH_WAIT;
    f->moved_ms = m->now_ms;
    f->written = bytes_have;
    f->kept = bytes_have > 0;
    /* A rest that cannot be the beginning of this blob: from the start. The driver overwrites. */
    if (f->written >= (f->bytes_exact ? f->bytes_exact : f->bytes_max)) f->written = 0;
}

void at_node_fetch_start(struct at_node_machine *m, struct at_node_fetch *f)
{
    struct at_node_link *link = at_node_fetch_peer(m, f);
    if (!link) return;
    f->state = AT_FETCH_RUN;
    f->link = f->last_link = m->bundle.last_link = link->id;
    f->asked = f->written;
    f->owed = 0;
    f->ripe_ms = 0;
    f->bundled = false;
    f->moved_ms = m->now_ms;
    at_node_fetch_want(m, f);
}

static void fetch_wait(struct at_node_machine *m, struct at_node_fetch *f, uint32_t wait_ms)
{
    f->state = AT_FETCH_WAIT;
    f->link = f->ripe_ms = 0;
    f->total = 0;
    if (in_memory(f->kind)) f->written = f->late_link = 0;
    f->moved_ms = m->now_ms + wait_ms;
}

/* All have been asked: again soon at first, since it may be on its way to one of them. */
static void fetch_turn(struct at_node_machine *m, struct at_node_fetch *f)
{
    fetch_wait(m, f, f->turns < 3 ? AT_NODE_FETCH_RETRY_MS >> (3 - f->turns) : AT_NODE_FETCH_RETRY_MS);
    f->turns++;
}

/* What it still owes was asked before this: pieces of it must not be taken for answers to what is asked next. */
static void fall_behind(struct at_node_link *link)
{
    if (link->late < link->pieces_out) link->late = link->pieces_out;
}

/* It is not needed yet, and nobody is known to have it: it is looked for again when somebody tells so. */
static bool gives_up(struct at_node_machine *m, struct at_node_fetch *f)
{
    bool look = m->held.look;
    if (!is_early(m, f) || at_node_fetch_holds(m, f) == AT_NODE_HOLDS) return false;
    at_node_fetch_cancel(m, f);
    m->held.look = look; /* nothing new is known by that */
    return true;
}

/* The peer asked does not have it. */
void at_node_fetch_missed(struct at_node_machine *m, struct at_node_fetch *f, struct at_node_link *link)
{
    if (f->owed > 0) fall_behind(link);
    at_node_held_missed(m, f, link);
    if (++f->misses % 4 == 0) f->written = f->late_link = 0; /* perhaps the rest that we kept is longer than the blob */
    if (gives_up(m, f)) return;
    struct at_node_link *next = at_node_fetch_next(m, f, true);
    if (at_node_fetch_holds(m, f) != AT_NODE_HOLDS && (!next || next->id <= f->last_link))
        fetch_turn(m, f);
    else
        fetch_wait(m, f, 0);
}

/* Another peer goes on where this one stopped, if there is one. */
static void pass_over(struct at_node_machine *m, struct at_node_fetch *f, struct at_node_link *link)
{
    uint32_t late = link->late;
    fall_behind(link);
    if (!is_early(m, f)) f->ripe_ms = f->moved_ms; /* it has waited for this one */
    if (at_node_fetch_peer(m, f)) {
        f->late_link = link->id;
        fetch_wait(m, f, 0);
    } else {
        link->late = late;
        f->ripe_ms = 0;
    }
}

static void watch(struct at_node_machine *m, struct at_node_fetch *f)
{
    struct at_node_link *link = at_node_link_find(m, f->link);
    AT_ASSERT(link); /* a link that goes down leaves its fetches */
    if (link->pieces_out == 0 || f->owed == 0)
        at_node_fetch_missed(m, f, link);
    else if (m->now_ms >= link->answer_ms + AT_BLOB_SILENT_MS || m->now_ms >= f->moved_ms + AT_NODE_FETCH_STALL_MS)
        pass_over(m, f, link);
}

void at_node_blob_stored(struct at_node_machine *m, const struct at_node_event *e)
{
    if (e->blob.kind == AT_BLOB_STATE) {
        at_node_tiles_stored(m, e);
        return;
    }
    struct at_node_fetch *f = at_node_fetch_find(m, e->blob.kind, e->blob.key);
    if (f && f->state == AT_FETCH_CHECK) at_node_fetch_stored(m, f, e->blob.ok, e->blob.wrong);
}

/* The bytes are not what the key says. When all came over one link, its peer has sent others; else some may be a rest of an
 * earlier fetch, and nobody is refused. */
static void wrong_blob(struct at_node_machine *m, struct at_node_fetch *f)
{
    struct at_node_link *link = at_node_link_find(m, f->from ? f->from : f->last_link);
    if (!m->wrong_note_ms || m->now_ms >= m->wrong_note_ms + AT_NODE_WRONG_NOTE_MS) {
        m->wrong_note_ms = m->now_ms ? m->now_ms : 1;
        at_node_note(m, "a blob%s%.16s was not what its hash says; it is fetched again", link && f->from ? " of " : "",
                     link && f->from ? at_node_id_hex(&link->node).s : "");
    }
    if (!link) return;
    at_node_held_missed(m, f, link);
    if (!f->from) return;
    at_node_held_lied(m, link);
    at_node_link_refuse(m, link, "a blob that is not what its hash says");
}

void at_node_fetch_stored(struct at_node_machine *m, struct at_node_fetch *f, bool ok, bool wrong)
{
    if (ok) {
        at_node_fetch_over(m, f);
        at_node_held_fetched(m, f);
        at_node_fetched(m, f->kind, f->key);
        return;
    }
    if (f->kept) {
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_DROP);
        op->read.kind = f->kind;
        op->read.key = f->key;
    }
    if (wrong) wrong_blob(m, f);
    if (f->state != AT_FETCH_CHECK) return; /* whoever was to bring it is gone by that, and so is its receipt */
    f->written = f->from = f->late_link = 0;
    f->kept = false;
    f->misses++;
    f->wrong++;
    f->turns++;
    fetch_wait(m, f, AT_NODE_FETCH_RETRY_MS);
}

void at_node_blob_link_down(struct at_node_machine *m, uint64_t link)
{
    at_node_tiles_link_down(m, link);
    for (size_t i = 0; i < m->fetch_top; i++) {
        struct at_node_fetch *f = &m->fetches[i];
        if (f->state == AT_FETCH_RUN && f->link == link) fetch_wait(m, f, 0);
        if (f->state == AT_FETCH_WAIT && f->kind == AT_BLOB_GENESIS) f->written = 0;
    }
}

void at_node_blob_drive(struct at_node_machine *m)
{
    at_node_bundle_drive(m);
    if (!m->has_genesis && at_node_linked(m) && !at_node_fetch_find(m, AT_BLOB_GENESIS, m->options.run))
        at_node_fetch(m, AT_BLOB_GENESIS, m->options.run, AT_GENESIS_BYTES_MAX, 0, 0);
    for (size_t i = 0; i < m->link_top; i++) {
        struct at_node_link *l = &m->links[i];
        if (l->used && !l->closing && l->wants_out > 0 && m->now_ms >= l->answer_ms + AT_NODE_FETCH_STALL_MS)
            at_node_link_refuse(m, l, "the pieces that were asked for do not come");
    }
    while (m->fetch_top > 0 && m->fetches[m->fetch_top - 1].state == AT_FETCH_NONE) m->fetch_top--;
    for (size_t i = 0; i < m->fetch_top; i++) {
        struct at_node_fetch *f = &m->fetches[i];
        if (f->state == AT_FETCH_RUN) watch(m, f);
        if (f->state != AT_FETCH_WAIT || m->now_ms < f->moved_ms || gives_up(m, f)) continue;
        if (is_early(m, f))
            f->ripe_ms = 0;
        else if (!f->ripe_ms)
            f->ripe_ms = m->now_ms;
        if (at_node_is_small(m, f))
            at_node_bundle_ask(m, f);
        else
            at_node_fetch_start(m, f);
    }
}

static void sooner(uint64_t *deadline, uint64_t at, uint64_t now_ms)
{
    if (at > now_ms && at < *deadline) *deadline = at;
}

uint64_t at_node_fetch_deadline_ms(const struct at_node_machine *m)
{
    uint64_t deadline = UINT64_MAX;
    bool many = m->ledger.member_count > AT_NODE_LOOK_MEMBERS;
    for (size_t i = 0; i < m->link_top; i++) {
        const struct at_node_link *l = &m->links[i];
        if (!l->used || l->closing || l->wants_out == 0) continue;
        sooner(&deadline, l->answer_ms + AT_BLOB_SILENT_MS, m->now_ms);
        sooner(&deadline, l->answer_ms + AT_NODE_FETCH_STALL_MS, m->now_ms);
    }
    for (size_t i = 0; i < m->fetch_top; i++) {
        const struct at_node_fetch *f = &m->fetches[i];
        if (f->state == AT_FETCH_WAIT) sooner(&deadline, f->moved_ms, m->now_ms);
        if (f->state == AT_FETCH_WAIT && f->ripe_ms)
            sooner(&deadline, f->ripe_ms + AT_NODE_HELD_PATIENCE_MS, m->now_ms);
        if (f->state != AT_FETCH_RUN) continue;
        sooner(&deadline, f->moved_ms + AT_NODE_FETCH_STALL_MS, m->now_ms);
        if (many && f->kind == AT_BLOB_UPDATE)
            sooner(&deadline, m->bundle.moved_ms + AT_NODE_BUNDLE_IDLE_MS, m->now_ms);
    }
    return deadline;
}

void at_node_fetched(struct at_node_machine *m, enum at_blob_kind kind, struct at_hash key)
{
    if (kind == AT_BLOB_SHARD) {
        if (m->shard_next < m->genesis.shard_count && at_hash_eq(m->genesis.shards[m->shard_next].hash, key))
            m->shard_next++;
        return;
    }
    if (kind == AT_BLOB_UPDATE) at_node_relay_fetched(m, key);
    if (kind == AT_BLOB_UPDATE) at_node_hold_fetched(m, key);
    at_node_state_fetched(m, kind, key);
}
