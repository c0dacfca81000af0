#include "os/sys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BLOCK_BYTES ((size_t)24 << 20)

/* What /proc/self/smaps says of the mapping that holds p: 1 when huge pages are advised there, 0 when not, -1 when it
 * says nothing. */
static int advised(const void *p)
{
    char line[4096];
    unsigned long begin, end, at = (unsigned long)p;
    bool here = false;
    int found = -1;
    FILE *f = fopen("/proc/self/smaps", "r");
    if (f == NULL) return -1;
    while (found < 0 && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2) here = begin <= at && at < end;
        if (here && strncmp(line, "VmFlags:", 8) == 0) found = strstr(line, " hg") != NULL;
    }
    fclose(f);
    return found;
}

static void huge_pages_change_no_byte(void **state)
{
    (void)state;
    unsigned char *p = malloc(BLOCK_BYTES);
    assert_non_null(p);
    for (size_t i = 0; i < BLOCK_BYTES; i += 4093) p[i] = (unsigned char)(i * 7);
    const int before = advised(p + BLOCK_BYTES / 2);
    at_sys_memory_huge();
    at_sys_memory_huge();
    for (size_t i = 0; i < BLOCK_BYTES; i += 4093) assert_int_equal(p[i], (unsigned char)(i * 7));
    const int after = advised(p + BLOCK_BYTES / 2);
    assert_true(after >= before);
    print_message("huge pages advised: %d before, %d after\n", before, after);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(huge_pages_change_no_byte)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
