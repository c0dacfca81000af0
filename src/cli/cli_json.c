#include "cli/cli_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void at_json_set(json_t *object, const char *key, json_t *value)
{
    AT_ASSERT(value != NULL && json_object_set_new(object, key, value) == 0);
}

void at_json_set_text(json_t *object, const char *key, const char *text)
{
    at_json_set_bytes(object, key, at_span(text, strlen(text)));
}

void at_json_set_bytes(json_t *object, const char *key, struct at_span bytes)
{
    struct at_buf clean = {0};
    at_utf8_clean(bytes, true, &clean);
    at_json_set(object, key, json_stringn((const char *)clean.p, clean.n));
    at_buf_release(&clean);
}

void at_json_set_int(json_t *object, const char *key, uint64_t value)
{
    AT_ASSERT(value <= INT64_MAX);
    at_json_set(object, key, json_integer((json_int_t)value));
}

void at_json_set_bool(json_t *object, const char *key, bool value)
{
    at_json_set(object, key, json_boolean(value));
}

void at_json_set_real(json_t *object, const char *key, double value)
{
    at_json_set(object, key, isfinite(value) ? json_real(value) : json_null());
}

void at_json_set_9(json_t *object, const char *key, double value)
{
    char text[40];
    snprintf(text, sizeof text, "%.9g", value);
    at_json_set_real(object, key, isfinite(value) ? strtod(text, NULL) : value);
}

static void write_real(double value, FILE *out)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    fputs(text, out);
}

/* The depth is that of our own answers: an object, a list, an object. */
static void write_value(const json_t *value, FILE *out)
{
    const char *separator = "";
    if (json_is_object(value)) {
        const char *key;
        json_t *item;
        fputc('{', out);
        json_object_foreach((json_t *)(uintptr_t)value, key, item)
        {
            fprintf(out, "%s\"%s\":", separator, key); /* our keys need no escapes */
            write_value(item, out);
            separator = ",";
        }
        fputc('}', out);
    } else if (json_is_array(value)) {
        fputc('[', out);
        for (size_t i = 0; i < json_array_size(value); i++) {
            fputs(separator, out);
            write_value(json_array_get(value, i), out);
            separator = ",";
        }
        fputc(']', out);
    } else if (json_is_real(value)) {
        write_real(json_real_value(value), out);
    } else {
        AT_ASSERT(json_dumpf(value, out, JSON_ENCODE_ANY) == 0 || ferror(out));
    }
}

void at_json_write(const json_t *value, FILE *out)
{
    write_value(value, out);
    fputc('\n', out);
}

/* Length of the UTF-8 sequence at p (RFC 3629): > 0 its bytes, 0 unfinished at the end of the span, -1 bad. */
static int utf8_length(const uint8_t *p, size_t n)
{
    if (p[0] < 0x80) return 1;
    int length = p[0] >= 0xc2 && p[0] <= 0xdf   ? 2
                 : p[0] >= 0xe0 && p[0] <= 0xef ? 3
                 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4
                                                : 0;
    if (length == 0) return -1;
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= n) return 0;
        uint8_t low = 0x80, high = 0xbf;
        if (i == 1 && p[0] == 0xe0) low = 0xa0;  /* shorter forms exist */
        if (i == 1 && p[0] == 0xed) high = 0x9f; /* surrogates */
        if (i == 1 && p[0] == 0xf0) low = 0x90;
        if (i == 1 && p[0] == 0xf4) high = 0x8f; /* beyond U+10FFFF */
        if (p[i] < low || p[i] > high) return -1;
    }
    return length;
}

static bool is_control(const uint8_t *p, int length)
{
    if (length == 1) return (p[0] < 0x20 && p[0] != '\n' && p[0] != '\t') || p[0] == 0x7f;
    return length == 2 && p[0] == 0xc2 && p[1] < 0xa0; /* U+0080 to U+009F */
}

size_t at_utf8_clean(struct at_span in, bool last, struct at_buf *ret_buf)
{
    size_t used = 0;
    while (used < in.n) {
        int length = utf8_length(in.p + used, in.n - used);
        if (length == 0 && !last) break;
        at_err_t err = length > 0 && !is_control(in.p + used, length)
                           ? at_buf_append(ret_buf, in.p + used, (size_t)length)
                           : at_buf_append(ret_buf, "\xef\xbf\xbd", 3);
        AT_ASSERT(err == AT_OK);
        used += length > 0 ? (size_t)length : 1;
    }
    return used;
}
