/* message.h: what two nodes say to each other, one message per frame. Pure.
 *
 * A decoded message borrows from the caller's `struct at_message_mem`, until the next decode into it or its release; a
 * message to encode borrows from wherever its maker keeps the bytes. Decoding is bounded: every size has a limit, the
 * memory too, and what a peer sends can only be refused (AT_E_PEER), never crash or hoard. Unknown fields and messages
 * of another protocol are refused as well: nobody speaks more than AT_PROTOCOL_VERSION. */
#ifndef ATOLL_WIRE_MESSAGE_H
#define ATOLL_WIRE_MESSAGE_H

#include "wire/endpoints.h"
#include "wire/frame.h"
#include "wire/log_checkpoint.h"
#include "wire/meet.h"
#include "wire/presence.h"
#include "wire/record.h"

#define AT_PROTOCOL_VERSION  5
#define AT_PIECE_BYTES_MAX   ((uint32_t)256 * 1024)
#define AT_LOG_PART_MAX      256 /* records, and checkpoints */
#define AT_PROGRAM_BYTES_MAX 64
#define AT_TILE_DATA_MAX     ((uint32_t)64 * 1024)   /* the bytes of a state's tile */
#define AT_TILES_MAX         ((uint32_t)1024 * 1024) /* tiles of a state */
#define AT_BUNDLE_MAX        16                      /* updates of one BundleWant, or Bundle */
#define AT_BUNDLE_BYTES_MAX  AT_PIECE_BYTES_MAX      /* of all in a Bundle */
#define AT_PEERS_MAX         64                      /* statements of one Peers, members of one Gone */
#define AT_PRESENCES_MAX     64                      /* words of presence of one Presences */
#define AT_HOPS_NONE         255
#define AT_AGREE_BYTES_MAX   ((uint32_t)256 * 1024) /* the largest block with 32 certificates of 21 seats: 125 KB */

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
                       AT_MSG_PEERS_GET,
                       AT_MSG_PEERS,
                       AT_MSG_HEAD,
                       AT_MSG_GONE,
                       AT_MSG_TILES_ASK,
                       AT_MSG_TILES_HAVE,
                       AT_MSG_SAVED,
                       AT_MSG_AGREE,
                       AT_MSG_COSIGN,
                       AT_MSG_MEET,
                       AT_MSG_STAGE,
                       AT_MSG_BUNDLE_WANT,
                       AT_MSG_BUNDLE,
                       AT_MSG_HELD,
                       AT_MSG_PRESENCES,
                       AT_MSG_KIND_COUNT
};
const char *at_message_kind_name(enum at_message_kind kind); /* "hello", ...; never NULL */

/* STATE is a name between a machine and its driver: between nodes a state goes as LEAVES and TILEs. */
enum at_blob_kind {
    AT_BLOB_NONE,
    AT_BLOB_GENESIS,
    AT_BLOB_SHARD,
    AT_BLOB_UPDATE,
    AT_BLOB_STATE,
    AT_BLOB_LEAVES, /* key: state root; 32 bytes a leaf, leaf 0 first */
    AT_BLOB_TILE,   /* key: state root; offset: the tile's number (leaf - 1), total: the number of tiles */
    AT_BLOB_KIND_COUNT
};

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
    uint32_t bytes; /* 1 .. AT_PIECE_BYTES_MAX; of a tile always AT_TILE_DATA_MAX, whatever its size */
};
struct at_msg_piece {
    enum at_blob_kind kind;
    struct at_hash key;
    uint64_t offset, total; /* offset + data.n <= total; of a tile offset < total <= AT_TILES_MAX */
    struct at_span data;    /* <= AT_PIECE_BYTES_MAX; of a tile 1 .. AT_TILE_DATA_MAX */
};
struct at_msg_missing {
    enum at_blob_kind kind;
    struct at_hash key;
    uint64_t offset;
};
struct at_msg_bundle_want { /* whole small updates */
    const struct at_hash *keys;
    uint32_t count; /* 1 .. AT_BUNDLE_MAX */
};
struct at_msg_bundle { /* one of its answers, which name the same keys in the same order, all together */
    const struct at_hash *keys;
    const struct at_span *data; /* <= AT_BUNDLE_BYTES_MAX together; n 0: the sender does not have it */
    uint32_t count;             /* 1 .. AT_BUNDLE_MAX */
};
struct at_msg_held { /* "the updates of these replicas for this round are here"; not passed on, so not signed */
    uint32_t round;
    struct at_span bits; /* bit i of byte i/8: replica i; no zero byte at the end, <= AT_MEMBERS_MAX / 8 bytes */
};
struct at_msg_log_get {
    uint64_t from;
    bool once; /* answer, and push nothing from then on */
};
/* records from, from + 1, ...; checkpoints of sizes in (from, from + record_count], ascending by (size, key): of several
 * stewards each size has several */
struct at_msg_log_part {
    uint64_t from;
    const struct at_signed_record *records;
    uint32_t record_count;
    const struct at_log_checkpoint *checkpoints;
    uint32_t checkpoint_count;
    bool live; /* an answer that reaches the end of the sender's log: what follows is pushed */
};
struct at_msg_submit {
    const struct at_signed_record *record;
};
struct at_msg_refused {
    struct at_hash record; /* the leaf hash */
    char reason[AT_REASON_BYTES_MAX + 1];
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
struct at_msg_tiles_ask { /* "which tiles of this state do you hold?" */
    struct at_hash root;
};
struct at_msg_tiles_have {
    struct at_hash root;
    bool whole;          /* all; then no bits */
    struct at_span bits; /* bit i of byte i/8: tile i; no zero byte at the end, <= AT_TILES_MAX / 8 bytes */
};
struct at_msg_saved { /* "the state at the start of this round is durable here"; not passed on, so not signed */
    uint32_t round;
    struct at_hash state_root;
};
struct at_msg_agree {     /* between the stewards of a term */
    struct at_span bytes; /* at_agree_decode reads them; 1 .. AT_AGREE_BYTES_MAX */
};
struct at_msg_cosign { /* likewise: a seat's signature of the log's size and root (consensus/cosign.h) */
    struct at_log_checkpoint cosignature; /* size > 0 */
};
struct at_msg_stage {      /* of an attempt at a unit of several members (swarm/node_group.c) */
    uint32_t round, group; /* group: not 0 */
    uint32_t from, to;     /* the sender's number of the attempt, not 0; the receiver's, 0: not known */
};
struct at_msg_peers_get {
    struct at_node_id after; /* those with greater ids, ascending */
    struct at_span sums;     /* le64 each, of 2^k ranges of ids, <= AT_PEERS_SUMS_MAX; n 0: none */
};
struct at_msg_peers {
    const struct at_endpoints *list; /* <= AT_PEERS_MAX; each of its endpoints is ok */
    uint32_t count;
};
struct at_msg_head {
    uint64_t log_size;
    uint32_t hops; /* links between the sender and the steward; AT_HOPS_NONE: it knows no way */
};
struct at_msg_presences { /* as many Readys, of members whose words go the same way */
    const struct at_presence *list;
    uint32_t count; /* 2 .. AT_PRESENCES_MAX: one alone is a Ready */
};
struct at_msg_gone {
    const struct at_node_id *members; /* 1 .. AT_PEERS_MAX that were here through the sender, and are not now */
    uint32_t count;
};

struct at_message {
    enum at_message_kind kind;
    union {
        struct at_msg_hello hello;
        struct at_msg_want want;
        struct at_msg_piece piece;
        struct at_msg_missing missing;
        struct at_msg_bundle_want bundle_want;
        struct at_msg_bundle bundle;
        struct at_msg_held held;
        struct at_msg_log_get log_get;
        struct at_msg_log_part log_part;
        struct at_msg_submit submit;
        struct at_msg_refused refused;
        struct at_presence ready;
        struct at_msg_presences presences;
        struct at_msg_progress progress;
        struct at_msg_ping ping, pong;
        struct at_msg_bye bye;
        struct at_msg_peers_get peers_get;
        struct at_msg_peers peers;
        struct at_msg_head head;
        struct at_msg_gone gone;
        struct at_msg_tiles_ask tiles_ask;
        struct at_msg_tiles_have tiles_have;
        struct at_msg_saved saved;
        struct at_msg_agree agree;
        struct at_msg_cosign cosign;
        struct at_meet meet;
        struct at_msg_stage stage;
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

/* Which kind these bytes begin like, without decoding them; AT_MSG_NONE: none of ours. */
enum at_message_kind at_message_peek(struct at_span bytes);

/* The class a message travels in: pieces and bundles are bulk, everything else is control. */
enum at_frame_class at_message_class(enum at_message_kind kind);
#endif
