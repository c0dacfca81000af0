/* Updates and state blobs from hostile bytes. Property: what is accepted is finite, leaves padding +0, and an outer
 * step over it ends in a state that has a root. */
#include "train/outer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void apply(struct at_update *u, struct at_state *s)
{
    struct at_exec ex;
    struct at_hash root;
    if (at_exec_init(&ex, at_kern_available()[0], &at_par_serial) != AT_OK) return;
    at_params_fill(s->params, 1, s->theta);
    for (size_t i = 0; i < at_stats_count(s->params); i++)
        s->stats[i] = i % 3 == 0 ? 0 : 1e-4f; /* ratios are to these */
    s->round = u->info.round;
    struct at_round round = at_round_mean(s->round, 1, 0);
    round.codec = u->codec->id;
    round.k = u->k;
    round.clip = u->k % 2;
    if (at_outer_step(&ex, s, u, 1, &round, NULL, NULL) == AT_OK) {
        AT_ASSERT(at_state_root(s, NULL, &root) == AT_OK);
        AT_ASSERT(at_params_padding_is_zero(s->params, s->theta));
    }
    at_exec_release(&ex);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct at_model_config shape = {.layers = 1,
                                                 .d_model = 8,
                                                 .heads = 1,
                                                 .kv_heads = 1,
                                                 .head_size = 8,
                                                 .d_ff = 8,
                                                 .seq_len = 4,
                                                 .vocab = 5,
                                                 .tied = true,
                                                 .rope_theta = 1e4,
                                                 .norm_eps = 1e-5};
    struct at_params p;
    struct at_state s;
    struct at_update u = {0};
    struct at_diag diag = {0};
    if (at_params_init(&p, &shape) != AT_OK) return 0;
    if (at_state_init(&s, &p) == AT_OK) {
        if (at_state_read(&s, at_span(data, size), &diag) == AT_OK) {
            struct at_buf again = {0};
            AT_ASSERT(at_state_write(&s, &again) == AT_OK);
            AT_ASSERT(at_span_eq(at_buf_span(&again), at_span(data, size)));
            at_buf_release(&again);
        }
        diag = (struct at_diag){0};
        if (at_update_parse(&p, at_span(data, size), &diag, &u) == AT_OK)
            apply(&u, &s);
        else
            AT_ASSERT(diag.text[0] != '\0');
        at_update_release(&u);
        at_state_release(&s);
    }
    at_params_release(&p);
    return 0;
}
