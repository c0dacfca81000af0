/* frame.h: how messages are cut out of a link's byte stream. Pure; keeps nothing between calls.
 *
 *   offset  bytes  what
 *   0       4      n, little-endian: bytes that follow (1 + payload)
 *   4       1      class: the priority of the stream it travels on
 *   5       n - 1  payload: one encoded Message
 *
 * The length is judged before any payload is waited for, so a peer cannot make us hoard: a frame beyond the cap is
 * refused from its first four bytes. Text of another protocol (a stray HTTP request) reads as an absurd length and is
 * refused too. */
#ifndef ATOLL_WIRE_FRAME_H
#define ATOLL_WIRE_FRAME_H

#include "base/bytes.h"

#define AT_FRAME_HEAD_BYTES        5
#define AT_FRAME_PAYLOAD_BYTES_MAX ((uint32_t)1 << 20) /* the default cap */

enum at_frame_class { /* a lower number goes first */
                      AT_FRAME_CONTROL = 0,
                      AT_FRAME_ACTIVATION = 1,
                      AT_FRAME_BULK = 2,
                      AT_FRAME_CLASS_COUNT
};

struct at_frame {
    enum at_frame_class cls;
    struct at_span payload; /* borrowed from the input */
};

/* One frame off the front of `in`. AT_OK with *ret_used > 0: *ret_frame is set, drop that many bytes and call again.
 * AT_OK with *ret_used == 0: need more bytes (ret_frame untouched). AT_E_PEER: the stream is not ours; close
 * the link. */
at_err at_frame_parse(struct at_span in, uint32_t payload_bytes_max, struct at_frame *ret_frame, size_t *ret_used);

/* Appends one frame. AT_E_TOO_BIG when the payload is beyond `payload_bytes_max` or the buffer's own maximum. */
at_err at_frame_append(struct at_buf *out, enum at_frame_class cls, struct at_span payload, uint32_t payload_bytes_max);

#endif
