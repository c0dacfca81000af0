/* Properties: the input read as text is refused with a reason, or encodes to the same invite again; and any invite that
 * can be built from the input survives the way through text. */
#include "wire/invite.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct at_invite *a)
{
    char text[AT_INVITE_TEXT_MAX + 1];
    struct at_invite b;
    AT_ASSERT(at_invite_encode(a, NULL, text) == AT_OK);
    AT_ASSERT(at_invite_decode(text, NULL, &b) == AT_OK);
    AT_ASSERT(strcmp(a->host, b.host) == 0 && a->port == b.port && a->log_size == b.log_size);
    AT_ASSERT(at_hash_eq(a->run, b.run) && at_hash_eq(a->log_root, b.log_root) && at_node_id_eq(&a->node, &b.node));
    AT_ASSERT(a->has_ticket == b.has_ticket);
    AT_ASSERT(!a->has_ticket || memcmp(&a->ticket, &b.ticket, sizeof b.ticket) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    AT_ASSERT(text != NULL);
    if (size != 0) memcpy(text, data, size);
    text[size] = '\0';
    struct at_invite invite;
    struct at_diag diag = {.err = AT_OK};
    if (at_invite_decode(text, &diag, &invite) == AT_OK)
        check_same(&invite);
    else
        AT_ASSERT(diag.text[0] != '\0');
    free(text);

    /* The checksum keeps a fuzzer from inventing invites: build one from the raw bytes as well. */
    memset(&invite, 0, sizeof invite);
    if (size >= 44) {
        memcpy(invite.run.b, data, AT_HASH_BYTES);
        invite.port = (uint16_t)(data[32] | data[33] << 8);
        invite.log_size = at_load_le64(data + 34);
        size_t n = size - 42 < AT_HOST_BYTES_MAX ? size - 42 : AT_HOST_BYTES_MAX;
        memcpy(invite.host, data + 42, n);
        invite.has_ticket = size >= 42 + sizeof invite.ticket && data[41] % 2 == 1;
        if (invite.has_ticket) memcpy(&invite.ticket, data + size - sizeof invite.ticket, sizeof invite.ticket);
        char built[AT_INVITE_TEXT_MAX + 1];
        if (at_invite_encode(&invite, NULL, built) == AT_OK) check_same(&invite);
    }
    return 0;
}
