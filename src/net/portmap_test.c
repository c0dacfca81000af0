#define _DEFAULT_SOURCE /* mkdtemp */
#include "net/portmap.h"

#include "base/sanitized.h"
#include "os/sys.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Gateways of the test's own. Each question is a process, so what they remember is names of files: one of a mapping that
 * exists, and a numbered one for each time that one was made. */
static char marker[200], second[200];
static uv_loop_t loop;
static struct at_portmap_note last, earliest;
static int notes;

static bool made(const char *name, off_t *ret_times)
{
    char numbered[220];
    for (*ret_times = 1; *ret_times < 50; (*ret_times)++) {
        snprintf(numbered, sizeof numbered, "%s.%d", name, (int)*ret_times);
        int fd = open(numbered, O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (fd < 0) continue;
        close(fd);
        fd = open(name, O_CREAT | O_WRONLY, 0600);
        if (fd >= 0) close(fd);
        return fd >= 0;
    }
    return false;
}
static void forget(const char *name)
{
    char numbered[220];
    (void)unlink(name);
    for (int i = 1; i < 50; i++) {
        snprintf(numbered, sizeof numbered, "%s.%d", name, i);
        (void)unlink(numbered);
    }
}

static bool kind_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    off_t times; /* a gateway that gives another port at each renewal */
    if (!made(marker, &times)) return false;
    note->outside = (struct at_endpoint){.ip = {203, 0, 113, 7}, .ip_bytes = 4, .port = (uint16_t)(port + times - 1)};
    note->lease_s = 1000000000; /* no lease is longer than what was asked for */
    return true;
}
static void kind_unmap(uint16_t port, const struct at_portmap_note *note)
{
    if (note->mapped && note->outside.port >= port) (void)unlink(marker); /* the numbered ones tell what was made */
}
static bool absent_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    snprintf(note->text, sizeof note->text, "absent: nobody answers");
    return false;
}
static bool hanging_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    for (;;) pause();
    return true;
}
/* An answer that does not end: kept, as a library would. */
static bool endless_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    for (int mb = 0; mb < 1024; mb++) {
        char *more = malloc(1 << 20);
        if (!more) {
            snprintf(note->text, sizeof note->text, "endless: out of memory at %d MB", mb);
            return false;
        }
        memset(more, mb, 1 << 20);
    }
    return kind_map(port, lease_s, note);
}
/* Maps once, and then: refuses, hangs, is another's turn. */
static bool once_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    if (access(marker, F_OK) == 0) return absent_map(port, lease_s, note);
    return kind_map(port, lease_s, note);
}
static bool once_then_hanging_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    return access(marker, F_OK) == 0 ? hanging_map(port, lease_s, note) : kind_map(port, lease_s, note);
}
static bool second_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    off_t times;
    if (!made(second, &times)) return false;
    note->outside = (struct at_endpoint){.ip = {203, 0, 113, 8}, .ip_bytes = 4, .port = port};
    note->lease_s = lease_s;
    return true;
}
static void second_unmap(uint16_t port, const struct at_portmap_note *note)
{
    (void)unlink(second);
}
static bool ipv6_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    note->outside = (struct at_endpoint){.ip = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}, .ip_bytes = 16, .port = port};
    note->lease_s = lease_s;
    return true;
}
static bool lying_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    note->outside = (struct at_endpoint){.ip = {127, 0, 0, 1}, .ip_bytes = 4, .port = 22};
    note->lease_s = lease_s;
    return true;
}
static void no_unmap(uint16_t port, const struct at_portmap_note *note) {}

static const struct at_portmap_protocol gateways[] = {{"absent", absent_map, no_unmap, false},
                                                      {"kind", kind_map, kind_unmap, true},
                                                      {"hanging", hanging_map, no_unmap, false},
                                                      {"endless", endless_map, no_unmap, false},
                                                      {"lying", lying_map, no_unmap, false},
                                                      {"kind", kind_map, kind_unmap, true},
                                                      {"once", once_map, kind_unmap, true},
                                                      {"second", second_map, second_unmap, true},
                                                      {"hanging", once_then_hanging_map, kind_unmap, true},
                                                      {"ipv6", ipv6_map, no_unmap, false},
                                                      {"kind", kind_map, kind_unmap, true},
                                                      {"once", once_map, kind_unmap, true}};
enum {
    ABSENT,
    KIND,
    HANGING,
    ENDLESS,
    LYING,
    LYING_THEN_KIND,
    ONCE,
    SECOND,
    ONCE_HANGING,
    IPV6,
    IPV6_THEN_KIND,
    ONCE_ALONE
};

static void on_note(void *user, const struct at_portmap_note *note)
{
    last = *note;
    if (notes++ == 0) earliest = *note;
}

static struct at_portmap *start(int first, size_t count, struct at_portmap_options o)
{
    struct at_portmap *p = NULL;
    notes = 0;
    forget(marker);
    forget(second);
    o.protocols = &gateways[first];
    o.protocol_count = count;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(at_portmap_start(&loop, &o, on_note, NULL, NULL, &p), AT_OK);
    assert_int_equal(at_portmap_ask(p, "0.0.0.0", 4242, NULL), AT_OK);
    return p;
}
static void stop(struct at_portmap *p)
{
    at_portmap_stop(p);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}
static void wait_notes(int n)
{
    while (notes < n && uv_run(&loop, UV_RUN_ONCE) != 0) {
    }
    assert_true(notes >= n);
}
static void wait_file(const char *name, bool there)
{
    for (uint64_t end = at_clock_mono_ms() + 60000; (access(name, F_OK) == 0) != there; usleep(2000))
        if (at_clock_mono_ms() > end) fail_msg("the mapping is %s", there ? "not made" : "not removed");
}
static void wait_marker(bool there)
{
    wait_file(marker, there);
}

static void mapped_renewed_and_removed(void **state)
{
    struct at_portmap *p = start(ABSENT, 2, (struct at_portmap_options){.lease_s = 2, .renew_s_min = 1});
    wait_notes(1);
    assert_true(earliest.mapped && earliest.outside.port == 4242 && earliest.outside.ip[3] == 7);
    assert_int_equal(earliest.lease_s, 2);
    assert_string_equal(earliest.text, "kind");
    wait_notes(2); /* renewed: the gateway gave another port */
    assert_true(last.mapped && last.outside.port > 4242);
    wait_marker(true);
    stop(p);
    wait_marker(false);
}

/* A router that was started anew has forgotten the mapping: it is not left alone for half of a long lease. */
static void a_long_lease_is_renewed_too(void **state)
{
    struct at_portmap_options often = {.lease_s = 86400, .renew_s_first = 1, .renew_s_min = 1, .retry_s = 1};
    struct at_portmap *p = start(KIND, 1, often);
    wait_notes(3); /* made, looked at once more, and then renewed */
    assert_true(last.mapped && last.lease_s == 86400);
    stop(p);
    wait_marker(false);
}

static void nobody_answers(void **state)
{
    struct at_portmap *p = start(ABSENT, 1, (struct at_portmap_options){0});
    wait_notes(1);
    assert_false(last.mapped);
    assert_string_equal(last.text, "absent: nobody answers");
    stop(p);
}

static void a_gateway_has_so_much_time_and_memory(void **state)
{
    struct at_portmap *p = start(HANGING, 1, (struct at_portmap_options){.question_s = 1});
    wait_notes(1);
    assert_false(last.mapped);
    assert_non_null(strstr(last.text, "in time"));
    stop(p);
#if !AT_SANITIZED /* they take their memory beforehand, so that no limit holds what is allocated from it */
    p = start(ENDLESS, 1, (struct at_portmap_options){0});
    wait_notes(1);
    assert_false(last.mapped);
    print_message("%s\n", last.text);
    assert_non_null(strstr(last.text, "out of memory"));
    stop(p);
#endif
    p = start(LYING, 1, (struct at_portmap_options){0});
    wait_notes(1);
    assert_false(last.mapped);
    assert_non_null(strstr(last.text, "no address"));
    stop(p);
}

/* One useless answer is no end: the next protocol has its turn. An IPv6 address's first bytes are no IPv4 address. */
static void a_useless_answer_is_passed_over(void **state)
{
    for (int first = LYING; first <= IPV6; first += IPV6 - LYING) {
        struct at_portmap *p = start(first, 2, (struct at_portmap_options){0});
        wait_notes(1);
        assert_true(earliest.mapped && earliest.outside.ip[0] == 203);
        assert_string_equal(earliest.text, "kind");
        stop(p);
        wait_marker(false);
    }
    struct at_portmap_note note = {.mapped = true, .lease_s = 60}, back;
    uint8_t bytes[AT_PORTMAP_NOTE_BYTES];
    note.outside = (struct at_endpoint){.ip = {0x20, 1, 13, 184}, .ip_bytes = 16, .port = 9};
    at_portmap_note_encode(&note, bytes);
    assert_true(at_portmap_note_decode(bytes, &back) != AT_OK || !back.mapped);
}

/* What was mapped is removed at the end, although the last renewal was refused or not answered. */
static void a_failed_renewal_forgets_no_mapping(void **state)
{
    const struct at_portmap_options often = {.lease_s = 2, .renew_s_min = 1, .retry_s = 1, .question_s = 2};
    for (int which = ONCE_HANGING; which <= ONCE_ALONE; which += ONCE_ALONE - ONCE_HANGING) {
        struct at_portmap *p = start(which, 1, often);
        wait_notes(2);
        assert_true(earliest.mapped && !last.mapped);
        wait_marker(true);
        stop(p);
        wait_marker(false);
    }
    struct at_portmap *p = start(ONCE, 2, often); /* and removed when another one takes its place */
    wait_notes(2);
    assert_true(earliest.mapped && last.mapped);
    assert_string_equal(last.text, "second");
    wait_marker(false);
    wait_file(second, true);
    stop(p);
    wait_file(second, false);
}

/* kill -9 of the node: the mapping goes all the same. */
static void removed_when_the_node_is_killed(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)start(KIND, 1, (struct at_portmap_options){0});
        uv_run(&loop, UV_RUN_DEFAULT);
        _exit(0);
    }
    wait_marker(true);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    wait_marker(false);
}

static void only_where_it_helps(void **state)
{
    struct at_portmap *p = NULL;
    struct at_diag diag = {0};
    static const char *const hosts[] = {"127.0.0.1", "127.9.9.9", "localhost", "::1", "2001:db8::1", "no number"};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(at_portmap_start(&loop, NULL, on_note, NULL, &diag, &p), AT_OK);
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
        assert_int_equal(at_portmap_ask(p, hosts[i], 1, &diag), AT_E_USAGE);
    assert_non_null(strstr(diag.text, "127.0.0.1"));
    stop(p);
}

static void only_devices_of_this_net(void **state)
{
    static const char *const good[] = {"http://192.168.1.1:1900/root.xml", "http://10.0.0.1/", "http://172.16.3.4"};
    static const char *const bad[] = {"http://127.0.0.1:80/x",
                                      "http://203.0.113.7/x",
                                      "https://192.168.1.1/x",
                                      "http://router.lan/x",
                                      "http://192.168.1.1@x.y/",
                                      "http://192.168.1/x",
                                      "http://169.254.1.1/x",
                                      "http://[fd00::1]/x",
                                      "http://192.168.1.1.1/x",
                                      "http://0.0.0.0/x",
                                      "http://",
                                      "192.168.1.1"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(at_portmap_url_ok(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (at_portmap_url_ok(bad[i])) fail_msg("%s", bad[i]);
}

static void notes_are_checked(void **state)
{
    struct at_portmap_note note = {.mapped = true, .lease_s = 60, .text = "NAT-PMP"}, back;
    uint8_t bytes[AT_PORTMAP_NOTE_BYTES];
    note.outside = (struct at_endpoint){.ip = {10, 0, 0, 1}, .ip_bytes = 4, .port = 65535};
    at_portmap_note_encode(&note, bytes);
    assert_int_equal(at_portmap_note_decode(bytes, &back), AT_OK);
    assert_true(back.mapped && at_endpoint_eq(&back.outside, &note.outside) && back.lease_s == 60);
    assert_string_equal(back.text, "NAT-PMP");
    for (size_t i = 0; i < sizeof bytes; i++) { /* one wrong byte: refused, or another note */
        bytes[i] ^= 0x81;
        if (at_portmap_note_decode(bytes, &back) == AT_OK)
            assert_true((i >= 2 && i < 12) || (i >= 12 && memcmp(back.text, note.text, sizeof note.text) != 0));
        bytes[i] ^= 0x81;
    }
    bytes[12] = 7; /* a bell */
    assert_int_equal(at_portmap_note_decode(bytes, &back), AT_E_PEER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(mapped_renewed_and_removed),
                                       cmocka_unit_test(a_long_lease_is_renewed_too),
                                       cmocka_unit_test(nobody_answers),
                                       cmocka_unit_test(a_gateway_has_so_much_time_and_memory),
                                       cmocka_unit_test(removed_when_the_node_is_killed),
                                       cmocka_unit_test(a_useless_answer_is_passed_over),
                                       cmocka_unit_test(a_failed_renewal_forgets_no_mapping),
                                       cmocka_unit_test(only_devices_of_this_net),
                                       cmocka_unit_test(only_where_it_helps),
                                       cmocka_unit_test(notes_are_checked)};
    char dir[] = "/tmp/atoll_portmap_XXXXXX";
    at_sys_process_init();
    if (!mkdtemp(dir)) return 1;
    snprintf(marker, sizeof marker, "%s/mapped", dir);
    snprintf(second, sizeof second, "%s/second", dir);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    forget(marker);
    forget(second);
    (void)rmdir(dir);
    return failed;
}
