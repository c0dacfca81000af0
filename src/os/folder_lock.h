/* folder_lock.h: one process at a time writes into a folder that people share between programs, without a file of ours in
 * it: the folder itself is locked. Readers ask nobody. The lock lives as long as the process: kill -9 frees it. */
#ifndef ATOLL_OS_FOLDER_LOCK_H
#define ATOLL_OS_FOLDER_LOCK_H

#include "os/file.h"

/* AT_E_ENV, naming the folder and what to do, when somebody holds it. A file system that locks no folders (NFS) gives AT_OK,
 * and nothing is held. at_lock_release gives it back. */
at_err at_folder_lock_take(struct at_lock *lock, const char *dir, struct at_diag *diag);

#endif
