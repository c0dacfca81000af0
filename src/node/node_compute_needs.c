/* node_compute_needs.c: what a run needs of a machine, and the trainer of the whole model, which members that share units
 * have only while they need it. */
#include "node/node_compute_inner.h"

#include "node/node_stage_unit.h"
#include "os/sys.h"

/* Bytes of whole units in memory: the trainer; the state, its successor, one more that peers may still fetch, and one being
 * saved. Error feedback: two of them, and its file. */
static size_t whole_units(const struct at_genesis *g, size_t state)
{
    size_t trainer = at_trainer_bytes(&g->model, &g->train, 0), need = 0;
    size_t states = (at_outer_config_momentum(&g->outer) ? 8 : 4) + (g->outer.kind != AT_OUTER_MEAN ? 3 : 0);
    return trainer && state && at_mul_size(state, states, &need) && at_add_size(need, trainer, &need) ? need : 0;
}

size_t at_compute_needs(const struct at_genesis *g, size_t *ret_model)
{
    size_t most = 0;
    *ret_model = at_state_bytes(&g->model);
    if (g->stages <= 1) return whole_units(g, *ret_model);
    for (int stage = 0; stage < (int)g->stages; stage++) {
        size_t bytes = at_stage_unit_bytes(g, stage);
        if (!bytes) return 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

at_err_t at_compute_check_memory(const struct at_genesis *g, struct at_diag *diag)
{
    size_t model = 0, need = at_compute_needs(g, &model);
    uint64_t have = at_sys_memory_available(), text = 0;
    for (uint32_t i = 0; i < g->shard_count && g->stages <= 1; i++) text += g->shards[i].bytes;
    if (!model || !need || text > SIZE_MAX / 2 || !at_add_size(need, (size_t)text, &need))
        return at_fail(diag, AT_E_NOMEM, g->preset, "the model does not fit an address space");
    if (!have || need <= have) return AT_OK;
    if (g->stages > 1)
        return at_fail(diag, AT_E_NOMEM, g->preset,
                       "a stage of this run, of %u, needs %zu MB of memory and %llu MB are available; a run of more "
                       "stages needs less of each member",
                       g->stages, need >> 20, (unsigned long long)(have >> 20));
    return at_fail(diag, AT_E_NOMEM, g->preset, "this run needs %zu MB of memory and %llu MB are available", need >> 20,
                   (unsigned long long)(have >> 20));
}

/* Room for the shards that are still to come: each is fetched beside its final place. */
static at_err missing_text(const struct at_compute *c, const struct at_genesis *g, struct at_diag *diag,
                           uint64_t *ret_bytes)
{
    char path[AT_PATH_BYTES];
    struct at_blobs data = {0};
    uint64_t need = 0, largest = 0;
    at_err_t err = at_path_join(c->dir, "data", diag, path);
    if (!err) err = at_blobs_open(&data, path, 0, diag);
    for (uint32_t i = 0; i < g->shard_count && !err; i++) {
        if (at_blobs_has(&data, g->shards[i].hash)) continue;
        need += g->shards[i].bytes;
        if (g->shards[i].bytes > largest) largest = g->shards[i].bytes;
    }
    at_blobs_release(&data);
    *ret_bytes = need + largest;
    return err;
}

at_err_t at_compute_check_disk(const struct at_compute *c, const struct at_genesis *g, struct at_diag *diag)
{
    uint64_t need = 0, have = 0;
    at_err_t err = missing_text(c, g, diag, &need);
    if (err || !need) return err;
    err = at_disk_free(c->dir, diag, &have);
    if (!err && need > have)
        err = at_fail(diag, AT_E_DISK, c->dir, "this run's text needs %llu MB of disk and %llu MB are free",
                      (unsigned long long)(need >> 20), (unsigned long long)(have >> 20));
    return err;
}

/* One sequence at a time: what passes is then the least that is touched again and again. Recomputation costs nothing where
 * nothing goes backward. */
at_err_t at_compute_whole_begin(struct at_compute *c, bool forward_only, struct at_diag *diag)
{
    struct at_trainer_options options = {
        .microbatch = 1, .recompute = forward_only, .forward_only = forward_only, .memory = &c->paged};
    uint64_t have = 0;
    if (!c->scratch) return AT_OK;
    size_t need = at_trainer_bytes_options(&c->genesis.model, &c->model.params.shard, &c->train, &options);
    at_err_t err = at_disk_free(c->scratch, diag, &have);
    if (!err && need > have)
        err =
            at_fail(diag, AT_E_DISK, c->scratch, "%s the whole model needs %zu MB of disk and %llu MB are free",
                    forward_only ? "the held-out loss of" : "a unit of", need >> 20, (unsigned long long)(have >> 20));
    return err ? err : at_trainer_init_options(&c->trainer, &c->model, &c->train, &options, diag);
}

void at_compute_whole_end(struct at_compute *c)
{
    if (c->scratch) at_trainer_release(&c->trainer);
}
