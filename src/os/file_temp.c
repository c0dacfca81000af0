#include "os/file_temp.h"

#include "os/file.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { TEMPS_MAX = 16 };
enum { FREE, CHANGES, THERE };

static struct {
    atomic_int is; /* whoever makes it CHANGES owns the path */
    char path[AT_PATH_BYTES];
} temp[TEMPS_MAX];

int at_file_temp_note(const char *path)
{
    size_t n = strlen(path);
    for (int i = 0; i < TEMPS_MAX && n < sizeof temp[i].path; i++) {
        int was = FREE;
        if (!atomic_compare_exchange_strong(&temp[i].is, &was, CHANGES)) continue;
        memcpy(temp[i].path, path, n + 1);
        atomic_store(&temp[i].is, THERE);
        return i;
    }
    return -1;
}

void at_file_temp_forget(int note)
{
    if (note >= 0) atomic_store(&temp[note].is, FREE);
}

void at_file_temp_remove_all(void)
{
    for (int i = 0; i < TEMPS_MAX; i++)
        if (atomic_load(&temp[i].is) == THERE) (void)unlink(temp[i].path);
}
