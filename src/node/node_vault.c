#include "node/node_vault_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WHOLE_BYTES_MAX ((size_t)64 << 30)

static at_err open_blobs(struct at_blobs *blobs, const char *dir, const char *name, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_path_join(dir, name, diag, path);
    return err ? err : at_blobs_open(blobs, path, 0, diag);
}

at_err_t at_vault_open(struct at_vault *v, const char *dir, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    memset(v, 0, sizeof *v);
    snprintf(v->dir, sizeof v->dir, "%s", dir);
    at_err_t err = open_blobs(&v->data, dir, "data", diag);
    if (!err) err = open_blobs(&v->data_writer, dir, "data", diag);
    if (!err) err = open_blobs(&v->updates, dir, "updates", diag);
    if (!err) err = open_blobs(&v->updates_writer, dir, "updates", diag);
    if (!err) err = at_path_join(dir, "fetch", diag, path);
    if (!err) err = at_dir_make(path, 0700, diag);
    return err;
}

void at_vault_release(struct at_vault *v)
{
    at_blobs_release(&v->data);
    at_blobs_release(&v->data_writer);
    at_blobs_release(&v->updates);
    at_blobs_release(&v->updates_writer);
    at_vault_release_states(v);
    at_buf_release(&v->piece);
}

static const char *kind_text(enum at_blob_kind kind)
{
    return kind == AT_BLOB_SHARD ? "shard" : kind == AT_BLOB_UPDATE ? "update" : "state";
}

at_err_t at_vault_fetch_path(const struct at_vault *v, enum at_blob_kind kind, struct at_hash key, const char *end,
                             struct at_diag *diag, char ret_path[AT_PATH_BYTES])
{
    char name[128];
    snprintf(name, sizeof name, "fetch/%s-%s%s", kind_text(kind), at_hash_hex(key).s, end);
    return at_path_join(v->dir, name, diag, ret_path);
}

at_err_t at_vault_state_path(const struct at_vault *v, struct at_hash root, struct at_diag *diag,
                             char ret_path[AT_PATH_BYTES])
{
    return at_vault_fetch_path(v, AT_BLOB_STATE, root, ".whole", diag, ret_path);
}

static const struct at_blobs *folder_of(const struct at_vault *v, enum at_blob_kind kind)
{
    return kind == AT_BLOB_SHARD ? &v->data : kind == AT_BLOB_UPDATE ? &v->updates : NULL;
}

static bool is_complete(const struct at_vault *v, enum at_blob_kind kind, struct at_hash key)
{
    char path[AT_PATH_BYTES];
    const struct at_blobs *blobs = folder_of(v, kind);
    if (blobs) return at_blobs_has(blobs, key);
    return kind == AT_BLOB_STATE && at_vault_state_path(v, key, NULL, path) == AT_OK && at_file_exists(path);
}

void at_vault_stat(struct at_vault *v, enum at_blob_kind kind, struct at_hash key, uint64_t *ret_have,
                   bool *ret_complete)
{
    char path[AT_PATH_BYTES];
    uint64_t have = 0;
    *ret_complete = is_complete(v, kind, key);
    if (at_vault_fetch_path(v, kind, key, "", NULL, path) != AT_OK || at_file_size(path, NULL, &have) != AT_OK)
        have = 0;
    *ret_have = have;
}

at_err_t at_vault_disk_error(struct at_diag *diag, const char *path)
{
    int e = errno;
    bool full = e == ENOSPC || e == EDQUOT || e == EFBIG;
    return at_fail(diag, AT_E_DISK, path, "cannot write %s: %s", path, full ? "the disk is full" : strerror(e));
}

at_err_t at_vault_put(int fd, const char *path, uint64_t offset, struct at_span bytes, struct at_diag *diag)
{
    while (bytes.n > 0) {
        ssize_t put = pwrite(fd, bytes.p, bytes.n, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return at_vault_disk_error(diag, path);
        offset += (uint64_t)put;
        bytes = at_span(bytes.p + put, bytes.n - (size_t)put);
    }
    return AT_OK;
}

at_err_t at_vault_write(struct at_vault *v, enum at_blob_kind kind, struct at_hash key, uint64_t offset,
                        struct at_span bytes, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_vault_fetch_path(v, kind, key, "", diag, path);
    if (!err && offset == 0) err = at_file_remove(path, diag); /* not cut short: the disk worker may be reading it */
    if (err) return err;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return at_vault_disk_error(diag, path);
    err = at_vault_put(fd, path, offset, bytes, diag);
    if (close(fd) != 0 && !err) err = at_vault_disk_error(diag, path);
    return err;
}

static at_err finish_state(const char *path, const char *whole, struct at_diag *diag)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return at_vault_disk_error(diag, path);
    at_err_t err = fsync(fd) != 0 ? at_vault_disk_error(diag, path) : AT_OK;
    close(fd);
    return err ? err : at_file_rename(path, whole, diag);
}

at_err_t at_vault_finish(struct at_vault *v, enum at_blob_kind kind, struct at_hash key, struct at_diag *diag)
{
    char path[AT_PATH_BYTES], whole[AT_PATH_BYTES];
    struct at_file_map map = {0};
    struct at_hash got;
    at_err_t err = at_vault_fetch_path(v, kind, key, "", diag, path);
    if (err) return err;
    if (kind == AT_BLOB_STATE) {
        err = at_vault_state_path(v, key, diag, whole);
        return err ? err : finish_state(path, whole, diag);
    }
    err = at_file_map_open(&map, path, WHOLE_BYTES_MAX, diag);
    struct at_span bytes = at_span(map.p, map.n);
    if (!err && !at_hash_eq(at_sha256(bytes.p, bytes.n), key))
        err = at_fail(diag, AT_E_VERIFY, path, "the bytes are not what their hash says");
    if (!err) err = at_blobs_put(kind == AT_BLOB_SHARD ? &v->data_writer : &v->updates_writer, bytes, diag, &got);
    if (!err) err = at_file_remove(path, diag);
    at_file_map_release(&map);
    return err;
}

void at_vault_drop(struct at_vault *v, enum at_blob_kind kind, struct at_hash key)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_vault_fetch_path(v, kind, key, "", NULL, path);
    if (!err) err = at_file_remove(path, NULL);
    if (!err && kind == AT_BLOB_STATE && (err = at_vault_state_path(v, key, NULL, path)) == AT_OK)
        err = at_file_remove(path, NULL);
    (void)err; /* what cannot be removed is overwritten by the next fetch */
}

at_err_t at_vault_read(struct at_vault *v, enum at_blob_kind kind, struct at_hash key, uint64_t offset, uint32_t n,
                       uint64_t *ret_total, struct at_span *ret_bytes)
{
    const struct at_blobs *blobs = folder_of(v, kind);
    uint64_t total = 0;
    uint8_t *p = NULL;
    if (kind == AT_BLOB_LEAVES || kind == AT_BLOB_TILE)
        return at_vault_read_state(v, kind, key, offset, n, ret_total, ret_bytes);
    if (!blobs || at_blobs_size(blobs, key, &total) != AT_OK || offset >= total) return AT_E_NOT_FOUND;
    size_t part = n < total - offset ? n : (size_t)(total - offset);
    at_buf_clear(&v->piece);
    at_err_t err = at_buf_reserve(&v->piece, part, &p);
    if (!err) err = at_blobs_read(blobs, key, offset, p, part, NULL);
    if (err) return err;
    *ret_total = total;
    *ret_bytes = at_span(p, part);
    return AT_OK;
}

struct keep {
    struct at_vault *v;
    const struct at_hash *list;
    size_t count;
};

/* Of an update that was being fetched when a process died, and that nobody needs any more. */
static at_err_t drop_stale_part(void *user, const char *name)
{
    const struct keep *k = user;
    struct at_hash key;
    if (strncmp(name, "update-", 7) != 0 || at_hash_parse(name + 7, &key) != AT_OK) return AT_OK;
    for (size_t i = 0; i < k->count; i++)
        if (at_hash_eq(k->list[i], key)) return AT_OK;
    at_vault_drop(k->v, AT_BLOB_UPDATE, key);
    return AT_OK;
}

at_err_t at_vault_prune(struct at_vault *v, const struct at_hash *keep, size_t count, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_blobs_prune(&v->updates, keep, count, diag);
    if (!err) err = at_path_join(v->dir, "fetch", diag, path);
    return err ? err : at_dir_list(path, diag, drop_stale_part, &(struct keep){v, keep, count});
}
