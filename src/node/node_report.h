/* node_report.h: the machine's status as the control socket's JSON (node.h names the fields). Pure. */
#ifndef ATOLL_NODE_NODE_REPORT_H
#define ATOLL_NODE_NODE_REPORT_H

#include "base/bytes.h"
#include "net/address.h"
#include "swarm/node_status.h"

struct at_report_extra { /* what the machine does not know */
    const char *invite, *kernels;
    int threads;
    uint64_t control_bytes, bulk_bytes; /* sent: frames of messages, and of pieces of blobs */
    uint32_t relays, relays_max;        /* that run here */
    uint64_t relay_bytes_per_s, relayed_bytes;
    struct at_address_text outside; /* what the gateway forwards here; empty: nothing */
};
/* Appends one object without a newline. AT_E_NOMEM, AT_E_TOO_BIG. */
at_err at_report_write(const struct at_node_status *s, const struct at_report_extra *extra, struct at_buf *out);

#endif
