/* hostile_tool.c: one hostile stranger, for SECONDS; prints what it did as one line.
 *
 *   hostile_tool KIND HOST PORT NODE_ID RUN_ID SECONDS SEED
 *
 *   garbage    noise on connection after connection, some of it dressed as TLS
 *   half-open  as many connections as it gets, kept and silent
 *   loris      handshakes and frames, a byte at a time
 *   oversize   frames that say they are too long, and the longest that are allowed, full of noise
 *   disorder   well-formed messages where none of them belongs: before the Hello, twice, answers nobody asked for
 *   replayed   bytes of an earlier session once more; a member's old records once more
 *   records    valid, signed records as fast as they go: strangers that join, a member that comes and goes
 *   asking     wants for everything, as fast as they go, and never reads
 *   hoard      many links that want the newest state, never read it, and stay awake */
#include "base/rng.h"
#include "hostile_peer.h"
#include "wire/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct target target;
static uint64_t seed, counter;
static double until_s;
static unsigned long links, refused, frames;
static uint64_t bytes;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static bool goes_on(void)
{
    return now_s() < until_s;
}
static void rest_ms(unsigned ms)
{
    nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

static uint32_t dice(void) /* splitmix64 of a counter */
{
    uint64_t z = seed + (++counter) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}
static void noise(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)dice();
}
/* Strangers come from many places. */
static unsigned place(void)
{
    return 2 + dice() % 200;
}

/* A link that has greeted, or not; false: it was not taken. */
static bool open_link(struct peer *p, const struct at_keypair *key, bool greets)
{
    bool up = peer_open(p, &target, place(), key) && (!greets || peer_greet(p, &target));
    links += up;
    refused += !up;
    if (!up) {
        peer_close(p);
        rest_ms(20);
    }
    return up;
}

static bool say(struct peer *p, const struct at_message *msg)
{
    bool sent = peer_send(p, msg);
    frames += sent;
    return sent;
}

/* Until the other side is silent for a moment, or the link is over. */
static void listen_to(struct peer *p, int timeout_ms)
{
    struct at_message_mem mem = {0};
    struct at_message msg;
    while (peer_read(p, timeout_ms, &mem, &msg) > 0 && goes_on()) {
    }
    at_message_mem_release(&mem);
}

/* ---- without TLS ---- */
static void garbage(void)
{
    static uint8_t block[65536];
    while (goes_on()) {
        int fd = hostile_connect(&target, place());
        links += fd >= 0;
        for (int i = 0; i < 8 && fd >= 0; i++) {
            noise(block, sizeof block);
            if (links % 2) memcpy(block, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
            ssize_t n = send(fd, block, sizeof block, MSG_NOSIGNAL);
            if (n <= 0) break;
            bytes += (uint64_t)n;
        }
        if (fd >= 0) close(fd);
        rest_ms(2);
    }
}

static void half_open(void)
{
    enum { MAX = 500 };
    int fd[MAX], n = 0;
    while (goes_on()) {
        if (n == MAX) {
            for (int i = 0; i < MAX / 2; i++) close(fd[i]);
            memmove(fd, fd + MAX / 2, (MAX - MAX / 2) * sizeof *fd);
            n = MAX - MAX / 2;
        }
        if ((fd[n] = hostile_connect(&target, place())) >= 0) n++, links++;
        rest_ms(5);
    }
    while (n > 0) close(fd[--n]);
}

/* ---- slowly ---- */
static void loris(void)
{
    enum { LINKS = 40 };
    struct {
        struct peer p;
        struct at_buf hello;
        size_t at;
        bool over;
    } l[LINKS];
    memset(l, 0, sizeof l);
    for (int i = 0; i < LINKS; i++) l[i].over = true;
    while (goes_on()) {
        for (int i = 0; i < LINKS; i++) {
            bool frame = i % 2; /* half of them within a frame, half within the handshake */
            if (l[i].over && frame) {
                uint8_t head[5] = {0x01, 0x00, 0x10, 0x00, 0}; /* a frame of 1 MiB, of which a byte comes at a time */
                peer_close(&l[i].p);
                l[i].over = !open_link(&l[i].p, NULL, true) || !peer_send_bytes(&l[i].p, at_span(head, sizeof head));
            } else if (l[i].over) {
                bool done;
                peer_close(&l[i].p);
                at_buf_clear(&l[i].hello);
                l[i].at = 0;
                l[i].p.fd = hostile_connect(&target, place());
                l[i].over = l[i].p.fd < 0 || at_keypair_generate(&l[i].p.key) != AT_OK ||
                            at_tls_ctx_init(&l[i].p.key, NULL, &l[i].p.ctx) != AT_OK ||
                            at_tls_init(&l[i].p.tls, l[i].p.ctx, true, &target.node) != AT_OK ||
                            at_tls_handshake(&l[i].p.tls, &done) != AT_OK ||
                            at_tls_take(&l[i].p.tls, &l[i].hello) != AT_OK;
                links += !l[i].over;
            }
            if (l[i].over) continue;
            uint8_t byte = (uint8_t)dice();
            if (frame)
                l[i].over = !peer_send_bytes(&l[i].p, at_span(&byte, 1));
            else
                l[i].over = l[i].at >= l[i].hello.n || send(l[i].p.fd, l[i].hello.p + l[i].at++, 1, MSG_NOSIGNAL) != 1;
            bytes++;
        }
        rest_ms(50);
    }
    for (int i = 0; i < LINKS; i++) {
        peer_close(&l[i].p);
        at_buf_release(&l[i].hello);
    }
}

/* ---- breaking the rules of frames and messages ---- */
static void oversize(void)
{
    static uint8_t big[AT_FRAME_HEAD_BYTES + AT_FRAME_PAYLOAD_BYTES_MAX];
    while (goes_on()) {
        struct peer p = {.fd = -1};
        if (!open_link(&p, NULL, dice() % 4 != 0)) continue;
        uint32_t n = AT_FRAME_PAYLOAD_BYTES_MAX + 1;
        bool legal = dice() % 2;
        if (!legal) n = dice() % 2 ? UINT32_MAX : n + 1 + dice() % 1000;
        noise(big, 4096);
        at_store_le32(big, n);
        big[4] = (uint8_t)(dice() % 4);
        for (int i = 0; i < 8 && peer_send_bytes(&p, at_span(big, sizeof big)); i++) {
            frames++;
            bytes += sizeof big;
        }
        listen_to(&p, 50);
        peer_close(&p);
    }
}

static struct at_message some_message(uint8_t *data)
{
    static struct at_presence words[AT_PRESENCES_MAX];
    struct at_message m = {.kind = (enum at_message_kind)(1 + dice() % (AT_MSG_KIND_COUNT - 1))};
    noise(data, 4096);
    switch (m.kind) {
    case AT_MSG_HELLO:
        m.hello.protocol = AT_PROTOCOL_VERSION;
        m.hello.run = target.run;
        m.hello.log_size = dice();
        break;
    case AT_MSG_WANT:
        m.want.kind = (enum at_blob_kind)(1 + dice() % (AT_BLOB_KIND_COUNT - 1));
        memcpy(m.want.key.b, data, 32);
        m.want.bytes = m.want.kind == AT_BLOB_TILE ? AT_TILE_DATA_MAX : 1 + dice() % AT_PIECE_BYTES_MAX;
        break;
    case AT_MSG_PIECE:
        m.piece.kind = AT_BLOB_UPDATE;
        memcpy(m.piece.key.b, data, 32);
        m.piece.total = 1 << 20;
        m.piece.data = at_span(data, 4096);
        break;
    case AT_MSG_MISSING:
        m.missing.kind = AT_BLOB_SHARD;
        memcpy(m.missing.key.b, data, 32);
        break;
    case AT_MSG_LOG_GET:
        m.log_get.from = dice() % 4;
        m.log_get.once = dice() % 2;
        break;
    case AT_MSG_READY:
        memcpy(m.ready.member.b, data, 32);
        memcpy(m.ready.sig.b, data + 32, 64);
        m.ready.round = dice() % 8;
        m.ready.counter = dice();
        break;
    case AT_MSG_PRESENCES:
        m.presences = (struct at_msg_presences){words, AT_PRESENCES_MAX};
        for (int i = 0; i < AT_PRESENCES_MAX; i++) {
            memcpy(words[i].member.b, data, 32);
            memcpy(words[i].sig.b, data + 32, 64);
            words[i].counter = dice();
        }
        break;
    case AT_MSG_PROGRESS:
        m.progress.tokens_per_s = 1;
        break;
    case AT_MSG_BYE:
        at_reason_set(m.bye.reason, "no reason");
        break;
    case AT_MSG_HEAD:
        m.head.log_size = dice();
        m.head.hops = dice() % 3;
        break;
    case AT_MSG_REFUSED:
        memcpy(m.refused.record.b, data, 32);
        at_reason_set(m.refused.reason, "because");
        break;
    case AT_MSG_TILES_HAVE:
        memcpy(m.tiles_have.root.b, data, 32);
        m.tiles_have.whole = true;
        break;
    case AT_MSG_TILES_ASK:
        memcpy(m.tiles_ask.root.b, data, 32);
        break;
    case AT_MSG_SAVED:
        memcpy(m.saved.state_root.b, data, 32);
        break;
    case AT_MSG_PEERS_GET:
        memcpy(m.peers_get.after.b, data, 32);
        break;
    default: /* those that need more than noise to be well-formed: others do */
        m.kind = AT_MSG_PING;
        m.ping.nonce = dice();
        break;
    }
    return m;
}

static void disorder(void)
{
    static uint8_t data[4096];
    while (goes_on()) {
        struct peer p = {.fd = -1};
        struct at_message ping = {.kind = AT_MSG_PING};
        bool greets = dice() % 4 != 0;
        if (!open_link(&p, NULL, greets)) continue;
        if (!greets && dice() % 2 && !say(&p, &ping)) greets = true;
        for (int i = 0; i < 30 && goes_on(); i++) {
            struct at_message m = some_message(data);
            if (!say(&p, &m)) break;
        }
        listen_to(&p, 20);
        peer_close(&p);
    }
}

/* ---- once more ---- */
static bool sign_record(struct at_record *rec, const struct at_keypair *key, struct at_signed_record *ret)
{
    rec->run = target.run;
    return at_record_sign(rec, key, NULL, ret) == AT_OK;
}

static uint64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool submit(struct peer *p, const struct at_signed_record *rec)
{
    struct at_message m = {.kind = AT_MSG_SUBMIT};
    m.submit.record = rec;
    return say(p, &m);
}

static bool join(struct peer *p, uint64_t time_ms)
{
    struct at_record rec = {.kind = AT_RECORD_JOIN, .time_ms = time_ms};
    struct at_signed_record s;
    strcpy(rec.join.name, "mallory");
    return sign_record(&rec, &p->key, &s) && submit(p, &s);
}

static bool leave(struct peer *p, uint64_t time_ms)
{
    struct at_record rec = {.kind = AT_RECORD_LEAVE, .time_ms = time_ms};
    struct at_signed_record s;
    return sign_record(&rec, &p->key, &s) && submit(p, &s);
}

static void replayed(void)
{
    struct at_signed_record *old = calloc(AT_LOG_PART_MAX, sizeof *old);
    uint32_t old_count = 0;
    struct at_keypair key;
    if (old == NULL || at_keypair_generate(&key) != AT_OK) exit(1);
    while (goes_on()) {
        struct peer p = {.fd = -1, .record = true};
        struct at_message_mem mem = {0};
        struct at_message get = {.kind = AT_MSG_LOG_GET}, msg;
        get.log_get.once = true;
        if (!open_link(&p, &key, true)) continue;
        bool up = join(&p, wall_ms()) && say(&p, &get); /* a member may pass on others' records */
        for (int i = 0; i < 20 && up && peer_read(&p, 300, &mem, &msg) > 0; i++) {
            if (msg.kind != AT_MSG_LOG_PART || msg.log_part.record_count == 0) continue;
            old_count = msg.log_part.record_count;
            memcpy(old, msg.log_part.records, old_count * sizeof *old);
        }
        for (uint32_t i = 0; i < old_count && up && goes_on(); i++) up = submit(&p, &old[i]);
        listen_to(&p, 20);
        /* The same bytes on a new connection: TLS must not take them. */
        int fd = hostile_connect(&target, place());
        if (fd >= 0) {
            bytes += p.sent.n;
            if (send(fd, p.sent.p, p.sent.n, MSG_NOSIGNAL) > 0) links++;
            rest_ms(20);
            close(fd);
        }
        at_message_mem_release(&mem);
        peer_close(&p);
    }
    free(old);
}

/* ---- floods ---- */
static void records(void)
{
    struct at_keypair member;
    uint64_t when = wall_ms();
    if (at_keypair_generate(&member) != AT_OK) exit(1);
    while (goes_on()) {
        struct peer p = {.fd = -1};
        bool stranger = dice() % 2;
        if (!open_link(&p, stranger ? NULL : &member, true)) continue;
        if (stranger) {
            (void)join(&p, wall_ms());
            listen_to(&p, 20);
        } else {
            for (int i = 0; i < 400 && goes_on(); i++)
                if (!(i % 2 ? leave(&p, ++when) : join(&p, ++when))) break;
            listen_to(&p, 20);
        }
        peer_close(&p);
    }
}

static void asking(void)
{
    while (goes_on()) {
        struct peer p = {.fd = -1};
        struct at_message get = {.kind = AT_MSG_LOG_GET}, want = {.kind = AT_MSG_WANT},
                          peers = {.kind = AT_MSG_PEERS_GET};
        want.want = (struct at_msg_want){.kind = AT_BLOB_GENESIS, .key = target.run, .bytes = AT_PIECE_BYTES_MAX};
        if (!open_link(&p, NULL, true)) continue;
        for (int i = 0; i < 2000 && goes_on(); i++)
            if (!say(&p, i % 3 == 0 ? &want : i % 3 == 1 ? &get : &peers)) break;
        peer_close(&p);
    }
}

/* The newest state root that the other side tells of. */
static bool newest_root(struct peer *p, struct at_hash *ret_root)
{
    struct at_message_mem mem = {0};
    struct at_message msg, get = {.kind = AT_MSG_LOG_GET};
    struct at_record rec;
    bool found = false, asked = false;
    for (int i = 0; i < 20 && !found && peer_read(p, 500, &mem, &msg) > 0; i++) {
        if (msg.kind == AT_MSG_HELLO && !asked) {
            get.log_get.from = msg.hello.log_size > 30 ? msg.hello.log_size - 30 : 0;
            get.log_get.once = asked = true;
            if (!say(p, &get)) break;
        }
        for (uint32_t k = 0; msg.kind == AT_MSG_LOG_PART && k < msg.log_part.record_count; k++)
            if (at_record_decode(at_signed_record_body(&msg.log_part.records[k]), NULL, &rec) == AT_OK &&
                rec.kind == AT_RECORD_EPOCH) {
                *ret_root = rec.epoch.state_root;
                found = true;
            }
    }
    at_message_mem_release(&mem);
    return found;
}

static void hoard(void)
{
    enum { LINKS = 100, WANTS = 30 };
    static struct peer p[LINKS];
    static bool up[LINKS];
    struct at_message ping = {.kind = AT_MSG_PING}, want = {.kind = AT_MSG_WANT};
    want.want = (struct at_msg_want){.kind = AT_BLOB_TILE, .bytes = AT_TILE_DATA_MAX};
    for (int i = 0; i < LINKS; i++) p[i].fd = -1;
    while (goes_on()) {
        double turn_s = now_s();
        for (int i = 0; i < LINKS && goes_on(); i++) {
            if (up[i] && say(&p[i], &ping)) continue;
            peer_close(&p[i]);
            up[i] = now_s() < turn_s + 0.5 && open_link(&p[i], NULL, true) && newest_root(&p[i], &want.want.key);
            for (uint32_t k = 0; k < WANTS && up[i]; k++) {
                want.want.offset = k % 12; /* smaller than any preset's number of tiles but the tiny one's */
                up[i] = say(&p[i], &want);
            }
        }
        rest_ms(200);
    }
    for (int i = 0; i < LINKS; i++) peer_close(&p[i]);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } kinds[] = {{"garbage", garbage},   {"half-open", half_open}, {"loris", loris},
                 {"oversize", oversize}, {"disorder", disorder},   {"replayed", replayed},
                 {"records", records},   {"asking", asking},       {"hoard", hoard}};
    if (argc != 8) {
        fprintf(stderr, "usage: hostile_tool KIND HOST PORT NODE_ID RUN_ID SECONDS SEED\n");
        return 2;
    }
    struct at_hash node;
    target.host = argv[2];
    target.port = (uint16_t)strtoul(argv[3], NULL, 10);
    if (at_hash_parse(argv[4], &node) != AT_OK || at_hash_parse(argv[5], &target.run) != AT_OK) return 2;
    memcpy(target.node.b, node.b, sizeof target.node.b);
    until_s = now_s() + strtod(argv[6], NULL);
    seed = strtoull(argv[7], NULL, 10);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(argv[1], kinds[i].name) != 0) continue;
        kinds[i].run();
        printf("%-9s  %6lu links, %6lu not taken, %8lu frames, %5.1f MB of noise\n", argv[1], links, refused, frames,
               (double)bytes * 1e-6);
        return 0;
    }
    return 2;
}
