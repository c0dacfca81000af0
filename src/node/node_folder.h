/* node_folder.h: what a run folder D says about its node (key, name, addresses), where its files lie. Effects: files.
 *
 *   D/key              64 hex digits: the secret seed of the node's key; mode 0600
 *   D/ticket           the invite's ticket for a seat, where it had one: 192 hex digits; mode 0600
 *   D/seat-<term>      the secret of a seat for which this node stands, until the term is over (node_secrets.h)
 *   D/node.ini         lines key=value: run, name, listen, announce, contact, contact_key, log_size, log_root;
 *                      written last when a folder is made: a folder that has it is a whole one
 *   D/ledger.sqlite    genesis, records, checkpoints (store/store.h)
 *   D/data, D/updates  blobs by hash (store/blobs.h)
 *   D/fetch            what is being fetched, so that a fetch goes on after a crash
 *   D/model.safetensors, config.json, stats-<root>.safetensors   the run's state (train/checkpoint.h)
 *   D/momentum-<root>.safetensors   beside them where the outer step has momentum
 *   D/feedback.safetensors   what this member's updates left over (train/error_feedback.h); a loss of it is not one of work
 *   D/peers            where members can be reached, in their own signed words (swarm/node_peers.c); a cache
 *   D/lock, D/control.sock   of the running process */
#ifndef ATOLL_NODE_NODE_FOLDER_H
#define ATOLL_NODE_NODE_FOLDER_H

#include "os/file.h"
#include "wire/endpoints.h"
#include "wire/invite.h"
#include "wire/record.h"

struct at_folder {
    char dir[AT_PATH_BYTES];
    struct at_keypair key;
    struct at_hash run;
    char name[AT_NAME_BYTES_MAX + 1];
    char host[AT_HOST_BYTES_MAX + 1]; /* listens here */
    uint16_t port;
    char told_host[AT_HOST_BYTES_MAX + 1]; /* what others are told instead; told_port 0: the address above */
    uint16_t told_port;
    bool has_contact; /* a member: whom to dial; the founder has none */
    struct at_invite contact;
};

/* "HOST:PORT" or "[V6]:PORT"; AT_E_USAGE naming the text. */
at_err at_address_parse(const char *text, struct at_diag *diag, char ret_host[AT_HOST_BYTES_MAX + 1],
                        uint16_t *ret_port);
/* Is host:port free on this machine? port 0: picks one. AT_E_PORT, AT_E_USAGE. */
at_err at_address_probe(const char *host, uint16_t port, struct at_diag *diag, uint16_t *ret_port);
/* The host that others should dial: `host`, or this machine's first outward address when it is a wildcard. */
void at_address_outward(const char *host, char ret_host[AT_HOST_BYTES_MAX + 1]);

/* Where others can dial a node that listens on host:port: that, or of a wildcard each outward address of this machine.
 * Returns how many. */
uint32_t at_endpoints_of(const char *host, uint16_t port, struct at_endpoint ret_list[AT_ENDPOINTS_MAX]);
/* Takes over what others shall be told, HOST:PORT. AT_E_USAGE: not one numeric address and a port. */
at_err at_folder_announce(struct at_folder *f, const char *text, struct at_diag *diag);
/* Where others can dial this folder's node: what they shall be told, else the endpoints of where it listens. */
uint32_t at_folder_endpoints(const struct at_folder *f, struct at_endpoint ret_list[AT_ENDPOINTS_MAX]);

/* D/`name`; AT_E_TOO_BIG when the path is too long. */
at_err at_folder_path(const struct at_folder *f, const char *name, struct at_diag *diag, char ret_path[AT_PATH_BYTES]);
bool at_folder_is_one(const char *dir);
/* AT_E_DATA: no run folder, or damaged. */
at_err at_folder_load(const char *dir, struct at_diag *diag, struct at_folder *ret_folder);
/* Writes key (when there is none yet), ticket (when the contact has one) and node.ini. */
at_err at_folder_save(const struct at_folder *f, struct at_diag *diag);
/* The line that lets others in, of the log at (size, root): it names this node; or, while this node has no log yet, the
 * one whose invite it came with. Never with a ticket. */
at_err at_folder_invite(const struct at_folder *f, uint64_t log_size, struct at_hash log_root, struct at_diag *diag,
                        char ret_text[AT_INVITE_TEXT_MAX + 1]);

#endif
