/* guard_heap.c: every block of the heap ends where an unmapped page begins, as far as its alignment allows, so that a
 * kernel that reads or writes past its arrays ends the program. There is no AddressSanitizer under qemu-user; this takes
 * its place. The linker sends the allocation functions here (--wrap).
 *
 *   page 0: bytes mapped, bytes asked for | pages with the block at their end | unmapped page */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u /* of the emulated machine; larger ones on the host only guard less tightly */

struct head {
    size_t mapped, bytes;
};

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t each);
void *__wrap_aligned_alloc(size_t align, size_t n);
void *__wrap_realloc(void *old, size_t n);
void __wrap_free(void *p);

static struct head *head_of(void *p)
{
    char *page = (char *)p - (uintptr_t)p % PAGE;
    return (struct head *)(page - PAGE);
}

static void *get(size_t n, size_t align)
{
    if (n > SIZE_MAX / 2) return NULL;
    const size_t body = ((n ? n : 1) + align - 1) / align * align, pages = (body + PAGE - 1) / PAGE * PAGE;
    char *m = mmap(NULL, PAGE + pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED) return NULL;
    *(struct head *)m = (struct head){PAGE + pages + PAGE, n};
    if (mprotect(m + PAGE + pages, PAGE, PROT_NONE) != 0) abort();
    return m + PAGE + pages - body;
}

/* The largest alignment that an object of n bytes can want; arrays of floats end exactly at the page. */
static size_t natural(size_t n)
{
    size_t align = 16;
    while (align > 4 && n % align != 0) align /= 2;
    return align;
}

void *__wrap_malloc(size_t n)
{
    void *p = get(n, natural(n));
    if (p) memset(p, 0xa5, n); /* nobody may count on zeros */
    return p;
}

void *__wrap_calloc(size_t count, size_t each)
{
    if (each != 0 && count > SIZE_MAX / each) return NULL;
    return get(count * each, natural(count * each)); /* new pages are zero */
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return get(n, align);
}

void __wrap_free(void *p)
{
    if (p && munmap(head_of(p), head_of(p)->mapped) != 0) abort();
}

void *__wrap_realloc(void *old, size_t n)
{
    void *p = __wrap_malloc(n);
    if (!old || !p) return p;
    memcpy(p, old, head_of(old)->bytes < n ? head_of(old)->bytes : n);
    __wrap_free(old);
    return p;
}
