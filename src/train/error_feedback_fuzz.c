/* A member's own file from hostile bytes. Property: what is accepted is finite and comes out the same, to the byte, when
 * it is written again; what is not has a reason, and leaves nothing. */
#include "train/error_feedback.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct at_model_config shape = {.layers = 1,
                                                 .d_model = 2,
                                                 .heads = 1,
                                                 .kv_heads = 1,
                                                 .head_size = 2,
                                                 .d_ff = 1,
                                                 .seq_len = 1,
                                                 .vocab = 2,
                                                 .tied = true,
                                                 .rope_theta = 10000,
                                                 .norm_eps = 1e-5};
    struct at_params p;
    struct at_hash run = {{0}};
    struct at_diag diag = {0};
    struct at_buf again = {0};
    AT_ASSERT(at_params_init(&p, &shape) == AT_OK);
    struct at_error_feedback f = {.params = &p};
    at_err_t err = at_error_feedback_read(&f, run, at_span(data, size), &diag);
    AT_ASSERT((err == AT_OK) == (diag.text[0] == '\0'));
    AT_ASSERT(err == AT_OK || (f.e == NULL && f.next == NULL));
    if (err == AT_OK) {
        for (size_t i = 0; f.e != NULL && i < p.count; i++) AT_ASSERT(isfinite(f.e[i]));
        for (size_t i = 0; f.next != NULL && i < p.count; i++) AT_ASSERT(isfinite(f.next[i]));
        AT_ASSERT(at_error_feedback_write(&f, run, &again) == AT_OK);
        AT_ASSERT(at_span_eq(at_buf_span(&again), at_span(data, size)));
    }
    at_buf_release(&again);
    at_error_feedback_release(&f);
    at_params_release(&p);
    return 0;
}
