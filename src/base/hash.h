/* hash.h: SHA-256 (FIPS 180-4) through OpenSSL, handed to the pure layers. Exact: yes. Thread-safe on
 * distinct objects. */
#ifndef ATOLL_BASE_HASH_H
#define ATOLL_BASE_HASH_H

#include "base/bytes.h"

#include <string.h>

#define AT_HASH_BYTES 32
struct at_hash {
    uint8_t b[AT_HASH_BYTES];
};

struct at_hash at_sha256(const void *p, size_t n);
struct at_hash at_sha256_2(struct at_span a, struct at_span b); /* of the concatenation */

/* Incremental; release is safe on a zeroed or finished object. */
struct at_sha256_ctx {
    void *impl;
};
void at_sha256_init(struct at_sha256_ctx *ctx);
void at_sha256_update(struct at_sha256_ctx *ctx, const void *p, size_t n);
struct at_hash at_sha256_final(struct at_sha256_ctx *ctx); /* releases */
void at_sha256_release(struct at_sha256_ctx *ctx);

static inline bool at_hash_eq(struct at_hash a, struct at_hash b) /* those that differ mostly do so at once */
{
    return memcmp(a.b, b.b, 8) == 0 && memcmp(a.b, b.b, sizeof a.b) == 0;
}
bool at_hash_is_zero(struct at_hash a);

/* 64 lower-case hex digits and a NUL, in a value so that it can be used inside an expression: at_hash_hex(h).s */
struct at_hash_text {
    char s[2 * AT_HASH_BYTES + 1];
};
struct at_hash_text at_hash_hex(struct at_hash h);
at_err at_hash_parse(const char *text, struct at_hash *ret_hash);

#endif
