/* verify.h: recompute a whole stored ledger from genesis and say OK or the first record that is wrong. Pure.
 *
 * Every row's place, size, signature and meaning is checked, every stored checkpoint's signatures and root too: of a size
 * there must be those of a quorum (2f+1) of the seats that ordered its last record. With a checkpoint after every record
 * (what a single steward's store holds) the record named is exact for a changed byte, a dropped, swapped, repeated or
 * inserted row; where a checkpoint covers a batch and no single record is wrong in itself, the first record of that batch
 * is named. Records past the last checkpoint are refused; of several stewards up to AT_LEDGER_UNCOVERED_MAX may be there,
 * which are final and wait for their cosignatures, and their number is told. Not noticed, by its nature: a file
 * cut back together with its checkpoints to an earlier state (peers' checkpoints notice that). */
#ifndef ATOLL_LEDGER_VERIFY_H
#define ATOLL_LEDGER_VERIFY_H

#include "base/par.h"
#include "ledger/ledger.h"
#include "wire/log_source.h"

#define AT_LEDGER_UNCOVERED_MAX 256 /* as many as go into one part of the log */

struct at_ledger_report {
    uint64_t records;    /* accepted, up to the first wrong one */
    uint64_t uncovered;  /* ok: of these, after the last checkpoint */
    struct at_hash head; /* root of these */
    bool ok;
    uint64_t record;  /* !ok: the first wrong one */
    char reason[512]; /* !ok */
};

/* `ledger` is initialised with the genesis and empty; afterwards it holds the fold of the accepted records.
 * AT_OK: report.ok. AT_E_VERIFY: report names the record. Other codes: the source failed, no verdict.
 * `par` spreads the signatures. Memory: about 2 MiB, freed on return. */
at_err at_ledger_verify(struct at_ledger *ledger, const struct at_log_source *source, const struct at_par *par,
                        struct at_diag *diag, struct at_ledger_report *ret_report);

#endif
