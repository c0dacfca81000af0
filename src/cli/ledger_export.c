#include "cli/ledger_export.h"

#include "cli/cli.h"
#include "os/file.h"

#include <stdio.h>
#include <stdlib.h>

#define BATCH 256

struct copying {
    struct at_store *from, *to;
    struct at_signed_record *records;
    struct at_log_checkpoint *checkpoints;
    uint64_t size;
};

static at_err copy_records(struct copying *c, struct at_diag *diag)
{
    for (uint64_t at = 0; at < c->size;) {
        uint32_t count = 0, most = c->size - at < BATCH ? (uint32_t)(c->size - at) : BATCH;
        at_err_t err = at_store_read(c->from, at, most, diag, c->records, &count);
        if (err == AT_OK && count != most)
            err = at_fail(diag, AT_E_DATA, "the ledger", "record %llu is missing", (unsigned long long)(at + count));
        if (err == AT_OK) err = at_store_append(c->to, at, c->records, count, NULL, 0, diag);
        if (err != AT_OK) return err;
        at += count;
    }
    return AT_OK;
}

/* A size has at most one checkpoint of each seat, so a batch that ends within a size loses nothing when that size is read
 * again: those known already stay as they are. */
static at_err copy_checkpoints(struct copying *c, struct at_diag *diag)
{
    for (uint64_t size = 0; size <= c->size;) {
        uint32_t count = 0, known = 0;
        at_err_t err = at_store_read_checkpoints(c->from, size, BATCH, diag, c->checkpoints, &count);
        while (known < count && c->checkpoints[known].size <= c->size) known++;
        if (err == AT_OK && known > 0) err = at_store_append(c->to, c->size, NULL, 0, c->checkpoints, known, diag);
        if (err != AT_OK) return err;
        if (count < BATCH || known < count) break;
        size = c->checkpoints[count - 1].size > size ? c->checkpoints[count - 1].size : size + 1;
    }
    return AT_OK;
}

at_err at_ledger_export(struct at_cli_ledger *l, const char *path, struct at_diag *diag, uint64_t *ret_records)
{
    _Static_assert(BATCH > AT_SEATS_MAX, "a batch of checkpoints has room for a whole size");
    char part[AT_PATH_BYTES];
    struct at_buf genesis = {.bytes_max = AT_GENESIS_BYTES_MAX};
    struct copying c = {.from = l->store};
    if (at_file_exists(path)) return at_fail(diag, AT_E_ENV, path, "exists already; give another name");
    if (snprintf(part, sizeof part, "%s.export-part", path) >= (int)sizeof part)
        return at_fail(diag, AT_E_USAGE, path, "the name is too long");
    c.records = malloc(BATCH * sizeof *c.records);
    c.checkpoints = malloc(BATCH * sizeof *c.checkpoints);
    at_err_t err = AT_OK;
    if (c.records == NULL || c.checkpoints == NULL) err = at_fail(diag, AT_E_NOMEM, path, "out of memory");
    if (err == AT_OK) err = at_file_remove(part, diag); /* of an export that was killed */
    if (err == AT_OK) err = at_store_genesis(l->store, diag, &genesis);
    if (err == AT_OK) err = at_store_size(l->store, diag, &c.size);
    if (err == AT_OK) err = at_store_create(part, at_buf_span(&genesis), diag, &c.to);
    bool made = err == AT_OK;
    if (err == AT_OK) err = copy_records(&c, diag);
    if (err == AT_OK) err = copy_checkpoints(&c, diag);
    if (err == AT_OK) err = at_store_seal(c.to, diag);
    at_store_close(c.to);
    if (err == AT_OK) err = at_file_rename(part, path, diag);
    if (err != AT_OK && made && at_file_remove(part, NULL) != AT_OK) at_say("%s is left over; delete it", part);
    at_buf_release(&genesis);
    free(c.checkpoints);
    free(c.records);
    *ret_records = c.size;
    return err;
}
