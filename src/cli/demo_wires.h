/* demo_wires.h: the wires between the demo's members, so that they can be cut: for `atoll demo --chaos`, as a plain user and
 * on any Linux machine.
 *
 * Member i listens at a loopback address of its own, 127.77.0.(i+1), and tells the others not that port but its wire's, at
 * the same address (`atoll start --listen .. --announce ..`). Whoever dials it comes from his own address, and his
 * connection is carried on, unread, with his address as its source. A cut direction carries nothing: what is sent stays
 * where it is, with its sender, ends of connections included, and nothing new is connected; when it heals everything
 * goes on as after packets were lost. TLS is between the members as ever; nothing in a node knows of wires.
 *
 * A thread of its own carries; the calls below come from one other thread, and hold when they return. */
#ifndef ATOLL_CLI_DEMO_WIRES_H
#define ATOLL_CLI_DEMO_WIRES_H

#include "base/bytes.h"

#define AT_WIRES_MEMBERS_MAX 64
#define AT_WIRES_TEXT        32

struct at_wires;

/* AT_E_ENV: this system gives no such addresses. */
at_err at_wires_start(int members, struct at_diag *diag, struct at_wires **ret_wires);
/* Where member i listens, a port that is free now, and what it tells the others: HOST:PORT each. */
void at_wires_place(const struct at_wires *w, int i, char ret_listen[AT_WIRES_TEXT], char ret_announce[AT_WIRES_TEXT]);
/* Nothing of `from` reaches `to` any more. Cuts add up: as many have to be mended. Returns how many connections this stopped. */
uint32_t at_wires_cut(struct at_wires *w, int from, int to);
/* Takes one cut back. Returns how many bytes had come as far as the cut. */
uint64_t at_wires_mend(struct at_wires *w, int from, int to);
/* Everything is cut off and freed. NULL is fine. */
void at_wires_stop(struct at_wires *w);

#endif
