/* file_part.h: files too large for memory: written piece by piece at any offset and put in place whole; read piece by
 * piece. Errors as in file.h. Thread rule: one thread per object. */
#ifndef ATOLL_OS_FILE_PART_H
#define ATOLL_OS_FILE_PART_H

#include "os/file.h"

struct at_file_part { /* zeroed: not open */
    int fd_plus_1;
    uint64_t bytes; /* reading: of the file */
    bool writing;
    int note;                 /* writing: of file_temp.h */
    char path[AT_PATH_BYTES]; /* what it will be called */
    char temp[AT_PATH_BYTES]; /* the neighbour that is written meanwhile */
};

/* Nothing is at `path` before commit: a crash or at_file_part_drop leaves the old file, whole. */
at_err at_file_part_create(struct at_file_part *f, const char *path, unsigned mode, struct at_diag *diag);
at_err at_file_part_put(struct at_file_part *f, uint64_t offset, struct at_span bytes, struct at_diag *diag);
at_err at_file_part_commit(struct at_file_part *f, struct at_diag *diag); /* fsync, rename; closes in any case */

at_err at_file_part_open(struct at_file_part *f, const char *path, struct at_diag *diag);
/* Exactly n bytes: AT_E_TRUNCATED when the file ends before. */
at_err at_file_part_get(struct at_file_part *f, uint64_t offset, uint8_t *ret_bytes, size_t n, struct at_diag *diag);

void at_file_part_drop(struct at_file_part *f); /* closes; what was not committed is gone. Safe on a zeroed object */

#endif
