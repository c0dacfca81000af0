/* node_machine.c: the machine as a whole: birth, replay of the stored log, and the step.
 *
 * A step takes one event to the file whose business it is, then lets every drive do what has become possible, until
 * nothing more does; last the consensus forms its block of what was submitted on the way. */
#include "swarm/node_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static at_err_t take_genesis(struct at_node_machine *m, struct at_span bytes, struct at_diag *diag)
{
    at_err_t err;
    uint8_t *at;
    m->genesis_bytes.bytes_max = AT_GENESIS_BYTES_MAX;
    if ((err = at_buf_reserve(&m->genesis_bytes, AT_GENESIS_BYTES_MAX, &at))) return err;
    if (bytes.n == 0) return AT_OK;
    if (!at_hash_eq(at_genesis_run_id(bytes), m->options.run))
        return at_fail(diag, AT_E_DATA, "genesis", "the genesis in this folder is of another run");
    if ((err = at_genesis_decode(bytes, diag, &m->genesis))) return err;
    if ((err = at_ledger_init(&m->ledger, &m->genesis, diag))) return err;
    m->ledger.verifier = m->options.verifier;
    m->has_genesis = true;
    m->is_steward = at_node_id_eq(&m->genesis.steward, &m->options.key.id);
    return at_buf_append(&m->genesis_bytes, bytes.p, bytes.n);
}

static at_err_t take_memory(struct at_node_machine *m)
{
    if (!(m->cold = malloc(sizeof *m->cold))) return AT_E_NOMEM;
    m->held.part = m->cold->held;
    if (m->is_steward && !(m->consensus = calloc(1, sizeof *m->consensus))) return AT_E_NOMEM;
    if (m->is_steward && !(m->joins = calloc(1, sizeof *m->joins))) return AT_E_NOMEM;
    m->agree.out.bytes_max = AT_AGREE_BYTES_MAX;
    m->owns_scratch = !m->options.scratch;
    m->scratch = m->options.scratch;
    return m->owns_scratch ? at_node_scratch_init(&m->scratch) : AT_OK;
}

/* A name that no JOIN record could carry is found here and not when the node is linked. */
static at_err_t take_names(struct at_node_machine *m, const struct at_node_machine_options *options,
                           struct at_diag *diag)
{
    struct at_record rec = {.kind = AT_RECORD_JOIN, .run = m->options.run};
    uint8_t body[AT_RECORD_BYTES_MAX];
    uint16_t bytes;
    snprintf(m->program, sizeof m->program, "%s", options->program ? options->program : "atoll");
    snprintf(m->name, sizeof m->name, "%s", options->name && options->name[0] ? options->name : "member");
    memcpy(rec.join.name, m->name, sizeof rec.join.name);
    return at_record_encode(&rec, diag, body, &bytes);
}

static void take_seats(struct at_node_machine *m, const struct at_node_machine_options *options)
{
    if (options->ticket) m->agree.ticket = *options->ticket;
    m->options.ticket = options->ticket ? &m->agree.ticket : NULL;
    m->options.secrets = NULL;
    for (size_t i = 0; i < options->secret_count && i < AT_NODE_SECRETS; i++)
        m->agree.secrets[m->agree.secret_count++] = options->secrets[i];
}

at_err at_node_machine_init(const struct at_node_machine_options *options, struct at_diag *diag,
                            struct at_node_machine **ret_machine)
{
    struct at_node_machine *m = calloc(1, sizeof *m); /* one block: most of its pages are never touched */
    if (!m) return at_fail(diag, AT_E_NOMEM, "node", "out of memory");
    m->options = *options;
    m->options.genesis = at_span(NULL, 0);
    m->options.name = m->options.program = NULL;
    take_seats(m, options);
    at_err_t err = take_genesis(m, options->genesis, diag);
    if (!err) err = take_names(m, options, diag);
    if (!err) err = take_memory(m);
    if (err) {
        at_node_machine_release(m);
        return at_fail(diag, err, "node", "%s", at_err_text(err));
    }
    if (m->has_genesis) at_node_log_start(m);
    *ret_machine = m;
    return AT_OK;
}

void at_node_machine_scratch(struct at_node_machine *m, struct at_node_scratch *scratch)
{
    if (m->owns_scratch) at_node_scratch_release(m->scratch);
    m->owns_scratch = false;
    m->scratch = scratch;
}

void at_node_machine_release(struct at_node_machine *m)
{
    if (!m) return;
    if (m->has_genesis) at_ledger_release(&m->ledger);
    for (size_t i = 0; i < AT_NODE_HISTORY; i++) free(m->history[i].list);
    at_node_agree_release(m);
    free(m->cold);
    free(m->consensus);
    free(m->joins);
    free(m->keep);
    free(m->shown);
    at_tiles_release(&m->tiles.pick);
    at_buf_release(&m->tiles.leaves);
    free(m->mesh.peers);
    free(m->mesh.words);
    free(m->mesh.ring);
    at_buf_release(&m->genesis_bytes);
    if (m->owns_scratch) at_node_scratch_release(m->scratch);
    free(m);
}

at_err at_node_machine_replay(struct at_node_machine *m, const struct at_signed_record *records, size_t count,
                              struct at_diag *diag)
{
    if (count > 0 && !m->has_genesis)
        return at_fail(diag, AT_E_VERIFY, "log", "there are records but no genesis in this folder");
    for (size_t i = 0; i < count; i++) {
        struct at_diag why = {0};
        unsigned long long idx = m->ledger.tree.size;
        if (at_node_take(m, &records[i], at_signed_record_leaf(&records[i]), &why))
            return at_fail(diag, AT_E_VERIFY, "log", "record %llu in this folder is wrong: %s", idx, why.text);
    }
    return AT_OK;
}

at_err at_node_machine_replayed(struct at_node_machine *m, const struct at_log_checkpoint *newest, size_t count,
                                struct at_diag *diag)
{
    if (!m->has_genesis) return AT_OK;
    at_node_log_start(m); /* the order goes on behind the replayed records */
    if (m->ledger.tree.size == 0 && count == 0) return AT_OK;
    m->agree.told = count ? newest->size : 0;
    if (m->ledger.signers.count > 1 && m->agree.told < m->ledger.tree.size) {
        /* A steward among several folds a block before it has its cosignatures. */
        struct at_hash root;
        bool known = count && at_node_root_at(m, newest->size, &root);
        if (!known || at_hash_eq(root, newest->root)) return AT_OK;
        return at_fail(diag, AT_E_VERIFY, "log", "the checkpoint in this folder is not of its first %llu records",
                       (unsigned long long)newest->size);
    }
    at_node_follow_seats(m, &m->ledger.signers);
    at_err_t err = at_follower_head(&m->follower, newest, count, diag);
    at_node_follow_seats(m, &m->ledger.seats);
    return err;
}

static void start(struct at_node_machine *m, const struct at_node_event *e)
{
    m->started = true;
    m->pathless_ms = m->linkless_ms = m->now_ms ? m->now_ms : 1;
    m->mesh.newcomers.ms = m->now_ms;
    at_node_state_start(m, e);
    if (m->consensus && m->ledger.seats.count == 1) at_node_steward_start(m);
}

static void stop(struct at_node_machine *m)
{
    for (size_t i = 0; i < m->link_top; i++)
        if (m->links[i].used) at_node_link_refuse(m, &m->links[i], "this node stops");
    at_node_end(m, AT_OK, "stopped");
}

static void finish(struct at_node_machine *m, bool now)
{
    if (m->finishing && (m->leaving || !now)) return;
    m->finishing = true;
    m->leaving = now;
    if (now)
        at_node_note(m, m->consensus ? "the run ends as soon as the others' work of this round is in"
                                     : "this node hands in what it has and leaves");
    else
        at_node_note(m, m->consensus ? "the run ends after this round" : "this node leaves after this round");
}

static void handle(struct at_node_machine *m, const struct at_node_event *e)
{
    switch (e->kind) {
    case AT_NODE_EV_START:
        start(m, e);
        break;
    case AT_NODE_EV_TICK:
        break;
    case AT_NODE_EV_LINK_UP:
        at_node_link_up(m, e);
        break;
    case AT_NODE_EV_LINK_DOWN:
        at_node_link_down(m, e);
        break;
    case AT_NODE_EV_LINK_FULL:
        at_node_link_room(m, at_node_link_find(m, e->link), false);
        break;
    case AT_NODE_EV_LINK_DRAIN:
        at_node_link_room(m, at_node_link_find(m, e->link), true);
        break;
    case AT_NODE_EV_MESSAGE:
        at_node_message(m, e);
        break;
    case AT_NODE_EV_PERSISTED:
        at_node_persisted(m);
        break;
    case AT_NODE_EV_LOG_DATA:
        at_node_log_data(m, e);
        break;
    case AT_NODE_EV_BLOB_STATE:
        at_node_blob_state(m, e);
        break;
    case AT_NODE_EV_BLOB_STORED:
        at_node_blob_stored(m, e);
        break;
    case AT_NODE_EV_BLOB_DATA:
        at_node_blob_data(m, e);
        break;
    case AT_NODE_EV_BUNDLE_DATA:
        at_node_bundle_data(m, e);
        break;
    case AT_NODE_EV_BUNDLE_STATE:
        at_node_bundle_state(m, e);
        break;
    case AT_NODE_EV_BUNDLE_STORED:
        at_node_bundle_stored(m, e);
        break;
    case AT_NODE_EV_STATE_SHAPE:
        at_node_tiles_shape(m, e);
        break;
    case AT_NODE_EV_TILES_FOUND:
        at_node_tiles_found(m, e);
        break;
    case AT_NODE_EV_UPDATE_CHECKED:
        at_node_relay_checked(m, e);
        break;
    case AT_NODE_EV_UNIT_PROGRESS:
    case AT_NODE_EV_UNIT_DONE:
    case AT_NODE_EV_UNIT_FAILED:
    case AT_NODE_EV_UNIT_LOST:
        at_node_unit_event(m, e);
        break;
    case AT_NODE_EV_STATE_READY:
        at_node_state_ready(m, e);
        break;
    case AT_NODE_EV_APPLIED:
        at_node_state_applied(m, e);
        break;
    case AT_NODE_EV_SAVED:
        at_node_state_saved(m, e);
        break;
    case AT_NODE_EV_REACHABLE:
        at_node_reachable(m, e);
        break;
    case AT_NODE_EV_PEERS:
        at_node_peers_kept(m, e);
        break;
    case AT_NODE_EV_MEASURED:
        at_node_measured(m, e);
        break;
    case AT_NODE_EV_FINISH:
        finish(m, false);
        break;
    case AT_NODE_EV_LEAVE:
        finish(m, true);
        break;
    case AT_NODE_EV_STOP:
        stop(m);
        break;
    case AT_NODE_EV_SECRET:
        at_node_secret(m, &e->secret);
        break;
    case AT_NODE_EV_AGREE_DATA:
        at_node_agree_data(m, e);
        break;
    }
}

/* ---- the drives ---- */
/* Which group an event may concern. */
static unsigned concerns(const struct at_node_event *e)
{
    switch (e->kind) {
    case AT_NODE_EV_TICK:
        return 0;
    case AT_NODE_EV_BLOB_STATE:
    case AT_NODE_EV_BLOB_STORED:
    case AT_NODE_EV_BLOB_DATA:
    case AT_NODE_EV_BUNDLE_DATA:
    case AT_NODE_EV_BUNDLE_STATE:
    case AT_NODE_EV_BUNDLE_STORED:
    case AT_NODE_EV_TILES_FOUND:
    case AT_NODE_EV_UNIT_PROGRESS:
    case AT_NODE_EV_UNIT_DONE:
    case AT_NODE_EV_STATE_READY:
    case AT_NODE_EV_APPLIED:
    case AT_NODE_EV_SAVED:
        return AT_NODE_WORK;
    case AT_NODE_EV_MESSAGE:
        break;
    default:
        return AT_NODE_WAYS | AT_NODE_WORK;
    }
    switch (at_message_peek(e->bytes)) {
    case AT_MSG_WANT:
    case AT_MSG_PIECE:
    case AT_MSG_MISSING:
    case AT_MSG_BUNDLE_WANT:
    case AT_MSG_BUNDLE:
    case AT_MSG_HELD:
    case AT_MSG_TILES_ASK:
    case AT_MSG_TILES_HAVE:
    case AT_MSG_SAVED:
        return AT_NODE_WORK;
    default:
        return AT_NODE_WAYS | AT_NODE_WORK;
    }
}

/* A steward, and who is no member yet, looks at everything. */
static bool is_plain_member(const struct at_node_machine *m)
{
    return m->has_genesis && !m->is_steward && !m->consensus && at_node_joined(m);
}

static void drive_ways(struct at_node_machine *m)
{
    m->look &= ~(unsigned)AT_NODE_WAYS;
    at_node_links_drive(m);
    at_node_climb_drive(m);
    at_node_crowd_drive(m);
    at_node_spare_drive(m);
    at_node_route_drive(m);
    at_node_peers_drive(m);
    at_node_mesh_drive(m);
}

/* ways: driven, too. Words of others go on behind the own one. */
static void drive_work(struct at_node_machine *m, bool ways)
{
    m->look &= ~(unsigned)AT_NODE_WORK;
    at_node_data_drive(m);
    at_node_unit_drive(m); /* before the state's: a unit is stopped before its state is changed */
    at_node_state_drive(m);
    at_node_blob_drive(m);
    at_node_tiles_drive(m);
    at_node_held_drive(m);
    at_node_relay_drive(m);
    at_node_company_drive(m);
    at_node_member_drive(m);
    at_node_measure_drive(m);
    if (ways) at_node_presence_drive(m);
    at_node_hold_drive(m);
    at_node_seat_drive(m);
    at_node_steward_drive(m);
    at_node_consensus_tick(m);
}

/* Returns the groups that were driven, `before` among them. */
static unsigned drive(struct at_node_machine *m, unsigned before)
{
    unsigned groups = before;
    at_node_agree_drive(m); /* first: who this node is may change */
    if (!is_plain_member(m) || m->ended) groups = AT_NODE_WAYS | AT_NODE_WORK;
    if ((m->look & AT_NODE_WAYS) || m->now_ms >= m->ways_due_ms) groups |= AT_NODE_WAYS;
    if (groups & AT_NODE_WAYS) drive_ways(m);
    if ((m->look & AT_NODE_WORK) || m->now_ms >= m->work_due_ms) groups |= AT_NODE_WORK;
    if (groups & AT_NODE_WORK)
        drive_work(m, groups & AT_NODE_WAYS);
    else if (groups & AT_NODE_WAYS)
        at_node_presence_drive(m);
    return groups;
}

static uint64_t first_of(const uint64_t *all, size_t count)
{
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < count; i++)
        if (all[i] < first) first = all[i];
    return first;
}

static uint64_t ways_deadline_ms(const struct at_node_machine *m)
{
    const uint64_t all[] = {at_node_links_deadline_ms(m), at_node_route_deadline_ms(m),
                            at_node_mesh_deadline_ms(m),  at_node_peers_deadline_ms(m),
                            at_node_climb_deadline_ms(m), at_node_presence_due(m) ? m->now_ms + 1 : UINT64_MAX,
                            at_node_crowd_deadline_ms(m), at_node_spare_deadline_ms(m)};
    return first_of(all, sizeof all / sizeof all[0]);
}

static uint64_t work_deadline_ms(const struct at_node_machine *m)
{
    const uint64_t all[] = {
        at_node_fetch_deadline_ms(m),   at_node_member_deadline_ms(m),  at_node_steward_deadline_ms(m),
        at_node_tiles_deadline_ms(m),   at_node_agree_deadline_ms(m),   at_node_group_deadline_ms(m),
        at_node_company_deadline_ms(m), at_node_measure_deadline_ms(m), at_node_held_deadline_ms(m)};
    return first_of(all, sizeof all / sizeof all[0]);
}

/* Of groups that were not driven it is as it was; but the work may want a dial, later. */
static void set_deadline(struct at_node_machine *m, unsigned driven)
{
    if (driven & AT_NODE_WAYS)
        m->ways_due_ms = ways_deadline_ms(m);
    else if (at_node_mesh_deadline_ms(m) < m->ways_due_ms)
        m->ways_due_ms = at_node_mesh_deadline_ms(m);
    if (driven & AT_NODE_WORK) m->work_due_ms = work_deadline_ms(m);
    m->due_ms = m->ways_due_ms < m->work_due_ms ? m->ways_due_ms : m->work_due_ms;
}

void at_node_machine_step(struct at_node_machine *m, const struct at_node_event *event,
                          struct at_node_update *ret_update)
{
    bool over = m->ended || (!m->started && event->kind != AT_NODE_EV_START);
    m->op_count = 0;
    m->agree.record_count = m->agree.kept_count = m->agree.cosigned_count = m->agree.cosigned_done = 0;
    at_buf_clear(&m->scratch->out);
    if (event->time_ms > m->now_ms) m->now_ms = event->time_ms;
    m->wall_ms = event->wall_ms;
    m->quiet = false;
    if (!over) handle(m, event);
    over = over || (m->quiet && !m->again && m->now_ms < m->due_ms); /* then the drives find nothing to do */
    size_t before = SIZE_MAX;
    unsigned driven = m->again ? AT_NODE_WAYS | AT_NODE_WORK : 0;
    if (!over) driven |= concerns(event);
    for (int pass = 0; pass < AT_NODE_PASSES_MAX && !over && !m->ended && (m->again || before != m->op_count); pass++) {
        before = m->op_count;
        m->again = false;
        driven = drive(m, driven);
    }
    m->again = m->again || (!over && before != m->op_count); /* after the last pass: the next step goes on */
    if (!over) set_deadline(m, driven);
    at_node_out_finish(m, ret_update);
}

uint64_t at_node_machine_deadline_ms(const struct at_node_machine *m)
{
    return m->ended || !m->started ? UINT64_MAX : m->due_ms;
}

bool at_node_machine_is_member(const struct at_node_machine *m, const struct at_node_id *node)
{
    int replica = m->has_genesis ? at_ledger_find(&m->ledger, node) : -1;
    return replica >= 0 && m->ledger.members[replica].active;
}

const struct at_genesis *at_node_machine_genesis(const struct at_node_machine *m)
{
    return m->has_genesis ? &m->genesis : NULL;
}
