/* roles.h: who trains with whom, and who does not train, from what members have measured of themselves (MEASURE) and what
 * their units took (RECEIPT). Pure; integers only; Exact: yes: everybody who knows the log knows the roles.
 *
 * What is believed. A link counts when both ends tell of it, with the longer of their round trips; between two members
 * that do not, AT_ROLES_FAR_US, or less where members between them are known. A speed counts as it is claimed until units
 * show otherwise: where one took more than AT_ROLES_DOUBT times what the speeds of its group promise, the group's speeds
 * are halved until they promise half as much as was seen; where one took at most twice as long as promised, they are
 * believed twice as much again. Whoever is wronged by that was with somebody who is not as fast as he says, and is
 * believed again with others. Who has measured nothing counts as fast as the slowest who has.
 *
 * A step of a group, in microseconds: its slowest stage, longer by the bubble (m + n - 1) / m of n stages and m
 * microbatches, and for each link between neighbours its round trip, as often as all of n microbatches have gone through
 * (m / n), and what its activations take: a round trip for each AT_ROLES_WINDOW bytes (a link is taken to carry as much in
 * one), or their bytes at the link's rate where that is known and takes longer. The layers are cut by speed, within the
 * memory.
 *
 * A rate is what has come over a link at least (base/line_rate.h), in kbit/s; each end tells of what came to it. Of a link the
 * smaller of both figures counts, or the one that there is. A member's line is the best of the links that it tells of and whose
 * other ends tell a rate too, once there are AT_ROLES_LINE_LINKS of these (of one, nobody knows which end is the slow one).
 * Two whose link is not known have what the slower line of both carries, as far as that is known; where nothing is, rates do
 * not count. A link that is known carries no more than that either (as where one end alone says so); but it may have been
 * measured while either end's line carried others too, as when all fetch updates: so up to AT_ROLES_SHARED times as much is
 * believed of it, as far as both lines are known to carry that. So what a member says of its own line can make a link no better
 * than if nothing were known, and a line that one other member makes little of is worth what the rest do.
 *
 * Forming groups: the fastest first begins one, and takes the one that adds least to it (its part of the work, and the
 * round trip to it); again, until the group is full. It takes nobody with whom a step would take longer than without, as
 * long as there is room for the model without: who is too far away or too slow to be of use to a group is not put in.
 *
 * Who gets on with whom: a group of members that all took part and handed in nothing in AT_ROLES_IDLE rounds in a row has
 * stalled. One of them is to blame, and who cannot be known; so all are suspects for AT_ROLES_APART rounds, twice as long
 * each time, until a unit of theirs with others counts. Suspects who stalled together are not all put together again. Groups
 * take those who have stalled least first, and where several have room for the model nobody under suspicion: so whoever
 * stalls is put with those who are left over, stalls with them, and in the end has stalled more often than anybody else.
 * Where no other group has room for the model, the one that stalled stays.
 *
 * Who stays: whole groups that were formed so, and whose members all take part, stay as they are; the rest, spares too, is formed anew. Everything
 * is formed anew only when that gives half as much again: units a second, of rounds that end with the slowest group.
 *
 * Who does not train: who has not room for the smallest stage; who is in a group that takes AT_ROLES_SLOW times as long as
 * the median one; and of groups that are not full those that take more than half as long again as the slowest full one.
 *
 * As long as nobody who takes part has measured anything, groups are those of at_groups_form. */
#ifndef ATOLL_LEDGER_ROLES_H
#define ATOLL_LEDGER_ROLES_H

#include "ledger/groups.h"

#define AT_ROLES_FAR_US     100000
#define AT_ROLES_WINDOW     (UINT64_C(1) << 18)
#define AT_ROLES_LINE_LINKS 2
#define AT_ROLES_SHARED     8
#define AT_ROLES_DOUBT      4
#define AT_ROLES_SLOW       4
#define AT_ROLES_IDLE       2
#define AT_ROLES_APART      8
#define AT_ROLES_STALLS     6 /* so many are counted */

/* A member may measure itself so often (its links may double so often while a run begins, and what is known of their rates
 * too), and once more for each eight rounds since: */
#define AT_ROLES_MEASURES       12
#define AT_ROLES_MEASURE_ROUNDS 8

struct at_measured { /* a member's; all zero: it has told nothing */
    struct at_measure last;
    uint8_t doubt;         /* its speed counts half so often */
    uint8_t idle;          /* rounds in a row in which its group was whole and handed in nothing */
    uint8_t stalls;        /* how often its groups have stalled, less the units since that counted */
    uint16_t apart;        /* so many rounds more it is a suspect, */
    uint32_t stalled;      /* since this group stalled: a number of its own; 0: it is none */
    uint8_t together;      /* how many there were in it */
    uint32_t count, round; /* records; round of the first */
    uint64_t time_ms;      /* of the last: an old one cannot be said again */
};

/* Room for at_roles_form; for each member one of both. */
struct at_roles_room {
    struct at_roles_work {
        struct at_grouped group[2];
        uint32_t speed, line_kbit;
    } * work;
    struct at_roles_row {
        uint64_t us;
        uint32_t speed, replica;
    } * row;
};

/* What is known of the members of a run. */
struct at_roles {
    const struct at_model_config *model;
    uint32_t batch, stages;
    const struct at_measured *measured; /* [members] */
    uint32_t members;
};

/* The groups and roles of a round from those before. g: [members]; in: who takes part, at least one. */
void at_roles_form(const struct at_roles *x, struct at_grouped *g, const struct at_replicas *in,
                   const struct at_roles_room *room);
/* A member's MEASURE in this round, accepted. */
void at_roles_take(struct at_measured *m, const struct at_measure *told, uint32_t round, uint64_t time_ms);
/* What a step of those in `group` should take, by what is believed of them now. 0: one of them has measured nothing. */
uint64_t at_roles_step_us(const struct at_roles *x, const struct at_grouped *g, uint32_t lead, uint32_t group);
/* What the member's line carries, both ways, in kbit/s. 0: not known. */
uint32_t at_roles_line_kbit(const struct at_roles *x, uint32_t replica);
/* What the activations of a step take over such a line, one way. kbit 0: 0. */
uint64_t at_roles_line_us(const struct at_roles *x, uint32_t kbit);
/* It has measured itself, and to pass on a step's activations over its line, one way, takes longer than half of the step does
 * on it alone: nothing would be gained by sharing the work with another such machine. */
bool at_roles_is_narrow(const struct at_roles *x, uint32_t replica);
/* Nobody of the group has handed in a unit of this round that counts. measured: as before. */
void at_roles_idle(const struct at_grouped *g, uint32_t lead, uint32_t round, struct at_measured *measured);
/* After at_roles_form: who does not train has no unit to show, and is believed again by and by; suspicion passes. */
void at_roles_rest(const struct at_grouped *g, uint32_t members, struct at_measured *measured);
/* What their unit of so many steps took, and who was left behind: how far they are believed from now on. measured: those of x. */
void at_roles_seen(const struct at_roles *x, const struct at_grouped *g, uint32_t lead, uint32_t group, uint32_t steps,
                   uint64_t took_ms, struct at_measured *measured);

#endif
