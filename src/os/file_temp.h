/* file_temp.h: inner header of the os layer, and for whoever ends a process at once: the unfinished neighbours of files
 * that this process is writing (file.h, file_part.h), so that none is left behind. A global, because a signal handler
 * has no other way. Thread rule: any. */
#ifndef ATOLL_OS_FILE_TEMP_H
#define ATOLL_OS_FILE_TEMP_H

/* Before the file is made; the answer is for forget, once it was put in place or removed. More than a process ever writes
 * at a time (16) are not remembered: -1, which forget takes, too. */
int at_file_temp_note(const char *path);
void at_file_temp_forget(int note);

/* Removes them all. Safe in a signal handler, and meant for the end of the process: what is being written can be put in
 * place no more. */
void at_file_temp_remove_all(void);

#endif
