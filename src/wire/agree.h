/* agree.h: what one steward says to another (consensus/simplex.h says when). Pure.
 *
 * As in message.h: a decoded message borrows from the caller's memory until the next decode into it; every size has a
 * limit; one meaning has one spelling; whatever is beyond that is refused (AT_E_PEER). */
#ifndef ATOLL_WIRE_AGREE_H
#define ATOLL_WIRE_AGREE_H

#include "wire/block.h"
#include "wire/vote.h"

#define AT_PROPOSAL_CERTIFICATES_MAX 32
#define AT_NEWEST_MAX                2 /* the votes that one honest seat can have in one view: block and dummy or finalise */

enum at_agree_kind { /* numbers of the schema's oneof */
                     AT_AGREE_NONE = 0,
                     AT_AGREE_VOTE = 1,
                     AT_AGREE_CERTIFICATE,
                     AT_AGREE_PROPOSAL,
                     AT_AGREE_STATUS,
                     AT_AGREE_NEWEST,
                     AT_AGREE_ASK,
                     AT_AGREE_PENDING,
                     AT_AGREE_KIND_COUNT
};

/* A block. From its leader: with its signature, the parent's certificate and those of the dummies since. As an answer:
 * without a signature, with or without the block's own certificate. */
struct at_agree_proposal {
    struct at_span block; /* at_block_decode reads it */
    bool is_signed;
    struct at_sig sig;
    uint32_t certificate_count;
    const struct at_certificate *certificates[AT_PROPOSAL_CERTIFICATES_MAX];
};
struct at_agree_status {
    uint64_t view, tip_view;
    bool asks; /* wants what follows tip_view, and its own newest votes */
    uint64_t nonce;
};
struct at_agree_newest {
    uint64_t nonce;
    uint32_t count;
    struct at_vote votes[AT_NEWEST_MAX];
};
struct at_agree_ask {
    bool of_block;
    uint64_t first, last; /* of_block: first == last, the block's view; else the views whose certificates are wanted */
    struct at_hash hash;  /* of_block */
};

struct at_agree {
    uint32_t term;
    enum at_agree_kind kind;
    union {
        struct at_vote vote;
        const struct at_certificate *certificate;
        struct at_agree_proposal proposal;
        struct at_agree_status status;
        struct at_agree_newest newest;
        struct at_agree_ask ask;
        const struct at_signed_record *pending;
    };
};

/* Where decoded messages live: one block, allocated on first use and reused. Zero is a valid empty object. */
struct at_agree_mem {
    uint8_t *block;
};
void at_agree_mem_release(struct at_agree_mem *mem);

at_err at_agree_encode(const struct at_agree *msg, struct at_buf *out); /* appends */
/* AT_E_PEER with what is wrong; AT_E_NOMEM. */
at_err at_agree_decode(struct at_span bytes, struct at_agree_mem *mem, struct at_diag *diag, struct at_agree *ret_msg);

#endif
