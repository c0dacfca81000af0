/* Runs a libFuzzer-style target over every file of a corpus folder: the fuzz targets' replay in `make test`, with any
 * compiler. Fails when the folder is missing or empty, so that a lost corpus is noticed. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) return -1;
    struct stat st;
    if (fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)) {
        fclose(f);
        return 0;
    }
    size_t n = (size_t)st.st_size;
    uint8_t *bytes = malloc(n + 1);
    size_t got = bytes != NULL ? fread(bytes, 1, n, f) : 0;
    fclose(f);
    if (bytes == NULL || got != n) {
        free(bytes);
        return -1;
    }
    /* An exact-size copy, so that the address sanitizer sees one byte past the end. */
    uint8_t *exact = malloc(n != 0 ? n : 1);
    for (size_t i = 0; exact != NULL && i < n; i++) exact[i] = bytes[i];
    free(bytes);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS_DIR\n", argv[0]);
        return 2;
    }
    DIR *dir = opendir(argv[1]);
    if (dir == NULL) {
        fprintf(stderr, "%s: no such corpus folder\n", argv[1]);
        return 1;
    }
    int count = 0, failed = 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        if (e->d_name[0] == '.') continue;
        int r = replay(path);
        if (r < 0) failed++;
        if (r > 0) count++;
    }
    closedir(dir);
    printf("%d inputs replayed, %d unreadable\n", count, failed);
    return count == 0 || failed != 0;
}
