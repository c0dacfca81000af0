/* node_update_test.c: what a node refuses before it computes: an update that not everybody could apply, a run that is
 * not for this machine. */
#include "node/node_compute.h"
#include "store/blobs.h"
#include "train/update.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bench {
    char dir[64];
    struct at_genesis g;
    struct at_params params;
    struct at_compute *compute;
    struct at_blobs updates;
    real *theta, *now, *stats; /* of a made-up unit */
    struct at_update_info info;
};

static int set_up(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    const struct at_preset *tiny;
    char path[128];
    strcpy(b->dir, "/tmp/at_update_test.XXXXXX");
    if (!mkdtemp(b->dir) || at_preset_find("tiny", NULL, &tiny)) return -1;
    b->g = (struct at_genesis){.profile = "F32-1", .tokenizer = "bytes", .model = tiny->model, .train = tiny->train};
    at_outer_config_default(&b->g.outer, AT_OUTER_MEAN);
    snprintf(path, sizeof path, "%s/updates", b->dir);
    if (at_compute_init(b->dir, 1, "ref", NULL, &b->compute) || at_compute_configure(b->compute, &b->g, NULL))
        return -1;
    if (at_params_init(&b->params, &b->g.model) || at_blobs_open(&b->updates, path, 0, NULL)) return -1;
    b->theta = calloc(b->params.count, sizeof *b->theta);
    b->now = calloc(b->params.count, sizeof *b->now);
    b->stats = calloc(at_stats_count(&b->params), sizeof *b->stats);
    b->info = (struct at_update_info){.round = 3, .start = 40, .samples = 8, .steps = 4, .tokens = 8 * 32};
    *state = b;
    return b->theta && b->now && b->stats ? 0 : -1;
}

static int tear_down(void **state)
{
    struct bench *b = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", b->dir);
    at_compute_release(b->compute);
    at_blobs_release(&b->updates);
    at_params_release(&b->params);
    free(b->theta);
    free(b->now);
    free(b->stats);
    free(b);
    return system(command);
}

/* What the check says to the update as `b` has it now, under the claim (round, start, samples, steps). */
static at_err_t look(struct bench *b, struct at_compute_claim claim)
{
    struct at_buf blob = {0};
    struct at_hash hash;
    assert_int_equal(at_update_write(&at_codec_plain, &b->params, &b->info, b->theta, b->now, b->stats, &blob), AT_OK);
    assert_int_equal(at_blobs_put(&b->updates, at_buf_span(&blob), NULL, &hash), AT_OK);
    at_buf_release(&blob);
    return at_compute_check_update(b->compute, &b->updates, hash, &claim, NULL);
}

static const struct at_compute_claim right = {
    .round = 3, .samples = 8, .steps = 4, .start = 40, .cut = {.stages = 1, .layers = {2}}};

static void the_unit_claimed(void **state)
{
    struct bench *b = *state;
    struct at_compute_claim claim = right;
    assert_int_equal(look(b, right), AT_OK);
    claim.round = 2; /* an old one, still kept for others, handed in again */
    assert_int_equal(look(b, claim), AT_E_DATA);
    claim = right;
    claim.start = 0;
    assert_int_equal(look(b, claim), AT_E_DATA);
    claim = right;
    claim.samples = 16;
    assert_int_equal(look(b, claim), AT_E_DATA);
    claim = right;
    claim.steps = 8;
    assert_int_equal(look(b, claim), AT_E_DATA);
}

static bool is_of_stage(void *arg, int block)
{
    const struct bench *b = arg;
    struct at_shard shard = at_stage_shard(&b->params.config, 2, 1);
    return at_shard_holds(&b->params, &shard, b->params.block[block].tensor, b->params.block[block].slot);
}

/* A member of a group hands in the blocks of its stage: these and no others. */
static void the_blocks_of_its_stage(void **state)
{
    struct bench *b = *state;
    struct at_compute_claim claim = right;
    struct at_buf blob = {0};
    struct at_hash hash;
    struct at_update_source source = {
        .params = &b->params, .theta_start = b->theta, .theta = b->now, .stats = b->stats};
    assert_int_equal(at_update_encode(&at_codec_plain, 0, &b->info, &source, is_of_stage, b, &blob), AT_OK);
    assert_int_equal(at_blobs_put(&b->updates, at_buf_span(&blob), NULL, &hash), AT_OK);
    at_buf_release(&blob);
    assert_int_equal(at_compute_check_update(b->compute, &b->updates, hash, &claim, NULL), AT_E_DATA);
    claim.cut = (struct at_stage_cut){.stages = 2, .layers = {1, 1}};
    assert_int_equal(at_compute_check_update(b->compute, &b->updates, hash, &claim, NULL), AT_E_DATA);
    assert_int_equal(look(b, claim), AT_E_DATA); /* all blocks are too many */
    claim.stage = 1;
    assert_int_equal(at_compute_check_update(b->compute, &b->updates, hash, &claim, NULL), AT_OK);
}

static void values_an_outer_step_can_take(void **state)
{
    struct bench *b = *state;
    size_t last = at_stats_count(&b->params) - 1;
    b->theta[5] = 1e5f;
    b->stats[last] = 1e20f;
    assert_int_equal(look(b, right), AT_OK);
    b->stats[last] = 3e38f;
    assert_int_equal(look(b, right), AT_E_DATA);
    b->stats[last] = 0;
    b->theta[5] = 3e38f;
    assert_int_equal(look(b, right), AT_E_DATA);
    b->theta[5] = -3e38f;
    assert_int_equal(look(b, right), AT_E_DATA);
    b->theta[5] = NAN;
    assert_int_equal(look(b, right), AT_E_NONFINITE);
}

/* A run's rounds have one codec each; others are refused, however well made. */
static void the_codec_of_the_round(void **state)
{
    struct bench *b = *state;
    struct at_compute *c = NULL;
    struct at_genesis g = b->g;
    struct at_hash hash;
    struct at_buf blob = {0};
    static const struct {
        uint32_t round;
        const struct at_codec *codec;
        uint32_t k;
        at_err_t err;
    } list[] = {{0, &at_codec_int4, 0, AT_OK},        {0, &at_codec_plain, 0, AT_E_DATA},
                {0, &at_codec_sparse, 60, AT_E_DATA}, {9, &at_codec_sparse, 60, AT_OK},
                {9, &at_codec_sparse, 61, AT_E_DATA}, {9, &at_codec_sparse6s, 60, AT_E_DATA},
                {9, &at_codec_int4, 0, AT_E_DATA}};
    g.train.rounds = 10;
    at_outer_config_default(&g.outer, AT_OUTER_SPARSE);
    assert_int_equal(at_compute_init(b->dir, 1, "ref", NULL, &c), AT_OK);
    assert_int_equal(at_compute_configure(c, &g, NULL), AT_OK);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct at_compute_claim claim = right;
        struct at_update_source s = {.params = &b->params,
                                     .theta_start = b->theta,
                                     .theta = b->now,
                                     .feedback = b->now,
                                     .stats = b->stats,
                                     .stats_public = b->stats};
        claim.round = b->info.round = list[i].round;
        at_buf_clear(&blob);
        assert_int_equal(at_update_encode(list[i].codec, list[i].k, &b->info, &s, NULL, NULL, &blob), AT_OK);
        assert_int_equal(at_blobs_put(&b->updates, at_buf_span(&blob), NULL, &hash), AT_OK);
        assert_int_equal(at_compute_check_update(c, &b->updates, hash, &claim, NULL), list[i].err);
    }
    at_buf_release(&blob);
    at_compute_release(c);
}

/* What a member keeps for itself may be missing or damaged: it begins at zero, and nothing else comes of it. */
static void own_files_that_are_of_no_use(void **state)
{
    struct bench *b = *state;
    struct at_compute *c = NULL;
    struct at_genesis g = b->g;
    struct at_hash run = {{7}}, counted = {{8}};
    struct at_buf junk = {0}, own = {0};
    struct at_diag diag = {0};
    at_outer_config_default(&g.outer, AT_OUTER_DILOCO);
    assert_int_equal(at_compute_init(b->dir, 1, "ref", NULL, &c), AT_OK);
    assert_int_equal(at_compute_configure(c, &g, NULL), AT_OK);
    assert_int_equal(at_compute_load_own(c, run, NULL), AT_OK);
    assert_int_equal(at_buf_append(&junk, "not what it should be", 21), AT_OK);
    assert_int_equal(at_compute_write_own(b->dir, &junk, NULL), AT_OK);
    assert_int_not_equal(at_compute_load_own(c, run, &diag), AT_OK);
    assert_true(diag.text[0] != '\0');
    assert_int_equal(at_compute_pack_own(c, run, counted, NULL, &own), AT_OK); /* nothing to keep */
    assert_int_equal(own.n, 0);
    at_buf_release(&junk);
    at_compute_release(c);
}

static void no_update_at_all(void **state)
{
    struct bench *b = *state;
    uint8_t noise[3000];
    struct at_hash hash;
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)(i * 37);
    assert_int_equal(at_blobs_put(&b->updates, at_span(noise, sizeof noise), NULL, &hash), AT_OK);
    assert_int_equal(at_compute_check_update(b->compute, &b->updates, hash, &right, NULL), AT_E_DATA);
    hash.b[0] ^= 1;
    assert_int_equal(at_compute_check_update(b->compute, &b->updates, hash, &right, NULL), AT_E_NOT_FOUND);
}

/* What a stranger's invite may lead to: refused by its numbers, before anything of its size is taken. */
static void a_genesis_for_another_machine(void **state)
{
    struct bench *b = *state;
    struct at_diag diag = {0};
    struct at_genesis g = b->g;
    struct at_compute *c = NULL;
    assert_int_equal(at_compute_init(b->dir, 1, "ref", NULL, &c), AT_OK);
    strcpy(g.profile, "F32-2");
    assert_int_equal(at_compute_configure(c, &g, NULL), AT_E_DATA);
    g = b->g;
    g.model.vocab = 128; /* a byte above would read past the embedding */
    assert_int_equal(at_compute_configure(c, &g, NULL), AT_E_DATA);
    g = b->g;
    g.model.layers = 256;
    g.model.d_model = 16384;
    g.model.d_ff = 65536;
    g.model.head_size = g.model.d_model / g.model.heads;
    assert_int_equal(at_compute_configure(c, &g, &diag), AT_E_NOMEM);
    assert_non_null(strstr(diag.text, "MB of memory"));
    g = b->g;
    g.model.seq_len = 65536;
    g.train.batch = 65536;
    assert_int_equal(at_compute_configure(c, &g, NULL), AT_E_NOMEM);
    g = b->g;
    g.shard_count = 1;
    g.shards[0].bytes = (uint64_t)1 << 50;
    g.shards[0].hash.b[0] = 1;
    assert_int_equal(at_compute_configure(c, &g, NULL), AT_E_NOMEM);
    assert_int_equal(at_compute_configure(c, &b->g, NULL), AT_OK);
    at_compute_release(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_unit_claimed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_blocks_of_its_stage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_an_outer_step_can_take, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_genesis_for_another_machine, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_update_at_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_codec_of_the_round, set_up, tear_down),
        cmocka_unit_test_setup_teardown(own_files_that_are_of_no_use, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
