/* How a model is cut into stages: all of it, once, the work counted alike. */
#include "model/params.h"
#include "model/stages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static uint64_t cost(const struct at_model_config *c, int stages, int stage, int layers)
{
    return (uint64_t)layers * at_stage_layer_flops(c) + (stage == 0 ? at_stage_first_flops(c) : 0) +
           (stage == stages - 1 ? at_stage_last_flops(c) : 0);
}

/* The cost of the most costly stage of the best of all cuts into `stages` of the layers from `first` on. */
static uint64_t best(const struct at_model_config *c, int stages, int stage, int first)
{
    int left = (int)c->layers - first;
    uint64_t least = UINT64_MAX;
    if (stage == stages - 1) return cost(c, stages, stage, left);
    for (int n = 1; n <= left - (stages - 1 - stage); n++) {
        uint64_t here = cost(c, stages, stage, n), rest = best(c, stages, stage + 1, first + n);
        uint64_t worst = here > rest ? here : rest;
        if (worst < least) least = worst;
    }
    return least;
}

static void no_cut_has_a_less_slow_stage(void **state)
{
    static const char *const name[] = {"nano", "10m", "tiny"};
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        const struct at_preset *p;
        assert_int_equal(at_preset_find(name[i], NULL, &p), AT_OK);
        for (int stages = 1; stages <= (int)p->model.layers && stages <= 6; stages++) {
            int layers[AT_STAGES_MAX];
            uint64_t worst = 0;
            at_stages_cut(&p->model, stages, layers);
            for (int s = 0; s < stages; s++)
                if (cost(&p->model, stages, s, layers[s]) > worst) worst = cost(&p->model, stages, s, layers[s]);
            assert_int_equal(worst, best(&p->model, stages, 0, 0));
        }
    }
}

static void stages_hold_every_block_once_and_share_the_work(void **state)
{
    for (int tied = 0; tied < 2; tied++) {
        const struct at_preset *p;
        struct at_params all;
        assert_int_equal(at_preset_find("nano", NULL, &p), AT_OK);
        struct at_model_config c = p->model;
        c.tied = tied != 0;
        assert_int_equal(at_params_init(&all, &c), AT_OK);
        for (int stages = 1; stages <= (int)c.layers; stages++) {
            uint64_t flops = 0;
            for (int s = 0; s < stages; s++) flops += at_stage_flops_per_token(&c, stages, s);
            assert_int_equal(flops, at_model_flops_per_token(&c));
            for (int b = 0; b < all.blocks; b++) {
                int holders = 0;
                for (int s = 0; s < stages; s++) {
                    struct at_shard shard = at_stage_shard(&c, stages, s);
                    holders += at_shard_owns(&all, &shard, all.block[b].tensor, all.block[b].slot);
                }
                assert_int_equal(holders, 1);
            }
        }
        at_params_release(&all);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_cut_has_a_less_slow_stage),
                                       cmocka_unit_test(stages_hold_every_block_once_and_share_the_work)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
