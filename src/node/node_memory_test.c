/* node_memory_test.c: in a run whose members share units, a member needs memory for its stage and not for the model. What a
 * process may take of its own (RLIMIT_DATA) is set far below what the model needs; pages of files do not count. The oracle
 * of the bits is the run in one process. */
#include "base/sanitized.h"
#include "node/node_compute.h"
#include "node/node_held.h"
#include "node/node_test_util.h"
#include "parallel/comm_test_util.h"
#include "store/blobs.h"

enum { LIMITED = !AT_SANITIZED }; /* a sanitizer's shadow counts as data */

static uint64_t data_bytes(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmData: %llu kB", &kib) == 1) break;
    fclose(f);
    return (uint64_t)kib * 1024;
}

/* From here on this process may take `bytes` more than it has. */
static void allow(uint64_t bytes)
{
    if (LIMITED) assert_int_equal(setrlimit(RLIMIT_DATA, &(struct rlimit){data_bytes() + bytes, RLIM_INFINITY}), 0);
}

/* ---- one member, alone: everything it may have to do ---- */
#define SPARE_BYTES ((uint64_t)4 << 20) /* beside a stage */

/* 3.5 M parameters, and little to compute. */
static void small_steps(struct at_genesis *g, uint32_t stages)
{
    const struct at_preset *tiny;
    assert_int_equal(at_preset_find("tiny", NULL, &tiny), AT_OK);
    *g = (struct at_genesis){
        .profile = "F32-1", .tokenizer = "bytes", .preset = "memory", .train = tiny->train, .stages = stages};
    g->model = (struct at_model_config){.layers = 16,
                                        .d_model = 128,
                                        .heads = 8,
                                        .kv_heads = 8,
                                        .head_size = 16,
                                        .d_ff = 384,
                                        .seq_len = 16,
                                        .vocab = 256,
                                        .rope_theta = 10000.0,
                                        .norm_eps = 1e-5};
    g->train.steps = 1;
    g->train.rounds = 3;
    g->train.seed = 7;
    g->heldout_fraction = AT_HELDOUT_FRACTION;
    g->heldout_bytes = 64;
    at_outer_config_default(&g->outer, AT_OUTER_MEAN);
}

/* Of three windows the first and the last; what every unit is asked for, and what it must say of the state of each round. */
static const struct at_heldout_share share = {0, 1, 2};
static uint32_t want_share[2];

static void local_result(const struct at_genesis *g, struct at_span text, uint32_t rounds, char ret_root[65],
                         double *ret_loss)
{
    struct at_data data;
    struct at_model m;
    struct at_local local;
    struct at_exec ex;
    const struct at_kern *kern = NULL;
    struct at_hash root;
    double loss;
    assert_int_equal(
        at_data_init(&data, text, g->model.seq_len, g->train.seed, g->heldout_fraction, g->heldout_bytes, NULL), AT_OK);
    assert_int_equal(at_kern_select("auto", NULL, &kern), AT_OK);
    assert_int_equal(at_exec_init(&ex, kern, &at_par_serial), AT_OK);
    assert_int_equal(at_model_init(&m, &g->model, NULL), AT_OK);
    assert_int_equal(at_local_init(&local, &m, &data, &g->train, 1, 0, NULL), AT_OK);
    assert_int_equal(at_heldout_windows(&data, share), 2);
    for (uint32_t r = 0; r < rounds; r++) {
        want_share[r] = at_heldout_of_share(&local.trainer, &ex, &data, local.state.theta, share, NULL, NULL);
        assert_int_equal(at_local_round(&local, &ex, NULL, NULL, NULL, &loss), AT_OK);
    }
    assert_int_equal(at_state_root(&local.state, NULL, &root), AT_OK);
    *ret_loss = at_heldout_loss(&local.trainer, &ex, &data, local.state.theta);
    snprintf(ret_root, 65, "%s", at_hash_hex(root).s);
    at_local_release(&local);
    at_model_release(&m);
    at_exec_release(&ex);
}

static void no_progress(void *user, uint32_t step, uint64_t tokens, double tokens_per_s) {}

/* A unit, the round's end, and the files. */
static void do_round(struct at_compute *c, const struct at_genesis *g, uint32_t round, struct at_compute_state *s)
{
    struct at_diag diag = {0};
    struct at_compute_done done;
    uint32_t samples = g->train.steps * g->train.batch;
    struct at_compute_unit unit = {
        .round = round, .samples = samples, .start = round * samples, .serial = 1 + round, .budget_ms = 10000000};
    unit.heldout = share;
    at_err_t err = at_compute_unit(c, &unit, no_progress, NULL, &diag, &done);
    if (err) fail_msg("unit: %s: %s", diag.where, diag.text);
    assert_true(done.heldout > 0 && done.heldout == want_share[round]);
    struct at_compute_part part = {.update = done.update, .tokens = done.tokens, .unit = 0};
    at_compute_state_release(s);
    err = at_compute_apply(c, round, &part, 1, true, &diag, s);
    if (!err) err = at_compute_save(base, s->held, &diag);
    if (err) fail_msg("apply: %s: %s", diag.where, diag.text);
}

static void lone_member(const struct at_genesis *g, const char *want_root, double want_loss)
{
    struct at_compute *c = NULL;
    struct at_compute_state s = {0};
    struct at_diag diag = {0};
    char path[AT_PATH_BYTES];
    size_t model = 0;
    snprintf(path, sizeof path, "%s/state", base);
    uint64_t most = at_compute_needs(g, &model) + SPARE_BYTES;
    at_sys_memory_sparse();    /* what is freed counts no more */
    assert_true(most < model); /* one copy of the weights would be too much */
    at_err_t err = at_compute_init(base, 1, "auto", &diag, &c);
    allow(most);
    if (!err) err = at_compute_configure(c, g, &diag);
    if (!err) err = at_compute_genesis(c, true, &diag, &s);
    if (err) fail_msg("begin: %s: %s", diag.where, diag.text);
    do_round(c, g, 0, &s);
    at_compute_release(c);
    at_compute_state_release(&s);

    /* Its files after a restart; and as a newcomer gets the state. */
    for (int fetched = 0; fetched < 2; fetched++) {
        assert_int_equal(at_compute_init(base, 1, "auto", &diag, &c), AT_OK);
        err = at_compute_configure(c, g, &diag);
        if (err) fail_msg("restart: %s: %s", diag.where, diag.text);
        err = fetched ? at_compute_install(c, path, 1, s.root, &diag, &s) : at_compute_load(c, &diag, &s);
        if (err) fail_msg("restart: %s: %s", diag.where, diag.text);
        assert_int_equal(s.round, 1);
        if (!fetched) {
            struct at_span blob = at_span(s.held->blob.p, s.held->blob.n);
            assert_int_equal(at_file_write_atomic(path, &blob, 1, 0600, NULL), AT_OK);
            at_compute_release(c);
            at_compute_state_release(&s);
        }
    }
    do_round(c, g, 1, &s);
    assert_string_equal(at_hash_hex(s.root).s, want_root);
    assert_memory_equal(&s.heldout_loss, &want_loss, sizeof want_loss);
    at_compute_state_release(&s);
    at_compute_release(c);
}

/* The run's text in the folder; what one process makes of `rounds` rounds. */
static void begin(struct at_genesis *g, uint32_t rounds, char ret_root[65], double *ret_loss)
{
    struct at_buf text = {0};
    struct at_blobs data;
    char path[AT_PATH_BYTES];
    small_steps(g, 16);
    assert_int_equal(at_file_read(text_path, 1 << 20, NULL, &text), AT_OK);
    assert_int_equal(at_path_join(base, "data", NULL, path), AT_OK);
    assert_int_equal(at_blobs_open(&data, path, 0, NULL), AT_OK);
    assert_int_equal(at_blobs_put(&data, at_buf_span(&text), NULL, &g->shards[0].hash), AT_OK);
    at_blobs_release(&data);
    g->shards[0].bytes = text.n;
    g->shard_count = 1;
    local_result(g, at_buf_span(&text), rounds, ret_root, ret_loss);
    at_buf_release(&text);
}

/* A limit stays for good, so whoever has one is a process of its own. */
static void as_limited(void (*body)(const struct at_genesis *g, const char *want_root, double want_loss),
                       uint32_t rounds)
{
    struct at_genesis *g = malloc(sizeof *g);
    char root[65];
    double loss = 0;
    assert_non_null(g);
    begin(g, rounds, root, &loss);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        body(g, root, loss);
        fflush(NULL);
        _exit(0);
    }
    struct member m = {{0}, pid};
    assert_int_equal(wait_exit(&m, 120000), 0);
    free(g);
}

static void test_a_member_alone(void **state)
{
    as_limited(lone_member, 2);
}

/* ---- a group of two in a run of sixteen stages: each computes eight ---- */
struct pair {
    const struct at_genesis *g;
    struct at_compute *compute[2];
    struct at_compute_state state[2];
    struct at_compute_done done[2];
    at_err_t err[2];
    struct at_diag diag[2];
};

static void half_a_unit(void *arg, int rank, const struct at_comm *comm)
{
    struct pair *p = arg;
    struct at_compute_unit unit = {
        .samples = p->g->train.steps * p->g->train.batch, .serial = 1, .budget_ms = 10000000, .comm = comm};
    unit.heldout = share;
    const uint32_t alike[AT_STAGES_MAX] = {1, 1};
    assert_true(at_stage_cut_by(&p->g->model, comm->ranks, alike, NULL, &unit.cut));
    p->err[rank] = at_compute_unit(p->compute[rank], &unit, no_progress, NULL, &p->diag[rank], &p->done[rank]);
    if (p->err[rank]) (comm->ops->fail)(comm->link, p->err[rank], p->diag[rank].where, p->diag[rank].text);
}

/* Both in this process, which may take less than twice the weights: what two halves of the model need would be five times. */
static void pair_of_members(const struct at_genesis *g, const char *want_root, double want_loss)
{
    static struct test_net net;
    struct pair p = {.g = g};
    struct at_diag diag = {0};
    size_t model = 0;
    at_sys_memory_sparse();
    for (int i = 0; i < 2; i++) assert_int_equal(at_compute_init(base, 1, "auto", NULL, &p.compute[i]), AT_OK);
    assert_true(at_compute_needs(g, &model) < model);
    allow(2 * model);
    for (int i = 0; i < 2; i++) {
        at_err_t err = at_compute_configure(p.compute[i], g, &diag);
        if (!err) err = at_compute_genesis(p.compute[i], false, &diag, &p.state[i]);
        if (err) fail_msg("begin: %s: %s", diag.where, diag.text);
    }
    assert_null(test_net_run(&net, 2, half_a_unit, &p));
    for (int i = 0; i < 2; i++)
        if (p.err[i]) fail_msg("unit: %s: %s", p.diag[i].where, p.diag[i].text);
    assert_true(want_share[0] > 0 && p.done[0].heldout == 0 && p.done[1].heldout == want_share[0]);
    for (int i = 0; i < 2; i++) {
        struct at_compute_part part[2] = {{p.done[0].update, p.done[0].tokens, 0},
                                          {p.done[1].update, p.done[1].tokens, 0}};
        at_compute_state_release(&p.state[i]);
        at_err_t err = at_compute_apply(p.compute[i], 0, part, 2, i == 0, &diag, &p.state[i]);
        if (err) fail_msg("apply: %s: %s", diag.where, diag.text);
        assert_string_equal(at_hash_hex(p.state[i].root).s, want_root);
    }
    assert_memory_equal(&p.state[0].heldout_loss, &want_loss, sizeof want_loss);
    for (int i = 0; i < 2; i++) {
        at_compute_state_release(&p.state[i]);
        at_compute_release(p.compute[i]);
    }
}

static void test_a_small_group(void **state)
{
    as_limited(pair_of_members, 1);
}

/* ---- two nodes ---- */

/* 43 MB of weights; 800 MB for whoever computes it whole. */
static void test_two_members_share_a_model(void **state)
{
    struct member m[2] = {{{0}, 0}};
    struct at_node_place place;
    char root[65];
    run_preset = "10m";
    if (LIMITED) birth.data_bytes_max = (rlim_t)260 << 20;
    found_as(&m[0], 1, 2, 1, 2, &place);
    start_node(&m[0]);
    join(&m[1], 1, place.invite);
    start_node(&m[1]);
    for (int i = 0; i < 2; i++) expect_exit(m, 2, i, 0, 250000);
    expect_agreement(m, 2, 1);
    local_root_as(1, 1, 1, root);
    assert_string_equal(read_result(&m[0]).root, root);
}

int main(int argc, char **argv)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_base, remove_base)
    const struct CMUnitTest tests[] = {CASE(test_a_member_alone), CASE(test_a_small_group)};
    const struct CMUnitTest slow[] = {CASE(test_two_members_share_a_model)};
    at_sys_process_init();
    if (argc > 1 && strcmp(argv[1], "--long") == 0) return cmocka_run_group_tests(slow, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
