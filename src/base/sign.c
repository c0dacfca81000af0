#include "base/sign.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <string.h>

at_err at_keypair_from_seed(const uint8_t seed[AT_KEY_BYTES], struct at_keypair *ret_key)
{
    struct at_keypair key;
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, AT_KEY_BYTES);
    if (pkey == NULL) return AT_E_INTERNAL;
    size_t n = sizeof key.id.b;
    int ok = EVP_PKEY_get_raw_public_key(pkey, key.id.b, &n);
    EVP_PKEY_free(pkey);
    if (ok != 1 || n != sizeof key.id.b) return AT_E_INTERNAL;
    memcpy(key.seed, seed, sizeof key.seed);
    key.stand_in = NULL;
    *ret_key = key;
    return AT_OK;
}

at_err at_keypair_generate(struct at_keypair *ret_key)
{
    uint8_t seed[AT_KEY_BYTES];
    if (RAND_priv_bytes(seed, sizeof seed) != 1) return AT_E_ENV;
    return at_keypair_from_seed(seed, ret_key);
}

/* OpenSSL would compute the public key anew for each signature, which takes as long as the signature. NULL: no memory. */
static EVP_PKEY *private_key(const struct at_keypair *key)
{
    struct at_keypair own = *key; /* its parameters are not const */
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM params[] = {OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PRIV_KEY, own.seed, sizeof own.seed),
                           OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, own.id.b, sizeof own.id.b), OSSL_PARAM_END};
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, NULL);
    bool fine = ctx && EVP_PKEY_fromdata_init(ctx) == 1 && EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_KEYPAIR, params) == 1;
    EVP_PKEY_CTX_free(ctx);
    OPENSSL_cleanse(own.seed, sizeof own.seed);
    return fine ? pkey : NULL;
}

struct at_sig at_sign(const struct at_keypair *key, struct at_span message)
{
    struct at_sig sig;
    size_t n = sizeof sig.b;
    if (key->stand_in) return key->stand_in(key, message);
    EVP_PKEY *pkey = private_key(key);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    AT_ASSERT(pkey != NULL && md != NULL);
    AT_ASSERT(EVP_DigestSignInit(md, NULL, NULL, NULL, pkey) == 1);
    AT_ASSERT(EVP_DigestSign(md, sig.b, &n, message.p, message.n) == 1 && n == sizeof sig.b);
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(pkey);
    return sig;
}

at_err at_verify(const struct at_node_id *id, struct at_span message, const struct at_sig *sig)
{
    at_err_t err = AT_E_SIGNATURE;
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, id->b, sizeof id->b);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    AT_ASSERT(md != NULL);
    if (pkey != NULL && EVP_DigestVerifyInit(md, NULL, NULL, NULL, pkey) == 1 &&
        EVP_DigestVerify(md, sig->b, sizeof sig->b, message.p, message.n) == 1)
        err = AT_OK;
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(pkey);
    return err;
}

at_err_t at_verify_by(const struct at_verifier *verifier, const struct at_node_id *id, struct at_span message,
                      const struct at_sig *sig)
{
    return verifier ? verifier->fn(verifier->ctx, id, message, sig) : at_verify(id, message, sig);
}

int at_node_id_cmp(const struct at_node_id *a, const struct at_node_id *b)
{
    return memcmp(a->b, b->b, sizeof a->b);
}

struct at_hash_text at_node_id_hex(const struct at_node_id *id)
{
    struct at_hash_text t;
    at_hex_encode(id->b, sizeof id->b, t.s);
    return t;
}
