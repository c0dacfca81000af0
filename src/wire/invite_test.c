#include "wire/invite.h"
#include "wire/wire_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct at_invite example(void)
{
    struct at_invite i = {
        .run = fixture_hash(0xa1), .host = "127.0.0.1", .port = 40123, .log_size = 5, .log_root = fixture_hash(0xb2)};
    memset(i.node.b, 0xc3, sizeof i.node.b);
    return i;
}

static void expect_same(const struct at_invite *a, const struct at_invite *b)
{
    assert_true(at_hash_eq(a->run, b->run) && at_hash_eq(a->log_root, b->log_root) &&
                at_node_id_eq(&a->node, &b->node));
    assert_string_equal(a->host, b->host);
    assert_int_equal(a->port, b->port);
    assert_true(a->log_size == b->log_size);
    assert_int_equal(a->has_ticket, b->has_ticket);
    if (a->has_ticket) assert_memory_equal(&a->ticket, &b->ticket, sizeof a->ticket);
}

static void give_ticket(struct at_invite *invite)
{
    invite->has_ticket = true;
    memset(invite->ticket.seed, 0xd4, sizeof invite->ticket.seed);
    memset(invite->ticket.founder.b, 0xe5, sizeof invite->ticket.founder.b);
}

static void there_and_back(void **state)
{
    static const char *const hosts[] = {"127.0.0.1", "::1", "fe80::1%eth0", "atoll.example.org", "h"};
    for (size_t k = 0; k < 5; k++) {
        struct at_invite invite = example(), again;
        char text[AT_INVITE_TEXT_MAX + 1], mailed[2 * AT_INVITE_TEXT_MAX + 10];
        strcpy(invite.host, hosts[k]);
        if (k % 2 == 1) give_ticket(&invite);
        assert_int_equal(at_invite_encode(&invite, NULL, text), AT_OK);
        assert_memory_equal(text, "atoll1", 6);
        assert_int_equal(at_invite_decode(text, NULL, &again), AT_OK);
        expect_same(&invite, &again);
        /* As mail and shouting people treat it: upper case, line breaks, blanks around. */
        size_t n = (size_t)sprintf(mailed, "  ");
        for (size_t i = 0; text[i] != '\0'; i++) {
            bool lower = text[i] >= 'a' && text[i] <= 'z';
            mailed[n++] = lower ? (char)(text[i] - 32) : text[i];
            if (i % 60 == 59) mailed[n++] = '\n';
        }
        strcpy(mailed + n, " \r\n");
        assert_int_equal(at_invite_decode(mailed, NULL, &again), AT_OK);
        expect_same(&invite, &again);
    }
}

static void the_longest_fits(void **state)
{
    struct at_invite invite = example(), again;
    char text[AT_INVITE_TEXT_MAX + 1];
    memset(invite.host, 'x', AT_HOST_BYTES_MAX);
    invite.host[AT_HOST_BYTES_MAX] = '\0';
    invite.log_size = UINT64_MAX;
    invite.port = UINT16_MAX;
    give_ticket(&invite);
    assert_int_equal(at_invite_encode(&invite, NULL, text), AT_OK);
    assert_true(strlen(text) <= AT_INVITE_TEXT_MAX);
    assert_int_equal(at_invite_decode(text, NULL, &again), AT_OK);
    expect_same(&invite, &again);
}

static void expect_bad(const char *text, const char *why)
{
    struct at_diag diag = {.err = AT_OK};
    struct at_invite invite = example(), before = invite;
    assert_int_equal(at_invite_decode(text, &diag, &invite), AT_E_INVITE);
    if (strstr(diag.text, why) == NULL) fail_msg("'%s' does not say '%s' about '%s'", diag.text, why, text);
    assert_memory_equal(&invite, &before, sizeof invite);
}

/* Every letter replaced, every neighbour pair swapped, every cut: noticed, with a reason that fits. */
static void slips_are_noticed(void **state)
{
    struct at_invite invite = example(), again;
    char text[AT_INVITE_TEXT_MAX + 1], bad[AT_INVITE_TEXT_MAX + 1];
    assert_int_equal(at_invite_encode(&invite, NULL, text), AT_OK);
    size_t n = strlen(text);
    for (size_t i = 6; i < n; i++) {
        strcpy(bad, text);
        bad[i] = text[i] == 'q' ? 'z' : 'q';
        assert_int_equal(at_invite_decode(bad, NULL, &again), AT_E_INVITE);
        if (i > 9) expect_bad(bad, "mistyped"); /* the first four letters hold the length */
        strcpy(bad, text);
        if (i + 1 < n && text[i] != text[i + 1]) {
            bad[i] = text[i + 1];
            bad[i + 1] = text[i];
            assert_int_equal(at_invite_decode(bad, NULL, &again), AT_E_INVITE);
        }
        strcpy(bad, text);
        bad[i] = '\0';
        expect_bad(bad, "cut short");
        bad[i] = '0';
        bad[i + 1] = '\0';
        expect_bad(bad, "cannot be right");
    }
    strcpy(bad, text);
    strcat(bad, "aa");
    expect_bad(bad, "extra characters");
    expect_bad("", "begins with");
    expect_bad("hello", "begins with");
    expect_bad("atoll2abc", "begins with");
    expect_bad("atoll1", "cut short");
    char endless[5000];
    memset(endless, 'a', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    memcpy(endless, "atoll1", 6);
    expect_bad(endless, "too long");
}

static void bad_addresses_are_not_invited(void **state)
{
    char text[AT_INVITE_TEXT_MAX + 1];
    static const char *const hosts[] = {"", "a b", "x;rm", "\xc3\xa9", "[::1]"};
    for (size_t i = 0; i < 5; i++) {
        struct at_invite invite = example();
        strcpy(invite.host, hosts[i]);
        assert_int_equal(at_invite_encode(&invite, NULL, text), AT_E_DATA);
    }
    struct at_invite invite = example();
    invite.port = 0;
    assert_int_equal(at_invite_encode(&invite, NULL, text), AT_E_DATA);
    invite = example();
    memset(invite.host, 'x', sizeof invite.host);
    assert_int_equal(at_invite_encode(&invite, NULL, text), AT_E_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back), cmocka_unit_test(the_longest_fits),
                                       cmocka_unit_test(slips_are_noticed),
                                       cmocka_unit_test(bad_addresses_are_not_invited)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
