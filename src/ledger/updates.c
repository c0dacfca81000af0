/* updates.c: the round's receipts by the update they name, so that each new one need not be compared with all others: that
 * was a thousand comparisons for each of a thousand receipts, at each of a thousand members. Lists by the hash's first
 * bytes; a replica is in one of them at most. */
#include "ledger/ledger_inner.h"

#include <string.h>

static uint32_t *head_of(const struct at_ledger *l, const struct at_hash *update)
{
    return &l->update_heads[at_load_le32(update->b) & (l->slot_count - 1)];
}

void at_ledger_updates_clear(struct at_ledger *l)
{
    if (l->slot_count) memset(l->update_heads, 0, l->slot_count * sizeof *l->update_heads);
}

void at_ledger_updates_add(struct at_ledger *l, uint32_t replica)
{
    uint32_t *head = head_of(l, &l->allotments[replica].receipt.update);
    l->update_next[replica] = *head;
    *head = replica + 1;
}

void at_ledger_updates_drop(struct at_ledger *l, uint32_t replica)
{
    uint32_t *at = head_of(l, &l->allotments[replica].receipt.update);
    while (*at != replica + 1) at = &l->update_next[*at - 1];
    *at = l->update_next[replica];
}

bool at_ledger_updates_clash(const struct at_ledger *l, const struct at_receipt *receipt)
{
    for (uint32_t k = *head_of(l, &receipt->update); k != 0; k = l->update_next[k - 1]) {
        const struct at_receipt *other = &l->allotments[k - 1].receipt;
        if (other->update_bytes != receipt->update_bytes && at_hash_eq(other->update, receipt->update)) return true;
    }
    return false;
}
