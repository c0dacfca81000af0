#include "net/net.h"

#include "net/tls.h"
#include "os/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* One node, with a loop of its own, so that a test can let it stand still. It keeps what the tests ask about. */
struct side {
    uv_loop_t loop;
    struct at_keypair key;
    struct at_net *net;
    uint16_t port;
    int ups, downs, drains, control_frames, bulk_frames, bulk_after_control;
    uint64_t bulk_bytes;
    bool stands_still, bulk_in_order;
    struct at_link_id link;
    struct at_node_id peer;
    bool dialed;
    at_err_t down_err;
    bool wrong_key;
    char reason[200], last[200];
};

static void on_frame(struct side *s, const struct at_net_event *ev)
{
    if (ev->frame_class == AT_FRAME_BULK) {
        s->bulk_in_order &= ev->payload.n >= 8 && at_load_le64(ev->payload.p) == (uint64_t)s->bulk_frames;
        s->bulk_frames++;
        s->bulk_bytes += ev->payload.n;
        s->bulk_after_control++;
    } else {
        s->control_frames++;
        s->bulk_after_control = 0;
        size_t n = ev->payload.n < sizeof s->last ? ev->payload.n : sizeof s->last - 1;
        memcpy(s->last, ev->payload.p, n);
        s->last[n] = 0;
    }
}

static void on_event(void *user, const struct at_net_event *ev)
{
    struct side *s = user;
    switch (ev->kind) {
    case AT_NET_UP:
        s->ups++;
        s->link = ev->link;
        s->peer = ev->peer;
        s->dialed = ev->dialed;
        break;
    case AT_NET_FRAME:
        on_frame(s, ev);
        break;
    case AT_NET_DRAIN:
        s->drains++;
        break;
    case AT_NET_DOWN:
        s->downs++;
        s->down_err = ev->err;
        s->wrong_key = ev->wrong_key;
        snprintf(s->reason, sizeof s->reason, "%s", ev->reason);
        break;
    }
}

static const struct at_net_options quick = {
    .handshake_ms = 2500, .ping_ms = 200, .silence_ms = 2500, .half_open_per_address = 8, .links_per_address = 10};

static void side_init(struct side *s)
{
    memset(s, 0, sizeof *s);
    s->bulk_in_order = true;
    assert_int_equal(uv_loop_init(&s->loop), 0);
    assert_int_equal(at_keypair_generate(&s->key), AT_OK);
    assert_int_equal(at_net_init(&s->loop, &s->key, &quick, on_event, s, NULL, &s->net), AT_OK);
    assert_int_equal(at_net_listen(s->net, "127.0.0.1", 0, NULL, &s->port), AT_OK);
    assert_true(s->port != 0);
}

static void side_release(struct side *s)
{
    at_net_release(s->net);
    s->net = NULL;
    assert_int_equal(uv_run(&s->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&s->loop), 0);
}

static struct side a, b;

static int two_sides(void **state)
{
    side_init(&a);
    side_init(&b);
    return 0;
}
static int release_sides(void **state)
{
    if (a.net) side_release(&a);
    if (b.net) side_release(&b);
    return 0;
}

static void step(void)
{
    struct side *s[2] = {&a, &b};
    for (int i = 0; i < 2; i++)
        if (s[i]->net && !s[i]->stands_still) uv_run(&s[i]->loop, UV_RUN_NOWAIT);
}
#define RUN_UNTIL(cond, ms)                                                                                            \
    do {                                                                                                               \
        uint64_t end_ = at_clock_mono_ms() + 5 * (ms); /* the machine may be busy with other things */                 \
        while (!(cond)) {                                                                                              \
            if (at_clock_mono_ms() > end_)                                                                             \
                fail_msg("did not come true in %d ms: %s (%s | %s)", (int)(ms), #cond, a.reason, b.reason);            \
            step();                                                                                                    \
        }                                                                                                              \
    } while (0)
#define RUN_FOR(ms)                                                                                                    \
    for (uint64_t end_ = at_clock_mono_ms() + (ms); at_clock_mono_ms() < end_;) step()

static void link_up(void)
{
    struct at_link_id l;
    assert_int_equal(at_net_dial(a.net, "127.0.0.1", b.port, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.ups == 1 && b.ups == 1, 5000);
    assert_int_equal(a.link.v, l.v);
}

static at_err_t send_text(struct side *s, const char *text)
{
    return at_net_send(s->net, s->link, AT_FRAME_CONTROL, at_span(text, strlen(text)));
}

static void test_two_nodes_know_each_other(void **state)
{
    link_up();
    assert_true(at_node_id_eq(&a.peer, &b.key.id) && at_node_id_eq(&b.peer, &a.key.id));
    assert_true(a.dialed && !b.dialed);
    assert_int_equal(send_text(&a, "from the dialer, longer than any ping"), AT_OK);
    assert_int_equal(send_text(&b, "back"), AT_OK);
    RUN_UNTIL(a.control_frames == 1 && b.control_frames == 1, 2000);
    assert_string_equal(a.last, "back");
    assert_string_equal(b.last, "from the dialer, longer than any ping");
    uint64_t start = at_clock_mono_ns();
    for (int i = 2; i <= 1000; i++) {
        assert_int_equal(send_text(&a, "there and back again, or so"), AT_OK);
        RUN_UNTIL(b.control_frames == i, 2000);
        assert_int_equal(send_text(&b, "back"), AT_OK);
        RUN_UNTIL(a.control_frames == i, 2000);
    }
    print_message("round trip: %.1f us with both ends on one core\n", (double)(at_clock_mono_ns() - start) / 999e3);
    RUN_UNTIL(at_net_rtt_us(a.net, a.link) > 0 && at_net_rtt_us(b.net, b.link) > 0, 3000);
    assert_in_range(at_net_rtt_least_us(a.net, a.link), 1, at_net_rtt_us(a.net, a.link));
    RUN_FOR(3500); /* longer than the silence limit: pings keep it up */
    assert_int_equal(a.downs + b.downs, 0);
    assert_int_equal(a.control_frames + b.control_frames, 2000); /* pings are not told */
}

static void test_close_delivers_what_was_queued(void **state)
{
    link_up();
    assert_int_equal(send_text(&a, "last words"), AT_OK);
    at_net_close(a.net, a.link, "done here");
    assert_int_equal(send_text(&a, "too late"), AT_E_NOT_FOUND);
    RUN_UNTIL(a.downs == 1 && b.downs == 1, 2000);
    assert_string_equal(b.last, "last words");
    assert_string_equal(a.reason, "done here");
    assert_int_equal(a.down_err, AT_OK);
    assert_int_equal(b.down_err, AT_E_PEER);
}

static void test_wrong_key_is_told(void **state)
{
    struct at_link_id l;
    struct at_keypair other;
    assert_int_equal(at_keypair_generate(&other), AT_OK);
    assert_int_equal(at_net_dial(a.net, "127.0.0.1", b.port, &other.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 1, 3000);
    assert_int_equal(a.down_err, AT_E_PEER);
    assert_non_null(strstr(a.reason, "another key"));
    assert_true(a.wrong_key);
    RUN_UNTIL(at_net_stats(b.net).refused == 1, 2000);
    assert_int_equal(b.ups, 0);
    /* and a node that dials itself notices */
    assert_int_equal(at_net_dial(a.net, "127.0.0.1", a.port, &a.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 2, 3000);
    assert_non_null(strstr(a.reason, "own key"));
    assert_false(a.wrong_key);
}

static void test_nobody_there(void **state)
{
    struct at_link_id l;
    uint16_t port = b.port;
    side_release(&b);
    assert_int_equal(at_net_dial(a.net, "127.0.0.1", port, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 1, 3000);
    assert_non_null(strstr(a.reason, "cannot reach"));
    assert_int_equal(at_net_dial(a.net, "no-such-host.invalid", port, &b.key.id, &l), AT_OK);
    RUN_UNTIL(a.downs == 2, 8000);
    assert_int_equal(a.down_err, AT_E_PEER);
}

static void test_port_in_use(void **state)
{
    struct at_net *net = NULL;
    struct at_diag diag = {0};
    uint16_t port = 0;
    assert_int_equal(at_net_init(&a.loop, &a.key, NULL, on_event, &a, NULL, &net), AT_OK);
    assert_int_equal(at_net_listen(net, "127.0.0.1", b.port, &diag, &port), AT_E_PORT);
    assert_non_null(strstr(diag.text, "in use"));
    char text[16];
    snprintf(text, sizeof text, "%u", b.port);
    assert_non_null(strstr(diag.text, text));
    at_net_release(net);
    RUN_FOR(50);
}

/* 64 MB through the bounded queue, in order; the sender fills, waits for DRAIN, fills. */
static void test_bulk_with_control_between(void **state)
{
    enum { FRAMES = 256, BYTES = 256 << 10 };
    uint8_t *data = malloc(BYTES);
    int sent = 0, refused = 0, control = 0;
    memset(data, 7, BYTES);
    link_up();
    uint64_t start = at_clock_mono_ns();
    while (b.bulk_frames < FRAMES) {
        while (sent < FRAMES) {
            at_store_le64(data, (uint64_t)sent);
            at_err_t err = at_net_send(a.net, a.link, AT_FRAME_BULK, at_span(data, BYTES));
            if (err) {
                assert_int_equal(err, AT_E_TOO_BIG);
                refused++;
                break;
            }
            if (++sent % 16 == 0 && send_text(&a, "a control frame between, no ping") == AT_OK) control++;
        }
        int drains = a.drains;
        RUN_UNTIL(a.drains > drains || b.bulk_frames == FRAMES, 20000);
    }
    double s = (double)(at_clock_mono_ns() - start) / 1e9;
    print_message("bulk: %.0f MB/s with both ends on one core\n", FRAMES * (double)BYTES / 1e6 / s);
    assert_true(b.bulk_in_order && refused > 0);
    assert_int_equal(b.bulk_bytes, (uint64_t)FRAMES * BYTES);
    RUN_UNTIL(b.control_frames == control, 2000);
    assert_int_equal(at_net_send(a.net, a.link, AT_FRAME_BULK, at_span(data, AT_NET_BULK_BYTES_MAX + 1)), AT_E_TOO_BIG);
    free(data);
}

/* A full bulk queue, a receiver that stood still, then one control frame: it overtakes all of the queue but what was
 * already handed to the kernel and one frame. */
static void test_control_overtakes_bulk(void **state)
{
    enum { BYTES = 64 << 10 };
    uint8_t *data = calloc(1, BYTES);
    uint64_t sent = 0;
    link_up();
    b.stands_still = true;
    for (int quiet = 0; quiet < 50;) { /* fill every buffer on the way, and then the queue */
        at_store_le64(data, sent);
        if (at_net_send(a.net, a.link, AT_FRAME_BULK, at_span(data, BYTES)) == AT_OK) {
            sent++;
            quiet = 0;
        } else {
            quiet++;
            step();
        }
    }
    assert_int_equal(send_text(&a, "overtake all of this, please"), AT_OK);
    b.stands_still = false;
    RUN_UNTIL((uint64_t)b.bulk_frames == sent, 20000);
    assert_int_equal(b.control_frames, 1);
    assert_true((size_t)b.bulk_after_control * BYTES >= ((size_t)4 << 20) - 2 * BYTES);
    assert_true(b.bulk_in_order);
    free(data);
}

static void test_peer_that_does_not_read(void **state)
{
    char *data = calloc(1, 1 << 20);
    at_err_t err = AT_OK;
    int sent = 0;
    link_up();
    b.stands_still = true;
    while (err == AT_OK && sent < 64) {
        err = at_net_send(a.net, a.link, AT_FRAME_CONTROL, at_span(data, 1 << 20));
        sent++;
        step();
    }
    assert_int_equal(err, AT_E_NOT_FOUND);
    assert_true(sent < 40);
    RUN_UNTIL(a.downs == 1, 1000);
    assert_non_null(strstr(a.reason, "does not read"));
    free(data);
}

static void test_death_is_seen_at_once(void **state)
{
    link_up();
    side_release(&b);
    RUN_UNTIL(a.downs == 1, 900);
    assert_non_null(strstr(a.reason, "gone")); /* not "silent": that takes its time */
}

static void test_silence_is_death(void **state)
{
    link_up();
    b.stands_still = true;
    uint64_t start = at_clock_mono_ms();
    RUN_UNTIL(a.downs == 1, 4000);
    uint64_t took = at_clock_mono_ms() - start;
    assert_non_null(strstr(a.reason, "silent"));
    assert_true(took >= 600);
}

/* A process that was stopped for longer than the silence limit must not blame its peers. */
static void test_own_sleep_is_no_silence(void **state)
{
    link_up();
    nanosleep(&(struct timespec){3, 500000000}, NULL);
    RUN_FOR(600);
    assert_int_equal(a.downs + b.downs, 0);
}

/* ---- strangers ---- */
static int raw_connect(uint16_t port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Has the other side closed? Reads and throws away what it says. */
static bool raw_closed(int fd)
{
    char buf[4096];
    ssize_t n;
    while ((n = recv(fd, buf, sizeof buf, MSG_DONTWAIT)) > 0) {
    }
    return n == 0 || (errno != EAGAIN && errno != EINTR);
}

static void test_ten_megabytes_of_noise(void **state)
{
    enum { BYTES = 10 << 20 };
    uint8_t *noise = malloc(BYTES);
    uint64_t x = 42;
    for (size_t i = 0; i < BYTES; i++)
        noise[i] = (uint8_t)((x = x * 6364136223846793005u + 1442695040888963407u) >> 56);
    link_up();
    for (int k = 0; k < 4; k++) { /* pure noise, and noise after the first bytes of a TLS record of any length */
        static const uint8_t head[4][5] = {{0}, {22, 3, 1, 0xff, 0xff}, {22, 3, 1, 0x3f, 0xff}, {23, 3, 3, 0x40, 0}};
        size_t at = 0;
        int fd = raw_connect(b.port);
        if (k) memcpy(noise, head[k], 5);
        uint64_t end = at_clock_mono_ms() + 4000;
        while (!raw_closed(fd) && at_clock_mono_ms() < end) {
            ssize_t n = at < BYTES ? send(fd, noise + at, BYTES - at, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
            if (n > 0) at += (size_t)n;
            step();
        }
        assert_true(raw_closed(fd));
        close(fd);
        RUN_UNTIL((int)at_net_stats(b.net).refused == k + 1, 2000);
        print_message("refused: %s\n", at_net_stats(b.net).refused_reason);
    }
    assert_int_equal(send_text(&a, "still here, and well"), AT_OK);
    RUN_UNTIL(b.control_frames == 1, 2000);
    assert_int_equal(a.downs + b.downs, 0);
    free(noise);
}

/* Real TLS with a real key, then bytes that are no frames. */
static void stranger_says(struct at_span plain, const char *reason)
{
    struct at_keypair key;
    struct at_tls_ctx *ctx = NULL;
    struct at_tls tls;
    struct at_buf out = {0};
    bool done = false, said = false;
    int downs = b.downs, refused = (int)at_net_stats(b.net).refused;
    uint8_t buf[4096];
    assert_int_equal(at_keypair_generate(&key), AT_OK);
    assert_int_equal(at_tls_ctx_init(&key, NULL, &ctx), AT_OK);
    assert_int_equal(at_tls_init(&tls, ctx, true, &b.key.id), AT_OK);
    int fd = raw_connect(b.port);
    uint64_t end = at_clock_mono_ms() + 5000;
    while (b.downs == downs && (int)at_net_stats(b.net).refused == refused && at_clock_mono_ms() < end) {
        if (!done) assert_int_equal(at_tls_handshake(&tls, &done), AT_OK);
        if (done && !said) {
            assert_int_equal(at_tls_write(&tls, plain), AT_OK);
            said = true;
        }
        assert_int_equal(at_tls_take(&tls, &out), AT_OK);
        ssize_t put = out.n ? send(fd, out.p, out.n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        if (put > 0) at_buf_consume(&out, (size_t)put);
        ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n > 0) assert_int_equal(at_tls_feed(&tls, at_span(buf, (size_t)n)), AT_OK);
        step();
    }
    const char *said_why = b.downs > downs ? b.reason : at_net_stats(b.net).refused_reason;
    if (!strstr(said_why, reason)) fail_msg("'%s' is not in '%s'", reason, said_why);
    close(fd);
    at_tls_release(&tls);
    at_tls_ctx_release(ctx);
    at_buf_release(&out);
}

static void test_bad_frames_close_their_link_only(void **state)
{
    static const uint8_t ping[] = {5, 0, 0, 0, 0, 0x5a, 2, 8, 1}; /* Ping{nonce 1} */
    uint8_t *huge = calloc(1, 3 << 20);
    link_up();
    stranger_says(at_span("GET / HTTP/1.1\r\n\r\n", 18), "no frames of ours");
    memcpy(huge, ping, sizeof ping);
    at_store_le32(huge + sizeof ping, (1 << 20) + 2);
    stranger_says(at_span(huge, 3 << 20), "no frames of ours"); /* oversize */
    at_store_le32(huge + sizeof ping, 0);
    stranger_says(at_span(huge, 3 << 20), "no frames of ours"); /* a frame of nothing */
    at_store_le32(huge, 1 << 20);
    stranger_says(at_span(huge, 3 << 20), "no frames of ours"); /* a first frame that is no Ping */
    assert_int_equal(b.ups, 3);
    assert_int_equal(a.downs, 0);
    free(huge);
}

static void test_half_open_flood(void **state)
{
    enum { FLOOD = 60 };
    int fd[FLOOD], open = 0;
    for (int i = 0; i < FLOOD; i++) {
        fd[i] = raw_connect(b.port);
        if (i % 8 == 7) step();
    }
    RUN_FOR(50);
    assert_true(at_net_stats(b.net).half_open <= 8);
    link_up();                                           /* in the middle of it */
    RUN_UNTIL(at_net_stats(b.net).half_open == 0, 3000); /* and the rest is thrown out in time */
    for (int i = 0; i < FLOOD; i++) {
        open += !raw_closed(fd[i]);
        close(fd[i]);
    }
    assert_int_equal(open, 0);
    assert_int_equal(a.downs + b.downs, 0);
}

static void test_links_per_address(void **state)
{
    struct at_link_id l;
    for (int i = 0; i < 12; i++) {
        assert_int_equal(at_net_dial(a.net, "127.0.0.1", b.port, &b.key.id, &l), AT_OK);
        RUN_UNTIL(a.ups + a.downs == i + 1, 3000);
    }
    assert_int_equal(a.ups, 10);
    assert_int_equal(a.downs, 2);
    assert_non_null(strstr(at_net_stats(b.net).refused_reason, "too many links from 127.0.0.1"));
}

/* One byte of a valid ClientHello at a time. */
static void test_slow_handshake_is_cut(void **state)
{
    struct at_tls_ctx *ctx = NULL;
    struct at_tls tls;
    struct at_buf out = {0};
    bool done;
    assert_int_equal(at_tls_ctx_init(&a.key, NULL, &ctx), AT_OK);
    assert_int_equal(at_tls_init(&tls, ctx, true, &b.key.id), AT_OK);
    assert_int_equal(at_tls_handshake(&tls, &done), AT_OK);
    assert_int_equal(at_tls_take(&tls, &out), AT_OK);
    int fd = raw_connect(b.port);
    uint64_t start = at_clock_mono_ms();
    for (size_t i = 0; i < out.n - 1 && !raw_closed(fd); i++) {
        (void)!send(fd, out.p + i, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        RUN_FOR(30);
    }
    assert_true(raw_closed(fd) && at_clock_mono_ms() - start < 3000);
    assert_non_null(strstr(at_net_stats(b.net).refused_reason, "no handshake"));
    close(fd);
    at_tls_release(&tls);
    at_tls_ctx_release(ctx);
    at_buf_release(&out);
}

static SSL_CTX *foreign_context(int max_version, EVP_PKEY *key)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(ctx, max_version);
    if (key) {
        X509 *cert = X509_new();
        X509_gmtime_adj(X509_getm_notBefore(cert), 0);
        X509_gmtime_adj(X509_getm_notAfter(cert), 1000);
        X509_set_pubkey(cert, key);
        assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
        assert_int_equal(SSL_CTX_use_certificate(ctx, cert), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(ctx, key), 1);
        X509_free(cert);
    }
    return ctx;
}

/* TLS 1.2, no certificate, and an ECDSA certificate: refused before UP. */
static void test_foreign_tls_is_refused(void **state)
{
    EVP_PKEY *ec = EVP_EC_gen("P-256");
    assert_non_null(ec);
    for (int k = 0; k < 3; k++) {
        SSL_CTX *ctx = foreign_context(k == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, k == 2 ? ec : NULL);
        SSL *ssl = SSL_new(ctx);
        int fd = raw_connect(b.port), rc = 0;
        char buf[256];
        SSL_set_fd(ssl, fd);
        SSL_set_connect_state(ssl);
        uint64_t end = at_clock_mono_ms() + 3000;
        while ((int)at_net_stats(b.net).refused == k && at_clock_mono_ms() < end) {
            rc = SSL_read(ssl, buf, sizeof buf);
            step();
        }
        assert_true(rc <= 0);
        assert_int_equal(at_net_stats(b.net).refused, k + 1);
        assert_int_equal(b.ups, 0);
        print_message("refused: %s\n", at_net_stats(b.net).refused_reason);
        assert_null(strstr(at_net_stats(b.net).refused_reason, "no handshake within"));
        SSL_free(ssl);
        SSL_CTX_free(ctx);
        close(fd);
    }
    EVP_PKEY_free(ec);
}

static void test_listen_wants_numbers(void **state)
{
    struct at_net *net = NULL;
    uint16_t port = 0;
    struct at_diag diag = {0};
    assert_int_equal(at_net_init(&a.loop, &a.key, NULL, on_event, &a, NULL, &net), AT_OK);
    assert_int_equal(at_net_listen(net, "not a host", 1, &diag, &port), AT_E_USAGE);
    assert_int_equal(at_net_listen(net, "::1", 0, NULL, &port), AT_OK);
    at_net_release(net);
    RUN_FOR(50);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, two_sides, release_sides)
    const struct CMUnitTest tests[] = {
        CASE(test_two_nodes_know_each_other),
        CASE(test_close_delivers_what_was_queued),
        CASE(test_wrong_key_is_told),
        CASE(test_nobody_there),
        CASE(test_port_in_use),
        CASE(test_bulk_with_control_between),
        CASE(test_control_overtakes_bulk),
        CASE(test_peer_that_does_not_read),
        CASE(test_death_is_seen_at_once),
        CASE(test_silence_is_death),
        CASE(test_own_sleep_is_no_silence),
        CASE(test_ten_megabytes_of_noise),
        CASE(test_bad_frames_close_their_link_only),
        CASE(test_half_open_flood),
        CASE(test_links_per_address),
        CASE(test_slow_handshake_is_cut),
        CASE(test_foreign_tls_is_refused),
        CASE(test_listen_wants_numbers),
    };
    at_sys_process_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
