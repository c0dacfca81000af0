#include "wire/ticket.h"

#include <string.h>

enum { DOMAIN_BYTES = sizeof "atoll ticket 1", TEXT_BYTES = DOMAIN_BYTES + AT_HASH_BYTES + AT_KEY_BYTES };

static struct at_span text_of(const char domain[DOMAIN_BYTES], struct at_hash run, const struct at_node_id *id,
                              uint8_t text[TEXT_BYTES])
{
    memcpy(text, domain, DOMAIN_BYTES);
    memcpy(text + DOMAIN_BYTES, run.b, AT_HASH_BYTES);
    memcpy(text + DOMAIN_BYTES + AT_HASH_BYTES, id->b, AT_KEY_BYTES);
    return at_span(text, TEXT_BYTES);
}

struct at_sig at_seat_key_show(const struct at_keypair *key, struct at_hash run, const struct at_node_id *member)
{
    uint8_t text[TEXT_BYTES];
    return at_sign(key, text_of("atoll holder 1", run, member, text));
}

at_err at_seat_key_verify(const struct at_node_id *key, struct at_hash run, const struct at_node_id *member,
                          const struct at_sig *key_use, const struct at_verifier *verifier)
{
    uint8_t text[TEXT_BYTES];
    return at_verify_by(verifier, key, text_of("atoll holder 1", run, member, text), key_use);
}

struct at_ticket at_ticket_make(const struct at_keypair *founder, struct at_hash run, const struct at_keypair *key)
{
    uint8_t text[TEXT_BYTES];
    struct at_ticket ticket = {.founder = at_sign(founder, text_of("atoll ticket 1", run, &key->id, text))};
    memcpy(ticket.seed, key->seed, sizeof ticket.seed);
    return ticket;
}

at_err at_ticket_show(const struct at_ticket *ticket, struct at_hash run, const struct at_keypair *member,
                      struct at_ticket_use *ret_use)
{
    uint8_t text[TEXT_BYTES];
    struct at_keypair key;
    at_err_t err = at_keypair_from_seed(ticket->seed, &key);
    if (err) return err;
    key.stand_in = member->stand_in;
    *ret_use = (struct at_ticket_use){.ticket = key.id,
                                      .founder = ticket->founder,
                                      .bearer = at_sign(&key, text_of("atoll bearer 1", run, &member->id, text))};
    return AT_OK;
}

at_err at_ticket_verify(const struct at_ticket_use *use, struct at_hash run, const struct at_node_id *founder,
                        const struct at_node_id *member, const struct at_verifier *verifier)
{
    uint8_t text[TEXT_BYTES];
    at_err_t err = at_verify_by(verifier, founder, text_of("atoll ticket 1", run, &use->ticket, text), &use->founder);
    if (err) return err;
    return at_verify_by(verifier, &use->ticket, text_of("atoll bearer 1", run, member, text), &use->bearer);
}
