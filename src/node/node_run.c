/* node_run.c: at_node_run: builds a node from its folder, turns the loop, takes it down. */
#include "net/address.h"
#include "node/node_drive.h"
#include "node/node_report.h"
#include "os/sys.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAST_WAIT_MS    700 /* for the last words to leave */
#define PEERS_BYTES_MAX ((size_t)4 << 20)
#define MEETS_MAX       24 /* arranged at once: each holds two links for seconds; one member cannot take all relays */
#define MEETS_PER_NODE  4

/* ---- what the loop calls ---- */
static void on_work_ready(uv_async_t *async)
{
    struct node *n = async->data;
    node_report_progress(n);
    at_worker_reap(&n->computer);
    at_worker_reap(&n->disk);
    at_worker_reap(&n->saver);
    if (n->team) at_team_pump(n->team, n->net);
}

static void notify(void *user)
{
    uv_async_send(&((struct node *)user)->work_ready);
}

/* One signal asks; the next one has its usual effect. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct node *n = handle->data;
    struct at_node_event ev = {.kind = AT_NODE_EV_STOP, .reason = "interrupted"};
    uv_signal_stop(&n->on_int);
    uv_signal_stop(&n->on_term);
    n->interrupted = true;
    node_feed(n, &ev);
    node_end(n);
}

void node_on_last_wait(uv_timer_t *timer)
{
    struct node *n = timer->data;
    if (n->end_ms == 0) n->end_ms = at_clock_mono_ms();
    bool idle = at_worker_is_idle(&n->computer) && at_worker_is_idle(&n->disk) && at_worker_is_idle(&n->saver);
    if (idle && (n->link_count == 0 || at_clock_mono_ms() >= n->end_ms + LAST_WAIT_MS)) uv_stop(&n->loop);
}

static void fail_request(struct at_buf *answer, const char *text)
{
    char line[200];
    int len = snprintf(line, sizeof line, "{\"ok\":false,\"error\":\"%s\"}", text);
    at_err_t err = at_buf_append(answer, line, (size_t)len);
    (void)err; /* no answer at all is the next best */
}

static uint64_t relay_bytes_per_s(const struct node *n)
{
    return n->options.relay_bytes_per_s ? *n->options.relay_bytes_per_s : AT_NODE_RELAY_BYTES_PER_S;
}

static void answer_status(struct node *n, struct at_buf *answer)
{
    char invite[AT_INVITE_TEXT_MAX + 1];
    const struct at_node_status *s = at_node_machine_status(n->machine);
    if (at_folder_invite(&n->folder, s->log_size, s->log_root, NULL, invite) != AT_OK) invite[0] = 0;
    struct at_net_stats stats = at_net_stats(n->net);
    struct at_report_extra extra = {.invite = invite,
                                    .kernels = at_compute_kernels(n->compute),
                                    .threads = at_compute_threads(n->compute),
                                    .control_bytes = stats.class_out[AT_FRAME_CONTROL],
                                    .bulk_bytes = stats.class_out[AT_FRAME_BULK],
                                    .relay_bytes_per_s = relay_bytes_per_s(n),
                                    .relays = stats.relays,
                                    .relayed_bytes = stats.relayed_bytes};
    extra.relays_max = extra.relay_bytes_per_s ? AT_NODE_RELAYS_MAX : 0;
    if (n->outside.port) extra.outside = at_address_text(&n->outside);
    if (at_report_write(s, &extra, answer) != AT_OK) {
        at_buf_clear(answer);
        fail_request(answer, "out of memory");
    }
}

static void on_request(void *user, const char *verb, struct at_buf *answer)
{
    struct node *n = user;
    struct at_node_event ev = {.reason = ""};
    if (strcmp(verb, "status") == 0) {
        answer_status(n, answer);
        return;
    }
    if (strcmp(verb, "finish") == 0)
        ev.kind = AT_NODE_EV_FINISH;
    else if (strcmp(verb, "leave") == 0)
        ev.kind = AT_NODE_EV_LEAVE;
    else if (strcmp(verb, "stop") == 0)
        ev.kind = AT_NODE_EV_STOP;
    else {
        fail_request(answer, "unknown request; there are status, finish, leave and stop");
        return;
    }
    at_err_t err = at_buf_append(answer, "{\"ok\":true}", 11);
    if (!err) node_feed(n, &ev);
    if (ev.kind == AT_NODE_EV_STOP) node_end(n);
}

/* ---- building up ---- */
static at_err set_listen(struct node *n, struct at_diag *diag)
{
    uint16_t port = n->folder.port;
    at_err_t err = AT_OK;
    if (!n->options.listen && !n->options.announce) return AT_OK;
    if (n->options.listen) err = at_address_parse(n->options.listen, diag, n->folder.host, &port);
    if (!err && (port != n->folder.port || port == 0)) err = at_address_probe(n->folder.host, port, diag, &port);
    n->folder.port = port;
    if (!err && n->options.announce) err = at_folder_announce(&n->folder, n->options.announce, diag);
    return err ? err : at_folder_save(&n->folder, diag);
}

at_err_t node_configure(struct node *n, const struct at_genesis *g, struct at_diag *diag)
{
    const struct at_tile *tile;
    uint64_t blob_bytes;
    at_err_t err = at_compute_configure(n->compute, g, diag);
    if (err) return err;
    uint32_t tiles = at_compute_tiles(n->compute, &tile, &blob_bytes);
    at_vault_set_shape(&n->vault, tile, tiles, blob_bytes);
    if (g->stages > 1) {
        size_t model, need = at_compute_needs(g, &model);
        node_log(n, AT_NODE_LOG_EVENT,
                 "a stage of this run (of %u) needs %zu MB of memory; the model's %zu MB lie in files of %s", g->stages,
                 need >> 20, model >> 20, n->folder.dir);
    }
    return AT_OK;
}

/* The stored genesis, if there is one. */
static at_err open_ledger(struct node *n, struct at_buf *genesis, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_genesis *g = NULL;
    at_err_t err = at_folder_path(&n->folder, "ledger.sqlite", diag, path);
    if (err) return err;
    if (!at_file_exists(path)) {
        if (n->folder.has_contact) return AT_OK;
        return at_fail(diag, AT_E_DATA, path, "%s is missing: this folder's run cannot go on without it", path);
    }
    err = at_store_open(path, diag, &n->store);
    if (!err) err = at_store_genesis(n->store, diag, genesis);
    if (!err && !(g = malloc(sizeof *g))) err = at_fail(diag, AT_E_NOMEM, path, "out of memory");
    if (!err) err = at_genesis_decode(at_buf_span(genesis), diag, g);
    if (!err && !at_hash_eq(at_genesis_run_id(at_buf_span(genesis)), n->folder.run))
        err = at_fail(diag, AT_E_DATA, path, "%s belongs to another run than %s", path, n->folder.dir);
    if (!err) err = node_configure(n, g, diag);
    free(g);
    return err;
}

/* A member whose model files are damaged fetches them again; the founder has nobody to ask. */
static at_err load_state(struct node *n, struct at_diag *diag)
{
    struct at_diag own = {0};
    if (!n->store) return AT_OK;
    at_err_t err = at_compute_load_own(n->compute, n->folder.run, &own);
    if (err && at_err_exit_code(err) != 5)
        node_log(n, AT_NODE_LOG_WARNING, "the error feedback in this folder cannot be used: %s: %s", own.where,
                 own.text);
    own = (struct at_diag){0};
    err = at_compute_load(n->compute, &own, &n->state);
    n->has_state = err == AT_OK;
    if (!err || err == AT_E_NOT_FOUND) return AT_OK;
    if (n->folder.has_contact && at_err_exit_code(err) != 5) {
        node_log(n, AT_NODE_LOG_WARNING, "the model in this folder cannot be used and is fetched again: %s: %s",
                 own.where, own.text);
        return AT_OK;
    }
    return at_fail(diag, err, own.where, "%s: %s; copy model.safetensors and the stats file from any member's folder",
                   n->folder.dir, own.text);
}

static at_err replay(struct node *n, struct at_diag *diag)
{
    struct at_log_checkpoint newest[AT_SEATS_MAX];
    uint64_t size = 0, at = 0;
    uint32_t count = 0;
    if (!n->store) return AT_OK;
    at_err_t err = at_store_size(n->store, diag, &size);
    while (!err && at < size) {
        err = at_store_read(n->store, at, AT_LOG_PART_MAX, diag, n->records, &count);
        if (!err && count == 0) err = at_fail(diag, AT_E_DATA, n->folder.dir, "the ledger ends too early");
        if (!err) err = at_node_machine_replay(n->machine, n->records, count, diag);
        at += count;
    }
    if (err || size == 0) return err;
    err = at_store_newest_checkpoint(n->store, diag, newest, &count);
    if (!err) err = at_node_machine_replayed(n->machine, newest, count, diag);
    return err ? err : at_agree_restore(n->store, n->machine, diag);
}

static at_err build_machine(struct node *n, const struct at_buf *genesis, struct at_diag *diag)
{
    struct at_node_machine_options o = {.key = n->folder.key, .run = n->folder.run, .genesis = at_buf_span(genesis)};
    if (n->folder.has_contact) {
        o.contact = n->folder.contact.node;
        o.invite_log_size = n->folder.contact.log_size;
        o.invite_log_root = n->folder.contact.log_root;
    }
    o.name = n->folder.name;
    o.program = "atoll " ATOLL_VERSION;
    o.serve_bytes_per_s = n->options.serve_bytes_per_s;
    o.fetch_bytes_per_s = n->options.fetch_bytes_per_s;
    n->records = calloc(AT_LOG_PART_MAX, sizeof *n->records);
    n->checkpoints = calloc(AT_LOG_PART_MAX, sizeof *n->checkpoints);
    if (!n->records || !n->checkpoints) return at_fail(diag, AT_E_NOMEM, n->folder.dir, "out of memory");
    struct at_node_secret secrets[AT_NODE_SECRETS];
    struct at_keypair random;
    if (n->folder.has_contact && n->folder.contact.has_ticket) o.ticket = &n->folder.contact.ticket;
    o.secrets = secrets;
    at_err_t err = at_secrets_load(n->folder.dir, diag, secrets, &o.secret_count);
    if (!err && at_keypair_generate(&random))
        err = at_fail(diag, AT_E_ENV, n->folder.dir, "the system gives no random bytes");
    if (!err) {
        o.nonce = at_load_le64(random.seed);
        err = at_node_machine_init(&o, diag, &n->machine);
    }
    memset(secrets, 0, sizeof secrets);
    return err ? err : replay(n, diag);
}

static at_err build_folder_part(struct node *n, struct at_diag *diag)
{
    struct at_buf genesis = {0};
    at_err_t err = at_folder_load(n->options.dir, diag, &n->folder);
    if (!err) err = at_lock_take(&n->lock, n->folder.dir, diag);
    if (!err) err = at_compute_init(n->folder.dir, n->options.threads, n->options.kernels, diag, &n->compute);
    if (!err) err = set_listen(n, diag);
    if (!err) err = at_vault_open(&n->vault, n->folder.dir, diag);
    if (!err) err = open_ledger(n, &genesis, diag);
    if (!err) err = build_machine(n, &genesis, diag);
    if (!err) err = load_state(n, diag);
    at_buf_release(&genesis);
    return err;
}

/* ---- meetings of nodes that cannot dial each other ---- */
static const char *may_meet(void *user, const struct at_node_id *asker, const struct at_node_id *target,
                            const struct at_node_id *arranger)
{
    const struct node *n = user;
    const struct at_node_id *all[] = {asker, target, arranger};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (!at_node_machine_is_member(n->machine, all[i])) return "only members of this run are brought together";
    return NULL;
}

static void on_mapped(void *user, const struct at_portmap_note *note)
{
    struct node *n = user;
    struct at_endpoint outside = note->mapped ? note->outside : (struct at_endpoint){.port = 0};
    if (n->ending) return;
    if (note->mapped)
        node_log(n, AT_NODE_LOG_EVENT, "the gateway forwards %s to this node (%s)", at_address_text(&outside).s,
                 note->text);
    else
        node_log(n, AT_NODE_LOG_WARNING, "the gateway forwards nothing to this node: %s", note->text);
    if (at_endpoint_eq(&outside, &n->outside)) return;
    n->outside = outside;
    node_tell_reachable(n);
}

/* Before the key is read: who talks to the gateway shall have no copy of it (net/portmap.h). */
static at_err build_keeper(struct node *n, struct at_diag *diag)
{
    if (uv_loop_init(&n->loop)) return at_fail(diag, AT_E_ENV, n->options.dir, "the system gives no event loop");
    n->loop_open = true;
    return n->options.map_port ? at_portmap_start(&n->loop, NULL, on_mapped, n, diag, &n->portmap) : AT_OK;
}

static at_err build_loop_part(struct node *n, struct at_diag *diag)
{
    uint16_t port = 0;
    AT_ASSERT(uv_timer_init(&n->loop, &n->deadline) == 0 && uv_timer_init(&n->loop, &n->last_wait) == 0);
    AT_ASSERT(uv_signal_init(&n->loop, &n->on_int) == 0 && uv_signal_init(&n->loop, &n->on_term) == 0);
    AT_ASSERT(uv_async_init(&n->loop, &n->work_ready, on_work_ready) == 0);
    n->handles_open = true;
    n->deadline.data = n->last_wait.data = n->on_int.data = n->on_term.data = n->work_ready.data = n;
    uv_signal_start(&n->on_int, on_signal, SIGINT);
    uv_signal_start(&n->on_term, on_signal, SIGTERM);
    /* A log part is at most 300 KiB and asked for; a peer that leaves more than this unread is not worth its memory. */
    struct at_net_options limits = {.control_bytes_max = (size_t)4 << 20,
                                    .allow = may_meet,
                                    .may_be_invited = true,
                                    .meets_max = MEETS_MAX,
                                    .meets_per_node = MEETS_PER_NODE,
                                    .relays_max = relay_bytes_per_s(n) ? AT_NODE_RELAYS_MAX : 0,
                                    .relay_bytes_per_s = relay_bytes_per_s(n)};
    at_err_t err = at_net_init(&n->loop, &n->folder.key, &limits, node_on_net, n, diag, &n->net);
    if (!err) err = at_net_listen(n->net, n->folder.host, n->folder.port, diag, &port);
    if (!err) err = at_control_listen(&n->loop, n->folder.dir, on_request, n, diag, &n->control);
    if (!err && n->portmap) err = at_portmap_ask(n->portmap, n->folder.host, n->folder.port, diag);
    if (!err) err = at_worker_start(&n->computer, notify, n, diag);
    if (!err) err = at_worker_start(&n->disk, notify, n, diag);
    if (!err) err = at_worker_start(&n->saver, notify, n, diag);
    return err;
}

/* ---- running and taking down ---- */

/* What the folder knows of where others are, and where others can dial this node. */
void node_tell_reachable(struct node *n)
{
    struct at_endpoint list[1 + AT_ENDPOINTS_MAX];
    struct at_node_event ev = {.kind = AT_NODE_EV_REACHABLE, .reason = ""};
    uint32_t count = 0;
    if (n->outside.port) list[count++] = n->outside;
    ev.reachable.count = count + at_folder_endpoints(&n->folder, list + count);
    ev.reachable.list = list;
    node_feed(n, &ev);
}

static void tell_peers(struct node *n)
{
    char path[AT_PATH_BYTES];
    struct at_buf kept = {0};
    struct at_node_event peers = {.kind = AT_NODE_EV_PEERS, .reason = ""};
    bool there = at_folder_path(&n->folder, "peers", NULL, path) == AT_OK && at_file_exists(path) &&
                 at_file_read(path, PEERS_BYTES_MAX, NULL, &kept) == AT_OK;
    peers.bytes = at_buf_span(&kept);
    if (there && !n->ending) node_feed(n, &peers);
    at_buf_release(&kept);
    if (!n->ending) node_tell_reachable(n);
}

static void start(struct node *n)
{
    struct at_node_event ev = {.kind = AT_NODE_EV_START, .reason = ""};
    ev.start.has_state = n->has_state;
    ev.start.heldout_loss = (double)NAN;
    if (n->has_state) {
        ev.start.round = n->state.round;
        ev.start.root = n->state.root;
        at_vault_hold_state(&n->vault, n->state.held);
        at_compute_state_release(&n->state);
    }
    node_log(n, AT_NODE_LOG_EVENT, "run %.16s, node %.16s, %s:%u, %d thread%s, %s kernels",
             at_hash_hex(n->folder.run).s, at_node_id_hex(&n->folder.key.id).s, n->folder.host, n->folder.port,
             at_compute_threads(n->compute), at_compute_threads(n->compute) == 1 ? "" : "s",
             at_compute_kernels(n->compute));
    node_feed(n, &ev);
    tell_peers(n);
    uv_run(&n->loop, UV_RUN_DEFAULT);
    AT_ASSERT(n->ending);
}

static void fill_result(struct node *n, struct at_node_result *ret_result)
{
    const struct at_node_status *s = at_node_machine_status(n->machine);
    *ret_result =
        (struct at_node_result){.ended = n->run_ended || s->ended, .finished = n->finished, .run = n->folder.run};
    ret_result->rounds = s->rounds_done;
    ret_result->state_root = s->state_root;
}

static void close_loop(struct node *n)
{
    uv_handle_t *handle[] = {(uv_handle_t *)&n->deadline, (uv_handle_t *)&n->last_wait, (uv_handle_t *)&n->on_int,
                             (uv_handle_t *)&n->on_term, (uv_handle_t *)&n->work_ready};
    at_net_release(n->net);
    at_portmap_stop(n->portmap);
    at_control_release(n->control);
    for (size_t i = 0; n->handles_open && i < sizeof handle / sizeof *handle; i++) uv_close(handle[i], NULL);
    if (!n->loop_open) return;
    uv_run(&n->loop, UV_RUN_DEFAULT);
    AT_ASSERT(uv_loop_close(&n->loop) == 0);
}

static void take_down(struct node *n)
{
    n->ending = true;
    at_worker_stop(&n->computer); /* may push to the saver: first */
    at_worker_stop(&n->disk);
    at_worker_stop(&n->saver);
    node_keep_own(n); /* now there is time for it */
    close_loop(n);
    at_node_machine_release(n->machine);
    at_store_close(n->store);
    at_compute_release(n->compute);
    at_vault_release(&n->vault);
    at_buf_release(&n->bundle);
    at_compute_state_release(&n->state);
    at_lock_release(&n->lock);
    pthread_mutex_destroy(&n->progress_mutex);
    free(n->records);
    free(n->checkpoints);
    free(n->links);
    free(n->todo);
}

at_err_t at_node_run(const struct at_node_run_options *options, struct at_diag *diag, struct at_node_result *ret_result)
{
    struct node *n = calloc(1, sizeof *n);
    if (!n) return at_fail(diag, AT_E_NOMEM, options->dir, "out of memory");
    n->options = *options;
    pthread_mutex_init(&n->progress_mutex, NULL);
    at_err_t err = build_keeper(n, diag);
    if (!err) err = build_folder_part(n, diag);
    if (!err) err = build_loop_part(n, diag);
    if (!err) {
        start(n);
        fill_result(n, ret_result);
        err = n->err;
        if (err) at_fail(diag, err, n->diag.where, "%s", n->diag.text);
    }
    if (!err && n->interrupted)
        err = at_fail(diag, AT_E_INTERRUPTED, options->dir, "interrupted; `atoll start --dir %s` goes on from here",
                      options->dir);
    take_down(n);
    memset(&n->folder.key, 0, sizeof n->folder.key);
    free(n);
    return err;
}
