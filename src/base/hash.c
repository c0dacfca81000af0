/* hash.c: SHA-256 by OpenSSL. Hashes at one go, mostly of a few dozen bytes, by its older functions: the newer ones look the
 * algorithm up in a locked table and allocate for each hash, which takes several times as long as such a hash itself. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "base/hash.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>

void at_sha256_init(struct at_sha256_ctx *ctx)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    AT_ASSERT(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    ctx->impl = md;
}

void at_sha256_update(struct at_sha256_ctx *ctx, const void *p, size_t n)
{
    AT_ASSERT(EVP_DigestUpdate(ctx->impl, p, n) == 1);
}

struct at_hash at_sha256_final(struct at_sha256_ctx *ctx)
{
    struct at_hash h;
    AT_ASSERT(EVP_DigestFinal_ex(ctx->impl, h.b, NULL) == 1);
    at_sha256_release(ctx);
    return h;
}

void at_sha256_release(struct at_sha256_ctx *ctx)
{
    EVP_MD_CTX_free(ctx->impl);
    ctx->impl = NULL;
}

struct at_hash at_sha256_2(struct at_span a, struct at_span b)
{
    struct at_hash h;
    SHA256_CTX ctx;
    AT_ASSERT(SHA256_Init(&ctx) == 1 && SHA256_Update(&ctx, a.p, a.n) == 1 && SHA256_Update(&ctx, b.p, b.n) == 1);
    AT_ASSERT(SHA256_Final(h.b, &ctx) == 1);
    return h;
}

struct at_hash at_sha256(const void *p, size_t n)
{
    return at_sha256_2(at_span(p, n), at_span(NULL, 0));
}

bool at_hash_is_zero(struct at_hash a)
{
    return at_hash_eq(a, (struct at_hash){{0}});
}

struct at_hash_text at_hash_hex(struct at_hash h)
{
    struct at_hash_text t;
    at_hex_encode(h.b, sizeof h.b, t.s);
    return t;
}

at_err at_hash_parse(const char *text, struct at_hash *ret_hash)
{
    return at_hex_decode(text, strlen(text), ret_hash->b, sizeof ret_hash->b);
}
