/* node_drive.c: events in, operations out: the loop's side of the machine. */
#include "node/node_drive.h"

#include "node/node_bundle.h"
#include "node/node_report.h"
#include "os/sys.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFUSED_LOG_MS 10000

void node_log(struct node *n, enum at_node_log_kind kind, const char *fmt, ...)
{
    char line[600];
    va_list ap;
    if (!n->options.log) return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 32 || *p == 127) *p = '?'; /* a peer's words must not move the cursor */
    n->options.log(n->options.log_user, kind, line);
}

/* ---- the end ---- */
void node_fail(struct node *n, at_err_t err, const struct at_diag *diag)
{
    if (n->err) return;
    n->err = err;
    if (diag->err)
        n->diag = *diag;
    else
        at_fail(&n->diag, err, n->folder.dir, "%s", at_err_text(err));
    node_end(n);
}

void node_team_end(struct node *n)
{
    if (n->team) at_team_end(n->team);
    at_team_put(n->team);
    n->team = NULL;
}

void node_end(struct node *n)
{
    if (n->ending) return;
    n->ending = true;
    at_compute_cancel(n->compute, n->unit_serial);
    node_team_end(n);
    if (n->waiting_for_save) n->waiting_for_save->done(n->waiting_for_save); /* ending: only frees it */
    n->waiting_for_save = NULL;
    for (size_t i = 0; i < n->link_count; i++) at_net_close(n->net, n->links[i], "the node ends");
    uv_timer_stop(&n->deadline);
    uv_timer_start(&n->last_wait, node_on_last_wait, 0, 10);
}

/* ---- events ---- */
void node_later(struct node *n, struct node_todo todo)
{
    if (n->todo_first > 0 && n->todo_first == n->todo_count) n->todo_first = n->todo_count = 0;
    if (n->todo_count == n->todo_cap) {
        size_t cap = n->todo_cap ? 2 * n->todo_cap : 64;
        struct node_todo *bigger = realloc(n->todo, cap * sizeof *bigger);
        AT_ASSERT(bigger); /* a few hundred bytes; an update has a bounded number of operations */
        n->todo = bigger;
        n->todo_cap = cap;
    }
    n->todo[n->todo_count++] = todo;
}

static void step(struct node *n, struct at_node_event *ev)
{
    struct at_node_update update;
    AT_ASSERT(!n->stepping);
    if (n->ending) return;
    n->stepping = true;
    ev->time_ms = at_clock_mono_ms();
    ev->wall_ms = at_clock_unix_ms();
    at_node_machine_step(n->machine, ev, &update);
    for (size_t i = 0; i < update.count && !n->ending; i++) node_do(n, &update.ops[i]);
    n->stepping = false;
}

static void on_deadline(uv_timer_t *timer)
{
    struct node *n = timer->data;
    struct at_node_event ev = {.kind = AT_NODE_EV_TICK};
    struct at_net_stats stats = at_net_stats(n->net);
    uint64_t now = at_clock_mono_ms();
    if (stats.refused > n->refused_told && now >= n->refused_ms + REFUSED_LOG_MS) {
        node_log(n, AT_NODE_LOG_WARNING, "turned away %llu links that came to nothing: %s",
                 (unsigned long long)(stats.refused - n->refused_told), stats.refused_reason);
        n->refused_told = stats.refused;
        n->refused_ms = now;
    }
    node_feed(n, &ev);
}

static void arm_deadline(struct node *n)
{
    uint64_t at = at_node_machine_deadline_ms(n->machine), now = at_clock_mono_ms();
    if (n->ending) return;
    uv_update_time(&n->loop); /* timers count from the loop's own, older idea of now */
    if (at == UINT64_MAX)
        uv_timer_stop(&n->deadline);
    else
        uv_timer_start(&n->deadline, on_deadline, at > now ? at - now : 0, 0);
}

void node_feed(struct node *n, struct at_node_event *ev)
{
    step(n, ev);
    while (n->todo_first < n->todo_count && !n->ending) {
        struct node_todo todo = n->todo[n->todo_first++];
        node_answer(n, &todo);
    }
    arm_deadline(n);
}

/* The records from `from` on, cut where a stored checkpoint vouches for them. */
static at_err read_log(struct node *n, uint64_t from, uint64_t last, struct at_node_event *ev, struct at_diag *diag)
{
    uint32_t count = 0, checkpoints = 0;
    at_err_t err = at_store_read_part(n->store, from, last, AT_LOG_PART_MAX, diag, n->records, &count, n->checkpoints,
                                      &checkpoints);
    ev->log.from = from;
    ev->log.records = n->records;
    ev->log.count = count;
    ev->log.checkpoints = n->checkpoints;
    ev->log.checkpoint_count = checkpoints;
    return err;
}

static at_err read_agree(struct node *n, const struct at_agree_question *question, struct at_agree_answer *answer,
                         struct at_node_event *ev, struct at_diag *diag)
{
    at_err_t err = n->store ? at_agree_read(n->store, question, diag, answer) : AT_OK;
    ev->agree.term = question->term;
    ev->agree.of_block = question->of_block;
    ev->agree.list = answer->list;
    ev->agree.count = answer->count;
    return err;
}

void node_answer(struct node *n, const struct node_todo *todo)
{
    struct at_node_event ev = {
        .kind = todo->kind, .link = todo->link, .node = todo->node, .dial = todo->dial, .reason = ""};
    struct at_diag diag = {0};
    struct at_agree_answer answer = {.count = 0};
    const struct at_tile *tile;
    struct at_span data[AT_BUNDLE_MAX];
    struct at_node_rtt *rtts = NULL;
    at_err_t err = AT_OK;
    ev.blob.kind = todo->blob;
    ev.blob.key = todo->key;
    ev.blob.offset = todo->offset;
    ev.blob.ok = todo->ok;
    if (todo->kind == AT_NODE_EV_LOG_DATA)
        err = n->store ? read_log(n, todo->offset, todo->last, &ev, &diag) : AT_OK;
    else if (todo->kind == AT_NODE_EV_BLOB_STATE)
        at_vault_stat(&n->vault, todo->blob, todo->key, &ev.blob.bytes_have, &ev.blob.complete);
    else if (todo->kind == AT_NODE_EV_BLOB_DATA)
        ev.blob.ok = at_vault_read(&n->vault, todo->blob, todo->key, todo->offset, todo->bytes, &ev.blob.total,
                                   &ev.bytes) == AT_OK;
    else if (todo->kind == AT_NODE_EV_BUNDLE_DATA)
        err = node_bundle_read(n, todo, data, &ev);
    else if (todo->kind == AT_NODE_EV_BUNDLE_STATE)
        node_bundle_stat(n, todo, &ev);
    else if (todo->kind == AT_NODE_EV_STATE_SHAPE)
        ev.shape.tiles = at_compute_tiles(n->compute, &tile, &ev.shape.bytes);
    else if (todo->kind == AT_NODE_EV_LINK_DOWN)
        ev.reason = "cannot dial";
    else if (todo->kind == AT_NODE_EV_SECRET)
        err = at_secrets_make(n->folder.dir, todo->term, &diag, &ev.secret);
    else if (todo->kind == AT_NODE_EV_AGREE_DATA)
        err = read_agree(n, &todo->agree, &answer, &ev, &diag);
    else if (todo->kind == AT_NODE_EV_MEASURED)
        rtts = node_measure_links(n, &ev);
    if (err)
        node_fail(n, err, &diag);
    else
        step(n, &ev);
    free(rtts);
    at_agree_answer_release(&answer);
    memset(&ev.secret, 0, sizeof ev.secret);
}

/* ---- links ---- */
static void link_add(struct node *n, struct at_link_id link)
{
    if (n->link_count == n->link_cap) {
        size_t cap = n->link_cap ? 2 * n->link_cap : 32;
        struct at_link_id *bigger = realloc(n->links, cap * sizeof *bigger);
        AT_ASSERT(bigger); /* net bounds the number of links */
        n->links = bigger;
        n->link_cap = cap;
    }
    n->links[n->link_count++] = link;
}

static bool link_remove(struct node *n, struct at_link_id link)
{
    for (size_t i = 0; i < n->link_count; i++) {
        if (n->links[i].v != link.v) continue;
        n->links[i] = n->links[--n->link_count];
        return true;
    }
    return false;
}

void node_dial_add(struct node *n, struct at_link_id link, uint64_t number)
{
    AT_ASSERT(n->dial_count < NODE_DIALS_MAX); /* net has no more links, and tells the end of each */
    n->dials[n->dial_count++] = (struct node_dial){link, number};
}

/* The machine's number of a dial that is over; 0: it was none. */
static uint64_t dial_remove(struct node *n, struct at_link_id link)
{
    for (size_t i = 0; i < n->dial_count; i++) {
        if (n->dials[i].link.v != link.v) continue;
        uint64_t number = n->dials[i].number;
        n->dials[i] = n->dials[--n->dial_count];
        return number;
    }
    return 0;
}

/* Its end comes as every link's. */
void node_dial_off(struct node *n, uint64_t number)
{
    for (size_t i = 0; i < n->dial_count; i++)
        if (n->dials[i].number == number) at_net_close(n->net, n->dials[i].link, "another way was faster");
}

static enum at_node_way way_of(enum at_net_way way)
{
    return way == AT_NET_RELAYED ? AT_NODE_RELAYED : way == AT_NET_PUNCHED ? AT_NODE_PUNCHED : AT_NODE_DIRECT;
}

#define FAILED_AGAIN_MS 180000  /* a node that cannot be dialled is told of, and again after so long; */
#define FAILED_LONG_MS  3600000 /* each time after twice as long, up to so long */

/* Members that are gone are dialled every few seconds. */
static bool failed_is_news(struct node *n, const struct at_node_id *peer)
{
    uint64_t now_ms = at_clock_mono_ms();
    struct node_failed *f = NULL, *free = &n->failed[0];
    for (size_t i = 0; i < NODE_FAILED_MAX && !f; i++) {
        struct node_failed *x = &n->failed[i];
        if (x->again_ms && at_node_id_eq(&x->peer, peer)) f = x;
        if (x->again_ms < free->again_ms) free = x;
    }
    if (f && now_ms < f->again_ms) return false;
    uint64_t wait_ms = f ? 2 * f->wait_ms : FAILED_AGAIN_MS;
    if (!f) f = free;
    *f = (struct node_failed){.peer = *peer, .wait_ms = wait_ms < FAILED_LONG_MS ? wait_ms : FAILED_LONG_MS};
    f->again_ms = now_ms + f->wait_ms;
    return true;
}

static void failed_forget(struct node *n, const struct at_node_id *peer)
{
    for (size_t i = 0; i < NODE_FAILED_MAX; i++)
        if (at_node_id_eq(&n->failed[i].peer, peer)) n->failed[i].again_ms = 0;
}

static const char *member_name(struct node *n, const struct at_node_id *id)
{
    const struct at_node_status *s = at_node_machine_status(n->machine);
    for (uint32_t i = 0; i < s->member_count; i++)
        if (at_node_id_eq(&s->members[i].id, id)) return s->members[i].name;
    return "";
}

static void say_failed(struct node *n, const struct at_net_event *ev)
{
    if (!failed_is_news(n, &ev->peer)) return;
    const char *name = member_name(n, &ev->peer);
    node_log(n, AT_NODE_LOG_WARNING, "no link to %s%s%s: %s; it is tried again, and told of again after a while", name,
             name[0] ? " at " : "", ev->address, ev->reason);
}

/* What came of a dial that never came up. */
static void dial_failed(struct node *n, const struct at_net_event *ev)
{
    struct at_diag diag = {0};
    if (ev->way != AT_NET_DIRECT) return; /* mostly that the arranger has no link there: no news for people */
    if (ev->err) say_failed(n, ev);
    if (!ev->wrong_key || n->store || !at_node_id_eq(&ev->peer, &n->folder.contact.node)) return;
    /* A first join: the invite is wrong, and trying again will not mend it. */
    node_fail(n,
              at_fail(&diag, AT_E_PEER, ev->address, "the node at %s is not the one of the invite: %s", ev->address,
                      ev->reason),
              &diag);
}

static void say_way(struct node *n, const struct at_net_event *ev)
{
    if (ev->way == AT_NET_DIRECT) return;
    node_log(n, AT_NODE_LOG_EVENT, "linked to %.16s %s %s", at_node_id_hex(&ev->peer).s,
             ev->way == AT_NET_PUNCHED ? "punched through NATs, at" : "relayed by the member at", ev->address);
}

/* Bytes between stages go past the machine. True: that was all. */
static bool take_for_team(struct node *n, const struct at_net_event *ev)
{
    struct at_diag diag = {0};
    if (n->team && ev->kind == AT_NET_DOWN) at_team_link_down(n->team, ev->link.v, ev->reason);
    if ((ev->kind != AT_NET_FRAME && ev->kind != AT_NET_DRAIN) || ev->frame_class != AT_FRAME_ACTIVATION) return false;
    if (n->team && ev->kind == AT_NET_DRAIN) at_team_pump(n->team, n->net);
    if (n->team && ev->kind == AT_NET_FRAME && at_team_frame(n->team, &ev->peer, ev->payload, &diag))
        at_net_close(n->net, ev->link, diag.text);
    return true;
}

void node_on_net(void *user, const struct at_net_event *net_ev)
{
    struct node *n = user;
    if (take_for_team(n, net_ev)) return;
    struct at_node_event ev = {.link = net_ev->link.v, .node = net_ev->peer, .dialed = net_ev->dialed, .reason = ""};
    bool look = net_ev->kind == AT_NET_UP && net_ev->dialed && net_ev->way == AT_NET_DIRECT;
    ev.way = way_of(net_ev->way);
    switch (net_ev->kind) {
    case AT_NET_UP:
        ev.kind = AT_NODE_EV_LINK_UP;
        ev.dial = dial_remove(n, net_ev->link);
        link_add(n, net_ev->link);
        failed_forget(n, &net_ev->peer);
        say_way(n, net_ev);
        if (n->ending) at_net_close(n->net, net_ev->link, "the node ends");
        break;
    case AT_NET_FRAME:
        ev.kind = AT_NODE_EV_MESSAGE;
        ev.bytes = net_ev->payload;
        break;
    case AT_NET_DRAIN:
        ev.kind = AT_NODE_EV_LINK_DRAIN;
        break;
    case AT_NET_DOWN:
        ev.kind = AT_NODE_EV_LINK_DOWN;
        ev.reason = net_ev->reason;
        ev.dial = dial_remove(n, net_ev->link);
        if (!link_remove(n, net_ev->link)) {
            ev.link = 0; /* a dial that never came up */
            dial_failed(n, net_ev);
        }
        break;
    }
    node_feed(n, &ev);
    at_err_t err =
        look ? at_net_look(n->net, net_ev->link) : AT_OK; /* after our Hello; from where a punch would come */
    (void)err;                                            /* it is gone again */
}

void node_report_progress(struct node *n)
{
    struct at_node_event ev = {.kind = AT_NODE_EV_UNIT_PROGRESS};
    pthread_mutex_lock(&n->progress_mutex);
    bool fresh = n->progress.fresh && n->progress.serial == n->unit_serial;
    n->progress.fresh = false;
    ev.unit.round = n->progress.round;
    ev.unit.step = n->progress.step;
    ev.unit.tokens = n->progress.tokens;
    ev.unit.tokens_per_s = n->progress.tokens_per_s;
    pthread_mutex_unlock(&n->progress_mutex);
    if (fresh) node_feed(n, &ev);
}
