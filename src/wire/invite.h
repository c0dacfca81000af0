/* invite.h: the one line that lets a newcomer in. Pure.
 *
 * Text: "atoll1" ‖ base32 (RFC 4648 alphabet in lower case, no padding) of: length n (le16) ‖ n bytes of Invite ‖ the
 * first 4 bytes of SHA-256(length ‖ bytes). Letters may arrive in upper case and with white space around or inside
 * (mail breaks lines). The length tells a cut link from a mistyped one. */
#ifndef ATOLL_WIRE_INVITE_H
#define ATOLL_WIRE_INVITE_H

#include "base/sign.h"
#include "wire/ticket.h"

#define AT_HOST_BYTES_MAX  253
#define AT_INVITE_TEXT_MAX 880 /* characters without the NUL */

struct at_invite {
    struct at_hash run;
    struct at_node_id node; /* whose key the link must show */
    char host[AT_HOST_BYTES_MAX + 1];
    uint16_t port;
    uint64_t log_size; /* a checkpoint of the log: a steward cannot show a newcomer a shorter or another past */
    struct at_hash log_root;
    bool has_ticket; /* its bearer may hold a seat: then the whole text is a secret, as good as the seat */
    struct at_ticket ticket;
};

/* NUL-terminated. AT_E_DATA: host empty or not made of letters, digits, '.', '-', ':', '%', '_'; port 0. */
at_err at_invite_encode(const struct at_invite *invite, struct at_diag *diag, char ret_text[AT_INVITE_TEXT_MAX + 1]);
/* AT_E_INVITE with a text for people ("the invite is cut short", "a character was mistyped"). */
at_err at_invite_decode(const char *text, struct at_diag *diag, struct at_invite *ret_invite);

#endif
