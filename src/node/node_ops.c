/* node_ops.c: what the machine asks for, done; what takes long by node_jobs.c. */
#include "net/address.h"
#include "node/node_bundle.h"

#include <stdio.h>
#include <string.h>

static void do_persist(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    at_err_t err = at_agree_persist(n->store, op, &diag);
    if (err)
        node_fail(n, err, &diag);
    else
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_PERSISTED});
}

static void do_send(struct node *n, const struct at_node_op *op)
{
    struct at_link_id link = {op->link};
    at_err_t err = at_net_send(n->net, link, op->frame_class, op->bytes);
    if (err == AT_E_TOO_BIG && op->frame_class == AT_FRAME_BULK)
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_LINK_FULL, .link = op->link});
    else if (err && err != AT_E_NOT_FOUND) /* gone: LINK_DOWN is on its way */
        at_net_close(n->net, link, at_err_text(err));
}

/* A member's loopback address is of use to nodes on its own machine alone. A node that listens to the net connects to
 * nothing on its machine because a member says so. */
static bool means_this_machine(const struct node *n, const struct at_endpoint *e)
{
    struct sockaddr_storage sa;
    if (!at_endpoint_loopback(e) || !at_address_numeric(n->folder.host, 1, &sa)) return false;
    struct at_endpoint own = at_address_of((struct sockaddr *)&sa);
    return !at_endpoint_loopback(&own);
}

static void do_dial(struct node *n, const struct at_node_op *op)
{
    const struct at_invite *contact = &n->folder.contact;
    struct at_link_id link = {0};
    char host[48];
    at_err_t err = AT_E_NOT_FOUND;
    if (op->kind == AT_NODE_OP_MEET) {
        err = at_net_meet(n->net, (struct at_link_id){op->link}, op->how, &op->node, &link);
    } else if (op->endpoint.port) {
        at_address_host(&op->endpoint, host);
        if (!means_this_machine(n, &op->endpoint)) err = at_net_dial(n->net, host, op->endpoint.port, &op->node, &link);
    } else if (n->folder.has_contact && at_node_id_eq(&op->node, &contact->node)) {
        err = at_net_dial(n->net, contact->host, contact->port, &op->node, &link);
    }
    if (err)
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_LINK_DOWN, .node = op->node, .dial = op->dial});
    else
        node_dial_add(n, link, op->dial);
}

/* A cache: when it cannot be written, the node goes on, and asks others again after its next start. */
static void do_keep_peers(struct node *n, const struct at_node_op *op)
{
    char path[AT_PATH_BYTES];
    struct at_diag diag = {0};
    struct at_span part = op->bytes;
    at_err_t err = at_folder_path(&n->folder, "peers", &diag, path);
    if (!err) err = at_file_write_atomic(path, &part, 1, 0600, &diag);
    if (err) node_log(n, AT_NODE_LOG_WARNING, "the members' addresses could not be kept: %s", diag.text);
}

static void do_genesis(struct node *n, const struct at_node_op *op)
{
    char path[AT_PATH_BYTES];
    struct at_diag diag = {0};
    at_err_t err = at_folder_path(&n->folder, "ledger.sqlite", &diag, path);
    if (!err) err = at_store_create(path, op->bytes, &diag, &n->store);
    if (!err) err = node_configure(n, at_node_machine_genesis(n->machine), &diag);
    if (err) node_fail(n, err, &diag);
}

static void do_blob(struct node *n, const struct at_node_op *op)
{
    struct node_todo todo = {.blob = op->read.kind,
                             .key = op->read.key,
                             .link = op->link,
                             .offset = op->read.offset,
                             .bytes = op->read.bytes};
    struct at_diag diag = {0};
    at_err_t err = AT_OK;
    switch (op->kind) {
    case AT_NODE_OP_BLOB_STAT:
        todo.kind = AT_NODE_EV_BLOB_STATE;
        break;
    case AT_NODE_OP_BLOB_READ:
        todo.kind = AT_NODE_EV_BLOB_DATA;
        break;
    case AT_NODE_OP_BUNDLE_READ:
    case AT_NODE_OP_BUNDLE_STAT:
        todo.kind = op->kind == AT_NODE_OP_BUNDLE_READ ? AT_NODE_EV_BUNDLE_DATA : AT_NODE_EV_BUNDLE_STATE;
        todo.bytes_max = op->bundle.bytes_max;
        todo.bytes = op->bundle.count;
        memcpy(todo.keys, op->bundle.keys, op->bundle.count * sizeof *todo.keys);
        break;
    case AT_NODE_OP_BLOB_WRITE:
        if (op->read.kind == AT_BLOB_TILE) {
            err = at_vault_write_tile(&n->vault, op->read.key, op->read.offset, op->bytes, &diag);
            break;
        }
        err = at_vault_write(&n->vault, op->read.kind, op->read.key, op->read.offset, op->bytes, &diag);
        break;
    case AT_NODE_OP_BLOB_DROP:
        at_vault_drop(&n->vault, op->read.kind, op->read.key);
        break;
    case AT_NODE_OP_BLOB_PRUNE:
        err = at_vault_prune(&n->vault, op->prune.keep, op->prune.count, &diag);
        break;
    default:
        break;
    }
    if (err) node_fail(n, err, &diag);
    if (todo.kind) node_later(n, todo);
}

static void do_end(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    n->run_ended = op->end.run_ended;
    n->finished = op->end.finished;
    snprintf(n->end_reason, sizeof n->end_reason, "%s", op->reason);
    if (op->end.err)
        node_fail(n, at_fail(&diag, op->end.err, n->folder.dir, "%s", op->reason), &diag);
    else
        node_end(n);
}

void node_do(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    at_err_t err;
    switch (op->kind) {
    case AT_NODE_OP_PERSIST:
        do_persist(n, op);
        break;
    case AT_NODE_OP_SEND:
        do_send(n, op);
        break;
    case AT_NODE_OP_DIAL_OFF:
        node_dial_off(n, op->dial);
        break;
    case AT_NODE_OP_DIAL:
    case AT_NODE_OP_MEET:
        do_dial(n, op);
        break;
    case AT_NODE_OP_CLOSE:
        at_net_close(n->net, (struct at_link_id){op->link}, op->reason);
        break;
    case AT_NODE_OP_GENESIS:
        do_genesis(n, op);
        break;
    case AT_NODE_OP_LOG_READ:
        node_later(
            n, (struct node_todo){
                   .kind = AT_NODE_EV_LOG_DATA, .link = op->link, .offset = op->read.offset, .last = op->read.total});
        break;
    case AT_NODE_OP_BLOB_STAT:
    case AT_NODE_OP_BLOB_WRITE:
    case AT_NODE_OP_BLOB_DROP:
    case AT_NODE_OP_BLOB_READ:
    case AT_NODE_OP_BUNDLE_READ:
    case AT_NODE_OP_BUNDLE_STAT:
    case AT_NODE_OP_BLOB_PRUNE:
        do_blob(n, op);
        break;
    case AT_NODE_OP_BUNDLE_WRITE:
        node_bundle_write(n, op);
        break;
    case AT_NODE_OP_STATE_SHAPE:
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_STATE_SHAPE});
        break;
    case AT_NODE_OP_BLOB_FINISH:
    case AT_NODE_OP_TILES_FIND:
    case AT_NODE_OP_UPDATE_CHECK:
    case AT_NODE_OP_STATE_INIT:
    case AT_NODE_OP_STATE_INSTALL:
    case AT_NODE_OP_APPLY:
    case AT_NODE_OP_GROUP:
    case AT_NODE_OP_UNIT_START:
        node_job(n, op);
        break;
    case AT_NODE_OP_UNIT_STOP:
        at_compute_cancel(n->compute, n->unit_serial++);
        node_team_end(n);
        break;
    case AT_NODE_OP_UNIT_ENOUGH:
        at_compute_enough(n->compute, n->unit_serial);
        break;
    case AT_NODE_OP_SAVE:
        node_save(n, op);
        break;
    case AT_NODE_OP_PEERS_KEEP:
        do_keep_peers(n, op);
        break;
    case AT_NODE_OP_AGREE_READ:
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_AGREE_DATA,
                                         .link = op->link,
                                         .agree = {.term = op->agree.term,
                                                   .of_block = op->agree.of_block,
                                                   .view = op->agree.view,
                                                   .last = op->agree.last,
                                                   .hash = op->agree.hash}});
        break;
    case AT_NODE_OP_SECRET_MAKE:
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_SECRET, .term = op->agree.term});
        break;
    case AT_NODE_OP_SECRETS_ERASE:
        if ((err = at_secrets_erase(n->folder.dir, op->agree.term, &diag))) node_fail(n, err, &diag);
        break;
    case AT_NODE_OP_MEASURE:
        node_measure(n, op);
        break;
    case AT_NODE_OP_STATUS:
        node_log(n, AT_NODE_LOG_EVENT, "%s", op->reason);
        break;
    case AT_NODE_OP_ENDED:
        do_end(n, op);
        break;
    }
}
