#include "net/link.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HANDSHAKE_BYTES_MAX ((size_t)128 << 10) /* ciphertext until the handshake is done; ours has 1 KiB */
#define PING_BYTES_MAX      16
#define OWN_BYTES_MAX       256 /* the longest: a refusal of a meeting */

bool at_link_half_open(const struct link *l)
{
    return !l->dialed && !l->meet.how && l->state == LINK_HANDSHAKE; /* a meeting has its own bounds */
}

bool at_link_busy(const struct link *l)
{
    return l->handle_open || l->lookup_busy || l->write_busy || at_punch_open(l);
}

static uint64_t now_ms(const struct link *l)
{
    return uv_now(l->net->loop);
}

void at_link_wait(struct link *l, uint32_t patience_ms)
{
    l->patience_ms = patience_ms;
    l->deadline_ms = now_ms(l) + patience_ms;
}

static void on_closed(uv_handle_t *handle)
{
    struct link *l = handle->data;
    l->handle_open = false;
}

void at_link_fail(struct link *l, at_err_t err, const char *fmt, ...)
{
    if (l->state == LINK_DEAD) return;
    if (l->state != LINK_CLOSING) { /* then the user's reason stands, however it ends */
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(l->down_reason, sizeof l->down_reason, fmt, ap);
        va_end(ap);
        l->down_err = err;
    }
    at_introduce_over(l);
    l->state = LINK_DEAD;
    at_leg_part(l);
    at_punch_close(l);
    if (l->lookup_busy) uv_cancel((uv_req_t *)&l->lookup);
    if (!l->handle_open || uv_is_closing((uv_handle_t *)&l->tcp)) return;
    /* A last alert, so that the other side can say why. One attempt: nobody waits for it. */
    if (l->tls.ssl && !l->write_busy && at_tls_take(&l->tls, &l->out) == AT_OK && l->out.n > 0) {
        uv_buf_t buf = uv_buf_init((char *)l->out.p, (unsigned)l->out.n);
        (void)uv_try_write((uv_stream_t *)&l->tcp, &buf, 1);
    }
    uv_close((uv_handle_t *)&l->tcp, on_closed);
}

/* ---- sending ---- */
at_err_t at_link_queue(struct link *l, enum at_frame_class cls, struct at_span payload)
{
    struct link_queue *q = &l->queue[cls];
    size_t max = cls == AT_FRAME_CONTROL ? l->net->opt.control_bytes_max : l->net->opt.bulk_bytes_max;
    size_t bytes = AT_FRAME_HEAD_BYTES + payload.n;
    if (q->bytes + bytes > max && (q->bytes > 0 || bytes > max)) {
        if (cls == AT_FRAME_CONTROL) {
            at_link_fail(l, AT_E_PEER, "peer does not read: %zu bytes of class %d wait for it", q->bytes, (int)cls);
            return AT_E_NOT_FOUND;
        }
        l->refused[cls] = true;
        return AT_E_TOO_BIG;
    }
    struct link_frame *f = malloc(sizeof *f + bytes);
    if (!f) return AT_E_NOMEM;
    f->next = NULL;
    f->bytes = bytes;
    at_store_le32(f->data, (uint32_t)(1 + payload.n));
    f->data[4] = (uint8_t)cls;
    if (payload.n) memcpy(f->data + AT_FRAME_HEAD_BYTES, payload.p, payload.n);
    if (q->last)
        q->last->next = f;
    else
        q->first = f;
    q->last = f;
    q->bytes += bytes;
    return AT_OK;
}

static struct link_frame *next_frame(struct link *l)
{
    for (int c = 0; c < AT_FRAME_CLASS_COUNT; c++) {
        struct link_queue *q = &l->queue[c];
        struct link_frame *f = q->first;
        if (!f) continue;
        q->first = f->next;
        if (!q->first) q->last = NULL;
        q->bytes -= f->bytes;
        return f;
    }
    return NULL;
}

static void on_written(uv_write_t *req, int status)
{
    struct link *l = req->data;
    l->write_busy = false;
    at_buf_clear(&l->out);
    if (l->state == LINK_DEAD) return;
    if (status < 0)
        at_link_fail(l, AT_E_PEER, "link broken: %s", uv_strerror(status));
    else
        at_link_pump(l);
}

/* What the kernel takes at once goes at once; the rest as one write request. False: wait for on_written. */
static bool write_out(struct link *l)
{
    uv_buf_t buf = uv_buf_init((char *)l->out.p, (unsigned)l->out.n);
    int put = uv_try_write((uv_stream_t *)&l->tcp, &buf, 1);
    if (put < 0 && put != UV_EAGAIN) {
        at_link_fail(l, AT_E_PEER, "link broken: %s", uv_strerror(put));
        return false;
    }
    if (put < 0) put = 0;
    l->net->stats.bytes_out += l->out.n;
    if ((size_t)put == l->out.n) {
        at_buf_clear(&l->out);
        return true;
    }
    buf.base += put;
    buf.len -= (unsigned)put;
    l->write.data = l;
    int rc = uv_write(&l->write, (uv_stream_t *)&l->tcp, &buf, 1, on_written);
    if (rc) {
        at_link_fail(l, AT_E_PEER, "link broken: %s", uv_strerror(rc));
        return false;
    }
    l->write_busy = true;
    return false;
}

static bool encrypt_some(struct link *l)
{
    struct link_frame *f;
    while (l->out.n < LINK_WRITE_BYTES && l->tls_done && (f = next_frame(l)) != NULL) {
        at_err_t err = at_tls_write(&l->tls, at_span(f->data, f->bytes));
        l->net->stats.class_out[f->data[AT_FRAME_HEAD_BYTES - 1]] += f->bytes;
        free(f);
        if (!err) err = at_tls_take(&l->tls, &l->out);
        if (err) {
            at_link_fail(l, err, "cannot encrypt: %s", l->tls.reason);
            return false;
        }
        l->net->stats.frames_out++;
    }
    return true;
}

static void on_shut(uv_shutdown_t *req, int status) {}

/* At most a few rounds per call: a fast peer must not hold up the others' turns. */
void at_link_pump(struct link *l)
{
    if (l->state < LINK_HANDSHAKE || l->state > LINK_CLOSING || l->write_busy) return;
    for (int i = 0; i < 4; i++) {
        if (at_tls_take(&l->tls, &l->out) != AT_OK) {
            at_link_fail(l, AT_E_NOMEM, "out of memory");
            return;
        }
        if (!encrypt_some(l)) return;
        if (l->out.n == 0) break;
        if (!write_out(l)) return;
    }
    if (l->state == LINK_CLOSING && !l->shut_sent && !l->queue[0].first && !l->queue[1].first && !l->queue[2].first) {
        l->shut_sent = true;
        at_tls_goodbye(&l->tls);
        if (at_tls_take(&l->tls, &l->out) == AT_OK && l->out.n > 0) (void)write_out(l);
        if (l->state == LINK_CLOSING) uv_shutdown(&l->shutdown, (uv_stream_t *)&l->tcp, on_shut);
    }
}

void at_link_send(struct link *l, const struct at_message *m)
{
    struct at_buf buf = {0};
    at_err_t err = at_message_encode(m, &buf);
    if (!err) err = at_link_queue(l, AT_FRAME_CONTROL, at_buf_span(&buf));
    if (err)
        at_link_fail(l, err, "cannot send a %s: %s", at_message_kind_name(m->kind),
                     at_err_text(err)); /* an earlier reason stays */
    at_buf_release(&buf);
}

void at_link_ping(struct link *l)
{
    struct at_message m = {.kind = AT_MSG_PING};
    m.ping.nonce = uv_hrtime();
    l->pinged_ms = now_ms(l);
    at_link_send(l, &m);
}

/* ---- receiving ---- */
/* Ping, Pong and, at a node that takes part in meetings, what is said about these end here. True: it was one. A malformed
 * one is the user's to judge. */
static bool take_own(struct link *l, struct at_frame frame)
{
    struct at_message m;
    if (frame.cls != AT_FRAME_CONTROL || frame.payload.n > OWN_BYTES_MAX) return false;
    enum at_message_kind kind = at_message_peek(frame.payload);
    if (kind == AT_MSG_MEET && !l->net->opt.allow) return false;
    if (kind != AT_MSG_MEET && kind != AT_MSG_PING && kind != AT_MSG_PONG) return false;
    if (at_message_decode(frame.payload, &l->net->own_mem, NULL, &m) != AT_OK) return false;
    if (m.kind == AT_MSG_MEET) {
        at_link_take_meet(l, &m.meet);
        return true;
    }
    if (m.kind == AT_MSG_PONG) {
        uint64_t now = uv_hrtime();
        if (m.pong.nonce <= now && now - m.pong.nonce < 60000000000u) {
            l->rtt_us = (now - m.pong.nonce) / 1000 + 1;
            if (l->rtt_least_us == 0 || l->rtt_us < l->rtt_least_us) l->rtt_least_us = l->rtt_us;
        }
        return true;
    }
    if (m.kind != AT_MSG_PING) return false;
    m.kind = AT_MSG_PONG;
    m.pong.nonce = m.ping.nonce;
    at_link_send(l, &m);
    return true;
}

static void tell(struct link *l, enum at_net_event_kind kind, const struct at_frame *frame)
{
    struct at_net_event ev = {.kind = kind, .link = l->id, .address = l->address, .dialed = l->dialed};
    ev.peer = l->tls.peer;
    ev.way = l->way;
    if (frame) {
        ev.frame_class = frame->cls;
        ev.payload = frame->payload;
    }
    l->net->on_event(l->net->user, &ev);
}

static void take_frame(struct link *l, struct at_frame frame)
{
    l->net->stats.frames_in++;
    if (l->state == LINK_HANDSHAKE) {
        l->state = LINK_UP;
        l->told_up = true;
        tell(l, AT_NET_UP, NULL);
    }
    if (l->state != LINK_UP) return; /* closing: nobody listens any more */
    if (!take_own(l, frame)) tell(l, AT_NET_FRAME, &frame);
}

/* Since when what is read now can have been here: since the poll has returned, if it waited; if it did not, perhaps since the
 * one before, which did not find it, unless it was not to read on (was_cut). Too late only where this process got no processor in the poll: then a rate that is
 * made of it is too high, by what came meanwhile. */
static uint64_t here_since_us(const struct at_net *net)
{
    uint64_t returned_us = uv_now(net->loop) * 1000;
    return returned_us > net->poll_us + 1000 ? returned_us : net->earlier_us;
}

/* The frame that `in` began with is whole, and has so many bytes. */
static void part_whole(struct link *l, enum at_frame_class cls, size_t bytes)
{
    if (l->part_us != 0 && cls != AT_FRAME_CONTROL)
        at_line_rate_take(&l->rate, bytes - l->part_bytes, uv_hrtime() / 1000 - l->part_us);
    l->part_us = 0;
}

static void parse_frames(struct link *l)
{
    size_t at = 0, used = 0;
    while (l->state != LINK_DEAD && at < l->in.n) {
        struct at_frame frame;
        uint32_t max = l->state == LINK_HANDSHAKE ? PING_BYTES_MAX : AT_FRAME_PAYLOAD_BYTES_MAX;
        at_err_t err = at_frame_parse(at_span(l->in.p + at, l->in.n - at), max, &frame, &used);
        if (err) {
            at_link_fail(l, AT_E_PEER, "peer sends no frames of ours");
            return;
        }
        if (used == 0) break;
        part_whole(l, frame.cls, used);
        at += used;
        take_frame(l, frame);
    }
    at_buf_consume(&l->in, at);
    if (l->in.n > 0 && l->part_us == 0 && !l->was_cut) {
        l->part_us = here_since_us(l->net);
        l->part_bytes = l->in.n;
    }
    if (l->in.n == 0 && l->in.cap > 4 * LINK_READ_BYTES) at_buf_release(&l->in); /* an idle link holds little */
}

static void finish_handshake(struct link *l)
{
    l->tls_done = true;
    if (at_node_id_eq(&l->tls.peer, &l->net->self)) {
        at_link_fail(l, AT_E_PEER, "peer shows our own key");
        return;
    }
    at_link_ping(l);
}

static void decrypt_all(struct link *l)
{
    while (l->state != LINK_DEAD) {
        uint8_t *p = NULL;
        size_t n = 0;
        bool closed = false;
        if (!l->tls_done) {
            if (at_tls_handshake(&l->tls, &closed) != AT_OK) {
                at_link_fail(l, AT_E_PEER, "%s", l->tls.reason);
                return;
            }
            if (!closed) return; /* wants more */
            finish_handshake(l);
            continue;
        }
        if (at_buf_reserve(&l->in, 16384, &p) != AT_OK) {
            at_link_fail(l, AT_E_NOMEM, "out of memory");
            return;
        }
        if (at_tls_read(&l->tls, p, 16384, &n, &closed) != AT_OK) {
            if (closed) parse_frames(l);
            at_link_fail(l, AT_E_PEER, "%s", l->tls.reason);
            return;
        }
        if (n == 0) break;
        l->in.n += n;
        if (l->in.n >= 4 * LINK_READ_BYTES) parse_frames(l);
    }
    parse_frames(l);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct link *l = handle->data;
    *buf = uv_buf_init((char *)l->net->read_buf, LINK_READ_BYTES);
}

static void take_ciphertext(struct link *l, struct at_span bytes)
{
    l->net->stats.bytes_in += bytes.n;
    l->heard_ms = now_ms(l);
    if (!l->sniffed && at_leg_sniff(l, &bytes)) return;
    if (!l->tls_done && (l->handshake_bytes += bytes.n) > HANDSHAKE_BYTES_MAX) {
        at_link_fail(l, AT_E_PEER, "handshake too long");
        return;
    }
    if (at_tls_feed(&l->tls, bytes) != AT_OK) {
        at_link_fail(l, AT_E_NOMEM, "out of memory");
        return;
    }
    decrypt_all(l);
    if (l->state == LINK_HANDSHAKE)
        at_link_pump(l); /* the handshake's answers go at once; the rest at the turn's end */
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct link *l = stream->data;
    if (n == 0 || l->state == LINK_DEAD) return;
    if (n < 0) {
        if (n == UV_EOF && l->state == LINK_LEG)
            at_leg_end_of_file(l);
        else if (n == UV_EOF)
            at_link_fail(l, AT_E_PEER, l->tls_done ? "peer is gone" : "peer is gone in the middle of the handshake");
        else
            at_link_fail(l, AT_E_PEER, "link broken: %s", uv_strerror((int)n));
        return;
    }
    if (l->state == LINK_LEG) {
        at_leg_take(l, at_span(buf->base, (size_t)n));
        return;
    }
    if (l->turn != l->net->turn) {
        l->was_cut = l->turn_bytes >= l->net->opt.read_bytes_per_turn;
        l->turn = l->net->turn;
        l->turn_bytes = 0;
    }
    l->turn_bytes += (size_t)n;
    take_ciphertext(l, at_span(buf->base, (size_t)n));
    if (l->state < LINK_LEG && l->turn_bytes >= l->net->opt.read_bytes_per_turn) {
        uv_read_stop(stream);
        l->reading = false;
    }
}

void at_link_resume(struct link *l)
{
    if (l->reading || l->state < LINK_HANDSHAKE || l->state == LINK_DEAD) return;
    if (l->state == LINK_LEG && !at_leg_may_read(l)) return;
    int rc = uv_read_start((uv_stream_t *)&l->tcp, on_alloc, on_read);
    l->reading = rc == 0;
    if (rc) at_link_fail(l, AT_E_ENV, "cannot read: %s", uv_strerror(rc));
}

/* Little unsent data in the kernel: what is queued there can no longer be overtaken by control frames. */
static void tune_socket(struct link *l)
{
    uv_os_fd_t fd;
    uv_tcp_nodelay(&l->tcp, 1);
#ifdef TCP_NOTSENT_LOWAT
    int unsent = 128 << 10;
    if (uv_fileno((uv_handle_t *)&l->tcp, &fd) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
#endif
}

at_err_t at_link_start_tls(struct link *l)
{
    at_err_t err = at_tls_init(&l->tls, l->net->tls, l->dialed, l->pinned ? &l->expected : NULL);
    if (err) return err;
    l->state = LINK_HANDSHAKE;
    l->sniffed |= l->pinned || l->net->opt.meets_max == 0; /* no prelude means anything to who arranges nothing */
    l->heard_ms = now_ms(l);
    at_link_wait(l, l->net->opt.handshake_ms);
    tune_socket(l);
    at_link_resume(l);
    decrypt_all(l); /* the dialer's first word */
    at_link_pump(l);
    return AT_OK;
}

void at_link_free(struct link *l)
{
    for (struct link_frame *f; (f = next_frame(l)) != NULL;) free(f);
    at_tls_release(&l->tls);
    at_buf_release(&l->in);
    at_buf_release(&l->out);
    free(l->punch);
    free(l);
}
