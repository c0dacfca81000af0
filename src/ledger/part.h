/* part.h: what a member does in the round that was opened last, and why, for people and scripts. Pure. */
#ifndef ATOLL_LEDGER_PART_H
#define ATOLL_LEDGER_PART_H

#include "ledger/ledger.h"

#define AT_PART_TEXT 160

struct at_part {
    enum at_group_role role;
    uint32_t lead;                /* where it trains: the first replica of its group */
    uint32_t stage, stages;       /* where it trains: its stage, from 0, of so many */
    uint32_t layer_first, layers; /* of that stage */
    uint64_t step_us;             /* that a step should take its group; 0: not known */
    uint64_t mflops, mib;         /* as it has measured itself; 0: it has not */
    uint32_t line_kbit;           /* that its line carries at least (roles.h); 0: not known */
    uint16_t doubt;               /* its speed counts half so often (roles.h) */
    bool narrow;                  /* nothing is gained by sharing over that line: what is passed on takes longer */
};

/* Role NONE in runs whose members work alone, and for whoever the last OPEN does not name. */
struct at_part at_ledger_part(const struct at_ledger *ledger, uint32_t replica);
/* "trains", "spare" or "helps"; "" for NONE. */
const char *at_part_word(const struct at_part *part);
/* Why, in a few words that fit a line; "" for NONE. */
void at_part_text(const struct at_part *part, char ret_text[AT_PART_TEXT]);

#endif
