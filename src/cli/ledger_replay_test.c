/* A run of two members, written record by record by honest hands, is computed again to the same roots; whoever lies about
 * an update, a root or a loss is named with the round; a text that is missing or damaged is an error, not a verdict. */
#include "cli/ledger_replay.h"
#include "ledger/log_fixture.h"
#include "os/file.h"
#include "os/pool.h"
#include "train/error_feedback.h"
#include "train/outer.h"
#include "train/unit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ROUNDS = 4, STEPS = 2 };
enum lie { NO_LIE, LIE_UPDATE, LIE_ROOT, LIE_SHARE, LIE_LOSS, LIE_START, LIE_FEEDBACK };

struct world {
    char dir[64], data[AT_PATH_BYTES];
    struct log_fixture log;
    struct at_exec ex;
    struct at_model model;
    struct at_trainer trainer;
    struct at_state state;
    struct at_data text_data;
    struct at_buf text;
    uint64_t tokens;
    struct at_error_feedback feedback[2];
};

static struct at_pool pool;

static void put_text(struct world *w)
{
    struct at_genesis *g = &w->log.genesis;
    char path[AT_PATH_BYTES];
    for (int i = 0; i < 400; i++) {
        char line[64];
        int n = snprintf(line, sizeof line, "line %d of a text that says little: %d\n", i, i * i % 97);
        assert_int_equal(at_buf_append(&w->text, line, (size_t)n), AT_OK);
    }
    struct at_span part = at_buf_span(&w->text);
    g->shards[0].hash = at_sha256(part.p, part.n);
    g->shards[0].bytes = part.n;
    assert_int_equal(at_path_join(w->dir, "data", NULL, w->data), AT_OK);
    assert_int_equal(at_dir_make(w->data, 0700, NULL), AT_OK);
    assert_int_equal(at_path_join(w->data, at_hash_hex(g->shards[0].hash).s, NULL, path), AT_OK);
    assert_int_equal(at_file_write_atomic(path, &part, 1, 0600, NULL), AT_OK);
}

static void begin(struct world *w, enum at_outer_kind kind)
{
    memset(w, 0, sizeof *w);
    snprintf(w->dir, sizeof w->dir, "/tmp/atoll-replay-test.XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    fixture_init(&w->log);
    fixture_release(&w->log);
    put_text(w);
    struct at_genesis *g = &w->log.genesis;
    g->train.rounds = ROUNDS;
    g->train.steps = STEPS;
    g->min_members = 1;
    at_outer_config_default(&g->outer, kind);
    struct at_train_config train = g->train;
    at_outer_adapt(&g->outer, &train);
    assert_int_equal(at_ledger_init(&w->log.ledger, g, NULL), AT_OK);
    const struct at_kern *kern;
    assert_int_equal(at_kern_select("auto", NULL, &kern), AT_OK);
    assert_int_equal(at_pool_init(&pool, 1, NULL), AT_OK);
    assert_int_equal(at_exec_init(&w->ex, kern, &pool.par), AT_OK);
    assert_int_equal(at_model_init(&w->model, &g->model, NULL), AT_OK);
    assert_int_equal(at_trainer_init(&w->trainer, &w->model, &train, 0, NULL), AT_OK);
    assert_int_equal(at_state_init(&w->state, &w->model.params), AT_OK);
    if (at_outer_config_momentum(&g->outer)) assert_int_equal(at_state_add_momentum(&w->state), AT_OK);
    for (int i = 0; i < 2; i++) w->feedback[i].params = &w->model.params;
    assert_int_equal(at_data_init(&w->text_data, at_buf_span(&w->text), (long)g->model.seq_len, g->train.seed,
                                  g->heldout_fraction, g->heldout_bytes, NULL),
                     AT_OK);
    at_state_genesis(&w->state, g->train.seed);
}

static void write_record(struct world *w, int key, const struct at_record *rec)
{
    struct at_diag diag = {0};
    if (fixture_write(&w->log, key, rec, &diag) != AT_OK) fail_msg("refused: %s", diag.text);
}

/* What a member does in its round: trains, and tells. Partial: one step less. */
static void work(struct world *w, int replica, uint32_t steps, struct at_buf *blob, struct at_update *update,
                 enum lie lie)
{
    struct at_record rec = fixture_receipt_record(&w->log, replica, steps);
    struct at_round rule = at_ledger_round(&w->log.ledger);
    const struct at_codec *codec = at_codec_find(rule.codec);
    struct at_unit unit = {.start = rec.receipt.start, .samples = rec.receipt.samples, .step_first = rule.step_first};
    struct at_update_source source = {.params = &w->model.params,
                                      .theta_start = w->state.theta,
                                      .theta = w->trainer.theta,
                                      .stats = w->trainer.stats,
                                      .stats_public = w->state.stats};
    struct at_unit_report report;
    struct at_heldout_share share = at_ledger_heldout_share(&w->log.ledger, (uint32_t)replica);
    uint32_t heldout = at_heldout_of_share(&w->trainer, &w->ex, &w->text_data, w->state.theta, share, NULL, NULL);
    blob->bytes_max = at_update_bytes_max(&w->model.params);
    assert_int_equal(at_unit_train(&w->trainer, &w->ex, &w->text_data, &w->state, &unit, NULL, NULL, NULL, &report),
                     AT_OK);
    rec.receipt.feedback = at_error_feedback_hash(&w->feedback[replica]);
    rec.receipt.heldout = heldout;
    if (lie == LIE_SHARE && replica == 1) rec.receipt.heldout++;
    if (codec->beta == 0)
        assert_int_equal(at_update_encode(codec, rule.k, &report.info, &source, NULL, NULL, blob), AT_OK);
    else
        assert_int_equal(
            at_error_feedback_encode(&w->feedback[replica], &w->ex, codec, rule.k, &report.info, &source, blob), AT_OK);
    assert_int_equal(at_update_parse(&w->model.params, at_buf_span(blob), NULL, update), AT_OK);
    if (lie == LIE_FEEDBACK && replica == 1) rec.receipt.feedback = at_sha256("made up", 7);
    bool made_up = lie == LIE_UPDATE && replica == 1;
    rec.receipt.update = made_up ? at_sha256("made up", 7) : at_sha256(blob->p, blob->n);
    rec.receipt.update_bytes = blob->n;
    w->tokens += rec.receipt.tokens;
    write_record(w, replica, &rec);
}

/* in: who takes part; done: whose receipts come; late: those of them that do not count. */
static void one_round_of(struct world *w, unsigned in, unsigned done, unsigned late, uint32_t steps, enum lie lie)
{
    struct at_buf blob[2] = {{0}, {0}};
    struct at_update update[2];
    int n = 0;
    memset(update, 0, sizeof update);
    struct at_record rec = fixture_open_record(&w->log, in);
    if (w->log.ledger.round == 0) assert_int_equal(at_state_root(&w->state, NULL, &rec.open.state_root), AT_OK);
    if (lie == LIE_START) rec.open.state_root = at_sha256("another start", 13);
    write_record(w, 0, &rec);
    for (int r = 0; r < 2; r++) {
        if ((done >> r & 1) == 0) continue;
        uint64_t tokens = w->tokens;
        work(w, r, steps, &blob[n], &update[n], lie);
        if (late >> r & 1)
            w->tokens = tokens;
        else
            n++;
    }
    rec = fixture_close_record(&w->log, done & ~late);
    write_record(w, 0, &rec);
    struct at_round rule = at_ledger_round(&w->log.ledger);
    if (n > 0)
        assert_int_equal(at_outer_step(&w->ex, &w->state, update, n, &rule, NULL, NULL), AT_OK);
    else
        at_outer_skip(&w->state);
    rec = fixture_record(&w->log, AT_RECORD_EPOCH);
    rec.epoch.round = w->log.ledger.round;
    rec.epoch.balances = at_ledger_balances(&w->log.ledger);
    assert_int_equal(at_state_root(&w->state, NULL, &rec.epoch.state_root), AT_OK);
    bool last = rec.epoch.round + 1 == at_genesis_rounds(&w->log.genesis);
    rec.epoch.heldout_loss =
        last ? at_heldout_loss(&w->trainer, &w->ex, &w->text_data, w->state.theta) : at_ledger_heldout(&w->log.ledger);
    if (lie == LIE_ROOT) rec.epoch.state_root = at_sha256("made up", 7);
    if (lie == LIE_LOSS) rec.epoch.heldout_loss /= 2;
    write_record(w, 0, &rec);
    for (int i = 0; i < 2; i++) {
        at_update_release(&update[i]);
        at_buf_release(&blob[i]);
        (void)at_error_feedback_settle(&w->feedback[i], w->log.ledger.members[i].last);
    }
}

/* The lie is told in the second round; about the loss of the end in the last one. */
static void one_round(struct world *w, unsigned in, unsigned done, uint32_t steps, enum lie lie)
{
    one_round_of(w, in, done, 0, steps, lie);
}

static void keep(struct world *w)
{
    char path[AT_PATH_BYTES];
    struct at_buf genesis = {0};
    struct at_store *store = NULL;
    assert_int_equal(at_path_join(w->dir, "ledger.sqlite", NULL, path), AT_OK);
    assert_int_equal(at_genesis_encode(&w->log.genesis, NULL, &genesis), AT_OK);
    assert_int_equal(at_store_create(path, at_buf_span(&genesis), NULL, &store), AT_OK);
    assert_int_equal(at_store_append(store, 0, w->log.record, w->log.count, w->log.checkpoint, w->log.count, NULL),
                     AT_OK);
    at_store_close(store);
    at_buf_release(&genesis);
}

static void remove_dir(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

static void end(struct world *w)
{
    remove_dir(w->dir);
    for (int i = 0; i < 2; i++) at_error_feedback_release(&w->feedback[i]);
    at_state_release(&w->state);
    at_trainer_release(&w->trainer);
    at_model_release(&w->model);
    at_exec_release(&w->ex);
    at_pool_release(&pool);
    fixture_release(&w->log);
    at_buf_release(&w->text);
}

static at_err_t replay(struct world *w, struct at_diag *diag, struct at_replay_report *ret_report)
{
    struct at_cli_ledger l;
    assert_int_equal(at_cli_ledger_open(w->dir, NULL, &l), AT_OK);
    at_err_t err = at_ledger_replay(&l, w->data, &w->ex, NULL, NULL, diag, ret_report);
    at_cli_ledger_release(&l);
    return err;
}

/* Both work; one dies and its samples come again; the work of one is partial; nobody's counts. */
static void story(struct world *w, enum lie lie)
{
    begin(w, AT_OUTER_MEAN);
    assert_int_equal(fixture_join(&w->log, 0), AT_OK);
    assert_int_equal(fixture_join(&w->log, 1), AT_OK);
    one_round(w, 3, 3, STEPS, lie == LIE_START ? lie : NO_LIE);
    if (lie == NO_LIE || lie == LIE_LOSS) one_round(w, 3, 0, STEPS, NO_LIE);
    if (lie != LIE_START) one_round(w, 3, lie == NO_LIE ? 2 : 3, STEPS, lie == LIE_LOSS ? NO_LIE : lie);
    if (lie == NO_LIE || lie == LIE_LOSS) one_round(w, 3, 3, STEPS - 1, lie);
    keep(w);
}

static void honest_run_is_computed_again(void **state)
{
    struct world w;
    struct at_replay_report r;
    struct at_diag diag = {0};
    struct at_hash root;
    story(&w, NO_LIE);
    if (replay(&w, &diag, &r) != AT_OK) fail_msg("%s: %s", diag.where, diag.text);
    assert_int_equal(at_state_root(&w.state, NULL, &root), AT_OK);
    assert_true(r.ok && r.rounds == 4 && r.units == 5 && r.tokens == w.tokens);
    assert_true(at_hash_eq(r.state_root, root));
    /* Two units, one, two halves: and the dead one's unit was given out again. */
    uint64_t unit = at_genesis_unit_samples(&w.log.genesis);
    assert_int_equal(r.counted, 4 * unit);
    assert_int_equal(r.counted + r.waiting, 5 * unit);
    end(&w);
}

static void liars_are_named(void **state)
{
    static const struct {
        enum lie lie;
        uint32_t round;
        const char *says;
    } list[] = {{LIE_START, 0, "opens it on state"},
                {LIE_UPDATE, 1, "replica 1 says its update"},
                {LIE_ROOT, 1, "ends on state"},
                {LIE_SHARE, 1, "replica 1 says held-out loss"},
                {LIE_LOSS, 3, "the log says held-out loss"}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct world w;
        struct at_replay_report r;
        struct at_diag diag = {0};
        story(&w, list[i].lie);
        assert_int_equal(replay(&w, &diag, &r), AT_E_VERIFY);
        assert_false(r.ok);
        assert_int_equal(r.round, list[i].round);
        assert_int_equal(r.rounds, list[i].round);
        assert_non_null(strstr(r.reason, list[i].says));
        end(&w);
    }
}

/* Lossy updates: one member's work is too late, the other loses what was left over; both go on. */
static void error_feedback_is_computed_again(void **state)
{
    static const enum at_outer_kind kinds[] = {AT_OUTER_DILOCO, AT_OUTER_SPARSE};
    for (size_t i = 0; i < 2; i++) {
        struct world w;
        struct at_replay_report r;
        struct at_diag diag = {0};
        begin(&w, kinds[i]);
        assert_int_equal(fixture_join(&w.log, 0), AT_OK);
        assert_int_equal(fixture_join(&w.log, 1), AT_OK);
        one_round(&w, 3, 3, STEPS, NO_LIE);
        one_round_of(&w, 3, 3, 2, STEPS, NO_LIE);
        at_error_feedback_release(&w.feedback[0]);
        w.feedback[0].after = w.log.ledger.members[0].last;
        one_round(&w, 3, 3, STEPS - 1, NO_LIE);
        assert_true(at_hash_is_zero(w.log.ledger.allotments[0].receipt.feedback));
        assert_false(at_hash_is_zero(w.log.ledger.allotments[1].receipt.feedback));
        keep(&w);
        if (replay(&w, &diag, &r) != AT_OK) fail_msg("%s: %s", diag.where, diag.text);
        assert_true(r.ok && r.rounds == 3 && r.units == 5 && r.tokens == w.tokens);
        end(&w);
    }
}

/* Also when the work does not count: a receipt is a claim. */
static void forged_error_feedback_is_named(void **state)
{
    for (unsigned late = 0; late <= 2; late += 2) {
        struct world w;
        struct at_replay_report r;
        struct at_diag diag = {0};
        begin(&w, AT_OUTER_SPARSE);
        assert_int_equal(fixture_join(&w.log, 0), AT_OK);
        assert_int_equal(fixture_join(&w.log, 1), AT_OK);
        one_round(&w, 3, 3, STEPS, NO_LIE);
        one_round_of(&w, 3, 3, late, STEPS, LIE_FEEDBACK);
        keep(&w);
        assert_int_equal(replay(&w, &diag, &r), AT_E_VERIFY);
        assert_int_equal(r.round, 1);
        assert_non_null(strstr(r.reason, "replica 1 says it began with error feedback"));
        end(&w);
    }
}

static void text_must_be_the_runs(void **state)
{
    struct world w;
    struct at_replay_report r;
    struct at_diag diag = {0};
    char path[AT_PATH_BYTES];
    story(&w, NO_LIE);
    assert_int_equal(at_path_join(w.data, at_hash_hex(w.log.genesis.shards[0].hash).s, NULL, path), AT_OK);
    w.text.p[100] ^= 1;
    struct at_span part = at_buf_span(&w.text);
    assert_int_equal(at_file_write_atomic(path, &part, 1, 0600, NULL), AT_OK);
    assert_int_equal(replay(&w, &diag, &r), AT_E_DATA);
    assert_int_equal(at_file_remove(path, NULL), AT_OK);
    diag = (struct at_diag){0};
    assert_int_equal(replay(&w, &diag, &r), AT_E_NOT_FOUND);
    assert_non_null(strstr(diag.text, "is missing"));
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_run_is_computed_again),
        cmocka_unit_test(liars_are_named),
        cmocka_unit_test(error_feedback_is_computed_again),
        cmocka_unit_test(forged_error_feedback_is_named),
        cmocka_unit_test(text_must_be_the_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
