/* ranks_note.h: the payloads of the notes that ranks send each other (enum at_box_kind). Fixed layouts, little-endian,
 * texts NUL-padded. Reading checks everything and makes the texts printable: AT_E_PEER.
 *
 *   HELLO    "ATRANKS2", rank u32, ranks u32, pid u32, port u32, facts u32, then per fact name[32], value[72]
 *   TABLE    ranks u32, then per rank pid u32, port u32, host[48]
 *   REPORT   to rank 0, and VERDICT from it: index of the error in base/err.h u32, where[256], text[512] */
#ifndef ATOLL_NET_RANKS_NOTE_H
#define ATOLL_NET_RANKS_NOTE_H

#include "net/ranks.h"

#define AT_NOTE_HOST_BYTES 48

struct at_rank_hello {
    uint32_t rank, ranks, pid, port;
    int facts;
    struct at_ranks_fact fact[AT_RANKS_FACTS_MAX];
};
struct at_rank_entry { /* where a rank is */
    uint32_t pid, port;
    char host[AT_NOTE_HOST_BYTES];
};

at_err at_note_hello_write(const struct at_rank_hello *h, struct at_buf *out);
at_err at_note_hello_read(struct at_span note, struct at_rank_hello *ret_hello);
at_err at_note_table_write(const struct at_rank_entry *entry, int ranks, struct at_buf *out);
at_err at_note_table_read(struct at_span note, int ranks, struct at_rank_entry *ret_entry);
at_err at_note_verdict_write(const struct at_diag *diag, struct at_buf *out);
at_err at_note_verdict_read(struct at_span note, struct at_diag *ret_diag); /* ret_diag->err != AT_OK */

/* The first fact that differs, in the order of `own`, as "kernel profile F32-2 where rank 0 has F32-1"; false: none.
 * `own_rank`: what to call us. */
bool at_note_facts_differ(const struct at_rank_hello *theirs, const struct at_ranks_fact *own, int own_count,
                          int own_rank, char *ret_text, size_t text_bytes);

#endif
