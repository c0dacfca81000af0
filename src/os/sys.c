#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* madvise */
#endif
#include "os/sys.h"

#include "base/sanitized.h"

#include <inttypes.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

void at_sys_process_init(void)
{
    struct sigaction ignore = {0};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
    (void)at_sys_process_start_ns();
}

uint64_t at_clock_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t at_clock_mono_ms(void)
{
    return at_clock_mono_ns() / 1000000u;
}

uint64_t at_clock_unix_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* Linux: field 22 of /proc/self/stat, in clock ticks since boot. The command's name (field 2) may hold blanks and
 * brackets, so fields are counted from its last bracket. CLOCK_MONOTONIC stands still in suspend and boot time does
 * not: their difference now is taken off. Returns 0 when the system does not say. */
static uint64_t start_by_proc(void)
{
    char text[1024];
    FILE *f = fopen("/proc/self/stat", "r");
    if (!f) return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++) p = strchr(p + 1, ' ');
    long hz = sysconf(_SC_CLK_TCK);
    if (!p || hz <= 0) return 0;
    uint64_t since_boot_ns = strtoull(p + 1, NULL, 10) * (1000000000u / (uint64_t)hz);
#ifdef CLOCK_BOOTTIME
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    uint64_t boot_now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec, mono_now = at_clock_mono_ns();
    uint64_t age = boot_now > since_boot_ns ? boot_now - since_boot_ns : 0;
    return mono_now > age ? mono_now - age : 1;
#else
    return since_boot_ns;
#endif
}

uint64_t at_sys_process_start_ns(void)
{
    static uint64_t start; /* first called by main() before any thread: at_sys_process_init */
    if (!start) start = start_by_proc();
    if (!start) start = at_clock_mono_ns();
    return start;
}

int at_sys_cpu_count(void)
{
    unsigned n = uv_available_parallelism(); /* looks at the affinity mask */
    return n < 1 ? 1 : n > 4096 ? 4096 : (int)n;
}

/* A line "NAME: 123 kB" of a file in /proc, in bytes; 0 when there is none. */
static uint64_t proc_bytes(const char *path, const char *name)
{
    char line[256];
    unsigned long long kib = 0;
    size_t n = strlen(name);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, name, n) == 0 && sscanf(line + n, ": %llu kB", &kib) == 1) break;
    fclose(f);
    return (uint64_t)kib * 1024u;
}

uint64_t at_sys_memory_available(void)
{
    uint64_t system = proc_bytes("/proc/meminfo", "MemAvailable");
    if (!system) system = uv_get_free_memory();
    uint64_t limit = uv_get_constrained_memory(); /* 0 unknown; huge when there is no limit */
    size_t own = 0;
    if (limit && uv_resident_set_memory(&own) == 0) {
        uint64_t left = limit > own ? limit - own : 0;
        if (left < system) system = left;
    }
    struct rlimit data; /* `ulimit -d`: what is not a file's */
    if (getrlimit(RLIMIT_DATA, &data) == 0 && data.rlim_cur != RLIM_INFINITY) {
        uint64_t used = proc_bytes("/proc/self/status", "VmData"),
                 left = data.rlim_cur > used ? data.rlim_cur - used : 1;
        if (left < system) system = left;
    }
    return system;
}

uint64_t at_sys_files_allow(uint64_t n)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return UINT64_MAX; /* what is short is noticed when it is */
    if (files.rlim_cur >= n) return files.rlim_cur;
    struct rlimit more = {.rlim_cur = n < files.rlim_max ? (rlim_t)n : files.rlim_max, .rlim_max = files.rlim_max};
    return setrlimit(RLIMIT_NOFILE, &more) == 0 ? more.rlim_cur : files.rlim_cur;
}

/* VmHWM of /proc/self/status: unlike getrusage's figure it is this program's, not that of the process that forked it. */
uint64_t at_sys_memory_peak(void)
{
    return proc_bytes("/proc/self/status", "VmHWM");
}

/* A sanitizer's shadow is terabytes of such blocks, touched here and there: there it must stay in small pages. */
#if defined(MADV_HUGEPAGE) && !AT_SANITIZED
#define HUGE_MIN_BYTES (4u << 20) /* two huge pages: one of them surely lies inside */

/* A line of /proc/self/maps: a private, writable mapping of no file, with no name but the heap's. */
static bool is_anonymous_block(const char *line, uint64_t *ret_begin, uint64_t *ret_end)
{
    char rights[5], name[16] = "";
    uint64_t inode;
    int fields =
        sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %" SCNu64 " %15s", ret_begin, ret_end, rights, &inode, name);
    return fields >= 4 && strcmp(rights, "rw-p") == 0 && inode == 0 && (fields == 4 || strcmp(name, "[heap]") == 0) &&
           *ret_end - *ret_begin >= HUGE_MIN_BYTES;
}

void at_sys_memory_huge(void)
{
    char line[4096];
    uint64_t begin, end;
    FILE *f = fopen("/proc/self/maps", "r");
    if (!f) return;
    while (fgets(line, sizeof line, f))
        if (is_anonymous_block(line, &begin, &end))
            (void)madvise((void *)(uintptr_t)begin, (size_t)(end - begin), MADV_HUGEPAGE); /* advice: may be refused */
    fclose(f);
}
#else
void at_sys_memory_huge(void) {}
#endif

void at_sys_memory_sparse(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, 64 * 1024); /* else it grows with the first block that is freed */
    (void)mallopt(M_MMAP_MAX, 1 << 20);
#endif
}

/* The heap reaches over half of what is there before anything is in it, so that it gets huge pages wherever it grows to;
 * pages come with the first touch. */
void at_sys_memory_kept(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_MAX, 0);
    (void)mallopt(M_TRIM_THRESHOLD, -1); /* never */
    (void)mallopt(M_TOP_PAD, 4 * 1024 * 1024);
#if !AT_SANITIZED
    void *volatile all = malloc((size_t)(at_sys_memory_available() / 2)); /* volatile: or it would be left out */
    free(all);
#endif
#endif
    at_sys_memory_huge();
}

bool at_sys_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

int at_sys_terminal_columns(int fd)
{
#ifdef TIOCGWINSZ
    struct winsize w;
    if (ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0) return w.ws_col;
#endif
    const char *columns = getenv("COLUMNS");
    int n = columns ? atoi(columns) : 0;
    return n >= 20 && n <= 10000 ? n : 80;
}

/* libuv closes descriptors by a raw system call that ThreadSanitizer cannot see. When the kernel hands the number out
 * again, to another thread, that looks like a race on the old descriptor; so it must not see libuv open them either. */
#if AT_SANITIZED_THREAD
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libuv.so\n";
}
#endif
