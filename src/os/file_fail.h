/* file_fail.h: inner header of the os layer: a system's error number as an error with a text for people. */
#ifndef ATOLL_OS_FILE_FAIL_H
#define ATOLL_OS_FILE_FAIL_H

#include "base/err.h"

/* `e`: an errno of `doing` (a verb phrase) on `path`. AT_E_DISK, AT_E_NOT_FOUND, AT_E_DATA, AT_E_NOMEM, else AT_E_ENV. */
at_err at_file_fail(struct at_diag *diag, int e, const char *path, const char *doing);

#endif
