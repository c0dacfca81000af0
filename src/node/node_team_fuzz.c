/* A member of one's own group may send anything between stages. The input is frames, each after a byte that says how long
 * it is and who sends it; "number" bytes at the right places make some of them of this attempt. Properties: nothing is
 * written outside what was posted (the sanitizers see it); a refusal ends the team with AT_E_PEER; after the end every wait
 * returns. */
#include "node/node_team.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { POSTS = 4, SESSION = 7 };

static void nobody(void *user)
{
    (void)user;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_node_team who = {.session = SESSION, .rank = 1, .ranks = 3};
    struct at_transfer posted[POSTS];
    uint8_t *room[POSTS], frame[8 + 64];
    at_err_t err = AT_OK;
    for (int i = 0; i < 3; i++) who.peer[i].id.b[0] = (uint8_t)(i + 1);
    struct at_team *t = at_team_new(&who, nobody, NULL);
    AT_ASSERT(t);
    struct at_comm comm = at_team_comm(t);
    for (int i = 0; i < POSTS; i++) {
        size_t n = 1 + 5 * (size_t)i;
        AT_ASSERT((room[i] = malloc(n)) != NULL);
        posted[i] = at_comm_recv(&comm, i % 2 ? 0 : 2, (uint32_t)i / 2, room[i], n);
    }
    while (size > 0) {
        struct at_diag diag = {0};
        size_t n = *data % 64;
        uint8_t sender = (uint8_t)(*data / 64);
        data++, size--;
        if (n > size) n = size;
        at_store_le32(frame, n % 16 == 15 ? 8 : SESSION);
        at_store_le32(frame + 4, 3);
        memcpy(frame + 8, data, n);
        data += n, size -= n;
        struct at_node_id from = {{(uint8_t)(sender + 1)}};
        at_err_t got = at_team_frame(t, &from, at_span(frame, 8 + n), &diag);
        AT_ASSERT(got == AT_OK || got == AT_E_PEER || got == AT_E_NOMEM);
        if (err == AT_OK && n > 0) err = got; /* a frame without bytes is refused and ends nothing */
    }
    at_team_end(t);
    for (int i = 0; i < POSTS; i++) {
        at_err_t ended = at_comm_wait(&comm, posted[i], NULL);
        AT_ASSERT(ended == AT_OK || ended == (err ? err : AT_E_INTERRUPTED));
        free(room[i]);
    }
    at_team_put(t);
    return 0;
}
