/* sys.h: what a process asks the machine: clocks, processors, memory, the terminal; and what it must tell it first. */
#ifndef ATOLL_OS_SYS_H
#define ATOLL_OS_SYS_H

#include <stdbool.h>
#include <stdint.h>

/* First call of main(): SIGPIPE and SIGXFSZ are ignored, so that a closed pipe and a file-size limit are errors that a
 * call returns, and not the death of the process. */
void at_sys_process_init(void);

uint64_t at_clock_mono_ns(void); /* never steps back; its zero means nothing */
uint64_t at_clock_mono_ms(void);
uint64_t at_clock_unix_ms(void); /* may jump */
/* When this process began, on the clock of at_clock_mono_ns (10 ms grain); the time of the first call where the system
 * does not say. "seconds" of the command is counted from here. */
uint64_t at_sys_process_start_ns(void);

int at_sys_cpu_count(void); /* processors this process may run on (affinity), >= 1 */
uint64_t at_sys_memory_available(
    void); /* bytes that can be taken without swapping (limits of a container and of this process included); 0: unknown */
uint64_t at_sys_memory_peak(void); /* the most bytes that this process ever had in memory; 0: unknown */
/* Big anonymous blocks that are mapped now may get huge pages when they are touched first: fewer address translations,
 * 1-5 % faster steps. To be called after a program allocated its working memory; advice only, nothing where the system has
 * none. */
void at_sys_memory_huge(void);
/* From now on blocks of 64 KiB and more are mapped when they are allocated and unmapped when they are freed, so that a
 * large zeroed block takes only the pages that are touched, and what is freed counts no more: for tests that measure.
 * Advice only; nothing where there is no such knob. */
void at_sys_memory_sparse(void);
/* The other way round: what is freed is kept, for what is allocated next, and all of it lies in one place, in huge pages. For
 * programs that make and free the same large blocks again and again, or go from one of many blocks to another all the time
 * (the simulator: each event meets another node's machine, and a fifth of its time went into translating addresses). To
 * be called before anything large is allocated. */
void at_sys_memory_kept(void);
/* Raises this process' limit of open files to n where it is lower, as far as the system lets it; children inherit it.
 * Returns the limit. */
uint64_t at_sys_files_allow(uint64_t n);
bool at_sys_is_terminal(int fd);
int at_sys_terminal_columns(int fd); /* 80 where it cannot be told */

#endif
