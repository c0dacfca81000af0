/* node_vault_internal.h: what the vault's two files share. */
#ifndef ATOLL_NODE_NODE_VAULT_INTERNAL_H
#define ATOLL_NODE_NODE_VAULT_INTERNAL_H

#include "node/node_vault.h"

/* D/fetch/<kind>-<hex of key><end> */
at_err at_vault_fetch_path(const struct at_vault *v, enum at_blob_kind kind, struct at_hash key, const char *end,
                           struct at_diag *diag, char ret_path[AT_PATH_BYTES]);
at_err at_vault_disk_error(struct at_diag *diag, const char *path); /* from errno: AT_E_DISK */
at_err at_vault_put(int fd, const char *path, uint64_t offset, struct at_span bytes, struct at_diag *diag);
void at_vault_release_states(struct at_vault *v);

#endif
