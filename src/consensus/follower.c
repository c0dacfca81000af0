/* follower.c: all checks on a copy of the tree first, so that a refused part leaves no trace. */
#include "consensus/follower.h"

static at_err check_checkpoint(const struct at_follower *f, const struct at_merkle *log,
                               const struct at_log_checkpoint *checkpoint, struct at_diag *diag)
{
    unsigned long long size = checkpoint->size;
    if (!at_node_id_eq(&checkpoint->steward, &f->steward))
        return at_fail(diag, AT_E_SIGNATURE, "log", "the checkpoint is not signed by the run's steward");
    at_err_t err = at_log_checkpoint_verify_by(checkpoint, f->run, f->verifier);
    if (err) return at_fail(diag, err, "log", "the checkpoint of %llu records: wrong signature", size);
    if (checkpoint->size != log->size)
        return at_fail(diag, AT_E_DATA, "log", "the checkpoint is of %llu records, not of %llu", size,
                       (unsigned long long)log->size);
    if (!at_hash_eq(checkpoint->root, at_merkle_root(log)))
        return at_fail(diag, AT_E_VERIFY, "log",
                       "the steward shows another past: the root it signed at %llu records is not that of the records",
                       size);
    return AT_OK;
}

at_err at_follower_head(const struct at_follower *f, const struct at_log_checkpoint *checkpoint, struct at_diag *diag)
{
    return check_checkpoint(f, &f->log, checkpoint, diag);
}

/* Appends the records to `log`, comparing it with every checkpoint on the way. */
static at_err check_part(const struct at_follower *f, struct at_merkle *log, const struct at_signed_record *records,
                         size_t count, const struct at_log_checkpoint *checkpoints, size_t checkpoint_count,
                         struct at_diag *diag)
{
    at_err_t err;
    size_t c = 0;
    for (size_t i = 0; i < count; i++) {
        if ((err = at_signed_record_verify_by(&records[i], f->verifier)))
            return at_fail(diag, err, "log", "record %llu: wrong signature", (unsigned long long)log->size);
        at_merkle_append(log, at_signed_record_leaf(&records[i]));
        if (log->size == f->invite_size && !at_hash_eq(at_merkle_root(log), f->invite_root))
            return at_fail(diag, AT_E_VERIFY, "log",
                           "the steward shows another past: its first %llu records are not those of the invite",
                           (unsigned long long)log->size);
        if (c < checkpoint_count && checkpoints[c].size == log->size &&
            (err = check_checkpoint(f, log, &checkpoints[c++], diag)))
            return err;
    }
    if (c != checkpoint_count || c == 0 || checkpoints[c - 1].size != log->size)
        return at_fail(diag, AT_E_DATA, "log", "the part does not end with its checkpoint");
    return AT_OK;
}

at_err at_follower_part(struct at_follower *f, uint64_t from, const struct at_signed_record *records, size_t count,
                        const struct at_log_checkpoint *checkpoints, size_t checkpoint_count, struct at_diag *diag)
{
    struct at_merkle log = f->log;
    if (from != log.size || count == 0)
        return at_fail(diag, AT_E_DATA, "log", "a part from record %llu does not continue a log of %llu",
                       (unsigned long long)from, (unsigned long long)log.size);
    at_err_t err = check_part(f, &log, records, count, checkpoints, checkpoint_count, diag);
    if (err) return err;
    for (size_t i = 0; i < count; i++)
        if (f->take(f->user, &records[i], diag)) {
            f->broken = true;
            return at_fail(diag, AT_E_VERIFY, "log", "the steward signed record %llu, which may not stand there",
                           (unsigned long long)(from + i));
        }
    f->log = log;
    return AT_OK;
}
