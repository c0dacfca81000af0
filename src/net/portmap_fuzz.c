/* Properties: what is accepted encodes to exactly the bytes that came in, and holds the header's limits. And of the same
 * bytes as a URL's: an accepted one begins with a number, and is not this machine's. */
#include "net/portmap.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct at_portmap_note note;
    uint8_t bytes[AT_PORTMAP_NOTE_BYTES] = {0}, again[AT_PORTMAP_NOTE_BYTES];
    char url[64] = "http://";
    memcpy(url + 7, data, size < sizeof url - 8 ? size : sizeof url - 8);
    if (at_portmap_url_ok(url)) AT_ASSERT(url[7] >= '0' && url[7] <= '9' && strncmp(url + 7, "127.", 4) != 0);
    memcpy(bytes, data, size < sizeof bytes ? size : sizeof bytes);
    if (at_portmap_note_decode(bytes, &note) != AT_OK) return 0;
    at_portmap_note_encode(&note, again);
    AT_ASSERT(memcmp(bytes, again, sizeof bytes) == 0);
    AT_ASSERT(strlen(note.text) <= AT_PORTMAP_TEXT_BYTES);
    if (note.mapped) AT_ASSERT(at_endpoint_ok(&note.outside) && note.outside.ip_bytes == 4 && note.lease_s > 0);
    return 0;
}
