/* world_parts_test.c: the parts of the world that its stories rest on: the way of a message over lines, blobs that disks
 * share, and the memory that machines do. */
#include "base/sanitized.h"
#include "sim/world_internal.h"
#include "sim/world_rig.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

static struct at_world *with_lines(const struct at_world_line *a, const struct at_world_line *b)
{
    struct at_world_options o = small(1);
    struct at_world *w = NULL;
    o.lines = true;
    o.bulk_weight = 1000;
    assert_int_equal(at_world_init(&o, &w), AT_OK);
    at_world_line_set(w, 0, a);
    at_world_line_set(w, 1, b);
    at_world_line_set(w, 2, b);
    return w;
}

/* A megabyte at 8 Mbit/s takes a second, whichever end is the slow one; a second one waits for the first; control passes
 * by, and takes its share. */
static void way_of_a_message(void **state)
{
    (void)state;
    const struct at_world_line fast = {.latency_ms = 10, .up_kbit = 1000000, .down_kbit = 1000000},
                               slow = {.latency_ms = 5, .up_kbit = 8000, .down_kbit = 8000};
    struct at_world *w = with_lines(&fast, &slow);
    struct at_world_link l = {.up = true, .end = {1, 0}}, other = {.up = true, .end = {2, 0}};
    assert_in_range(at_world_arrival_ms(w, &l, 1, 1000000, true), 1015, 1025);     /* through both at once */
    assert_in_range(at_world_arrival_ms(w, &l, 1, 1000000, true), 2015, 2025);     /* behind it */
    assert_in_range(at_world_arrival_ms(w, &other, 1, 1000000, true), 1015, 1045); /* another's way in is free */
    assert_in_range(at_world_arrival_ms(w, &l, 1, 1000, false), 15, 18);           /* control does not wait */
    assert_in_range(at_world_arrival_ms(w, &l, 0, 1000000, true), 1015, 1025);     /* the slow end's way out */
    w->now_ms = 10000;                                                             /* all queues are empty again */
    assert_in_range(at_world_arrival_ms(w, &l, 1, 1000000, true), 11015, 11025);
    at_world_set(w, 1, AT_WORLD_RATE_PERMILLE, 100, 20000);
    at_world_set(w, 1, AT_WORLD_LATENCY_MS, 700, 20000);
    assert_true(at_world_run(w, 30000)); /* nothing else is to happen */
    w->now_ms = 30000;
    assert_in_range(at_world_arrival_ms(w, &l, 1, 1000000, true), 40715, 40725);
    at_world_release(w);
}

/* Losses cost time and rate, and nothing is lost. */
static void losses_are_delays(void **state)
{
    (void)state;
    const struct at_world_line fine = {.latency_ms = 50, .up_kbit = 100000, .down_kbit = 100000},
                               bad = {.latency_ms = 50, .up_kbit = 100000, .down_kbit = 100000, .loss_ppm = 50000};
    struct at_world *w = with_lines(&fine, &bad);
    struct at_world_link l = {.up = true, .end = {1, 0}};
    uint64_t late = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t at = at_world_arrival_ms(w, &l, 0, 100, false);
        assert_true(at >= 100);
        late += at > 300;
    }
    assert_in_range(late, 20, 90); /* 5 % of one packet each */
    /* Mathis: 1.2 * 1400 B / (0.2 s * sqrt 0.05) = 37 kB/s; a megabyte takes 27 s and not 0.08. */
    assert_in_range(at_world_arrival_ms(w, &l, 0, 1000000, true), 25000, 29000);
    at_world_release(w);
}

static void blobs_are_kept_once(void **state)
{
    (void)state;
    struct at_world_options o = small(1);
    struct at_world *w = NULL;
    assert_int_equal(at_world_init(&o, &w), AT_OK);
    size_t before = w->counts.shared_bytes;
    for (uint8_t round = 0; round < 3; round++) {
        for (int node = 0; node < 3; node++) {
            struct at_buf bytes = {0};
            assert_int_equal(at_buf_append(&bytes, "some bytes", 10), AT_OK);
            struct at_hash key = at_sha256(&round, 1);
            struct at_world_disk *d = &w->nodes[node].disk;
            struct at_world_blob *b = at_world_blob_get(w, d, AT_BLOB_UPDATE, key);
            assert_ptr_equal(b, at_world_blob_get(w, d, AT_BLOB_UPDATE, key));
            at_world_blob_whole(w, b, &bytes);
            assert_ptr_equal(b, at_world_blob_find(d, AT_BLOB_UPDATE, key));
            assert_null(at_world_blob_find(d, AT_BLOB_STATE, key));
            assert_int_equal(at_world_blob_bytes(b).n, 10);
        }
        assert_int_equal(w->counts.shared_bytes, before + 10);
        for (int node = 0; node < 3; node++) {
            struct at_world_disk *d = &w->nodes[node].disk;
            at_world_blob_drop(w, d, at_world_blob_find(d, AT_BLOB_UPDATE, at_sha256(&round, 1)));
            assert_int_equal(w->counts.shared_bytes, before + (node < 2 ? 10 : 0));
        }
    }
    at_world_release(w);
}

static uint64_t fingerprint(const struct at_world_options *o)
{
    struct at_world_counts counts;
    struct at_world *w = make(o);
    at_world_crash_at_event(w, 2, 60, AT_WORLD_CRASH_AFTER_OPS, 500);
    must_finish(w, 400000);
    at_world_counts(w, &counts);
    at_world_release(w);
    return counts.fingerprint;
}

static void blocks_come_full(bool of_garbage)
{
#ifdef __GLIBC__
    int taken = mallopt(M_PERTURB, of_garbage ? 0xa5 : 0);
    assert_true(taken || AT_SANITIZED); /* their allocators fill blocks by themselves */
#endif
}

/* What a step leaves in the memory that machines share is looked at by no later one; nor what a machine's own memory held
 * before its birth. */
static void nobody_looks_at_old_memory(void **state)
{
    (void)state;
    struct at_world_options one = small(5), several = small(6);
    several.nodes = (int)(several.min_members = 5);
    several.stewards = 4;
    several.rounds = 4;
    const struct at_world_options all[] = {one, several};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct at_world_options spoilt = all[i];
        uint64_t expect = fingerprint(&all[i]);
        spoilt.spoil_scratch = true;
        blocks_come_full(true);
        assert_true(expect == fingerprint(&spoilt));
        blocks_come_full(false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(way_of_a_message), cmocka_unit_test(losses_are_delays),
                                       cmocka_unit_test(blobs_are_kept_once),
                                       cmocka_unit_test(nobody_looks_at_old_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
