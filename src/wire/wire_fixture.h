/* wire_fixture.h: for tests and fuzz targets: one well-formed object of each kind. */
#ifndef ATOLL_WIRE_WIRE_FIXTURE_H
#define ATOLL_WIRE_WIRE_FIXTURE_H

#include "wire/genesis.h"
#include "wire/record.h"

#include <string.h>

static inline struct at_hash fixture_hash(uint8_t x)
{
    struct at_hash h;
    memset(h.b, x, sizeof h.b);
    return h;
}

static inline struct at_genesis wire_fixture_genesis(const char *preset_name)
{
    const struct at_preset *p;
    AT_ASSERT(at_preset_find(preset_name, NULL, &p) == AT_OK);
    struct at_genesis g = {.profile = "F32-1",
                           .tokenizer = "bytes",
                           .model = p->model,
                           .train = p->train,
                           .shard_count = 2,
                           .heldout_fraction = 0.05,
                           .heldout_bytes = 32768,
                           .min_members = 4,
                           .issuance = 1000000000,
                           .round_ms_max = 60000,
                           .created_ms = UINT64_C(1790000000123)};
    at_outer_config_default(&g.outer, AT_OUTER_MEAN);
    memset(g.steward.b, 0x5a, sizeof g.steward.b);
    strncpy(g.preset, preset_name, AT_GENESIS_TEXT_MAX);
    g.shards[0] = (struct at_text_shard){
        .hash = fixture_hash(1), .bytes = 1204997, .name = "moby-dick.txt", .licence = "public domain"};
    g.shards[1] = (struct at_text_shard){.hash = fixture_hash(2), .bytes = 1};
    return g;
}

/* Every field away from its default, so that a field forgotten in encode or decode shows. */
static inline struct at_record wire_fixture_record(enum at_record_kind kind)
{
    struct at_record r;
    memset(&r, 0, sizeof r);
    r.run = fixture_hash(7);
    r.time_ms = UINT64_C(1790000000456);
    r.kind = kind;
    switch (kind) {
    case AT_RECORD_JOIN:
        strcpy(r.join.name, "Queequeg \xc3\xa9");
        break;
    case AT_RECORD_OPEN:
        r.open.round = 3;
        r.open.state_root = fixture_hash(8);
        at_replicas_add(&r.open.replicas, 0);
        at_replicas_add(&r.open.replicas, 77);
        break;
    case AT_RECORD_RECEIPT:
        r.receipt = (struct at_receipt){.round = 3,
                                        .replica = 77,
                                        .state_in = fixture_hash(8),
                                        .start = 800,
                                        .samples = 80,
                                        .steps = 20,
                                        .tokens = 10240,
                                        .flops = UINT64_C(60000000000),
                                        .update = fixture_hash(9),
                                        .update_bytes = 3700000,
                                        .group = 5,
                                        .took_ms = 61000,
                                        .heldout = 30000000,
                                        .feedback = fixture_hash(17)};
        break;
    case AT_RECORD_CLOSE:
        r.close.round = 3;
        at_replicas_add(&r.close.included, 4095);
        break;
    case AT_RECORD_EPOCH:
        r.epoch = (struct at_epoch){
            .round = 3, .state_root = fixture_hash(10), .heldout_loss = 1.83, .balances = fixture_hash(11)};
        break;
    case AT_RECORD_END:
        r.end.rounds = 24;
        break;
    case AT_RECORD_READY:
        r.stand = (struct at_stand){.term = 2, .chain = fixture_hash(12), .has_ticket = true};
        memset(r.stand.key.b, 13, sizeof r.stand.key.b);
        memset(r.stand.key_use.b, 14, sizeof r.stand.key_use.b);
        memset(&r.stand.ticket, 15, sizeof r.stand.ticket);
        break;
    case AT_RECORD_BLOCK:
        r.head = (struct at_head){.term = 2, .view = 9, .reveal = fixture_hash(16)};
        break;
    case AT_RECORD_EVIDENCE:
        r.evidence = (struct at_evidence){.run = r.run, .of_votes = true, .term = 2};
        memset(r.evidence.key.b, 17, sizeof r.evidence.key.b);
        r.evidence.vote[0] = (struct at_vote){.view = 9, .kind = AT_VOTE_BLOCK, .hash = fixture_hash(18)};
        r.evidence.vote[1] = (struct at_vote){.view = 9, .kind = AT_VOTE_BLOCK, .hash = fixture_hash(19)};
        memset(r.evidence.vote[0].sig.b, 20, sizeof r.evidence.vote[0].sig.b);
        memset(r.evidence.vote[1].sig.b, 21, sizeof r.evidence.vote[1].sig.b);
        break;
    case AT_RECORD_MEASURE:
        r.measure = (struct at_measure){.speed = 70,
                                        .memory = 90,
                                        .link_count = 2,
                                        .link = {{.replica = 3, .rtt = 40}, {.replica = 300, .rtt = 99, .rate = 77}}};
        break;
    default:
        break;
    }
    return r;
}

#endif
