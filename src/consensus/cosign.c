/* cosign.c: see the table in cosign.h. */
#include "consensus/cosign.h"

#include <string.h>

void at_cosign_init(struct at_cosign *c, struct at_hash run, const struct at_node_id *seats, uint32_t seat_count,
                    uint64_t size, const struct at_verifier *verifier)
{
    AT_ASSERT(seat_count >= 1 && seat_count <= AT_SEATS_MAX && seat_count % 3 == 1);
    memset(c, 0, sizeof *c);
    c->run = run;
    c->verifier = verifier;
    c->seat_count = seat_count;
    c->size = size;
    memcpy(c->seats, seats, seat_count * sizeof *seats);
}

static struct at_cosign_kept *kept_find(struct at_cosign *c, uint32_t seat, uint64_t size)
{
    for (size_t i = 0; i < AT_COSIGN_KEPT; i++)
        if (c->kept[seat][i].cosignature.size == size) return &c->kept[seat][i];
    return NULL;
}

static struct at_cosign_kept *kept_smallest(struct at_cosign *c, uint32_t seat)
{
    struct at_cosign_kept *least = &c->kept[seat][0];
    for (size_t i = 1; i < AT_COSIGN_KEPT; i++)
        if (c->kept[seat][i].cosignature.size < least->cosignature.size) least = &c->kept[seat][i];
    return least;
}

static void count(struct at_cosign *c, const struct at_log_checkpoint *cosignature, struct at_cosign_update *update)
{
    if (cosignature->size <= c->size) return;
    uint32_t signers = 0;
    for (uint32_t i = 0; i < c->seat_count; i++) {
        const struct at_cosign_kept *k = kept_find(c, i, cosignature->size);
        if (k == NULL || !at_hash_eq(k->cosignature.root, cosignature->root)) continue;
        signers |= UINT32_C(1) << i;
        update->by[i] = k->cosignature;
    }
    if ((uint32_t)__builtin_popcount(signers) < 2 * ((c->seat_count - 1) / 3) + 1) return;
    c->size = cosignature->size;
    update->signers = signers;
}

at_err at_cosign_take(struct at_cosign *c, const struct at_log_checkpoint *cosignature,
                      struct at_cosign_update *ret_update)
{
    uint32_t seat = 0;
    while (seat < c->seat_count && !at_node_id_eq(&c->seats[seat], &cosignature->steward)) seat++;
    if (seat == c->seat_count || cosignature->size == 0) return AT_E_PEER;
    at_err_t err = at_log_checkpoint_verify_by(cosignature, c->run, c->verifier);
    if (err) return err;
    memset(ret_update, 0, sizeof *ret_update);
    struct at_cosign_kept *k = kept_find(c, seat, cosignature->size);
    if (k != NULL) {
        if (at_hash_eq(k->cosignature.root, cosignature->root) || k->told) return AT_OK;
        k->told = true;
        ret_update->has_evidence = true;
        ret_update->evidence = at_evidence_of_roots(c->run, &k->cosignature, cosignature);
        return AT_OK;
    }
    k = kept_smallest(c, seat);
    if (cosignature->size < k->cosignature.size) return AT_E_PEER;
    *k = (struct at_cosign_kept){.cosignature = *cosignature};
    ret_update->fresh = true;
    count(c, cosignature, ret_update);
    return AT_OK;
}
