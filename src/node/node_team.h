/* node_team.h: the links between members that compute a unit together (swarm/node_group.c), as at_comm: what one stage
 * sends to another goes as the byte stream of net/ranks_box.h, which matches and bounds it, in frames of class ACTIVATION
 * over the members' link.
 *
 *   offset  bytes  of a frame's payload (little-endian)
 *   0       4      the receiver's number of the attempt
 *   4       4      the sender's
 *   8       1 ..   the next bytes of the stream
 *
 * A frame of another attempt than the present one is dropped: its stream is over. Who sends knows the receiver's number,
 * so it has begun: nothing is lost at the beginning. What arrives before it is wanted takes at most AT_RANKS_EAGER_BYTES a
 * peer.
 *
 * Threads: the comm belongs to the thread that computes; everything else to the loop's. A team is the loop's, and is
 * referred to by whoever computes with it: it goes with the last at_team_put. */
#ifndef ATOLL_NODE_NODE_TEAM_H
#define ATOLL_NODE_NODE_TEAM_H

#include "base/comm.h"
#include "net/net.h"
#include "swarm/node_machine.h"

struct at_team;

/* notify: there is something to send; called on either thread. NULL: no memory. One reference is the caller's. */
struct at_team *at_team_new(const struct at_node_team *team, void (*notify)(void *user), void *user);
void at_team_keep(struct at_team *t);
void at_team_put(struct at_team *t); /* NULL is fine */
uint32_t at_team_session(const struct at_team *t);

/* The peers' numbers and links are known: what is posted leaves from now on. */
void at_team_join(struct at_team *t, const struct at_node_team *team);
/* For who computes; after join. Waits end with AT_E_PEER when a link is lost, and with AT_E_INTERRUPTED after end(). */
struct at_comm at_team_comm(struct at_team *t);

/* Sends what the links take. */
void at_team_pump(struct at_team *t, struct at_net *net);
/* A frame of class ACTIVATION. AT_E_PEER: its sender broke the protocol; the team is over then. */
at_err at_team_frame(struct at_team *t, const struct at_node_id *from, struct at_span payload, struct at_diag *diag);
void at_team_link_down(struct at_team *t, uint64_t link, const char *reason);
void at_team_end(struct at_team *t);

#endif
