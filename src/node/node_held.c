#include "node/node_held.h"

#include <stdlib.h>

at_err_t at_held_new(const char *dir, size_t blob_bytes, uint32_t tiles, struct at_diag *diag,
                     struct at_held **ret_held)
{
    struct at_held *h = calloc(1, sizeof *h);
    if (!h) return at_fail(diag, AT_E_NOMEM, "state", "out of memory");
    atomic_init(&h->refs, 1);
    h->leaves = calloc((size_t)tiles + 1, sizeof *h->leaves);
    at_err_t err = h->leaves ? at_file_map_scratch(&h->blob, dir, blob_bytes, diag)
                             : at_fail(diag, AT_E_NOMEM, "state", "no memory for the state's leaves");
    if (err)
        at_held_put(h);
    else
        *ret_held = h;
    return err;
}

struct at_held *at_held_keep(struct at_held *h)
{
    atomic_fetch_add(&h->refs, 1);
    return h;
}

void at_held_put(struct at_held *h)
{
    if (!h || atomic_fetch_sub(&h->refs, 1) > 1) return;
    at_file_map_release(&h->blob);
    free(h->leaves);
    free(h);
}
