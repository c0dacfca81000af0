/* simplex_net_test_util.h: for tests: stewards on a virtual network, deterministic from one seed: latency, reordering,
 * loss, duplicates, one-way partitions, crashes with lost unsynced writes, skewed clocks, hostile seats
 * (simplex_hostile_test_util.h), and judges outside the machines.
 *
 * Judged on every step: an honest key never sends two votes that exclude each other; finals of all honest seats are
 * prefixes of one chain; views and times in it ascend; the bytes of every final block are in the store and its records
 * hold. Judged at the end: what was submitted after the faults is final at every honest seat, and none of them
 * abstains. */
#ifndef ATOLL_CONSENSUS_SIMPLEX_NET_TEST_UTIL_H
#define ATOLL_CONSENSUS_SIMPLEX_NET_TEST_UTIL_H

#include "base/rng.h"
#include "consensus/simplex_disk_test_util.h"
#include "consensus/simplex_internal.h"

#include <stdarg.h>
#include <stdio.h>

#define NET_ACTORS_MAX 64
#define NET_VIEWS_MAX  4096
#define NET_CHAIN_MAX  4096
#define NET_TERM       3
#define NET_EPOCH_MS   UINT64_C(1790000000000)
#define NET_CHAIN_LINK 1024 /* length of the beacon's chains */

enum hostile {
    HONEST,
    HOSTILE_SILENT,
    HOSTILE_TWINS,  /* two honest machines with one key, each linked to some: equivocates, partially proposes */
    HOSTILE_DOUBLE, /* one machine, and votes for everything it sees, to some */
    HOSTILE_WILD,   /* signs whatever: blocks with forbidden parents, random votes, certificates, garbage */
    HOSTILE_MEAN,   /* one machine; keeps finality to itself, and proposes to f+1 seats only */
    HOSTILE_COUNT
};

struct net_options {
    uint64_t seed;
    uint32_t n;
    enum hostile hostile[AT_SEATS_MAX];
    uint32_t latency_min_ms, latency_max_ms, fsync_max_ms, skew_ms;
    uint32_t loss_permille, duplicate_permille, spike_permille; /* a spike: a latency up to 20 times as long */
    bool crashes, partitions;
    uint32_t faults_ms; /* until then */
    uint32_t views_max, delta_ms, delta_max_ms;
    unsigned canary;
    bool real_signatures;
};

enum net_what { NET_DELIVER, NET_TICK, NET_PERSISTED, NET_SUBMIT, NET_CRASH, NET_RESTART, NET_PARTITION, NET_BABBLE };
struct net_event {
    uint64_t at_ms, seq;
    enum net_what what;
    uint32_t actor, from, life;
    uint64_t arg;
    struct at_buf bytes; /* owned */
};

struct net_actor {
    uint32_t seat;
    bool honest;
    struct at_simplex *x; /* NULL: down */
    struct disk disk;
    uint32_t life;
    uint64_t tick_at, persist_at;
    int64_t skew_ms;
    size_t final_count;
    uint32_t linked[AT_SEATS_MAX]; /* twins: talks to this seat's actors */
    struct net *net;
};

struct net_cast { /* what an honest seat has sent in a view */
    uint32_t has;
    struct at_hash hash[AT_VOTE_KIND_COUNT];
};

struct net {
    struct net_options o;
    uint64_t now_ms, seq, draws;
    struct at_hash run;
    struct at_keypair keys[AT_SEATS_MAX];
    struct at_beacon_chain chains[AT_SEATS_MAX];
    struct net_actor actors[NET_ACTORS_MAX];
    uint32_t actor_count;
    struct net_event *heap;
    size_t heap_count, heap_cap;
    bool cut[AT_SEATS_MAX][AT_SEATS_MAX]; /* from, to */
    bool calm;                            /* the faults are over */
    bool finals_lost;                     /* no finalise vote arrives anywhere */
    struct at_agree_mem mem;
    struct at_block_room room;
    struct at_hash seen_hash[64]; /* for hostile seats: what they may play with */
    uint64_t seen_view[64];
    /* judges */
    struct net_cast *cast[AT_SEATS_MAX]; /* [view] */
    struct {
        struct at_hash hash;
        uint64_t view, time_ms;
    } chain[NET_CHAIN_MAX];
    size_t chain_count;
    uint32_t submitted;              /* records after the faults, 1 .. */
    uint32_t final_of[AT_SEATS_MAX]; /* how many of these are final there */
    bool violated, broken;           /* broken: a machine has seen it by itself; the judges must, too */
    char violation[256];
    /* counts */
    uint64_t messages, bytes, evidence, crashes, views;
    uint64_t last_final_ms; /* at the last seat to learn of the newest final block */
};

static inline uint64_t net_draw(struct net *w, uint64_t below)
{
    struct at_philox p = at_philox(w->o.seed, AT_RNG_TEST, 77, w->draws++);
    return ((uint64_t)p.v[0] << 32 | p.v[1]) % below;
}
static inline bool net_chance(struct net *w, uint32_t permille)
{
    return net_draw(w, 1000) < permille;
}

static inline void net_violation(struct net *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void net_violation(struct net *w, const char *fmt, ...)
{
    if (w->violated) return;
    w->violated = true;
    va_list args;
    va_start(args, fmt);
    vsnprintf(w->violation, sizeof w->violation, fmt, args);
    va_end(args);
}

/* Draws stand in statements of their own: the order of evaluation inside an expression is the compiler's. */

/* ---- events in order of time, then of their making ---- */
static inline bool net_before(const struct net_event *a, const struct net_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->seq < b->seq;
}

static inline void net_push(struct net *w, struct net_event e)
{
    if (w->heap_count == w->heap_cap) {
        w->heap_cap = w->heap_cap ? 2 * w->heap_cap : 1024;
        w->heap = realloc(w->heap, w->heap_cap * sizeof *w->heap);
        AT_ASSERT(w->heap != NULL);
    }
    e.seq = w->seq++;
    size_t i = w->heap_count++;
    while (i != 0 && net_before(&e, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = e;
}

static inline struct net_event net_pop(struct net *w)
{
    struct net_event top = w->heap[0], last = w->heap[--w->heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->heap_count) break;
        if (child + 1 < w->heap_count && net_before(&w->heap[child + 1], &w->heap[child])) child++;
        if (!net_before(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* ---- signatures: Ed25519, or a hash that costs nothing and that nobody here can forge by accident ---- */
static inline struct at_sig net_cheap_sig(uint32_t seat, struct at_span text)
{
    uint8_t buf[4 + AT_VOTE_TEXT_BYTES];
    at_store_le32(buf, seat);
    memcpy(buf + 4, text.p, text.n);
    struct at_hash h = at_sha256(buf, 4 + text.n);
    struct at_sig sig;
    memcpy(sig.b, h.b, sizeof h.b);
    memcpy(sig.b + sizeof h.b, h.b, sizeof h.b);
    return sig;
}

static inline void net_sign_as(struct net *w, struct at_vote *vote)
{
    uint8_t text[AT_VOTE_TEXT_BYTES];
    at_vote_text(vote, w->run, NET_TERM, text);
    struct at_span span = at_span(text, sizeof text);
    vote->sig = w->o.real_signatures ? at_sign(&w->keys[vote->seat], span) : net_cheap_sig(vote->seat, span);
}

static inline void net_sign(void *user, struct at_vote *vote)
{
    struct net_actor *a = user;
    AT_ASSERT(vote->seat == a->seat);
    net_sign_as(a->net, vote);
}

static inline at_err_t net_verify(void *user, const struct at_vote *vote)
{
    struct net *w = ((struct net_actor *)user)->net;
    if (w->o.real_signatures) return at_vote_verify(vote, &w->keys[vote->seat].id, w->run, NET_TERM, NULL);
    uint8_t text[AT_VOTE_TEXT_BYTES];
    at_vote_text(vote, w->run, NET_TERM, text);
    struct at_sig sig = net_cheap_sig(vote->seat, at_span(text, sizeof text));
    return memcmp(sig.b, vote->sig.b, sizeof sig.b) == 0 ? AT_OK : AT_E_SIGNATURE;
}

/* A record: its number, and whether its "signature" holds. Numbers >= 1 were submitted after the faults. */
static inline struct at_signed_record net_record(uint32_t number, uint64_t salt)
{
    struct at_signed_record r;
    memset(&r, 0, sizeof r);
    r.sig.b[0] = 1;
    r.body_bytes = 200;
    at_store_le32(r.body, number);
    at_store_le64(r.body + 4, salt);
    return r;
}

static inline at_err_t net_check(void *user, const struct at_signed_record *record, struct at_diag *diag)
{
    (void)user;
    (void)diag;
    return record->sig.b[0] == 1 ? AT_OK : AT_E_SIGNATURE;
}

/* ---- the judges ---- */
static inline void net_judge_vote(struct net *w, const struct net_actor *a, const struct at_vote *vote)
{
    if (vote->seat != a->seat) {
        net_violation(w, "seat %u sends a vote of seat %u as its own", a->seat, vote->seat);
        return;
    }
    if (vote->view >= NET_VIEWS_MAX) return;
    struct net_cast *c = &w->cast[a->seat][vote->view];
    for (int k = AT_VOTE_BLOCK; k < AT_VOTE_KIND_COUNT; k++) {
        struct at_vote before = {.view = vote->view, .kind = (enum at_vote_kind)k, .hash = c->hash[k]};
        if ((c->has & AT_BIT(k)) != 0 && at_votes_exclude(&before, vote))
            net_violation(w, "honest seat %u sent votes of kinds %d and %d that exclude each other in view %llu",
                          a->seat, k, (int)vote->kind, (unsigned long long)vote->view);
    }
    c->has |= AT_BIT(vote->kind);
    c->hash[vote->kind] = vote->hash;
    if (vote->view > w->views) w->views = vote->view;
}

static inline void net_judge_final(struct net *w, struct net_actor *a, const struct at_simplex_op *op)
{
    size_t height = a->final_count++;
    if (height >= NET_CHAIN_MAX) return;
    if (height < w->chain_count) {
        if (!at_hash_eq(w->chain[height].hash, op->hash))
            net_violation(w, "two final blocks at height %zu (views %llu and %llu, seat %u)", height,
                          (unsigned long long)w->chain[height].view, (unsigned long long)op->view, a->seat);
    } else {
        if (height != 0 && op->view <= w->chain[height - 1].view)
            net_violation(w, "final views do not ascend at %llu", (unsigned long long)op->view);
        if (height != 0 && op->time_ms <= w->chain[height - 1].time_ms)
            net_violation(w, "block times do not ascend at view %llu", (unsigned long long)op->view);
        w->chain[height].hash = op->hash;
        w->chain[height].view = op->view;
        w->chain[height].time_ms = op->time_ms;
        w->chain_count = height + 1;
    }
    const struct at_certificate *c = op->certificate;
    if (c != NULL && (c->view != op->view || c->kind != AT_VOTE_FINAL || !at_hash_eq(c->hash, op->hash) ||
                      (uint32_t)__builtin_popcount(c->seats) != 2 * (w->o.n / 3) + 1))
        net_violation(w, "the certificate of final view %llu is none", (unsigned long long)op->view);
    if (height + 1 == w->chain_count) w->last_final_ms = w->now_ms;
    const struct disk_item *block = disk_block(&a->disk, &op->hash);
    if (block == NULL || at_block_decode(at_span(block->bytes, block->n), NULL, &w->room) != AT_OK) {
        net_violation(w, "seat %u has no bytes of final view %llu", a->seat, (unsigned long long)op->view);
        return;
    }
    for (uint32_t i = 0; i < w->room.block.record_count; i++) {
        const struct at_signed_record *r = &w->room.block.records[i];
        if (net_check(NULL, r, NULL) != AT_OK) net_violation(w, "a record that does not hold is final");
        uint32_t number = at_load_le32(r->body);
        if (number == w->final_of[a->seat] + 1) w->final_of[a->seat] = number;
    }
}

/* ---- sending ---- */
static inline void net_send_bytes(struct net *w, const struct net_actor *from, uint32_t to, struct at_span bytes)
{
    for (uint32_t i = 0; i < w->actor_count; i++) {
        const struct net_actor *a = &w->actors[i];
        if (a->seat != to || !from->linked[to] || !a->linked[from->seat]) continue;
        w->messages++;
        w->bytes += bytes.n;
        if (w->cut[from->seat][to]) continue;
        int copies = 1;
        if (!w->calm) copies -= net_chance(w, w->o.loss_permille);
        if (!w->calm) copies += net_chance(w, w->o.duplicate_permille);
        for (int k = 0; k < copies; k++) {
            uint64_t spread = w->o.latency_max_ms - w->o.latency_min_ms + 1;
            uint64_t ms = w->o.latency_min_ms + net_draw(w, spread);
            if (!w->calm && net_chance(w, w->o.spike_permille)) ms *= 1 + net_draw(w, 20);
            struct net_event e = {
                .at_ms = w->now_ms + ms, .what = NET_DELIVER, .actor = i, .from = from->seat, .life = a->life};
            at_err_t err = at_buf_append(&e.bytes, bytes.p, bytes.n);
            AT_ASSERT(err == AT_OK);
            net_push(w, e);
        }
    }
}

static inline void net_send(struct net *w, const struct net_actor *from, uint32_t to, const struct at_agree *m)
{
    struct at_buf buf = {0};
    at_err_t err = at_agree_encode(m, &buf);
    AT_ASSERT(err == AT_OK);
    for (uint32_t s = 0; s < w->o.n; s++)
        if ((to >> s & 1) != 0 && s != from->seat) net_send_bytes(w, from, s, at_buf_span(&buf));
    at_buf_release(&buf);
}

static inline void net_send_block(struct net *w, const struct net_actor *a, uint32_t to, const struct at_hash *hash,
                                  const struct at_certificate *certificate)
{
    const struct disk_item *block = disk_block(&a->disk, hash);
    if (block == NULL) return;
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_PROPOSAL};
    m.proposal.block = at_span(block->bytes, block->n);
    if (certificate != NULL) m.proposal.certificates[m.proposal.certificate_count++] = certificate;
    net_send(w, a, to, &m);
}

/* SERVE: the runs of final blocks after `view` up to the one that reaches `last`, each from its certificate back. */
static inline void net_serve(struct net *w, const struct net_actor *a, uint32_t to, uint64_t view, uint64_t last)
{
    const struct disk *d = &a->disk;
    bool done = false;
    for (size_t i = 0, first = 0; i < d->count && !done; i++) {
        const struct disk_item *it = &d->items[i];
        if (it->kind != AT_SIMPLEX_FINAL || it->certificate == NULL) continue;
        if (it->view > view) {
            net_send_block(w, a, to, &it->hash, it->certificate);
            for (size_t k = i; k-- > first;)
                if (d->items[k].kind == AT_SIMPLEX_FINAL && d->items[k].view > view)
                    net_send_block(w, a, to, &d->items[k].hash, NULL);
            done = it->view >= last;
        }
        first = i + 1;
    }
}

/* ---- a driver ---- */
static inline bool net_says_final(const struct at_agree *m)
{
    if (m->kind == AT_AGREE_VOTE) return m->vote.kind == AT_VOTE_FINAL;
    if (m->kind == AT_AGREE_CERTIFICATE) return m->certificate->kind == AT_VOTE_FINAL;
    for (uint32_t i = 0; m->kind == AT_AGREE_PROPOSAL && i < m->proposal.certificate_count; i++)
        if (m->proposal.certificates[i]->kind == AT_VOTE_FINAL) return true;
    return false;
}

static inline void net_op(struct net *w, struct net_actor *a, uint64_t seq, const struct at_simplex_op *op)
{
    const bool mean = w->o.hostile[a->seat] == HOSTILE_MEAN;
    switch (op->kind) {
    case AT_SIMPLEX_FINAL:
        disk_write(&a->disk, seq, op);
        if (a->honest) net_judge_final(w, a, op);
        break;
    case AT_SIMPLEX_PERSIST_VOTE:
    case AT_SIMPLEX_PERSIST_CERTIFICATE:
    case AT_SIMPLEX_PERSIST_BLOCK:
    case AT_SIMPLEX_PERSIST_ABSTAIN:
        disk_write(&a->disk, seq, op);
        break;
    case AT_SIMPLEX_SEND:
        if ((mean || w->finals_lost) && net_says_final(&op->message)) break;
        if (a->honest && op->message.kind == AT_AGREE_VOTE) net_judge_vote(w, a, &op->message.vote);
        if (a->honest && op->message.kind == AT_AGREE_PROPOSAL && op->message.proposal.is_signed) {
            struct at_span block = op->message.proposal.block;
            at_err_t err = at_block_decode(block, NULL, &w->room);
            AT_ASSERT(err == AT_OK);
            net_judge_vote(w, a,
                           &(struct at_vote){.view = w->room.block.view,
                                             .kind = AT_VOTE_BLOCK,
                                             .hash = at_sha256(block.p, block.n),
                                             .seat = a->seat});
        }
        net_send(w, a, mean && op->message.kind == AT_AGREE_PROPOSAL ? op->to & ((2u << w->o.n / 3) - 1) : op->to,
                 &op->message);
        break;
    case AT_SIMPLEX_SEND_BLOCK:
        net_send_block(w, a, op->to, &op->hash, NULL);
        break;
    case AT_SIMPLEX_SERVE:
        if (mean) break;
        net_serve(w, a, op->to, op->view, op->last);
        break;
    case AT_SIMPLEX_EVIDENCE: {
        struct at_evidence e =
            at_evidence_of_votes(w->run, &w->keys[op->votes[0].seat].id, NET_TERM, &op->votes[0], &op->votes[1]);
        uint8_t bytes[AT_EVIDENCE_BYTES_MAX];
        size_t n;
        if (at_evidence_encode(&e, bytes, &n) != AT_OK) net_violation(w, "evidence that proves nothing");
        if (w->o.real_signatures && at_evidence_verify(&e, NULL) != AT_OK) net_violation(w, "evidence is not signed");
        if (w->o.hostile[op->votes[0].seat] == HONEST) net_violation(w, "evidence against an honest seat");
        w->evidence++;
        break;
    }
    }
}

static inline void net_step(struct net *w, struct net_actor *a, struct at_simplex_event e)
{
    if (a->x == NULL) return;
    e.now_ms = w->now_ms;
    e.clock_ms = NET_EPOCH_MS + w->now_ms + (uint64_t)a->skew_ms;
    struct at_simplex_update u;
    at_simplex_step(a->x, &e, &u);
    if (u.err == AT_E_VERIFY) w->broken = true;
    if (u.err == AT_E_PEER && w->o.hostile[e.from] == HONEST)
        net_violation(w, "honest seat %u is taken for a forger by seat %u", e.from, a->seat);
    for (size_t i = 0; i < u.op_count; i++) net_op(w, a, u.persist, &u.ops[i]);
    if (u.persist != 0) {
        uint64_t at = w->now_ms + (w->o.fsync_max_ms ? net_draw(w, w->o.fsync_max_ms + 1) : 0);
        a->persist_at = at > a->persist_at ? at : a->persist_at;
        net_push(w, (struct net_event){.at_ms = a->persist_at,
                                       .what = NET_PERSISTED,
                                       .actor = (uint32_t)(a - w->actors),
                                       .life = a->life,
                                       .arg = u.persist});
    }
    uint64_t deadline = at_simplex_deadline(a->x);
    if (deadline == a->tick_at) return;
    a->tick_at = deadline;
    if (deadline == AT_SIMPLEX_NO_DEADLINE) return;
    net_push(w, (struct net_event){.at_ms = deadline > w->now_ms ? deadline : w->now_ms,
                                   .what = NET_TICK,
                                   .actor = (uint32_t)(a - w->actors),
                                   .life = a->life,
                                   .arg = deadline});
}

static inline void net_start(struct net *w, struct net_actor *a)
{
    struct at_simplex_options o = {.run = w->run,
                                   .term = NET_TERM,
                                   .seat_count = w->o.n,
                                   .seat = a->seat,
                                   .nonce = w->seq + 1,
                                   .views_max = w->o.views_max,
                                   .delta_ms = w->o.delta_ms,
                                   .delta_max_ms = w->o.delta_max_ms,
                                   .chain = w->o.n == 1 ? NULL : &w->chains[a->seat],
                                   .sign = net_sign,
                                   .verify = net_verify,
                                   .check = net_check,
                                   .user = a,
                                   .canary = w->o.canary};
    o.tip.hash = at_sha256("the term before", 15);
    o.tip.state.time_ms = NET_EPOCH_MS - 10000;
    for (uint32_t i = 0; i < w->o.n; i++) o.tip.state.beacon.head[i] = w->chains[i].commitment;
    disk_options(&a->disk, &o);
    at_err_t err = at_simplex_init(&o, &a->x);
    AT_ASSERT(err == AT_OK);
    a->final_count = disk_final_count(&a->disk);
    a->tick_at = AT_SIMPLEX_NO_DEADLINE;
    a->persist_at = 0;
    disk_restore(&a->disk, a->x, NET_TERM, o.tip.view);
    net_step(w, a, (struct at_simplex_event){.kind = AT_SIMPLEX_START});
    for (uint32_t s = 0; s < w->o.n; s++)
        for (uint32_t i = 0; s != a->seat && i < w->actor_count; i++)
            if (w->actors[i].seat == s && w->actors[i].x != NULL)
                net_step(w, &w->actors[i], (struct at_simplex_event){.kind = AT_SIMPLEX_LINK, .from = a->seat});
}

static inline void net_stop(struct net *w, struct net_actor *a)
{
    at_simplex_release(a->x);
    a->x = NULL;
    a->life++;
    uint64_t begun = 0;
    if (a->disk.count != 0) begun = a->disk.items[a->disk.count - 1].seq;
    uint64_t loose = begun > a->disk.durable ? begun - a->disk.durable : 0;
    disk_crash(&a->disk, loose != 0 ? net_draw(w, loose + 1) : 0);
}

#endif
