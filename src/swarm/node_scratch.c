/* node_scratch.c: the memory of one step, which machines may share (node_machine.h). */
#include "swarm/node_internal.h"

#include <stdlib.h>
#include <string.h>

enum { OUT_BYTES = 32 * 1024 };                     /* of what a step says, as most do; it grows */
enum { SPOILT_OPS = 64, SPOILT_BYTES = 16 * 1024 }; /* more than most steps need */

at_err_t at_node_scratch_init(struct at_node_scratch **ret_scratch)
{
    uint8_t *at;
    struct at_node_scratch *s = calloc(1, sizeof *s); /* most of its pages are never touched */
    if (!s) return AT_E_NOMEM;
    s->out.bytes_max = AT_NODE_OUT_BYTES_MAX;
    at_err_t err = at_buf_reserve(&s->out, OUT_BYTES, &at);
    if (err) {
        at_node_scratch_release(s);
        return err;
    }
    *ret_scratch = s;
    return AT_OK;
}

void at_node_scratch_release(struct at_node_scratch *s)
{
    if (!s) return;
    at_buf_release(&s->out);
    at_message_mem_release(&s->mem);
    free(s);
}

void at_node_scratch_spoil(struct at_node_scratch *s)
{
    memset(s->ops, 0xa5, SPOILT_OPS * sizeof s->ops[0]);
    memset(s->ops_sorted, 0xa5, SPOILT_OPS * sizeof s->ops[0]);
    memset(s->out_at, 0xa5, SPOILT_OPS * sizeof s->out_at[0]);
    memset(s->record_at, 0xa5, SPOILT_OPS * sizeof s->record_at[0]);
    memset(s->kept_at, 0xa5, SPOILT_OPS * sizeof s->kept_at[0]);
    memset(s->cosigned_at, 0xa5, SPOILT_OPS * sizeof s->cosigned_at[0]);
    memset(s->out.p, 0xa5, s->out.n);
    if (s->mem.block) memset(s->mem.block, 0xa5, SPOILT_BYTES);
}
