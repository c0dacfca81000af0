/* node_secrets.h: the secrets of the seats for which this node stands: D/seat-<term>, 64 hex digits, mode 0600. Effects:
 * files, and random bytes from the system.
 *
 * Of a secret a seat's key and its beacon are made. It never follows from the node's key, and it is not in the ledger's
 * file, which people copy: when its term is over it is overwritten and removed, so that whoever gets hold of this machine
 * later cannot sign that term's history anew. */
#ifndef ATOLL_NODE_NODE_SECRETS_H
#define ATOLL_NODE_NODE_SECRETS_H

#include "swarm/node_machine.h"

/* Those in the folder, terms ascending; the newest AT_NODE_SECRETS when there are more. AT_E_DATA: a file is none. */
at_err at_secrets_load(const char *dir, struct at_diag *diag, struct at_node_secret ret_list[AT_NODE_SECRETS],
                       size_t *ret_count);
/* The secret for `term`: the stored one, or a new one, durable on return. */
at_err at_secrets_make(const char *dir, uint32_t term, struct at_diag *diag, struct at_node_secret *ret_secret);
/* Those of terms before `term` are gone on return. */
at_err at_secrets_erase(const char *dir, uint32_t term, struct at_diag *diag);

#endif
