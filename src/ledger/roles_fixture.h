/* roles_fixture.h: members that have measured themselves, for tests of who is with whom. Include after cmocka.h. */
#ifndef ATOLL_LEDGER_ROLES_FIXTURE_H
#define ATOLL_LEDGER_ROLES_FIXTURE_H

#include "ledger/roles.h"

#include <string.h>

enum { MEMBERS_MAX = 48 };

struct bench {
    struct at_model_config model;
    struct at_roles x;
    struct at_measured measured[MEMBERS_MAX];
    struct at_grouped g[MEMBERS_MAX];
    struct at_roles_work work[MEMBERS_MAX];
    struct at_roles_row row[MEMBERS_MAX];
};

static inline void make(struct bench *b, uint32_t members, uint32_t stages)
{
    const struct at_preset *p;
    memset(b, 0, sizeof *b);
    assert_int_equal(at_preset_find("10m", NULL, &p), AT_OK);
    b->model = p->model;
    b->x = (struct at_roles){
        .model = &b->model, .batch = 8, .stages = stages, .measured = b->measured, .members = members};
}

static inline void measure(struct bench *b, uint32_t r, uint64_t gflops, uint64_t memory_mib)
{
    struct at_measure m = b->measured[r].last;
    m.speed = at_measure_code(gflops * 1000);
    m.memory = at_measure_code(memory_mib);
    at_roles_take(&b->measured[r], &m, 0, 1);
}

static inline void one_way(struct bench *b, uint32_t from, uint32_t to, uint64_t us)
{
    struct at_measure *m = &b->measured[from].last;
    if (m->link_count < AT_MEASURE_LINKS)
        m->link[m->link_count++] = (struct at_measure_link){.replica = (uint16_t)to, .rtt = at_measure_code(us)};
}

static inline void linked(struct bench *b, uint32_t x, uint32_t y, uint64_t us)
{
    one_way(b, x, y, us);
    one_way(b, y, x, us);
}

static inline struct at_replicas all(uint32_t members)
{
    struct at_replicas in;
    memset(&in, 0, sizeof in);
    for (uint32_t r = 0; r < members; r++) at_replicas_add(&in, r);
    return in;
}

static inline void form(struct bench *b, const struct at_replicas *in)
{
    const struct at_roles_room room = {b->work, b->row};
    at_roles_form(&b->x, b->g, in, &room);
}

#endif
