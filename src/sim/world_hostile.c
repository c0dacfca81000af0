/* world_hostile.c: Byzantine nodes. Each runs the real machine, so that it is always at a point of the protocol where a
 * lie can do harm, and this file stands between the machine and its links: it holds back, changes, repeats and invents
 * what is said. And strangers, who are no members and say what they like. */
#include "sim/world_internal.h"
#include "wire/agree.h"

#include <stdlib.h>
#include <string.h>

/* The message again, changed; kept in the node's buffer until the next one. */
static bool say(struct at_world *w, int node, const struct at_message *msg, struct at_span *ret_bytes)
{
    struct at_buf *out = &w->nodes[node].said;
    at_buf_clear(out);
    if (at_message_encode(msg, out)) return false; /* out of shape: then it says nothing */
    *ret_bytes = at_buf_span(out);
    return true;
}

/* A receipt of work that was not done, or of somebody else's. */
static void lie(struct at_world *w, struct at_receipt *r)
{
    switch (at_world_draw(w, 7)) {
    case 0:
        r->tokens += 1 + at_world_draw(w, 1000);
        break;
    case 1:
        r->flops *= 2;
        break;
    case 2:
        r->start += 1 + at_world_draw(w, 100);
        break;
    case 3:
        r->round += 1;
        break;
    case 4:
        r->replica = (uint32_t)at_world_draw(w, (uint64_t)w->options.nodes);
        break;
    case 5:
        r->update.b[0] ^= 1;
        break;
    default:
        r->update_bytes = 1 + at_world_draw(w, UINT64_C(1) << 40);
        break;
    }
}

static bool wrong_receipt(struct at_world *w, int node, struct at_message *msg, struct at_span *ret_bytes)
{
    struct at_record rec;
    struct at_signed_record signed_rec;
    if (at_record_decode(at_signed_record_body(msg->submit.record), NULL, &rec)) return true;
    if (rec.kind != AT_RECORD_RECEIPT) return true;
    lie(w, &rec.receipt);
    if (at_record_sign(&rec, &w->nodes[node].key, NULL, &signed_rec)) return true;
    msg->submit.record = &signed_rec;
    return say(w, node, msg, ret_bytes);
}

static bool wrong_piece(struct at_world *w, int node, uint64_t link, struct at_message *msg, struct at_span *ret_bytes)
{
    uint64_t how = w->nodes[node].knob[AT_WORLD_HOSTILE];
    struct at_buf data = {0};
    bool update = msg->piece.kind == AT_BLOB_UPDATE;
    if (!update && msg->piece.kind != AT_BLOB_TILE) return true;
    if (update && how & AT_WORLD_HOSTILE_WITHHOLD) return false;
    if (update && how & AT_WORLD_HOSTILE_SOME && (w->now_ms / w->options.round_ms_max + link) % 2) return false;
    if (!(how & AT_WORLD_HOSTILE_GARBAGE) || msg->piece.data.n == 0) return true;
    if (at_buf_append(&data, msg->piece.data.p, msg->piece.data.n)) return false;
    data.p[at_world_draw(w, data.n)] ^= 0x80;
    msg->piece.data = at_buf_span(&data);
    bool says = say(w, node, msg, ret_bytes);
    at_buf_release(&data);
    return says;
}

/* The same for many at once; each may be held back by itself. */
static bool wrong_bundle(struct at_world *w, int node, uint64_t link, struct at_message *msg, struct at_span *ret_bytes)
{
    uint64_t how = w->nodes[node].knob[AT_WORLD_HOSTILE];
    struct at_span data[AT_BUNDLE_MAX];
    struct at_buf garbage = {0};
    uint32_t at = (uint32_t)at_world_draw(w, msg->bundle.count);
    bool some = how & AT_WORLD_HOSTILE_SOME && (w->now_ms / w->options.round_ms_max + link) % 2;
    if (how & AT_WORLD_HOSTILE_WITHHOLD || (some && at % 2)) return false;
    memcpy(data, msg->bundle.data, msg->bundle.count * sizeof *data);
    if (some) data[at].n = 0; /* it says that it does not have this one */
    if (how & AT_WORLD_HOSTILE_GARBAGE && data[at].n > 0) {
        if (at_buf_append(&garbage, data[at].p, data[at].n)) return false;
        garbage.p[at_world_draw(w, garbage.n)] ^= 0x80;
        data[at] = at_buf_span(&garbage);
    }
    msg->bundle.data = data;
    bool says = say(w, node, msg, ret_bytes);
    at_buf_release(&garbage);
    return says;
}

static void invent(struct at_world *w, uint64_t link)
{
    uint8_t bytes[300];
    size_t n = 1 + (size_t)at_world_draw(w, sizeof bytes);
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)at_world_draw(w, 256);
    at_world_stranger_send(w, link, at_span(bytes, n));
}

/* More than was to be said, on the same link. */
static void say_more(struct at_world *w, int node, uint64_t link, struct at_span said)
{
    struct at_buf *before = &w->nodes[node].said;
    uint64_t how = w->nodes[node].knob[AT_WORLD_HOSTILE];
    if (how & AT_WORLD_HOSTILE_NOISE && at_world_draw(w, 20) == 0) invent(w, link);
    if (how & AT_WORLD_HOSTILE_REPLAY && before->n > 0 && at_world_draw(w, 8) == 0)
        at_world_stranger_send(w, link, at_buf_span(before));
    for (int i = 0; how & AT_WORLD_HOSTILE_FLOOD && i < 40; i++) at_world_stranger_send(w, link, said);
    if (!(how & AT_WORLD_HOSTILE_REPLAY) || at_world_draw(w, 4) > 0) return;
    at_buf_clear(before);
    if (at_buf_append(before, said.p, said.n)) at_buf_clear(before);
}

/* The key of a seat that this node holds, of the secrets on its disk; false: none. */
static bool seat_key(const struct at_world *w, int node, struct at_keypair *ret_key)
{
    const struct at_world_node *n = &w->nodes[node];
    int seat = at_ledger_seat(&w->judge.fold, &n->key.id);
    for (size_t i = 0; i < n->secret_count && seat >= 0; i++)
        if (at_node_secret_key(&n->secrets[i], &n->key, ret_key) &&
            at_node_id_eq(&ret_key->id, &w->judge.fold.seats.seat[seat].key))
            return true;
    return false;
}

/* To some peers its own proposals are others: later by a millisecond, and signed as they must be. */
static bool equivocate(struct at_world *w, int node, struct at_message *msg, struct at_span *ret_bytes)
{
    struct at_block_room *room = malloc(sizeof *room);
    struct at_agree_mem mem = {NULL};
    struct at_agree agree;
    struct at_buf out = {0};
    struct at_keypair key;
    uint8_t *bytes = malloc(AT_BLOCK_BYTES_MAX), text[AT_VOTE_TEXT_BYTES];
    bool says = true;
    if (room && bytes && at_agree_decode(msg->agree.bytes, &mem, NULL, &agree) == AT_OK &&
        agree.kind == AT_AGREE_PROPOSAL && agree.proposal.is_signed && seat_key(w, node, &key) &&
        at_block_decode(agree.proposal.block, NULL, room) == AT_OK) {
        room->block.time_ms++;
        size_t n = at_block_encode(&room->block, bytes);
        struct at_vote vote = {.view = room->block.view, .kind = AT_VOTE_BLOCK, .hash = at_sha256(bytes, n)};
        at_vote_text(&vote, w->run, agree.term, text);
        agree.proposal.sig = at_sign(&key, at_span(text, sizeof text));
        agree.proposal.block = at_span(bytes, n);
        if (at_agree_encode(&agree, &out) == AT_OK) {
            msg->agree.bytes = at_buf_span(&out);
            says = say(w, node, msg, ret_bytes);
        }
    }
    free(room);
    free(bytes);
    at_buf_release(&out);
    at_agree_mem_release(&mem);
    return says;
}

bool at_world_tamper(struct at_world *w, int node, uint64_t link, struct at_span said, struct at_span *ret_bytes)
{
    struct at_message msg;
    uint64_t how = w->nodes[node].knob[AT_WORLD_HOSTILE];
    say_more(w, node, link, said);
    if (at_message_decode(said, &w->mem, NULL, &msg)) return true;
    if (msg.kind == AT_MSG_PIECE) return wrong_piece(w, node, link, &msg, ret_bytes);
    if (msg.kind == AT_MSG_BUNDLE) return wrong_bundle(w, node, link, &msg, ret_bytes);
    if (msg.kind == AT_MSG_SUBMIT && how & AT_WORLD_HOSTILE_RECEIPT) return wrong_receipt(w, node, &msg, ret_bytes);
    const struct at_world_link *l = &w->links[(link - 1) / 2];
    bool half = l->end[(link - 1) % 2 ? 0 : 1] % 2 == 0, agrees = msg.kind == AT_MSG_AGREE || msg.kind == AT_MSG_COSIGN;
    if (agrees && half && how & AT_WORLD_HOSTILE_HOLD_VOTES) return false;
    if (msg.kind == AT_MSG_AGREE && half && how & AT_WORLD_HOSTILE_EQUIVOCATE)
        return equivocate(w, node, &msg, ret_bytes);
    bool own = msg.kind == AT_MSG_READY && at_node_id_eq(&msg.ready.member, &w->nodes[node].key.id);
    if (own && how & AT_WORLD_HOSTILE_READY) {
        msg.ready.state_root.b[0] ^= 1;
        msg.ready =
            at_presence_sign(&w->nodes[node].key, w->run, msg.ready.counter, msg.ready.round, msg.ready.state_root);
        return say(w, node, &msg, ret_bytes);
    }
    return true;
}

/* ---- strangers ---- */
static void stranger_says(struct at_world *w, uint64_t link, const struct at_message *msg)
{
    struct at_buf bytes = {0};
    if (at_message_encode(msg, &bytes) == AT_OK) at_world_stranger_send(w, link, at_buf_span(&bytes));
    at_buf_release(&bytes);
}

/* A record in good order, so many times. */
static void stranger_joins(struct at_world *w, uint64_t link, const struct at_keypair *key, int times)
{
    struct at_record rec = {.kind = AT_RECORD_JOIN, .run = w->run, .time_ms = 1 + w->now_ms};
    struct at_signed_record signed_rec;
    struct at_message msg = {.kind = AT_MSG_SUBMIT, .submit = {.record = &signed_rec}};
    memcpy(rec.join.name, "nobody", sizeof "nobody");
    if (at_record_sign(&rec, key, NULL, &signed_rec)) return;
    for (int i = 0; i < times; i++) stranger_says(w, link, &msg);
}

void at_world_flood_now(struct at_world *w, int node)
{
    struct at_message hello = {.kind = AT_MSG_HELLO}, want = {.kind = AT_MSG_WANT}, get = {.kind = AT_MSG_LOG_GET};
    if (!w->nodes[node].machine) return;
    struct at_keypair key = at_world_stranger_key(w, ++w->strangers);
    uint64_t link = at_world_stranger_link(w, &key, node), how = at_world_draw(w, 6);
    if (link == 0) return;
    w->counts.floods++;
    hello.hello.protocol = AT_PROTOCOL_VERSION;
    hello.hello.run = w->run;
    want.want.kind = AT_BLOB_SHARD;
    want.want.key = w->g.shards[0].hash;
    want.want.bytes = AT_PIECE_BYTES_MAX;
    if (how > 0) stranger_says(w, link, &hello); /* 0: half open */
    if (how == 1 || how == 3) stranger_joins(w, link, &key, how == 1 ? 1 : 100);
    for (int i = 0; how == 2 && i < 100; i++) stranger_says(w, link, &want);
    for (int i = 0; how == 4 && i < 100; i++) stranger_says(w, link, &get);
    for (int i = 0; how == 5 && i < 100; i++) invent(w, link);
    at_world_push(w, AT_WORLD_LINK_BREAK, -1, 1 + at_world_draw(w, 30000))->id = (link - 1) / 2;
}
