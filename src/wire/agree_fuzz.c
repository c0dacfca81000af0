/* Properties: what is accepted encodes to exactly the bytes that came in; every limit of the header holds; a proposal's
 * block, if it is one, has one spelling as well. */
#include "wire/agree.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at_block(struct at_span bytes)
{
    static struct at_block_room room; /* reused, as a node does */
    struct at_diag diag = {.err = AT_OK};
    if (at_block_decode(bytes, &diag, &room) != AT_OK) {
        AT_ASSERT(diag.text[0] != '\0');
        return;
    }
    AT_ASSERT(room.block.record_count <= AT_BLOCK_RECORDS_MAX && room.block.parent_view < room.block.view);
    uint8_t *again = malloc(AT_BLOCK_BYTES_MAX);
    AT_ASSERT(again != NULL);
    AT_ASSERT(at_span_eq(at_span(again, at_block_encode(&room.block, again)), bytes));
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct at_agree_mem mem;
    struct at_agree m;
    struct at_diag diag = {.err = AT_OK};
    look_at_block(at_span(data, size));
    if (at_agree_decode(at_span(data, size), &mem, &diag, &m) != AT_OK) {
        AT_ASSERT(diag.text[0] != '\0');
        return 0;
    }
    if (m.kind == AT_AGREE_PROPOSAL) {
        AT_ASSERT(m.proposal.certificate_count <= AT_PROPOSAL_CERTIFICATES_MAX);
        look_at_block(m.proposal.block);
    }
    if (m.kind == AT_AGREE_VOTE) AT_ASSERT(m.vote.seat < AT_SEATS_MAX && m.vote.view <= AT_VIEW_MAX);
    struct at_buf again = {0};
    AT_ASSERT(at_agree_encode(&m, &again) == AT_OK);
    AT_ASSERT(at_span_eq(at_buf_span(&again), at_span(data, size)));
    at_buf_release(&again);
    return 0;
}
