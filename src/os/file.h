/* file.h: files and folders, with errors a person can act on (each names the file and says what is wrong with it).
 *
 * Errors: AT_E_NOT_FOUND (missing), AT_E_DATA (a folder where a file belongs, or the reverse), AT_E_TOO_BIG (past the
 * caller's limit), AT_E_ENV (no permission and the like), AT_E_DISK (full, quota, I/O error), AT_E_NOMEM.
 * Thread rule: any thread; the functions keep no state. Writes rely on SIGXFSZ being ignored: at_sys_process_init(). */
#ifndef ATOLL_OS_FILE_H
#define ATOLL_OS_FILE_H

#include "base/bytes.h"

/* Appends the file's bytes to `buf` (owned by the caller), at most bytes_max of them. An empty file is AT_E_DATA unless
 * bytes are allowed to be none: see at_file_read_any. `buf` is unchanged on failure. */
at_err at_file_read(const char *path, size_t bytes_max, struct at_diag *diag, struct at_buf *buf);
at_err at_file_read_any(const char *path, size_t bytes_max, struct at_diag *diag, struct at_buf *buf);

/* Replaces `path` by the concatenation of `parts` so that a crash at any moment leaves the old or the new file, whole:
 * temporary neighbour, fsync, rename, fsync of the folder. On failure the neighbour is removed, the old file intact. */
at_err at_file_write_atomic(const char *path, const struct at_span *parts, int part_count, unsigned mode,
                            struct at_diag *diag);

bool at_file_exists(const char *path); /* file, folder or anything else */
at_err at_file_size(const char *path, struct at_diag *diag, uint64_t *ret_bytes);
at_err at_file_remove(const char *path, struct at_diag *diag); /* AT_OK when there is none */
/* Removes a secret: its bytes are overwritten in place first, and all of it is durable on return. What the disk itself
 * keeps of old blocks (a journal, a snapshot, worn flash) is beyond a program. AT_OK when there is none. */
at_err at_file_erase(const char *path, struct at_diag *diag);
at_err at_file_rename(const char *from, const char *to, struct at_diag *diag); /* and fsync of the folder */

/* Every missing folder on the way, like mkdir -p; `mode` for those that are made, which are durable on return. */
at_err at_dir_make(const char *path, unsigned mode, struct at_diag *diag);
at_err at_dir_is_empty(const char *path, struct at_diag *diag, bool *ret_empty); /* a missing folder is empty */

at_err at_dir_remove_empty(const char *path); /* AT_OK when it is gone afterwards */

/* Calls visit(user, name) for every entry but "." and "..", in no order; stops at the first error and returns it. */
typedef at_err_t at_dir_visit_fn(void *user, const char *name);
at_err at_dir_list(const char *path, struct at_diag *diag, at_dir_visit_fn *visit, void *user);

/* Bytes free for this user on the file system of `path`. */
at_err at_disk_free(const char *path, struct at_diag *diag, uint64_t *ret_bytes);

/* dir "/" name in `ret` of AT_PATH_BYTES; AT_E_TOO_BIG naming it when it does not fit. */
#define AT_PATH_BYTES 1024
at_err at_path_join(const char *dir, const char *name, struct at_diag *diag, char ret_path[AT_PATH_BYTES]);

/* One process per run folder. The lock lives as long as the process: kill -9 frees it. */
struct at_lock {
    int fd_plus_1; /* 0: not held */
};
/* Takes `dir`/lock; AT_E_ENV "another atoll runs in DIR, pid N" when somebody holds it. */
at_err at_lock_take(struct at_lock *lock, const char *dir, struct at_diag *diag);
void at_lock_release(struct at_lock *lock);

#endif
