/* served.c: what the pure layers and the pool want of libraries that are not there for an emulated processor. A digest
 * is asked of cross_run over the socket AT_CROSS_FD: u64 length, bytes; the answer is 32 bytes. Both ends are
 * little-endian. */
#include "../cross_run.h"
#include "os/sys.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

EVP_MD_CTX *EVP_MD_CTX_new(void)
{
    return calloc(1, sizeof(struct at_served_hash));
}

void EVP_MD_CTX_free(EVP_MD_CTX *ctx)
{
    if (ctx) free(ctx->p);
    free(ctx);
}

const EVP_MD *EVP_sha256(void)
{
    return NULL;
}

int EVP_DigestInit_ex(EVP_MD_CTX *ctx, const EVP_MD *md, void *engine)
{
    ctx->n = 0;
    return 1;
}

int EVP_DigestUpdate(EVP_MD_CTX *ctx, const void *p, size_t n)
{
    if (n == 0) return 1;
    if (ctx->space - ctx->n < n) {
        size_t space = 2 * ctx->space > ctx->n + n ? 2 * ctx->space : ctx->n + n;
        unsigned char *grown = realloc(ctx->p, space);
        if (!grown) return 0;
        ctx->p = grown;
        ctx->space = space;
    }
    memcpy(ctx->p + ctx->n, p, n);
    ctx->n += n;
    return 1;
}

int EVP_DigestFinal_ex(EVP_MD_CTX *ctx, unsigned char *ret_digest, unsigned *ret_n)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
    const uint64_t n = ctx->n;
    pthread_mutex_lock(&one_at_a_time);
    int ok = at_cross_write(AT_CROSS_FD, &n, sizeof n) && at_cross_write(AT_CROSS_FD, ctx->p, ctx->n) &&
             at_cross_read(AT_CROSS_FD, ret_digest, 32);
    pthread_mutex_unlock(&one_at_a_time);
    return ok;
}

int SHA256_Init(SHA256_CTX *ctx)
{
    *ctx = (SHA256_CTX){0};
    return 1;
}

int SHA256_Update(SHA256_CTX *ctx, const void *p, size_t n)
{
    return EVP_DigestUpdate(ctx, p, n);
}

int SHA256_Final(unsigned char *ret_digest, SHA256_CTX *ctx)
{
    int ok = EVP_DigestFinal_ex(ctx, ret_digest, NULL);
    free(ctx->p);
    *ctx = (SHA256_CTX){0};
    return ok;
}

int at_sys_cpu_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (int)n;
}
