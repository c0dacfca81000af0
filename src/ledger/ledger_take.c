/* ledger_take.c: what an accepted record does to the ledger. */
#include "ledger/ledger_inner.h"

#include <string.h>

static at_err_t take_join(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author,
                          int replica)
{
    if (replica < 0) {
        at_err_t err = at_ledger_members_add(l, author);
        if (err) return err;
        replica = (int)l->member_count - 1;
    }
    struct at_member *m = &l->members[replica];
    memcpy(m->name, rec->join.name, sizeof m->name);
    m->active = true;
    m->standing_ms = rec->time_ms;
    l->active_count++;
    return AT_OK;
}

static at_err_t take_leave(struct at_ledger *l, const struct at_record *rec, int replica)
{
    l->members[replica].active = false;
    l->members[replica].standing_ms = rec->time_ms;
    l->active_count--;
    return AT_OK;
}

/* ---- what stewards settle ---- */
static void begin_phase(struct at_ledger *l, enum at_ledger_phase phase)
{
    l->phase = phase;
    at_words_clear(&l->words);
    at_words_clear(&l->end_words);
}

static void form_groups(struct at_ledger *l, const struct at_replicas *in)
{
    struct at_roles x = at_ledger_roles(l);
    if (x.stages <= 1) {
        at_groups_form(l->groups, l->member_count, in, 1);
        return;
    }
    at_roles_form(&x, l->groups, in, &l->room);
    at_roles_rest(l->groups, l->member_count, l->measured);
}

/* A unit for each group; the groups of those whose first member comes first begin. */
static void open_round(struct at_ledger *l, const struct at_word *settled)
{
    memset(l->allotments, 0, l->member_count * sizeof *l->allotments);
    at_ledger_updates_clear(l);
    form_groups(l, &settled->replicas);
    for (uint32_t r = 0; r < l->member_count; r++) {
        if (l->groups[r].size == 0 || l->groups[r].place != 0) continue;
        struct at_range range = {.start = at_samples_take(&l->samples), .samples = l->samples.unit};
        for (uint32_t k = r; k != AT_GROUP_END; k = l->groups[k].next) {
            l->allotments[k].allotted = true;
            l->allotments[k].range = range;
        }
    }
    l->state_root = settled->root;
    begin_phase(l, AT_LEDGER_TRAINING);
}

/* The words' replicas, less who has left since and, should they have become too many, without effect. */
static bool can_open(const struct at_ledger *l, struct at_word *settled)
{
    struct at_replicas in;
    memset(&in, 0, sizeof in);
    for (uint32_t r = 0; r < l->member_count; r++)
        if (at_replicas_has(&settled->replicas, r) && l->members[r].active) at_replicas_add(&in, r);
    settled->replicas = in;
    uint32_t count = at_replicas_count(&in);
    return count > 0 && at_samples_can_take(&l->samples, count);
}

static at_err_t take_receipt(struct at_ledger *l, const struct at_record *rec, int replica)
{
    const struct at_receipt *receipt = &rec->receipt;
    uint32_t lead = l->groups[replica].lead, parts = 0;
    if (l->allotments[replica].received) at_ledger_updates_drop(l, (uint32_t)replica);
    l->allotments[replica].received = true;
    l->allotments[replica].receipt = *receipt;
    at_ledger_updates_add(l, (uint32_t)replica);
    if (receipt->group == 0) {
        l->allotments[replica].complete = 1;
        return AT_OK;
    }
    for (uint32_t k = lead; k != AT_GROUP_END; k = l->groups[k].next)
        if (l->allotments[k].received && l->allotments[k].receipt.group == receipt->group)
            parts |= UINT32_C(1) << l->groups[k].place;
    if ((receipt->group & ~parts) == 0) l->allotments[lead].complete = receipt->group;
    return AT_OK;
}

/* One claim for each receipt that counts, or would; claims point at members by their tag. */
static size_t gather_claims(struct at_ledger *l, bool included_only)
{
    size_t n = 0;
    for (uint32_t r = 0; r < l->member_count; r++) {
        const struct at_allotment *u = &l->allotments[r];
        if (included_only ? !u->included : !u->received || !at_ledger_part_counts(l, r)) continue;
        l->claims[n++] = (struct at_points_claim){.flops = u->receipt.flops, .id = &l->members[r].id, .tag = r};
    }
    return n;
}

static void confirm_points(struct at_ledger *l)
{
    size_t n = gather_claims(l, true);
    at_points_split(l->genesis.issuance, l->claims, n);
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        l->members[l->claims[i].tag].confirmed += l->claims[i].ret_points;
        sum += l->claims[i].ret_points;
    }
    AT_ASSERT(sum == (n != 0 ? l->genesis.issuance : 0)); /* conservation: work is at least one step each */
    l->confirmed += sum;
}

void at_ledger_pending(struct at_ledger *ledger, uint64_t *ret_points)
{
    for (uint32_t r = 0; r < ledger->member_count; r++) ret_points[r] = 0;
    if (ledger->phase != AT_LEDGER_TRAINING) return;
    size_t n = gather_claims(ledger, false);
    at_points_split(ledger->genesis.issuance, ledger->claims, n);
    for (size_t i = 0; i < n; i++) ret_points[ledger->claims[i].tag] = ledger->claims[i].ret_points;
}

/* What the parts of a unit that counts say that it took; the longest: nobody can make it look faster. */
static void see_unit(struct at_ledger *l, uint32_t lead)
{
    struct at_roles x = at_ledger_roles(l);
    uint32_t group = 0, steps = 0, took_ms = 0;
    for (uint32_t k = lead; k != AT_GROUP_END; k = l->groups[k].next) {
        const struct at_allotment *u = &l->allotments[k];
        if (!u->included) continue;
        group = u->receipt.group;
        steps = u->receipt.steps;
        if (u->receipt.took_ms > took_ms) took_ms = u->receipt.took_ms;
    }
    if (group != 0) at_roles_seen(&x, l->groups, lead, group, steps, took_ms, l->measured);
}

/* The parts of a unit count all together or not at all. */
static void close_unit(struct at_ledger *l, uint32_t lead, const struct at_replicas *in)
{
    const struct at_receipt *part = NULL;
    struct at_range range = l->allotments[lead].range;
    for (uint32_t k = lead; k != AT_GROUP_END; k = l->groups[k].next) {
        struct at_allotment *u = &l->allotments[k];
        u->included = at_replicas_has(in, k);
        if (!u->included) continue;
        part = &u->receipt;
        l->members[k].tokens += u->receipt.tokens;
        l->members[k].rounds++;
        l->members[k].last = u->receipt.update;
    }
    uint64_t used = part ? part->samples : 0;
    at_samples_free(&l->samples, (struct at_range){range.start + used, range.samples - used});
    if (part)
        see_unit(l, lead);
    else
        at_roles_idle(l->groups, lead, l->round, l->measured);
    l->included_count += part != NULL;
    l->tokens += part ? part->tokens : 0;
}

static void close_round(struct at_ledger *l, const struct at_word *settled)
{
    l->included_count = 0;
    for (uint32_t r = 0; r < l->member_count; r++)
        if (l->allotments[r].allotted && l->groups[r].place == 0) close_unit(l, r, &settled->replicas);
    confirm_points(l);
    begin_phase(l, AT_LEDGER_CLOSED);
}

/* ---- terms ---- */
/* Who stands for the next term, in the order of replicas. */
static void gather_candidates(struct at_ledger *l)
{
    l->candidate_count = 0;
    for (uint32_t r = 0; r < l->member_count; r++) {
        const struct at_member *m = &l->members[r];
        bool founder = at_node_id_eq(&m->id, &l->genesis.steward);
        if (m->active && !m->barred && m->stands_for == l->seats.term + 1)
            l->candidates[l->candidate_count++] =
                (struct at_candidate){.seat = m->stand, .work = m->confirmed, .vouched = m->vouched || founder};
    }
}

static uint32_t barred_seats(const struct at_ledger *l)
{
    uint32_t barred = 0;
    for (uint32_t s = 0; s < l->seats.count; s++) {
        int holder = at_ledger_find(l, &l->seats.seat[s].member);
        if (holder >= 0 && l->members[holder].barred) barred |= UINT32_C(1) << s;
    }
    return barred;
}

static void begin_term(struct at_ledger *l)
{
    struct at_seats before = l->seats;
    l->former = before;
    l->seats = at_seats_draw(&before, l->candidates, l->candidate_count, barred_seats(l), l->beacon.seed);
    l->drawing = false;
    l->term_round = l->round;
    l->view = 0;
    for (uint32_t s = 0; s < l->seats.count; s++) {
        struct at_hash chain = l->seats.seat[s].chain;
        if (s < before.count && at_hash_eq(chain, before.seat[s].chain)) continue; /* no READY: its links are known */
        l->beacon.used[s] = 0;
        l->beacon.head[s] = chain;
    }
    at_words_clear(&l->words); /* seats have other holders */
    at_words_clear(&l->end_words);
}

/* Somebody may take the seat of one who is barred. */
static bool barred_can_go(const struct at_ledger *l)
{
    bool newcomer = false;
    for (size_t i = 0; i < l->candidate_count; i++)
        newcomer = newcomer || at_seats_find(&l->seats, &l->candidates[i].seat.member) < 0;
    return newcomer && barred_seats(l) != 0;
}

static bool term_is_over(const struct at_ledger *l)
{
    bool over = l->round - l->term_round >= AT_TERM_ROUNDS || barred_can_go(l);
    for (uint32_t s = 0; s < l->seats.count; s++) over = over || l->beacon.used[s] > AT_BEACON_LENGTH_MAX / 2;
    return over;
}

/* At a round's edge. */
static void maybe_end_term(struct at_ledger *l)
{
    if (l->drawing) return;
    gather_candidates(l);
    if (l->seats.count == 1) { /* a single steward reveals nothing, and could choose any seed: its members trust it */
        if (at_seats_next_count(&l->seats, l->candidates, l->candidate_count) == 1) return;
        l->beacon.seed = l->state_root;
        begin_term(l);
    } else if (l->candidate_count > 0 && term_is_over(l)) {
        l->drawing = true;
        l->cut = l->beacon;
    }
}

static void end_round(struct at_ledger *l, const struct at_word *settled)
{
    l->state_root = settled->root;
    l->round++;
    if (settled->number > 0) {
        l->heldout_loss = settled->number;
        l->heldout_rounds = l->round < at_genesis_rounds(&l->genesis) ? l->round - 1 : l->round;
    }
    begin_phase(l, AT_LEDGER_READY);
    maybe_end_term(l);
}

static at_err_t take_block(struct at_ledger *l, const struct at_record *rec)
{
    l->view = rec->head.view;
    l->block_ms = rec->time_ms;
    at_beacon_take(&l->beacon, at_view_leader(rec->head.view, l->seats.count), rec->head.reveal);
    if (l->drawing && at_beacon_leaders_since(&l->beacon, &l->cut) > at_seats_faults(l->seats.count)) begin_term(l);
    return AT_OK;
}

static at_err_t take_ready(struct at_ledger *l, const struct at_record *rec, int replica)
{
    struct at_member *m = &l->members[replica];
    m->stands_for = rec->stand.term;
    m->stand = (struct at_seat){.member = m->id, .key = rec->stand.key, .chain = rec->stand.chain};
    if (rec->stand.has_ticket && !m->vouched) {
        m->vouched = true;
        m->ticket = rec->stand.ticket.ticket;
    }
    return AT_OK;
}

static at_err_t take_measure(struct at_ledger *l, const struct at_record *rec, int replica)
{
    at_roles_take(&l->measured[replica], &rec->measure, l->round, rec->time_ms);
    return AT_OK;
}

static at_err_t take_evidence(struct at_ledger *l, const struct at_record *rec)
{
    struct at_member *m = &l->members[at_ledger_key_holder(l, &rec->evidence.key)];
    size_t kept = 0;
    m->barred = true;
    for (size_t i = 0; i < l->candidate_count; i++) /* a draw that is due */
        if (!at_node_id_eq(&l->candidates[i].seat.member, &m->id)) l->candidates[kept++] = l->candidates[i];
    l->candidate_count = kept;
    return AT_OK;
}

/* ---- all of them ---- */
struct at_word at_ledger_word(const struct at_record *rec)
{
    struct at_word word;
    memset(&word, 0, sizeof word);
    switch (rec->kind) {
    case AT_RECORD_OPEN:
        word.root = rec->open.state_root;
        word.replicas = rec->open.replicas;
        break;
    case AT_RECORD_CLOSE:
        word.replicas = rec->close.included;
        break;
    case AT_RECORD_EPOCH:
        word.root = rec->epoch.state_root;
        word.number = rec->epoch.heldout_loss;
        break;
    default: /* END says nothing that the ledger does not know */
        break;
    }
    return word;
}

static at_err_t take_word(struct at_ledger *l, const struct at_record *rec, int replica, uint32_t seat)
{
    struct at_word word = at_ledger_word(rec), settled;
    uint32_t faults = at_seats_faults(l->seats.count),
             need = rec->kind == AT_RECORD_EPOCH ? faults + 1 : 2 * faults + 1;
    struct at_steward_words *words = rec->kind == AT_RECORD_END ? &l->end_words : &l->words;
    if (rec->kind == AT_RECORD_OPEN) {
        /* Each unit may come back at CLOSE as one free range; taking one may leave a shorter rest. */
        uint64_t unit = (uint64_t)at_ledger_round(l).steps * l->genesis.train.batch;
        at_err_t err = unit != l->samples.unit ? at_samples_resize(&l->samples, unit) : AT_OK;
        if (!err) err = at_samples_reserve(&l->samples, 2 * (size_t)l->member_count);
        if (err) return err;
    }
    if (replica >= 0) l->members[replica].word_ms = rec->time_ms;
    if (!at_words_say(words, seat, &word, need, l->seats.count, &settled)) return AT_OK;
    switch (rec->kind) {
    case AT_RECORD_OPEN:
        if (can_open(l, &settled)) open_round(l, &settled);
        break;
    case AT_RECORD_CLOSE:
        close_round(l, &settled);
        break;
    case AT_RECORD_EPOCH:
        end_round(l, &settled);
        break;
    default:
        begin_phase(l, AT_LEDGER_ENDED);
        break;
    }
    return AT_OK;
}

/* The record is the first that the seats of a later term have ordered. */
static at_err_t change_signers(struct at_ledger *l)
{
    void *ends = l->term_ends;
    at_err_t err = at_ledger_grow(&ends, l->term_end_count + 1, sizeof *l->term_ends);
    if (err) return err;
    l->term_ends = ends;
    l->term_ends[l->term_end_count++] = l->tree.size;
    l->signers = l->seats;
    return AT_OK;
}

uint64_t at_ledger_term_end(const struct at_ledger *l, uint64_t from)
{
    uint32_t low = 0, high = l->term_end_count; /* the first end after `from` */
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (l->term_ends[mid] > from)
            high = mid;
        else
            low = mid + 1;
    }
    return low < l->term_end_count ? l->term_ends[low] : UINT64_MAX;
}

at_err at_ledger_take(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author)
{
    if (rec->kind == AT_RECORD_BLOCK && l->signers.term != l->seats.term) {
        at_err_t err = change_signers(l);
        if (err) return err;
    }
    int replica = at_ledger_find(l, author), seat = at_ledger_seat(l, author);
    switch (rec->kind) {
    case AT_RECORD_JOIN:
        return take_join(l, rec, author, replica);
    case AT_RECORD_LEAVE:
        return take_leave(l, rec, replica);
    case AT_RECORD_RECEIPT:
        return take_receipt(l, rec, replica);
    case AT_RECORD_READY:
        return take_ready(l, rec, replica);
    case AT_RECORD_BLOCK:
        return take_block(l, rec);
    case AT_RECORD_EVIDENCE:
        return take_evidence(l, rec);
    case AT_RECORD_MEASURE:
        return take_measure(l, rec, replica);
    default:
        return take_word(l, rec, replica, (uint32_t)seat);
    }
}
