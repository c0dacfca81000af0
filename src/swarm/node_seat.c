/* node_seat.c: standing for a seat of the next term, and the secrets of seats.
 *
 *   in a term of     stands for the next one (READY, once)
 *   one steward      a member with a ticket, at once; the founder, as soon as somebody else does
 *   several          16 rounds into the term, or when a beacon is a quarter used: members with a ticket, shown now or
 *                    earlier; the founder; once the run is old enough, whoever has confirmed work
 *
 *   with a barred    at once: its seat is free for somebody
 *   steward
 *
 *   EVIDENCE seen    a record of ours, sent until the holder of the key is barred: any steward may have been the only one
 *                    who was shown both
 *
 *   secret           does
 *   of the next      SECRET_MAKE before READY; the seat's key and its beacon are made of it
 *   term
 *   of a term that   SECRETS_ERASE: once the next term has begun and the last size of the old one has its checkpoint. A
 *   is over          holder that did not stand goes on with its old key, and keeps that secret
 */
#include "swarm/node_internal.h"

#include <stdlib.h>
#include <string.h>

static const char key_domain[] = "atoll seat key 1", beacon_domain[] = "atoll seat beacon 1";

static struct at_hash derive(const struct at_node_secret *secret, const char *domain, size_t n)
{
    return at_sha256_2(at_span(domain, n), at_span(secret->bytes, sizeof secret->bytes));
}

bool at_node_secret_key(const struct at_node_secret *secret, const struct at_keypair *node, struct at_keypair *ret_key)
{
    struct at_hash seed = derive(secret, key_domain, sizeof key_domain);
    if (at_keypair_from_seed(seed.b, ret_key) != AT_OK) return false;
    ret_key->stand_in = node->stand_in;
    return true;
}

/* 65,536 hashes the first time. NULL: no memory. */
static const struct at_beacon_chain *chain_of(struct at_node_machine *m, const struct at_node_secret *secret)
{
    struct at_node_agree *a = &m->agree;
    for (int i = 0; i < 2; i++)
        if (a->chains[i] && a->chains[i]->term == secret->term) return &a->chains[i]->links;
    int i = a->chains[0] && &a->chains[0]->links == a->chain_used ? 1 : 0; /* Simplex has borrowed that one */
    if (!a->chains[i] && !(a->chains[i] = calloc(1, sizeof *a->chains[i]))) return NULL;
    uint32_t links = m->options.beacon_links ? m->options.beacon_links : AT_BEACON_LENGTH_MAX;
    a->chains[i]->term = secret->term;
    at_beacon_chain_init(&a->chains[i]->links, derive(secret, beacon_domain, sizeof beacon_domain), links);
    return &a->chains[i]->links;
}

bool at_node_seat_key(struct at_node_machine *m, const struct at_node_id *key, struct at_keypair *ret_key,
                      const struct at_beacon_chain **ret_chain)
{
    struct at_node_agree *a = &m->agree;
    for (uint32_t i = 0; i < a->secret_count; i++) {
        if (!at_node_secret_key(&a->secrets[i], &m->options.key, ret_key) || !at_node_id_eq(&ret_key->id, key))
            continue;
        if (ret_chain) *ret_chain = chain_of(m, &a->secrets[i]);
        return true;
    }
    return false;
}

void at_node_secret(struct at_node_machine *m, const struct at_node_secret *secret)
{
    struct at_node_agree *a = &m->agree;
    for (uint32_t i = 0; i < a->secret_count; i++)
        if (a->secrets[i].term == secret->term) return;
    if (a->secret_count < AT_NODE_SECRETS) a->secrets[a->secret_count++] = *secret;
    m->again = true;
}

static const struct at_node_secret *secret_for(struct at_node_machine *m, uint32_t term)
{
    struct at_node_agree *a = &m->agree;
    for (uint32_t i = 0; i < a->secret_count; i++)
        if (a->secrets[i].term == term) return &a->secrets[i];
    if (a->secret_asked != term) at_node_op_add(m, AT_NODE_OP_SECRET_MAKE)->agree.term = term;
    a->secret_asked = term;
    return NULL;
}

/* ---- standing ---- */
static bool somebody_stands(const struct at_node_machine *m, uint32_t term)
{
    for (uint32_t r = 0; r < m->ledger.member_count; r++)
        if (m->ledger.members[r].stands_for == term && m->ledger.members[r].active) return true;
    return false;
}

static bool wants_seat(const struct at_node_machine *m, const struct at_member *self, uint32_t term)
{
    const struct at_ledger *l = &m->ledger;
    bool founder = at_node_id_eq(&self->id, &l->genesis.steward), ticket = m->options.ticket || self->vouched;
    if (l->seats.count == 1) return founder ? somebody_stands(m, term) : ticket;
    bool due = l->round >= l->term_round + AT_NODE_STAND_AFTER;
    for (uint32_t s = 0; s < l->seats.count; s++) {
        int holder = at_ledger_find(l, &l->seats.seat[s].member);
        due = due || l->beacon.used[s] > AT_BEACON_LENGTH_MAX / 4 || (holder >= 0 && l->members[holder].barred);
    }
    return due && (founder || ticket || (l->round >= AT_SEATS_YOUNG_ROUNDS && self->confirmed > 0));
}

static bool sign_stand(struct at_node_machine *m, const struct at_member *self, uint32_t term)
{
    const struct at_node_secret *secret = secret_for(m, term);
    const struct at_beacon_chain *chain = secret ? chain_of(m, secret) : NULL;
    struct at_record rec = {.kind = AT_RECORD_READY};
    struct at_keypair key;
    if (!chain || !at_node_secret_key(secret, &m->options.key, &key)) return false;
    rec.stand = (struct at_stand){.term = term,
                                  .key = key.id,
                                  .key_use = at_seat_key_show(&key, m->options.run, &self->id),
                                  .chain = chain->commitment,
                                  .has_ticket = m->options.ticket && !self->vouched};
    if (rec.stand.has_ticket &&
        at_ticket_show(m->options.ticket, m->options.run, &m->options.key, &rec.stand.ticket) != AT_OK)
        return false; /* the invite's ticket is none */
    return at_node_own_sign(m, AT_NODE_OWN_READY, &rec, m->wall_ms);
}

static void stand(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    int self = at_node_self(m);
    uint32_t term = m->ledger.seats.term + 1;
    if (self < 0 || !m->ledger.members[self].active || m->ledger.phase == AT_LEDGER_ENDED || m->finishing) return;
    const struct at_member *member = &m->ledger.members[self];
    if (member->barred || member->stands_for == term || !wants_seat(m, member, term)) return;
    bool fresh = a->stand_term != term;
    if (fresh && !sign_stand(m, member, term)) return;
    a->stand_term = term;
    if (!m->consensus)
        at_node_own_send(m, AT_NODE_OWN_READY);
    else if (fresh)
        at_node_own_submit(m, AT_NODE_OWN_READY);
}

/* ---- accusing ---- */
static bool barred(const struct at_node_machine *m, const struct at_node_id *key)
{
    int holder = at_ledger_key_holder(&m->ledger, key);
    return holder < 0 || m->ledger.members[holder].barred;
}

static enum at_node_own_what evidence(uint32_t i)
{
    return (enum at_node_own_what)(AT_NODE_OWN_EVIDENCE + i);
}

void at_node_accuse(struct at_node_machine *m, const struct at_evidence *e)
{
    uint32_t free = AT_NODE_ACCUSALS;
    struct at_record rec = {.kind = AT_RECORD_EVIDENCE, .evidence = *e};
    if (barred(m, &e->key)) return; /* it may go on lying in every view: once is enough to tell */
    for (uint32_t i = 0; i < AT_NODE_ACCUSALS; i++) {
        if (!m->own[evidence(i)].is_signed)
            free = i;
        else if (at_node_id_eq(&m->agree.accused[i], &e->key))
            return;
    }
    at_node_note(m, "a steward lies: two %s signed by %.16s exclude each other",
                 e->of_votes ? "votes" : "roots of the log", at_node_id_hex(&e->key).s);
    if (free == AT_NODE_ACCUSALS) return;
    m->agree.accused[free] = e->key;
    (void)at_node_own_sign(m, evidence(free), &rec, m->wall_ms);
    m->again = true;
}

static void accuse(struct at_node_machine *m)
{
    for (uint32_t i = 0; i < AT_NODE_ACCUSALS; i++) {
        struct at_node_own *own = &m->own[evidence(i)];
        if (own->is_signed && barred(m, &m->agree.accused[i]))
            own->is_signed = false;
        else if (own->is_signed && !m->consensus)
            at_node_own_send(m, evidence(i));
    }
}

/* ---- erasing ---- */
static void erase(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    uint32_t least = m->ledger.seats.term + 1, n = 0;
    const struct at_node_term *all[] = {a->now, at_node_cosign_before_done(m) ? NULL : a->before};
    bool gone = false;
    for (uint32_t i = 0; i < a->secret_count; i++) {
        struct at_keypair key;
        for (int k = 0; k < 2; k++)
            if (all[k] && a->secrets[i].term < least && at_node_secret_key(&a->secrets[i], &m->options.key, &key) &&
                at_node_id_eq(&key.id, &all[k]->key.id))
                least = a->secrets[i].term;
    }
    for (uint32_t i = 0; i < a->secret_count; i++) {
        if (a->secrets[i].term >= least)
            a->secrets[n++] = a->secrets[i];
        else
            gone = true;
    }
    if (!gone) return;
    a->secret_count = n;
    memset(a->secrets + n, 0, (AT_NODE_SECRETS - n) * sizeof a->secrets[0]);
    if (a->before) memset(a->before->key.seed, 0, sizeof a->before->key.seed);
    at_node_op_add(m, AT_NODE_OP_SECRETS_ERASE)->agree.term = least;
}

void at_node_seat_drive(struct at_node_machine *m)
{
    if (!m->has_genesis || m->ended || !at_node_settled(m)) return;
    if (m->consensus || (m->mesh.path && m->log_synced)) stand(m);
    if (m->mesh.path && m->log_synced) accuse(m);
    if (m->agree.secret_count > 0 && m->log_synced && m->ledger.seats.term == m->agree.term) erase(m);
}
