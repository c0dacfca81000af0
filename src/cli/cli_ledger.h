/* cli_ledger.h: a run's ledger as the commands read it: the file, its genesis, its fold. Read only. */
#ifndef ATOLL_CLI_CLI_LEDGER_H
#define ATOLL_CLI_CLI_LEDGER_H

#include "ledger/verify.h"
#include "store/store.h"

struct at_cli_ledger {
    struct at_store *store;
    struct at_ledger ledger; /* initialised with the genesis; empty until it is folded or verified */
};
bool at_cli_ledger_exists(const char *dir); /* in this folder */
/* `place`: a run folder or a ledger file. AT_E_NOT_FOUND, AT_E_DATA. */
at_err at_cli_ledger_open(const char *place, struct at_diag *diag, struct at_cli_ledger *ret_ledger);
void at_cli_ledger_release(struct at_cli_ledger *l); /* safe on a zeroed object */

/* The fold of what is stored, without checking signatures: for showing one's own ledger. AT_E_VERIFY and the like when
 * a record does not fit; `atoll ledger verify` then says more. */
at_err at_cli_ledger_fold(struct at_cli_ledger *l, struct at_diag *diag);

/* Calls visit for each of `count` records from `from` on, decoded; the ledger is folded along the way up to there. */
typedef at_err_t at_cli_record_fn(void *user, uint64_t idx, const struct at_signed_record *rec,
                                  const struct at_record *body);
at_err at_cli_ledger_each(struct at_cli_ledger *l, struct at_diag *diag, at_cli_record_fn *visit, void *user);

#endif
