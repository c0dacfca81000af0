/* Meetings among nodes that mean well, and how they end. */
#include "net/net_meet_util.h"

#include "net/link.h"

#include <sys/ioctl.h>
#include <unistd.h>

static void meet(enum at_meet_how how)
{
    struct at_link_id l;
    assert_int_equal(at_net_meet(a.net, a.to_y, how, &b.key.id, &l), AT_OK);
    RUN_UNTIL((a.ups == 2 && b.ups == 2) || a.downs);
    if (a.downs) fail_msg("A: %s; B: %s", a.reason, at_net_stats(b.net).refused_reason);
    assert_int_equal(a.link.v, l.v);
    assert_true(at_node_id_eq(&a.peer, &b.key.id) && at_node_id_eq(&b.peer, &a.key.id));
    assert_true(a.dialed && !b.dialed && a.way == b.way);
    assert_int_equal(a.way, how == AT_MEET_HOW_RELAY ? AT_NET_RELAYED : AT_NET_PUNCHED);
}

static void talk(void)
{
    assert_int_equal(at_net_send(a.net, a.link, AT_FRAME_CONTROL, at_span("call me", 7)), AT_OK);
    assert_int_equal(at_net_send(b.net, b.link, AT_FRAME_CONTROL, at_span("Ishmael", 7)), AT_OK);
    RUN_UNTIL(a.frames == 1 && b.frames == 1);
    assert_string_equal(b.last, "call me");
    assert_string_equal(a.last, "Ishmael");
}

/* As many bulk frames as A takes now. */
static void fill(uint64_t *sent)
{
    static uint8_t data[64 << 10];
    for (;;) {
        at_store_le64(data, *sent);
        if (at_net_send(a.net, a.link, AT_FRAME_BULK, at_span(data, sizeof data)) != AT_OK) return;
        *sent += sizeof data;
    }
}

static void a_relay(void **state)
{
    uint64_t sent = 0;
    world(NULL, "127.0.0.1");
    meet(AT_MEET_HOW_RELAY);
    talk();
    assert_int_equal(at_net_stats(y.net).meets, 1);
    assert_true(at_node_id_eq(&b.arranger, &y.key.id) && at_node_id_eq(&y.arranger, &y.key.id));
    assert_int_equal(y.ups, 2); /* legs are told to nobody */
    while (sent < 32 << 20) {
        int drains = a.drains;
        fill(&sent);
        RUN_UNTIL(a.drains > drains);
    }
    RUN_UNTIL(b.bulk_bytes == sent);
    assert_true(b.in_order && at_net_stats(y.net).relayed_bytes > sent);
    /* The arranger may lose its links to both: what it splices goes on until one end closes. */
    at_net_close(a.net, a.to_y, "not needed now");
    at_net_close(b.net, b.to_y, "not needed now");
    RUN_UNTIL(y.downs == 2 && a.downs == 1 && b.downs == 1);
    assert_int_equal(at_net_send(a.net, a.link, AT_FRAME_CONTROL, at_span("last words", 10)), AT_OK);
    at_net_close(a.net, a.link, "done");
    RUN_UNTIL(a.downs == 2 && b.downs == 2);
    assert_string_equal(b.last, "last words");
    assert_string_equal(a.reason, "done");
    RUN_UNTIL(at_net_stats(y.net).meets == 0 && at_net_stats(y.net).links == 0);
}

static void a_punch(void **state)
{
    struct at_endpoint seen;
    world(NULL, "127.0.0.1");
    assert_int_equal(at_net_seen(a.net, a.to_y, &seen), AT_E_NOT_FOUND); /* it is said only to who asks */
    assert_int_equal(at_net_look(a.net, a.to_y), AT_OK);
    RUN_UNTIL(at_net_seen(a.net, a.to_y, &seen) == AT_OK);
    assert_true(seen.ip_bytes == 4 && at_endpoint_loopback(&seen) && seen.port != 0);
    meet(AT_MEET_HOW_PUNCH);
    talk();
    assert_string_not_equal(a.address, b.address);
    assert_int_equal(strncmp(a.address, "127.0.0.1:", 10), 0);
    /* The probes stay for the punch's whole time: Y does not see when, and whether, it succeeded. */
    for (int i = 0; i < 100; i++) step();
    assert_true(at_net_stats(y.net).meets == 1 && at_net_stats(y.net).links == 4);
    side_release(&a);
    side_release(&b);
    RUN_UNTIL(at_net_stats(y.net).meets == 0 && at_net_stats(y.net).links == 0);
    assert_int_equal(at_net_stats(y.net).relayed_bytes, 0);
}

static bool has_ipv6(void)
{
    struct sockaddr_storage sa;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool has = fd >= 0 && at_address_numeric("::1", 0, &sa) &&
               bind(fd, (struct sockaddr *)&sa, sizeof(struct sockaddr_in6)) == 0;
    if (fd >= 0) close(fd);
    return has;
}

static void over_ipv6(void **state)
{
    if (!has_ipv6()) {
        print_message("no IPv6 here\n");
        skip();
    }
    for (int how = AT_MEET_HOW_RELAY; how < AT_MEET_HOW_COUNT; how++) {
        world(NULL, "::1");
        meet((enum at_meet_how)how);
        talk();
        assert_int_equal(strncmp(a.address, "[::1]:", 6), 0);
        teardown(NULL);
    }
    /* One listener for both families: who comes over IPv4 is seen with an IPv4 address. */
    struct at_link_id l;
    struct at_endpoint seen;
    side_init(&y, "::");
    side_init(&a, NULL);
    assert_int_equal(at_net_dial(a.net, "127.0.0.1", y.port, &y.key.id, &l), AT_OK);
    RUN_UNTIL(a.ups == 1 && y.ups == 1);
    assert_int_equal(at_net_look(a.net, l), AT_OK);
    RUN_UNTIL(at_net_seen(a.net, l, &seen) == AT_OK);
    assert_int_equal(seen.ip_bytes, 4);
    assert_int_equal(strncmp(y.address, "127.0.0.1:", 10), 0);
}

/* Y listens for both families and is dialed under an IPv4 address, and under the same one in its IPv6 disguise. */
static void a_punch_by_a_disguised_address(void **state)
{
    if (!has_ipv6()) {
        print_message("no IPv6 here\n");
        skip();
    }
    y.opt.meets_max = y.opt.relays_max = 8;
    y.opt.meet_ms = y.opt.handshake_ms = 30000;
    a.opt = b.opt = (struct at_net_options){.punch_ms = 30000, .meet_ms = 30000, .handshake_ms = 30000};
    side_init(&y, "::");
    side_init(&a, NULL);
    side_init(&b, NULL);
    assert_int_equal(at_net_dial(a.net, "127.0.0.1", y.port, &y.key.id, &a.to_y), AT_OK);
    assert_int_equal(at_net_dial(b.net, "::ffff:127.0.0.1", y.port, &y.key.id, &b.to_y), AT_OK);
    RUN_UNTIL(a.ups == 1 && b.ups == 1 && y.ups == 2);
    meet(AT_MEET_HOW_PUNCH);
    talk();
}

/* B agrees, and then cannot come: A hears why at once. */
static void who_agreed_and_cannot_come_says_so(void **state)
{
    struct at_link_id l;
    world(NULL, "127.0.0.1");
    link_by_bridge(); /* the newest link: the one that Y asks on */
    bridge_close(&bridge.listener);
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 1);
    /* By Y's word, or, where A had connected already, by the end of that: whichever comes first. */
    if (strstr(a.reason, "in time")) fail_msg("A waited: %s", a.reason);
    assert_int_equal(at_net_stats(y.net).meets, 0);
}

/* Frames over a line that passes on 4 KiB in 4 ms: their rate is that, or less where this machine is busy. Nothing is known of
 * the other direction, nor of a link that carried small frames only. */
static void a_rate_is_what_the_line_carried(void **state)
{
    enum { FRAMES = 4, BYTES = 256 << 10, SMALL = 16 << 10 };
    uint8_t *data = calloc(1, BYTES);
    assert_non_null(data);
    world(NULL, "127.0.0.1");
    for (uint64_t at = 0; at < 32 * SMALL; at += SMALL) {
        at_store_le64(data, at);
        assert_int_equal(at_net_send(y.net, y.link, AT_FRAME_BULK, at_span(data, SMALL)), AT_OK);
    }
    RUN_UNTIL(a.bulk_bytes + b.bulk_bytes == 32 * SMALL);
    assert_int_equal(at_net_rate_kbit(a.net, a.to_y) + at_net_rate_kbit(b.net, b.to_y), 0);
    link_by_bridge();
    bridge.pause_ms = 4;
    for (uint64_t i = 0; i < FRAMES; i++) {
        at_store_le64(data, i * BYTES);
        assert_int_equal(at_net_send(b.net, b.link, AT_FRAME_BULK, at_span(data, BYTES)), AT_OK);
    }
    RUN_UNTIL(y.bulk_bytes == FRAMES * BYTES);
    uint32_t line = 8 * BRIDGE_BYTES / 4, kbit = at_net_rate_kbit(y.net, y.link);
    print_message("%u kbit/s over a line of %u\n", kbit, line);
    assert_true(kbit > 0 && kbit <= line + line / 8 && y.in_order);
    assert_int_equal(at_net_rate_kbit(b.net, b.link), 0);
    assert_int_equal(at_net_rate_kbit(y.net, (struct at_link_id){1}), 0); /* no such link */
    free(data);
}

static int unread(struct side *s)
{
    uv_os_fd_t fd;
    int n = 0;
    assert_int_equal(uv_fileno((uv_handle_t *)&at_link_find(s->net, s->link)->tcp, &fd), 0);
    assert_int_equal(ioctl(fd, FIONREAD, &n), 0);
    return n;
}

/* While Y stands still two frames come, and then lie in the kernel: Y reads them in four turns, at the speed of memory. The
 * second one, which begins in the middle of that, says nothing of the line; those that come later do. */
static void what_lay_in_the_kernel_says_nothing_of_the_line(void **state)
{
    enum { FIRST = 100 << 10, NEXT = 96 << 10, TURN = 32 << 10, TRIES = 64 }; /* a read of 64 KiB ends a turn */
    uint8_t *data = calloc(1, FIRST);
    int wish = 4 << 20, has = 0;
    assert_non_null(data);
    world(&(struct at_net_options){.read_bytes_per_turn = TURN}, "127.0.0.1");
    assert_int_equal(uv_recv_buffer_size((uv_handle_t *)&y.net->listener, &wish), 0);
    assert_int_equal(uv_recv_buffer_size((uv_handle_t *)&y.net->listener, &has), 0);
    if (has < 2 * (FIRST + NEXT)) { /* half of it is the kernel's own */
        free(data);
        print_message("this kernel holds too little for a reader that stands still: %d bytes\n", has);
        skip();
    }
    link_by_bridge();
    bridge.pause_ms = 1;
    y.stands_still = true;
    at_store_le64(data, 0);
    assert_int_equal(at_net_send(b.net, b.link, AT_FRAME_BULK, at_span(data, FIRST)), AT_OK);
    at_store_le64(data, FIRST);
    assert_int_equal(at_net_send(b.net, b.link, AT_FRAME_BULK, at_span(data, NEXT)), AT_OK);
    RUN_UNTIL(unread(&y) >= FIRST + NEXT);
    y.stands_still = false;
    RUN_UNTIL(y.bulk_bytes == FIRST + NEXT);
    assert_int_equal(at_net_rate_kbit(y.net, y.link), 0); /* of the first one too little was missing after a turn */
    /* One that comes while this process gets no processor lies in the kernel whole, and says nothing either. */
    for (uint64_t at = FIRST + NEXT; at_net_rate_kbit(y.net, y.link) == 0; at += NEXT) {
        assert_true(at < FIRST + TRIES * NEXT);
        at_store_le64(data, at);
        assert_int_equal(at_net_send(b.net, b.link, AT_FRAME_BULK, at_span(data, NEXT)), AT_OK);
        RUN_UNTIL(y.bulk_bytes == at + NEXT);
    }
    assert_true(y.in_order);
    free(data);
}

static void nobody_at_the_other_end(void **state)
{
    struct at_link_id l;
    world(&(struct at_net_options){.meets_max = 8, .meet_ms = 600}, "127.0.0.1");
    b.stands_still = true;
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_PUNCH, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 1);
    assert_non_null(strstr(a.reason, "did not answer in time"));
    teardown(NULL);
    world(NULL, "127.0.0.1");
    b.veto = "not with you";
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 1);
    assert_non_null(strstr(a.reason, "not with you"));
    y.veto = "no member";
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 2);
    assert_non_null(strstr(a.reason, "no member"));
    y.veto = b.veto = NULL;
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &a.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 3);
    assert_non_null(strstr(a.reason, "itself"));
    struct at_keypair nobody;
    assert_int_equal(at_keypair_generate(&nobody), AT_OK);
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &nobody.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 4);
    assert_non_null(strstr(a.reason, "no link here"));
    assert_int_equal(at_net_stats(y.net).meets, 0);
    b.stands_still = true; /* the asker thinks better of it: neither the arranger nor the target goes on */
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &b.key.id, &l), AT_OK);
    RUN_UNTIL(at_net_stats(y.net).meets == 1);
    at_net_close(a.net, l, "not needed now");
    RUN_UNTIL(a.downs == 5 && at_net_stats(y.net).meets == 0);
    assert_string_equal(a.reason, "not needed now");
    b.stands_still = false;
    RUN_UNTIL(at_net_stats(b.net).refused > 0 && at_net_stats(b.net).links == 1);
    b.stands_still = true; /* the arranger dies while it is asked */
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &b.key.id, &l), AT_OK);
    RUN_UNTIL(at_net_stats(y.net).meets == 1);
    side_release(&y);
    b.stands_still = false;
    RUN_UNTIL(a.downs == 7 && b.downs == 1);
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &b.key.id, &l), AT_E_NOT_FOUND);
}

/* B stands still: A fills the buffers on the way, no more; when B reads again, everything is there, in order. */
static void a_slow_reader_slows_its_writer(void **state)
{
    uint64_t sent = 0, relayed = 0;
    world(NULL, "127.0.0.1");
    meet(AT_MEET_HOW_RELAY);
    b.stands_still = true;
    for (int quiet = 0; quiet < 3000; quiet++) {
        uint64_t before = sent, moved = at_net_stats(y.net).relayed_bytes;
        fill(&sent);
        step();
        if (sent != before || moved != relayed) quiet = 0;
        relayed = moved;
        if (sent > 64 << 20) fail_msg("%.1f MB are on the way", (double)sent / 1e6); /* buffers of four sockets: < 30 */
    }
    print_message("on the way to a reader that stands still: %.1f MB in A, the kernel and Y\n", (double)sent / 1e6);
    assert_true(at_net_stats(y.net).meets == 1 && a.downs == 0);
    b.stands_still = false;
    RUN_UNTIL(b.bulk_bytes == sent);
    assert_true(b.in_order);
}

/* A clock of the test's own: two relays with always something to say, in slices of any length, pass the budget and no more. */
static void a_relay_has_a_budget(void **state)
{
    enum { RATE = 1 << 20, READ = 64 << 10 };
    int64_t credit[2] = {0, 0}, passed = 0, past = 0;
    for (int slice = 1; slice <= 2000; slice++) {
        uint64_t ms = 1 + (uint64_t)slice * 7 % 40;
        past += (int64_t)ms;
        for (int i = 0; i < 2; i++) {
            credit[i] = at_relay_credit(credit[i], RATE, ms, 2);
            for (; credit[i] > 0; credit[i] -= READ) passed += READ; /* a read goes through while there is any credit */
        }
        assert_true(passed <= RATE * past / 1000 + 2 * READ);
    }
    assert_true(passed >= RATE * past / 1000 * 9 / 10);
    assert_true(at_relay_credit(0, RATE, 60000, 2) <= RATE / 16 + 1); /* after a standstill: no flood */
    uint64_t sent = 0;                                                /* and a relay of little goes on for all that */
    world(&(struct at_net_options){.meets_max = 1, .relay_bytes_per_s = RATE}, "127.0.0.1");
    meet(AT_MEET_HOW_RELAY);
    RUN_UNTIL((fill(&sent), b.bulk_bytes >= RATE / 2));
    assert_true(b.in_order && a.downs == 0);
}

static void a_silent_relay_ends(void **state)
{
    world(&(struct at_net_options){.meets_max = 8, .relay_idle_ms = 500}, "127.0.0.1");
    meet(AT_MEET_HOW_RELAY);
    a.stands_still = b.stands_still = true;
    RUN_UNTIL(at_net_stats(y.net).meets == 0);
    a.stands_still = b.stands_still = false;
    RUN_UNTIL(a.downs == 1 && b.downs == 1);
}

/* Bytes, time, and whoever may not meet any more. */
static void a_relay_has_an_end(void **state)
{
    uint64_t sent = 0;
    world(&(struct at_net_options){.relay_bytes_max = 1 << 20}, "127.0.0.1");
    meet(AT_MEET_HOW_RELAY);
    RUN_UNTIL((fill(&sent), a.downs == 1 && b.downs == 1));
    assert_true(at_net_stats(y.net).relayed_bytes <= 1 << 20);
    RUN_UNTIL(at_net_stats(y.net).meets == 0);
    teardown(NULL);
    world(&(struct at_net_options){.relay_life_ms = 3000}, "127.0.0.1");
    meet(AT_MEET_HOW_RELAY);
    RUN_UNTIL(a.downs == 1 && b.downs == 1 && at_net_stats(y.net).meets == 0);
    teardown(NULL);
    world(NULL, "127.0.0.1");
    meet(AT_MEET_HOW_RELAY);
    y.veto = "no member any more";
    RUN_UNTIL(a.downs == 1 && b.downs == 1 && at_net_stats(y.net).meets == 0);
}

static void bounds(void **state)
{
    struct at_link_id l;
    world(&(struct at_net_options){.meets_max = 2, .meets_per_node = 8}, "127.0.0.1");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &b.key.id, &l), AT_OK);
        RUN_UNTIL(a.ups == 2 + i && b.ups == 2 + i);
    }
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 1);
    assert_non_null(strstr(a.reason, "all meetings are taken"));
    for (int i = 0; i < 60; i++) assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_PUNCH, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 61);
    assert_non_null(strstr(a.reason, "asked too often"));
    teardown(NULL);
    world(&(struct at_net_options){.meets_max = 8, .meets_per_node = 1}, "127.0.0.1");
    meet(AT_MEET_HOW_RELAY);
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_PUNCH, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 1);
    assert_non_null(strstr(a.reason, "too many meetings of the node that asks"));
    /* A node that was not told to arranges nothing. */
    assert_int_equal(at_net_listen(a.net, "127.0.0.1", 0, NULL, &a.port), AT_OK);
    struct at_link_id to_a;
    assert_int_equal(at_net_dial(b.net, "127.0.0.1", a.port, &a.key.id, &to_a), AT_OK);
    RUN_UNTIL(b.ups == 3);
    assert_int_equal(at_net_meet(b.net, to_a, AT_MEET_HOW_RELAY, &y.key.id, &l), AT_OK);
    RUN_UNTIL(b.downs == 1);
    assert_non_null(strstr(b.reason, "arranges no meetings"));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_relay),
        CASE(a_punch),
        CASE(over_ipv6),
        CASE(a_punch_by_a_disguised_address),
        CASE(who_agreed_and_cannot_come_says_so),
        CASE(a_rate_is_what_the_line_carried),
        CASE(what_lay_in_the_kernel_says_nothing_of_the_line),
        CASE(nobody_at_the_other_end),
        CASE(a_slow_reader_slows_its_writer),
        CASE(a_relay_has_a_budget),
        CASE(a_silent_relay_ends),
        CASE(a_relay_has_an_end),
        CASE(bounds),
    };
    at_sys_process_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
