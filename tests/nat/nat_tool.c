/* The three parts of a meeting as processes, each in a namespace of its own (nat.sh):
 *
 *   nat_tool arrange HOST PORT                 Y: arranges meetings
 *   nat_tool wait    HOST PORT OWN_PORT [map]  B: links to Y and waits; listens on OWN_PORT; asks its gateway for it
 *   nat_tool reach   HOST PORT D,M,P,R MB [B_HOST B_PORT]
 *                                              A: links to Y, climbs the ladder (wire/reach) to B with so many addresses,
 *                                              mapped ones, punches and relays; says the secret, sends MB (may be 0)
 *   nat_tool map     HOST PORT LEASE_S         asks its gateway for a port, and nothing else; again soon when that fails
 *   nat_tool capture                           reads every packet, says what it saw
 *   nat_tool shout HOST                        sends the canary
 *   nat_tool gateway INSIDE OUTSIDE            a gateway that speaks NAT-PMP
 * Their keys are made from 1, 2, 3 (A, B, Y), so that each knows the others' ids. */
#include "nat_tool.h"

#include "net/address.h"
#include "net/net.h"
#include "net/portmap.h"
#include "os/sys.h"
#include "wire/reach.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)128 << 10)

static uv_loop_t loop;
static struct at_net *net;
static struct at_keypair key[4];
static uv_pipe_t input;
static struct at_link_id to_y, to_b;
static bool linked;

static const char *const way_name[] = {"direct", "relayed", "punched"};

_Noreturn static void die(const char *what)
{
    printf("failed: %s\n", what);
    fflush(stdout);
    _Exit(1);
}
static void must(at_err_t err, const char *what)
{
    if (err) die(what);
}

static uint16_t port_of(const char *text)
{
    long n = strtol(text, NULL, 10);
    if (n <= 0 || n > UINT16_MAX) die("a port is a number up to 65535");
    return (uint16_t)n;
}

/* ---- A: the ladder ---- */
static struct at_reach ladder;
static struct at_link_id attempt_link[AT_REACH_ATTEMPTS_MAX];
static uv_timer_t ladder_timer;
static const char *b_host;
static uint16_t b_port;
static uint64_t began_us, up_us, bulk_us, to_send, sent;

static void climb(enum at_reach_event_kind kind, uint32_t attempt, const char *reason);

static void on_ladder_time(uv_timer_t *timer)
{
    climb(AT_REACH_TICK, 0, NULL);
}

static bool try_way(const struct at_reach_op *op)
{
    at_err_t err = AT_E_NOT_FOUND;
    struct at_link_id *l = &attempt_link[op->attempt];
    if (op->rung <= AT_REACH_MAPPED)
        err = at_net_dial(net, b_host, b_port, &key[2].id, l);
    else
        err = at_net_meet(net, to_y, op->rung == AT_REACH_PUNCH ? AT_MEET_HOW_PUNCH : AT_MEET_HOW_RELAY, &key[2].id, l);
    return err == AT_OK;
}

static void climb_event(const struct at_reach_event *ev)
{
    struct at_reach_update up;
    at_reach_step(&ladder, ev, &up);
    for (uint32_t i = 0; i < up.op_count; i++) {
        const struct at_reach_op *op = &up.ops[i];
        if (op->kind == AT_REACH_TRY) {
            printf("trying %s\n", at_reach_rung_name(op->rung));
            if (!try_way(op)) die("no attempt can be made");
        } else if (op->kind == AT_REACH_CANCEL) {
            struct at_link_id l = attempt_link[op->attempt];
            attempt_link[op->attempt].v = 0;
            at_net_close(net, l, "another way was faster");
        } else if (op->kind == AT_REACH_GIVE_UP) {
            die(ladder.reason);
        }
    }
    uint64_t deadline = at_reach_deadline(&ladder), now = uv_now(&loop);
    uv_timer_stop(&ladder_timer);
    if (deadline != UINT64_MAX) uv_timer_start(&ladder_timer, on_ladder_time, deadline > now ? deadline - now : 0, 0);
}

static void climb(enum at_reach_event_kind kind, uint32_t attempt, const char *reason)
{
    struct at_reach_event ev = {.kind = kind, .now_ms = uv_now(&loop), .attempt = attempt, .reason = reason};
    climb_event(&ev);
}

static uint32_t attempt_of(struct at_link_id link)
{
    for (uint32_t i = 0; i < ladder.attempt_count; i++)
        if (attempt_link[i].v == link.v) return i;
    return AT_REACH_ATTEMPTS_MAX;
}

static uint64_t now_us(void)
{
    return at_clock_mono_ns() / 1000;
}

static void send_more(void)
{
    static uint8_t data[CHUNK];
    while (sent < to_send) {
        if (at_net_send(net, to_b, AT_FRAME_BULK, at_span(data, sizeof data)) != AT_OK) return;
        sent += sizeof data;
    }
}

static void finish(const struct at_net_event *ev, uint64_t bytes)
{
    printf("done way=%s", way_name[ev->way]);
    if (bytes) printf(" MB_per_s=%.1f", (double)bytes / (double)(now_us() - bulk_us));
    printf("\n");
    uv_stop(&loop);
}

static void on_reach(const struct at_net_event *ev)
{
    uint32_t attempt = attempt_of(ev->link);
    if (ev->kind == AT_NET_UP && at_node_id_eq(&ev->peer, &key[2].id)) {
        up_us = now_us();
        to_b = ev->link;
        printf("up way=%s ms=%.1f\n", way_name[ev->way], (double)(up_us - began_us) / 1e3);
        must(at_net_send(net, to_b, AT_FRAME_CONTROL, at_span(NAT_SECRET, strlen(NAT_SECRET))), "cannot send");
        climb(AT_REACH_UP, attempt, NULL);
    } else if (ev->kind == AT_NET_FRAME && ev->payload.n == strlen(NAT_SECRET)) { /* the secret came back */
        printf("secret ms=%.1f\n", (double)(now_us() - up_us) / 1e3);
        bulk_us = now_us();
        if (to_send == 0) finish(ev, 0);
        send_more();
    } else if (ev->kind == AT_NET_DRAIN) {
        send_more();
    } else if (ev->kind == AT_NET_FRAME && ev->payload.n == 8) { /* so much has arrived */
        if (at_load_le64(ev->payload.p) >= to_send) finish(ev, at_load_le64(ev->payload.p));
    } else if (ev->kind == AT_NET_DOWN && attempt < AT_REACH_ATTEMPTS_MAX) {
        printf("not so: %s\n", ev->reason);
        climb(AT_REACH_FAILED, attempt, ev->reason);
    } else if (ev->kind == AT_NET_DOWN && ev->link.v == to_b.v) {
        die(ev->reason);
    }
}

/* ---- B ---- */
static uint64_t got;

static void on_wait(const struct at_net_event *ev)
{
    uint8_t count[8];
    if (ev->kind == AT_NET_UP && at_node_id_eq(&ev->peer, &key[1].id)) {
        printf("met way=%s from=%s\n", way_name[ev->way], ev->address);
        got = 0;
    } else if (ev->kind == AT_NET_FRAME && ev->frame_class == AT_FRAME_CONTROL) {
        must(at_net_send(net, ev->link, AT_FRAME_CONTROL, ev->payload), "cannot send");
    } else if (ev->kind == AT_NET_FRAME) {
        got += ev->payload.n;
        at_store_le64(count, got);
        must(at_net_send(net, ev->link, AT_FRAME_CONTROL, at_span(count, sizeof count)), "cannot send");
    }
}

/* ---- all ---- */
static void on_event(void *user, const struct at_net_event *ev)
{
    void (*role)(const struct at_net_event *) = *(void (**)(const struct at_net_event *))user;
    bool y = at_node_id_eq(&ev->peer, &key[3].id);
    if (y && ev->kind == AT_NET_UP) linked = true;
    if (y && ev->kind == AT_NET_DOWN) die(ev->reason);
    if (!y && role) role(ev);
    fflush(stdout);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char room[64];
    *buf = uv_buf_init(room, sizeof room);
}
static void on_input(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    if (n < 0) uv_stop(&loop);
}

static void link_to_y(const char *host, uint16_t port)
{
    must(at_net_dial(net, host, port, &key[3].id, &to_y), "cannot dial Y");
    while (!linked || at_net_rtt_us(net, to_y) == 0) uv_run(&loop, UV_RUN_ONCE);
    struct at_endpoint seen;
    must(at_net_look(net, to_y), "cannot ask Y how it sees us");
    while (at_net_seen(net, to_y, &seen) != AT_OK) uv_run(&loop, UV_RUN_ONCE);
    printf("linked\n");
}

/* "1,0,2,1": so many ways of each rung. */
static void read_counts(const char *text, uint32_t ret_count[AT_REACH_RUNG_COUNT])
{
    for (int i = 0; i < AT_REACH_RUNG_COUNT; i++) {
        char *end;
        ret_count[i] = (uint32_t)strtoul(text, &end, 10);
        if (end == text || (*end != ',' && *end != '\0')) die("the ways are four numbers with commas");
        text = *end ? end + 1 : end;
    }
}

static void begin_reach(char **v, int n)
{
    struct at_reach_event ev = {.kind = AT_REACH_START};
    read_counts(v[0], ev.count);
    to_send = strtoull(v[1], NULL, 10) << 20;
    b_host = n > 2 ? v[2] : NULL;
    b_port = n > 3 ? port_of(v[3]) : 0;
    if (ev.count[AT_REACH_DIRECT] + ev.count[AT_REACH_MAPPED] && !b_port) die("no address of B");
    uv_timer_init(&loop, &ladder_timer);
    at_reach_init(&ladder, &(struct at_reach_options){.attempt_ms = 60000, .total_ms = 120000});
    uv_update_time(&loop);
    ev.now_ms = uv_now(&loop);
    began_us = now_us();
    climb_event(&ev);
}

static void on_mapped(void *user, const struct at_portmap_note *note)
{
    if (note->mapped)
        printf("mapped %s by %s for %u s\n", at_address_text(&note->outside).s, note->text, note->lease_s);
    else
        printf("not mapped: %s\n", note->text);
    fflush(stdout);
}

/* Renewed at half of the lease, and as often when nothing is mapped: a test has no ten minutes. */
static int map_only(const char *host, const char *port, const char *lease)
{
    struct at_portmap_options opt = {.lease_s = (uint32_t)strtoul(lease, NULL, 10), .renew_s_min = 1};
    struct at_portmap *map = NULL;
    opt.renew_s_first = opt.lease_s;
    opt.retry_s = opt.lease_s / 2;
    uv_loop_init(&loop);
    must(at_portmap_start(&loop, &opt, on_mapped, NULL, NULL, &map), "no keeper");
    must(at_portmap_ask(map, host, port_of(port), NULL), "cannot ask the gateway");
    uv_pipe_init(&loop, &input, 0);
    uv_pipe_open(&input, 0);
    uv_read_start((uv_stream_t *)&input, on_alloc, on_input);
    uv_run(&loop, UV_RUN_DEFAULT);
    at_portmap_stop(map);
    uv_close((uv_handle_t *)&input, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop) == 0 ? 0 : 1;
}

/* A asks for B, at Y; nobody else for anybody. */
static const char *allow(void *user, const struct at_node_id *asker, const struct at_node_id *target,
                         const struct at_node_id *arranger)
{
    bool so =
        at_node_id_eq(asker, &key[1].id) && at_node_id_eq(target, &key[2].id) && at_node_id_eq(arranger, &key[3].id);
    return so ? NULL : "only A asks for B, at Y";
}

static int run(int who, void (*role)(const struct at_net_event *), int argc, char **argv)
{
    struct at_net_options opt = {
        .silence_ms = 20000, .handshake_ms = 20000, .meet_ms = 20000, .meets_max = who == 3 ? 8 : 0, .relays_max = 8};
    struct at_portmap *map = NULL;
    uint16_t port = 0;
    opt.allow = allow;
    opt.may_be_invited = who == 2;
    const char *punch_ms = getenv("NAT_PUNCH_MS");
    if (punch_ms) opt.punch_ms = (uint32_t)strtoul(punch_ms, NULL, 10);
    opt.relay_bytes_per_s = (uint64_t)1 << 30; /* what is measured is the splicing, not its limit */
    uv_loop_init(&loop);
    if (who == 2 && argc > 5) must(at_portmap_start(&loop, NULL, on_mapped, NULL, NULL, &map), "no keeper");
    for (int i = 1; i <= 3; i++) {
        uint8_t seed[AT_KEY_BYTES];
        memset(seed, i, sizeof seed);
        must(at_keypair_from_seed(seed, &key[i]), "no key");
    }
    must(at_net_init(&loop, &key[who], &opt, on_event, &role, NULL, &net), "no net");
    if (who == 3) must(at_net_listen(net, argv[2], port_of(argv[3]), NULL, &port), "cannot listen");
    if (who == 2)
        must(at_net_listen(net, strchr(argv[2], ':') ? "::" : "0.0.0.0", port_of(argv[4]), NULL, &port),
             "cannot listen");
    if (who == 2 && argc > 5) must(at_portmap_ask(map, "0.0.0.0", port, NULL), "cannot ask the gateway");
    if (who != 3) link_to_y(argv[2], port_of(argv[3]));
    if (who == 1) begin_reach(argv + 4, argc - 4);
    if (who != 1) {
        uv_pipe_init(&loop, &input, 0);
        uv_pipe_open(&input, 0);
        uv_read_start((uv_stream_t *)&input, on_alloc, on_input);
        printf("ready\n");
    }
    fflush(stdout);
    uv_run(&loop, UV_RUN_DEFAULT);
    struct at_net_stats stats = at_net_stats(net);
    printf("relayed=%llu meets=%u\n", (unsigned long long)stats.relayed_bytes, stats.meets);
    at_net_release(net);
    at_portmap_stop(map);
    if (who == 1) uv_close((uv_handle_t *)&ladder_timer, NULL);
    if (who != 1) uv_close((uv_handle_t *)&input, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    at_sys_process_init();
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "capture") == 0) return nat_capture();
    if (strcmp(command, "shout") == 0 && argc == 3) return nat_shout(argv[2]);
    if (strcmp(command, "gateway") == 0 && argc == 4) return nat_gateway(argv[2], argv[3]);
    if (strcmp(command, "map") == 0 && argc == 5) return map_only(argv[2], argv[3], argv[4]);
    if (strcmp(command, "arrange") == 0 && argc == 4) return run(3, NULL, argc, argv);
    if (strcmp(command, "wait") == 0 && argc >= 5) return run(2, on_wait, argc, argv);
    if (strcmp(command, "reach") == 0 && argc >= 6) return run(1, on_reach, argc, argv);
    printf("see the top of nat_tool.c\n");
    return 2;
}
