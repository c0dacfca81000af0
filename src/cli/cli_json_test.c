/* JSON for scripts: losses as %.9g, shares whose sum survives, text that is never invalid UTF-8. */
#include "cli/cli_json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *written(const json_t *value)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    at_json_write(value, f);
    fclose(f);
    return text;
}

static void test_numbers(void **state)
{
    json_t *object = json_object();
    at_json_set_9(object, "loss", 1.82804321987654321);
    at_json_set_9(object, "tiny", 1.0 / 3 * 1e-12);
    at_json_set_real(object, "third", 1.0 / 3);
    at_json_set_real(object, "tenth", 0.1);
    at_json_set_real(object, "nothing", (double)NAN);
    at_json_set_int(object, "count", 983040);
    at_json_set_bool(object, "yes", true);
    at_json_set_text(object, "text", "a \"q\"\n");
    at_json_set(object, "list", json_pack("[i,o]", 1, json_object()));
    char *text = written(object);
    assert_string_equal(
        text, "{\"loss\":1.82804322,\"tiny\":3.33333333e-13,\"third\":0.3333333333333333,\"tenth\":0.1,"
              "\"nothing\":null,\"count\":983040,\"yes\":true,\"text\":\"a \\\"q\\\"\\n\",\"list\":[1,{}]}\n");
    json_t *back = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(back);
    assert_true(json_real_value(json_object_get(back, "third")) == 1.0 / 3);
    json_decref(back);
    json_decref(object);
    free(text);
}

static void check_clean(const char *in, bool last, const char *want, size_t want_used)
{
    struct at_buf buf = {0};
    assert_int_equal(at_utf8_clean(at_span(in, strlen(in)), last, &buf), want_used);
    assert_int_equal(buf.n, strlen(want));
    assert_memory_equal(buf.p, want, buf.n);
    at_buf_release(&buf);
}

static void test_utf8(void **state)
{
    check_clean("plain", true, "plain", 5);
    check_clean("\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x8b", true, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x8b", 9);
    check_clean("a\xff"
                "b",
                true,
                "a\xef\xbf\xbd"
                "b",
                3);
    check_clean("\xc0\xaf", true, "\xef\xbf\xbd\xef\xbf\xbd", 2);                 /* an overlong slash */
    check_clean("\xed\xa0\x80", true, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 3); /* a surrogate */
    check_clean("x\xe2\x82", false, "x", 1);                                      /* unfinished: wait for more */
    check_clean("x\xe2\x82", true, "x\xef\xbf\xbd\xef\xbf\xbd", 3);
    check_clean("a\x1b[2J\n\t", true, "a\xef\xbf\xbd[2J\n\t", 7);
    check_clean("\x7f\xc2\x9b\xc2\xa0", true, "\xef\xbf\xbd\xef\xbf\xbd\xc2\xa0", 5);
    check_clean("\xe2"
                "A",
                false,
                "\xef\xbf\xbd"
                "A",
                2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
