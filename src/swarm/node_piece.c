/* node_piece.c: the wants of a fetch, and the pieces that answer them. A window of wants is under way at one peer; each answer
 * is counted against its link, and what nobody asked for closes it.
 *
 * A genesis is fetched before anything else, into memory, and checked here; so are the hashes of a state's leaves
 * (node_tiles.c, where tiles go too). What a peer sends is bounded before it is kept: by the exact size where a record
 * or the genesis says it, else by the largest that can be. */
#include "swarm/node_internal.h"

void at_node_fetch_want(struct at_node_machine *m, struct at_node_fetch *f)
{
    struct at_node_link *link = at_node_link_find(m, f->link);
    uint64_t total = f->total ? f->total : f->bytes_exact;
    AT_ASSERT(link);
    while (f->owed < AT_NODE_WINDOW_PIECES) {
        if (total == 0 && f->owed > 0) break; /* the first answer says how long it is */
        if (total && f->asked >= total) break;
        struct at_message msg = {.kind = AT_MSG_WANT};
        msg.want.kind = f->kind;
        msg.want.key = f->key;
        msg.want.offset = f->asked;
        msg.want.bytes =
            total && total - f->asked < AT_PIECE_BYTES_MAX ? (uint32_t)(total - f->asked) : AT_PIECE_BYTES_MAX;
        at_node_send(m, f->link, &msg);
        if (link->wants_out++ == 0) link->answer_ms = m->now_ms;
        link->pieces_out++;
        f->asked += msg.want.bytes;
        f->owed++;
    }
}

static void genesis_complete(struct at_node_machine *m, struct at_node_fetch *f)
{
    struct at_diag diag = {0};
    struct at_node_link *link = at_node_link_find(m, f->link);
    at_node_fetch_over(m, f);
    if (!at_hash_eq(at_genesis_run_id(at_buf_span(&m->genesis_bytes)), m->options.run)) {
        at_buf_clear(&m->genesis_bytes);
        if (link) at_node_link_refuse(m, link, "this genesis is not the run's");
        return;
    }
    at_err_t err = at_genesis_decode(at_buf_span(&m->genesis_bytes), &diag, &m->genesis);
    if (!err) err = at_ledger_init(&m->ledger, &m->genesis, &diag);
    if (err) {
        at_node_end(m, err, "the run's genesis cannot be used: %s: %s", diag.where, diag.text);
        return;
    }
    m->ledger.verifier = m->options.verifier;
    m->has_genesis = true;
    at_node_log_start(m);
    at_node_op_add(m, AT_NODE_OP_GENESIS)->bytes = at_buf_span(&m->genesis_bytes);
    at_node_note(m, "fetched the genesis");
}

static bool piece_keep(struct at_node_machine *m, struct at_node_fetch *f, const struct at_msg_piece *piece)
{
    if (f->kind == AT_BLOB_GENESIS) {
        if (piece->offset == 0) at_buf_clear(&m->genesis_bytes);
        return at_buf_append(&m->genesis_bytes, piece->data.p, piece->data.n) == AT_OK;
    }
    if (f->kind == AT_BLOB_LEAVES) {
        if (piece->offset == 0) at_buf_clear(&m->tiles.leaves);
        return at_buf_append(&m->tiles.leaves, piece->data.p, piece->data.n) == AT_OK;
    }
    struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_WRITE);
    f->kept = true;
    op->read.kind = f->kind;
    op->read.key = f->key;
    op->read.offset = piece->offset;
    op->read.total = piece->total;
    op->bytes = piece->data;
    return true;
}

/* Of the peer that is asked now, or of one that was passed over. NULL: it is due. `ret_known`: it came already, from the
 * other of the two. */
static const char *piece_fault(const struct at_node_fetch *f, const struct at_msg_piece *piece, bool *ret_known)
{
    uint64_t due = f->written + AT_PIECE_BYTES_MAX < piece->total ? AT_PIECE_BYTES_MAX : piece->total - f->written;
    *ret_known = false;
    if (piece->total > f->bytes_max) return "the blob is larger than it can be";
    if (f->bytes_exact && piece->total != f->bytes_exact) return "the blob has another size than was said";
    if (f->total && piece->total != f->total) return "the blob changes its size";
    *ret_known = f->late_link && piece->offset < f->written;
    if (piece->offset != f->written || piece->data.n == 0 || piece->data.n != due) return "a piece that is not due";
    return NULL;
}

static void piece_took(struct at_node_machine *m, struct at_node_fetch *f, struct at_node_link *link)
{
    if (f->written < f->total) {
        if (f->state != AT_FETCH_RUN) return;
        if (f->asked < f->written) f->asked = f->written;
        at_node_fetch_want(m, f);
    } else if (f->kind == AT_BLOB_GENESIS) {
        genesis_complete(m, f);
    } else if (f->kind == AT_BLOB_LEAVES) {
        at_node_fetch_over(m, f);
        at_node_tiles_leaves(m, link);
    } else {
        f->state = AT_FETCH_CHECK;
        struct at_node_op *op = at_node_op_add(m, AT_NODE_OP_BLOB_FINISH);
        op->read.kind = f->kind;
        op->read.key = f->key;
        op->read.total = f->total;
    }
}

/* Whether a piece, or that there is none, was asked for; it is counted. A want for a bundle is answered by bundles only, and
 * one for a tile as such. */
bool at_node_fetch_answered(struct at_node_machine *m, struct at_node_link *link, enum at_blob_kind kind)
{
    bool tile = kind == AT_BLOB_TILE;
    uint32_t others = tile ? link->pieces_out : link->bundle_out > 0;
    if ((tile ? link->wants_out : link->pieces_out) <= others) return false;
    link->wants_out--;
    link->answer_ms = m->now_ms;
    if (kind == AT_BLOB_TILE) return true;
    link->pieces_out--;
    if (link->late > 0) link->late--;
    return true;
}

static bool piece_is_due(struct at_node_machine *m, struct at_node_fetch *f, struct at_node_link *link,
                         const struct at_msg_piece *piece, bool *ret_known)
{
    bool asked = f->state == AT_FETCH_RUN && f->link == link->id;
    const char *fault = piece_fault(f, piece, ret_known);
    if (!asked && (fault || f->late_link != link->id)) return false; /* given up meanwhile */
    if (asked && f->owed > 0) f->owed--;
    if (!*ret_known && fault) at_node_link_refuse(m, link, fault);
    return *ret_known || !fault;
}

static void piece_came(struct at_node_machine *m, struct at_node_fetch *f, const struct at_node_link *link,
                       const struct at_msg_piece *piece, bool known)
{
    f->total = piece->total;
    if (!known && f->written == 0)
        f->from = link->id;
    else if (!known && f->from != link->id)
        f->from = 0;
    if (!known) f->written += piece->data.n;
    f->moved_ms = m->now_ms;
    f->misses = 0;
    if (f->kind == AT_BLOB_UPDATE) m->tiles.exchange_ms = m->bundle.moved_ms = m->now_ms;
}

static void fetch_piece(struct at_node_machine *m, struct at_node_fetch *f, struct at_node_link *link,
                        const struct at_msg_piece *piece)
{
    bool known;
    if (!piece_is_due(m, f, link, piece, &known)) return;
    if (!known && !piece_keep(m, f, piece)) {
        at_node_link_refuse(m, link, "out of memory");
        return;
    }
    piece_came(m, f, link, piece, known);
    piece_took(m, f, link);
}

bool at_node_fetch_whole(struct at_node_machine *m, struct at_node_fetch *f, struct at_node_link *link,
                         const struct at_msg_piece *piece)
{
    bool known;
    if (f->written > 0 || !piece_is_due(m, f, link, piece, &known)) return false;
    piece_came(m, f, link, piece, false);
    f->state = AT_FETCH_CHECK;
    return true;
}

void at_node_piece(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_piece *piece)
{
    if (!at_node_fetch_answered(m, link, piece->kind)) {
        at_node_link_refuse(m, link, "a piece that nobody asked for");
        return;
    }
    if (piece->kind == AT_BLOB_TILE) {
        at_node_tiles_piece(m, link, piece);
        return;
    }
    struct at_node_fetch *f = at_node_fetch_find(m, piece->kind, piece->key);
    if (f && (f->state == AT_FETCH_RUN || f->state == AT_FETCH_WAIT)) fetch_piece(m, f, link, piece);
}

void at_node_missing(struct at_node_machine *m, struct at_node_link *link, const struct at_msg_missing *missing)
{
    if (!at_node_fetch_answered(m, link, missing->kind)) {
        at_node_link_refuse(m, link, "an answer to nothing");
        return;
    }
    if (missing->kind == AT_BLOB_TILE) {
        at_node_tiles_missing(m, link, missing);
        return;
    }
    struct at_node_fetch *f = at_node_fetch_find(m, missing->kind, missing->key);
    if (!f || f->state != AT_FETCH_RUN || f->link != link->id) return;
    if (f->owed > 0) f->owed--;
    at_node_fetch_missed(m, f, link);
}
