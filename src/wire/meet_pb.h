/* meet_pb.h: meet.h's messages as generated structs; private to wire/. Pure. */
#ifndef ATOLL_WIRE_MEET_PB_H
#define ATOLL_WIRE_MEET_PB_H

#include "wire/meet.h"
#include "wire/pb.h"

struct at_meet_pb {
    Atoll__Pb__Meet meet; /* first: a pointer to the whole is a pointer to the message */
    union {
        Atoll__Pb__MeetAsk ask;
        Atoll__Pb__MeetInvite invite;
        Atoll__Pb__MeetAgree agree;
        Atoll__Pb__MeetGo go;
        Atoll__Pb__MeetPunch punch;
        Atoll__Pb__MeetRefuse refuse;
        Atoll__Pb__MeetSeen seen;
        Atoll__Pb__MeetLook look;
    };
};

/* The generated message over `from`; borrows from it. The kind is one of ours. */
void at_meet_build(const struct at_meet *from, struct at_meet_pb *to);
bool at_meet_read(const Atoll__Pb__Meet *from, struct at_meet *ret_meet); /* false: a field is missing or too long */
const char *at_meet_fault(const struct at_meet *meet); /* NULL when every limit holds, else what does not */

#endif
