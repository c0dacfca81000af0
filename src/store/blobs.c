#include "store/blobs.h"
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_CHARS = 2 * AT_HASH_BYTES };

static at_err_t blob_path(const struct at_blobs *blobs, struct at_hash hash, struct at_diag *diag,
                          char ret[AT_PATH_BYTES])
{
    return at_path_join(blobs->dir, at_hash_hex(hash).s, diag, ret);
}

/* A blob's own name; anything else in the folder is not ours to judge, but for our temporary files. */
static bool is_blob_name(const char *name, struct at_hash *ret_hash)
{
    if (strlen(name) != NAME_CHARS) return false;
    for (size_t i = 0; i < NAME_CHARS; i++)
        if (name[i] >= 'A' && name[i] <= 'F') return false;
    return at_hash_parse(name, ret_hash) == AT_OK;
}

static bool is_temporary_name(const char *name)
{
    size_t n = strlen(name);
    return n > NAME_CHARS + 4 && name[NAME_CHARS] == '.' && strcmp(name + n - 4, ".tmp") == 0;
}

struct sweep { /* one walk over the folder */
    struct at_blobs *blobs;
    struct at_diag *diag;
    const struct at_hash *keep;
    size_t keep_count;
};

static at_err_t count_or_clean(void *user, const char *name)
{
    struct sweep *s = user;
    struct at_hash hash;
    char path[AT_PATH_BYTES];
    uint64_t bytes;
    at_err_t err = at_path_join(s->blobs->dir, name, s->diag, path);
    if (err) return err;
    if (is_temporary_name(name)) return at_file_remove(path, s->diag);
    if (!is_blob_name(name, &hash)) return AT_OK;
    err = at_file_size(path, s->diag, &bytes);
    if (!err) s->blobs->bytes += bytes;
    return err;
}

at_err at_blobs_open(struct at_blobs *blobs, const char *dir, uint64_t bytes_max, struct at_diag *diag)
{
    *blobs = (struct at_blobs){.bytes_max = bytes_max};
    at_err_t err = at_dir_make(dir, 0700, diag);
    if (err) return err;
    blobs->dir = strdup(dir);
    if (blobs->dir == NULL) return at_fail(diag, AT_E_NOMEM, dir, "out of memory");
    struct sweep s = {.blobs = blobs, .diag = diag};
    err = at_dir_list(dir, diag, count_or_clean, &s);
    if (err) at_blobs_release(blobs);
    return err;
}

void at_blobs_release(struct at_blobs *blobs)
{
    free(blobs->dir);
    *blobs = (struct at_blobs){.dir = NULL};
}

at_err at_blobs_put(struct at_blobs *blobs, struct at_span bytes, struct at_diag *diag, struct at_hash *ret_hash)
{
    struct at_hash hash = at_sha256(bytes.p, bytes.n);
    char path[AT_PATH_BYTES];
    at_err_t err = blob_path(blobs, hash, diag, path);
    if (err) return err;
    if (!at_file_exists(path)) {
        if (blobs->bytes_max != 0 && (bytes.n > blobs->bytes_max || blobs->bytes > blobs->bytes_max - bytes.n))
            return at_fail(diag, AT_E_TOO_BIG, blobs->dir,
                           "the folder may hold %llu bytes, and this blob of %zu goes past it",
                           (unsigned long long)blobs->bytes_max, bytes.n);
        err = at_file_write_atomic(path, &bytes, 1, 0600, diag);
        if (err) return err;
        blobs->bytes += bytes.n;
    }
    *ret_hash = hash;
    return AT_OK;
}

bool at_blobs_has(const struct at_blobs *blobs, struct at_hash hash)
{
    char path[AT_PATH_BYTES];
    return blob_path(blobs, hash, NULL, path) == AT_OK && at_file_exists(path);
}

at_err at_blobs_size(const struct at_blobs *blobs, struct at_hash hash, uint64_t *ret_bytes)
{
    char path[AT_PATH_BYTES];
    at_err_t err = blob_path(blobs, hash, NULL, path);
    return err ? err : at_file_size(path, NULL, ret_bytes);
}

static at_err_t drop(struct at_blobs *blobs, const char *path, struct at_diag *diag)
{
    uint64_t bytes = 0;
    at_err_t err = at_file_size(path, diag, &bytes);
    if (!err) err = at_file_remove(path, diag);
    if (!err) blobs->bytes -= bytes < blobs->bytes ? bytes : blobs->bytes;
    return err;
}

/* Are these the bytes of its name? A file that is damaged goes. */
static at_err_t verify(struct at_blobs *blobs, const char *path, struct at_hash hash, struct at_span bytes,
                       struct at_diag *diag)
{
    if (at_hash_eq(at_sha256(bytes.p, bytes.n), hash)) return AT_OK;
    if (drop(blobs, path, NULL) != AT_OK)
        return at_fail(diag, AT_E_VERIFY, path, "damaged on disk, and it cannot be removed: remove it by hand");
    return at_fail(diag, AT_E_VERIFY, path, "damaged on disk: its bytes do not have its hash; removed");
}

at_err at_blobs_get(struct at_blobs *blobs, struct at_hash hash, struct at_diag *diag, struct at_buf *out)
{
    char path[AT_PATH_BYTES];
    size_t before = out->n;
    size_t max = out->bytes_max != 0 ? out->bytes_max : AT_BUF_MAX_DEFAULT;
    at_err_t err = blob_path(blobs, hash, diag, path);
    if (!err) err = at_file_read_any(path, max > before ? max - before : 0, diag, out);
    if (err) return err;
    const uint8_t *bytes = out->n != 0 ? out->p + before : NULL; /* an empty buffer may have no block yet */
    err = verify(blobs, path, hash, at_span(bytes, out->n - before), diag);
    if (err) out->n = before;
    return err;
}

at_err at_blobs_map(struct at_blobs *blobs, struct at_hash hash, size_t bytes_max, struct at_diag *diag,
                    struct at_file_map *ret_map)
{
    char path[AT_PATH_BYTES];
    struct at_file_map m = {0};
    at_err_t err = blob_path(blobs, hash, diag, path);
    if (!err) err = at_file_map_open(&m, path, bytes_max, diag);
    if (!err) err = verify(blobs, path, hash, at_span(m.p, m.n), diag);
    if (err)
        at_file_map_release(&m);
    else
        *ret_map = m;
    return err;
}

at_err at_blobs_read(const struct at_blobs *blobs, struct at_hash hash, uint64_t offset, uint8_t *ret_p, size_t n,
                     struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    at_err_t err = blob_path(blobs, hash, diag, path);
    if (err) return err;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return at_fail(diag, errno == ENOENT ? AT_E_NOT_FOUND : AT_E_ENV, path, "cannot read: %s", strerror(errno));
    size_t got = 0;
    while (!err && got < n) {
        ssize_t r = offset <= INT64_MAX - n ? pread(fd, ret_p + got, n - got, (off_t)(offset + got)) : 0;
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) err = at_fail(diag, AT_E_DISK, path, "cannot read: %s", strerror(errno));
        if (r == 0) err = at_fail(diag, AT_E_DATA, path, "the part asked for lies beyond its end");
        if (r > 0) got += (size_t)r;
    }
    (void)close(fd);
    return err;
}

static at_err_t drop_unless_kept(void *user, const char *name)
{
    struct sweep *s = user;
    struct at_hash hash;
    char path[AT_PATH_BYTES];
    if (!is_blob_name(name, &hash)) return AT_OK;
    for (size_t i = 0; i < s->keep_count; i++)
        if (at_hash_eq(s->keep[i], hash)) return AT_OK;
    at_err_t err = at_path_join(s->blobs->dir, name, s->diag, path);
    return err ? err : drop(s->blobs, path, s->diag);
}

at_err at_blobs_prune(struct at_blobs *blobs, const struct at_hash *keep, size_t count, struct at_diag *diag)
{
    struct sweep s = {.blobs = blobs, .diag = diag, .keep = keep, .keep_count = count};
    return at_dir_list(blobs->dir, diag, drop_unless_kept, &s);
}
