/* nodes.json and plan files: what is read is what was written; what is wrong is refused by line or field. */
#include "parallel/plan_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static at_err nodes_of(const char *text, struct at_diag *diag, struct at_plan_nodes *n)
{
    *diag = (struct at_diag){0};
    return at_nodes_parse((struct at_span){(const uint8_t *)text, strlen(text)}, "nodes.json", diag, n);
}

static const char good[] =
    "{\"nodes\": [\n"
    "  {\"name\": \"attic\", \"gflops\": 95, \"memory_bytes\": 8000000000, \"site\": \"home\"},\n"
    "  {\"name\": \"cellar\", \"gflops\": 210.5, \"memory_bytes\": 16000000000, \"site\": \"home\","
    " \"threads\": 2, \"address\": \"10.0.0.2:7070\"},\n"
    "  {\"name\": \"far\", \"gflops\": 40, \"memory_bytes\": 4000000000}],\n"
    " \"within_site\": {\"rtt_ms\": 0.3, \"mbit_s\": 940},\n"
    " \"elsewhere\": {\"rtt_ms\": 30, \"mbit_s\": 50},\n"
    " \"links\": [{\"from\": \"far\", \"to\": \"attic\", \"rtt_ms\": 12, \"mbit_s\": 20},\n"
    "            {\"from\": \"attic\", \"to\": \"far\", \"rtt_ms\": 14, \"mbit_s\": 80},\n"
    "            {\"from\": \"cellar\", \"to\": \"far\", \"rtt_ms\": 11, \"mbit_s\": 70}]}";

static void test_nodes(void **state)
{
    struct at_plan_nodes n;
    struct at_diag diag;
    assert_int_equal(nodes_of(good, &diag, &n), AT_OK);
    assert_int_equal(n.count, 3);
    assert_true(n.node[1].gflops == 210.5 && n.node[1].memory_bytes == 16000000000u && n.node[1].threads == 2);
    assert_string_equal(n.node[1].address, "10.0.0.2:7070");
    assert_true(at_plan_link_of(&n, 0, 1).mbit_s == 940 && at_plan_link_of(&n, 1, 0).rtt_ms == 0.3); /* same site */
    assert_true(at_plan_link_of(&n, 2, 0).mbit_s == 20 && at_plan_link_of(&n, 0, 2).mbit_s == 80);   /* each its own */
    assert_true(at_plan_link_of(&n, 1, 2).rtt_ms == 11 && at_plan_link_of(&n, 2, 1).rtt_ms == 11);   /* one for both */
    assert_true(at_plan_link_worse(&n, 0, 2).rtt_ms == 14 && at_plan_link_worse(&n, 0, 2).mbit_s == 20);
    assert_int_equal(at_plan_nodes_find(&n, "far"), 2);
    assert_int_equal(at_plan_nodes_find(&n, "nowhere"), -1);
    at_plan_nodes_release(&n);
}

static void test_matrices(void **state)
{
    struct at_plan_nodes n;
    struct at_diag diag;
    const char *text =
        "{\"nodes\": [{\"name\":\"a\",\"gflops\":1,\"memory_bytes\":1},{\"name\":\"b\",\"gflops\":1,\"memory_"
        "bytes\":1},{\"name\":\"c\",\"gflops\":1,\"memory_bytes\":1}], \"elsewhere\": {\"rtt_ms\": 9, "
        "\"mbit_s\": 9}, \"rtt_ms\": [[0,1,2],[3,0,null],[5,null,0]], \"mbit_s\": "
        "[[null,10,20],[30,null,40],[50,60,null]]}";
    assert_int_equal(nodes_of(text, &diag, &n), AT_OK);
    assert_true(at_plan_link_of(&n, 0, 1).rtt_ms == 1 && at_plan_link_of(&n, 1, 0).mbit_s == 30);
    assert_true(at_plan_link_of(&n, 2, 0).rtt_ms == 5 && at_plan_link_of(&n, 1, 2).rtt_ms == 9);
    at_plan_nodes_release(&n);
}

/* good with one piece of text replaced. */
static char *bent(const char *piece, const char *by)
{
    const char *at = strstr(good, piece);
    assert_non_null(at);
    char *text = malloc(sizeof good + strlen(by));
    assert_non_null(text);
    sprintf(text, "%.*s%s%s", (int)(at - good), good, by, at + strlen(piece));
    return text;
}

static void test_nodes_refused(void **state)
{
    static const struct {
        const char *piece, *by, *where, *says;
    } bad[] = {
        {"\"gflops\": 95", "\"gflops\": -1", "nodes[0].gflops", "must be a number, 0.001 to"},
        {"\"gflops\": 95", "\"gflops\": \"fast\"", "nodes[0].gflops", "must be a number"},
        {"\"gflops\": 95, ", "", "nodes[0].gflops", "is missing"},
        {"\"gflops\": 95", "\"glops\": 95", "nodes[0].glops", "not a known field"},
        {"\"gflops\": 95", "\"gflops\": 1e400", "line 2", ""},
        {"8000000000", "0", "nodes[0].memory_bytes", "whole number"},
        {"8000000000", "1.5", "nodes[0].memory_bytes", "whole number"},
        {"\"cellar\", \"gf", "\"attic\", \"gf", "nodes[1].name", "another node"},
        {"\"cellar\", \"gf", "\"\", \"gf", "nodes[1].name", "short text"},
        {"\"cellar\", \"gf", "\"a b\", \"gf", "nodes[1].name", "without spaces"},
        {"\"cellar\", \"to\"", "\"sellar\", \"to\"", "links[2].from", "no node is called 'sellar'"},
        {"\"cellar\", \"to\"", "\"far\", \"to\"", "links", "to itself"},
        {"\"from\": \"cellar\"", "\"from\": \"attic\"", "links", "given twice"},
        {"\"mbit_s\": 70", "\"mbit_s\": 0", "links[2].mbit_s", "must be a number"},
        {"\"rtt_ms\": 30", "\"rtt_ms\": null", "elsewhere.rtt_ms", "must be a number"},
        {"\"elsewhere\"", "\"elswhere\"", "elswhere", "not a known field"},
        {"\"links\"", "\"rtt_ms\"", "rtt_ms", "matrix of 3 rows of 3"},
        {"\"far\", \"gflops\": 40,", "\"far\" \"gflops\": 40,", "line 4", ""},
        {"\"within_site\"", "\"nodes\"", "line 5", ""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct at_plan_nodes n = {.count = -7};
        struct at_diag diag;
        char *text = bent(bad[i].piece, bad[i].by);
        assert_int_equal(nodes_of(text, &diag, &n), AT_E_DATA);
        if (strstr(diag.where, bad[i].where) == NULL)
            fail_msg("%s: %s (wanted %s)", diag.where, diag.text, bad[i].where);
        if (strstr(diag.text, bad[i].says) == NULL) fail_msg("%s: %s (wanted %s)", diag.where, diag.text, bad[i].says);
        assert_int_equal(n.count, -7);
        free(text);
    }
}

static void make_options(struct at_planner_options *o)
{
    const struct at_preset *p;
    assert_int_equal(at_preset_find("124m", NULL, &p), AT_OK);
    at_planner_options_default(o, "124m", &p->model, &p->train);
}

static void test_plan_round_trip(void **state)
{
    struct at_plan_nodes n;
    struct at_diag diag;
    struct at_planner_options o;
    struct at_plan plan;
    struct at_planner_report report;
    struct at_plan_file f;
    assert_int_equal(nodes_of(good, &diag, &n), AT_OK);
    for (int i = 0; i < 3; i++) n.node[i].memory_bytes = 2500000000; /* none holds the model alone */
    make_options(&o);
    assert_int_equal(at_planner_make(&o, &n, &diag, &plan, &report), AT_OK);
    assert_true(plan.ranks >= 2);
    json_t *j = at_plan_file_json(&o, &n, &plan, &report);
    assert_non_null(j);
    char *text = json_dumps(j, JSON_INDENT(1));
    assert_non_null(text);
    assert_int_equal(at_plan_file_parse((struct at_span){(const uint8_t *)text, strlen(text)}, "plan.json", &diag, &f),
                     AT_OK);
    assert_string_equal(f.model, "124m");
    assert_int_equal(at_plan_check(&f.plan, o.model, o.train->batch, NULL), AT_OK);
    assert_true(f.plan.ranks == plan.ranks && f.plan.stages == plan.stages && f.plan.replicas == plan.replicas);
    assert_true(f.plan.microbatches == plan.microbatches && f.recompute == report.recompute);
    assert_memory_equal(f.plan.stage, plan.stage, (size_t)plan.stages * sizeof *plan.stage);
    assert_memory_equal(f.plan.replica, plan.replica, (size_t)plan.replicas * sizeof *plan.replica);
    for (int i = 0; i < plan.ranks; i++) {
        const struct at_plan_node *want = &n.node[plan.node[i]];
        assert_string_equal(f.host[f.plan.node[i]].name, want->name);
        assert_string_equal(f.host[f.plan.node[i]].address, want->address);
    }
    int host;
    assert_int_equal(at_plan_file_find(&f, "cellar", &diag, &host), AT_OK);
    assert_string_equal(f.host[host].name, "cellar");
    assert_int_equal(at_plan_file_find(&f, "kitchen", &diag, &host), AT_E_USAGE);
    assert_non_null(strstr(diag.text, "cellar"));
    free(text);
    json_decref(j);
    at_plan_file_release(&f);
    at_plan_release(&plan);
    at_planner_report_release(&report);
    at_plan_nodes_release(&n);
}

static void test_plan_refused(void **state)
{
    static const struct {
        const char *text, *where;
    } bad[] = {
        {"{\"plan\":1,\"model\":\"a\",\"microbatches\":1,\"replicas\":[]}", "plan.json: plan"},
        {"{\"plan\":2,\"microbatches\":1,\"replicas\":[]}", "model"},
        {"{\"plan\":2,\"model\":\"a\",\"microbatches\":0,\"replicas\":[]}", "microbatches"},
        {"{\"plan\":2,\"model\":\"a\",\"microbatches\":1,\"replicas\":[]}", "replicas"},
        {"{\"plan\":2,\"model\":\"a\",\"microbatches\":1,\"replicas\":[7]}", "replicas[0].stages"},
        {"{\"plan\":2,\"model\":\"a\",\"microbatches\":1,\"replicas\":[{\"stages\":[{\"layers\":1,\"layer_first\":0}]}]"
         "}",
         "replicas[0].stages[0].ranks"},
        {"{\"plan\":2,\"model\":\"a\",\"microbatches\":1,\"replicas\":[{\"stages\":[{\"layers\":1,\"layer_first\":-1,"
         "\"ranks\":[{\"node\":\"x\"}]}]}]}",
         "replicas[0].stages[0].layer_first"},
        {"{\"plan\":2,\"model\":\"a\",\"microbatches\":1,\"replicas\":[{\"stages\":[{\"layers\":1,\"layer_first\":0,"
         "\"ranks\":[{\"node\":7}]}]}]}",
         "replicas[0].stages[0].ranks[0].node"},
        {"{\"plan\":2,\n\"model\":}", "line 2"},
        {"[]", "plan.json"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct at_plan_file f;
        struct at_diag diag = {0};
        struct at_span text = {(const uint8_t *)bad[i].text, strlen(bad[i].text)};
        assert_int_equal(at_plan_file_parse(text, "plan.json", &diag, &f), AT_E_DATA);
        if (strstr(diag.where, bad[i].where) == NULL)
            fail_msg("%s: %s (wanted %s)", diag.where, diag.text, bad[i].where);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes),         cmocka_unit_test(test_matrices),
        cmocka_unit_test(test_nodes_refused), cmocka_unit_test(test_plan_round_trip),
        cmocka_unit_test(test_plan_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
