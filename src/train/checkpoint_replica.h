/* checkpoint_replica.h: what one replica keeps for itself beside the public state, as a file next to the checkpoint, so
 * that a run that goes on ends in the very root of the run that was never stopped. Pure: blocks and pieces of the file
 * come and go through functions. Memory: one block.
 *
 *   replica-<number, 4 digits>-<first 16 hex of the state's root>.safetensors
 *     error_feedback   with a lossy codec: e of every weight in the order of the flat array, padding included
 *     own_weights      with overlap: likewise, the weights that the replica's last unit left
 *     moments_before   with overlap: the statistics (state.h) of the state before; the same for all replicas
 *     __metadata__     profile, round, state_root, replica, replicas, values_hash (SHA-256 of all values as they lie)
 *
 * Reading accepts exactly what writing makes: the header is compared with what we would write, the values are hashed. */
#ifndef ATOLL_TRAIN_CHECKPOINT_REPLICA_H
#define ATOLL_TRAIN_CHECKPOINT_REPLICA_H

#include "train/checkpoint_stream.h"

enum { AT_OWN_FEEDBACK, AT_OWN_WEIGHTS, AT_OWN_STATS, AT_OWN_PARTS };

/* What a replica's file says of itself. */
struct at_own_head {
    struct at_hash root; /* of the state that it belongs to */
    uint32_t round;      /* likewise */
    uint32_t replica, replicas;
    bool feedback, overlap; /* which parts there are */
    struct at_hash values;  /* known once they have been written */
};
#define AT_OWN_NAME_BYTES 48
void at_own_name(const struct at_own_head *head, char ret_name[AT_OWN_NAME_BYTES]);

/* Values of one block of a part; whole: of the whole model. */
size_t at_own_count(const struct at_params *whole, int part, int tensor, int slot);

/* from->move is given a part (AT_OWN_...) and fills the values of one block of it: parts in order, blocks in memory
 * order. to->put: part 0. AT_E_NOMEM, and what these return. */
at_err at_own_write(const struct at_params *whole, const struct at_own_head *head, const struct at_block_stream *from,
                    const struct at_piece_sink *to, struct at_diag *diag);
/* The header, against what is expected (all of it but `values`, which is returned). from: part 0. AT_E_TRUNCATED,
 * AT_E_DATA with what differs and the file's name in diag->where. */
at_err at_own_open(const struct at_params *whole, const struct at_own_head *want, const struct at_piece_source *from,
                   struct at_diag *diag, struct at_hash *ret_values);
/* After it: to->move is given the values. AT_E_DATA when they are not those that the header names, or cannot be: then
 * what was given is of no use. */
at_err at_own_read(const struct at_params *whole, const struct at_own_head *head, const struct at_piece_source *from,
                   const struct at_block_stream *to, struct at_diag *diag);
/* Calls move in the same order without values: for the ranks that give blocks to the one that writes, or take them. */
at_err at_own_follow(const struct at_params *whole, const struct at_own_head *head, const struct at_block_stream *each,
                     struct at_diag *diag);

#endif
