/* message_pb.h: the insides of message.c, shared with message_mesh.c and its like, and with their fuzz target. */
#ifndef ATOLL_WIRE_MESSAGE_PB_H
#define ATOLL_WIRE_MESSAGE_PB_H

#include "wire/meet_pb.h"
#include "wire/message.h"
#include "wire/pb.h"

/* The generated structs of one message. The arrays are those of a log part, of Peers and of Presences. */
struct message_pb {
    Atoll__Pb__Message message;
    union {
        Atoll__Pb__Hello hello;
        Atoll__Pb__Want want;
        Atoll__Pb__Piece piece;
        Atoll__Pb__Missing missing;
        Atoll__Pb__LogGet log_get;
        Atoll__Pb__LogPart log_part;
        Atoll__Pb__Submit submit;
        Atoll__Pb__Refused refused;
        Atoll__Pb__Ready ready;
        Atoll__Pb__Progress progress;
        Atoll__Pb__Ping ping;
        Atoll__Pb__Pong pong;
        Atoll__Pb__Bye bye;
        Atoll__Pb__PeersGet peers_get;
        Atoll__Pb__Peers peers;
        Atoll__Pb__LogHead head;
        Atoll__Pb__Gone gone;
        Atoll__Pb__TilesAsk tiles_ask;
        Atoll__Pb__TilesHave tiles_have;
        Atoll__Pb__Saved saved;
        Atoll__Pb__AgreeBytes agree;
        Atoll__Pb__Cosign cosign;
        struct at_meet_pb meet;
        Atoll__Pb__Stage stage;
        Atoll__Pb__BundleWant bundle_want;
        Atoll__Pb__Bundle bundle;
        Atoll__Pb__Held held;
        Atoll__Pb__Presences presences;
    };
    Atoll__Pb__Signed record[AT_LOG_PART_MAX], *record_at[AT_LOG_PART_MAX];
    Atoll__Pb__Checkpoint checkpoint[AT_LOG_PART_MAX], *checkpoint_at[AT_LOG_PART_MAX];
    Atoll__Pb__Endpoints endpoints[AT_PEERS_MAX], *endpoints_at[AT_PEERS_MAX];
    Atoll__Pb__Ready word[AT_PRESENCES_MAX], *word_at[AT_PRESENCES_MAX];
    ProtobufCBinaryData data[AT_BUNDLE_MAX];
    uint8_t endpoint_bytes[AT_PEERS_MAX][AT_ENDPOINTS_MAX * AT_ENDPOINT_BYTES];
};

static inline ProtobufCBinaryData at_pb_hash(const struct at_hash *h)
{
    return at_pb_bytes(h->b, sizeof h->b);
}

/* The generated message over `msg`; borrows from it. The kind is one of ours. */
void at_message_build(const struct at_message *msg, struct message_pb *pb);

/* message_mesh.c: what members say about themselves and about the way to the steward. */
void at_message_mesh_build(const struct at_message *msg, struct message_pb *pb);
const char *at_message_mesh_fault(const struct at_message *m);
bool at_message_mesh_read(const Atoll__Pb__Message *pb, struct at_pb_arena *arena, struct at_message *m);

/* message_bundle.c: many small updates in one message. */
void at_message_bundle_build(const struct at_message *msg, struct message_pb *pb);
const char *at_message_bundle_fault(const struct at_message *m);
bool at_message_bundle_read(const Atoll__Pb__Message *pb, struct at_pb_arena *arena, struct at_message *m);

/* message_quick.c: what comes often. True: these are canonical bytes of *m, whose limits are not checked yet. Hand it a
 * zeroed m; false leaves anything in it. */
bool at_message_quick_read(struct at_span bytes, struct at_pb_arena *arena, struct at_message *m);

#endif
