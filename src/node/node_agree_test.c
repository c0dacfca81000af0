/* node_agree_test.c: what a node keeps as a steward: tickets, secrets of seats, and the rows of the agreement. */
#include "node/node.h"
#include "node/node_agree.h"
#include "node/node_folder.h"
#include "node/node_secrets.h"
#include "os/sys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[512];

static int make_dir(void **state)
{
    (void)state;
    at_sys_process_init();
    strcpy(dir, "/tmp/at_agree_test.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}
static int remove_dir(void **state)
{
    char command[600];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%.30s'", dir);
    return system(command);
}

static const char *in_dir(const char *name)
{
    static char path[AT_PATH_BYTES];
    assert_int_equal(at_path_join(dir, name, NULL, path), AT_OK);
    return path;
}

static void write_text(const char *name, const char *text)
{
    struct at_span part = at_span(text, strlen(text));
    assert_int_equal(at_file_write_atomic(in_dir(name), &part, 1, 0600, NULL), AT_OK);
}

static unsigned mode_of(const char *name)
{
    struct stat st;
    assert_int_equal(stat(in_dir(name), &st), 0);
    return st.st_mode & 0777;
}

/* ---- secrets ---- */
static void secrets_last_as_long_as_their_term(void **state)
{
    struct at_node_secret list[AT_NODE_SECRETS], made[7];
    size_t n = 99;
    (void)state;
    assert_int_equal(at_secrets_load(dir, NULL, list, &n), AT_OK);
    assert_int_equal(n, 0);
    for (uint32_t term = 2; term < 7; term++)
        assert_int_equal(at_secrets_make(dir, 3 * term, NULL, &made[term]),
                         AT_OK); /* 6, 9, 12: not in the order of names */
    assert_int_equal(mode_of("seat-6"), 0600);
    assert_memory_not_equal(made[2].bytes, made[3].bytes, AT_KEY_BYTES);
    assert_int_equal(at_secrets_make(dir, 9, NULL, &list[0]), AT_OK); /* the same, not another */
    assert_memory_equal(list[0].bytes, made[3].bytes, AT_KEY_BYTES);
    assert_int_equal(at_secrets_load(dir, NULL, list, &n), AT_OK);
    assert_int_equal(n, 4); /* the newest */
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(list[i].term, 3 * (i + 3));
        assert_memory_equal(list[i].bytes, made[i + 3].bytes, AT_KEY_BYTES);
    }
    write_text("seat-7.99.tmp", "of a crash");
    assert_int_equal(at_secrets_erase(dir, 12, NULL), AT_OK);
    assert_false(at_file_exists(in_dir("seat-6")));
    assert_false(at_file_exists(in_dir("seat-9")));
    assert_int_equal(at_secrets_load(dir, NULL, list, &n), AT_OK);
    assert_int_equal(n, 3);
    assert_int_equal(list[0].term, 12);
    write_text("seat-15", "ab");
    struct at_diag diag = {0};
    assert_int_equal(at_secrets_load(dir, &diag, list, &n), AT_E_DATA);
    assert_non_null(strstr(diag.text, "seat-15"));
}

/* ---- tickets ---- */
static void found(const char *folder, struct at_node_place *ret)
{
    char words[5001];
    for (size_t i = 0; i < 5000; i++) words[i] = "a small run learns from this "[i % 29];
    words[5000] = '\0';
    write_text("text.txt", words);
    char text[AT_PATH_BYTES], path[AT_PATH_BYTES];
    snprintf(text, sizeof text, "%s", in_dir("text.txt"));
    snprintf(path, sizeof path, "%s", in_dir(folder));
    const char *data[] = {text};
    struct at_diag diag = {0};
    const struct at_node_init_options o = {.dir = path, .data_path = data, .data_count = 1};
    if (at_node_init(&o, &diag, ret) != AT_OK) fail_msg("%s", diag.text);
}

static void a_ticket_stays_with_its_member(void **state)
{
    struct at_node_place place, member;
    struct at_invite plain, seat;
    struct at_folder f;
    struct at_diag diag = {0};
    char secret[AT_INVITE_TEXT_MAX + 1], second[AT_INVITE_TEXT_MAX + 1], folder[AT_PATH_BYTES];
    (void)state;
    found("founder", &place);
    snprintf(folder, sizeof folder, "%s", in_dir("founder"));
    assert_int_equal(at_node_steward_invite(folder, place.invite, &diag, secret), AT_OK);
    assert_int_equal(at_node_steward_invite(folder, place.invite, &diag, second), AT_OK);
    assert_string_not_equal(secret, second);
    assert_int_equal(at_invite_decode(secret, NULL, &seat), AT_OK);
    assert_int_equal(at_invite_decode(place.invite, NULL, &plain), AT_OK);
    assert_true(seat.has_ticket && !plain.has_ticket && at_node_id_eq(&seat.node, &plain.node));
    struct at_ticket_use use;
    struct at_keypair bearer = {.id = plain.node};
    assert_int_equal(at_ticket_show(&seat.ticket, seat.run, &bearer, &use), AT_OK);
    assert_int_equal(at_ticket_verify(&use, place.run, &place.node, &plain.node, NULL), AT_OK);

    snprintf(folder, sizeof folder, "%s", in_dir("member"));
    struct at_node_join_options join = {.dir = folder, .invite = secret};
    assert_int_equal(at_node_join(&join, &diag, &member), AT_OK);
    assert_int_equal(mode_of("member/ticket"), 0600);
    assert_string_equal(member.invite, place.invite); /* what it passes on has no ticket */
    for (int again = 0; again < 2; again++) {         /* also after it has joined with a newer line without one */
        assert_int_equal(at_folder_load(folder, &diag, &f), AT_OK);
        assert_true(f.contact.has_ticket);
        assert_memory_equal(&f.contact.ticket, &seat.ticket, sizeof seat.ticket);
        join.invite = place.invite;
        assert_int_equal(at_node_join(&join, &diag, &member), AT_OK);
    }
    struct at_buf ini = {0};
    assert_int_equal(at_file_read(in_dir("member/node.ini"), 10000, NULL, &ini), AT_OK);
    char hex[2 * AT_KEY_BYTES + 1];
    at_hex_encode(seat.ticket.seed, AT_KEY_BYTES, hex);
    assert_int_equal(at_buf_append(&ini, "", 1), AT_OK);
    assert_null(strstr((const char *)ini.p, hex)); /* people edit that file, and show it */
    at_buf_release(&ini);

    assert_int_equal(at_node_steward_invite(folder, place.invite, &diag, secret), AT_E_USAGE);
    assert_non_null(strstr(diag.text, "only the founder"));
    write_text("member/ticket", "no hex");
    diag = (struct at_diag){0};
    assert_int_equal(at_folder_load(folder, &diag, &f), AT_E_DATA);
    assert_non_null(strstr(diag.text, "no ticket"));
}

/* ---- rows ---- */
static struct at_node_kept block_row(enum at_node_kept_kind kind, uint64_t view, const char *block, const char *bytes)
{
    return (struct at_node_kept){.kind = kind,
                                 .term = 2,
                                 .view = view,
                                 .hash = at_sha256(block, strlen(block)),
                                 .bytes = at_span(bytes, strlen(bytes))};
}

static void laggards_are_given_blocks(void **state)
{
    struct at_store *store = NULL;
    struct at_agree_answer answer = {.count = 0};
    struct at_diag diag = {0};
    (void)state;
    assert_int_equal(at_store_create(in_dir("ledger"), at_span("genesis", 7), &diag, &store), AT_OK);
    const struct at_node_kept kept[] = {
        block_row(AT_NODE_KEPT_BLOCK, 1, "first", "first"),  block_row(AT_NODE_KEPT_BLOCK, 3, "second", "second"),
        block_row(AT_NODE_KEPT_BLOCK, 4, "lost", "lost"),    block_row(AT_NODE_KEPT_FINAL, 1, "first", ""),
        block_row(AT_NODE_KEPT_FINAL, 3, "second", "proof"),
    };
    struct at_node_op op = {.kind = AT_NODE_OP_PERSIST};
    op.persist.kept = kept;
    op.persist.kept_count = 5;
    if (at_agree_persist(store, &op, &diag) != AT_OK) fail_msg("%s", diag.text);
    struct at_agree_question q = {.term = 2, .view = 0, .last = 3};
    assert_int_equal(at_agree_read(store, &q, &diag, &answer), AT_OK);
    assert_int_equal(answer.count, 2);
    assert_true(at_span_eq(answer.list[0].bytes, at_span("first", 5)) && answer.list[0].certificate.n == 0);
    assert_true(at_span_eq(answer.list[1].bytes, at_span("second", 6)));
    assert_true(at_span_eq(answer.list[1].certificate, at_span("proof", 5)));
    assert_int_equal(answer.list[1].view, 3);
    at_agree_answer_release(&answer);
    q = (struct at_agree_question){.term = 2, .of_block = true, .view = 4, .hash = kept[2].hash};
    assert_int_equal(at_agree_read(store, &q, &diag, &answer), AT_OK);
    assert_int_equal(answer.count, 1);
    assert_true(at_span_eq(answer.list[0].bytes, at_span("lost", 4)));
    at_agree_answer_release(&answer);
    q.view = 5; /* not here */
    assert_int_equal(at_agree_read(store, &q, &diag, &answer), AT_OK);
    assert_int_equal(answer.count, 0);
    q = (struct at_agree_question){.term = 7, .view = 0, .last = 3};
    assert_int_equal(at_agree_read(store, &q, &diag, &answer), AT_OK);
    assert_int_equal(answer.count, 0);
    at_agree_answer_release(&answer);
    at_store_close(store);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        CASE(secrets_last_as_long_as_their_term),
        CASE(a_ticket_stays_with_its_member),
        CASE(laggards_are_given_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
