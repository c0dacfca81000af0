/* world_sign.c: signatures that stand in for Ed25519's. What protocols are proved with is an ideal signature: whoever has
 * the key can sign, nobody else can, everybody can check. In a world that takes no hundred microseconds of curve: it has made all
 * keys, so it can look up the secret of an id.
 *
 * A signature is SHA-256(secret ‖ bytes of the message ‖ message), twice to fill its place: to make one the secret is needed,
 * and only the world and the key's owner have it. Ids are Ed25519's public keys still, so that everything happens in the
 * order in which it does with real signatures. The table grows only where keys are made, never while machines are stepped: then several
 * threads may sign and check. */
#include "sim/world_internal.h"

#include <stdlib.h>
#include <string.h>

static struct at_sig sign(const struct at_keypair *key, struct at_span message)
{
    struct at_sig sig;
    uint8_t head[AT_KEY_BYTES + 8];
    memcpy(head, key->seed, AT_KEY_BYTES);
    at_store_le64(head + AT_KEY_BYTES,
                  message.n); /* else whoever sees a signature could make that of a longer message */
    struct at_hash h = at_sha256_2(at_span(head, sizeof head), message);
    memcpy(sig.b, h.b, AT_HASH_BYTES);
    memcpy(sig.b + AT_HASH_BYTES, h.b, AT_HASH_BYTES);
    return sig;
}

static struct at_keypair *place(struct at_keypair *keys, size_t cap, const struct at_node_id *id)
{
    size_t i = (size_t)at_load_le64(id->b) & (cap - 1);
    while (keys[i].stand_in && !at_node_id_eq(&keys[i].id, id)) i = (i + 1) & (cap - 1);
    return &keys[i];
}

static bool make_room(struct at_world *w)
{
    if (2 * w->key_count < w->key_cap) return true;
    size_t cap = w->key_cap ? 2 * w->key_cap : 128;
    struct at_keypair *keys = calloc(cap, sizeof *keys);
    if (!keys) return false;
    for (size_t i = 0; i < w->key_cap; i++)
        if (w->keys[i].stand_in) *place(keys, cap, &w->keys[i].id) = w->keys[i];
    free(w->keys);
    w->keys = keys;
    w->key_cap = cap;
    return true;
}

void at_world_key_made(struct at_world *w, struct at_keypair *key)
{
    if (w->options.real_signatures) return;
    if (!make_room(w)) {
        at_world_violate(w, "out of memory");
        return;
    }
    key->stand_in = sign;
    struct at_keypair *at = place(w->keys, w->key_cap, &key->id);
    if (!at->stand_in) w->key_count++;
    *at = *key;
}

at_err_t at_world_verify(void *ctx, const struct at_node_id *id, struct at_span message, const struct at_sig *sig)
{
    const struct at_world *w = ctx;
    const struct at_keypair *key = place(w->keys, w->key_cap, id);
    if (!key->stand_in) return AT_E_SIGNATURE;
    struct at_sig right = sign(key, message);
    return memcmp(right.b, sig->b, sizeof right.b) == 0 ? AT_OK : AT_E_SIGNATURE;
}
