#include "wire/beacon.h"

#include <string.h>

static struct at_hash link_hash(struct at_hash x)
{
    static const char prefix[] = "atoll beacon 1"; /* with its NUL */
    return at_sha256_2(at_span(prefix, sizeof prefix), at_span(x.b, sizeof x.b));
}

void at_beacon_chain_init(struct at_beacon_chain *chain, struct at_hash secret, uint32_t length)
{
    AT_ASSERT(length >= 1 && length <= AT_BEACON_LENGTH_MAX);
    chain->length = length;
    struct at_hash x = secret;
    for (uint32_t i = 0; i < length; i++) {
        if (i % AT_BEACON_STRIDE == 0) chain->kept[i / AT_BEACON_STRIDE] = x;
        x = link_hash(x);
    }
    chain->commitment = x;
}

bool at_beacon_chain_next(const struct at_beacon_chain *chain, uint32_t used, struct at_hash *ret_reveal)
{
    if (used >= chain->length) return false;
    uint32_t at = chain->length - used - 1;
    struct at_hash x = chain->kept[at / AT_BEACON_STRIDE];
    for (uint32_t i = at % AT_BEACON_STRIDE; i != 0; i--) x = link_hash(x);
    *ret_reveal = x;
    return true;
}

bool at_beacon_fits(const struct at_beacon *b, uint32_t seat, struct at_hash reveal)
{
    return at_hash_eq(link_hash(reveal), b->head[seat]);
}

void at_beacon_take(struct at_beacon *b, uint32_t seat, struct at_hash reveal)
{
    b->head[seat] = reveal;
    b->used[seat]++;
    b->seed = at_sha256_2(at_span(b->seed.b, sizeof b->seed.b), at_span(reveal.b, sizeof reveal.b));
}

uint32_t at_beacon_leaders_since(const struct at_beacon *b, const struct at_beacon *cut)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < AT_SEATS_MAX; i++) n += b->used[i] != cut->used[i];
    return n;
}
