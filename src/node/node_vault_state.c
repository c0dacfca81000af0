/* node_vault_state.c: the vault's states: those that are held, as peers fetch them, and the one that is being fetched. */
#include "node/node_vault_internal.h"

#include "base/merkle.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(AT_TILE_BYTES == AT_TILE_DATA_MAX, "a message carries a tile");

void at_vault_set_shape(struct at_vault *v, const struct at_tile *tile, uint32_t tiles, uint64_t blob_bytes)
{
    v->tile = tile;
    v->tiles = tiles;
    v->state_bytes = blob_bytes;
}

/* ---- held ---- */
void at_vault_release_states(struct at_vault *v)
{
    for (int i = 0; i < AT_VAULT_STATES; i++) at_held_put(v->state[i]);
    memset(v->state, 0, sizeof v->state);
}

void at_vault_hold_state(struct at_vault *v, struct at_held *state)
{
    int last = v->state[0] && at_hash_eq(v->state[0]->root, state->root) ? 0 : AT_VAULT_STATES - 1;
    at_held_put(v->state[last]);
    for (int i = last; i > 0; i--) v->state[i] = v->state[i - 1];
    v->state[0] = at_held_keep(state);
}

struct at_held *at_vault_state(const struct at_vault *v, struct at_hash root)
{
    for (int i = 0; i < AT_VAULT_STATES; i++)
        if (v->state[i] && at_hash_eq(v->state[i]->root, root)) return v->state[i];
    return NULL;
}

/* ---- for peers ---- */

/* Of an unfinished state. The machine asks only for tiles that were written. */
static at_err read_unfinished(struct at_vault *v, struct at_hash root, const struct at_tile *tile,
                              struct at_span *ret_bytes)
{
    char path[AT_PATH_BYTES];
    uint8_t *p;
    at_err_t err = at_vault_fetch_path(v, AT_BLOB_STATE, root, "", NULL, path);
    at_buf_clear(&v->piece);
    if (!err) err = at_buf_reserve(&v->piece, tile->bytes, &p);
    if (err) return err;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return AT_E_NOT_FOUND;
    ssize_t got = pread(fd, p, tile->bytes, (off_t)tile->offset);
    close(fd);
    if (got != (ssize_t)tile->bytes) return AT_E_NOT_FOUND;
    *ret_bytes = at_span(p, tile->bytes);
    return AT_OK;
}

static at_err read_leaves(struct at_vault *v, const struct at_held *s, uint64_t offset, uint32_t n, uint64_t *ret_total,
                          struct at_span *ret_bytes)
{
    uint64_t total = ((uint64_t)v->tiles + 1) * AT_HASH_BYTES;
    if (!s || offset >= total) return AT_E_NOT_FOUND;
    *ret_total = total;
    *ret_bytes = at_span((const uint8_t *)s->leaves + offset, n < total - offset ? n : (size_t)(total - offset));
    return AT_OK;
}

at_err_t at_vault_read_state(struct at_vault *v, enum at_blob_kind kind, struct at_hash root, uint64_t offset,
                             uint32_t n, uint64_t *ret_total, struct at_span *ret_bytes)
{
    const struct at_held *s = at_vault_state(v, root);
    if (!v->tile) return AT_E_NOT_FOUND;
    if (kind == AT_BLOB_LEAVES) return read_leaves(v, s, offset, n, ret_total, ret_bytes);
    if (offset >= v->tiles) return AT_E_NOT_FOUND;
    const struct at_tile *tile = &v->tile[offset];
    *ret_total = v->tiles;
    if (!s) return read_unfinished(v, root, tile, ret_bytes);
    *ret_bytes = at_span(s->blob.p + tile->offset, tile->bytes);
    return AT_OK;
}

/* ---- being fetched ---- */
at_err_t at_vault_write_tile(struct at_vault *v, struct at_hash root, uint64_t tile, struct at_span bytes,
                             struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_vault_fetch_path(v, AT_BLOB_STATE, root, "", diag, path);
    if (err) return err;
    if (!v->tile || tile >= v->tiles || bytes.n != v->tile[tile].bytes)
        return at_fail(diag, AT_E_INTERNAL, path, "tile %llu is not of this run's shape", (unsigned long long)tile);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return at_vault_disk_error(diag, path);
    err = at_vault_put(fd, path, v->tile[tile].offset, bytes, diag);
    if (close(fd) != 0 && !err) err = at_vault_disk_error(diag, path);
    return err;
}

struct other_states {
    char folder[AT_PATH_BYTES];
    const char *keep;
};

static at_err_t drop_other(void *user, const char *name)
{
    const struct other_states *o = user;
    char path[AT_PATH_BYTES];
    if (strncmp(name, "state-", 6) != 0 || (o->keep && strcmp(name, o->keep) == 0)) return AT_OK;
    return at_path_join(o->folder, name, NULL, path) == AT_OK ? at_file_remove(path, NULL) : AT_OK;
}

static void drop_states(struct at_vault *v, const char *keep)
{
    struct other_states o = {.keep = keep};
    at_err_t err = at_path_join(v->dir, "fetch", NULL, o.folder);
    if (!err) err = at_dir_list(o.folder, NULL, drop_other, &o);
    (void)err; /* the next save tries again */
}

void at_vault_drop_states(struct at_vault *v)
{
    drop_states(v, NULL);
}

at_err_t at_vault_search_init(struct at_vault *v, struct at_hash root, struct at_span leaves, struct at_diag *diag,
                              struct at_vault_search *ret_search)
{
    struct at_vault_search s = {.tile = v->tile, .tiles = v->tiles, .state_bytes = v->state_bytes};
    at_err_t err = at_vault_fetch_path(v, AT_BLOB_STATE, root, "", diag, s.path);
    if (err) return err;
    if (!v->tile || leaves.n != ((size_t)v->tiles + 1) * AT_HASH_BYTES)
        return at_fail(diag, AT_E_DATA, s.path, "a list of leaves of another length");
    drop_states(v, strrchr(s.path, '/') + 1);
    err = at_buf_append(&s.leaves, leaves.p, leaves.n);
    s.found = calloc(((size_t)v->tiles + 7) / 8, 1);
    if (err || !s.found) {
        at_buf_release(&s.leaves);
        free(s.found);
        return at_fail(diag, AT_E_NOMEM, s.path, "out of memory");
    }
    for (int i = 0; i < AT_VAULT_STATES; i++)
        if (v->state[i]) s.state[i] = at_held_keep(v->state[i]);
    *ret_search = s;
    return AT_OK;
}

void at_vault_search_release(struct at_vault_search *s)
{
    for (int i = 0; i < AT_VAULT_STATES; i++) at_held_put(s->state[i]);
    at_buf_release(&s->leaves);
    free(s->found);
    memset(s, 0, sizeof *s);
}

static const uint8_t *leaf_of(const struct at_vault_search *s, uint32_t tile)
{
    return s->leaves.p + ((size_t)tile + 1) * AT_HASH_BYTES;
}

/* The tile's bytes in a state that is held, or NULL. */
static const uint8_t *in_common(const struct at_vault_search *s, uint32_t i)
{
    for (int k = 0; k < AT_VAULT_STATES; k++)
        if (s->state[k] && memcmp(s->state[k]->leaves[i + 1].b, leaf_of(s, i), AT_HASH_BYTES) == 0)
            return s->state[k]->blob.p + s->tile[i].offset;
    return NULL;
}

static bool in_file(const struct at_vault_search *s, int fd, uint32_t i, uint8_t room[AT_TILE_BYTES])
{
    size_t n = s->tile[i].bytes;
    if (pread(fd, room, n, (off_t)s->tile[i].offset) != (ssize_t)n) return false;
    return memcmp(at_merkle_leaf(at_span(room, n)).b, leaf_of(s, i), AT_HASH_BYTES) == 0;
}

at_err_t at_vault_find(struct at_vault_search *s, struct at_diag *diag)
{
    uint8_t *room = malloc(AT_TILE_BYTES);
    if (!room) return at_fail(diag, AT_E_NOMEM, s->path, "out of memory");
    bool resumed = at_file_exists(s->path);
    int fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    at_err_t err = fd < 0 ? at_vault_disk_error(diag, s->path) : AT_OK;
    if (!err && ftruncate(fd, (off_t)s->state_bytes) != 0) err = at_vault_disk_error(diag, s->path);
    if (!err) err = at_vault_put(fd, s->path, 0, at_span(s->header, sizeof s->header), diag);
    for (uint32_t i = 0; i < s->tiles && !err; i++) {
        bool here = resumed && in_file(s, fd, i, room);
        const uint8_t *p = here ? NULL : in_common(s, i);
        if (p) err = at_vault_put(fd, s->path, s->tile[i].offset, at_span(p, s->tile[i].bytes), diag);
        if (!err && (here || p)) s->found[i / 8] |= (uint8_t)(1u << i % 8);
    }
    if (fd >= 0 && close(fd) != 0 && !err) err = at_vault_disk_error(diag, s->path);
    free(room);
    return err;
}
