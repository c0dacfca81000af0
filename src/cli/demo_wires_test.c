/* The wires between members, with plain sockets as members. Whether a cut carries nothing is seen by what still goes the
 * other way meanwhile: the wires' one thread takes both in turn. What shall come is awaited for a minute. */
#include "cli/demo_wires.h"

#include "os/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#define MEMBERS 3

static struct at_wires *wires;
static int listener[MEMBERS];

static struct sockaddr_in parse(const char *text)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    char host[AT_WIRES_TEXT];
    snprintf(host, sizeof host, "%s", text);
    char *colon = strchr(host, ':');
    assert_non_null(colon);
    *colon = 0;
    assert_int_equal(inet_pton(AF_INET, host, &sa.sin_addr), 1);
    sa.sin_port = htons((uint16_t)atoi(colon + 1));
    return sa;
}

static int patient_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval minute = {.tv_sec = 60};
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof minute), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &minute, sizeof minute), 0);
    return fd;
}

static struct sockaddr_in place(int member, bool inner)
{
    char text[2][AT_WIRES_TEXT];
    at_wires_place(wires, member, text[0], text[1]);
    return parse(text[inner ? 0 : 1]);
}

static int setup(void **state)
{
    int on = 1;
    assert_int_equal(at_wires_start(MEMBERS, NULL, &wires), AT_OK);
    for (int i = 0; i < MEMBERS; i++) {
        struct sockaddr_in sa = place(i, true);
        listener[i] = patient_socket();
        assert_int_equal(setsockopt(listener[i], SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
        assert_int_equal(bind(listener[i], (struct sockaddr *)&sa, sizeof sa), 0);
        assert_int_equal(listen(listener[i], 8), 0);
    }
    return 0;
}

static int teardown(void **state)
{
    at_wires_stop(wires);
    for (int i = 0; i < MEMBERS; i++) close(listener[i]);
    return 0;
}

/* Member `from` dials what `to` tells: the system accepts for the wire, whether it carries or not. */
static int dial(int from, int to)
{
    struct sockaddr_in own = place(from, true), sa = place(to, false);
    int fd = patient_socket();
    own.sin_port = 0;
    assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof own), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

/* What `to` accepts comes from that member's own address. */
static int answer(int from, int to)
{
    struct sockaddr_in sa, own = place(from, true);
    socklen_t bytes = sizeof sa;
    struct timeval minute = {.tv_sec = 60};
    int fd = accept(listener[to], (struct sockaddr *)&sa, &bytes);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof minute), 0);
    assert_int_equal(sa.sin_addr.s_addr, own.sin_addr.s_addr);
    return fd;
}

static void say(int fd, const char *word)
{
    assert_int_equal(send(fd, word, strlen(word), MSG_NOSIGNAL), strlen(word));
}

static void hear(int fd, const char *word)
{
    char got[64] = {0};
    assert_int_equal(recv(fd, got, strlen(word), MSG_WAITALL), strlen(word));
    assert_string_equal(got, word);
}

static void hear_nothing(int fd)
{
    char got[64];
    assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), -1);
    assert_true(errno == EAGAIN || errno == EWOULDBLOCK);
}

static void hear_end(int fd)
{
    char got[64];
    ssize_t n = recv(fd, got, sizeof got, 0);
    assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
}

/* Words go from a to b while nothing comes from b to a. */
static void only(int a, int b)
{
    for (int i = 0; i < 20; i++) {
        say(a, "still here");
        hear(b, "still here");
        hear_nothing(a);
    }
}

static void test_carries(void **state)
{
    int a = dial(0, 1), b = answer(0, 1);
    say(a, "call me");
    hear(b, "call me");
    say(b, "Ishmael");
    hear(a, "Ishmael");
    assert_int_equal(shutdown(a, SHUT_WR), 0); /* half a connection: the other half goes on */
    hear_end(b);
    say(b, "some years ago");
    hear(a, "some years ago");
    close(b);
    hear_end(a);
    close(a);
}

static void test_one_way(void **state)
{
    int a = dial(0, 1), b = answer(0, 1), c = dial(2, 1), d = answer(2, 1);
    say(a, "before");
    hear(b, "before");
    assert_int_equal(at_wires_cut(wires, 0, 1), 1);
    say(a, "held");
    only(b, a);
    say(c, "others talk");
    hear(d, "others talk");
    assert_int_equal(at_wires_cut(wires, 0, 1), 0); /* a second cut of the same: stopped already */
    assert_int_equal(at_wires_mend(wires, 0, 1), 0);
    only(b, a);
    assert_int_equal(at_wires_mend(wires, 0, 1), 4);
    hear(b, "held");
    int fds[] = {a, b, c, d};
    for (int i = 0; i < 4; i++) close(fds[i]);
}

/* Whoever dials in a cut, and whoever ends: the other hears of it when it is over. One way suffices. */
static void test_beginnings_and_ends(void **state)
{
    int a = dial(0, 1), b = answer(0, 1);
    say(a, "before");
    hear(b, "before");
    for (int way = 0; way < 2; way++) {
        assert_true(at_wires_cut(wires, way, 1 - way) >= 1);
        int c = dial(0, 1), other = dial(2, 1), e = answer(2, 1); /* the later one comes first */
        say(c, "hello");
        hear_nothing(e);
        (void)at_wires_mend(wires, way, 1 - way);
        int d = answer(0, 1);
        hear(d, "hello");
        int fds[] = {c, d, other, e};
        for (int i = 0; i < 4; i++) close(fds[i]);
    }
    struct linger at_once = {.l_onoff = 1};
    assert_true(at_wires_cut(wires, 1, 0) >= 1);
    assert_int_equal(setsockopt(b, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    close(b); /* as a machine does that dies */
    for (int i = 0; i < 20; i++) {
        int c = dial(2, 1), d = answer(2, 1);
        say(a, "who is dead takes nothing");
        hear_nothing(a);
        close(c);
        close(d);
    }
    (void)at_wires_mend(wires, 1, 0);
    hear_end(a);
    close(a);
}

static void test_strangers_and_nobody(void **state)
{
    struct sockaddr_in sa = place(1, false);
    int fd = patient_socket();
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0); /* from 127.0.0.1 */
    hear_end(fd);
    close(fd);
    close(listener[1]);
    fd = dial(0, 1); /* a member that is dead */
    hear_end(fd);
    close(fd);
    listener[1] = patient_socket();
}

/* Much, both ways at once, with cuts between: everything comes, in order. */
static void test_nothing_is_lost(void **state)
{
    enum { WORDS = 1 << 18, TURNS = 64 }; /* a turn fits in the system's buffers */
    static uint32_t out[2][WORDS / TURNS], in[WORDS / TURNS];
    int end[2];
    end[0] = dial(0, 1);
    end[1] = answer(0, 1);
    for (int t = 0; t < TURNS; t++) {
        if (t % 3 == 0) (void)at_wires_cut(wires, 0, 1);
        if (t % 4 == 0) (void)at_wires_cut(wires, 1, 0);
        for (int s = 0; s < 2; s++) {
            for (uint32_t i = 0; i < WORDS / TURNS; i++) out[s][i] = (uint32_t)(2 * t + s) * 1000003u + i;
            assert_int_equal(send(end[s], out[s], sizeof out[s], MSG_NOSIGNAL), sizeof out[s]);
        }
        if (t % 3 == 0) (void)at_wires_mend(wires, 0, 1);
        if (t % 4 == 0) (void)at_wires_mend(wires, 1, 0);
        for (int s = 0; s < 2; s++) {
            assert_int_equal(recv(end[1 - s], in, sizeof in, MSG_WAITALL), sizeof in);
            assert_memory_equal(in, out[s], sizeof in);
        }
    }
    close(end[0]);
    close(end[1]);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_carries),         CASE(test_one_way), CASE(test_beginnings_and_ends), CASE(test_strangers_and_nobody),
        CASE(test_nothing_is_lost),
    };
    at_sys_process_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
