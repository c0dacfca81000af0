/* node_agree.c: a steward among several: its term, and the steps of Simplex (consensus/simplex.h) in it.
 *
 *   event                                   does
 *   the ledger is in another term           before: stops ordering in the old one, keeps its cosignatures until the size at
 *                                           which it ended has a checkpoint. Own seat and its key there: starts Simplex at
 *                                           the term's begin, or where the rows say it was (restore)
 *   Agree of a seat's member, of the term   a step; forged or malformed: Bye, closes
 *   any other Agree                         ignored: the peer, or we, may be in another term
 *   a link to a seat's member says Hello    Simplex's LINK; our last cosignatures again
 *   an op of Simplex                        persist ops: rows of one PERSIST; SEND: to the seats that are linked; FINAL:
 *                                           node_final.c
 *
 * A steward that hears of a longer log asks for it as everybody does (node_route.c): the log and Simplex's tip come by
 * different ways, and the fold knows by its view a block that it has. So one that slept through a hand-over need not be
 * served by stewards that are no more. */
#include "swarm/node_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPS_LEFT 512 /* of a step's operations, for what may not be left out */

/* ---- whom it talks to ---- */
bool at_node_among_several(const struct at_node_machine *m)
{
    return m->agree.simplex != NULL;
}

void at_node_to_seats(struct at_node_machine *m, const struct at_seats *seats, uint32_t to,
                      const struct at_message *msg)
{
    bool encoded = false;
    for (uint32_t s = 0; s < seats->count; s++) {
        if ((to >> s & 1) == 0 || at_node_id_eq(&seats->seat[s].member, &m->options.key.id)) continue;
        const struct at_node_link *l = at_node_link_of(m, &seats->seat[s].member);
        if (!l || m->op_count + OPS_LEFT > AT_NODE_OPS_MAX) continue; /* it is told again */
        if (encoded)
            at_node_send_again(m, l->id);
        else
            at_node_send(m, l->id, msg);
        encoded = true;
    }
}

uint32_t at_node_seats_here(struct at_node_machine *m)
{
    const struct at_seats *seats = &m->ledger.seats;
    uint32_t here = 0;
    for (uint32_t s = 0; s < seats->count; s++) {
        bool self = at_node_id_eq(&seats->seat[s].member, &m->options.key.id);
        here += self ? m->is_steward : at_node_link_of(m, &seats->seat[s].member) != NULL;
    }
    return here;
}

/* ---- what Simplex is handed ---- */
static void sign_vote(void *user, struct at_vote *vote)
{
    struct at_node_machine *m = user;
    const struct at_node_term *t = m->agree.now;
    uint8_t text[AT_VOTE_TEXT_BYTES];
    at_vote_text(vote, m->options.run, t->seats.term, text);
    vote->sig = at_sign(&t->key, at_span(text, sizeof text));
}

static at_err_t verify_vote(void *user, const struct at_vote *vote)
{
    struct at_node_machine *m = user;
    const struct at_node_term *t = m->agree.now;
    if (vote->seat >= t->seats.count) return AT_E_SIGNATURE;
    return at_vote_verify(vote, &t->seats.seat[vote->seat].key, m->options.run, t->seats.term, m->options.verifier);
}

/* Signature and form: what depends on nothing but the record. */
static at_err_t check_record(void *user, const struct at_signed_record *record, struct at_diag *diag)
{
    const struct at_node_machine *m = user;
    struct at_record rec;
    at_err_t err = at_record_decode(at_signed_record_body(record), diag, &rec);
    return err ? err : at_signed_record_verify_by(record, m->options.verifier);
}

/* ---- Simplex's ops ---- */
static void send_agree(struct at_node_machine *m, uint32_t to, const struct at_agree *agree)
{
    struct at_node_agree *a = &m->agree;
    struct at_message msg = {.kind = AT_MSG_AGREE};
    at_buf_clear(&a->out);
    if (at_agree_encode(agree, &a->out)) return; /* no memory: it is sent again */
    msg.agree.bytes = at_buf_span(&a->out);
    at_node_to_seats(m, &a->now->seats, to, &msg);
}

static void send_block(struct at_node_machine *m, uint32_t to, struct at_span block,
                       const struct at_certificate *certificate)
{
    struct at_agree agree = {.term = m->agree.now->seats.term, .kind = AT_AGREE_PROPOSAL};
    agree.proposal.block = block;
    if (certificate) agree.proposal.certificates[agree.proposal.certificate_count++] = certificate;
    send_agree(m, to, &agree);
}

/* Of blocks that the driver has. */
static void read_blocks(struct at_node_machine *m, const struct at_simplex_op *o)
{
    const struct at_seats *seats = &m->agree.now->seats;
    uint32_t seat = (uint32_t)__builtin_ctz(o->to); /* an answer has one receiver */
    const struct at_node_link *link = at_node_link_of(m, &seats->seat[seat].member);
    if (!link) return;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_AGREE_READ);
    op->link = link->id;
    op->agree.term = seats->term;
    op->agree.of_block = o->kind == AT_SIMPLEX_SEND_BLOCK;
    op->agree.view = o->view;
    op->agree.last = o->last;
    op->agree.hash = o->hash;
}

static void do_op(struct at_node_machine *m, const struct at_simplex_op *o)
{
    const struct at_node_cached *block;
    struct at_evidence evidence;
    switch (o->kind) {
    case AT_SIMPLEX_PERSIST_VOTE:
    case AT_SIMPLEX_PERSIST_CERTIFICATE:
    case AT_SIMPLEX_PERSIST_ABSTAIN:
        at_node_keep(m, o);
        if (o->kind == AT_SIMPLEX_PERSIST_ABSTAIN)
            at_node_note(m, "this folder is older than what this node has said: it does not vote in this term");
        break;
    case AT_SIMPLEX_PERSIST_BLOCK:
        at_node_keep(m, o);
        at_node_block_cache(m, o->view, o->hash, o->bytes);
        break;
    case AT_SIMPLEX_FINAL:
        at_node_final(m, o);
        at_node_keep(m, o);
        break;
    case AT_SIMPLEX_SEND:
        send_agree(m, o->to, &o->message);
        break;
    case AT_SIMPLEX_SEND_BLOCK:
        block = at_node_block_find(m, o->view, &o->hash);
        if (block)
            send_block(m, o->to, at_buf_span(&block->bytes), NULL);
        else
            read_blocks(m, o);
        break;
    case AT_SIMPLEX_SERVE:
        read_blocks(m, o);
        break;
    case AT_SIMPLEX_EVIDENCE:
        evidence = at_evidence_of_votes(m->options.run, &m->agree.now->seats.seat[o->votes[0].seat].key,
                                        m->agree.now->seats.term, &o->votes[0], &o->votes[1]);
        at_node_accuse(m, &evidence);
        break;
    }
}

/* One transaction: what is kept, and the records that became final with it. */
static void begin_persist(struct at_node_machine *m, uint64_t seq, uint64_t from, size_t record, size_t kept)
{
    struct at_node_agree *a = &m->agree;
    if (seq == 0 || m->ended) return;
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_PERSIST);
    size_t at = (size_t)(op - m->scratch->ops);
    op->persist.from = from;
    op->persist.count = a->record_count - record;
    op->persist.kept_count = a->kept_count - kept;
    m->scratch->record_at[at] = record;
    m->scratch->kept_at[at] = kept;
    at_node_cosign_attach(m, op);
    if (a->wait_count == AT_NODE_PERSISTS) a->wait_count--; /* it is told with the one after it */
    a->wait[a->wait_count].persist = a->begun;
    a->wait[a->wait_count++].seq = seq;
}

at_err_t at_node_simplex(struct at_node_machine *m, struct at_simplex_event event)
{
    struct at_node_agree *a = &m->agree;
    struct at_simplex_update update;
    uint64_t from = m->ledger.tree.size;
    size_t record = a->record_count, kept = a->kept_count;
    event.now_ms = m->now_ms;
    event.clock_ms = m->wall_ms;
    at_simplex_step(a->simplex, &event, &update);
    for (size_t i = 0; i < update.op_count && !m->ended; i++) do_op(m, &update.ops[i]);
    begin_persist(m, update.persist, from, record, kept);
    at_node_cosign_persist(m);
    if (update.err == AT_E_VERIFY)
        at_node_end(m, AT_E_VERIFY, "more than a third of the stewards have signed what excludes the final log");
    return update.err;
}

/* ---- events ---- */
void at_node_agree_persisted(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    struct at_simplex_event event = {.kind = AT_SIMPLEX_PERSISTED};
    size_t n = 0;
    a->done++;
    while (n < a->wait_count && a->wait[n].persist <= a->done) event.persisted = a->wait[n++].seq;
    a->wait_count -= n;
    memmove(a->wait, a->wait + n, a->wait_count * sizeof a->wait[0]);
    if (n > 0 && a->simplex) (void)at_node_simplex(m, event);
}

static int seat_of(const struct at_node_machine *m, const struct at_node_link *link)
{
    const struct at_node_term *t = m->agree.now;
    int seat = m->agree.simplex ? at_seats_find(&t->seats, &link->node) : -1;
    return seat == (m->agree.simplex ? t->seat : -1) ? -1 : seat;
}

void at_node_agree_message(struct at_node_machine *m, struct at_node_link *link, struct at_span bytes)
{
    struct at_node_agree *a = &m->agree;
    struct at_diag diag = {0};
    struct at_agree agree;
    int seat = seat_of(m, link);
    if (seat < 0) return;
    if (at_agree_decode(bytes, &a->mem, &diag, &agree)) {
        at_node_link_refuse(m, link, diag.text[0] ? diag.text : "no steward says this");
        return;
    }
    if (agree.term != a->now->seats.term) return;
    struct at_simplex_event event = {.kind = AT_SIMPLEX_MESSAGE, .from = (uint32_t)seat, .message = &agree};
    if (at_node_simplex(m, event) == AT_E_PEER)
        at_node_link_refuse(m, link, "a forged signature, or a block that no honest steward passes on");
}

void at_node_agree_data(struct at_node_machine *m, const struct at_node_event *e)
{
    struct at_node_link *link = at_node_link_find(m, e->link);
    int seat = link && at_node_link_open(link) ? seat_of(m, link) : -1;
    if (seat < 0 || e->agree.term != m->agree.now->seats.term) return;
    for (size_t i = 0, first = 0; i < e->agree.count;
         i++) { /* a certificate first, then the blocks that it makes final */
        const struct at_node_block *b = &e->agree.list[i];
        struct at_agree certificate;
        bool has = b->certificate.n > 0 && !e->agree.of_block;
        if (!has && !e->agree.of_block) continue;
        if (has && (at_agree_decode(b->certificate, &m->agree.mem, NULL, &certificate) ||
                    certificate.kind != AT_AGREE_CERTIFICATE))
            return; /* damaged on the disk: others have it, too */
        send_block(m, UINT32_C(1) << seat, b->bytes, has ? certificate.certificate : NULL);
        for (size_t k = i; k-- > first && has;) send_block(m, UINT32_C(1) << seat, e->agree.list[k].bytes, NULL);
        first = i + 1;
    }
}

void at_node_agree_link(struct at_node_machine *m, struct at_node_link *link)
{
    int seat = seat_of(m, link);
    at_node_cosign_again(m, link);
    if (seat < 0) return;
    m->mesh.path = ++m->mesh.paths; /* our words of presence are told to this one, too */
    at_node_presence_again(m);
    (void)at_node_simplex(m, (struct at_simplex_event){.kind = AT_SIMPLEX_LINK, .from = (uint32_t)seat});
}

/* ---- the term ---- */
static void steward_no_more(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    at_simplex_release(a->simplex);
    a->simplex = NULL;
    a->chain_used = NULL;
    a->wait_count = 0;
    a->word_pending = false;
    at_node_blocks_clear(m);
    if (!m->is_steward) return;
    m->is_steward = false;
    m->mesh.path = 0;
    m->mesh.feed = 0;
    m->mesh.feed_live = m->log_asked = m->log_synced = false;
    m->pathless_ms = m->now_ms ? m->now_ms : 1;
}

/* With several seats nobody is above the others; this node talks to all of them, and follows none. */
static void steward_from_now(struct at_node_machine *m)
{
    struct at_node_link *feed = at_node_feed(m);
    if (feed && m->mesh.feed_live && !m->is_steward) at_node_log_ask(m, feed, true); /* push no more */
    m->is_steward = true;
    m->mesh.feed = 0;
    m->mesh.feed_live = m->log_asked = false;
    m->mesh.path = ++m->mesh.paths;
    m->pathless_ms = 0;
    at_node_presence_again(m);
    at_node_steward_begin(m);
}

at_err_t at_node_term_open(struct at_node_machine *m, const struct at_simplex_tip *tip, bool abstain)
{
    struct at_node_agree *a = &m->agree;
    struct at_keypair key;
    int seat = at_ledger_seat(&m->ledger, &m->options.key.id);
    const struct at_beacon_chain *chain = NULL;
    at_err_t err = AT_OK;
    if (seat < 0 || !at_node_seat_key(m, &m->ledger.seats.seat[seat].key, &key, &chain)) return AT_E_NOT_FOUND;
    if (!a->now && !(a->now = calloc(1, sizeof *a->now))) return AT_E_NOMEM;
    if (!a->room && !(a->room = malloc(sizeof *a->room))) return AT_E_NOMEM;
    if (!a->fresh && !(a->fresh = malloc(AT_NODE_FRESH_MAX * sizeof *a->fresh))) return AT_E_NOMEM;
    if (!a->hold && !(a->hold = calloc(AT_MEMBERS_MAX, sizeof *a->hold))) return AT_E_NOMEM;
    if (!chain) return AT_E_NOMEM;
    a->chain_used = chain;
    at_node_cosign_term(m, a->now, &m->ledger.seats, &key);
    struct at_simplex_options options = {.run = m->options.run,
                                         .term = m->ledger.seats.term,
                                         .seat_count = m->ledger.seats.count,
                                         .seat = (uint32_t)seat,
                                         .abstain = abstain,
                                         .nonce = m->options.nonce + m->ledger.seats.term,
                                         .delta_ms = AT_NODE_DELTA_MS,
                                         .delta_max_ms = AT_NODE_DELTA_MAX_MS,
                                         .chain = chain,
                                         .sign = sign_vote,
                                         .verify = verify_vote,
                                         .check = check_record,
                                         .user = m};
    options.tip = *tip;
    if (m->options.canary == AT_NODE_CANARY_NO_DUMMIES) options.canary = AT_SIMPLEX_CANARY_NO_DUMMIES;
    err = at_simplex_init(&options, &a->simplex);
    return err;
}

static void enter(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    bool restored = a->simplex && a->now->seats.term == m->ledger.seats.term;
    at_err_t err = AT_OK;
    if (m->consensus) at_node_note(m, "the run has %u stewards from now on", m->ledger.seats.count);
    a->term = m->ledger.seats.term;
    at_node_ring_stale(m);
    free(m->consensus);
    m->consensus = NULL;
    if (!restored) {
        steward_no_more(m);
        at_node_cosign_before(m);
        free(a->now);
        a->now = NULL;
        struct at_simplex_tip tip = {.hash = a->begin_leaf, .state = {a->begin_ms, a->begin_beacon}};
        err = at_node_term_open(m, &tip, false);
    }
    if (err == AT_E_NOMEM || err == AT_E_USAGE) at_node_end(m, err, "no memory for a steward's part");
    if (err) return;
    steward_from_now(m);
    a->synced = false;
    a->fresh_from = m->ledger.tree.size;
    a->fresh_count = 0;
    (void)at_node_simplex(m, (struct at_simplex_event){.kind = AT_SIMPLEX_START});
    at_node_cosign_now(m);
    at_node_cosign_persist(m);
}

/* "c, d"; the first few by name. */
static void absent_seats(struct at_node_machine *m, char *ret, size_t bytes)
{
    const struct at_seats *seats = &m->ledger.seats;
    size_t n = 0;
    uint32_t more = 0;
    ret[0] = '\0';
    for (uint32_t s = 0; s < seats->count; s++) {
        const struct at_node_id *id = &seats->seat[s].member;
        bool self = at_node_id_eq(id, &m->options.key.id);
        int replica = at_ledger_find(&m->ledger, id);
        if (replica < 0 || (self ? m->is_steward : at_node_link_of(m, id) != NULL)) continue;
        const char *name = m->ledger.members[replica].name;
        if (n + strlen(name) + sizeof ", and 31 more" > bytes)
            more++;
        else
            n += (size_t)snprintf(ret + n, bytes - n, "%s%s", n > 0 ? ", " : "", name);
    }
    if (more > 0) snprintf(ret + n, bytes - n, "%s%u more", n > 0 ? " and " : "", more);
}

static void note_few(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    uint32_t seats = m->ledger.seats.count, need = 2 * at_seats_faults(seats) + 1, here = at_node_seats_here(m);
    if (here >= need) {
        if (a->few_told) at_node_note(m, "%u of %u stewards are here: the run goes on", here, seats);
        a->few_ms = 0;
        a->few_told = false;
    } else if (!a->few_ms) {
        a->few_ms = m->now_ms + AT_NODE_ALONE_NOTE_MS;
    } else if (!a->few_told && m->now_ms >= a->few_ms) {
        a->few_told = true;
        char absent[80];
        absent_seats(m, absent, sizeof absent);
        at_node_note(m, "waiting for %u of %u stewards: %u %s here; missing: %s (atoll start --dir D brings one back)",
                     need, seats, here, here == 1 ? "is" : "are", absent);
    }
}

void at_node_agree_drive(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    if (!m->has_genesis || m->ended || m->ledger.seats.count == 1) return;
    if (m->consensus && m->consensus->in_flight) return; /* the block that ends the single steward's term */
    if (a->term != m->ledger.seats.term) enter(m);
    if (!a->simplex || m->ended) return;
    if (at_simplex_deadline(a->simplex) <= m->now_ms)
        (void)at_node_simplex(m, (struct at_simplex_event){.kind = AT_SIMPLEX_TICK});
    struct at_simplex_status status = at_simplex_status(a->simplex);
    a->synced = a->synced || status.voting || status.abstaining;
    if (a->synced && !m->log_synced) m->log_synced = m->again = true;
    note_few(m);
}

uint64_t at_node_agree_deadline_ms(const struct at_node_machine *m)
{
    const struct at_node_agree *a = &m->agree;
    if (!a->simplex) return UINT64_MAX;
    uint64_t at = at_simplex_deadline(a->simplex);
    if (a->few_ms && !a->few_told && a->few_ms < at) at = a->few_ms;
    return at > m->now_ms ? at : m->now_ms + 1;
}

void at_node_agree_release(struct at_node_machine *m)
{
    struct at_node_agree *a = &m->agree;
    at_simplex_release(a->simplex);
    at_node_blocks_clear(m);
    free(a->blocks.list);
    for (int i = 0; i < 2; i++) free(a->chains[i]);
    free(a->now);
    free(a->before);
    free(a->room);
    at_agree_mem_release(&a->mem);
    at_buf_release(&a->out);
    free(a->records);
    free(a->cosigned);
    free(a->kept);
    free(a->kept_at);
    free(a->fresh);
    free(a->hold);
}
