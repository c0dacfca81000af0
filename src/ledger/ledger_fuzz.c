/* The input is a script of records by eight authors, mostly right, with any field bent. Properties: a refused record
 * changes nothing; points are conserved; the samples ever used are never more than were ever given out; no sample range
 * in a round overlaps another. */
#include "ledger/log_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct script {
    const uint8_t *p;
    size_t n;
};

static uint8_t next(struct script *s)
{
    if (s->n == 0) return 0;
    s->n--;
    return *s->p++;
}

static struct at_keypair seat_key[FIXTURE_KEYS];
static struct at_beacon_chain chain[FIXTURE_KEYS];
static struct at_ticket_use ticket[FIXTURE_KEYS];
static uint32_t revealed[FIXTURE_KEYS];

static void make_standing(struct log_fixture *f)
{
    for (int k = 0; k < FIXTURE_KEYS; k++) {
        uint8_t seed[AT_KEY_BYTES] = {(uint8_t)(k + 101)};
        struct at_keypair key;
        AT_ASSERT(at_keypair_from_seed(seed, &seat_key[k]) == AT_OK);
        at_beacon_chain_init(&chain[k], at_sha256(seed, sizeof seed), 400);
        seed[1] = 1;
        AT_ASSERT(at_keypair_from_seed(seed, &key) == AT_OK);
        struct at_ticket made = at_ticket_make(&f->key[0], f->ledger.run, &key);
        AT_ASSERT(at_ticket_show(&made, f->ledger.run, &f->key[k], &ticket[k]) == AT_OK);
    }
}

static struct at_record ready_record(struct log_fixture *f, int author)
{
    struct at_record rec = fixture_record(f, AT_RECORD_READY);
    rec.stand = (struct at_stand){.term = f->ledger.seats.term + 1,
                                  .key = seat_key[author].id,
                                  .key_use = at_seat_key_show(&seat_key[author], rec.run, &f->key[author].id),
                                  .chain = chain[author].commitment,
                                  .has_ticket = true,
                                  .ticket = ticket[author]};
    return rec;
}

/* Against the seat of one, or the founder as the first steward. */
static struct at_record evidence_record(struct log_fixture *f, int author, uint8_t bits)
{
    struct at_record rec = fixture_record(f, AT_RECORD_EVIDENCE);
    const struct at_keypair *key = bits % 4 == 0 ? &f->key[0] : &seat_key[author];
    struct at_log_checkpoint root[2];
    for (uint8_t i = 0; i < 2; i++)
        root[i] = at_log_checkpoint_sign(key, rec.run, 1u + bits, (struct at_hash){{(uint8_t)(i + bits % 2)}});
    rec.evidence = at_evidence_of_roots(rec.run, &root[0], &root[1]);
    return rec;
}

/* A final block of the next view that this author leads, or of one that it doesn't. */
static void block(struct log_fixture *f, int author, uint8_t how)
{
    struct at_ledger *l = &f->ledger;
    struct at_block_head head = {.term = l->seats.term, .view = l->view + 1, .time_ms = ++f->now_ms};
    struct at_signed_record rec;
    while (how % 4 != 0 && head.view < l->view + 5 &&
           !at_node_id_eq(&l->seats.seat[at_view_leader(head.view, l->seats.count)].member, &f->key[author].id))
        head.view++;
    AT_ASSERT(at_beacon_chain_next(&chain[author], revealed[author], &head.reveal));
    if (at_ledger_begin_block(l, &head, NULL, &rec) == AT_OK) revealed[author]++;
}

static struct at_record make(struct log_fixture *f, struct script *s, int author)
{
    uint8_t bits = next(s);
    switch (next(s) % 9) {
    case 0:
        return fixture_record(f, AT_RECORD_JOIN);
    case 1:
        return fixture_record(f, AT_RECORD_LEAVE);
    case 2:
        return fixture_open_record(f, bits);
    case 3: {
        int replica = at_ledger_find(&f->ledger, &f->key[author].id);
        return fixture_receipt_record(f, replica < 0 ? 0 : replica, bits % 6u);
    }
    case 4:
        return fixture_close_record(f, bits);
    case 5:
        return fixture_epoch_record(f);
    case 6:
        return fixture_end_record(f);
    case 7:
        return ready_record(f, author);
    default:
        if (bits % 16 > 12) return evidence_record(f, author, bits);
        block(f, author, bits);
        return fixture_record(f, AT_RECORD_BLOCK); /* which nobody may write */
    }
}

/* Now and then one byte of what would have been right. */
static void bend(struct at_record *rec, struct script *s)
{
    uint8_t how = next(s);
    if (how % 8 != 7) return;
    switch (rec->kind) {
    case AT_RECORD_OPEN:
        rec->open.replicas.b[how % sizeof rec->open.replicas.b] ^= next(s);
        break;
    case AT_RECORD_RECEIPT:
        ((uint8_t *)&rec->receipt)[next(s) % sizeof rec->receipt] ^= next(s);
        break;
    case AT_RECORD_CLOSE:
        rec->close.included.b[how % 4] ^= next(s);
        break;
    case AT_RECORD_EPOCH:
        rec->epoch.round ^= next(s);
        break;
    case AT_RECORD_END:
        rec->end.rounds ^= next(s);
        break;
    case AT_RECORD_READY:
        ((uint8_t *)&rec->stand)[next(s) % offsetof(struct at_stand, has_ticket)] ^= next(s);
        break;
    case AT_RECORD_EVIDENCE:
        rec->evidence.roots[how % 2].sig.b[3] ^= next(s);
        break;
    case AT_RECORD_BLOCK:
        ((uint8_t *)&rec->head)[next(s) % sizeof rec->head] ^= next(s);
        break;
    default:
        rec->time_ms -= next(s);
        break;
    }
}

static void check_fold(const struct at_ledger *l)
{
    uint64_t sum = 0, tokens = 0, used = 0, freed = 0;
    for (uint32_t i = 0; i < l->member_count; i++) {
        sum += l->members[i].confirmed;
        tokens += l->members[i].tokens;
        const struct at_allotment *u = at_ledger_allotment(l, i);
        for (uint32_t k = 0; u != NULL && k < i; k++) {
            const struct at_allotment *v = at_ledger_allotment(l, k);
            AT_ASSERT(v == NULL || u->range.start + u->range.samples <= v->range.start ||
                      v->range.start + v->range.samples <= u->range.start);
        }
        if (u != NULL && l->phase == AT_LEDGER_TRAINING) used += u->range.samples;
    }
    AT_ASSERT(sum == l->confirmed && tokens == l->tokens && l->confirmed % l->genesis.issuance == 0);
    for (size_t i = 0; i < l->samples.whole.count; i++) freed += l->samples.whole.r[i].samples;
    for (size_t i = 0; i < l->samples.part.count; i++) freed += l->samples.part.r[i].samples;
    for (uint32_t i = 0; i < l->seats.count; i++)
        AT_ASSERT((l->seats.count == 1 || at_ledger_find(l, &l->seats.seat[i].member) >= 0) &&
                  at_seats_find(&l->seats, &l->seats.seat[i].member) == (int)i);
    AT_ASSERT(l->seats.count % 3 == 1 && l->seats.count <= AT_SEATS_MAX);
    AT_ASSERT(tokens / l->genesis.model.seq_len + freed + used == l->samples.next);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct log_fixture f; /* keys are made once; the ledger is fresh each time */
    if (f.now_ms == 0) {
        fixture_init(&f);
        make_standing(&f);
    } else {
        AT_ASSERT(at_ledger_init(&f.ledger, &f.genesis, NULL) == AT_OK);
    }
    memset(revealed, 0, sizeof revealed);
    struct script s = {.p = data, .n = size};
    for (int i = 0; i < 400 && s.n != 0; i++) {
        int author = next(&s) % FIXTURE_KEYS;
        uint32_t term = f.ledger.seats.term;
        struct at_record rec = make(&f, &s, author);
        bend(&rec, &s);
        struct at_signed_record rec_signed = {.author = f.key[author].id}; /* apply leaves signatures to its caller */
        if (at_record_encode(&rec, NULL, rec_signed.body, &rec_signed.body_bytes) != AT_OK) continue;
        struct at_hash root = at_ledger_root(&f.ledger), balances = at_ledger_balances(&f.ledger);
        struct at_diag diag = {.err = AT_OK};
        if (at_ledger_apply(&f.ledger, &rec_signed, &diag, NULL) != AT_OK) {
            AT_ASSERT(diag.text[0] != '\0');
            AT_ASSERT(at_hash_eq(root, at_ledger_root(&f.ledger)));
            AT_ASSERT(at_hash_eq(balances, at_ledger_balances(&f.ledger)));
        }
        if (f.ledger.seats.term != term) memset(revealed, 0, sizeof revealed);
        check_fold(&f.ledger);
    }
    at_ledger_release(&f.ledger);
    return 0;
}
