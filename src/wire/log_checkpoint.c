#include "wire/log_checkpoint.h"

#include <string.h>

static const char prefix[] =
    "atoll checkpoint 1"; /* signed with its NUL, so that no other signed text can begin alike */
enum { SIGNED_BYTES = sizeof prefix + AT_HASH_BYTES + 8 + AT_HASH_BYTES };

static void signed_bytes(struct at_hash run, uint64_t size, struct at_hash root, uint8_t ret[SIGNED_BYTES])
{
    memcpy(ret, prefix, sizeof prefix);
    memcpy(ret + sizeof prefix, run.b, AT_HASH_BYTES);
    at_store_le64(ret + sizeof prefix + AT_HASH_BYTES, size);
    memcpy(ret + sizeof prefix + AT_HASH_BYTES + 8, root.b, AT_HASH_BYTES);
}

int at_log_checkpoint_cmp(const struct at_log_checkpoint *a, const struct at_log_checkpoint *b)
{
    if (a->size != b->size) return a->size < b->size ? -1 : 1;
    return at_node_id_cmp(&a->steward, &b->steward);
}

struct at_log_checkpoint at_log_checkpoint_sign(const struct at_keypair *steward, struct at_hash run, uint64_t size,
                                                struct at_hash root)
{
    uint8_t text[SIGNED_BYTES];
    signed_bytes(run, size, root, text);
    return (struct at_log_checkpoint){
        .size = size, .root = root, .steward = steward->id, .sig = at_sign(steward, at_span(text, sizeof text))};
}

at_err_t at_log_checkpoint_verify_by(const struct at_log_checkpoint *c, struct at_hash run,
                                     const struct at_verifier *verifier)
{
    uint8_t text[SIGNED_BYTES];
    signed_bytes(run, c->size, c->root, text);
    return at_verify_by(verifier, &c->steward, at_span(text, sizeof text), &c->sig);
}

at_err_t at_log_checkpoint_verify(const struct at_log_checkpoint *c, struct at_hash run)
{
    return at_log_checkpoint_verify_by(c, run, NULL);
}
