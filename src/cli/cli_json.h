/* cli_json.h: what a script reads. Objects are built with jansson and written here, because the contract for scripts
 * wants numbers that jansson does not write: losses with %.9g, shares that still sum to 1.
 *
 * A real is written with the fewest digits that read back as the same binary64; a loss is rounded to nine significant
 * digits when it is put in, so that it comes out as %.9g. Keys keep the order in which they were set. */
#ifndef ATOLL_CLI_JSON_H
#define ATOLL_CLI_JSON_H

#include "base/bytes.h"

#include <jansson.h>
#include <stdio.h>

/* Setters; `object` takes what it is given. Out of memory is an assert: these objects are a few hundred bytes. */
void at_json_set(json_t *object, const char *key, json_t *value); /* steals value */
void at_json_set_text(json_t *object, const char *key, const char *text);
void at_json_set_bytes(json_t *object, const char *key, struct at_span bytes); /* see at_utf8_clean */
void at_json_set_int(json_t *object, const char *key, uint64_t value);
void at_json_set_bool(json_t *object, const char *key, bool value);
void at_json_set_real(json_t *object, const char *key, double value); /* non-finite: null */
void at_json_set_9(json_t *object, const char *key, double value);    /* rounded to %.9g */

/* One line with a newline at the end. */
void at_json_write(const json_t *value, FILE *out);

/* Copies text so that a terminal or JSON can take it: what is not UTF-8 becomes U+FFFD, and so does every control
 * character but newline and tab (a model must not be able to steer a terminal). Appends to ret_buf.
 * Returns how many bytes of `in` were used: all of them, or, when `last` is false, less an unfinished sequence. */
size_t at_utf8_clean(struct at_span in, bool last, struct at_buf *ret_buf);

#endif
