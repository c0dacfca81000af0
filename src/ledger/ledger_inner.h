/* ledger_inner.h: between ledger_judge.c, which judges records, ledger_take.c, which takes them, and ledger.c. */
#ifndef ATOLL_LEDGER_LEDGER_INNER_H
#define ATOLL_LEDGER_LEDGER_INNER_H

#include "ledger/ledger.h"

/* What the log knows of the members, for roles.h. */
struct at_roles at_ledger_roles(const struct at_ledger *l);
/* Takes a record that was judged right. AT_E_NOMEM, and nothing has changed. */
at_err at_ledger_take(struct at_ledger *l, const struct at_record *rec, const struct at_node_id *author);

/* ledger_members.c. realloc of count elements; the old block stays on failure. */
at_err_t at_ledger_grow(void **block, size_t count, size_t element_bytes);
/* One more, at the end; all is zero but its id. AT_E_NOMEM, and nothing has changed. */
at_err_t at_ledger_members_add(struct at_ledger *l, const struct at_node_id *id);

/* updates.c: receipts of the round by their update. Add, drop: the replica's, which is there. */
void at_ledger_updates_clear(struct at_ledger *l);
void at_ledger_updates_add(struct at_ledger *l, uint32_t replica);
void at_ledger_updates_drop(struct at_ledger *l, uint32_t replica);
bool at_ledger_updates_clash(const struct at_ledger *l, const struct at_receipt *receipt); /* one says another size */

#endif
