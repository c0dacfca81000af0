/* node_agree.h: the driver's side of what a steward among several keeps: rows between the machine and the store. */
#ifndef ATOLL_NODE_NODE_AGREE_H
#define ATOLL_NODE_NODE_AGREE_H

#include "store/store.h"
#include "swarm/node_machine.h"

/* A PERSIST: records, checkpoints and rows in one transaction, durable on return. */
at_err at_agree_persist(struct at_store *store, const struct at_node_op *op, struct at_diag *diag);
/* Gives the machine the stored rows, after its replay. */
at_err at_agree_restore(struct at_store *store, struct at_node_machine *machine, struct at_diag *diag);

/* What answers an AGREE_READ. Zero is a valid empty object. */
struct at_agree_answer {
    struct at_node_block list[AT_NODE_BLOCKS_MAX];
    size_t count;
    struct at_buf bytes;
};
struct at_agree_question {
    uint32_t term;
    bool of_block;
    uint64_t view, last;
    struct at_hash hash;
};
/* What is not there is not in the answer. */
at_err at_agree_read(struct at_store *store, const struct at_agree_question *question, struct at_diag *diag,
                     struct at_agree_answer *ret_answer);
void at_agree_answer_release(struct at_agree_answer *answer);

#endif
