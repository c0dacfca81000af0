/* simplex_hostile_test_util.h: for tests: what hostile seats do besides running honest machines twice, and the run of a
 * whole scenario from its seed. */
#ifndef ATOLL_CONSENSUS_SIMPLEX_HOSTILE_TEST_UTIL_H
#define ATOLL_CONSENSUS_SIMPLEX_HOSTILE_TEST_UTIL_H

#include "consensus/simplex_net_test_util.h"

/* Remembers what passes by: (view, hash) pairs that exist. */
static inline void net_overhear(struct net *w, uint64_t view, struct at_hash hash)
{
    size_t at = net_draw(w, 64);
    w->seen_view[at] = view;
    w->seen_hash[at] = hash;
}

static inline uint32_t net_some(struct net *w)
{
    return (uint32_t)net_draw(w, UINT64_C(1) << w->o.n);
}

static inline void net_vote_as(struct net *w, struct net_actor *a, uint64_t view, enum at_vote_kind kind,
                               struct at_hash hash)
{
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_VOTE};
    m.vote = (struct at_vote){.view = view, .kind = kind, .seat = a->seat};
    if (kind != AT_VOTE_DUMMY) m.vote.hash = hash;
    net_sign_as(w, &m.vote);
    net_send(w, a, net_some(w), &m);
}

/* Votes for what it hears of, and for its contrary, each to some. */
static inline void net_double(struct net *w, struct net_actor *a, const struct at_vote *heard)
{
    if (net_chance(w, 300)) net_vote_as(w, a, heard->view, AT_VOTE_DUMMY, heard->hash);
    if (heard->kind == AT_VOTE_DUMMY || !net_chance(w, 500)) return;
    net_vote_as(w, a, heard->view, AT_VOTE_BLOCK, heard->hash);
    net_vote_as(w, a, heard->view, AT_VOTE_FINAL, heard->hash);
}

/* A block in a view that it leads, on any parent that was ever seen, some of it against a rule. */
static inline void net_wild_block(struct net *w, struct net_actor *a, const struct at_simplex *spied, uint64_t view)
{
    struct at_block *b = &w->room.block;
    memset(b, 0, sizeof *b);
    b->run = w->run;
    b->term = NET_TERM;
    b->view = view;
    size_t at = net_draw(w, 64);
    b->parent_view = w->seen_view[at];
    b->parent = w->seen_hash[at];
    if (net_chance(w, 500) || b->parent_view >= view) { /* the last final block, whatever was notarised since */
        b->parent_view = spied->tip.view;
        b->parent = spied->tip.hash;
    }
    if (b->parent_view >= view) return;
    b->time_ms = NET_EPOCH_MS + w->now_ms + net_draw(w, 3000);
    if (!at_beacon_chain_next(&w->chains[a->seat], spied->tip.state.beacon.used[a->seat] + net_chance(w, 100),
                              &b->reveal))
        return;
    b->record_count = (uint32_t)net_draw(w, 3);
    for (uint32_t i = 0; i < b->record_count; i++) b->records[i] = net_record(0, net_draw(w, UINT64_MAX));
    if (b->record_count != 0 && net_chance(w, 100)) b->records[0].sig.b[0] = 0;
    uint8_t *bytes = malloc(AT_BLOCK_BYTES_MAX);
    AT_ASSERT(bytes != NULL);
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_PROPOSAL};
    m.proposal.block = at_span(bytes, at_block_encode(b, bytes));
    m.proposal.is_signed = true;
    struct at_vote vote = {.view = view,
                           .kind = AT_VOTE_BLOCK,
                           .hash = at_sha256(m.proposal.block.p, m.proposal.block.n),
                           .seat = a->seat};
    net_sign_as(w, &vote);
    m.proposal.sig = vote.sig;
    net_overhear(w, view, vote.hash);
    net_send(w, a, net_some(w), &m);
    free(bytes);
}

static inline void net_wild_certificate(struct net *w, struct net_actor *a, uint64_t view)
{
    struct at_certificate c = {.view = view, .seats = net_some(w) | 1};
    c.kind = (enum at_vote_kind)(1 + net_draw(w, 3));
    if (c.kind != AT_VOTE_DUMMY) c.hash = w->seen_hash[net_draw(w, 64)];
    for (uint32_t i = 0, k = 0; i < w->o.n; i++) {
        if ((c.seats >> i & 1) == 0) continue;
        struct at_vote own = {.view = view, .kind = c.kind, .hash = c.hash, .seat = a->seat};
        net_sign_as(w, &own); /* its own signature in everybody's place */
        c.sig[k++] = own.sig;
    }
    struct at_agree m = {.term = NET_TERM, .kind = AT_AGREE_CERTIFICATE, .certificate = &c};
    net_send(w, a, net_some(w), &m);
}

static inline void net_wild(struct net *w, struct net_actor *a)
{
    const struct net_actor *spied = &w->actors[net_draw(w, w->actor_count)];
    if (spied->x == NULL) return;
    uint64_t view = spied->x->view + net_draw(w, 4);
    uint64_t led = view + (a->seat + w->o.n - view % w->o.n) % w->o.n;
    struct at_hash hash = w->seen_hash[net_draw(w, 64)];
    struct at_agree m = {.term = NET_TERM};
    switch (net_draw(w, 8)) {
    case 0:
    case 1:
        net_wild_block(w, a, spied->x, led);
        break;
    case 2:
        net_vote_as(w, a, view, (enum at_vote_kind)(1 + net_draw(w, 3)), hash);
        break;
    case 3:
        net_wild_certificate(w, a, view);
        break;
    case 4:
        m.kind = AT_AGREE_STATUS;
        m.status.view = net_draw(w, AT_VIEW_MAX);
        m.status.tip_view = net_draw(w, 2) ? 0 : net_draw(w, AT_VIEW_MAX);
        m.status.asks = net_chance(w, 500);
        net_send(w, a, net_some(w), &m);
        break;
    case 5:
        m.kind = AT_AGREE_ASK;
        m.ask = (struct at_agree_ask){.first = 0, .last = AT_VIEW_MAX};
        net_send(w, a, net_some(w), &m);
        break;
    case 6: {
        struct at_signed_record r = net_record(0, net_draw(w, UINT64_MAX));
        r.sig.b[0] = net_chance(w, 800);
        m.kind = AT_AGREE_PENDING;
        m.pending = &r;
        net_send(w, a, net_some(w), &m);
        break;
    }
    default: {
        uint8_t garbage[64];
        for (size_t i = 0; i < sizeof garbage; i++) garbage[i] = (uint8_t)net_draw(w, 256);
        uint32_t to = (uint32_t)net_draw(w, w->o.n);
        net_send_bytes(w, a, to, at_span(garbage, net_draw(w, sizeof garbage)));
        break;
    }
    }
}

/* ---- one event ---- */
static inline void net_deliver(struct net *w, struct net_actor *a, const struct net_event *e)
{
    struct at_agree m;
    if (a->x == NULL || at_agree_decode(at_buf_span(&e->bytes), &w->mem, NULL, &m) != AT_OK) return;
    enum hostile how = w->o.hostile[a->seat];
    if (m.kind == AT_AGREE_VOTE && how != HONEST && !w->calm) {
        net_overhear(w, m.vote.view, m.vote.hash);
        /* Not to each other's: two of them would never end. */
        if (how == HOSTILE_DOUBLE && w->o.hostile[e->from] == HONEST) net_double(w, a, &m.vote);
    }
    net_step(w, a, (struct at_simplex_event){.kind = AT_SIMPLEX_MESSAGE, .from = e->from, .message = &m});
}

static inline void net_repartition(struct net *w)
{
    memset(w->cut, 0, sizeof w->cut);
    if (w->calm || net_chance(w, 300)) return;
    uint32_t side = net_some(w);
    for (uint32_t i = 0; i < w->o.n; i++)
        for (uint32_t k = 0; k < w->o.n; k++)
            w->cut[i][k] = (side >> i & 1) != (side >> k & 1) && net_chance(w, 700); /* some only one way */
}

static inline void net_event(struct net *w, struct net_event *e)
{
    struct net_actor *a = &w->actors[e->actor];
    bool alive = e->life == a->life && a->x != NULL;
    switch (e->what) {
    case NET_DELIVER:
        if (alive) net_deliver(w, a, e);
        break;
    case NET_TICK:
        if (!alive || e->arg != a->tick_at) break;
        a->tick_at = AT_SIMPLEX_NO_DEADLINE;
        net_step(w, a, (struct at_simplex_event){.kind = AT_SIMPLEX_TICK});
        break;
    case NET_PERSISTED:
        if (!alive) break;
        a->disk.durable = e->arg;
        net_step(w, a, (struct at_simplex_event){.kind = AT_SIMPLEX_PERSISTED, .persisted = e->arg});
        break;
    case NET_SUBMIT: {
        struct at_signed_record r = net_record((uint32_t)e->arg, net_draw(w, UINT64_MAX));
        net_step(w, a, (struct at_simplex_event){.kind = AT_SIMPLEX_SUBMIT, .record = &r});
        break;
    }
    case NET_CRASH:
        if (w->calm || a->x == NULL) break;
        net_stop(w, a);
        w->crashes++;
        net_push(w,
                 (struct net_event){
                     .at_ms = w->now_ms + net_draw(w, 3000), .what = NET_RESTART, .actor = e->actor, .life = a->life});
        break;
    case NET_RESTART:
        if (a->x == NULL) net_start(w, a);
        break;
    case NET_PARTITION:
        net_repartition(w);
        break;
    case NET_BABBLE:
        net_wild(w, a);
        net_push(w,
                 (struct net_event){.at_ms = w->now_ms + 1 + net_draw(w, 60), .what = NET_BABBLE, .actor = e->actor});
        break;
    }
    at_buf_release(&e->bytes);
}

static inline void net_run_until(struct net *w, uint64_t ms)
{
    while (!w->violated && w->heap_count != 0 && w->heap[0].at_ms <= ms) {
        struct net_event e = net_pop(w);
        w->now_ms = e.at_ms;
        net_event(w, &e);
    }
    w->now_ms = ms;
}

/* ---- a scenario ---- */
static inline struct net_actor *net_add(struct net *w, uint32_t seat)
{
    struct net_actor *a = &w->actors[w->actor_count++];
    a->seat = seat;
    a->net = w;
    a->honest = w->o.hostile[seat] == HONEST;
    a->skew_ms = w->o.skew_ms ? (int64_t)net_draw(w, 2 * w->o.skew_ms) - w->o.skew_ms : 0;
    for (uint32_t s = 0; s < w->o.n; s++) a->linked[s] = 1;
    return a;
}

static inline struct net *net_make(const struct net_options *o)
{
    struct net *w = calloc(1, sizeof *w);
    AT_ASSERT(w != NULL);
    w->o = *o;
    w->run = at_sha256("a run", 5);
    for (uint32_t s = 0; s < o->n; s++) {
        uint8_t seed[AT_KEY_BYTES] = {(uint8_t)(s + 1)};
        if (o->real_signatures) {
            at_err_t err = at_keypair_from_seed(seed, &w->keys[s]);
            AT_ASSERT(err == AT_OK);
        }
        at_beacon_chain_init(&w->chains[s], at_sha256(seed, sizeof seed), NET_CHAIN_LINK);
        w->cast[s] = calloc(NET_VIEWS_MAX, sizeof *w->cast[s]);
        AT_ASSERT(w->cast[s] != NULL);
        if (o->hostile[s] == HOSTILE_SILENT) continue;
        struct net_actor *a = net_add(w, s);
        if (o->hostile[s] != HOSTILE_TWINS) continue;
        struct net_actor *b = net_add(w, s);
        for (uint32_t k = 0; k < o->n; k++) { /* each peer knows one of the twins, or both */
            uint64_t how = net_draw(w, 5);
            a->linked[k] = how < 2 || how == 4;
            b->linked[k] = how >= 2;
        }
    }
    for (uint32_t i = 0; i < w->actor_count; i++) net_start(w, &w->actors[i]);
    for (uint32_t i = 0; i < w->actor_count; i++)
        if (o->hostile[w->actors[i].seat] == HOSTILE_WILD)
            net_push(w, (struct net_event){.at_ms = 1, .what = NET_BABBLE, .actor = i});
    return w;
}

static inline void net_free(struct net *w)
{
    while (w->heap_count != 0) {
        struct net_event e = net_pop(w);
        at_buf_release(&e.bytes);
    }
    for (uint32_t i = 0; i < w->actor_count; i++) {
        at_simplex_release(w->actors[i].x);
        disk_release(&w->actors[i].disk);
    }
    for (uint32_t s = 0; s < w->o.n; s++) free(w->cast[s]);
    at_agree_mem_release(&w->mem);
    free(w->heap);
    free(w);
}

static inline struct net_actor *net_honest(struct net *w, uint64_t k)
{
    for (;; k++)
        if (w->actors[k % w->actor_count].honest) return &w->actors[k % w->actor_count];
}

/* Plans the faults, lives through them, heals, and asks for progress. Afterwards w->violated says whether all held. */
static inline void net_scenario(struct net *w)
{
    for (uint64_t at = 100; at < w->o.faults_ms; at += 1 + net_draw(w, 600)) {
        uint32_t honest = (uint32_t)(net_honest(w, net_draw(w, w->actor_count)) - w->actors);
        net_push(w, (struct net_event){.at_ms = at, .what = NET_SUBMIT, .actor = honest});
        if (w->o.partitions && net_chance(w, 300)) net_push(w, (struct net_event){.at_ms = at, .what = NET_PARTITION});
        if (w->o.crashes && net_chance(w, 500))
            net_push(w, (struct net_event){.at_ms = at + net_draw(w, 50), .what = NET_CRASH, .actor = honest});
    }
    net_run_until(w, w->o.faults_ms);
    w->calm = true;
    net_repartition(w);
    for (uint32_t i = 0; i < w->actor_count; i++)
        if (w->actors[i].x == NULL) net_start(w, &w->actors[i]);
    for (uint32_t i = 0; i < w->actor_count; i++)
        for (uint32_t s = 0; s < w->o.n; s++)
            if (s != w->actors[i].seat)
                net_step(w, &w->actors[i], (struct at_simplex_event){.kind = AT_SIMPLEX_LINK, .from = s});
    for (w->submitted = 1; w->submitted <= 3 && !w->violated; w->submitted++) {
        struct net_actor *at = net_honest(w, net_draw(w, w->actor_count));
        net_push(w,
                 (struct net_event){
                     .at_ms = w->now_ms, .what = NET_SUBMIT, .actor = (uint32_t)(at - w->actors), .arg = w->submitted});
        bool all = false;
        for (uint64_t end = w->now_ms + 60 * (uint64_t)w->o.delta_max_ms; !all && !w->violated && w->now_ms < end;) {
            net_run_until(w, w->now_ms + w->o.delta_ms);
            all = true;
            for (uint32_t i = 0; i < w->actor_count; i++)
                all &= !w->actors[i].honest || w->final_of[w->actors[i].seat] >= w->submitted;
        }
        for (uint32_t i = 0; i < w->actor_count; i++)
            if (w->actors[i].honest && at_simplex_status(w->actors[i].x).abstaining)
                net_violation(w, "seat %u abstains, though its disk is whole", w->actors[i].seat);
        if (!all) net_violation(w, "no progress after the faults: record %u is not final everywhere", w->submitted);
    }
    if (w->broken) net_violation(w, "a machine found a final chain that excludes its own");
}

/* With no hostile seat: everything is final, so nothing may be sent any more. */
static inline void net_judge_idle(struct net *w)
{
    net_run_until(w, w->now_ms + 20 * (uint64_t)w->o.delta_max_ms);
    uint64_t messages = w->messages;
    net_run_until(w, w->now_ms + 20 * (uint64_t)w->o.delta_max_ms);
    if (w->messages != messages) net_violation(w, "it does not come to rest");
    for (uint32_t i = 0; i < w->actor_count; i++)
        if (at_simplex_deadline(w->actors[i].x) != AT_SIMPLEX_NO_DEADLINE) net_violation(w, "a timer runs while idle");
}

/* ---- without faults ---- */
static inline struct net_options net_calm(uint32_t n)
{
    return (struct net_options){.seed = 1,
                                .n = n,
                                .latency_min_ms = 100,
                                .latency_max_ms = 100,
                                .views_max = 16,
                                .delta_ms = 200,
                                .delta_max_ms = 3200};
}

static inline void net_submit(struct net *w, uint32_t actor, uint32_t number)
{
    net_push(w, (struct net_event){.at_ms = w->now_ms, .what = NET_SUBMIT, .actor = actor, .arg = number});
}

static inline void net_finish(struct net *w)
{
    if (w->violated) fprintf(stderr, "%s\n", w->violation);
    AT_ASSERT(!w->violated);
    net_free(w);
}

#endif
