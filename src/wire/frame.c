#include "wire/frame.h"

#include <string.h>

at_err at_frame_parse(struct at_span in, uint32_t payload_bytes_max, struct at_frame *ret_frame, size_t *ret_used)
{
    *ret_used = 0;
    if (in.n < 4) return AT_OK;
    uint32_t n = at_load_le32(in.p);
    if (n < 1 || n - 1 > payload_bytes_max) return AT_E_PEER;
    if (in.n >= AT_FRAME_HEAD_BYTES && in.p[4] >= AT_FRAME_CLASS_COUNT) return AT_E_PEER;
    if (in.n - 4 < n) return AT_OK;
    ret_frame->cls = (enum at_frame_class)in.p[4];
    ret_frame->payload = at_span(in.p + AT_FRAME_HEAD_BYTES, n - 1);
    *ret_used = 4 + (size_t)n;
    return AT_OK;
}

at_err at_frame_append(struct at_buf *out, enum at_frame_class cls, struct at_span payload, uint32_t payload_bytes_max)
{
    AT_ASSERT(cls >= 0 && cls < AT_FRAME_CLASS_COUNT);
    if (payload.n > payload_bytes_max || payload.n > UINT32_MAX - 1) return AT_E_TOO_BIG;
    uint8_t *to;
    at_err_t err = at_buf_reserve(out, AT_FRAME_HEAD_BYTES + payload.n, &to);
    if (err) return err;
    at_store_le32(to, (uint32_t)payload.n + 1);
    to[4] = (uint8_t)cls;
    if (payload.n != 0) memcpy(to + AT_FRAME_HEAD_BYTES, payload.p, payload.n);
    out->n += AT_FRAME_HEAD_BYTES + payload.n;
    return AT_OK;
}
