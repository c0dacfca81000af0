/* Properties: what is accepted encodes to exactly the bytes that came in, and decodes to the same again. */
#include "wire/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_record rec, twice;
    struct at_diag diag = {.err = AT_OK};
    if (at_record_decode(at_span(data, size), &diag, &rec) != AT_OK) {
        AT_ASSERT(diag.text[0] != '\0');
        return 0;
    }
    uint8_t body[AT_RECORD_BYTES_MAX];
    uint16_t n;
    AT_ASSERT(size <= AT_RECORD_BYTES_MAX);
    AT_ASSERT(at_record_encode(&rec, NULL, body, &n) == AT_OK);
    AT_ASSERT(at_span_eq(at_span(body, n), at_span(data, size)));
    AT_ASSERT(at_record_decode(at_span(body, n), NULL, &twice) == AT_OK && twice.kind == rec.kind);
    return 0;
}
