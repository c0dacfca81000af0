#include "cli/cli_ledger.h"

#include "os/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEDGER_FILE "ledger.sqlite"
#define BATCH       64

bool at_cli_ledger_exists(const char *dir)
{
    char path[AT_PATH_BYTES];
    return at_path_join(dir, LEDGER_FILE, NULL, path) == AT_OK && at_file_exists(path);
}

at_err at_cli_ledger_open(const char *place, struct at_diag *diag, struct at_cli_ledger *ret_ledger)
{
    char path[AT_PATH_BYTES];
    struct at_buf bytes = {.bytes_max = AT_GENESIS_BYTES_MAX};
    struct at_genesis *genesis = NULL;
    memset(ret_ledger, 0, sizeof *ret_ledger);
    if (!at_file_exists(place)) return at_fail(diag, AT_E_NOT_FOUND, place, "there is no such file or folder");
    at_err_t err = at_path_join(place, LEDGER_FILE, diag, path);
    if (err != AT_OK) return err;
    bool empty;
    if (!at_file_exists(path)) {
        if (at_dir_is_empty(place, NULL, &empty) == AT_OK)
            return at_fail(diag, AT_E_NOT_FOUND, place, "no ledger here: %s is missing", LEDGER_FILE);
        snprintf(path, sizeof path, "%s", place);
    }
    err = at_store_open_readonly(path, diag, &ret_ledger->store);
    if (err == AT_OK) err = at_store_genesis(ret_ledger->store, diag, &bytes);
    if (err == AT_OK && (genesis = malloc(sizeof *genesis)) == NULL)
        err = at_fail(diag, AT_E_NOMEM, path, "no memory for the genesis");
    if (err == AT_OK) err = at_genesis_decode(at_buf_span(&bytes), diag, genesis);
    if (err == AT_OK) err = at_ledger_init(&ret_ledger->ledger, genesis, diag);
    free(genesis);
    at_buf_release(&bytes);
    if (err != AT_OK) at_cli_ledger_release(ret_ledger);
    return err;
}

void at_cli_ledger_release(struct at_cli_ledger *l)
{
    at_ledger_release(&l->ledger);
    at_store_close(l->store);
    memset(l, 0, sizeof *l);
}

at_err at_cli_ledger_each(struct at_cli_ledger *l, struct at_diag *diag, at_cli_record_fn *visit, void *user)
{
    struct at_signed_record *batch = malloc(BATCH * sizeof *batch);
    struct at_record *rec = malloc(sizeof *rec);
    at_err_t err = batch != NULL && rec != NULL ? AT_OK : at_fail(diag, AT_E_NOMEM, LEDGER_FILE, "out of memory");
    for (uint64_t idx = 0; err == AT_OK;) {
        uint32_t count;
        if ((err = at_store_read(l->store, idx, BATCH, diag, batch, &count)) != AT_OK || count == 0) break;
        for (uint32_t i = 0; i < count && err == AT_OK; i++, idx++) {
            struct at_diag why = {0};
            if ((err = at_ledger_apply(&l->ledger, &batch[i], &why, rec)) != AT_OK) {
                char where[64];
                snprintf(where, sizeof where, "record %llu", (unsigned long long)idx);
                err = at_fail(diag, err, where, "%s; `atoll ledger verify` checks them all", why.text);
            } else if (visit != NULL) {
                err = visit(user, idx, &batch[i], rec);
            }
        }
    }
    free(rec);
    free(batch);
    return err;
}

at_err at_cli_ledger_fold(struct at_cli_ledger *l, struct at_diag *diag)
{
    return at_cli_ledger_each(l, diag, NULL, NULL);
}
