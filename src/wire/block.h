/* block.h: what stewards agree on: an ordered list of signed records with a parent, a time and a reveal. Pure; no
 * allocation; Exact: yes.
 *
 * A block's hash is SHA-256 of its canonical bytes; bytes that are not identical to their own re-encoding are refused.
 * The leader follows from the view, its signature is its vote for the hash (wire/vote.h). Records are opaque here but
 * for their sizes: authors' signatures, and what a record may say, are others' business. */
#ifndef ATOLL_WIRE_BLOCK_H
#define ATOLL_WIRE_BLOCK_H

#include "wire/record.h"
#include "wire/vote.h"

#define AT_BLOCK_RECORDS_MAX 64
#define AT_BLOCK_BYTES_MAX   ((size_t)80 * 1024) /* of 64 of the largest records and the rest: 73 KB */

struct at_block {
    struct at_hash run;
    uint32_t term;
    uint64_t view, parent_view; /* parent_view < view; 0: what the term began with */
    struct at_hash parent;
    uint64_t time_ms;
    struct at_hash reveal;
    uint32_t record_count;
    struct at_signed_record records[AT_BLOCK_RECORDS_MAX];
};

/* Where a block is decoded into: 170 KB, so not on a stack. */
struct at_block_room {
    struct at_block block;
    _Alignas(16) uint8_t arena[96 * 1024];
};

/* Bytes into ret_bytes (AT_BLOCK_BYTES_MAX). Every limit above must hold. */
size_t at_block_encode(const struct at_block *block, uint8_t *ret_bytes);
/* Into room->block. AT_E_DATA: not a canonical block of this version, or beyond a limit. */
at_err at_block_decode(struct at_span bytes, struct at_diag *diag, struct at_block_room *room);

#endif
