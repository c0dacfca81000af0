/* log_source.h: a stored log as a stream of rows, so that the ledger's verifier needs no disk and the store no ledger.
 * Rows come ascending, raw and unjudged: a damaged store gives damaged rows, and the verifier names them. */
#ifndef ATOLL_WIRE_LOG_SOURCE_H
#define ATOLL_WIRE_LOG_SOURCE_H

#include "base/sign.h"

struct at_log_row { /* spans borrowed until the next call */
    uint64_t idx;
    struct at_span body, author, sig;
};
struct at_log_checkpoint_row {
    uint64_t size;
    struct at_span root, steward, sig;
};

/* Each call gives the next row; AT_E_NOT_FOUND after the last; any other code: the store itself failed. */
struct at_log_source {
    void *ctx;
    const struct at_verifier *verifier; /* NULL: at_verify. It is asked by as many threads as the caller hands down */
    at_err_t (*next_record)(void *ctx, struct at_diag *diag, struct at_log_row *ret_row);
    at_err_t (*next_checkpoint)(void *ctx, struct at_diag *diag, struct at_log_checkpoint_row *ret_row);
};

#endif
