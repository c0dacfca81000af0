/* meet.h: what is said when a third node, the arranger, brings together two that cannot dial each other. Pure.
 *
 *   asker            arranger              target
 *     | -- ASK ---------> | -- INVITE --------> |     both have a link to the arranger
 *     | <-- GO ---------- | <-- AGREE --------- |     or REFUSE with a reason, back to the asker
 *     | == prelude =====> | <===== prelude ==== |     a fresh TCP connection each, opened by a one-time token
 *   RELAY: the arranger splices the two; the TLS handshake between asker and target runs through them.
 *   PUNCH: the arranger saw from where each connection came, tells the other (PUNCH), and both connect to each other
 *          from that very local port at one moment.
 * The asker is TLS's client, the target its server; each pins the other's key.
 *
 * Messages travel inside wire/message. The prelude comes before any TLS and is all that the arranger ever reads of such
 * a connection; TLS begins with byte 22, so the two cannot be confused:
 *
 *   offset  bytes  what
 *   0       8      "ATOLLvia"
 *   8       32     the token, as lower-case hex: an arranger that makes a node connect somewhere chooses no free bytes
 *
 * Besides: a dialer may ask its listener from where it seems to come (LOOK, answered by SEEN). */
#ifndef ATOLL_WIRE_MEET_H
#define ATOLL_WIRE_MEET_H

#include "base/sign.h"
#include "wire/endpoint.h"
#include "wire/reason.h"

#define AT_MEET_TOKEN_BYTES   16
#define AT_MEET_PRELUDE_BYTES 40
#define AT_MEET_WAIT_MS_MAX   5000
#define AT_MEET_ARRANGED      ((uint64_t)1 << 63) /* set in an arranger's numbers, not in an asker's: a node may be both */

enum at_meet_kind { /* numbers of the schema's oneof */
                    AT_MEET_NONE = 0,
                    AT_MEET_ASK = 1,
                    AT_MEET_INVITE,
                    AT_MEET_AGREE,
                    AT_MEET_GO,
                    AT_MEET_PUNCH,
                    AT_MEET_REFUSE,
                    AT_MEET_SEEN,
                    AT_MEET_LOOK,
                    AT_MEET_KIND_COUNT
};
enum at_meet_how { AT_MEET_HOW_NONE, AT_MEET_HOW_RELAY, AT_MEET_HOW_PUNCH, AT_MEET_HOW_COUNT };

struct at_meet_token {
    uint8_t b[AT_MEET_TOKEN_BYTES]; /* random; good for one connection */
};

/* One struct for all kinds; a kind uses the fields named behind it, the others are zero. */
struct at_meet {
    enum at_meet_kind kind;
    uint64_t number;                      /* all but SEEN and LOOK: which attempt */
    bool yours;                           /* PUNCH, REFUSE: the number is the receiver's own */
    enum at_meet_how how;                 /* ASK, INVITE */
    struct at_node_id node;               /* ASK: the target; INVITE: the asker */
    struct at_meet_token token;           /* INVITE, GO */
    struct at_endpoint endpoint;          /* PUNCH: the other side; SEEN: you */
    uint32_t wait_ms;                     /* PUNCH: connect so long after this came; <= AT_MEET_WAIT_MS_MAX */
    char reason[AT_REASON_BYTES_MAX + 1]; /* REFUSE */
};

/* Why a node must not connect to `target` because an arranger (seen at `arranger`) names it in a PUNCH; NULL: it may. What
 * listens on this machine, on its net or at a system's port must not get connections because a stranger asks for it; an
 * arranger in a private net may arrange there. own: from where the node would connect; seen: as whom others see it
 * (ip_bytes 0: not known); loopback: addresses of this machine pass, but not `own` itself (tests). */
const char *at_meet_no_target(const struct at_endpoint *target, const struct at_endpoint *arranger,
                              const struct at_endpoint *own, const struct at_endpoint *seen, bool loopback);

void at_meet_prelude(const struct at_meet_token *token, uint8_t ret_prelude[AT_MEET_PRELUDE_BYTES]);
/* Reads a prelude off the front of a connection. AT_OK with *ret_used: it is one; 0: so far it may be one, more bytes are
 * needed. AT_E_PEER: it is none (TLS, perhaps). */
at_err at_meet_prelude_parse(struct at_span in, struct at_meet_token *ret_token, size_t *ret_used);
/* In a time that says nothing about where they differ. */
bool at_meet_token_eq(const struct at_meet_token *a, const struct at_meet_token *b);

#endif
