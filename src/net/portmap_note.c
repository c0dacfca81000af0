#include "net/portmap.h"

#include "net/address.h"
#include "wire/printable.h"

#include <stdio.h>
#include <string.h>

#define LEASE_S_MAX (7u * 24 * 3600)

bool at_portmap_note_ok(const struct at_portmap_note *note)
{
    return note->outside.ip_bytes == 4 && at_endpoint_ok(&note->outside) && !at_endpoint_loopback(&note->outside) &&
           note->lease_s > 0 && note->lease_s <= LEASE_S_MAX;
}

void at_portmap_note_encode(const struct at_portmap_note *note, uint8_t ret_bytes[AT_PORTMAP_NOTE_BYTES])
{
    size_t n = strnlen(note->text, AT_PORTMAP_TEXT_BYTES);
    memset(ret_bytes, 0, AT_PORTMAP_NOTE_BYTES);
    ret_bytes[1] = (uint8_t)n;
    memcpy(ret_bytes + 12, note->text, n);
    if (!note->mapped || note->outside.ip_bytes != 4) return;
    ret_bytes[0] = 1;
    ret_bytes[2] = (uint8_t)note->outside.port;
    ret_bytes[3] = (uint8_t)(note->outside.port >> 8);
    at_store_le32(ret_bytes + 4, note->lease_s);
    memcpy(ret_bytes + 8, note->outside.ip, 4);
}

at_err at_portmap_note_decode(const uint8_t bytes[AT_PORTMAP_NOTE_BYTES], struct at_portmap_note *ret_note)
{
    struct at_portmap_note note;
    uint8_t again[AT_PORTMAP_NOTE_BYTES];
    memset(&note, 0, sizeof note);
    if (bytes[0] > 1 || bytes[1] > AT_PORTMAP_TEXT_BYTES || !at_printable(at_span(bytes + 12, bytes[1])))
        return AT_E_PEER;
    note.mapped = bytes[0];
    memcpy(note.text, bytes + 12, bytes[1]);
    if (note.mapped) {
        note.outside.ip_bytes = 4;
        note.outside.port = (uint16_t)(bytes[2] | bytes[3] << 8);
        memcpy(note.outside.ip, bytes + 8, 4);
        note.lease_s = at_load_le32(bytes + 4);
        if (!at_portmap_note_ok(&note)) return AT_E_PEER;
    }
    at_portmap_note_encode(&note, again);
    if (memcmp(again, bytes, sizeof again) != 0) return AT_E_PEER;
    *ret_note = note;
    return AT_OK;
}

bool at_portmap_url_ok(const char *url)
{
    static const char scheme[] = "http://";
    char host[16] = "";
    struct sockaddr_storage sa;
    if (strncmp(url, scheme, sizeof scheme - 1) != 0) return false;
    const char *at = url + sizeof scheme - 1;
    size_t n = strspn(at, "0123456789.");
    if (n == 0 || n >= sizeof host || (at[n] != ':' && at[n] != '/' && at[n] != '\0')) return false;
    memcpy(host, at, n);
    if (!at_address_numeric(host, 1, &sa)) return false;
    struct at_endpoint e = at_address_of((struct sockaddr *)&sa);
    return e.ip_bytes == 4 && at_endpoint_ok(&e) && at_endpoint_private(&e) && !at_endpoint_loopback(&e);
}
