/* vote_pb.h: between generated structs and ours, for what several messages are made of; private to wire/. Pure.
 * `build` borrows from its source; `read` is false when a field is out of shape. */
#ifndef ATOLL_WIRE_VOTE_PB_H
#define ATOLL_WIRE_VOTE_PB_H

#include "wire/pb.h"
#include "wire/record.h"
#include "wire/vote.h"

void at_pb_signed_build(const struct at_signed_record *from, Atoll__Pb__Signed *to);
bool at_pb_signed_read(const Atoll__Pb__Signed *from, struct at_signed_record *to);
void at_pb_checkpoint_build(const struct at_log_checkpoint *from, Atoll__Pb__Checkpoint *to);
bool at_pb_checkpoint_read(const Atoll__Pb__Checkpoint *from, struct at_log_checkpoint *to);
void at_pb_vote_build(const struct at_vote *from, Atoll__Pb__Vote *to);
bool at_pb_vote_read(const Atoll__Pb__Vote *from, struct at_vote *to);
void at_pb_certificate_build(const struct at_certificate *from, Atoll__Pb__Certificate *to);
bool at_pb_certificate_read(const Atoll__Pb__Certificate *from, struct at_certificate *to);

#endif
