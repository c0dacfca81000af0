/* ledger_replay.h: a whole run computed again from its ledger and its text alone: every counted unit is trained once more
 * on the samples that the log gave it and with the error feedback that its member's earlier ones left over, every outer
 * step is applied, and each round's state root, held-out loss, updates and error feedback are compared with what the log
 * says. Nothing of what the members kept (updates, models) is read, and nothing of the folder is changed. Effects: reads
 * the folder. Exact: yes: the bits do not depend on who computes them.
 *
 * It costs the arithmetic of the whole run. `atoll ledger verify` is the quick check: signatures, order, points. */
#ifndef ATOLL_CLI_LEDGER_REPLAY_H
#define ATOLL_CLI_LEDGER_REPLAY_H

#include "cli/cli_ledger.h"
#include "tensor/exec.h"

struct at_replay_report {
    bool ok;
    uint32_t rounds;           /* that were computed and agree */
    uint64_t units, tokens;    /* of them */
    uint64_t untold;           /* of the units: that had windows of the held-out text and tell no loss of them */
    uint64_t counted, waiting; /* samples that count; that were given out, did not count and come again */
    struct at_hash state_root; /* after these rounds */
    uint32_t round;            /* !ok: the first that differs, from 0 */
    char reason[512];          /* !ok */
};

/* Told after every inner step and every round; false stops it (AT_E_INTERRUPTED). round_done: `report` is fresh. */
typedef bool at_replay_progress_fn(void *user, const struct at_replay_report *report, uint64_t tokens, bool round_done);

/* `l`: opened, its ledger empty, already verified (the signatures are not looked at again). `data_dir`: the text's
 * shards, each a file named by its hash. AT_E_VERIFY: report.round and reason say what differs. AT_E_NOT_FOUND, AT_E_DATA:
 * the text is not here or damaged. */
at_err at_ledger_replay(struct at_cli_ledger *l, const char *data_dir, const struct at_exec *ex,
                        at_replay_progress_fn *progress, void *user, struct at_diag *diag,
                        struct at_replay_report *ret_report);

#endif
