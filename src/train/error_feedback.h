/* error_feedback.h: what a member's lossy updates have left over, from round to round, and how others can check it. Pure.
 * Exact: yes.
 *
 * e belongs to a member. It is zero when the member joins, and again when it was lost. A unit from e makes
 *
 *     e' = fma(beta, e, d)      sends codec(e')      leaves e' - decoded over
 *
 * and that is the e after it if the round's CLOSE counts the contribution. If not, its samples are given out again, so e
 * stays what it was: nothing is used twice. So e is a function of the member's counted contributions, and "e after the
 * contribution whose update has this hash" names it. A receipt commits to the e that its unit began with by
 *
 *     at_error_feedback_hash = SHA-256 of every weight's e as binary32, little-endian, in the order of the flat array,
 *                              padding included; 32 zero bytes where e is zero
 *
 * so that a unit is a pure function of (state, range, e), and whoever has the log and the text can compute every e again.
 *
 * As a file (bytes only; whoever writes it does so atomically): safetensors, values as in checkpoint_replica.h,
 *   error_feedback        e, unless it is zero
 *   error_feedback_next   what a unit that is done, but not decided, leaves over
 *   __metadata__          profile, run; update (after which e comes), values_hash (the hash above); next_update, next_hash */
#ifndef ATOLL_TRAIN_ERROR_FEEDBACK_H
#define ATOLL_TRAIN_ERROR_FEEDBACK_H

#include "base/hash.h"
#include "train/update.h"

struct at_error_feedback {          /* zeroed but for params and reuse: zero, after no contribution */
    const struct at_params *params; /* borrowed; the whole model's */
    bool reuse;                     /* keeps the memory of one more, for the next unit */
    real *e;                        /* (params->count) owned; NULL: zero */
    struct at_hash after;           /* the update of the contribution after which it comes; zero: none has counted */
    struct at_hash hash;            /* of e, once it was asked for */
    bool hashed;
    /* A unit that was done from it, of which it is not known yet whether it counts. */
    real *next; /* what it leaves over; NULL: none */
    struct at_hash update;
    real *spare; /* owned; memory only */
};
void at_error_feedback_release(struct at_error_feedback *f);

/* The log says that the member's contribution `counted` (zero: none) was the last that counts. false: e was that of
 * another, and is lost: it is zero from here on. */
bool at_error_feedback_settle(struct at_error_feedback *f, struct at_hash counted);
struct at_hash at_error_feedback_hash(struct at_error_feedback *f);

/* Appends the update of a unit that began with e, by a lossy codec, to an empty `out`, and keeps what it leaves over.
 * source->feedback is set here. An earlier unit that did not count is forgotten. AT_E_NOMEM, AT_E_TOO_BIG. */
at_err at_error_feedback_encode(struct at_error_feedback *f, const struct at_exec *ex, const struct at_codec *codec,
                                uint32_t k, const struct at_update_info *info, const struct at_update_source *source,
                                struct at_buf *out);

/* Appends the file. AT_E_NOMEM. */
at_err at_error_feedback_write(struct at_error_feedback *f, struct at_hash run, struct at_buf *out);
/* f: as new. AT_E_DATA, AT_E_TRUNCATED, AT_E_NOMEM: not such a file of this run and model, to the bit; f is as new then. */
at_err at_error_feedback_read(struct at_error_feedback *f, struct at_hash run, struct at_span file,
                              struct at_diag *diag);
size_t at_error_feedback_file_bytes_max(const struct at_params *p);

#endif
