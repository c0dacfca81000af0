/* safetensors header and config.json from hostile bytes. Properties: never outside the buffer; what is accepted covers
 * its data exactly, is found again by name, and reads as weights only where the shape fits. */
#include "model/hf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_accepted(const struct at_st_file *f)
{
    size_t at = 0;
    for (int i = 0; i < f->tensors; i++) {
        const struct at_st_tensor *t = &f->tensor[i];
        AT_ASSERT(t->begin == at && t->end >= t->begin && t->end <= f->data.n);
        at = t->end;
        float first;
        if (t->f32 && t->end > t->begin) at_f32_read(f->data.p + t->begin, &first, 1);
        AT_ASSERT(at_st_find(f, t->name) != NULL);
    }
    AT_ASSERT(at == f->data.n);
    for (int i = 0; i < f->metas; i++) AT_ASSERT(at_st_meta(f, f->meta[i].key) != NULL);
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
    struct at_st_file f;
    struct at_diag diag = {0};
    struct at_model_config c;
    struct at_params p;
    if (at_st_parse(at_span(data, size), "fuzz", &diag, &f) == AT_OK) {
        check_accepted(&f);
        if (at_params_init(&p, &shape) == AT_OK) {
            float *theta = calloc(p.count, sizeof *theta);
            if (theta != NULL && at_hf_read(&p, &f, "fuzz", NULL, theta) == AT_OK)
                AT_ASSERT(at_params_padding_is_zero(&p, theta));
            free(theta);
            at_params_release(&p);
        }
        at_st_release(&f);
    } else {
        AT_ASSERT(diag.text[0] != '\0');
    }
    if (at_hf_read_config(at_span(data, size), "fuzz", NULL, &c) == AT_OK)
        AT_ASSERT(at_model_config_check(&c, NULL) == AT_OK);
    return 0;
}
