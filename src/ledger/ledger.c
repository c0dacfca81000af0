/* ledger.c: the fold as a whole: begun, moved on by one record, asked. */
#include "ledger/ledger_inner.h"

#include <stdlib.h>
#include <string.h>

at_err at_ledger_init(struct at_ledger *ledger, const struct at_genesis *genesis, struct at_diag *diag)
{
    struct at_buf bytes = {.bytes_max = AT_GENESIS_BYTES_MAX};
    at_err_t err = at_genesis_encode(genesis, diag, &bytes);
    if (err) goto out;
    *ledger = (struct at_ledger){.genesis = *genesis, .heldout_loss = -1.0};
    ledger->run = at_genesis_run_id(at_buf_span(&bytes));
    ledger->flops_per_token = at_model_flops_per_token(&genesis->model);
    at_samples_init(&ledger->samples, (uint64_t)at_genesis_round(genesis, 0).steps * genesis->train.batch);
    ledger->seats = (struct at_seats){.term = 1, .count = 1};
    ledger->seats.seat[0] = (struct at_seat){.member = genesis->steward, .key = genesis->steward};
    ledger->signers = ledger->seats;
out:
    at_buf_release(&bytes);
    return err;
}

void at_ledger_release(struct at_ledger *ledger)
{
    free(ledger->members);
    free(ledger->allotments);
    free(ledger->groups);
    free(ledger->measured);
    free(ledger->room.work);
    free(ledger->room.row);
    free(ledger->claims);
    free(ledger->candidates);
    free(ledger->slots);
    free(ledger->update_heads);
    free(ledger->update_next);
    free(ledger->term_ends);
    if (ledger->samples.unit != 0) at_samples_release(&ledger->samples);
    *ledger = (struct at_ledger){.heldout_loss = -1.0};
}

at_err at_ledger_begin_block(struct at_ledger *ledger, const struct at_block_head *head, struct at_diag *diag,
                             struct at_signed_record *ret_rec)
{
    struct at_record rec;
    memset(&rec, 0, sizeof rec);
    rec.kind = AT_RECORD_BLOCK;
    rec.run = ledger->run;
    rec.time_ms = head->time_ms;
    rec.head = (struct at_head){.term = head->term, .view = head->view, .reveal = head->reveal};
    memset(ret_rec, 0, sizeof *ret_rec);
    at_err_t err = at_record_encode(&rec, diag, ret_rec->body, &ret_rec->body_bytes);
    return err ? err : at_ledger_apply(ledger, ret_rec, diag, NULL);
}

at_err at_ledger_apply(struct at_ledger *ledger, const struct at_signed_record *signed_rec, struct at_diag *diag,
                       struct at_record *ret_rec)
{
    return at_ledger_apply_leaf(ledger, signed_rec, at_signed_record_leaf(signed_rec), diag, ret_rec);
}

at_err at_ledger_apply_leaf(struct at_ledger *ledger, const struct at_signed_record *signed_rec, struct at_hash leaf,
                            struct at_diag *diag, struct at_record *ret_rec)
{
    struct at_record rec;
    at_err_t err = at_ledger_judge(ledger, signed_rec, diag, &rec);
    if (err) return err;
    err = at_ledger_take(ledger, &rec, &signed_rec->author);
    if (err) return at_fail(diag, err, "ledger", "out of memory");
    at_merkle_append(&ledger->tree, leaf);
    if (ret_rec != NULL) *ret_rec = rec;
    return AT_OK;
}

const struct at_allotment *at_ledger_allotment(const struct at_ledger *ledger, uint32_t replica)
{
    return replica < ledger->member_count && ledger->allotments[replica].allotted ? &ledger->allotments[replica] : NULL;
}

/* Against whom a seat's key speaks: a replica, or -1. */
int at_ledger_key_holder(const struct at_ledger *l, const struct at_node_id *key)
{
    const struct at_seats *const held[] = {&l->seats, &l->former};
    for (int i = 0; i < 2; i++)
        for (uint32_t s = 0; s < held[i]->count; s++)
            if (at_node_id_eq(&held[i]->seat[s].key, key)) return at_ledger_find(l, &held[i]->seat[s].member);
    for (uint32_t r = 0; r < l->member_count; r++)
        if (l->members[r].stands_for != 0 && at_node_id_eq(&l->members[r].stand.key, key)) return (int)r;
    return at_node_id_eq(&l->genesis.steward, key) ? at_ledger_find(l, key) : -1;
}

struct at_roles at_ledger_roles(const struct at_ledger *l)
{
    return (struct at_roles){.model = &l->genesis.model,
                             .batch = l->genesis.train.batch,
                             .stages = at_genesis_stages(&l->genesis),
                             .measured = l->measured,
                             .members = l->member_count};
}

struct at_stage_cut at_ledger_cut(const struct at_ledger *ledger, uint32_t replica, uint32_t group)
{
    struct at_stage_cut cut = {.stages = 1, .layers = {(uint16_t)ledger->genesis.model.layers}};
    const struct at_grouped *g = replica < ledger->member_count ? &ledger->groups[replica] : NULL;
    if (g && g->size > 0 && group >> g->size == 0 && (group >> g->place & 1) != 0)
        (void)at_group_cut(ledger->groups, ledger->groups[replica].lead, group, &ledger->genesis.model,
                           ledger->genesis.train.batch, &cut);
    return cut;
}

uint64_t at_ledger_step_us(const struct at_ledger *ledger, uint32_t replica)
{
    const struct at_grouped *g = &ledger->groups[replica];
    struct at_roles x = at_ledger_roles(ledger);
    return g->size ? at_roles_step_us(&x, ledger->groups, g->lead, (UINT32_C(1) << g->size) - 1) : 0;
}

uint32_t at_ledger_unit_complete(const struct at_ledger *ledger, uint32_t replica)
{
    const struct at_allotment *u = at_ledger_allotment(ledger, replica);
    return u ? ledger->allotments[ledger->groups[replica].lead].complete : 0;
}

bool at_ledger_part_counts(const struct at_ledger *ledger, uint32_t replica)
{
    uint32_t complete = at_ledger_unit_complete(ledger, replica);
    return complete != 0 && (complete >> ledger->groups[replica].place & 1) != 0;
}

struct at_heldout_share at_ledger_heldout_share(const struct at_ledger *l, uint32_t replica)
{
    struct at_heldout_share share = {0};
    if (at_ledger_allotment(l, replica) == NULL) return share;
    uint32_t lead = l->groups[replica].lead;
    for (uint32_t r = 0; r < l->member_count; r++) {
        if (!l->allotments[r].allotted || l->groups[r].place != 0) continue;
        share.first += r < lead;
        share.step++;
    }
    bool open =
        l->phase == AT_LEDGER_TRAINING || l->phase == AT_LEDGER_CLOSED; /* else the allotments are the last one's */
    struct at_round round = at_genesis_round(&l->genesis, open ? l->round : l->round - 1);
    uint64_t most = (uint64_t)round.steps * l->genesis.train.batch * 3 / 8; /* forward is a third of a step */
    share.most = most < 1 ? 1 : most > UINT32_MAX ? UINT32_MAX : (uint32_t)most;
    return share;
}

double at_ledger_heldout(const struct at_ledger *l)
{
    uint64_t sum = 0;
    uint32_t shares = 0;
    for (uint32_t r = 0; r < l->member_count; r++) {
        const struct at_allotment *u = &l->allotments[r];
        if (!u->allotted || !u->included || u->receipt.heldout == 0) continue;
        sum += u->receipt.heldout;
        shares++;
    }
    return shares > 0 ? at_heldout_join(sum, shares) : 0;
}

struct at_hash at_ledger_root(const struct at_ledger *ledger)
{
    return at_merkle_root(&ledger->tree);
}

struct at_hash at_ledger_balances(const struct at_ledger *ledger)
{
    struct at_sha256_ctx ctx;
    at_sha256_init(&ctx);
    for (uint32_t r = 0; r < ledger->member_count; r++) {
        uint8_t row[AT_KEY_BYTES + 8];
        memcpy(row, ledger->members[r].id.b, AT_KEY_BYTES);
        at_store_le64(row + AT_KEY_BYTES, ledger->members[r].confirmed);
        at_sha256_update(&ctx, row, sizeof row);
    }
    return at_sha256_final(&ctx);
}

double at_ledger_share(const struct at_ledger *ledger, uint32_t replica)
{
    if (ledger->confirmed == 0 || replica >= ledger->member_count) return 0.0;
    return (double)ledger->members[replica].confirmed / (double)ledger->confirmed;
}

struct at_round at_ledger_round(const struct at_ledger *ledger)
{
    return at_genesis_round(&ledger->genesis, ledger->round);
}

uint64_t at_ledger_update_bytes_max(const struct at_ledger *ledger)
{
    /* Parameters in binary32, the shared statistics and a header, with room for another codec. What the round's own
     * codec takes at most is checked by those who read the blob. */
    return 8 * at_model_params(&ledger->genesis.model) + ((uint64_t)1 << 20);
}
