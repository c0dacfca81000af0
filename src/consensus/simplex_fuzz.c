/* A steward among hostile peers that can forge every signature but its own: more than f liars. Properties: it never
 * asserts; its own votes never exclude each other; transactions are numbered in order; what it sends has a form and is
 * not to itself; final views ascend.
 *
 * Input: chunks of  what (1 byte) ‖ bytes (le16) ‖ message. what: bits 0-1: 0-2 a message from seat 1-3, 3 time goes by;
 * bit 2: then everything so far is durable; bit 3: a record is submitted as well. */
#include "consensus/simplex.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RUN  at_sha256("a run", 5)
#define TERM 3u

static void sign(void *user, struct at_vote *vote)
{
    (void)user;
    memset(vote->sig.b, (int)vote->kind, sizeof vote->sig.b);
}

static at_err_t verify(void *user, const struct at_vote *vote)
{
    (void)user;
    return vote->seat != 0 || vote->sig.b[0] == (uint8_t)vote->kind ? AT_OK : AT_E_SIGNATURE;
}

static at_err_t check(void *user, const struct at_signed_record *record, struct at_diag *diag)
{
    (void)user;
    (void)diag;
    return record->sig.b[0] == 1 ? AT_OK : AT_E_SIGNATURE;
}

struct judge {
    struct at_vote votes[512];
    size_t count;
    uint64_t seq, final_view;
};

static void judge_vote(struct judge *j, const struct at_vote *vote)
{
    AT_ASSERT(vote->seat == 0);
    for (size_t i = 0; i < j->count; i++)
        AT_ASSERT(j->votes[i].view != vote->view || !at_votes_exclude(&j->votes[i], vote));
    if (j->count < sizeof j->votes / sizeof j->votes[0]) j->votes[j->count++] = *vote;
}

static void judge(struct judge *j, const struct at_simplex_update *u)
{
    if (u->persist != 0) AT_ASSERT(u->persist == j->seq + 1);
    if (u->persist != 0) j->seq = u->persist;
    for (size_t i = 0; i < u->op_count; i++) {
        const struct at_simplex_op *op = &u->ops[i];
        if (op->kind <= AT_SIMPLEX_FINAL) AT_ASSERT(u->persist != 0);
        if (op->kind == AT_SIMPLEX_PERSIST_VOTE) judge_vote(j, &op->votes[0]);
        if (op->kind == AT_SIMPLEX_FINAL) {
            AT_ASSERT(op->view > j->final_view);
            j->final_view = op->view;
        }
        if (op->kind != AT_SIMPLEX_SEND) continue;
        AT_ASSERT(op->to != 0 && (op->to & ~UINT32_C(0xe)) == 0);
        struct at_buf buf = {0};
        AT_ASSERT(at_agree_encode(&op->message, &buf) == AT_OK);
        at_buf_release(&buf);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct at_beacon_chain chain;
    if (chain.length == 0) at_beacon_chain_init(&chain, at_sha256("s", 1), 256);
    struct at_simplex_options o = {.run = RUN,
                                   .term = TERM,
                                   .seat_count = 4,
                                   .nonce = 1,
                                   .views_max = AT_SIMPLEX_VIEWS_MIN,
                                   .delta_ms = 100,
                                   .delta_max_ms = 400,
                                   .chain = &chain,
                                   .sign = sign,
                                   .verify = verify,
                                   .check = check};
    o.tip.hash = at_sha256("the term before", 15);
    for (uint32_t i = 0; i < 4; i++) o.tip.state.beacon.head[i] = chain.commitment;
    struct at_simplex *x = NULL;
    AT_ASSERT(at_simplex_init(&o, &x) == AT_OK);
    struct judge *j = calloc(1, sizeof *j);
    AT_ASSERT(j != NULL);
    struct at_agree_mem mem = {0};
    struct at_simplex_update u;
    struct at_simplex_event e = {.kind = AT_SIMPLEX_START, .clock_ms = UINT64_C(1790000000000)};
    at_simplex_step(x, &e, &u);
    judge(j, &u);
    for (uint32_t number = 0; size >= 3; number++) {
        const uint8_t what = data[0];
        size_t n = (size_t)data[1] | (size_t)data[2] << 8;
        data += 3;
        size -= 3;
        if (n > size) n = size;
        struct at_agree m;
        e.kind = AT_SIMPLEX_TICK;
        if ((what & 3) == 3) {
            e.now_ms += 100;
            e.clock_ms += 100;
        } else if (at_agree_decode(at_span(data, n), &mem, NULL, &m) == AT_OK) {
            e.kind = AT_SIMPLEX_MESSAGE;
            e.from = 1 + (what & 3);
            e.message = &m;
        }
        at_simplex_step(x, &e, &u);
        judge(j, &u);
        data += n;
        size -= n;
        if ((what & 8) != 0) {
            struct at_signed_record r = {.sig = {{1}}, .body_bytes = 4};
            at_store_le32(r.body, number);
            e.kind = AT_SIMPLEX_SUBMIT;
            e.record = &r;
            at_simplex_step(x, &e, &u);
            judge(j, &u);
        }
        if ((what & 4) == 0) continue;
        e.kind = AT_SIMPLEX_PERSISTED;
        e.persisted = j->seq;
        at_simplex_step(x, &e, &u);
        judge(j, &u);
    }
    at_agree_mem_release(&mem);
    at_simplex_release(x);
    free(j);
    return 0;
}
