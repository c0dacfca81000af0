/* cli_tool.c: what the end-to-end tests need and a plain shell has not: reading JSON, damaging files and ledgers,
 * occupying a port, flooding one.
 *
 *   cli_tool get PATH            stdin must be exactly one JSON object; prints the value at a.b.0.c (texts unquoted)
 *   cli_tool keys                prints the object's keys, sorted, on one line
 *   cli_tool flip FILE OFFSET    flips one bit of the byte there (negative: from the end)
 *   cli_tool cut FILE BYTES      truncates the file to that size
 *   cli_tool noise BYTES         writes so many pseudo-random bytes
 *   cli_tool hold PORT           listens on 127.0.0.1:PORT (0: any), prints the port, until stdin ends
 *   cli_tool flood PORT BYTES    sends noise to 127.0.0.1:PORT in several connections; prints the bytes that were taken
 *   cli_tool sql FILE STATEMENT  runs it on a SQLite file, prints the rows
 *   cli_tool words CORPUS        stdin's share of words (letters only, lower case) that occur in CORPUS, in percent */
#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "cli_tool: %s\n", what);
    exit(1);
}

static json_t *read_object(void)
{
    json_error_t error;
    json_t *object = json_loadf(stdin, JSON_REJECT_DUPLICATES, &error); /* refuses anything behind it */
    if (!json_is_object(object)) die("stdin is not exactly one JSON object");
    return object;
}

static int get(const char *path)
{
    json_t *object = read_object(), *at = object;
    char part[128];
    while (*path != '\0' && at != NULL) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        path += n + (path[n] == '.');
        if (json_is_array(at) && strcmp(part, "length") == 0) {
            printf("%zu\n", json_array_size(at));
            json_decref(object);
            return 0;
        }
        at = json_is_array(at) ? json_array_get(at, strtoul(part, NULL, 10)) : json_object_get(at, part);
    }
    if (at == NULL) die("no such value");
    if (json_is_string(at)) {
        printf("%s\n", json_string_value(at));
    } else {
        json_dumpf(at, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
        putchar('\n');
    }
    json_decref(object);
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int keys(void)
{
    json_t *object = read_object(), *value;
    const char *key, *list[256];
    size_t n = 0;
    json_object_foreach(object, key, value) if (n < 256) list[n++] = key;
    qsort(list, n, sizeof *list, by_text);
    for (size_t i = 0; i < n; i++) printf("%s%s", i ? " " : "", list[i]);
    putchar('\n');
    json_decref(object);
    return 0;
}

static int flip(const char *path, const char *offset)
{
    struct stat st;
    int fd = open(path, O_RDWR);
    unsigned char byte;
    long at = strtol(offset, NULL, 10);
    if (fd < 0 || fstat(fd, &st) != 0) die("cannot open the file");
    if (at < 0) at += (long)st.st_size;
    if (pread(fd, &byte, 1, at) != 1) die("no such byte");
    byte ^= 1;
    if (pwrite(fd, &byte, 1, at) != 1 || close(fd) != 0) die("cannot write");
    return 0;
}

static uint32_t noise_state = 12345;
static void noise_fill(unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        noise_state = noise_state * 1664525u + 1013904223u;
        p[i] = (unsigned char)(noise_state >> 24);
    }
}

static int noise(const char *bytes)
{
    unsigned char block[4096];
    for (unsigned long left = strtoul(bytes, NULL, 10); left > 0;) {
        size_t n = left < sizeof block ? left : sizeof block;
        noise_fill(block, n);
        if (fwrite(block, 1, n, stdout) != n) die("cannot write");
        left -= n;
    }
    return 0;
}

static int loopback(uint16_t port, struct sockaddr_in *address)
{
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int hold(const char *port)
{
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;
    int fd = loopback((uint16_t)strtoul(port, NULL, 10), &address);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, bytes) != 0 || listen(fd, 4) != 0) die("cannot listen");
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) != 0) die("no name");
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}

/* The other side may close on us at any time: that is what it should do. */
static int flood(const char *port, const char *bytes)
{
    static unsigned char block[65536];
    unsigned long want = strtoul(bytes, NULL, 10), sent = 0, tried = 0;
    signal(SIGPIPE, SIG_IGN);
    for (int connection = 0; tried < want && connection < 100000; connection++) {
        struct sockaddr_in address;
        int fd = loopback((uint16_t)strtoul(port, NULL, 10), &address);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) die("nobody listens there");
        for (int i = 0; i < 16 && tried < want; i++) {
            noise_fill(block, sizeof block);
            if (connection % 2) memcpy(block, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11); /* looks like TLS */
            ssize_t n = send(fd, block, sizeof block, 0);
            tried += sizeof block;
            if (n <= 0) break;
            sent += (unsigned long)n;
        }
        close(fd);
    }
    printf("%lu\n", sent);
    return 0;
}

static int print_row(void *user, int columns, char **value, char **name)
{
    for (int i = 0; i < columns; i++) printf("%s%s", i ? "|" : "", value[i] ? value[i] : "");
    putchar('\n');
    return 0;
}

static int sql(const char *path, const char *statement)
{
    sqlite3 *db;
    char *why = NULL;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) die("cannot open the database");
    if (sqlite3_exec(db, statement, print_row, NULL, &why) != SQLITE_OK) die(why != NULL ? why : "refused");
    sqlite3_close(db);
    return 0;
}

/* The next word: a run of letters, in lower case; false at the end. */
static int next_word(FILE *f, char *word, size_t bytes)
{
    size_t n = 0;
    int c;
    while ((c = getc(f)) != EOF) {
        if (isalpha(c)) {
            if (n + 1 < bytes) word[n++] = (char)tolower(c);
        } else if (n > 0) {
            break;
        }
    }
    word[n] = '\0';
    return n > 0;
}

static int words(const char *corpus)
{
    enum { MAX = 300000 };
    char **list = calloc(MAX, sizeof *list), word[64];
    const char *key = word;
    size_t n = 0, known = 0, all = 0;
    FILE *f = fopen(corpus, "r");
    if (list == NULL || f == NULL) die("cannot read the corpus");
    while (n < MAX && next_word(f, word, sizeof word)) list[n++] = strdup(word);
    fclose(f);
    qsort(list, n, sizeof *list, by_text);
    while (next_word(stdin, word, sizeof word)) {
        all++;
        known += bsearch(&key, list, n, sizeof *list, by_text) != NULL;
    }
    for (size_t i = 0; i < n; i++) free(list[i]);
    free(list);
    if (all == 0) die("no words");
    printf("%zu\n", known * 100 / all);
    return 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "get") == 0 && argc == 3) return get(argv[2]);
    if (strcmp(verb, "keys") == 0 && argc == 2) return keys();
    if (strcmp(verb, "flip") == 0 && argc == 4) return flip(argv[2], argv[3]);
    if (strcmp(verb, "cut") == 0 && argc == 4) return truncate(argv[2], strtol(argv[3], NULL, 10)) == 0 ? 0 : 1;
    if (strcmp(verb, "noise") == 0 && argc == 3) return noise(argv[2]);
    if (strcmp(verb, "hold") == 0 && argc == 3) return hold(argv[2]);
    if (strcmp(verb, "flood") == 0 && argc == 4) return flood(argv[2], argv[3]);
    if (strcmp(verb, "sql") == 0 && argc == 4) return sql(argv[2], argv[3]);
    if (strcmp(verb, "words") == 0 && argc == 3) return words(argv[2]);
    die("unknown verb; its source says what it does");
}
