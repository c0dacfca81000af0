#include "wire/presence.h"

#include <string.h>

static const char prefix[] = "atoll presence 1"; /* signed with its NUL, so that no other signed text can begin alike */
enum { SIGNED_BYTES = sizeof prefix + AT_HASH_BYTES + AT_KEY_BYTES + 8 + 4 + AT_HASH_BYTES };

static void signed_bytes(const struct at_presence *p, struct at_hash run, uint8_t ret[SIGNED_BYTES])
{
    memcpy(ret, prefix, sizeof prefix);
    memcpy(ret += sizeof prefix, run.b, AT_HASH_BYTES);
    memcpy(ret += AT_HASH_BYTES, p->member.b, AT_KEY_BYTES);
    at_store_le64(ret += AT_KEY_BYTES, p->counter);
    at_store_le32(ret += 8, p->round);
    memcpy(ret + 4, p->state_root.b, AT_HASH_BYTES);
}

struct at_presence at_presence_sign(const struct at_keypair *key, struct at_hash run, uint64_t counter, uint32_t round,
                                    struct at_hash state_root)
{
    uint8_t text[SIGNED_BYTES];
    struct at_presence p = {.member = key->id, .counter = counter, .round = round, .state_root = state_root};
    signed_bytes(&p, run, text);
    p.sig = at_sign(key, at_span(text, sizeof text));
    return p;
}

at_err_t at_presence_verify(const struct at_presence *p, struct at_hash run, const struct at_verifier *verifier)
{
    uint8_t text[SIGNED_BYTES];
    signed_bytes(p, run, text);
    return at_verify_by(verifier, &p->member, at_span(text, sizeof text), &p->sig);
}
