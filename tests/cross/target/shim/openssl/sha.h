/* sha.h: the older functions of OpenSSL that base/hash.c uses; as evp.h. */
#ifndef ATOLL_CROSS_SHA_H
#define ATOLL_CROSS_SHA_H

#include <stddef.h>

struct at_served_hash { /* what has been said so far; owned */
    unsigned char *p;
    size_t n, space;
};
typedef struct at_served_hash SHA256_CTX;

int SHA256_Init(SHA256_CTX *ctx);
int SHA256_Update(SHA256_CTX *ctx, const void *p, size_t n);
int SHA256_Final(unsigned char *ret_digest, SHA256_CTX *ctx); /* releases it, too */

#endif
