/* world_partner_test.c: a member whose partner in a group is no honest program: it hands in what it likes, when it likes. */
#include "sim/world_internal.h"
#include "sim/world_rig.h"

struct partner {
    struct at_world *w;
    struct at_keypair key; /* replica 3; node 2 is replica 2, and its group the second */
    uint64_t link;         /* to the steward, node 0 */
    uint64_t steps;
    struct at_hash root;
    struct at_buf bytes, update;
};

static void go_on(struct partner *p, uint64_t ms)
{
    assert_false(at_world_run(p->w, at_world_now_ms(p->w) + ms));
    if (at_world_violation(p->w)) fail_msg("%s", at_world_violation(p->w));
}

static void say(struct partner *p, uint64_t link, const struct at_message *msg)
{
    at_buf_clear(&p->bytes);
    assert_int_equal(at_message_encode(msg, &p->bytes), AT_OK);
    at_world_stranger_send(p->w, link, at_buf_span(&p->bytes));
}

static uint64_t greet(struct partner *p, int node)
{
    struct at_message msg = {.kind = AT_MSG_HELLO};
    uint64_t link = at_world_stranger_link(p->w, &p->key, node);
    msg.hello.protocol = AT_PROTOCOL_VERSION;
    msg.hello.run = at_world_run_id(p->w);
    say(p, link, &msg);
    go_on(p, 50);
    return link;
}

static void submit(struct partner *p, struct at_record rec)
{
    struct at_signed_record record;
    struct at_message msg = {.kind = AT_MSG_SUBMIT, .submit = {.record = &record}};
    rec.run = at_world_run_id(p->w);
    rec.time_ms = 1;
    assert_int_equal(at_record_sign(&rec, &p->key, NULL, &record), AT_OK);
    say(p, p->link, &msg);
    go_on(p, 50);
}

/* Its receipt with those in `group`; the update is in p->update. */
static struct at_record receipt(struct partner *p, uint32_t group)
{
    const struct at_model_config *model = at_world_model(p->w);
    uint32_t samples = 4 * (uint32_t)p->steps, same[2] = {1, 1};
    int stages = at_group_stages(group), stage = at_group_stage(group, 1);
    struct at_stage_cut cut;
    struct at_record rec = {.kind = AT_RECORD_RECEIPT};
    assert_true(at_stage_cut_by(model, stages, same, NULL, &cut));
    at_buf_clear(&p->update);
    struct at_hash hash =
        at_world_update_of(p->w, p->root, samples, samples, (uint32_t)stage, (uint32_t)stages, &p->update);
    rec.receipt = (struct at_receipt){.replica = 3,
                                      .group = group,
                                      .state_in = p->root,
                                      .start = samples,
                                      .samples = samples,
                                      .steps = (uint32_t)p->steps,
                                      .tokens = (uint64_t)samples * model->seq_len,
                                      .heldout = at_world_share_loss(0, 3),
                                      .update = hash,
                                      .update_bytes = (uint32_t)p->update.n};
    rec.receipt.flops = rec.receipt.tokens * at_stage_cut_flops(model, &cut, stage);
    return rec;
}

static void hears(struct partner *p, enum at_message_kind kind)
{
    const char *reason;
    enum at_message_kind heard = at_world_stranger_heard(p->w, p->link, &reason);
    if (heard != kind) fail_msg("heard %s %s, not %s", at_message_kind_name(heard), reason, at_message_kind_name(kind));
}

static void give(struct partner *p, const struct at_receipt *r)
{
    struct at_message piece = {.kind = AT_MSG_PIECE};
    piece.piece.kind = AT_BLOB_UPDATE;
    piece.piece.key = r->update;
    piece.piece.total = (uint32_t)p->update.n;
    piece.piece.data = at_buf_span(&p->update);
    say(p, p->link, &piece);
    go_on(p, 100);
}

/* Three nodes, and the partner as the fourth member; the round opens when it says that it is ready. */
static void begin(struct partner *p, struct at_world_options *o)
{
    o->nodes = 3;
    o->min_members = 4;
    o->stages = 2;
    o->rounds = 1;
    *p = (struct partner){.w = make_down(o), .steps = o->steps};
    p->key = at_world_stranger_key(p->w, 1);
    for (int i = 0; i < 3; i++) at_world_start_node(p->w, i, 1000 * (uint64_t)i); /* replicas in this order */
    go_on(p, 5000);
    p->link = greet(p, 0);
    submit(p, (struct at_record){.kind = AT_RECORD_JOIN, .join = {.name = "partner"}});
    p->root = at_world_status(p->w, 0)->state_root;
    assert_int_equal(at_world_log_count(p->w, AT_RECORD_JOIN), 4);
}

static void ready(struct partner *p)
{
    struct at_message msg = {.kind = AT_MSG_READY};
    msg.ready = at_presence_sign(&p->key, at_world_run_id(p->w), 1, 0, p->root);
    say(p, p->link, &msg);
    go_on(p, 50);
    assert_int_equal(at_world_log_count(p->w, AT_RECORD_OPEN), 1);
}

static void end(struct partner *p)
{
    at_buf_release(&p->bytes);
    at_buf_release(&p->update);
    at_world_release(p->w);
}

/* Its first receipt's update cannot be had from it. Then it computes without the other one, and the receipt that says so
 * is not refused for the first. */
static void a_receipt_of_fewer_replaces_one_that_is_being_fetched(void **state)
{
    struct at_world_options o = small(51);
    struct partner p;
    (void)state;
    o.step_ms = 4000;
    o.round_ms_max = 60000;
    begin(&p, &o);
    ready(&p);
    struct at_record rec = receipt(&p, 3);
    submit(&p, rec);
    hears(&p, AT_MSG_WANT);
    rec = receipt(&p, 2);
    submit(&p, rec);
    hears(&p, AT_MSG_WANT);
    give(&p, &rec.receipt);
    go_on(&p, 2000);
    assert_int_equal(at_world_log_count(p.w, AT_RECORD_RECEIPT), 1);
    must_finish(p.w, 120000);
    assert_int_equal(at_world_included(p.w, 0), 3); /* of 0, 1 and the partner: whose unit is complete */
    end(&p);
}

/* It says at once that all steps are done. The other one hears of the round and of that at the same time, and has been here
 * for long: it does not believe it, and goes on alone after two seconds. The partner's silence would be noticed after fifteen. */
static void a_false_number_that_comes_with_the_round_is_not_believed(void **state)
{
    struct at_world_options o = small(52);
    struct partner p;
    (void)state;
    o.step_ms = 1000;
    o.round_ms_max = 100000;
    begin(&p, &o);
    at_world_set(p.w, 2, AT_WORLD_DEAF, 1, 0);
    go_on(&p, 1);
    ready(&p);
    struct at_record rec = receipt(&p, 3);
    submit(&p, rec);
    hears(&p, AT_MSG_WANT);
    give(&p, &rec.receipt);
    assert_int_equal(at_world_log_count(p.w, AT_RECORD_RECEIPT), 1);
    assert_true(at_world_status(p.w, 2)->phase != AT_NODE_PHASE_TRAINING);
    at_world_set(p.w, 2, AT_WORLD_DEAF, 0, 0);
    go_on(&p, 1);
    uint64_t other = greet(&p, 2);
    go_on(&p, 2000);
    assert_true(at_world_link_is_up(p.w, other)); /* it is there, and says nothing */
    go_on(&p, 8000);                              /* of virtual time: it works for three seconds */
    assert_int_equal(at_world_included(p.w, 0), 3);
    must_finish(p.w, 120000);
    end(&p);
}

int main(void)
{
    if (getenv("ATOLL_SIM_ONLY")) cmocka_set_test_filter(getenv("ATOLL_SIM_ONLY"));
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_receipt_of_fewer_replaces_one_that_is_being_fetched),
                                       cmocka_unit_test(a_false_number_that_comes_with_the_round_is_not_believed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
