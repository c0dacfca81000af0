/* Journals from hostile bytes. Property: what is accepted is whole rounds whose samples are disjoint, and reading as many
 * rounds again from the bytes used gives the same; what is not names a line. */
#include "train/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_journal_tail a, b;
    struct at_diag diag = {0};
    if (at_journal_read(at_span(data, size), "j", UINT32_MAX, &diag, &a) != AT_OK) {
        AT_ASSERT(diag.where[0] == 'j' && diag.text[0] != '\0');
        return 0;
    }
    AT_ASSERT(a.bytes <= size && a.tokens / a.head.seq_len <= a.samples.next);
    AT_ASSERT(a.epochs_whole * a.head.epoch_samples + a.epoch_used + a.later_used == a.tokens / a.head.seq_len);
    AT_ASSERT(at_journal_read(at_span(data, a.bytes), "j", a.rounds, NULL, &b) == AT_OK);
    AT_ASSERT(b.rounds == a.rounds && b.bytes == a.bytes && b.samples.next == a.samples.next);
    if (a.rounds > 0) {
        uint32_t steps = at_journal_steps(&a.samples, &a.head, a.last.steps);
        AT_ASSERT(steps >= 1 && steps <= a.last.steps);
    }
    at_samples_release(&a.samples);
    at_samples_release(&b.samples);
    return 0;
}
