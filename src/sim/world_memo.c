/* world_memo.c: signatures that were found right. Checking one is a pure function of (key, message, signature), a tenth
 * of a millisecond, and in a swarm every node checks the same ones; so the world remembers SHA-256(key ‖ signature ‖
 * message) of those that hold. What does not hold is checked anew each time. */
#include "sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

static struct at_hash *place(struct at_hash *memo, size_t cap, struct at_hash h)
{
    size_t i = (size_t)at_load_le64(h.b) & (cap - 1);
    while (!at_hash_is_zero(memo[i]) && !at_hash_eq(memo[i], h)) i = (i + 1) & (cap - 1);
    return &memo[i];
}

/* Twice the room; without memory it stays as it is. */
static void grow(struct at_world *w)
{
    size_t cap = w->memo_cap ? 2 * w->memo_cap : 1024;
    struct at_hash *memo = calloc(cap, sizeof *memo);
    if (!memo) return;
    for (size_t i = 0; i < w->memo_cap; i++)
        if (!at_hash_is_zero(w->memo[i])) *place(memo, cap, w->memo[i]) = w->memo[i];
    free(w->memo);
    w->memo = memo;
    w->memo_cap = cap;
}

at_err_t at_world_memo_verify(void *ctx, const struct at_node_id *id, struct at_span message, const struct at_sig *sig)
{
    struct at_world *w = ctx;
    uint8_t text[2048];
    size_t head = sizeof id->b + sizeof sig->b;
    if (message.n > sizeof text - head) return at_verify(id, message, sig);
    memcpy(text, id->b, sizeof id->b);
    memcpy(text + sizeof id->b, sig->b, sizeof sig->b);
    memcpy(text + head, message.p, message.n);
    struct at_hash h = at_sha256(text, head + message.n);
    if (2 * w->memo_count >= w->memo_cap) grow(w);
    if (2 * w->memo_count >= w->memo_cap) return at_verify(id, message, sig);
    struct at_hash *at = place(w->memo, w->memo_cap, h);
    if (!at_hash_is_zero(*at)) return AT_OK;
    at_err_t err = at_verify(id, message, sig);
    if (err) return err;
    *at = h;
    w->memo_count++;
    return AT_OK;
}
