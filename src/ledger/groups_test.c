/* Groups of members that compute a unit together: who is with whom, and what the ledger takes from them. */
#include "ledger/groups.h"
#include "ledger/log_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

enum { MEMBERS = 12 };

/* "01 23 4": the groups in the order of their first members. */
static const char *text_of(const struct at_grouped *g)
{
    static char text[64];
    size_t n = 0;
    for (uint32_t r = 0; r < MEMBERS; r++) {
        uint32_t places = 0;
        if (g[r].size == 0 || g[r].place != 0) continue;
        if (n > 0) text[n++] = ' ';
        for (uint32_t k = r; k != AT_GROUP_END; k = g[k].next) {
            assert_int_equal(g[k].lead, r);
            assert_int_equal(g[k].place, places++);
            assert_int_equal(g[k].size, g[r].size);
            text[n++] = (char)(k < 10 ? '0' + k : 'a' + k - 10);
        }
        assert_int_equal(places, g[r].size);
    }
    text[n] = 0;
    return text;
}

static const char *form(struct at_grouped *g, uint32_t bits, uint32_t stages)
{
    struct at_replicas in = {{(uint8_t)bits, (uint8_t)(bits >> 8)}};
    at_groups_form(g, MEMBERS, &in, stages);
    return text_of(g);
}

static void only_members_of_broken_and_small_groups_move(void **state)
{
    struct at_grouped g[MEMBERS] = {{0}};
    assert_string_equal(form(g, 0x1f, 2), "01 23 4");
    assert_string_equal(form(g, 0x3f, 2), "01 23 45"); /* a newcomer joins the small group */
    assert_string_equal(form(g, 0x3d, 2), "0 23 45");  /* 1 is away: only its group is broken */
    assert_string_equal(form(g, 0x3f, 2), "01 23 45");
    assert_string_equal(form(g, 0x39, 2), "03 45"); /* what is left of two groups is one */
    assert_string_equal(form(g, 0x3f, 2), "03 12 45");
    assert_string_equal(form(g, 0x3f, 2), "03 12 45");
    assert_string_equal(form(g, 0x00, 2), "");
    assert_string_equal(form(g, 0xfff, 3), "012 345 678 9ab");
    assert_string_equal(form(g, 0xfef, 3), "012 35 678 9ab");
    memset(g, 0, sizeof g);
    assert_string_equal(form(g, 0x2d, 1), "0 2 3 5");
}

static void a_stage_is_the_place_among_those_who_are_left(void **state)
{
    assert_int_equal(at_group_stages(0xd), 3);
    assert_int_equal(at_group_stage(0xd, 0), 0);
    assert_int_equal(at_group_stage(0xd, 2), 1);
    assert_int_equal(at_group_stage(0xd, 3), 2);
}

/* ---- the ledger ---- */
static void begin(struct log_fixture *f, int members, uint32_t stages)
{
    fixture_init(f);
    at_ledger_release(&f->ledger);
    f->genesis.stages = stages;
    f->genesis.min_members = 1;
    assert_int_equal(at_ledger_init(&f->ledger, &f->genesis, NULL), AT_OK);
    for (int k = 0; k < members; k++) assert_int_equal(fixture_join(f, k), AT_OK);
    struct at_record rec = fixture_open_record(f, (1u << members) - 1);
    assert_int_equal(fixture_write(f, 0, &rec, NULL), AT_OK);
}

static struct at_record receipt(struct log_fixture *f, int replica, uint32_t group, uint32_t steps)
{
    struct at_record rec = fixture_receipt_record(f, replica, steps);
    rec.receipt.group = group;
    if (group >> f->ledger.groups[replica].place > 1) rec.receipt.heldout = 0; /* it is not the last stage */
    if (group)
        rec.receipt.flops =
            rec.receipt.tokens * at_stage_flops_per_token(&f->genesis.model, at_group_stages(group),
                                                          at_group_stage(group, f->ledger.groups[replica].place));
    return rec;
}

static void takes(struct log_fixture *f, int replica, uint32_t group, uint32_t steps)
{
    struct at_diag diag = {0};
    struct at_record rec = receipt(f, replica, group, steps);
    if (fixture_write(f, replica, &rec, &diag)) fail_msg("replica %d: %s", replica, diag.text);
}

static void refuses(struct log_fixture *f, int key, const struct at_record *rec, const char *why)
{
    struct at_diag diag = {0};
    assert_int_equal(fixture_write(f, key, rec, &diag), AT_E_VERIFY);
    if (strstr(diag.text, why) == NULL) fail_msg("'%s' instead of '%s'", diag.text, why);
}

static void a_unit_counts_when_all_its_parts_are_there(void **state)
{
    struct log_fixture f;
    begin(&f, 4, 2);
    uint64_t unit = f.ledger.samples.unit;
    for (uint32_t r = 0; r < 4; r++) assert_int_equal(f.ledger.allotments[r].range.start, r / 2 * unit);
    struct at_record rec = receipt(&f, 0, 0, 4);
    refuses(&f, 0, &rec, "members of its group");
    rec = receipt(&f, 0, 2, 4);
    refuses(&f, 0, &rec, "members of its group");
    rec = receipt(&f, 0, 3, 4);
    rec.receipt.group = 7;
    refuses(&f, 0, &rec, "members of its group");
    rec = receipt(&f, 0, 3, 4);
    rec.receipt.flops++;
    refuses(&f, 0, &rec, "FLOPs");
    takes(&f, 0, 3, 4);
    assert_int_equal(at_ledger_unit_complete(&f.ledger, 0), 0);
    rec = receipt(&f, 0, 3, 4);
    refuses(&f, 0, &rec, "fewer members");
    rec = fixture_close_record(&f, 1);
    refuses(&f, 0, &rec, "not complete");
    rec = receipt(&f, 1, 3, 3);
    refuses(&f, 1, &rec, "other parts");
    takes(&f, 1, 3, 4);
    assert_int_equal(at_ledger_unit_complete(&f.ledger, 0), 3);
    assert_int_equal(at_ledger_unit_complete(&f.ledger, 2), 0);
    rec = receipt(&f, 1, 2, 4);
    refuses(&f, 1, &rec, "all parts");
    rec = fixture_close_record(&f, 1);
    refuses(&f, 0, &rec, "without the others");
    takes(&f, 3, 3, 4); /* of the second unit one part stays away */
    rec = fixture_close_record(&f, 3);
    assert_int_equal(fixture_write(&f, 0, &rec, NULL), AT_OK);
    assert_int_equal(f.ledger.included_count, 1);
    assert_int_equal(f.ledger.tokens, f.ledger.allotments[0].receipt.tokens); /* once, not for each stage */
    assert_int_equal(f.ledger.members[0].confirmed + f.ledger.members[1].confirmed, f.genesis.issuance);
    assert_int_equal(f.ledger.members[3].confirmed, 0);
    assert_int_equal(f.ledger.samples.next, 2 * unit);
    rec = fixture_epoch_record(&f);
    assert_int_equal(fixture_write(&f, 0, &rec, NULL), AT_OK);
    rec = fixture_open_record(&f, 0xf); /* what did not count is given out again, first */
    assert_int_equal(fixture_write(&f, 0, &rec, NULL), AT_OK);
    assert_int_equal(f.ledger.allotments[0].range.start, unit);
    assert_int_equal(f.ledger.allotments[1].range.start, unit);
    assert_int_equal(f.ledger.allotments[2].range.start, 2 * unit);
    fixture_release(&f);
}

static void whoever_is_left_does_the_unit_and_it_counts_once(void **state)
{
    struct log_fixture f;
    begin(&f, 3, 2);
    takes(&f, 0, 3, 4); /* then its other half dies: */
    takes(&f, 0, 1, 4);
    assert_int_equal(at_ledger_unit_complete(&f.ledger, 1), 1);
    struct at_record rec = receipt(&f, 1, 3, 4);
    refuses(&f, 1, &rec, "all parts"); /* it was not dead, but late */
    rec = receipt(&f, 1, 2, 4);
    refuses(&f, 1, &rec, "all parts");
    takes(&f, 2, 1, 4); /* a group of one */
    rec = fixture_close_record(&f, 7);
    refuses(&f, 0, &rec, "without a receipt");
    rec = fixture_close_record(&f, 5);
    assert_int_equal(fixture_write(&f, 0, &rec, NULL), AT_OK);
    assert_int_equal(f.ledger.included_count, 2);
    assert_int_equal(f.ledger.members[0].confirmed, f.ledger.members[2].confirmed); /* each did a whole unit */
    fixture_release(&f);
}

static void without_stages_nobody_names_a_group(void **state)
{
    struct log_fixture f;
    begin(&f, 3, 0);
    struct at_record rec = receipt(&f, 0, 1, 4);
    rec.receipt.flops = rec.receipt.tokens * at_model_flops_per_token(&f.genesis.model);
    refuses(&f, 0, &rec, "work alone");
    takes(&f, 0, 0, 4);
    assert_int_equal(at_ledger_unit_complete(&f.ledger, 0), 1);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_members_of_broken_and_small_groups_move),
                                       cmocka_unit_test(a_stage_is_the_place_among_those_who_are_left),
                                       cmocka_unit_test(a_unit_counts_when_all_its_parts_are_there),
                                       cmocka_unit_test(whoever_is_left_does_the_unit_and_it_counts_once),
                                       cmocka_unit_test(without_stages_nobody_names_a_group)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
