#include "parallel/schedule.h"

#include "base/err.h"

int at_schedule_in_flight(int stage, int stages, int microbatches)
{
    AT_ASSERT(stage >= 0 && stage < stages && microbatches >= 1);
    return stages - stage < microbatches ? stages - stage : microbatches;
}

struct at_turn at_schedule_turn(int stage, int stages, int microbatches, int i)
{
    AT_ASSERT(i >= 0 && i < 2 * microbatches);
    int first = at_schedule_in_flight(stage, stages, microbatches), after = i - first, more = microbatches - first;
    if (after < 0) return (struct at_turn){true, i};
    if (after >= 2 * more) return (struct at_turn){false, after - more};
    return after % 2 == 0 ? (struct at_turn){false, after / 2} : (struct at_turn){true, first + after / 2};
}

struct at_cut at_schedule_cut(long batch, int microbatches, int i)
{
    AT_ASSERT(microbatches >= 1 && microbatches <= batch && i >= 0 && i < microbatches);
    long each = batch / microbatches, longer = batch % microbatches; /* the first `longer` have one more */
    return (struct at_cut){i * each + (i < longer ? i : longer), each + (i < longer ? 1 : 0)};
}

long at_schedule_cut_max(long batch, int microbatches)
{
    return at_schedule_cut(batch, microbatches, 0).count;
}
