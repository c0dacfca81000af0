#include "cli/train_rounds.h"

#include <inttypes.h>
#include <string.h>

bool at_train_looks(const struct at_train_setup *s, const struct at_round *round)
{
    uint32_t every = s->config.steps;
    return round->step_first / every != (round->step_first + round->steps) / every;
}

static bool all_alike(const struct at_train_setup *s)
{
    const struct at_outer_config *o = &s->outer;
    bool young = o->dense_fraction > 0 && o->steps_young != 0 && o->steps_young < s->config.steps;
    return o->kind != AT_OUTER_AUTO && !young;
}

struct at_round_text at_train_round_place(const struct at_train_setup *s, const struct at_round *round)
{
    struct at_round_text t;
    uint32_t rounds = s->config.rounds, number = round->round + 1;
    if (all_alike(s))
        snprintf(t.s, sizeof t.s, "%*" PRIu32 "/%" PRIu32, rounds > 99 ? 4 : 2, number, rounds);
    else
        snprintf(t.s, sizeof t.s, "%" PRIu32 ", step %" PRIu64 "/%" PRIu64, number, round->step_first + round->steps,
                 (uint64_t)rounds * s->config.steps);
    return t;
}

struct at_round_text at_train_round_choice(const struct at_train_setup *s, const struct at_round *round)
{
    struct at_round_text t = {""};
    char k[24] = "";
    if (s->outer.kind != AT_OUTER_AUTO) return t;
    if (round->k != 0) snprintf(k, sizeof k, ", k %" PRIu32, round->k);
    snprintf(t.s, sizeof t.s, ", %s%s, %" PRIu32 " step%s", at_codec_find(round->codec)->name, k, round->steps,
             round->steps == 1 ? "" : "s");
    return t;
}

void at_train_rounds_note(json_t *io_rounds, const struct at_round *round)
{
    const char *codec = at_codec_find(round->codec)->name;
    json_t *last = json_array_get(io_rounds, json_array_size(io_rounds) - 1); /* NULL: there is none */
    if (last != NULL && strcmp(json_string_value(json_object_get(last, "codec")), codec) == 0 &&
        json_integer_value(json_object_get(last, "k")) == round->k &&
        json_integer_value(json_object_get(last, "steps")) == round->steps) {
        json_t *count = json_object_get(last, "rounds");
        AT_ASSERT(json_integer_set(count, json_integer_value(count) + 1) == 0);
        return;
    }
    json_t *entry = json_object();
    AT_ASSERT(entry != NULL);
    at_json_set_text(entry, "codec", codec);
    at_json_set_int(entry, "k", round->k);
    at_json_set_int(entry, "steps", round->steps);
    at_json_set_int(entry, "rounds", 1);
    AT_ASSERT(json_array_append_new(io_rounds, entry) == 0);
}
