#include "wire/endpoints.h"

#include <string.h>

static const char prefix[] =
    "atoll endpoints 1"; /* signed with its NUL, so that no other signed text can begin alike */
enum { HEAD_BYTES = sizeof prefix + AT_HASH_BYTES + AT_KEY_BYTES + 8 + 1 };
enum { SIGNED_BYTES_MAX = HEAD_BYTES + AT_ENDPOINTS_MAX * AT_ENDPOINT_BYTES };

static struct at_span signed_bytes(const struct at_endpoints *e, struct at_hash run, uint8_t ret[SIGNED_BYTES_MAX])
{
    uint8_t *p = ret;
    AT_ASSERT(e->count <= AT_ENDPOINTS_MAX);
    memcpy(p, prefix, sizeof prefix);
    memcpy(p += sizeof prefix, run.b, AT_HASH_BYTES);
    memcpy(p += AT_HASH_BYTES, e->node.b, AT_KEY_BYTES);
    at_store_le64(p += AT_KEY_BYTES, e->counter);
    p += 8;
    *p++ = (uint8_t)e->count;
    for (uint32_t i = 0; i < e->count; i++, p += AT_ENDPOINT_BYTES) at_endpoint_pack(&e->list[i], p);
    return at_span(ret, (size_t)(p - ret));
}

struct at_endpoints at_endpoints_sign(const struct at_keypair *key, struct at_hash run, uint64_t counter,
                                      const struct at_endpoint *list, uint32_t count)
{
    uint8_t text[SIGNED_BYTES_MAX];
    struct at_endpoints e = {.node = key->id, .counter = counter, .count = count};
    AT_ASSERT(count >= 1 && count <= AT_ENDPOINTS_MAX && counter > 0);
    memcpy(e.list, list, count * sizeof *list);
    e.sig = at_sign(key, signed_bytes(&e, run, text));
    return e;
}

at_err_t at_endpoints_verify(const struct at_endpoints *e, struct at_hash run, const struct at_verifier *verifier)
{
    uint8_t text[SIGNED_BYTES_MAX];
    return at_verify_by(verifier, &e->node, signed_bytes(e, run, text), &e->sig);
}

/* Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators": the finaliser of SplitMix64. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t at_endpoints_number(const struct at_endpoints *e)
{
    return e->counter ? mix(at_load_le64(e->node.b + 8) ^ mix(e->counter)) : 0;
}
