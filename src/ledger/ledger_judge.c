/* ledger_judge.c: may a record be the next one of the log? Nothing changes here; ledger_take.c does what it says. */
#include "ledger/ledger_inner.h"

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
 *   RECEIPT  the active member  TRAINING       round is the open one; allotted; its first,    pending points; the unit
 *            whose replica it                  or one of fewer of its group than its last,    may be complete
 *            names                             while the unit is not complete; root and
 *                                              start as opened; counts follow from the steps
 *                                              done, the same for all; a plausible update
 *                                              size, the same for the same update; error
 *                                              feedback where the round's codec has any; a
 *                                              loss from the last stage alone
 *   CLOSE    the steward        TRAINING       round is the open one; includes only receipts  CLOSED, points confirmed,
 *                                              of complete units, and of each all or none     the unused samples freed
 *   EPOCH    the steward        CLOSED         round is the closed one; balances are the      READY, next round
 *                                              fold's; the loss is the receipts', but in the
 *                                              last round
 *   END      the steward        READY          counts the rounds done                         ENDED, for good
 *   READY    an active member   any but ENDED  for the next term, once; shows its key; in a   a candidate for a seat
 *                                              young run a ticket that no other member has
 *                                              shown, later confirmed work or a ticket
 *   EVIDENCE an active member   any but ENDED  proof against a key of this term's seats, of the    barred: no seat of
 *                                              last one's, of one who stands, or of the first      a later term
 *                                              steward; not against one who is barred already
 *   MEASURE  an active member   any but ENDED  in a run of stages; later than its last; of       what is known of it
 *                                              other members; 12 times, and once more for each
 *                                              eight rounds since the first
 *   BLOCK    nobody: author     any but ENDED  several stewards; this term, a later view and  block time, the beacon
 *            and signature are                 time than the last; the beacon's next link of
 *            zero (ledger.h)                   the seat that leads the view
 *
 * "The steward" is any holder of a seat; what it writes is a word, and what is in the last column happens when enough
 * words agree (ledger.h). Among several, a word must be later than the author's last one, else anybody could say an old
 * one again; it must say something new, and there are eight for each seat and phase.
 * ------------------------------------------------------------------------------------------------------------------ */
enum role { ANYONE, MEMBER, STEWARD, NOBODY };
enum { IN_READY = 1 << AT_LEDGER_READY, IN_TRAINING = 1 << AT_LEDGER_TRAINING, IN_CLOSED = 1 << AT_LEDGER_CLOSED };
#define NOT_ENDED (IN_READY | IN_TRAINING | IN_CLOSED)

struct context { /* a record being judged */
    const struct at_ledger *ledger;
    const struct at_record *rec;
    const struct at_node_id *author;
    int replica, seat; /* the author's; -1: none */
    struct at_diag *diag;
};
typedef at_err_t judge_fn(const struct context *c);

static judge_fn judge_join, judge_leave, judge_open, judge_receipt, judge_close, judge_epoch, judge_end, judge_ready,
    judge_block, judge_evidence, judge_measure;

static const struct rule {
    enum role author;
    unsigned phases;
    judge_fn *judge;
} rules[AT_RECORD_KIND_COUNT] = {
    [AT_RECORD_JOIN] = {ANYONE, NOT_ENDED, judge_join},
    [AT_RECORD_LEAVE] = {MEMBER, NOT_ENDED, judge_leave},
    [AT_RECORD_OPEN] = {STEWARD, IN_READY, judge_open},
    [AT_RECORD_RECEIPT] = {MEMBER, IN_TRAINING, judge_receipt},
    [AT_RECORD_CLOSE] = {STEWARD, IN_TRAINING, judge_close},
    [AT_RECORD_EPOCH] = {STEWARD, IN_CLOSED, judge_epoch},
    [AT_RECORD_END] = {STEWARD, IN_READY, judge_end},
    [AT_RECORD_READY] = {MEMBER, NOT_ENDED, judge_ready},
    [AT_RECORD_BLOCK] = {NOBODY, NOT_ENDED, judge_block},
    [AT_RECORD_EVIDENCE] = {MEMBER, NOT_ENDED, judge_evidence},
    [AT_RECORD_MEASURE] = {MEMBER, NOT_ENDED, judge_measure},
};

/* ---- refusals ---------------------------------------------------------------------------------------------------- */
static at_err_t refuse(const struct context *c, const char *why)
{
    const char *kind = at_record_kind_name(c->rec->kind);
    return at_fail(c->diag, AT_E_VERIFY, kind, "%s refused: %s", kind, why);
}

static at_err_t judge_role(const struct context *c, enum role role)
{
    bool steward = c->seat >= 0;
    static const struct at_node_id nobody;
    if (role == NOBODY) return at_node_id_eq(c->author, &nobody) ? AT_OK : refuse(c, "nobody may write it");
    if (at_node_id_eq(c->author, &nobody))
        return refuse(c, "it has no author"); /* whose signature could not be checked */
    if (c->ledger->seats.count > 1 && c->ledger->block_ms == 0) return refuse(c, "it is in no block");
    if (role == ANYONE || (role == STEWARD && steward)) return AT_OK;
    if (c->replica < 0 && !steward) return refuse(c, "the author is a stranger to this run");
    if (role == STEWARD) return refuse(c, "only a steward may write it");
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
    if (open->round >= at_genesis_rounds(&l->genesis)) return refuse(c, "all rounds of the genesis are done");
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

/* Who computed it, and that it is not in yet. */
static at_err_t judge_group(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_receipt *r = &c->rec->receipt;
    const struct at_allotment *unit = &l->allotments[c->replica];
    const struct at_grouped *g = &l->groups[c->replica];
    if (at_genesis_stages(&l->genesis) == 1) {
        if (r->group != 0 || r->took_ms != 0) return refuse(c, "it names a group, and members of this run work alone");
        return unit->received ? refuse(c, "this replica's receipt is already in the log") : AT_OK;
    }
    if (r->group >> g->size != 0 || (r->group >> g->place & 1) == 0)
        return refuse(c, "it names others than the author and members of its group");
    if (at_ledger_unit_complete(l, (uint32_t)c->replica)) return refuse(c, "all parts of the unit are in the log");
    if (unit->received && ((r->group & ~unit->receipt.group) != 0 || r->group == unit->receipt.group))
        return refuse(c, "it does not name fewer members than the author's last receipt");
    for (uint32_t k = g->lead; k != AT_GROUP_END; k = l->groups[k].next)
        if (l->allotments[k].received && l->allotments[k].receipt.group == r->group &&
            l->allotments[k].receipt.samples != r->samples)
            return refuse(c, "its samples are not those of the unit's other parts");
    return AT_OK;
}

static uint64_t flops_per_token(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    uint32_t group = c->rec->receipt.group;
    if (group == 0) return l->flops_per_token;
    struct at_stage_cut cut = at_ledger_cut(l, (uint32_t)c->replica, group);
    return at_stage_cut_flops(&l->genesis.model, &cut, at_group_stage(group, l->groups[c->replica].place));
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
    if ((err = judge_group(c))) return err;
    if (!at_hash_eq(r->state_in, l->state_root)) return refuse(c, "it started from another state than the round's");
    if (r->start != unit->range.start) return refuse(c, "its samples do not start where they were allotted");
    if (r->steps < 1 || r->samples > unit->range.samples) return refuse(c, "more samples than were allotted, or none");
    if (r->samples != (uint64_t)r->steps * l->genesis.train.batch) return refuse(c, "samples are not steps x batch");
    if (r->tokens != (uint64_t)r->samples * l->genesis.model.seq_len)
        return refuse(c, "tokens are not samples x seq_len");
    if (r->flops != r->tokens * flops_per_token(c))
        return refuse(c, "FLOPs are not what the program counts from the shapes");
    if (r->update_bytes < 1 || r->update_bytes > at_ledger_update_bytes_max(l))
        return refuse(c, "the update's size is not plausible");
    if (at_ledger_updates_clash(l, r)) return refuse(c, "its update is that of another receipt, with another size");
    struct at_round round = at_ledger_round(l);
    if (!at_round_is_lossy(&round) && !at_hash_is_zero(r->feedback))
        return refuse(c, "it names error feedback, and this round's updates leave nothing over");
    struct at_stage_cut cut = at_ledger_cut(l, (uint32_t)c->replica, r->group);
    if (r->heldout != 0 && cut.stages > 1 &&
        at_group_stage(r->group, l->groups[c->replica].place) + 1 != (int)cut.stages)
        return refuse(c, "it tells of a held-out loss, which only the last stage computes");
    return AT_OK;
}

static at_err_t judge_close(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_replicas *in = &c->rec->close.included;
    at_err_t err = judge_round(c, c->rec->close.round);
    if (err) return err;
    for (uint32_t r = at_replicas_next(in, 0); r < AT_MEMBERS_MAX; r = at_replicas_next(in, r + 1)) {
        if (r >= l->member_count || !l->allotments[r].received)
            return refuse(c, "it includes a replica without a receipt");
        if (!at_ledger_part_counts(l, r)) return refuse(c, "it includes a part of a unit that is not complete");
        for (uint32_t k = l->groups[r].lead; k != AT_GROUP_END; k = l->groups[k].next)
            if (at_ledger_part_counts(l, k) && !at_replicas_has(in, k))
                return refuse(c, "it includes some parts of a unit without the others");
    }
    return AT_OK;
}

static at_err_t judge_epoch(const struct context *c)
{
    const struct at_epoch *epoch = &c->rec->epoch;
    at_err_t err = judge_round(c, epoch->round);
    if (err) return err;
    if (!at_hash_eq(epoch->balances, at_ledger_balances(c->ledger)))
        return refuse(c, "its balances are not those of the log");
    if (epoch->round + 1 < at_genesis_rounds(&c->ledger->genesis) &&
        epoch->heldout_loss != at_ledger_heldout(c->ledger))
        return refuse(c, "its held-out loss is not that of the receipts");
    return AT_OK; /* any root: everybody computes it. It has the round, so it changes when nobody is in, too */
}

static at_err_t judge_end(const struct context *c)
{
    bool right = c->rec->end.rounds == c->ledger->round;
    return right ? AT_OK : refuse(c, "it does not count the rounds done");
}

static at_err_t judge_word(const struct context *c)
{
    const struct at_steward_words *words = c->rec->kind == AT_RECORD_END ? &c->ledger->end_words : &c->ledger->words;
    if (c->ledger->seats.count == 1) return AT_OK; /* each of its words is a deed, and ends its phase */
    if (c->replica < 0) return refuse(c, "the author is not a member");
    if (c->rec->time_ms <= c->ledger->members[c->replica].word_ms)
        return refuse(c, "older than the author's last word");
    struct at_word word = at_ledger_word(c->rec);
    if (at_words_has(words, (uint32_t)c->seat, &word)) return refuse(c, "this steward has said so already");
    return at_words_left(words, (uint32_t)c->seat) ? AT_OK : refuse(c, "this steward has changed its mind too often");
}

static at_err_t judge_ticket(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_stand *stand = &c->rec->stand;
    if (!stand->has_ticket) {
        bool young = l->round < AT_SEATS_YOUNG_ROUNDS;
        if (l->members[c->replica].vouched || (!young && l->members[c->replica].confirmed > 0)) return AT_OK;
        return refuse(c,
                      young ? "a seat of a young run needs the founder's ticket" : "the author has no confirmed work");
    }
    for (uint32_t r = 0; r < l->member_count; r++)
        if (r != (uint32_t)c->replica && l->members[r].vouched &&
            at_node_id_eq(&l->members[r].ticket, &stand->ticket.ticket))
            return refuse(c, "another member has shown this ticket");
    bool right = at_ticket_verify(&stand->ticket, l->run, &l->genesis.steward, c->author, l->verifier) == AT_OK;
    return right ? AT_OK : refuse(c, "its ticket is not the founder's, or not for the author");
}

static at_err_t judge_ready(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_stand *stand = &c->rec->stand;
    if (l->members[c->replica].barred)
        return refuse(c, "the author is barred from seats: there is EVIDENCE against it");
    if (stand->term != l->seats.term + 1) return refuse(c, "it is not for the next term");
    if (l->members[c->replica].stands_for == stand->term) return refuse(c, "the author stands already");
    if (at_seat_key_verify(&stand->key, l->run, c->author, &stand->key_use, l->verifier))
        return refuse(c, "the author does not show that it has the seat's key");
    for (uint32_t r = 0; r < l->member_count; r++) {
        const struct at_member *m = &l->members[r];
        if (r != (uint32_t)c->replica && m->stands_for == stand->term && at_node_id_eq(&m->stand.key, &stand->key))
            return refuse(c, "another member stands with this key");
    }
    for (uint32_t i = 0; i < l->seats.count; i++)
        if (at_node_id_eq(&l->seats.seat[i].key, &stand->key) && !at_node_id_eq(&l->seats.seat[i].member, c->author))
            return refuse(c, "another member's seat has this key");
    bool founder = at_node_id_eq(c->author, &l->genesis.steward);
    return founder ? AT_OK : judge_ticket(c);
}

static at_err_t judge_block(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_head *head = &c->rec->head;
    if (l->seats.count == 1) return refuse(c, "a single steward makes no blocks");
    if (head->term != l->seats.term) return refuse(c, "it is of another term");
    if (head->view <= l->view) return refuse(c, "its view is not later than the last block's");
    if (c->rec->time_ms <= l->block_ms) return refuse(c, "its time is not later than the last block's");
    return at_beacon_fits(&l->beacon, at_view_leader(head->view, l->seats.count), head->reveal)
               ? AT_OK
               : refuse(c, "it does not reveal the next link of its leader's beacon");
}

static at_err_t judge_evidence(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_evidence *e = &c->rec->evidence;
    if (!at_hash_eq(e->run, l->run)) return refuse(c, "it is about another run");
    int holder = at_ledger_key_holder(l, &e->key);
    if (holder < 0) return refuse(c, "no seat that is known here has this key");
    if (l->members[holder].barred) return refuse(c, "whom it names is barred already");
    return at_evidence_verify(e, l->verifier) == AT_OK ? AT_OK : refuse(c, "a signature in it does not verify");
}

static at_err_t judge_measure(const struct context *c)
{
    const struct at_ledger *l = c->ledger;
    const struct at_measure *m = &c->rec->measure;
    const struct at_measured *before = &l->measured[c->replica];
    if (!at_genesis_is_planned(&l->genesis))
        return refuse(c, "members of this run work alone, or in groups by the log: nothing follows from it");
    for (uint32_t i = 0; i < m->link_count; i++) {
        if (m->link[i].replica >= l->member_count) return refuse(c, "it tells of a link to nobody");
        if (m->link[i].replica == (uint32_t)c->replica) return refuse(c, "it tells of a link to its author");
    }
    if (before->count == 0) return AT_OK;
    if (c->rec->time_ms <= before->time_ms) return refuse(c, "older than the author's last one");
    bool often = before->count >= AT_ROLES_MEASURES + (l->round - before->round) / AT_ROLES_MEASURE_ROUNDS;
    return often ? refuse(c, "the author has measured itself too often; again after some rounds") : AT_OK;
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
                        .seat = at_ledger_seat(ledger, &signed_rec->author),
                        .diag = diag};
    if (!at_hash_eq(rec.run, ledger->run)) return refuse(&c, "it belongs to another run");
    const struct rule *rule = &rules[rec.kind];
    static const struct at_sig none;
    err = judge_role(&c, rule->author);
    if (!err && rule->author == NOBODY && memcmp(&signed_rec->sig, &none, sizeof none) != 0)
        err = refuse(&c, "it carries a signature");
    if (!err) err = judge_phase(&c, rule->phases);
    if (!err) err = rule->judge(&c);
    if (!err && rule->author == STEWARD) err = judge_word(&c);
    if (err) return err;
    if (ret_rec != NULL) *ret_rec = rec;
    return AT_OK;
}

at_err at_ledger_check(const struct at_ledger *ledger, const struct at_signed_record *rec, struct at_diag *diag)
{
    if (at_signed_record_verify_by(rec, ledger->verifier) != AT_OK)
        return at_fail(diag, AT_E_SIGNATURE, "record", "the record's signature does not verify");
    return at_ledger_judge(ledger, rec, diag, NULL);
}
