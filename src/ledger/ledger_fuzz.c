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

static struct at_record make(struct log_fixture *f, struct script *s, int author)
{
    uint8_t bits = next(s);
    switch (next(s) % 7) {
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
    default:
        return fixture_end_record(f);
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
    AT_ASSERT(tokens / l->genesis.model.seq_len + freed + used == l->samples.next);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct log_fixture f; /* keys are made once; the ledger is fresh each time */
    if (f.now_ms == 0)
        fixture_init(&f);
    else
        AT_ASSERT(at_ledger_init(&f.ledger, &f.genesis, NULL) == AT_OK);
    struct script s = {.p = data, .n = size};
    for (int i = 0; i < 400 && s.n != 0; i++) {
        int author = next(&s) % FIXTURE_KEYS;
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
        check_fold(&f.ledger);
    }
    at_ledger_release(&f.ledger);
    return 0;
}
