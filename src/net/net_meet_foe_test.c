/* What strangers, liars and greedy arrangers get from a node: nothing. */
#include "net/net_meet_util.h"

#include "net/tls.h"
#include "wire/message.h"

static void say(struct side *s, struct at_link_id link, const struct at_meet *m)
{
    struct at_message message = {.kind = AT_MSG_MEET, .meet = *m};
    struct at_buf buf = {0};
    assert_int_equal(at_message_encode(&message, &buf), AT_OK);
    assert_int_equal(at_net_send(s->net, link, AT_FRAME_CONTROL, at_buf_span(&buf)), AT_OK);
    at_buf_release(&buf);
}

static int raw_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    return fd;
}
static int raw_connect(uint16_t port)
{
    struct sockaddr_storage sa;
    int fd = raw_socket();
    assert_true(at_address_numeric("127.0.0.1", port, &sa));
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(struct sockaddr_in)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}
static bool raw_closed(int fd)
{
    char buf[4096];
    ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static void unknown_tokens_are_turned_away(void **state)
{
    struct at_meet_token token;
    uint8_t prelude[AT_MEET_PRELUDE_BYTES];
    world(&(struct at_net_options){.meets_max = 8, .handshake_ms = 2500}, "127.0.0.1");
    memset(&token, 3, sizeof token);
    at_meet_prelude(&token, prelude);
    int fd = raw_connect(y.port);
    for (size_t i = 0; i < sizeof prelude; i++) { /* in pieces */
        assert_int_equal(send(fd, prelude + i, 1, MSG_NOSIGNAL), 1);
        for (int k = 0; k < 3; k++) step();
    }
    RUN_UNTIL(raw_closed(fd));
    close(fd);
    fd = raw_connect(y.port); /* half of one: nobody waits for ever */
    assert_int_equal(send(fd, prelude, 11, MSG_NOSIGNAL), 11);
    RUN_UNTIL(raw_closed(fd));
    close(fd);
    fd = raw_connect(y.port); /* begins like one, and is none */
    assert_int_equal(send(fd, "ATOLL over HTTP/1.1\r\n\r\n", 23, MSG_NOSIGNAL), 23);
    RUN_UNTIL(raw_closed(fd));
    close(fd);
    assert_true(a.downs == 0 && b.downs == 0 && y.downs == 0 && at_net_stats(y.net).links == 2);
}

/* Words about meetings that nobody asked for change nothing; too many invitations are refused, and cost little. */
static void words_out_of_place(void **state)
{
    struct at_meet m = {.number = 1, .how = AT_MEET_HOW_PUNCH};
    world(NULL, "127.0.0.1");
    struct at_link_id to_b = y.link;
    assert_true(at_node_id_eq(&y.peer, &b.key.id) || at_node_id_eq(&y.peer, &a.key.id));
    struct side *victim = at_node_id_eq(&y.peer, &b.key.id) ? &b : &a;
    memset(&m.node, 5, sizeof m.node);
    m.endpoint = (struct at_endpoint){.ip = {127, 0, 0, 1}, .ip_bytes = 4, .port = 9};
    for (int kind = AT_MEET_GO; kind < AT_MEET_KIND_COUNT; kind++) {
        m.kind = (enum at_meet_kind)kind;
        for (int yours = 0; yours < 2; yours++) {
            m.yours = yours != 0;
            say(&y, to_b, &m);
            say(victim, victim->to_y, &m);
        }
    }
    m.kind = AT_MEET_AGREE;
    say(victim, victim->to_y, &m);
    m.kind = AT_MEET_INVITE;
    for (m.number = 100; m.number < 200; m.number++) say(&y, to_b, &m);
    assert_int_equal(at_net_send(y.net, to_b, AT_FRAME_CONTROL, at_span("that was all", 12)), AT_OK);
    RUN_UNTIL(victim->frames == 1);
    assert_true(at_net_stats(victim->net).links <= 1 + 4);
    RUN_UNTIL(at_net_stats(victim->net).links == 1); /* Y knows none of these tokens */
    assert_true(a.downs == 0 && b.downs == 0 && y.downs == 0);
}

static void pose(int fd, struct at_tls *tls, struct at_buf *out, size_t *prelude)
{
    uint8_t buf[4096];
    bool done;
    size_t want = *prelude < AT_MEET_PRELUDE_BYTES ? AT_MEET_PRELUDE_BYTES - *prelude : sizeof buf;
    ssize_t n = recv(fd, buf, want, MSG_DONTWAIT);
    if (n > 0 && *prelude < AT_MEET_PRELUDE_BYTES)
        *prelude += (size_t)n;
    else if (n > 0)
        assert_int_equal(at_tls_feed(tls, at_span(buf, (size_t)n)), AT_OK);
    if (*prelude < AT_MEET_PRELUDE_BYTES) return;
    if (at_tls_handshake(tls, &done) != AT_OK) return; /* B has refused */
    assert_int_equal(at_tls_take(tls, out), AT_OK);
    ssize_t put = out->n ? send(fd, out->p, out->n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    if (put > 0) at_buf_consume(out, (size_t)put);
}

/* An arranger that answers in the asker's place: Y invites B "to A", and somebody with another key waits. */
static void an_arranger_cannot_pose(void **state)
{
    struct at_keypair liar;
    struct at_tls_ctx *ctx = NULL;
    struct at_tls tls;
    struct at_buf out = {0};
    size_t prelude = 0;
    int fd = -1;
    world(NULL, "127.0.0.1");
    link_by_bridge();
    struct at_meet invite = {.kind = AT_MEET_INVITE, .number = 1, .how = AT_MEET_HOW_RELAY, .node = a.key.id};
    say(&y, y.link, &invite);
    RUN_UNTIL((fd = accept(bridge.listener, NULL, NULL)) >= 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(at_keypair_generate(&liar), AT_OK);
    assert_int_equal(at_tls_ctx_init(&liar, NULL, &ctx), AT_OK);
    assert_int_equal(at_tls_init(&tls, ctx, true, &b.key.id), AT_OK);
    RUN_UNTIL((pose(fd, &tls, &out, &prelude), at_net_stats(b.net).refused == 1));
    assert_non_null(strstr(at_net_stats(b.net).refused_reason, "another key"));
    assert_int_equal(b.ups, 2);
    close(fd);
    at_tls_release(&tls);
    at_tls_ctx_release(ctx);
    at_buf_release(&out);
}

/* Y says everything that there is about meetings, on a link that it dialed and on one that the victim dialed. */
static int say_everything(struct side *victim)
{
    struct at_link_id l[2];
    struct at_meet m = {.number = 1, .how = AT_MEET_HOW_PUNCH, .reason = "no"};
    int said = 0;
    assert_int_equal(at_net_listen(victim->net, "127.0.0.1", 0, NULL, &victim->port), AT_OK);
    l[0] = y.link;
    assert_int_equal(at_net_dial(y.net, "127.0.0.1", victim->port, &victim->key.id, &l[1]), AT_OK);
    RUN_UNTIL(victim->ups == 2 && y.ups == 2);
    memset(&m.node, 5, sizeof m.node);
    m.endpoint = (struct at_endpoint){.ip = {127, 0, 0, 1}, .ip_bytes = 4, .port = 9000};
    for (int i = 0; i < 2; i++)
        for (int kind = AT_MEET_ASK; kind < AT_MEET_KIND_COUNT; kind++, said++) {
            m.kind = (enum at_meet_kind)kind;
            say(&y, l[i], &m);
        }
    for (int i = 0; i < 2; i++) assert_int_equal(at_net_send(y.net, l[i], AT_FRAME_CONTROL, at_span("all", 3)), AT_OK);
    return said;
}

/* A node that nobody told to take part has nothing to do with it: its caller gets the words, and no answer is sent. */
static void off_by_default(void **state)
{
    struct at_link_id l;
    a.alone = y.alone = true; /* so that Y's caller sees whatever A would answer */
    side_init(&y, "127.0.0.1");
    side_init(&a, NULL);
    assert_int_equal(at_net_dial(a.net, "127.0.0.1", y.port, &y.key.id, &a.to_y), AT_OK);
    RUN_UNTIL(a.ups == 1 && y.ups == 1);
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_PUNCH, &y.key.id, &l), AT_E_USAGE);
    assert_int_equal(at_net_look(a.net, a.to_y), AT_E_USAGE);
    int said = say_everything(&a);
    RUN_UNTIL(a.frames == said + 2);
    for (int i = 0; i < 100; i++) step();
    assert_true(y.frames == 0 && at_net_stats(a.net).links == 2 && a.downs == 0);
    teardown(NULL);
    struct at_net *net = NULL; /* and none arranges without saying for whom */
    uv_loop_t loop;
    struct at_keypair key;
    struct at_diag diag = {0};
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(at_keypair_generate(&key), AT_OK);
    assert_int_equal(at_net_init(&loop, &key, &(struct at_net_options){.meets_max = 1}, on_event, NULL, &diag, &net),
                     AT_E_USAGE);
    assert_non_null(strstr(diag.text, "allow"));
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* Not invited without the option, by who dialed us, or by this machine. */
static void who_may_invite(void **state)
{
    struct at_link_id l;
    world(NULL, "127.0.0.1");
    side_release(&b);
    b.no_loopback = true;
    side_init(&b, NULL);
    assert_int_equal(at_net_dial(b.net, "127.0.0.1", y.port, &y.key.id, &b.to_y), AT_OK);
    RUN_UNTIL(b.ups == 1 && y.ups == 3);
    assert_int_equal(at_net_meet(b.net, b.to_y, AT_MEET_HOW_PUNCH, &a.key.id, &l), AT_E_USAGE);
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_PUNCH, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 1);
    assert_non_null(strstr(a.reason, "by this machine"));
    teardown(NULL);
    y.alone = true;
    side_init(&y, "127.0.0.1");
    side_init(&a, "127.0.0.1");
    assert_int_equal(at_net_dial(y.net, "127.0.0.1", a.port, &a.key.id, &l), AT_OK);
    RUN_UNTIL(a.ups == 1 && y.ups == 1);
    struct at_meet invite = {.kind = AT_MEET_INVITE, .number = 1, .how = AT_MEET_HOW_RELAY, .node = b.key.id};
    say(&y, l, &invite);
    RUN_UNTIL(y.frames == 1);
    assert_non_null(strstr(y.last, "dialed itself"));
    assert_int_equal(at_net_stats(a.net).links, 1);
    assert_int_equal(at_net_meet(a.net, a.link, AT_MEET_HOW_RELAY, &b.key.id, &l), AT_E_USAGE);
}

/* Many links to arrangers, many invitations on each: strangers' meetings take few links, and never the last. */
static void invitations_take_few_links(void **state)
{
    enum { LINKS = 3 };
    struct at_link_id l[LINKS], of_y[LINKS];
    struct at_meet invite = {.kind = AT_MEET_INVITE, .how = AT_MEET_HOW_PUNCH};
    memset(&invite.node, 5, sizeof invite.node);
    side_init(&y, "127.0.0.1");
    side_init(&a, NULL);
    for (int i = 0; i < LINKS; i++) {
        assert_int_equal(at_net_dial(a.net, "127.0.0.1", y.port, &y.key.id, &l[i]), AT_OK);
        RUN_UNTIL(a.ups == i + 1 && y.ups == i + 1);
        of_y[i] = y.link;
    }
    for (int i = 0; i < LINKS; i++) {
        for (invite.number = 1; invite.number <= 10; invite.number++) say(&y, of_y[i], &invite);
        assert_int_equal(at_net_send(y.net, of_y[i], AT_FRAME_CONTROL, at_span("all", 3)), AT_OK);
    }
    uint32_t most = 0;
    while (a.frames < LINKS) {
        uint32_t now = at_net_stats(a.net).links;
        if (now > most) most = now;
        RUN_UNTIL(at_net_stats(a.net).links != now || a.frames == LINKS);
    }
    if (at_net_stats(a.net).links > most) most = at_net_stats(a.net).links;
    if (most > LINKS + 4) fail_msg("%u links for %d arrangers' invitations", most - LINKS, LINKS);
    teardown(NULL);
    struct at_link_id meeting;
    b.opt.links_max = 4;
    side_init(&b, NULL);
    y.opt.meets_max = y.opt.relays_max = 8;
    side_init(&y, "127.0.0.1");
    side_init(&a, NULL);
    for (int i = 0; i < LINKS; i++) assert_int_equal(at_net_dial(b.net, "127.0.0.1", y.port, &y.key.id, &l[i]), AT_OK);
    assert_int_equal(at_net_dial(a.net, "127.0.0.1", y.port, &y.key.id, &a.to_y), AT_OK);
    RUN_UNTIL(a.ups == 1 && b.ups == LINKS && y.ups == LINKS + 1);
    assert_int_equal(at_net_meet(a.net, a.to_y, AT_MEET_HOW_RELAY, &b.key.id, &meeting), AT_OK);
    RUN_UNTIL(a.downs == 1);
    assert_non_null(strstr(a.reason, "no link is free"));
}

/* Y invites B to a punch by the bridge's link, takes its probe, and sends it to that port. The probe. */
static int punch_to(uint16_t port)
{
    struct at_meet m = {.kind = AT_MEET_INVITE, .number = 1, .how = AT_MEET_HOW_PUNCH};
    char prelude[AT_MEET_PRELUDE_BYTES];
    int fd = -1;
    memset(&m.node, 5, sizeof m.node);
    say(&y, y.link, &m);
    RUN_UNTIL((fd = accept(bridge.listener, NULL, NULL)) >= 0);
    RUN_UNTIL(recv(fd, prelude, sizeof prelude, MSG_DONTWAIT | MSG_PEEK) == (ssize_t)sizeof prelude);
    assert_int_equal(recv(fd, prelude, sizeof prelude, MSG_DONTWAIT), sizeof prelude);
    m.kind = AT_MEET_PUNCH;
    m.endpoint = (struct at_endpoint){.ip = {127, 0, 0, 1}, .ip_bytes = 4, .port = port};
    say(&y, y.link, &m);
    return fd;
}

/* B is sent to a port where something else answers, and knows at once: its probe stays open for as long as it would
 * otherwise, and no word goes to Y. */
static void a_probe_tells_nothing(void **state)
{
    uint16_t port;
    for (uint32_t ms = 30000; ms > 0; ms = ms == 30000 ? 300 : 0) {
        world(NULL, "127.0.0.1");
        side_release(&b);
        y.ups--;
        b.opt.punch_ms = ms;
        side_init(&b, NULL);
        assert_int_equal(at_net_dial(b.net, "127.0.0.1", y.port, &y.key.id, &b.to_y), AT_OK);
        RUN_UNTIL(b.ups == 1 && y.ups == 2);
        link_by_bridge();
        int other = raw_listen(&port), fd = punch_to(port), met = -1;
        if (ms == 30000) {
            RUN_UNTIL((met = accept(other, NULL, NULL)) >= 0);
            assert_int_equal(send(met, "SSH-2.0-something\r\n", 19, MSG_NOSIGNAL), 19);
            RUN_UNTIL(at_net_stats(b.net).refused == 1);
            for (int i = 0; i < 100; i++) step();
            assert_false(raw_closed(fd));
            close(met);
        } else {
            RUN_UNTIL(raw_closed(fd)); /* and then it closes */
        }
        close(fd);
        close(other);
        teardown(NULL);
    }
}

static void no_punch_to_a_port_of_the_system(void **state)
{
    world(NULL, "127.0.0.1");
    link_by_bridge();
    int fd = punch_to(22);
    RUN_UNTIL(at_net_stats(b.net).refused == 1 && raw_closed(fd));
    assert_non_null(strstr(at_net_stats(b.net).refused_reason, "a port of the system's"));
    close(fd);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, teardown)
    const struct CMUnitTest tests[] = {
        CASE(unknown_tokens_are_turned_away),
        CASE(words_out_of_place),
        CASE(an_arranger_cannot_pose),
        CASE(off_by_default),
        CASE(who_may_invite),
        CASE(invitations_take_few_links),
        CASE(a_probe_tells_nothing),
        CASE(no_punch_to_a_port_of_the_system),
    };
    at_sys_process_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
