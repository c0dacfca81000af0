/* file_map.h: memory whose pages are those of a file: the system writes them back, drops them and reads them again when
 * memory is short, so they are no need of the process as its own memory is (RssAnon, RLIMIT_DATA).
 *
 * A page that cannot be read or written at last (a failing disk, a file made shorter by somebody else, no space on a file
 * system that promised it) is no error that a call returns: the process says which folder or file it was and ends with exit
 * code 5 (of more than 256 maps at once the further ones: without a word, by the signal). Whatever is kept for good is therefore never kept in a map, but in files put in place whole (file.h).
 * Errors as in file.h, and AT_E_ENV where the file system cannot map. Thread rule: any thread, one at a time per object. */
#ifndef ATOLL_OS_FILE_MAP_H
#define ATOLL_OS_FILE_MAP_H

#include "base/bytes.h"
#include "base/memory.h"

struct at_file_map { /* zeroed: none */
    uint8_t *p;      /* page-aligned */
    size_t n;
};

/* `bytes` (at least 1) of zeros, to be read and written, in a file of `dir` without a name: it is gone with the map, or the
 * process. Its space is taken here: AT_E_DISK when there is too little. dir NULL: the process' own memory; AT_E_NOMEM. */
at_err at_file_map_scratch(struct at_file_map *m, const char *dir, size_t bytes, struct at_diag *diag);
/* A whole file, to be read only. An empty one is AT_E_DATA. */
at_err at_file_map_open(struct at_file_map *m, const char *path, size_t bytes_max, struct at_diag *diag);
void at_file_map_release(struct at_file_map *m);

/* at_file_map_scratch for whoever is handed memory down. dir: borrowed. A taker sees only that there is none; why not is
 * in the diag of at_file_map_scratch alone. */
struct at_memory at_file_map_memory(const char *dir);

#endif
