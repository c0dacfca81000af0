#include "ledger/ledger.h"

#include <stdlib.h>
#include <string.h>

/* ---- the table: who may write what, and when ------------------------------------------------------------------------
 * A record is refused unless it is of this run, its author has the role, the fold is in one of the phases, and the
 * kind's own rule holds.
 *
 *   kind     author             phase          and                                            then
 *   JOIN     anyone not active  any but ENDED  a new key: room for one more;                  active; index kept, or
 *                                              a known one: later than its LEAVE              the next one
 *   LEAVE    an active member   any but ENDED  later than its JOIN                            not active
 *   OPEN     the steward        READY          round is the next, and rounds are left; root   TRAINING, ranges
 *                                              as the last EPOCH's; active members only, at   allotted
 *                                              least one; samples are left; in round 0 the
 *                                              run has min_members active, root is free
 *   RECEIPT  the active member  TRAINING       round is the open one; allotted; its first;    pending points
 *            whose replica it                  root and start as opened; counts follow from
 *            names                             the steps done; a plausible update size
 *   CLOSE    the steward        TRAINING       round is the open one; includes only receipts  CLOSED, points confirmed,
 *                                                                                             the unused samples freed
 *   EPOCH    the steward        CLOSED         round is the closed one; balances are the      READY, next round
 *                                              fold's; nobody in: same root
 *   END      the steward        READY          counts the rounds done                         ENDED, for good
 * ------------------------------------------------------------------------------------------------------------------ */
enum role { ANYONE, MEMBER, STEWARD };
enum { IN_READY = 1 << AT_LEDGER_READY, IN_TRAINING = 1 << AT_LEDGER_TRAINING, IN_CLOSED = 1 << AT_LEDGER_CLOSED };
#define NOT_ENDED (IN_READY | IN_TRAINING | IN_CLOSED)

struct context { /* a record being judged; `replica` is the author's index or -1 */
    const struct at_ledger *ledger;
    const struct at_record *rec;
    const struct at_node_id *author;
    int replica;
    struct at_diag *diag;
};
typedef at_err_t judge_fn(const struct context *c);
typedef at_err_t take_fn(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author,
                         int replica);

static judge_fn judge_join, judge_leave, judge_open, judge_receipt, judge_close, judge_epoch, judge_end;
static take_fn take_join, take_leave, take_open, take_receipt, take_close, take_epoch, take_end;

static const struct rule {
    enum role author;
    unsigned phases;
    judge_fn *judge;
    take_fn *take;
} rules[AT_RECORD_KIND_COUNT] = {
    [AT_RECORD_JOIN] = {ANYONE, NOT_ENDED, judge_join, take_join},
    [AT_RECORD_LEAVE] = {MEMBER, NOT_ENDED, judge_leave, take_leave},
    [AT_RECORD_OPEN] = {STEWARD, IN_READY, judge_open, take_open},
    [AT_RECORD_RECEIPT] = {MEMBER, IN_TRAINING, judge_receipt, take_receipt},
    [AT_RECORD_CLOSE] = {STEWARD, IN_TRAINING, judge_close, take_close},
    [AT_RECORD_EPOCH] = {STEWARD, IN_CLOSED, judge_epoch, take_epoch},
    [AT_RECORD_END] = {STEWARD, IN_READY, judge_end, take_end},
};

/* ---- refusals ---------------------------------------------------------------------------------------------------- */
static at_err_t refuse(const struct context *c, const char *why)
{
    const char *kind = at_record_kind_name(c->rec->kind);
    return at_fail(c->diag, AT_E_VERIFY, kind, "%s refused: %s", kind, why);
}

static at_err_t judge_role(const struct context *c, enum role role)
{
    bool steward = at_node_id_eq(c->author, &c->ledger->genesis.steward);
    if (role == ANYONE || (role == STEWARD && steward)) return AT_OK;
    if (c->replica < 0 && !steward) return refuse(c, "the author is a stranger to this run");
    if (role == STEWARD) return refuse(c, "only the steward may write it");
    if (c->replica < 0) return refuse(c, "the author is not a member");
    return c->ledger->members[c->replica].active ? AT_OK : refuse(c, "the author has left");
}

static at_err_t judge_phase(const struct context *c, unsigned phases)
{
    static const char *const why[] = {"no round is open", "a round is open", "the round is closed and its EPOCH is due",
                                      "the run has ended"};
    return phases >> c->ledger->phase & 1 ? AT_OK : refuse(c, why[c->ledger->phase]);
}

static at_err_t judge_round(const struct context *c, uint32_t round)
{
    if (round == c->ledger->round) return AT_OK;
    return at_fail(c->diag, AT_E_VERIFY, at_record_kind_name(c->rec->kind),
                   "%s refused: round %u, but the run is at round %u", at_record_kind_name(c->rec->kind), round,
                   c->ledger->round);
}

static at_err_t judge_join(const struct context *c)
{
    if (c->replica < 0)
        return c->ledger->member_count < AT_MEMBERS_MAX ? AT_OK : refuse(c, "the run has all the members it can hold");
    if (c->ledger->members[c->replica].active) return refuse(c, "the author is a member already");
    if (c->rec->time_ms <= c->ledger->members[c->replica].standing_ms)
        return refuse(c, "older than the author's LEAVE");
    return AT_OK;
}

static at_err_t judge_leave(const struct context *c)
{
    bool later = c->rec->time_ms > c->ledger->members[c->replica].standing_ms;
    return later ? AT_OK : refuse(c, "older than the author's JOIN");
}

static at_err_t judge_open(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_open *open = &c->rec->open;
    at_err_t err = judge_round(c, open->round);
    if (err) return err;
    if (open->round >= l->genesis.train.rounds) return refuse(c, "all rounds of the genesis are done");
    if (open->round == 0 && l->active_count < l->genesis.min_members) return refuse(c, "too few members to begin");
    if (open->round != 0 && !at_hash_eq(open->state_root, l->state_root))
        return refuse(c, "its state root is not the last EPOCH's");
    uint32_t count = 0;
    for (uint32_t r = at_replicas_next(&open->replicas, 0); r < AT_MEMBERS_MAX;
         r = at_replicas_next(&open->replicas, r + 1)) {
        if (r >= l->member_count || !l->members[r].active)
            return refuse(c, "it names a replica that is not an active member");
        count++;
    }
    if (count == 0) return refuse(c, "nobody takes part");
    return at_samples_can_take(&l->samples, count) ? AT_OK : refuse(c, "the sample sequence is used up");
}

static at_err_t judge_receipt(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_receipt *r = &c->rec->receipt;
    at_err_t err = judge_round(c, r->round);
    if (err) return err;
    if (r->replica != (uint32_t)c->replica) return refuse(c, "the replica is not the author's");
    const struct at_allotment *unit = &l->allotments[c->replica];
    if (!unit->allotted) return refuse(c, "the replica takes no part in this round");
    if (unit->received) return refuse(c, "this replica's receipt is already in the log");
    if (!at_hash_eq(r->state_in, l->state_root)) return refuse(c, "it started from another state than the round's");
    if (r->start != unit->range.start) return refuse(c, "its samples do not start where they were allotted");
    if (r->steps < 1 || r->samples > unit->range.samples) return refuse(c, "more samples than were allotted, or none");
    if (r->samples != (uint64_t)r->steps * l->genesis.train.batch) return refuse(c, "samples are not steps x batch");
    if (r->tokens != (uint64_t)r->samples * l->genesis.model.seq_len)
        return refuse(c, "tokens are not samples x seq_len");
    if (r->flops != r->tokens * l->flops_per_token)
        return refuse(c, "FLOPs are not what the program counts from the shapes");
    if (r->update_bytes < 1 || r->update_bytes > at_ledger_update_bytes_max(l))
        return refuse(c, "the update's size is not plausible");
    return AT_OK;
}

static at_err_t judge_close(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_replicas *in = &c->rec->close.included;
    at_err_t err = judge_round(c, c->rec->close.round);
    if (err) return err;
    for (uint32_t r = at_replicas_next(in, 0); r < AT_MEMBERS_MAX; r = at_replicas_next(in, r + 1))
        if (r >= l->member_count || !l->allotments[r].received)
            return refuse(c, "it includes a replica without a receipt");
    return AT_OK;
}

static at_err_t judge_epoch(const struct context *c)
{
    const struct at_epoch *epoch = &c->rec->epoch;
    at_err_t err = judge_round(c, epoch->round);
    if (err) return err;
    if (!at_hash_eq(epoch->balances, at_ledger_balances(c->ledger)))
        return refuse(c, "its balances are not those of the log");
    if (c->ledger->included_count == 0 && !at_hash_eq(epoch->state_root, c->ledger->state_root))
        return refuse(c, "nobody finished the round, yet the state changed");
    return AT_OK;
}

static at_err_t judge_end(const struct context *c)
{
    bool right = c->rec->end.rounds == c->ledger->round;
    return right ? AT_OK : refuse(c, "it does not count the rounds done");
}

/* ---- the fold ---------------------------------------------------------------------------------------------------- */
static size_t slot_of(const struct at_ledger *l, const struct at_node_id *id)
{
    size_t i = (size_t)at_load_le64(id->b) & (l->slot_count - 1);
    while (l->slots[i] != 0 && !at_node_id_eq(&l->members[l->slots[i] - 1].id, id)) i = (i + 1) & (l->slot_count - 1);
    return i;
}

int at_ledger_find(const struct at_ledger *l, const struct at_node_id *id)
{
    return l->slot_count != 0 ? (int)l->slots[slot_of(l, id)] - 1 : -1;
}

/* realloc of count elements; the old block stays on failure. */
static at_err_t grow(void **block, size_t count, size_t element_bytes)
{
    size_t bytes;
    void *p = at_mul_size(count, element_bytes, &bytes) ? realloc(*block, bytes) : NULL;
    if (p == NULL) return AT_E_NOMEM;
    *block = p;
    return AT_OK;
}

/* Room for one more member. On failure nothing visible has changed: larger blocks do no harm. */
static at_err_t members_reserve(struct at_ledger *l)
{
    if (l->member_count < l->member_cap) return AT_OK;
    uint32_t cap = l->member_cap < 16 ? 16 : l->member_cap * 2, slot_count = cap * 2;
    void *members = l->members, *allotments = l->allotments, *claims = l->claims;
    at_err_t err = grow(&members, cap, sizeof *l->members);
    l->members = members;
    if (!err) err = grow(&allotments, cap, sizeof *l->allotments);
    l->allotments = allotments;
    if (!err) err = grow(&claims, cap, sizeof *l->claims);
    l->claims = claims;
    if (err) return err;
    uint32_t *slots = calloc(slot_count, sizeof *slots);
    if (slots == NULL) return AT_E_NOMEM;
    free(l->slots);
    l->slots = slots;
    l->slot_count = slot_count;
    l->member_cap = cap;
    for (uint32_t i = 0; i < l->member_count; i++) slots[slot_of(l, &l->members[i].id)] = i + 1;
    return AT_OK;
}

static at_err_t take_join(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author,
                          int replica)
{
    if (replica < 0) {
        at_err_t err = members_reserve(l);
        if (err) return err;
        l->slots[slot_of(l, author)] = l->member_count + 1;
        replica = (int)l->member_count++;
        memset(&l->members[replica], 0, sizeof *l->members);
        memset(&l->allotments[replica], 0, sizeof *l->allotments);
        l->members[replica].id = *author;
    }
    struct at_member *m = &l->members[replica];
    memcpy(m->name, rec->join.name, sizeof m->name);
    m->active = true;
    m->standing_ms = rec->time_ms;
    l->active_count++;
    return AT_OK;
}

static at_err_t take_leave(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author,
                           int replica)
{
    (void)author;
    l->members[replica].active = false;
    l->members[replica].standing_ms = rec->time_ms;
    l->active_count--;
    return AT_OK;
}

static at_err_t take_open(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author,
                          int replica)
{
    (void)author;
    (void)replica;
    /* Each unit may come back at CLOSE as one free range; taking one may leave a shorter rest. */
    uint32_t count = at_replicas_count(&rec->open.replicas);
    at_err_t err = at_samples_reserve(&l->samples, 2 * (size_t)count);
    if (err) return err;
    memset(l->allotments, 0, l->member_count * sizeof *l->allotments);
    for (uint32_t r = 0; r < l->member_count; r++) {
        if (!at_replicas_has(&rec->open.replicas, r)) continue;
        l->allotments[r].allotted = true;
        l->allotments[r].range = (struct at_range){.start = at_samples_take(&l->samples), .samples = l->samples.unit};
    }
    l->received_count = 0;
    l->state_root = rec->open.state_root;
    l->phase = AT_LEDGER_TRAINING;
    return AT_OK;
}

static at_err_t take_receipt(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author,
                             int replica)
{
    (void)author;
    l->allotments[replica].received = true;
    l->allotments[replica].receipt = rec->receipt;
    l->received_count++;
    return AT_OK;
}

/* One claim per unit that `counts` says counts; claims point at members by their tag. */
static size_t gather_claims(struct at_ledger *l, bool included_only)
{
    size_t n = 0;
    for (uint32_t r = 0; r < l->member_count; r++) {
        const struct at_allotment *u = &l->allotments[r];
        if (included_only ? !u->included : !u->received) continue;
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

static at_err_t take_close(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author,
                           int replica)
{
    (void)author;
    (void)replica;
    l->included_count = 0;
    for (uint32_t r = 0; r < l->member_count; r++) {
        struct at_allotment *u = &l->allotments[r];
        if (!u->allotted) continue;
        u->included = at_replicas_has(&rec->close.included, r);
        uint64_t used = u->included ? u->receipt.samples : 0;
        at_samples_free(&l->samples, (struct at_range){u->range.start + used, u->range.samples - used});
        if (!u->included) continue;
        l->included_count++;
        l->tokens += u->receipt.tokens;
        l->members[r].tokens += u->receipt.tokens;
        l->members[r].rounds++;
    }
    confirm_points(l);
    l->phase = AT_LEDGER_CLOSED;
    return AT_OK;
}

static at_err_t take_epoch(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author,
                           int replica)
{
    (void)author;
    (void)replica;
    l->state_root = rec->epoch.state_root;
    l->heldout_loss = rec->epoch.heldout_loss;
    l->round++;
    l->phase = AT_LEDGER_READY;
    return AT_OK;
}

static at_err_t take_end(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author, int replica)
{
    (void)rec;
    (void)author;
    (void)replica;
    l->phase = AT_LEDGER_ENDED;
    return AT_OK;
}

/* ---- the public face --------------------------------------------------------------------------------------------- */
at_err at_ledger_init(struct at_ledger *ledger, const struct at_genesis *genesis, struct at_diag *diag)
{
    struct at_buf bytes = {.bytes_max = AT_GENESIS_BYTES_MAX};
    at_err_t err = at_genesis_encode(genesis, diag, &bytes);
    if (err) goto out;
    *ledger = (struct at_ledger){.genesis = *genesis, .heldout_loss = -1.0};
    ledger->run = at_genesis_run_id(at_buf_span(&bytes));
    ledger->flops_per_token = at_model_flops_per_token(&genesis->model);
    at_samples_init(&ledger->samples, at_genesis_unit_samples(genesis));
out:
    at_buf_release(&bytes);
    return err;
}

void at_ledger_release(struct at_ledger *ledger)
{
    free(ledger->members);
    free(ledger->allotments);
    free(ledger->claims);
    free(ledger->slots);
    if (ledger->samples.unit != 0) at_samples_release(&ledger->samples);
    *ledger = (struct at_ledger){.heldout_loss = -1.0};
}

at_err at_ledger_judge(const struct at_ledger *ledger, const struct at_signed_record *signed_rec, struct at_diag *diag,
                       struct at_record *ret_rec)
{
    struct at_record rec;
    at_err_t err = at_record_decode(at_signed_record_body(signed_rec), diag, &rec);
    if (err) return err;
    struct context c = {.ledger = ledger,
                        .rec = &rec,
                        .author = &signed_rec->author,
                        .replica = at_ledger_find(ledger, &signed_rec->author),
                        .diag = diag};
    if (!at_hash_eq(rec.run, ledger->run)) return refuse(&c, "it belongs to another run");
    const struct rule *rule = &rules[rec.kind];
    err = judge_role(&c, rule->author);
    if (!err) err = judge_phase(&c, rule->phases);
    if (!err) err = rule->judge(&c);
    if (err) return err;
    if (ret_rec != NULL) *ret_rec = rec;
    return AT_OK;
}

at_err at_ledger_check(const struct at_ledger *ledger, const struct at_signed_record *rec, struct at_diag *diag)
{
    if (at_signed_record_verify(rec) != AT_OK)
        return at_fail(diag, AT_E_SIGNATURE, "record", "the record's signature does not verify");
    return at_ledger_judge(ledger, rec, diag, NULL);
}

at_err at_ledger_apply(struct at_ledger *ledger, const struct at_signed_record *signed_rec, struct at_diag *diag,
                       struct at_record *ret_rec)
{
    struct at_record rec;
    at_err_t err = at_ledger_judge(ledger, signed_rec, diag, &rec);
    if (err) return err;
    err = rules[rec.kind].take(ledger, &rec, &signed_rec->author, at_ledger_find(ledger, &signed_rec->author));
    if (err) return at_fail(diag, err, "ledger", "out of memory");
    at_merkle_append(&ledger->tree, at_signed_record_leaf(signed_rec));
    if (ret_rec != NULL) *ret_rec = rec;
    return AT_OK;
}

const struct at_allotment *at_ledger_allotment(const struct at_ledger *ledger, uint32_t replica)
{
    return replica < ledger->member_count && ledger->allotments[replica].allotted ? &ledger->allotments[replica] : NULL;
}

struct at_hash at_ledger_root(const struct at_ledger *ledger)
{
    return at_merkle_root(&ledger->tree);
}

struct at_hash at_ledger_balances(const struct at_ledger *ledger)
{
    struct at_sha256_ctx ctx;
    at_sha256_init(&ctx);
    for (uint32_t r = 0; r < ledger->member_count; r++) {
        uint8_t row[AT_KEY_BYTES + 8];
        memcpy(row, ledger->members[r].id.b, AT_KEY_BYTES);
        at_store_le64(row + AT_KEY_BYTES, ledger->members[r].confirmed);
        at_sha256_update(&ctx, row, sizeof row);
    }
    return at_sha256_final(&ctx);
}

void at_ledger_pending(struct at_ledger *ledger, uint64_t *ret_points)
{
    for (uint32_t r = 0; r < ledger->member_count; r++) ret_points[r] = 0;
    if (ledger->phase != AT_LEDGER_TRAINING) return;
    size_t n = gather_claims(ledger, false);
    at_points_split(ledger->genesis.issuance, ledger->claims, n);
    for (size_t i = 0; i < n; i++) ret_points[ledger->claims[i].tag] = ledger->claims[i].ret_points;
}

double at_ledger_share(const struct at_ledger *ledger, uint32_t replica)
{
    if (ledger->confirmed == 0 || replica >= ledger->member_count) return 0.0;
    return (double)ledger->members[replica].confirmed / (double)ledger->confirmed;
}

uint64_t at_ledger_update_bytes_max(const struct at_ledger *ledger)
{
    /* Parameters in binary32, the shared statistics and a header, with room for another codec. */
    return 8 * at_model_params(&ledger->genesis.model) + ((uint64_t)1 << 20);
}
