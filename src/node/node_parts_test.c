/* node_parts_test.c: the parts of a node one by one: folder, worker, vault, control socket. */
#include "base/merkle.h"
#include "net/address.h"
#include "node/node.h"
#include "node/node_control.h"
#include "node/node_folder.h"
#include "node/node_vault.h"
#include "node/node_worker.h"
#include "os/sys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[512];

static int make_dir(void **state)
{
    strcpy(dir, "/tmp/at_parts_test.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}
static int remove_dir(void **state)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%.30s'", dir);
    return system(command);
}

/* ---- addresses and folder ---- */
static void test_addresses(void **state)
{
    static const char *const bad[] = {"",        ":",          ":80",      "host", "host:", "host:x",
                                      "host:-1", "host:65536", "host:80x", "[]:1", "h: 80"};
    char host[AT_HOST_BYTES_MAX + 1];
    uint16_t port = 0, free_port = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(at_address_parse(bad[i], NULL, host, &port), AT_E_USAGE);
    assert_int_equal(at_address_parse("example.org:7700", NULL, host, &port), AT_OK);
    assert_string_equal(host, "example.org");
    assert_int_equal(port, 7700);
    assert_int_equal(at_address_parse("[::1]:1", NULL, host, &port), AT_OK);
    assert_string_equal(host, "::1");
    assert_int_equal(at_address_probe("127.0.0.1", 0, NULL, &free_port), AT_OK);
    assert_true(free_port >= 10240 && free_port < 32768);
    assert_int_equal(at_address_probe("127.0.0.1", free_port, NULL, &port), AT_OK);
    assert_int_equal(port, free_port);
    assert_int_equal(at_address_probe("example.org", 1, NULL, &port), AT_E_USAGE);
    at_address_outward("0.0.0.0", host);
    assert_string_not_equal(host, "0.0.0.0");
}

static void make_folder(struct at_folder *f)
{
    memset(f, 0, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "%s", dir);
    assert_int_equal(at_keypair_generate(&f->key), AT_OK);
    f->run = at_sha256("run", 3);
    snprintf(f->name, sizeof f->name, "a name = with signs");
    snprintf(f->host, sizeof f->host, "::1");
    f->port = 7700;
    f->has_contact = true;
    f->contact = (struct at_invite){
        .run = f->run, .node = f->key.id, .host = "10.0.0.1", .port = 9, .log_size = 77, .log_root = at_sha256("x", 1)};
}

static void write_text(const char *name, const char *text)
{
    char path[AT_PATH_BYTES];
    struct at_span part = at_span(text, strlen(text));
    assert_int_equal(at_path_join(dir, name, NULL, path), AT_OK);
    assert_int_equal(at_file_write_atomic(path, &part, 1, 0600, NULL), AT_OK);
}

static void test_folder_comes_back(void **state)
{
    struct at_folder f, got;
    struct stat st;
    char path[AT_PATH_BYTES];
    make_folder(&f);
    assert_int_equal(at_folder_load(dir, NULL, &got), AT_E_DATA);
    assert_int_equal(at_folder_save(&f, NULL), AT_OK);
    assert_int_equal(at_folder_load(dir, NULL, &got), AT_OK);
    assert_memory_equal(got.key.seed, f.key.seed, AT_KEY_BYTES);
    assert_true(at_hash_eq(got.run, f.run) && at_node_id_eq(&got.key.id, &f.key.id));
    assert_string_equal(got.name, f.name);
    assert_string_equal(got.host, "::1");
    assert_int_equal(got.port, 7700);
    assert_true(got.has_contact && at_hash_eq(got.contact.log_root, f.contact.log_root));
    assert_int_equal(got.contact.log_size, 77);
    assert_string_equal(got.contact.host, "10.0.0.1");
    assert_int_equal(at_folder_path(&f, "key", NULL, path), AT_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_damaged_folder_is_told(void **state)
{
    static const char *const ini[] = {"run=12\n",    "no sign\n",    "listen=nowhere\n",
                                      "name=only\n", "log_size=-\n", "contact=:1\n"};
    struct at_folder f, got;
    struct at_diag diag;
    make_folder(&f);
    assert_int_equal(at_folder_save(&f, NULL), AT_OK);
    write_text("key", "not a key\n");
    memset(&diag, 0, sizeof diag);
    assert_int_equal(at_folder_load(dir, &diag, &got), AT_E_DATA);
    assert_non_null(strstr(diag.text, "key"));
    for (size_t i = 0; i < sizeof ini / sizeof *ini; i++) {
        write_text("node.ini", ini[i]);
        memset(&diag, 0, sizeof diag);
        assert_int_equal(at_folder_load(dir, &diag, &got), AT_E_DATA);
        assert_non_null(strstr(diag.text, "node.ini"));
    }
}

/* ---- worker ---- */
struct count_work {
    struct at_work work;
    int number, *order, *done;
};
static void run_count(struct at_work *work)
{
    struct count_work *c = (struct count_work *)work;
    c->order[c->number] = ++c->order[99];
}
static void done_count(struct at_work *work)
{
    struct count_work *c = (struct count_work *)work;
    ++*c->done;
    free(c);
}
static void notified(void *user)
{
    atomic_fetch_add((atomic_int *)user, 1);
}

static void test_worker_keeps_the_order(void **state)
{
    struct at_worker w;
    atomic_int told = 0;
    int order[100] = {0}, done = 0;
    assert_int_equal(at_worker_start(&w, notified, &told, NULL), AT_OK);
    assert_true(at_worker_is_idle(&w));
    for (int i = 0; i < 90; i++) {
        struct count_work *c = calloc(1, sizeof *c);
        *c = (struct count_work){
            .work = {.run = run_count, .done = done_count}, .number = i, .order = order, .done = &done};
        at_worker_push(&w, &c->work);
        if (i % 7 == 0) at_worker_reap(&w);
    }
    assert_false(at_worker_is_idle(&w) && done < 90);
    at_worker_stop(&w);
    assert_int_equal(done, 90);
    assert_int_equal(atomic_load(&told), 90);
    for (int i = 0; i < 90; i++) assert_int_equal(order[i], i + 1);
    assert_true(at_worker_is_idle(&w));
}

/* ---- vault ---- */
static void test_fetch_goes_on_after_a_crash(void **state)
{
    struct at_vault v;
    uint8_t data[100000];
    uint64_t have = 1, total = 0;
    bool complete = true;
    struct at_span piece;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * i >> 8);
    struct at_hash key = at_sha256(data, sizeof data);
    assert_int_equal(at_vault_open(&v, dir, NULL), AT_OK);
    at_vault_stat(&v, AT_BLOB_UPDATE, key, &have, &complete);
    assert_true(have == 0 && !complete);
    assert_int_equal(at_vault_write(&v, AT_BLOB_UPDATE, key, 0, at_span(data, 60000), NULL), AT_OK);
    at_vault_release(&v);
    assert_int_equal(at_vault_open(&v, dir, NULL), AT_OK); /* as after a crash */
    at_vault_stat(&v, AT_BLOB_UPDATE, key, &have, &complete);
    assert_true(have == 60000 && !complete);
    assert_int_equal(at_vault_read(&v, AT_BLOB_UPDATE, key, 0, 10, &total, &piece), AT_E_NOT_FOUND);
    assert_int_equal(at_vault_finish(&v, AT_BLOB_UPDATE, key, NULL), AT_E_VERIFY); /* a part is not the whole */
    assert_int_equal(at_vault_write(&v, AT_BLOB_UPDATE, key, have, at_span(data + have, sizeof data - have), NULL),
                     AT_OK);
    assert_int_equal(at_vault_finish(&v, AT_BLOB_UPDATE, key, NULL), AT_OK);
    at_vault_stat(&v, AT_BLOB_UPDATE, key, &have, &complete);
    assert_true(complete);
    assert_int_equal(at_vault_read(&v, AT_BLOB_UPDATE, key, 99990, 100, &total, &piece), AT_OK);
    assert_int_equal(piece.n, 10);
    assert_int_equal(total, sizeof data);
    assert_memory_equal(piece.p, data + 99990, 10);
    assert_int_equal(at_vault_read(&v, AT_BLOB_UPDATE, key, 100000, 1, &total, &piece), AT_E_NOT_FOUND);
    struct at_hash part = at_sha256("part", 4);
    assert_int_equal(at_vault_write(&v, AT_BLOB_UPDATE, part, 0, at_span(data, 10), NULL), AT_OK);
    assert_int_equal(at_vault_prune(&v, (struct at_hash[]){part, key}, 2, NULL), AT_OK); /* both stay */
    at_vault_stat(&v, AT_BLOB_UPDATE, part, &have, &complete);
    assert_true(have == 10 && at_blobs_has(&v.updates, key));
    at_vault_stat(&v, AT_BLOB_SHARD, key, &have, &complete); /* kinds do not mix */
    assert_false(complete);
    assert_int_equal(at_vault_prune(&v, NULL, 0, NULL), AT_OK);
    at_vault_stat(&v, AT_BLOB_UPDATE, key, &have, &complete);
    assert_true(have == 0 && !complete);
    at_vault_stat(&v, AT_BLOB_UPDATE, part, &have, &complete);
    assert_true(have == 0 && !complete);
    at_vault_release(&v);
}

/* A state of three tiles of two bytes, and its header. */
enum { TILES = 3, BLOB = AT_STATE_HEADER_BYTES + 2 * TILES };
static const struct at_tile shape[TILES] = {{40, 2}, {42, 2}, {44, 2}};

static struct at_hash tile_leaf(const char *text, int i)
{
    return i == 0 ? at_merkle_leaf(at_span("leaf 0", 6)) : at_merkle_leaf(at_span(text + 2 * (i - 1), 2));
}

/* text: the bytes of its tiles */
static struct at_hash hold(struct at_vault *v, const char *text)
{
    struct at_held *h;
    assert_int_equal(at_held_new(dir, BLOB, TILES, NULL, &h), AT_OK);
    memcpy(h->blob.p + AT_STATE_HEADER_BYTES, text, strlen(text));
    for (int i = 0; i <= TILES; i++) h->leaves[i] = tile_leaf(text, i);
    struct at_hash root = h->root = at_sha256(text, strlen(text));
    at_vault_hold_state(v, h);
    assert_int_equal(atomic_load(&h->refs), 2);
    at_held_put(h);
    return root;
}

static void test_states_held(void **state)
{
    static const char *const text[] = {"first.", "second", "third."};
    struct at_vault v;
    struct at_span piece;
    struct at_hash root[3];
    uint64_t total = 0;
    assert_int_equal(at_vault_open(&v, dir, NULL), AT_OK);
    for (int i = 0; i < 3; i++) root[i] = hold(&v, text[i]);
    assert_int_equal(at_vault_read(&v, AT_BLOB_TILE, root[2], 0, 100, &total, &piece), AT_E_NOT_FOUND); /* no shape */
    at_vault_set_shape(&v, shape, TILES, BLOB);
    hold(&v, text[2]); /* again: takes no further place */
    for (int i = 0; i < 3; i++)
        assert_int_equal(at_vault_read(&v, AT_BLOB_TILE, root[i], 1, AT_TILE_DATA_MAX, &total, &piece),
                         i == 0 ? AT_E_NOT_FOUND : AT_OK);
    assert_int_equal(total, TILES);
    assert_true(at_span_eq(piece, at_span("ir", 2)));
    assert_int_equal(at_vault_read(&v, AT_BLOB_TILE, root[2], TILES, 100, &total, &piece), AT_E_NOT_FOUND);
    assert_int_equal(at_vault_read(&v, AT_BLOB_STATE, root[2], 0, 100, &total, &piece), AT_E_NOT_FOUND);
    assert_int_equal(at_vault_read(&v, AT_BLOB_LEAVES, root[1], 32, 1000, &total, &piece), AT_OK);
    struct at_hash leaf = tile_leaf(text[1], 1);
    assert_int_equal(total, (TILES + 1) * AT_HASH_BYTES);
    assert_int_equal(piece.n, TILES * AT_HASH_BYTES);
    assert_memory_equal(piece.p, leaf.b, AT_HASH_BYTES);
    assert_int_equal(at_vault_read(&v, AT_BLOB_LEAVES, root[1], total, 1, &total, &piece), AT_E_NOT_FOUND);
    at_vault_release(&v);
}

static uint8_t find(struct at_vault *v, struct at_hash root, const char *text)
{
    struct at_vault_search search;
    struct at_buf leaves = {0};
    for (int i = 0; i <= TILES; i++) {
        struct at_hash leaf = tile_leaf(text, i);
        assert_int_equal(at_buf_append(&leaves, leaf.b, sizeof leaf.b), AT_OK);
    }
    assert_int_equal(at_vault_search_init(v, root, at_span(leaves.p, 32), NULL, &search), AT_E_DATA);
    assert_int_equal(at_vault_search_init(v, root, at_buf_span(&leaves), NULL, &search), AT_OK);
    memset(search.header, 'h', sizeof search.header);
    assert_int_equal(at_vault_find(&search, NULL), AT_OK);
    uint8_t found = search.found[0];
    at_vault_search_release(&search);
    at_buf_release(&leaves);
    return found;
}

static void test_state_fetched(void **state)
{
    static const char text[] = "aabbcc";
    struct at_vault v;
    struct at_span piece;
    struct at_buf bytes = {0};
    uint64_t total = 0, have = 0;
    bool complete = true;
    char path[AT_PATH_BYTES];
    struct at_hash root = at_sha256(text, 6), other = at_sha256("other", 5);
    assert_int_equal(at_vault_open(&v, dir, NULL), AT_OK);
    at_vault_set_shape(&v, shape, TILES, BLOB);
    assert_int_equal(find(&v, other, "xxyyzz"), 0);
    assert_int_equal(find(&v, root, text), 0); /* the other one is given up */
    at_vault_stat(&v, AT_BLOB_STATE, other, &have, &complete);
    assert_int_equal(have, 0);
    assert_int_equal(at_vault_write_tile(&v, root, 2, at_span("cc", 2), NULL), AT_OK);
    assert_int_equal(at_vault_write_tile(&v, root, 1, at_span("bX", 2), NULL), AT_OK); /* a crash may do that */
    assert_int_equal(at_vault_write_tile(&v, root, 0, at_span("aaa", 3), NULL), AT_E_INTERNAL);
    assert_int_equal(at_vault_write_tile(&v, root, 3, at_span("dd", 2), NULL), AT_E_INTERNAL);
    assert_int_equal(at_vault_read(&v, AT_BLOB_TILE, root, 2, AT_TILE_DATA_MAX, &total, &piece), AT_OK);
    assert_true(at_span_eq(piece, at_span("cc", 2))); /* for other newcomers */
    assert_int_equal(find(&v, root, text), 4);        /* what is spoilt is fetched again */
    hold(&v, "aaXXYY");
    assert_int_equal(find(&v, root, text), 5); /* and what both states have in common need not be fetched */
    assert_int_equal(at_vault_write_tile(&v, root, 1, at_span("bb", 2), NULL), AT_OK);
    assert_int_equal(at_vault_finish(&v, AT_BLOB_STATE, root, NULL), AT_OK);
    at_vault_stat(&v, AT_BLOB_STATE, root, &have, &complete);
    assert_true(complete);
    assert_int_equal(at_vault_state_path(&v, root, NULL, path), AT_OK);
    assert_int_equal(at_file_read(path, BLOB, NULL, &bytes), AT_OK);
    assert_int_equal(bytes.n, BLOB);
    assert_true(bytes.p[0] == 'h' && memcmp(bytes.p + AT_STATE_HEADER_BYTES, text, 6) == 0);
    at_vault_drop_states(&v);
    assert_false(at_file_exists(path));
    at_vault_drop(&v, AT_BLOB_STATE, root); /* nothing there: fine */
    at_buf_release(&bytes);
    at_vault_release(&v);
}

/* ---- control socket ---- */
struct server {
    uv_loop_t loop;
    struct at_control *control;
    uv_async_t stop;
    uv_thread_t thread;
    int asked;
};
static void answer(void *user, const char *verb, struct at_buf *out)
{
    struct server *s = user;
    char line[64];
    int n = snprintf(line, sizeof line, "{\"ok\":true,\"verb\":\"%.20s\",\"asked\":%d}", verb, ++s->asked);
    assert_int_equal(at_buf_append(out, line, (size_t)n), AT_OK);
}
static void on_stop(uv_async_t *async)
{
    struct server *s = async->data;
    at_control_release(s->control);
    uv_close((uv_handle_t *)async, NULL);
}
static void serve(void *arg)
{
    uv_run(&((struct server *)arg)->loop, UV_RUN_DEFAULT);
}

static void start_server(struct server *s)
{
    memset(s, 0, sizeof *s);
    assert_int_equal(uv_loop_init(&s->loop), 0);
    assert_int_equal(uv_async_init(&s->loop, &s->stop, on_stop), 0);
    s->stop.data = s;
    assert_int_equal(at_control_listen(&s->loop, dir, answer, s, NULL, &s->control), AT_OK);
    assert_int_equal(uv_thread_create(&s->thread, serve, s), 0);
}
static void stop_server(struct server *s)
{
    uv_async_send(&s->stop);
    uv_thread_join(&s->thread);
    assert_int_equal(uv_loop_close(&s->loop), 0);
}

static int raw_client(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.100s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static void test_control_answers_and_bears_nonsense(void **state)
{
    struct server s;
    struct at_buf got = {0};
    struct stat st;
    char path[AT_PATH_BYTES], junk[8192], reply[256];
    int idle[40];
    assert_int_equal(at_path_join(dir, "control.sock", NULL, path), AT_OK);
    assert_int_equal(at_control_call(dir, "status", 1000, NULL, &got), AT_E_NOT_FOUND);
    start_server(&s);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(at_control_call(dir, "status", 3000, NULL, &got), AT_OK);
    assert_int_equal(got.n, strlen("{\"ok\":true,\"verb\":\"status\",\"asked\":1}"));
    assert_memory_equal(got.p, "{\"ok\":true,\"verb\":\"status\",\"asked\":1}", got.n);
    memset(junk, 'x', sizeof junk);
    int fd = raw_client(path); /* a line without an end */
    assert_true(send(fd, junk, sizeof junk, MSG_NOSIGNAL) > 0);
    assert_true(recv(fd, reply, sizeof reply, 0) <= 0);
    close(fd);
    fd = raw_client(path); /* a line that is no JSON */
    assert_int_equal(send(fd, "hello\n", 6, MSG_NOSIGNAL), 6);
    ssize_t n = recv(fd, reply, sizeof reply - 1, 0);
    assert_true(n > 0 && memcmp(reply, "{\"ok\":false", 11) == 0);
    close(fd);
    for (int i = 0; i < 40; i++) idle[i] = raw_client(path); /* more than there is room for, saying nothing */
    for (int i = 0; i < 40; i++) close(idle[i]);
    at_buf_clear(&got);
    at_err_t err = AT_E_ENV;
    for (int i = 0; i < 1000 && err; i++) { /* until the server has seen them go */
        err = at_control_call(dir, "status", 3000, NULL, &got);
        if (err) nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    assert_int_equal(err, AT_OK);
    stop_server(&s);
    assert_false(at_file_exists(path));
    at_buf_release(&got);
}

/* Deeper than a socket's path may be long. */
static void test_control_in_a_deep_folder(void **state)
{
    struct server s;
    struct at_buf got = {0};
    for (int i = 0; i < 4; i++) strcat(dir, "/a-folder-with-a-name-of-forty-characters");
    assert_int_equal(at_dir_make(dir, 0700, NULL), AT_OK);
    start_server(&s);
    assert_int_equal(at_control_call(dir, "status", 3000, NULL, &got), AT_OK);
    stop_server(&s);
    at_buf_release(&got);
}

/* What a node announces is dialled as it was meant. */
static void test_endpoints(void **state)
{
    struct at_endpoint list[AT_ENDPOINTS_MAX];
    static const char *const numeric[] = {"127.0.0.1", "192.168.1.10", "::1", "2001:db8::7"};
    char host[AT_HOST_BYTES_MAX + 1];
    for (size_t i = 0; i < sizeof numeric / sizeof numeric[0]; i++) {
        assert_int_equal(at_endpoints_of(numeric[i], 7700, list), 1);
        at_address_host(&list[0], host);
        assert_string_equal(host, numeric[i]);
        assert_int_equal(list[0].port, 7700);
    }
    assert_int_equal(at_endpoints_of("a.name.example", 7700, list), 0);
    static const char *const no_announcement[] = {"a.name.example:7700", "203.0.113.7:0", "203.0.113.7", ":7700",
                                                  "203.0.113.7:70000"};
    struct at_folder f = {.host = "0.0.0.0", .port = 7700};
    for (size_t i = 0; i < sizeof no_announcement / sizeof no_announcement[0]; i++)
        assert_int_equal(at_folder_announce(&f, no_announcement[i], NULL), AT_E_USAGE);
    f = (struct at_folder){.host = "192.168.1.10", .port = 7700};
    assert_int_equal(at_folder_endpoints(&f, list), 1);
    assert_int_equal(list[0].port, 7700);
    assert_int_equal(at_folder_announce(&f, "203.0.113.7:7701", NULL), AT_OK); /* that, and not where it listens */
    assert_int_equal(at_folder_endpoints(&f, list), 1);
    at_address_host(&list[0], host);
    assert_string_equal(host, "203.0.113.7");
    assert_int_equal(list[0].port, 7701);
    uint32_t n = at_endpoints_of("0.0.0.0", 7700, list); /* none on a machine without a network */
    assert_true(n <= AT_ENDPOINTS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        assert_true(at_endpoint_ok(&list[i]));
        at_address_host(&list[i], host);
        assert_null(strchr(host, ':'));
    }
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_endpoints),
        CASE(test_folder_comes_back),
        CASE(test_damaged_folder_is_told),
        cmocka_unit_test(test_worker_keeps_the_order),
        CASE(test_fetch_goes_on_after_a_crash),
        CASE(test_states_held),
        CASE(test_state_fetched),
        CASE(test_control_answers_and_bears_nonsense),
        CASE(test_control_in_a_deep_folder),
    };
    at_sys_process_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
