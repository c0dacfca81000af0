/* ranks_box.h: one link between two ranks without the link: what to write next, what the bytes read mean. A machine
 * without system calls, so that two of them can be joined by any cutting of the bytes (ranks_box_test, ranks_box_fuzz).
 *
 * The stream is frames: a head of 24 bytes (little-endian), then `bytes` of payload. A heartbeat is a single byte
 * AT_BOX_BEAT between two frames, where no head begins with it.
 *
 *   offset  bytes  field
 *   0       4      kind (enum at_box_kind)
 *   4       4      tag; 0 where it means nothing
 *   8       8      total: DATA, GRANTED, ASK, GRANT: bytes of the whole message; CREDIT: bytes given back; else 0
 *   16      4      bytes of payload: DATA, GRANTED: 1 .. 256 KiB of the message; notes: up to 256 KiB; else 0
 *   20      4      0
 *
 * A message of a tag is finished before the next of that tag begins; messages of other tags may come between its pieces.
 * A message is sent unasked as DATA while cost(message) = its bytes + 128, summed over the messages sent and not given
 * back by CREDIT, is at most AT_RANKS_EAGER_BYTES. Otherwise ASK goes first, and after GRANT (its receive is posted) the
 * pieces follow as GRANTED.
 *
 * The bytes come from an authenticated rank and are checked all the same: AT_E_PEER, never an assert. Thread rule: one at
 * a time; the spans of *_next stay valid until *_took, at_box_let_go or release, whatever is posted between. */
#ifndef ATOLL_NET_RANKS_BOX_H
#define ATOLL_NET_RANKS_BOX_H

#include "net/ranks.h"

#define AT_BOX_HEAD_BYTES  24
#define AT_BOX_PIECE_BYTES ((size_t)256 << 10)
#define AT_BOX_SMALL_BYTES ((size_t)64 << 10) /* messages that may overtake */
#define AT_BOX_STAGE_BYTES ((size_t)16 << 10) /* one TLS record: small things travel together */
#define AT_BOX_COST_BYTES  ((size_t)128)
#define AT_BOX_ASKS_MAX    4096 /* messages that a peer may have asked for and not finished: they cost memory */

enum at_box_kind {
    AT_BOX_DATA = 1,
    AT_BOX_GRANTED,
    AT_BOX_ASK,
    AT_BOX_GRANT,
    AT_BOX_CREDIT,
    /* notes: for the user of the box, whose payload means nothing here */
    AT_BOX_BEAT, /* no payload, and no kind that in_took returns: see `beat` */
    AT_BOX_HELLO,
    AT_BOX_TABLE,
    AT_BOX_READY,
    AT_BOX_GO,
    AT_BOX_REPORT,
    AT_BOX_VERDICT,
    AT_BOX_BYE,
    AT_BOX_KINDS
};

/* A posted transfer, owned by the caller and linked into the box until `done`. */
struct at_post {
    struct at_post *next;
    uint32_t tag;
    uint8_t *bytes;
    size_t n, moved;
    bool asked, granted, done;
};
struct at_post_list {
    struct at_post *first, *last;
};

struct at_arrival; /* a message that has begun to arrive */

struct at_box {
    /* out */
    struct at_post_list sends;
    struct at_buf notes; /* framed, not yet staged */
    uint8_t *stage;      /* [AT_BOX_STAGE_BYTES], allocated at first use */
    size_t stage_at, stage_n;
    struct at_post *body_of; /* the rest of a piece, sent from where it lies */
    const uint8_t *body;
    size_t body_n;
    size_t eager_out;
    /* in */
    struct at_post_list recvs; /* not bound to a message yet */
    struct at_arrival *arrivals;
    uint8_t head[AT_BOX_HEAD_BYTES];
    size_t head_n, left; /* left: payload bytes of the current frame still to come */
    uint32_t kind, tag;
    struct at_arrival *current; /* whose piece it is */
    struct at_buf note;
    size_t eager_in, credit_due;
    int asks;              /* arrivals that were asked for */
    int bound;             /* receives whose message is arriving */
    uint8_t discard[4096]; /* where bytes go that nobody wants any more */
    bool let_go;
    bool finished; /* a post became done since the caller last cleared this */
    bool beat;     /* a heartbeat came since the caller last cleared this */
};

void at_box_release(struct at_box *b); /* safe on a zeroed box */

/* Links the post into the box. `moved` and the flags are cleared. AT_E_PEER: recv of another size than what arrived;
 * AT_E_NOMEM. After let_go: nothing happens and the post never becomes done. */
void at_box_send(struct at_box *b, struct at_post *post);
at_err at_box_recv(struct at_box *b, struct at_post *post, struct at_diag *diag);
at_err at_box_note(struct at_box *b, enum at_box_kind kind, struct at_span payload); /* AT_E_TOO_BIG, AT_E_NOMEM */

/* The next bytes to write; n 0: nothing. AT_E_NOMEM. */
at_err at_box_out_next(struct at_box *b, struct at_span *ret_bytes);
void at_box_out_took(struct at_box *b, size_t n);
bool at_box_out_pending(const struct at_box *b); /* whether out_next would give bytes */

/* Where the next bytes read belong, always at least 1. */
void at_box_in_next(struct at_box *b, uint8_t **ret_p, size_t *ret_n);
/* n bytes were put there. ret_kind: a note is complete (payload: b->note, until the next call), else 0. AT_E_PEER with
 * what the peer did, AT_E_NOMEM. */
at_err at_box_in_took(struct at_box *b, size_t n, struct at_diag *diag, enum at_box_kind *ret_kind);

/* Whether a receive is posted that has not all its bytes. */
bool at_box_expects(const struct at_box *b);
/* The posts are forgotten and their buffers no longer touched; the stream stays sound, notes still go both ways. */
at_err at_box_let_go(struct at_box *b);

#endif
