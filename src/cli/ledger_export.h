/* ledger_export.h: a run's ledger as one file for somebody else to check, also while its node runs (a plain copy of the
 * file would lack what is still in SQLite's journal beside it). Effects: writes the file. */
#ifndef ATOLL_CLI_LEDGER_EXPORT_H
#define ATOLL_CLI_LEDGER_EXPORT_H

#include "cli/cli_ledger.h"

/* Writes genesis, all records that `l` has now and the stewards' signatures over them to a new file at `path`, mode 0600;
 * nothing that is a steward's own goes with it. The file is there whole or not at all. AT_E_ENV: there is one already;
 * AT_E_DISK; AT_E_DATA: `l` is damaged. What is written is not judged: at_ledger_verify does that. */
at_err at_ledger_export(struct at_cli_ledger *l, const char *path, struct at_diag *diag, uint64_t *ret_records);

#endif
