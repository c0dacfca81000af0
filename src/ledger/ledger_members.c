/* ledger_members.c: the way from an id to its replica, and room for one more of them. */
#include "ledger/ledger_inner.h"

#include <stdlib.h>
#include <string.h>

static size_t slot_of(const struct at_ledger *l, const struct at_node_id *id)
{
    size_t i = (size_t)at_load_le64(id->b) & (l->slot_count - 1);
    while (l->slots[i].replica1 != 0 && !at_node_id_eq(&l->slots[i].id, id)) i = (i + 1) & (l->slot_count - 1);
    return i;
}

int at_ledger_find(const struct at_ledger *l, const struct at_node_id *id)
{
    return l->slot_count != 0 ? (int)l->slots[slot_of(l, id)].replica1 - 1 : -1;
}

at_err_t at_ledger_grow(void **block, size_t count, size_t element_bytes)
{
    size_t bytes;
    void *p = at_mul_size(count, element_bytes, &bytes) ? realloc(*block, bytes) : NULL;
    if (p == NULL) return AT_E_NOMEM;
    *block = p;
    return AT_OK;
}

/* Room for one more member. On failure nothing visible has changed: larger blocks do no harm. */
static at_err_t reserve(struct at_ledger *l)
{
    if (l->member_count < l->member_cap) return AT_OK;
    uint32_t cap = l->member_cap < 16 ? 16 : l->member_cap * 2, slot_count = cap * 2;
    void *next = l->update_next, *members = l->members, *allotments = l->allotments, *claims = l->claims,
         *candidates = l->candidates, *groups = l->groups, *measured = l->measured, *work = l->room.work,
         *row = l->room.row;
    at_err_t err = at_ledger_grow(&members, cap, sizeof *l->members);
    l->members = members;
    if (!err) err = at_ledger_grow(&allotments, cap, sizeof *l->allotments);
    l->allotments = allotments;
    if (!err) err = at_ledger_grow(&groups, cap, sizeof *l->groups);
    l->groups = groups;
    if (!err) err = at_ledger_grow(&measured, cap, sizeof *l->measured);
    l->measured = measured;
    if (!err) err = at_ledger_grow(&work, cap, sizeof *l->room.work);
    l->room.work = work;
    if (!err) err = at_ledger_grow(&row, cap, sizeof *l->room.row);
    l->room.row = row;
    if (!err) err = at_ledger_grow(&claims, cap, sizeof *l->claims);
    l->claims = claims;
    if (!err) err = at_ledger_grow(&candidates, cap, sizeof *l->candidates);
    l->candidates = candidates;
    if (!err) err = at_ledger_grow(&next, cap, sizeof *l->update_next);
    l->update_next = next;
    if (err) return err;
    struct at_ledger_slot *slots = calloc(slot_count, sizeof *slots);
    uint32_t *heads = calloc(slot_count, sizeof *heads);
    if (slots == NULL || heads == NULL) {
        free(slots);
        free(heads);
        return AT_E_NOMEM;
    }
    free(l->slots);
    free(l->update_heads);
    l->slots = slots;
    l->update_heads = heads;
    l->slot_count = slot_count;
    l->member_cap = cap;
    for (uint32_t i = 0; i < l->member_count; i++) {
        slots[slot_of(l, &l->members[i].id)] = (struct at_ledger_slot){l->members[i].id, i + 1};
        if (l->allotments[i].received) at_ledger_updates_add(l, i);
    }
    return AT_OK;
}

at_err_t at_ledger_members_add(struct at_ledger *l, const struct at_node_id *id)
{
    at_err_t err = reserve(l);
    if (err) return err;
    l->slots[slot_of(l, id)] = (struct at_ledger_slot){*id, l->member_count + 1};
    uint32_t replica = l->member_count++;
    memset(&l->members[replica], 0, sizeof *l->members);
    memset(&l->allotments[replica], 0, sizeof *l->allotments);
    memset(&l->groups[replica], 0, sizeof *l->groups);
    memset(&l->measured[replica], 0, sizeof *l->measured);
    l->members[replica].id = *id;
    return AT_OK;
}
