/* A peer may send anything. The input's first byte says how many receives are posted (tag, size: the next bytes), the
 * second where the stream is cut; the rest is what the peer sends. Properties: nothing is written outside what was asked
 * for; every receive that is done holds bytes of the stream; what waits unreceived stays within the bound; notes decode
 * or are refused, and what decodes encodes again to the same. */
#include "net/ranks_box.h"
#include "net/ranks_note.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { POSTS = 8, RANKS = 5 };

static void check_note(enum at_box_kind kind, struct at_span note)
{
    static struct at_rank_hello hello, again;
    struct at_rank_entry entry[RANKS];
    struct at_diag diag;
    struct at_buf out = {0};
    if (kind == AT_BOX_HELLO && at_note_hello_read(note, &hello) == AT_OK) {
        AT_ASSERT(at_note_hello_write(&hello, &out) == AT_OK && out.n == note.n);
        AT_ASSERT(at_note_hello_read(at_buf_span(&out), &again) == AT_OK && memcmp(&hello, &again, sizeof hello) == 0);
    }
    if (kind == AT_BOX_TABLE && at_note_table_read(note, RANKS, entry) == AT_OK)
        AT_ASSERT(at_note_table_write(entry, RANKS, &out) == AT_OK && out.n == note.n);
    if ((kind == AT_BOX_VERDICT || kind == AT_BOX_REPORT) && at_note_verdict_read(note, &diag) == AT_OK)
        AT_ASSERT(diag.err < 0 && at_note_verdict_write(&diag, &out) == AT_OK && out.n == note.n);
    at_buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_box box = {0};
    struct at_post recv[POSTS], send = {.tag = 1, .bytes = (uint8_t[4]){1, 2, 3, 4}, .n = 4};
    struct at_span rest = at_span(data, size), out;
    if (size < 2) return 0;
    int posts = data[0] % (POSTS + 1);
    size_t cut = (size_t)data[1] + 1;
    rest = at_span(data + 2, size - 2);
    at_err_t err = AT_OK;
    at_box_send(&box, &send);
    for (int i = 0; i < posts; i++) {
        recv[i] = (struct at_post){.tag = rest.n > 2 ? rest.p[0] % 4 : 1, .n = rest.n > 2 ? rest.p[1] + 1u : 9};
        if (rest.n > 2) rest = at_span(rest.p + 2, rest.n - 2);
        AT_ASSERT((recv[i].bytes = malloc(recv[i].n)) != NULL);
        if (err == AT_OK && i % 2 == 0) err = at_box_recv(&box, &recv[i], NULL);
    }
    for (int late = 1; rest.n > 0 && err == AT_OK;) {
        uint8_t *p;
        size_t n;
        enum at_box_kind kind = 0;
        at_box_in_next(&box, &p, &n);
        AT_ASSERT(n >= 1);
        n = n < cut ? n : cut;
        n = n < rest.n ? n : rest.n;
        memcpy(p, rest.p, n); /* the sanitizers see it when this is no room of ours */
        rest = at_span(rest.p + n, rest.n - n);
        err = at_box_in_took(&box, n, NULL, &kind);
        if (kind != 0) check_note(kind, at_buf_span(&box.note));
        AT_ASSERT(box.eager_in <= AT_RANKS_EAGER_BYTES);
        if (err == AT_OK && late < posts) err = at_box_recv(&box, &recv[late], NULL), late += 2;
        if (err == AT_OK && rest.n % 7 == 0 && at_box_out_next(&box, &out) == AT_OK) at_box_out_took(&box, out.n);
        if (rest.n % 64 == 1 && err == AT_OK) err = at_box_let_go(&box);
    }
    at_box_release(&box);
    for (int i = 0; i < posts; i++) free(recv[i].bytes);
    return 0;
}
