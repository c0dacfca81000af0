#include "node/node_bundle.h"

#include <stdlib.h>
#include <string.h>

at_err_t node_bundle_read(struct node *n, const struct node_todo *todo, struct at_span data[AT_BUNDLE_MAX],
                          struct at_node_event *ev)
{
    uint8_t *at;
    uint32_t i = 0;
    at_buf_clear(&n->bundle);
    at_err_t err = at_buf_reserve(&n->bundle, todo->bytes_max, &at);
    for (; i < todo->bytes && !err; i++) {
        uint64_t total = 0;
        struct at_span bytes = {0};
        bool here = at_blobs_size(&n->vault.updates, todo->keys[i], &total) == AT_OK && total <= todo->bytes_max;
        if (here && n->bundle.n + total > todo->bytes_max) break; /* before it is read */
        here = here &&
               at_vault_read(&n->vault, AT_BLOB_UPDATE, todo->keys[i], 0, (uint32_t)total, &total, &bytes) == AT_OK;
        here = here && total == bytes.n;
        data[i] = at_span(n->bundle.p + n->bundle.n, here ? bytes.n : 0);
        if (here) err = at_buf_append(&n->bundle, bytes.p, bytes.n);
    }
    ev->bundle.data = data;
    ev->bundle.count = i;
    return err;
}

void node_bundle_stat(struct node *n, const struct node_todo *todo, struct at_node_event *ev)
{
    ev->bundle.count = todo->bytes;
    for (uint32_t i = 0; i < todo->bytes; i++)
        if (at_blobs_has(&n->vault.updates, todo->keys[i])) ev->bundle.ok |= 1u << i;
}

/* ---- writing ---- */
struct written {
    struct at_work work;
    struct node *n;
    uint32_t count, ok;
    struct at_hash keys[AT_BUNDLE_MAX];
    size_t bytes[AT_BUNDLE_MAX];
    struct at_buf data; /* of all, one after the other; owned */
    at_err_t err;
    struct at_diag diag;
};

static void written_free(struct written *j)
{
    at_buf_release(&j->data);
    free(j);
}

static void run_write(struct at_work *work)
{
    struct written *j = (struct written *)work;
    const uint8_t *p = j->data.p;
    for (uint32_t i = 0; i < j->count && !j->err; p += j->bytes[i++]) {
        struct at_hash got;
        if (!at_hash_eq(at_sha256(p, j->bytes[i]), j->keys[i])) continue;
        j->err = at_blobs_put(&j->n->vault.updates_writer, at_span(p, j->bytes[i]), &j->diag, &got);
        if (!j->err) j->ok |= 1u << i;
    }
}

static void write_done(struct at_work *work)
{
    struct written *j = (struct written *)work;
    struct at_node_event ev = {.kind = AT_NODE_EV_BUNDLE_STORED,
                               .bytes = at_span(j->keys[0].b, j->count * sizeof j->keys[0])};
    ev.bundle.count = j->count;
    ev.bundle.ok = j->ok;
    if (j->err)
        node_fail(j->n, j->err, &j->diag);
    else
        node_feed(j->n, &ev);
    written_free(j);
}

void node_bundle_write(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    struct written *j = calloc(1, sizeof *j);
    at_err_t err = j ? AT_OK : AT_E_NOMEM;
    for (uint32_t i = 0; i < op->bundle.count && !err; i++) {
        j->keys[i] = op->bundle.keys[i];
        j->bytes[i] = op->bundle.data[i].n;
        err = at_buf_append(&j->data, op->bundle.data[i].p, op->bundle.data[i].n);
    }
    if (err) {
        if (j) written_free(j);
        node_fail(n, at_fail(&diag, AT_E_NOMEM, n->folder.dir, "out of memory"), &diag);
        return;
    }
    j->n = n;
    j->count = op->bundle.count;
    j->work.run = run_write;
    j->work.done = write_done;
    at_worker_push(&n->disk, &j->work);
}
