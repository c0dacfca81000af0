/* Little-endian binary32 (safetensors.h), apart from the JSON around it: roots and blobs need only this. */
#include "model/safetensors.h"

#include <string.h>

/* Where memory has the files' order of bytes they are copied: a node passes over its state a dozen times a round. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
void at_f32_store(uint8_t *ret_p, const float *x, size_t n)
{
    if (n > 0) memcpy(ret_p, x, 4 * n);
}

void at_f32_read(const uint8_t *p, float *ret_x, size_t n)
{
    if (n > 0) memcpy(ret_x, p, 4 * n);
}
#else
void at_f32_store(uint8_t *ret_p, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        at_store_le32(ret_p + 4 * i, bits);
    }
}

void at_f32_read(const uint8_t *p, float *ret_x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = at_load_le32(p + 4 * i);
        memcpy(&ret_x[i], &bits, sizeof bits);
    }
}
#endif

at_err at_f32_append(struct at_buf *out, const float *x, size_t n)
{
    uint8_t *p;
    size_t bytes;
    if (!at_mul_size(n, 4, &bytes)) return AT_E_TOO_BIG;
    int err = at_buf_reserve(out, bytes, &p);
    if (err != AT_OK) return err;
    at_f32_store(p, x, n);
    out->n += bytes;
    return AT_OK;
}
