/* node_bundle.h: many updates at once, for a node's machine: read, looked for, written. Effects: the vault's files. Loop's
 * thread; what is written is checked and made durable by the disk worker. */
#ifndef ATOLL_NODE_NODE_BUNDLE_H
#define ATOLL_NODE_NODE_BUNDLE_H

#include "node/node_drive.h"

/* The answer to BUNDLE_READ: data[] is good until the next call. AT_E_NOMEM. */
at_err_t node_bundle_read(struct node *n, const struct node_todo *todo, struct at_span data[AT_BUNDLE_MAX],
                          struct at_node_event *ev);
void node_bundle_stat(struct node *n, const struct node_todo *todo, struct at_node_event *ev); /* to BUNDLE_STAT */
void node_bundle_write(struct node *n, const struct at_node_op *op); /* BUNDLE_STORED follows */

#endif
