/* train_brief.c: what a child rank is told, as one JSON object. */
#include "cli/cli_json.h"
#include "cli/train_start.h"

#include <stdlib.h>
#include <string.h>

at_err_t at_rank_brief_write(const struct at_rank_brief *b, struct at_buf *out)
{
    char hex[65];
    json_t *object = json_object(), *words = json_array();
    AT_ASSERT(object != NULL && words != NULL);
    at_hex_encode(b->secret, sizeof b->secret, hex);
    at_json_set_text(object, "secret", hex);
    at_json_set_int(object, "rank", (uint64_t)b->rank);
    at_json_set_text(object, "host", b->host);
    at_json_set_int(object, "port", b->port);
    for (int i = 0; i < b->argc; i++) { /* file names are bytes: hex keeps them whatever they are */
        size_t n = strlen(b->argv[i]);
        char *word = malloc(2 * n + 1);
        AT_ASSERT(word != NULL);
        at_hex_encode((const uint8_t *)b->argv[i], n, word);
        AT_ASSERT(json_array_append_new(words, json_string(word)) == 0);
        free(word);
    }
    at_json_set(object, "words", words);
    char *text = json_dumps(object, JSON_COMPACT);
    at_err_t err = text != NULL ? at_buf_append(out, text, strlen(text)) : AT_E_NOMEM;
    if (text != NULL) memset(text, 0, strlen(text));
    free(text);
    json_decref(object);
    memset(hex, 0, sizeof hex);
    return err;
}

static at_err read_words(const json_t *words, struct at_rank_brief *b)
{
    size_t count = json_array_size(words);
    b->argv = count >= 1 && count < 100000 ? calloc(count + 1, sizeof *b->argv) : NULL;
    if (b->argv == NULL) return AT_E_DATA;
    for (size_t i = 0; i < count; i++) {
        const char *hex = json_string_value(json_array_get(words, i));
        size_t n = hex != NULL ? strlen(hex) / 2 : 0;
        b->argv[i] = calloc(n + 1, 1);
        b->argc = (int)i + 1;
        if (hex == NULL || b->argv[i] == NULL || at_hex_decode(hex, strlen(hex), (uint8_t *)b->argv[i], n) != AT_OK)
            return AT_E_DATA;
    }
    return AT_OK;
}

at_err_t at_rank_brief_read(struct at_span text, struct at_diag *diag, struct at_rank_brief *ret_brief)
{
    struct at_rank_brief b = {0};
    json_t *o = json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
    const char *secret = json_string_value(json_object_get(o, "secret"));
    const char *host = json_string_value(json_object_get(o, "host"));
    json_int_t rank = json_integer_value(json_object_get(o, "rank")),
               port = json_integer_value(json_object_get(o, "port"));
    at_err_t err = secret != NULL && host != NULL && strlen(host) < sizeof b.host && rank >= 0 && rank < AT_RANKS_MAX &&
                           port > 0 && port <= UINT16_MAX
                       ? at_hex_decode(secret, strlen(secret), b.secret, sizeof b.secret)
                       : AT_E_DATA;
    if (err == AT_OK) {
        strcpy(b.host, host);
        b.rank = (int)rank;
        b.port = (uint16_t)port;
        err = read_words(json_object_get(o, "words"), &b);
    }
    json_decref(o);
    if (err != AT_OK) {
        at_rank_brief_release(&b);
        return at_fail(diag, AT_E_USAGE, "rank", "`atoll rank` is what `atoll train` starts; it is nothing for people");
    }
    *ret_brief = b;
    return AT_OK;
}

void at_rank_brief_release(struct at_rank_brief *b)
{
    for (int i = 0; i < b->argc; i++) free(b->argv[i]);
    free(b->argv);
    memset(b, 0, sizeof *b);
}
