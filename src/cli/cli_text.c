#include "cli/cli_text.h"

#include "train/data.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CORPUS "moby-dick.txt"

at_err at_cli_text_read(const char *const *paths, int count, struct at_diag *diag, struct at_buf *ret_text)
{
    struct at_buf text = {.bytes_max = AT_TEXT_BYTES_MAX};
    for (int i = 0; i < count; i++) {
        size_t before = text.n;
        at_err_t err = at_file_read(paths[i], AT_TEXT_BYTES_MAX - before, diag, &text);
        if (err == AT_OK) err = at_text_check(at_span(text.p + before, text.n - before), paths[i], diag);
        if (err != AT_OK) {
            at_buf_release(&text);
            return err;
        }
    }
    *ret_text = text;
    return AT_OK;
}

at_err at_cli_program_path(struct at_diag *diag, char ret_path[AT_PATH_BYTES])
{
    char path[AT_PATH_BYTES];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return at_fail(diag, AT_E_ENV, "/proc/self/exe", "cannot tell where this program lies");
    path[n] = '\0';
    memcpy(ret_path, path, (size_t)n + 1);
    return AT_OK;
}

at_err at_cli_corpus_find(struct at_diag *diag, char ret_path[AT_PATH_BYTES])
{
    /* A program's own folder first: build/atoll, build/<preset>/bin/atoll, <prefix>/bin/atoll. */
    static const char *const beside[] = {"../data", "../../../data", "../share/atoll", "."};
    static const char *const fixed[] = {ATOLL_DATA_DIR, ATOLL_SOURCE_DATA_DIR, "data", "."};
    char program[AT_PATH_BYTES], path[AT_PATH_BYTES];
    struct at_diag unused = {0};
    at_err_t err = at_cli_program_path(&unused, program);
    char *slash = err == AT_OK ? strrchr(program, '/') : NULL;
    if (slash != NULL) *slash = '\0';
    for (size_t i = 0; i < 8; i++) {
        const char *dir = i < 4 ? beside[i] : fixed[i - 4];
        if (i < 4 && slash == NULL) continue;
        int n = i < 4 ? snprintf(path, sizeof path, "%s/%s/%s", program, dir, CORPUS)
                      : snprintf(path, sizeof path, "%s/%s", dir, CORPUS);
        if (n < 0 || n >= (int)sizeof path || !at_file_exists(path)) continue;
        memcpy(ret_path, path, (size_t)n + 1);
        return AT_OK;
    }
    return at_fail(diag, AT_E_NOT_FOUND, CORPUS,
                   "the corpus is neither beside the program, nor in %s, nor in ./data; name a text with --data",
                   ATOLL_DATA_DIR);
}
