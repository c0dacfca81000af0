/* message.h: what two nodes say to each other, one message per frame. Pure.
 *
 * A decoded message borrows from the caller's `struct at_message_mem`, until the next decode into it or its release; a
 * message to encode borrows from wherever its maker keeps the bytes. Decoding is bounded: every size has a limit, the
 * memory too, and what a peer sends can only be refused (AT_E_PEER), never crash or hoard. Unknown fields and messages
 * of a later protocol are refused as well: protocol 1 is all there is. */
#ifndef ATOLL_WIRE_MESSAGE_H
#define ATOLL_WIRE_MESSAGE_H

#include "wire/frame.h"
#include "wire/log_checkpoint.h"
#include "wire/record.h"

#define AT_PROTOCOL_VERSION  1
#define AT_PIECE_BYTES_MAX   ((uint32_t)256 * 1024)
#define AT_LOG_PART_MAX      256 /* records, and checkpoints */
#define AT_REASON_BYTES_MAX  200
#define AT_PROGRAM_BYTES_MAX 64

enum at_message_kind { /* numbers of the schema's oneof */
                       AT_MSG_NONE = 0,
                       AT_MSG_HELLO = 1,
                       AT_MSG_WANT,
                       AT_MSG_PIECE,
                       AT_MSG_MISSING,
                       AT_MSG_LOG_GET,
                       AT_MSG_LOG_PART,
                       AT_MSG_SUBMIT,
                       AT_MSG_REFUSED,
                       AT_MSG_READY,
                       AT_MSG_PROGRESS,
                       AT_MSG_PING,
                       AT_MSG_PONG,
                       AT_MSG_BYE,
                       AT_MSG_KIND_COUNT
};
const char *at_message_kind_name(enum at_message_kind kind); /* "hello", ...; never NULL */

enum at_blob_kind { AT_BLOB_NONE, AT_BLOB_GENESIS, AT_BLOB_SHARD, AT_BLOB_UPDATE, AT_BLOB_STATE, AT_BLOB_KIND_COUNT };

struct at_msg_hello { /* first message of both sides */
    uint32_t protocol;
    struct at_hash run;
    char program[AT_PROGRAM_BYTES_MAX + 1];
    uint64_t log_size;
    bool observer; /* wants the genesis or the log only */
};
struct at_msg_want {
    enum at_blob_kind kind;
    struct at_hash key;
    uint64_t offset;
    uint32_t bytes; /* 1 .. AT_PIECE_BYTES_MAX */
};
struct at_msg_piece {
    enum at_blob_kind kind;
    struct at_hash key;
    uint64_t offset, total; /* offset + data.n <= total */
    struct at_span data;    /* <= AT_PIECE_BYTES_MAX */
};
struct at_msg_missing {
    enum at_blob_kind kind;
    struct at_hash key;
};
struct at_msg_log_get {
    uint64_t from;
};
/* records from, from + 1, ...; checkpoints of sizes in (from, from + record_count], ascending */
struct at_msg_log_part {
    uint64_t from;
    const struct at_signed_record *records;
    uint32_t record_count;
    const struct at_log_checkpoint *checkpoints;
    uint32_t checkpoint_count;
};
struct at_msg_submit {
    const struct at_signed_record *record;
};
struct at_msg_refused {
    struct at_hash record; /* the leaf hash */
    char reason[AT_REASON_BYTES_MAX + 1];
};
struct at_msg_ready { /* "I hold the state at the start of this round" */
    uint32_t round;
    struct at_hash state_root;
};
struct at_msg_progress {
    uint32_t round, step;
    uint64_t tokens;
    double tokens_per_s; /* finite, >= 0 */
};
struct at_msg_ping { /* and pong */
    uint64_t nonce;
};
struct at_msg_bye {
    char reason[AT_REASON_BYTES_MAX + 1];
};

struct at_message {
    enum at_message_kind kind;
    union {
        struct at_msg_hello hello;
        struct at_msg_want want;
        struct at_msg_piece piece;
        struct at_msg_missing missing;
        struct at_msg_log_get log_get;
        struct at_msg_log_part log_part;
        struct at_msg_submit submit;
        struct at_msg_refused refused;
        struct at_msg_ready ready;
        struct at_msg_progress progress;
        struct at_msg_ping ping, pong;
        struct at_msg_bye bye;
    };
};

/* Where decoded messages live: one block, allocated on first use and reused. Zero is a valid empty object. */
struct at_message_mem {
    uint8_t *block;
};
void at_message_mem_release(struct at_message_mem *mem);

/* Appends the encoded message. AT_E_DATA: it breaks a limit above (our mistake or a record's). */
at_err at_message_encode(const struct at_message *msg, struct at_buf *out);
/* AT_E_PEER with what is wrong; AT_E_NOMEM. */
at_err at_message_decode(struct at_span bytes, struct at_message_mem *mem, struct at_diag *diag,
                         struct at_message *ret_msg);

/* The class a message travels in: pieces are bulk, everything else is control. */
enum at_frame_class at_message_class(enum at_message_kind kind);
/* Text cut to a reason's limit, unprintable input replaced by "?"; for filling the fixed arrays above. */
void at_reason_set(char ret_reason[AT_REASON_BYTES_MAX + 1], const char *text);

#endif
