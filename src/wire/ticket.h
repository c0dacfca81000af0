/* ticket.h: what a member shows when it stands for a seat. Pure; Exact: yes.
 *
 * That it holds the key of the seat: the key signs its member's id ("atoll holder 1\0" ‖ run ‖ member). Otherwise somebody
 * could stand with another's key, and one signature would count for two seats. (That one owner shows one key for two of
 * its members, the ledger refuses.)
 *
 * In a young run, the founder's word that the bearer of its invite may hold a seat.
 * A ticket is a key pair. Its secret travels in the invite, its public key is signed by the founder ("atoll ticket 1\0" ‖
 * run ‖ ticket); its bearer shows in READY that it has the secret, by a signature over its own id ("atoll bearer 1\0" ‖
 * run ‖ member), so that nobody who reads the log can use the ticket once more for another member. */
#ifndef ATOLL_WIRE_TICKET_H
#define ATOLL_WIRE_TICKET_H

#include "base/sign.h"

struct at_ticket { /* secret: as good as a seat */
    uint8_t seed[AT_KEY_BYTES];
    struct at_sig founder;
};
struct at_ticket_use {
    struct at_node_id ticket;
    struct at_sig founder, bearer;
};

struct at_sig at_seat_key_show(const struct at_keypair *key, struct at_hash run, const struct at_node_id *member);
/* AT_E_SIGNATURE. verifier NULL, here and below: at_verify. */
at_err at_seat_key_verify(const struct at_node_id *key, struct at_hash run, const struct at_node_id *member,
                          const struct at_sig *key_use, const struct at_verifier *verifier);

/* `key` is new (at_keypair_generate) and nothing but a ticket's. */
struct at_ticket at_ticket_make(const struct at_keypair *founder, struct at_hash run, const struct at_keypair *key);
/* What READY of the member with this key shows; the ticket's key signs as that one does. AT_E_INTERNAL: the seed is no key. */
at_err at_ticket_show(const struct at_ticket *ticket, struct at_hash run, const struct at_keypair *member,
                      struct at_ticket_use *ret_use);
/* AT_E_SIGNATURE: not the founder's, or not this member's. */
at_err at_ticket_verify(const struct at_ticket_use *use, struct at_hash run, const struct at_node_id *founder,
                        const struct at_node_id *member, const struct at_verifier *verifier);

#endif
