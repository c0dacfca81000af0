/* ledger_samples.h: which samples of the run's data counted, reckoned from the log once more: a plain second way beside
 * base/samples.c (which the fold uses), for those who check a run from outside. Exact: yes.
 *
 * Claim that is checked: the units that were given out are those of the rule (the lowest free place of a whole unit, else
 * fresh samples), a counted unit is the beginning of what its replica was given, and no sample counts twice. What is left
 * below the last counted sample waits and is given out again. */
#ifndef ATOLL_CLI_LEDGER_SAMPLES_H
#define ATOLL_CLI_LEDGER_SAMPLES_H

#include "ledger/ledger.h"

struct at_sample_check {       /* zero is a valid empty object */
    struct at_range_list used; /* counted so far; none touches another */
    struct at_range_list busy; /* the same and what the running round has given out */
    uint64_t next;             /* nothing from here on was ever given out */
    uint64_t counted, waiting; /* samples counted; given out, not counted, and below `next` */
    uint64_t units;            /* counted */
};
void at_sample_check_release(struct at_sample_check *c);

/* After each record: `before` is the ledger's phase in front of it. AT_E_VERIFY names round and replica; AT_E_NOMEM. */
at_err at_sample_check_take(struct at_sample_check *c, const struct at_ledger *ledger, enum at_ledger_phase before,
                            struct at_diag *diag);

#endif
