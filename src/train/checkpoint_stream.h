/* checkpoint_stream.h: the files of checkpoint.h written and read block by block, for states that no single rank holds.
 * Pure: blocks and pieces of files come and go through functions. Memory: one tensor that is cut by columns, or one
 * block. The files are, to the byte, those of at_checkpoint_write. */
#ifndef ATOLL_TRAIN_CHECKPOINT_STREAM_H
#define ATOLL_TRAIN_CHECKPOINT_STREAM_H

#include "train/checkpoint.h"

enum { AT_PART_WEIGHTS, AT_PART_STATS, AT_PART_MOMENTUM, AT_PARTS };

/* The name of a part's file. */
void at_checkpoint_part_name(int part, struct at_hash root, char ret_name[48]);

/* values: the block's weights or momentum (rows * cols), or its statistics (at_block_stats_count). Called for the parts
 * in order: weights by tensor and slot, as the file has them; the others in memory order. */
struct at_block_stream {
    at_err_t (*move)(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag);
    void *arg;
};
/* Pieces of the file of a part. */
struct at_piece_sink {
    at_err_t (*put)(void *arg, int part, uint64_t offset, struct at_span bytes, struct at_diag *diag);
    void *arg;
};
struct at_piece_source {
    at_err_t (*get)(void *arg, int part, uint64_t offset, uint8_t *ret_bytes, size_t n, struct at_diag *diag);
    void *arg;
    uint64_t bytes[AT_PARTS]; /* of the files; momentum 0: there is none */
};

/* The values of one block; how many there are. whole: of the whole model. */
size_t at_part_count(const struct at_params *whole, int part, int tensor, int slot);

/* from->move fills the values. root: the state's, known before. AT_E_NONFINITE never: who knows the root has looked. */
at_err at_checkpoint_stream_write(const struct at_params *whole, uint32_t round, struct at_hash root, bool momentum,
                                  const struct at_block_stream *from, const struct at_piece_sink *to,
                                  struct at_diag *diag);

/* The first bytes of a file of safetensors, up to the end of its header, and what they say (both owned by the caller;
 * ret_file borrows from head). name: in diag->where. As at_st_parse_head. */
at_err at_checkpoint_stream_head(const struct at_piece_source *from, int part, const char *name, struct at_diag *diag,
                                 struct at_buf *head, struct at_st_file *ret_file);
/* Which state the model's file names, before the other files are known by their names. */
at_err at_checkpoint_stream_named(const struct at_piece_source *from, struct at_diag *diag,
                                  struct at_checkpoint_named *ret_named);
/* Headers only: what the files say, checked against what we would write for this model. AT_E_DATA and the like. */
at_err at_checkpoint_stream_open(const struct at_params *whole, const struct at_piece_source *from,
                                 struct at_diag *diag, struct at_checkpoint_named *ret_named);
/* to->move is given the values. Whether the state has the root that it names is the caller's to check afterwards. */
at_err at_checkpoint_stream_read(const struct at_params *whole, const struct at_checkpoint_named *named,
                                 const struct at_piece_source *from, const struct at_block_stream *to,
                                 struct at_diag *diag);
/* Calls move in the same order without values: for the ranks that give blocks to the one that writes, or take them. */
at_err at_checkpoint_stream_follow(const struct at_params *whole, bool momentum, const struct at_block_stream *each,
                                   struct at_diag *diag);

#endif
