/* reason.h: why a peer refuses or leaves: text for people, short enough to be sent. Pure. */
#ifndef ATOLL_WIRE_REASON_H
#define ATOLL_WIRE_REASON_H

#define AT_REASON_BYTES_MAX 200

/* Text cut to a reason's limit, unprintable input replaced by "?"; for filling the fixed arrays of messages. */
void at_reason_set(char ret_reason[AT_REASON_BYTES_MAX + 1], const char *text);

#endif
