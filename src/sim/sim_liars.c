/* sim_liars.c: which nodes lie, how, and from when on.
 *
 * With one steward the liars are the last nodes, from the start. With several, S > 3F, they are the last F of those who
 * may hold seats: each has one of the two habits that only a steward can have, perhaps another one beside it, and begins
 * once the seats bear it: a term of n seats bears (n - 1) / 3 that lie, and the first one has one seat. */
#include "sim/sim_internal.h"

static bool are_stewards(const struct at_sim *s)
{
    return s->options.stewards > 3 * s->options.byzantine;
}

/* Started again whenever it gave up. */
static void lies(struct at_sim *s, int node, uint64_t habits)
{
    at_world_set(s->world, node, AT_WORLD_HOSTILE, habits, at_world_now_ms(s->world));
    for (uint64_t at = s->options.round_ms; at < s->options.duration_ms; at += s->options.round_ms)
        if (at >= at_world_now_ms(s->world)) at_world_return_node(s->world, node, at);
}

void at_sim_liars_start(struct at_sim *s)
{
    if (s->options.stewards > 1 && are_stewards(s)) return;
    for (int i = s->options.nodes - s->options.byzantine; i < s->options.nodes; i++) {
        uint64_t habits = 0;
        for (uint64_t n = at_sim_between(s, 1, 3); n > 0; n--) habits |= UINT64_C(1) << at_sim_draw(s, 9);
        lies(s, i, habits);
    }
}

static uint64_t steward_habits(struct at_sim *s)
{
    static const uint64_t beside[] = {0,
                                      0,
                                      AT_WORLD_HOSTILE_WITHHOLD,
                                      AT_WORLD_HOSTILE_SOME,
                                      AT_WORLD_HOSTILE_GARBAGE,
                                      AT_WORLD_HOSTILE_NONSENSE,
                                      AT_WORLD_HOSTILE_REPLAY,
                                      AT_WORLD_HOSTILE_READY};
    uint64_t own = at_sim_draw(s, 2) ? AT_WORLD_HOSTILE_HOLD_VOTES : AT_WORLD_HOSTILE_EQUIVOCATE;
    return own | beside[at_sim_draw(s, sizeof beside / sizeof beside[0])];
}

void at_sim_liars_turn(struct at_sim *s)
{
    int bears = ((int)at_world_seats(s->world) - 1) / 3;
    while (are_stewards(s) && s->lying < s->options.byzantine && s->lying < bears)
        lies(s, s->options.stewards - ++s->lying, steward_habits(s));
}

bool at_sim_may_fail(const struct at_sim *s, int node)
{
    if (s->options.stewards == 1) return node != 0;
    return node >= s->options.stewards || (s->options.byzantine == 0 && node == s->options.stewards - 1);
}
