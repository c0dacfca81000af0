/* What members say of themselves comes from peers, and every node forms groups from it. The input is a script: who tells
 * what, who takes part, what units took, which groups hand in nothing. Properties: everybody who takes part has one part; a group is a chain that its
 * members agree on, of at most as many as there are stages; somebody trains; the cut of every group has all layers. */
#include "ledger/roles.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMBERS = 24 };

struct script {
    const uint8_t *p;
    size_t n;
};

static uint8_t next(struct script *s)
{
    if (s->n == 0) return 0;
    s->n--;
    return *s->p++;
}

struct world {
    struct at_model_config model;
    struct at_measured measured[MEMBERS];
    struct at_grouped g[MEMBERS];
    struct at_roles_work work[MEMBERS];
    struct at_roles_row row[MEMBERS];
};

static void tell(struct world *w, struct script *s, bool rates)
{
    struct at_measure m = {.speed = next(s), .memory = next(s)};
    uint32_t who = next(s) % MEMBERS;
    for (uint32_t r = next(s) % MEMBERS; r < MEMBERS && m.link_count < AT_MEASURE_LINKS; r += 1 + next(s) % 8u) {
        struct at_measure_link *l = &m.link[m.link_count++];
        *l = (struct at_measure_link){.replica = (uint16_t)r, .rtt = next(s)};
        if (rates) l->rate = next(s);
    }
    if (at_measure_wrong(&m) == NULL) at_roles_take(&w->measured[who], &m, 0, 1);
}

static void check(const struct world *w, const struct at_roles *x, const struct at_replicas *in)
{
    uint32_t train = 0;
    for (uint32_t r = 0; r < MEMBERS; r++) {
        const struct at_grouped *g = &w->g[r];
        struct at_stage_cut cut;
        uint32_t n = 0, layers = 0;
        AT_ASSERT(at_replicas_has(in, r) == (g->role != AT_GROUP_ROLE_NONE));
        AT_ASSERT((g->size > 0) == (g->role == AT_GROUP_ROLE_TRAINS));
        if (g->size == 0 || g->place != 0) continue;
        for (uint32_t k = r; k != AT_GROUP_END; k = w->g[k].next, n++)
            AT_ASSERT(n < x->stages && w->g[k].lead == r && w->g[k].place == n && w->g[k].size == g->size);
        AT_ASSERT(n == g->size);
        (void)at_group_cut(w->g, r, (UINT32_C(1) << n) - 1, x->model, x->batch, &cut);
        for (uint32_t s = 0; s < n; s++) layers += cut.layers[s];
        AT_ASSERT(layers == x->model->layers);
        train += n;
    }
    AT_ASSERT(train > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    const struct at_preset *p;
    struct script s = {data, size};
    memset(&w, 0, sizeof w);
    AT_ASSERT(at_preset_find("10m", NULL, &p) == AT_OK);
    w.model = p->model;
    struct at_roles x = {
        .model = &w.model, .batch = 8, .stages = 2 + next(&s) % 4u, .measured = w.measured, .members = MEMBERS};
    const struct at_roles_room room = {w.work, w.row};
    for (int i = 0; i < 200 && s.n > 0; i++) {
        uint8_t what = next(&s);
        if (what % 4 < 2) {
            tell(&w, &s, what % 4 == 1);
        } else if (what % 4 == 2) {
            uint32_t r = next(&s) % MEMBERS;
            if (w.g[r].size == 0) continue;
            if (what % 8 == 6) {
                at_roles_idle(w.g, w.g[r].lead, (uint32_t)i, w.measured);
                continue;
            }
            uint32_t group = (next(&s) & ((UINT32_C(1) << w.g[r].size) - 1)) | 1u << w.g[r].place;
            at_roles_seen(&x, w.g, w.g[r].lead, group, 1 + next(&s), (uint64_t)next(&s) << next(&s) % 32, w.measured);
        } else {
            struct at_replicas in;
            memset(&in, 0, sizeof in);
            for (size_t b = 0; b < MEMBERS / 8; b++) in.b[b] = next(&s);
            if (at_replicas_count(&in) == 0) continue;
            at_roles_form(&x, w.g, &in, &room);
            check(&w, &x, &in);
            at_roles_rest(w.g, MEMBERS, w.measured);
            for (uint32_t r = 0; r < MEMBERS; r++) {
                const struct at_measured *m = &w.measured[r];
                AT_ASSERT(m->stalls <= AT_ROLES_STALLS && (m->apart > 0) == (m->stalled != 0));
            }
        }
    }
    return 0;
}
