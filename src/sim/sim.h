/* sim.h: one simulated run from a seed: a world (world.h) of so many nodes for so many virtual hours, with the faults that
 * the caller picks, drawn from the seed. Pure: same options, same events, same bytes of trace.
 *
 *   time      0 ...................... 4/5 of the hours ................ the hours .......... + a while
 *             faults; Byzantine nodes  all faults end, everybody starts  the steward is asked  everybody has ended,
 *                                      again; rounds must go on          to end the run        or is named
 *
 * A run whose first two rounds after the faults are late goes on for as long as they may take in the worst case, five
 * times round_ms and 30 s (sim.c), before the steward is asked.
 *
 * Safety is judged on every step, from outside (world.h); the first violation stops the world. Liveness: after the
 * faults at least two rounds were done with contributions in them, and every member that is up ended with the run and
 * holds its last state. Of several stewards nobody can end the run alone: there every member that is up must come to the
 * log and the state that the run had at the hours' end.
 *
 * Several stewards: the first `stewards` nodes have tickets, and the seats grow from one to four as soon as four stand, by
 * three with every term of 32 rounds after that (ledger/seats.h). A seat that cannot vote for the rest of its term is as
 * bad as one that lies. So of those nodes only one has its disk spoilt or a clock that is wrong by more than two
 * seconds, and none where some lie; none of them leaves or stays away.
 *
 * Cost model: one node's unit takes `round_ms` at speed 1; speeds are 0.6 to 3, lines 10 to 500 Mbit/s up, once to four
 * times that down, 2 to 80 ms from the backbone, up to 0.05 % of packets lost, all drawn from the seed with more slow
 * ones than fast ones. The steward is well placed: speed 1.5, 1 Gbit/s, 5 ms. An update is a stand-in of 256 bytes whose
 * bytes weigh as much as the update they stand for. */
#ifndef ATOLL_SIM_SIM_H
#define ATOLL_SIM_SIM_H

#include "sim/world.h"

/* A run has room for AT_MEMBERS_MAX keys; some are for members that come again with a new one, and for floods. */
#define AT_SIM_NODES_MAX 4000
/* So many are all invited by node 0: as many links as its machine holds, less some for strangers and for members whose old
 * link has not been found dead yet. Of more the others are each invited by one who came before, and come one after the
 * other. */
#define AT_SIM_NODES_AT_ONCE 120

enum at_sim_fault {
    AT_SIM_LATENCY,
    AT_SIM_BANDWIDTH,
    AT_SIM_LOSS,
    AT_SIM_PARTITION,
    AT_SIM_ONEWAY,
    AT_SIM_CRASH,
    AT_SIM_DEATH,
    AT_SIM_SLOW,
    AT_SIM_SKEW,
    AT_SIM_DISK_FULL,
    AT_SIM_DISK_SLOW,
    AT_SIM_DISK_CORRUPT,
    AT_SIM_CHURN,
    AT_SIM_FLOOD,
    AT_SIM_FAULT_COUNT
};
struct at_sim_fault_info {
    const char *name, *about;
};
const struct at_sim_fault_info *at_sim_fault_info(enum at_sim_fault fault);

/* "all", "none", or names with commas between, into a set of bits. AT_E_USAGE names the word, why it is refused when it
 * is one that this simulator does not have, and what there is. */
at_err at_sim_faults_parse(const char *list, struct at_diag *diag, uint32_t *ret_set);
/* The way back; "none" for none. NUL-terminated, as much as fits. */
void at_sim_faults_text(uint32_t set, char *ret_text, size_t room);

/* Protocol bugs that can be planted into the stewards. AT_E_USAGE lists them. */
at_err at_sim_canary_parse(const char *name, struct at_diag *diag, enum at_node_canary *ret_canary);

struct at_sim_options {
    uint64_t seed;
    int nodes;
    int stewards;  /* 1, 4, 7 .. 31: so many may hold seats; 0: 1 */
    int byzantine; /* so many of the nodes: of the stewards where those are more than three times as many, else others */
    int nats;      /* percent of the members that nobody can dial; a third of these behind symmetric NATs */
    uint64_t duration_ms;
    uint64_t round_ms; /* of one unit at speed 1; 0: a 48th of the duration, 10 s to 10 min; of more than 166
                        * nodes a 24th, up to 3.6 s for each */
    uint64_t update_bytes;
    uint32_t faults;         /* bits of enum at_sim_fault */
    double faults_per_round; /* of each node, all kinds together, on average */
    enum at_node_canary canary;
    size_t trace_bytes; /* keep so many bytes of trace, the newest; 0: none is made */
};

struct at_sim;
/* AT_E_USAGE: options that make no sense together; AT_E_NOMEM. */
at_err at_sim_init(const struct at_sim_options *options, struct at_diag *diag, struct at_sim **ret_sim);
void at_sim_release(struct at_sim *sim);

/* Lets so much virtual time pass. False: the run is over; the report says how. */
bool at_sim_advance(struct at_sim *sim, uint64_t ms);

struct at_sim_report {
    uint64_t now_ms, duration_ms, round_ms;
    bool healing, over;
    uint32_t safety_violations; /* 0 or 1: the first one stops the world */
    const char *violation;      /* NULL: none. Borrowed from the simulation */
    bool liveness;              /* meant only when over */
    const char *unfinished;     /* why not; NULL. Borrowed */
    uint32_t rounds_after_faults;
    uint64_t contributions_after_faults;
    uint32_t kept_out; /* honest nodes that are no members at the end: refused, or never arrived */
    uint32_t finality_ms_p50, finality_ms_p99; /* of records; of several stewards: of blocks (world.h) */
    uint32_t record_finality_ms_p50, record_finality_ms_p99;
    double nodes_mean; /* honest ones running, over time */
    double bytes_per_node_round, control_bytes_per_node_round, messages_per_node_round;
    double messages_of[AT_MSG_KIND_COUNT]; /* the same by kind, of all nodes' machines */
    double utilisation;                    /* of honest nodes' running time: trained on what was counted */
    struct at_hash state_root, trace_hash;
    struct at_world_counts counts;
};
void at_sim_report(struct at_sim *sim, struct at_sim_report *ret_report);
const char *at_sim_trace(const struct at_sim *sim); /* the newest lines; "" without */

#endif
