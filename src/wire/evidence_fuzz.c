/* Properties: what is accepted encodes to exactly the bytes that came in, and its two halves exclude each other. */
#include "wire/vote.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_evidence e;
    struct at_diag diag = {.err = AT_OK};
    if (at_evidence_decode(at_span(data, size), &diag, &e) != AT_OK) {
        AT_ASSERT(diag.text[0] != '\0');
        return 0;
    }
    if (e.of_votes) AT_ASSERT(at_votes_exclude(&e.vote[0], &e.vote[1]));
    if (!e.of_votes) AT_ASSERT(!at_hash_eq(e.roots[0].root, e.roots[1].root));
    uint8_t bytes[AT_EVIDENCE_BYTES_MAX];
    size_t n;
    AT_ASSERT(at_evidence_encode(&e, bytes, &n) == AT_OK);
    AT_ASSERT(at_span_eq(at_span(bytes, n), at_span(data, size)));
    return 0;
}
