/* node_test.c: whole nodes, each a process of its own, on loopback: rounds to the end, deaths and returns. */
#include "node/node_test_util.h"

/* ---- tests ---- */
static void test_three_nodes_reach_the_root_of_one_process(void **state)
{
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place;
    char root[65];
    found(&m[0], 3, 3, &place);
    start_node(&m[0]);
    for (int i = 1; i < 3; i++) {
        join(&m[i], i, place.invite);
        start_node(&m[i]);
        if (i == 1) WAIT_FOR(ask(&m[0], "members") == 2, 10000, m, 2); /* replica order = order of joining */
    }
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 30000);
    expect_agreement(m, 3, 3);
    local_root(3, 3, root);
    assert_string_equal(read_result(&m[0]).root, root);
}

static void test_member_dies_and_returns(void **state)
{
    enum { ROUNDS = 24 };
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place;
    found(&m[0], ROUNDS, 3, &place);
    start_node(&m[0]);
    for (int i = 1; i < 3; i++) {
        join(&m[i], i, place.invite);
        start_node(&m[i]);
    }
    for (int k = 0; k < 3; k++) {
        double round = 0;
        WAIT_FOR((round = ask(&m[0], "rounds_done")) >= 2 + 5 * k, 20000, m, 3);
        kill_node(&m[1 + k % 2]);
        WAIT_FOR(ask(&m[0], "rounds_done") >= round + 2 || ask(&m[0], "rounds_done") < 0, 20000, m,
                 3); /* goes on without */
        start_node(&m[1 + k % 2]);
        WAIT_FOR(ask(&m[0], "peers") == 2 || ask(&m[0], "rounds_done") < 0, 20000, m, 3);
    }
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 60000);
    expect_agreement(m, 3, ROUNDS);
}

/* The steward is killed at many moments of its rounds; nothing that a member has seen is lost. */
static void test_steward_dies_and_returns(void **state)
{
    enum { ROUNDS = 14 };
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place;
    uint32_t x = 1;
    found(&m[0], ROUNDS, 3, &place);
    start_node(&m[0]);
    for (int i = 1; i < 3; i++) {
        join(&m[i], i, place.invite);
        start_node(&m[i]);
    }
    for (int k = 0; k < 8; k++) {
        WAIT_FOR(ask(&m[0], "rounds_done") >= 1 + k * (k < 6), 20000, m, 3); /* the last two right after a return */
        sleep_ms((long)((x = x * 1103515245 + 12345) >> 16) % 160);
        double seen = ask(&m[1], "records");
        if (ask(&m[0], "ended") != 0) break;
        kill_node(&m[0]);
        uint64_t stored = 0;
        verify_ledger(&m[0], &stored);
        assert_true((double)stored >= seen);
        start_node(&m[0]);
        WAIT_FOR(ask(&m[0], "records") >= (double)stored, 10000, m, 3);
    }
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 60000);
    expect_agreement(m, 3, ROUNDS);
}

/* What a node has logged so far has this in it. */
static bool log_says(const struct member *m, const char *what)
{
    char path[AT_PATH_BYTES + 16];
    struct at_buf text = {0};
    snprintf(path, sizeof path, "%.1023s.log", m->dir);
    bool says = at_file_read(path, 1 << 26, NULL, &text) == AT_OK && at_buf_append(&text, "", 1) == AT_OK &&
                strstr((const char *)text.p, what) != NULL;
    at_buf_release(&text);
    return says;
}

/* Rounds that are mostly over before anybody can have done a step: nobody is in, the state is the same but for the number of
 * its round, and the run goes on, in a new process, too. */
static void test_rounds_of_nobody(void **state)
{
    struct member m[1] = {{{0}, 0}};
    struct at_node_place place;
    struct at_buf answer = {0};
    run_round_ms = 1;
    found(&m[0], 100000, 1, &place);
    run_round_ms = 0;
    start_node(&m[0]);
    WAIT_FOR(log_says(&m[0], "closes with 0 contributions"), 60000, m, 1);
    double round = ask(&m[0], "rounds_done");
    WAIT_FOR(ask(&m[0], "rounds_done") >= round + 4, 60000, m, 1); /* its first state is on disk by then */
    kill_node(&m[0]);
    start_node(&m[0]);
    WAIT_FOR(ask(&m[0], "rounds_done") >= round + 6, 60000, m, 1);
    assert_int_equal(at_control_call(m[0].dir, "finish", 3000, NULL, &answer), AT_OK);
    at_buf_release(&answer);
    expect_exit(m, 1, 0, 0, 60000);
    expect_agreement(m, 1, read_result(&m[0]).rounds);
}

/* The text of a node's status field; empty when it does not answer. */
static void ask_text(const struct member *m, const char *field, char *ret, size_t n)
{
    struct at_buf text = {0};
    ret[0] = 0;
    if (at_control_call(m->dir, "status", 3000, NULL, &text) == AT_OK) {
        json_t *o = json_loadb((const char *)text.p, text.n, 0, NULL);
        const char *value = json_string_value(json_object_get(o, field));
        snprintf(ret, n, "%s", value ? value : "");
        json_decref(o);
    }
    at_buf_release(&text);
}

/* Bytes of the addresses that a node has written down. */
static uint64_t kept_bytes(const struct member *m)
{
    char path[AT_PATH_BYTES];
    struct at_buf bytes = {0};
    assert_int_equal(at_path_join(m->dir, "peers", NULL, path), AT_OK);
    at_err_t err = at_file_read(path, 1 << 20, NULL, &bytes);
    uint64_t n = err ? 0 : bytes.n;
    at_buf_release(&bytes);
    return n;
}

/* A newcomer and the founder cannot dial each other: it comes in through a member, whose invite it has, and takes part
 * in every round through it. Then the founder dies and comes back at another port; its folder knows where the others
 * are. */
static void test_in_through_a_member(void **state)
{
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place, second;
    struct at_diag diag = {0};
    struct at_buf answer = {0};
    char invite[AT_INVITE_TEXT_MAX + 1];
    found(&m[0], 100000, 3, &place);
    join(&m[1], 1, place.invite);
    join(&m[2], 2, place.invite); /* only for its folder and port */
    assert_int_equal(at_node_folder(m[2].dir, NULL, &second), AT_OK);
    birth.unreachable = second.port;
    start_node(&m[0]);
    birth.unreachable = 0;
    start_node(&m[1]);
    WAIT_FOR(ask(&m[0], "members") == 2 && ask(&m[1], "joined") == 1, 20000, m, 2);
    ask_text(&m[1], "invite", invite, sizeof invite);
    assert_string_not_equal(invite, place.invite);
    if (at_node_join(&(struct at_node_join_options){.dir = m[2].dir, .invite = invite}, &diag, &second))
        fail_msg("join: %s: %s", diag.where, diag.text);
    birth.unreachable = place.port;
    start_node(&m[2]);
    WAIT_FOR(ask(&m[2], "rounds_done") >= 1, 30000, m, 3);
    assert_int_equal((int)ask(&m[2], "hops"), 2);
    WAIT_FOR(ask(&m[2], "peers_known") == 3, 20000, m, 3);
    WAIT_FOR(kept_bytes(&m[0]) >= (uint64_t)3 * (AT_KEY_BYTES + AT_SIG_BYTES + 18), 20000, m, 3); /* three statements */
    kill_node(&m[0]);
    birth.unreachable = second.port;
    birth.listen = "127.0.0.1:0";
    start_node(&m[0]);
    birth.unreachable = 0;
    birth.listen = NULL;
    WAIT_FOR(ask(&m[0], "peers") >= 1, 30000, m, 3);
    double round = ask(&m[0], "rounds_done");
    WAIT_FOR(ask(&m[2], "rounds_done") >= round + 2, 60000, m, 3);
    assert_int_equal(at_control_call(m[0].dir, "finish", 3000, NULL, &answer), AT_OK);
    at_buf_release(&answer);
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 60000);
    expect_agreement(m, 3, read_result(&m[0]).rounds);
    assert_int_equal(at_node_folder(m[0].dir, NULL, &second), AT_OK);
    assert_int_not_equal(second.port, place.port);
}

/* Minutes of deaths: any node, at any moment, sometimes two at once. No record that was stored is lost, and all end
 * alike. */
static void test_a_hundred_deaths(void **state)
{
    struct member m[3] = {{{0}, 0}};
    struct at_node_place place;
    struct at_buf answer = {0};
    uint32_t x = (uint32_t)at_clock_mono_ns();
    print_message("seed %u\n", x);
    found(&m[0], 100000, 2, &place);
    for (int i = 1; i < 3; i++) join(&m[i], i, place.invite);
    for (int i = 0; i < 3; i++) start_node(&m[i]);
    for (int k = 0; k < 100; k++) {
        uint64_t stored[3] = {0};
        double done = 0;
        sleep_ms((x = x * 1103515245 + 12345) >> 16 & 511);
        unsigned victims = (x = x * 1103515245 + 12345) >> 16 & 7;
        if (victims == 0)
            WAIT_FOR((done = ask(&m[0], "rounds_done")) >= 0 && ask(&m[0], "rounds_done") > done, 30000, m, 3);
        for (int i = 0; i < 3; i++)
            if (victims >> i & 1) kill_node(&m[i]);
        for (int i = 0; i < 3; i++) {
            char path[AT_PATH_BYTES];
            if (!(victims >> i & 1)) continue;
            assert_int_equal(at_path_join(m[i].dir, "ledger.sqlite", NULL, path), AT_OK);
            if (at_file_exists(path)) verify_ledger(&m[i], &stored[i]);
            start_node(&m[i]);
        }
        for (int i = 0; i < 3; i++) WAIT_FOR(ask(&m[i], "records") >= (double)stored[i], 10000, m, 3);
    }
    WAIT_FOR(ask(&m[0], "peers") == 2, 20000, m, 3);
    double round = ask(&m[0], "rounds_done");
    WAIT_FOR(ask(&m[0], "rounds_done") >= round + 3, 30000, m, 3);
    assert_int_equal(at_control_call(m[0].dir, "finish", 2000, NULL, &answer), AT_OK);
    for (int i = 0; i < 3; i++) expect_exit(m, 3, i, 0, 30000);
    expect_agreement(m, 3, read_result(&m[0]).rounds);
    print_message("%u rounds in spite of it\n", read_result(&m[0]).rounds);
    at_buf_release(&answer);
}

static void test_asked_to_end(void **state)
{
    struct member m[2] = {{{0}, 0}};
    struct at_node_place place, again;
    struct at_diag diag = {0};
    struct at_buf answer = {0};
    found(&m[0], 100000, 1, &place);
    start_node(&m[0]);
    WAIT_FOR(ask(&m[0], "rounds_done") >= 1, 10000, m, 1);
    /* one process per folder */
    assert_int_equal(at_node_run(&(struct at_node_run_options){.dir = m[0].dir}, &diag, &(struct at_node_result){0}),
                     AT_E_ENV);
    assert_non_null(strstr(diag.text, "another atoll"));
    /* unknown words get an answer */
    assert_int_equal(at_control_call(m[0].dir, "dance", 2000, NULL, &answer), AT_OK);
    assert_true(answer.n > 11 && memcmp(answer.p, "{\"ok\":false", 11) == 0);
    at_buf_release(&answer);
    /* Ctrl-C, then on from there, then finish */
    kill(m[0].pid, SIGINT);
    expect_exit(m, 1, 0, 130, 5000);
    unsigned rounds = read_result(&m[0]).rounds;
    memset(&diag, 0, sizeof diag);
    assert_int_equal(at_control_call(m[0].dir, "status", 1000, &diag, &answer), AT_E_NOT_FOUND);
    assert_int_equal(at_node_folder(m[0].dir, NULL, &again), AT_OK);
    assert_int_equal(again.port, place.port);
    start_node(&m[0]);
    WAIT_FOR(ask(&m[0], "rounds_done") > rounds, 10000, m, 1);
    assert_int_equal(at_control_call(m[0].dir, "finish", 2000, NULL, &answer), AT_OK);
    expect_exit(m, 1, 0, 0, 10000);
    assert_true(read_result(&m[0]).ended && read_result(&m[0]).rounds > rounds);
    uint64_t records;
    verify_ledger(&m[0], &records);
    at_buf_release(&answer);
}

static void flip_byte(const char *dir, const char *name, size_t at)
{
    char path[AT_PATH_BYTES];
    struct at_buf bytes = {0};
    assert_int_equal(at_path_join(dir, name, NULL, path), AT_OK);
    assert_int_equal(at_file_read(path, 1 << 24, NULL, &bytes), AT_OK);
    bytes.p[at < bytes.n ? at : bytes.n / 2] ^= 1;
    struct at_span part = at_buf_span(&bytes);
    assert_int_equal(at_file_write_atomic(path, &part, 1, 0644, NULL), AT_OK);
    at_buf_release(&bytes);
}

/* A file-size limit stands for a full disk. The node ends with code 5, keeps what it had, and goes on when there is
 * room. */
static void test_full_disk(void **state)
{
    struct member m[1] = {{{0}, 0}};
    struct at_node_place place;
    uint64_t records = 0;
    found(&m[0], 6, 1, &place);
    for (rlim_t kib = 40; kib <= 90; kib += 25) { /* the update, the model, the ledger's log */
        birth.file_bytes_max = kib << 10;
        start_node(&m[0]);
        birth.file_bytes_max = RLIM_INFINITY;
        expect_exit(m, 1, 0, 5, 20000);
        verify_ledger(&m[0], &records);
    }
    start_node(&m[0]);
    expect_exit(m, 1, 0, 0, 20000);
    expect_agreement(m, 1, 6);
    char root[65];
    local_root(1, 6, root);
    assert_string_equal(read_result(&m[0]).root, root);
}

/* The founder's model cannot be made again and is not passed over; a member fetches it. */
static void test_damaged_model(void **state)
{
    struct member m[2] = {{{0}, 0}};
    struct at_node_place place;
    uint64_t records = 0;
    found(&m[0], 100000, 2, &place);
    join(&m[1], 1, place.invite);
    for (int i = 0; i < 2; i++) start_node(&m[i]);
    WAIT_FOR(ask(&m[1], "state_round") >= 2, 20000, m, 2);
    kill(m[1].pid, SIGINT);
    expect_exit(m, 2, 1, 130, 5000);
    flip_byte(m[1].dir, "model.safetensors", SIZE_MAX);
    start_node(&m[1]);
    WAIT_FOR(ask(&m[0], "peers") == 1, 10000, m, 2);
    double round = ask(&m[0], "rounds_done");
    WAIT_FOR(ask(&m[1], "state_round") > round, 10000, m, 2);
    for (int i = 0; i < 2; i++) WAIT_FOR(ask(&m[i], "checkpoint_holders") == 2, 20000, m, 2);
    kill(m[0].pid, SIGINT);
    expect_exit(m, 2, 0, 130, 5000);
    flip_byte(m[0].dir, "model.safetensors", SIZE_MAX);
    start_node(&m[0]);
    expect_exit(m, 2, 0, 3, 5000);
    flip_byte(m[0].dir, "model.safetensors", SIZE_MAX); /* as it was */
    start_node(&m[0]);
    WAIT_FOR(ask(&m[0], "rounds_done") > round + 1, 20000, m, 2);
    struct at_buf answer = {0};
    assert_int_equal(at_control_call(m[0].dir, "finish", 2000, NULL, &answer), AT_OK);
    at_buf_release(&answer);
    for (int i = 0; i < 2; i++) expect_exit(m, 2, i, 0, 10000);
    expect_agreement(m, 2, read_result(&m[0]).rounds);
    verify_ledger(&m[0], &records);
}

static void expect_init(const char *dir, const char *preset, const char *data, const char *listen, at_err_t err,
                        const char *says)
{
    struct at_diag diag = {0};
    struct at_node_place place;
    struct at_node_init_options o = {
        .dir = dir, .preset = preset, .data_path = &data, .data_count = 1, .listen = listen};
    at_err_t got = at_node_init(&o, &diag, &place);
    if (got != err || !strstr(diag.text, says))
        fail_msg("%d instead of %d; '%s' is not in '%s'", got, err, says, diag.text);
}

static void test_bad_beginnings(void **state)
{
    struct member m[2] = {{{0}, 0}};
    struct at_node_place place, other;
    struct at_diag diag = {0};
    struct at_node_result result;
    char fresh[AT_PATH_BYTES], listen_at[64], bad[AT_PATH_BYTES];
    bool empty = false;
    found(&m[0], 3, 2, &place);
    snprintf(fresh, sizeof fresh, "%s/fresh", base);
    snprintf(bad, sizeof bad, "%s/binary", base);
    struct at_span binary = at_span("text\0with a hole in it, and more of it after that", 50);
    assert_int_equal(at_file_write_atomic(bad, &binary, 1, 0644, NULL), AT_OK);
    expect_init(fresh, "no-such", text_path, NULL, AT_E_USAGE, "nano");
    expect_init(fresh, "tiny", "/no/such/file", NULL, AT_E_NOT_FOUND, "/no/such/file");
    expect_init(fresh, "tiny", base, NULL, AT_E_DATA, "folder");
    expect_init(fresh, "tiny", bad, NULL, AT_E_DATA, "");
    expect_init(fresh, "tiny", text_path, "nonsense", AT_E_USAGE, "HOST:PORT");
    assert_int_equal(at_dir_is_empty(fresh, NULL, &empty), AT_OK);
    assert_true(empty);
    expect_init(m[0].dir, "tiny", text_path, NULL, AT_E_DATA, "already");
    expect_init(base, "tiny", text_path, NULL, AT_E_DATA, "not empty");
    start_node(&m[0]);
    WAIT_FOR(ask(&m[0], "members") == 1, 10000, m, 1);
    snprintf(listen_at, sizeof listen_at, "127.0.0.1:%u", place.port);
    expect_init(fresh, "tiny", text_path, listen_at, AT_E_PORT, "in use");
    /* an invite of another run, on the same key and address: the peer says so; and one with a wrong key */
    struct at_invite invite;
    char text[AT_INVITE_TEXT_MAX + 1];
    for (int k = 0; k < 2; k++) {
        assert_int_equal(at_invite_decode(place.invite, NULL, &invite), AT_OK);
        struct at_keypair stranger;
        assert_int_equal(at_keypair_generate(&stranger), AT_OK);
        if (k == 0)
            invite.run.b[0] ^= 1;
        else
            invite.node = stranger.id;
        assert_int_equal(at_invite_encode(&invite, NULL, text), AT_OK);
        snprintf(m[1].dir, sizeof m[1].dir, "%s/stranger%d", base, k);
        assert_int_equal(at_node_join(&(struct at_node_join_options){.dir = m[1].dir, .invite = text}, NULL, &other),
                         AT_OK);
        memset(&diag, 0, sizeof diag);
        at_err_t err = at_node_run(&(struct at_node_run_options){.dir = m[1].dir, .threads = 1}, &diag, &result);
        print_message("%s\n", diag.text);
        assert_int_equal(at_err_exit_code(err), 6);
    }
    assert_int_equal(
        at_node_join(&(struct at_node_join_options){.dir = fresh, .invite = "atoll1garbage"}, NULL, &other),
        AT_E_INVITE);
    assert_int_equal(
        at_node_join(&(struct at_node_join_options){.dir = m[1].dir, .invite = place.invite}, NULL, &other),
        at_hash_eq(invite.run, place.run) ? AT_OK : AT_E_DATA);
    memset(&diag, 0, sizeof diag);
    assert_int_equal(at_node_run(&(struct at_node_run_options){.dir = base}, &diag, &result), AT_E_DATA);
    assert_int_equal(at_node_run(&(struct at_node_run_options){.dir = fresh}, NULL, &result), AT_E_NOT_FOUND);
    kill(m[0].pid, SIGTERM);
    expect_exit(m, 1, 0, 130, 5000);
}

int main(int argc, char **argv)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_base, remove_base)
    const struct CMUnitTest tests[] = {
        CASE(test_three_nodes_reach_the_root_of_one_process),
        CASE(test_member_dies_and_returns),
        CASE(test_steward_dies_and_returns),
        CASE(test_rounds_of_nobody),
        CASE(test_in_through_a_member),
        CASE(test_asked_to_end),
        CASE(test_full_disk),
        CASE(test_damaged_model),
        CASE(test_bad_beginnings),
    };
    const struct CMUnitTest slow[] = {CASE(test_a_hundred_deaths)};
    at_sys_process_init();
    if (argc > 1 && strcmp(argv[1], "--long") == 0) return cmocka_run_group_tests(slow, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
