/* node_sums.c: what the directory sums up to, so that of two members who know the same neither need tell the other all of it.
 *
 * The ids are cut into 64 ranges of equal width by their first six bits; the sum of a range is the XOR of a number for each
 * statement of an active member in it, made of its id and counter. PeersGet carries the sums of the asker, of 2^k ranges (those
 * beside each other are put together while there are few members), and what lies in ranges that sum to the same is left out
 * of the answer: among a thousand members who miss three statements some fifty are told, and not a thousand.
 *
 * The number is no hash that nobody could forge: a member that finds counters for which the sums stay the same hides some
 * statement of its range from those that ask, for as long as they hear it from nobody else; and a peer that is asked could say
 * nothing in any case. */
#include "swarm/node_internal.h"

#include <string.h>

enum { EACH = 8 }; /* members in a range, or so, while there are fewer ranges than there can be */

static void toggle(struct at_node_machine *m, const struct at_endpoints *e)
{
    if (e->counter) m->mesh.sums[at_endpoints_range(&e->node)] ^= at_endpoints_number(e);
}

void at_node_sums_change(struct at_node_machine *m, const struct at_endpoints *from, const struct at_endpoints *to)
{
    if (!m->mesh.ring_valid) { /* the sums are not either: both are made anew */
        at_node_ring_stale(m);
        return;
    }
    toggle(m, from);
    toggle(m, to);
}

void at_node_sums_toggle(struct at_node_machine *m, uint32_t replica)
{
    toggle(m, &m->mesh.peers[replica].where);
}

void at_node_sums_make(struct at_node_machine *m)
{
    memset(m->mesh.sums, 0, sizeof m->mesh.sums);
    for (uint32_t i = 0; i < m->mesh.ring_count; i++) at_node_sums_toggle(m, m->mesh.ring[i].replica);
}

/* Of `count` ranges the one with this number. */
static uint64_t sum_of(const struct at_node_machine *m, uint32_t count, uint32_t i)
{
    uint64_t sum = 0;
    for (uint32_t k = i * (AT_PEERS_SUMS_MAX / count); k < (i + 1) * (AT_PEERS_SUMS_MAX / count); k++)
        sum ^= m->mesh.sums[k];
    return sum;
}

struct at_span at_node_sums_write(const struct at_node_machine *m, uint8_t ret_bytes[8 * AT_PEERS_SUMS_MAX])
{
    uint32_t count = 1;
    while (count < AT_PEERS_SUMS_MAX && count * EACH < m->mesh.ring_count) count *= 2;
    for (uint32_t i = 0; i < count; i++) at_store_le64(ret_bytes + 8 * i, sum_of(m, count, i));
    return at_span(ret_bytes, 8 * (size_t)count);
}

void at_node_sums_differ(const struct at_node_machine *m, struct at_span sums, bool ret_differ[AT_PEERS_SUMS_MAX])
{
    uint32_t count = (uint32_t)(sums.n / 8);
    for (uint32_t k = 0; k < AT_PEERS_SUMS_MAX; k++) {
        uint32_t i = k * count / AT_PEERS_SUMS_MAX;
        ret_differ[k] = count == 0 || at_load_le64(sums.p + 8 * i) != sum_of(m, count, i);
    }
}

bool at_node_sums_told(const bool differ[AT_PEERS_SUMS_MAX], const struct at_node_id *id)
{
    return differ[at_endpoints_range(id)];
}
