/* Properties: parsing makes progress or waits or refuses; what it yields encodes back to the bytes it used; the cap
 * holds; a prefix of a stream never yields another first frame than the stream. */
#include "wire/frame.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint32_t max = 4096;
    struct at_span rest = at_span(data, size);
    while (rest.n != 0) {
        struct at_frame frame, cut_frame;
        size_t used, cut_used;
        if (at_frame_parse(rest, max, &frame, &used) != AT_OK || used == 0) break;
        AT_ASSERT(used <= rest.n && frame.payload.n <= max);
        struct at_buf again = {0};
        AT_ASSERT(at_frame_append(&again, frame.cls, frame.payload, max) == AT_OK);
        AT_ASSERT(at_span_eq(at_buf_span(&again), at_span(rest.p, used)));
        at_buf_release(&again);
        AT_ASSERT(at_frame_parse(at_span(rest.p, used - 1), max, &cut_frame, &cut_used) == AT_OK && cut_used == 0);
        rest = at_span(rest.p + used, rest.n - used);
    }
    return 0;
}
