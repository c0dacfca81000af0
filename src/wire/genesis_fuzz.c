/* Properties: what is accepted passes its own check and encodes to exactly the bytes that came in. */
#include "wire/genesis.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_genesis g;
    struct at_diag diag = {.err = AT_OK};
    if (at_genesis_decode(at_span(data, size), &diag, &g) != AT_OK) {
        AT_ASSERT(diag.text[0] != '\0');
        return 0;
    }
    struct at_buf again = {0};
    AT_ASSERT(at_genesis_encode(&g, NULL, &again) == AT_OK);
    AT_ASSERT(at_span_eq(at_buf_span(&again), at_span(data, size)));
    at_buf_release(&again);
    return 0;
}
