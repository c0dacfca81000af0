#include "node/node_secrets.h"

#include "os/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char prefix[] = "seat-";
enum { NAMES_MAX = 64, HEX_BYTES = 2 * AT_KEY_BYTES };

struct terms { /* of the files in a folder */
    uint32_t term[NAMES_MAX];
    size_t count;
};

static at_err_t visit(void *user, const char *name)
{
    struct terms *t = user;
    char *end = NULL;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return AT_OK;
    unsigned long term = strtoul(name + sizeof prefix - 1, &end, 10);
    bool whole = *end == '\0' && end != name + sizeof prefix - 1 && term <= UINT32_MAX;
    if (whole && t->count < NAMES_MAX) t->term[t->count++] = (uint32_t)term;
    return AT_OK; /* "seat-7.123.tmp": was never finished */
}

static int by_term(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static at_err_t list_terms(const char *dir, struct at_diag *diag, struct terms *ret)
{
    ret->count = 0;
    at_err_t err = at_dir_list(dir, diag, visit, ret);
    if (!err) qsort(ret->term, ret->count, sizeof *ret->term, by_term);
    return err;
}

static at_err_t path_of(const char *dir, uint32_t term, struct at_diag *diag, char ret_path[AT_PATH_BYTES])
{
    char name[sizeof prefix + 12];
    snprintf(name, sizeof name, "%s%u", prefix, term);
    return at_path_join(dir, name, diag, ret_path);
}

static at_err_t read_secret(const char *dir, uint32_t term, struct at_diag *diag, struct at_node_secret *ret)
{
    char path[AT_PATH_BYTES];
    struct at_buf text = {0};
    at_err_t err = path_of(dir, term, diag, path);
    if (!err) err = at_file_read(path, HEX_BYTES + 1, diag, &text);
    ret->term = term;
    if (!err && at_hex_decode((const char *)text.p, text.n > 0 && text.p[text.n - 1] == '\n' ? text.n - 1 : text.n,
                              ret->bytes, sizeof ret->bytes) != AT_OK)
        err = at_fail(
            diag, AT_E_DATA, path,
            "%s is no secret of a seat (64 hex digits): remove it, and this node holds no seat until a later term",
            path);
    if (text.p) memset(text.p, 0, text.cap);
    at_buf_release(&text);
    return err;
}

at_err_t at_secrets_load(const char *dir, struct at_diag *diag, struct at_node_secret ret_list[AT_NODE_SECRETS],
                         size_t *ret_count)
{
    struct terms t;
    size_t n = 0;
    at_err_t err = list_terms(dir, diag, &t);
    if (err) return err;
    size_t from = t.count > AT_NODE_SECRETS ? t.count - AT_NODE_SECRETS : 0;
    for (size_t i = from; i < t.count && !err; i++) err = read_secret(dir, t.term[i], diag, &ret_list[n++]);
    if (!err) *ret_count = n;
    return err;
}

at_err_t at_secrets_make(const char *dir, uint32_t term, struct at_diag *diag, struct at_node_secret *ret_secret)
{
    char path[AT_PATH_BYTES], text[HEX_BYTES + 2];
    struct at_keypair key;
    at_err_t err = path_of(dir, term, diag, path);
    if (err) return err;
    if (at_file_exists(path)) return read_secret(dir, term, diag, ret_secret);
    if (at_keypair_generate(&key)) return at_fail(diag, AT_E_ENV, dir, "the system gives no random bytes");
    at_hex_encode(key.seed, AT_KEY_BYTES, text);
    text[HEX_BYTES] = '\n';
    struct at_span part = at_span(text, HEX_BYTES + 1);
    err = at_file_write_atomic(path, &part, 1, 0600, diag);
    if (!err) {
        ret_secret->term = term;
        memcpy(ret_secret->bytes, key.seed, AT_KEY_BYTES);
    }
    memset(&key, 0, sizeof key);
    memset(text, 0, sizeof text);
    return err;
}

at_err_t at_secrets_erase(const char *dir, uint32_t term, struct at_diag *diag)
{
    struct terms t;
    at_err_t err = list_terms(dir, diag, &t);
    for (size_t i = 0; !err && i < t.count && t.term[i] < term; i++) {
        char path[AT_PATH_BYTES];
        err = path_of(dir, t.term[i], diag, path);
        if (!err) err = at_file_erase(path, diag);
    }
    return err;
}
