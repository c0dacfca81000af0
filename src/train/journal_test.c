/* The journal of real runs whose units end early: read back, gone on with, folded; and journals that lie. */
#include "train/journal.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

enum { R = 3, ROUNDS = 9, EPOCH = 100 };

/* Ends units early, by a rule that looks like chance. */
struct ender {
    struct at_local *l;
    uint32_t calls;
};

static bool maybe_end(void *arg, int replica, const struct at_unit_progress *p)
{
    struct ender *e = arg;
    e->l->end_unit = at_philox(5, AT_RNG_TEST, 1, e->l->state.round * 10 + (uint64_t)replica).v[0] % 5 < p->step;
    return true;
}

static struct at_journal_head head_of(const struct at_local *l)
{
    return (struct at_journal_head){.replicas = (uint32_t)l->replicas,
                                    .batch = l->config.batch,
                                    .seq_len = (uint32_t)l->data->seq_len,
                                    .epoch_samples = EPOCH,
                                    .seed = l->config.seed,
                                    .has_text = true,
                                    .text = at_sha256("text", 4)};
}

/* One round of `l` and its line. */
static void write_round(struct at_local *l, const struct at_exec *ex, struct at_buf *out)
{
    struct at_journal_unit unit[R];
    struct at_journal_head h = head_of(l);
    struct at_journal_entry e = {.unit = unit, .has_root = l->state.round % 3 != 1};
    struct ender ender = {.l = l};
    double loss;
    struct at_round round = at_local_next(l);
    round.steps = at_journal_steps(&l->samples, &h, round.steps);
    assert_int_equal(at_local_do(l, ex, &round, maybe_end, &ender, NULL, &loss), AT_OK);
    e.round = l->round;
    for (int i = 0; i < l->replicas; i++) {
        const struct at_update_info *info = &l->replica[i].info;
        unit[i] = (struct at_journal_unit){info->start, e.round.steps * l->config.batch, info->samples};
        e.tokens += info->tokens;
    }
    assert_int_equal(at_state_root(&l->state, NULL, &e.root), AT_OK);
    assert_int_equal(at_journal_put(&h, &e, out), AT_OK);
}

struct rig {
    struct test_run run;
    struct at_outer_config outer;
    struct at_local_options options;
    struct at_local l;
    struct at_buf text;
    size_t bytes[ROUNDS + 1]; /* after the head and each round */
    struct at_hash root[ROUNDS];
};

static void rig_init(struct rig *r)
{
    *r = (struct rig){0};
    assert_true(test_run_init(&r->run, &run_configs[0]));
    r->run.config.rounds = 40;
    at_outer_config_default(&r->outer, AT_OUTER_MEAN); /* error feedback does not survive a restart */
    r->options = (struct at_local_options){.replicas = R, .outer = &r->outer};
    assert_int_equal(at_local_init_options(&r->l, &r->run.m, &r->run.data, &r->run.config, &r->options, NULL), AT_OK);
    struct at_journal_head h = head_of(&r->l);
    assert_int_equal(at_journal_put_head(&h, &r->text), AT_OK);
    for (int t = 0; t < ROUNDS; t++) {
        r->bytes[t] = r->text.n;
        write_round(&r->l, &r->run.ex, &r->text);
        assert_int_equal(at_state_root(&r->l.state, NULL, &r->root[t]), AT_OK);
    }
    r->bytes[ROUNDS] = r->text.n;
}

static void rig_release(struct rig *r)
{
    at_local_release(&r->l);
    at_buf_release(&r->text);
    test_run_release(&r->run);
}

/* Crash after some round, or within a line; go on from the checkpoint and the journal: the same run to the bit. */
static void test_goes_on_after_a_crash(void **state)
{
    struct rig r;
    rig_init(&r);
    for (uint32_t at = 1; at < ROUNDS; at += 3) {
        struct at_journal_tail tail;
        struct at_local l;
        size_t cut = at % 2 ? r.bytes[at] + 20 : r.text.n; /* a line cut short; lines beyond the checkpoint */
        assert_int_equal(at_journal_read(at_span(r.text.p, cut), "j", at, NULL, &tail), AT_OK);
        assert_int_equal(tail.rounds, at);
        assert_int_equal(tail.bytes, r.bytes[at]);
        assert_true(tail.has_root == ((at - 1) % 3 != 1));
        assert_true(tail.head.has_text && at_hash_eq(tail.head.text, at_sha256("text", 4)));
        if (tail.has_root) assert_true(at_hash_eq(tail.root, r.root[at - 1]));
        assert_int_equal(at_local_init_options(&l, &r.run.m, &r.run.data, &r.run.config, &r.options, NULL), AT_OK);
        struct ender ender = {.l = &l};
        for (uint32_t t = 0; t < at; t++) { /* stands in for the checkpoint */
            struct at_journal_head h = head_of(&l);
            struct at_round round = at_local_next(&l);
            double loss;
            round.steps = at_journal_steps(&l.samples, &h, round.steps);
            assert_int_equal(at_local_do(&l, &r.run.ex, &round, maybe_end, &ender, NULL, &loss), AT_OK);
        }
        l.started = false;
        at_samples_release(&l.samples);
        at_samples_init(&l.samples, 1);
        assert_int_equal(at_local_resume(&l, &tail.last, tail.steps_done, &tail.samples, tail.tokens), AT_OK);
        struct at_buf text = {0};
        assert_int_equal(at_buf_append(&text, r.text.p, tail.bytes), AT_OK);
        for (uint32_t t = at; t < ROUNDS; t++) write_round(&l, &r.run.ex, &text);
        assert_true(at_span_eq(at_buf_span(&text), at_buf_span(&r.text)));
        at_buf_release(&text);
        at_samples_release(&tail.samples);
        at_local_release(&l);
    }
    rig_release(&r);
}

/* Every sample of the first epoch once, counted one by one; units that ended early left gaps, which were filled. */
static void test_exactly_once(void **state)
{
    struct rig r;
    rig_init(&r);
    for (int t = 0; t < 20; t++) write_round(&r.l, &r.run.ex, &r.text);
    struct at_journal_tail tail;
    assert_int_equal(at_journal_read(at_buf_span(&r.text), "j", UINT32_MAX, NULL, &tail), AT_OK);
    assert_int_equal(tail.rounds, ROUNDS + 20);
    assert_int_equal(tail.tokens, r.l.tokens);
    uint8_t used[20 * EPOCH] = {0};
    uint64_t samples = 0;
    assert_int_equal(at_buf_append(&r.text, "", 1), AT_OK);
    int early = 0;
    for (const char *at = strstr((const char *)r.text.p, "["); at != NULL; at = strstr(at + 1, "[")) {
        unsigned long long start;
        unsigned allotted, consumed;
        if (sscanf(at, "[%llu,%u,%u]", &start, &allotted, &consumed) != 3) continue;
        for (unsigned i = 0; i < consumed; i++) assert_int_equal(used[start + i]++, 0);
        samples += consumed;
        early += consumed < allotted;
    }
    assert_true(early > 10);
    uint64_t whole = 0, part = 0;
    while (true) {
        uint64_t n = 0;
        for (uint64_t i = 0; i < EPOCH; i++) n += used[whole * EPOCH + i];
        if (n == EPOCH) {
            whole++;
            continue;
        }
        part = n;
        break;
    }
    assert_true(whole >= 3);
    assert_int_equal(tail.epochs_whole, whole);
    assert_int_equal(tail.epoch_used, part);
    assert_int_equal(tail.later_used, samples - whole * EPOCH - part);
    assert_int_equal(tail.samples.next, r.l.samples.next);
    at_samples_release(&tail.samples);
    rig_release(&r);
}

/* Changes one place of the text; the reader must complain at the right line. */
static void lie(struct rig *r, const char *from, const char *to, at_err_t want, const char *line, const char *words)
{
    struct at_journal_tail tail;
    struct at_diag diag = {0};
    struct at_buf text = {0};
    assert_int_equal(at_buf_append(&r->text, "", 1), AT_OK);
    r->text.n--;
    const char *all = (const char *)r->text.p, *at = strstr(all, from);
    assert_non_null(at);
    assert_int_equal(at_buf_append(&text, all, (size_t)(at - all)), AT_OK);
    assert_int_equal(at_buf_append(&text, to, strlen(to)), AT_OK);
    assert_int_equal(at_buf_append(&text, at + strlen(from), r->text.n - (size_t)(at - all) - strlen(from)), AT_OK);
    assert_int_equal(at_journal_read(at_buf_span(&text), "run/journal", UINT32_MAX, &diag, &tail), want);
    assert_string_equal(diag.where, line);
    assert_non_null(strstr(diag.text, words));
    at_buf_release(&text);
}

static void test_lies(void **state)
{
    struct rig r;
    struct at_journal_tail tail;
    rig_init(&r);
    lie(&r, "\"atoll_journal\":2", "\"atoll_journal\":1", AT_E_DATA, "run/journal:1", "expected }");
    lie(&r, "\"atoll_journal\":2", "\"atoll_journal\":3", AT_E_DATA, "run/journal:1", "version 1 or 2");
    lie(&r, "\"atoll_journal\":2", "\"atoll_journal\":0", AT_E_DATA, "run/journal:1", "version 1 or 2");
    lie(&r, "\"text\":\"", "\"text\":\"x", AT_E_DATA, "run/journal:1", "a SHA-256");
    lie(&r, "\"replicas\":3", "\"replicas\":0", AT_E_DATA, "run/journal:1", "replicas");
    lie(&r, "\"batch\":4", "\"batch\":04", AT_E_DATA, "run/journal:1", "expected");
    lie(&r, "\"seed\":7,", "\"seed\":18446744073709551616,", AT_E_DATA, "run/journal:1", "a seed");
    lie(&r, "\"}\n", "\"} \n", AT_E_DATA, "run/journal:1", "end of the line");
    lie(&r, "\"round\":2", "\"round\":3", AT_E_DATA, "run/journal:4", "round 3 where round 2");
    lie(&r, "\"round\":0,\"steps\":3", "\"round\":0,\"steps\":4", AT_E_DATA, "run/journal:2",
        "a unit of other samples");
    lie(&r, "\"round\":1,\"steps\":3,\"step_first\":", "\"round\":1,\"steps\":3,\"step_first\":9", AT_E_DATA,
        "run/journal:3", "were done");
    lie(&r, "\"codec\":1", "\"codec\":77", AT_E_DATA, "run/journal:2", "unknown codec 77");
    lie(&r, "\"alpha\":1,", "\"alpha\":1.0,", AT_E_DATA, "run/journal:2", "an alpha");
    lie(&r, "\"alpha\":1,", "\"alpha\":nan,", AT_E_DATA, "run/journal:2", "alpha");
    lie(&r, "[0,12,", "[12,12,", AT_E_VERIFY, "run/journal:2", "allotted");
    lie(&r, "[12,12,", "[12,12,1", AT_E_DATA, "run/journal:2", "a unit of other");
    lie(&r, "\"tokens\":", "\"tokens\":1", AT_E_DATA, "run/journal:2", "other tokens");
    lie(&r, "\"root\":\"", "\"root\":\"x", AT_E_DATA, "run/journal:2", "a root");
    lie(&r, "\"root\":null", "\"root\":nul", AT_E_DATA, "run/journal:3", "null");
    assert_int_equal(at_journal_read(at_span("{", 1), "j", 9, NULL, &tail), AT_E_TRUNCATED);
    assert_int_equal(at_journal_read(at_span("", 0), "j", 9, NULL, &tail), AT_E_TRUNCATED);
    /* Any cut is a journal of fewer rounds. */
    for (size_t n = r.bytes[0]; n < r.text.n; n += 37) {
        uint8_t *exact = malloc(n);
        memcpy(exact, r.text.p, n);
        assert_int_equal(at_journal_read(at_span(exact, n), "j", UINT32_MAX, NULL, &tail), AT_OK);
        assert_true(tail.bytes <= n && tail.bytes == r.bytes[tail.rounds]);
        at_samples_release(&tail.samples);
        free(exact);
    }
    rig_release(&r);
}

/* Journals of before there was a text in them, which say nothing of it. */
static void test_version_1(void **state)
{
    struct at_journal_tail tail;
    struct at_buf text = {0};
    const char *old = "{\"atoll_journal\":1,\"replicas\":2,\"batch\":4,\"seq_len\":8,\"epoch_samples\":9,\"seed\":7}\n";
    assert_int_equal(at_journal_read(at_span(old, strlen(old)), "j", 0, NULL, &tail), AT_OK);
    assert_false(tail.head.has_text);
    assert_int_equal(at_journal_put_head(&tail.head, &text), AT_OK);
    assert_true(at_span_eq(at_buf_span(&text), at_span(old, strlen(old))));
    at_buf_release(&text);
    at_samples_release(&tail.samples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on_after_a_crash),
        cmocka_unit_test(test_exactly_once),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_version_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
