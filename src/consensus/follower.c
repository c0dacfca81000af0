/* follower.c: all checks on a copy of the tree first, so that a refused part leaves no trace. */
#include "consensus/follower.h"

#include <string.h>

void at_follower_seats(struct at_follower *f, uint32_t term, const struct at_node_id *keys, uint32_t seat_count)
{
    AT_ASSERT(seat_count >= 1 && seat_count <= AT_SEATS_MAX);
    f->term = term;
    f->seat_count = seat_count;
    memcpy(f->seats, keys, seat_count * sizeof *keys);
}

static uint32_t quorum(const struct at_follower *f)
{
    return 2 * ((f->seat_count - 1) / 3) + 1;
}

static uint32_t seat_of(const struct at_follower *f, const struct at_node_id *key)
{
    uint32_t seat = 0;
    while (seat < f->seat_count && !at_node_id_eq(&f->seats[seat], key)) seat++;
    return seat;
}

/* How many of the cosignatures are of this term's seats; each key is there once. */
static uint32_t count_seats(const struct at_follower *f, const struct at_log_checkpoint *checkpoints, size_t count)
{
    uint32_t seats = 0;
    for (size_t i = 0; i < count; i++) seats += seat_of(f, &checkpoints[i].steward) < f->seat_count;
    return seats;
}

static at_err_t check_cosignature(const struct at_follower *f, const struct at_merkle *log,
                                  const struct at_log_checkpoint *checkpoint, struct at_diag *diag)
{
    unsigned long long size = checkpoint->size;
    if (seat_of(f, &checkpoint->steward) == f->seat_count)
        return at_fail(diag, AT_E_SIGNATURE, "log", "the checkpoint is not signed by the run's steward%s",
                       f->seat_count == 1 ? "" : "s");
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

/* The cosignatures of one size. */
static at_err_t check_checkpoint(const struct at_follower *f, const struct at_merkle *log,
                                 const struct at_log_checkpoint *checkpoints, size_t count, struct at_diag *diag)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && at_node_id_cmp(&checkpoints[i - 1].steward, &checkpoints[i].steward) >= 0)
            return at_fail(diag, AT_E_DATA, "log", "the cosignatures of %llu records are not ascending",
                           (unsigned long long)checkpoints[i].size);
        at_err_t err = check_cosignature(f, log, &checkpoints[i], diag);
        if (err) return err;
    }
    if (count < quorum(f))
        return at_fail(diag, AT_E_SIGNATURE, "log", "%zu of the %u cosignatures that %llu records need", count,
                       quorum(f), (unsigned long long)log->size);
    return AT_OK;
}

at_err at_follower_head(const struct at_follower *f, const struct at_log_checkpoint *checkpoints, size_t count,
                        struct at_diag *diag)
{
    return check_checkpoint(f, &f->log, checkpoints, count, diag);
}

/* The number of checkpoints from the first on that are of its size. */
static size_t same_size(const struct at_log_checkpoint *checkpoints, size_t count)
{
    size_t n = 0;
    while (n < count && checkpoints[n].size == checkpoints[0].size) n++;
    return n;
}

/* What begins a block is signed by nobody: a quorum under the root vouches for it. */
static at_err_t check_record(const struct at_follower *f, const struct at_signed_record *record)
{
    if (f->seat_count > 1 && at_signed_record_is_unsigned(record)) return AT_OK;
    return at_signed_record_verify_by(record, f->verifier);
}

/* Appends the records to `log`, comparing it with every checkpoint on the way. */
static at_err_t check_part(const struct at_follower *f, struct at_merkle *log, const struct at_signed_record *records,
                           size_t count, const struct at_log_checkpoint *checkpoints, size_t checkpoint_count,
                           struct at_diag *diag, struct at_hash ret_leaf[AT_FOLLOWER_PART_MAX])
{
    at_err_t err;
    size_t c = 0;
    for (size_t i = 0; i < count; i++) {
        if ((err = check_record(f, &records[i])))
            return at_fail(diag, err, "log", "record %llu: wrong signature", (unsigned long long)log->size);
        ret_leaf[i] = at_signed_record_leaf(&records[i]);
        at_merkle_append(log, ret_leaf[i]);
        if (log->size == f->invite_size && !at_hash_eq(at_merkle_root(log), f->invite_root))
            return at_fail(diag, AT_E_VERIFY, "log",
                           "the steward shows another past: its first %llu records are not those of the invite",
                           (unsigned long long)log->size);
        if (c == checkpoint_count || checkpoints[c].size != log->size) continue;
        size_t n = same_size(checkpoints + c, checkpoint_count - c);
        if ((err = check_checkpoint(f, log, checkpoints + c, n, diag))) return err;
        c += n;
    }
    if (c != checkpoint_count || c == 0 || checkpoints[c - 1].size != log->size)
        return at_fail(diag, AT_E_DATA, "log", "the part does not end with its checkpoint");
    return AT_OK;
}

/* The old seats order nothing after the hand-over: what follows it needs a quorum of the new ones too (they may be the
 * same keys, if nobody else stood). */
static bool may_follow(const struct at_follower *f, const struct at_log_checkpoint *checkpoints,
                       size_t checkpoint_count)
{
    size_t first = checkpoint_count - 1;
    while (first > 0 && checkpoints[first - 1].size == checkpoints[first].size) first--;
    return count_seats(f, checkpoints + first, checkpoint_count - first) >= quorum(f);
}

at_err at_follower_part(struct at_follower *f, uint64_t from, const struct at_signed_record *records, size_t count,
                        const struct at_log_checkpoint *checkpoints, size_t checkpoint_count, struct at_diag *diag)
{
    struct at_merkle log = f->log;
    struct at_hash leaf[AT_FOLLOWER_PART_MAX];
    AT_ASSERT(count <= AT_FOLLOWER_PART_MAX);
    if (from != log.size || count == 0)
        return at_fail(diag, AT_E_DATA, "log", "a part from record %llu does not continue a log of %llu",
                       (unsigned long long)from, (unsigned long long)log.size);
    at_err_t err = check_part(f, &log, records, count, checkpoints, checkpoint_count, diag, leaf);
    if (err) return err;
    uint32_t term = f->term;
    for (size_t i = 0; i < count; i++) {
        if (f->term != term && at_signed_record_is_unsigned(&records[i])) { /* a block of the next term */
            f->broken = !may_follow(f, checkpoints, checkpoint_count);
            term = f->term;
        }
        if (f->broken || f->take(f->user, &records[i], leaf[i], diag)) {
            f->broken = true;
            return at_fail(diag, AT_E_VERIFY, "log", "the steward signed record %llu, which may not stand there",
                           (unsigned long long)(from + i));
        }
    }
    f->log = log;
    return AT_OK;
}
