/* evp.h: the five functions of OpenSSL that base/hash.c uses, for programs that run under emulation without OpenSSL:
 * served.c asks cross_run, outside the emulator, for each digest. So there is one SHA-256, OpenSSL's, everywhere. */
#ifndef ATOLL_CROSS_EVP_H
#define ATOLL_CROSS_EVP_H

#include <stddef.h>

typedef struct at_served_hash EVP_MD_CTX;
typedef struct at_served_kind EVP_MD;

EVP_MD_CTX *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(EVP_MD_CTX *ctx);
const EVP_MD *EVP_sha256(void);
int EVP_DigestInit_ex(EVP_MD_CTX *ctx, const EVP_MD *md, void *engine);
int EVP_DigestUpdate(EVP_MD_CTX *ctx, const void *p, size_t n);
int EVP_DigestFinal_ex(EVP_MD_CTX *ctx, unsigned char *ret_digest, unsigned *ret_n);

#endif
